"""The exhibits of chapters 04_1 and 04_2, on four facts with a question each: two edited, two bystanders."""

from types import SimpleNamespace

import pandas as pd
import pytest

from dprlens.chapters import editing as chapter
from dprlens.chapters.editing_experiment import Experiment, FactTrace, Plan
from dprlens.editing.protocol import DIRECTIONS, Chosen, Outcome
from dprlens.intervals import Estimate, exact
from dprlens.profile import get_profile
from dprlens.report.report import Absent, Table
from dprlens.world.passages import Passage
from dprlens.world.records import Fact, Question, Statement

YES, NO = Estimate(0.97, 0.95, 0.99, 9), Estimate(0.5, 0.4, 0.6, 9)
EACH = pytest.mark.parametrize("direction", DIRECTIONS)
TOLD = Statement("Ada was born in Wend.", 16, 20)
BLANK = Statement("Wend is where Ada was born.", 0, 4, reserved=True)
FACT = Fact("a", "Ada", "born_in", "Wend", "test", statements=(TOLD, BLANK))
GOLD = Passage("p", "Wend", "Wend lies on the Ash.", ("t",))
QUESTION = Question("q0", "Where was Ada born?", ("Wend",), "p", ("a",), "test", "lexical")
PROFILE = get_profile("tiny")  # the probe chooses among 2 and 5 passages


def rows(direction, changed=(), places=(30, 30, 30, 30), moved=0.0):
    """Questions q0 to q3 about facts a to d, eligible in this direction but for those that an edit has changed."""
    right = direction == "removed"
    verdicts = [(i in changed) != right for i in range(4)]
    frame = pd.DataFrame({"question": ["q0", "q1", "q2", "q3"], "fact": [*"abcd"], "place": places})
    frame = frame.assign(state=["held out", "held out", "known", "known"], kind="knowledge_required", moved=moved)
    for n in (2, 5):
        frame = frame.assign(**{f"{what}{n}": verdicts for what in ("probe", "retrained", "match")})
    return frame.assign(recalled=float(right))


def arms(direction="added", recall=None):
    """MEND turns fact a, more masked-LM turns a and b, constrained fine-tuning does not reach [CLS]."""
    after = {
        "mend": rows(direction, [0], (3, 30, 30, 30), 0.5),
        "rehearsal": rows(direction, [0, 1], (3, 4, 30, 30), 0.5),
        "finetuning": rows(direction, moved=0.001),
        "random_mend": rows(direction, [2], moved=0.5),
        "nothing": rows(direction),
        "reseeded1": rows(direction, [1]),
    }
    picked = Chosen(("a", "b"), ("c", "d"))
    world = SimpleNamespace(passage={"p": GOLD})
    page = Experiment(
        direction,
        SimpleNamespace(profile=PROFILE, world=world),
        Plan(after["nothing"], picked, (FACT,), {}),
        {},
        after,
    )
    told = {arm: YES if arm == "rehearsal" else NO for arm in after}
    recall = {f"{direction}_cloze.{arm}.told": e for arm, e in told.items()} if recall is None else recall
    return chapter.Arms([page], Outcome(direction, picked, after["nothing"], after), recall)


@pytest.fixture(scope="module", params=DIRECTIONS)
def measured(request):
    return chapter.measure_effects(arms(request.param))


def followed():
    seen = pd.DataFrame({"arm": ["nothing", "mend"], "said": ["Ash", "Wend"], "probability": [0.1, 0.9]})
    seen = seen.assign(probe=[False, True], match=[False, True], place=[31, 4])
    return {"a": FactTrace(TOLD, BLANK, QUESTION, seen)}


def test_arms_are_run_in_every_world(monkeypatch):
    one = arms().page
    said = pd.DataFrame({"arm": "mend", "group": "told", "fact": ["a", "b"], "recalled": [True, False]})
    monkeypatch.setattr(chapter.editing_experiment, "experiments", lambda *_: [one, one])
    monkeypatch.setattr(chapter.editing_experiment, "cloze_rows", lambda *_: said)
    found = chapter.run_arms(one.setup, "added")
    assert found.outcome.chosen.edited == ("0/a", "0/b", "1/a", "1/b")
    assert found.recall["added_cloze.mend.told"][::3] == (0.5, 4)
    assert found.page is one


def test_the_record_says_what_the_exhibits_ask_of_it():
    added, removed = arms("added"), arms("removed")
    assert (added.n, added.most, added.n_of_search) == (2, 5, 5)
    assert removed.n_of_search == 2
    assert added.exhibit("cloze") == "added_cloze"
    assert added.judged == ["rehearsal"]


