"""The cached steps of the chapter on late facts: models that meet facts at different times, or when they are trained.

Two studies. In `by_entry` one model meets each fact at the point of entry that was dealt to it, so that facts are
compared within a model. In `by_telling` a model that never read the facts under study is told all of them, in one way
or another, and the results are compared on the same questions.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from dprlens.bert import cloze
from dprlens.bert.encoder import DualEncoder, Encoder, EncoderSpec
from dprlens.bert.forward import masked_lm
from dprlens.bert.vocabulary import make_tokenizer, vocabulary
from dprlens.cache.artifacts import Task, step
from dprlens.cache.parallel import run
from dprlens.decentralization import attribution
from dprlens.decentralization.attribution import Attribution, AttributionSpec
from dprlens.editing.editors.objective import blanks
from dprlens.late_facts import exhibits
from dprlens.late_facts.exhibits import ARMS, NEVER, REFERENCES, LateSpec
from dprlens.profile import Profile
from dprlens.retrieval.exact_search import gold_places
from dprlens.retrieval.index import rankings
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.setup import Setup, Training, base_model, closed_spec, cloze_recall, dpr
from dprlens.training.dpr import DPRSpec
from dprlens.training.muon import in_quick_precision
from dprlens.training.pretrain import PretrainSpec, pretrain_in_order, read_on
from dprlens.world.closed import TextSpec, segments
from dprlens.world.closed.entry import AFTER, Telling, dealt, in_order, opened, rehearsed, told, under_study, untold
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


@dataclass(frozen=True)
class Entering(Task):
    """A model that meets each fact under study at its point of entry, the last group after pre-training."""

    world: World
    text: TextSpec
    shape: EncoderSpec
    pretraining: PretrainSpec
    points: tuple[float, ...]  # of entry, shares of pre-training
    learning_rate: float  # after pre-training
    rehearsal: float  # old segments for each late one
    falling: bool  # do learning rates fall in pre-training?
    turn: int  # which deal of the facts to the points
    seed: int


@in_quick_precision()
@step(version=1)
def entered(task: Entering) -> Encoder:
    """The model of an `Entering`.

    The last group's segments are read among `rehearsal` times as many old ones, which state no fact under study: every
    fact is stated as often as the world says.
    """
    world, seed, turn = task.world, task.seed, task.turn
    facts, read = under_study(world), segments(world, task.text, seed)
    entry = dealt(world, facts, (*task.points, AFTER), turn, seed)
    ordered = in_order(world, read, entry, task.points, seed)
    tokenizer = make_tokenizer(vocabulary([*world.texts(), *(segment.text for segment in read)]))
    model = pretrain_in_order(tokenizer, ordered.parts, task.shape, task.pretraining, seed + turn, task.falling)
    old = rehearsed(world, read, facts, int(task.rehearsal * len(ordered.after)), seed)
    return read_on(model, [*ordered.after, *old], task.pretraining, task.learning_rate, seed + turn)


@dataclass(frozen=True)
class LateTelling(Task):
    """A model that has read the world without its facts under study, and how it is told them."""

    base: Encoder
    world: World
    text: TextSpec
    telling: Telling
    pretraining: PretrainSpec
    learning_rate: float | None  # None: as in pre-training
    rehearsal: float  # old segments for each that tells
    only: tuple[str, ...]  # the parts of the network that learn; none: all
    at_cls: bool  # is the object asked for at [CLS] as well?
    seed: int


@in_quick_precision(needed=lambda arguments: arguments["learning_rate"] is None)
@step(version=1)
def told_late(task: LateTelling) -> Encoder:
    """The base after it was told the facts under study among old segments."""
    facts = under_study(task.world)
    before = untold(task.world, facts)
    new = told(before, facts, task.telling, task.seed)
    old = rehearsed(before, segments(before, task.text, task.seed), facts, int(task.rehearsal * len(new)), task.seed)
    drawn = {fact.id for fact in facts} if task.at_cls else ()
    return read_on(task.base, [*new, *old], task.pretraining, task.learning_rate, task.seed, task.only, drawn)


@step(version=1, libraries=("bm25s", "faiss-cpu"))
def found(base: Encoder, world: World, negatives: NegativesSpec, training: DPRSpec, seed: int) -> pd.DataFrame:
    """What a model finds after DPR training: test questions through links that this training never asks through.

    Rows of `cloze.asked` with recalled (share of the link's unread wordings that the base completes), kept (the
    same for the question tower with the base's masked-LM head) and place (from 0) of the gold passage.
    """
    trained = dpr(Training(DualEncoder(base, base), world, negatives, training, seed))
    ranking = rankings(trained.dual, world, k=len(world.passages))
    frame = cloze.asked(world)
    for column, encoder in (("recalled", base), ("kept", cloze.with_head(trained.dual.query, base))):
        said = cloze_recall(encoder, world).query("wording == 'reserved'").groupby("fact")["recalled"].mean()
        frame[column] = said.loc[frame["fact"]].to_numpy()
    frame["place"] = gold_places(ranking, [world.place(question.gold) for question in world.questions])
    through = (frame["kind"] == "knowledge_required") & (frame["split"] == "test") & ~frame["in_training"]
    return frame[through].drop(columns=["kind", "split", "in_training"]).reset_index(drop=True)


def by_entry(chosen: Profile, seed: int, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """`found` of each deal, one below the other: facts under study with their point of entry, and facts never told.

    Further columns: entry (`exhibits.NEVER` for the links that the world holds out), rates ("falling" or "constant"),
    model (the deal), and those of `knowledge_bound.exhibits.WORLD`.
    """
    spec, setups = chosen.late, setups_of(chosen, seed)
    rates = [("falling", turn) for turn in range(spec.deals)] + [("constant", turn) for turn in range(spec.constant)]
    models = _entered(setups, [(s, *which) for s in setups for which in rates], workers)
    searches = {
        (s, rate, turn): partial(found, encoder, setups[s].world, chosen.negatives, chosen.dpr, s)
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
    return never | dealt(world, under_study(world), (*spec.points, AFTER), turn, seed)


def by_telling(chosen: Profile, seed: int, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """`found` of each reference and arm (`exhibits.REFERENCES`, `exhibits.ARMS`), on questions through the facts.

    Further columns: arm, model (0), and those of `knowledge_bound.exhibits.WORLD`. An arm that opens links is judged on
    the others.
    """
    return pd.concat([_by_telling(one, workers) for one in setups_of(chosen, seed).values()], ignore_index=True)


def _by_telling(setup: Setup, workers: ProcessPoolExecutor | None) -> pd.DataFrame:
    world, chosen, seed = setup.world, setup.profile, setup.seed
    models, facts = told_models(setup, workers), under_study(world)
    half = opened(world, facts[::2])
    searches, judged = {}, {}
    for name, encoder in models.items():
        opens = name in ARMS and ARMS[name].opened
        searches[name] = partial(found, encoder, half if opens else world, chosen.negatives, chosen.dpr, seed)
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
    worlds = dict(zip(REFERENCES, (untold(world, under_study(world)), world), strict=True))
    reading = chosen.text, chosen.encoder, chosen.pretrain, setup.seed
    references = run({name: partial(base_model, one, *reading) for name, one in worlds.items()}, workers)
    calls = {}
    for name in spec.arms:
        way = ARMS[name]
        how = way.telling, chosen.pretrain, way.rate(spec.learning_rate), spec.rehearsal, way.only, way.at_cls
        calls[name] = partial(told_late, LateTelling(references["never"], world, chosen.text, *how, setup.seed))
    return references | run(calls, workers)


@step(version=1, threads=1)
def answers_attributed(encoder: Encoder, world: World, spec: AttributionSpec) -> Attribution:
    """Attributions at the mask for the answer of each fact under study, in the world's order.

    The statement is the fact's first; of an answer of several pieces it is the first piece, with all of them masked.
    """
    masked, places, answers = cloze.blanked(encoder, [fact.statements[0] for fact in under_study(world)])
    says = attribution.answer(encoder.model, torch.tensor([pieces[0] for pieces in answers]))
    return attribution.attribute_at(encoder, masked, [place[0] for place in places], says, spec)


@step(version=1, threads=1)
def answers_patched(into: Encoder, other: Encoder, world: World) -> np.ndarray:
    """Whether each fact under study is recalled by two halves of networks: bool [layer, fact].

    The blocks below a layer are those of `other`, which reads the fact's first statement, the blocks above it and the
    masked-LM head those of `into`: layer 0 takes the embeddings alone from `other`, the last layer all blocks. Both
    networks must descend from one, since what one writes into a state the other must be able to read.
    """
    statements = [fact.statements[0] for fact in under_study(world)]
    found = []
    with torch.no_grad():
        for layer in range(into.layers + 1):
            given = blanks(other, statements, layer)
            right = masked_lm(into.model, given, layer).argmax(-1) == given.piece
            wrong = torch.bincount(given.row[~right], minlength=len(statements))
            found.append((wrong == 0).cpu().numpy())
    return np.array(found)


def by_block(chosen: Profile, seed: int, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """Where the answers to statements of early and late facts come from, in the models of `by_entry`.

    One row a fact, model and block: fact, entry, block, share (of the positive attribution at the mask, both sites),
    and the columns of `knowledge_bound.exhibits.WORLD`.
    """
    setups = setups_of(chosen, seed)
    models = _entered(setups, [(s, "falling", turn) for s in setups for turn in range(chosen.late.deals)], workers)
    readings = {
        key: partial(answers_attributed, encoder, setups[key[0]].world, chosen.attribution)
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
