"""Cached steps of chapter B.1: arms of the causal test, and its baselines.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dprlens.bert import cloze
from dprlens.bert.cloze import cloze_recall
from dprlens.bert.encoder import DualEncoder, EncoderSpec, reinitialise
from dprlens.cache.artifacts import Task, step
from dprlens.knowledge_bound import cooccurrence, exhibits
from dprlens.retrieval.exact_search import Ranking, gold_places
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.retrieval.steps import rankings
from dprlens.training.dpr import DPRSpec
from dprlens.training.muon import in_quick_precision
from dprlens.training.pretrain import PretrainSpec
from dprlens.training.steps import Training, base_model, dpr
from dprlens.world.closed import ClosedSpec, TextSpec, false_gold, segments, with_false_links
from dprlens.world.records import World
from dprlens.world.steps import closed_world

ROUNDED = 9  # decimals of co-occurrence scores, so that equal ones tie whatever the order of their sums
TOLD = ("true", "false", "nothing")  # what pre-training states about the linking facts under test


@dataclass(frozen=True)
class Making(Task):
    """Specs of a model of the causal test, from the world to DPR training."""

    world: ClosedSpec
    text: TextSpec
    shape: EncoderSpec
    pretraining: PretrainSpec
    negatives: NegativesSpec
    training: DPRSpec
    seed: int


def _lacks_base(asked: Mapping) -> bool:
    """Check whether the base model of this `causal_arm` is missing from the cache."""
    read = _told(closed_world(asked["world"], asked["seed"]), asked.get("told", "true"), asked["seed"])
    start = read, asked["text"], asked["shape"], asked["pretraining"], asked["seed"]
    return base_model.as_asked.record(*start) is None


@in_quick_precision(needed=_lacks_base)
@step(version=2, libraries=("bm25s", "faiss-cpu", "scipy"))
def causal_arm(making: Making, told: str = "true") -> pd.DataFrame:
    """Run one arm of the causal test, from the world to the rankings.

    `told`: what pre-training states about the linking facts, one of `TOLD`. The result is `cloze.question_table` with
    more columns: recalled (share of the fact's reserved wordings that the model completes before DPR training as it was
    stated), place (from 0) of the gold passage, and false_place, that of the passage which would be gold if the
    counterfactual link were true (−1 where no link is false); within, tied, peers: the gold passage among those of its
    relation (`exhibits.standings`).
    """
    if told not in TOLD:
        raise ValueError(f"told = {told!r} is no arm; choose one of {', '.join(TOLD)}")
    seed = making.seed
    true = closed_world(making.world, seed)
    read = _told(true, told, seed)
    base = base_model(read, making.text, making.shape, making.pretraining, seed)
    start = reinitialise(base, seed) if told == "nothing" else base
    recalled = cloze_recall(start, read).query("wording == 'reserved'").groupby("fact")["recalled"].mean()
    trained = dpr(Training(DualEncoder(start, start), true, making.negatives, making.training, seed))
    ranking = rankings(trained.dual, true, k=len(true.passages))
    other = false_gold(true, with_false_links(true, seed))
    gold = [true.place(question.gold) for question in true.questions]
    wrong = [true.place(other[question.id]) if question.id in other else -1 for question in true.questions]
    frame = cloze.question_table(true)
    frame["recalled"] = recalled.loc[frame["fact"]].to_numpy()
    frame["place"] = gold_places(ranking, gold)
    frame["false_place"] = np.where(np.array(wrong) < 0, -1, gold_places(ranking, wrong))
    return frame.assign(**exhibits.standings(true, _scores(ranking)))


def _scores(ranking: Ranking) -> np.ndarray:
    """Reorder the scores of a ranking of all passages: [question, passage]."""
    scores = np.empty_like(ranking.scores)
    np.put_along_axis(scores, ranking.passages, ranking.scores, 1)
    return scores


@in_quick_precision(needed=_lacks_base)
@step(version=1, libraries=("faiss-cpu", "scipy"))
def pretrained_arm(
    world: ClosedSpec, text: TextSpec, shape: EncoderSpec, pretraining: PretrainSpec, seed: int
) -> pd.DataFrame:
    """Retrieve with pre-trained BERT, without DPR training.

    `cloze.question_table` with place (from 0) and `exhibits.standings`.
    """
    true = closed_world(world, seed)
    base = base_model(true, text, shape, pretraining, seed)
    ranking = rankings(DualEncoder(base, base), true, k=len(true.passages))
    place = gold_places(ranking, [true.place(question.gold) for question in true.questions])
    return cloze.question_table(true).assign(place=place, **exhibits.standings(true, _scores(ranking)))


@step(version=1, libraries=("scipy",), on_device=False)
def cooccurrence_arm(world: ClosedSpec, text: TextSpec, seed: int, pool: str = "mean") -> pd.DataFrame:
    """Retrieve by word co-occurrence in the pre-training text (`cooccurrence.score`), without any network.

    `cloze.question_table` with place (from 0; half of the tied passages rank before), `exhibits.standings`, and
    composed, how often the text states the question's target in a description through its link
    (`exhibits.compositions`; 0 for lexical questions).
    """
    true = closed_world(world, seed)
    read = segments(true, text, seed)
    questions = [question.text for question in true.questions]
    passages = [f"{passage.title} {passage.text}" for passage in true.passages]
    counted = cooccurrence.count(segment.text for segment in read)
    scores = cooccurrence.score(counted, questions, passages, pool).round(ROUNDED)
    own = scores[range(len(scores)), [true.place(question.gold) for question in true.questions]][:, None]
    place = (scores > own).sum(1) + ((scores == own).sum(1) - 1) // 2
    composed = exhibits.compositions(read)
    return cloze.question_table(true).assign(
        place=place,
        **exhibits.standings(true, scores),
        composed=[composed[question.facts] for question in true.questions],
    )


def _told(world: World, told: str, seed: int) -> World:
    """Get the world as stated in an arm's pre-training text."""
    return with_false_links(world, seed) if told == "false" else world
