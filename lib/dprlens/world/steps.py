"""The cached steps that make worlds, and the statements of their facts.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from pathlib import Path

from dprlens.cache.artifacts import step
from dprlens.world import natural
from dprlens.world.closed import ClosedSpec, make_world
from dprlens.world.natural import Natural, NaturalSpec
from dprlens.world.records import World
from dprlens.world.statements.records import Written
from dprlens.world.statements.records import read as statements_of
from dprlens.world.statements.writer import Pair, write_statements


@step(version=1, on_device=False)
def closed_world(spec: ClosedSpec, seed: int) -> World:
    """Generate the closed world: the encyclopedia."""
    return make_world(spec, seed)


@step(version=1, on_device=False)
def natural_world(spec: NaturalSpec, files: dict, seed: int) -> Natural:  # noqa: ARG001, part of the key
    """Make the world of DPR's files; `files` (`natural.fingerprint`) identifies their content."""
    return natural.make_world(spec, seed)


@step(version=1, on_device=False)
def statements(world: World, file: str | None, seed: int) -> Written:
    """Write or read statements and false answers for a world's facts.

    They are those of a file of JSON lines, or written by rules.
    """
    if file is not None:
        return statements_of(Path(file))
    asked = {question.target: question for question in world.questions}
    return write_statements([Pair(id_, question.text, question.answers) for id_, question in asked.items()], seed)
