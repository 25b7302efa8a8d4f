"""Texts in packed rows: where each token is, and parts of texts; `test_forward` has what a model makes of them."""

import pytest
import torch
from toy_bert import LENGTHS, TEXTS, gradient, plainly, toy

from dprlens.bert import packing as module
from dprlens.bert.forward import Batch, forward
from dprlens.bert.packing import pack, read, split_by_tokens


def test_texts_go_first_fit_decreasing_into_rows_by_hand():
    """Longest first: 5 opens a row, 4 a second, 3 fits neither and opens a third, 2 goes behind the 4."""
    packed = pack([[2, 7, 3], [2, 8, 8, 8, 3], [2, 3], [2, 9, 9, 3]], pad=0, width=6)
    assert packed.input.tolist() == [[2, 8, 8, 8, 3, 0], [2, 9, 9, 3, 2, 3], [2, 7, 3, 0, 0, 0]]
    assert packed.text.tolist() == [[1, 1, 1, 1, 1, -1], [3, 3, 3, 3, 2, 2], [0, 0, 0, -1, -1, -1]]
    assert packed.position.tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 0, 0]]
    assert packed.row.tolist() == [2, 0, 1, 1]
    assert packed.place.tolist() == [0, 0, 4, 0]
    assert packed.length.tolist() == [3, 5, 2, 4]


@pytest.mark.parametrize("width", [1, 21, 22, 40, 96, 500])
def test_every_token_is_in_its_place_once(width):
    packed = pack(TEXTS, pad=0, width=width)
    for i, (ids, row, first) in enumerate(zip(TEXTS, packed.row.tolist(), packed.place.tolist(), strict=True)):
        where = row, slice(first, first + len(ids))
        assert packed.input[where].tolist() == ids
        assert packed.text[where].tolist() == [i] * len(ids)
        assert packed.position[where].tolist() == list(range(len(ids)))
    assert int((packed.text >= 0).sum()) == sum(LENGTHS)
    assert set(packed.input[packed.text < 0].tolist()) <= {0}
    assert packed.input.shape[1] <= max(width, max(LENGTHS))
    if width == 96:
        assert len(packed.input) == 1  # 84 tokens


def test_a_width_below_the_longest_text_is_widened_to_it():
    assert pack(TEXTS, pad=0, width=1).input.shape[1] == max(LENGTHS)
    assert len(pack([TEXTS[0], TEXTS[0]], pad=0, width=1).input) == 2


def test_the_same_tensors_elsewhere():
    packed = pack(TEXTS, pad=0)
    moved = packed.to(torch.device("meta"))
    assert isinstance(moved, Batch)
    assert [field.shape for field in moved[:5]] == [field.shape for field in packed[:5]]
    assert {field.device.type for field in moved[:5]} == {"meta"}


@pytest.mark.parametrize("tokens", [1, 2, 10, 21, 40, sum(LENGTHS) - 1])
def test_parts_hold_no_more_than_asked_and_every_text_once(tokens):
    parts = split_by_tokens(TEXTS, tokens)
    assert sorted(i for part in parts for i in part) == list(range(len(TEXTS)))
    assert all(sum(LENGTHS[i] for i in part) <= tokens or len(part) == 1 for part in parts)
    lengths = [LENGTHS[i] for part in parts for i in part]
    assert lengths == sorted(LENGTHS)


def test_parts_are_filled():
    assert split_by_tokens(TEXTS, sum(LENGTHS)) == [list(range(len(TEXTS)))]
    assert split_by_tokens([[2, 3]] * 5, 4) == [[0, 1], [2, 3], [4]]
    assert split_by_tokens([], 4) == []


@pytest.mark.parametrize("tokens", [1, 30, 10_000])
@pytest.mark.parametrize("width", [1, 30])
def test_read_part_by_part_gives_each_text_its_own(tokens, width, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", tokens)
    bert = toy()
    found = read(bert, TEXTS, forward, width)
    expected = torch.stack([plainly(bert, ids)[-1][0] for ids in TEXTS])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    weights = list(bert.parameters())
    for one, other in zip(gradient(found, weights), gradient(expected, weights), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9 * float(other.abs().max()) + 1e-12, rtol=0)


def test_to_read_nothing_is_refused():
    with pytest.raises(ValueError, match="no text is given; give one or more"):
        read(toy(), [], forward)
