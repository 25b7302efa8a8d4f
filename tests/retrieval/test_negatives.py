"""BM25 against its formula by hand, and hard negatives against a plain loop over its ranking."""

import math

import numpy as np
import pytest

from dprlens.retrieval.exact_search import has_answer
from dprlens.retrieval.negatives import BM25, NegativesSpec, hard_negatives
from dprlens.world.records import Fact, Passage, Question, World

SPEC = NegativesSpec()
RIVERS = [
    Passage("p0", "Wick", "The river Wend passes Wick."),  # wick river wend passes wick: 5 words
    Passage("p1", "Mere", "Mere has a mill."),  # mere mere has mill: 4
    Passage("p2", "Wend", "It is a river."),  # wend river: 2
]


def by_hand(words: str, spec: NegativesSpec) -> list[float]:
    """Lucene's BM25 with exact lengths: the sum over a question's words w, of those that passage p contains, of

    ln(1 + (N − df + ½) / (df + ½)) · tf / (tf + k1 · (1 − b + b · |p| / mean |p|))
    """
    passages = ["wick river wend passes wick", "mere mere has mill", "wend river"]
    lists = [passage.split() for passage in passages]
    scores = []
    for words_of in lists:
        score = 0.0
        for word in words.split():
            df, tf = sum(word in other for other in lists), words_of.count(word)
            length = 1 - spec.b + spec.b * len(words_of) / ((5 + 4 + 2) / 3)
            if tf:
                score += math.log(1 + (3 - df + 0.5) / (df + 0.5)) * tf / (tf + spec.k1 * length)
        scores.append(score)
    return scores


@pytest.mark.parametrize("spec", [SPEC, NegativesSpec(k1=1.2, b=0.75), NegativesSpec(k1=0, b=1)])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Which RIVER passes Wick?", "river passes wick"),  # "which" is in no passage
        ("the river and the mill of Mere", "river mill mere"),
        ("River, river!", "river river"),  # a word counts as often as it is asked
        ("Is it a mill?", "mill"),  # stop words and single letters are no words
    ],
)
def test_scores_are_lucenes(text, words, spec):
    expected = np.array(by_hand(words, spec))
    ranking = BM25(RIVERS, spec).search([text], 3)
    order = np.argsort(-expected, kind="stable")
    assert ranking.passages.tolist() == [order.tolist()]
    np.testing.assert_allclose(ranking.scores[0], expected[order], rtol=1e-5)
    assert ranking.scores.dtype == np.float32


def test_one_score_in_figures():
    """ "wend" in p2: df = 2, tf = 1, |p| = 2 of 11/3 on average: ln(1 + 1.5 / 2.5) / (1 + 0.9 · (0.6 + 0.4 · 6/11))."""
    assert BM25(RIVERS, SPEC).search(["Wend"], 1).scores.item() == pytest.approx(0.470004 / 1.736364, rel=1e-5)


def test_ties_go_to_the_lower_index_also_at_k():
    same = [Passage(f"p{i}", "Wick", "A mill.") for i in range(40)]
    bm25 = BM25([Passage("p", "Mere", "Wend"), *same], SPEC)
    assert bm25.search(["mill"], 5).passages.tolist() == [[1, 2, 3, 4, 5]]
    assert bm25.search(["mill"], 41).passages.tolist() == [[*range(1, 41), 0]]


def test_a_question_of_unknown_words_finds_the_first_passages_with_score_0():
    ranking = BM25(RIVERS, SPEC).search(["Who sails?", "", "Wend"], 2)
    assert ranking.passages.tolist() == [[0, 1], [0, 1], [2, 0]]
    assert ranking.scores[:2].tolist() == [[0, 0], [0, 0]]
    assert BM25(RIVERS, SPEC).search([], 2).passages.shape == (0, 2)


def test_a_passage_without_words_scores_0():
    bm25 = BM25([Passage("p0", "", ""), Passage("p1", "Wick", ""), Passage("p2", "", "It is.")], SPEC)
    ranking = bm25.search(["Wick"], 3)
    assert ranking.passages.tolist() == [[1, 0, 2]]
    assert ranking.scores[0, 1:].tolist() == [0, 0]


def test_what_cannot_be_searched_is_refused(refused):
    for k in (0, 4):
        with refused(f"k = {k}", "1 to 3"):
            BM25(RIVERS, SPEC).search(["Wend"], k)
    for nothing in ([], [Passage("p0", "", "It is.")]):
        with refused(f"{len(nothing)} passages", "no" if nothing else "none"):
            BM25(nothing, SPEC)
    with refused("'Wend'", "list of texts"):
        BM25(RIVERS, SPEC).search("Wend", 1)


def test_nothing_is_printed(capfd):
    BM25(RIVERS, SPEC).search(["Wend"], 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [("k1", -0.1), ("k1", math.inf), ("k1", math.nan), ("b", -0.1), ("b", 1.1), ("b", math.nan), ("per_question", 0)],
)
def test_a_spec_out_of_range_is_refused(refused, field, value):
    with refused(f"{field} = {value}", "give"):
        NegativesSpec(**{field: value})


