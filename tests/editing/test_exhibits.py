"""Numbers and tables of Tables 3 and 4 from an experiment that is written down by hand."""

import numpy as np
import pandas as pd
import pytest

from dprlens import paper
from dprlens.editing import exhibits, protocol
from dprlens.editing.exhibits import TABLES, apart_from_zero, in_words, label
from dprlens.editing.protocol import Chosen, Outcome
from dprlens.intervals import Estimate, difference, exact, mean
from dprlens.world.records import Fact, Statement

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
    frame["moved"] = rng.uniform(0.1, 0.9, N)
    return frame


ARMS = ["mend", "finetuning", "unrelated_mend", "random_mend", "nothing", "reseeded1"]


def outcome(direction="added"):
    before = judged(0).assign(moved=0.0)
    rows = {arm: judged(i + 1) for i, arm in enumerate(ARMS)} | {"nothing": before}
    facts = sorted(before["fact"][protocol.eligible(before, direction, 2)].unique())
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


@pytest.mark.parametrize("direction", protocol.DIRECTIONS)
def test_numbers_go_by_the_papers_ids(direction):
    x = outcome(direction)
    found = exhibits.numbers(TABLES[direction], x, 2)
    printed = {id_ for id_ in paper.numbers() if id_.startswith(f"{TABLES[direction]}.mend")}
    assert len(printed) == 4
    assert printed <= set(found)
    expected = protocol.columns(x.before, x.after["mend"], x.chosen, direction, 2)
    assert found[f"{TABLES[direction]}.mend.probing_{direction}"] == expected.probing
    assert found[f"{TABLES[direction]}.mend.dpr_effect"] == expected.dpr_effect
    assert found[f"{TABLES[direction]}.nothing.off_target_flips"] == exact(0)


def test_numbers_of_one_kind_of_question_leave_the_others_out():
    x = outcome()
    of_kind = exhibits.numbers("t", x, 2, kind="knowledge_required")
    keep = (x.before["kind"] == "knowledge_required").to_numpy()
    before, after = (rows[keep].reset_index(drop=True) for rows in (x.before, x.after["mend"]))
    expected = protocol.columns(before, after, x.chosen, "added", 2)
    assert of_kind["t.mend.probing_added"] == expected.probing
    assert of_kind["t.mend.off_target_flips"] == expected.off_target_flips


@pytest.mark.slow
def test_the_retrained_probe_and_more_passages_are_other_columns():
    x = outcome()
    a, b, c = (exhibits.numbers("t", x, n, probe) for n, probe in ((2, "probe"), (2, "retrained"), (5, "probe")))
    assert a["t.mend.off_target_flips"] != b["t.mend.off_target_flips"]
    assert a["t.mend.off_target_edits"] == b["t.mend.off_target_edits"] != c["t.mend.off_target_edits"]


def test_the_printed_table_has_the_papers_row_below_its_own_editors_only():
    x = outcome()
    found = exhibits.numbers("table3", x, 2)
    frame = exhibits.as_printed("table3", found, x)
    names = frame[""].tolist()
    assert names == ["MEND", "· the paper", *(label(arm) for arm in ARMS[1:])]
    assert frame.iloc[1, 1:].tolist() == ["0.57", "592", "0.38", "229"]
    assert frame.iloc[0, 1] == found["table3.mend.probing_added"].brief
    assert frame.iloc[0, 2] == f"{found['table3.mend.off_target_flips'].value:.0f}"


def test_chosen_columns_show_a_dash_for_what_has_no_value():
    x = outcome()
    frame = exhibits.chosen_columns("t", {"t.mend.a": exact(3)}, x, {"a": "A", "b": "B"})
    assert frame.iloc[0].tolist() == ["MEND", "3", "–"]
    assert len(frame) == len(ARMS)
    assert frame.iloc[ARMS.index("nothing")].tolist() == ["no edit", "baseline", "baseline"]


def still(x, arm):
    """The same, with an arm whose edit hardly moves [CLS]."""
    return x._replace(after=x.after | {arm: x.after[arm].assign(moved=protocol.REACH / 2)})


