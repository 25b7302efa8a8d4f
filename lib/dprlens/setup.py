"""Starting point of all chapters: a profile's world, pre-trained BERT, hard negatives and DPR.

`Setup` has those of one profile and seed; the cached steps that make them are those of `world`, `training` and
`retrieval`.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dprlens.bert.encoder import DualEncoder, Encoder
from dprlens.bert.pretrained import load_encoder
from dprlens.consistency.probes import probed_part
from dprlens.profile import Profile
from dprlens.retrieval.steps import mined_negatives
from dprlens.training.dpr import Trained
from dprlens.training.steps import Training, base_model, dpr
from dprlens.world import natural
from dprlens.world.closed import ClosedSpec
from dprlens.world.natural import Natural, NaturalSpec
from dprlens.world.records import World
from dprlens.world.statements.records import Written
from dprlens.world.steps import closed_world, natural_world, statements


def closed_spec(profile: Profile) -> ClosedSpec:
    """Get the spec of a profile's generated world.

    Raises ValueError if its world is another.
    """
    if isinstance(profile.world, ClosedSpec):
        return profile.world
    raise ValueError(f"profile {profile.name!r} has no generated world; take one that has (`Profile.controlled`)")


@dataclass(frozen=True)
class Setup:
    """World and models of one profile and seed, each computed or read when first needed, and once."""

    profile: Profile
    seed: int

    @cached_property
    def world(self) -> World:
        """The world, whichever maker made it."""
        if not isinstance(self.profile.world, NaturalSpec):
            return closed_world(self.profile.world, self.seed)
        return natural.with_statements(self._natural.world, self._statements)

    @cached_property
    def part(self) -> World:
        """The questions that are probed and evaluated, and the passages that they choose from."""
        return probed_part(self.world, self.profile.probing.questions, self.seed)

    @cached_property
    def negatives(self) -> dict[str, list[str]]:
        """Hard negatives of every question: question id -> passage ids."""
        return mined_negatives(self.world, self.profile.negatives)

    @cached_property
    def base(self) -> Encoder:
        """The pre-trained BERT from which every other model of the book starts."""
        chosen = self.profile
        if chosen.models.start is None:
            return base_model(self.world, chosen.text, chosen.encoder, chosen.pretrain, self.seed)
        return load_encoder(chosen.models.start, Path(self._spec.folder), chosen.encoder.max_length)

    @property
    def start(self) -> DualEncoder:
        """The pre-trained BERT as both towers."""
        return DualEncoder(self.base, self.base)

    @property
    def training(self) -> Training:
        """Task of training the profile's DPR."""
        return Training(self.start, self.world, self.profile.negatives, self.profile.dpr, self.seed)

    @cached_property
    def trained(self) -> Trained:
        """The profile's DPR, with its validation history."""
        return dpr(self.training)

    @property
    def dpr(self) -> DualEncoder:
        """The towers of the profile's DPR."""
        return self.trained.dual

    def require_dpr(self) -> DualEncoder:
        """Get the towers of the profile's DPR from the cache.

        Raises ValueError if it is not trained.
        """
        if dpr.record(self.training) is None:
            name = self.profile.name
            raise ValueError(f"the DPR of profile {name!r} is not trained yet; run `python -m dprlens train` first")
        return self.dpr

    def notes(self) -> list[tuple[str, str]]:
        """List notes on the source of the page's world, each with its number or value; none for a generated one.

        They are invalid or omitted rows, by file; facts without statements, by reason; and the fields that a
        `profile.toml` overrides.
        """
        if not isinstance(self.profile.world, NaturalSpec):
            return []
        bad, said = self._natural.findings, self._statements
        rows = [(f"{one.file}: {one.what}{' (left out)' * one.left_out}", f"{one.times:,}") for one in bad]
        rows += [("facts with statements", f"{len(said.entries):,}")]
        rows += [(f"facts without statements: {reason}", f"{times:,}") for reason, times in said.rejects.items()]
        return rows + [("turned by profile.toml", line) for line in self.profile.turned]

    @cached_property
    def _natural(self) -> Natural:
        """The world made from DPR's files."""
        return natural_world(self._spec, natural.fingerprint(self._spec), self.seed)

    @property
    def _spec(self) -> NaturalSpec:
        assert isinstance(self.profile.world, NaturalSpec), "models from elsewhere are read in the real setting alone"
        return self.profile.world

    @cached_property
    def _statements(self) -> Written:
        """Statements about the facts of DPR's files."""
        return statements(self._natural.world, self.profile.models.statements, self.seed)
