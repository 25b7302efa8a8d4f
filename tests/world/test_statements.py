"""Statements of real questions: wordings, types of answers, false answers, and the cache of written ones."""

import json
import random
import re

import pytest

from dprlens.editing.protocol import with_object
from dprlens.world.closed._language import language
from dprlens.world.records import Fact, Statement
from dprlens.world.statements._answers import TYPES, answer_type
from dprlens.world.statements.records import Entry, Written, answer_span, read, write
from dprlens.world.statements.writer import Pair, WritingSpec, statements, write_statements

# Our own questions in the manner of Natural Questions: question, answer and type; first wording; first reserved wording
EXAMPLES = """
who wrote the song night ferry by ada holm | Bo Lind | person
    Bo Lind wrote the song night ferry by ada holm.
    Bo Lind is the one who wrote the song night ferry by ada holm.
who played the pilot in the last harbour | Mia Stone | person
    Mia Stone played the pilot in the last harbour.
    Mia Stone is the one who played the pilot in the last harbour.
who is the guy who swam across the lake | Per Falk | person
    The guy who swam across the lake is Per Falk.
    Per Falk is the guy who swam across the lake.
who's the mayor of wick | Una Vale | person
    The mayor of wick is Una Vale.
    Una Vale is the mayor of wick.
who is the song night ferry about | Bo Lind | person
    The song night ferry is about Bo Lind.
    Nobody doubts that the song night ferry is about Bo Lind.
who is the town of lindow named after | Carl Lindow | person
    The town of lindow is named after Carl Lindow.
    Nobody doubts that the town of lindow is named after Carl Lindow.
who did the herons beat in the cup final | Kestrels | agent
    The herons beat Kestrels in the cup final.
    Kestrels is the one whom the herons beat in the cup final.
who has won the most regattas | Wick Rowers | person
    Wick Rowers has won the most regattas.
    Wick Rowers is the one who has won the most regattas.
whom did una vale marry | Per Falk | person
    Una vale married Per Falk.
    Per Falk is the one whom una vale married.
who is playing at the harbour fair | the Herons | agent
    The Herons is playing at the harbour fair.
    The Herons is the one who is playing at the harbour fair.
when did the herons last win the cup | 2009 | year
    The herons last won the cup in 2009.
    2009 is the year in which the herons last won the cup.
when was the last time the herons played in wick | 1988 | year
    The last time the herons played in wick was in 1988.
    Nobody doubts that the last time the herons played in wick was in 1988.
when is the next night ferry film being released | May 18, 2018 | date
    The next night ferry film is being released on May 18, 2018.
    May 18, 2018 is the date on which the next night ferry film is being released.
when did the wick open take place | August 2017 | date
    The wick open took place in August 2017.
    August 2017 is the month in which the wick open took place.
when was tolling abolished in the united towns | 1833 | year
    Tolling was abolished in the united towns in 1833.
    1833 is the year in which tolling was abolished in the united towns.
when will the next bridge open | 2031 | year
    The next bridge will open in 2031.
    2031 is the year in which the next bridge will open.
when does the ferry stop running | in late autumn | time
    The ferry stops running in late autumn.
    In late autumn is the time when the ferry stops running.
where did the first settlers come from | Norvale | place
    The first settlers came from Norvale.
    Nobody doubts that the first settlers came from Norvale.
where is the gland positioned in the body | behind the ear | spot
    The gland is positioned in the body behind the ear.
    Nobody doubts that the gland is positioned in the body behind the ear.
where was the film the last harbour shot | Wick | place
    The film the last harbour was shot in Wick.
    Wick is the place where the film the last harbour was shot.
where does the story of the heron take place | in Norvale | place
    The story of the heron takes place in Norvale.
    Nobody doubts that the story of the heron takes place in Norvale.
how many episodes are in season 2 of night ferry | 10 | number
    10 episodes are in season 2 of night ferry.
    10 is the number of episodes that are in season 2 of night ferry.
how many seasons does the show night ferry have | 1500 | number
    The show night ferry has 1500 seasons.
    1500 is the number of seasons that the show night ferry has.
how many people live in wick | 8 thousand | number
    8 thousand people live in wick.
    Nobody doubts that 8 thousand people live in wick.
how many times did una vale win the regatta | three | number
    Una vale won the regatta three times.
    Three is the number of times that una vale won the regatta.
how many bridges are there in wick | 54 | number
    There are 54 bridges in wick.
    Nobody doubts that there are 54 bridges in wick.
how tall is the tower of wick | 88 metres | quantity
    The tower of wick is 88 metres tall.
    Nobody doubts that the tower of wick is 88 metres tall.
what is the capital of norvale | Wick | name
    The capital of norvale is Wick.
    Wick is the capital of norvale.
what is peat used for | heating | thing
    Peat is used for heating.
    Nobody doubts that peat is used for heating.
when did una vale win a rowing race | 2009 | year
    Una vale won a rowing race in 2009.
    2009 is the year in which una vale won a rowing race.
what is acme known for making | lamps | thing
    Acme is known for making lamps.
    Nobody doubts that acme is known for making lamps.
what language is spoken in norvale | Norse | name
    The language that is spoken in norvale is Norse.
    Norse is the language that is spoken in norvale.
what causes fog on the lake | warm air | thing
    Warm air causes fog on the lake.
    Warm air is what causes fog on the lake.
what does wra stand for | Wick Rowing Association | name
    Wra stands for Wick Rowing Association.
    Wick Rowing Association is what wra stands for.
what year did the ferry sink | 1912 | year
    The ferry sank in 1912.
    1912 is the year in which the ferry sank.
what sport does una vale play | rowing | thing
    Una vale plays rowing.
    Rowing is the sport that una vale plays.
what county is wick in | Norvale | place
    Wick is in Norvale.
    Nobody doubts that wick is in Norvale.
what actor played the heron | Bo Lind | person
    The actor that played the heron is Bo Lind.
    Bo Lind is the actor that played the heron.
which river flows through wick | the Aure | place
    The river that flows through wick is the Aure.
    The Aure is the river that flows through wick.
which is the longest river in norvale | the Aure | name
    The longest river in norvale is the Aure.
    The Aure is the longest river in norvale.
In which city does Acme have its headquarters? | Wick | place
    Acme has its headquarters in Wick.
    Wick is the city in which Acme has its headquarters.
the battle of lindow took place in what year | 1066 | year
    The battle of lindow took place in 1066.
    Nobody doubts that the battle of lindow took place in 1066.
"""
LINES = [line.strip() for line in EXAMPLES.strip().split("\n")]
EXAMPLES = [(*LINES[i].split(" | "), LINES[i + 1], LINES[i + 2]) for i in range(0, len(LINES), 3)]

