"""Cached steps of chapter B.2: models that read facts at different times, in pre-training or after it.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from dprlens.bert import cloze
from dprlens.bert.cloze import cloze_recall
from dprlens.bert.encoder import DualEncoder, Encoder, EncoderSpec
from dprlens.bert.forward import masked_lm
from dprlens.bert.vocabulary import make_tokenizer, vocabulary
from dprlens.cache.artifacts import Task, step
from dprlens.decentralization import attribution
from dprlens.decentralization.attribution import Attribution, AttributionSpec
from dprlens.editing.editors.objective import blanks
from dprlens.retrieval.exact_search import gold_places
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.retrieval.steps import rankings
from dprlens.training.dpr import DPRSpec
from dprlens.training.muon import in_quick_precision
from dprlens.training.pretrain import PretrainSpec, pretrain_in_order, read_on
from dprlens.training.steps import Training, dpr
from dprlens.world.closed import TextSpec, segments
from dprlens.world.closed.entry import (
    AFTER,
    Telling,
    deal_entries,
    order_by_entry,
    rehearsal_text,
    telling_text,
    under_study,
    without_facts,
)
from dprlens.world.records import World


@dataclass(frozen=True)
class Entering(Task):
    """A model that reads each fact under study at its point of entry, the last group after pre-training."""

    world: World
    text: TextSpec
    shape: EncoderSpec
    pretraining: PretrainSpec
    points: tuple[float, ...]  # of entry, shares of pre-training
    learning_rate: float  # after pre-training
    rehearsal: float  # old segments for each late one
    falling: bool  # do learning rates fall in pre-training?
    turn: int  # number of the random assignment of the facts to the points
    seed: int


@in_quick_precision()
@step(version=1)
def entered(task: Entering) -> Encoder:
    """Pre-train the model of an `Entering`.

    The last group's segments are read among `rehearsal` times as many old ones, which state no fact under study: every
    fact is stated as often as the world specifies.
    """
    world, seed, turn = task.world, task.seed, task.turn
    facts, read = under_study(world), segments(world, task.text, seed)
    entry = deal_entries(world, facts, (*task.points, AFTER), turn, seed)
    ordered = order_by_entry(world, read, entry, task.points, seed)
    tokenizer = make_tokenizer(vocabulary([*world.texts(), *(segment.text for segment in read)]))
    model = pretrain_in_order(tokenizer, ordered.parts, task.shape, task.pretraining, seed + turn, task.falling)
    old = rehearsal_text(world, read, facts, int(task.rehearsal * len(ordered.after)), seed)
    return read_on(model, [*ordered.after, *old], task.pretraining, task.learning_rate, seed + turn)


@dataclass(frozen=True)
class LateTelling(Task):
    """A model that has read the world without its facts under study, and how these are taught to it."""

    base: Encoder
    world: World
    text: TextSpec
    telling: Telling
    pretraining: PretrainSpec
    learning_rate: float | None  # None: as in pre-training
    rehearsal: float  # old segments for each that states a late fact
    only: tuple[str, ...]  # the parts of the network that learn; none: all
    at_cls: bool  # is the object predicted at [CLS] as well?
    seed: int


@in_quick_precision(needed=lambda arguments: arguments["learning_rate"] is None)
@step(version=1)
def told_late(task: LateTelling) -> Encoder:
    """Teach the base model the facts under study, among old segments."""
    facts = under_study(task.world)
    before = without_facts(task.world, facts)
    new = telling_text(before, facts, task.telling, task.seed)
    old = rehearsal_text(
        before, segments(before, task.text, task.seed), facts, int(task.rehearsal * len(new)), task.seed
    )
    drawn = {fact.id for fact in facts} if task.at_cls else ()
    return read_on(task.base, [*new, *old], task.pretraining, task.learning_rate, task.seed, task.only, drawn)


@step(version=1, libraries=("bm25s", "faiss-cpu"))
def retrieve_through_links(
    base: Encoder, world: World, negatives: NegativesSpec, training: DPRSpec, seed: int
) -> pd.DataFrame:
    """Retrieve after DPR training on test questions through links that no training question uses.

    Rows of `cloze.question_table` with recalled (share of the link's reserved wordings that the base completes), kept
    (the same for the question tower with the base's masked-LM head) and place (from 0) of the gold passage.
    """
    trained = dpr(Training(DualEncoder(base, base), world, negatives, training, seed))
    ranking = rankings(trained.dual, world, k=len(world.passages))
    frame = cloze.question_table(world)
    for column, encoder in (("recalled", base), ("kept", cloze.with_head(trained.dual.query, base))):
        said = cloze_recall(encoder, world).query("wording == 'reserved'").groupby("fact")["recalled"].mean()
        frame[column] = said.loc[frame["fact"]].to_numpy()
    frame["place"] = gold_places(ranking, [world.place(question.gold) for question in world.questions])
    through = (frame["kind"] == "knowledge_required") & (frame["split"] == "test") & ~frame["in_training"]
    return frame[through].drop(columns=["kind", "split", "in_training"]).reset_index(drop=True)


@step(version=1, threads=1)
def attribute_answers(encoder: Encoder, world: World, spec: AttributionSpec) -> Attribution:
    """Attribute the answer of each fact under study at its mask, in the world's order.

    The statement is the fact's first; of an answer of several pieces the first is attributed, with all of them masked.
    """
    masked, places, answers = cloze.mask_answers(encoder, [fact.statements[0] for fact in under_study(world)])
    says = attribution.answer(encoder.model, torch.tensor([pieces[0] for pieces in answers]))
    return attribution.attribute_at(encoder, masked, [place[0] for place in places], says, spec)


@step(version=1, threads=1)
def patch_answers(into: Encoder, other: Encoder, world: World) -> np.ndarray:
    """Test recall of each fact under study by two halves of networks: bool [layer, fact].

    The blocks below a layer are those of `other`, which reads the fact's first statement, the blocks above it and the
    masked-LM head those of `into`: layer 0 takes the embeddings alone from `other`, the last layer all blocks. Both
    networks must descend from one, so that each can read the states of the other.
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
