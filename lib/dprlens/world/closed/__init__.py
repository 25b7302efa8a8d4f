"""The closed world: a generated encyclopedia whose every fact, and every exposure to it, is known."""

from dprlens.world.closed.counterfactual import false_gold, with_false_links
from dprlens.world.closed.generator import ClosedSpec, leaks, make_world
from dprlens.world.closed.language import is_linking, mentions
from dprlens.world.closed.text import Segment, TextSpec, reading, segments
