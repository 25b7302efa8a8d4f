"""Intervals against worked numbers and against simulated truth."""

import numpy as np
import pytest

from dprlens.intervals import (
    Estimate,
    detectable,
    difference,
    exact,
    gap,
    holm,
    jackknife,
    kappa,
    mcnemar,
    mean,
    over_runs,
    ratio,
    share,
    slope,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # the paper's printed shares (Tables 3 and 4) as counts of the 284 facts, or of the facts removed
        (153, 284, 0.48, 0.60),
        (162, 284, 0.51, 0.63),
        (40, 46, 0.74, 0.94),
        (26, 32, 0.65, 0.91),
        (31, 31, 0.89, 1.0),
        # by hand: with n = 4 and z² = 3.8415 the middle is 0.5 and the half width 1.96·√(1/16 + 3.8415/64)/1.9604
        (2, 4, 0.15, 0.85),
        (0, 10, 0.0, 0.278),
    ],
)
def test_wilson_gives_the_known_intervals(successes, n, low, high):
    estimate = share(successes, n)
    assert estimate.value == successes / n
    assert estimate.n == n
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))


def test_wilson_reaches_zero_and_one_exactly():
    assert share(0, 7).low == 0.0
    assert share(7, 7).high == 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_shares_are_refused(successes, n):
    with pytest.raises(ValueError, match=rf"{successes} successes in {n} trials"):
        share(successes, n)


def test_an_estimate_reads_as_value_interval_and_n():
    estimate = Estimate(0.951, 0.926, 0.9701, 120)
    assert str(estimate) == "0.95 [0.93, 0.97], n = 120"
    assert f"{estimate:.1%}" == "95.1% [92.6%, 97.0%], n = 120"
    assert str(exact(1323)) == "1,323"
    assert str(exact(0.5)) == "0.50"


def test_nothing_reads_as_minus_nothing():
    assert str(Estimate(-0.001, -0.3, -0.0, 5)) == "0.00 [−0.30, 0.00], n = 5"
    assert str(Estimate(-0.01, -0.02, -0.003, 5)) == "−0.010 [−0.020, −0.003], n = 5"  # 0 is left out
    assert str(Estimate(0.01, 0.0004, 0.02, 5)) == "0.0100 [0.0004, 0.0200], n = 5"
    assert f"{Estimate(-0.001, -0.02, 0.004, 5):.1%}" == "−0.1% [−2.0%, 0.4%], n = 5"


def test_the_bootstrap_covers_the_truth_in_95_of_100_cases():
    rng = np.random.default_rng(0)
    samples = rng.normal(0.3, 1.0, size=(600, 120))
    covered = [e.low <= 0.3 <= e.high for e in (mean(row, resamples=500) for row in samples)]
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.slow
def test_the_bootstrap_covers_shares_of_facts_and_their_differences():
    """Two questions a fact, both right with the fact's own probability, or with 0.1 less in the other arm."""
    rng, facts = np.random.default_rng(13), np.repeat(np.arange(100), 2)
    covered = {"share": [], "difference": []}
    for _ in range(1000):
        probability = rng.choice([0.2, 0.9], size=100)[facts]
        one, other = rng.random(200) < probability, rng.random(200) < probability - 0.1
        found = mean(one, facts, resamples=500), difference(one, other, facts, resamples=500)
        for name, estimate, truth in zip(covered, found, (0.55, 0.1), strict=True):
            covered[name].append(estimate.low <= truth <= estimate.high)
    assert 0.93 <= np.mean(covered["share"]) <= 0.97
    assert 0.93 <= np.mean(covered["difference"]) <= 0.97


def test_wilson_covers_the_truth_in_95_of_100_cases():
    successes = np.random.default_rng(1).binomial(150, 0.12, size=4000)
    covered = [e.low <= 0.12 <= e.high for e in (share(int(count), 150) for count in successes)]
    assert 0.93 <= np.mean(covered) <= 0.97


def clustered_sample(rng, clusters=60, size=5):
    """Values of 60 facts with 5 questions each; a fact's questions share most of their luck."""
    facts = np.repeat(np.arange(clusters), size)
    return rng.normal(size=clusters)[facts] + 0.3 * rng.normal(size=clusters * size), facts


