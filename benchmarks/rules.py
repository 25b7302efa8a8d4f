"""How often do the rules of claims say something where there is nothing? `make rules` prints it.

For each rule data are drawn whose truth lies exactly at the edge of the claim, put through the library's intervals and
judged; then once more with the effect that a claim of the book names, for the power. Questions come in facts, as in the
closed world: the answers to questions about one fact are alike.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dprlens.intervals import Estimate, difference, gap, mean, over_runs
from dprlens.paper.rules import FAILS, HOLDS, Check, above, applicable, below, between, every

Draw = Callable[[np.random.Generator, float], dict[str, Estimate]]


class Case(NamedTuple):
    """A rule, how numbers come about, and two truths."""

    name: str
    check: Check
    draw: Draw  # numbers by id for a generator and a true effect
    nothing: float  # the effect at the edge of the claim
    effect: float  # the effect that the book speaks of
    power: float  # the least share of draws that must find it


class Simulated(NamedTuple):
    false_holds: float  # share of draws with that verdict where the truth lies at the edge
    false_fails: float
    power: float  # share of draws that hold with the effect


def simulated(case: Case, draws: int, seed: int = 0) -> Simulated:
    """What the rule says over so many draws."""
    rng = np.random.default_rng([seed, 0x2D1E])

    def shares(effect: float) -> dict[str, float]:
        verdicts = [case.check.verdict(case.draw(rng, effect)).verdict for _ in range(draws)]
        return {word: verdicts.count(word) / draws for word in (HOLDS, FAILS)}

    nothing, something = shares(case.nothing), shares(case.effect)
    return Simulated(nothing[HOLDS], nothing[FAILS], something[HOLDS])


def answers(rng: np.random.Generator, facts: int, share: float, alike: float = 0.5) -> np.ndarray:
    """Right or wrong [fact · 2]: two questions a fact, which agree as often as `alike` says beyond chance."""
    first = rng.random(facts) < share
    second = np.where(rng.random(facts) < alike, first, rng.random(facts) < share)
    return np.stack([first, second], axis=1).ravel().astype(float)


def paired(facts: int, names: tuple[str, ...] = ("a.x",)) -> Draw:
    """Two arms on the same questions; the second is right more often by the effect. One number a name."""
    clusters = np.repeat(np.arange(facts), 2).tolist()

    def draw(rng: np.random.Generator, effect: float) -> dict[str, Estimate]:
        found = {}
        for name in names:
            base = answers(rng, facts, 0.5)
            other = np.where(rng.random(2 * facts) < 0.6, base, answers(rng, facts, 0.5))
            moved = rng.random(2 * facts) < abs(effect) / 0.5  # half of what moves was wrong before
            other = np.where(moved, float(effect > 0), other)
            found[name] = difference(other, base, clusters, resamples=400)
        return found

    return draw


def groups(facts: int, base: float) -> Draw:
    """Two separate groups of facts, the first right more often by the effect."""
    clusters = np.repeat(np.arange(facts), 2).tolist()

    def draw(rng: np.random.Generator, effect: float) -> dict[str, Estimate]:
        sides = answers(rng, facts, base + effect), answers(rng, facts, base)
        return {"a.x": gap(*sides, clusters, clusters, resamples=400)}

    return draw


def rare(rng: np.random.Generator, effect: float) -> dict[str, Estimate]:
    """Two arms that differ on one question in a hundred, 270 questions: an arm that hardly moves anything."""
    base = rng.random(270) < 0.5
    turned = rng.random(270) < 0.01 + abs(effect)
    other = np.where(turned, rng.random(270) < (0.5 if effect == 0 else float(effect > 0)), base)
    return {"a.x": difference(other.astype(float), base.astype(float), resamples=400)}


def over_worlds(rng: np.random.Generator, effect: float) -> dict[str, Estimate]:
    """The mean of five worlds that differ by 0.05."""
    return {"a.x": over_runs(rng.normal(effect, 0.05, 5))}


def edited(rng: np.random.Generator, effect: float) -> dict[str, Estimate]:
    """Three arms of an edit on 96 facts, of which the last did not take and goes the wrong way."""
    numbers = {f"did.{i}": one for i, one in enumerate(paired(96, ("0", "1"))(rng, effect).values())}
    numbers["did.2"] = paired(96)(rng, effect - 0.3)["a.x"]
    took = {f"told.{i}": mean(answers(rng, 200, share)) for i, share in enumerate((0.97, 0.97, 0.4))}
    return numbers | took


ARMS = range(3)
TOOK = applicable(
    {str(i): above(f"told.{i}", 0.9) for i in ARMS}, {str(i): above(f"did.{i}", 0) for i in ARMS}, "none took"
)
FOUR, THIRTEEN = (tuple(f"a.x{i}" for i in range(n)) for n in (4, 13))
CASES = (
    Case("above, paired, 900 facts", above("a.x", 0), paired(900), 0, 0.05, 0.8),
    Case("above, paired, 45 facts", above("a.x", 0), paired(45), 0, 0.3, 0.8),
    Case("above, paired, 1 in 100 differs", above("a.x", 0), rare, 0, 0.1, 0.8),
    Case("below, two groups of 45 facts", below("a.x", 0), groups(45, 0.5), 0, -0.4, 0.8),
    Case("above, two groups near the floor", above("a.x", 0), groups(45, 0.03), 0, 0.4, 0.8),
    Case("between ±0.05, paired, 900 facts", between("a.x", -0.05, 0.05), paired(900), 0.05, 0, 0.8),
    Case("above, five worlds", above("a.x", 0), over_worlds, 0, 0.15, 0.8),
    Case("every of 4, paired, 450 facts", every(*(above(x, 0) for x in FOUR)), paired(450, FOUR), 0, 0.1, 0.8),
    Case("every of 13, paired, 450 facts", every(*(above(x, 0) for x in THIRTEEN)), paired(450, THIRTEEN), 0, 0.1, 0.8),
    Case("every of 3 edits, where they took", TOOK, edited, 0, 0.25, 0.8),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    print(f"{draws} draws a row; at the edge of the truth each verdict may come in 5 % of them\n")
    print(f"{'rule':38} {'holds':>7} {'does not':>9} {'power':>7}  (at effect)")
    for case in CASES:
        found = simulated(case, draws)
        rates = f"{found.false_holds:7.1%} {found.false_fails:9.1%} {found.power:7.0%}"
        print(f"{case.name:38} {rates}  ({case.effect:g})", flush=True)


if __name__ == "__main__":
    main()
