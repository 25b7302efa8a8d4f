"""Active neurons and their concentration, against loops and numbers on one's fingers."""

import numpy as np
import pytest

from dprlens.decentralization.active_neurons import (
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
    sharing_gain,
    strongest,
    union,
    union_gain,
    union_ratio,
)
from dprlens.decentralization.attribution import SITES, Attribution
from dprlens.intervals import mean
from dprlens.retrieval.negatives import NegativesSpec, hard_negatives

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


@pytest.mark.parametrize("seed", range(4))
def test_activity_of_any_shape_is_what_loops_count_with_and_without_each_cluster(seed):
    rng = np.random.default_rng([seed, 1])
    n, blocks, neurons = rng.integers((6, 1, 4), (14, 4, 12))
    active = rng.random((n, blocks, neurons)) < rng.random((1, blocks, neurons)) ** 2
    names = ["a", ("b", 1), 7, *(["a", 3.5, ("b", 1)][i] for i in rng.integers(0, 3, n - 3))]
    found = activity(active, names)
    assert [one.value for one in found] == pytest.approx(counted(active))
    for field in (0, 2, 3):
        left = [[i for i in range(n) if names[i] != name] for name in dict.fromkeys(names)]
        without = np.array([counted(active[rows])[field] for rows in left])
        half = 1.959964 * np.sqrt((len(left) - 1) / len(left) * ((without - without.mean()) ** 2).sum())
        assert found[field].high - found[field].value == pytest.approx(half, rel=1e-5)
        assert found[field].value - found[field].low == pytest.approx(half, rel=1e-5)
        assert found[field].n == n


def test_the_interval_of_the_mean_draws_clusters():
    per_example = [int(example.sum()) for example in ACTIVE]
    assert activity(ACTIVE, CLUSTERS).active == mean(per_example, CLUSTERS)
    assert activity(ACTIVE, CLUSTERS).active != mean(per_example)


def test_no_activity_and_full_activity_are_the_extremes():
    none, full = activity(np.zeros((4, 2, 5), bool), "aabc"), activity(np.ones((4, 2, 5), bool), "aabc")
    assert [one.value for one in none] == [0, 0, 0, 0]
    assert [one.value for one in full] == [10, 10, 1, 1]
    assert [(one.low, one.high) for one in full] == [(10, 10), (10, 10), (1, 1), (1, 1)]


def test_activity_of_one_cluster_is_refused(refused):
    with refused("One cluster", "two or more"):
        activity(ACTIVE, ["a"] * 12)
    with refused("One cluster", "two or more"):
        union_gain(ACTIVE, ACTIVE, ["a"] * 12)


def test_the_interval_of_a_gain_in_union_leaves_each_cluster_out_of_both():
    other, names = np.random.default_rng(6).random(ACTIVE.shape) < 0.05, np.array(CLUSTERS)
    gains = [counted(ACTIVE[names != name])[0] - counted(other[names != name])[0] for name in dict.fromkeys(CLUSTERS)]
    half = 1.959964 * np.sqrt((len(gains) - 1) / len(gains) * ((gains - np.mean(gains)) ** 2).sum())
    found = union_gain(ACTIVE, other, CLUSTERS)
    assert found == pytest.approx((found.value, found.value - half, found.value + half, 12), rel=1e-5)
    assert half > 1
    assert union_gain(other, ACTIVE, CLUSTERS).value == -found.value != 0


def test_the_gain_in_union_is_paired():
    other = RNG.random(ACTIVE.shape) < 0.1
    found = union_gain(ACTIVE, other, CLUSTERS)
    assert found.value == counted(ACTIVE)[0] - counted(other)[0]
    assert tuple(union_gain(ACTIVE, ACTIVE, CLUSTERS)[:3]) == (0, 0, 0)  # neurons come and go in both alike


def test_a_union_that_no_cluster_matters_to_is_not_known_exactly():
    """Three neurons that are always active, and one: the gain is 2, give or take a neuron that was just not seen."""
    a, b = np.zeros((2, 12, 1, 5), bool)
    a[:, :, :3], b[:, :, 0] = True, True
    half = 1.959964 * 7 / 8  # eight clusters
    assert union_gain(a, b, CLUSTERS) == pytest.approx((2, 2 - half, 2 + half, 12), rel=1e-5)
    ratio = union_ratio(a, b, CLUSTERS)
    assert ratio.value == pytest.approx(3)
    assert ratio.low < 2 < 4 < ratio.high


