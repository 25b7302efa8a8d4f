"""One forward pass for encoding, cloze, attribution, interventions and editors.

A pass may begin at any block, with the states that go into it, and stop before any other. *Taps* are arguments of one
call: functions that see an activation, and may put another one in its place. They are named by block (from 0) and site:

    attended        what goes into the feed-forward, and past it by the residual   [row, token, d_model]
    preactivation   its hidden neurons before the activation function              [row, token, d_ff]
    intermediate    its hidden neurons                                             [row, token, d_ff]
    output          its result, before the residual and the norm                   [row, token, d_model]
    state           the hidden state after the block                               [row, token, d_model]

Where texts are read at one token each, the last block is computed only there, unless it is tapped. Whatever a model of
transformers does with its own blocks is left to them; `architecture` knows where they are.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from numpy import ndarray
from torch import Tensor
from transformers import PreTrainedModel

from dprlens.bert.architecture import Block, blocks, embeddings, head

TAP_SITES = ("attended", "preactivation", "intermediate", "output", "state")

Place = tuple[int, str]  # block, from 0, and site
Tap = Callable[[Tensor], Tensor | None]  # sees an activation; returns what takes its place, or None
Taps = Mapping[Place, Tap]

NO_PIECE = torch.empty(0, dtype=torch.long)


class Batch(NamedTuple):
    """Texts in rows, and the tokens at which they are read.

    The rows are padded, with one text each, or packed, with several texts one after the other.
    """

    input: Tensor  # token ids [row, token], or the states [row, token, d_model] that go into some block
    text: Tensor  # [row, token]: which text a token belongs to; −1: padding
    row: Tensor  # [read]: rows of the tokens that are read
    place: Tensor  # [read]: their places in these rows
    position: Tensor | None = None  # of packed rows [row, token], counted from 0 in each text; None: rows are padded
    piece: Tensor = NO_PIECE  # [read]: the masked-LM's target token ids there, if it is used

    @property
    def inside(self) -> Tensor:
        """Mask of the texts' tokens, bool [row, token]: False for padding."""
        return self.text >= 0

    @property
    def length(self) -> Tensor:
        """Number of tokens of each text: int [text]."""
        return torch.bincount(self.text[self.inside])

    def to(self, device: torch.device) -> "Batch":
        """Move all tensors to a device."""
        return self._replace(**{name: x.to(device) for name, x in self._asdict().items() if x is not None})

    def part(self, rows: Sequence[int] | ndarray | Tensor) -> "Batch":
        """Select rows of a padded batch, in this order, with the tokens that are read in them."""
        rows = torch.as_tensor(rows, dtype=torch.long, device=self.text.device)
        reads = [(self.row == row).nonzero().flatten() for row in rows]
        chosen = torch.cat([rows[:0], *reads])
        counts = torch.tensor([len(of_row) for of_row in reads], dtype=torch.long, device=rows.device)
        piece = self.piece[chosen] if len(self.piece) else self.piece
        row = torch.repeat_interleave(counts)
        return Batch(self.input[rows], text_numbers(self.inside[rows]), row, self.place[chosen], piece=piece)

    def repeated(self, times: int, states: Tensor) -> "Batch":
        """Repeat each row of a padded batch, read once, so many times, with other states [row · times, …]."""
        text = text_numbers(self.inside.repeat_interleave(times, 0))
        row = torch.arange(len(text), device=text.device)
        return Batch(states, text, row, self.place.repeat_interleave(times))


def text_numbers(inside: Tensor) -> Tensor:
    """Assign each token of padded rows its text, as `Batch.text`: bool [row, token] to int [row, token]."""
    return torch.where(inside, torch.arange(len(inside), device=inside.device)[:, None], -1)


def pad_texts(
    model: PreTrainedModel,
    ids: Sequence[Sequence[int]],
    place: Sequence[int] | None = None,
    row: Sequence[int] | None = None,
) -> Batch:
    """Pad texts [text][token] to the longest, one row each.

    They are read at a place each, or at some places of some rows [read]; by default at [CLS], their first token.
    """
    longest, pad = max(map(len, ids)), model.config.pad_token_id or 0
    rows = torch.tensor([[*text, *[pad] * (longest - len(text))] for text in ids])
    inside = torch.arange(longest) < torch.tensor(list(map(len, ids)))[:, None]
    read = (range(len(ids)) if row is None else row), ([0] * len(ids) if place is None else place)
    return Batch(rows, text_numbers(inside), *map(torch.LongTensor, map(list, read))).to(model.device)


