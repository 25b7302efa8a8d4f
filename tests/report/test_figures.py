"""Every figure shows the numbers it was given."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from dprlens.intervals import Estimate
from dprlens.report.figures import (
    COLOURS,
    MARKS,
    SURVIVORS,
    accuracy_by_k,
    bars,
    by_layer,
    dose_response,
    exposure_bars,
    forest,
    learning_curves,
    longest,
    points,
    rows_of_estimates,
    spanning,
    strips,
    surface,
    survival,
)

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


def test_a_forest_has_a_row_a_group_about_zero_and_bears_an_empty_panel():
    arms = {"mend": Estimate(0.1, -0.1, 0.3, 20), "fine_tuning": Estimate(0.2, 0.1, 0.25, 20)}
    figure = forest({"one": arms, "none": {}}, "difference")
    first, second = figure.axes
    assert ticks(first.get_yticklabels()) == ["mend", "fine tuning"]
    assert spans(first.containers[0]) == [((-0.1, 0), (0.3, 0)), ((0.1, 1), (0.25, 1))]
    assert not second.containers
    assert second.get_xlabel() == "difference"
    assert [line.get_xdata()[0] for line in (first.lines[0], second.lines[0])] == [0, 0]


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


HISTORIES = {
    "DPR": pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 1.0, 0.5], "dev_nll": [2.5, 1.5, 1.75], "dev_rank": 9.0}),
    "no dev": pd.DataFrame({"epoch": [1, 2, 3], "loss": [4.0, 3.5, 3.25]}),
}


def test_learning_curves_have_a_line_a_model_and_a_dashed_one_for_dev_questions():
    figure = learning_curves(HISTORIES)
    (axes,) = figure.axes
    assert legend(figure) == ["DPR", "no dev"]
    drawn = [(line.get_linestyle(), list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert drawn == [
        ("-", [1, 2, 3], [3.0, 1.0, 0.5]),
        ("--", [1, 2, 3], [2.5, 1.5, 1.75]),
        ("-", [1, 2, 3], [4.0, 3.5, 3.25]),
    ]
    colours, markers = ([get(line) for line in axes.lines] for get in (plt.Line2D.get_color, plt.Line2D.get_marker))
    assert colours[0] == colours[1] != colours[2]
    assert markers[0] == markers[1] != markers[2]
    assert axes.get_ylim()[0] == 0
    assert "epoch" in axes.get_xlabel()
    assert "dashed" in axes.get_xlabel()
    assert axes.get_ylabel() == "loss, nats"
    figure.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_no_model_is_left_out_of_the_learning_curves():
    """There are more models than marks: colours come back."""
    many = {f"model {i}": HISTORIES["no dev"] + i for i in range(len(MARKS) + 1)}
    figure = learning_curves(many)
    assert legend(figure) == list(many)
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == [4.0 + i for i in range(len(many))]


LEXICAL = {
    "DPR": {1: Estimate(0.5, 0.25, 0.75, 8), 20: Estimate(0.75, 0.5, 1.0, 8), 100: Estimate(1.0, 0.9, 1.0, 8)},
    "BM25": {1: Estimate(0.25, 0.0, 0.5, 8), 20: Estimate(0.5, 0.25, 0.75, 8), 100: Estimate(0.5, 0.25, 0.75, 8)},
}
PANELS = {"lexical, known": LEXICAL, "other": {"DPR": LEXICAL["BM25"], "BM25": LEXICAL["DPR"]}}


def test_accuracy_by_k_has_a_panel_a_group_and_in_each_a_line_a_model():
    figure = accuracy_by_k(PANELS)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(PANELS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["DPR", "BM25"]
    for axes, models in zip(figure.axes, PANELS.values(), strict=True):
        assert [container.get_label() for container in axes.containers] == list(models)
        for container, estimates in zip(axes.containers, models.values(), strict=True):
            points = container.lines[0]
            assert [round(x) for x in points.get_xdata()] == [0, 1, 2]  # one k beside the other, whatever lies between
            assert list(points.get_ydata()) == [e.value for e in estimates.values()]
            assert [(a[1], b[1]) for a, b in spans(container)] == [
                (e.low, pytest.approx(e.high)) for e in estimates.values()
            ]
        lines = [line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3]
        assert [list(line.get_ydata()) for line in lines] == [[e.value for e in of.values()] for of in models.values()]
        colours = [container.lines[0].get_color() for container in axes.containers]
        assert len(set(colours)) == 2
        assert axes.get_ylabel() == "found"
        assert axes.get_ylim()[0] < 0 < 1 < axes.get_ylim()[1]
    assert ticks(figure.axes[-1].get_xticklabels()) == ["1", "20", "100"]
    assert "k" in figure.axes[-1].get_xlabel()


def test_a_model_keeps_its_place_on_the_axis_where_it_lacks_a_k():
    models = {"deep": LEXICAL["DPR"], "shallow": {100: Estimate(0.5, 0.25, 0.75, 8), 20: Estimate(0.25, 0.0, 0.5, 8)}}
    axes = accuracy_by_k({"lexical": models}).axes[0]
    points = axes.containers[1].lines[0]
    assert sorted((round(x), y) for x, y in zip(*points.get_data(), strict=True)) == [(1, 0.25), (2, 0.5)]
    assert ticks(axes.get_xticklabels()) == ["1", "20", "100"]


def estimates(*values: float) -> dict[int, Estimate]:
    return {layer: Estimate(value, value - 0.125, value + 0.0625, 9) for layer, value in enumerate(values)}


CURVES = {
    "the paper": {"N = 2": {0: 0.5, 1: 0.75, 2: 0.875}, "N = 2 (DPR)": {0: 0.5, 1: 0.75}, "N = 5": {0: 0.25, 2: 0.5}},
    "this page": {"N = 2": estimates(0.5, 0.625), "N = 2 (DPR)": estimates(0.5, 0.75), "N = 5": {1: 0.25}},
}


def curves(axes) -> list:
    """Its lines but for those at chance."""
    return [line for line in axes.lines if line.get_linestyle() != ":"]


def bands(axes) -> list[set[tuple[float, float]]]:
    """The corners of every band."""
    return [{tuple(corner) for corner in band.get_paths()[0].vertices} for band in axes.collections]


def test_curves_over_layers_have_a_panel_a_source_and_in_each_its_lines():
    figure = by_layer(CURVES, "accuracy", {title: [0.5, 0.2] for title in CURVES})
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(CURVES)
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy"] * 2
    for axes, lines in zip(figure.axes, CURVES.values(), strict=True):
        assert [line.get_label() for line in curves(axes)] == list(lines)
        for line, values in zip(curves(axes), lines.values(), strict=True):
            assert list(line.get_xdata()) == list(values)
            assert list(line.get_ydata()) == [getattr(value, "value", value) for value in values.values()]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(CURVES["the paper"])
    assert figure.axes[-1].get_xlabel() == "layer (0: embeddings)"
    assert by_layer(CURVES, "accuracy", across="train questions").axes[-1].get_xlabel() == "train questions"
    figure.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in figure.axes[-1].get_xticks())


def test_dprs_curve_is_dashed_and_has_the_colour_of_the_one_before_it():
    for axes in by_layer(CURVES, "accuracy").axes:
        two, dpr, five = axes.lines
        assert [line.get_linestyle() for line in axes.lines] == ["-", "--", "-"]
        assert two.get_color() == dpr.get_color() != five.get_color()
        assert two.get_marker() == dpr.get_marker() != five.get_marker()
    colours = [[line.get_color() for line in axes.lines] for axes in by_layer(CURVES, "accuracy").axes]
    assert colours[0] == colours[1]


def test_only_estimates_have_a_band():
    paper, page = by_layer(CURVES, "accuracy", {"the paper": [0.5]}).axes
    assert not bands(paper)
    assert bands(page) == [
        {(0, 0.375), (0, 0.5625), (1, 0.5), (1, 0.6875)},
        {(0, 0.375), (0, 0.5625), (1, 0.625), (1, 0.8125)},
    ]
    of_line = [to_hex(line.get_color()) for line in curves(page)[:2]]
    assert [to_hex(band.get_facecolor()[0]) for band in page.collections] == of_line


def test_chance_is_marked_in_the_panel_that_it_is_given_for():
    marked, other = by_layer(CURVES, "accuracy", {"the paper": [0.5, 0.2]}).axes
    levels = [line for line in marked.lines if line.get_linestyle() == ":"]
    assert [list(line.get_ydata()) for line in levels] == [[0.5, 0.5], [0.2, 0.2]]
    assert all(line.get_label().startswith("_") for line in levels)  # not in the legend
    assert len(other.lines) == 3


@pytest.mark.slow
def test_more_lines_than_colours_and_a_dashed_one_first_can_be_drawn():
    lines = {f"N = {n}": {0: 0.5} for n in range(2, 10)}
    (axes,) = by_layer({"many": {"N = 1 (DPR)": {0: 0.5}, **lines}}, "accuracy").axes
    first, second, *_, last = axes.lines
    assert first.get_color() != second.get_color()  # no line of its own before it: a colour of its own
    assert last.get_color() == axes.lines[2].get_color()  # six colours, then from the start again


def test_without_panels_the_figure_says_so():
    (axes,) = by_layer({}, "accuracy").axes
    assert axes.get_title(loc="left") == "nothing of this was asked for"


def test_a_surface_is_a_table_of_shares_with_their_intervals():
    cells = {
        ("plain", 120): Estimate(0.75, 0.5, 0.875, 9),
        ("plain", 5): Estimate(0.25, 0.125, 0.5, 9),
        ("described", 120): Estimate(1.0, 0.75, 1.0, 9),
        ("described", 1000): Estimate(0.0, 0.0, 0.25, 9),
    }
    figure = surface({"recalled": cells, "found": {("plain", 5): Estimate(0.5, 0.25, 0.75, 4)}}, "mostly", "times read")
    upper, lower = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["recalled", "found"]
    assert ticks(upper.get_yticklabels()) == ["plain", "described"]  # as given
    assert ticks(upper.get_xticklabels()) == ["5", "120", "1,000"]  # in ascending order
    (image,) = upper.images
    np.testing.assert_array_equal(image.get_array().filled(np.nan), [[0.25, 0.75, np.nan], [np.nan, 1.0, 0.0]])
    assert [axes.images[0].get_clim() for axes in figure.axes] == [(0, 1), (0, 1)]  # a shade means the same in both
    assert {text.get_position(): text.get_text() for text in upper.texts} == {
        (0, 0): "0.25\n[0.12, 0.50]",
        (1, 0): "0.75\n[0.50, 0.88]",
        (1, 1): "1.00\n[0.75, 1.00]",
        (2, 1): "0.00\n[0.00, 0.25]",
    }
    inks = {text.get_position(): text.get_color() for text in upper.texts}
    assert inks[0, 0] == inks[2, 1] != inks[1, 0] == inks[1, 1]  # to be read on dark and on light shades
    assert ticks(lower.get_xticklabels()) == ["5"]
    assert (lower.get_xlabel(), upper.get_ylabel(), lower.get_ylabel()) == ("times read", "mostly", "mostly")


SHARES = np.array([[0.0, 0.5, 1.0, 0.0], [0.25, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
STRIPS = {"intermediate": {"BERT": SHARES, "DPR": SHARES[::-1]}, "output": {"BERT": SHARES / 2, "DPR": SHARES}}


def test_strips_are_sorted_cut_and_counted():
    *panels, bar = strips(STRIPS).axes
    assert len(panels) == 4
    assert panels[0].get_title(loc="left") == "intermediate\nBERT"
    assert ticks(panels[0].get_yticklabels()) == ["0 (2)", "1 (1)", "2 (0)"]
    assert ticks(panels[1].get_yticklabels()) == ["0 (0)", "1 (1)", "2 (2)"]
    assert panels[0].images[0].get_array().tolist() == [[1, 0.5], [0.25, 0], [0, 0]]
    assert panels[2].images[0].get_array().tolist() == [[0.5, 0.25], [0.125, 0], [0, 0]]
    assert panels[0].images[0].get_clim() == (0, 1)
    assert "share of the examples" in bar.get_xlabel()


def test_strips_can_be_cut_alike_in_several_pictures():
    assert [longest([share]) for share in (SHARES, SHARES[:, :1], np.zeros((2, 3)))] == [2, 1, 1]
    assert longest([SHARES[1:], SHARES]) == 2
    panel, _ = strips({"output": {"BERT": SHARES[1:]}}, longest([SHARES])).axes
    assert panel.images[0].get_array().tolist() == [[0.25, 0], [0, 0]]


def test_strips_of_nothing_can_be_drawn():
    strips({"output": {"BERT": np.zeros((2, 3))}}).canvas.draw()


def test_pictures_to_be_compared_have_the_same_axis():
    for axes in by_layer(CURVES, "accuracy", limits=(0, 1)).axes:
        assert axes.get_ylim() == (0, 1)


LIVES = {
    "lexical": {
        "BERT": {0: Estimate(1, 1, 1, 9), 1: Estimate(0.5, 0.3, 0.7, 9), 2048: Estimate(0.2, 0.1, 0.4, 9)},
        "BERT (random)": {0: Estimate(1, 1, 1, 9), 1: Estimate(0.9, 0.8, 1, 9), 2048: Estimate(0.6, 0.4, 0.7, 9)},
    },
    "other": {"DPR": {0: Estimate(1, 1, 1, 5), 1: Estimate(1, 1, 1, 5), 4096: Estimate(0.8, 0.5, 1, 5)}},
}


def test_survival_is_drawn_in_steps_that_end_with_all_neurons():
    figure = survival(LIVES)
    lexical, other = figure.axes
    solid, dotted = lexical.lines
    assert solid.get_drawstyle() == "steps-post"
    assert (solid.get_xdata().tolist(), solid.get_ydata().tolist()) == ([0, 1, 2], [1, 0.5, 0.2])
    assert other.lines[0].get_xdata().tolist() == [0, 1, 3]
    assert solid.get_color() == dotted.get_color() == COLOURS[SURVIVORS[0]]
    assert (solid.get_linestyle(), dotted.get_linestyle()) == ("-", ":")
    assert other.lines[0].get_color() == COLOURS[SURVIVORS[1]]  # one colour a model, though it stands first here
    assert len(lexical.collections) == 1  # the random order has no band
    assert ticks(other.get_xticklabels()) == ["0", "1", "all"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["BERT", "BERT (random)", "DPR"]


def test_one_axis_spans_all_intervals_and_nothing():
    low, high = spanning(LIVES)
    assert (low, high) == pytest.approx((-0.05, 1.05))
    below = {"a": {"b": {0: Estimate(-2, -3, -1, 4)}}}
    assert spanning(below) == pytest.approx((-3.15, 0.15))


def test_places_on_the_axis_may_have_names():
    axes = by_layer({"a": {"b": {0: 1.0, 1: 2.0}}}, "x", ticks=["10", "300"]).axes[0]
    assert ticks(axes.get_xticklabels()) == ["10", "300"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: strips(STRIPS),
        lambda: rows_of_estimates(ARMS, "x"),
        lambda: dose_response(DOSES, "x", "y"),
        lambda: learning_curves(HISTORIES),
        lambda: accuracy_by_k(PANELS),
        lambda: by_layer(CURVES, "x", {"this page": [0.5]}),
        lambda: surface({"a": {("b", 1): Estimate(0.5, 0.25, 0.75, 4)}}, "x", "y"),
    ],
)
def test_figures_are_five_inches_wide_and_see_through(make):
    figure = make()
    assert figure.get_size_inches()[0] == 5
    assert figure.get_facecolor()[3] == 0


def test_points_are_what_is_drawn_a_row_each():
    found = points({"BERT": {"two": {0: Estimate(0.5, 0.4, 0.6, 9), 12: 0.75}}, "DPR": {"two": {12: 1.0}}})
    assert list(found.columns) == ["panel", "line", "place", "value", "low", "high", "n"]
    assert found.fillna(-1).to_numpy().tolist() == [
        ["BERT", "two", 0, 0.5, 0.4, 0.6, 9],
        ["BERT", "two", 12, 0.75, -1, -1, -1],
        ["DPR", "two", 12, 1.0, -1, -1, -1],
    ]
    assert list(points({"two": {25: 1.0}}).columns) == ["line", "place", "value", "low", "high", "n"]
    assert points({"two": {}}).empty


def test_bars_keep_their_colours_when_an_arm_is_missing():
    share = Estimate(0.5, 0.4, 0.6, 10)

    def colours(arms):
        figure = bars(arms, "share", chance=0.02)
        axes = figure.axes[0]
        found = {
            one.get_label(): one.patches[0].get_facecolor() for one in axes.containers if isinstance(one, BarContainer)
        }
        heights = [patch.get_height() for patch in axes.patches]
        plt.close(figure)
        assert set(heights) == {0.5}
        return found

    whole = colours({"a": {"x": share}, "b": {"x": share}, "c": {"x": share, "y": share}})
    without = colours({"a": {"x": share}, "b": {}, "c": {"x": share, "y": share}})
    assert without == {arm: whole[arm] for arm in ("a", "c")}
    assert len(set(whole.values())) == 3
