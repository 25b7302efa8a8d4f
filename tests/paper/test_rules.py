"""Rules of claims: by hand, and against simulated truths (`benchmarks/rules.py` prints the same at more draws)."""

import numpy as np
import pytest
from benchmarks import rules as simulation
from scipy.stats import t

from dprlens.intervals import Estimate, exact, over_runs
from dprlens.paper.rules import (
    FAILS,
    HOLDS,
    LEVEL,
    OPEN,
    above,
    applicable,
    below,
    between,
    every,
    false_verdicts,
    more,
)


def estimate(low, high, n=100):
    return Estimate((low + high) / 2, low, high, n)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [((0.1, 0.2), HOLDS), ((-0.2, -0.1), FAILS), ((-0.1, 0.1), OPEN), ((-0.1, 0.0), OPEN), ((0.0, 0.1), OPEN)],
)
def test_above_and_below_ask_the_whole_interval(found, verdict):
    mirrored = tuple(-value for value in found[::-1])
    assert above("a.b", 0).verdict({"a.b": estimate(*found)}).verdict == verdict
    assert below("a.b", 0).verdict({"a.b": estimate(*mirrored)}).verdict == verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [((0.46, 0.54), HOLDS), ((0.40, 0.44), FAILS), ((0.56, 0.9), FAILS), ((0.44, 0.5), OPEN), ((0.4, 0.6), OPEN)],
)
def test_between_asks_the_whole_interval(found, verdict):
    assert between("a.b", 0.45, 0.55).verdict({"a.b": estimate(*found)}).verdict == verdict


@pytest.mark.parametrize("check", [above("a.b", 0), below("a.b", 0), between("a.b", -0.1, 0.1), between("a.b", 1, 2)])
def test_data_that_never_vary_decide_nothing(check):
    verdict = check.verdict({"a.b": Estimate(0.0, 0.0, 0.0, 87)})
    assert verdict.verdict == OPEN
    assert "say nothing" in verdict.why


def test_an_exact_count_is_taken_at_its_face():
    assert above("a.b", 0).verdict({"a.b": exact(1)}).verdict == HOLDS
    assert above("a.b", 0).verdict({"a.b": exact(0)}).verdict == FAILS
    assert below("a.b", 0).verdict({"a.b": exact(-1)}).verdict == HOLDS


def test_a_number_that_is_not_there_leaves_a_claim_open_and_is_named():
    assert above("a.b", 0).verdict({}).verdict == OPEN
    both = every(above("a.x", 0), above("a.y", 0))
    verdict = both.verdict({"a.x": estimate(1, 2)})
    assert verdict.verdict == OPEN
    assert "1 supports it" in verdict.why
    assert both.verdict({"a.x": estimate(-2, -1)}).verdict == FAILS


def test_every_holds_if_all_do_and_shows_the_one_that_decides():
    check = every(above("a.x", 0), above("a.y", 0))
    assert check.verdict({"a.x": estimate(1, 2), "a.y": estimate(1, 2)}).verdict == HOLDS
    undecided = check.verdict({"a.x": estimate(1, 2), "a.y": estimate(-1, 2)})
    assert undecided.verdict == OPEN
    assert "Of 2 comparisons 1 supports it, none contradicts it, 1 is undecided" in undecided.why
    assert "-1.00" in undecided.why.replace("\N{MINUS SIGN}", "-")


def test_of_many_comparisons_one_that_barely_contradicts_does_not_refute():
    """One of 13 at p = 0.02 is what chance gives; the same alone, or at p = 0.001, is not."""
    wide = {f"a.x{i}": estimate(-1, 1) for i in range(12)}
    checks = every(*(above(name, 0) for name in (*wide, "a.bad")))
    barely, clearly = estimate(-2.02, -0.02), estimate(-3, -1.3)
    assert above("a.bad", 0).verdict({"a.bad": barely}).verdict == FAILS
    assert checks.verdict(wide | {"a.bad": barely}).verdict == OPEN
    refuted = checks.verdict(wide | {"a.bad": clearly})
    assert refuted.verdict == FAILS
    assert "after Holm's correction" in refuted.why


@pytest.mark.parametrize("n", [5, 30, 400])
def test_the_p_value_is_students(n):
    runs = np.random.default_rng(n).normal(-0.3, 1, n)
    (judged,) = above("a.b", 0).judge({"a.b": over_runs(runs)})
    statistic = runs.mean() / (runs.std(ddof=1) / n**0.5)
    assert judged.p == pytest.approx(t(n - 1).cdf(statistic), abs=1e-9)


def test_more_compares_shares_of_different_items():
    numbers = {"a.x": estimate(0.5, 0.6), "a.y": estimate(0.1, 0.2), "a.z": estimate(0.4, 0.7)}
    assert more("a.x", "a.y").verdict(numbers).verdict == HOLDS
    assert more("a.y", "a.x").verdict(numbers).verdict == FAILS
    assert more("a.x", "a.z").verdict(numbers).verdict == OPEN


def test_arms_whose_condition_does_not_hold_test_nothing():
    check = applicable(
        {arm: above(f"told.{arm}", 0.9) for arm in ("p", "q")},
        {arm: above(f"did.{arm}", 0) for arm in ("p", "q")},
        "No arm took.",
    )
    numbers = {"told.p": estimate(0.92, 0.98), "told.q": estimate(0.3, 0.5), "did.p": estimate(0.1, 0.2)}
    assert check.verdict(numbers | {"did.q": estimate(-0.3, -0.2)}).verdict == HOLDS
    assert check.verdict(numbers | {"told.q": estimate(0.91, 1), "did.q": estimate(-0.3, -0.2)}).verdict == FAILS
    nobody = check.verdict({"told.p": estimate(0.3, 0.5), "did.p": estimate(0.1, 0.2)})
    assert (nobody.verdict, nobody.why) == (OPEN, "No arm took.")


def test_how_many_verdicts_may_be_false():
    assert false_verdicts(60) == pytest.approx(1.5)


@pytest.mark.slow
@pytest.mark.parametrize("case", simulation.CASES, ids=lambda case: case.name)
def test_no_rule_says_something_where_there_is_nothing(case):
    """At the edge of truth each verdict comes in at most 5 % of the draws, give or take what 200 draws can tell."""
    found = simulation.simulated(case, draws=200, seed=1)
    most = 2 * LEVEL + 3 * (0.05 * 0.95 / 200) ** 0.5
    assert found.false_holds <= most
    assert found.false_fails <= most
    assert found.power >= case.power