def test_the_interval_of_a_ratio_of_unions_is_that_of_its_logarithm():
    other, names = np.random.default_rng(6).random(ACTIVE.shape) < 0.05, np.array(CLUSTERS)
    logs = [
        np.log(counted(ACTIVE[names != name])[0] / counted(other[names != name])[0]) for name in dict.fromkeys(CLUSTERS)
    ]
    half = 1.959964 * np.sqrt((len(logs) - 1) / len(logs) * ((logs - np.mean(logs)) ** 2).sum())
    value = counted(ACTIVE)[0] / counted(other)[0]
    expected = value, value * np.exp(-half), value * np.exp(half), 12
    assert union_ratio(ACTIVE, other, CLUSTERS) == pytest.approx(expected, rel=1e-5)
    back = union_ratio(other, ACTIVE, CLUSTERS)
    assert (back.low, back.high) == pytest.approx((1 / expected[2], 1 / expected[1]))


def test_a_union_that_hangs_on_one_cluster_has_no_ratio():
    one = np.zeros_like(ACTIVE)
    one[5:6, 0, 0] = True  # the only example of its cluster
    assert union_ratio(ACTIVE, one, CLUSTERS) is None
    assert union_ratio(one, ACTIVE, CLUSTERS) is None
    assert union_ratio(np.zeros_like(ACTIVE), ACTIVE, CLUSTERS) is None


def test_the_gain_in_sharing_is_paired():
    other, names = np.random.default_rng(6).random(ACTIVE.shape) < 0.2, np.array(CLUSTERS)
    gains = [counted(ACTIVE[names != name])[2] - counted(other[names != name])[2] for name in dict.fromkeys(CLUSTERS)]
    half = 1.959964 * np.sqrt((len(gains) - 1) / len(gains) * ((gains - np.mean(gains)) ** 2).sum())
    value = counted(ACTIVE)[2] - counted(other)[2]
    assert sharing_gain(ACTIVE, other, CLUSTERS) == pytest.approx((value, value - half, value + half, 12), rel=1e-5)


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


def test_union_and_sharing_of_several_countings_at_once():
    times = np.array([[0, 2, 1], [0, 0, 0], [3, 3, 0]])
    assert union(times).tolist() == [2, 0, 2]
    assert sharing(times, np.array([3, 3, 3])).tolist() == pytest.approx([2 / (3 * 2), 0, 1])
    assert sharing(times, np.array([3, 3, 5])).tolist() == pytest.approx([2 / (3 * 2), 0, 12 / (6 * 4)])
    assert sharing(np.array([1, 1]), 1) == 0  # no other example to share with


def test_the_strongest_neurons_are_the_active_ones_in_the_order_of_their_scores():
    inner, outer = np.zeros((2, 2, 3)), np.zeros((2, 2, 2))
    inner[1] = [[4, 1, 0], [0, 2, -9]]
    outer[1] = [[0, 3], [2, 0]]
    found = Attribution(inner, outer, np.ones(2), np.ones((2, 2, 2)), np.ones(2, int))
    rows = strongest(found, 1, 0.5)
    assert rows.to_dict("list") == {
        "block": [0, 0, 1, 1],
        "site": [SITES[0], SITES[1], SITES[0], SITES[1]],
        "neuron": [0, 1, 1, 0],
        "share": [1, 0.75, 0.5, 0.5],
        "unit": [0, 4, 1, 3],
    }
    assert len(strongest(found, 1, 0.6)) == 2
    assert strongest(found, 0, 0.5).empty  # nothing adds to the right one
    with pytest.raises(ValueError, match="threshold"):
        strongest(found, 1, 0)


def test_chance_sharing_on_ones_fingers():
    """Of four neurons two and three are active: 2 · 3 / 4 in common by chance, twice, of 2 + 3."""
    assert chance_sharing(np.array([5]), np.array([4 + 9]), 4, 2) == pytest.approx(3 / 5)
    assert chance_sharing(np.array([2, 3]), np.array([4, 9]), 4, 2) == 0  # in two blocks they cannot meet
    both = chance_sharing(np.array([[5], [3]]), np.array([[13], [3]]), 4, np.array([2, 3]))
    assert both.tolist() == pytest.approx([3 / 5, 1 / 4])  # three examples with one each


def test_at_least_counts_neurons_of_all_blocks():
    active = np.zeros((10, 2, 3), bool)
    active[:5, 0, 0], active[:4, 1, 0], active[9, 1, 2] = True, True, True
    assert [at_least(active, share) for share in (0.1, 0.4, 0.41, 0.5, 0.51)] == [3, 2, 1, 1, 0]
    assert at_least(active, 0) == 3  # never those of no example


def test_at_least_counts_a_neuron_of_exactly_the_share():
    # The shares in SHARES are not touched by it up to 5,000 examples.
    active = np.zeros((100, 1, 2), bool)
    active[:7, 0, 0] = True
    assert at_least(active, 0.07) == 1


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


