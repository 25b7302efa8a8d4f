"""The table of results in README.md: ten claims, judged on the committed results, between two comments."""

import re
from collections.abc import Sequence

from dprlens.book.notebooks import Mistake, Notebook
from dprlens.book.pages.scorecard import GLANCE, BuiltResults, briefly, sign, with_record
from dprlens.paper import BY_ID, Claim

BEGIN = "<!-- results: written by `python -m dprlens readme`, not by hand -->"
END = "<!-- end of results -->"


def with_results(text: str, notebooks: Sequence[Notebook], small: BuiltResults, full: BuiltResults) -> str:
    """The README with the table of these results in it; Mistake unless it has each comment once, in their order."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in before + after:
        raise Mistake(f"README.md has no single place for the table of results: write {BEGIN!r} and {END!r}, once each")
    return f"{before}{BEGIN}\n{results_table(notebooks, small, full)}{END}{after}"


def results_table(notebooks: Sequence[Notebook], small: BuiltResults, full: BuiltResults) -> str:
    """The claims of the front page with their verdicts and objections, as Markdown that GitHub shows."""
    chapters = {exhibit: notebook for notebook in notebooks for exhibit in notebook.exhibits}
    judged = with_record(small, full)
    rows = ["| Claim | Verdict and what decides it | Strongest objection |", "| :--- | :--- | :--- |"]
    for claim in map(BY_ID.__getitem__, GLANCE):
        linked = f"[{_escaped(claim.text)}](notebooks/{chapters[claim.exhibit].path.name})"
        rows.append(f"| {linked} | {_said(claim, judged, full)} | {_escaped(claim.objection)} |")
    return "\n".join(rows) + "\n"


def _said(claim: Claim, here: BuiltResults, full: BuiltResults) -> str:
    """The verdict in bold and what decided it, with the record's beside it where it is another experiment."""
    said = [_verdict(claim, here)]
    if full.decides(claim) and not claim.is_across(here.numbers) and not full.repeats(here, claim):
        recorded = f"**{sign(full.verdict(claim))}**"
        number = f": {full.numbers[claim.needs[0]]}." if len(claim.needs) == 1 else "."  # in words before
        said.append(f"On record: {recorded}{number}")
    return " ".join(said)


def _verdict(claim: Claim, found: BuiltResults) -> str:
    verdict = found.verdict(claim)
    return f"**{sign(verdict)}**: {_escaped(briefly(verdict))}" if claim.is_reported(found.numbers) else "–"


def _escaped(text: str) -> str:
    """As plain text in a cell; the brackets of an interval stay as they are, since nothing follows them."""
    return re.sub(r"([\\|$*_<>&`~#]|\](?=[(\[]))", r"\\\1", " ".join(text.split()))