def test_effects_are_differences_in_differences(measured):
    direction = measured.arms.direction
    table = {"added": "table3", "removed": "table4"}[direction]
    assert measured.of_all[f"{table}.mend.probing_{direction}"].value == 0.5
    assert measured.of_links[f"{direction}_effects.mend.dpr_did"].value == 0.5
    assert measured.of_links[f"{direction}_effects.rehearsal.dpr_did"].value == 1
    assert measured.of_links[f"{direction}_effects.random_mend.dpr_did"].value == -0.5
    assert measured.of_search[f"{direction}_found.rehearsal.found"].value == 1
    assert {id_.rpartition(".")[2] for id_ in measured.of_search} == {"found", "found_effect", "found_did"}


def test_search_takes_the_questions_that_are_eligible_among_more_passages():
    whole = arms()
    one = whole.outcome.before.assign(match5=[True, False, False, False])  # fact a is not eligible among 5
    found = chapter.measure_effects(whole._replace(outcome=whole.outcome._replace(before=one)))
    assert found.of_search["added_found.mend.found"].value == 0
    assert found.of_links["added_effects.mend.found"].value == 0.5


@EACH
def test_selection_counts_the_halves(direction):
    table = chapter.selection_table(arms(direction))
    assert table.exhibit == f"{direction}_facts"
    assert table.numbers[f"{direction}_facts.n5.bystanders.facts"] == 2
    assert table.title.endswith({"added": "told and not told", "removed": "overwritten and not"}[direction])


def test_facts_are_followed_one_or_the_first(monkeypatch):
    monkeypatch.setattr(chapter.editing_experiment, "examples", lambda *_: ["a", "b"])
    monkeypatch.setattr(chapter.editing_experiment, "trace_fact", lambda _, id_, n: (id_, n))
    assert chapter.follow_facts(arms()) == {"a": ("a", 2), "b": ("b", 2)}
    assert chapter.follow_facts(arms(), "b") == {"b": ("b", 2)}


def test_one_fact_in_texts_and_through_the_arms():
    card = chapter.statement_card(arms(), followed()).data
    assert card["a"].tolist() == [
        TOLD.text,
        "____ is where Ada was born.",
        QUESTION.text,
        "Wend: Wend lies on the Ash.",
    ]
    table = chapter.fact_table(arms("removed"), followed())
    assert table.title == "One fact through every arm: Ada, born in"
    assert table.numbers == {"removed_fact.nothing.place": 31, "removed_fact.mend.place": 4}
    ((key, page),) = chapter.fact_pages(arms(), followed()).items()
    assert key == ("Ada, born in", "MEND")
    assert "no edit" in page
    assert page.count("<th scope=") == 2 + 5  # two models, five rows


def test_recall_and_whether_an_edit_took():
    whole = arms()
    table = chapter.cloze_table(whole)
    assert table.numbers is whole.recall
    assert dict(zip(table.frame[""], table.frame["told wording"], strict=True))["MEND"] == NO.brief


def test_telling_again_and_again(monkeypatch):
    said = pd.DataFrame({"arm": ["mend_1", "mend_2"], "group": "told", "fact": "a", "recalled": [False, True]})
    monkeypatch.setattr(chapter.editing_experiment, "trade_off_rows", lambda *_: said)
    table = chapter.rounds_table(arms())
    assert table.frame["rounds"].tolist() == ["1", "2"]
    assert table.numbers["added_tradeoff.mend_2.told"].value == 1


@EACH
def test_how_far_edits_moved_cls(direction, monkeypatch):
    far = pd.DataFrame({"arm": "mend", "group": ["edited", "gold"], "fact": ["a", "p"], "far": [0.5, 0.25]})
    monkeypatch.setattr(chapter.editing_experiment, "cls_shift_rows", lambda _: far)
    table = chapter.displacement_table(arms(direction))
    assert table.frame.columns[1] == {"added": "questions, told", "removed": "questions, overwritten"}[direction]
    assert table.numbers[f"{direction}_moved.mend.gold"].value == 0.25
    assert chapter.reach(arms(direction))[f"{direction}_reach.finetuning"].value == pytest.approx(0.001)


def test_the_papers_table_and_the_effects(measured):
    direction = measured.arms.direction
    paper, effects = chapter.paper_table(measured), chapter.effects_table(measured)
    assert paper.exhibit == {"added": "table3", "removed": "table4"}[direction]
    assert paper.title == f"Facts {direction} (N = 2; off-target counts over 4 test questions)"
    assert paper.frame[""].tolist()[:2] == ["MEND", "· the paper"]
    assert paper.frame["edit took"].tolist()[:3] == ["no (0.50)", "", "yes (0.97)"]
    assert effects.frame.set_index("").loc["constrained fine-tuning", "DiD, DPR"] == "cannot move"
    assert effects.title.startswith({"added": "Added", "removed": "Share lost: overwritten"}[direction])


