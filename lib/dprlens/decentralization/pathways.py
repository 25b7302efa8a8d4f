"""Survival curves by kind of question: how many silenced neurons it takes to lose the gold passage.

Neurons are silenced in some order, 1, 2, 4, … of them, until all are silent. A question's *count* is the first number
at which its gold passage is no longer retrieved: 0 if it was not retrieved with all neurons, infinity if it was
retrieved to the end. The end is the same for every question, so that the curve of Kaplan and Meier (1958) is the plain
share of the retrieved passages that are not lost yet, and two counts of one question can always be ordered. No mean of
counts is taken, which would need a number for "never".

Intervals draw whole gold passages, as elsewhere in the chapter; two models are compared on the questions whose passage
both retrieve, with one vote per gold passage.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from dprlens.decentralization.interventions import first_lost
from dprlens.intervals import Estimate, difference, mean, share

ORDERS = ("top", "random")  # strongest attribution first, or any
Counts = Mapping[tuple[str, str], ndarray]  # {(model, order): count of each question [example]}


class Search(NamedTuple):
    """Numbers of silenced neurons, and the questions that they were tried on."""

    silent: Sequence[int]  # numbers of silent neurons, ascending; the last is where the search ended
    kinds: Sequence[str]  # [example]: the question's kind
    clusters: Sequence[Hashable]  # [example]: its gold passage


def doubling(neurons: int) -> list[int]:
    """List 1, 2, 4, …, and at last all of so many neurons: the steps of the search."""
    return [2**i for i in range((neurons - 1).bit_length())] + [neurons]


def counts(found: Mapping[tuple[str, str], ndarray], search: Search) -> Counts:
    """Compute counts (see above) from retrieval results, {(model, order): bool [1 + silent, example]}."""
    return {key: first_lost(there, search.silent) for key, there in found.items()}


def survival(lost: ndarray, search: Search) -> dict[int, Estimate]:
    """Estimate the share of retrieved passages not yet lost with k neurons silenced: {k: estimate}, k from 0.

    `lost` [example] are counts; the result is empty if no passage was retrieved.
    """
    there = lost > 0
    names = np.array(search.clusters, dtype=object)[there]
    return {k: mean(lost[there] > k, names) for k in (0, *search.silent)} if there.any() else {}


def median(curve: Mapping[int, Estimate]) -> tuple[float, float, float]:
    """Compute the number of silenced neurons at which half of the passages are lost, with its interval.

    Infinity: not before the end of the search. The interval, where the curve's band crosses one half, inverts the
    pointwise ones (Brookmeyer and Crowley 1982).
    """

    def crossing(end: str) -> float:
        return next((float(k) for k, e in curve.items() if getattr(e, end) <= 0.5), np.inf)

    return crossing("value"), crossing("low"), crossing("high")


def median_in_words(curve: Mapping[int, Estimate]) -> str:
    """Format the median for a table: 8 [4, > 7,680]; "–" without a curve."""
    if not curve:
        return "–"
    end = max(curve)
    value, low, high = (f"{x:,.0f}" if np.isfinite(x) else f"> {end:,}" for x in median(curve))
    return f"{value} [{low}, {high}]"


def survival_numbers(exhibit: str, lost: Counts, search: Search, curves: bool = True) -> dict[str, Estimate | None]:
    """Estimate the numbers of each model by kind of question, by id: pathways.lexical.dpr.never_lost.

    found: share of the kind's questions whose passage is retrieved with all neurons; never_lost: of these, the share
    retrieved with every neuron silenced. median: see `median`, None where it or an end of its interval lies beyond the
    search. steps_survived: mean number of steps of the search that a retrieved passage survives, the restricted mean on
    the scale of doublings. survives.k…: the curve, if `curves`. For the random order the same with "random." in front,
    and top_minus_random.steps_survived, paired.
    """
    made: dict[str, Estimate | None] = {}
    for (kind, part), (model, order) in ((k, m) for k in _by_kind(search) for m in lost):
        within, n = _of(search, part), lost[model, order][part]
        name = f"{exhibit}.{kind}.{model}" + (".random" if order == "random" else "")
        curve = survival(n, within)
        if order == "top":
            made[f"{name}.found"] = mean(n > 0, within.clusters)
        if not curve:
            continue
        there, ends = n > 0, median(curve)
        names = np.array(within.clusters, dtype=object)[there]
        steps = _steps(n[there], search)
        made[f"{name}.never_lost"] = curve[search.silent[-1]]
        made[f"{name}.median"] = Estimate(*ends, int(there.sum())) if np.isfinite(ends).all() else None
        made[f"{name}.steps_survived"] = mean(steps, names)
        if curves:
            made |= {f"{name}.survives.k{k}": e for k, e in curve.items() if k}
        if order == "top" and (model, "random") in lost:
            by_chance = _steps(lost[model, "random"][part][there], search)
            made[f"{name}.top_minus_random.steps_survived"] = difference(steps, by_chance, names)
    return made


def outlasting_numbers(
    exhibit: str, lost: Counts, search: Search, pairs: Sequence[tuple[str, str]]
) -> dict[str, Estimate | int | None]:
    """Compare when two models lose a question's passage, by kind: pathways.lexical.dpr_outlasts_pretrained.

    Only questions whose passage both models retrieve count. See `outlasting`; numbers of questions: …_matched, …_never
    (lost by neither), …_level (lost by both at the same step).
    """
    made: dict[str, Estimate | int | None] = {}
    for (kind, part), (a, b) in ((k, p) for k in _by_kind(search) for p in pairs):
        first, second = (lost[model, "top"][part] for model in (a, b))
        matched = (first > 0) & (second > 0)
        level = matched & (first == second)
        name = f"{exhibit}.{kind}.{a}_outlasts_{b}"
        made[name] = outlasting(first, second, _of(search, part).clusters)
        made[f"{name}_matched"] = int(matched.sum())
        made[f"{name}_never"] = int((level & np.isinf(first)).sum())
        made[f"{name}_level"] = int((level & np.isfinite(first)).sum())
    return made


def outlasting(a: ndarray, b: ndarray, clusters: Sequence[Hashable]) -> Estimate | None:
    """Estimate the share of gold passages that b loses first, of those that one of the two loses first.

    None if there is none. a and b [example] are counts of two models on the same questions. A question counts if both
    models retrieve its passage. It is undecided if both lose the passage at the same step, or neither does. A gold
    passage votes as most of its questions do, so that votes are independent and their share has Wilson's interval.
    """
    signs = np.where((a > 0) & (b > 0), np.int64(a > b) - np.int64(a < b), 0)
    votes: dict[Hashable, int] = {}
    for name, sign in zip(clusters, signs.tolist(), strict=True):
        votes[name] = votes.get(name, 0) + sign
    decided = [vote for vote in votes.values() if vote]
    return share(sum(vote > 0 for vote in decided), len(decided)) if decided else None


def _steps(lost: ndarray, search: Search) -> ndarray:
    """Count the steps of the search that a retrieved passage survives [example], 0 to all."""
    return (lost[:, None] > np.array(search.silent)).sum(1)


def _by_kind(search: Search) -> list[tuple[str, ndarray]]:
    kinds = np.array(search.kinds)
    return [(kind, np.flatnonzero(kinds == kind)) for kind in sorted({*search.kinds}, reverse=True)]


def _of(search: Search, part: ndarray) -> Search:
    return Search(search.silent, [search.kinds[i] for i in part], [search.clusters[i] for i in part])
