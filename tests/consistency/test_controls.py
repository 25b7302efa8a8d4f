"""Controls on features for which their outcome is known, and on worlds small enough to go through by hand."""

from itertools import pairwise

import numpy as np
import pytest
from numpy import ndarray

from dprlens.consistency import controls
from dprlens.consistency.controls import (
    both_orders,
    learning_curve,
    online_code,
    reversible,
    selectivity,
    surface_features,
)
from dprlens.consistency.probes import Dot, Items, Linear, Matching, Probe, Tied
from dprlens.retrieval.exact_search import has_answer
from dprlens.retrieval.negatives import BM25, NegativesSpec, hard_negatives
from dprlens.world.records import Fact, Passage, Question, World


def noise(n: int, choices: int = 2, width: int = 4, seed: int = 0) -> Matching:
    """Features that say nothing."""
    rng = np.random.default_rng(seed)
    return Matching(rng.normal(size=(n, width)), rng.normal(size=(n, choices, width)))


def injected(n: int, choices: int = 2, seed: int = 0) -> Matching:
    """Noise, but for 10 more at one coordinate of the gold passage."""
    questions, passages = noise(n, choices, seed=seed)
    passages[:, 0, 3] += 10
    return Matching(questions, passages)


def near_chance(correct: ndarray, n: int) -> bool:
    """Within three binomial standard errors of 1/n."""
    return abs(np.mean(correct) - 1 / n) < 3 * np.sqrt((1 / n) * (1 - 1 / n) / len(correct))


class Noting(Tied):
    """Notes, for every fit, the first coordinate of the questions it is given; scores all slots alike."""

    notes: list[tuple[list[float], ...]] = []  # noqa: RUF012 – shared by clones; a test empties it

    def fit(self, X, y):
        self.notes.append(([*X[:, 0, 0]],))
        self.weights_, self.slots_ = [], X.shape[1] - 1
        assert len(X) == len(y)
        return self

    def decision_function(self, X):
        self.notes[-1] += ([*X[:, 0, 0]],)
        return np.zeros((len(X), self.slots_))


@pytest.fixture
def noting() -> Noting:
    Noting.notes.clear()
    return Noting()


# --- selectivity ---


def pool(n: int, passages: int, choices: int, seed: int = 0) -> Items:
    """Each question chooses from passages drawn from so many."""
    rng = np.random.default_rng(seed)
    return Items(np.arange(n), np.array([rng.permutation(passages)[:choices] for _ in range(n)]))


def names(n: int) -> list[str]:
    return [f"p{i}" for i in range(n)]


def test_the_control_task_is_learnt_where_passages_come_again():
    """12 passages in 16 dimensions: one weight vector can put them in any order."""
    rng = np.random.default_rng(1)
    chosen = pool(600, 12, 2)
    found = selectivity(
        Tied(l2=0.01),
        Matching(rng.normal(size=(600, 16)), rng.normal(size=(12, 16))[chosen.choices]),
        chosen,
        names(12),
        2,
    )
    assert found.control.mean() > 0.9
    assert near_chance(found.task, 2)  # the gold passage was drawn as the others were


def test_the_control_task_is_not_learnt_where_every_passage_is_new():
    chosen = Items(np.arange(1000), np.arange(2000).reshape(1000, 2))
    found = selectivity(Tied(), injected(1000), chosen, names(2000), 2)
    assert found.task.all()
    assert near_chance(found.control, 2)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_in_the_control_task_the_passage_of_the_highest_score_is_gold(n):
    """A feature that is the score itself tells it, also of new passages; the slots are still drawn."""
    chosen = Items(np.arange(300), np.arange(1200).reshape(300, 4))
    scores = np.array([controls._hashed(name, 3) for name in names(1200)])
    shown = Matching(np.ones((300, 1)), scores[chosen.choices][..., None])
    found = selectivity(Tied(), shown, chosen, names(1200), n, seed=3)
    assert found.control.all()
    assert not found.task.all()
    assert selectivity(Tied(), shown, chosen, names(1200), n, seed=4).control.mean() < 0.8  # other scores


