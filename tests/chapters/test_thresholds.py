"""The exhibits of chapter A.2, on neurons that are worked out by hand."""

import matplotlib.pyplot as plt
import pytest

from chapters.neuron_comparisons import SAME, SPREAD, comparison
from dprlens.chapters import thresholds as chapter
from dprlens.intervals import Estimate

THRESHOLDS = [0.9, 0.01, 0.05, 0.3, 0.2]
WEAK = SPREAD._replace(intermediate=SPREAD.intermediate + 0.25)  # all other neurons have a fifth of the greatest


@pytest.fixture(autouse=True)
def _figures_are_closed():
    yield
    plt.close("all")


@pytest.fixture
def compared(world):
    return comparison(world, pretrained=SAME, dpr=WEAK)


@pytest.fixture
def active(compared):
    return chapter.activate(compared, THRESHOLDS)


def test_the_profiles_threshold_stands_among_the_others(active):
    assert list(active) == [0.01, 0.05, 0.1, 0.2, 0.3, 0.9]
    assert [int(at.sites["dpr"]["intermediate"].sum()) for at in active.values()] == [64, 64, 64, 64, 8, 8]


@pytest.mark.slow
def test_pages_have_all_combinations_and_words_for_the_blind(active):
    few = {threshold: active[threshold] for threshold in (0.1, 0.9)}
    pages = chapter.strip_pages(few)
    assert len(pages) == 2 * 2 * 2
    assert chapter.first_page(0.1) == next(iter(pages)) == ("0.1", "intermediate", "pre-trained BERT")
    alt = "DPR, intermediate, threshold 0.1. Neurons active for any question, by block: 0: 4, 1: 4."
    assert alt in pages["0.1", "intermediate", "DPR"]


def test_figures_go_by_threshold(active):
    drawn = chapter.figures3_to_7(active, THRESHOLDS)
    assert [one.exhibit for one in drawn] == [f"figure{i}" for i in range(3, 8)]
    assert [one.title for one in drawn][::4] == [f"Active neurons by block at threshold {t}" for t in ("0.01", "0.9")]
    assert drawn[0].numbers["figure3.dpr.intermediate.union"].value == 8
    assert drawn[4].numbers["figure7.dpr.intermediate.union"].value == 4


def test_four_thresholds_make_no_five_figures(active):
    with pytest.raises(ValueError, match="zip"):
        chapter.figures3_to_7(active, THRESHOLDS[:4])


def test_the_table_has_a_row_a_threshold(active):
    gained = {threshold: chapter.gains(active[threshold]) for threshold in (0.05, 0.9)}
    table = chapter.table(gained, 8)
    assert list(table.frame["threshold"]) == ["0.05", "0.9"]
    minus = "dpr_minus_pretrained"
    assert table.numbers[f"thresholds.t0_05.{minus}.intermediate.union"].value == 7
    assert table.numbers[f"thresholds.t0_9.{minus}.intermediate.mean"].value == 0
    assert table.numbers[f"thresholds.t0_9.{minus}.all.sharing"].value == pytest.approx(1 / 7 - 1)


def test_an_interval_that_touches_zero_counts_for_nothing():
    above, touching, below = (Estimate(0, low, high, 8) for low, high in ((1, 2), (0, 2), (-2, -1)))
    minus = chapter.MINUS
    of = {f"{minus}.intermediate.union": above, f"{minus}.intermediate.mean": touching, f"{minus}.all.sharing": below}
    assert chapter.count_clear({0.1: of, 0.2: of | {f"{minus}.all.sharing": above}}) == {
        "union": 2,
        "mean": 0,
        "sharing": 1,
        "total": 2,
    }
