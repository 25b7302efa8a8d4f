"""Chapter 03, what active neurons do: silenced, doubled and exchanged between models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray

from dprlens import intervals
from dprlens.cache.parallel import run
from dprlens.chapters import comparison
from dprlens.chapters.comparison import Comparison
from dprlens.chapters.decentralization import NOT_DECIDED, PAIR, TRIO
from dprlens.decentralization import exhibits, pathways, steps
from dprlens.decentralization.exhibits import label
from dprlens.decentralization.interventions import KINDS
from dprlens.decentralization.steps import GoldRanks
from dprlens.intervals import Estimate
from dprlens.report import figures
from dprlens.report.report import Drawing, Table

TOP = 20  # passages among which a gold passage counts as found
DUELS = (("dpr", "pretrained"), ("dpr", "shuffled"), ("shuffled", "pretrained"))  # which of two outlasts the other
PATCHED = ("state", "cls", "feed-forward")  # what of a block comes from the other model


class Meaning(NamedTuple):
    """A meaning of "the passage is found": its words, and whether it holds [1 + silent, example]."""

    words: str
    holds: Callable[[GoldRanks], ndarray]


MEANINGS = {  # by the head of their numbers' ids
    "pathways": Meaning("among the first 20 of all passages", lambda one: one.place < TOP),
    "pathways.among": Meaning("first of its candidates", lambda one: one.among < 1),
    "pathways.margin": Meaning("half of its margin is left", lambda one: one.margin > np.maximum(0, one.margin[0] / 2)),
}


def intervene(compared: Comparison) -> dict[str, GoldRanks]:
    """Silence and double neurons of pre-trained BERT and DPR: `steps.intervene` by model."""
    changed = compared.setup.profile.activity.changed
    calls = {name: partial(steps.intervene, compared.tasks[name], changed) for name in PAIR}
    return run(calls, compared.workers)


def causal(compared: Comparison, judged: Mapping[str, GoldRanks]) -> Drawing:
    """Change of the gold passage's margin when the top, bottom or random neurons are silenced or doubled."""
    ks = compared.setup.profile.activity.changed
    numbers: dict[str, Estimate] = {}
    for name, one in judged.items():
        scale = compared.tasks[name].temperature
        numbers |= exhibits.intervention_effects(
            f"causal.{name}", one.margin, one.place, ks, TOP, scale, compared.clusters
        )
    panels = {
        f"{label(name)}, {action}": {
            kind: {i: numbers[f"causal.{name}.{action}.{kind}.k{k}.margin"] for i, k in enumerate(ks)} for kind in KINDS
        }
        for name in judged
        for action in exhibits.ACTIONS
    }
    return Drawing(
        "causal",
        figures.by_layer(
            panels,
            "change of margin",
            {title: [0] for title in panels},
            "number of neurons",
            [str(k) for k in ks],
            figures.spanning(panels),
        ),
        title="Margin when neurons are silenced or doubled",
        alt="Four panels; silencing the top neurons lowers the margin, doubling them raises it, random and bottom ones "
        "do little.",
        numbers=numbers,
    )


@dataclass(frozen=True)
class Silencing:
    """What becomes of the passages when more and more neurons of a question are silent."""

    search: pathways.Search
    judged: Mapping[tuple[str, str], GoldRanks]  # by model and order: strongest first or random

    @cached_property
    def lost(self) -> dict[str, pathways.Counts]:
        """The counts of `pathways` by the meaning of "found"."""
        return {
            id_: pathways.counts({key: meaning.holds(one) for key, one in self.judged.items()}, self.search)
            for id_, meaning in MEANINGS.items()
        }

    @property
    def kinds(self) -> list[str]:
        """The kinds of questions."""
        return sorted(set(self.search.kinds))

    @cached_property
    def curves(self) -> dict[tuple[str, str, str], dict[int, Estimate]]:
        """Survival curves by kind, model and order; empty if nothing was found."""
        kinds = np.array(self.search.kinds)
        return {
            (kind, *key): pathways.survival(np.where(kinds == kind, lost, 0), self.search)
            for kind in self.kinds
            for key, lost in self.lost["pathways"].items()
        }


def silence(compared: Comparison) -> Silencing:
    """Silence a question's neurons, 1, 2, 4, … and at last all, in pre-trained BERT, DPR and DPR on shuffled pairs."""
    kinds = [compared.world.questions[q].kind for q in compared.sample.examples]
    searched = pathways.Search(pathways.doubling(compared.neurons), kinds, compared.clusters)
    calls = {
        (name, order): partial(steps.silence_neurons, compared.tasks[name], searched.silent, order)
        for name in TRIO
        for order in pathways.ORDERS
    }
    return Silencing(searched, run(calls, compared.workers))


