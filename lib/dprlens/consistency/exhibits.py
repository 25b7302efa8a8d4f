"""Numbers of Table 1 by id: accuracies of the probes and their paired differences.

Questions with the same gold passage are not independent, least of all for a probe that scores passages: intervals draw
whole gold passages (choice PR-3).
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from dprlens import paper
from dprlens.consistency.probes import ProbeResult
from dprlens.intervals import Estimate, difference, holm, mcnemar, mean, over_runs, ratio

CONTRASTS = (  # encoders whose accuracy is compared, under the paper's probe
    ("pretrained", "dpr_query"),
    ("pretrained", "dpr_context"),
    ("pretrained", "dpr_paired"),
    ("dpr_query", "dpr_context"),
    ("random", "pretrained"),
)
PRINTED = range(13)  # the layers of the paper and of its replication
MEETING = ("bilinear", "low_rank", "dot", "cosine")  # probes in which question and passage meet

Who = tuple[str, str]  # encoder pair, probe

OF_SIGNAL: dict[str, tuple[Who, Who]] = {  # differences reported as a share of the second accuracy above chance
    "dpr_query_minus_pretrained": (("dpr_query", "linear"), ("pretrained", "linear")),
    "dpr_context_minus_dpr_query": (("dpr_context", "linear"), ("dpr_query", "linear")),
    "random_minus_pretrained": (("random", "linear"), ("pretrained", "linear")),
    "pretrained_minus_no_query": (("pretrained", "linear"), ("pretrained", "no_query")),
    "dpr_query_minus_no_query": (("dpr_query", "linear"), ("dpr_query", "no_query")),
    "pretrained.tied_minus_linear": (("pretrained", "tied"), ("pretrained", "linear")),
}
ACROSS: dict[str, tuple[Who, Who]] = {  # compared over several worlds
    "pretrained_minus_dpr_query.linear": (("pretrained", "linear"), ("dpr_query", "linear")),
    "pretrained_minus_no_query.linear": (("pretrained", "linear"), ("pretrained", "no_query")),
    "random_minus_pretrained.linear": (("random", "linear"), ("pretrained", "linear")),
    "dpr_paired_minus_pretrained.bilinear": (("dpr_paired", "bilinear"), ("pretrained", "bilinear")),
    "dpr_paired_minus_pretrained.dot": (("dpr_paired", "dot"), ("pretrained", "dot")),
    "dpr_query_minus_no_query.linear": (("dpr_query", "linear"), ("dpr_query", "no_query")),
    "dpr_query_minus_dpr_context.linear": (("dpr_query", "linear"), ("dpr_context", "linear")),
    "pretrained.tied_minus_linear": (("pretrained", "tied"), ("pretrained", "linear")),
}
LABELS = {  # of encoder pairs
    "pretrained": "pre-trained BERT",
    "dpr_query": "DPR, query tower",
    "dpr_context": "DPR, context tower",
    "dpr_paired": "DPR, both towers",
    "random": "random weights",
}
PROBE_TITLES = {  # as a menu offers them
    "linear": "the paper's: linear on [q; p1; …; pN]",
    "shuffled_query": "the paper's, tested with other questions",
    "no_query": "the paper's, without the question",
    "untrained": "the paper's, not trained",
    "replication": "the paper's, as the replication fits it",
    "tied": "one scorer for all slots, no question",
    "bilinear": "bilinear: question and passage meet",
    "low_rank": "bilinear of low rank",
    "dot": "dot product, nothing trained",
    "cosine": "cosine, nothing trained",
}
PRINTED_ROWS = {  # of the paper's Table 1; short, so that a phone shows them side by side
    "untrained": "untrained",
    "pretrained": "BERT",
    "dpr_query": "DPR query",
    "dpr_context": "DPR context",
}


class Results(NamedTuple):
    """Results of all probes of a page, by encoder pair and probe.

    Names that differ only in a final number (random0, random1, …) are repeats; the name without the number gives their
    mean.
    """

    probed: Mapping[Who, ProbeResult]
    choices: Sequence[int]  # numbers of passages
    layers: Sequence[int]
    golds: np.ndarray  # [question]: the gold passage of each test question

    @property
    def last(self) -> int:
        """The last layer."""
        return max(self.layers)

    @property
    def ends(self) -> list[int]:
        """Fewest (2) and most passages of `choices`, where present: those that most tables show."""
        return [n for n in self.choices if n in (2, max(self.choices))]

    def encoders(self, probe: str) -> list[str]:
        """List the encoder pairs that this probe was fitted to, in order, repeats as one."""
        return list(dict.fromkeys(without_number(encoder) for encoder, name in self.probed if name == probe))

    def has(self, encoder: str, probe: str) -> bool:
        """Check for a result of this encoder pair and probe."""
        return encoder in self.encoders(probe)

    def right(self, encoder: str, probe: str, n: int, layer: int, shuffled: bool = False) -> np.ndarray:
        """Get whether each test question is right [question], 0–1; `shuffled`: tested with another question."""
        return self._mean(encoder, probe, n, layer, "shuffled" if shuffled else "correct")

    def on_train(self, encoder: str, probe: str, n: int, layer: int) -> float:
        """Get the accuracy on the questions that the probe was fitted to."""
        return float(self._mean(encoder, probe, n, layer, "train"))

    def _mean(self, encoder: str, probe: str, n: int, layer: int, field: str) -> np.ndarray:
        place = self.choices.index(n), self.layers.index(layer)
        names = [(e, p) for e, p in self.probed if p == probe and encoder in (e, without_number(e))]
        if not names:
            raise ValueError(f"there is no {probe} probe of {encoder!r} here; run the page with both")
        return np.mean([getattr(self.probed[name], field)[place] for name in names], axis=0)

    def accuracy(self, encoder: str, probe: str, n: int, layer: int, shuffled: bool = False) -> Estimate:
        """Estimate the accuracy on the test questions; `shuffled`: tested with another question."""
        return mean(self.right(encoder, probe, n, layer, shuffled), self.golds)

    def minus(self, a: Who, b: Who, n: int, layer: int) -> Estimate:
        """Estimate the accuracy of a minus that of b, on the same questions."""
        return difference(self.right(*a, n, layer), self.right(*b, n, layer), self.golds)

    def of_signal(self, a: Who, b: Who, n: int, layer: int) -> Estimate | None:
        """Estimate `minus` as a share of b's accuracy above chance; None where b does not differ from chance."""
        first, second = (self.right(*who, n, layer) for who in (a, b))
        if mean(second, self.golds).low <= 1 / n:
            return None
        return ratio(first - second, second - 1 / n, self.golds)

    def cells(self) -> Iterator[tuple[int, int]]:
        """Iterate over all pairs of number of passages and layer."""
        return ((n, layer) for n in self.choices for layer in self.layers)


