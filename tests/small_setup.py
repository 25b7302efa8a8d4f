"""Profiles at a size of seconds, and plain computations to hold steps against: what tests of cached steps share."""

from dataclasses import replace

import numpy as np
import torch

from dprlens.bert.encoder import DualEncoder, EncoderSpec
from dprlens.bert.pretrained import ModelsSpec
from dprlens.consistency.probes import ProbeSpec, ProbingSpec
from dprlens.decentralization.active_neurons import ActivitySpec, SampleSpec
from dprlens.decentralization.attribution import AttributionSpec
from dprlens.editing.editors import EditorSpecs
from dprlens.editing.protocol import ProtocolSpec
from dprlens.knowledge_bound.exhibits import BoundSpec
from dprlens.late_facts.exhibits import LateSpec
from dprlens.profile import Profile
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.training.dpr import DPRSpec
from dprlens.training.pretrain import PretrainSpec
from dprlens.world.closed import ClosedSpec, TextSpec

TEXT = TextSpec(remarks=1)
SHAPE = EncoderSpec(layers=1, d_model=16, d_ff=16, heads=2, max_length=64)
TRAIN = PretrainSpec(shallow_layers=1, batch=8, threads=1, muon="float32")

# People, where they were born and the rivers there: questions through links, held-out ones and false ones among them.
LINKED = ClosedSpec(10, 6, 0, 0, relations=("born_in", "river"), exposures=6, low_doses=(), train=0.5, held_out=0.2)
NEGATIVES = NegativesSpec(per_question=2)
DPR = DPRSpec(epochs=1, batch=8, warm_up_steps=1, learning_rate=1e-2)
SEED = 1
ROUNDING = 1e-5  # of scores of about 16

NEURONAL = (
    SampleSpec(examples=6, candidates=4, hard=2),
    AttributionSpec(nodes=2, most_nodes=2),
    ActivitySpec(few=3, changed=(2, 5), dpr_seeds=2),
    ProtocolSpec(),
    EditorSpecs(),
    LateSpec(),
)
GROUND = LINKED, ModelsSpec(), TEXT
MICRO = Profile("micro", *GROUND, SHAPE, TRAIN, NEGATIVES, DPR, BoundSpec(), ProbeSpec(), ProbingSpec(), *NEURONAL)

# Some 270 train and 540 test questions with four hard negatives, for networks of two blocks.
PAGE = replace(
    MICRO,
    world=ClosedSpec(40, 12, 12, 15, exposures=4, low_doses=(), train=0.5, dev=0.15),
    encoder=replace(SHAPE, layers=2),
    negatives=NegativesSpec(per_question=4),
    probing=ProbingSpec(random_encoders=2, repeats=2),
)


def one_by_one(calls, workers=None):  # noqa: ARG001
    """In the place of `parallel.run`: no further processes, which take seconds to start."""
    return {key: call() for key, call in calls.items()}


def vectors(encoder, *texts) -> np.ndarray:
    """[CLS] after the last block [text, d_model], by transformers' own padded batches."""
    read = encoder.tokenizer(*texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = encoder.bert(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).last_hidden_state
    return states[:, 0].double().numpy()


def bounds_of_places(dual: DualEncoder, world, passages: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest place that rounding allows for each question's passage, by scoring every pair."""
    asked = [question for question in world.questions if question.id in passages]
    titles, texts = ([getattr(passage, name) for passage in world.passages] for name in ("title", "text"))
    scores = vectors(dual.query, [question.text for question in asked]) @ vectors(dual.passage, titles, texts).T
    number = {passage.id: i for i, passage in enumerate(world.passages)}
    own = scores[range(len(asked)), [number[passages[question.id]] for question in asked]][:, None]
    return (scores > own + ROUNDING).sum(1), (scores > own - ROUNDING).sum(1) - 1
