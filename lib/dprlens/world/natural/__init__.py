"""The real setting: DPR's own files, and models that were trained elsewhere."""

from dprlens.world.natural._files import OpenQuestion, open_questions
from dprlens.world.natural._maker import (
    Natural,
    NaturalSpec,
    asked_openly,
    fingerprint,
    make_world,
    whole,
    with_statements,
)
from dprlens.world.natural.bad_rows import BadRows, Finding