def select(what: str, there: Iterable[Hashable], wanted: Sequence[Hashable] | None) -> list:
    """Select from `there` what is wanted, in the order of `there`; None: all.

    Raises ValueError if one is not there, or none is wanted.
    """
    there = list(there)
    if wanted is None:
        return there
    if unknown := [name for name in wanted if name not in there]:
        raise ValueError(f"there is no {what} {unknown[0]!r}; choose from {', '.join(map(str, there))}")
    if not wanted:
        raise ValueError(f"no {what} is asked for; choose from {', '.join(map(str, there))}")
    return [name for name in there if name in wanted]


def table1(results: Results) -> dict[str, Estimate]:
    """Compute every number of Table 1 and of its controls, by id.

    table1.n2.pretrained.layer3 is the paper's probe, table1.n2.untrained.layer3 the untrained one on pre-trained BERT,
    table1.n2.pretrained.bilinear.layer3 any other; a difference has `_minus_` in its id, one reported as a share of the
    signal (`Results.of_signal`) `_of_signal`. `by_choices` defines table1.n5_minus_n2.
    """
    found: dict[str, Estimate] = {}
    for encoder, probe in dict.fromkeys((e, p) for _, p in results.probed for e in results.encoders(p)):
        if probe == "untrained" and encoder != "pretrained":
            continue
        name = {"linear": encoder, "untrained": "untrained"}.get(probe, f"{encoder}.{probe}")
        for n, layer in results.cells():
            found[f"table1.n{n}.{name}.layer{layer}"] = results.accuracy(encoder, probe, n, layer)
            if probe == "linear":
                shuffled = results.accuracy(encoder, probe, n, layer, shuffled=True)
                found[f"table1.n{n}.{encoder}.shuffled_query.layer{layer}"] = shuffled
    pairs = {f"{a}_minus_{b}": ((a, "linear"), (b, "linear")) for a, b in CONTRASTS}
    for encoder in results.encoders("linear"):
        pairs[f"{encoder}_minus_no_query"] = (encoder, "linear"), (encoder, "no_query")
        pairs[f"{encoder}.tied_minus_linear"] = (encoder, "tied"), (encoder, "linear")
    return found | _differences("table1", pairs, results) | _of_signal("table1", results) | by_choices(results)


