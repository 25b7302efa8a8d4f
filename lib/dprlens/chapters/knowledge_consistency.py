"""Chapter 02, section 2 of the paper: what probes tell apart in the features of pre-trained BERT and of DPR."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from dprlens import paper
from dprlens.chapters.probe_grid import CONTROLLED, PAIRED, Cell, Grid
from dprlens.consistency import exhibits
from dprlens.consistency.controls import Selectivity
from dprlens.consistency.exhibits import LABELS, Results, Who, n_once, without_number
from dprlens.consistency.probes import Items, ProbeResult
from dprlens.intervals import Estimate, difference, mean, over_runs
from dprlens.report import figures, widgets
from dprlens.report.report import Absent, Drawing, Table
from dprlens.world.records import World

NOT_ASKED = "(not asked for)"
NOT_RECORDED = "(not on record yet)"
VARIANTS = {  # of the paper's probe, as the table of its relatives names them
    "linear": "linear",
    "shuffled_query": "other question",
    "no_query": "no question",
    "tied": "one scorer",
    "bilinear": "bilinear",
}
SPREAD = {  # columns of the table of other draws and penalties
    "pretrained": "pre-trained BERT",
    "dpr_query": "DPR, query tower",
    "pretrained_minus_dpr_query": "difference",
    "stronger.pretrained_minus_dpr_query": "stronger penalty",
    "weaker.pretrained_minus_dpr_query": "weaker penalty",
}
SURFACE = ("length", "bag_of_words", "bm25", "overlap", "title")  # what decides where there is no network


def question_cards(world: World, items: Items) -> widgets.HTML:
    """One question of each kind with the passages from which a probe chooses."""
    kinds = {world.questions[question].kind: i for i, question in enumerate(items.questions)}
    return widgets.HTML(
        "".join(
            widgets.rankings(world, world.questions[items.questions[i]], {"gold and hard negatives": items.choices[i]})
            for i in kinds.values()
        )
    )


# Table 1


def table1(results: Results, numbers: Mapping[str, Estimate]) -> Table:
    """Accuracy of the paper's probe by number of passages and layer, the paper's in brackets (its Table 1)."""
    return Table(
        "table1",
        exhibits.beside_the_paper(numbers, results.choices, results.layers),
        title="Probe accuracy by layer: ours (the paper's)",
        numbers=numbers,
    )


def curves(results: Results, numbers: Mapping[str, Estimate]) -> Drawing:
    """Accuracy of the paper's probe by layer: as the paper prints it, as it was replicated, and ours."""
    sources = exhibits.three_sources(numbers, results.ends, results.layers)
    chance = {source: [1 / n for n in results.ends] for source in sources}
    return Drawing(
        "curves",
        figures.by_layer(sources, "accuracy", chance, limits=(0, 1)),
        title="The paper's probe by layer, in three sources",
        alt="Three panels of accuracy over layers. In the paper the curves rise to 0.84; in the replication and here "
        "they stay near 0.6 for two passages.",
        points=figures.points(sources),
    )


def pages_by_probe(results: Results, numbers: Mapping[str, Estimate]) -> dict[widgets.Key, str]:
    """Accuracy by layer of every probe, a picture for each number of passages: pages of an explorer."""
    panels = exhibits.by_probe(numbers, results.choices, results.layers)
    return {
        (name, f"N = {n}"): widgets.drawn(
            figures.by_layer(sources, "accuracy", {source: [1 / n] for source in sources}, limits=(0, 1)),
            exhibits.in_words(sources, n),
        )
        for (name, n), sources in panels.items()
    }


# pre-trained BERT against DPR


def differences(results: Results, numbers: Mapping[str, Estimate], significant: Mapping[str, int]) -> Table:
    """Accuracy of pre-trained BERT minus that of DPR at the last layer, paired; `significant` are numbers of cells."""
    layer = f"layer{results.last}"
    frame = pd.DataFrame(
        {
            "passages": n,
            **{
                f"minus {LABELS[other]}": numbers[f"table1.n{n}.pretrained_minus_{other}.{layer}"]
                for other in significant
            },
            "query tower minus BERT, of signal": numbers.get(
                f"table1.n{n}.dpr_query_minus_pretrained_of_signal.{layer}"
            ),
        }
        for n in results.choices
    )
    title = f"Accuracy of pre-trained BERT minus that of DPR, layer {results.last}"
    counts = {f"differences.{other}.significant_cells": count for other, count in significant.items()}
    return Table("differences", *n_once(frame, title), numbers=counts)


