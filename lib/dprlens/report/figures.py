"""The book's pictures: each function takes the numbers and returns a matplotlib figure, and computes nothing else.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; shape or position always says the same.
Figures are five inches wide, so that their letters can still be read at the width of a phone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

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
STYLE: dict[Any, Any] = {  # matplotlib has a type with a name for each setting
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
styled = mpl.rc_context(STYLE)  # the decorator of every picture

BARS, HATCHES = ("blue", "orange", "grey"), ("", "//", "..")  # of arms; the hatch says the same as the colour
MARKS = (("blue", "o"), ("sky", "s"), ("vermilion", "D"), ("grey", "|"), ("green", "^"), ("orange", "v"))
SURVIVORS = ("blue", "vermilion", "grey", "green")  # colours of `survival`, far from each other where bands overlap


@styled
def exposure_bars(counts: pd.DataFrame) -> Figure:
    """How many facts of each relation pre-training states how often.

    `counts`: one row a relation, one column an exposure (0 = held out) in ascending order, cells are facts.
    """
    figure, axes = plt.subplots(figsize=(5, 0.26 * len(counts) + 1.1))
    shades = plt.colormaps["cividis"].resampled(256)
    left = pd.Series(0, index=counts.index)
    for i, exposures in enumerate(map(int, counts.columns)):
        held_out = exposures == 0
        colour = COLOURS["vermilion"] if held_out else shades(0.95 - 0.8 * i / max(1, len(counts.columns) - 1))
        label = "held out" if held_out else f"{exposures:,}×" if exposures > 0 else "not recorded"
        axes.barh(_words(counts.index), counts[exposures], left=left, color=colour, label=label, height=0.7)
        left += counts[exposures]
    axes.invert_yaxis()
    axes.set_xlabel("facts")
    _legend_above(axes, columns=len(counts.columns))
    return figure


@styled
def rows_of_estimates(arms: Mapping[str, Mapping[str, Estimate]], label: str) -> Figure:
    """One row a group, one mark an arm, with 95 % intervals; `arms` is {arm: {group: estimate}}, `label` their name."""
    groups = list(dict.fromkeys(group for arm in arms.values() for group in arm))
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


@styled
def forest(panels: Mapping[str, Mapping[str, Estimate]], label: str) -> Figure:
    """Estimates with 95 % intervals about a line at 0, one row a group: {panel: {group: estimate}}, panels stacked."""
    rows = [max(1, len(groups)) for groups in panels.values()]
    size, heights = (5, 0.27 * sum(rows) + 0.6 * len(panels) + 0.4), {"height_ratios": rows}
    figure, several = plt.subplots(
        len(panels), 1, figsize=size, sharex=True, squeeze=False, gridspec_kw=heights, layout="constrained"
    )
    for axes, (title, groups) in zip(several[:, 0], panels.items(), strict=True):
        axes.axvline(0, color=COLOURS["grey"], lw=0.8)
        if groups:
            _errors(axes, list(groups.values()), list(range(len(groups))), "blue", "o", title, across=True)
        axes.set_yticks(range(len(groups)), _words(groups), size=9)
        axes.set_ylim(max(1, len(groups)) - 0.5, -0.5)
        axes.set_title(title, fontweight="bold", size=10)
        axes.grid(axis="x", alpha=0.25)
    several[-1, 0].set_xlabel(label)
    return figure


@styled
def dose_response(arms: Mapping[str, Mapping[int, Estimate]], dose: str, response: str) -> Figure:
    """A response (0–1) against a dose from 0 up, with 95 % intervals; the doses stand at equal distances."""
    doses = sorted({d for arm in arms.values() for d in arm})
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


@styled
def bars(arms: Mapping[str, Mapping[str, Estimate]], response: str, chance: float | None = None) -> Figure:
    """A bar with its 95 % interval for each arm of each group, its value above it: {arm: {group: estimate}}.

    Responses are shares (0–1); `chance` is a level to mark. A group may lack an arm; an arm may lack all, and then no
    other takes its colour.
    """
    colours = {arm: (COLOURS[BARS[i % len(BARS)]], HATCHES[i % len(HATCHES)]) for i, arm in enumerate(arms)}
    arms = {arm: estimates for arm, estimates in arms.items() if estimates}
    groups = list(dict.fromkeys(group for arm in arms.values() for group in arm))
    figure, axes = plt.subplots(figsize=(5, 3.4))
    width = 0.8 / len(arms)
    for i, (arm, estimates) in enumerate(arms.items()):
        colour, hatch = colours[arm]
        places = [groups.index(group) + width * (i - (len(arms) - 1) / 2) for group in estimates]
        found = list(estimates.values())
        ends = [[e.value - e.low for e in found], [e.high - e.value for e in found]]
        values, wide = [e.value for e in found], 0.9 * width
        axes.bar(places, values, wide, yerr=ends, edgecolor="white", color=colour, label=arm, hatch=hatch)
        for place, e in zip(places, found, strict=True):
            axes.text(place, e.high + 0.02, f"{e.value:.2f}", ha="center", va="bottom")
    if chance is not None:
        axes.axhline(chance, color="black", lw=1, ls=":", label=f"chance, {chance:.2f}")
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(0, 1.03)
    axes.set_ylabel(response)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, columnspacing=1.0)  # above the bars
    return figure


@styled
def learning_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss by epoch on training questions (solid) and dev questions (dashed); `histories` as `train_dpr` makes them."""
    figure, axes = plt.subplots(figsize=(5, 2.9))
    for i, (name, history) in enumerate(histories.items()):
        colour, marker = MARKS[i % len(MARKS)]
        line: dict[str, Any] = {"color": COLOURS[colour], "marker": marker, "lw": 1.4, "markersize": 4}
        axes.plot(history["epoch"], history["loss"], label=name, **line)
        if "dev_nll" in history:
            axes.plot(history["epoch"], history["dev_nll"], ls="--", alpha=0.7, **line)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch (dashed: dev questions)")
    axes.set_ylabel("loss, nats")
    axes.grid(axis="y", alpha=0.25)
    _legend_above(axes, columns=2)
    return figure


