"""What a model knows: cloze recall of facts.

A statement's answer is replaced by as many masks as it has pieces; the fact is recalled if the masked-LM head puts
every piece of the answer first among all pieces of the vocabulary (rank 1).
"""

import random
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from dprlens.encoder import Encoder
from dprlens.tokens import with_places
from dprlens.world import Statement, World


class Cloze(NamedTuple):
    """What a model says in an answer's place."""

    recalled: bool  # every piece of the answer is the model's first choice
    probability: float  # of the answer: geometric mean over its pieces, 0–1
    said: str  # the model's first choice for each mask, as text


def cloze(encoder: Encoder, statements: Sequence[Statement]) -> list[Cloze]:
    """Masks each statement's answer and reads the masked-LM head's belief about it."""
    masked, places, answers = _blanked(encoder, statements)
    results = []
    for logits, answer in zip(encoder.mask_logits(masked, places), answers, strict=True):
        said = logits.argmax(-1).tolist()
        log_probability = torch.log_softmax(logits, -1)[range(len(answer)), answer].mean().item()
        results.append(Cloze(said == answer, float(np.exp(log_probability)), encoder.tokenizer.decode(said)))
    return results


def recall(encoder: Encoder, world: World, seen: int = 2, seed: int = 0) -> pd.DataFrame:
    """Cloze recall of every fact, by all its reserved statements and `seen` of those that pre-training uses.

    One row a statement: fact, relation, exposures, described, reserved, recalled, probability, said.
    """
    rng = random.Random(f"statements {seed}")
    rows = []
    for fact in world.facts:
        trained = [statement for statement in fact.statements if not statement.reserved]
        reserved = [statement for statement in fact.statements if statement.reserved]
        rows += [(fact, statement) for statement in rng.sample(trained, min(seen, len(trained))) + reserved]
    return pd.DataFrame(
        {
            "fact": fact.id,
            "relation": fact.relation,
            "exposures": world.exposure(fact.id).times,
            "described": world.exposure(fact.id).described,
            "reserved": statement.reserved,
            **result._asdict(),
        }
        for (fact, statement), result in zip(rows, cloze(encoder, [s for _, s in rows]), strict=True)
    )


def first_guesses(encoder: Encoder, statement: Statement, n: int = 3) -> list[tuple[str, float]]:
    """The model's n likeliest answers in a statement's blank, with their probabilities (product over pieces, 0–1)."""
    masked, places, _ = _blanked(encoder, [statement])
    (logits,) = encoder.mask_logits(masked, places)
    chances, pieces = logits.softmax(-1).topk(n)
    pieces = [list(zip(*place, strict=True)) for place in zip(pieces.tolist(), chances.tolist(), strict=True)]
    answers = [(encoder.tokenizer.decode([i for i, _ in c]), prod(p for _, p in c)) for c in product(*pieces)]
    return sorted(answers, key=lambda answer: -answer[1])[:n]


def _blanked(
    encoder: Encoder, statements: Sequence[Statement]
) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Token ids with the answers masked, the places of the masks, and the pieces that stood there."""
    masked, places, answers = [], [], []
    spans = [[(statement.start, statement.end)] for statement in statements]
    for ids, (place,) in with_places(encoder.tokenizer, [statement.text for statement in statements], spans):
        places.append(place)
        answers.append([ids[token] for token in place])
        masked.append([encoder.tokenizer.mask_token_id if t in place else piece for t, piece in enumerate(ids)])
    return masked, places, answers


def constant_guess(world: World) -> pd.DataFrame:
    """The null arm of `recall`: for each fact, is its object the one most often stated of its relation?

    One row a fact: fact, relation, exposures, recalled. Ties go to the object that comes first in alphabetical order.
    """
    stated = pd.DataFrame((f.relation, f.object, world.exposure(f.id).times) for f in world.facts)
    stated.columns = ["relation", "object", "times"]
    times = stated.groupby(["relation", "object"], as_index=False)["times"].sum()
    best = times.sort_values(["times", "object"], ascending=[False, True]).groupby("relation")["object"].first()
    return pd.DataFrame(
        {
            "fact": fact.id,
            "relation": fact.relation,
            "exposures": world.exposure(fact.id).times,
            "recalled": fact.object == best[fact.relation],
        }
        for fact in world.facts
    )
