"""Spec and numbers of the chapter on late facts: recall and retrieval by when a fact is read.

All functions take rows of `entering`: one row per question and model, with its linking fact, the share of that fact's
reserved wordings that the model completed before DPR training, `recalled`, and after it, `kept`, and the `place` of the
gold passage then, from 0. Questions about one fact are not independent, nor are models of one world: intervals draw
whole facts, with the results of all models on them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray

from dprlens.intervals import Estimate, gap, mean, slope
from dprlens.knowledge_bound import exhibits
from dprlens.world.closed.entry import AFTER, Telling

NEVER = -1.0  # in place of a point of entry: no text states the fact


class Arm(NamedTuple):
    """Way to teach facts to a model whose pre-training left them out."""

    telling: Telling = Telling()
    only: tuple[str, ...] = ()  # the parts of the network that learn (`pretrain.read_on`); empty: all
    speed: float | None = (
        1.0  # multiple of the other arms' learning rate; None: as in pre-training (`pretrain.read_on`)
    )
    at_cls: bool = False  # the object is predicted at [CLS] as well (`pretrain.masked_batches`)
    opened: bool = False  # DPR training has questions through one half of the facts, the other half is evaluated

    def rate(self, usual: float) -> float | None:
        """Compute the learning rate from the usual one; None: as in pre-training."""
        return None if self.speed is None else self.speed * usual


ARMS = MappingProxyType(
    {
        "plain": Arm(),
        "few": Arm(Telling(exposures=15)),
        "many": Arm(Telling(exposures=120)),
        "one_wording": Arm(Telling(wordings=1)),
        "half_described": Arm(Telling(described=0.5)),
        "described": Arm(Telling(described=1.0)),
        "beside_neighbours": Arm(Telling(beside=True)),
        "at_cls": Arm(at_cls=True),
        "fast": Arm(speed=5.0),
        "large_steps": Arm(speed=None),
        "as_at_start": Arm(Telling(exposures=120, described=0.5), speed=None),
        "embeddings": Arm(only=("embeddings",)),
        "first_block": Arm(only=("block0",)),
        "second_block": Arm(only=("block1",)),
        "third_block": Arm(only=("block2",)),
        "opened": Arm(opened=True),
    }
)
REFERENCES = ("never", "start")  # the facts are in no text; or in the pre-training text, as all others


@dataclass(frozen=True)
class LateSpec:
    """Models of the chapter on late facts: shallow ones, in a world where a fact is known fully or not at all."""

    layers: int = 3
    size: float = 0.5  # of the world, relative to the page's
    points: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)  # of entry, shares of pre-training; a last group enters after it
    worlds: int = 1  # from the page's seed on
    deals: int = 1  # models of each world, each with another random assignment of the facts to the points
    constant: int = 1  # of these models, the number also trained with learning rates that do not fall
    learning_rate: float = 3e-4  # of AdamW after pre-training
    rehearsal: float = 1.0  # old segments for each one that states late facts
    # names in `ARMS`
    arms: tuple[str, ...] = ("plain", "half_described", "at_cls", "opened", "large_steps", "as_at_start")

    def __post_init__(self) -> None:
        for field, least in (("layers", 1), ("worlds", 1), ("deals", 1), ("constant", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} = {getattr(self, field)} is too few; give {least} or more")
        for field in ("size", "learning_rate"):
            if not 0 < getattr(self, field) < float("inf"):
                raise ValueError(f"{field} = {getattr(self, field):g} leaves nothing; give a number above 0")
        if not 0 <= self.rehearsal < float("inf"):
            raise ValueError(f"rehearsal = {self.rehearsal:g} is no number of segments; give 0 or more")
        if self.constant > self.deals:
            raise ValueError(f"constant = {self.constant} is more than deals = {self.deals}; give as many or fewer")
        if "plain" not in self.arms:
            raise ValueError(f"arms = {self.arms} leaves out the one that others are compared with; add plain")
        if unknown := [arm for arm in self.arms if arm not in ARMS]:
            raise ValueError(f"there is no arm {unknown[0]!r}; choose from {', '.join(ARMS)}")


def group(point: float) -> str:
    """Name a point of entry for ids and labels: "never", "at0" … "at75", "after"."""
    return "never" if point == NEVER else "after" if point == AFTER else f"at{100 * point:.0f}"


def mean_recall(rows: pd.DataFrame, when: str = "recalled") -> Estimate | None:
    """Estimate the share of facts that the model completed, each fact of each model once; None without rows.

    `when` is "recalled", before DPR training, or "kept", after it.
    """
    facts = _once(rows)
    return mean(facts[when], exhibits.fact_clusters(facts)) if len(facts) else None


def shares_by_block(scores: ndarray) -> ndarray:
    """Compute each block's share of positive attribution [example, block] from [example, block, neuron].

    Shares are equal where no attribution is positive.
    """
    sums = np.maximum(scores, 0).sum(2, dtype=float)
    total = sums.sum(1, keepdims=True)
    return np.divide(sums, total, out=np.full_like(sums, 1 / sums.shape[1]), where=total > 0)


def by_block(rows: pd.DataFrame) -> dict[str, dict[int, Estimate]]:
    """Average shares of attribution, {group of entry: {block: mean}}, of rows of `steps.by_block`.

    Facts are clusters.
    """
    points = sorted({*rows["entry"]} - {NEVER})
    return {
        group(point): {
            int(block): mean(found["share"], exhibits.fact_clusters(found))
            for block, found in rows[rows["entry"] == point].groupby("block")
        }
        for point in points
    }


def measures(k: int) -> dict[str, Callable[[pd.DataFrame], Estimate | None]]:
    """Collect the measures of a group of rows, by the last part of their ids."""
    return {
        "recalled": mean_recall,
        "kept": lambda rows: mean_recall(rows, "kept"),
        "top5": lambda rows: exhibits.mean_measure(rows, 5),
        f"top{k}": lambda rows: exhibits.mean_measure(rows, k),
    }


def curves(rows: pd.DataFrame, k: int) -> dict[str, dict[str, Estimate | None]]:
    """Compute {measure: {group: estimate}}, groups in the order of entry, facts never stated first."""
    points = sorted({*rows["entry"]})
    return {
        name: {group(point): said(rows[rows["entry"] == point]) for point in points}
        for name, said in measures(k).items()
    }


def curves_on_record(kept: Mapping[str, Estimate]) -> dict[str, dict[int, Estimate]]:
    """Collect recorded curves (`report.recorded`): {line: {point of entry in percent: estimate}}."""
    return {
        f"{label}, rates {'fall' if kind == 'falling' else 'stay'}": {
            round(100 * point): kept[name]
            for point in (*LateSpec.points, AFTER)
            if (name := f"rates.{kind}.{group(point)}.{measure}") in kept
        }
        for label, measure in (("recalled", "recalled"), ("found", "top20"))
        for kind in ("falling", "constant")
    }


def contrasts(rows: pd.DataFrame, k: int) -> dict[str, Estimate | None]:
    """Estimate differences between groups, by id; None where one of them has no rows.

    slope: the change in top-k accuracy from entry at the start to entry after the end, by least squares.
    """
    start, after, never = (rows[rows["entry"] == point] for point in (0.0, AFTER, NEVER))
    told = rows[rows["entry"] != NEVER]
    return {
        "start_minus_after.recalled": recalled_apart(start, after),
        f"start_minus_after.top{k}": exhibits.unpaired_difference(start, after, k),
        f"start_minus_never.top{k}": exhibits.unpaired_difference(start, never, k),
        f"after_minus_never.top{k}": exhibits.unpaired_difference(after, never, k),
        f"slope.top{k}": slope(told["entry"], told["place"] < k, exhibits.fact_clusters(told))
        if told["entry"].std() > 0
        else None,
    }


def recalled_apart(a: pd.DataFrame, b: pd.DataFrame) -> Estimate | None:
    """Estimate `mean_recall` of rows a minus that of rows b, about different facts; None if either is empty."""
    if a.empty or b.empty:
        return None
    a, b = _once(a), _once(b)
    return gap(a["recalled"], b["recalled"], exhibits.fact_clusters(a), exhibits.fact_clusters(b))


def recalled_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Select facts completed in every reserved wording, and facts never stated."""
    return rows[(rows["recalled"] == 1) | (rows["entry"] == NEVER)]


def arms(rows: pd.DataFrame, k: int) -> dict[str, dict[str, Estimate | None]]:
    """Compute {arm: {measure: estimate}}, in the order of the rows.

    `minus_never.top…` is paired over the arm's questions.
    """
    return {
        arm: {
            **{name: said(rows[rows["arm"] == arm]) for name, said in measures(k).items()},
            f"minus_never.top{k}": arm_difference(rows, arm, "never", k),
        }
        for arm in dict.fromkeys(rows["arm"])
    }


def arm_difference(rows: pd.DataFrame, arm: str, other: str, k: int) -> Estimate | None:
    """Estimate top-k accuracy in an arm minus that in another, on the first arm's questions."""
    a, b = (rows[rows["arm"] == name] for name in (arm, other))
    question = [*exhibits.WORLD, "question"]  # worlds number their questions alike
    return exhibits.paired_difference(a, b.merge(a[question], on=question), k)


def _once(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep one row for each fact of each model."""
    return rows.drop_duplicates([*exhibits.WORLD, "model", "fact"])
