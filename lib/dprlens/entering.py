"""The cached steps of the chapter on late facts: models that meet facts at different times, or when they are trained.

Two studies. In `by_entry` one model meets each fact at the point of entry that was dealt to it, so that facts are
compared within a model. In `by_telling` a model that never read the facts under study is told all of them, in one way
or another, and the results are compared on the same questions.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from dprlens import attribution, knowledge, late, steps
from dprlens.artifacts import step
from dprlens.attribution import Attribution, AttributionSpec
from dprlens.closed import ClosedSpec, TextSpec, segments
from dprlens.closed.entry import AFTER, Telling, dealt, in_order, opened, rehearsed, told, under_study, untold
from dprlens.editors.objective import blanks
from dprlens.encoder import DualEncoder, Encoder, EncoderSpec
from dprlens.forward import masked_lm
from dprlens.late import ARMS, NEVER, REFERENCES, LateSpec
from dprlens.negatives import NegativesSpec
from dprlens.profile import Profile
from dprlens.retrieval import gold_places
from dprlens.tokens import make_tokenizer, vocabulary
from dprlens.training import processes
from dprlens.training.dpr import DPRSpec
from dprlens.training.muon import in_quick_precision
from dprlens.training.pretrain import PretrainSpec, pretrain_in_order, read_on
from dprlens.world import World


def world_spec(world: ClosedSpec, spec: LateSpec) -> ClosedSpec:
    """The chapter's world is one of its own size, and without low doses, so that more facts are under study."""
    return replace(world.scaled(spec.size), low_doses=())


def world_of(chosen: Profile, spec: LateSpec, seed: int) -> World:
    """The chapter's world."""
    return steps.closed_world(world_spec(chosen.world, spec), seed)


@in_quick_precision()
@step(version=1)
def entered(
    world: World,
    text: TextSpec,
    shape: EncoderSpec,
    pretraining: PretrainSpec,
    points: Sequence[float],
    learning_rate: float,
    rehearsal: float,
    falling: bool,
    turn: int,
    seed: int,
) -> Encoder:
    """A model that meets each fact under study at its point of entry, the last group after pre-training.

    The last group's segments are read among `rehearsal` times as many old ones, which state no fact under study: every
    fact is stated as often as the world says.
    """
    facts, read = under_study(world), segments(world, text, seed)
    entry = dealt(world, facts, (*points, AFTER), turn, seed)
    ordered = in_order(world, read, entry, points, seed)
    tokenizer = make_tokenizer(vocabulary([*world.texts(), *(segment.text for segment in read)]))
    model = pretrain_in_order(tokenizer, ordered.parts, shape, pretraining, seed + turn, falling)
    old = rehearsed(world, read, facts, int(rehearsal * len(ordered.after)), seed)
    return read_on(model, [*ordered.after, *old], pretraining, learning_rate, seed + turn)


@in_quick_precision(needed=lambda asked: asked["learning_rate"] is None)
@step(version=1)
def told_late(
    base: Encoder,
    world: World,
    text: TextSpec,
    telling: Telling,
    pretraining: PretrainSpec,
    learning_rate: float | None,
    rehearsal: float,
    only: Sequence[str],
    at_cls: bool,
    seed: int,
) -> Encoder:
    """The base, which has read the world without its facts under study, after it was told them among old segments."""
    facts = under_study(world)
    before = untold(world, facts)
    new = told(before, facts, telling, seed)
    old = rehearsed(world, segments(before, text, seed), facts, int(rehearsal * len(new)), seed)
    drawn = {fact.id for fact in facts} if at_cls else ()
    return read_on(base, [*new, *old], pretraining, learning_rate, seed, only, drawn)