@pytest.mark.slow
def test_what_cannot_move_has_no_number_but_counts_and_the_table_says_why():
    x = outcome()
    whole, found = exhibits.numbers("table3", x, 2), exhibits.numbers("table3", still(x, "mend"), 2)
    assert {id_ for id_ in found if ".mend." in id_} == {f"table3.mend.{name}" for name in exhibits.PLAIN}
    assert {id_ for id_ in found if ".nothing." in id_} == {f"table3.nothing.{name}" for name in exhibits.PLAIN}
    for arm in ("finetuning", "reseeded1"):
        assert {id_: v for id_, v in found.items() if f".{arm}." in id_} == {
            id_: value for id_, value in whole.items() if f".{arm}." in id_
        }
        assert f"table3.{arm}.found_did" in found
    frame = exhibits.as_printed("table3", found, still(x, "mend"))
    assert frame.iloc[0].tolist()[1::2] == ["cannot move", "cannot move"]
    assert frame.iloc[1, 1] == "0.57"  # the paper's row stays
    against, frame = exhibits.against_nulls("nulls", still(x, "mend"), ["mend", "finetuning"], 2)
    assert not any("mend_minus" in id_ for id_ in against)
    assert {*frame[""]} == {label("finetuning")}


def test_reach_is_reported_of_edits():
    x = outcome()
    found = exhibits.reach("added_reach", x)
    assert {*found} == {f"added_reach.{arm}" for arm in ARMS if arm not in ("nothing", "reseeded1")}
    assert found["added_reach.mend"] == protocol.reach(x.after["mend"])


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.91, 1, "yes"), (0.5, 0.9, "no"), (0.89, 0.95, "unclear"), (0.9, 0.95, "unclear")]
)
def test_whether_an_edit_took_is_read_off_the_interval(low, high, word):
    assert exhibits.took(Estimate((low + high) / 2, low, high, 9)) == word


def test_a_claim_is_judged_on_edits_that_took_and_can_show():
    x = outcome()
    told = dict.fromkeys(ARMS, Estimate(0.97, 0.95, 0.99, 9)) | {"finetuning": Estimate(0.5, 0.4, 0.6, 9)}
    worked = {f"c.{arm}.told": value for arm, value in told.items()}
    assert exhibits.that_took("c", worked, x) == ["mend"]
    assert exhibits.that_took("c", worked, still(x, "mend")) == []
    frame = exhibits.with_took(exhibits.as_printed("table3", exhibits.numbers("table3", x, 2), x), "c", worked, x)
    assert frame["edit took"].tolist() == ["yes (0.97)", "", "no (0.50)", *["null arm"] * 4]
    assert frame.columns[1] == "edit took"


def test_edits_that_are_set_aside_have_their_reason():
    x = outcome()
    x = x._replace(after=x.after | {"malmen": judged(9)})
    yes, no = Estimate(0.97, 0.95, 0.99, 9), Estimate(0.5, 0.4, 0.6, 9)
    worked = {f"c.{arm}.told": no if arm == "malmen" else yes for arm in x.after}
    assert exhibits.set_aside("c", worked, still(x, "mend")) == (
        f"MEND (it does not reach [CLS]), MALMEN (its model completes {no.brief} of the statements)"
    )
    assert exhibits.set_aside("c", worked | {"c.malmen.told": yes}, x) == "none"


def test_a_column_by_arm_in_words():
    one = Estimate(0.1, 0, 0.2, 9)
    found = {"t.mend.dpr_did": one, "t.mend.dpr_effect": one, "u.mend.dpr_did": one}
    assert exhibits.by_arm(found, "t", "dpr_did") == {"MEND": one}


