"""Cloze recall on an encoder whose beliefs are written by hand."""

import math

import pandas as pd
import pytest
import torch

from dprlens.bert.cloze import cloze, constant_guess, first_guesses, question_table, recall, recall_by, with_head
from dprlens.bert.encoder import Encoder, reinitialise
from dprlens.bert.vocabulary import make_tokenizer, vocabulary
from dprlens.world.records import Exposure, Fact, Passage, Question, Statement, World

VALE = Statement("Wick lies in Amber Vale, far off.", 13, 23)
WEND = Statement("The Wend passes Wick.", 4, 8, reserved=True)
TOKENIZER = make_tokenizer(vocabulary([VALE.text, WEND.text, "Aure", "Borrowland"]))


class Believer:
    """An encoder that gives the masks, in order, the probabilities it was told, {piece: share}; keeps what it read."""

    def __init__(self, *beliefs: dict[str, float]) -> None:
        self.tokenizer, self.beliefs, self.read = TOKENIZER, list(beliefs), []

    def mask_logits(self, ids, places):
        self.read += [
            (TOKENIZER.convert_ids_to_tokens(row), list(place)) for row, place in zip(ids, places, strict=True)
        ]
        nothing = [torch.empty(0, len(TOKENIZER))]
        return [torch.cat(nothing + [self._logits(self.beliefs.pop(0))[None] for _ in place]) for place in places]

    @staticmethod
    def _logits(belief):
        rest = (1 - sum(belief.values())) / (len(TOKENIZER) - len(belief))
        shares = torch.full((len(TOKENIZER),), rest)
        for piece, share in belief.items():
            shares[TOKENIZER.convert_tokens_to_ids(piece)] = share
        return shares.log() + 7  # a softmax takes no notice of what is added to all logits


def test_the_whole_answer_is_masked_and_nothing_else():
    encoder = Believer({"amber": 0.9}, {"vale": 0.9}, {"wend": 0.9})
    cloze(encoder, [VALE, WEND])
    assert encoder.read == [
        (["[CLS]", "wick", "lies", "in", "[MASK]", "[MASK]", ",", "far", "off", ".", "[SEP]"], [4, 5]),
        (["[CLS]", "the", "[MASK]", "passes", "wick", ".", "[SEP]"], [2]),
    ]


@pytest.mark.parametrize(
    ("beliefs", "recalled", "probability", "said"),
    [
        (({"amber": 0.8}, {"vale": 0.45}), True, math.sqrt(0.8 * 0.45), "amber vale"),
        (({"amber": 0.8}, {"vale": 0.05, "wick": 0.9}), False, math.sqrt(0.8 * 0.05), "amber wick"),  # half right
        (({"amber": 0.2, "the": 0.6}, {"vale": 0.8}), False, math.sqrt(0.2 * 0.8), "the vale"),
        (
            ({"amber": 0.4, "vale": 0.5}, {"amber": 0.5, "vale": 0.4}),
            False,
            0.4,
            "vale amber",
        ),  # the right words, swapped
    ],
)
def test_every_piece_of_the_answer_must_come_first(beliefs, recalled, probability, said):
    (result,) = cloze(Believer(*beliefs), [VALE])
    assert result.recalled is recalled
    assert result.probability == pytest.approx(probability, rel=1e-5)
    assert result.said == said


def test_an_answer_that_covers_no_piece_is_not_recalled_by_default(refused):
    """A span inside a word covers no whole piece: no mask, nothing asked, so nothing can be known."""
    with refused("Wick lies"):
        cloze(Believer(), [VALE._replace(start=1, end=3)])


def test_no_statements_give_no_results():
    assert cloze(Believer(), []) == []


def test_recall_has_a_row_a_statement():
    facts = (
        Fact("f0", "Wick", "country", "Amber Vale", "train", (VALE,)),
        Fact("f1", "Wick", "river", "Wend", "test", (WEND,)),
    )
    world = World("closed", facts, (), (), {"f0": Exposure(9, 4), "f1": Exposure(0)})
    rows = recall(Believer({"amber": 0.5}, {"vale": 0.5}, {"aure": 0.75, "wend": 0.125}), world)
    assert rows.to_dict("records") == [
        {
            **{"fact": "f0", "relation": "country", "state": "known", "exposures": 9, "described": 4, "statement": 0},
            **{"wording": "seen", "recalled": True, "probability": pytest.approx(0.5), "said": "amber vale"},
        },
        {
            **{"fact": "f1", "relation": "river", "state": "held out", "exposures": 0, "described": 0, "statement": 0},
            **{"wording": "reserved", "recalled": False, "probability": pytest.approx(0.125), "said": "aure"},
        },
    ]


