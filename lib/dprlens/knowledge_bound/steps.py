"""The cached steps of the chapter on the knowledge bound (B.1): the arms of the causal test, and its baselines.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from dprlens.bert import cloze
from dprlens.bert.encoder import DualEncoder, EncoderSpec, untrained
from dprlens.cache.artifacts import Task, step
from dprlens.cache.parallel import run
from dprlens.knowledge_bound import cooccurrence, exhibits
from dprlens.profile import Profile
from dprlens.retrieval.exact_search import Ranking, gold_places
from dprlens.retrieval.index import rankings
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.setup import Setup, Training, base_model, closed_spec, closed_world, cloze_recall, dpr
from dprlens.training.dpr import DPRSpec
from dprlens.training.muon import in_quick_precision
from dprlens.training.pretrain import PretrainSpec
from dprlens.world.closed import ClosedSpec, TextSpec, false_gold, misinformed, segments
from dprlens.world.records import World

ROUNDED = 9  # decimals of co-occurrence scores, so that equal ones tie whatever the order of their sums
TOLD = ("true", "false", "nothing")  # what pre-training says about the linking facts under test


@dataclass(frozen=True)
class Making(Task):
    """What a model of the causal test is made of, from the world to DPR training."""

    world: ClosedSpec
    text: TextSpec
    shape: EncoderSpec
    pretraining: PretrainSpec
    negatives: NegativesSpec
    training: DPRSpec
    seed: int

    @classmethod
    def of(cls, profile: Profile, seed: int) -> "Making":
        """As a profile says."""
        return cls(
            closed_spec(profile),
            profile.text,
            profile.encoder,
            profile.pretrain,
            profile.negatives,
            profile.dpr,
            seed,
        )


def _lacks_base(asked: Mapping) -> bool:
    """Must the base model of these `findings` be made?"""
    read = _told(closed_world(asked["world"], asked["seed"]), asked.get("told", "true"), asked["seed"])
    start = read, asked["text"], asked["shape"], asked["pretraining"], asked["seed"]
    return base_model.as_asked.record(*start) is None


@in_quick_precision(needed=_lacks_base)
@step(version=2, libraries=("bm25s", "faiss-cpu", "scipy"))
def findings(making: Making, told: str = "true") -> pd.DataFrame:
    """One arm of the causal test, from the world to the rankings: what a model that was `told` this finds.

    `cloze.asked` with more columns: recalled (share of the fact's unread wordings that the model completes before
    DPR training as it was told them), place (from 0) of the gold passage, and false_place, that of the passage which
    would be gold if the counterfactual link were true (−1 where no link is false); within, tied, peers: the gold
    passage among those of its relation (`exhibits.standings`).
    """
    if told not in TOLD:
        raise ValueError(f"told = {told!r} is no arm; choose one of {', '.join(TOLD)}")
    seed = making.seed
    true = closed_world(making.world, seed)
    read = _told(true, told, seed)
    base = base_model(read, making.text, making.shape, making.pretraining, seed)
    start = untrained(base, seed) if told == "nothing" else base
    recalled = cloze_recall(start, read).query("wording == 'reserved'").groupby("fact")["recalled"].mean()
    trained = dpr(Training(DualEncoder(start, start), true, making.negatives, making.training, seed))
    ranking = rankings(trained.dual, true, k=len(true.passages))
    other = false_gold(true, misinformed(true, seed))
    gold = [true.place(question.gold) for question in true.questions]
    wrong = [true.place(other[question.id]) if question.id in other else -1 for question in true.questions]
    frame = cloze.asked(true)
    frame["recalled"] = recalled.loc[frame["fact"]].to_numpy()
    frame["place"] = gold_places(ranking, gold)
    frame["false_place"] = np.where(np.array(wrong) < 0, -1, gold_places(ranking, wrong))
    return frame.assign(**exhibits.standings(true, _scores(ranking)))


def _scores(ranking: Ranking) -> np.ndarray:
    """The scores [question, passage] of a ranking of all passages."""
    scores = np.empty_like(ranking.scores)
    np.put_along_axis(scores, ranking.passages, ranking.scores, 1)
    return scores


@in_quick_precision(needed=_lacks_base)
@step(version=1, libraries=("faiss-cpu", "scipy"))
def untrained_findings(
    world: ClosedSpec, text: TextSpec, shape: EncoderSpec, pretraining: PretrainSpec, seed: int
) -> pd.DataFrame:
    """What pre-trained BERT retrieves without DPR training: `cloze.asked`, place, and `exhibits.standings`."""
    true = closed_world(world, seed)
    base = base_model(true, text, shape, pretraining, seed)
    ranking = rankings(DualEncoder(base, base), true, k=len(true.passages))
    place = gold_places(ranking, [true.place(question.gold) for question in true.questions])
    return cloze.asked(true).assign(place=place, **exhibits.standings(true, _scores(ranking)))


@step(version=1, libraries=("scipy",), on_device=False)
def cooccurrence_findings(world: ClosedSpec, text: TextSpec, seed: int, pool: str = "mean") -> pd.DataFrame:
    """What word co-occurrence in the pre-training text retrieves (`cooccurrence.score`), without any network.

    `cloze.asked` with place (from 0; of the passages with the same score half rank before), `exhibits.standings`, and
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
    return cloze.asked(true).assign(
        place=place,
        **exhibits.standings(true, scores),
        composed=[composed[question.facts] for question in true.questions],
    )


