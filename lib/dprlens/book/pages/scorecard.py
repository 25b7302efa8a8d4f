"""The scorecard: every claim with its verdicts, from the results files; and its short form for the front page.

A claim is judged on the numbers over several worlds where they are on record, with the page's own world beside them;
else on this build's numbers, with those on record for the profile `full` beside them. The paper's own printed numbers
and those of the independent replication follow where they can decide, and last the strongest objection that stands.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dprlens.book.notebooks import Notebook
from dprlens.intervals import Estimate
from dprlens.paper import BY_ID, CLAIMS, OWN_CLAIMS, Claim, Verdict, own_reading, replicated_reading
from dprlens.paper.rules import FAILS, HOLDS, LEVEL, UNTESTED, false_verdicts
from dprlens.report.report import NO_BREAK, SIGNS, estimates, plain

CONCLUSION = "The conclusion: knowledge and retrieval"
SECTIONS = {  # of the paper, by the first that a claim names
    "1": CONCLUSION,
    "6": CONCLUSION,
    "2": "Section 2: knowledge consistency",
    "3": "Section 3: decentralisation",
    "4.1": "Section 4.1: facts added",
    "4.2": "Section 4.2: facts removed",
    "A.1": "Appendix A.1: the context model",
    "A.2": "Appendix A.2: other thresholds",
    "7": "Section 7: other retrievers",
}
# for the front page: what a reader would tell a colleague, in the paper's order, then what only this book could ask
GLANCE = ("S2.6", "S2.8", "S3.1", "D.1", "S4.4", "C.1", "K.8", "C.4", "C.5", "L.2")
LETTERS = {
    "S": "the paper, by section",
    "A": "its appendix",
    "C": "its conclusion",
    "W": "what the closed world must satisfy",
    "K": "controls of the causal test of the conclusion",
    "P": "what the probes of section 2 measure",
    "D": "what the neuron counts of section 3 measure (decentralisation)",
    "E": "the edits of section 4 on their own terms",
    "L": "facts that enter late",
}
INTRODUCTION = """# Scorecard

Every claim that this book judges, with its verdict in this world (profile {profile}). A claim **holds** if every
plausible value of the number that it is about lies on its side, **does not hold** if all lie on the other, and else it
**cannot be told here** ({{doc}}`how_to_read`). Sentences of the paper that nothing here tests are **not tested yet**;
the experiment that would test them is named. Where numbers over several worlds are on record (profile `full`), they
decide, and the world of this page stands beside them; where the record is of this page's own world and has no case
more, it says so: it is the same experiment on the same data, not independent evidence. The paper's own printed numbers
and those of the independent replication on the real BERT {{cite:p}}`yao2025pretraining` follow where they can decide.
Last comes the strongest objection that we know and cannot answer here. Sentences are ours; sections are the paper's."""
EXPECTED = """A verdict *holds* or *does not hold* is false in at most {level:.1%} of the cases in which the truth lies
at the edge: of the {decided} claims decided here, up to {false:.1f} verdicts are to be expected to be false. Where a
claim makes several comparisons, contradictions are corrected for their number (Holm)."""
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


COUNTED = re.compile(r"(Over worlds and networks: )?Of \d+ comparisons [^.]*\.")


class BuiltResults(NamedTuple):
    """The results files of one profile."""

    profile: str
    numbers: dict[str, Estimate]
    exhibits: frozenset[str]
    worlds: dict[str, str]  # by number, the digest of the world that it was measured in
    passages: int = 0  # of the profile's world; 0: no results

    def verdict(self, claim: Claim) -> Verdict:
        """Judge a claim on these numbers."""
        return claim.verdict(self.numbers, self.profile)

    def decides(self, claim: Claim) -> bool:
        """All numbers that the claim is about are there."""
        return bool(claim.needs) and set(claim.needs) <= set(self.numbers)

    def repeats(self, other: "BuiltResults", claim: Claim) -> bool:
        """The claim rests on the same world and on as many cases as in `other`: the same experiment, run again."""
        cases, others = self._cases(claim), other._cases(claim)
        return cases is not None and cases == others

    def _cases(self, claim: Claim) -> list[tuple[str, int]] | None:
        """The world and the n of each number that the claim needs; None if one of them is not known."""
        needs = claim.needs
        if not (self.decides(claim) and set(needs) <= set(self.worlds)):
            return None
        return [(self.worlds[id_], self.numbers[id_].n) for id_ in needs]

    def place(self, claim: Claim) -> str:
        """A reference to the claim's exhibit, if there is one."""
        return f"({{numref}}`{claim.exhibit}`)" if claim.exhibit in self.exhibits else ""


def read_results(root: Path, profile: str) -> BuiltResults:
    """The results files in `<root>/<profile>`; nothing if the profile was never run."""
    files = [json.loads(path.read_text("utf-8")) for path in sorted((root / profile).glob("*.json"))]
    numbers = {id_: value for results in files for id_, value in estimates(results).items()}
    worlds = {id_: results["world"]["digest"] for results in files if "world" in results for id_ in estimates(results)}
    exhibits = frozenset(name for results in files for name in results["exhibits"])
    return BuiltResults(
        profile,
        numbers,
        exhibits,
        worlds,
        max((r["world"].get("passages", 0) for r in files if "world" in r), default=0),
    )


def with_record(here: BuiltResults, full: BuiltResults) -> BuiltResults:
    """A build's results and the numbers over several worlds that are on record, which decide where there are any."""
    across = {
        id_: full.numbers[id_]
        for claim in (*CLAIMS, *OWN_CLAIMS)
        if claim.across is not None and claim.is_across(full.numbers)
        for id_ in claim.across.needs
    }
    return here._replace(numbers={**across, **here.numbers})


