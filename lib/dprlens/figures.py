"""The book's pictures: each function takes the numbers and returns a matplotlib figure, and computes nothing else.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; shape or position always says the same.
Figures are five inches wide, so that their letters can still be read at the width of a phone.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dprlens.intervals import Estimate

COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "grey": "#767676",
}
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "lines.markersize": 6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
MARKS = (("blue", "o"), ("sky", "s"), ("vermilion", "D"), ("grey", "|"), ("green", "^"), ("orange", "v"))


def exposure_bars(counts: pd.DataFrame) -> Figure:
    """How many facts of each relation pre-training states how often.

    `counts`: one row a relation, one column an exposure (0 = held out) in ascending order, cells are facts.
    """
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5, 0.26 * len(counts) + 1.1))
        shades = plt.colormaps["cividis"].resampled(256)
        left = pd.Series(0, index=counts.index)
        for i, exposures in enumerate(counts.columns):
            held_out = exposures == 0
            colour = COLOURS["vermilion"] if held_out else shades(0.95 - 0.8 * i / max(1, len(counts.columns) - 1))
            label = "held out" if held_out else f"{exposures:,}×"
            axes.barh(_words(counts.index), counts[exposures], left=left, color=colour, label=label, height=0.7)
            left += counts[exposures]
        axes.invert_yaxis()
        axes.set_xlabel("facts")
        _legend_above(axes, columns=len(counts.columns))
        return figure


def rows_of_estimates(arms: Mapping[str, Mapping[str, Estimate]], label: str) -> Figure:
    """One row a group, one mark an arm, with 95 % intervals; `arms` is {arm: {group: estimate}}, `label` their name."""
    groups = list(dict.fromkeys(group for arm in arms.values() for group in arm))
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5, 0.32 * len(groups) + 1.1))
        for i, (arm, estimates) in enumerate(arms.items()):
            colour, marker = MARKS[i % len(MARKS)]
            shift = 0.16 * (i - (len(arms) - 1) / 2)
            places = [groups.index(group) + shift for group in estimates]
            _errors(axes, list(estimates.values()), places, colour, marker, arm, across=True)
        axes.set_yticks(range(len(groups)), _words(groups))
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel(label)
        axes.grid(axis="y", alpha=0.25)
        _legend_above(axes, columns=2)
        return figure


def dose_response(arms: Mapping[str, Mapping[int, Estimate]], dose: str, response: str) -> Figure:
    """A response (0–1) against a dose from 0 up, with 95 % intervals; the doses stand at equal distances."""
    doses = sorted({d for arm in arms.values() for d in arm})
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5, 3.1))
        for i, (arm, estimates) in enumerate(arms.items()):
            colour, marker = MARKS[i % len(MARKS)]
            estimates = dict(sorted(estimates.items()))
            places = [doses.index(d) + 0.06 * (i - (len(arms) - 1) / 2) for d in estimates]
            axes.plot(places, [e.value for e in estimates.values()], color=COLOURS[colour], alpha=0.5, lw=1.2)
            _errors(axes, list(estimates.values()), places, colour, marker, arm, across=False)
        axes.set_xticks(range(len(doses)), [f"{d:,}" for d in doses])
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(dose)
        axes.set_ylabel(response)
        axes.grid(axis="y", alpha=0.25)
        _legend_above(axes, columns=2)
        return figure


def _errors(
    axes: Axes, estimates: list[Estimate], places: list[float], colour: str, marker: str, label: str, across: bool
) -> None:
    values = [e.value for e in estimates]
    spread = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
    x, y, side = (values, places, "xerr") if across else (places, values, "yerr")
    axes.errorbar(x, y, **{side: spread}, fmt=marker, color=COLOURS[colour], lw=1.3, label=label)


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, columnspacing=1.0, handletextpad=0.5)


def _words(names: Sequence[str]) -> list[str]:
    return [str(name).replace("_", " ") for name in names]
