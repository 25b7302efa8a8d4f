"""Active neurons and their concentration, against loops and numbers on one's fingers."""

import numpy as np
import pytest

from dprlens.negatives import NegativesSpec, hard_negatives
from dprlens.neurons import (
    MEASURES,
    ActivitySpec,
    SampleSpec,
    activity,
    at_least,
    chance_sharing,
    entropy,
    gini,
    mass_in_top,
    outliers,
    participation,
    sample,
    sharing,
    union_gain,
)

RNG = np.random.default_rng(5)
ACTIVE = RNG.random((12, 3, 20)) < RNG.random((1, 3, 20)) ** 3  # some neurons often, many seldom
CLUSTERS = list("aabbbcdefghh")


def counted(active: np.ndarray) -> tuple[float, float, float, float]:
    """union, mean, sharing and chance sharing by loops over pairs of examples."""
    n, blocks, neurons = active.shape
    union = sum(active[:, b, i].any() for b in range(blocks) for i in range(neurons))
    shared = chance = total = 0.0
    for e in range(n):
        for other in range(n):
            if other != e:
                shared += (active[e] & active[other]).sum()
                chance += sum(active[e, b].sum() * active[other, b].sum() / neurons for b in range(blocks))
        total += active[e].sum() * (n - 1)
    return union, active.sum() / n, shared / total, chance / total


def test_activity_is_what_loops_count():
    found = activity(ACTIVE, CLUSTERS)
    assert [one.value for one in found] == pytest.approx(counted(ACTIVE))
    assert {one.n for one in found} == {12}


@pytest.mark.parametrize("field", [0, 2, 3])
def test_intervals_are_the_jackknifes_over_clusters(field):
    names = np.array(CLUSTERS)
    without = np.array([counted(ACTIVE[names != name])[field] for name in dict.fromkeys(CLUSTERS)])
    g = len(without)
    half = 1.959964 * np.sqrt((g - 1) / g * ((without - without.mean()) ** 2).sum())
    found = activity(ACTIVE, CLUSTERS)[field]
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=1e-5)
    assert (found.high + found.low) / 2 == pytest.approx(found.value)


def test_the_gain_in_union_is_paired():
    other = RNG.random(ACTIVE.shape) < 0.1
    found = union_gain(ACTIVE, other, CLUSTERS)
    assert found.value == counted(ACTIVE)[0] - counted(other)[0]
    assert tuple(union_gain(ACTIVE, ACTIVE, CLUSTERS)[:3]) == (0, 0, 0)


def test_chance_sharing_is_the_mean_over_shuffles():
    drawn = np.random.default_rng(0)
    found = []
    for _ in range(400):
        shuffled = drawn.permuted(ACTIVE, axis=2)
        found.append(sharing(shuffled.reshape(12, -1).sum(0), 12))
    counts = ACTIVE.sum(2)
    expected = chance_sharing(counts.sum(0), (counts**2).sum(0), 20, 12)
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / np.sqrt(len(found))
    assert sharing(ACTIVE.reshape(12, -1).sum(0), 12) > expected + 4 * np.std(found)  # as ACTIVE was made


def test_sharing_on_ones_fingers():
    assert sharing(np.array([3, 3]), 3) == 1
    assert sharing(np.array([1, 1, 1]), 3) == 0
    assert sharing(np.array([2, 1]), 3) == pytest.approx(2 / (3 * 2))
    assert sharing(np.array([0, 0]), 3) == 0
    assert chance_sharing(np.zeros(2), np.zeros(2), 5, 3) == 0


def test_at_least_counts_neurons_of_many_examples():
    active = np.array([[[1, 1, 0, 0]], [[1, 1, 0, 0]], [[1, 0, 0, 1]], [[1, 0, 0, 0]]], bool)
    assert [at_least(active, share) for share in (0.01, 0.5, 0.75, 1)] == [3, 2, 1, 1]


def test_concentration_on_ones_fingers():
    flat, one, none = np.full(200, 2.0), np.eye(200)[7] * -3, np.zeros(200)
    scores = np.stack([flat, one, none, np.r_[np.ones(2), np.zeros(198)]])[:, None, :]
    assert participation(scores) == pytest.approx([200, 1, 0, 2])
    assert entropy(scores) == pytest.approx([1, 0, 0, np.log(2) / np.log(200)])
    assert gini(scores) == pytest.approx([0, 199 / 200, 1, 198 / 200])
    assert mass_in_top(scores) == pytest.approx([0.01, 1, 0, 1])
    for measure in MEASURES.values():
        np.testing.assert_allclose(measure(-2 * scores), measure(scores))