def forward(
    model: PreTrainedModel, batch: Batch, taps: Taps | None = None, start: int = 0, stop: int | None = None
) -> Tensor:
    """Compute each text's state after the last block, where it is read, once a text: [text, d_model].

    With `stop`, the states that go into that block, at all tokens: [row, token, d_model]; at the number of blocks,
    those after the last one. `batch.input` holds token ids, or the states that go into block `start`. Raises
    ValueError for a tap that the pass does not come by.
    """
    every, taps = blocks(model), taps or {}
    end = len(every) if stop is None else stop
    for block, site in taps:
        if site not in TAP_SITES:
            raise ValueError(f"there is no site {site!r} to tap; choose one of {', '.join(TAP_SITES)}")
        if not start <= block < end:
            raise ValueError(f"the pass from block {start} to {end} does not come by block {block}; tap another one")
    state = batch.input
    if state.dim() == 2:
        state = embeddings(model)(input_ids=state, position_ids=batch.position)
    mask = attention_mask(batch, state.dtype)
    at_places = stop is None and start < end and not any(block == end - 1 for block, _ in taps)
    for i in range(start, end - at_places):
        state = _whole(every[i], state, mask, {site: tap for (block, site), tap in taps.items() if block == i})
    if at_places:
        return _at_places(every[-1], state, batch)
    return state if stop is not None else state[batch.row, batch.place]


def activations(model: PreTrainedModel, batch: Batch, places: Sequence[Place], start: int = 0) -> dict[Place, Tensor]:
    """Record the activations at some places of a pass from block `start`."""
    seen: dict[Place, Tensor] = {}
    taps = {place: partial(seen.__setitem__, place) for place in places}
    forward(model, batch, taps, start, 1 + max(block for block, _ in places))
    return seen


def masked_lm(model: PreTrainedModel, batch: Batch, start: int = 0, taps: Taps | None = None) -> Tensor:
    """Compute logits of the masked-LM head at the tokens that are read: [read, vocabulary].

    The pass begins at block `start`.
    """
    states = forward(model, batch, taps, start, stop=len(blocks(model)))
    return head(model)(states[batch.row, batch.place])


def mean_over_tokens(state: Tensor, batch: Batch) -> Tensor:
    """Average a state [row, token, d_model] over each text's tokens, special ones included: [text, d_model]."""
    inside, length = batch.inside, batch.length
    sums = state.new_zeros(len(length), state.shape[-1])
    return sums.index_add(0, batch.text[inside], state[inside]) / length[:, None]


def attention_mask(batch: Batch, dtype: torch.dtype) -> Tensor | None:
    """Make the mask that is added to attention scores: 0 within a text, very negative elsewhere.

    [row, 1, 1, token] for padded rows, as what is hidden is hidden from all; [row, 1, token, token] for packed ones;
    None where nothing need be hidden.
    """
    if batch.position is not None:
        apart = batch.text[:, None, :, None] != batch.text[:, None, None, :]
    else:
        apart = ~batch.inside[:, None, None, :]
        if not apart.any():
            return None
    return torch.zeros(apart.shape, dtype=dtype, device=apart.device).masked_fill_(apart, torch.finfo(dtype).min)


def _whole(block: Block, state: Tensor, mask: Tensor | None, taps: Mapping[str, Tap]) -> Tensor:
    """Compute the state after a block at all tokens."""

    def tapped(site: str, seen: Tensor) -> Tensor:
        instead = taps[site](seen) if site in taps else None
        return seen if instead is None else instead

    attended = tapped("attended", block.attend(state, mask))
    inside = tapped("preactivation", block.intermediate(attended))
    inside = tapped("intermediate", block.activation(inside))
    inside = tapped("output", block.output(inside))
    return tapped("state", block.add(inside, attended))


def _at_places(block: Block, state: Tensor, batch: Batch) -> Tensor:
    """Compute the state after a block at the one token of each text that is read: [text, d_model]."""
    key, value = (project(state) for project in (block.key, block.value))
    inside = batch.inside
    if batch.position is not None:  # bring each text's tokens together: [text, token, …]
        first = batch.place - batch.position[batch.row, batch.place]
        length = batch.length
        tokens = torch.arange(int(length.max()), device=state.device)
        inside = tokens < length[:, None]
        column = torch.where(inside, first[:, None] + tokens, 0)
        key, value = (of_row[batch.row[:, None], column] for of_row in (key, value))
    at = state[batch.row, batch.place]
    attended = block.attend_at(at, key, value, inside)
    return block.add(block.output(block.activation(block.intermediate(attended))), attended)