def test_scores_of_names_are_spread_evenly_and_differ_by_seed():
    scores = np.array([[controls._hashed(name, seed) for name in names(4000)] for seed in (0, 1)])
    counts = np.apply_along_axis(lambda row: np.histogram(row, 10, (0, 1))[0], 1, scores)
    assert counts.sum() == 8000
    assert counts.min() > 400 - 4 * 19  # binomial: 400 ± 19
    assert abs(np.corrcoef(scores)[0, 1]) < 0.05
    assert controls._hashed("p7", 0) == scores[0, 7]


def test_fitted_and_held_back_questions_are_apart(noting):
    shown = Matching(np.arange(100.0)[:, None], np.ones((100, 3, 1)))
    found = selectivity(noting, shown, pool(100, 9, 3), names(9), 3)
    assert len(noting.notes) == 2  # the task and the control task, on the same questions
    assert noting.notes[0] == noting.notes[1]
    fit, held = noting.notes[0]
    assert [len(fit), len(held)] == [70, 30]
    assert sorted(fit + held) == [*range(100)]
    assert held == found.questions.tolist()
    assert found.task.shape == found.control.shape == (30,)


# --- description length ---


@pytest.mark.parametrize("n", [2, 3, 5])
def test_slots_that_no_feature_tells_cost_log2_n_bits_each(n):
    """Constant features, one scorer: every slot is given 1/n, before and after fitting."""
    one = np.ones((1, 1 + n, 4))
    y = np.random.default_rng(0).integers(n, size=500)
    np.testing.assert_allclose(online_code(Tied(), np.repeat(one, 500, 0), y, orders=3), 500 * np.log2(n), rtol=1e-12)


@pytest.mark.parametrize("probe", [Tied(), Linear(), Linear(l2=1.0)])
def test_random_slots_cannot_be_compressed(probe):
    X, y = noise(1000, 3).shown(3)
    np.random.default_rng(1).shuffle(y)
    bits = online_code(probe, X, y, orders=2)
    assert (bits >= 1000 * np.log2(3) * (1 - 0.02)).all()


def test_slots_that_can_be_learnt_are_compressed_and_the_simpler_probe_compresses_more():
    X, y = injected(1000, 3).shown(3)
    tied, linear = (online_code(probe, X, y, orders=3).mean() for probe in (Tied(l2=0.01), Linear(l2=0.01)))
    assert tied < linear < 0.2 * 1000 * np.log2(3)


def test_gold_passages_all_in_one_slot_are_sent_without_a_probe(noting):
    X, _ = noise(200, 4).shown(4)
    np.testing.assert_allclose(online_code(noting, X, np.full(200, 2), orders=1), [400], rtol=1e-12)
    assert not noting.notes


def test_each_block_is_sent_by_a_probe_that_was_fitted_to_all_before(noting):
    X = np.repeat(np.arange(1000.0)[:, None, None], 3, axis=1)
    bits = online_code(noting, X, np.arange(1000) % 2, orders=1)
    np.testing.assert_allclose(bits, [1000], rtol=1e-12)
    *_, last = noting.notes
    order = last[0] + last[1]
    assert sorted(order) == [*range(1000)]
    ends = [1, 2, 4, 8, 16, 32, 62, 125, 250, 500, 1000]
    blocks = {(start, end) for start, end in pairwise(ends)}
    for known, block in noting.notes:
        start, end = len(known), len(known) + len(block)
        assert known == order[:start]
        assert block == order[start:end]
        blocks.remove((start, end))
    assert all(len(set(np.mod(order[:start], 2))) == 1 for start, _ in blocks)  # left out: one slot only so far


def test_the_code_by_hand():
    """Blocks of 3 questions end after 1, 2 and 3: a probe is fitted to the first two, if their slots differ."""

    class Sure(Tied):
        """Gives slot 0 three times the chance of slot 1, whatever it was fitted to."""

        def decision_function(self, X):
            return np.tile([np.log(3.0), 0.0], (len(X), 1))

    X = np.random.default_rng(0).normal(size=(3, 3, 2))
    y = np.array([0, 1, 0])
    for seed in range(6):
        first, second, third = y[np.random.default_rng([seed, 0]).permutation(3)]
        costs = np.array([np.log2(4 / 3), 2.0])  # bits for slot 0, for slot 1
        expected = 1 + 1 + (1 if first == second else costs[third])  # known: one question, then two
        assert online_code(Sure(), X, y, orders=1, seed=seed) == pytest.approx([expected])


