"""What came out, in short: two dozen claims grouped by verdict, for a reader of five minutes; and one sentence.

Which claims are on the list does not depend on the results; under which verdict each stands, they alone say.
"""

from collections import Counter

from dprlens.book.pages.scorecard import BuiltResults, briefly, sign, unbroken, whose, with_record
from dprlens.paper import BY_ID, CLAIMS, Claim
from dprlens.paper.rules import FAILS, HOLDS, OPEN, UNTESTED
from dprlens.report.report import plain

SHORT = (  # in the order of the paper, each control behind the claim that it bears on
    *("S2.5", "S2.6", "S2.8", "P.3", "P.4", "P.5"),
    *("S3.1", "D.1", "D.3", "S3.4", "D.5", "A.1", "A.2"),
    *("E.1", "S4.2", "S4.4", "E.5", "S4.8"),
    *("C.1", "K.8", "C.4", "C.5", "C.3", "K.1", "K.3", "L.2", "L.6"),
    *("S2.10", "S3.8", "S3.9", "S7.1"),
)
GROUPS = {
    HOLDS: "What holds",
    FAILS: "What does not hold",
    OPEN: "What cannot be told here",
    UNTESTED: "What is not tested yet",
}


def outcome(here: BuiltResults, full: BuiltResults) -> str:
    """The short list under its verdicts, as MyST Markdown; what is open here says where `full` has decided it."""
    judged, parts = with_record(here, full), []
    for verdict, title in GROUPS.items():
        chosen = [BY_ID[id_] for id_ in SHORT if judged.verdict(BY_ID[id_]).verdict == verdict]
        lines = [_line(claim, judged, full) for claim in chosen] or ["Nothing on the short list."]
        parts += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def standing(here: BuiltResults, full: BuiltResults) -> str:
    """One sentence: how the paper's claims stand in this build, and what the short list is, as MyST Markdown."""
    judged = with_record(here, full)
    counts = Counter(judged.verdict(claim).verdict for claim in CLAIMS)
    sizes = sum(claim.size for claim in CLAIMS)
    why = f" ({sizes} of them because they are about the height of a number)" if here.profile != "paper" else ""
    return (
        f"Of {len(CLAIMS)} claims of the paper **{counts[HOLDS]} hold** in this build (profile {plain(here.profile)}),"
        f" **{counts[FAILS]} do not**, {counts[OPEN]} cannot be told here{why}, and {counts[UNTESTED]} are not tested"
        " yet.\n"
    )


def _line(claim: Claim, here: BuiltResults, full: BuiltResults) -> str:
    verdict = here.verdict(claim)
    said = plain(unbroken(briefly(verdict)))
    line = f"* {plain(claim.text)}{whose(claim)} · {said} {here.place(claim)}".rstrip()
    recorded = full.verdict(claim)
    another = here.profile != full.profile and not full.repeats(here, claim)
    decided = another and verdict.verdict == OPEN != recorded.verdict and full.decides(claim)
    return f"{line}; on record {sign(recorded)}" if decided else line