def test_clusters_restore_coverage_that_pretended_independence_loses():
    rng = np.random.default_rng(2)
    covered = {"by fact": [], "by question": []}
    for _ in range(400):
        values, facts = clustered_sample(rng)
        for name, clusters in (("by fact", facts), ("by question", None)):
            estimate = mean(values, clusters, resamples=400)
            covered[name].append(estimate.low <= 0 <= estimate.high)
    assert 0.91 <= np.mean(covered["by fact"]) <= 0.98
    assert np.mean(covered["by question"]) < 0.75


def test_clusters_may_be_named_by_anything_and_differ_in_size():
    values = [1, 0, 0, 1, 1]
    estimate = mean(values, clusters=["a", "b", "b", ("c", 1), ("c", 1)])
    assert estimate.value == 0.6
    assert estimate.n == 5
    assert estimate.low == 0.0  # only b drawn
    assert estimate.high == 1.0


def test_values_all_one_get_wilson_over_clusters_and_not_an_empty_interval():
    assert mean([1, 1, 1, 1, 1, 1], clusters=[0, 0, 1, 1, 2, 2]) == share(3, 3)._replace(n=6)
    assert mean([0.0] * 10) == share(0, 10)
    assert mean([2.0] * 10) == Estimate(2.0, 2.0, 2.0, 10)


def test_a_paired_difference_by_hand():
    a, b = [1, 1, 1, 0], [0, 1, 0, 1]  # differences 1, 0, 1, −1
    estimate = difference(a, b, resamples=20_000)
    assert estimate.value == 0.25
    assert estimate.n == 4
    # of 256 equally likely draws the sum is −4 in 1, −3 in 4, −2 in 6 + 8: 2.5 % lies in the third step
    assert estimate.low == -0.5
    assert estimate.high == 1.0  # P(all four are 1) = 1/16


def test_a_difference_and_a_gap_draw_whole_clusters():
    values, facts = clustered_sample(np.random.default_rng(7))
    nothing = np.zeros(values.size)
    for compare, named in (
        (difference, {"clusters": facts}),
        (gap, {"clusters_a": facts}),
        (gap, {"clusters_b": facts}),
    ):
        arms = (nothing, values) if "clusters_b" in named else (values, nothing)
        by_fact, by_question = compare(*arms, **named), compare(*arms)
        assert by_fact.value == pytest.approx(by_question.value)
        assert by_fact.high - by_fact.low > 1.5 * (by_question.high - by_question.low)


def test_pairing_narrows_what_the_items_share():
    rng = np.random.default_rng(3)
    items = rng.normal(size=200)
    a, b = items + 0.5 + 0.1 * rng.normal(size=200), items + 0.1 * rng.normal(size=200)
    paired, unpaired = difference(a, b), gap(a, b)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.high - paired.low < 0.2 * (unpaired.high - unpaired.low)


def test_a_gap_of_two_groups_covers_its_truth():
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(300):
        a, b = rng.normal(1, 1, 80), rng.normal(0, 2, 60)
        estimate = gap(a, b, resamples=400)
        covered.append(estimate.low <= 1 <= estimate.high)
    assert estimate.n == 60
    assert 0.91 <= np.mean(covered) <= 0.98


def test_the_seed_decides_and_nothing_else_does():
    values = np.random.default_rng(5).normal(size=50)
    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter
    first = mean(values, seed=7)
    np.random.seed(2)  # noqa: NPY002
    assert mean(values, seed=7) == first
    assert mean(values, seed=8) != first


def test_many_clusters_are_drawn_in_blocks(monkeypatch):
    values = np.random.default_rng(6).normal(size=30)
    whole = mean(values, resamples=64)
    monkeypatch.setattr("dprlens.intervals.BLOCK", 70)  # two rows of 30 at a time
    assert mean(values, resamples=64) == pytest.approx(whole)


@pytest.mark.parametrize("block", [1, 31, 95, 400])  # a draw at a time, or three, or twelve, of 31 clusters
def test_numbers_that_share_their_draws_are_those_drawn_in_blocks(monkeypatch, block):
    rng = np.random.default_rng(12)
    a, b = rng.random((2, 120)) < 0.4
    facts = np.arange(120) % 31
    calls = [(mean, (a, facts)), (difference, (a, b, facts)), (mean, (b, facts)), (difference, (b, a, facts))]
    shared = [of(*arguments, seed=5, resamples=201) for of, arguments in calls]
    with monkeypatch.context() as patched:
        patched.setattr("dprlens.intervals.BLOCK", block)
        in_blocks = [of(*arguments, seed=5, resamples=201) for of, arguments in calls]
    assert in_blocks == [pytest.approx(estimate, abs=1e-12) for estimate in shared]
    assert [of(*arguments, seed=5, resamples=201) for of, arguments in calls] == shared  # the draws are left alone
    assert len(set(shared)) == 4


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [[1, 2], [3, 4]]])
def test_no_values_or_no_numbers_are_refused_with_a_sentence(values):
    with pytest.raises(ValueError, match="give one row of at least one finite number"):
        mean(values)