@styled
def accuracy_by_k(panels: Mapping[str, Mapping[str, Mapping[int, Estimate]]]) -> Figure:
    """Top-k accuracy against k, one panel below the other: {panel: {model: {k: estimate}}}."""
    figure, several = plt.subplots(len(panels), 1, figsize=(5, 2.5 * len(panels) + 0.6), sharex=True, squeeze=False)
    for axes, (title, models) in zip(several[:, 0], panels.items(), strict=True):
        ks = sorted({k for estimates in models.values() for k in estimates})
        for i, (name, estimates) in enumerate(models.items()):
            colour, marker = MARKS[i % len(MARKS)]
            estimates = dict(sorted(estimates.items()))
            places = [ks.index(k) + 0.08 * (i - (len(models) - 1) / 2) for k in estimates]
            values = [e.value for e in estimates.values()]
            axes.plot(places, values, color=COLOURS[colour], alpha=0.5, lw=1.2)
            _errors(axes, list(estimates.values()), places, colour, marker, name, across=False)
        axes.set_xticks(range(len(ks)), [str(k) for k in ks])
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("found")
        axes.grid(axis="y", alpha=0.25)
        axes.set_title(title, y=1.0, fontweight="bold")
    several[-1, 0].set_xlabel("among the first k passages, k =")
    _legend_over(figure, several[0])
    return figure


