"""The scorecard: every claim with its verdicts, from the results files; and its short form for the front page.

Four voices may speak on a claim: this build's numbers, those on record for the profile `full`, the paper's own printed
numbers, and those of the independent replication. What a voice cannot say is left out, never guessed.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dprlens.intervals import Estimate
from dprlens.paper import CLAIMS, OWN_CLAIMS, Claim, Verdict, own_reading, replicated_reading
from dprlens.report import NO_BREAK, SIGNS, estimates, plain
from dprlens.runner.notebooks import Notebook

SECTIONS = {  # of the paper, by the first that a claim names
    "1": "The conclusion: what BERT knows bounds what DPR retrieves",
    "6": "The conclusion: what BERT knows bounds what DPR retrieves",
    "2": "Section 2: knowledge consistency",
    "3": "Section 3: decentralisation",
    "4.1": "Section 4.1: facts added",
    "4.2": "Section 4.2: facts removed",
    "A.1": "Appendix A.1: the context model",
    "A.2": "Appendix A.2: other thresholds",
}
# for the front page: what a reader would tell a colleague, in the paper's order, then what only this book could ask
GLANCE = ("S2.6", "S2.8", "P.5", "S3.1", "S3.5", "S4.2", "S4.4", "S4.8", "C.1", "L.2")
INTRODUCTION = """# Scorecard

Every claim that this book judges, with its verdict in this world (profile {profile}). A claim **holds** if every
plausible value of the number that it is about lies on its side, **does not hold** if all lie on the other, and else it
**cannot be told here** ({{doc}}`how_to_read`). Where the profile `full` is on record, with several worlds and networks,
its verdict follows; where the record is of this page's own world and has no case more, it says so: then it is the same
experiment once more and no second witness. Last, where they can decide, the paper's own printed numbers at their face,
and those of the independent replication on the real BERT {{cite:p}}`yao2025pretraining`. Sentences are ours; sections
are the paper's."""
REPLICATION = {  # by the paper's section
    "2": """The replication's accuracies were read off its figures (Natural Questions, [CLS]). A number counts as known
to half a point, a difference to a whole one. The [chapter on
probes](../notebooks/02_knowledge_consistency.ipynb) shows the curves.""",
    "3": """The replication repeats this section too, by an attribution that scales weights and not activations, so that
its counts cannot be laid beside these. It reports that with DPR training on [CLS] the knowledge comes from pre-training
and mainly the activation of neurons changes, and that this does not carry over to mean pooling (Contriever) or to a
decoder (LLaMA). Section 4 it leaves aside.""",
}
OWN = "Claims of our own: controls that the paper lacks, and what only a world with known facts can decide."


class Found(NamedTuple):
    """The results files of one profile."""

    profile: str
    numbers: dict[str, Estimate]
    exhibits: frozenset[str]
    worlds: dict[str, str]  # by number, the digest of the world that it was measured in
    passages: int = 0  # of the profile's world; 0: no results

    def verdict(self, claim: Claim) -> Verdict:
        return claim.verdict(self.numbers, self.profile)

    def decides(self, claim: Claim) -> bool:
        """All numbers that the claim is about are there."""
        return set(claim.check.needs) <= set(self.numbers)

    def repeats(self, other: "Found", claim: Claim) -> bool:
        """The claim rests on the same world and on as many cases as in `other`: the same experiment, run again."""
        cases, others = self._cases(claim), other._cases(claim)
        return cases is not None and cases == others

    def _cases(self, claim: Claim) -> list[tuple[str, int]] | None:
        """The world and the n of each number that the claim needs; None if one of them is not known."""
        needs = claim.check.needs
        if not (self.decides(claim) and set(needs) <= set(self.worlds)):
            return None
        return [(self.worlds[id_], self.numbers[id_].n) for id_ in needs]

    def place(self, claim: Claim) -> str:
        """A reference to the claim's exhibit, if there is one."""
        return f"({{numref}}`{claim.exhibit}`)" if claim.exhibit in self.exhibits else ""


def read_results(root: Path, profile: str) -> Found:
    """The results files in `<root>/<profile>`; nothing if the profile was never run."""
    files = [json.loads(path.read_text("utf-8")) for path in sorted((root / profile).glob("*.json"))]
    numbers = {id_: value for results in files for id_, value in estimates(results).items()}
    worlds = {id_: results["world"]["digest"] for results in files if "world" in results for id_ in estimates(results)}
    exhibits = frozenset(name for results in files for name in results["exhibits"])
    return Found(
        profile, numbers, exhibits, worlds, max((r["world"]["passages"] for r in files if "world" in r), default=0)
    )