def significant_in_words(significant: Mapping[str, int]) -> dict[str, str]:
    """In how many cells each of DPR's towers, and the pair, differ from pre-trained BERT."""
    names = {"query": "dpr_query", "context": "dpr_context", "pair": "dpr_paired"}
    return {name: str(significant.get(other, NOT_ASKED)) for name, other in names.items()}


def spread(
    results: Results, redrawn: Mapping[tuple[str, int], ProbeResult], penalties: Mapping[Who, ProbeResult]
) -> Table:
    """Accuracy at the last layer over draws, and BERT minus DPR with other penalties, by number of passages."""
    numbers = exhibits.by_draw(redrawn, results.choices)
    numbers |= exhibits.by_strength(penalties, results.choices, results.golds)
    return Table(
        "spread",
        pd.DataFrame(
            {"passages": n, **{title: numbers.get(f"spread.n{n}.{which}") for which, title in SPREAD.items()}}
            for n in results.choices
        ),
        title=f"Other draws and other penalties, layer {results.last}",
        numbers=numbers,
    )


def replication(refitted: Results) -> Table:
    """Accuracy of the probe that the replication fits, at the last layer, by number of passages."""
    encoders, last = refitted.encoders("replication"), refitted.last
    accuracies = {
        n: {who: refitted.accuracy(who, "replication", n, last) for who in encoders} for n in refitted.choices
    }
    frame = pd.DataFrame(
        {"passages": n, **{LABELS[who]: e for who, e in by_encoder.items()}} for n, by_encoder in accuracies.items()
    )
    return Table(
        "replication",
        *n_once(frame, f"The replication's way of fitting, layer {last}"),
        numbers={f"replication.n{n}.{who}": e for n, of in accuracies.items() for who, e in of.items()},
    )


# what the probe uses


def question(results: Results, numbers: Mapping[str, Estimate]) -> Table:
    """Accuracy of the paper's probe and its relatives at the last layer, and on the questions that it was fitted to."""
    layer = results.last
    fit = {
        f"question.n{n}.{who}.{name}.train": results.on_train(who, name, n, layer)
        for n in results.ends
        for who in LABELS
        for name in ("linear", "bilinear")
        if results.has(who, name)
    }

    def accuracy(n: int, who: str, name: str) -> float | None:
        middle = "" if name == "linear" else f".{name}"
        estimate = numbers.get(f"table1.n{n}.{who}{middle}.layer{layer}")
        return estimate.value if estimate else None

    frame = pd.DataFrame(
        {
            "N": n,
            "features": label,
            "on train": fit.get(f"question.n{n}.{who}.linear.train"),
            **{title: accuracy(n, who, name) for name, title in VARIANTS.items()},
        }
        for n in results.ends
        for who, label in LABELS.items()
    )
    return Table("question", frame, title=f"The paper's probe and its relatives, layer {layer}", numbers=fit)


def question_of_signal(numbers: Mapping[str, Estimate], layer: int) -> str:
    """What the question adds to the paper's probe, as a share of what it has above chance without: two passages."""
    return _in_words(numbers.get(f"table1.n2.pretrained_minus_no_query_of_signal.layer{layer}"))


def no_network(right: Mapping[str, np.ndarray], results: Results) -> Table:
    """Accuracy of what needs no network, by number of passages; `right` as `steps.fit_surface_features` gives it."""
    accuracies = {
        name: {n: mean(of_n, results.golds) for n, of_n in zip(results.choices, right[name], strict=True)}
        for name in SURFACE
    }
    frame = pd.DataFrame(
        {"what decides": name.replace("_", " "), **{f"N = {n}": e for n, e in by_n.items()}}
        for name, by_n in accuracies.items()
    )
    return Table(
        "no_network",
        *n_once(frame, "Accuracy without a network"),
        numbers={f"no_network.n{n}.{name}": e for name, by_n in accuracies.items() for n, e in by_n.items()},
    )