def test_concentration_of_one_two_three_and_four():
    """Shares 0.1 … 0.4 over two blocks, whatever the sign; squares 1 + 4 + 9 + 16 = 30."""
    scores = np.array([[[3.0, -1], [-4, 2]]])
    assert participation(scores) == pytest.approx([100 / 30])
    assert entropy(scores) == pytest.approx([-sum(p * np.log(p) for p in (0.1, 0.2, 0.3, 0.4)) / np.log(4)])
    assert gini(scores) == pytest.approx([(-3 * 0.1 - 0.2 + 0.3 + 3 * 0.4) / 4])
    assert [mass_in_top(scores, share).item() for share in (1e-9, 0.3, 0.5, 0.75, 1)] == pytest.approx(
        [0.4, 0.4, 0.7, 0.9, 1]
    )


def test_each_example_has_a_concentration_of_its_own():
    scores = np.random.default_rng(7).normal(size=(5, 2, 30)) * np.array([1, 1e-6, 1e6, 3, 10])[:, None, None]
    for name, measure in MEASURES.items():
        found = measure(scores)
        assert found.shape == (5,), name
        np.testing.assert_allclose(found, [measure(scores[i : i + 1]).item() for i in range(5)])
        np.testing.assert_allclose(found, measure(np.random.default_rng(0).permutation(scores, axis=2)), rtol=1e-12)
        assert len(set(found.round(9))) == 5, name


def test_gini_is_the_mean_difference():
    scores = np.abs(RNG.normal(size=(3, 40)))
    pairs = np.abs(scores[:, :, None] - scores[:, None]).mean((1, 2)) / (2 * scores.mean(1))
    np.testing.assert_allclose(gini(scores), pairs)


def test_outliers_are_greatest_on_average():
    scores = np.array([[[0.0, 1, 10, -9]], [[0.0, 2, -1, 4]], [[0.0, 0, 0, 0]]])
    assert outliers(scores, 2) == [3, 2]


def test_outliers_are_places_over_all_blocks_by_relative_size():
    """Relative sizes: block 0 has 1, 0.1, 0 and 0.2, 0, 0; block 1 has 0, 0.5, 0 and 0, 1, -0.3."""
    scores = np.array([[[100.0, -10, 0], [0, 50, 0]], [[0.2, 0, 0], [0, 1, -0.3]]])
    assert outliers(scores, 4) == [4, 0, 5, 1]  # means 0.75, 0.6, 0.15, 0.05
    assert outliers(scores, 1) == [4]


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


EVERYTHING = 10_000  # examples: more than the world has


def right_and_hard(world, mined, side: str) -> dict[int, tuple[list[int], list[int]]]:
    """By example: all that would be right for it, and all that are hard, by loops over the world."""
    places = {passage.id: i for i, passage in enumerate(world.passages)}
    asked = [i for i, question in enumerate(world.questions) if question.split == "test"]
    gold = {i: places[world.questions[i].gold] for i in asked}
    hard = {i: [places[name] for name in mined[world.questions[i].id]] for i in asked}
    if side == "query":
        return {i: ([gold[i]], hard[i]) for i in asked}
    return {
        p: ([i for i in asked if gold[i] == p], [i for i in asked if p in hard[i] and gold[i] != p])
        for p in set(gold.values())
    }


@pytest.mark.parametrize("side", ["query", "passage"])
def test_all_examples_are_sampled_once_if_more_are_asked_for_than_there_are(world, mined, side):
    found = sample(world, mined, side, SampleSpec(examples=EVERYTHING, candidates=9, hard=3))
    assert sorted(found.examples.tolist()) == sorted(right_and_hard(world, mined, side))
    assert found.examples.tolist() != sorted(found.examples.tolist())


@pytest.mark.parametrize("side", ["query", "passage"])
@pytest.mark.parametrize("hard", [0, 3, 7])
def test_the_right_one_then_hard_ones_then_others_and_none_twice_or_right_as_well(world, mined, side, hard):
    sampled = sample(world, mined, side, SampleSpec(examples=EVERYTHING, candidates=12, hard=hard), seed=4)
    expected, several, few = right_and_hard(world, mined, side), 0, 0
    for example, row in zip(sampled.examples.tolist(), sampled.candidates.tolist(), strict=True):
        right, difficult = expected[example]
        n = min(hard, len(difficult))
        assert row[0] in right
        assert set(row[1 : 1 + n]) <= set(difficult)
        if side == "query":
            assert row[1 : 1 + n] == difficult[:n]  # the hardest
        assert not set(row[1:]) & set(right)
        assert len(set(row)) == len(row) == 12
        several, few = several + (len(right) > 1), few + (len(difficult) < hard)
    assert (several > 0) == (side == "passage")
    assert (few > 0) == (hard > 0)