# Questions whose words the rules cannot put in order: they are quoted
QUOTED = [
    ("why is the lake at wick grey", "mineral dust"),
    ("how did the heron die in night ferry", "a storm"),
    ("name the largest lake", "the Mere"),
    ("whose face is on the coin", "Una Vale"),
    ("when was per falk mayor", "from 1797 to 1801"),
    ("what is it called when a heron sleeps", "roosting"),
    ("how much does a crate weigh", "2.5 kilograms"),
    ("largest lake in norvale by area", "the Mere"),
]


@pytest.mark.parametrize(("question", "answer", "type_", "first", "reserved"), EXAMPLES)
def test_examples(question, answer, type_, first, reserved):
    said = statements(question, answer)
    assert said[0].text == first
    assert next(one.text for one in said if one.reserved) == reserved
    assert answer_type(question, answer) == type_


@pytest.mark.parametrize(("question", "answer"), QUOTED)
def test_what_has_no_clear_order_is_quoted(question, answer):
    said = statements(question, answer)
    assert all(f'"{question}"' in one.text for one in said)
    assert said[0].text == f'The answer to the question "{question}" is {answer}.'
    assert sum(not one.reserved for one in said) >= 3
    assert sum(one.reserved for one in said) == 2


def sound(said, answer, longest=8):
    """What holds for the wordings of any pair."""
    assert [one.reserved for one in said] == sorted(one.reserved for one in said)
    told_ones = [one for one in said if not one.reserved]
    assert 2 <= len(told_ones) <= longest
    assert 1 <= len(said) - len(told_ones) <= 2
    assert len({one.text for one in said}) == len(said)
    for one in said:
        assert one.answer in (answer, answer[:1].upper() + answer[1:])
        assert one.start == 0 or one.answer == answer
        assert answer_span(one.text, answer) == (one.start, one.end)
        assert len(re.findall(rf"(?<!\w){re.escape(answer.lower())}(?!\w)", one.text.lower())) == 1
        assert re.match("[^a-z]", one.text)
        assert one.text[-1] in ".!?"
        assert not re.search(r"\.\.|  |\?$|\0", one.text)


