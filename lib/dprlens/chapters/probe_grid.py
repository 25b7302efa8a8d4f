"""Chapter 02: the cells of Table 1 that are asked for, and the probes that are fitted to them."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from dprlens.bert.encoder import reinitialise
from dprlens.cache.parallel import run
from dprlens.consistency import steps
from dprlens.consistency.controls import Selectivity
from dprlens.consistency.exhibits import ACROSS, Results, Who, without_number
from dprlens.consistency.probes import ProbeResult
from dprlens.consistency.steps import ProbingTask, features, fit_probe
from dprlens.setup import Setup

CONTROLLED = ("linear", "tied", "bilinear")  # probes for selectivity, online code and learning curves
PAIRED = ("linear", "tied", "bilinear", "dot")  # probes that reversible pairs are given to

Cell = tuple[str, str, int]  # encoder pair, probe, layer


@dataclass(frozen=True)
class Grid:
    """The cells of Table 1 that are asked for, and what fits their probes."""

    setup: Setup
    tasks: Mapping[str, ProbingTask]  # by encoder pair
    probes: Sequence[str]
    choices: Sequence[int]  # numbers of passages to choose from
    layers: Sequence[int]
    workers: ProcessPoolExecutor | None = None

    @cached_property
    def golds(self) -> np.ndarray:
        """The gold passage of each test question [question]."""
        return next(iter(self.tasks.values())).items("test").choices[:, 0]

    @property
    def last(self) -> int:
        """The last layer."""
        return max(self.layers)

    @property
    def middle(self) -> int:
        """The layer in the middle."""
        return self.layers[len(self.layers) // 2]

    @property
    def fewest(self) -> int:
        """The least number of passages to choose from."""
        return min(self.choices)

    @property
    def some_layers(self) -> list[int]:
        """The middle and the last layer, for what takes long."""
        return sorted({self.middle, self.last})

    @property
    def seeds(self) -> range:
        """Seeds of repeated draws of slots and negatives, from the page's on."""
        return range(self.setup.seed, self.setup.seed + self.setup.profile.probing.repeats)

    def of(self, *encoders: str) -> dict[str, ProbingTask]:
        """The tasks of those of these encoder pairs that are asked for."""
        return {who: self.tasks[who] for who in encoders if who in self.tasks}

    def controlled(self) -> dict[Who, ProbingTask]:
        """The encoder pairs and probes of selectivity, online code and learning curves."""
        tasks = self.of("pretrained", "dpr_paired", "random0")
        return {(who, name): task for who, task in tasks.items() for name in CONTROLLED if name in self.probes}


def fit_probes(grid: Grid) -> Results:
    """Fit every probe of the grid, the untrained one several times, since it says most as a mean."""
    calls = {
        (who, name): partial(steps.fit_probe, task, name, grid.choices, grid.layers)
        for name in grid.probes
        for who, task in grid.tasks.items()
        if name not in ("untrained", "replication") and not (name == "low_rank" and "random" in who)
    }
    for task in grid.of("pretrained").values() if "untrained" in grid.probes else ():
        calls |= {
            (f"pretrained{seed}", "untrained"): partial(
                steps.fit_probe, replace(task, seed=seed), "untrained", grid.choices, grid.layers
            )
            for seed in grid.seeds
        }
    return Results(run(calls, grid.workers), grid.choices, grid.layers, grid.golds)


def fit_redrawn(grid: Grid) -> dict[tuple[str, int], ProbeResult]:
    """The paper's probe at the last layer with slots and negatives drawn anew, by encoder pair and seed."""
    calls = {
        (who, seed): partial(steps.fit_probe, replace(task, seed=seed), "linear", grid.choices, [grid.last])
        for who, task in grid.of("pretrained", "dpr_query").items()
        for seed in grid.seeds
        if "linear" in grid.probes
    }
    return run(calls, grid.workers)


def fit_penalties(grid: Grid) -> dict[Who, ProbeResult]:
    """The paper's probe at the last layer with a stronger and a weaker penalty, by strength and encoder pair."""
    spec = grid.setup.profile.probe
    specs = {"stronger": replace(spec, l2=10 * spec.l2), "weaker": replace(spec, l2=spec.l2 / 10)}
    calls = {
        (strength, who): partial(steps.fit_probe, replace(task, spec=own), "linear", grid.choices, [grid.last])
        for strength, own in specs.items()
        for who, task in grid.of("pretrained", "dpr_query").items()
        if "linear" in grid.probes
    }
    return run(calls, grid.workers)


