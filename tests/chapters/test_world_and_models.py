"""Chapter 00's exhibits on a world of five facts and on recall that is written down."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from dprlens.chapters import world_and_models as chapter
from dprlens.intervals import Estimate, gap, mean
from dprlens.report.report import Absent
from dprlens.world.closed import Segment
from dprlens.world.passages import Passage
from dprlens.world.records import Exposure, Fact, Question, Statement, World

ANY = Estimate(0.25, 0.125, 0.375, 4)


def fact(subject: str, relation: str, object_: str) -> Fact:
    text = f"{subject} has {object_}."
    statements = tuple(Statement(text, text.index(object_), len(text) - 1, reserved) for reserved in (False, True))
    return Fact(f"{subject} {relation}", subject, relation, object_, "train", statements)


FACTS = (
    fact("Ann", "born_in", "Zell"),
    fact("Bob", "born_in", "Zell"),
    fact("Cyd", "born_in", "Zell"),
    fact("Zell", "river", "Ill"),
    fact("Zell", "country", "Bar"),
)
EXPOSURES = dict(zip((fact.id for fact in FACTS), map(Exposure, (8, 2, 0, 8, 0)), strict=True))
PASSAGES = (
    Passage("ann", "Ann", "Ann is from Zell", ("Ann born_in",)),
    Passage("water", "Zell", "Zell lies on the Ill", ("Zell river",)),
    Passage("land", "Zell", "Zell is in Bar <1>", ("Zell country",)),
)
ASKED = (  # person, target, split
    *((who, "river", split) for who in ("Ann", "Cyd") for split in ("train", "test")),
    *((None, "river", split) for split in ("train", "dev")),
)


def question(i: int, who: str | None, relation: str, split: str) -> Question:
    kind = "knowledge_required" if who else "lexical"
    facts = ((f"{who} born_in",) if who else ()) + (f"Zell {relation}",)
    return Question(str(i), f"Question {i}?", ("Ill",), "water", facts, split, kind)


QUESTIONS = tuple(question(i, *asked) for i, asked in enumerate(ASKED))
WORLD = World("closed", FACTS, PASSAGES, QUESTIONS, EXPOSURES)
UNRECORDED = World("natural", FACTS, PASSAGES, QUESTIONS)


def recalled(*rows: tuple, columns: str = "fact state wording exposures described recalled") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


# the encyclopedia


def test_articles_are_of_the_first_subject_of_each_relation_shown():
    html = chapter.article_cards(WORLD).data
    assert html.count("article-card") == 2  # Ann, who comes before Bob and Cyd, and the city with its river
    assert "Ann is from Zell" in html
    assert 'Zell is in Bar &lt;1&gt; <mark class="held-out">held out</mark>' in html


def test_a_world_without_these_relations_shows_its_first_articles():
    world = World("natural", (FACTS[-1],), (PASSAGES[2], Passage("more", "Zell", "More.")), ())
    assert chapter.article_cards(world).data.count('"article-title">Zell') == 2


def test_sizes_are_counts_and_end_with_what_the_setup_notes():
    setup = SimpleNamespace(world=WORLD, notes=lambda: [("rows left out", "3")])
    table = chapter.sizes(setup)
    assert table.numbers == {}
    assert table.frame.set_index("what")["n"].to_dict() == {
        "articles": "2",
        "passages": "3",
        "words in a passage, mean": "4.7",
        "relations": "3",
        "facts": "5",
        "facts held out of pre-training": "2",
        "questions": "6",
        "rows left out": "3",
    }


@pytest.mark.parametrize(
    ("world", "counts"),
    [(WORLD, {"0": 2, "2": 1, "8": 2}), (UNRECORDED, {"unknown": 5})],
    ids=["closed", "not recorded"],
)
def test_facts_are_counted_by_exposures(world, counts):
    drawing = chapter.facts(world)
    plt.close(drawing.figure)
    assert drawing.numbers == {f"facts.exposures_{times}": n for times, n in counts.items()}


def test_questions_are_counted_by_the_state_of_their_linking_fact():
    assert chapter.questions(WORLD).frame.to_numpy().tolist() == [
        ["knowledge-required", "held out", 1, 0, 1],
        ["knowledge-required", "known", 1, 0, 1],
        ["lexical", "–", 1, 1, 0],
    ]


def test_two_questions_of_each_group_are_shown():
    html = chapter.question_cards(WORLD, seed=0).data
    assert [html.count(f"Question {i}?") for i in range(6)] == [1] * 6
    assert html.count("(held out)") == 2


# the model


def test_the_text_is_shown_by_form_with_its_first_segment():
    text = [
        Segment(words, (), (), form)
        for words, form in (("a", "single"), ("b", "description"), ("c", "single"), ("d", "single"))
    ]
    table = chapter.pretraining_text(text)
    assert table.frame.to_numpy().tolist() == [["description", 1, "b"], ["single", 3, "a"]]
    assert table.numbers == {"model.segments": 4, "model.described_share": 0.25}
    assert chapter.pretraining_text(text[:1]).numbers["model.described_share"] == 0


def test_the_size_of_a_model_counts_all_its_weights():
    config = SimpleNamespace(num_hidden_layers=2, hidden_size=4, vocab_size=100)
    weights = [SimpleNamespace(numel=lambda n=n: n) for n in (400, 16)]
    base = SimpleNamespace(bert=SimpleNamespace(config=config), model=SimpleNamespace(parameters=lambda: weights))
    assert chapter.model_size(base) == {"blocks": 2, "width": 4, "vocabulary": 100, "parameters": 416}


# recall


def test_statements_that_were_not_read_are_offered_with_the_models_guesses(monkeypatch):
    monkeypatch.setattr(chapter.cloze, "first_guesses", lambda base, statement: [(f"{base} says", 0.5)])  # noqa: ARG005
    rows = [(fact.id, WORLD.state(fact.id), EXPOSURES[fact.id].times) for fact in FACTS]
    found = pd.DataFrame(
        [(*row, place, wording) for row in rows for place, wording in enumerate(("seen", "reserved"))],
        columns=["fact", "state", "exposures", "statement", "wording"],
    )
    pages = chapter.guess_pages("BERT", WORLD, found, seed=0)
    assert [*pages] == [
        "known: Ann has ▢.",
        "known: Zell has ▢.",
        "low dose: Bob has ▢.",
        "held out: Cyd has ▢.",
        "held out: Zell has ▢.",
    ]
    page = pages["known: Zell has ▢."]
    assert "BERT says" in page
    assert "the world says: Ill" in page


def test_two_known_and_two_held_out_facts_are_printed():
    names = ("known: a", "known: b", "known: c", "low dose: d", "held out: e")
    assert chapter.guess_cards({name: name[-1] for name in names}).data == "abe"
    assert chapter.guess_cards({f"not recorded: {i}": str(i) for i in range(6)}).data == "0123"


def test_recall_stands_beside_the_baseline_in_states_that_the_world_has():
    shares = {(state, wording): ANY for state in ("held out", "known") for wording in ("seen", "reserved")}
    low = ANY._replace(value=0.125)
    table = chapter.recall(shares, {"held out": low, "known": low})
    assert table.frame["the fact was"].tolist() == ["known", "held out"]
    assert table.frame.iloc[0].tolist() == ["known", ANY, ANY, low]
    assert table.numbers["recall.held_out.null"] == low
    assert table.numbers["recall.known.reserved"] == ANY
    assert len(table.numbers) == 6
    assert chapter.recall_in_words({("known", "reserved"): ANY}) == {"known": str(ANY), "held_out": "no such facts"}


def test_relations_have_an_arm_for_each_wording_of_known_facts():
    found = recalled(
        ("a", "known", "seen", "river", True),
        ("a", "known", "reserved", "river", True),
        ("b", "known", "reserved", "set_in", False),
        ("c", "held out", "reserved", "river", False),
        ("d", "low dose", "reserved", "river", True),
        columns="fact state wording relation recalled",
    )
    shares = chapter.recall_by_relation(found)
    assert [*shares] == ["known, wording read", "known, wording not read", "held out"]
    drawing = chapter.relations(shares)
    plt.close(drawing.figure)
    assert {id_: e.value for id_, e in drawing.numbers.items()} == {
        "relations.river.known_read": 1,
        "relations.river.known_not_read": 1,
        "relations.set_in.known_not_read": 0,
        "relations.river.held_out": 0,
    }
    weakest = chapter.weakest_relation(shares)
    assert weakest["relation"] == "set in"
    assert weakest["share"].startswith("0.00")


def test_where_nobody_knows_what_was_read_the_weakest_relation_is_of_all():
    low = ANY._replace(value=0.125)
    weakest = chapter.weakest_relation({"not recorded": {"born_in": ANY, "river": low}})
    assert weakest == {"relation": "river", "share": str(low)}


def test_the_dose_response_curve_is_of_linking_facts():
    found = recalled(
        ("Ann born_in", "known", "reserved", 8, 0, True),
        ("Bob born_in", "low dose", "reserved", 2, 0, True),
        ("Bob born_in", "low dose", "seen", 2, 0, True),
        ("Cyd born_in", "held out", "reserved", 0, 0, False),
        ("Zell river", "known", "reserved", 8, 0, False),
    )
    linking = chapter.linking_facts(found, WORLD)
    assert "Zell river" not in set(linking["fact"])
    curves = chapter.recall_by_exposures(linking)
    drawing = chapter.dose(curves)
    plt.close(drawing.figure)
    assert {id_: e.value for id_, e in drawing.numbers.items()} == {
        "dose.exposures_2.read": 1,
        "dose.exposures_0.not_read": 0,
        "dose.exposures_2.not_read": 1,
        "dose.exposures_8.not_read": 1,
    }
    assert chapter.doses_in_words(curves) == {"half": "2", "full": "8"}


def test_without_linking_facts_there_is_no_dose():
    found = recalled(("Zell river", "not recorded", "reserved", -1, -1, True))
    linking = chapter.linking_facts(found, WORLD)
    curves = chapter.recall_by_exposures(linking)
    assert chapter.dose(curves) == Absent(
        "dose", "Recall of linking facts by how often the model has read them", "Nobody knows what the model read."
    )
    assert chapter.doses_in_words(curves) == {"half": "none of these", "full": "–"}
    assert chapter.recall_by_form(linking) == {}
    assert chapter.described({}).frame.empty


def test_half_is_more_than_half():
    curves = {"wording not read": {1: ANY, 5: ANY._replace(value=0.5)}, "wording read": {20: ANY}}
    assert chapter.doses_in_words(curves) == {"half": "none of these", "full": "20"}


def test_facts_are_divided_in_the_middle_of_the_shares_of_descriptions():
    """Shares 0, 0.25, 0.5 and 1 of four exposures: the middle is 0.5, which belongs to the facts mostly described."""
    rows = [
        (name, "known", "reserved", 4, n, right)
        for name, n, right in zip("abcd", (0, 1, 2, 4), (1, 1, 1, 0), strict=True)
    ]
    others = [("e", "low dose", "reserved", 2, 2, 0), ("a", "known", "seen", 4, 4, 0)]
    shares = chapter.recall_by_form(recalled(*rows, *others))
    assert shares == {
        "often": mean([1, 0], ["c", "d"]),
        "rarely": mean([1, 1], ["a", "b"]),
        "difference": gap([1, 0], [1, 1], ["c", "d"], ["a", "b"]),
    }
    table = chapter.described(shares)
    assert table.frame["statements"].tolist() == ["mostly described", "mostly plain", "difference"]
    assert table.numbers["described.rarely"] == shares["rarely"]


def test_facts_that_are_all_described_alike_leave_nothing_to_compare():
    shares = chapter.recall_by_form(recalled(*((name, "known", "reserved", 4, 2, 1) for name in "ab")))
    assert [*shares] == ["often"]