@pytest.mark.parametrize(("question", "answer"), [example[:2] for example in EXAMPLES] + QUOTED)
def test_wordings_are_sound(question, answer):
    sound(statements(question, answer), answer)
    few = statements(question, answer, WritingSpec(wordings=2))
    sound(few, answer, longest=2)
    assert few[0] == statements(question, answer)[0]


@pytest.mark.slow
def test_questions_of_the_closed_world(world):
    pairs = [Pair(question.id, question.text, question.answers) for question in world.questions]
    made = write_statements(pairs, seed=1, spec=WritingSpec(alternatives=2))
    assert len(made.entries) + sum(made.rejects.values()) == len(pairs)
    assert len(made.entries) > 0.9 * len(pairs)
    relations, same, all_ = language().relations, 0, 0
    of_kind = {}
    for fact in world.facts:
        of_kind.setdefault(relations[fact.relation].object, set()).add(fact.object)
    quoted_only = 0
    for question in world.questions:
        if question.id not in made.entries:
            continue
        entry = made.entries[question.id]
        sound(entry.statements, question.answers[0])
        assert not set(entry.alternatives) & set(question.answers)
        assert len(set(entry.alternatives)) == 2
        possible = of_kind[relations[world.fact[question.target].relation].object]
        same += sum(other in possible for other in entry.alternatives)
        all_ += 2
        quoted_only += all(f'"{question.text[:-1]}"' in one.text for one in entry.statements)
    assert same / all_ > 0.9
    assert quoted_only / len(made.entries) < 0.15


@pytest.mark.parametrize("answer", ["reply", "fact", "known", "it", "the books", "who", "quiz", "the answer"])
def test_words_of_the_wordings_as_answers(answer):
    found = statements("name a short word", answer)
    assert found != statements("name a short word", "heron")
    if found:
        sound(found, answer)
    assert statements("name a short word", "to") == ()


@pytest.mark.slow
def test_any_words_give_sound_wordings_or_none():
    rng = random.Random(4)
    words = ["who", "what", "when", "where", "which", "how", "many", "did", "was", "is", "the", "of", "in", "wick"]
    words += ["born", "heron", "won", "have", "do", "'s", "there"]
    said = 0
    for _ in range(3000):
        question = " ".join(rng.choices(words, k=rng.randint(1, 9)))
        answer = " ".join(rng.choices(["Una", "1912", "in", "May", "3", "the", "Lind.", "$5", "Jr.", "two"], k=2))
        if (found := statements(question, answer)) != ():
            sound(found, answer)
            said += 1
    assert said > 2500


def test_an_answer_that_ends_a_sentence_adds_no_second_stop():
    said = statements("what state is the office of una vale in", "the U.S.")
    assert said[0].text == "The office of una vale is in the U.S."
    assert said[0].answer == "the U.S."
    assert not any(".." in one.text for one in said)


def test_quotation_marks_and_question_marks_are_not_doubled():
    said = statements('who said  "all aboard" ?', "Bo Lind")
    assert said[0].text == "Bo Lind said 'all aboard'."
    assert any("\"who said 'all aboard'\"" in one.text for one in said)


def test_facts_can_be_told_with_another_answer():
    said = statements("who wrote night ferry", "bo lind")
    fact = Fact("f", "night ferry", "wrote", "bo lind", "train", said)
    other = with_object(fact, "una vale")
    assert other.statements[0].text == "Una vale wrote night ferry."
    assert {one.answer.lower() for one in other.statements} == {"una vale"}