def test_a_record_speaks_of_edits_that_took_and_can_show():
    yes, no = Estimate(0.97, 0.95, 0.99, 9), Estimate(0.5, 0.4, 0.6, 9)
    told = {"mend": no, "rehearsal": yes, "transformer_patcher": yes, "reseeded1": no}
    found = {f"added_on_record.{arm}.told": value for arm, value in told.items()}
    found |= {f"added_on_record.{arm}.dpr_did_all": no for arm in ("mend", "rehearsal", "reseeded1")}
    found["added_on_record.rehearsal.found_effect"] = yes
    said = exhibits.recorded_in_words(found, "added")
    assert said["took"] == f"more masked-LM, with rehearsal {no.brief}"
    assert said["churn"] == f"no edit, other seed (1) {no.brief}"
    assert said["top"] == f"more masked-LM, with rehearsal {yes.brief}"
    found["added_on_record.rehearsal.found_did"] = no
    assert exhibits.recorded_in_words(found, "added")["top"].endswith(no.brief)
    assert exhibits.recorded_in_words({}, "added")["took"] == "no arm"


def test_how_many_facts_and_statements_in_words():
    read, unread = (Statement("a b", 0, 1, reserved) for reserved in (False, True))
    two, one = (Fact("f", "a", "r", "b", "test", statements=(*([read] * n), unread)) for n in (2, 1))
    assert exhibits.counts_in_words([two, two]) == "2 facts by 2 statements"
    assert exhibits.counts_in_words([two, one]) == "2 facts by 1 to 2 statements"


def test_agreements_are_of_malmen_and_mend_with_all_that_act():
    x = outcome()
    x = x._replace(after=x.after | {"malmen": judged(9)})
    found, frame = exhibits.agreements("added_agreement", x, 2)
    assert frame.iloc[0, :2].tolist() in (["MEND", "MALMEN"], ["MALMEN", "MEND"])
    pairs = {id_.split(".")[1] for id_ in found}
    assert "mend_malmen" in pairs
    assert not any("nothing" in pair for pair in pairs)
    assert all(pair.startswith(("mend_", "malmen_")) for pair in pairs)
    assert found["added_agreement.mend_malmen.probe"] == protocol.agreement(x, "mend", "malmen", 2)
    assert len(frame) == 1 + 2 * 4


def test_against_every_null_arm_but_no_edit():
    x = outcome()
    found, frame = exhibits.against_nulls("nulls", x, ["mend"], 2)
    nulls = ["unrelated_mend", "random_mend", "reseeded1"]
    assert set(found) == {f"nulls.mend_minus_{null}.{what}" for null in nulls for what in ("probe", "match")}
    on = protocol.eligible(x.before, "added", 2) & x.chosen.among(x.before)[0]
    a, b = (x.after[arm]["match2"].to_numpy()[on] for arm in ("mend", "random_mend"))
    expected = difference(a, b, x.before["fact"].to_numpy()[on])
    assert found["nulls.mend_minus_random_mend.match"] == expected
    assert frame["minus"].tolist() == [label(null) for null in nulls]
    assert frame["DPR"][1] == expected.brief


def test_success_is_by_arm_and_group_with_facts_drawn_whole():
    said = pd.DataFrame(
        {"arm": ["mend"] * 4 + ["nothing"], "group": ["told", "told", "told", "kept", "told"], "fact": list("aabcd")}
    ).assign(recalled=[True, False, True, True, False])
    found = exhibits.success("cloze", said)
    assert found["cloze.mend.told"] == mean([1, 0, 1], list("aab"))
    assert found["cloze.nothing.told"].value == 0
    assert set(found) == {"cloze.mend.told", "cloze.mend.kept", "cloze.nothing.told"}


def test_how_far_cls_moved_by_what_is_read():
    far = pd.DataFrame(
        {"arm": ["mend"] * 3 + ["nothing"] * 2, "group": ["edited", "edited", "gold", "edited", "edited"]}
    )
    far = far.assign(fact=list("aabab"), far=[0.5, 0.1, 0.7, 0.0, 0.0])
    found = exhibits.cls_shift("moved", far)
    assert found["moved.mend.edited"] == mean([0.5, 0.1], ["a", "a"])
    assert found["moved.mend.gold"].value == 0.7
    assert not any("nothing" in id_ for id_ in found)


