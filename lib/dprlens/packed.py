"""Many short texts in few rows: a BERT's states without the cost of padding.

Several texts stand one after the other in one row; positions start again at 0 in each, and a mask keeps a text from
attending to its neighbours. The states are those of the texts one by one, up to float noise, and hardly any token is
padding. Blocks and embeddings are transformers' own; only the last block's feed-forward is left out where nobody
looks at its result.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import BertModel

WIDTH = 96  # tokens in a row, if no text is longer: wider rows waste time in attention, narrower ones in padding
AT_ONCE, AT_ONCE_ELSEWHERE = 2048, 2**18  # tokens, on a CPU, whose cache more do not fit, and on a GPU


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


def in_parts(texts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """The texts' indices in parts of at most `tokens` tokens, or of one longer text.

    Texts of similar length go together; texts that fit into one part stay in their order.
    """
    if sum(map(len, texts)) <= tokens:
        return [list(range(len(texts)))] if texts else []
    parts: list[list[int]] = []
    room = 0
    for i in sorted(range(len(texts)), key=lambda i: len(texts[i])):
        if len(texts[i]) > room:
            parts.append([])
            room = tokens
        parts[-1].append(i)
        room -= len(texts[i])
    return parts


def room(bert: BertModel) -> int:
    """How many tokens the model should read at once."""
    return AT_ONCE if bert.device.type == "cpu" else AT_ONCE_ELSEWHERE


def read(
    bert: BertModel,
    texts: Sequence[Sequence[int]],
    pad: int,
    reading: Callable[[BertModel, Packed], Tensor],
    width: int = WIDTH,
) -> Tensor:
    """What `reading(bert, packed)` [text, …] makes of texts [text][token], in their order, part by part.

    Raises ValueError if there is no text: nobody knows then what `reading` would return.
    """
    if not texts:
        raise ValueError("no text is given; give one or more")
    parts = in_parts(texts, room(bert))
    found = torch.cat([reading(bert, pack([texts[i] for i in p], pad, width).to(bert.device)) for p in parts])
    order = torch.tensor([i for part in parts for i in part], device=found.device)
    return found if len(parts) == 1 else found[order.argsort()]


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
    return block_at(block, at_cls(state, packed), key, value, inside)


def block_at(block: torch.nn.Module, at: Tensor, key: Tensor, value: Tensor, inside: Tensor) -> Tensor:
    """A BERT block's output [text, d_model] at one token of each text, whose state `at` [text, d_model] goes in.

    `key` and `value` [text, head, token, d_head] are those of the text's tokens, of which some are `inside` [text,
    token].
    """
    attention = block.attention.self
    query = attention.query(at).unflatten(-1, (attention.num_attention_heads, attention.attention_head_size))
    mixed = torch.nn.functional.scaled_dot_product_attention(
        query.unsqueeze(2),
        key,
        value,
        attn_mask=inside[:, None, None, :],
        dropout_p=attention.dropout.p if block.training else 0.0,
    )
    attended = block.attention.output(mixed.flatten(1), at)
    return block.output(block.intermediate(attended), attended)


def _mask(packed: Packed, dtype: torch.dtype) -> Tensor:
    """[row, 1, token, token], added to attention scores: 0 within a text, very negative between texts."""
    apart = packed.text[:, None, :, None] != packed.text[:, None, None, :]
    return torch.zeros(apart.shape, dtype=dtype, device=apart.device).masked_fill_(apart, torch.finfo(dtype).min)