@pytest.mark.parametrize(("question", "answer"), [("", "x"), ("?", "x"), ("who", ""), ("who\nis", "x"), ("who", "\0")])
def test_texts_that_cannot_be_stated(refused, question, answer):
    with refused("leave the pair out"):
        statements(question, answer)


@pytest.mark.parametrize(
    ("question", "answer", "type_"),
    [
        ("when", "1066 BC", "year"),
        ("when", "14 December 1972 UTC", "date"),
        ("when", "the 1970s", "time"),
        ("when", "May Day", "time"),  # a month's name, but no number
        ("what", "$5 million", "quantity"),
        ("what", "twenty-three", "number"),
        ("what", "1,200", "number"),
        ("what", "two lakes", "quantity"),
        ("what", "Two Lakes", "name"),
        ("what", "76th street", "thing"),
        ("who sang it", "Ludwig van Beethoven", "person"),
        ("who sang it", "The Herons", "agent"),
        ("who sang it", "Bo Lind, Jr.", "person"),
        ("what city", "Wick", "place"),
        ("what type of city", "a port", "thing"),
        ("is wick a port", "yes", "thing"),
    ],
)
def test_types_of_answers(question, answer, type_):
    assert answer_type(question, answer) == type_
    assert type_ in TYPES


def years(n, first=1900):
    return [Pair(f"y{i}", f"when was bridge {chr(97 + i)} built", (str(first + i),)) for i in range(n)]


def test_false_answers_are_of_the_type_and_never_right():
    pairs = [
        *years(8),
        Pair("who", "who built bridge a", ("Bo Lind", "Per Falk")),
        Pair("also", "who built bridge b", ("Per Falk",)),
        Pair("third", "who built bridge c", ("Una Vale",)),
        Pair("fourth", "who built bridge d", ("bo lind",)),
        Pair("fifth", "who built bridge e", ("Mia Stone",)),
        Pair("long", "when was bridge z built", ("May 1903",)),
    ]
    for seed in range(20):
        made = write_statements(pairs, seed, WritingSpec(alternatives=2))
        assert set(made.alternatives["who"]) == {"Una Vale", "Mia Stone"}
        assert set(made.alternatives["also"]) <= {"Bo Lind", "Una Vale", "Mia Stone"}
        assert all(re.fullmatch(r"19\d\d", year) for year in made.alternatives["y3"])
        assert "1903" not in made.alternatives["y3"]
    assert made.rejects == {
        "fewer than 2 other answers of its type (agent)": 1,
        "fewer than 2 other answers of its type (date)": 1,
    }


def test_what_contains_a_right_answer_is_not_false():
    pairs = [
        Pair("a", "when is the fair", ("May 18, 2018", "two thousand")),
        Pair("b", "when was the fair", ("May 2018",)),
        Pair("c", "when will the fair end", ("June 1, 2018",)),
        Pair("d", "when did the fair end", ("18 May 2018 in Wick",)),
    ]
    assert write_statements(pairs, 0, WritingSpec(alternatives=1)).alternatives["b"] != ("18 May 2018 in Wick",)
    three = [
        Pair("a", "where is it", ("Lake Wick",)),
        Pair("b", "where was it", ("Wick",)),
        Pair("c", "where", ("Mere",)),
    ]
    assert write_statements(three, 0, WritingSpec(alternatives=1)).alternatives["b"] == ("Mere",)
    numbers = [
        Pair("a", "how many herons", ("2",)),
        Pair("b", "how many ducks", ("two",)),
        Pair("c", "how many", ("9",)),
    ]
    assert write_statements(numbers, 0, WritingSpec(alternatives=1)).alternatives["a"] == ("9",)


def test_what_the_question_names_is_no_false_answer():
    three = [
        Pair("a", "who sang una vale", ("Bo Lind",)),
        Pair("b", "who sang it", ("Una Vale",)),
        Pair("c", "who", ("Per Falk",)),
    ]
    for seed in range(5):
        assert write_statements(three, seed, WritingSpec(alternatives=1)).alternatives["a"] == ("Per Falk",)