def test_arms_and_clusters_must_fit():
    with pytest.raises(ValueError, match="Arms of 3 and 2 values"):
        difference([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="2 cluster names for 3 values"):
        mean([1, 2, 3], clusters=["a", "b"])


def test_a_slope_by_hand():
    """Means 1.5 and 2.75: Sxy = 2.625 − 0.125 − 0.375 + 3.375 = 5.5, Sxx = 5."""
    estimate = slope([0, 1, 2, 3], [1, 3, 2, 5])
    assert estimate.value == pytest.approx(1.1)
    assert estimate.n == 4
    assert estimate.low < 1.1 < estimate.high


def test_a_perfect_line_leaves_no_doubt():
    years = np.arange(1990.0, 2020.0)
    assert slope(years, 3 * years - 7)[:3] == pytest.approx((3, 3, 3), rel=1e-6)


def test_draws_in_which_all_doses_are_equal_have_no_slope():
    """Of two facts with one dose each, a draw has both, and this slope, or one of them twice, and none."""
    estimate = slope([0.1] * 3 + [0.3] * 3, [0, 1, 0, 1, 1, 0], clusters=["a"] * 3 + ["b"] * 3)
    assert estimate[:3] == pytest.approx((5 / 3, 5 / 3, 5 / 3))
    assert estimate.n == 6


@pytest.mark.slow
def test_a_slope_covers_its_truth_if_whole_facts_are_drawn():
    rng = np.random.default_rng(8)
    covered = {"by fact": [], "by question": []}
    for _ in range(300):
        noise, facts = clustered_sample(rng)
        doses = rng.normal(size=60)[facts]
        for name, clusters in (("by fact", facts), ("by question", None)):
            estimate = slope(doses, 0.5 * doses + noise, clusters, resamples=300)
            covered[name].append(estimate.low <= 0.5 <= estimate.high)
    assert 0.9 <= np.mean(covered["by fact"]) <= 0.98
    assert np.mean(covered["by question"]) < 0.75


def test_the_seed_decides_a_slopes_interval():
    doses, responses = np.random.default_rng(9).normal(size=(2, 40))
    assert slope(doses, responses, seed=3) == slope(doses, responses, seed=3)
    assert slope(doses, responses, seed=3)[1:3] != slope(doses, responses, seed=4)[1:3]


def test_slopes_that_cannot_be_are_refused(refused):
    with refused("3 doses", "2 responses"):
        slope([1, 2, 3], [1, 2])
    with refused("All 3 doses are 2", "two doses or more"):
        slope([2, 2, 2], [1, 2, 3])
    with refused("2 cluster names for 3 values"):
        slope([1, 2, 3], [1, 2, 3], clusters=["a", "b"])
    with refused("finite"):
        slope([1, 2, float("nan")], [1, 2, 3])


def test_runs_get_students_interval_by_hand():
    """Standard deviation 1, t with two degrees of freedom 4.3027: half width 4.3027/√3."""
    assert over_runs([1, 2, 3]) == pytest.approx((2, 2 - 2.48414, 2 + 2.48414, 3), abs=1e-5)
    assert over_runs([0.25, 0.25]) == Estimate(0.25, 0.25, 0.25, 2)


def test_students_interval_covers_the_truth_for_three_runs():
    runs = np.random.default_rng(10).normal(0.7, 2.0, size=(3000, 3))
    covered = [e.low <= 0.7 <= e.high for e in map(over_runs, runs)]
    assert 0.935 <= np.mean(covered) <= 0.965


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(12).normal(size=30)
    without = [np.delete(values, i).mean() for i in range(30)]
    found, half = jackknife(values.mean(), without, 30), 1.959964 * values.std(ddof=1) / 30**0.5
    assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half, 30), abs=1e-6)