def scorecard_page(notebooks: Sequence[Notebook], here: Found, full: Found) -> str:
    """The whole scorecard as MyST Markdown, of this build's results and of those on record for `full`."""
    others = {
        "The paper's own numbers": {reading.id: reading.verdict for reading in own_reading()},
        "The replication's": {reading.id: reading.verdict for reading in replicated_reading()},
    }
    parts = [INTRODUCTION.format(profile=plain(here.profile)), _counts(here), "## What the paper claims"]
    for title in dict.fromkeys(SECTIONS.values()):
        claims = [claim for claim in CLAIMS if SECTIONS[claim.section.partition(",")[0]] == title]
        parts += [f"### {title}", *(_entry(claim, here, full, others) for claim in claims)]
        parts += [text for section, text in REPLICATION.items() if title == SECTIONS[section]]
    parts += ["## What we ask beyond it", OWN]
    for notebook in notebooks:
        if claims := [claim for claim in OWN_CLAIMS if claim.exhibit in notebook.exhibits]:
            parts += [f"### {plain(notebook.title)}", *(_entry(claim, here, full, {}) for claim in claims)]
    return "\n\n".join(parts) + "\n"


def glance(here: Found) -> str:
    """Ten claims in a table, for the front page, as MyST Markdown."""
    claims = {claim.id: claim for claim in (*CLAIMS, *OWN_CLAIMS)}
    rows = ["| Claim | In this world |", "| :--- | :--- |"]
    for claim in map(claims.__getitem__, GLANCE):
        verdict = here.verdict(claim)
        said = f"**{sign(verdict)}** {plain(unbroken(briefly(claim, verdict, here)))} {here.place(claim)}"
        rows.append(f"| {plain(claim.text)}{whose(claim)} | {said.strip()} |")
    return "\n".join(rows) + "\n"


def _entry(claim: Claim, here: Found, full: Found, others: Mapping[str, Mapping[str, Verdict]]) -> str:
    own = here.verdict(claim)
    lines = [f"**{sign(own)}** {plain(claim.id)} · {plain(claim.text)} {here.place(claim)}".strip(), plain(own.why)]
    if full.decides(claim) and here.profile != full.profile:
        record = "On record, in the same world and on the same cases" if full.repeats(here, claim) else "On record"
        lines.append(_other(record, full.verdict(claim)))
    lines += [_other(voice, verdicts[claim.id]) for voice, verdicts in others.items() if claim.id in verdicts]
    return f":::{{container}} verdict {SIGNS[own.verdict][1]}\n{_paragraphs(lines)}\n:::"


def _paragraphs(lines: Iterable[str]) -> str:
    return "\n\n".join(lines)


def _other(voice: str, verdict: Verdict) -> str:
    return f"{voice}: *{plain(verdict.verdict)}*. {plain(verdict.why)}"


def _counts(here: Found) -> str:
    def row(name: str, claims: Iterable[Claim]) -> str:
        told = Counter(here.verdict(claim).verdict for claim in claims)
        return f"| {name} | {' | '.join(str(told[word]) for word in SIGNS)} |"

    head = [f"| Claims | {' | '.join(SIGNS)} |", f"| :--- | {' | '.join('---:' for _ in SIGNS)} |"]
    return "\n".join([*head, row("of the paper", CLAIMS), row("our own", OWN_CLAIMS)])


def whose(claim: Claim) -> str:
    """A mark behind the sentences that are not the paper's."""
    return " *(ours)*" if claim in OWN_CLAIMS else ""


def unbroken(text: str) -> str:
    """Numbers as text whose lines do not break before an n."""
    return text.replace("n = ", f"n{NO_BREAK}={NO_BREAK}")


def sign(verdict: Verdict) -> str:
    """The verdict after its sign."""
    return f"{SIGNS[verdict.verdict][0]} {verdict.verdict}"


def briefly(claim: Claim, verdict: Verdict, here: Found) -> str:
    """The one or two numbers that decide a claim; of more, how many comparisons hold."""
    needs = claim.check.needs
    if not here.decides(claim):
        return "not measured"
    if len(needs) <= 2:
        return " and ".join(str(here.numbers[name]) for name in needs)
    return verdict.why.partition(";")[0]
