"""The paper: the numbers it prints (`numbers`), what it claims (`CLAIMS`), what its numbers say (`own_reading`)."""

from dprlens.paper._reading import Reading, own_reading, replicated_reading
from dprlens.paper.claims import BY_ID, CLAIMS, OWN_CLAIMS, Claim
from dprlens.paper.numbers import FACTS, TextNumber, numbers, replication, text_numbers, titles
from dprlens.paper.rules import FAILS, HOLDS, OPEN, UNTESTED, Check, Verdict, false_verdicts
