"""The paper: the numbers it prints (`numbers`), what it claims (`CLAIMS`), what its numbers say (`own_reading`)."""

from dprlens.paper.claims import CLAIMS, OWN_CLAIMS, Check, Claim, Verdict
from dprlens.paper.numbers import FACTS, Said, numbers, replication, said, titles
from dprlens.paper.reading import Reading, own_reading, replicated_reading

__all__ = [
    "CLAIMS",
    "FACTS",
    "OWN_CLAIMS",
    "Check",
    "Claim",
    "Reading",
    "Said",
    "Verdict",
    "numbers",
    "own_reading",
    "replicated_reading",
    "replication",
    "said",
    "titles",
]
