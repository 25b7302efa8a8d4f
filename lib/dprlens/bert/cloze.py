"""Cloze recall of facts: what a model knows.

A statement's answer is replaced by as many masks as it has pieces; the fact is recalled if the masked-LM head puts
every piece of the answer first among all pieces of the vocabulary (rank 1).
"""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from dprlens.bert.architecture import encoder_of, head
from dprlens.bert.encoder import Encoder, new_model
from dprlens.bert.vocabulary import decode, with_places
from dprlens.cache.artifacts import step
from dprlens.intervals import mean
from dprlens.world.records import Statement, World


class Cloze(NamedTuple):
    """A model's prediction in the place of an answer."""

    recalled: bool  # every piece of the answer is the model's first choice
    probability: float  # of the answer: geometric mean over its pieces, 0–1
    said: str  # the model's first choice for each mask, as text


def cloze(encoder: Encoder, statements: Sequence[Statement]) -> list[Cloze]:
    """Mask each statement's answer and read the masked-LM head's prediction of it."""
    masked, places, answers = mask_answers(encoder, statements)
    results = []
    for logits, answer in zip(encoder.mask_logits(masked, places), answers, strict=True):
        said = logits.argmax(-1).tolist()
        log_probability = torch.log_softmax(logits, -1)[range(len(answer)), answer].mean().item()
        results.append(Cloze(said == answer, float(np.exp(log_probability)), decode(encoder.tokenizer, said)))
    return results


def recall(encoder: Encoder, world: World, seen: int = 2, seed: int = 0) -> pd.DataFrame:
    """Measure cloze recall of every fact on all reserved and `seen` of its pre-training statements.

    One row a statement: fact, relation, state (`World.state`), exposures, described, statement (its place in
    `fact.statements`), wording ("seen" or "reserved"), recalled, probability, said.
    """
    rng = random.Random(f"statements {seed}")
    chosen = []
    for fact in world.facts:
        trained = [i for i, statement in enumerate(fact.statements) if not statement.reserved]
        asked = set(rng.sample(trained, min(seen, len(trained))))
        chosen += [(fact, i) for i, statement in enumerate(fact.statements) if i in asked or statement.reserved]
    results = cloze(encoder, [fact.statements[i] for fact, i in chosen])
    return pd.DataFrame(
        {
            "fact": fact.id,
            "relation": fact.relation,
            "state": world.state(fact.id),
            "exposures": world.doses(fact.id).times,
            "described": world.doses(fact.id).described,
            "statement": i,
            "wording": "reserved" if fact.statements[i].reserved else "seen",
            **result._asdict(),
        }
        for (fact, i), result in zip(chosen, results, strict=True)
    )


def recall_by(found: pd.DataFrame, by: str | list[str]) -> dict:
    """Estimate the share recalled in each group of rows of `recall` or `constant_guess`, by whole facts."""
    return {group: mean(rows["recalled"], rows["fact"]) for group, rows in found.groupby(by)}


def first_guesses(encoder: Encoder, statement: Statement, n: int = 3) -> list[tuple[str, float]]:
    """Rank the model's n likeliest answers in a statement's blank, with their probabilities.

    An answer's probability is the product over its pieces, 0–1.
    """
    masked, places, _ = mask_answers(encoder, [statement])
    (logits,) = encoder.mask_logits(masked, places)
    chances, pieces = logits.softmax(-1).topk(n)
    choices = [list(zip(*place, strict=True)) for place in zip(pieces.tolist(), chances.tolist(), strict=True)]
    answers = [(decode(encoder.tokenizer, [i for i, _ in c]), prod(p for _, p in c)) for c in product(*choices)]
    return sorted(answers, key=lambda answer: -answer[1])[:n]


def question_table(world: World) -> pd.DataFrame:
    """Tabulate what each question depends on: one row a question, in the world's order.

    Columns: question, kind, split, fact (that must be known: the linking fact, or a lexical question's target),
    relation (of that fact), in_training (DPR training has a question about it), state, exposures, described (its
    exposures through a description).
    """
    trained = {fact for question in world.questions if question.split == "train" for fact in question.facts}
    rows = []
    for question in world.questions:
        fact = question.link or question.target
        exposure = world.doses(fact)
        rows.append(
            {
                "question": question.id,
                "kind": question.kind,
                "split": question.split,
                "fact": fact,
                "relation": world.fact[fact].relation,
                "in_training": fact in trained,
                "state": world.state(fact),
                "exposures": exposure.times,
                "described": exposure.described,
            }
        )
    return pd.DataFrame(rows)


def with_head(tower: Encoder, base: Encoder) -> Encoder:
    """Give the tower the masked-LM head of the model that it was trained from, to measure its cloze recall.

    The head's output matrix is the word embedding, as in every BERT, and so the tower's.
    """
    if head(base.model) is None:
        raise ValueError("the base has no masked-LM head to give to the tower; give the pre-trained model")
    model = new_model(base.model.config)
    model.load_state_dict(base.model.state_dict())
    encoder_of(model).load_state_dict(tower.bert.state_dict())
    return Encoder(tower.tokenizer, model, tower.model.device.type)


def mask_answers(
    encoder: Encoder, statements: Sequence[Statement]
) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Mask the answers: return token ids, the places of the masks, and the pieces that stood there."""
    masked, places, answers = [], [], []
    spans = [[(statement.start, statement.end)] for statement in statements]
    encoded = with_places(encoder.tokenizer, [statement.text for statement in statements], spans)
    for statement, (ids, (place,)) in zip(statements, encoded, strict=True):
        if not place:
            raise ValueError(f"the answer of {statement.text!r} covers no whole word; check its start and end")
        places.append(place)
        answers.append([ids[token] for token in place])
        masked.append([encoder.tokenizer.mask_token_id if t in place else piece for t, piece in enumerate(ids)])
    return masked, places, answers


def constant_guess(world: World) -> pd.DataFrame:
    """Measure the baseline of `recall` without a model: always the object most often stated of the relation.

    One row a fact: fact, relation, state, recalled. Ties go to the object that comes first in alphabetical order.
    """
    times: Counter[tuple[str, str]] = Counter()
    for fact in world.facts:  # where exposures are unknown, each fact counts once
        times[fact.relation, fact.object] += 1 if world.known is None else world.exposure(fact.id).times
    best: dict[str, str] = {}
    for relation, object_ in sorted(times, key=lambda stated: (-times[stated], stated)):
        best.setdefault(relation, object_)
    return pd.DataFrame(
        {
            "fact": fact.id,
            "relation": fact.relation,
            "state": world.state(fact.id),
            "recalled": fact.object == best[fact.relation],
        }
        for fact in world.facts
    )


@step(version=1)
def cloze_recall(encoder: Encoder, world: World) -> pd.DataFrame:
    """Measure cloze recall (`cloze.recall`) of every fact of the world."""
    return recall(encoder, world)
