"""Objective of every editor of a masked-LM: statements with their answers masked (choice AMB-D1).

The loss of a statement whose answer has k pieces is −(1/k) Σ log p(piece); what must not change is measured by the
Kullback–Leibler divergence at masked places. Blocks below the first one that an editor changes always give the same
output, so statements are kept as the input states of that block.
"""

import re
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import BertForMaskedLM

from dprlens.bert.architecture import head
from dprlens.bert.cloze import mask_answers
from dprlens.bert.encoder import Encoder, new_model
from dprlens.bert.forward import Batch, forward, pad_texts
from dprlens.world.records import Fact, Statement


class Editor(Protocol):
    """Protocol of editors: edits facts into a masked-LM."""

    def edit(self, encoder: Encoder, facts: Sequence[Fact]) -> Encoder:
        """Edit the facts into a new encoder."""
        ...


def blanks(encoder: Encoder, statements: Sequence[Statement], first: int) -> Batch:
    """Mask the statements' answers, one statement a row, as input of block `first`; no gradient passes below.

    Blocks count from 0. Statements are read at the masks, in ascending order, and `piece` are the masked token ids.
    """
    ids, places, answers = mask_answers(encoder, statements)
    rows = [row for row, of_text in enumerate(places) for _ in of_text]
    given = pad_texts(encoder.model, ids, [place for of_text in places for place in of_text], rows)
    with torch.no_grad():
        states = forward(encoder.model, given, stop=first)
    pieces = [piece for answer in answers for piece in answer]
    return given._replace(input=states, piece=torch.tensor(pieces, device=states.device))


def nll(logits: Tensor, given: Batch) -> Tensor:
    """Average −(1/k) Σ log p(piece) over statements, k pieces to the answer."""
    of_mask = torch.nn.functional.cross_entropy(logits, given.piece, reduction="none")
    pieces = torch.bincount(given.row, minlength=len(given.text))
    return (of_mask / pieces[given.row]).sum() / len(given.text)


def drift(before: Tensor, after: Tensor) -> Tensor:
    """Compute KL(before ‖ after) of logits [mask, vocabulary], mean over masks: 0 where nothing changed."""
    return torch.nn.functional.kl_div(
        after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="batchmean"
    )


def copy_model(encoder: Encoder) -> BertForMaskedLM:
    """Copy the encoder's model, in eval mode, with nothing shared.

    Raises ValueError for a model without a masked-LM head.
    """
    if head(encoder.model) is None:
        raise ValueError("this encoder has no masked-LM head, so that it cannot be told facts; give a pre-trained one")
    model = new_model(encoder.model.config).to(encoder.model.device, encoder.model.dtype).eval()
    model.load_state_dict(encoder.model.state_dict())
    return model


def rewritten(encoder: Encoder, model: BertForMaskedLM) -> Encoder:
    """Make an encoder with this model in place of the encoder's own."""
    return Encoder(encoder.tokenizer, model, encoder.model.device.type)


def told_once(facts: Sequence[Fact]) -> list[Fact]:
    """Remove duplicates from the facts.

    Raises ValueError, in one sentence, for facts that contradict each other (two objects in one blank) and for a fact
    without a statement.
    """
    told: list[Fact] = []
    blank: dict[tuple[str, ...], Fact] = {}
    for fact in facts:
        frames = {(fact.subject, fact.relation, *_frame(statement)) for statement in training_statements(fact)}
        if not frames:
            raise ValueError(f"fact {fact.id!r} has no statement to be told by; give it one that is not reserved")
        before = next((blank[frame] for frame in frames if frame in blank), None)
        if before is None:
            told.append(fact)
        elif before.object != fact.object:
            raise ValueError(
                f"{fact.subject!r} cannot have both {before.object!r} and {fact.object!r} as {fact.relation}; "
                "leave one of them out"
            )
        blank |= dict.fromkeys(frames, before or fact)
    return told


def _frame(statement: Statement) -> tuple[str, str]:
    """Split off the texts before and behind the answer, the articles a and an before it made equal."""
    return re.sub(r"\b([Aa])n $", r"\1 ", statement.text[: statement.start]), statement.text[statement.end :]


def training_statements(fact: Fact, reserved: bool = False) -> list[Statement]:
    """Select the fact's statements that may be trained on, or its reserved ones."""
    return [statement for statement in fact.statements if statement.reserved == reserved]
