"""Cached steps of section 3: attribution, silencing and patching on one sample of questions or passages.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from dprlens.bert import cloze
from dprlens.bert.encoder import DualEncoder, Encoder, Text
from dprlens.cache.artifacts import Task, step
from dprlens.decentralization import attribution, interventions
from dprlens.decentralization.active_neurons import Sample, SampleSpec, sample
from dprlens.decentralization.attribution import Attribution, AttributionSpec
from dprlens.retrieval.index import index_of, passage_texts, question_texts
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.retrieval.steps import mined_negatives
from dprlens.world.records import World


@dataclass(frozen=True)
class Sampling(Task):
    """Source of the attributed examples and of their candidates."""

    world: World
    negatives: NegativesSpec
    sampled: SampleSpec
    seed: int

    def draw(self, side: str, only: Sequence[int] | None = None) -> Sample:
        """Draw questions ("query") or passages ("passage") with their candidates (`active_neurons.sample`)."""
        mined = mined_negatives(self.world, self.negatives)
        return sample(self.world, mined, side, self.sampled, self.seed, only)


@dataclass(frozen=True)
class AttributionTask(Task):
    """Model, sample that it reads, and settings of attribution (the equation of section 3)."""

    dual: DualEncoder
    sampling: Sampling
    spec: AttributionSpec
    temperature: float  # of the choice among the candidates


def _candidates(dual: DualEncoder, world: World, side: str, candidates: np.ndarray) -> torch.Tensor:
    """Encode the candidates [example, choice, d_model], which are of the other side than the examples."""
    distinct, where = np.unique(candidates, return_inverse=True)
    if side == "query":
        vectors = dual.passages(passage_texts(world, distinct))
    else:
        vectors = dual.questions(question_texts(world, distinct))
    return vectors[torch.tensor(where.reshape(candidates.shape))]


@step(version=1, libraries=("bm25s",), threads=1)
def products(dual: DualEncoder, sampling: Sampling, side: str) -> np.ndarray:
    """Compute dot products of the sample's examples with their candidates [example, choice]."""
    drawn, world = sampling.draw(side), sampling.world
    if side == "query":
        vectors = dual.questions(question_texts(world, drawn.examples))
    else:
        vectors = dual.passages(passage_texts(world, drawn.examples))
    return (_candidates(dual, world, side, drawn.candidates) @ vectors[:, :, None])[:, :, 0].numpy()


@step(version=2, libraries=("bm25s",), threads=1)
def attribute_sample(
    task: AttributionTask, side: str, score: str = "choice", only: Sequence[int] | None = None
) -> Attribution:
    """Attribute the neurons of the question encoder ("query") or the context encoder ("passage") on the sample.

    `score` is "choice" (S2), with the temperature, a name in `attribution.SCORES`, or "weights": the weight-level
    reading of "choice". `only` replaces the random examples (see `active_neurons.sample`).
    """
    drawn, dual, spec = task.sampling.draw(side, only), task.dual, task.spec
    world, encoder = task.sampling.world, dual.query if side == "query" else dual.passage
    texts: Sequence[Text] = (question_texts if side == "query" else passage_texts)(world, drawn.examples)
    candidates = _candidates(dual, world, side, drawn.candidates)
    if score == "weights":
        says = attribution.choice(candidates, task.temperature)
        return attribution.attribute_weights(encoder, texts, says, spec.rule, 2 * spec.nodes)
    if score == "choice":
        says = attribution.choice(candidates, task.temperature)
    elif score in attribution.SCORES:
        says = attribution.SCORES[score](candidates)
    else:
        known = ", ".join(["choice", *attribution.SCORES, "weights"])
        raise ValueError(f"score = {score!r} is not known; choose one of {known}")
    return attribution.attribute(encoder, texts, says, spec, pooling=dual.pooling)


