"""Ranges of a spec's fields, checked when the spec is made."""

from collections.abc import Callable, Collection
from math import inf
from typing import Any, NamedTuple


class Range(NamedTuple):
    """The values that a field may have, and the error message for any other."""

    has: Callable[[Any], bool]
    otherwise: str


COUNT = Range(lambda value: value >= 1, "is too few; give 1 or more")
NOT_NEGATIVE = Range(lambda value: 0 <= value < inf, "is out of range; give 0 or more")
POSITIVE = Range(lambda value: 0 < value < inf, "is out of range; give a number above 0")
SHARE = Range(lambda value: 0 <= value <= 1, "is no share; give a number from 0 to 1")
FROM_ZERO = Range(lambda value: 0 <= value < 1, "is no share; give 0 or more, less than 1")
PART = Range(lambda value: 0 < value < 1, "is no part; give more than 0, less than 1")


def one_of(choices: Collection[str]) -> Range:
    """Make the range of a field that takes one of a few words."""
    return Range(lambda value: value in choices, f"is not known; choose one of {', '.join(choices)}")


def check(spec: object, accepted: Range, *fields: str) -> None:
    """Raise ValueError for a field outside the range; None, where the type allows it, is in every range."""
    for field in fields:
        value = getattr(spec, field)
        if value is not None and not accepted.has(value):
            raise ValueError(f"{field} = {value!r} {accepted.otherwise}")