def test_orders_are_drawn_by_the_seed_and_each_is_another():
    X, y = injected(200).shown(2)
    bits = online_code(Tied(), X, y, orders=3)
    assert bits.shape == (3,)
    assert len(set(bits)) == 3
    np.testing.assert_array_equal(online_code(Tied(), X, y, orders=2), bits[:2])
    assert set(online_code(Tied(), X, y, orders=3, seed=1)).isdisjoint(bits)


# --- learning curve ---


def test_a_smaller_sample_is_part_of_a_larger_one(noting):
    train, test = (Matching(start + np.arange(60.0)[:, None], np.ones((60, 3, 1))) for start in (0, 200))
    found = learning_curve(noting, train, test, 3, (5, 20, 60))
    assert list(found) == [5, 20, 60]
    assert all(correct.shape == (60,) for correct in found.values())
    samples = [set(fit) for fit, _ in noting.notes]
    assert [len(sample) for sample in samples] == [5, 20, 60]
    assert samples[0] < samples[1] < samples[2] == set(range(60))
    assert samples[0] != set(range(5))  # drawn, and not the first
    for _, asked in noting.notes:
        assert set(asked) == set(range(200, 260))


def test_more_questions_help():
    rng = np.random.default_rng(2)

    def hard(n: int) -> Matching:
        passages = rng.normal(size=(n, 2, 40))
        passages[:, 0, :20] += 0.4
        return Matching(rng.normal(size=(n, 40)), passages)

    found = learning_curve(Tied(), hard(1000), hard(1000), 2, (10, 100, 1000))
    shares = [correct.mean() for correct in found.values()]
    assert shares[0] + 0.1 < shares[1] < shares[2]


def test_a_question_weighs_as_much_in_a_small_sample_as_in_a_large_one(monkeypatch):
    """Fitted to a quarter, the probe is the one whose penalty is four times as strong in the mean."""
    train, test = injected(80), injected(50)
    used = []
    monkeypatch.setattr(Tied, "fit", lambda self, X, y: used.append((self.l2, len(y))) or Probe.fit(self, X, y))
    learning_curve(Tied(l2=0.1), train, test, 2, (20, 80))
    assert used == [(pytest.approx(0.4), 20), (pytest.approx(0.1), 80)]


# --- reversible pairs ---

FACT = Fact("f", "Ada", "sails", "Wend", "train")


def town(*questions: Question, passages: int = 6) -> World:
    """Passage p0 has "Wick0" in it, p1 "Wick1", and so on."""
    texts = tuple(Passage(f"p{i}", f"Town {i}", f"A mill in Wick{i}.") for i in range(passages))
    return World("closed", (FACT,), texts, questions)


def asks(id_: str, gold: int, answer: str | None = None, split: str = "test") -> Question:
    return Question(id_, "Where is a mill?", (answer or f"Wick{gold}",), f"p{gold}", ("f",), split, "lexical")


def pairs(found: Items) -> list[list[tuple[int, list[int]]]]:
    rows = [*zip(found.questions.tolist(), found.choices.tolist(), strict=True)]
    return [rows[i : i + 2] for i in range(0, len(rows), 2)]


def test_a_pair_is_two_questions_with_each_others_gold_passage():
    world = town(asks("q0", 0), asks("q1", 1), asks("q2", 5))
    found = reversible(world, {"q0": ["p2", "p1"], "q1": ["p3"], "q2": ["p4"]}, "test")
    assert found.questions.tolist() == [0, 1]  # p1 is gold for q1, whose answer p0 has not: it need not list p0
    assert found.choices.tolist() == [[0, 1], [1, 0]]


def test_two_passages_make_one_pair():
    world = town(asks("q0", 0), asks("q1", 1), asks("q2", 0), asks("q3", 1))
    mined = {"q0": ["p1"], "q1": ["p0"], "q2": ["p1"], "q3": ["p0"]}
    seen = set()
    for seed in range(30):
        ((one, two),) = pairs(reversible(world, mined, "test", seed))
        assert {one[0] % 2, two[0] % 2} == {0, 1}  # one question of each passage
        assert all(choices == ([0, 1] if question % 2 == 0 else [1, 0]) for question, choices in (one, two))
        seen.add(frozenset((one[0], two[0])))
    assert len(seen) == 4  # any of the two and two


