"""The front page's picture and sentence: made from results, silent about what was not measured."""

import html
import re

import pytest

from dprlens.book.pages.hero import hero
from dprlens.book.pages.scorecard import BuiltResults
from dprlens.intervals import Estimate

BOUND = {
    "bound.known.top20": Estimate(0.62, 0.6, 0.64, 100),
    "bound.held_out.top20": Estimate(0.13, 0.1, 0.16, 90),
}
COUNTED = {
    "bound.known.cooccurrence.top20": Estimate(0.5, 0.4, 0.6, 100),
    "bound.held_out.cooccurrence.top20": Estimate(0.11, 0.1, 0.2, 90),
    "bound.cooccurrence_over_dpr.difference.top20": Estimate(0.77, 0.7, 0.8, 90),
    "bound.cooccurrence_over_dpr.difference.auc": Estimate(0.98, 0.8, 1.2, 90),
}
LATE = {
    f"rates.falling.{when}.{what}": Estimate(0.9 if what == "recalled" else 0.3, 0.2, 0.95, 50)
    for when in ("at0", "after")
    for what in ("recalled", "top20")
}
NOTHING = BuiltResults("full", {}, frozenset(), {})


def found(numbers, profile="small"):
    return BuiltResults(profile, numbers, frozenset(), {}, 960)


def pictures(text):
    return [html.unescape(alt) for alt in re.findall(r'<img src="data:image/svg[^"]*" alt="([^"]*)"', text)]


def test_without_results_there_is_a_sentence_and_no_picture():
    assert pictures(hero(NOTHING, NOTHING)) == []
    assert "not been run" in hero(NOTHING, NOTHING)


@pytest.mark.slow
def test_the_record_comes_before_this_build():
    other = {id_: Estimate(0.99, 0.9, 1, 9) for id_ in BOUND}
    assert "62%" in hero(found(other), found(BOUND, "full"))
    assert "99%" in hero(found(other), NOTHING)


def test_the_effect_is_not_shown_without_its_baseline_where_one_was_measured():
    text = hero(found({**BOUND, **COUNTED, "bound.known.top20": Estimate(0.7, 0.6, 0.8, 9)}), found(BOUND, "full"))
    assert "70%" in text
    assert "98% of it by rank" in text


@pytest.mark.parametrize("numbers", [BOUND, BOUND | COUNTED])
def test_the_baseline_is_told_where_it_was_measured_and_nowhere_else(numbers):
    text = hero(found(numbers), NOTHING)
    measured = numbers is not BOUND
    assert ("77% of that difference" in text) is measured
    assert ("word co-occurrence, no network, stated in pre-training 0.50 [0.40, 0.60]" in pictures(text)[0]) is measured


@pytest.mark.slow
def test_pictures_say_their_numbers_in_words():
    left, right = pictures(hero(found(BOUND | LATE), NOTHING))
    assert "DPR, stated in pre-training 0.62 [0.60, 0.64], never stated 0.13 [0.10, 0.16]" in left
    assert "retrieved by DPR, after 0 % 0.30 [0.20, 0.95], after 100 % 0.30 [0.20, 0.95]" in right
    assert len(pictures(hero(found(BOUND), NOTHING))) == 1


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes():
    assert hero(found(BOUND | LATE), NOTHING) == hero(found(BOUND | LATE), NOTHING)