def fit_last_layer(grid: Grid, encoders: Iterable[str], probes: Iterable[str], fit_on: str = "train") -> Results:
    """Fit probes at the last layer only, to train questions or to half of the test questions."""
    calls = {
        (who, name): partial(steps.fit_probe, task, name, grid.choices, [grid.last], fit_on)
        for who, task in grid.of(*encoders).items()
        for name in probes
        if name in grid.probes
    }
    return Results(run(calls, grid.workers), grid.choices, [grid.last], grid.golds)


def fit_reversible(grid: Grid) -> dict[Who, dict[str, np.ndarray]]:
    """Probes on reversible pairs of test questions at the last layer, fitted in two ways."""
    calls = {
        (who, name): partial(steps.fit_reversible_pairs, task, name, grid.last)
        for who, task in grid.of("pretrained", "dpr_paired", "random0").items()
        for name in PAIRED
    }
    return run(calls, grid.workers)


def fit_control_tasks(grid: Grid) -> dict[Cell, Selectivity]:
    """Probes of two passages on the task and on the control task (`controls.selectivity`)."""
    calls = {
        who: partial(steps.control_task, task, who[1], grid.fewest, grid.some_layers)
        for who, task in grid.controlled().items()
    }
    return {
        (*who, layer): Selectivity(rates["questions"], task, control)
        for who, rates in run(calls, grid.workers).items()
        for layer, task, control in zip(grid.some_layers, rates["task"], rates["control"], strict=True)
    }


def fit_online_codes(grid: Grid) -> dict[Cell, np.ndarray]:
    """Compression of the answers by each probe's online code [order] (`controls.online_code`)."""
    calls = {
        who: partial(steps.code_lengths, task, who[1], grid.fewest, grid.some_layers, len(grid.seeds))
        for who, task in grid.controlled().items()
    }
    return {
        (*who, layer): orders
        for who, by_layer in run(calls, grid.workers).items()
        for layer, orders in zip(grid.some_layers, by_layer, strict=True)
    }


def fit_parts(grid: Grid) -> dict[Who, dict[int, np.ndarray]]:
    """Whether each test question is right at the last layer [question], by number of train questions fitted to."""
    questions = len(next(iter(grid.tasks.values())).items("train").questions)
    sizes = [questions // part for part in (8, 4, 2, 1)]
    calls = {
        who: partial(steps.learning_curve, task, who[1], grid.fewest, grid.last, sizes)
        for who, task in grid.controlled().items()
    }
    return {who: dict(zip(sizes, right, strict=True)) for who, right in run(calls, grid.workers).items()}


def probing_tasks(
    setup: Setup, pooling: str = "cls", workers: ProcessPoolExecutor | None = None
) -> dict[str, ProbingTask]:
    """Who encodes the questions and who the passages, in Table 1, by name.

    pretrained; dpr_query and dpr_context, one tower for both; dpr_paired, each tower for its own (AMB-B2); random0 …,
    networks of random weights.
    """
    chosen = setup.profile
    encoders = {"pretrained": setup.base, "dpr_query": setup.dpr.query, "dpr_context": setup.dpr.passage}
    encoders |= {f"random{i}": reinitialise(setup.base, setup.seed + i) for i in range(chosen.probing.random_encoders)}
    seen = run({name: partial(features, one, setup.part, pooling) for name, one in encoders.items()}, workers)
    pairs = {name: (name, name) for name in encoders} | {"dpr_paired": ("dpr_query", "dpr_context")}
    order = ("pretrained", "dpr_query", "dpr_context", "dpr_paired")
    return {
        name: ProbingTask(seen[query], seen[passage], setup.part, chosen.negatives, chosen.probe, setup.seed)
        for name in dict.fromkeys((*order, *pairs))
        for query, passage in (pairs[name],)
    }


def probed_in_worlds(
    setup: Setup,
    choices: Sequence[int],
    layers: Sequence[int],
    pooling: str = "cls",
    workers: ProcessPoolExecutor | None = None,
) -> list[Results]:
    """The probes of `exhibits.ACROSS` in several worlds, from the page's seed on; none if the profile has one."""
    chosen = setup.profile
    if chosen.probing.worlds == 1:
        return []
    found, wanted = [], {who for pair in ACROSS.values() for who in pair}
    for seed in range(setup.seed, setup.seed + chosen.probing.worlds):
        tasks = probing_tasks(replace(setup, seed=seed), pooling, workers)
        calls = {
            (who, probe): partial(fit_probe, task, probe, choices, layers)
            for who, task in tasks.items()
            for name, probe in wanted
            if name == without_number(who)
        }
        golds = tasks["pretrained"].items("test").choices[:, 0]
        found.append(Results(run(calls, workers), choices, layers, golds))
    return found