def by_choices(results: Results) -> dict[str, Estimate]:
    """Compare numbers of passages on the same questions, under the paper's probe at the last layer.

    table1.n2_minus_n3.pretrained and .dpr_query: accuracy among two passages minus that among three, and so on;
    table1.n5_minus_n2.pretrained_minus_dpr_query: the lead with the most passages minus that with the fewest.
    """
    layer, found = max(results.layers), {}
    shown = [who for who in ("pretrained", "dpr_query") if results.has(who, "linear")]
    right = {(who, n): results.right(who, "linear", n, layer) for who in shown for n in results.choices}
    for fewer, more in pairwise(sorted(results.choices)):
        for who in shown:
            id_ = f"table1.n{fewer}_minus_n{more}.{who}.layer{layer}"
            found[id_] = difference(right[who, fewer], right[who, more], results.golds)
    if len(shown) == 2 and len(results.choices) > 1:
        least, most = min(results.choices), max(results.choices)
        leads = {n: right["pretrained", n] - right["dpr_query", n] for n in (least, most)}
        id_ = f"table1.n{most}_minus_n{least}.pretrained_minus_dpr_query.layer{layer}"
        found[id_] = difference(leads[most], leads[least], results.golds)
    return found


def beside_the_paper(numbers: Mapping[str, Estimate], choices: Sequence[int], layers: Sequence[int]) -> pd.DataFrame:
    """Lay out Table 1, a row per number of passages and layer, cells "ours (the paper's)"; –: missing."""

    def cell(id_: str) -> str:
        if id_ not in numbers:
            return "–"
        printed = paper.numbers().get(id_)
        return f"{numbers[id_].value:.2f} ({'–' if printed is None else f'{printed:.2f}'})"

    return pd.DataFrame(
        {
            "N": n,
            "layer": layer,
            **{label: cell(f"table1.n{n}.{who}.layer{layer}") for who, label in PRINTED_ROWS.items()},
        }
        for n in choices
        for layer in layers
    )


def by_probe(
    numbers: Mapping[str, Estimate], choices: Sequence[int], layers: Sequence[int]
) -> dict[tuple[str, int], dict[str, dict[str, dict[int, Estimate | float]]]]:
    """Collect curves by probe and number of passages: {(probe, n): {panel: {encoder: {layer: accuracy}}}}.

    A probe is named by its title in `PROBE_TITLES`. The panel "this page" has `numbers`, the panel "the paper" the
    values that its Table 1 prints.
    """
    found = {}
    for probe, title in PROBE_TITLES.items():
        for n in choices:
            sources = {"this page": numbers, "the paper": paper.numbers()}
            panels = {source: _lines(known, probe, n, layers) for source, known in sources.items()}
            if panels["this page"]:
                found[title, n] = {source: lines for source, lines in panels.items() if lines}
    return found


def _lines(numbers: Mapping, probe: str, n: int, layers: Sequence[int]) -> dict[str, dict[int, Estimate | float]]:
    """Select one probe's curves over layers, by the encoder's label; curves without values are left out."""
    if probe == "untrained":
        names = {"untrained": LABELS["pretrained"]}
    else:
        names = {who if probe == "linear" else f"{who}.{probe}": label for who, label in LABELS.items()}
    ids = {label: {layer: f"table1.n{n}.{name}.layer{layer}" for layer in layers} for name, label in names.items()}
    lines = {label: {x: numbers[id_] for x, id_ in line.items() if id_ in numbers} for label, line in ids.items()}
    return {label: line for label, line in lines.items() if line}


def _value(number: Estimate | float) -> float:
    return number.value if isinstance(number, Estimate) else float(number)


def in_words(panels: Mapping[str, Mapping[str, Mapping[int, Estimate | float]]], n: int) -> str:
    """Describe the last values of the curves of `by_probe` as alternative text."""
    said = [f"Accuracy by layer, {n} passages"]
    for source, lines in panels.items():
        ends = {label: max(line) for label, line in lines.items()}
        values = {label: _value(lines[label][end]) for label, end in ends.items()}
        said.append(f"{source}: " + ", ".join(f"{label} {values[label]:.2f} at layer {ends[label]}" for label in ends))
    return ". ".join([*said, f"chance: {1 / n:.2f}."])