def scorecard_page(notebooks: Sequence[Notebook], here: BuiltResults, full: BuiltResults) -> str:
    """The whole scorecard as MyST Markdown, of this build's results and of those on record for `full`."""
    others = {
        "The paper's own numbers": {reading.id: reading.verdict for reading in own_reading()},
        "The replication's": {reading.id: reading.verdict for reading in replicated_reading()},
    }
    here = with_record(here, full)
    parts = [INTRODUCTION.format(profile=plain(here.profile)), _counts(here), _expected(here), _letters()]
    parts.append("## What the paper claims")
    for title in dict.fromkeys(SECTIONS.values()):
        claims = [claim for claim in CLAIMS if _title(claim) == title]
        parts += [f"### {title}", *(_entry(claim, here, full, others) for claim in claims)]
        parts += [text for section, text in REPLICATION.items() if title == SECTIONS[section]]
    parts += ["## What we ask beyond it", OWN]
    for notebook in notebooks:
        if claims := [claim for claim in OWN_CLAIMS if claim.exhibit in notebook.exhibits]:
            parts += [f"### {plain(notebook.title)}", *(_entry(claim, here, full, {}) for claim in claims)]
    return "\n\n".join(parts) + "\n"


def glance(here: BuiltResults, full: BuiltResults) -> str:
    """Ten claims in a table, for the front page, as MyST Markdown."""
    here = with_record(here, full)
    rows = [":::{container} glance", "| Claim | In this world | Strongest objection |", "| :--- | :--- | :--- |"]
    for claim in map(BY_ID.__getitem__, GLANCE):
        verdict = here.verdict(claim)
        said = f"**{sign(verdict)}** {plain(unbroken(briefly(verdict)))} {here.place(claim)}".strip()
        rows.append(f"| {plain(claim.text)}{whose(claim)} | {said} | {plain(claim.objection)} |")
    return "\n".join([*rows, ":::"]) + "\n"


def anchor(claim: Claim) -> str:
    """The name by which other pages refer to a claim on the scorecard."""
    return f"claim-{claim.id.lower().replace('.', '-')}"


def _title(claim: Claim) -> str:
    return CONCLUSION if claim.id.startswith("C.") else SECTIONS[claim.section.partition(",")[0]]


def _entry(claim: Claim, here: BuiltResults, full: BuiltResults, others: Mapping[str, Mapping[str, Verdict]]) -> str:
    own = here.verdict(claim)
    name = f"[{plain(claim.id)}](#{anchor(claim)})"
    lines = [f"**{sign(own)}** {name} · {plain(claim.text)} {here.place(claim)}".strip(), plain(unbroken(own.why))]
    if full.decides(claim) and here.profile != full.profile and not claim.is_across(here.numbers):
        again = full.repeats(here, claim)
        record = "On record, the same experiment on the same data" if again else "On record"
        lines.append(_other(record, full.verdict(claim)))
    lines += [_other(voice, verdicts[claim.id]) for voice, verdicts in others.items() if claim.id in verdicts]
    lines += [f"Strongest objection: {plain(claim.objection)}"] if claim.objection else []
    return f":::{{container}} verdict {SIGNS[own.verdict][1]}\n:name: {anchor(claim)}\n\n{_paragraphs(lines)}\n:::"


def _paragraphs(lines: Iterable[str]) -> str:
    return "\n\n".join(lines)


def _other(voice: str, verdict: Verdict) -> str:
    return f"{voice}: *{plain(verdict.verdict)}*. {plain(unbroken(verdict.why))}"


def _counts(here: BuiltResults) -> str:
    def row(name: str, claims: Iterable[Claim]) -> str:
        told = Counter(here.verdict(claim).verdict for claim in claims)
        return f"| {name} | {' | '.join(str(told[word]) for word in SIGNS)} |"

    head = [f"| Claims | {' | '.join(SIGNS)} |", f"| :--- | {' | '.join('---:' for _ in SIGNS)} |"]
    return "\n".join([*head, row("of the paper", CLAIMS), row("our own", OWN_CLAIMS)])


def _expected(here: BuiltResults) -> str:
    """How many of the verdicts may be false."""
    decided = sum(here.verdict(claim).verdict in (HOLDS, FAILS) for claim in (*CLAIMS, *OWN_CLAIMS))
    return EXPECTED.format(level=LEVEL, decided=decided, false=false_verdicts(decided))


def _letters() -> str:
    said = "; ".join(f"**{letter}** {meaning}" for letter, meaning in LETTERS.items())
    return f"The letter of a claim says what it is about: {said}."


def whose(claim: Claim) -> str:
    """A mark behind the sentences that are not the paper's."""
    return " *(ours)*" if claim in OWN_CLAIMS else ""


def unbroken(text: str) -> str:
    """Numbers as text whose lines do not break before an n."""
    return text.replace("n = ", f"n{NO_BREAK}={NO_BREAK}")


def sign(verdict: Verdict) -> str:
    """The verdict after its sign."""
    return f"{SIGNS[verdict.verdict][0]} {verdict.verdict}"


def briefly(verdict: Verdict) -> str:
    """What decides a claim, in short: its number in words, or of several comparisons how many support it."""
    why = verdict.why.partition(" In the world of this page:")[0]
    if counted := COUNTED.match(why):
        return counted[0]
    return why if verdict.verdict == UNTESTED else f"{why.partition('; the claim needs')[0].rstrip('.')}."