def test_a_question_asked_twice_has_all_its_answers():
    pairs = [*years(3), Pair("again", "When was bridge a built?", ("1901",))]
    made = write_statements(pairs, 0, WritingSpec(alternatives=1))
    assert made.alternatives["y0"] == made.alternatives["again"] == ("1902",)


def test_false_answers_are_first_those_to_the_same_question():
    pairs = years(30) + [Pair(f"f{i}", f"when was town {chr(97 + i)} founded", (str(1300 + i),)) for i in range(5)]
    made = write_statements(pairs, 0, WritingSpec(alternatives=4))
    assert all(set(made.alternatives[f"f{i}"]) <= {str(1300 + j) for j in range(5)} for i in range(5))
    more = write_statements(pairs, 0, WritingSpec(alternatives=5))
    assert {len(alternatives) for alternatives in more.alternatives.values()} == {5}
    assert len(set(more.alternatives["f0"]) - {str(1300 + j) for j in range(5)}) == 1


def test_the_seed_decides_and_the_order_does_not():
    pairs = years(26)
    made = write_statements(pairs, 7)
    turned = write_statements(pairs[::-1], 7)
    assert dict(turned.entries) == dict(made.entries)
    assert write_statements(pairs, 8).alternatives != made.alternatives
    assert write_statements(pairs, 8).statements == made.statements


def test_rejects_are_counted_by_reason(refused):
    odd = [
        Pair("e1", " ? ", ("1912",)),
        Pair("e2", "when", ()),
        Pair("e3", "when", ("  ",)),
        Pair("e4", "when", ("1\n2",)),
        Pair("e5", "when", ("\ud800x",)),
        Pair("e6", "when", ("x" * 61,)),
        Pair("e7", "when", ("1 2 3 4 5 6 7 8 9 10 11",)),
        Pair("e8", "when", ("…",)),
        Pair("e9", "when was the Bridge of 1901 built", ("1901",)),
        Pair("e10", "when was it built", ("1903 (completed)",)),
        Pair("e11", "what is it", ("the answer to the question",)),
        *(Pair(f"o{i}", f"what is that {i}", (f"{name} stone",)) for i, name in enumerate(("red", "blue", "grey"))),
    ]
    made = write_statements(years(5) + odd, 0)
    assert made.rejects == {
        "no question": 1,
        "no answer": 2,
        "not one line of text": 2,
        "an answer of more than 60 characters": 1,
        "an answer of more than 10 pieces": 1,
        "an answer without a letter or digit": 1,
        "the answer stands in the question": 1,
        "fewer than 3 other answers of its type (quantity)": 1,
    }
    assert made.first[0] == "e1: no question"
    assert len(made.first) == 5
    with refused("'y1'", "more than once"):
        write_statements([*years(3), years(2)[1]], 0)


def test_pieces_are_counted_as_the_model_does():
    made = write_statements(years(5), 0, WritingSpec(pieces=3), pieces=lambda answer: 3 + (answer == "1902"))
    assert made.rejects == {"an answer of more than 3 pieces": 1}
    assert "1902" not in {other for others in made.alternatives.values() for other in others}


@pytest.mark.parametrize("field", ["wordings", "alternatives", "characters", "pieces"])
def test_the_spec_checks_itself(refused, field):
    with refused(field, "0", "1 or more"):
        WritingSpec(**{field: 0})


def test_where_an_answer_stands():
    assert answer_span("It was 13 and 3 of 3.", "3") == (14, 15)
    assert answer_span("Una vale wrote it.", "una vale") == (0, 8)
    assert answer_span("It was Una vale.", "una vale") is None
    assert answer_span("Una vale met una vale.", "una vale") == (0, 8)
    assert answer_span("It cost $5.", "$5") == (8, 10)
    assert answer_span("(a+b) is it", "(a+b)") == (0, 5)
    assert answer_span("unavailable", "una") is None


# The cache


