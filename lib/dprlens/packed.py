"""Many short texts in few rows: a BERT's states without the cost of padding.

Several texts stand one after the other in one row; positions start again at 0 in each, and a mask keeps a text from
attending to its neighbours. The states are those of the texts one by one, up to float noise, and hardly any token is
padding. Blocks and embeddings are transformers' own; only the last block's feed-forward is left out where nobody
looks at its result.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import BertModel

WIDTH = 96  # tokens in a row, if no text is longer: wider rows waste time in attention, narrower ones in padding


class Packed(NamedTuple):
    """Token ids of several texts in rows, and where each text stands."""

    ids: Tensor  # [row, token]
    positions: Tensor  # [row, token], counted from 0 in each text
    text: Tensor  # [row, token]: which text a token belongs to, −1 for padding
    row: Tensor  # [text]
    first: Tensor  # [text]: the token of its row at which the text begins, that is, its [CLS]
    length: Tensor  # [text]

    def to(self, device: torch.device) -> "Packed":
        return Packed(*(field.to(device) for field in self))


def pack(texts: Sequence[Sequence[int]], pad: int, width: int = WIDTH) -> Packed:
    """Token ids of texts [text][token] in as few rows as first-fit-decreasing finds; `pad` fills what is left."""
    width = max(width, max(map(len, texts)))
    used: list[int] = []
    row, first = [0] * len(texts), [0] * len(texts)
    for i in sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i)):
        row[i] = next((r for r, tokens in enumerate(used) if tokens + len(texts[i]) <= width), len(used))
        if row[i] == len(used):
            used.append(0)
        first[i] = used[row[i]]
        used[row[i]] += len(texts[i])
    ids = torch.full((len(used), max(used)), pad)
    positions, text = torch.zeros_like(ids), torch.full_like(ids, -1)
    for i, tokens in enumerate(texts):
        where = row[i], slice(first[i], first[i] + len(tokens))
        ids[where], positions[where], text[where] = torch.tensor(tokens), torch.arange(len(tokens)), i
    return Packed(ids, positions, text, torch.tensor(row), torch.tensor(first), torch.tensor(list(map(len, texts))))


def states(bert: BertModel, packed: Packed) -> Iterator[Tensor]:
    """States by layer, from 0 (the embedding output) to the last: [row, token, d_model] each."""
    state = bert.embeddings(
        input_ids=packed.ids, position_ids=packed.positions, token_type_ids=torch.zeros_like(packed.ids)
    )
    mask = _mask(packed, state.dtype)
    yield state
    for block in bert.encoder.layer:
        state = block(state, attention_mask=mask)
        yield state


def at_cls(state: Tensor, packed: Packed) -> Tensor:
    """A state [row, token, d_model] at each text's [CLS]: [text, d_model]."""
    return state[packed.row, packed.first]


def mean_over_tokens(state: Tensor, packed: Packed) -> Tensor:
    """A state [row, token, d_model] averaged over each text's tokens, special ones included: [text, d_model]."""
    inside = packed.text >= 0
    sums = state.new_zeros(len(packed.length), state.shape[-1])
    return sums.index_add(0, packed.text[inside], state[inside]) / packed.length[:, None]


def last_cls(bert: BertModel, packed: Packed) -> Tensor:
    """The state after the last block at each text's [CLS]: [text, d_model]; the last block is computed there only."""
    blocks = bert.encoder.layer
    before_last = next(islice(states(bert, packed), len(blocks) - 1, None))
    return _block_at_cls(blocks[-1], before_last, packed)


def _block_at_cls(block: torch.nn.Module, state: Tensor, packed: Packed) -> Tensor:
    """A BERT block's output at each text's [CLS], from the state [row, token, d_model] that goes into it."""
    attention = block.attention.self
    heads = attention.num_attention_heads, attention.attention_head_size
    tokens = torch.arange(int(packed.length.max()), device=state.device)
    inside = tokens < packed.length[:, None]  # [text, token]
    column = torch.where(inside, packed.first[:, None] + tokens, 0)
    key, value = (
        project(state)[packed.row[:, None], column].unflatten(-1, heads).transpose(1, 2)
        for project in (attention.key, attention.value)
    )  # [text, head, token, d_head]
    cls = at_cls(state, packed)
    query = attention.query(cls).unflatten(-1, heads).unsqueeze(2)  # [text, head, 1, d_head]
    dropout = attention.dropout.p if block.training else 0.0
    mixed = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=inside[:, None, None, :], dropout_p=dropout
    )
    attended = block.attention.output(mixed.flatten(1), cls)
    return block.output(block.intermediate(attended), attended)


def _mask(packed: Packed, dtype: torch.dtype) -> Tensor:
    """[row, 1, token, token], added to attention scores: 0 within a text, very negative between texts."""
    apart = packed.text[:, None, :, None] != packed.text[:, None, None, :]
    return torch.zeros(apart.shape, dtype=dtype, device=apart.device).masked_fill_(apart, torch.finfo(dtype).min)
