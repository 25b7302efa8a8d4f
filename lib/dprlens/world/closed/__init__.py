"""The closed world: a generated encyclopedia whose every fact, and every exposure to it, is known."""

from dprlens.world.closed._counterfactual import false_gold, with_false_links
from dprlens.world.closed._generator import ClosedSpec, leaks, make_world
from dprlens.world.closed._language import is_linking, mentions
from dprlens.world.closed._text import Segment, TextSpec, reading, segments
