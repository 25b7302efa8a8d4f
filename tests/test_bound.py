"""The contrasts of the causal test, on a dozen rows whose answers can be counted on one's fingers."""

import pandas as pd
import pytest

from dprlens import bound
from dprlens.intervals import share

K = 20
HERE = {"study": "deep", "size": 1.0, "form": 0.5, "seed": 0}  # one world
ELSEWHERE = {"study": "shallow", "size": 0.5, "form": 0.9, "seed": 1}

# Found among the first 20: 3 of 4 known links under test, 1 of 2 held out, 1 of 1 at a low dose.
ROWS = pd.DataFrame(
    [
        ("q0", "knowledge_required", "test", "f0", False, "known", 9, 0),
        ("q1", "knowledge_required", "test", "f0", False, "known", 9, 19),
        ("q2", "knowledge_required", "test", "f1", False, "known", 9, 5),
        ("q3", "knowledge_required", "test", "f1", False, "known", 9, 20),  # the 21st place
        ("q4", "knowledge_required", "test", "f2", False, "held out", 0, 3),
        ("q5", "knowledge_required", "test", "f3", False, "held out", 0, 90),
        ("q6", "knowledge_required", "test", "f4", False, "low dose", 1, 1),
        ("q7", "knowledge_required", "test", "f5", True, "known", 9, 0),
        ("q8", "knowledge_required", "train", "f5", True, "known", 9, 0),
        ("q9", "knowledge_required", "dev", "f6", False, "known", 9, 0),
        ("q10", "lexical", "test", "f6", False, "known", 9, 0),
        ("q11", "lexical", "test", "f2", False, "held out", 0, 50),
    ],
    columns=["question", "kind", "split", "fact", "in_training", "state", "exposures", "place"],
).assign(**HERE)


def rows(places, names=None, **columns) -> pd.DataFrame:
    """One row a place: of question q0, q1, …, about the facts `names` (each its own if None), in one world."""
    n = len(places)
    data = {"question": [f"q{i}" for i in range(n)], "fact": names or [f"f{i}" for i in range(n)], "place": places}
    return pd.DataFrame({**data, **HERE, **columns}, index=range(n))


def interval(estimate) -> tuple[float, float]:
    return pytest.approx(estimate.low), pytest.approx(estimate.high)


# --- which rows ---


def test_tested_are_test_questions_whose_fact_training_never_asks_for():
    before = ROWS.copy()
    assert bound.tested(ROWS, "knowledge_required")["question"].tolist() == ["q0", "q1", "q2", "q3", "q4", "q5", "q6"]
    assert bound.tested(ROWS, "lexical")["question"].tolist() == ["q10", "q11"]
    assert ROWS.equals(before)


def test_tested_may_ask_for_values_of_columns():
    assert bound.tested(ROWS, "knowledge_required", state="held out")["question"].tolist() == ["q4", "q5"]
    assert bound.tested(ROWS, "knowledge_required", state="known", fact="f1")["question"].tolist() == ["q2", "q3"]
    assert bound.tested(ROWS, "lexical", seed=1).empty


@pytest.mark.parametrize(
    ("exposures", "described", "mostly"), [(0, 0, False), (4, 2, False), (4, 3, True), (1, 1, True), (5, 2, False)]
)
def test_mostly_described_is_more_often_than_not(exposures, described, mostly):
    found = bound.mostly_described(pd.DataFrame({"exposures": [exposures], "described": [described]}))
    assert list(found) == [mostly]


# --- shares and differences ---


def test_top_counts_the_places_before_k_from_zero():
    links = bound.tested(ROWS, "knowledge_required")
    assert bound.top(links, K)[::3] == (5 / 7, 7)
    assert bound.top(links, 21).value == 6 / 7
    assert bound.top(links, 1).value == 1 / 7


def test_top_of_no_passage_is_refused(refused):
    for k in (0, -1):
        with refused(f"k = {k}", "1 or more"):
            bound.top(ROWS, k)


