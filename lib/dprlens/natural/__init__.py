"""The real setting: DPR's own files, and models that were trained elsewhere."""

from dprlens.natural.files import OpenQuestion, open_questions
from dprlens.natural.findings import Finding, Findings
from dprlens.natural.maker import Natural, NaturalSpec, asked_openly, fingerprint, make_world, whole, with_statements
