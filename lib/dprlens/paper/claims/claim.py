"""A claim: one sentence, the rule that decides it, and the strongest objection to the verdict."""

from dataclasses import dataclass

from dprlens.paper.rules import OPEN, UNTESTED, Check, Numbers, Verdict

EDITORS = ("transformer_patcher", "malmen", "mend")
BLOCKS, LAYERS = range(12), range(13)
EARLY, LATE = range(3), range(3, 12)  # "the earlier layers", and the others; the paper draws no line
CHOICES = range(2, 6)  # passages a probe chooses from
LAST = "layer12"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence about the numbers that one notebook reports, and, if `across`, those over several worlds."""

    id: str
    section: str  # of the paper; "–" for our own claims
    text: str
    exhibit: str = ""
    check: Check | None = None
    across: Check | None = None
    objection: str = ""  # the strongest that stands
    experiment: str = ""
    size: bool = False  # about a number's size: judged only in the paper's own setting

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the numbers that decide the claim on one world; none if nothing tests it."""
        return self.check.needs if self.check else ()

    def verdict(self, numbers: Numbers, profile: str = "paper") -> Verdict:
        """The verdict on these numbers (by id); numbers that are not there leave the claim open."""
        if self.check is None:
            return Verdict(UNTESTED, f"What would test it: {self.experiment}")
        here = self.check.verdict(numbers)
        if self.size and profile != "paper":
            return Verdict(OPEN, f"{here.why.rstrip('.')}; sizes are compared only in the paper's own setting.")
        if self.across is None or not self.is_across(numbers):
            return here
        over = self.across.verdict(numbers)
        return Verdict(over.verdict, f"Over worlds and networks: {over.why} In the world of this page: {_both(here)}")

    def is_across(self, numbers: Numbers) -> bool:
        """Whether these numbers decide the claim over several worlds and networks."""
        return self.across is not None and all(name in numbers for name in self.across.needs)

    def is_reported(self, numbers: Numbers) -> bool:
        """Whether any number that the claim is about is there."""
        return any(name in numbers for name in self.needs) or self.is_across(numbers)


def _both(verdict: Verdict) -> str:
    return f"{verdict.verdict}. {verdict.why}"
