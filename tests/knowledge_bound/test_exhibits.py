"""The contrasts of the causal test, on a dozen rows whose answers can be counted on one's fingers."""

import numpy as np
import pandas as pd
import pytest

from dprlens.intervals import share
from dprlens.knowledge_bound import exhibits
from dprlens.world.closed import ClosedSpec, Segment, TextSpec, make_world, segments
from dprlens.world.passages import Passage
from dprlens.world.records import Fact, Question, World

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
    assert exhibits.select_test_questions(ROWS, "knowledge_required")["question"].tolist() == [
        "q0",
        "q1",
        "q2",
        "q3",
        "q4",
        "q5",
        "q6",
    ]
    assert exhibits.select_test_questions(ROWS, "lexical")["question"].tolist() == ["q10", "q11"]
    assert ROWS.equals(before)


def test_tested_may_ask_for_values_of_columns():
    assert exhibits.select_test_questions(ROWS, "knowledge_required", state="held out")["question"].tolist() == [
        "q4",
        "q5",
    ]
    assert exhibits.select_test_questions(ROWS, "knowledge_required", state="known", fact="f1")[
        "question"
    ].tolist() == ["q2", "q3"]
    assert exhibits.select_test_questions(ROWS, "lexical", seed=1).empty


@pytest.mark.parametrize(
    ("exposures", "described", "mostly"), [(0, 0, False), (4, 2, False), (4, 3, True), (1, 1, True), (5, 2, False)]
)
def test_mostly_described_is_more_often_than_not(exposures, described, mostly):
    found = exhibits.mostly_described(pd.DataFrame({"exposures": [exposures], "described": [described]}))
    assert list(found) == [mostly]


# --- shares and differences ---


def test_top_counts_the_places_before_k_from_zero():
    links = exhibits.select_test_questions(ROWS, "knowledge_required")
    assert exhibits.mean_measure(links, K)[::3] == (5 / 7, 7)
    assert exhibits.mean_measure(links, 21).value == 6 / 7
    assert exhibits.mean_measure(links, 1).value == 1 / 7


def test_top_of_no_passage_is_refused(refused):
    for k in (0, -1):
        with refused(f"k = {k}", "1 or more"):
            exhibits.mean_measure(ROWS, k)


def test_top_may_look_at_another_place():
    assert exhibits.mean_measure(rows([0, 0, 0], false_place=[50, 0, 50]), K, "false_place").value == 1 / 3


def test_tops_are_by_group():
    links = exhibits.select_test_questions(ROWS, "knowledge_required")
    assert {group: e[::3] for group, e in exhibits.mean_by_group(links, K, "state").items()} == {
        "known": (3 / 4, 4),
        "held out": (1 / 2, 2),
        "low dose": (1, 1),
    }
    assert exhibits.mean_by_group(ROWS, K, ["kind", "in_training"])["knowledge_required", True][::3] == (1, 2)


def test_apart_is_the_difference_of_two_shares_and_n_that_of_the_smaller_group():
    a, b = rows([0, 0, 50, 50, 50]), rows([0, 50, 50, 50])
    assert exhibits.unpaired_difference(a, b, K)[::3] == (pytest.approx(2 / 5 - 1 / 4), 4)
    assert exhibits.unpaired_difference(b, a, K).value == pytest.approx(1 / 4 - 2 / 5)


def test_known_minus_held_out_leaves_low_doses_out():
    links = exhibits.select_test_questions(ROWS, "knowledge_required")
    assert exhibits.known_minus_held_out(links, K)[::3] == (3 / 4 - 1 / 2, 2)
    assert exhibits.known_minus_held_out(links, 2).value == 1 / 4 - 0


def test_by_seed_is_one_difference_a_seed():
    links = exhibits.select_test_questions(ROWS, "knowledge_required")
    other = links.assign(seed=7, place=0)
    alone = links[links["state"] == "known"].assign(seed=8)
    assert {seed: e and e.value for seed, e in exhibits.by_seed(pd.concat([other, links, alone]), K).items()} == {
        0: 1 / 4,
        7: 0,
        8: None,
    }