def test_a_question_whose_answer_the_other_passage_has_makes_no_pair():
    world = town(asks("q0", 0), asks("q1", 1, answer="WICK0"))  # right for p0 too, whatever its case
    assert pairs(reversible(world, {"q0": ["p1"], "q1": []}, "test")) == []
    # another question about p1 does
    world = town(asks("q0", 0), asks("q1", 1, answer="Wick0"), asks("q2", 1))
    for seed in range(5):
        assert pairs(reversible(world, {"q0": ["p1"], "q1": [], "q2": []}, "test", seed)) == [
            [(0, [0, 1]), (2, [1, 0])]
        ]


def test_a_question_takes_the_next_passage_where_the_first_is_paired_already():
    world = town(asks("q0", 0), asks("q1", 0), asks("q2", 1), asks("q3", 2))
    mined = {"q0": ["p1", "p2"], "q1": ["p1", "p2"], "q2": [], "q3": []}
    for seed in range(5):
        found = pairs(reversible(world, mined, "test", seed))
        assert [sorted(one[1]) for one, _ in found] == [[0, 1], [0, 2]]
        assert {one[0] for one, _ in found} == {0, 1}


@pytest.mark.parametrize(
    "mined",
    [
        {"q0": [], "q1": []},
        {"q0": ["p2", "p3"], "q1": ["p4"]},  # gold for no question
        {"q0": ["p1"], "q1": []},  # q1 is of another split
    ],
)
def test_without_pairs_there_are_no_rows(mined):
    found = reversible(town(asks("q0", 0), asks("q1", 1, split="train")), mined, "test")
    assert found.questions.shape == (0,)
    assert found.choices.shape == (0, 2)
    assert found.questions.dtype.kind == found.choices.dtype.kind == "i"  # still indices
    assert len(both_orders(Matching(np.ones((3, 2))[found.questions], np.ones((6, 2))[found.choices]))[1]) == 0


def test_a_split_without_questions_has_no_pairs():
    assert len(reversible(town(asks("q0", 0)), {"q0": ["p1"]}, "dev").questions) == 0


@pytest.mark.slow
def test_pairs_of_a_generated_world_keep_the_promise(world):
    mined = hard_negatives(world, NegativesSpec())
    found = reversible(world, mined, "train")
    assert len(found.questions) > 10
    met = []
    for (one, (a, b)), (two, other) in pairs(found):
        first, second = world.questions[one], world.questions[two]
        assert other == [b, a]
        assert (first.gold, second.gold) == (world.passages[a].id, world.passages[b].id)
        assert first.split == second.split == "train"
        assert second.gold in mined[first.id]
        assert not has_answer(second.answers, world.passages[a].text)
        assert not has_answer(first.answers, world.passages[b].text)
        met.append(frozenset((a, b)))
    assert len(set(met)) == len(met)


def test_both_orders_by_hand():
    X, y = both_orders(Matching(np.array([[1.0], [2.0]]), np.array([[[10.0], [11.0]], [[20.0], [21.0]]])))
    assert X[..., 0].tolist() == [[1, 10, 11], [2, 20, 21], [1, 11, 10], [2, 21, 20]]
    assert y.tolist() == [0, 0, 1, 1]


# --- without a network ---

RIVERS = World(
    "closed",
    (FACT,),
    (
        Passage("p0", "Wick", "The river Wend passes Wick."),
        Passage("p1", "Mere", "Mere has a mill."),
        Passage("p2", "Wend", "It is a river."),
    ),
    (
        Question("q0", "Which river passes WICK?", ("Wend",), "p0", ("f",), "train", "lexical"),
        Question("q1", "A mill, a mill: where?", ("Mere",), "p1", ("f",), "test", "lexical"),
    ),
)
CHOSEN = Items(np.array([1, 0]), np.array([[1, 0, 2], [0, 2, 1]]))


def scores(found: dict[str, tuple[Probe, list[Matching]]], name: str, part: int = 0) -> ndarray:
    probe, parts = found[name]
    assert type(probe) is Dot
    return np.einsum("qd,qcd->qc", parts[part].questions, parts[part].passages)


