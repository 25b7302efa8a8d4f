"""The cached steps of the book: a few lines of composition each, computed once for the same arguments.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

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
from dprlens.training import processes
from dprlens.training.dpr import DPRSpec, Trained, examples, shuffled_pairs, train_dpr
from dprlens.training.pretrain import PretrainSpec, pretrain
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


def dpr_in_group(chosen: Profile, seed: int) -> None:
    """Make `dpr` of the base model together with the other processes of torchrun; the first one keeps it."""
    with processes.group():
        world = closed_world(chosen.world, seed)
        base = base_model(world, chosen.text, chosen.encoder, chosen.pretrain, seed)
        call = DualEncoder(base, base), world, chosen.negatives, chosen.dpr, seed
        if processes.agreed(dpr.record(*call) is None):
            (dpr if processes.rank() == 0 else dpr.__wrapped__)(*call)


@step(version=1)
def rankings(dual: DualEncoder, world: World, k: int = 100) -> Ranking:
    """The k best passages (all, if there are fewer) for every question of the world, in their order there."""
    with processes.threads(1):
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


class Run(NamedTuple):
    """One model of the causal test."""

    study: str  # "deep", "shallow" or "grid"
    profile: Profile
    size: float  # of its world, against the page's
    form: float  # mean share of a linking fact's statements that are descriptions
    seed: int
    told: str


def causal_test(chosen: Profile, seed: int) -> pd.DataFrame:
    """`findings` of all models of the causal test (`bound.BoundSpec`), one below the other.

    Further columns say which model a row is about: study, size, form, seed, told (see `Run`).
    """
    runs = [
        *_shallow_runs(chosen, seed),
        *_deep_runs(chosen, seed),
    ]  # the deep ones may have to wait for the base model
    frames = processes.in_parallel(findings, [_findings_of(run) for run in runs])
    return pd.concat(
        [
            frame.assign(study=run.study, size=run.size, form=run.form, seed=run.seed, told=run.told)
            for frame, run in zip(frames, runs, strict=True)
        ],
        ignore_index=True,
    )


def _deep_runs(chosen: Profile, seed: int) -> list[Run]:
    form = float(np.mean(chosen.world.described))
    return [
        Run("deep", chosen, 1.0, form, s, told) for told, n in chosen.bound.deep_arms for s in range(seed, seed + n)
    ]


def _shallow_runs(chosen: Profile, seed: int) -> list[Run]:
    spec, form = chosen.bound, float(np.mean(chosen.world.described))

    def shallow(size: float, described: tuple[float, ...]) -> Profile:
        world = replace(chosen.world.scaled(size), described=described)
        return replace(chosen, world=world, encoder=replace(chosen.encoder, layers=spec.shallow_layers))

    smaller = shallow(spec.shallow_size, chosen.world.described)
    arms = [
        Run("shallow", smaller, spec.shallow_size, form, s, told)
        for told, n in spec.shallow_arms
        for s in range(seed, seed + n)
    ]
    grid = [
        Run("grid", shallow(size, (share,)), size, share, s, "true")
        for size, share in spec.grid
        for s in range(seed, seed + spec.grid_seeds)
    ]
    return arms + grid


def _findings_of(run: Run) -> tuple:
    p = run.profile
    return p.world, p.text, p.encoder, p.pretrain, p.negatives, p.dpr, run.seed, run.told