@step(version=1, libraries=("bm25s", "faiss-cpu"))
def found(base: Encoder, world: World, negatives: NegativesSpec, training: DPRSpec, seed: int) -> pd.DataFrame:
    """What a model finds after DPR training: test questions through links that this training never asks through.

    Rows of `knowledge.asked` with recalled (share of the link's unread wordings that the base completes), kept (the
    same for the question tower with the base's masked-LM head) and place (from 0) of the gold passage.
    """
    trained = steps.dpr(DualEncoder(base, base), world, negatives, training, seed)
    ranking = steps.rankings(trained.dual, world, k=len(world.passages))
    frame = knowledge.asked(world)
    for column, encoder in (("recalled", base), ("kept", knowledge.with_head(trained.dual.query, base))):
        said = steps.cloze_recall(encoder, world).query("wording == 'reserved'").groupby("fact")["recalled"].mean()
        frame[column] = said.loc[frame["fact"]].to_numpy()
    frame["place"] = gold_places(ranking, [world.place(question.gold) for question in world.questions])
    through = (frame["kind"] == "knowledge_required") & (frame["split"] == "test") & ~frame["in_training"]
    return frame[through].drop(columns=["kind", "split", "in_training"]).reset_index(drop=True)


def by_entry(chosen: Profile, spec: LateSpec, seed: int, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """`found` of each deal, one below the other: facts under study with their point of entry, and facts never told.

    Further columns: entry (`late.NEVER` for the links that the world holds out), rates ("falling" or "constant"), model
    (the deal), and those of `bound.WORLD`.
    """
    rates = [("falling", turn) for turn in range(spec.deals)] + [("constant", turn) for turn in range(spec.constant)]
    models = [(s, *which) for s in _seeds(spec, seed) for which in rates]
    worlds = {s: world_of(chosen, spec, s) for s in _seeds(spec, seed)}
    calls = [(worlds[s], *entering_of(chosen, spec, rate, turn, s)) for s, rate, turn in models]
    encoders = processes.in_parallel(entered, calls, workers)
    searches = [(e, worlds[s], chosen.negatives, chosen.dpr, s) for e, (s, _, _) in zip(encoders, models, strict=True)]
    frames = []
    for rows, (s, rate, turn) in zip(processes.in_parallel(found, searches, workers), models, strict=True):
        points = entries(worlds[s], spec, turn, s)
        rows = rows.assign(entry=rows["fact"].map(points), rates=rate, model=turn, **_where(chosen, spec, s))
        frames.append(rows.dropna(subset="entry"))
    return pd.concat(frames, ignore_index=True)


def entering_of(chosen: Profile, spec: LateSpec, rate: str, turn: int, seed: int) -> tuple:
    """The arguments of `entered` that follow the world."""
    order = spec.points, spec.learning_rate, spec.rehearsal, rate == "falling", turn, seed
    return chosen.text, _shape(chosen, spec), _pretraining(chosen, spec), *order


def entries(world: World, spec: LateSpec, turn: int, seed: int) -> dict[str, float]:
    """The point of entry of each fact under study, and `late.NEVER` for facts that the world holds out, by fact id."""
    never = {fact.id: NEVER for fact in world.facts if world.held_out(fact.id)}
    return never | dealt(world, under_study(world), (*spec.points, AFTER), turn, seed)


def by_telling(chosen: Profile, spec: LateSpec, seed: int, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """`found` of each reference and arm (`late.REFERENCES`, `late.ARMS`), on the questions through facts under study.

    Further columns: arm, model (0), and those of `bound.WORLD`. An arm that opens links is judged on the others.
    """
    return pd.concat([_by_telling(chosen, spec, s, workers) for s in _seeds(spec, seed)], ignore_index=True)


def _by_telling(chosen: Profile, spec: LateSpec, seed: int, workers: ProcessPoolExecutor | None) -> pd.DataFrame:
    world = world_of(chosen, spec, seed)
    models, facts = told_models(chosen, spec, seed, workers), under_study(world)
    half = opened(world, facts[::2])
    searches, judged = [], []
    for name, encoder in models.items():
        opens = name in ARMS and ARMS[name].opened
        searches.append((encoder, half if opens else world, chosen.negatives, chosen.dpr, seed))
        judged.append({fact.id for fact in (facts[1::2] if opens else facts)})
    frames = processes.in_parallel(found, searches, workers)
    return pd.concat(
        rows[rows["fact"].isin(ids)].assign(arm=name, model=0, **_where(chosen, spec, seed))
        for name, rows, ids in zip(models, frames, judged, strict=True)
    )


def told_models(
    chosen: Profile, spec: LateSpec, seed: int, workers: ProcessPoolExecutor | None = None
) -> dict[str, Encoder]:
    """The models of `by_telling` before DPR training, by reference or arm."""
    world = world_of(chosen, spec, seed)
    reading = chosen.text, _shape(chosen, spec), _pretraining(chosen, spec), seed
    bases = [(untold(world, under_study(world)), *reading), (world, *reading)]
    references = dict(zip(REFERENCES, processes.in_parallel(steps.base_model, bases, workers), strict=True))
    telling, calls = (references["never"], world, chosen.text), []
    for way in (ARMS[name] for name in spec.arms):
        rate = way.rate(spec.learning_rate)
        how = way.telling, _pretraining(chosen, spec), rate, spec.rehearsal, way.only, way.at_cls
        calls.append((*telling, *how, seed))
    return references | dict(zip(spec.arms, processes.in_parallel(told_late, calls, workers), strict=True))


@step(version=1)
def answers_attributed(encoder: Encoder, world: World, spec: AttributionSpec) -> Attribution:
    """Attributions at the mask for the answer of each fact under study, in the world's order.

    The statement is the fact's first; of an answer of several pieces it is the first piece, with all of them masked.
    """
    masked, places, answers = knowledge.blanked(encoder, [fact.statements[0] for fact in under_study(world)])
    with processes.threads(1):
        says = attribution.answer(encoder.model, torch.tensor([pieces[0] for pieces in answers]))
        return attribution.attribute_at(encoder, masked, [place[0] for place in places], says, spec)


@step(version=1)
def answers_patched(into: Encoder, other: Encoder, world: World) -> np.ndarray:
    """Whether each fact under study is recalled by two halves of networks: bool [layer, fact].

    The blocks below a layer are those of `other`, which reads the fact's first statement, the blocks above it and the
    masked-LM head those of `into`: layer 0 takes the embeddings alone from `other`, the last layer all blocks. Both
    networks must descend from one, since what one writes into a state the other must be able to read.
    """
    statements = [fact.statements[0] for fact in under_study(world)]
    found = []
    with processes.threads(1), torch.no_grad():
        for layer in range(into.layers + 1):
            given = blanks(other, statements, layer)
            right = masked_lm(into.model, given, layer).argmax(-1) == given.piece
            wrong = torch.bincount(given.row[~right], minlength=len(statements))
            found.append((wrong == 0).cpu().numpy())
    return np.array(found)


def by_block(chosen: Profile, spec: LateSpec, seed: int, workers: ProcessPoolExecutor | None = None) -> pd.DataFrame:
    """Where the answers to statements of early and late facts come from, in the models of `by_entry`.

    One row a fact, model and block: fact, entry, block, share (of the positive attribution at the mask, both sites),
    and the columns of `bound.WORLD`.
    """
    models = [(s, turn) for s in _seeds(spec, seed) for turn in range(spec.deals)]
    worlds = {s: world_of(chosen, spec, s) for s in _seeds(spec, seed)}
    calls = [(worlds[s], *entering_of(chosen, spec, "falling", turn, s)) for s, turn in models]
    encoders = processes.in_parallel(entered, calls, workers)
    readings = [(e, worlds[s], chosen.attribution) for e, (s, _) in zip(encoders, models, strict=True)]
    frames = []
    for one, (s, turn) in zip(processes.in_parallel(answers_attributed, readings, workers), models, strict=True):
        facts = [fact.id for fact in under_study(worlds[s])]
        parts = late.shares_by_block(one.scores)
        frame = pd.DataFrame(parts, index=facts).rename_axis("fact").reset_index().melt("fact", None, "block", "share")
        points = entries(worlds[s], spec, turn, s)
        frames.append(frame.assign(entry=frame["fact"].map(points), model=turn, **_where(chosen, spec, s)))
    return pd.concat(frames, ignore_index=True)


def _seeds(spec: LateSpec, seed: int) -> range:
    return range(seed, seed + spec.worlds)


def _shape(chosen: Profile, spec: LateSpec) -> EncoderSpec:
    return replace(chosen.encoder, layers=spec.layers)


def _pretraining(chosen: Profile, spec: LateSpec) -> PretrainSpec:
    return replace(chosen.pretrain, shallow_layers=spec.layers)


def _where(chosen: Profile, spec: LateSpec, seed: int) -> dict[str, object]:
    """The columns of `bound.WORLD`."""
    return {
        "study": "late",
        "size": spec.size,
        "form": sum(chosen.world.described) / len(chosen.world.described),
        "seed": seed,
    }
