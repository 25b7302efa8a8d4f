"""How many neurons a question can do without before its passage is lost: survival curves, by kind of question.

Neurons are silenced in some order, 1, 2, 4, … of them, until all are silent. A question's *count* is the first number
at which its passage is no longer found: 0 if it was not found with all neurons, infinity if it was found to the end.
The end is the same for every question, so that the curve of Kaplan and Meier (1958) is the plain share of the found
passages that have not been lost yet, and of two counts of one question it is always known which is smaller. Nothing
here takes the mean of counts, which would need a number for "never".

Intervals draw whole gold passages, as elsewhere in the chapter; two models are compared on the questions that both
find, with one vote a gold passage.
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
    """What was silenced, for whom."""

    silent: Sequence[int]  # numbers of silent neurons, ascending; the last is where the search ended
    kinds: Sequence[str]  # [example]: the question's kind
    clusters: Sequence[Hashable]  # [example]: its gold passage


def doubling(neurons: int) -> list[int]:
    """1, 2, 4, … and at last all of so many neurons: where the search stops to look."""
    return [2**i for i in range((neurons - 1).bit_length())] + [neurons]


def counts(found: Mapping[tuple[str, str], ndarray], search: Search) -> Counts:
    """The counts (see above) from whether passages are found, {(model, order): bool [1 + silent, example]}."""
    return {key: first_lost(there, search.silent) for key, there in found.items()}


def survival(lost: ndarray, search: Search) -> dict[int, Estimate]:
    """Share of the found passages that are not lost yet with k neurons silent, k from 0 up: {k: estimate}.

    `lost` [example] are counts; empty if nothing was found.
    """
    there = lost > 0
    names = np.array(search.clusters, dtype=object)[there]
    return {k: mean(lost[there] > k, names) for k in (0, *search.silent)} if there.any() else {}


def median(curve: Mapping[int, Estimate]) -> tuple[float, float, float]:
    """The number of silent neurons at which half of the passages are lost, and where the curve's band crosses a half.

    Infinity: not before the end of the search. The interval inverts the pointwise ones (Brookmeyer and Crowley 1982).
    """

    def crossing(end: str) -> float:
        return next((float(k) for k, e in curve.items() if getattr(e, end) <= 0.5), np.inf)

    return crossing("value"), crossing("low"), crossing("high")


def median_in_words(curve: Mapping[int, Estimate]) -> str:
    """The median as a table shows it: 8 [4, > 7,680]; "–" without a curve."""
    if not curve:
        return "–"
    end = max(curve)
    value, low, high = (f"{x:,.0f}" if np.isfinite(x) else f"> {end:,}" for x in median(curve))
    return f"{value} [{low}, {high}]"


def survival_numbers(exhibit: str, lost: Counts, search: Search, curves: bool = True) -> dict[str, Estimate | None]:
    """The numbers of each model by kind of question: pathways.lexical.dpr.never_lost, ….

    found: share of the kind's questions whose passage is found with all neurons; never_lost: of these, the share found
    with every one silent. median: see `median`, None where it or an end of its interval lies beyond the search.
    steps_survived: how many steps of the search a found passage survives, which is the restricted mean on the scale of
    doublings. survives.k…: the curve, if `curves`. For the random order the same with "random." in front, and
    top_minus_random.steps_survived, paired.
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
    """Which model of a pair loses a question's passage later, by kind: pathways.lexical.dpr_outlasts_pretrained, ….

    Only questions that both find. …: see `outlasting`; and their numbers: …_matched, …_never (lost by neither),
    …_level (lost by both at the same step).
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
    """Share of the gold passages that b loses first, of those that one of the two loses first; None if there is none.

    a and b [example] are counts of two models on the same questions. A question counts if both find it. If both lose it
    at the same step, or neither does, it is undecided: the search does not tell which would. A gold passage has the
    vote of most of its questions, so that votes are independent and their share has Wilson's interval.
    """
    signs = np.where((a > 0) & (b > 0), np.int64(a > b) - np.int64(a < b), 0)
    votes: dict[Hashable, int] = {}
    for name, sign in zip(clusters, signs.tolist(), strict=True):
        votes[name] = votes.get(name, 0) + sign
    decided = [vote for vote in votes.values() if vote]
    return share(sum(vote > 0 for vote in decided), len(decided)) if decided else None


def _steps(lost: ndarray, search: Search) -> ndarray:
    """Steps of the search that a found passage survives [example], 0 to all."""
    return (lost[:, None] > np.array(search.silent)).sum(1)


def _by_kind(search: Search) -> list[tuple[str, ndarray]]:
    kinds = np.array(search.kinds)
    return [(kind, np.flatnonzero(kinds == kind)) for kind in sorted({*search.kinds}, reverse=True)]


def _of(search: Search, part: ndarray) -> Search:
    return Search(search.silent, [search.kinds[i] for i in part], [search.clusters[i] for i in part])