def test_gini_is_the_mean_difference():
    scores = np.abs(RNG.normal(size=(3, 40)))
    pairs = np.abs(scores[:, :, None] - scores[:, None]).mean((1, 2)) / (2 * scores.mean(1))
    np.testing.assert_allclose(gini(scores), pairs)


def test_outliers_are_greatest_on_average():
    scores = np.array([[[0.0, 1, 10, -9]], [[0.0, 2, -1, 4]], [[0.0, 0, 0, 0]]])
    assert outliers(scores, 2) == [3, 2]


# which examples


@pytest.fixture(scope="module")
def mined(world):
    return hard_negatives(world, NegativesSpec())


SPEC = SampleSpec(examples=12, candidates=9, hard=3)


def test_a_question_chooses_among_its_passage_hard_ones_and_others(world, mined):
    found = sample(world, mined, "query", SPEC, seed=1)
    ids = [passage.id for passage in world.passages]
    assert found.candidates.shape == (12, 9)
    for example, row in zip(found.examples, found.candidates, strict=True):
        question = world.questions[example]
        assert question.split == "test"
        assert ids[row[0]] == question.gold
        hard = mined[question.id][:3]
        assert [ids[i] for i in row[1 : 1 + len(hard)]] == hard
        assert len(set(row)) == 9


def test_a_passage_chooses_among_its_questions_and_those_of_others(world, mined):
    found = sample(world, mined, "passage", SPEC, seed=1)
    hard = 0
    for example, row in zip(found.examples, found.candidates, strict=True):
        passage = world.passages[example].id
        asked = [world.questions[i] for i in row]
        assert [question.gold == passage for question in asked] == [True, *[False] * 8]
        assert {question.split for question in asked} == {"test"}
        hard += sum(passage in mined[question.id] for question in asked[1:4])
    assert hard > 12
    assert len(set(found.examples)) == 12


@pytest.mark.parametrize("side", ["query", "passage"])
def test_a_smaller_sample_is_the_beginning_of_a_larger_one(world, mined, side):
    fewer = sample(world, mined, side, SampleSpec(examples=5, candidates=9, hard=3), seed=1)
    more = sample(world, mined, side, SPEC, seed=1)
    assert (more.examples[:5] == fewer.examples).all()
    assert (more.candidates[:5] == fewer.candidates).all()
    assert (sample(world, mined, side, SPEC, seed=2).examples != more.examples).any()


def test_examples_can_be_asked_for(world, mined):
    more = sample(world, mined, "query", SPEC, seed=1)
    chosen = sample(world, mined, "query", SPEC, seed=1, only=more.examples[[4, 2]].tolist())
    assert (chosen.candidates == more.candidates[[4, 2]]).all()
    train = next(i for i, question in enumerate(world.questions) if question.split == "train")
    with pytest.raises(ValueError, match=f"example {train} is no test question"):
        sample(world, mined, "query", SPEC, only=[train])


def test_wrong_samples_are_refused(world, mined):
    with pytest.raises(ValueError, match="side = 'both' is not known"):
        sample(world, mined, "both", SPEC)
    with pytest.raises(ValueError, match="candidates; ask for as many or fewer than 5000"):
        sample(world, mined, "query", SampleSpec(candidates=5000))


@pytest.mark.parametrize(
    ("spec", "wrong", "message"),
    [
        (SampleSpec, {"examples": 1}, "examples = 1 is too few"),
        (SampleSpec, {"candidates": 1}, "candidates = 1 is too few"),
        (SampleSpec, {"hard": -1}, "hard = -1 is too few"),
        (SampleSpec, {"entropy": 1.0}, "entropy = 1 is no share"),
        (ActivitySpec, {"threshold": 0.0}, "threshold = 0.0 is no share"),
        (ActivitySpec, {"thresholds": (0.1, 1.5)}, "threshold = 1.5 is no share"),
        (ActivitySpec, {"changed": ()}, r"changed = \(\) changes nothing"),
        (ActivitySpec, {"few": 1}, "few = 1 is too few"),
    ],
)
def test_wrong_specs_are_refused(spec, wrong, message):
    with pytest.raises(ValueError, match=message):
        spec(**wrong)
