"""A notebook's results file against the one that was there before the run: did any number move?"""

from collections.abc import Callable
from typing import Any, NamedTuple

OUTSIDE = 0.25  # of an interval's width; beyond its end that makes about three standard errors from its middle
COUNTING = 3  # standard errors of a count that is Poisson's
SHARE = 0.1  # of other numbers without an interval


class Difference(NamedTuple):
    id: str  # of a number, or of a claim
    before: Any  # a number or a verdict; None: it was not there
    after: Any  # None: it is gone

    def __str__(self) -> str:
        return f"{self.id}: {_shown(self.before)} before, {_shown(self.after)} now"


def compare_results(before: dict, after: dict) -> list[Difference]:
    """The verdicts that turned, then the numbers that moved, then those that came or went.

    Both are results files as in design.md §9. What is only noise of another processor should not be named: a number
    with an interval has moved if each of its two values lies outside the other's interval by more than `OUTSIDE` of its
    width, one without by `_moved_by_itself`.
    """
    turned = _changed(_verdicts(before), _verdicts(after), lambda was, now: was != now)
    old, new = _numbers(before), _numbers(after)
    both = old.keys() & new.keys()
    moved = _changed({id_: old[id_] for id_ in both}, {id_: new[id_] for id_ in both}, _moved)
    there = _changed({id_: old[id_] for id_ in old.keys() - both}, {id_: new[id_] for id_ in new.keys() - both}, _moved)
    return [
        *turned,
        *(Difference(id_, was and was["ours"], now and now["ours"]) for id_, was, now in (*moved, *there)),
    ]


def _changed(old: dict[str, Any], new: dict[str, Any], differ: Callable[[Any, Any], bool]) -> list[Difference]:
    """What differs between the two, by id; what is in one only differs."""
    return [
        Difference(id_, old.get(id_), new.get(id_))
        for id_ in sorted(old.keys() | new.keys())
        if id_ not in old or id_ not in new or differ(old[id_], new[id_])
    ]


def _numbers(results: dict) -> dict[str, dict]:
    return {id_: n for exhibit in results["exhibits"].values() for id_, n in exhibit.get("numbers", {}).items()}


def _verdicts(results: dict) -> dict[str, str]:
    claims = [claim for exhibit in results["exhibits"].values() for claim in exhibit.get("claims", [])]
    return {claim["id"]: claim["verdict"] for claim in claims}


def _moved(was: dict, now: dict) -> bool:
    if any(one.get(end) is None for one in (was, now) for end in ("low", "high", "ours")):
        return _moved_by_itself(was["ours"], now["ours"])
    return _outside(now["ours"], was) and _outside(was["ours"], now)


def _outside(value: float, number: dict) -> bool:
    margin = OUTSIDE * (number["high"] - number["low"])
    return not number["low"] - margin <= value <= number["high"] + margin


def _moved_by_itself(was: float | None, now: float | None) -> bool:
    """Without an interval: a count by `COUNTING` times its square root and more, anything else by `SHARE` of itself."""
    if was is None or now is None:
        return was is not now
    greater = max(abs(was), abs(now))
    whole = float(was).is_integer() and float(now).is_integer()
    return abs(now - was) > (COUNTING * greater**0.5 if whole else SHARE * greater)


def _shown(value: float | str | None) -> str:
    return "nothing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