def n_once(frame: pd.DataFrame, title: str) -> tuple[pd.DataFrame, str]:
    """Move the n that all estimates of a table share into its title; leave both unchanged where n differs."""
    sizes = {cell.n for cell in frame.to_numpy().ravel() if isinstance(cell, Estimate)}
    if len(sizes) != 1:
        return frame, title
    return frame.map(lambda cell: cell.brief if isinstance(cell, Estimate) else cell), f"{title}; n = {sizes.pop():,}"


def half_width(numbers: Mapping[str, Estimate]) -> float:
    """Compute half of the widest interval among the numbers of Table 1; 0 without numbers."""
    cells = [
        e
        for id_, e in numbers.items()
        if id_.split(".")[2] in PRINTED_ROWS and id_.count(".") == 3 and "_minus_" not in id_
    ]
    return max((e.high - e.low for e in cells), default=0) / 2


def by_strength(probed: Mapping[Who, ProbeResult], choices: Sequence[int], golds: np.ndarray) -> dict[str, Estimate]:
    """Estimate accuracy of pre-trained BERT minus DPR's query tower at one layer, by strength of the penalty.

    `probed` is keyed by strength ("weaker", …) and encoder pair; a strength without both pairs is left out.
    """
    return {
        f"spread.n{n}.{which}.pretrained_minus_dpr_query": difference(
            probed[which, "pretrained"].correct[i, 0], probed[which, "dpr_query"].correct[i, 0], golds
        )
        for which in dict.fromkeys(which for which, _ in probed)
        if {(which, "pretrained"), (which, "dpr_query")} <= probed.keys()
        for i, n in enumerate(choices)
    }


def by_draw(probed: Mapping[tuple[str, int], ProbeResult], choices: Sequence[int]) -> dict[str, Estimate]:
    """Estimate accuracy at one layer over draws of slots and negatives, and its paired difference.

    `probed` is keyed by encoder pair and draw, every encoder pair with the same draws. The difference is the accuracy
    of the first encoder pair minus that of the second.
    """
    encoders = dict.fromkeys(who for who, _ in probed)
    rates = {
        who: np.array([one.correct[:, 0].mean(1) for (of, _), one in probed.items() if of == who]) for who in encoders
    }
    if len(rates) == 2:
        first, second = rates.values()
        rates["_minus_".join(rates)] = first - second
    return {
        f"spread.n{n}.{who}": over_runs(by_choice)
        for who, drawn in rates.items()
        for n, by_choice in zip(choices, drawn.T, strict=True)
    }


def matching(results: Results) -> dict[str, Estimate]:
    """Estimate the gain of matching (bilinear minus tied), and DPR minus pre-trained BERT there."""
    encoders = results.encoders("bilinear")
    pairs = {f"{encoder}.bilinear_minus_tied": ((encoder, "bilinear"), (encoder, "tied")) for encoder in encoders}
    for probe in MEETING:
        pairs[f"dpr_paired_minus_pretrained.{probe}"] = ("dpr_paired", probe), ("pretrained", probe)
    return _differences("matching", pairs, results)


def across(worlds: Sequence[Results]) -> dict[str, Estimate]:
    """Average over worlds, with Student's interval; empty for fewer than two worlds.

    By id: `ACROSS` (worlds.n2.pretrained_minus_dpr_query.linear.layer12), `OF_SIGNAL` (…_of_signal.linear.layer12, left
    out where one world has no signal), accuracies of the paper's probe, and `by_choices`.
    """
    if len(worlds) < 2:
        return {}
    by_world = [_of_one_world(world) for world in worlds]
    shared = [id_ for id_ in by_world[0] if all(id_ in numbers for numbers in by_world)]
    return {id_: over_runs([numbers[id_].value for numbers in by_world]) for id_ in shared}


def _of_one_world(results: Results) -> dict[str, Estimate]:
    accuracies = {
        f"worlds.n{n}.{who}.linear.layer{layer}": results.accuracy(who, "linear", n, layer)
        for who in results.encoders("linear")
        for n, layer in results.cells()
    }
    told = _differences("worlds", ACROSS, results) | _of_signal("worlds", results) | by_choices(results)
    return accuracies | {_with_probe(id_): e for id_, e in told.items()}