def test_no_other_candidate_states_the_fact_that_is_asked_for(world, mined):
    sampled = sample(world, mined, "query", SampleSpec(examples=EVERYTHING, candidates=16, hard=7), seed=4)
    for example, row in zip(sampled.examples, sampled.candidates, strict=True):
        target = world.questions[example].target
        assert [target in world.passages[i].facts for i in row] == [True] + [False] * 15


def test_with_no_hard_ones_every_passage_is_drawn_equally_often(world, mined):
    found = sample(world, mined, "query", SampleSpec(examples=EVERYTHING, candidates=33, hard=0), seed=4)
    times = np.bincount(found.candidates[:, 1:].ravel(), minlength=len(world.passages))
    chances = np.array([len(found.examples) - (found.candidates[:, 0] == p).sum() for p in range(len(world.passages))])
    p = 32 / (len(world.passages) - 1)
    assert (np.abs(times - p * chances) < 4.5 * np.sqrt(p * (1 - p) * chances)).all()
    assert len(set(found.candidates[:, 1].tolist())) > 60  # the first as well as the last


@pytest.mark.parametrize("side", ["query", "passage"])
def test_the_seed_decides_the_sample(world, mined, side):
    first, again, other = (sample(world, mined, side, SPEC, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.examples, again.examples)
    np.testing.assert_array_equal(first.candidates, again.candidates)
    assert first.examples.tolist() != other.examples.tolist()
    same = [sample(world, mined, side, SPEC, seed, first.examples.tolist()).candidates[:, 4:] for seed in (7, 8)]
    assert (same[0] == first.candidates[:, 4:]).all()
    assert (same[0] != same[1]).any(1).all()


def test_as_many_candidates_as_there_are_can_be_asked_for_and_no_more(world, mined, refused):
    for side, others in (
        ("query", len(world.passages)),
        ("passage", sum(question.split == "test" for question in world.questions)),
    ):
        most = max(len(right) for right, _ in right_and_hard(world, mined, side).values())
        fewest = others - most + 1
        found = sample(world, mined, side, SampleSpec(examples=EVERYTHING, candidates=fewest))
        assert all(len(set(row)) == fewest for row in found.candidates.tolist())
        with refused(f"an example has {fewest} candidates", f"fewer than {fewest + 1}"):
            sample(world, mined, side, SampleSpec(examples=EVERYTHING, candidates=fewest + 1))


def test_a_side_or_an_example_that_is_not_there_is_refused_in_a_sentence(world, mined, refused):
    for side in ("both", "", "Query"):
        with refused(repr(side), "query, passage"):
            sample(world, mined, side, SPEC)
    answering = set(right_and_hard(world, mined, "passage"))
    idle = next(i for i in range(len(world.passages)) if i not in answering)
    with refused(f"example {idle} is no test question and answers none"):
        sample(world, mined, "passage", SPEC, only=[*[*answering][:3], idle])
    assert sample(world, mined, "passage", SPEC, only=[*answering][:3]).examples.tolist() == [*answering][:3]


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
        (SampleSpec, {"entropy": 0.0}, "entropy = 0 is no share"),
        (SampleSpec, {"entropy": float("nan")}, "entropy = nan is no share"),
        (ActivitySpec, {"outliers": 0}, "outliers = 0 is too few; give 1"),
        (ActivitySpec, {"dpr_seeds": 0}, "dpr_seeds = 0 is too few"),
        (ActivitySpec, {"worlds": 0}, "worlds = 0 is too few"),
        (ActivitySpec, {"threshold": float("nan")}, "threshold = nan is no share"),
        (ActivitySpec, {"thresholds": (0.1, -0.5)}, "threshold = -0.5 is no share"),
        (ActivitySpec, {"changed": (10, 0)}, r"changed = \(10, 0\) changes nothing"),
    ],
)
def test_wrong_specs_are_refused(spec, wrong, message):
    with pytest.raises(ValueError, match=message):
        spec(**wrong)


def test_specs_at_their_limits_are_accepted():
    assert SampleSpec(examples=2, candidates=2, hard=0, entropy=0.999).hard == 0
    limits = ActivitySpec(threshold=1, thresholds=(1, 1e-9), few=2, outliers=1, changed=(1,), dpr_seeds=1, worlds=1)
    assert limits.changed == (1,)
    assert ActivitySpec(thresholds=()).thresholds == ()