def test_top_may_look_at_another_place():
    assert bound.top(rows([0, 0, 0], false_place=[50, 0, 50]), K, "false_place").value == 1 / 3


def test_tops_are_by_group():
    links = bound.tested(ROWS, "knowledge_required")
    assert {group: e[::3] for group, e in bound.tops(links, K, "state").items()} == {
        "known": (3 / 4, 4),
        "held out": (1 / 2, 2),
        "low dose": (1, 1),
    }
    assert bound.tops(ROWS, K, ["kind", "in_training"])["knowledge_required", True][::3] == (1, 2)


def test_apart_is_the_difference_of_two_shares_and_n_that_of_the_smaller_group():
    a, b = rows([0, 0, 50, 50, 50]), rows([0, 50, 50, 50])
    assert bound.apart(a, b, K)[::3] == (pytest.approx(2 / 5 - 1 / 4), 4)
    assert bound.apart(b, a, K).value == pytest.approx(1 / 4 - 2 / 5)


def test_known_minus_held_out_leaves_low_doses_out():
    links = bound.tested(ROWS, "knowledge_required")
    assert bound.known_minus_held_out(links, K)[::3] == (3 / 4 - 1 / 2, 2)
    assert bound.known_minus_held_out(links, 2).value == 1 / 4 - 0


def test_by_seed_is_one_difference_a_seed():
    links = bound.tested(ROWS, "knowledge_required")
    other = links.assign(seed=7, place=0)
    alone = links[links["state"] == "known"].assign(seed=8)
    assert {seed: e and e.value for seed, e in bound.by_seed(pd.concat([other, links, alone]), K).items()} == {
        0: 1 / 4,
        7: 0,
        8: None,
    }


def test_paired_compares_the_same_questions_in_whatever_order():
    """Four questions: gained, found by both, lost, gained, so (1 + 0 − 1 + 1) / 4."""
    a = rows([0, 5, 50, 2])
    b = rows([50, 3, 0, 40])
    assert bound.paired(a, b.sample(frac=1, random_state=1), K)[::3] == (1 / 4, 4)
    assert bound.paired(b, a, K).value == -1 / 4


def test_paired_takes_questions_of_one_name_in_two_worlds_for_two_questions():
    a = pd.concat([rows([0, 50]), rows([50, 50], seed=1)])
    b = pd.concat([rows([50, 0], seed=1), rows([50, 50])])
    assert bound.paired(a, b, K)[::3] == ((1 + 0 + 0 - 1) / 4, 4) == (0, 4)
    assert bound.paired(a[a["seed"] == 0], b[b["seed"] == 0], K).value == 1 / 2


def test_paired_may_look_at_another_place():
    a, b = rows([0, 0], false_place=[0, 50]), rows([0, 0], false_place=[50, 50])
    assert bound.paired(a, b, K).value == 0
    assert bound.paired(a, b, K, "false_place").value == 1 / 2


def test_the_interval_of_pairs_is_that_of_their_differences():
    """Every question is gained: no draw of questions says anything else, though each arm varies."""
    a, b = rows([0, 0, 0, 0]), rows([50, 50, 50, 50])
    assert bound.paired(a, b, K)[:3] == (1, 1, 1)
    mixed = rows([0, 50, 0, 50])
    assert bound.paired(mixed, mixed, K)[:3] == (0, 0, 0)
    assert bound.apart(mixed, mixed, K).low < 0


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (rows([0, 0, 0]), rows([0, 0]), ("3 and 2 rows share 2 questions",)),
        (rows([0, 0]), rows([0, 0, 0]), ("2 and 3 rows share 2 questions",)),
        (rows([0, 0]), rows([0, 0], seed=1), ("2 and 2 rows share 0 questions",)),
        (rows([0, 0]), rows([]), ("2 and 0 rows",)),
        (rows([0, 0]), rows([0, 0]).assign(question="q0"), ("2 and 2 rows share 1 questions",)),  # two arms in one
        (rows([0, 0]).assign(question="q0"), rows([0, 0]), ("2 and 2 rows share 1 questions",)),
    ],
)
def test_arms_of_other_questions_are_not_paired(refused, a, b, said):
    with refused(*said, "give"):
        bound.paired(a, b, K)


