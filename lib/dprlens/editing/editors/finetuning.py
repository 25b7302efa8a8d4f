"""Two plain baselines: constrained fine-tuning (Zhu et al. 2020), and more masked-LM with rehearsal.

Fine-tuning minimises the loss of the facts' statements subject to max |θ − θ₀| ≤ δ over all weights of the blocks that
are tuned, by projected Adam, until every answer comes first. Rehearsal continues pre-training: the facts' statements,
each so many times, among as many segments of the old text, read once. It is the gentlest way to teach a model new
facts. In small steps it changes little else; in steps as large as those of early pre-training ("relearning") it is how
the model learned its facts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from dprlens.bert.architecture import blocks
from dprlens.bert.encoder import Encoder
from dprlens.bert.forward import masked_lm
from dprlens.cache.artifacts import LATER
from dprlens.cache.events import progress
from dprlens.cache.parallel import threads
from dprlens.editing.editors.objective import blanks, copy_model, nll, rewritten, told_once, training_statements
from dprlens.ranges import COUNT, NOT_NEGATIVE, POSITIVE, check, one_of
from dprlens.training.muon import PRECISIONS, Precision
from dprlens.training.pretrain import PretrainSpec, read_on
from dprlens.world.closed import Segment
from dprlens.world.records import Fact


@dataclass(frozen=True)
class FinetuningSpec:
    """Settings of constrained fine-tuning.

    Zhu et al. tune one block, for up to a few thousand facts, with δ from 1e-5 to 1e-2.
    """

    blocks: int | None = None  # counted from the last one; None: all, and nothing outside the blocks
    bound: float = 3e-3  # δ
    learning_rate: float = 3e-4
    batch: int = 64  # statements
    epochs: int = 20  # at most

    def __post_init__(self) -> None:
        check(self, COUNT, "blocks", "batch", "epochs")
        check(self, POSITIVE, "bound", "learning_rate")


@dataclass(frozen=True)
class RehearsalSpec:
    """Settings of more masked-LM with rehearsal."""

    times: int = 30  # that each fact is stated, by its statements in turn
    old: float = 1.0  # segments of the old text for each new one
    learning_rate: float | None = 3e-4  # of AdamW; None: Muon and AdamW, as a shallow network learns in pre-training
    batch: int = 32  # segments
    random_mask: float = 0.05  # as in pre-training
    muon: Precision = field(default="bfloat16", metadata=LATER)  # of Muon, as in pre-training

    def __post_init__(self) -> None:
        check(self, COUNT, "times", "batch")
        check(self, NOT_NEGATIVE, "old")
        check(self, POSITIVE, "learning_rate")
        check(self, one_of(PRECISIONS), "muon")


class Finetuning:
    """Editor by constrained fine-tuning."""

    def __init__(self, spec: FinetuningSpec, seed: int = 0) -> None:
        self.spec, self.seed = spec, seed

    def edit(self, encoder: Encoder, facts: Sequence[Fact]) -> Encoder:
        """Fine-tune a copy of the encoder on the facts' statements."""
        model, facts = copy_model(encoder), told_once(facts)
        if not facts:
            return rewritten(encoder, model)
        tuned = [block.module for block in blocks(model)][-(self.spec.blocks or 0) :]
        first = encoder.layers - len(tuned)
        given = blanks(encoder, [statement for fact in facts for statement in training_statements(fact)], first)
        weights = [weights for block in tuned for weights in block.parameters()]
        bounds = [(w.detach() - self.spec.bound, w.detach() + self.spec.bound) for w in weights]
        optimiser = torch.optim.Adam(weights, self.spec.learning_rate)
        rng, size = np.random.default_rng([self.seed, 0xF7]), self.spec.batch
        with threads(1):
            for _ in progress(range(self.spec.epochs), "constrained fine-tuning"):
                order, wrong = rng.permutation(len(given.text)), 0
                for rows in (order[i : i + size] for i in range(0, len(order), size)):
                    batch = given.part(rows)
                    logits = masked_lm(model, batch, first)
                    wrong += int((logits.argmax(-1) != batch.piece).sum())
                    optimiser.zero_grad()
                    nll(logits, batch).backward()
                    optimiser.step()
                    with torch.no_grad():
                        for w, (low, high) in zip(weights, bounds, strict=True):
                            w.clamp_(low, high)
                if not wrong:
                    break
        return rewritten(encoder, model)


class Rehearsal:
    """Editor by more masked-LM on the facts and on old text."""

    def __init__(self, spec: RehearsalSpec, text: Sequence[Segment], seed: int = 0) -> None:
        self.spec, self.text, self.seed = spec, text, seed

    def edit(self, encoder: Encoder, facts: Sequence[Fact]) -> Encoder:
        """Continue pre-training of a copy of the encoder on the facts' statements and old text."""
        facts, start = told_once(facts), rewritten(encoder, copy_model(encoder))
        if not facts:
            return start
        new = [segment for fact in facts for segment in _repeated(fact, self.spec.times)]
        old = np.random.default_rng([self.seed, 0x01D]).permutation(len(self.text))[: int(self.spec.old * len(new))]
        reading = PretrainSpec(batch=self.spec.batch, random_mask=self.spec.random_mask, muon=self.spec.muon)
        return read_on(start, [*new, *(self.text[i] for i in old)], reading, self.spec.learning_rate, self.seed)


def _repeated(fact: Fact, times: int) -> list[Segment]:
    """Repeat the fact's statements in turn, as segments of pre-training text."""
    said = training_statements(fact)
    chosen = [said[i % len(said)] for i in range(times)]
    return [Segment(one.text, (fact.id,), ((one.start, one.end),), "single") for one in chosen]
