"""Packing of many short texts into few rows: an encoder's states without the cost of padding.

Several texts stand one after the other in one row; positions start again at 0 in each, and a mask keeps a text from
attending to its neighbours. The states are those of the texts one by one, up to float noise, and hardly any token is
padding.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dprlens.bert.forward import Batch

WIDTH = 96  # tokens in a row, if no text is longer: wider rows waste time in attention, narrower ones in padding
AT_ONCE, AT_ONCE_ELSEWHERE = 2048, 2**18  # tokens, on a CPU, whose cache more do not fit, and on a GPU


def pack(texts: Sequence[Sequence[int]], pad: int, width: int = WIDTH) -> Batch:
    """Pack texts [text][token], read at [CLS], into rows by first-fit decreasing.

    `pad` fills what is left.
    """
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
    return Batch(ids, text, torch.tensor(row), torch.tensor(first), positions)


def split_by_tokens(texts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Split the texts' indices into parts of at most `tokens` tokens, or of one longer text.

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


def room(model: PreTrainedModel) -> int:
    """Return how many tokens the model should read at once."""
    return AT_ONCE if model.device.type == "cpu" else AT_ONCE_ELSEWHERE


def read(
    model: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    reading: Callable[[PreTrainedModel, Batch], Tensor],
    width: int = WIDTH,
) -> Tensor:
    """Apply `reading(model, batch)` [text, …] to texts [text][token], part by part, and keep their order.

    Raises ValueError if there is no text: the shape of what `reading` returns is unknown then.
    """
    if not texts:
        raise ValueError("no text is given; give one or more")
    parts, pad = split_by_tokens(texts, room(model)), model.config.pad_token_id or 0
    found = torch.cat([reading(model, pack([texts[i] for i in p], pad, width).to(model.device)) for p in parts])
    order = torch.tensor([i for part in parts for i in part], device=found.device)
    return found if len(parts) == 1 else found[order.argsort()]