def _told(world: World, told: str, seed: int) -> World:
    """The world as an arm of the causal test reads of it."""
    return misinformed(world, seed) if told == "false" else world


class Model(NamedTuple):
    """One model of the causal test."""

    study: str  # "deep", "shallow" or "grid"
    profile: Profile
    size: float  # of its world, against the page's
    form: float  # mean share of a linking fact's statements that are descriptions
    seed: int
    told: str


def causal_test(setup: Setup) -> pd.DataFrame:
    """`findings` of all models of the causal test (`exhibits.BoundSpec`), one below the other.

    Further columns say which model a row is about: study, size, form, seed, told (see `Model`).
    """
    models = [*_shallow(setup), *_deep(setup)]  # the deep ones may have to wait for the base model
    return _stacked([(one, partial(findings, Making.of(one.profile, one.seed), one.told)) for one in models])


def baselines(setup: Setup) -> pd.DataFrame:
    """What is retrieved without a trained retriever, in the worlds of `causal_test`, with the same further columns.

    told "cooccurrence" and "cooccurrence_max": `cooccurrence_findings` in each world whose text is true, by pool; told
    "pretrained": `untrained_findings` of each model of full depth.
    """
    true = [one for one in (*_deep(setup), *_shallow(setup)) if one.told == "true"]
    calls: list[tuple[Model, Callable[[], pd.DataFrame]]] = []
    for arm, pool in {"cooccurrence": "mean", "cooccurrence_max": "max"}.items():
        for one in true:
            world, text = closed_spec(one.profile), one.profile.text
            calls.append((one._replace(told=arm), partial(cooccurrence_findings, world, text, one.seed, pool)))
    for one in (one for one in true if one.study == "deep"):
        p = one.profile
        before = partial(untrained_findings, closed_spec(p), p.text, p.encoder, p.pretrain, one.seed)
        calls.append((one._replace(told="pretrained"), before))
    return _stacked(calls)


def _stacked(calls: Sequence[tuple[Model, Callable[[], pd.DataFrame]]]) -> pd.DataFrame:
    """The frame of each model, one below the other, with columns that say which model it is of."""
    frames = run({i: call for i, (_, call) in enumerate(calls)})
    return pd.concat(
        [
            frames[i].assign(study=one.study, size=one.size, form=one.form, seed=one.seed, told=one.told)
            for i, (one, _) in enumerate(calls)
        ],
        ignore_index=True,
    )


def _deep(setup: Setup) -> list[Model]:
    chosen, seed = setup.profile, setup.seed
    form = float(np.mean(closed_spec(chosen).described))
    return [
        Model("deep", chosen, 1.0, form, s, told) for told, n in chosen.bound.deep_arms for s in range(seed, seed + n)
    ]


def _shallow(setup: Setup) -> list[Model]:
    chosen, seed = setup.profile, setup.seed
    spec, whole = chosen.bound, closed_spec(chosen)
    form = float(np.mean(whole.described))

    def shallow(size: float, described: tuple[float, ...]) -> Profile:
        world = replace(whole.scaled(size), described=described)
        return replace(chosen, world=world, encoder=replace(chosen.encoder, layers=spec.shallow_layers))

    smaller = shallow(spec.shallow_size, whole.described)
    arms = [
        Model("shallow", smaller, spec.shallow_size, form, s, told)
        for told, n in spec.shallow_arms
        for s in range(seed, seed + n)
    ]
    grid = [
        Model("grid", shallow(size, (share,)), size, share, s, "true")
        for size, share in spec.grid
        for s in range(seed, seed + spec.grid_seeds)
    ]
    return arms + grid
