"""Every figure shows the numbers it was given."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from dprlens.figures import COLOURS, dose_response, exposure_bars, rows_of_estimates
from dprlens.intervals import Estimate

ARMS = {
    "known": {"born_in": Estimate(0.9, 0.8, 0.95, 20), "river": Estimate(0.5, 0.25, 0.75, 8)},
    "held out": {"river": Estimate(0.1, 0.0, 0.2, 9), "born_in": Estimate(0.0, 0.0, 0.1, 5)},
}
DOSES = {"a": {0: Estimate(0.0, 0.0, 0.1, 9), 100: Estimate(1.0, 0.9, 1.0, 9)}, "b": {20: Estimate(0.5, 0.25, 0.6, 9)}}


@pytest.fixture(autouse=True)
def _close():
    mpl.use("agg")
    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before  # a figure's style is its own


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def ticks(labels) -> list[str]:
    return [label.get_text() for label in labels]


def spans(container) -> list[tuple]:
    """The two ends of every interval of an error bar: [((x, y), (x, y))]."""
    (lines,) = container.lines[2]
    return [tuple(map(tuple, segment)) for segment in lines.get_segments()]


def test_exposure_bars_stack_the_counts():
    counts = pd.DataFrame({0: [2, 5], 1: [1, 0], 1200: [3, 4]}, index=["born_in", "river"])
    figure = exposure_bars(counts)
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    assert ticks(axes.get_yticklabels()) == ["born in", "river"]
    assert legend(figure) == ["held out", "1×", "1,200×"]
    bars = [[(bar.get_x(), bar.get_width()) for bar in group] for group in axes.containers]
    assert bars == [[(0, 2), (0, 5)], [(2, 1), (5, 0)], [(3, 3), (5, 4)]]
    colours = [to_hex(group[0].get_facecolor()).upper() for group in axes.containers]
    assert colours[0] == COLOURS["vermilion"]
    assert len(set(colours)) == 3
    assert axes.yaxis_inverted()
    assert axes.get_xlabel() == "facts"


def test_rows_show_estimates_and_intervals_in_their_groups_rows():
    figure = rows_of_estimates(ARMS, "recalled")
    (axes,) = figure.axes
    assert ticks(axes.get_yticklabels()) == ["born in", "river"]
    assert legend(figure) == ["known", "held out"]
    assert axes.get_xlabel() == "recalled"
    known, held_out = axes.containers
    assert list(known.lines[0].get_xdata()) == [0.9, 0.5]
    assert list(held_out.lines[0].get_xdata()) == [0.1, 0.0]
    assert [round(y) for y in known.lines[0].get_ydata()] == [0, 1]
    assert [round(y) for y in held_out.lines[0].get_ydata()] == [1, 0]  # by group, not by order
    assert [(a[0], b[0]) for a, b in spans(known)] == [(pytest.approx(0.8), 0.95), (0.25, 0.75)]
    assert known.lines[0].get_marker() != held_out.lines[0].get_marker()
    assert not set(known.lines[0].get_ydata()) & set(held_out.lines[0].get_ydata())
    low, high = axes.get_xlim()
    assert low < 0
    assert high > 1


def test_dose_response_puts_doses_at_equal_distances():
    figure = dose_response(DOSES, "exposures", "recalled")
    (axes,) = figure.axes
    assert ticks(axes.get_xticklabels()) == ["0", "20", "100"]
    assert list(axes.get_xticks()) == [0, 1, 2]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("exposures", "recalled")
    assert legend(figure) == ["a", "b"]
    first, second = axes.containers
    assert [round(x) for x in first.lines[0].get_xdata()] == [0, 2]
    assert list(first.lines[0].get_ydata()) == [0.0, 1.0]
    assert [(a[1], b[1]) for a, b in spans(second)] == [(0.25, 0.6)]


def test_the_line_of_a_dose_response_goes_from_left_to_right():
    """Doses come from a mapping in any order; the line must not run back."""
    arm = {20: Estimate(0.5, 0.4, 0.6, 9), 0: Estimate(0.0, 0.0, 0.1, 9), 100: Estimate(1.0, 0.9, 1.0, 9)}
    line = dose_response({"a": arm}, "exposures", "recalled").axes[0].lines[0]
    assert list(line.get_xdata()) == sorted(line.get_xdata())
    assert list(line.get_ydata()) == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("make", [lambda: rows_of_estimates(ARMS, "x"), lambda: dose_response(DOSES, "x", "y")])
def test_figures_are_five_inches_wide_and_see_through(make):
    figure = make()
    assert figure.get_size_inches()[0] == 5
    assert figure.get_facecolor()[3] == 0
