"""The cached steps of the book: a few lines of composition each, computed once for the same arguments.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

import pandas as pd

from dprlens import knowledge
from dprlens.artifacts import step
from dprlens.closed import ClosedSpec, TextSpec, make_world, segments
from dprlens.encoder import Encoder, EncoderSpec
from dprlens.tokens import make_tokenizer, vocabulary
from dprlens.training.pretrain import PretrainSpec, pretrain
from dprlens.world import World


@step(version=1)
def closed_world(spec: ClosedSpec, seed: int) -> World:
    """The generated encyclopedia."""
    return make_world(spec, seed)


@step(version=1)
def base_model(world: World, text: TextSpec, shape: EncoderSpec, spec: PretrainSpec, seed: int) -> Encoder:
    """The BERT that has read the known part of the world: every other model of the book starts from it."""
    read = segments(world, text, seed)
    tokenizer = make_tokenizer(vocabulary([*world.texts(), *(segment.text for segment in read)]))
    return pretrain(tokenizer, read, shape, spec, seed)


@step(version=1)
def cloze_recall(encoder: Encoder, world: World) -> pd.DataFrame:
    """`knowledge.recall` of every fact of the world."""
    return knowledge.recall(encoder, world)
