"""What others' numbers say: the paper's claims judged on what it prints, and on its replication's; a closer reading.

No experiment of ours.
"""

from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import numpy as np

from dprlens.intervals import Estimate, exact, share
from dprlens.paper.claims import CHOICES, CLAIMS, EDITORS, LAYERS
from dprlens.paper.numbers import FACTS, numbers, replication
from dprlens.paper.rules import FAILS, HOLDS, OPEN, Verdict

REPLICATED = {"pretrained": "bert-base-uncased", "dpr_query": "dpr-question", "dpr_context": "dpr-context"}
COMPARED = ("pretrained", "dpr_query"), ("dpr_query", "pretrained"), ("dpr_context", "dpr_query")
READ_OFF = 0.005  # how well the replication's accuracies are known: see `numbers.replication`
TEST, DEV = 3610, 6515  # Natural Questions: the sets that "off target" may have been counted on


class Reading(NamedTuple):
    id: str  # a claim's id, or R and a number for what only the closer reading asks
    exhibit: str
    text: str
    verdict: Verdict


def own_reading() -> list[Reading]:
    """The claims of direction that the printed numbers can decide, then six readings with their arithmetic.

    Printed values are taken at their face, since they come without intervals; what R2 and R3 say bears on that.
    Claims of size are left out: they only repeat what is printed.
    """
    printed = {name: exact(value) for name, value in numbers().items()}
    accuracy = {
        (n, who, layer): printed[f"table1.n{n}.{who}.layer{layer}"]
        for n in CHOICES
        for who in REPLICATED
        for layer in LAYERS
    }
    readings = _mean_over_layers(), _noise(), _chance(), _off_target(), _same_flips(), _six_points()
    return [*_judged(printed | _compared(accuracy)), *readings]


def replicated_reading() -> list[Reading]:
    """The claims of direction that the replication's accuracies can decide (Natural Questions, [CLS]).

    They come without intervals and were read off figures. A number counts as known to `READ_OFF`, a difference to twice
    that; the sampling error of the replication is in neither.
    """
    cells = replication().query("dataset == 'nq' and pooling == 'cls'").set_index(["n_passages", "model", "layer"])
    printed = cells["accuracy"].to_dict()
    accuracy = {
        (n, who, layer): _within(float(printed[n, model, layer]), READ_OFF)
        for n in CHOICES
        for who, model in REPLICATED.items()
        for layer in LAYERS
    }
    found = {f"table1.n{n}.{who}.layer{x}": value for (n, who, x), value in accuracy.items()}
    return _judged(found | _compared(accuracy))


def row(n: int, model: str) -> np.ndarray:
    """One printed row of Table 1, layers 0–12 [13]."""
    return np.array([numbers()[f"table1.n{n}.{model}.layer{layer}"] for layer in range(13)])


def _judged(found: Mapping[str, Estimate]) -> list[Reading]:
    return [
        Reading(claim.id, claim.exhibit, claim.text, claim.verdict(found))
        for claim in CLAIMS
        if claim.needs and not claim.size and set(claim.needs) <= set(found)
    ]


def _within(value: float, error: float) -> Estimate:
    """A number without n, known to an error."""
    return Estimate(value, value - error, value + error, 0)


def _compared(accuracy: Mapping[tuple[int, str, int], Estimate]) -> dict[str, Estimate]:
    """The comparisons of chapter 02 from accuracies by (n, encoder, layer), each known to lie in its interval."""
    found: dict[str, Estimate] = {}
    for (a, b), layer in product(COMPARED, LAYERS):
        lead = {n: _minus(accuracy[n, a, layer], accuracy[n, b, layer]) for n in CHOICES}
        found |= {f"table1.n{n}.{a}_minus_{b}.layer{layer}": one for n, one in lead.items()}
        found[f"table1.n5_minus_n2.{a}_minus_{b}.layer{layer}"] = _minus(lead[5], lead[2])
        for n, one in lead.items():
            signal = _minus(accuracy[n, b, layer], exact(1 / n))
            if signal.low > 0:
                found[f"table1.n{n}.{a}_minus_{b}_of_signal.layer{layer}"] = _over(one, signal)
    for n, who, layer in product(CHOICES[:-1], REPLICATED, LAYERS):
        fall = _minus(accuracy[n, who, layer], accuracy[n + 1, who, layer])
        found[f"table1.n{n}_minus_n{n + 1}.{who}.layer{layer}"] = fall
    return found


def _minus(a: Estimate, b: Estimate) -> Estimate:
    """a − b of numbers that lie in their intervals; in full hundredths where both are exact."""
    value, low, high = (round(one, 6) for one in (a.value - b.value, a.low - b.high, a.high - b.low))
    return Estimate(value, low, high, 0)


