"""Does what BERT knows bound what DPR finds? The contrasts of the causal test (the paper's conclusion; claims C.1–C.3).

All functions take rows of `steps.arms`: one row a question, model and seed, with what pre-training said about the fact
that decides the question, and the place at which its passage was found. Whether a fact was stated, and how often, was
dealt at random, so a difference between groups of questions is the effect of having read the fact. Questions about one
fact are not independent: intervals draw whole facts, of each seed apart.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dprlens.intervals import Estimate, difference, gap, mean, slope


@dataclass(frozen=True)
class BoundSpec:
    """The models of the causal test: a few of full depth, and more that are shallow and live in a smaller world."""

    seeds: tuple[int, ...] = (0,)  # of the full-depth models, beside the page's own seed
    told: tuple[str, ...] = ("true", "nothing")  # their arms
    shallow_depth: int = 3  # layers of the shallow ones
    shallow_size: float = 0.5  # of their world, against the page's
    shallow_seeds: tuple[int, ...] = (0, 1, 2)
    sizes: tuple[float, ...] = (0.25, 0.5)  # worlds for the curve of the effect against world size
    forms: tuple[float, ...] = (0.1, 0.9)  # … and in each, worlds that differ in the share of described statements


def tested(rows: pd.DataFrame, kind: str, **where: Hashable) -> pd.DataFrame:
    """Test questions of a kind whose deciding fact DPR training never asks for; `where` gives values of columns."""
    chosen = (rows["split"] == "test") & (rows["kind"] == kind) & ~rows["in_training"]
    for column, value in where.items():
        chosen &= rows[column] == value
    return rows[chosen]


def facts(rows: pd.DataFrame) -> list[tuple]:
    """The cluster of each row: its deciding fact, in the world of its seed."""
    return [*zip(rows["seed"], rows["fact"], strict=True)]


def top(rows: pd.DataFrame, k: int, place: str = "place") -> Estimate:
    """Share of the rows whose passage is among the first k."""
    return mean(rows[place] < k, facts(rows))


def tops(rows: pd.DataFrame, k: int, by: str | list[str]) -> dict:
    """`top` of each group of rows."""
    return {group: top(found, k) for group, found in rows.groupby(by)}


def known_minus_held_out(rows: pd.DataFrame, k: int) -> Estimate:
    """Top-k accuracy where the deciding fact is known, minus where it is held out: two groups of facts."""
    return apart(*(rows[rows["state"] == state] for state in ("known", "held out")), k)


def apart(a: pd.DataFrame, b: pd.DataFrame, k: int) -> Estimate:
    """Top-k accuracy of rows a minus that of rows b, about different facts."""
    return gap(a["place"] < k, b["place"] < k, facts(a), facts(b))


def paired(a: pd.DataFrame, b: pd.DataFrame, k: int, place: str = "place") -> Estimate:
    """Top-k accuracy in arm a minus that in arm b, on the same questions of the same worlds."""
    both = a.merge(b, on=["seed", "question"], suffixes=("", "_b"), validate="one_to_one")
    if len(both) != len(a) or len(both) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} rows share {len(both)} questions; give two arms of the same worlds")
    return difference(both[place] < k, both[f"{place}_b"] < k, facts(both))


def dose_slope(rows: pd.DataFrame, k: int) -> Estimate:
    """Gain in top-k accuracy for ten times the exposures: slope on log10(1 + exposures)."""
    return slope(np.log10(1 + rows["exposures"]), rows["place"] < k, facts(rows))


def by_seed(rows: pd.DataFrame, k: int) -> dict[int, Estimate]:
    """`known_minus_held_out` of each seed."""
    return {seed: known_minus_held_out(found, k) for seed, found in rows.groupby("seed")}


def mostly_described(rows: pd.DataFrame) -> Sequence[bool]:
    """Whether pre-training stated the deciding fact in descriptions more often than not [row]."""
    return rows["described"] > rows["exposures"] / 2
