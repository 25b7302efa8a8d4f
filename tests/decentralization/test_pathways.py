"""Survival of questions whose neurons are silenced, on data whose truth is known."""

import numpy as np
import pytest

from dprlens.decentralization.pathways import (
    Search,
    counts,
    doubling,
    median,
    median_in_words,
    outlasting,
    outlasting_numbers,
    survival,
    survival_numbers,
)
from dprlens.intervals import share

INF = np.inf
SILENT = [1, 2, 4, 8]


def search(n: int, kinds=None, clusters=None) -> Search:
    return Search(SILENT, kinds or ["lexical"] * n, clusters or list(range(n)))


def found_with(lost) -> np.ndarray:
    """Whether questions that are lost at these numbers are found, with 0 and each of `SILENT` silent."""
    return np.array([[n > k for n in lost] for k in (0, *SILENT)])


def test_the_search_ends_with_all_neurons():
    assert doubling(8) == SILENT
    assert doubling(11) == [1, 2, 4, 8, 11]


def test_counts_come_back_from_what_is_found():
    lost = [0, 1, 4, INF, 8]
    assert counts({("dpr", "top"): found_with(lost)}, search(5))["dpr", "top"].tolist() == lost


def test_what_is_lost_and_found_again_was_lost():
    found = found_with([4])
    found[-1] = True
    assert counts({("dpr", "top"): found}, search(1))["dpr", "top"].tolist() == [4]


def test_the_curve_is_of_found_passages_alone_and_its_end_is_censored():
    curve = survival(np.array([0, 0, 1, 4, 4, INF]), search(6))
    assert {k: e.value for k, e in curve.items()} == {0: 1, 1: 0.75, 2: 0.75, 4: 0.25, 8: 0.25}
    assert {e.n for e in curve.values()} == {4}
    assert survival(np.zeros(3), search(3)) == {}


def test_the_curve_does_not_depend_on_a_number_for_never():
    """What made the old mean: the same losses, a longer search, and nothing before its end changes."""
    lost = np.array([1, 2, 2, INF, INF, INF])
    longer = Search([*SILENT, 1000], ["lexical"] * 6, list(range(6)))
    assert survival(lost, search(6)).items() <= survival(lost, longer).items()


def test_the_interval_draws_gold_passages():
    lost = np.array([1] * 10 + [INF] * 10)
    alone, together = (survival(lost, search(20, clusters=c))[8] for c in (None, [0] * 10 + [1] * 10))
    assert alone.value == together.value == 0.5
    assert (together.low, together.high) == (0, 1)
    assert 0.2 < alone.low < alone.high < 0.8


def test_a_median_beyond_the_search_is_not_a_number():
    within = survival(np.array([2.0] * 30 + [4.0] * 10), search(40))
    assert median(within) == (2, 2, 2)
    assert median_in_words(within) == "2 [2, 2]"
    never = survival(np.array([2.0] * 10 + [INF] * 30), search(40))
    assert median(never) == (INF, INF, INF)
    assert median_in_words(never) == "> 8 [> 8, > 8]"
    near = survival(np.array([2.0] * 19 + [INF] * 21), search(40))
    assert median(near) == (INF, 2, INF)
    assert median_in_words(near) == "> 8 [2, > 8]"
    assert median_in_words({}) == "–"


def test_the_median_covers_the_truth():
    """Exponential losses with median 3.2, seen at powers of two: 4 is the first number with half of them lost."""
    rng, inside = np.random.default_rng(3), 0
    for _ in range(100):
        life = rng.exponential(3.2 / np.log(2), 60)
        lost = np.array([next((k for k in SILENT if x <= k), INF) for x in life])
        low, high = median(survival(lost, search(60)))[1:]
        inside += low <= 4 <= high
    assert inside >= 90


