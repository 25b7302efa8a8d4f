"""What happens if neurons are silenced, amplified, or replaced by those of another model: is attribution causal?

Attribution says what a neuron adds along a path that never occurs in use. Here the network runs as it is, but for the
neurons in question, and the vector that comes out is judged by what it retrieves.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from dprlens.bert.encoder import Encoder, Text
from dprlens.bert.forward import Batch, activations, forward, pad_texts
from dprlens.bert.packing import split_by_tokens

ROOM = 4096  # tokens read at once
PATCHES = ("state", "cls", "feed-forward")
KINDS = ("top", "random", "bottom")


def scale_neurons(encoder: Encoder, texts: Sequence[Text], factors: ndarray) -> Tensor:
    """Vectors [text, d_model] when each neuron at [CLS] is multiplied by its factor.

    `factors` [text, block, neuron] (d_ff intermediate neurons, then d_model of the output, as in
    `Attribution.scores`); a factor of 1 leaves a neuron as it is.
    """
    model, d_ff = encoder.model, encoder.model.config.intermediate_size

    def scale(neurons: Tensor, by: Tensor) -> Tensor:
        neurons[:, 0] *= by  # in place, since a copy would double the memory and nobody else has it
        return neurons

    def run(batch: Batch, part: list[int]) -> Tensor:
        taps = {}
        for i, block in enumerate(torch.tensor(factors[part], dtype=model.dtype, device=model.device).unbind(1)):
            taps[i, "intermediate"] = partial(scale, by=block[:, :d_ff])
            taps[i, "output"] = partial(scale, by=block[:, d_ff:])
        return forward(model, batch, taps)

    return _in_batches(encoder, texts, run)


def chosen(scores: ndarray, k: int, kind: str, seed: int = 0) -> ndarray:
    """k neurons of each example, as a mask like `scores` [example, block, neuron].

    "top": those of the greatest attributions. "random" and "bottom": as many of each block, drawn at random, or those
    whose attribution is smallest in size; none of them is among the top k, and a block with fewer others than that
    gives what it has. Raises ValueError for a k that is not 0 … half of the neurons.
    """
    if kind not in KINDS:
        raise ValueError(f"kind = {kind!r} is not known; choose one of {', '.join(KINDS)}")
    examples, blocks, neurons = scores.shape
    if not 0 <= k <= blocks * neurons // 2:
        raise ValueError(f"k = {k} neurons: give 0 to {blocks * neurons // 2}, half of them")
    top = (places_in_line(-scores.reshape(examples, -1)) < k).reshape(scores.shape)
    if kind == "top":
        return top
    key = np.abs(scores) if kind == "bottom" else np.random.default_rng([seed, 0xAC]).random(scores.shape)
    places = np.where(top, np.inf, key).argsort(2, kind="stable").argsort(2, kind="stable")
    return (places < top.sum(2, keepdims=True)) & ~top


def first_lost(found: ndarray, steps: Sequence[int]) -> ndarray:
    """The first number of silent neurons at which what was found is lost [example], one of `steps`.

    `found` [1 + step, example] says whether an example is found with no neuron silent, and with so many of each step.
    0 for what is not found to begin with, infinity for what survives all steps. Raises ValueError without steps, and if
    rows and steps do not fit.
    """
    if not len(steps):
        raise ValueError("no step is given; give numbers of silent neurons, 1 or more")
    if len(found) != len(steps) + 1:
        raise ValueError(f"{len(found)} rows for {len(steps)} steps; give one row more than steps, the first untouched")
    counts = np.array([*steps, np.inf])
    gone = np.concatenate([~found[1:], np.ones((1, found.shape[1]), bool)])
    return np.where(found[0], counts[gone.argmax(0)], 0)


def patch_block(into: Encoder, other: Encoder, texts: Sequence[Text], block: int, what: str) -> Tensor:
    """Vectors [text, d_model] of `into` when what block `block` makes of the texts is replaced by what `other` makes.

    `what`: the "state" after the block at all tokens, that at [CLS] alone ("cls"), or what the block's feed-forward
    adds at all tokens ("feed-forward"). Raises ValueError for another word, or a block that is not there.
    """
    if what not in PATCHES:
        raise ValueError(f"what = {what!r} is not known; choose one of {', '.join(PATCHES)}")
    blocks = min(into.layers, other.layers)
    if not 0 <= block < blocks:
        raise ValueError(f"block {block} is out of range: these encoders have blocks 0 to {blocks - 1}")
    ids = other.token_ids(texts)

    def replaced(own: Tensor, by: Tensor) -> Tensor:
        return torch.cat([by[:, :1], own[:, 1:]], dim=1) if what == "cls" else by

    def run(batch: Batch, part: list[int]) -> Tensor:
        place = block, "output" if what == "feed-forward" else "state"
        theirs = activations(other.model, pad_texts(other.model, [ids[i] for i in part]), [place])[place]
        if what == "state":
            return forward(into.model, batch._replace(input=theirs), start=block + 1)
        return forward(into.model, batch, {place: partial(replaced, by=theirs)})

    return _in_batches(into, texts, run)


def _in_batches(encoder: Encoder, texts: Sequence[Text], run: Callable[[Batch, list[int]], Tensor]) -> Tensor:
    """What `run(batch, its texts' places)` returns [text, d_model], in the order of the texts, on the CPU."""
    ids = encoder.token_ids(texts)
    found = torch.empty(len(ids), encoder.model.config.hidden_size)
    with torch.no_grad():
        for part in split_by_tokens(ids, ROOM):
            found[part] = run(pad_texts(encoder.model, [ids[i] for i in part]), part).float().cpu()
    return found


def places_in_line(keys: ndarray) -> ndarray:
    """Each neuron's place when an example's neurons stand in the order of their keys: int [example, neuron]."""
    return keys.argsort(1, kind="stable").argsort(1, kind="stable")
