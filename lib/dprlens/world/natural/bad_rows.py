"""Findings about the rows of a file: errors at once, or counts for a page to show."""

from collections.abc import Iterable
from typing import NamedTuple

MODES = ("strict", "skip")
PLACES = 5  # of each finding, so many are kept


class Finding(NamedTuple):
    """One kind of irregularity in one file, and its number of occurrences."""

    file: str
    what: str
    left_out: bool  # False: what it is about is kept
    times: int
    unit: str  # what places count: "line" (from 1), "record" or "passage" (from 0)
    places: tuple[int, ...]  # the first few


class BadRows:
    """A collection of findings; a bad row is an error in mode "strict", left out and counted in mode "skip"."""

    def __init__(self, mode: str = "strict") -> None:
        if mode not in MODES:
            raise ValueError(f"mode = {mode!r} is not known; choose one of {', '.join(MODES)}")
        self.mode = mode
        self._found: dict[tuple[str, str, bool, str], list[int]] = {}
        self._times: dict[tuple[str, str, bool, str], int] = {}

    def bad(self, file: str, unit: str, place: int, what: str, shown: object = None) -> None:
        """Record a row that cannot be used.

        Raises ValueError in mode "strict"; `shown` is the part of it to show there.
        """
        if self.mode == "strict":
            sample = "" if shown is None else f" ({shorter(shown)})"
            raise ValueError(
                f"{file}, {unit} {place}: {what}{sample}; repair it, or read the file in mode 'skip', which leaves "
                "such rows out and counts them"
            )
        self.left_out(file, unit, place, what)

    def left_out(self, file: str, unit: str, place: int, what: str) -> None:
        """Record something that is left out in either mode, as DPR does."""
        self._count(file, what, True, unit, place)

    def kept(self, file: str, unit: str, place: int, what: str) -> None:
        """Record something worth reporting that changes nothing in what is read."""
        self._count(file, what, False, unit, place)

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings of another reading or file."""
        for finding in findings:
            key = finding.file, finding.what, finding.left_out, finding.unit
            self._times[key] = self._times.get(key, 0) + finding.times
            self._found[key] = [*self._found.get(key, ()), *finding.places][:PLACES]

    def rows(self) -> tuple[Finding, ...]:
        """Return all findings, in the order of their first occurrence."""
        return tuple(
            Finding(file, what, left_out, self._times[file, what, left_out, unit], unit, tuple(places))
            for (file, what, left_out, unit), places in self._found.items()
        )

    def _count(self, file: str, what: str, left_out: bool, unit: str, place: int) -> None:
        self.add([Finding(file, what, left_out, 1, unit, (place,))])


def shorter(value: object, most: int = 60) -> str:
    """Format a value from a file by `repr`, cut; any content is safe to print."""
    text = ascii(value[:most] if isinstance(value, str) else value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