@pytest.fixture(scope="module")
def surface() -> dict[str, tuple[Probe, list[Matching]]]:
    return surface_features(RIVERS, [CHOSEN, Items(np.array([0]), np.array([[2, 1]]))], NegativesSpec())


def test_every_surface_feature_has_each_split(surface):
    assert list(surface) == ["length", "bag_of_words", "bm25", "overlap", "title"]
    for _, parts in surface.values():
        assert [part.passages.shape[:2] for part in parts] == [(2, 3), (1, 2)]
        assert all(part.passages.dtype == part.questions.dtype == np.float32 for part in parts)


def test_lengths_and_words_are_of_title_and_text(surface):
    _, (length, _) = surface["length"]
    assert length.passages[..., 0].tolist() == [[5, 6, 5], [6, 5, 5]]
    _, (words, _) = surface["bag_of_words"]
    passes, river, wend = (  # columns are the words a … wick, in order
        ["a", "has", "is", "it", "mere", "mill", "passes", "river", "the", "wend", "where", "which", "wick"].index(word)
        for word in ("passes", "river", "wend")
    )
    assert words.passages.shape == (2, 3, 13)  # two words are in the questions alone
    assert words.passages[0, :, [passes, river, wend]].T.tolist() == [[0, 0, 0], [1, 1, 1], [0, 1, 1]]
    assert words.passages.max() == 1  # "wick" is twice in p0
    for name in ("length", "bag_of_words"):  # of the passage alone
        probe, parts = surface[name]
        assert type(probe) is Tied
        assert not any(part.questions.any() for part in parts)


def test_bm25_is_that_of_the_search(surface):
    ranking = BM25(RIVERS.passages, NegativesSpec()).search([q.text for q in RIVERS.questions], 3)
    of = np.empty((2, 3))
    for row, passages, found in zip(of, *ranking, strict=True):
        row[passages] = found
    np.testing.assert_allclose(scores(surface, "bm25"), [of[1, [1, 0, 2]], of[0, [0, 2, 1]]], rtol=1e-6)
    np.testing.assert_allclose(scores(surface, "bm25", 1), [of[0, [2, 1]]], rtol=1e-6)
    assert of[0, 0] > of[0, 2] > of[0, 1] == 0


def test_overlap_orders_passages_by_the_words_of_the_question_that_they_have(surface):
    """q0: river, passes, wick, of which p0 has all, p2 one, p1 none; q1: a, mill; p1 both, p2 "a", p0 none."""
    shares = scores(surface, "overlap")
    np.testing.assert_allclose(shares / shares.max(1, keepdims=True), [[1, 0, 1 / 2], [1, 1 / 3, 0]], rtol=1e-6)
    assert 0 <= shares.min() <= shares.max() <= 1


def test_titles_are_looked_for_in_the_question_in_any_case(surface):
    assert scores(surface, "title").tolist() == [[0, 0, 0], [1, 0, 0]]
    assert scores(surface, "title", 1).tolist() == [[0, 0]]


def test_surface_probes_are_fitted_and_tested_like_any(surface):
    for probe, (train, _) in surface.values():
        X, y = train.shown(3, seed=4)
        assert probe.fit(X, y).decision_function(X).shape == (2, 3)
    probe, (train, _) = surface["bm25"]
    X, y = train.shown(3)
    assert probe.fit(X, y).score(X, y) == 1


def test_a_word_that_only_gold_passages_have_is_found():
    """Gold passages say "mill", negatives "ford"; which passages, changes."""
    passages = tuple(Passage(f"p{i}", "", f"A {'mill' if i < 30 else 'ford'} at Wick{i % 7}.") for i in range(60))
    questions = tuple(asks(f"q{i}", i) for i in range(30))
    world = World("closed", (FACT,), passages, questions)
    fit, test = (Items(np.arange(i, 30, 2), np.array([[j, 59 - j] for j in range(i, 30, 2)])) for i in (0, 1))
    found = surface_features(world, [fit, test], NegativesSpec())
    for name, expected in {"bag_of_words": 1, "length": None}.items():
        probe, (train, held) = found[name]
        X, y = held.shown(2, 1)
        accuracy = probe.fit(*train.shown(2)).score(X, y)
        assert accuracy == (expected or (y == 0).mean())  # all are of one length: the first slot
