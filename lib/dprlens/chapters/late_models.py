"""Chapter B.2: models that meet facts at different times, or when they are trained.

Two studies. In `by_entry` one model meets each fact at the point of entry that was dealt to it, so that facts are
compared within a model. In `by_telling` a model that never read the facts under study is told all of them, in one way
or another, and the results are compared on the same questions.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from dprlens.bert.encoder import Encoder
from dprlens.cache.parallel import run
from dprlens.late_facts import exhibits
from dprlens.late_facts.exhibits import ARMS, NEVER, REFERENCES, LateSpec
from dprlens.late_facts.steps import (
    Entering,
    LateTelling,
    attribute_answers,
    entered,
    retrieve_through_links,
    told_late,
)
from dprlens.profile import Profile
from dprlens.setup import Setup, closed_spec
from dprlens.training.steps import base_model
from dprlens.world.closed.entry import AFTER, deal_entries, open_links, under_study, without_facts
from dprlens.world.records import World


def setup_of(chosen: Profile, seed: int) -> Setup:
    """The chapter's world, of its own size and without low doses so that more facts are studied, and shallow BERT."""
    spec = chosen.late
    return Setup(
        replace(
            chosen,
            world=replace(closed_spec(chosen).scaled(spec.size), low_doses=()),
            encoder=replace(chosen.encoder, layers=spec.layers),
            pretrain=replace(chosen.pretrain, shallow_layers=spec.layers),
        ),
        seed,
    )


def setups_of(chosen: Profile, seed: int) -> dict[int, Setup]:
    """The setups of all worlds of the chapter, by seed, from the page's own on."""
    return {s: setup_of(chosen, s) for s in range(seed, seed + chosen.late.worlds)}


def by_entry(chosen: Profile, seed: int, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """`retrieve_through_links` of each deal, one below the other, for facts under study and facts never told.

    Further columns: entry (`exhibits.NEVER` for the links that the world holds out), rates ("falling" or "constant"),
    model (the deal), and those of `knowledge_bound.exhibits.WORLD`.
    """
    spec, setups = chosen.late, setups_of(chosen, seed)
    rates = [("falling", turn) for turn in range(spec.deals)] + [("constant", turn) for turn in range(spec.constant)]
    models = _entered(setups, [(s, *which) for s in setups for which in rates], workers)
    searches = {
        (s, rate, turn): partial(retrieve_through_links, encoder, setups[s].world, chosen.negatives, chosen.dpr, s)
        for (s, rate, turn), encoder in models.items()
    }
    frames = []
    for (s, rate, turn), rows in run(searches, workers).items():
        points = entries(setups[s].world, spec, turn, s)
        rows = rows.assign(entry=rows["fact"].map(points), rates=rate, model=turn, **_columns(setups[s]))
        frames.append(rows.dropna(subset="entry"))
    return pd.concat(frames, ignore_index=True)


def _entered(
    setups: Mapping[int, Setup], models: Sequence[tuple[int, str, int]], workers: ProcessPoolExecutor | None
) -> dict[tuple[int, str, int], Encoder]:
    """The models that meet facts at their points of entry, by seed, rates ("falling" or "constant") and deal."""
    calls = {}
    for s, rate, turn in models:
        p = setups[s].profile
        reading = setups[s].world, p.text, p.encoder, p.pretrain, tuple(p.late.points)
        task = Entering(*reading, p.late.learning_rate, p.late.rehearsal, rate == "falling", turn, s)
        calls[s, rate, turn] = partial(entered, task)
    return run(calls, workers)


def entries(world: World, spec: LateSpec, turn: int, seed: int) -> dict[str, float]:
    """The point of entry of each fact under study, and `exhibits.NEVER` for held-out facts, by fact id."""
    never = {fact.id: NEVER for fact in world.facts if world.held_out(fact.id)}
    return never | deal_entries(world, under_study(world), (*spec.points, AFTER), turn, seed)


def by_telling(chosen: Profile, seed: int, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """`retrieve_through_links` of each reference and arm (`exhibits.REFERENCES`, `exhibits.ARMS`).

    Further columns: arm, model (0), and those of `knowledge_bound.exhibits.WORLD`. An arm that opens links is judged on
    the others.
    """
    return pd.concat([_by_telling(one, workers) for one in setups_of(chosen, seed).values()], ignore_index=True)


def _by_telling(setup: Setup, workers: ProcessPoolExecutor | None) -> pd.DataFrame:
    world, chosen, seed = setup.world, setup.profile, setup.seed
    models, facts = told_models(setup, workers), under_study(world)
    half = open_links(world, facts[::2])
    searches, judged = {}, {}
    for name, encoder in models.items():
        opens = name in ARMS and ARMS[name].opened
        searches[name] = partial(
            retrieve_through_links, encoder, half if opens else world, chosen.negatives, chosen.dpr, seed
        )
        judged[name] = {fact.id for fact in (facts[1::2] if opens else facts)}
    return pd.concat(
        [
            rows[rows["fact"].isin(judged[name])].assign(arm=name, model=0, **_columns(setup))
            for name, rows in run(searches, workers).items()
        ]
    )


def told_models(setup: Setup, workers: ProcessPoolExecutor | None = None) -> dict[str, Encoder]:
    """The models of `by_telling` before DPR training, by reference or arm."""
    chosen, world, spec = setup.profile, setup.world, setup.profile.late
    worlds = dict(zip(REFERENCES, (without_facts(world, under_study(world)), world), strict=True))
    reading = chosen.text, chosen.encoder, chosen.pretrain, setup.seed
    references = run({name: partial(base_model, one, *reading) for name, one in worlds.items()}, workers)
    calls = {}
    for name in spec.arms:
        way = ARMS[name]
        how = way.telling, chosen.pretrain, way.rate(spec.learning_rate), spec.rehearsal, way.only, way.at_cls
        calls[name] = partial(told_late, LateTelling(references["never"], world, chosen.text, *how, setup.seed))
    return references | run(calls, workers)


def by_block(chosen: Profile, seed: int, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """Where the answers to statements of early and late facts come from, in the models of `by_entry`.

    One row a fact, model and block: fact, entry, block, share (of the positive attribution at the mask, both sites),
    and the columns of `knowledge_bound.exhibits.WORLD`.
    """
    setups = setups_of(chosen, seed)
    models = _entered(setups, [(s, "falling", turn) for s in setups for turn in range(chosen.late.deals)], workers)
    readings = {
        key: partial(attribute_answers, encoder, setups[key[0]].world, chosen.attribution)
        for key, encoder in models.items()
    }
    frames = []
    for (s, _, turn), one in run(readings, workers).items():
        facts = [fact.id for fact in under_study(setups[s].world)]
        parts = exhibits.shares_by_block(one.scores)
        frame = pd.DataFrame(parts, index=facts).rename_axis("fact").reset_index().melt("fact", None, "block", "share")
        points = entries(setups[s].world, chosen.late, turn, s)
        frames.append(frame.assign(entry=frame["fact"].map(points), model=turn, **_columns(setups[s])))
    return pd.concat(frames, ignore_index=True)


def _columns(setup: Setup) -> dict[str, Any]:
    """The columns of `knowledge_bound.exhibits.WORLD`."""
    described = closed_spec(setup.profile).described
    return {
        "study": "late",
        "size": setup.profile.late.size,
        "form": sum(described) / len(described),
        "seed": setup.seed,
    }