def test_selection_counts_facts_and_questions():
    x = outcome()
    counted, frame = exhibits.selection("facts", x, (2, 5))
    on = protocol.eligible(x.before, "added", 2) & x.chosen.among(x.before)[0]
    assert counted["facts.n2.edited.questions"] == on.sum()
    assert counted["facts.n2.edited.facts"] == x.before["fact"][on].nunique()
    assert counted["facts.n2.edited.linked"] == (x.before["kind"][on] == "knowledge_required").sum()
    assert frame["N"].tolist() == ["2", "2", "5", "5"]
    assert frame["questions"].tolist()[0] == str(on.sum())


def test_what_there_is_to_win_are_known_links():
    x = outcome()
    mine = [i for i in range(N) if i % 2 == 1 and i % 4 < 2]
    expected = mean(x.before["place"].iloc[mine] < protocol.TOP, x.before["fact"].iloc[mine])
    assert exhibits.known_from_the_start(x) == expected
    none = x._replace(before=x.before.assign(state="held out"))
    assert exhibits.known_from_the_start(none) is None


def test_what_is_on_record_is_shown_for_every_arm():
    one, two, three = (Estimate(value, value - 0.1, value + 0.1, 9) for value in (0.1, 0.2, 0.3))
    kept = {
        "table3.mend.off_target_flips": exact(7),
        "added_cloze.mend.told": one,
        "added_found.mend.found_effect": two,
        "added_effects.mend.dpr_effect": one,
        "added_effects.mend.dpr_did": three,
        "table3.reseeded2.off_target_flips": exact(3),
        "added_effects.reseeded2.dpr_effect": two,
        "table3.nothing.off_target_flips": exact(0),
        "table3.nothing.dpr_effect": exact(0.0),
        "added_found.nothing.found_effect": one,
        "table3.transformer_patcher.off_target_flips": exact(0),
        "table3.transformer_patcher.dpr_effect": exact(0.0),
        "added_cloze.transformer_patcher.told": one,
        "added_moved.transformer_patcher.others": Estimate(0.001, 0, 0.002, 9),
    }
    found, frame = exhibits.on_record(kept, "added")
    assert frame[""].tolist() == ["MEND", label("reseeded2"), "no edit", "Transformer-Patcher"]
    assert frame["DiD, DPR"].tolist() == [three.brief, two.brief, "baseline", "cannot move"]
    assert frame[f"DiD, first {protocol.TOP}"].tolist() == ["–", "–", "baseline", "cannot move"]  # of no older record
    assert found == {
        "added_on_record.mend.told": one,
        "added_on_record.mend.found_effect": two,
        "added_on_record.mend.dpr_did": three,
        "added_on_record.reseeded2.dpr_did": two,
        "added_on_record.nothing.found_effect": one,
        "added_on_record.transformer_patcher.told": one,
    }
    assert exhibits.on_record({}, "removed")[0] == {}


def test_one_fact_as_a_reader_sees_it():
    view = pd.DataFrame({"arm": ["mend"], "said": ["oslo"], "probability": [0.123], "probe": [True], "match": [False]})
    frame = exhibits.through_every_arm(view.assign(place=[7]))
    assert frame.iloc[0].tolist() == ["MEND", "oslo", "0.12", "✓", "–", "7"]


@pytest.mark.parametrize(("n", "words"), [(1, "one world and network"), (3, "3 worlds and networks")])
def test_how_many_worlds_in_words(n, words):
    assert exhibits.in_worlds(n) == words


@pytest.mark.parametrize(("table", "readings"), [("table3", {"r3", "r5"}), ("table4", {"r4"})])
def test_the_papers_tables_are_read_again(table, readings):
    holds, frame = exhibits.reread("again", table)
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
        "above 0 for MEND; below 0 for MALMEN; indistinguishable from 0 for 1 of 3"
    )
    assert apart_from_zero({"t.mend.e": exact(0.0)}, "t", "e", arms) == "indistinguishable from 0 for any of 1"
    assert in_words(found, "t", "e", ["mend", "rehearsal"]) == (
        f"MEND {found['t.mend.e'].brief}, more masked-LM, with rehearsal –"
    )