@step(version=2, threads=1)
def masked_answers(encoder: Encoder, world: World, spec: AttributionSpec, n: int, seed: int) -> Attribution:
    """Attribute S1, as in Dai et al., at the mask for n known facts whose answer is a single piece."""
    known = [fact for fact in world.facts if world.may_know(fact.id)]
    order = np.random.default_rng([seed, 0x51]).permutation(len(known))
    statements = [known[i].statements[0] for i in order if known[i].statements]
    masked, places, answers = cloze.mask_answers(encoder, statements)
    single = [i for i, pieces in enumerate(answers) if len(pieces) == 1][:n]
    return attribution.attribute_at(
        encoder,
        [masked[i] for i in single],
        [places[i][0] for i in single],
        attribution.answer(encoder.model, torch.tensor([answers[i][0] for i in single])),
        spec,
    )


class GoldRanks(NamedTuple):
    """Ranks of a question's gold passage under some vectors of the question."""

    place: np.ndarray  # int [.., example]: rank of the gold passage among all passages, from 0
    among: np.ndarray  # int [.., example]: its rank among the example's candidates, from 0
    margin: np.ndarray  # [.., example]: dot product with the gold passage minus the mean over the other candidates


def _judge(dual: DualEncoder, world: World, drawn: Sample, readings: Iterable[torch.Tensor]) -> GoldRanks:
    """Rank by each reading of the sample's questions [example, d_model] among the passages of `dual`."""
    index, found = index_of(dual, world), []
    for queries in readings:
        scores, places = index.ranks(queries.numpy(), drawn.candidates)
        shown = torch.from_numpy(scores)
        among = (shown > shown[:, :1]).sum(1).numpy()
        found.append((places, among, (shown[:, 0] - shown[:, 1:].mean(1)).numpy()))
    return GoldRanks(*(np.stack(part) for part in zip(*found, strict=True)))


@step(version=1, libraries=("bm25s",), threads=1)
def intervene(task: AttributionTask, changed: Sequence[int]) -> GoldRanks:
    """Silence and double neurons of the sample's questions: [1 + k · kind · factor, example], unchanged first.

    For each k of `changed` k neurons of each kind of `interventions.KINDS`, and for each kind the neurons silenced
    (factor 0) and doubled (factor 2).
    """
    scores, drawn, query = attribute_sample(task, "query").scores, task.sampling.draw("query"), task.dual.query
    texts = question_texts(task.sampling.world, drawn.examples)
    masks = [interventions.chosen(scores, k, kind, task.sampling.seed) for k in changed for kind in interventions.KINDS]
    factors = [np.ones_like(scores), *(np.where(mask, f, 1).astype(scores.dtype) for mask in masks for f in (0, 2))]
    readings = (interventions.scale_neurons(query, texts, each) for each in factors)
    return _judge(task.dual, task.sampling.world, drawn, readings)


@step(version=1, libraries=("bm25s",), threads=1)
def silence_neurons(task: AttributionTask, counts: Sequence[int], kind: str) -> GoldRanks:
    """Silence more and more neurons of the sample's questions: [1 + count, example], the first row none.

    `kind` "top" silences the greatest attributions first, "random" neurons in random order.
    """
    if kind not in ("top", "random"):
        raise ValueError(f"kind = {kind!r} is no order; choose top or random")
    scores, drawn, query = attribute_sample(task, "query").scores, task.sampling.draw("query"), task.dual.query
    texts = question_texts(task.sampling.world, drawn.examples)
    keys = -scores if kind == "top" else np.random.default_rng([task.sampling.seed, 0x511]).random(scores.shape)
    line = interventions.places_in_line(keys.reshape(len(keys), -1)).reshape(keys.shape)
    factors = ((line >= count).astype(scores.dtype) for count in (0, *counts))
    readings = (interventions.scale_neurons(query, texts, each) for each in factors)
    return _judge(task.dual, task.sampling.world, drawn, readings)


@step(version=1, libraries=("bm25s",), threads=1)
def patch_blocks(into: DualEncoder, other: DualEncoder, sampling: Sampling, what: str) -> GoldRanks:
    """Patch each block of `into` with that of `other` on the sample's questions: [block, example].

    Ranks are among the passages of `into`; see `interventions.patch_block`.
    """
    drawn = sampling.draw("query")
    texts = question_texts(sampling.world, drawn.examples)
    readings = (interventions.patch_block(into.query, other.query, texts, i, what) for i in range(into.query.layers))
    return _judge(into, sampling.world, drawn, readings)