FACTS = tuple(Fact(f"f-{split}", "Ada", "sails", "Wend", split) for split in ("train", "dev", "test"))
MILLS = (  # the more often "mill" stands in a text, the better it fits
    Passage("test", "", "mill mill mill mill mill mill", ("f-test",)),
    Passage("mixed", "", "mill mill mill mill mill Wick", ("f-train", "f-test")),
    Passage("dev", "", "mill mill mill mill Wick Wick", ("f-dev", "f-train")),
    Passage("gold", "", "mill mill mill Wick Wick Wick", ("f-train",)),
    Passage("train", "", "mill mill Wick Wick Wick Wick", ("f-train",)),
    Passage("none", "Holm", "mill Wick Wick Wick Wick Wick"),
    Passage("other", "", "Wick Wick Wick Wick Wick Wick", ("f-train",)),
)


def mills(*questions: Question, passages: tuple[Passage, ...] = MILLS) -> World:
    return World("closed", FACTS, passages, questions)


def question(split: str = "train", **changes) -> Question:
    fields = {"text": "Where is the mill?", "answers": ("Holm",), "gold": "gold", "hard_negatives": ()} | changes
    return Question(id=f"q-{split}", facts=(f"f-{split}",), split=split, kind="lexical", **fields)


def test_a_question_is_given_passages_of_its_own_split_and_earlier_ones():
    world = mills(question("test"), question("train"), question("dev"))
    found = hard_negatives(world, SPEC)
    assert found == {
        "q-test": ["test", "mixed", "dev", "train", "none"],
        "q-train": ["train", "none"],  # Holm is the title of "none": only the text is asked, as in DPR
        "q-dev": ["dev", "train", "none"],
    }
    assert list(found) == ["q-test", "q-train", "q-dev"]


def test_the_best_are_kept_and_there_may_be_fewer_or_none():
    def of(**changes) -> list[str]:
        return hard_negatives(mills(question("test", **changes)), NegativesSpec(per_question=2))["q-test"]

    assert of() == ["test", "mixed"]
    assert of(gold="test") == ["mixed", "dev"]
    assert of(answers=("Holm", "WICK")) == ["test"]
    assert of(text="Who sails?") == []  # no passage shares a word
    assert of(answers=("mill",)) == []
    assert of(answers=()) == ["test", "mixed"]


def test_a_split_without_passages_has_no_hard_negatives():
    assert hard_negatives(mills(question(gold="test"), passages=MILLS[:2]), SPEC) == {"q-train": []}
    assert hard_negatives(mills(), SPEC) == {}


def test_hard_negatives_that_a_question_brings_are_kept():
    own = question(hard_negatives=("test", "gold"), answers=("", "mill"))
    assert hard_negatives(mills(own, question("dev")), NegativesSpec(per_question=1)) == {
        "q-train": ["test", "gold"],
        "q-dev": ["dev"],
    }


@pytest.mark.parametrize("answer", ["", " ", "\u200b"])
def test_an_answer_that_every_passage_contains_is_refused(refused, answer):
    with refused("'q-dev'", repr(answer), "every passage"):
        hard_negatives(mills(question("dev", answers=("Holm", answer))), SPEC)


def test_the_spec_reaches_bm25():
    long = Passage("long", "", "mill mill " + "Wick " * 40, ("f-train",))
    short = Passage("short", "", "mill Wick", ("f-train",))
    world = mills(question(), passages=(long, short, MILLS[3]))
    assert hard_negatives(world, NegativesSpec(b=0))["q-train"] == ["long", "short"]
    assert hard_negatives(world, NegativesSpec(b=1))["q-train"] == ["short", "long"]


@pytest.mark.slow
def test_hard_negatives_of_a_generated_world_by_a_plain_loop(world):
    found = hard_negatives(world, SPEC)
    assert list(found) == [question.id for question in world.questions]
    before = {"train": {"train"}, "dev": {"train", "dev"}, "test": {"train", "dev", "test"}}
    for split, splits in before.items():
        pool = [p for p in world.passages if {world.fact[fact].split for fact in p.facts} <= splits]
        asked = [question for question in world.questions if question.split == split]
        assert asked
        ranking = BM25(pool, SPEC).search([question.text for question in asked], len(pool))
        for question, passages, scores in zip(asked, *ranking, strict=True):
            expected = []
            for i, score in zip(passages, scores, strict=True):
                answered = any(has_answer([answer], pool[i].text) for answer in question.answers)
                if score > 0 and not answered and pool[i].id != question.gold and len(expected) < 8:
                    expected.append(pool[i].id)
            assert found[question.id] == expected
    assert {len(passages) for passages in found.values()} > {8}


def test_training_questions_of_a_generated_world_see_no_fact_under_test(world):
    trained = {question.id for question in world.questions if question.split == "train"}
    found = hard_negatives(world, SPEC)
    seen = [fact for id_ in trained for passage in found[id_] for fact in world.passage[passage].facts]
    assert seen
    assert {world.fact[fact].split for fact in seen} == {"train"}


def test_two_passages_cannot_share_an_id(refused):
    with refused("passage", "'gold'"):
        mills(question(), passages=(*MILLS, MILLS[3]))
