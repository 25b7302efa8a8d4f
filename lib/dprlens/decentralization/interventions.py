"""Interventions on neurons and blocks: silencing, amplifying, patching; a causal test of attribution.

Attribution integrates along a path that never occurs in use. Here the network runs unchanged except for the neurons in
question, and its output vector is judged by what it retrieves.
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
    """Encode texts with each neuron at [CLS] multiplied by its factor: vectors [text, d_model].

    `factors` is [text, block, neuron] (d_ff intermediate neurons, then d_model of the output, as in
    `Attribution.scores`); a factor of 1 leaves a neuron unchanged.
    """
    model, d_ff = encoder.model, encoder.model.config.intermediate_size

    def scale(neurons: Tensor, by: Tensor) -> Tensor:
        neurons[:, 0] *= by  # in place, since a copy would double the memory and nothing else holds it
        return neurons

    def run(batch: Batch, part: list[int]) -> Tensor:
        taps = {}
        for i, block in enumerate(torch.tensor(factors[part], dtype=model.dtype, device=model.device).unbind(1)):
            taps[i, "intermediate"] = partial(scale, by=block[:, :d_ff])
            taps[i, "output"] = partial(scale, by=block[:, d_ff:])
        return forward(model, batch, taps)

    return _in_batches(encoder, texts, run)


def chosen(scores: ndarray, k: int, kind: str, seed: int = 0) -> ndarray:
    """Choose k neurons of each example, as a mask like `scores` [example, block, neuron].

    "top": those with the greatest attributions. "random" and "bottom": as many of each block, drawn at random, or those
    whose attribution is smallest in absolute value; none of them is among the top k, and a block with too few others
    contributes all of these. Raises ValueError for a k outside 0 … half of the neurons.
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
    """Compute the first number of silenced neurons, of `steps`, at which an example's passage is lost [example].

    `found` [1 + step, example]: whether the passage is retrieved with no neuron silenced, and with the number of each
    step. 0 where it is not retrieved to begin with, infinity where it survives all steps. Raises ValueError without
    steps, and if the numbers of rows and steps do not match.
    """
    if not len(steps):
        raise ValueError("no step is given; give numbers of silent neurons, 1 or more")
    if len(found) != len(steps) + 1:
        raise ValueError(f"{len(found)} rows for {len(steps)} steps; give one row more than steps, the first untouched")
    counts = np.array([*steps, np.inf])
    gone = np.concatenate([~found[1:], np.ones((1, found.shape[1]), bool)])
    return np.where(found[0], counts[gone.argmax(0)], 0)


def patch_block(into: Encoder, other: Encoder, texts: Sequence[Text], block: int, what: str) -> Tensor:
    """Encode texts with `into`, the result of one block replaced by that of `other`: vectors [text, d_model].

    `what`: the "state" after the block at all tokens, that at [CLS] alone ("cls"), or the output of the block's
    feed-forward at all tokens ("feed-forward"). Raises ValueError for another word, or a block that does not exist.
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
    """Collect `run(batch, places of its texts)` [text, d_model], in the order of the texts, on the CPU."""
    ids = encoder.token_ids(texts)
    found = torch.empty(len(ids), encoder.model.config.hidden_size)
    with torch.no_grad():
        for part in split_by_tokens(ids, ROOM):
            found[part] = run(pad_texts(encoder.model, [ids[i] for i in part]), part).float().cpu()
    return found


def places_in_line(keys: ndarray) -> ndarray:
    """Rank an example's neurons by ascending key: int [example, neuron], from 0."""
    return keys.argsort(1, kind="stable").argsort(1, kind="stable")