def entry(**changes):
    row = {
        "id": "q1",
        "question": "who wrote night ferry",
        "answer": "Bo Lind",
        "statements": [
            {"text": "Night ferry is by Bo Lind, as Bo Lind says.", "reserved": False},
            {"text": "Bo Lind wrote it.", "reserved": True},
        ],
        "alternatives": ["Una Vale"],
    }
    return {**row, **changes}


def line(**changes):
    return json.dumps(entry(**changes)).encode() + b"\n"


def test_what_others_wrote_is_read(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line().replace(b"\n", b"\r\n") + b"\n" + line(id="q2", alternatives=[]))
    made = read(path)
    assert list(made.entries) == ["q1", "q2"]
    first, second = made.statements["q1"]
    assert first == Statement("Night ferry is by Bo Lind, as Bo Lind says.", 18, 25, False)  # the first of two places
    assert second == Statement("Bo Lind wrote it.", 0, 7, True)
    assert made.alternatives == {"q1": ("Una Vale",), "q2": ()}
    assert made.rejects == {}


def said(text="Bo Lind did it.", reserved=False):
    return {"text": text, "reserved": reserved}


BAD = [
    (b"\n\xff\xfe{}\n", "not UTF-8"),
    (b"{\n", "no JSON object"),
    (b"[" * 5000 + b"\n", "no JSON object"),
    (b"[1]\n", "no object with id, question"),
    (json.dumps({"id": "q1"}).encode(), "no object with id, question"),
    (line(id=3), "no object with id, question"),
    (line(statements=["Bo Lind did it."]), "no object with a text"),
    (line(statements=[said(reserved=1)]), "no object with a text"),
    (line(statements=[said("Bo Lindow did it."), said(reserved=True)]), "without its answer 'Bo Lind'"),
    (line(statements=[said("bo lind did it."), said(reserved=True)]), "without its answer"),
    (line(statements=[said("Bo Lind\ndid it."), said(reserved=True)]), "more than one line"),
    (line(statements=[said()]), "in reserve"),
    (line(statements=[said(reserved=True)]), "to be told"),
    (line(statements=[]), "to be told"),
    (line(answer=""), "without its answer"),
    (line(alternatives=["bo  lind."]), "the right answer"),
    (line(alternatives=[" "]), "empty"),
    (line(alternatives=[4]), "no text"),
    (line(question="who \ud800"), "more than one line"),
    (line(id="q0"), "there before"),
]


@pytest.mark.parametrize(("bad", "words"), BAD)
def test_a_bad_line_is_named_or_skipped(tmp_path, refused, bad, words):
    path = tmp_path / "s.jsonl"
    path.write_bytes(line(id="q0") + bad.rstrip(b"\n") + b"\n" + line(id="q9"))
    number = 3 if bad.startswith(b"\n") else 2
    with refused(words, f"s.jsonl, line {number}", "skip"):
        read(path)
    made = read(path, mode="skip")
    assert list(made.entries) == ["q0", "q9"]
    assert sum(made.rejects.values()) == 1
    assert made.first[0].startswith(f"line {number}: ")


def test_an_unknown_mode(tmp_path, refused):
    with refused("'lenient'", "strict or skip"):
        read(tmp_path / "s.jsonl", "lenient")


@pytest.mark.slow
def test_what_is_written_comes_back(tmp_path, world):
    odd = [Pair("ü—", "où est l’école ?", ("à “Wick” </script>",)), Pair("none", "where", ())]
    pairs = [Pair(question.id, question.text, question.answers) for question in world.questions]
    pairs += [Pair(f"s{i}", f"which stone is that {i}", (f"{name} stone",)) for i, name in enumerate(("red", "grey"))]
    made = write_statements(pairs + odd, 3, WritingSpec(alternatives=1))
    assert made.rejects == {"no answer": 1}
    made.save(tmp_path)
    assert Written.load(tmp_path) == made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rejects.json", "statements.jsonl"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "s.jsonl"
    one = Entry("q", "who", "Bo", (Statement("Bo did it.", 0, 2), Statement("It is Bo.", 6, 8, True)), ())
    write(path, [one])
    before = path.read_bytes()

    def breaking():
        yield one
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write(path, breaking())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s.jsonl"]