def test_the_jackknife_of_a_count_of_kinds_by_hand():
    """Kinds {1, 2}, {2}, {3}: 3 in all; 2 without the first, 3 without the second, 2 without the third."""
    half = 1.959964 * (2 / 3 * (2 / 9 + 4 / 9)) ** 0.5
    assert jackknife(3, [2, 3, 2], 3) == pytest.approx((3, 3 - half, 3 + half, 3), abs=1e-6)


def test_the_jackknife_of_a_mean_over_clusters_is_the_standard_error_of_their_means():
    """Eight clusters of three: `n` counts the 24 observations, and the spread is that of the eight."""
    values = np.random.default_rng(17).normal(size=(8, 3))
    without = [np.delete(values, i, axis=0).mean() for i in range(8)]
    half = 1.959964 * values.mean(1).std(ddof=1) / 8**0.5
    found = jackknife(values.mean(), without, 24)
    assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half, 24), abs=1e-6)


def test_the_jackknife_of_a_ratio_is_its_formula_in_a_loop():
    """Clusters of one to five observations; the interval lies around the value and not around the mean of the rest."""
    rng = np.random.default_rng(18)
    clusters = [rng.normal(1, 1, size=size) for size in (1, 2, 3, 4, 5)]
    value = np.concatenate(clusters).mean()
    without = [np.concatenate(clusters[:i] + clusters[i + 1 :]).mean() for i in range(5)]
    middle = sum(without) / 5
    variance = sum((one - middle) ** 2 for one in without) * 4 / 5
    assert abs(middle - value) > 1e-3
    half = 1.959964 * variance**0.5
    assert jackknife(value, without, 15) == pytest.approx((value, value - half, value + half, 15), abs=1e-6)


def test_what_no_cluster_changes_has_no_spread():
    assert jackknife(4, [4, 4, 4], 9) == Estimate(4.0, 4.0, 4.0, 9)


def test_a_jackknife_without_numbers_is_refused(refused):
    for without in ([], [1.0, float("nan")], [[1.0, 2.0], [3.0, 4.0]]):
        with refused("at least one finite number"):
            jackknife(1.0, without, 5)


def test_one_cluster_has_no_jackknife(refused):
    with refused("One cluster", "two or more"):
        jackknife(1.0, [1.0], 5)


@pytest.mark.parametrize("values", [[0.5], [], [0.1, float("inf")]])
def test_one_run_has_no_spread(refused, values):
    with refused("give"):
        over_runs(values)


def test_what_is_detectable_is_detected_four_times_in_five():
    assert detectable(Estimate(0.0, -1.959964, 1.959964, 50)) == pytest.approx(1.959964 + 0.841621, abs=1e-5)
    rng = np.random.default_rng(11)
    nothing = [detectable(mean(sample, resamples=400)) for sample in rng.normal(0, 1, size=(50, 80))]
    true = np.mean(nothing)
    assert true == pytest.approx(2.8016 / 80**0.5, rel=0.05)
    found = [mean(sample, resamples=400).low > 0 for sample in rng.normal(true, 1, size=(600, 80))]
    assert 0.75 <= np.mean(found) <= 0.86


# --- p-values ---


def test_mcnemar_by_hand():
    """Of 9 items a alone is right on one and b alone on five: 2 · (1 + 6) / 2⁶; the other three say nothing."""
    a = [1, 0, 0, 0, 0, 0, 1, 1, 0]
    b = [0, 1, 1, 1, 1, 1, 1, 1, 0]
    assert mcnemar(a, b) == pytest.approx(14 / 64)
    assert mcnemar([True] * 5, [False] * 5) == pytest.approx(2 / 32)
    assert mcnemar([1, 0], [0, 1]) == 1


def test_mcnemar_does_not_care_which_arm_is_first():
    for a, b in np.random.default_rng(14).random((20, 2, 40)) < 0.6:
        assert 0 < mcnemar(a, b) == mcnemar(b, a) <= 1


def test_arms_that_agree_everywhere_are_not_told_apart():
    assert mcnemar([1, 0, 1], [1, 0, 1]) == 1
    assert mcnemar([], []) == 1


@pytest.mark.slow
def test_mcnemar_rejects_equal_arms_no_more_often_than_it_says():
    samples = np.random.default_rng(15).random((1500, 2, 60)) < 0.5
    assert 0.01 < np.mean([mcnemar(a, b) < 0.05 for a, b in samples]) < 0.055


def test_arms_on_other_items_are_refused(refused):
    with refused("3 and 2 items", "the same items"):
        mcnemar([1, 0, 1], [1, 0])