def test_paired_compares_the_same_questions_in_whatever_order():
    """Four questions: gained, found by both, lost, gained, so (1 + 0 − 1 + 1) / 4."""
    a = rows([0, 5, 50, 2])
    b = rows([50, 3, 0, 40])
    assert exhibits.paired_difference(a, b.sample(frac=1, random_state=1), K)[::3] == (1 / 4, 4)
    assert exhibits.paired_difference(b, a, K).value == -1 / 4


def test_paired_takes_questions_of_one_name_in_two_worlds_for_two_questions():
    a = pd.concat([rows([0, 50]), rows([50, 50], seed=1)])
    b = pd.concat([rows([50, 0], seed=1), rows([50, 50])])
    assert exhibits.paired_difference(a, b, K)[::3] == ((1 + 0 + 0 - 1) / 4, 4) == (0, 4)
    assert exhibits.paired_difference(a[a["seed"] == 0], b[b["seed"] == 0], K).value == 1 / 2


def test_paired_may_look_at_another_place():
    a, b = rows([0, 0], false_place=[0, 50]), rows([0, 0], false_place=[50, 50])
    assert exhibits.paired_difference(a, b, K).value == 0
    assert exhibits.paired_difference(a, b, K, "false_place").value == 1 / 2


def test_the_interval_of_pairs_is_that_of_their_differences():
    """Every question is gained, or none changes, though each arm varies: with n comes certainty."""
    few, many = ([0, 0, 0, 0], [50, 50, 50, 50]), ([0] * 400, [50] * 400)
    assert all(exhibits.paired_difference(rows(a), rows(b), K)[::2] == (1, 1) for a, b in (few, many))
    lows = [exhibits.paired_difference(rows(a), rows(b), K).low for a, b in (few, many)]
    assert lows[0] < 0.5 < 0.9 < lows[1]
    mixed = rows([0, 50] * 200)
    same = exhibits.paired_difference(mixed, mixed, K)
    assert same.value == 0
    assert (
        exhibits.unpaired_difference(mixed, mixed, K).low
        < same.low
        < 0
        < same.high
        < exhibits.unpaired_difference(mixed, mixed, K).high
    )


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
        exhibits.paired_difference(a, b, K)


def test_without_rows_there_is_no_number():
    none = ROWS[:0]
    assert exhibits.mean_measure(none, K) is None
    assert exhibits.paired_difference(none, none, K) is None
    assert exhibits.unpaired_difference(none, ROWS, K) is exhibits.unpaired_difference(ROWS, none, K) is None
    assert exhibits.known_minus_held_out(ROWS[ROWS["state"] == "known"], K) is None
    assert exhibits.known_minus_held_out(ROWS[ROWS["state"] == "held out"], K) is None
    assert exhibits.mean_by_group(none, K, "state") == exhibits.by_seed(none, K) == {}


# --- doses ---


def test_the_dose_is_the_logarithm_of_exposures():
    """Doses 0, 1, 2 (0, 9 and 99 exposures); shares found 0, 1, 1: slope (−1 · 0 + 1 · 1) / 2."""
    found = rows([50, 0, 0], exposures=[0, 9, 99])
    assert exhibits.dose_slope(found, K)[::3] == (pytest.approx(0.5), 3)
    assert exhibits.dose_slope(found.assign(place=[0, 0, 50]), K).value == pytest.approx(-0.5)


def test_one_dose_has_no_slope(refused):
    with refused("two doses"):
        exhibits.dose_slope(rows([0, 50, 0], exposures=9), K)


# --- what counts as a piece of evidence ---


def test_a_fact_is_one_of_its_world():
    """All found: the interval is Wilson's with one trial a cluster, so it says how many clusters there were."""
    twice = rows([0, 0], ["f0", "f0"])
    assert (exhibits.mean_measure(twice, K).low, exhibits.mean_measure(twice, K).n) == (share(1, 1).low, 2)
    assert exhibits.mean_measure(rows([0, 0], ["f0", "f1"]), K).low == share(2, 2).low