def reversible(right: Mapping[Who, Mapping[str, np.ndarray]], layer: int) -> Table | Absent:
    """Accuracy on reversible pairs, where what a passage looks like by itself is right twice and wrong twice.

    Intervals draw whole pairs of questions: their two questions in both orders of the slots.
    """
    title = f"Accuracy on reversible pairs, layer {layer}"
    ways = {"ordinary": ("", "ordinary questions"), "balanced": (".balanced", "reversible pairs")}
    numbers = {
        f"reversible.{who}.{name}{ways[way][0]}": mean(marks, np.tile(np.arange(len(marks) // 2) // 2, 2))
        for (who, name), by_way in right.items()
        for way, marks in by_way.items()
        if len(marks)
    }
    if not numbers:
        return Absent("reversible", title, "There are no reversible pairs here, or none of their encoders.")
    frame = pd.DataFrame(
        {
            "features": LABELS[without_number(who)],
            "fitted to": fitted_to,
            **{name: numbers.get(f"reversible.{who}.{name}{ending}") for name in PAIRED},
        }
        for who in dict.fromkeys(who for who, _ in right)
        for ending, fitted_to in ways.values()
    )
    return Table("reversible", *n_once(frame, title), numbers=numbers)


def compares_rivals(exhibit: Table | Absent) -> bool:
    """Whether a table of pairs has numbers of both pre-trained BERT and DPR, which claims compare."""
    encoders = {id_.split(".")[1] for id_ in exhibit.numbers} if isinstance(exhibit, Table) else set()
    return {"pretrained", "dpr_paired"} <= encoders


# features or probe


def selectivity(fitted: Mapping[Cell, Selectivity], golds: np.ndarray) -> Table | Absent:
    """Accuracy on the task minus that on a control task with random labels (Hewitt and Liang 2019)."""
    title = "Accuracy on the task and on the control task, two passages"
    if not fitted:
        return Absent("selectivity", title, _none_of(CONTROLLED))
    rows, numbers = [], {}
    for (who, name, layer), one in fitted.items():
        clusters, id_ = golds[one.questions], f"selectivity.{who}.{name}.layer{layer}"
        numbers[f"{id_}.task"] = mean(one.task, clusters)
        numbers[f"{id_}.control"] = mean(one.control, clusters)
        numbers[id_] = difference(one.task, one.control, clusters)
        rows.append(
            {
                "features": f"{LABELS[without_number(who)]}, layer {layer}",
                "probe": name,
                "task": numbers[f"{id_}.task"].value,
                "control": numbers[f"{id_}.control"].value,
                "selectivity": numbers[id_],
            }
        )
    return Table("selectivity", *n_once(pd.DataFrame(rows), title), numbers=numbers)


def code(orders: Mapping[Cell, np.ndarray]) -> Table | Absent:
    """Compression by the online code (Voita and Titov 2020), mean over orders; at 1 features do not help."""
    title = "Compression by the online code, mean over orders"
    if not orders:
        return Absent("code", title, _none_of(CONTROLLED))
    compression = {cell: over_runs(values) for cell, values in orders.items()}
    rows: dict[str, dict[str, Estimate]] = {}
    for (who, name, layer), e in compression.items():
        rows.setdefault(f"{LABELS[without_number(who)]}, layer {layer}", {})[name] = e
    frame = pd.DataFrame({"features": features, **by_probe} for features, by_probe in rows.items())
    return Table(
        "code",
        *n_once(frame, title),
        numbers={f"code.{who}.{name}.layer{layer}": e for (who, name, layer), e in compression.items()},
    )


def learning(parts: Mapping[Who, Mapping[int, np.ndarray]], grid: Grid) -> Drawing:
    """Accuracy against the number of train questions, for two passages at the last layer; one panel a probe."""
    accuracies = {who: {size: mean(right, grid.golds) for size, right in of.items()} for who, of in parts.items()}
    panels: dict[str, dict[str, dict[int, Estimate]]] = {}
    for (who, name), by_size in accuracies.items():
        panels.setdefault(name, {})[LABELS[without_number(who)]] = by_size
    chance = {name: [1 / grid.fewest] for name in panels}
    return Drawing(
        "learning",
        figures.by_layer(panels, "accuracy", chance, "train questions"),
        title=f"Accuracy against the number of train questions, two passages, layer {grid.last}",
        alt="One panel a probe; the bilinear probe's curves still rise with more questions, those of the linear and "
        "the tied probe hardly do.",
        numbers={
            f"learning.{who}.{name}.train{size}": e
            for (who, name), by_size in accuracies.items()
            for size, e in by_size.items()
        },
    )


# matching


def matching_gains(results: Results, fit_to_test: Results) -> dict[str, Estimate]:
    """What a meeting of question and passage adds (`exhibits.matching`), also where fitted to test questions."""
    unseen = exhibits.matching(fit_to_test)
    return exhibits.matching(results) | {id_.replace("matching.", "matching.unseen."): e for id_, e in unseen.items()}


def matching(results: Results, numbers: Mapping[str, Estimate], gains: Mapping[str, Estimate]) -> Drawing:
    """Accuracy by layer of probes in which question and passage meet, two passages and most."""
    kinds = {"bilinear": "bilinear", "dot": "dot product, nothing trained"}
    panels, chance = {}, {}
    for n in results.ends:
        for name, kind in kinds.items():
            encoders = [who for who in ("pretrained", "dpr_paired", "random") if results.has(who, name)]
            chance[f"{kind}, N = {n}"] = [1 / n]
            panels[f"{kind}, N = {n}"] = {
                LABELS[who]: {layer: numbers[f"table1.n{n}.{who}.{name}.layer{layer}"] for layer in results.layers}
                for who in encoders
            }
    return Drawing(
        "matching",
        figures.by_layer(panels, "accuracy", chance, limits=(0, 1)),
        title="Probes in which question and passage meet",
        alt="Panels of accuracy over layers: DPR above pre-trained BERT from the first layer on; random weights near "
        "pre-trained BERT for the bilinear probe, and below chance for the dot product.",
        numbers=gains,
    )


def lead(gains: Mapping[str, Estimate], layer: int, arm: str = "matching") -> Estimate | None:
    """Accuracy of DPR minus that of pre-trained BERT under the bilinear probe, two passages; None if not asked for."""
    return gains.get(f"{arm}.n2.dpr_paired_minus_pretrained.bilinear.layer{layer}")


def leads_in_words(gains: Mapping[str, Estimate], layer: int) -> dict[str, str]:
    """The lead of DPR under the bilinear probe fitted to train questions and to unseen test questions."""
    leads = {"seen": lead(gains, layer), "unseen": lead(gains, layer, "matching.unseen")}
    return {name: _in_words(e) for name, e in leads.items()}


def in_words(numbers: Mapping[str, Estimate], gains: Mapping[str, Estimate], grid: Grid) -> dict[str, str]:
    """The page's main numbers for two passages: accuracies of the paper's probe, leads of DPR where texts meet."""
    names = {"linear": "pretrained", "no_query": "pretrained.no_query", "random": "random"}
    accuracies = {name: numbers.get(f"table1.n2.{who}.layer{grid.last}") for name, who in names.items()}
    leads = {"gain": lead(gains, grid.middle), "gain_last": lead(gains, grid.last)}
    return {name: _in_words(e) for name, e in (accuracies | leads).items()} | {"middle": str(grid.middle)}


# other worlds, and the paper's own numbers


def on_record(recorded: Mapping[str, Estimate]) -> dict[str, str]:
    """The comparisons over worlds and networks on record: two passages, last layer."""
    pairs = {
        "without_question": "pretrained_minus_no_query.linear",
        "random": "random_minus_pretrained.linear",
        "dpr": "pretrained_minus_dpr_query.linear",
        "bilinear": "dpr_paired_minus_pretrained.bilinear",
        "dot": "dpr_paired_minus_pretrained.dot",
    }
    return {name: str(recorded.get(f"worlds.n2.{pair}.layer12", NOT_RECORDED)) for name, pair in pairs.items()}


def worlds(numbers: Mapping[str, Estimate], recorded: Mapping[str, Estimate]) -> Table:
    """Accuracies and differences at the last layer, means over worlds: on record if this page has one world."""
    known = numbers or {id_: e for id_, e in recorded.items() if id_.startswith("worlds.")}
    source = "" if numbers else " (on record, profile full)"
    return Table(
        "worlds",
        exhibits.across_table(known),
        title=f"Accuracies and their differences over worlds{source}",
        numbers=numbers,
    )


def printed() -> Table:
    """What the paper's sentences about its Table 1 say, judged on its own printed numbers."""
    return Table(
        "printed",
        pd.DataFrame(
            {
                "": reading.id,
                "sentence": reading.text,
                "on its own numbers": reading.verdict.verdict,
                "why": reading.verdict.why,
            }
            for reading in paper.own_reading()
            if reading.exhibit == "table1"
        ),
        title="The paper's Table 1, judged by itself",
    )


def _in_words(estimate: Estimate | None) -> str:
    return NOT_ASKED if estimate is None else str(estimate)


def _none_of(probes: Iterable[str]) -> str:
    return f"None of the probes {', '.join(probes)} is asked for, or none of the encoders that this takes."
