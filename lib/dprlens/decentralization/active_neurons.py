"""Active neurons: the counts of Figures 1–7, and measures of concentration that complement them.

Arrays are [example, block, neuron] or any other shape that begins with the example. The paper counts neurons above a
share of the greatest attribution "for any number of examples": a *union*, which grows with the number of examples and
depends on one greatest neuron. The measures of concentration below need no threshold.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray

from dprlens.decentralization.attribution import SITES, Attribution
from dprlens.intervals import Estimate, jackknife, mean
from dprlens.world.records import World

SIDES = ("query", "passage")  # whose neurons: those of the question encoder, or of the context encoder
SHARES = (0.01, 0.1, 0.5)  # of the examples: `at_least` counts neurons active in so many
TOP = 0.01  # of the neurons: `mass_in_top` is their part of all attribution


@dataclass(frozen=True)
class SampleSpec:
    """Choice of the attributed examples and of each one's candidates; the paper specifies neither (AMB-C9)."""

    examples: int = 240  # paper: all dev questions
    candidates: int = 16  # the gold one, hard ones, and others at random
    hard: int = 7  # hard ones among them, at most
    entropy: float = 0.5  # of a model's choices, as a share of the greatest possible: sets each model's temperature

    def __post_init__(self) -> None:
        for field, least in (("examples", 2), ("candidates", 2), ("hard", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} = {getattr(self, field)} is too few; give {least} or more")
        if not 0 < self.entropy < 1:
            raise ValueError(f"entropy = {self.entropy:g} is no share; give more than 0 and less than 1")


@dataclass(frozen=True)
class ActivitySpec:
    """Thresholds and counts of the chapters on neurons, and their repetitions."""

    threshold: float = 0.1  # of the greatest attribution; paper: 0.1
    thresholds: tuple[float, ...] = (0.005, 0.01, 0.05, 0.2, 0.3)  # paper: Figures 3 to 7
    few: int = 32  # examples for variants of the method
    outliers: int = 10  # neurons that are left out, to see what depends on them
    changed: tuple[int, ...] = (10, 30, 100, 300)  # neurons silenced or amplified at once
    dpr_seeds: int = 1  # trainings of DPR from the page's base model
    worlds: int = 1  # worlds and networks in which the comparison is made again

    def __post_init__(self) -> None:
        for field, least in (("few", 2), ("outliers", 1), ("dpr_seeds", 1), ("worlds", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} = {getattr(self, field)} is too few; give {least} or more")
        for threshold in (self.threshold, *self.thresholds):
            if not 0 < threshold <= 1:
                raise ValueError(f"threshold = {threshold} is no share; give more than 0 and at most 1")
        if not self.changed or min(self.changed) < 1:
            raise ValueError(f"changed = {self.changed} changes nothing; give numbers of neurons, 1 or more")


class Sample(NamedTuple):
    """Examples and the candidates of each, as places in the world."""

    examples: ndarray  # [example]: questions, or passages on the passage side
    candidates: ndarray  # [example, choice]: passages, or questions; 0 is the gold one


def sample(
    world: World,
    mined: Mapping[str, Sequence[str]],
    side: str,
    spec: SampleSpec,
    seed: int = 0,
    only: Sequence[int] | None = None,
) -> Sample:
    """Draw test questions in random order, or their gold passages; fewer, if the world has fewer.

    `only` gives the examples instead, which must be such questions or passages.

    A question chooses among its gold passage, its hard negatives and random passages; a passage among one of its
    questions, questions whose hard negative it is, and random questions about other passages. A smaller sample with the
    same seed is the beginning of a larger one. Raises ValueError if there are fewer candidates than `spec.candidates`.
    """
    if side not in SIDES:
        raise ValueError(f"side = {side!r} is not known; choose one of {', '.join(SIDES)}")
    asked = [i for i, question in enumerate(world.questions) if question.split == "test"]
    gold = {i: world.place(world.questions[i].gold) for i in asked}
    hard = {i: [world.place(passage) for passage in mined[world.questions[i].id]] for i in asked}
    order = np.random.default_rng([seed, 0xA77]).permutation(asked).tolist()
    right: dict[int, list[int]] = defaultdict(list)
    difficult: dict[int, list[int]] = defaultdict(list)
    others: Sequence[int] = range(len(world.passages))
    if side == "query":
        right, difficult = {i: [gold[i]] for i in order}, hard
    else:
        for i in order:
            right[gold[i]].append(i)
            for passage in hard[i]:
                difficult[passage].append(i)
        others = asked
    if only is not None and not len(only):
        raise ValueError("no example is asked for; give places of test questions, or of passages that answer them")
    if wrong := [i for i in only or () if i not in right]:
        raise ValueError(f"example {wrong[0]} is no test question and answers none; give places of such")
    examples, rows = list(right)[: spec.examples] if only is None else list(only), []
    for example in examples:
        rng = np.random.default_rng([seed, 0xCA, example])
        fits = [i for i in difficult[example] if i not in right[example]][: spec.hard]
        drawn = rng.choice(np.array(others), min(len(others), 8 * spec.candidates + len(right[example])), replace=False)
        rest = [i for i in drawn.tolist() if i not in right[example] and i not in fits]
        rows.append([right[example][0], *fits, *rest][: spec.candidates])
    if min(map(len, rows), default=0) < spec.candidates:
        fewest = min(map(len, rows), default=0)
        raise ValueError(f"an example has {fewest} candidates; ask for as many or fewer than {spec.candidates}")
    return Sample(np.array(examples), np.array(rows))


class Activity(NamedTuple):
    """Counts and sharing of active neurons of one site, in one block or in all."""

    union: Estimate  # neurons active in one example or more
    active: Estimate  # active neurons, mean over examples
    sharing: Estimate  # see `sharing`
    chance: Estimate  # the sharing expected of as many active neurons by chance


def activity(active: ndarray, clusters: Sequence[Hashable]) -> Activity:
    """Count active neurons, bool [example, block, neuron]; `clusters` [example] as in `intervals`, two or more."""
    per_block = active.sum(2)
    times, examples = _left_out(active.reshape(len(active), -1), clusters), _left_out(np.ones(len(active)), clusters)
    blocks = _left_out(per_block, clusters), _left_out(per_block**2, clusters)
    values = (
        union(times),
        sharing(times, examples),
        chance_sharing(*blocks, active.shape[2], examples),
    )
    unions, shared, by_chance = (jackknife(found[0], found[1:], len(active)) for found in values)
    return Activity(unions, mean(per_block.sum(1), clusters), shared, by_chance)


def strongest(attribution: Attribution, example: int, threshold: float) -> pd.DataFrame:
    """List the active neurons of one example, strongest first: block, site, neuron, share, unit.

    `neuron` is its number in the site, `share` its attribution as a share of the greatest, `unit` its place on the last
    axis of `Attribution.scores`. Errors as in `Attribution.active`.
    """
    scores, active = attribution.scores[example], attribution.active(threshold)[example]
    blocks, units = np.nonzero(active)
    order = np.argsort(-scores[blocks, units], kind="stable")
    blocks, units, d_ff = blocks[order], units[order], attribution.intermediate.shape[2]
    return pd.DataFrame(
        {
            "block": blocks,
            "site": np.where(units < d_ff, *SITES),
            "neuron": np.where(units < d_ff, units, units - d_ff),
            "share": scores[blocks, units] / scores.max(initial=0),
            "unit": units,
        }
    )


def union_gain(a: ndarray, b: ndarray, clusters: Sequence[Hashable]) -> Estimate:
    """Estimate the union of a minus that of b, on the same examples; both bool [example, block, neuron].

    If no cluster changes the union, the interval is as wide as if one neuron were active in a single cluster: a
    jackknife without spread does not prove that there is none.
    """
    return _compared_unions(a, b, clusters, lambda a, b: a - b)


def union_ratio(a: ndarray, b: ndarray, clusters: Sequence[Hashable]) -> Estimate | None:
    """Estimate the union of a over that of b, as in `union_gain`; the jackknife is of its logarithm.

    None if one of the two has no active neuron, or none once a cluster is left out, since the logarithm is undefined.
    """
    if not all(union(_times(array, clusters)).all() for array in (a, b)):
        return None
    logs = _compared_unions(a, b, clusters, lambda a, b: np.log(a / b))
    value, low, high = np.exp(logs[:3]).tolist()
    return Estimate(value, low, high, logs.n)


def _compared_unions(
    a: ndarray, b: ndarray, clusters: Sequence[Hashable], compare: Callable[[ndarray, ndarray], ndarray]
) -> Estimate:
    more, fewer = (union(_times(array, clusters)) for array in (a, b))
    if np.ptp(more) == np.ptp(fewer) == 0:
        more[1] += 1
    found = compare(more, fewer)
    return jackknife(found[0], found[1:], len(a))


def sharing_gain(a: ndarray, b: ndarray, clusters: Sequence[Hashable]) -> Estimate:
    """Estimate `sharing` in a minus that in b, on the same examples; both bool [example, block, neuron]."""
    examples = _left_out(np.ones(len(a)), clusters)
    shared = [sharing(_times(array, clusters), examples) for array in (a, b)]
    found = shared[0] - shared[1]
    return jackknife(found[0], found[1:], len(a))


def _times(active: ndarray, clusters: Sequence[Hashable]) -> ndarray:
    """Count the examples in which each neuron is active, in all and without each cluster: [1 + cluster, neuron]."""
    return _left_out(active.reshape(len(active), -1), clusters)


def _left_out(array: ndarray, clusters: Sequence[Hashable]) -> ndarray:
    """Sum over all examples, and over all but one cluster's: [1 + cluster, …]."""
    if len(clusters) != len(array):
        raise ValueError(f"{len(clusters)} cluster names for {len(array)} examples; name the cluster of each example")
    number: dict[Hashable, int] = {}
    cluster = np.array([number.setdefault(name, len(number)) for name in clusters])
    of_cluster = np.zeros((len(number), *array.shape[1:]))
    np.add.at(of_cluster, cluster, array)
    return np.concatenate([[of_cluster.sum(0)], of_cluster.sum(0) - of_cluster])


def union(times: ndarray) -> ndarray:
    """Count neurons that are active in one example or more, from their numbers of examples `times` [.., neuron]."""
    return (times > 0).sum(-1)


def at_least(active: ndarray, share: float) -> int:
    """Count neurons that are active in at least this share of the examples (and in one)."""
    times = active.reshape(len(active), -1).sum(0)
    return int((times >= max(1, share * len(active) - 1e-9)).sum())  # 0.07 · 100 is a little more than 7


def sharing(times: ndarray, examples: ndarray) -> ndarray:
    """Compute in what share of the other examples an example's active neurons are active too, 0–1.

    The mean is over examples and their active neurons. `times` [.., neuron] counts the examples in which a neuron is
    active, of so many `examples` [..]. 0 without active neurons.
    """
    pairs, most = (times * (times - 1)).sum(-1), times.sum(-1) * (np.asarray(examples) - 1)
    return np.divide(pairs, most, out=np.zeros(np.shape(pairs)), where=most > 0)


def chance_sharing(counts: ndarray, squares: ndarray, neurons: int, examples: ndarray) -> ndarray:
    """Compute the expected `sharing` if each example's active neurons were shuffled within each block.

    `counts` and `squares` [.., block] are sums over examples of the number of active neurons of a block, out of
    `neurons`, and of its square. Two examples with k and l active neurons in a block share k·l / `neurons` on average.
    """
    pairs, most = (counts**2 - squares).sum(-1) / neurons, counts.sum(-1) * (np.asarray(examples) - 1)
    return np.divide(pairs, most, out=np.zeros(np.shape(pairs)), where=most > 0)


# concentration, without a threshold: one number per example


def participation(scores: ndarray) -> ndarray:
    """Compute the participation ratio (Σ|A|)² / ΣA² [example]; 0 without any attribution.

    It is the number of neurons of equal attribution that would be as concentrated.
    """
    sizes = _sizes(scores)
    squares = (sizes * sizes).sum(1)
    return np.divide(sizes.sum(1) ** 2, squares, out=np.zeros(len(sizes)), where=squares > 0)


def entropy(scores: ndarray) -> ndarray:
    """Compute the entropy of |A| / Σ|A| [example], as a share of the greatest possible; 0 without attribution."""
    shares = _shares(scores)
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1) / np.log(shares.shape[1])


def gini(scores: ndarray) -> ndarray:
    """Compute the Gini coefficient of |A| [example]: 0 if all are equal, near 1 if one has all; 1 without any."""
    shares = np.sort(_shares(scores), axis=1)
    n = shares.shape[1]
    found = (shares * (2 * np.arange(1, n + 1) - n - 1)).sum(1) / n
    return np.where(shares.sum(1) > 0, found, 1.0)


def mass_in_top(scores: ndarray, share: float = TOP) -> ndarray:
    """Compute the part of Σ|A| in the strongest `share` of the neurons [example]; 0 without any attribution."""
    shares = np.sort(_shares(scores), axis=1)
    return shares[:, -max(1, round(share * shares.shape[1])) :].sum(1)


MEASURES = {"participation": participation, "entropy": entropy, "gini": gini, "mass_in_top": mass_in_top}


def outliers(scores: ndarray, n: int) -> list[int]:
    """Find the n neurons with the greatest mean |A| / max |A|, as places in the flattened axes after example."""
    sizes = _sizes(scores)
    greatest = sizes.max(1, keepdims=True)
    relative = np.divide(sizes, greatest, out=np.zeros_like(sizes), where=greatest > 0).mean(0)
    return np.argsort(-relative, kind="stable")[:n].tolist()


def _sizes(scores: ndarray) -> ndarray:
    return np.abs(scores.reshape(len(scores), -1)).astype(float)


def _shares(scores: ndarray) -> ndarray:
    sizes = _sizes(scores)
    sums = sizes.sum(1, keepdims=True)
    return np.divide(sizes, sums, out=np.zeros_like(sizes), where=sums > 0)
