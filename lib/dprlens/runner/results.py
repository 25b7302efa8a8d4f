"""A notebook's results file against the one that was there before the run: did any number move?"""

from typing import NamedTuple


class Difference(NamedTuple):
    id: str  # of a number, or of a claim
    before: float | str | None  # None: it was not there
    after: float | str | None  # None: it is gone

    def __str__(self) -> str:
        return f"{self.id}: {_shown(self.before)} before, {_shown(self.after)} now"


def compare_results(before: dict, after: dict) -> list[Difference]:
    """The numbers that moved by more than half of their own (the earlier) interval, and the verdicts that changed.

    Both are results files as in design.md §9. A number without an interval has moved if it differs at all; one that
    came or went has always moved.
    """
    differences = []
    old, new = _numbers(before), _numbers(after)
    for id_ in sorted(old.keys() | new.keys()):
        was, now = old.get(id_), new.get(id_)
        if was is None or now is None or _moved(was, now):
            differences.append(Difference(id_, was and was["ours"], now and now["ours"]))
    old, new = _verdicts(before), _verdicts(after)
    differences += [
        Difference(id_, old.get(id_), new.get(id_))
        for id_ in sorted(old.keys() | new.keys())
        if old.get(id_) != new.get(id_)
    ]
    return differences


def _numbers(results: dict) -> dict[str, dict]:
    return {id_: n for exhibit in results["exhibits"].values() for id_, n in exhibit.get("numbers", {}).items()}


def _verdicts(results: dict) -> dict[str, str]:
    claims = [claim for exhibit in results["exhibits"].values() for claim in exhibit.get("claims", [])]
    return {claim["id"]: claim["verdict"] for claim in claims}


def _moved(was: dict, now: dict) -> bool:
    if was.get("low") is None or was.get("high") is None or was["ours"] is None or now["ours"] is None:
        return was["ours"] != now["ours"]
    return abs(now["ours"] - was["ours"]) > (was["high"] - was["low"]) / 2


def _shown(value: float | str | None) -> str:
    return "nothing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
