"""The closed world: a generated encyclopedia whose every fact, and every reading of it, is known."""

from dprlens.closed.counterfactual import false_gold, misinformed
from dprlens.closed.generator import ClosedSpec, leaks, make_world
from dprlens.closed.language import is_linking, mentions
from dprlens.closed.text import Segment, TextSpec, reading, segments
