"""The cached steps of training: pre-trained BERT, DPR, and continued pre-training of the same length.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from dataclasses import dataclass
from pathlib import Path

from dprlens.bert.encoder import DualEncoder, Encoder, EncoderSpec
from dprlens.bert.vocabulary import make_tokenizer, vocabulary
from dprlens.cache.artifacts import Task, step
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.retrieval.steps import mined_negatives
from dprlens.training.dpr import DPRSpec, Trained, examples, shuffled_pairs, train_dpr
from dprlens.training.muon import in_quick_precision
from dprlens.training.pretrain import PretrainSpec, continue_pretraining, pretrain
from dprlens.world.closed import TextSpec, reading, segments
from dprlens.world.records import World


@in_quick_precision()
@step(version=1)
def base_model(world: World, text: TextSpec, shape: EncoderSpec, spec: PretrainSpec, seed: int) -> Encoder:
    """Pre-train the BERT that all other models of the book start from, on the known part of the world."""
    read = segments(world, text, seed)
    tokenizer = make_tokenizer(vocabulary([*world.texts(), *(segment.text for segment in read)]))
    return pretrain(tokenizer, read, shape, spec, seed)


@dataclass(frozen=True)
class Training(Task):
    """The arguments of DPR training: its start, its data and its spec."""

    start: DualEncoder
    world: World
    negatives: NegativesSpec
    spec: DPRSpec
    seed: int


@step(version=2)
def dpr(training: Training, shuffled: bool = False, checkpoint: Path | None = None) -> Trained:
    """Train DPR on the world's questions, or (the control) on the same questions with shuffled passages."""
    mined = mined_negatives(training.world, training.negatives)
    train, dev = (examples(training.world, mined, split) for split in ("train", "dev"))
    if shuffled:
        train, dev = (shuffled_pairs(part, training.seed) for part in (train, dev))
    return train_dpr(training.start, train, dev, training.spec, training.seed, checkpoint)


@dataclass(frozen=True)
class Continuing(Task):
    """The arguments of continued pre-training.

    It takes as many steps as DPR training of the spec `like`.
    """

    base: Encoder
    world: World
    text: TextSpec
    negatives: NegativesSpec
    spec: PretrainSpec
    like: DPRSpec
    seed: int


@step(version=1)
def continued(task: Continuing) -> Encoder:
    """Continue the base model's pre-training for as many steps as DPR training takes, at its learning rate."""
    questions = len(examples(task.world, mined_negatives(task.world, task.negatives), "train"))
    steps = task.like.epochs * -(-questions // task.like.batch)
    read = reading(task.world, task.text, task.seed)
    read *= -(-steps * task.spec.batch // len(read))  # a text that is too short is read again
    return continue_pretraining(task.base, read, task.spec, steps, task.like.learning_rate, task.seed)
