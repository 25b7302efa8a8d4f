"""The numbers of the chapter on late facts, on rows whose answers can be counted on one's fingers."""

import numpy as np
import pandas as pd
import pytest

from dprlens.intervals import share
from dprlens.late_facts import exhibits
from dprlens.late_facts.exhibits import ARMS, NEVER, LateSpec
from dprlens.world.closed.entry import AFTER

WHERE = {"study": "late", "size": 0.5, "form": 0.5, "seed": 0, "model": 0}


def rows(*records, **columns) -> pd.DataFrame:
    """One row for each (fact, entry, recalled, place), its question named by its number."""
    frame = pd.DataFrame(records, columns=["fact", "entry", "recalled", "place"])
    return frame.assign(kept=0.25, question=[f"q{i}" for i in range(len(frame))], **{**WHERE, **columns})


# Found among the first 20: 2 of 3 at the start, 1 of 2 halfway, 1 of 4 after the end, none of 2 never told.
ROWS = rows(
    ("a", 0.0, 1.0, 3),
    ("a", 0.0, 1.0, 19),
    ("b", 0.0, 0.5, 20),
    ("c", 0.5, 1.0, 0),
    ("c", 0.5, 1.0, 40),
    ("d", AFTER, 1.0, 7),
    ("d", AFTER, 1.0, 50),
    ("e", AFTER, 0.5, 50),
    ("e", AFTER, 0.5, 50),
    ("f", NEVER, 0.0, 30),
    ("g", NEVER, 0.0, 30),
)


def test_groups_are_named_by_their_point():
    assert [exhibits.group(point) for point in (NEVER, 0.0, 0.25, AFTER)] == ["never", "at0", "at25", "after"]


def test_a_fact_with_many_questions_is_recalled_once():
    assert exhibits.mean_recall(ROWS[ROWS["entry"] == 0])[::3] == (0.75, 2)
    twice = pd.concat([ROWS, ROWS.assign(model=1, recalled=0.0)])
    assert exhibits.mean_recall(twice[twice["entry"] == 0])[::3] == (0.375, 4)
    assert exhibits.mean_recall(ROWS[:0]) is None


def test_curves_go_from_never_to_after():
    curves = exhibits.curves(ROWS, 20)
    assert list(curves) == ["recalled", "kept", "top5", "top20"]
    assert {e.value for e in curves["kept"].values()} == {0.25}
    assert {group: e[::3] for group, e in curves["top20"].items()} == {
        "never": (0, 2),
        "at0": (pytest.approx(2 / 3), 3),
        "at50": (1 / 2, 2),
        "after": (1 / 4, 4),
    }
    assert curves["top5"]["at0"].value == pytest.approx(1 / 3)
    assert list(curves["recalled"]) == list(curves["top20"])


def test_contrasts_are_differences_of_the_groups():
    found = exhibits.contrasts(ROWS, 20)
    assert {name: e.value for name, e in found.items()} == {
        "start_minus_after.recalled": 0,
        "start_minus_after.top20": pytest.approx(2 / 3 - 1 / 4),
        "start_minus_never.top20": pytest.approx(2 / 3),
        "after_minus_never.top20": pytest.approx(1 / 4),
        "slope.top20": pytest.approx(-13 / 31),  # Sxy = −13/18, Sxx = 31/18
    }
    assert found["start_minus_after.top20"].n == 3


def test_the_slope_is_one_where_the_late_are_found_and_the_early_not():
    straight = rows(("a", 0.0, 1.0, 99), ("b", 0.0, 1.0, 99), ("c", AFTER, 1.0, 0), ("d", AFTER, 1.0, 0))
    assert exhibits.contrasts(straight, 20)["slope.top20"].value == pytest.approx(1)


@pytest.mark.parametrize("missing", [0.0, AFTER, NEVER])
def test_a_group_that_is_not_there_leaves_its_contrasts_out(missing):
    found = exhibits.contrasts(ROWS[ROWS["entry"] != missing], 20)
    gone = {0.0: "start", AFTER: "after", NEVER: "never"}[missing]
    assert {name for name, e in found.items() if e is None} == {name for name in found if gone in name}


def test_of_recalled_keeps_whole_recall_and_the_never_told():
    assert set(exhibits.recalled_rows(ROWS)["fact"]) == {"a", "c", "d", "f", "g"}


def test_intervals_draw_whole_facts():
    """Four questions through one fact, all found, and four through another, none: two clusters, not eight."""
    one = rows(*[("a", 0.0, 1.0, 0)] * 4, *[("b", 0.0, 1.0, 99)] * 4)
    apart = rows(*[(f"f{i}", 0.0, 1.0, 0 if i < 4 else 99) for i in range(8)])
    wide, narrow = (exhibits.curves(frame, 20)["top20"]["at0"] for frame in (one, apart))
    assert wide.value == narrow.value == 0.5
    assert (wide.low, wide.high) == (0, 1)
    assert narrow.low > 0
    assert narrow.high < 1


