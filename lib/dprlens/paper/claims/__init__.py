"""What the paper claims (`CLAIMS`), and what we add (`OWN_CLAIMS`): each sentence with the rule that decides it.

Sentences are ours; sections are the paper's. Claims about the size of a number, not its direction, are judged only in
the paper's own setting. Change a rule here before looking at the result, and say so in the comment above the claim.
"""

from dprlens.paper.claims import conclusion, late, section2, section3, section4
from dprlens.paper.claims.claim import CHOICES, EDITORS, LAYERS, Claim

CLAIMS = (*section2.CLAIMS, *section3.CLAIMS, *section4.CLAIMS, *conclusion.CLAIMS)
OWN_CLAIMS = (
    *late.WORLD,
    *conclusion.OWN_CLAIMS,
    *section2.OWN_CLAIMS,
    *section4.OWN_CLAIMS,
    *late.LATE,
    *section3.OWN_CLAIMS,
)
BY_ID = {claim.id: claim for claim in (*CLAIMS, *OWN_CLAIMS)}
