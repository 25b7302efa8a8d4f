"""Chapter B.1: the models of the causal test and of its baselines, one below the other."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from dprlens.cache.parallel import run
from dprlens.knowledge_bound.steps import Making, causal_arm, cooccurrence_arm, pretrained_arm
from dprlens.profile import Profile
from dprlens.setup import Setup, closed_spec


class Model(NamedTuple):
    """One model of the causal test."""

    study: str  # "deep", "shallow" or "grid"
    profile: Profile
    size: float  # of its world, against the page's
    form: float  # mean share of a linking fact's statements that are descriptions
    seed: int
    told: str


def making_of(profile: Profile, seed: int) -> Making:
    """What a model of the causal test is made of, as a profile says."""
    p = profile
    return Making(closed_spec(p), p.text, p.encoder, p.pretrain, p.negatives, p.dpr, seed)


def causal_test(setup: Setup) -> pd.DataFrame:
    """`causal_arm` of all models of the causal test (`exhibits.BoundSpec`), one below the other.

    Further columns say which model a row is about: study, size, form, seed, told (see `Model`).
    """
    models = [*_shallow(setup), *_deep(setup)]  # the deep ones may have to wait for the base model
    return _stacked([(one, partial(causal_arm, making_of(one.profile, one.seed), one.told)) for one in models])


def baselines(setup: Setup) -> pd.DataFrame:
    """What is retrieved without a trained retriever, in the worlds of `causal_test`, with the same further columns.

    told "cooccurrence" and "cooccurrence_max": `cooccurrence_arm` in each world whose text is true, by pool; told
    "pretrained": `pretrained_arm` of each model of full depth.
    """
    true = [one for one in (*_deep(setup), *_shallow(setup)) if one.told == "true"]
    calls: list[tuple[Model, Callable[[], pd.DataFrame]]] = []
    for arm, pool in {"cooccurrence": "mean", "cooccurrence_max": "max"}.items():
        for one in true:
            world, text = closed_spec(one.profile), one.profile.text
            calls.append((one._replace(told=arm), partial(cooccurrence_arm, world, text, one.seed, pool)))
    for one in (one for one in true if one.study == "deep"):
        p = one.profile
        before = partial(pretrained_arm, closed_spec(p), p.text, p.encoder, p.pretrain, one.seed)
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
