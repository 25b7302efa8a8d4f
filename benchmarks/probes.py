"""The paper's linear probe beside a loop over scikit-learn's LogisticRegression: same features, slots and splits.

Timed, for every layer and N: standardising the train questions' features, a fit for each strength of the path, and the
choice among them by the cross-entropy of the dev questions. Not timed: features, slots, accuracy on the test questions.
Prints a block for each N, and ends with status 1 if the two sides' accuracies differ, since then no ratio means
anything. README.md says what is the same on both sides and what is not.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from dprlens import steps
from dprlens.probe import Matching, items, make_probe, matching
from dprlens.profile import SMALL
from dprlens.world import SPLITS

SEED = 0
SPEC = SMALL.probe
CHOICES = 2, 5  # passages to choose from
ROUNDS = 3
ACCURACY = 0.02  # the two sides may differ by this much in the mean over layers


class Cell(NamedTuple):
    """What both sides are given for one layer and N: X [question, 1 + slot, d_model] and y [question] of each split."""

    train: tuple[ndarray, ndarray]
    dev: tuple[ndarray, ndarray]
    test: tuple[ndarray, ndarray]


class Fitted(NamedTuple):
    """What one side makes of a cell."""

    predict: Callable[[ndarray], ndarray]  # X -> slots [question]
    fits: int  # strengths that were fitted


class Done(NamedTuple):
    """One side's run on one cell."""

    seconds: float
    accuracy: float  # on the test questions
    fits: int


# what both sides work on


def load_layers() -> list[tuple[Matching, Matching, Matching]]:
    """Train, dev and test questions at every layer of the base model of `small`, as `steps.probed` puts them together.

    All of it is in the cache once the book was made; else the base model is trained first, which takes minutes.
    """
    world = steps.closed_world(SMALL.world, SEED)
    base = steps.base_model(world, SMALL.text, SMALL.encoder, SMALL.pretrain, SEED)
    seen = steps.features(base, world)
    mined = steps.mined_negatives(world, SMALL.negatives)
    chosen = [items(world, mined, split, SPEC.most, SEED) for split in SPLITS]
    return [tuple(matching(seen, seen, layer, part) for part in chosen) for layer in range(len(seen.questions))]


def shown(layer: Sequence[Matching], n: int) -> Cell:
    """n passages in random slots, drawn anew for each split, the same at every layer."""
    return Cell(*(part.shown(n, 3 * SEED + i) for i, part in enumerate(layer)))


# the two sides


def fit_ours(cell: Cell) -> Fitted:
    probe = make_probe("linear", SPEC).fit_path(*cell.train, cell.dev, SPEC.l2)
    # the path is left one strength after the chosen one, unless that is the last
    return Fitted(probe.predict, min(SPEC.l2.index(probe.l2) + 2, len(SPEC.l2)))


def fit_theirs(cell: Cell, warm_start: bool) -> Fitted:
    """As one writes it: a loop over the strengths, in which the model with the least log loss is kept."""
    (X, y), (X_dev, y_dev) = cell.train, cell.dev
    scaler = StandardScaler().fit(flat(X))
    Z, Z_dev = scaler.transform(flat(X)), scaler.transform(flat(X_dev))
    model = LogisticRegression(solver="lbfgs", tol=1e-4, warm_start=warm_start)
    best, least = None, np.inf
    vectors = 2 if X.shape[1] == 3 else 1  # of two slots it keeps one vector, ours two: half the penalty is the same
    for l2 in SPEC.l2:
        model.set_params(C=vectors / (len(y) * l2)).fit(Z, y)
        loss = log_loss(y_dev, model.predict_proba(Z_dev), labels=model.classes_)
        if loss < least:
            best, least = (model.coef_.copy(), model.intercept_.copy()), loss  # the next fit may write into them
    model.coef_, model.intercept_ = best
    return Fitted(lambda X: model.predict(scaler.transform(flat(X))), len(SPEC.l2))


def flat(X: ndarray) -> ndarray:
    """[q; p_1; …; p_N] of each question."""
    return X.reshape(len(X), -1)


SIDES = {
    "dprlens": fit_ours,
    "scikit-learn": partial(fit_theirs, warm_start=False),
    "warm start": partial(fit_theirs, warm_start=True),
}


# both


def run(fit: Callable[[Cell], Fitted], cell: Cell) -> Done:
    began = time.perf_counter()
    fitted = fit(cell)
    seconds = time.perf_counter() - began
    X, y = cell.test
    return Done(seconds, float(np.mean(fitted.predict(X) == y)), fitted.fits)


def compare(layers: Sequence[Sequence[Matching]], n: int) -> bool:
    """A block of the output; True if the sides are as accurate as each other in the mean over layers."""
    cells = [shown(layer, n) for layer in layers]
    for fit in SIDES.values():
        fit(cells[-1])  # untimed
    # the sides take turns at every cell, so that a busy machine slows all of them
    found = np.array([[[run(fit, cell) for fit in SIDES.values()] for cell in cells] for _ in range(ROUNDS)])
    seconds = found[..., 0].sum(axis=1)  # [round, side], all layers together
    accuracy, fits = found[-1, ..., 1], found[-1, ..., 2]  # [layer, side], the same in every round
    apart = np.abs(accuracy - accuracy[:, :1]).max(axis=0)
    questions = ", ".join(f"{len(part[1])} {split}" for part, split in zip(cells[0], SPLITS, strict=True))
    print(f"\nN = {n}, {len(cells)} layers; questions: {questions}")
    line("", SIDES)
    line("seconds", [f"{median(side):.2f}" for side in seconds.T])
    line("times dprlens (range)", ["", *(ratio(side, seconds[:, 0]) for side in seconds.T[1:])])
    line("fits", [f"{side:.0f}" for side in fits.sum(axis=0)])
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
    strengths = ", ".join(str(l2) for l2 in SPEC.l2)
    print(f"{libraries}, Python {platform.python_version()}; 1 thread; l2: {strengths}; {ROUNDS} rounds")
    print(f"load of the machine at the start: {load()}")
    with threadpool_limits(1):
        same = [compare(layers, n) for n in CHOICES]
    print(f"\nload of the machine at the end: {load()}")
    if not all(same):
        print("the two sides are not equally accurate, so no ratio counts: compare the accuracies above")
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