def survival(silenced: Silencing) -> Drawing:
    """Share of the found passages that are not lost yet against the number of silent neurons, by kind of question."""
    numbers: dict[str, Estimate | int | None] = {}
    for id_, lost in silenced.lost.items():
        numbers |= pathways.survival_numbers(id_, lost, silenced.search, curves=id_ == "pathways")
        numbers |= pathways.outlasting_numbers(id_, lost, silenced.search, DUELS)
    panels: dict[str, dict[str, dict[int, Estimate]]] = {
        f"{kind.replace('_', '-')} questions": {} for kind in silenced.kinds
    }
    for (kind, name, order), curve in silenced.curves.items():
        if curve:
            line = label(name) + (" (random)" if order == "random" else "")
            panels[f"{kind.replace('_', '-')} questions"][line] = curve
    return Drawing(
        "pathways",
        figures.survival(panels),
        title="Share of the passages found at first that are not lost yet when so many of the question's neurons are "
        "silent",
        alt="Falling curves, one panel a kind of question, one colour a model; solid for the strongest neurons first, "
        "dotted for random ones.",
        numbers=numbers,
        points=figures.points(panels),
    )


def survivors(silenced: Silencing, numbers: Mapping[str, Estimate]) -> Table:
    """Neurons that must be silent before half of the found passages are lost; `numbers` has those of `survival`."""

    def cell(id_: str) -> str:
        return numbers[id_].brief if id_ in numbers else "–"

    return Table(
        "survivors",
        pd.DataFrame(
            {
                "questions": kind.replace("_", "-"),
                "model": label(name),
                "found at first": cell(f"pathways.{kind}.{name}.found"),
                "half are lost at": pathways.median_in_words(silenced.curves[kind, name, "top"]),
                "random neurons": pathways.median_in_words(silenced.curves[kind, name, "random"]),
                "never lost": cell(f"pathways.{kind}.{name}.never_lost"),
            }
            for kind in silenced.kinds
            for name in TRIO
        ),
        title="Neurons that must be silent before half of the found passages are lost, strongest first or random, and "
        "the share that is found with none left",
    )


def outlasting(silenced: Silencing, numbers: Mapping[str, Estimate]) -> Table:
    """Which of two models loses a passage first, by kind and meaning; `numbers` has those of `survival`."""
    rows = []
    for kind in silenced.kinds:
        for id_, meaning in MEANINGS.items():
            for a, b in DUELS:
                name = f"{id_}.{kind}.{a}_outlasts_{b}"
                decided = numbers.get(name)
                rows.append(
                    {
                        "questions": kind.replace("_", "-"),
                        "found means": meaning.words,
                        "one model": label(a),
                        "the other": label(b),
                        "both find": int(numbers[f"{name}_matched"].value),
                        "decided": decided.n if decided else 0,
                        "the other loses it first": decided.brief if decided else "–",
                    }
                )
    return Table(
        "outlasting",
        pd.DataFrame(rows),
        title="Which of two models loses a passage first, of the questions that both find, one vote a gold passage",
    )


def outlasting_in_words(numbers: Mapping[str, Estimate]) -> dict[str, str]:
    """How often DPR, trained on right or on shuffled pairs, outlasts pre-trained BERT on knowledge-required questions.

    dpr, dpr_among, dpr_margin; shuffled, shuffled_among, shuffled_margin.
    """
    ids = {
        model + id_.removeprefix("pathways").replace(".", "_"): f"{id_}.knowledge_required.{model}_outlasts_pretrained"
        for model in ("dpr", "shuffled")
        for id_ in MEANINGS
    }
    return {name: decided_in_words(numbers, id_) for name, id_ in ids.items()}


def decided_in_words(numbers: Mapping[str, Estimate], id_: str) -> str:
    """A number in words, or that nothing decides it here."""
    return str(numbers.get(id_, NOT_DECIDED))


def patch(compared: Comparison) -> dict[tuple[str, str, str], GoldRanks]:
    """Exchange activations between pre-trained BERT and DPR: {(into, from, what): judged [block, example]}."""
    sampling = comparison.sampling_of(compared.setup)
    calls = {
        (into, other, what): partial(
            steps.patch_blocks, compared.tasks[into].dual, compared.tasks[other].dual, sampling, what
        )
        for into, other in (PAIR[::-1], PAIR)
        for what in PATCHED
    }
    return run(calls, compared.workers)


def patching(
    compared: Comparison, patched: Mapping[tuple[str, str, str], GoldRanks], numbers: Mapping[str, Estimate]
) -> Drawing:
    """Share of the passages found when one block's activations are the other model's; `numbers` has `causal`'s."""
    found: dict[str, Estimate] = {}
    panels: dict[str, dict[str, dict[int, Estimate]]] = {}
    alone = {}
    for (into, other, what), judged in patched.items():
        title, name = f"{label(other)} in {label(into)}", f"patching.{into}.{what.replace('-', '_')}"
        shares = {block: intervals.mean(places < TOP, compared.clusters) for block, places in enumerate(judged.place)}
        found |= {f"{name}.block{block}": share for block, share in shares.items()}
        panels.setdefault(title, {})[what] = shares
        alone[title] = [numbers[f"causal.{into}.found"].value]
    return Drawing(
        "patching",
        figures.by_layer(panels, "found among 20", alone, "block that is replaced", limits=(0, 1)),
        title="Passages found when one block's activations come from the other model",
        alt="Share of passages found against the block replaced, one line for each kind of replacement; the dotted "
        "line is the model left alone.",
        numbers=found,
    )
