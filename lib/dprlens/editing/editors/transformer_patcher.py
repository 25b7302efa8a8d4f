"""Transformer-Patcher (Huang et al. 2023) for facts: a few new neurons in the last feed-forward, all else fixed.

A new neuron j of key k_j and bias β_j adds to the output of the last block's feed-forward for its input a

    u_j = k_j·a + β_j        h_j = GELU(u_j)        FFN'(a) = FFN(a) + Σ_j h_j v_j        v_j = e_j ∘ s_j

and is trained on three losses: the model predicts the fact's answer, and the neuron fires where that answer is read
out, but nowhere else. One neuron is added for each piece of the answer that the model gets wrong. The original acts on
a classifier's [CLS]; carrying it to answers behind masks is choice AMB-D1, which also leaves out the entropy that
FEVER's classification loss has. There is no dropout (AMB-D2), so that the feed-forward's input is computed once. The
last feed-forward mixes no tokens: states below it stay the same, and [CLS] changes only as far as neurons fire there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from dprlens.bert.architecture import blocks, head, name_of
from dprlens.bert.encoder import Encoder, new_model
from dprlens.bert.forward import Batch, activations
from dprlens.cache.events import progress
from dprlens.cache.parallel import threads
from dprlens.editing.editors.objective import blanks, copy_model, nll, rewritten, told_once, training_statements
from dprlens.ranges import COUNT, NOT_NEGATIVE, PART, POSITIVE, check
from dprlens.world.records import Fact, Statement

MOST = 5  # neurons for one fact, at most; published: 5
BETTER = 1e-3  # the memory loss must fall by so much between two checks, or training ends; published: 0.001
CHECKED = 0.2  # share of the memory that only these checks see; published: another 40,000 rows


@dataclass(frozen=True)
class PatcherSpec:
    """Settings of the patcher; published values are those for BERT on FEVER."""

    wordings: int | None = None  # of a fact's statements, the first so many are given, None: all; published: 1
    sequential: bool = False  # one fact after the other, each joining the memory, or all at once; published: True
    margin: float = 3.0  # γ of both memory losses; published: 3; 6 leaks less where a neuron should be silent
    activation_weight: float = 1.0  # published: 1
    activation_top: int = 5  # k_a, of the weakest read-outs; published: 5, of 8 copies
    memory_weight: float = 5.0  # c_m; published: 5 (10 for answers of several pieces)
    memory_top: int = 60  # k_m, of the rows that fire most; published: 1000 of 40,000, the same share
    memory: int = 1000  # statements, of three rows each: a mask, [CLS], another token; published: 40,000 rows
    amplify: float = 10.0  # s at the start; published: 10
    learning_rate: float = 1e-2  # of Adam; published: 1e-2
    weight_decay: float = 0.01  # added to gradients; published: 0.01
    clip: float = 5.0  # length of a neuron's gradient, at most; published: 5
    most_steps: int = 400  # published: 2000; here a fact that is wrong after 400 stays wrong
    first_check: int = 100  # steps before the first check; published: 100
    check_every: int = 25  # steps; published: 25
    plateau: float = 0.5  # the learning rate's factor when checks get no better; published: 0.5

    def __post_init__(self) -> None:
        check(self, COUNT, "wordings", "activation_top", "memory_top", "most_steps", "first_check", "check_every")
        check(self, NOT_NEGATIVE, "margin", "activation_weight", "memory_weight", "weight_decay")
        check(self, POSITIVE, "amplify", "learning_rate", "clip")
        check(self, PART, "plateau")
        if self.memory < 2:
            raise ValueError(f"memory = {self.memory} is too few; give 2 statements or more, one of them for checks")


class Patch(NamedTuple):
    """New neurons of the last feed-forward, one a row."""

    key: Tensor  # k [neuron, d_model]
    bias: Tensor  # β [neuron]
    direction: Tensor  # e [neuron, d_model]
    scale: Tensor  # s [neuron, d_model]

    @property
    def value(self) -> Tensor:
        """Values v [neuron, d_model]."""
        return self.direction * self.scale

    def reached(self, rows: Tensor) -> Tensor:
        """Compute pre-activations u [row, neuron] at inputs of the feed-forward [row, d_model]."""
        return rows @ self.key.T + self.bias

    def joined(self, other: "Patch") -> "Patch":
        """Concatenate these neurons and the other's."""
        return Patch(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


class Told(NamedTuple):
    """Facts to be edited in, at the masks of their statements."""

    given: Batch
    rows: Tensor  # input of the last feed-forward [mask, d_model]
    fact: Tensor  # [mask]: the place of its fact among those edited in
    order: Tensor  # [mask]: the place of its piece in the answer


class TransformerPatcher:
    """Editor that adds neurons to the last feed-forward of a masked-LM.

    `memory` are statements whose completions should not change. The same seed draws the same memory and the same
    directions for a model with as many patches. A call remembers its own facts, not those of earlier calls.
    """

    def __init__(self, spec: PatcherSpec, memory: Sequence[Statement], seed: int = 0) -> None:
        if len(memory) < 2:
            raise ValueError(
                f"a memory of {len(memory)} statements is too small; give 2 or more, one of them for checks"
            )
        self.spec, self.memory, self.seed = spec, memory, seed

    def edit(self, encoder: Encoder, facts: Sequence[Fact]) -> Encoder:
        """Edit in the facts, by at most five neurons for each; a fact that the encoder knows gets none.

        The result's `patches`, in its configuration, are the neurons added so far. Raises ValueError, in one sentence,
        for facts that contradict each other or have no statement, and for an encoder without a masked-LM head.
        """
        told, model = told_once(facts), copy_model(encoder)
        if not told:
            return rewritten(encoder, model)
        rng = np.random.default_rng([self.seed, 0x79, patches(model.config)])
        groups = [[fact] for fact in told] if self.spec.sequential else [told]
        with threads(1):  # the matrices are small
            memory, checked = self._remembered(encoder, rng)
            patch = no_patch(memory)
            for i, group in enumerate(groups, start=1):
                part = readouts(encoder, [training_statements(fact)[: self.spec.wordings] for fact in group])
                task = _Task(self.spec, model, part, patch)
                new = task.learned(memory, checked, rng, f"Transformer-Patcher, part {i} of {len(groups)}")
                patch = patch.joined(new)
                memory, checked = (torch.cat([rows, part.rows]) for rows in (memory, checked))
            return rewritten(encoder, append_patch(model, patch))

    def _remembered(self, encoder: Encoder, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw inputs of the last feed-forward [row, d_model], to train on and to check on."""
        drawn = rng.permutation(len(self.memory))[: self.spec.memory]
        given = blanks(encoder, [self.memory[i] for i in drawn], encoder.layers - 1)
        fed = feed_forward_inputs(encoder.model, given)
        rows = torch.stack([fed[torch.arange(len(drawn)), token] for token in drawn_tokens(given, rng)], dim=1)
        n = max(1, round(CHECKED * len(drawn)))
        return rows[n:].flatten(0, 1), rows[:n].flatten(0, 1)


def patches(config: BertConfig) -> int:
    """Count the neurons added to the last feed-forward."""
    return getattr(config, "patches", 0)


def feed_forward_inputs(model: BertForMaskedLM, given: Batch) -> Tensor:
    """Compute inputs of the last feed-forward [statement, token, d_model] from those of the last block."""
    last = model.config.num_hidden_layers - 1
    with torch.no_grad():
        return activations(model, given, [(last, "attended")], start=last)[last, "attended"]


def drawn_tokens(given: Batch, rng: np.random.Generator) -> list[Tensor]:
    """Draw a mask, [CLS], and another token, no padding, of each statement: three tensors [statement]."""
    masked = torch.zeros_like(given.inside)
    masked[given.row, given.place] = True
    others = given.inside & ~masked
    others[:, 0] = False
    draws = torch.tensor(rng.random((2, *masked.shape)), device=masked.device)
    mask, other = ((draw * among).argmax(1) for draw, among in zip(draws, (masked, others), strict=True))
    return [mask, torch.zeros_like(mask), other]


def readouts(encoder: Encoder, statements: Sequence[Sequence[Statement]]) -> Told:
    """Collect the masks of each fact's statements, [fact][statement]."""
    given = blanks(encoder, [statement for of_fact in statements for statement in of_fact], encoder.layers - 1)
    device = given.row.device
    facts = torch.repeat_interleave(torch.tensor([len(of_fact) for of_fact in statements]))
    pieces = torch.bincount(given.row, minlength=len(given.text))
    first = pieces.cumsum(0) - pieces
    order = torch.arange(len(given.row), device=device) - first[given.row]
    rows = feed_forward_inputs(encoder.model, given)[given.row, given.place]
    return Told(given, rows, facts.to(device)[given.row], order)


def neurons_for(told: Told, wrong: Tensor) -> list[list[int]]:
    """Select the masks [neuron][reading] of each wrong piece, the first five pieces of a fact.

    A piece is wrong if it is `wrong` [mask] in some statement. Where a piece has fewer masks than another, they are
    repeated, as the original repeats its one example.
    """
    places: dict[tuple[int, int], list[int]] = {}
    for mask, piece in enumerate(zip(told.fact.tolist(), told.order.tolist(), strict=True)):
        places.setdefault(piece, []).append(mask)
    needed = sorted(piece for piece, masks in places.items() if wrong[masks].any())
    kept = [piece for i, piece in enumerate(needed) if i < MOST or needed[i - MOST][0] != piece[0]]
    longest = max((len(places[piece]) for piece in kept), default=0)
    return [(places[piece] * longest)[:longest] for piece in kept]


def activation_loss(own: Tensor, k: int) -> Tensor:
    """Compute L_a: mean of the k largest exp(−a) over a neuron's pre-activations a [.., reading]: [..]."""
    return (-own).topk(min(k, own.shape[-1])).values.exp().mean(-1)


def memory_losses(memory: Tensor, own: Tensor, k: int, margin: float) -> tuple[Tensor, Tensor]:
    """Compute L_m, as its two means over the k largest, from pre-activations η [.., row] and a [.., reading].

    η are at memory rows, a at read-outs. The means are of exp(η − a + γ) over all pairs, and of exp(η + γ), with the
    margin γ: [..] each.
    """
    top = memory.topk(min(k, memory.shape[-1])).values  # the k largest pairs have no other η
    pairs = (top[..., :, None] - own[..., None, :] + margin).flatten(-2)
    apart = pairs.topk(min(k, pairs.shape[-1])).values.exp().mean(-1)
    return apart, (top + margin).exp().mean(-1)


def first_patch(rows: Tensor, reads: Tensor, amplify: float, rng: np.random.Generator) -> Patch:
    """Initialise neurons: k = a*/‖a*‖², β = 0, e drawn from N(0, 1), s = `amplify`.

    a* is the mean input at the neuron's read-outs, places [neuron, reading] in `rows` [row, d_model]; so a neuron's
    pre-activation there is 1, on average.
    """
    mean = rows[reads].mean(1)
    key = mean / mean.square().sum(1, keepdim=True)
    direction = torch.tensor(rng.standard_normal(key.shape), dtype=key.dtype, device=key.device)
    return Patch(key, key.new_zeros(len(key)), direction, torch.full_like(key, amplify))


def no_patch(rows: Tensor) -> Patch:
    """Make a patch without neurons, for inputs like these [row, d_model]."""
    nothing = rows.new_zeros(0, rows.shape[1])
    return Patch(nothing, rows.new_zeros(0), nothing, nothing)


def append_patch(model: BertForMaskedLM, patch: Patch) -> BertForMaskedLM:
    """Append the patch's neurons to the last feed-forward of a copy, trainable like all others."""
    added = patches(model.config) + len(patch.bias)
    config = BertConfig.from_dict(model.config.to_dict() | {"patches": added})
    wide = new_model(config).to(model.device, model.dtype).eval()  # type: ignore[arg-type]  # see `Encoder`
    last, weights = blocks(model)[-1], model.state_dict()
    for old, new, axis in (
        (last.intermediate.weight, patch.key, 0),
        (last.intermediate.bias, patch.bias, 0),
        (last.output.weight, patch.value.T, 1),
    ):
        weights[name_of(old, model)] = torch.cat([old.detach(), new], axis)
    wide.load_state_dict(weights)
    return wide


class _Task:
    """Facts that are edited in together, into a model with patches that stay fixed."""

    def __init__(self, spec: PatcherSpec, model: BertForMaskedLM, told: Told, patch: Patch) -> None:
        self.spec, self.told, self.head = spec, told, head(model)
        self.last = last = blocks(model)[-1]
        with torch.no_grad():
            # [mask, d_model], to which a patch adds: it contains the feed-forward's own output, summed in this order
            self.beside = last.output(last.activation(last.intermediate(told.rows))) + told.rows
            wrong = self.said(patch).argmax(1) != told.given.piece
            self.beside = self.beside + self._added(patch)
        self.reads = torch.tensor(neurons_for(told, wrong), dtype=torch.long, device=told.rows.device)

    def said(self, patch: Patch) -> Tensor:
        """Compute logits [mask, vocabulary] at the facts' masks."""
        return self.head(self.last.add(self._added(patch), self.beside))

    def _added(self, patch: Patch) -> Tensor:
        return self.last.activation(patch.reached(self.told.rows)) @ patch.value

    def at_home(self, patch: Patch) -> Tensor:
        """Compute pre-activations at each neuron's own read-outs: [neuron, reading]."""
        return patch.reached(self.told.rows).T.gather(1, self.reads)

    def elsewhere(self, patch: Patch, memory: Tensor) -> Tensor:
        """Compute pre-activations at the memory [row, d_model] and at other facts' masks: [neuron, row]."""
        others = patch.reached(self.told.rows).T.masked_fill(self._own_fact, -torch.inf)
        return torch.cat([patch.reached(memory).T, others], 1)

    @cached_property
    def _own_fact(self) -> Tensor:
        """Masks of each neuron's own fact: bool [neuron, mask]."""
        return self.told.fact == self.told.fact[self.reads[:, :1]]

    def guard(self, patch: Patch, memory: Tensor) -> Tensor:
        """Compute L_m of each neuron: [neuron]."""
        of = self.elsewhere(patch, memory), self.at_home(patch)
        apart, silent = memory_losses(*of, self.spec.memory_top, self.spec.margin)
        return apart + silent

    def loss(self, patch: Patch, memory: Tensor) -> Tensor:
        """Compute L, summed over facts and neurons, so that each learns as it would alone."""
        edit = nll(self.said(patch), self.told.given) * (self.told.fact.max() + 1)
        active = activation_loss(self.at_home(patch), self.spec.activation_top)
        guard = self.guard(patch, memory)
        return edit + (self.spec.activation_weight * active + self.spec.memory_weight * guard).sum()

    def learned(self, memory: Tensor, checked: Tensor, rng: np.random.Generator, label: str) -> Patch:
        """Train neurons for the wrong pieces, if any; `memory` and `checked` are [row, d_model]."""
        if not len(self.reads):
            return no_patch(memory)
        spec, best = self.spec, float("inf")
        patch = first_patch(self.told.rows, self.reads, spec.amplify, rng)
        for part in patch:
            part.requires_grad_()
        adam = torch.optim.Adam(patch, spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, factor=spec.plateau, patience=1, threshold=0.05)
        for step in progress(range(1, spec.most_steps + 1), label):
            # gradients are asked for by name: the model's own weights collect none
            gradients = torch.autograd.grad(self.loss(patch, memory), patch)
            for part, gradient in zip(patch, clip_gradients(gradients, spec.clip), strict=True):
                part.grad = gradient
            adam.step()
            if step >= spec.first_check and step % spec.check_every == 0:
                with torch.no_grad():
                    plateau.step(self.loss(patch, checked))
                    guard = self.guard(patch, checked).mean().item()
                    right = (self.said(patch).argmax(1) == self.told.given.piece).all()
                if right:
                    if guard > best - BETTER:
                        break
                    best = guard
        return Patch(*(part.detach() for part in patch))


def clip_gradients(gradients: Sequence[Tensor], longest: float) -> list[Tensor]:
    """Clip gradients [neuron, ..] to the joint length `longest` of each neuron."""
    length = torch.cat([gradient.reshape(len(gradient), -1) for gradient in gradients], 1).norm(dim=1)
    factor = (longest / length).clamp(max=1)
    return [gradient * factor.view(-1, *[1] * (gradient.dim() - 1)) for gradient in gradients]