def _with_probe(id_: str) -> str:
    """Add the probe to an id of several worlds; ids of Table 1 omit it where it is the paper's."""
    _, *parts = id_.split(".")
    return ".".join(["worlds", *parts[:-1], *(["linear"] if len(parts) == 3 else []), parts[-1]])


def across_table(numbers: Mapping[str, Estimate]) -> pd.DataFrame:
    """Tabulate `across` at its last layer, a row per comparison, a column per number of passages."""
    cells = {tuple(id_.split(".")[1:]): estimate for id_, estimate in numbers.items()}
    last = max((int(layer.removeprefix("layer")) for *_, layer in cells), default=0)
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for (n, what, probe, layer), estimate in cells.items():
        if layer == f"layer{last}" and "_minus_" not in n:
            rows.setdefault((what, probe), {})[f"N = {n[1:]}"] = estimate.brief
    frame = pd.DataFrame({"what": what, "probe": probe, **by_n} for (what, probe), by_n in rows.items())
    return frame.replace("_", " ", regex=True) if len(frame) else frame


def significance(results: Results, a: Who, b: Who) -> dict[tuple[int, int], float]:
    """Test a against b by McNemar for each number of passages and layer: p, adjusted for their number by Holm.

    The test treats questions as independent, which those about one passage are not; the intervals do not assume this.
    """
    cells = list(results.cells())
    p = [mcnemar(results.right(*a, *cell) > 0.5, results.right(*b, *cell) > 0.5) for cell in cells]
    return dict(zip(cells, map(float, holm(p)), strict=True))


def significant_cells(results: Results) -> dict[str, int]:
    """Count cells where DPR's accuracy differs from BERT's (`significance`), by pair of DPR's towers."""
    pairs = {b: ((a, "linear"), (b, "linear")) for a, b in CONTRASTS if a == "pretrained"}
    there = {other: pair for other, pair in pairs.items() if all(results.has(*who) for who in pair)}
    return {other: sum(p < 0.05 for p in significance(results, *pair).values()) for other, pair in there.items()}


def without_number(name: str) -> str:
    """Strip the final number from the name of a repeat: random for random0, random1, and so on."""
    return name.rstrip("0123456789")


def _differences(exhibit: str, pairs: Mapping[str, tuple[Who, Who]], results: Results) -> dict[str, Estimate]:
    return {
        f"{exhibit}.n{n}.{name}.layer{layer}": results.minus(a, b, n, layer)
        for name, (a, b) in pairs.items()
        if results.has(*a) and results.has(*b)
        for n, layer in results.cells()
    }


def _of_signal(exhibit: str, results: Results) -> dict[str, Estimate]:
    """Compute `Results.of_signal` of every contrast of `OF_SIGNAL` wherever there is a signal."""
    found = {}
    for name, (a, b) in OF_SIGNAL.items():
        if results.has(*a) and results.has(*b):
            for n, layer in results.cells():
                if (share := results.of_signal(a, b, n, layer)) is not None:
                    found[f"{exhibit}.n{n}.{name}_of_signal.layer{layer}"] = share
    return found


def three_sources(
    numbers: Mapping[str, Estimate], choices: Sequence[int], layers: Sequence[int]
) -> dict[str, dict[str, dict[int, Estimate | float]]]:
    """Collect accuracies of the paper's probe by source, line and layer.

    The sources are the paper's printed values, its replication on real BERT-base, and `numbers`. A line is a number of
    passages with pre-trained BERT, or "(DPR)" with the query tower. Lines without values are left out.
    """
    rows = paper.replication().query("dataset == 'nq' and pooling == 'cls'")
    replicated = rows.set_index(["n_passages", "model", "layer"])["accuracy"]
    found: dict[str, dict] = {"the paper": {}, "the replication": {}, "this page": {}}
    for n in choices:
        for who, model, mark in (("pretrained", "bert-base-uncased", ""), ("dpr_query", "dpr-question", " (DPR)")):
            ids = {layer: f"table1.n{n}.{who}.layer{layer}" for layer in sorted({*PRINTED, *layers})}
            lines = {
                "the paper": {layer: paper.numbers()[id_] for layer, id_ in ids.items() if id_ in paper.numbers()},
                "the replication": {x: replicated[n, model, x] for x in PRINTED if (n, model, x) in replicated.index},
                "this page": {layer: numbers[id_] for layer, id_ in ids.items() if id_ in numbers},
            }
            for source, line in lines.items():
                if line:
                    found[source][f"N = {n}{mark}"] = line
    return {source: lines for source, lines in found.items() if lines}