@styled
def by_layer(
    panels: Mapping[str, Mapping[str, Mapping[int, Estimate | float]]],
    label: str,
    chance: Mapping[str, Sequence[float]] = MappingProxyType({}),
    across: str = "layer (0: embeddings)",
    ticks: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Curves over layers 0, 1, … (or what `across` says), one panel below the other: {panel: {line: {layer: value}}}.

    A line whose name ends in "(DPR)" is dashed and has the colour of the one before it. Estimates get a band, 95 %;
    `ticks` are names for the places on the axis, which else are numbered; `chance` are the levels to mark in a panel;
    `limits` the ends of the upright axis, for pictures to be compared. Without panels there is an empty one, which says
    so.
    """
    panels = panels or {"nothing of this was asked for": {}}
    figure, several = plt.subplots(len(panels), 1, figsize=(5, 2.4 * len(panels) + 0.7), sharex=True, squeeze=False)
    for axes, (title, lines) in zip(several[:, 0], panels.items(), strict=True):
        solid = -1  # how many solid lines came before the last one
        for name, values in lines.items():
            dashed = name.endswith("(DPR)")
            solid += not dashed or solid < 0
            colour, marker = MARKS[solid % len(MARKS)]
            layers, found = list(values), [v.value if isinstance(v, Estimate) else v for v in values.values()]
            axes.plot(
                layers,
                found,
                color=COLOURS[colour],
                marker=marker,
                markersize=3.5,
                lw=1.3,
                ls="--" if dashed else "-",
                label=name,
            )
            if all(isinstance(v, Estimate) for v in values.values()):
                ends = [[getattr(v, end) for v in values.values()] for end in ("low", "high")]
                axes.fill_between(layers, *ends, color=COLOURS[colour], alpha=0.15, lw=0)
        for level in chance.get(title, ()):
            axes.axhline(level, color=COLOURS["grey"], lw=0.8, ls=":")
        axes.set_title(title, fontweight="bold")
        axes.set_ylabel(label)
        axes.grid(axis="y", alpha=0.25)
        if limits is not None:
            axes.set_ylim(limits)
    if ticks is None:
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    else:
        axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlabel(across)
    _legend_over(figure, several[0])
    return figure


@styled
def survival(panels: Mapping[str, Mapping[str, Mapping[int, Estimate]]]) -> Figure:
    """Survival curves, one panel below the other: {panel: {line: {k: share that survives k}}}.

    The k stand at equal distances, the last one is called "all". Curves are steps with bands, 95 %; a line whose name
    ends in " (random)" is dotted, without a band, and has the colour of the one named like it without that.
    """
    figure, several = plt.subplots(len(panels), 1, figsize=(5, 2.5 * len(panels) + 0.9), sharex=True, squeeze=False)
    ks = sorted({k for lines in panels.values() for curve in lines.values() for k in curve})
    names = list(dict.fromkeys(name.removesuffix(" (random)") for lines in panels.values() for name in lines))
    for axes, (title, lines) in zip(several[:, 0], panels.items(), strict=True):
        for name, curve in lines.items():
            dotted = name.endswith(" (random)")
            colour = COLOURS[SURVIVORS[names.index(name.removesuffix(" (random)")) % len(SURVIVORS)]]
            places, found = [ks.index(k) for k in curve], list(curve.values())
            style = {"color": colour, "ls": ":" if dotted else "-", "lw": 1.4 if dotted else 2.2}
            axes.step(places, [e.value for e in found], where="post", label=name, **style)
            if not dotted:
                ends = [e.low for e in found], [e.high for e in found]
                axes.fill_between(places, *ends, step="post", color=colour, alpha=0.15, lw=0)
        axes.set_title(title, fontweight="bold")
        axes.set_ylabel("not yet lost")
        axes.set_ylim(-0.03, 1.03)
        axes.grid(axis="y", alpha=0.25)
    shown = [i for i in range(len(ks) - 2) if i < 1 or i % 2] + [len(ks) - 1]
    axes.set_xticks(shown, ["all" if i == len(ks) - 1 else _thousands(ks[i]) for i in shown])
    axes.set_xlabel("neurons silent")
    _legend_over(figure, several[:, 0])
    return figure


def spanning(panels: Mapping[str, Mapping[str, Mapping[int, Estimate]]]) -> tuple[float, float]:
    """The ends of one upright axis for all panels: their intervals, 0, and a little room."""
    found = [e for lines in panels.values() for values in lines.values() for e in values.values()]
    low, high = min(0, *(e.low for e in found)), max(0, *(e.high for e in found))
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def points(drawn: Mapping) -> pd.DataFrame:
    """What a figure above draws, a row a point: the keys that lead to it (panel, line, place), value, interval, n."""

    def rows(of: Mapping, way: tuple) -> Iterator[tuple]:
        for key, value in of.items():
            if isinstance(value, Mapping):
                yield from rows(value, (*way, key))
            else:
                yield (*way, key, *(value if isinstance(value, Estimate) else (value, None, None, None)))

    found = list(rows(drawn, ()))
    keys = ("panel", "line", "place")[-(len(found[0]) - 4) :] if found else ()
    return pd.DataFrame(found, columns=[*keys, "value", "low", "high", "n"])


@styled
def surface(panels: Mapping[str, Mapping[tuple[str, int], Estimate]], rows: str, columns: str) -> Figure:
    """Shares (0–1) by two doses, as shaded tables below each other: {panel: {(row, column): estimate}}."""
    figure, several = plt.subplots(len(panels), 1, figsize=(5, 1.9 * len(panels) + 0.3), squeeze=False)
    for axes, (title, cells) in zip(several[:, 0], panels.items(), strict=True):
        across = sorted({column for _, column in cells})
        down = list(dict.fromkeys(row for row, _ in cells))
        shares = [[cells[r, c].value if (r, c) in cells else float("nan") for c in across] for r in down]
        axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for (r, c), e in cells.items():
            ink = "white" if e.value < 0.5 else "black"
            place = across.index(c), down.index(r)
            axes.text(
                *place, f"{e.value:.2f}\n[{e.low:.2f}, {e.high:.2f}]", ha="center", va="center", color=ink, size=8
            )
        axes.set_xticks(range(len(across)), [f"{c:,}" for c in across])
        axes.set_yticks(range(len(down)), down)
        axes.set_title(title, fontweight="bold")
        axes.set_ylabel(rows)
    several[-1, 0].set_xlabel(columns)
    figure.tight_layout()
    return figure


@styled
def strips(panels: Mapping[str, Mapping[str, ndarray]], cut: int | None = None) -> Figure:
    """How often each neuron is active: {row title: {column title: share of the examples [block, neuron]}}.

    A strip a block, its neurons from the most frequent to the least, cut after so many, or where nobody in the row of
    panels has any left. The number in brackets counts the neurons that are active in one example or more, as in the
    paper.
    """
    columns = list(next(iter(panels.values())))
    blocks = len(next(iter(next(iter(panels.values())).values())))
    size = (5, len(panels) * (0.2 * blocks + 0.85) + 0.5)
    figure, several = plt.subplots(len(panels), len(columns), figsize=size, squeeze=False, layout="constrained")
    for row, (title, models) in zip(several, panels.items(), strict=True):
        most = cut or longest(models.values())
        for axes, (name, share) in zip(row, models.items(), strict=True):
            shown = -np.sort(-share, axis=1)[:, :most]
            scale = mpl.colors.PowerNorm(0.5, 0, 1)  # most neurons are active in few examples
            picture = axes.imshow(shown, cmap="cividis", norm=scale, aspect="auto", interpolation="nearest")
            labels = [f"{block} ({n})" for block, n in enumerate((share > 0).sum(1))]
            axes.set_yticks(range(blocks), labels, size=10)
            axes.tick_params(axis="x", labelsize=10)
            axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3, integer=True))
            axes.set_title(f"{title}\n{name}", size=10)
        row[0].set_ylabel("block (neurons)", size=10)
    for axes in several[-1]:
        axes.set_xlabel("neurons, most frequent first", size=10)
    bar = figure.colorbar(picture, ax=several, orientation="horizontal", aspect=40, shrink=0.6)
    bar.set_label("share of the examples in which it is active", size=10)
    return figure


def longest(shares: Iterable[ndarray]) -> int:
    """The length of the longest strip among several pictures' shares [block, neuron]; 1 or more."""
    return max(1, max(int((share > 0).sum(1).max()) for share in shares))


def _errors(
    axes: Axes, estimates: list[Estimate], places: list[float], colour: str, marker: str, label: str, across: bool
) -> None:
    values = [e.value for e in estimates]
    spread = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
    x, y, xerr, yerr = (values, places, spread, None) if across else (places, values, None, spread)
    axes.errorbar(x, y, yerr, xerr, fmt=marker, color=COLOURS[colour], lw=1.3, label=label)


def _legend_over(figure: Figure, panels: Iterable[Axes]) -> None:
    """One legend above all panels, of what these ones show."""
    figure.tight_layout()
    lines = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, columnspacing=1.0)


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, columnspacing=1.0, handletextpad=0.5)


def _thousands(k: int) -> str:
    return f"{k / 1024:g}k" if k >= 1024 and k % 1024 == 0 else f"{k:,}"


def _words(names: Iterable[str]) -> list[str]:
    return [str(name).replace("_", " ") for name in names]