def test_more_passages_are_another_exhibit():
    table = chapter.more_passages_table(arms("removed"))
    assert table.frame.columns[1:3].tolist() == ["probe", "DPR"]
    assert "N = 5" in table.title
    assert table.numbers["removed_n5.rehearsal.probing_removed"].value == 1


def test_search_and_forest_show_the_same_numbers(measured):
    direction = measured.arms.direction
    table, figure = chapter.search_table(measured), chapter.forest(measured)
    assert table.numbers is measured.of_search
    assert f"eligible at N = {5 if direction == 'added' else 2}" in table.title
    search = figure.points[figure.points["line"] == "passage among the first 20"].set_index("place")["value"]
    assert (
        search["more masked-LM, with rehearsal"] == table.numbers[f"{direction}_found.rehearsal.found_did"].value == 1
    )
    assert "constrained fine-tuning" not in search
    assert not figure.numbers


def test_editors_against_null_arms():
    table = chapter.nulls_table(arms())
    assert table.numbers["added_nulls.rehearsal_minus_random_mend.match"].value == 1
    assert {*table.frame[""]} == {"MEND", "more masked-LM, with rehearsal"}
    assert "told facts' questions that come right" in table.title
    assert "overwritten facts' questions that are lost" in chapter.nulls_table(arms("removed")).title


def test_agreement_is_of_mend_with_arms_that_act():
    table = chapter.agreement_table(arms())
    assert table.frame["and"].tolist() == ["more masked-LM, with rehearsal", *table.frame["and"][1:]]
    assert table.numbers["added_agreement.mend_reseeded1.probe"].value == -1  # one turns fact a, the other fact b
    assert "added facts' questions" in table.title


def test_a_probe_fitted_to_the_edited_model():
    table = chapter.retrained_probe_table(arms())
    assert table.frame.columns.tolist() == ["", "probe", "effect", "off-target flips"]
    assert table.numbers["added_retrained.nothing.off_target_flips"] == exact(0)


@EACH
def test_the_record_or_that_there_is_none(direction, monkeypatch):
    monkeypatch.setattr(chapter, "read_record", lambda *_: {})
    nothing = chapter.record_table(direction)
    assert isinstance(nothing, Absent)
    assert nothing.exhibit == f"{direction}_on_record"
    assert chapter.record_in_words(direction)["took"] == "no arm"
    table = {"added": "table3", "removed": "table4"}[direction]
    kept = {
        f"{table}.mend.off_target_flips": exact(7),
        f"{direction}_cloze.mend.told": YES,
        f"{table}.mend.dpr_did": NO,
    }
    monkeypatch.setattr(chapter, "read_record", lambda notebook, profile: kept if "04_" in notebook else profile)
    shown = chapter.record_table(direction)
    assert isinstance(shown, Table)
    assert shown.numbers[f"{direction}_on_record.mend.dpr_did_all"] == NO
    assert chapter.record_in_words(direction)["took"] == f"MEND {NO.brief}"


@EACH
def test_the_papers_numbers_are_read_again(direction):
    table = chapter.rereading_table(direction)
    assert table.title == f"What Table {3 if direction == 'added' else 4} of the paper supports by itself"
    assert {*table.numbers.values()} <= {0.0, 1.0}


def test_results_in_words(measured):
    words = chapter.in_words(measured)
    assert words.worlds == "one world and network"
    assert words.used == "1 facts by 1 statements"
    assert words.judged == f"more masked-LM, with rehearsal {YES.brief}"
    assert words.set_aside.startswith(f"MEND (its model completes {NO.brief}")
    assert "constrained fine-tuning (it does not reach [CLS])" in words.set_aside
    assert words.told.endswith(f"MEND {NO.brief}")
    assert words.probe.startswith("MEND 0.50")
    assert words.probe_of_nulls.startswith("random change, as large as MEND 0.00")
    assert words.churn.startswith("no edit, other seed (1) 0.50")
    assert words.dpr == "above 0 for more masked-LM, with rehearsal"
    assert words.dpr_values.startswith("more masked-LM, with rehearsal 1.00")
    assert words.known_from_the_start.startswith("0.00")  # both known links have their passage in place 30


def test_no_arm_in_words():
    whole = arms(recall={f"added_cloze.{arm}.told": NO for arm in arms().outcome.after})
    words = chapter.in_words(chapter.measure_effects(whole))
    assert words.judged == "no arm"
    assert words.dpr == words.search == "not measured for any arm"