@pytest.mark.slow
def test_recall_asks_all_reserved_statements_and_some_seen_ones_of_every_fact(world, encoder):
    rows = recall(encoder, world, seen=3)
    reserved = rows[rows["wording"] == "reserved"].groupby("fact")["statement"].agg(list).to_dict()
    assert reserved == {f.id: [i for i, s in enumerate(f.statements) if s.reserved] for f in world.facts}
    seen = rows[rows["wording"] == "seen"].groupby("fact")["statement"].agg(list)
    assert set(seen.index) == set(world.fact)
    assert all(len(set(numbers)) == 3 for numbers in seen)
    assert not any(world.fact[id_].statements[i].reserved for id_, numbers in seen.items() for i in numbers)
    assert len({tuple(numbers) for numbers in seen}) > 5  # not the same three of each
    assert rows["probability"].between(0, 1).all()
    assert rows["recalled"].mean() < 0.05  # nothing was learned
    assert rows.equals(recall(encoder, world, seen=3))
    assert not rows.equals(recall(encoder, world, seen=3, seed=1))


def test_shares_recalled_draws_whole_facts():
    """Two facts, of two statements each: the share is 3/4 of the statements, from two independent facts."""
    rows = pd.DataFrame({"fact": ["f0", "f0", "f1", "f1"], "wording": "seen", "recalled": [True, True, True, False]})
    (estimate,) = recall_by(rows, "wording").values()
    assert estimate.value == 0.75
    assert (estimate.low, estimate.high) == (0.5, 1.0)


def test_first_guesses_are_the_likeliest_whole_answers():
    """.6·.5 = .30, .6·.4 = .24, .3·.5 = .15, …"""
    encoder = Believer({"amber": 0.6, "the": 0.3, "wick": 0.05}, {"vale": 0.5, "far": 0.4, "off": 0.05})
    guesses = first_guesses(encoder, VALE)
    assert [text for text, _ in guesses] == ["amber vale", "amber far", "the vale"]
    assert [chance for _, chance in guesses] == [pytest.approx(p, rel=1e-4) for p in (0.30, 0.24, 0.15)]


def fact(i, relation, object_):
    return Fact(f"f{i}", f"s{i}", relation, object_, "test")


def test_a_constant_guess_is_the_object_most_often_stated():
    """River: Aure 3 + 0, Wend 2 + 2 (Wend wins, though Zale is in more facts); country: a tie, 5 and 5."""
    facts = [fact(i, "river", o) for i, o in enumerate(["Aure", "Wend", "Aure", "Wend", "Zale", "Zale", "Zale"])]
    facts += [fact(7, "country", "Vale"), fact(8, "country", "Borrowland")]
    times = [3, 2, 0, 2, 1, 1, 1, 5, 5]
    world = World("closed", tuple(facts), (), (), {f"f{i}": Exposure(n) for i, n in enumerate(times)})
    guessed = constant_guess(world)
    assert list(guessed.columns) == ["fact", "relation", "state", "recalled"]
    assert guessed["fact"].tolist() == [f"f{i}" for i in range(9)]
    assert guessed["recalled"].tolist() == [False, True, False, True, False, False, False, False, True]


# --- what each question takes ---


def question(i, kind, split, *facts):
    return Question(f"q{i}", "Who?", ("Wick",), "p0", facts, split, kind)


