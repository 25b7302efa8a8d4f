"""The paper's linear probe beside a loop over scikit-learn's LogisticRegression: same features, slots and splits.

Timed, for every layer and N: standardising the train questions' features and a fit, to convergence on both sides. Not
timed: features, slots, accuracy on the test questions.
Prints a block for each N, and ends with status 1 if the two sides' accuracies differ, since then no ratio means
anything. README.md says what is the same on both sides and what is not.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from dprlens.consistency.probes import Matching, items, make_probe, matching
from dprlens.consistency.steps import features
from dprlens.profile import SMALL
from dprlens.setup import Setup

SEED = 0
SPEC = SMALL.probe
ASKED = "train", "test"  # splits of the questions
CHOICES = 2, 5  # passages to choose from
ROUNDS = 3
TOLERANCE = 1e-6  # of the gradient, as ours
ACCURACY = 0.005  # the two sides may differ by this much in the mean over layers


class Cell(NamedTuple):
    """What both sides are given for one layer and N: X [question, 1 + slot, d_model] and y [question] of each split."""

    train: tuple[ndarray, ndarray]
    test: tuple[ndarray, ndarray]


class Done(NamedTuple):
    """One side's run on one cell."""

    seconds: float
    accuracy: float  # on the test questions


# what both sides work on


def load_layers() -> list[tuple[Matching, Matching]]:
    """Train and test questions at every layer of the base model of `small`, as `steps.probed` puts them together.

    All of it is in the cache once the book was made; else the base model is trained first, which takes minutes.
    """
    setup = Setup(SMALL, SEED)
    seen = features(setup.base, setup.world)
    chosen = [items(setup.world, setup.negatives, split, SPEC.most, SEED) for split in ASKED]
    return [tuple(matching(seen, seen, layer, part) for part in chosen) for layer in range(len(seen.questions))]


def shown(layer: Sequence[Matching], n: int) -> Cell:
    """n passages in random slots, drawn anew for each split, the same at every layer."""
    return Cell(*(part.shown(n, 3 * SEED + i) for part, i in zip(layer, (0, 2), strict=True)))


# the two sides


def fit_ours(cell: Cell) -> Callable[[ndarray], ndarray]:
    return make_probe("linear", SPEC).fit(*cell.train).predict


def fit_theirs(cell: Cell) -> Callable[[ndarray], ndarray]:
    X, y = cell.train
    scaler = StandardScaler().fit(flat(X))
    # of two slots it keeps one vector, ours two: half the penalty is the same
    strength = (2 if X.shape[1] == 3 else 1) / (len(y) * SPEC.l2)
    model = LogisticRegression(C=strength, tol=TOLERANCE, max_iter=SPEC.iterations).fit(scaler.transform(flat(X)), y)
    return lambda X: model.predict(scaler.transform(flat(X)))


def flat(X: ndarray) -> ndarray:
    """[q; p_1; …; p_N] of each question."""
    return X.reshape(len(X), -1)


SIDES = {
    "dprlens": fit_ours,
    "scikit-learn": fit_theirs,
}


# both


def run(fit: Callable[[Cell], Callable[[ndarray], ndarray]], cell: Cell) -> Done:
    began = time.perf_counter()
    predict = fit(cell)
    seconds = time.perf_counter() - began
    X, y = cell.test
    return Done(seconds, float(np.mean(predict(X) == y)))


def compare(layers: Sequence[Sequence[Matching]], n: int) -> bool:
    """A block of the output; True if the sides are as accurate as each other in the mean over layers."""
    cells = [shown(layer, n) for layer in layers]
    for fit in SIDES.values():
        fit(cells[-1])  # untimed
    # the sides take turns at every cell, so that a busy machine slows all of them
    found = np.array([[[run(fit, cell) for fit in SIDES.values()] for cell in cells] for _ in range(ROUNDS)])
    seconds = found[..., 0].sum(axis=1)  # [round, side], all layers together
    accuracy = found[-1, ..., 1]  # [layer, side], the same in every round
    apart = np.abs(accuracy - accuracy[:, :1]).max(axis=0)
    questions = ", ".join(f"{len(part[1])} {split}" for part, split in zip(cells[0], ASKED, strict=True))
    print(f"\nN = {n}, {len(cells)} layers; questions: {questions}")
    line("", SIDES)
    line("seconds", [f"{median(side):.2f}" for side in seconds.T])
    line("times dprlens (range)", ["", *(ratio(side, seconds[:, 0]) for side in seconds.T[1:])])
    line("test accuracy, mean", [f"{side:.4f}" for side in accuracy.mean(axis=0)])
    line("greatest difference", ["", *(f"{side:.4f}" for side in apart[1:])])
    return bool(np.ptp(accuracy.mean(axis=0)) <= ACCURACY)


def ratio(theirs: ndarray, ours: ndarray) -> str:
    """Of the medians, and its range over the rounds."""
    each = theirs / ours
    return f"{median(theirs) / median(ours):.2f} ({each.min():.2f}–{each.max():.2f})"


def line(name: str, values: Iterable[str]) -> None:
    print(f"{name:22}" + "".join(f"{value:>18}" for value in values), flush=True)


def load() -> str:
    return f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def main() -> int:
    layers = load_layers()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "scipy", "numpy"))
    print(f"{libraries}, Python {platform.python_version()}; 1 thread; l2: {SPEC.l2}; {ROUNDS} rounds")
    print(f"load of the machine at the start: {load()}")
    with threadpool_limits(1):
        same = [compare(layers, n) for n in CHOICES]
    print(f"\nload of the machine at the end: {load()}")
    if not all(same):
        print("the two sides are not equally accurate, so no ratio counts: compare the accuracies above")
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
