"""Numbers and tables of Tables 3 and 4 from an experiment that is written down by hand."""

import numpy as np
import pandas as pd
import pytest

from dprlens import edits, effects, paper
from dprlens.edits import Chosen, Outcome
from dprlens.effects import TABLES, apart_from_zero, in_words, label
from dprlens.intervals import Estimate, difference, exact, mean

N = 60


def judged(seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"question": [f"q{i:02}" for i in range(N)], "fact": [f"f{i // 2:02}" for i in range(N)]})
    frame["state"] = ["known", "known", "held out", "held out"] * (N // 4)
    frame["kind"] = ["lexical", "knowledge_required"] * (N // 2)
    frame["recalled"] = [0.0] * 40 + [1.0] * 20
    for n in (2, 5):
        for what in ("probe", "retrained", "match"):
            frame[f"{what}{n}"] = rng.random(N) < 0.4
    frame["place"] = rng.integers(0, 50, N)
    return frame


ARMS = ["mend", "finetuning", "unrelated_mend", "random_mend", "nothing", "reseeded1"]


def outcome(direction="added"):
    before = judged(0)
    rows = {arm: judged(i + 1) for i, arm in enumerate(ARMS)} | {"nothing": before}
    facts = sorted(before["fact"][edits.eligible(before, direction, 2)].unique())
    half = len(facts) // 2
    return Outcome(direction, Chosen(tuple(facts[:half]), tuple(facts[half:])), before, rows)


def test_every_arm_has_its_name_in_words():
    assert label("malmen") == "MALMEN"
    assert label("unrelated_malmen") == "unrelated facts, by MALMEN"
    assert label("random_mend") == "random change, as large as MEND"
    assert label("relearning") == "the same in large steps"
    assert label("reseeded2") == "no edit, other seed (2)"
    with pytest.raises(KeyError):
        label("random_nobody")


@pytest.mark.parametrize("direction", edits.DIRECTIONS)
def test_numbers_go_by_the_papers_ids(direction):
    x = outcome(direction)
    found = effects.numbers(TABLES[direction], x, 2)
    printed = {id_ for id_ in paper.numbers() if id_.startswith(f"{TABLES[direction]}.mend")}
    assert len(printed) == 4
    assert printed <= set(found)
    expected = edits.columns(x.before, x.after["mend"], x.chosen, direction, 2)
    assert found[f"{TABLES[direction]}.mend.probing_{direction}"] == expected.probing
    assert found[f"{TABLES[direction]}.mend.dpr_effect"] == expected.dpr_effect
    assert found[f"{TABLES[direction]}.nothing.off_target_flips"] == exact(0)


def test_numbers_of_one_kind_of_question_leave_the_others_out():
    x = outcome()
    of_kind = effects.numbers("t", x, 2, kind="knowledge_required")
    keep = (x.before["kind"] == "knowledge_required").to_numpy()
    before, after = (rows[keep].reset_index(drop=True) for rows in (x.before, x.after["mend"]))
    expected = edits.columns(before, after, x.chosen, "added", 2)
    assert of_kind["t.mend.probing_added"] == expected.probing
    assert of_kind["t.mend.off_target_flips"] == expected.off_target_flips


def test_the_retrained_probe_and_more_passages_are_other_columns():
    x = outcome()
    a, b, c = (effects.numbers("t", x, n, probe) for n, probe in ((2, "probe"), (2, "retrained"), (5, "probe")))
    assert a["t.mend.off_target_flips"] != b["t.mend.off_target_flips"]
    assert a["t.mend.off_target_edits"] == b["t.mend.off_target_edits"] != c["t.mend.off_target_edits"]


def test_the_printed_table_has_the_papers_row_below_its_own_editors_only():
    x = outcome()
    found = effects.numbers("table3", x, 2)
    frame = effects.printed("table3", found, x)
    names = frame[""].tolist()
    assert names == ["MEND", "· the paper", *(label(arm) for arm in ARMS[1:])]
    assert frame.iloc[1, 1:].tolist() == ["0.57", "592", "0.38", "229"]
    assert frame.iloc[0, 1] == found["table3.mend.probing_added"].brief
    assert frame.iloc[0, 2] == f"{found['table3.mend.off_target_flips'].value:.0f}"


def test_chosen_columns_show_a_dash_for_what_has_no_value():
    x = outcome()
    frame = effects.chosen_columns("t", {"t.mend.a": exact(3)}, x, {"a": "A", "b": "B"})
    assert frame.iloc[0].tolist() == ["MEND", "3", "–"]
    assert len(frame) == len(ARMS)


def test_against_every_null_arm_but_no_edit():
    x = outcome()
    found, frame = effects.against_nulls("nulls", x, ["mend"], 2)
    nulls = ["unrelated_mend", "random_mend", "reseeded1"]
    assert set(found) == {f"nulls.mend_minus_{null}.{what}" for null in nulls for what in ("probe", "match")}
    on = edits.eligible(x.before, "added", 2) & x.chosen.among(x.before)[0]
    a, b = (x.after[arm]["match2"].to_numpy()[on] for arm in ("mend", "random_mend"))
    expected = difference(a, b, x.before["fact"].to_numpy()[on])
    assert found["nulls.mend_minus_random_mend.match"] == expected
    assert frame["minus"].tolist() == [label(null) for null in nulls]
    assert frame["DPR"][1] == expected.brief


def test_success_is_by_arm_and_group_with_facts_drawn_whole():
    said = pd.DataFrame(
        {"arm": ["mend"] * 4 + ["nothing"], "group": ["told", "told", "told", "kept", "told"], "fact": list("aabcd")}
    ).assign(recalled=[True, False, True, True, False])
    found = effects.success("cloze", said)
    assert found["cloze.mend.told"] == mean([1, 0, 1], list("aab"))
    assert found["cloze.nothing.told"].value == 0
    assert set(found) == {"cloze.mend.told", "cloze.mend.kept", "cloze.nothing.told"}


def test_how_far_cls_moved_by_what_is_read():
    far = pd.DataFrame(
        {"arm": ["mend"] * 3 + ["nothing"] * 2, "group": ["edited", "edited", "gold", "edited", "edited"]}
    )
    far = far.assign(fact=list("aabab"), far=[0.5, 0.1, 0.7, 0.0, 0.0])
    found = effects.moved("moved", far)
    assert found["moved.mend.edited"] == mean([0.5, 0.1], ["a", "a"])
    assert found["moved.mend.gold"].value == 0.7
    assert found["moved.nothing.edited"] == exact(0.0)


def test_selection_counts_facts_and_questions():
    x = outcome()
    counted, frame = effects.selection("facts", x, (2, 5))
    on = edits.eligible(x.before, "added", 2) & x.chosen.among(x.before)[0]
    assert counted["facts.n2.edited.questions"] == on.sum()
    assert counted["facts.n2.edited.facts"] == x.before["fact"][on].nunique()
    assert counted["facts.n2.edited.linked"] == (x.before["kind"][on] == "knowledge_required").sum()
    assert frame["N"].tolist() == ["2", "2", "5", "5"]
    assert frame["questions"].tolist()[0] == str(on.sum())


def test_what_there_is_to_win_are_known_links():
    x = outcome()
    mine = [i for i in range(N) if i % 2 == 1 and i % 4 < 2]
    expected = mean(x.before["place"].iloc[mine] < edits.TOP, x.before["fact"].iloc[mine])
    assert effects.known_from_the_start(x) == expected
    none = x._replace(before=x.before.assign(state="held out"))
    assert effects.known_from_the_start(none) is None


def test_what_is_on_record_is_shown_for_every_arm():
    kept = {
        "table3.mend.off_target_flips": exact(7),
        "table3.mend.probing_added": Estimate(0.4, 0.3, 0.5, 9),
        "added_found.mend.found_effect": Estimate(0.1, 0.0, 0.2, 9),
        "table3.reseeded2.off_target_flips": exact(3),
        "added_effects.reseeded2.dpr_effect": Estimate(0.2, 0.1, 0.3, 9),
    }
    found, frame = effects.on_record(kept, "added")
    assert frame[""].tolist() == ["MEND", label("reseeded2")]
    assert frame["probe"].tolist() == [kept["table3.mend.probing_added"].brief, "–"]
    assert found == {
        "added_on_record.mend.probing_added": kept["table3.mend.probing_added"],
        "added_on_record.mend.found_effect": kept["added_found.mend.found_effect"],
        "added_on_record.reseeded2.dpr_effect": kept["added_effects.reseeded2.dpr_effect"],
    }
    assert effects.on_record({}, "removed")[0] == {}


def test_one_fact_as_a_reader_sees_it():
    view = pd.DataFrame({"arm": ["mend"], "said": ["oslo"], "probability": [0.123], "probe": [True], "match": [False]})
    frame = effects.through_every_arm(view.assign(place=[7]))
    assert frame.iloc[0].tolist() == ["MEND", "oslo", "0.12", "✓", "–", "7"]


@pytest.mark.parametrize(("n", "words"), [(1, "one world and network"), (3, "3 worlds and networks")])
def test_how_many_worlds_in_words(n, words):
    assert effects.in_worlds(n) == words


@pytest.mark.parametrize(("table", "readings"), [("table3", {"r3", "r5"}), ("table4", {"r4"})])
def test_the_papers_tables_are_read_again(table, readings):
    holds, frame = effects.reread("again", table)
    assert {f"again.{id_}" for id_ in readings} <= set(holds)
    assert set(holds.values()) <= {0.0, 1.0}
    assert len(frame) == len(holds)


def test_sentences_about_effects():
    found = {
        "t.mend.e": Estimate(0.2, 0.1, 0.3, 9),
        "t.malmen.e": Estimate(-0.2, -0.3, -0.1, 9),
        "t.finetuning.e": Estimate(0.0, -0.1, 0.1, 9),
    }
    arms = ["mend", "malmen", "finetuning", "rehearsal"]
    assert apart_from_zero(found, "t", "e", arms) == (
        "above 0 for MEND; below 0 for MALMEN; not to be told from 0 for 1 of 3"
    )
    assert apart_from_zero({"t.mend.e": exact(0.0)}, "t", "e", arms) == "not to be told from 0 for any of 1"
    assert in_words(found, "t", "e", ["mend", "rehearsal"]) == (
        f"MEND {found['t.mend.e'].brief}, more masked-LM, with rehearsal –"
    )