def _over(a: Estimate, b: Estimate) -> Estimate:
    """a / b of numbers that lie in their intervals, b above 0."""
    ends = [x / y for x in (a.low, a.high) for y in (b.low, b.high)]
    return Estimate(a.value / b.value, min(ends), max(ends), 0)


def _mean_over_layers() -> Reading:
    means = {n: (row(n, "pretrained")[1:].mean(), row(n, "dpr_query")[1:].mean()) for n in CHOICES}
    ahead = [int((row(n, "dpr_query")[1:] > row(n, "pretrained")[1:] + 0.001).sum()) for n in CHOICES]
    why = "Mean of layers 1–12, BERT and DPR: " + ", ".join(
        f"{bert:.4f} and {dpr:.4f} (N = {n})" for n, (bert, dpr) in means.items()
    )
    holds = all(bert > dpr for bert, dpr in means.values())
    why += f"; DPR is ahead at {', '.join(map(str, ahead))} of 12 layers."
    text = "Pre-trained BERT's features are the better ones over all layers, not only at the last."
    return Reading("R1", "table1", text, Verdict(HOLDS if holds else FAILS, why))


def _noise() -> Reading:
    bert, dpr = row(2, "pretrained")[12], row(2, "dpr_query")[12]
    error = {n: ((bert * (1 - bert) + dpr * (1 - dpr)) / n) ** 0.5 for n in (1000, TEST)}
    why = f"The lead is {bert - dpr:.2f}; its standard error, unpaired, is " + " and ".join(
        f"{value:.3f} if n = {n:,}" for n, value in error.items()
    )
    text = "The lead of pre-trained BERT with two passages is more than noise."
    return Reading("R2", "table1", text, Verdict(OPEN, why + "; the paper prints no n."))


def _chance() -> Reading:
    found = {editor: _printed_share(f"table3.{editor}.probing_added") for editor in EDITORS}
    sides = [estimate.low > 0.5 for estimate in found.values()]
    why = "; ".join(f"{editor} {estimate}" for editor, estimate in found.items())
    text = "More facts are added than a probe of two passages that answers at random would show (0.5)."
    verdict = HOLDS if all(sides) else FAILS if all(e.high <= 0.5 for e in found.values()) else OPEN
    return Reading("R3", "table3", text, Verdict(verdict, f"Shares of {FACTS} facts: {why}."))


def _off_target() -> Reading:
    hits: list[float] = []
    rates: dict[int, list[float]] = {size: [] for size in (TEST, DEV)}
    for editor in EDITORS:
        hits.append(numbers()[f"table4.{editor}.probing_removed"])
        for size, found in rates.items():
            found.append(numbers()[f"table4.{editor}.off_target_flips"] / (size - FACTS))
    above = [all(h > r for h, r in zip(hits, found, strict=True)) for found in rates.values()]
    below = [all(h < r for h, r in zip(hits, found, strict=True)) for found in rates.values()]
    why = f"On target {_percents(hits)}; off target " + " and ".join(
        f"{_percents(found)} if {size:,} questions were evaluated" for size, found in rates.items()
    )
    text = "Removal hits the edited facts more often than the others."
    verdict = HOLDS if all(above) else FAILS if all(below) else OPEN
    return Reading("R4", "table4", text, Verdict(verdict, why + "; the paper does not say how many."))


def _same_flips() -> Reading:
    tables = {"added": "table3", "removed": "table4"}
    flips = {
        arm: [numbers()[f"{table}.{editor}.off_target_flips"] for editor in ("malmen", "mend")]
        for arm, table in tables.items()
    }
    apart = [abs(a - b) > 0.1 * min(a, b) for a, b in flips.values()]
    counts = ", ".join(f"{a:.0f} and {b:.0f} with facts {arm}" for arm, (a, b) in flips.items())
    text = "What flips off target depends on the editor: MALMEN's and MEND's counts differ by more than a tenth."
    verdict = HOLDS if all(apart) else FAILS if not any(apart) else OPEN
    return Reading("R5", "table3", text, Verdict(verdict, f"{counts}: what they share may be the probe, not the edit."))


def _six_points() -> Reading:
    leads = [float(row(n, "pretrained")[12] - row(n, "dpr_query")[12]) for n in CHOICES]
    listed = ", ".join(f"{100 * lead:.0f}" for lead in leads)
    text = "Pre-trained BERT's lead at the last layer grows to about 6 points."
    verdict = HOLDS if max(leads) >= 0.055 else FAILS
    return Reading("R6", "table1", text, Verdict(verdict, f"Printed leads with 2 to 5 passages: {listed} points."))


def _printed_share(name: str) -> Estimate:
    return share(round(numbers()[name] * FACTS), FACTS)


def _percents(shares: list[float]) -> str:
    return ", ".join(f"{100 * value:.1f} %" for value in shares)