def test_kappa_by_hand():
    a, b = [1] * 50 + [0] * 50, [1] * 40 + [0] * 10 + [1] * 20 + [0] * 30  # alike on 70, by chance on .5·.6 + .5·.4
    found = kappa(a, b)
    assert found.value == pytest.approx((0.7 - 0.5) / 0.5)
    assert found.low < found.value < found.high
    assert found.n == 100
    assert kappa(a, a)[:3] == (1, 1, 1)


@pytest.mark.slow
def test_kappa_of_independent_verdicts_has_zero_inside_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        found = kappa(rng.random(80) < 0.3, rng.random(80) < 0.6, seed=seed, resamples=400)
        inside += found.low <= 0 <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_kappa_draws_clusters_whole():
    rng = np.random.default_rng(0)
    a = rng.random(40) < 0.5
    b = a ^ (rng.random(40) < 0.25)
    once, thrice = kappa(a, b), kappa(np.repeat(a, 3), np.repeat(b, 3), np.repeat(range(40), 3))
    assert once.value == pytest.approx(thrice.value)
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.1)


def test_kappa_refuses_other_items_and_one_sided_verdicts(refused):
    with refused("2 and 3 items"):
        kappa([0, 1], [0, 1, 1])
    with refused("always says the same"):
        kappa([0, 1], [1, 1])


def test_holm_by_hand():
    """In order 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06 and 0.04, which must not be the less."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, 0.02, 0.5]) == pytest.approx([0.06, 0.06, 0.5])
    assert holm([0.6, 0.3, 0.9]) == pytest.approx([1, 0.9, 1])
    assert holm([0.03]) == pytest.approx([0.03])


def test_holm_keeps_the_order_and_raises_no_p_above_one():
    for p in np.random.default_rng(16).random((20, 13)) ** 3:
        adjusted = holm(p)
        order = np.argsort(p)
        assert (np.diff(adjusted[order]) >= 0).all()
        assert (p <= adjusted).all()
        assert (adjusted <= np.minimum(1, 13 * p)).all()  # never more than Bonferroni's
        assert adjusted.min() == pytest.approx(min(1, 13 * p.min()))
        np.testing.assert_array_equal(holm(p[::-1]), adjusted[::-1])


def test_holm_refuses_what_is_no_row_of_numbers(refused):
    for p in ([], [0.1, float("nan")], [[0.1, 0.2]]):
        with refused("at least one finite number"):
            holm(p)


def test_estimates_are_written_as_large_as_they_are():
    assert str(Estimate(0.951, 0.93, 0.972, 120)) == "0.95 [0.93, 0.97], n = 120"
    assert str(Estimate(58.35, 54.8998, 61.8751, 240)) == "58.4 [54.9, 61.9], n = 240"
    assert str(Estimate(1192.0, 1130.69, 1253.31, 240)) == "1,192 [1,131, 1,253], n = 240"
    assert str(exact(1370)) == "1,370"
    assert Estimate(58.35, 54.8998, 61.8751, 240).brief == "58.4 [54.9, 61.9]"
    assert exact(12).brief == "12"


def test_a_ratio_is_that_of_the_means_and_is_resampled_as_pairs():
    rng = np.random.default_rng(0)
    b = rng.uniform(1, 3, size=300)
    exactly_twice = ratio(2 * b, b)
    assert exactly_twice.low == pytest.approx(2)
    assert exactly_twice.high == pytest.approx(2)
    noisy = ratio(2 * b + rng.normal(size=300), b)
    assert noisy.low < 2 < noisy.high
    assert noisy.n == 300
    assert noisy.value == pytest.approx(2, abs=0.1)


def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(200):
        b = rng.normal(1, 1, size=200)
        found = ratio(0.5 * b + rng.normal(size=200), b, resamples=500)
        covered += found.low <= 0.5 <= found.high
    assert 0.90 < covered / 200 < 0.99


def test_a_ratio_draws_whole_clusters():
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(40), 10)
    a = np.repeat(rng.normal(1, 1, size=40), 10)
    by_one, whole = (ratio(a, np.ones(400), names) for names in (None, clusters))
    assert whole.high - whole.low > 2 * (by_one.high - by_one.low)


def test_a_ratio_to_nothing_is_refused(refused):
    with refused("0", "above 0"):
        ratio([1.0, 2.0], [1.0, -1.0])
    with refused("2 and 3", "pairs"):
        ratio([1.0, 2.0], [1.0, 1.0, 1.0])
