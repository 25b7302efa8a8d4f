"""Cached steps of section 2: states by layer, probes of these states, and controls.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dprlens.bert.encoder import POOLINGS, Encoder
from dprlens.cache.artifacts import Task, step
from dprlens.consistency import controls
from dprlens.consistency.probes import (
    Features,
    Items,
    Matching,
    ProbeResult,
    ProbeSpec,
    cross_fit,
    evaluate,
    items,
    make_probe,
    matching,
)
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.retrieval.steps import mined_negatives
from dprlens.world.records import World

FITTED_AND_TESTED = ("train", "test")  # splits; "dev" is for DPR training alone
LIBRARIES = ("bm25s", "scipy", "scikit-learn")  # on which a fitted probe and its items depend


@dataclass(frozen=True, eq=False)
class ProbingTask(Task):
    """Questions in one encoder's features, passages in another's (or the same), and how to fit probes to both."""

    query: Features
    passage: Features
    world: World
    negatives: NegativesSpec
    spec: ProbeSpec
    seed: int

    def items(self, split: str) -> Items:
        """Draw the questions of a split with the passages that each chooses from."""
        return items(self.world, mined_negatives(self.world, self.negatives), split, self.spec.most, self.seed)

    def matching(self, items: Items, layer: int) -> Matching:
        """Select the features of these questions and of their passages at a layer."""
        return matching(self.query, self.passage, layer, items)


@step(version=1, threads=1)
def features(encoder: Encoder, world: World, pooling: str = "cls") -> Features:
    """Encode all questions and passages of the world: states by layer."""
    if pooling not in POOLINGS:
        raise ValueError(f"pooling = {pooling!r} is not known; choose one of {', '.join(POOLINGS)}")
    read = encoder.cls_by_layer if pooling == "cls" else encoder.mean_by_layer
    questions = read([question.text for question in world.questions])
    passages = read([(passage.title, passage.text) for passage in world.passages])
    return Features(questions.numpy(), passages.numpy())


@step(version=2, libraries=LIBRARIES, on_device=False, threads=1)
def fit_probe(
    task: ProbingTask, probe: str, choices: Sequence[int], layers: Sequence[int], fit_on: str = "train"
) -> ProbeResult:
    """Fit one probe at each layer and number of passages to choose from, and test it.

    It is fitted to the train questions, on which DPR was trained too, or (fit_on = "test") to the other half of the
    test questions.
    """
    if fit_on not in ("train", "test"):
        raise ValueError(f"fit_on = {fit_on!r} is not known; choose train or test")
    chosen, seen = _by_split(task, layers)
    maker = make_probe(probe, task.spec, task.seed)
    if fit_on == "test":
        golds = chosen["test"].choices[:, 0]
        return cross_fit(maker, seen["test"], golds, choices, task.seed)
    return evaluate(maker, seen["train"], seen["test"], choices, task.seed)


@step(version=2, libraries=LIBRARIES, on_device=False, threads=1)
def control_task(task: ProbingTask, probe: str, n: int, layers: Sequence[int]) -> dict[str, np.ndarray]:
    """Run `controls.selectivity` on test questions: task and control [layer, held-back question], questions."""
    chosen, seen = _by_split(task, layers)
    ids = [passage.id for passage in task.world.passages]
    found = [
        controls.selectivity(make_probe(probe, task.spec, task.seed), shown, chosen["test"], ids, n, task.seed)
        for shown in seen["test"]
    ]
    return {
        "task": np.array([one.task for one in found]),
        "control": np.array([one.control for one in found]),
        "questions": found[0].questions,
    }


@step(version=2, libraries=LIBRARIES, on_device=False, threads=1)
def code_lengths(task: ProbingTask, probe: str, n: int, layers: Sequence[int], orders: int) -> np.ndarray:
    """Compute compression by `controls.online_code` on the test questions [layer, order]; uninformative: 1."""
    _, seen = _by_split(task, layers)
    found = []
    for shown in seen["test"]:
        X, y = shown.shown(n, task.seed)
        maker = make_probe(probe, task.spec, task.seed)
        found.append(len(y) * np.log2(n) / controls.online_code(maker, X, y, orders, task.seed))
    return np.array(found)


@step(version=2, libraries=LIBRARIES, on_device=False, threads=1)
def learning_curve(task: ProbingTask, probe: str, n: int, layer: int, sizes: Sequence[int]) -> np.ndarray:
    """Compute `controls.learning_curve`: whether each test question is right [size, question]."""
    _, seen = _by_split(task, [layer])
    maker, train, test = make_probe(probe, task.spec, task.seed), seen["train"][0], seen["test"][0]
    return np.array([*controls.learning_curve(maker, train, test, n, sizes, task.seed).values()])


@step(version=2, libraries=LIBRARIES, on_device=False, threads=1)
def fit_reversible_pairs(task: ProbingTask, probe: str, layer: int) -> dict[str, np.ndarray]:
    """Test a probe on the reversible pairs of the test questions, both orders of slots [order · question].

    ordinary: fitted to the train questions as in Table 1; balanced: to the reversible pairs among them. Empty where the
    world has no such pairs.
    """
    world, seed = task.world, task.seed
    mined = mined_negatives(world, task.negatives)
    _, seen = _by_split(task, [layer])
    pairs = {split: task.matching(controls.reversible(world, mined, split, seed), layer) for split in FITTED_AND_TESTED}
    X, y = controls.both_orders(pairs["test"])
    fits = {"ordinary": seen["train"][0].shown(2, seed)}
    if all(len(pairs[split].questions) for split in FITTED_AND_TESTED):
        fits["balanced"] = controls.both_orders(pairs["train"])
    return {
        name: make_probe(probe, task.spec, seed).fit(*fit).predict(X) == y if len(y) else y
        for name, fit in fits.items()
    }


@step(version=2, libraries=LIBRARIES, on_device=False, threads=1)
def fit_surface_features(
    world: World, negatives: NegativesSpec, spec: ProbeSpec, choices: Sequence[int], seed: int
) -> dict[str, np.ndarray]:
    """Fit `controls.surface_features` and test them: whether each test question is right, by name [n, question]."""
    mined = mined_negatives(world, negatives)
    splits = [items(world, mined, split, spec.most, seed) for split in FITTED_AND_TESTED]
    return {
        name: evaluate(probe, [train], [test], choices, seed).correct[:, 0]
        for name, (probe, (train, test)) in controls.surface_features(world, splits, negatives).items()
    }


def _by_split(task: ProbingTask, layers: Sequence[int]) -> tuple[dict[str, Items], dict[str, list[Matching]]]:
    """Collect, by split, the questions and their features at each layer."""
    chosen = {split: task.items(split) for split in FITTED_AND_TESTED}
    return chosen, {split: [task.matching(own, layer) for layer in layers] for split, own in chosen.items()}
