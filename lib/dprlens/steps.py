"""The cached steps of the book: a few lines of composition each, computed once for the same arguments.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dprlens import knowledge
from dprlens.artifacts import step
from dprlens.closed import ClosedSpec, TextSpec, false_gold, make_world, misinformed, segments
from dprlens.encoder import DualEncoder, Encoder, EncoderSpec, untrained
from dprlens.negatives import NegativesSpec, hard_negatives
from dprlens.profile import Profile
from dprlens.retrieval import Ranking, Retriever, gold_places
from dprlens.tokens import make_tokenizer, vocabulary
from dprlens.training.dpr import DPRSpec, Trained, examples, shuffled_pairs, train_dpr
from dprlens.training.pretrain import PretrainSpec, pretrain
from dprlens.training.processes import in_parallel, threads
from dprlens.world import World

TOLD = ("true", "false", "nothing")  # what pre-training says about the linking facts under test


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


@step(version=1)
def mined_negatives(world: World, spec: NegativesSpec) -> dict:
    """`negatives.hard_negatives` of every question: question id -> passage ids."""
    return hard_negatives(world, spec)


@step(version=1)
def dpr(
    start: DualEncoder,
    world: World,
    negatives: NegativesSpec,
    spec: DPRSpec,
    seed: int,
    shuffled: bool = False,
    checkpoint: Path | None = None,
) -> Trained:
    """DPR trained on the world's questions, or (the control) on the same questions with each other's passages."""
    mined = mined_negatives(world, negatives)
    train, dev = (examples(world, mined, split) for split in ("train", "dev"))
    if shuffled:
        train, dev = shuffled_pairs(train, seed), shuffled_pairs(dev, seed)
    return train_dpr(start, train, dev, spec, seed, checkpoint)


@step(version=1)
def rankings(dual: DualEncoder, world: World, k: int = 100) -> Ranking:
    """The k best passages (all, if there are fewer) for every question of the world, in their order there."""
    with threads(1):
        retriever = Retriever(dual, world.passages)
        return retriever.search([question.text for question in world.questions], min(k, len(world.passages)))


@step(version=1)
def findings(
    world: ClosedSpec,
    text: TextSpec,
    shape: EncoderSpec,
    pretraining: PretrainSpec,
    negatives: NegativesSpec,
    training: DPRSpec,
    seed: int,
    told: str = "true",
) -> pd.DataFrame:
    """One arm of the causal test, from the world to the rankings: what a model that was `told` this finds.

    `knowledge.asked` with three more columns: recalled (share of the fact's unread wordings that the model completes
    before DPR training as it was told them), place (from 0) of the gold passage, and false_place, that of the passage
    which would be gold if the counterfactual link were true (−1 where no link is false).
    """
    if told not in TOLD:
        raise ValueError(f"told = {told!r} is no arm; choose one of {', '.join(TOLD)}")
    true = closed_world(world, seed)
    false = misinformed(true, seed)
    read = false if told == "false" else true
    base = base_model(read, text, shape, pretraining, seed)
    start = untrained(base, seed) if told == "nothing" else base
    recalled = cloze_recall(start, read).query("wording == 'reserved'").groupby("fact")["recalled"].mean()
    trained = dpr(DualEncoder(start, start), true, negatives, training, seed)
    ranking = rankings(trained.dual, true, k=len(true.passages))
    number = {passage.id: i for i, passage in enumerate(true.passages)}
    other = false_gold(true, false)
    gold = [number[question.gold] for question in true.questions]
    wrong = [number.get(other.get(question.id), -1) for question in true.questions]
    frame = knowledge.asked(true)
    frame["recalled"] = recalled.loc[frame["fact"]].to_numpy()
    frame["place"] = gold_places(ranking, gold)
    frame["false_place"] = np.where(np.array(wrong) < 0, -1, gold_places(ranking, wrong))
    return frame


def arms(chosen: Profile, seeds: Sequence[int], told: Sequence[str] = TOLD) -> pd.DataFrame:
    """`findings` for each seed and each arm, one below the other; two more columns, told and seed, say which."""
    specs = chosen.world, chosen.text, chosen.encoder, chosen.pretrain, chosen.negatives, chosen.dpr
    runs = [(seed, arm) for arm in told for seed in seeds]
    frames = in_parallel(findings, [(*specs, *run) for run in runs])
    return pd.concat(
        [frame.assign(told=arm, seed=seed) for frame, (seed, arm) in zip(frames, runs, strict=True)], ignore_index=True
    )