def test_asked_has_a_row_a_question_about_the_fact_that_decides_it():
    """Training asks for f0 and, through the link f1, for f2; f3 and f4 are asked for elsewhere."""
    facts = tuple(
        fact(i, relation, "Wick") for i, relation in enumerate(["river", "born_in", "mayor", "spouse", "seat"])
    )
    questions = (
        question(0, "lexical", "test", "f4"),
        question(1, "lexical", "train", "f0"),
        question(2, "knowledge_required", "train", "f1", "f2"),
        question(3, "knowledge_required", "test", "f1", "f4"),
        question(4, "knowledge_required", "dev", "f3", "f0"),
        question(5, "lexical", "test", "f2"),
    )
    known = {"f0": (9, 0), "f1": (9, 4), "f2": (0, 0), "f3": (2, 1), "f4": (9, 9)}
    known = {id_: Exposure(*exposure) for id_, exposure in known.items()}
    found = question_table(World("closed", facts, (Passage("p0", "Wick", "Wick."),), questions, known))
    assert [*found.columns, *found.itertuples(index=False, name=None)] == [
        *("question", "kind", "split", "fact", "relation", "in_training", "state", "exposures", "described"),
        ("q0", "lexical", "test", "f4", "seat", False, "known", 9, 9),
        ("q1", "lexical", "train", "f0", "river", True, "known", 9, 0),
        ("q2", "knowledge_required", "train", "f1", "born_in", True, "known", 9, 4),
        ("q3", "knowledge_required", "test", "f1", "born_in", True, "known", 9, 4),
        ("q4", "knowledge_required", "dev", "f3", "spouse", False, "low dose", 2, 1),
        ("q5", "lexical", "test", "f2", "mayor", True, "held out", 0, 0),
    ]
    assert found.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert found["in_training"].dtype == bool  # `~` is "not"


def test_asked_of_a_whole_world(world):
    found = question_table(world)
    assert found["question"].tolist() == [q.id for q in world.questions]
    of_training = {id_ for q in world.questions if q.split == "train" for id_ in q.facts}
    assert 0 < found["in_training"].sum() < len(found)
    assert set(found[found["in_training"]]["fact"]) == of_training & set(found["fact"])
    assert not set(found[~found["in_training"]]["fact"]) & of_training
    links = found[found["kind"] == "knowledge_required"]
    assert links["fact"].tolist() == [q.facts[0] for q in world.questions if q.kind == "knowledge_required"]
    assert set(links["state"]) == {"known", "low dose", "held out"}
    assert (found["described"] <= found["exposures"]).all()
    assert ((found["exposures"] == 0) == (found["state"] == "held out")).all()


def test_where_exposures_are_unknown_every_question_says_so(world):
    unknown = question_table(World("dpr", world.facts, world.passages, world.questions))
    assert set(unknown.state) == {"not recorded"}
    assert (unknown[["exposures", "described"]] == -1).all().all()
    told = ["state", "exposures", "described"]
    assert unknown.drop(columns=told).equals(question_table(world).drop(columns=told))


# --- the old head on a trained tower ---


@pytest.fixture(scope="module")
def tower(encoder):
    """Another network of the same shape, without a head, as DPR training leaves it."""
    other = reinitialise(encoder, seed=7)
    return Encoder(encoder.tokenizer, other.bert, "cpu")


def test_with_head_is_the_tower_under_the_old_head(encoder, tower):
    both = with_head(tower, encoder)
    weights, of_tower, of_base = (e.model.state_dict() for e in (both, tower, encoder))
    assert set(weights) == set(of_base)
    inside = [name for name in weights if name.startswith("bert.")]
    assert [name.removeprefix("bert.") for name in inside] == list(of_tower)
    assert all(torch.equal(weights[name], of_tower[name.removeprefix("bert.")]) for name in inside)
    head = [name for name in weights if name.startswith("cls.") and name != "cls.predictions.decoder.weight"]
    assert len(head) == len(weights) - len(inside) - 1 > 0
    assert all(torch.equal(weights[name], of_base[name]) for name in head)
    assert torch.equal(both.cls(["Wick"]), tower.cls(["Wick"]))
    assert not both.model.training


def test_the_base_under_its_own_head_says_what_it_said(encoder, world):
    said = [fact.statements[0] for fact in world.facts[:5]]
    bare = Encoder(encoder.tokenizer, reinitialise(encoder, 0).bert, "cpu")
    bare.bert.load_state_dict(encoder.bert.state_dict())
    assert cloze(with_head(bare, encoder), said) == cloze(encoder, said)


def test_neither_the_tower_nor_the_base_is_touched(encoder, tower):
    before = {name: w.clone() for e in (encoder, tower) for name, w in e.model.state_dict().items()}
    both = with_head(tower, encoder)
    with torch.no_grad():
        for weights in both.model.parameters():
            weights += 1  # nothing is shared either
    after = {name: w for e in (encoder, tower) for name, w in e.model.state_dict().items()}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_base_without_a_head_is_refused(tower, refused):
    with refused("no masked-LM head", "give"):
        with_head(tower, tower)
