"""When a claim holds: rules from reported numbers to verdicts.

A rule reads numbers with their 95 % intervals. A claim **holds** if every plausible value lies on its side and **does
not hold** if every plausible value lies on the other, so that either verdict is wrong in at most 2.5 % of the cases in
which the truth lies at the edge (`benchmarks/rules.py` simulates it). Else the answer is **cannot tell here**. Numbers
without information, such as an interval of no width from data that never varied, decide nothing.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from scipy.special import stdtr, stdtrit

from dprlens.intervals import Estimate, difference_of_shares, holm
from dprlens.paper._wording import describe

HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "cannot tell here", "not tested yet"
LEVEL = 0.025  # of a false verdict in either direction

Numbers = Mapping[str, Estimate]


class Verdict(NamedTuple):
    """What the numbers say of a claim."""

    verdict: str  # HOLDS, FAILS, OPEN or UNTESTED
    why: str  # one or two sentences with the numbers


class Comparison(NamedTuple):
    """One comparison: whether its interval supports the claim, and how strongly it contradicts it."""

    supported: bool
    p: float  # one-sided p-value of the contradiction: how likely such a number is if the claim is true
    sentence: str


class Check(NamedTuple):
    """A rule on reported numbers: the ids it reads, and the function that judges those that are there."""

    needs: tuple[str, ...]
    judge: Callable[[Numbers], list[Comparison]]  # one for each comparison

    def verdict(self, numbers: Numbers) -> Verdict:
        """Every comparison must support the claim; one that contradicts it after Holm's correction refutes it."""
        if not any(name in numbers for name in self.needs):
            others = f" and {len(self.needs) - 1} more" if len(self.needs) > 1 else ""
            return Verdict(OPEN, f"Not reported here: {describe(self.needs[0])}{others}.")
        found = self.judge(numbers)
        if not found:
            return Verdict(OPEN, "Nothing here can test it.")
        sides = [_side(one.supported, p) for one, p in zip(found, holm([one.p for one in found]), strict=True)]
        worst = next(side for side in (FAILS, OPEN, HOLDS) if side in sides)
        example = found[sides.index(worst)].sentence
        return Verdict(worst, example if len(found) == 1 else f"{_counted(sides)} {_instance(worst, sides)}{example}")


def above(name: str, bound: float) -> Check:
    """The number is greater than the bound."""
    return _one(name, lambda e: (e.low > bound, _below(e, bound)), f"more than {_plain(bound)}")


def below(name: str, bound: float) -> Check:
    """The number is less than the bound."""
    return _one(name, lambda e: (e.high < bound, _beyond(e, bound)), f"less than {_plain(bound)}")


def between(name: str, low: float, high: float) -> Check:
    """The number lies between the bounds: a claim of equivalence, within a margin."""

    def test(found: Estimate) -> tuple[bool, float]:
        return found.low >= low and found.high <= high, min(_below(found, low), _beyond(found, high))

    return _one(name, test, f"{_plain(low)} to {_plain(high)}")


def more(name: str, other: str) -> Check:
    """The first number is greater than the second, both shares of different items, each with its own interval."""

    def judge(numbers: Numbers) -> list[Comparison]:
        if missing := [one for one in (name, other) if one not in numbers]:
            return [Comparison(False, 1.0, f"Not reported here: {describe(missing[0])}.")]
        a, b = numbers[name], numbers[other]
        gap = difference_of_shares(a, b)
        sentence = f"{_capital(describe(name))}: {a}; {describe(other)}: {b}; the first must be the greater."
        return [Comparison(gap.low > 0, _below(gap, 0), sentence)]

    return Check((name, other), judge)


def every(*checks: Check) -> Check:
    """All checks hold (each at its own interval); refuted by one that is contradicted after Holm's correction."""

    def judge(numbers: Numbers) -> list[Comparison]:
        return [one for check in checks for one in check.judge(numbers)]

    return Check(tuple(dict.fromkeys(name for check in checks for name in check.needs)), judge)


def applicable(conditions: Mapping[str, Check], checks: Mapping[str, Check], why: str) -> Check:
    """`every` of the checks whose condition holds, by the same name; the others test nothing, and `why` says so."""
    needs = [name for part in (conditions, checks) for check in part.values() for name in check.needs]

    def judge(numbers: Numbers) -> list[Comparison]:
        fit = [name for name, condition in conditions.items() if condition.verdict(numbers).verdict == HOLDS]
        found = [one for name in fit for one in checks[name].judge(numbers)]
        return found or [Comparison(False, 1.0, why)]

    return Check(tuple(dict.fromkeys(needs)), judge)


def false_verdicts(claims: int) -> float:
    """Of so many claims, how many verdicts are expected to be false at most: if the truth lay at the edge in each."""
    return LEVEL * claims


def _one(name: str, test: Callable[[Estimate], tuple[bool, float]], needed: str) -> Check:
    def judge(numbers: Numbers) -> list[Comparison]:
        found = numbers.get(name)
        if found is None:
            return [Comparison(False, 1.0, f"Not reported here: {describe(name)}.")]
        sentence = f"{_capital(describe(name))}: {found}; the claim needs {needed}."
        if found.n and found.low == found.high:
            return [Comparison(False, 1.0, f"{sentence[:-1]}, and data that never vary say nothing.")]
        return [Comparison(*test(found), sentence)]

    return Check((name,), judge)


def _below(found: Estimate, bound: float) -> float:
    """One-sided p-value that a number seen at `found` is in truth at `bound` or above (Student's t)."""
    if found.n == 0:
        return 0.0 if found.high <= bound else 1.0
    return _p(bound - found.value, found.high - found.value, found.n)


def _beyond(found: Estimate, bound: float) -> float:
    """One-sided p-value that a number seen at `found` is in truth at `bound` or below."""
    if found.n == 0:
        return 0.0 if found.low >= bound else 1.0
    return _p(found.value - bound, found.value - found.low, found.n)


def _p(distance: float, half: float, n: int) -> float:
    if half <= 0:  # the interval ends at the value: nothing is known on this side
        return 1.0
    freedom = max(1, n - 1)
    return float(1 - stdtr(freedom, distance / half * stdtrit(freedom, 1 - LEVEL)))


def _side(supported: bool, p: float) -> str:
    return HOLDS if supported else FAILS if p < LEVEL else OPEN


def _counted(sides: list[str]) -> str:
    """How many comparisons support a claim: "Of 4 comparisons 2 support it, 1 contradicts it, 1 is undecided."."""
    supporting, against, undecided = (sides.count(side) for side in (HOLDS, FAILS, OPEN))
    parts = [
        _verb(supporting, "supports it", "support it"),
        _verb(against, "contradicts it", "contradict it") + (" after Holm's correction" if against else ""),
        _verb(undecided, "is undecided", "are undecided"),
    ]
    return f"Of {len(sides)} comparisons {', '.join(parts)}."


def _verb(n: int, one: str, many: str) -> str:
    return f"{n or 'none'} {one if n <= 1 else many}"


def _instance(worst: str, sides: list[str]) -> str:
    return "For instance: " if sides.count(worst) > 1 else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(bound: float) -> str:
    return f"{bound:z.3g}"
