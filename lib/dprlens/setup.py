"""What all chapters start from: a profile's world, its pre-trained BERT, its hard negatives, its DPR.

The cached steps that make them, and `Setup`, which has those of one profile and seed.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from dprlens.bert import cloze
from dprlens.bert.encoder import DualEncoder, Encoder, EncoderSpec
from dprlens.bert.pretrained import load_encoder
from dprlens.bert.vocabulary import make_tokenizer, vocabulary
from dprlens.cache.artifacts import Task, step
from dprlens.consistency.probes import probed_part
from dprlens.profile import Profile
from dprlens.retrieval.negatives import NegativesSpec, hard_negatives
from dprlens.training import processes
from dprlens.training.dpr import DPRSpec, Trained, examples, shuffled_pairs, train_dpr
from dprlens.training.muon import in_quick_precision
from dprlens.training.pretrain import PretrainSpec, continue_pretraining, pretrain
from dprlens.world import natural
from dprlens.world.closed import ClosedSpec, TextSpec, make_world, reading, segments
from dprlens.world.natural import Natural, NaturalSpec
from dprlens.world.records import World
from dprlens.world.statements.records import Written
from dprlens.world.statements.records import read as statements_of
from dprlens.world.statements.writer import Pair, written


@step(version=1, on_device=False)
def closed_world(spec: ClosedSpec, seed: int) -> World:
    """The generated encyclopedia."""
    return make_world(spec, seed)


@in_quick_precision()
@step(version=1)
def base_model(world: World, text: TextSpec, shape: EncoderSpec, spec: PretrainSpec, seed: int) -> Encoder:
    """The BERT that has read the known part of the world: every other model of the book starts from it."""
    read = segments(world, text, seed)
    tokenizer = make_tokenizer(vocabulary([*world.texts(), *(segment.text for segment in read)]))
    return pretrain(tokenizer, read, shape, spec, seed)


@step(version=1, on_device=False)
def natural_world(spec: NaturalSpec, files: dict, seed: int) -> Natural:  # noqa: ARG001, part of the key
    """The world of DPR's files; `files` (`natural.fingerprint`) tells them from others of the same names."""
    return natural.make_world(spec, seed)


@step(version=1, on_device=False)
def statements(world: World, file: str | None, seed: int) -> Written:
    """Statements and false answers for a world's facts: those of a file of JSON lines, or written by rules."""
    if file is not None:
        return statements_of(Path(file))
    asked = {question.target: question for question in world.questions}
    return written([Pair(id_, question.text, question.answers) for id_, question in asked.items()], seed)


@step(version=1)
def cloze_recall(encoder: Encoder, world: World) -> pd.DataFrame:
    """`cloze.recall` of every fact of the world."""
    return cloze.recall(encoder, world)


@step(version=1, libraries=("bm25s",), on_device=False)
def mined_negatives(world: World, spec: NegativesSpec) -> dict:
    """`negatives.hard_negatives` of every question: question id -> passage ids."""
    return hard_negatives(world, spec)


@dataclass(frozen=True)
class Training(Task):
    """What DPR is trained from, on what, and how."""

    start: DualEncoder
    world: World
    negatives: NegativesSpec
    spec: DPRSpec
    seed: int


@step(version=2)
def dpr(training: Training, shuffled: bool = False, checkpoint: Path | None = None) -> Trained:
    """DPR trained on the world's questions, or (the control) on the same questions with each other's passages."""
    mined = mined_negatives(training.world, training.negatives)
    train, dev = (examples(training.world, mined, split) for split in ("train", "dev"))
    if shuffled:
        train, dev = (shuffled_pairs(part, training.seed) for part in (train, dev))
    return train_dpr(training.start, train, dev, training.spec, training.seed, checkpoint)


@dataclass(frozen=True)
class Continuing(Task):
    """What the base model reads on, and for how long: as many steps as DPR training of the spec `like` takes."""

    base: Encoder
    world: World
    text: TextSpec
    negatives: NegativesSpec
    spec: PretrainSpec
    like: DPRSpec
    seed: int


@step(version=1)
def continued(task: Continuing) -> Encoder:
    """The base model after as many more steps of masked-LM as DPR training takes, at its learning rate."""
    questions = len(examples(task.world, mined_negatives(task.world, task.negatives), "train"))
    steps = task.like.epochs * -(-questions // task.like.batch)
    read = reading(task.world, task.text, task.seed)
    read *= -(-steps * task.spec.batch // len(read))  # a text that is too short is read again
    return continue_pretraining(task.base, read, task.spec, steps, task.like.learning_rate, task.seed)


def closed_spec(profile: Profile) -> ClosedSpec:
    """The generated world of a profile. Raises ValueError if its world is another."""
    if isinstance(profile.world, ClosedSpec):
        return profile.world
    raise ValueError(f"profile {profile.name!r} has no generated world; take one that has (`Profile.controlled`)")


@dataclass(frozen=True)
class Setup:
    """One profile and seed: its world and its models, each made or read when it is first needed, and once."""

    profile: Profile
    seed: int

    @cached_property
    def world(self) -> World:
        """The world; nobody needs to ask which maker made it."""
        if not isinstance(self.profile.world, NaturalSpec):
            return closed_world(self.profile.world, self.seed)
        return natural.with_statements(self._natural.world, self._statements)

    @cached_property
    def part(self) -> World:
        """The questions that are probed and judged, and the passages that they choose from."""
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
        """How the profile's DPR is trained."""
        return Training(self.start, self.world, self.profile.negatives, self.profile.dpr, self.seed)

    @cached_property
    def trained(self) -> Trained:
        """The profile's DPR, with what validation saw."""
        return dpr(self.training)

    @property
    def dpr(self) -> DualEncoder:
        """The towers of the profile's DPR."""
        return self.trained.dual

    def require_dpr(self) -> DualEncoder:
        """The towers of the profile's DPR from the cache. Raises ValueError if it is not trained."""
        if dpr.record(self.training) is None:
            name = self.profile.name
            raise ValueError(f"the DPR of profile {name!r} is not trained yet; run `python -m dprlens train` first")
        return self.dpr

    def notes(self) -> list[tuple[str, str]]:
        """What a page says of where its world comes from, each with its number or value; nothing of a generated one.

        Rows that are bad or were left out, by file; facts without statements, by reason; and what a `profile.toml`
        turned.
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
        """What DPR's files make."""
        return natural_world(self._spec, natural.fingerprint(self._spec), self.seed)

    @property
    def _spec(self) -> NaturalSpec:
        assert isinstance(self.profile.world, NaturalSpec), "models from elsewhere are read in the real setting alone"
        return self.profile.world

    @cached_property
    def _statements(self) -> Written:
        """What is said about the facts of DPR's files."""
        return statements(self._natural.world, self.profile.models.statements, self.seed)


def train_in_group(setup: Setup) -> None:
    """Train the profile's DPR together with the other processes of torchrun; the first one keeps it."""
    with processes.group():
        if processes.agreed(dpr.record(setup.training) is None):
            (dpr if processes.rank() == 0 else dpr.__wrapped__)(setup.training)