def test_a_pair_is_decided_by_who_loses_first():
    a = np.array([8, INF, INF, 2, INF, 4, 0, 8])
    b = np.array([2, 4, INF, 8, INF, 4, 1, 0])  # a later: 2; b later: 1; never: 2; level: 1; not matched: 2
    assert outlasting(a, b, range(8)) == share(2, 3)
    assert outlasting(b, a, range(8)) == share(1, 3)
    lost = {("dpr", "top"): a, ("pretrained", "top"): b}
    found = outlasting_numbers("pathways", lost, search(8), [("dpr", "pretrained")])
    name = "pathways.lexical.dpr_outlasts_pretrained"
    assert found == {name: share(2, 3), f"{name}_matched": 6, f"{name}_never": 2, f"{name}_level": 1}


def test_a_gold_passage_has_one_vote():
    a, b = np.array([8, 8, 1, 2, 1]), np.array([1, 1, 8, 1, 2])
    assert outlasting(a, b, ["x", "x", "x", "y", "y"]) == share(1, 1)  # two to one, and a draw


def test_without_a_decided_pair_there_is_no_share():
    level = np.array([4, INF, 0])
    assert outlasting(level, level, "abc") is None
    found = outlasting_numbers(
        "pathways", {(m, "top"): level for m in ("dpr", "pretrained")}, search(3), [("dpr", "pretrained")]
    )
    assert found["pathways.lexical.dpr_outlasts_pretrained"] is None


def test_models_that_lose_alike_share_the_votes():
    """No difference: a model outlasts its equal in half of the decided pairs; the interval has it 19 in 20 times."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(200):
        a, b = (rng.choice([1, 2, 4, 8, INF], 40) for _ in range(2))
        found = outlasting(a, b, range(40))
        inside += found.low <= 0.5 <= found.high
    assert inside >= 182


def test_kinds_do_not_mix():
    """Lexical questions survive everything in DPR; those that require knowledge do not: no number sees both."""
    kinds = ["lexical"] * 4 + ["knowledge_required"] * 4
    lost = {
        ("dpr", "top"): np.array([INF] * 4 + [2, 2, 4, 0]),
        ("dpr", "random"): np.array([INF] * 4 + [4, 8, 8, 0]),
        ("pretrained", "top"): np.array([1, 1, 0, 0, 4, 4, 8, 0]),
    }
    found = survival_numbers("pathways", lost, search(8, kinds)) | outlasting_numbers(
        "pathways", lost, search(8, kinds), [("dpr", "pretrained")]
    )
    assert found["pathways.lexical.dpr.never_lost"].value == 1
    assert found["pathways.knowledge_required.dpr.never_lost"].value == 0
    assert found["pathways.knowledge_required.dpr.found"].value == 0.75
    assert found["pathways.knowledge_required.dpr.survives.k2"].value == pytest.approx(1 / 3)
    assert found["pathways.knowledge_required.dpr.steps_survived"].value == pytest.approx((1 + 1 + 2) / 3)
    assert found["pathways.knowledge_required.dpr.random.steps_survived"].value == pytest.approx((2 + 3 + 3) / 3)
    gain = found["pathways.knowledge_required.dpr.top_minus_random.steps_survived"]
    assert gain.value == pytest.approx(-4 / 3)
    assert found["pathways.lexical.dpr.median"] is None
    assert found["pathways.lexical.dpr_outlasts_pretrained"] == share(2, 2)
    assert found["pathways.knowledge_required.dpr_outlasts_pretrained"] == share(0, 3)
    assert not any(".random.found" in id_ for id_ in found)


def test_a_model_that_finds_nothing_has_no_curve():
    found = survival_numbers("pathways", {("pretrained", "top"): np.zeros(3)}, search(3))
    assert found.keys() == {"pathways.lexical.pretrained.found"}
    assert found["pathways.lexical.pretrained.found"].value == 0


def test_the_curve_can_be_left_out():
    lost = {("dpr", "top"): np.array([1.0, INF])}
    assert not any(".survives." in id_ for id_ in survival_numbers("pathways", lost, search(2), curves=False))
