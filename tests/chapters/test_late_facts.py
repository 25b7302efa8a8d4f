"""The exhibits of chapter B.2, on rows whose answers can be counted on one's fingers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dprlens.chapters import late_facts as chapter
from dprlens.intervals import Estimate
from dprlens.late_facts import exhibits
from dprlens.late_facts.exhibits import NEVER, LateSpec
from dprlens.report import report
from dprlens.report.report import Absent
from dprlens.world.closed.entry import AFTER, under_study

K = 20
HERE = {"study": "late", "size": 0.5, "form": 0.5, "seed": 0, "model": 0, "state": "known"}
HALF, QUARTER = Estimate(0.5, 0.4, 0.6, 9), Estimate(0.25, 0.2, 0.3, 9)


def by_entry(rates="falling", after=(7, 50)):
    """Found among the first 20: both questions at the start, one of two halfway, of two after, none of two never."""
    points = [0.0, 0.0, 0.5, 0.5, AFTER, AFTER, NEVER, NEVER]
    frame = pd.DataFrame({"entry": points, "place": [3, 19, 0, 40, *after, 30, 30], "fact": [*"abcdefgh"]})
    recalled = [1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 0.0, 0.0]
    return frame.assign(question=[f"q{i}" for i in range(8)], recalled=recalled, kept=0.25, rates=rates, **HERE)


def by_telling(**places):
    """Two questions in every arm: never told, told from the start, and told in the ways given."""
    arms = {"never": (30, 30), "start": (0, 1), "plain": (0, 30), "many": (0, 2)} | places
    frames = [
        pd.DataFrame({"question": ["q0", "q1"], "fact": ["a", "b"], "place": where, "arm": arm})
        for arm, where in arms.items()
    ]
    return pd.concat(frames).assign(recalled=1.0, kept=0.25, **HERE)


def study(entry=None, telling=None, world=None, arms=("plain", "many")):
    asked = SimpleNamespace(questions=[SimpleNamespace(id=f"q{i}", text=f"Question {i}?") for i in range(8)])
    chosen = SimpleNamespace(late=LateSpec(points=(0.0, 0.5), arms=arms))
    return chapter.Study(
        chosen,
        SimpleNamespace(world=world or asked, seed=0),
        K,
        by_entry() if entry is None else entry,
        by_telling() if telling is None else telling,
    )


def test_a_study_is_of_models_told_early_and_late(monkeypatch):
    for name in ("by_entry", "by_telling"):
        monkeypatch.setattr(chapter.late_models, name, lambda *given, name=name: (name, *given[:2]))
    monkeypatch.setattr(chapter.late_models, "setup_of", lambda chosen, seed: f"setup of {chosen}, {seed}")
    found = chapter.train("a profile", 3, K)
    assert found.setup == "setup of a profile, 3"
    assert found.by_entry == ("by_entry", "a profile", 3)
    assert found.by_telling == ("by_telling", "a profile", 3)


def test_only_falling_rates_and_the_groups_in_percent():
    both = study(pd.concat([by_entry(), by_entry("constant")]))
    assert len(both.falling) == 8
    assert both.percent == {"at0": 0, "at50": 50, "after": 100}


def test_the_same_question_in_three_models():
    rows = by_telling()
    many = [rows.assign(question=[f"q{2 * i + j % 2}" for j in range(8)]) for i in range(4)]
    elsewhere = rows.assign(seed=1, place=99)
    frame = chapter.example_table(study(telling=pd.concat([*many, elsewhere]))).frame
    assert len(frame) == chapter.EXAMPLES
    assert {*frame["question"]} <= {f"Question {i}?" for i in range(8)}
    odd = frame["question"].str.contains("[1357]")
    assert {*frame["from the start"][odd]} == {2}
    assert {*frame["after"][~odd]} == {1}
    assert {*frame["never"]} == {31}


def test_recall_and_retrieval_by_time_of_entry():
    figure = chapter.entry_curves(study())
    assert figure.numbers["entry.at0.top20"].value == 1
    assert figure.numbers["entry.after.top20"].value == 0.5
    assert figure.numbers["entry.never.recalled"].value == 0
    assert figure.numbers["entry.after.kept"].value == 0.25
    assert figure.numbers["entry.start_minus_after.recalled"].value == 0.25
    axes = figure.figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "50", "100"]
    assert len(axes.lines) >= 4


def test_without_links_that_are_never_told_there_is_no_such_line():
    rows = by_entry()
    figure = chapter.entry_curves(study(rows[rows["entry"] != NEVER]))
    assert figure.numbers["entry.start_minus_never.top20"] is None
    assert "entry.never.top20" not in figure.numbers


def test_differences_of_all_links_and_of_recalled_ones():
    table = chapter.contrasts_table(study())
    frame = table.frame.set_index("difference")
    found = frame.loc["from the start minus after: found"]
    assert found["all links"].value == 0.5
    assert found["recalled links"].value == 1  # the late link that is found is not recalled in every wording
    assert table.numbers["contrasts.recalled.after_minus_never.top20"].value == 0
    assert frame["could have shown"].tolist() == [round(e, 2) for i, e in table.numbers.items() if ".power." in i]


def test_rates_that_fall_and_rates_that_stay():
    table = chapter.rates_table(study(pd.concat([by_entry(), by_entry("constant", (7, 8))])))
    assert table.frame["told"].tolist() == ["never", "after 0 %", "after 50 %", "after 100 %"]
    assert table.frame.columns.tolist()[1:] == [
        *("falling: recalled", "constant: recalled", "falling: found", "constant: found")
    ]
    assert table.numbers["rates.constant.after.top20"].value == 1
    assert table.numbers["rates.falling.after.top20"].value == 0.5
    # within pre-training: from 1 at the start through 1/2 halfway, and never told (at -1) 0
    within = exhibits.contrasts(by_entry().query("entry < 1"), K)["slope.top20"]
    assert table.numbers["rates.falling.slope_within.top20"] == within
    assert within.value == pytest.approx(-1)


def test_one_link_in_three_tellings(world):
    texts = chapter.telling_examples(study(world=world))
    fact = under_study(world)[0]
    assert [*texts] == ["plain", "described", "beside"]
    assert all(fact.subject in text and fact.object in text for text in texts.values())
    assert len({*texts.values()}) == 3
    assert texts["plain"] in {statement.text for statement in fact.statements}


def test_every_way_of_telling():
    table = chapter.telling_table(study())
    frame = table.frame.set_index("the links are")
    assert [*frame.index] == ["never told", "told from the start", "plain statements", "twice as often"]
    assert frame.loc["plain statements", "found, first 20"].startswith("0.50")
    assert frame.loc["told from the start", "minus never"].startswith("1.00")
    assert table.numbers["telling.many_minus_plain.top20"].value == 0.5
    assert "telling.plain_minus_plain.top20" not in table.numbers
    assert table.title.endswith("questions: 2")


def test_what_is_missing_to_links_told_from_the_start():
    table = chapter.missing_table(study())
    assert table.numbers["missing.plain.top20"].value == -0.5
    assert table.numbers["missing.many.top20"].value == 0
    assert table.frame["told to a finished model"].tolist() == ["plain statements", "twice as often"]
    assert chapter.best_in_words(study())["best"] == "twice as often"
    assert chapter.best_in_words(study())["gap"].startswith("0.00")


def test_shares_of_blocks(monkeypatch):
    rows = pd.DataFrame({"fact": [*"aabb"], "entry": [0.0, 0.0, AFTER, AFTER], "block": [0, 1] * 2})
    rows = rows.assign(share=[0.25, 0.75, 0.5, 0.5], **HERE)
    monkeypatch.setattr(chapter.late_models, "by_block", lambda *_: rows)
    figure = chapter.blocks(study())
    assert {id_: e.value for id_, e in figure.numbers.items()} == {
        "blocks.at0.block0": 0.25,
        "blocks.at0.block1": 0.75,
        "blocks.after.block0": 0.5,
        "blocks.after.block1": 0.5,
    }


def test_two_halves_of_networks(world, monkeypatch):
    n = len(under_study(world))
    upper = {"plain": [False, True], "never": [False, False]}  # by layer, whatever is below
    monkeypatch.setattr(chapter.late_models, "told_models", lambda *_: {"plain": "plain", "never": "never"})
    monkeypatch.setattr(chapter.steps, "patch_answers", lambda into, *_: np.array([[v] * n for v in upper[into]]))
    numbers = chapter.patched_halves(study(world=world)).numbers
    assert numbers["patched.untold_below_told_above.layer1"][::3] == (1, n)
    assert numbers["patched.told_below_untold_above.layer1"].value == 0
    assert len(numbers) == 4


def test_nothing_is_on_record(monkeypatch):
    for module in (chapter, report):
        monkeypatch.setattr(module, "read_record", lambda *_: {})
    assert chapter.record()["entry.at0.top20"] == "(not on record yet)"
    assert isinstance(chapter.record_curves(), Absent)
    assert isinstance(chapter.record_tellings(), Absent)
    assert chapter.record_table(K, {}).frame["on record"].isna().all()


def test_what_is_on_record(monkeypatch):
    kept = {"entry.at0.top20": HALF, "rates.falling.at0.top20": HALF, "telling.plain.recalled": HALF}
    kept |= {"telling.plain.top20": QUARTER}
    for module in (chapter, report):
        monkeypatch.setattr(module, "read_record", lambda *at: kept if at == ("B_2_late_facts", "full") else {})
    assert chapter.record()["entry.at0.top20"] == HALF
    row = chapter.record_table(K, {"entry.at0.top20": QUARTER}).frame.iloc[0]
    assert row.tolist() == ["found, told from the start", QUARTER, HALF]
    tellings = chapter.record_tellings()
    assert tellings.frame.iloc[0].tolist() == ["plain statements", HALF.brief, QUARTER.brief, "–"]
    assert len(tellings.frame) == 1
    points = chapter.record_curves().points
    assert points[["line", "place", "value"]].to_numpy().tolist() == [["found, rates fall", 0, 0.5]]
