"""Does what BERT knows bound what DPR finds? The contrasts of the causal test (the paper's conclusion; claims C.1–C.3).

All functions take rows of `steps.causal_test`: one row a question, model and seed, with what pre-training said about
the fact that decides the question, and the place at which its passage was found. Whether a fact was stated, and how
often, was dealt at random, so a difference between groups of questions is the effect of having read the fact. Questions
about one fact are not independent: intervals draw whole facts, of each seed apart.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dprlens.intervals import Estimate, difference, gap, mean, slope

WORLD = ["study", "size", "form", "seed"]  # the columns that say in which world a row's question is asked


@dataclass(frozen=True)
class BoundSpec:
    """The models of the causal test: of full depth in the page's world, and shallow ones in smaller worlds."""

    deep_arms: tuple[tuple[str, int], ...] = (("true", 1), ("nothing", 1))  # what is told (`steps.TOLD`), to how many:
    #   the models of the page's seed and of those that follow it
    shallow_arms: tuple[tuple[str, int], ...] = (("true", 3), ("false", 1), ("nothing", 3))
    shallow_layers: int = 3
    shallow_size: float = 0.5  # of the shallow models' world, against the page's
    grid: tuple[tuple[float, float], ...] = ((0.25, 0.1), (0.25, 0.9))  # worlds of other size and share of description
    grid_seeds: int = 1


def tested(rows: pd.DataFrame, kind: str, **where: Hashable) -> pd.DataFrame:
    """Test questions of a kind whose deciding fact DPR training never asks for; `where` gives values of columns."""
    chosen = (rows["split"] == "test") & (rows["kind"] == kind) & ~rows["in_training"]
    for column, value in where.items():
        chosen &= rows[column] == value
    return rows[chosen]


def facts(rows: pd.DataFrame) -> list[tuple]:
    """The cluster of each row: its deciding fact, in the world of its model."""
    return [*rows[[*WORLD, "fact"]].itertuples(index=False, name=None)]


def top(rows: pd.DataFrame, k: int, place: str = "place") -> Estimate | None:
    """Share of the rows whose passage is among the first k; None without rows.

    Places in rows are among all passages of their world, so that every k has an answer. ValueError for a k below 1.
    """
    if k < 1:
        raise ValueError(f"k = {k} counts no passage; give 1 or more")
    return mean(rows[place] < k, facts(rows)) if len(rows) else None


def tops(rows: pd.DataFrame, k: int, by: str | list[str]) -> dict:
    """`top` of each group of rows."""
    return {group: top(found, k) for group, found in rows.groupby(by)}


def known_minus_held_out(rows: pd.DataFrame, k: int) -> Estimate | None:
    """Top-k accuracy where the deciding fact is known, minus where it is held out (`apart`)."""
    return apart(*(rows[rows["state"] == state] for state in ("known", "held out")), k)


def apart(a: pd.DataFrame, b: pd.DataFrame, k: int) -> Estimate | None:
    """Top-k accuracy of rows a minus that of rows b, about different facts; None if one of them has no rows."""
    if a.empty or b.empty:
        return None
    return gap(a["place"] < k, b["place"] < k, facts(a), facts(b))


def paired(a: pd.DataFrame, b: pd.DataFrame, k: int, place: str = "place") -> Estimate | None:
    """Top-k accuracy in arm a minus that in arm b, on the same questions of the same worlds; None without questions."""
    both = a.merge(b, on=[*WORLD, "question"], suffixes=("", "_b"))
    shared = len(both.drop_duplicates([*WORLD, "question"]))
    if not len(a) == len(b) == shared == len(both):
        raise ValueError(f"{len(a)} and {len(b)} rows share {shared} questions; give two arms of the same worlds")
    if both.empty:
        return None
    return difference(both[place] < k, both[f"{place}_b"] < k, facts(both))


def dose_slope(rows: pd.DataFrame, k: int) -> Estimate:
    """Gain in top-k accuracy for ten times the exposures: slope on log10(1 + exposures)."""
    return slope(np.log10(1 + rows["exposures"]), rows["place"] < k, facts(rows))


def by_seed(rows: pd.DataFrame, k: int) -> dict[int, Estimate | None]:
    """`known_minus_held_out` of each seed."""
    return {seed: known_minus_held_out(found, k) for seed, found in rows.groupby("seed")}


def mostly_described(rows: pd.DataFrame) -> Sequence[bool]:
    """Whether pre-training stated the deciding fact in descriptions more often than not [row]."""
    return rows["described"] > rows["exposures"] / 2