def test_without_rows_there_is_no_number():
    none = ROWS[:0]
    assert bound.top(none, K) is None
    assert bound.paired(none, none, K) is None
    assert bound.apart(none, ROWS, K) is bound.apart(ROWS, none, K) is None
    assert bound.known_minus_held_out(ROWS[ROWS["state"] == "known"], K) is None
    assert bound.known_minus_held_out(ROWS[ROWS["state"] == "held out"], K) is None
    assert bound.tops(none, K, "state") == bound.by_seed(none, K) == {}


# --- doses ---


def test_the_dose_is_the_logarithm_of_exposures():
    """Doses 0, 1, 2 (0, 9 and 99 exposures); shares found 0, 1, 1: slope (−1 · 0 + 1 · 1) / 2."""
    found = rows([50, 0, 0], exposures=[0, 9, 99])
    assert bound.dose_slope(found, K)[::3] == (pytest.approx(0.5), 3)
    assert bound.dose_slope(found.assign(place=[0, 0, 50]), K).value == pytest.approx(-0.5)


def test_one_dose_has_no_slope(refused):
    with refused("two doses"):
        bound.dose_slope(rows([0, 50, 0], exposures=9), K)


# --- what counts as a piece of evidence ---


def test_a_fact_is_one_of_its_world():
    """All found: the interval is Wilson's with one trial a cluster, so it says how many clusters there were."""
    twice = rows([0, 0], ["f0", "f0"])
    assert (bound.top(twice, K).low, bound.top(twice, K).n) == (share(1, 1).low, 2)
    assert bound.top(rows([0, 0], ["f0", "f1"]), K).low == share(2, 2).low


@pytest.mark.parametrize("column", bound.WORLD)
def test_facts_of_one_name_in_two_worlds_are_two(column):
    assert HERE[column] != ELSEWHERE[column]
    two = rows([0, 0], ["f0", "f0"], **{column: [HERE[column], ELSEWHERE[column]]})
    assert len(set(bound.facts(two))) == 2
    assert bound.top(two, K).low == share(2, 2).low


KNOWN = rows([0, 50, 0, 50], exposures=[0, 9, 9, 0], false_place=[0, 50, 50, 50])
OTHER = rows([50, 50, 50, 0], exposures=[9, 9, 0, 0], false_place=50)
STATES = KNOWN.assign(state=["known", "known", "held out", "held out"])


@pytest.mark.parametrize(
    ("contrast", "groups"),
    [
        (bound.top, [KNOWN]),
        (lambda a, k: bound.tops(a, k, "exposures")[9], [KNOWN]),
        (bound.apart, [KNOWN, OTHER]),
        (bound.paired, [KNOWN, OTHER]),
        (bound.known_minus_held_out, [STATES]),
        (lambda a, k: bound.by_seed(a, k)[0], [STATES]),
        (bound.dose_slope, [KNOWN]),
    ],
    ids=["top", "tops", "apart", "paired", "known_minus_held_out", "by_seed", "dose_slope"],
)
def test_rows_of_one_fact_are_not_several_pieces_of_evidence(contrast, groups):
    """Five more questions about each fact leave the interval as it is; about facts of their own they narrow it."""

    def repeated(group, own_facts):
        copies = [group.assign(question=group["question"] + f"-{i}") for i in range(6)]
        return pd.concat(
            [copy.assign(fact=copy["fact"] + f"-{i}") if own_facts else copy for i, copy in enumerate(copies)]
        )

    once = contrast(*groups, K)
    same, more = (contrast(*(repeated(group, own) for group in groups), K) for own in (False, True))
    assert once.high > once.low
    assert (same.low, same.high) == interval(once)
    assert more.high - more.low < 0.8 * (once.high - once.low)
    assert same.value == more.value == pytest.approx(once.value)
    assert same.n == more.n == 6 * once.n