# --- ways to tell ---

TOLD = pd.concat(
    [
        rows(("a", 0, 0.0, 99), ("b", 0, 0.0, 99), ("c", 0, 0.0, 1)).assign(arm="never"),
        rows(("a", 0, 1.0, 1), ("b", 0, 1.0, 99), ("c", 0, 1.0, 1)).assign(arm="plain"),
        rows(("a", 0, 1.0, 1), ("b", 0, 0.0, 1), ("c", 0, 1.0, 1)).assign(arm="opened")[1:],
    ],
    ignore_index=True,
)


def test_arms_are_compared_with_never_on_their_own_questions():
    arms = exhibits.arms(TOLD, 20)
    assert list(arms) == ["never", "plain", "opened"]
    itself = arms["never"]["minus_never.top20"]
    assert itself.value == 0
    assert itself.low < 0 < itself.high  # few facts: none differs here, which does not mean that none would
    assert arms["plain"]["minus_never.top20"][::3] == (pytest.approx(1 / 3), 3)
    assert arms["opened"]["minus_never.top20"][::3] == (1 / 2, 2)
    assert arms["opened"]["recalled"].value == 1 / 2
    assert arms["opened"]["top20"] == share(2, 2)


def test_one_arm_against_another():
    assert exhibits.arm_difference(TOLD, "opened", "plain", 20)[::3] == (1 / 2, 2)
    assert exhibits.arm_difference(TOLD, "never", "plain", 20).value == pytest.approx(-1 / 3)
    assert exhibits.arm_difference(TOLD, "described", "plain", 20) is None


def test_a_question_is_one_of_its_own_world():
    other = TOLD[(TOLD["arm"] != "opened") | (TOLD["question"] == "q2")].assign(seed=1)  # opened: another question
    both = pd.concat([TOLD, other])
    assert exhibits.arm_difference(both, "opened", "plain", 20)[::3] == (pytest.approx(1 / 3), 3)


# --- on record ---


def test_curves_on_record_go_by_the_time_of_entry():
    kept = {
        "rates.falling.at0.top20": share(3, 4),
        "rates.falling.after.top20": share(1, 4),
        "rates.falling.never.top20": share(0, 4),
        "rates.constant.at75.recalled": share(2, 4),
    }
    assert exhibits.curves_on_record(kept) == {
        "recalled, rates fall": {},
        "recalled, rates stay": {75: share(2, 4)},
        "found, rates fall": {0: share(3, 4), 100: share(1, 4)},
        "found, rates stay": {},
    }


# --- where the answers come from ---


def test_shares_by_block_count_what_speaks_for_the_answer():
    scores = np.array([[[1.0, 2.0], [-5.0, 1.0]], [[-1.0, 0.0], [0.0, -2.0]]])
    assert exhibits.shares_by_block(scores).tolist() == [[0.75, 0.25], [0.5, 0.5]]


def test_shares_are_averaged_by_entry_and_block():
    shares = pd.DataFrame(
        [("a", 0.0, 0, 0.2), ("b", 0.0, 0, 0.4), ("a", 0.0, 1, 0.8), ("b", 0.0, 1, 0.6), ("c", AFTER, 0, 1.0)],
        columns=["fact", "entry", "block", "share"],
    ).assign(**WHERE)
    found = exhibits.by_block(shares)
    assert list(found) == ["at0", "after"]
    assert {block: e.value for block, e in found["at0"].items()} == {0: pytest.approx(0.3), 1: pytest.approx(0.7)}
    assert found["at0"][0].n == 2


# --- the spec ---


def test_the_arms_of_the_spec_exist_and_blocks_are_named_as_pre_training_names_them():
    assert set(LateSpec().arms) <= set(ARMS)
    assert {part for arm in ARMS.values() for part in arm.only} == {"embeddings", "block0", "block1", "block2"}


@pytest.mark.parametrize(
    "fields",
    [
        *({field: 0} for field in ("layers", "worlds", "deals", "size", "learning_rate")),
        {"constant": -1},
        {"constant": 2},
        {"rehearsal": -1.0},
        {"rehearsal": float("inf")},
    ],
    ids=str,
)
def test_specs_are_checked(refused, fields):
    ((field, value),) = fields.items()
    with refused(field, f"{value:g}"):
        LateSpec(**fields)


def test_an_unknown_arm_is_refused(refused):
    with refused("'hypnosis'", "plain"):
        LateSpec(arms=("plain", "hypnosis"))


def test_plain_statements_are_what_others_are_compared_with(refused):
    with refused("arms", "few", "plain"):
        LateSpec(arms=("few",))