@pytest.mark.parametrize("column", exhibits.WORLD)
def test_facts_of_one_name_in_two_worlds_are_two(column):
    assert HERE[column] != ELSEWHERE[column]
    two = rows([0, 0], ["f0", "f0"], **{column: [HERE[column], ELSEWHERE[column]]})
    assert len(set(exhibits.fact_clusters(two))) == 2
    assert exhibits.mean_measure(two, K).low == share(2, 2).low


KNOWN = rows([0, 50, 0, 50], exposures=[0, 9, 9, 0], false_place=[0, 50, 50, 50])
OTHER = rows([50, 50, 50, 0], exposures=[9, 9, 0, 0], false_place=50)
STATES = KNOWN.assign(state=["known", "known", "held out", "held out"])


@pytest.mark.parametrize(
    ("contrast", "groups"),
    [
        (exhibits.mean_measure, [KNOWN]),
        (lambda a, k: exhibits.mean_by_group(a, k, "exposures")[9], [KNOWN]),
        (exhibits.unpaired_difference, [KNOWN, OTHER]),
        (exhibits.paired_difference, [KNOWN, OTHER]),
        (exhibits.known_minus_held_out, [STATES]),
        (lambda a, k: exhibits.by_seed(a, k)[0], [STATES]),
        (exhibits.dose_slope, [KNOWN]),
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


# --- within the relation ---


def within(places, peers=11, tied=0, **columns) -> pd.DataFrame:
    """One row a place within the relation, of so many passages."""
    return rows([500] * len(places), within=places, peers=peers, tied=tied, **columns)


def test_auc_is_the_share_of_other_passages_behind():
    assert exhibits.measured_rows(within([0, 10, 5, 2]), "auc").tolist() == [1, 0, 0.5, 0.8]
    assert exhibits.measured_rows(within([0, 4], tied=[10, 2]), "auc").tolist() == [0.5, 0.5]  # ties count half


def test_top1_within_the_relation_shares_the_first_place_among_ties():
    assert exhibits.measured_rows(within([0, 1, 0], tied=[0, 0, 3]), "top1").tolist() == [1, 0, 1 / 4]


def test_a_k_counts_places_among_all_passages_whatever_is_within_the_relation():
    assert exhibits.measured_rows(within([0]).assign(place=19), 20).tolist() == [1]
    assert exhibits.measured_rows(within([0]).assign(place=20), 20).tolist() == [0]


def test_a_measure_of_no_passage_is_refused(refused):
    with refused("k = 0", "1 or more"):
        exhibits.measured_rows(within([0]), 0)


@pytest.mark.slow
def test_random_ranks_have_auc_one_half_and_top1_one_in_n_and_perfect_ranks_have_one():
    rng = np.random.default_rng(0)
    random = within(rng.integers(40, size=4000), peers=40)
    assert exhibits.mean_measure(random, "auc").low < 0.5 < exhibits.mean_measure(random, "auc").high
    assert exhibits.mean_measure(random, "top1").low < 1 / 40 < exhibits.mean_measure(random, "top1").high
    assert (
        exhibits.mean_measure(within([0] * 30), "auc").value
        == exhibits.mean_measure(within([0] * 30), "top1").value
        == 1
    )


def test_the_only_passage_of_a_relation_has_no_auc(refused):
    with refused("only one of its relation"):
        exhibits.measured_rows(within([0], peers=1), "auc")


def test_measures_have_names_of_their_own(refused):
    assert exhibits.measures(5) == {"auc": "auc", "top1": "top1", "top5": 5}
    with refused("top_k = 1"):
        exhibits.measures(1)


def in_states(known, held_out, **columns) -> pd.DataFrame:
    state = ["known"] * len(known) + ["held out"] * len(held_out)
    return within([*known, *held_out], state=state, exposures=9, **columns)


def test_contrasts_take_measures_within_the_relation():
    found = in_states([0, 1], [5, 10])
    assert exhibits.known_minus_held_out(found, "auc").value == pytest.approx((1 + 0.9) / 2 - (0.5 + 0) / 2)
    assert exhibits.known_minus_held_out(found, "top1").value == 1 / 2
    assert exhibits.paired_difference(found, in_states([1, 1], [5, 10]), "auc").value == pytest.approx(0.1 / 4)


# --- two arms, and how much of one the other has ---


def test_difference_in_differences_by_hand():
    """AUC, arm a: known 1 and .8, held out .5 and .5; arm b: .7 and .7, .4 and .6: (.9 − .5) − (.7 − .5)."""
    a, b = in_states([0, 2], [5, 5]), in_states([3, 3], [6, 4])
    found = exhibits.difference_in_differences(a, b.sample(frac=1, random_state=0), "auc")
    assert found[::3] == (pytest.approx(0.2), 2)
    assert exhibits.difference_in_differences(b, a, "auc").value == pytest.approx(-0.2)
    nothing = exhibits.difference_in_differences(a, a, "auc")
    assert nothing.value == 0
    assert nothing.low < 0 < nothing.high  # two facts a group know little


def test_a_bias_for_the_baseline_alone_is_no_difference_in_differences():
    """Arm b ranks every passage 3 places lower; its own difference is the same."""
    a = in_states([0, 1, 2, 3], [5, 6, 7, 7])
    assert exhibits.difference_in_differences(a, a.assign(within=a["within"] + 3), "auc").value == pytest.approx(0)


def test_share_of_effect_by_hand():
    a, b = in_states([0, 2] * 20, [5, 5] * 20), in_states([3, 3] * 20, [6, 4] * 20)
    found = exhibits.share_of_effect(a, b, "auc")
    assert found[::3] == (pytest.approx(0.2 / 0.4), 40)
    assert found.low < 0.5 < found.high
    whole = exhibits.share_of_effect(a, a, "auc")
    assert whole[:3] == pytest.approx((1, 1, 1))


@pytest.mark.slow
def test_share_of_effect_has_an_interval_that_covers():
    """The truth is 1/2; 95 % intervals of 60 samples miss it rarely (binomial: 9 times or more in 0.3 %)."""
    missed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)

        def drawn(p, n=40, rng=rng):
            return np.where(rng.random(n) < p, 0, 9).tolist()

        a, b = in_states(drawn(0.7), drawn(0.1)), in_states(drawn(0.4), drawn(0.1))
        found = exhibits.share_of_effect(a, b, "top1", resamples=400)
        missed += not found.low <= 0.5 <= found.high
    assert missed <= 8


def test_share_of_effect_is_finite_where_a_few_draws_have_no_effect():
    """Four of nine known facts and no held-out one: in 1 draw of 200, (5/9)⁹, no known one either."""
    a = in_states([0] * 4 + [9] * 5, [9] * 9)
    found = exhibits.share_of_effect(a, a, "top1")
    assert found[:3] == pytest.approx((1, 1, 1))


def test_there_is_no_share_of_an_effect_that_may_be_none():
    nothing = in_states([0, 9, 0, 9], [0, 9, 0, 9])
    assert exhibits.share_of_effect(nothing, in_states([0] * 4, [9] * 4), "auc") is None
    known = within([0, 0], state="known")
    assert (
        exhibits.share_of_effect(known, known, "auc") is exhibits.difference_in_differences(known, known, "auc") is None
    )


def test_contrasts_of_arms_are_named_by_state_arm_and_measure():
    dpr, counted = in_states([0] * 9, [5] * 9), in_states([2] * 9, [5] * 9)
    found = exhibits.contrasts({"dpr": dpr, "cooccurrence": counted}, 20)
    assert found["known.auc"].value == found["known.top1"].value == 1
    assert found["held_out.cooccurrence.auc"].value == 0.5
    assert found["difference.auc"].value == pytest.approx(0.5)
    assert found["cooccurrence.difference.auc"].value == pytest.approx(0.3)
    assert found["dpr_minus_cooccurrence.difference.auc"].value == pytest.approx(0.2)
    assert found["cooccurrence_over_dpr.difference.auc"].value == pytest.approx(0.6)
    assert found["cooccurrence_over_dpr.difference.top20"] is None  # DPR has no effect there
    assert found["chance.top1"].value == pytest.approx(1 / 11)
    assert {"known.top20", "difference.top1", "held_out.cooccurrence.top20"} < set(found)


def test_by_size_gives_each_size_and_each_share_of_description():
    halves = [in_states([0] * 4, [5] * 4, form=form) for form in (0.1, 0.9)]
    grid = pd.concat([*halves, in_states([0] * 4, [0] * 4, form=0.1, size=2.0)])
    found = exhibits.by_size({"dpr": grid, "cooccurrence": grid[:0]}, 20)
    assert found["size100.difference.auc"][::3] == (0.5, 8)
    assert found["size100.form10.difference.auc"][::3] == (0.5, 4)
    assert found["size200.difference.auc"].value == 0
    assert not any("cooccurrence" in name for name in found)


def test_controls_are_those_of_both_arms():
    links, names = in_states([0] * 4, [5] * 4), in_states([0] * 4, [0] * 4)
    asked = [links.assign(kind="knowledge_required"), names.assign(kind="lexical", question=names["question"] + "l")]
    dpr = pd.concat(asked).assign(split="test", in_training=False)
    found = exhibits.controls(dpr, dpr.assign(within=3), 20)
    assert {id_: e.value for id_, e in found.items() if id_.endswith("auc")} == {
        "difference.auc": 0.5,
        "lexical_difference.auc": 0,
        "unpretrained_difference.auc": 0,
        "held_out_minus_unpretrained.auc": pytest.approx(0.5 - 0.7),
    }
    rows = exhibits.rows_by_control(found, {"difference.auc": 0.123, "lexical_difference.top20": 0.2}, 20)
    assert [row["measure"] for row in rows] == ["AUC within the relation", "top-20 of all passages"]
    assert rows[0]["estimate"] == found["difference.auc"]
    assert [row["could have shown"] for row in rows] == [0.12, 0.2]


@pytest.mark.slow
def test_rows_of_the_tables_hold_the_numbers_of_their_names():
    dpr, counted = in_states([0] * 9, [5] * 9), in_states([2] * 9, [5] * 9)
    found = exhibits.contrasts({"dpr": dpr, "cooccurrence": counted, "cooccurrence_max": dpr}, 20)
    rows = exhibits.rows_by_state(found, 20)
    assert [row["link"] for row in rows[:3]] == ["known", "held out", "known minus held out"]  # none at a low dose
    assert rows[0]["DPR"] == found["known.auc"]
    assert rows[2]["co-occurrence"] == found["cooccurrence.difference.auc"]
    assert rows[0]["BERT"] is None
    first, *_, last = exhibits.rows_by_baseline(found, 20)
    assert first["share of DPR's effect"] == found["cooccurrence_over_dpr.difference.auc"]
    assert last["DPR minus baseline"] == found["dpr_minus_cooccurrence_max.difference.top20"]


def test_rows_by_size_leave_out_what_a_source_does_not_have():
    half, auc = share(1, 2), "DPR, AUC within the relation"
    here = {"world_size.size25.difference.auc": half, "world_size.size200.form90.difference.auc": half}
    rows = exhibits.rows_by_size({"": here, "on record: ": {}}, 100, 20)
    assert rows == [
        {"facts": 25, "descriptions": "all", auc: half},
        {"facts": 200, "descriptions": "90 %", auc: half},
    ]
    assert exhibits.rows_by_size({"": {}}, 100, 20) == []


# --- of which passages, and from which sentences ---


def tiny_world() -> World:
    """Two cities on rivers, one also with a mayor; who was born where is a fact of its own."""
    facts = [
        Fact("f0", "Ada", "born_in", "Kestrel", "test"),
        Fact("f1", "Kestrel", "river", "Wend", "test"),
        Fact("f2", "Kestrel", "mayor", "Bo", "test"),
        Fact("f3", "Dunby", "river", "Ouse", "test"),
    ]
    passages = [
        Passage("p0", "Ada", "", ("f0",)),
        Passage("p1", "Kestrel", "", ("f1",)),
        Passage("p2", "Dunby", "", ("f3",)),
        Passage("p3", "Kestrel", "", ("f2",)),
        Passage("p4", "Nowhere", "", ()),
    ]
    questions = [
        Question("q0", "Which river …", ("Wend",), "p1", ("f0", "f1"), "test", "knowledge_required"),
        Question("q1", "Who is the mayor of Kestrel?", ("Bo",), "p3", ("f2",), "test", "lexical"),
    ]
    return World("closed", tuple(facts), tuple(passages), tuple(questions))


def test_passages_of_the_relation_state_what_the_question_asks_for_of_any_subject():
    assert exhibits.same_relation(tiny_world()).tolist() == [
        [False, True, True, False, False],
        [False, False, False, True, False],
    ]


def test_standings_by_hand():
    scores = np.array([[9.0, 2.0, 3.0, 2.0, 1.0], [9.0, 9.0, 9.0, 1.0, 9.0]])
    found = exhibits.standings(tiny_world(), scores)
    assert {name: column.tolist() for name, column in found.items()} == {
        "within": [1, 0],  # only the other river's passage can be before it
        "tied": [0, 0],
        "peers": [2, 1],
    }
    scores[0, 2] = 2
    assert exhibits.standings(tiny_world(), scores)["tied"].tolist() == [1, 0]


def test_random_scores_of_a_world_have_auc_one_half():
    world = make_world(ClosedSpec(30, 10, 8, 10, low_doses=()), 3)
    scores = np.random.default_rng(0).normal(size=(len(world.questions), len(world.passages)))
    found = pd.DataFrame(exhibits.standings(world, scores)).assign(place=0)
    assert exhibits.measured_rows(found, "auc").mean() == pytest.approx(0.5, abs=0.03)
    gold = [world.place(question.gold) for question in world.questions]
    scores[range(len(gold)), gold] = 9
    perfect = pd.DataFrame(exhibits.standings(world, scores))
    assert set(exhibits.measured_rows(perfect, "auc")) == set(exhibits.measured_rows(perfect, "top1")) == {1}


def test_compositions_count_descriptions_of_the_target_through_the_link():
    read = [
        Segment("The city where Ada was born, Kestrel, lies on the Wend.", ("f0", "f1"), (), "description"),
        Segment("The home town of Ada, Kestrel, lies on the Wend.", ("f0", "f1"), (), "description"),
        Segment("The home town of Ada, Kestrel, is old.", ("f0",), (), "description"),  # a remark
        Segment("Kestrel lies on the Wend. Its mayor is Bo.", ("f1", "f2"), (), "paragraph"),
    ]
    assert exhibits.compositions(read) == {("f0", "f1"): 2}


@pytest.mark.slow
def test_composed_sentences_name_the_subject_of_the_link_and_the_answer_and_no_held_out_link_has_one():
    world = make_world(ClosedSpec(30, 10, 8, 10, low_doses=()), 3)
    read = segments(world, TextSpec())
    counted = exhibits.compositions(read)
    assert counted
    for link, target in counted:
        assert not world.held_out(link)
        names = world.fact[link].subject, world.fact[target].object
        assert any(all(name in one.text for name in names) for one in read if one.facts == (link, target))


def test_over_networks_each_network_counts_once():
    """Two networks with differences .4 and .2, the second with ten times the questions: the mean is .3, n is 2."""
    one, two = in_states([0, 2] * 2, [5, 5] * 2), in_states([3, 3] * 20, [5, 5] * 20)
    arms = {"dpr": pd.concat([one.assign(seed=0), two.assign(seed=1)], ignore_index=True)}
    found = exhibits.over_networks(arms, K)["difference.auc"]
    assert (found.value, found.n) == (pytest.approx(0.3), 2)
    assert found.low < 0.2 < 0.4 < found.high
    assert exhibits.over_networks({"dpr": one}, K) == {}
