"""Packed rows against transformers' own BERT, called with one text at a time."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from dprlens import packed as module
from dprlens.packed import Packed, at_cls, in_parts, last_cls, mean_over_tokens, pack, read, states

LENGTHS = [9, 2, 17, 4, 4, 12, 3, 7, 21, 5]
LAYERS = 4


def toy(layers: int = LAYERS, attention: str = "sdpa", dropout: float = 0.0) -> BertModel:
    """A BERT in double precision with large random weights, so that it is far from linear; in eval mode."""
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=24,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation=attention,
    )
    bert = BertModel(config, add_pooling_layer=False).double().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weights in bert.named_parameters():
            centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            weights.copy_(centre + 0.25 * torch.randn(weights.shape, generator=generator))
    return bert


@pytest.fixture(scope="module")
def texts() -> list[list[int]]:
    """Token ids of [CLS] 2, pieces from 5 on, [SEP] 3."""
    generator = torch.Generator().manual_seed(6)
    pieces = [torch.randint(5, 50, (n - 2,), generator=generator).tolist() for n in LENGTHS]
    return [[2, *inside, 3] for inside in pieces]


def plainly(bert: BertModel, ids: list[int]) -> list[Tensor]:
    """States by layer of one text, by transformers alone: [token, d_model] each."""
    return [state[0] for state in bert(torch.tensor([ids]), output_hidden_states=True).hidden_states]


def test_texts_go_first_fit_decreasing_into_rows_by_hand():
    """Longest first: 5 opens a row, 4 a second, 3 fits neither and opens a third, 2 goes behind the 4."""
    packed = pack([[2, 7, 3], [2, 8, 8, 8, 3], [2, 3], [2, 9, 9, 3]], pad=0, width=6)
    assert packed.ids.tolist() == [[2, 8, 8, 8, 3, 0], [2, 9, 9, 3, 2, 3], [2, 7, 3, 0, 0, 0]]
    assert packed.text.tolist() == [[1, 1, 1, 1, 1, -1], [3, 3, 3, 3, 2, 2], [0, 0, 0, -1, -1, -1]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 0, 0]]
    assert packed.row.tolist() == [2, 0, 1, 1]
    assert packed.first.tolist() == [0, 0, 4, 0]
    assert packed.length.tolist() == [3, 5, 2, 4]


@pytest.mark.parametrize("width", [1, 21, 22, 40, 96, 500])
def test_every_token_is_in_its_place_once(texts, width):
    packed = pack(texts, pad=0, width=width)
    for i, (ids, row, first) in enumerate(zip(texts, packed.row.tolist(), packed.first.tolist(), strict=True)):
        where = row, slice(first, first + len(ids))
        assert packed.ids[where].tolist() == ids
        assert packed.text[where].tolist() == [i] * len(ids)
        assert packed.positions[where].tolist() == list(range(len(ids)))
    assert int((packed.text >= 0).sum()) == sum(LENGTHS)
    assert set(packed.ids[packed.text < 0].tolist()) <= {0}
    assert packed.ids.shape[1] <= max(width, max(LENGTHS))
    if width == 96:
        assert len(packed.ids) == 1  # 84 tokens


def test_a_width_below_the_longest_text_is_widened_to_it(texts):
    assert pack(texts, pad=0, width=1).ids.shape[1] == max(LENGTHS)
    assert len(pack([texts[0], texts[0]], pad=0, width=1).ids) == 2


def test_the_same_tensors_elsewhere(texts):
    packed = pack(texts, pad=0)
    moved = packed.to(torch.device("meta"))
    assert isinstance(moved, Packed)
    assert [field.shape for field in moved] == [field.shape for field in packed]
    assert {field.device.type for field in moved} == {"meta"}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("width", [1, 30, 96], ids=["one text a row", "some texts a row", "all in one row"])
class TestParity:
    """Rows of any width, and both of transformers' ways to attend, give what one text alone gives."""

    def test_states(self, texts, width, attention):
        bert, packed = toy(attention=attention), pack(texts, pad=0, width=width)
        found = list(states(bert, packed))
        assert len(found) == LAYERS + 1
        for i, ids in enumerate(texts):
            inside = packed.row[i], slice(packed.first[i], packed.first[i] + len(ids))
            for state, expected in zip(found, plainly(bert, ids), strict=True):
                torch.testing.assert_close(state[inside], expected, atol=1e-10, rtol=0)
                torch.testing.assert_close(at_cls(state, packed)[i], expected[0], atol=1e-10, rtol=0)

    @pytest.mark.parametrize("layers", [1, LAYERS])
    def test_last_cls_and_its_gradient(self, texts, width, attention, layers):
        bert, packed = toy(layers, attention), pack(texts, pad=0, width=width)
        reader = torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(7), dtype=torch.double)
        found = last_cls(bert, packed)
        expected = torch.stack([plainly(bert, ids)[-1][0] for ids in texts])
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
        weights = list(bert.parameters())
        for one, other in zip(gradient(found * reader, weights), gradient(expected * reader, weights), strict=True):
            torch.testing.assert_close(one, other, atol=1e-9 * float(other.abs().max()) + 1e-12, rtol=0)


def gradient(values: Tensor, weights: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(values.sum(), weights)


def test_the_parity_tests_can_tell(texts):
    """The toy is no constant: texts differ, and a text that sees its neighbour, or counts on from it, is another."""
    bert, packed = toy(), pack(texts, pad=0)
    cls = last_cls(bert, packed)
    assert torch.pdist(cls).min() > 0.1
    mixed = packed._replace(text=torch.where(packed.text == 2, 8, packed.text))  # 2 stands right behind 8
    assert (at_cls([*states(bert, mixed)][-1], packed) - cls)[[2, 8]].abs().amax(1).min() > 1e-3
    shifted = packed._replace(positions=packed.positions + (packed.text == 3))
    assert (last_cls(bert, shifted) - cls)[3].abs().max() > 1e-3


def test_padding_is_not_looked_at(texts):
    bert, packed = toy(), pack(texts, pad=0, width=30)
    filled = packed._replace(ids=torch.where(packed.text < 0, 44, packed.ids))
    assert not torch.equal(filled.ids, packed.ids)
    torch.testing.assert_close(last_cls(bert, filled), last_cls(bert, packed), atol=1e-12, rtol=0)


@pytest.mark.parametrize("width", [1, 30, 96])
def test_the_mean_is_over_a_texts_own_tokens(texts, width):
    bert, packed = toy(), pack(texts, pad=0, width=width)
    found = mean_over_tokens([*states(bert, packed)][-1], packed)
    expected = torch.stack([plainly(bert, ids)[-1].mean(0) for ids in texts])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_in_single_precision_the_difference_is_float_noise(texts):
    bert = toy().float()
    expected = torch.stack([plainly(bert, ids)[-1][0] for ids in texts])
    torch.testing.assert_close(last_cls(bert, pack(texts, pad=0)), expected, atol=1e-5, rtol=0)


# dropout


def drawn(bert: BertModel, packed: Packed, seed: int) -> Tensor:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        return last_cls(bert, packed)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_dropout_drops_in_training_mode_only(texts, attention):
    bert, packed = toy(attention=attention, dropout=0.1), pack(texts, pad=0)
    assert torch.equal(drawn(bert, packed, 0), drawn(bert, packed, 1))
    bert.train()
    first, again, other = (drawn(bert, packed, seed) for seed in (0, 0, 1))
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert (first - other).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize(
    "place",
    [
        lambda block: block.attention.self.dropout,
        lambda block: block.attention.output.dropout,
        lambda block: block.output.dropout,
    ],
    ids=["attention", "after attention", "after the feed-forward"],
)
def test_each_dropout_of_the_last_block_acts(texts, place: Callable):
    """The last block is computed by our own code; its average over draws is near the value without dropout."""
    bert, packed = toy(), pack(texts, pad=0)
    calm = drawn(bert, packed, 0)
    bert.train()
    assert torch.equal(drawn(bert, packed, 0), calm)  # no dropout yet
    place(bert.encoder.layer[-1]).p = 0.05
    draws = [drawn(bert, packed, seed) for seed in range(50)]
    assert all((one - other).abs().max() > 1e-3 for one, other in pairwise(draws))
    spread = torch.stack(draws).std(0).mean()
    assert (torch.stack(draws).mean(0) - calm).abs().mean() < 0.5 * spread


@pytest.mark.parametrize("tokens", [1, 2, 10, 21, 40, sum(LENGTHS) - 1])
def test_parts_hold_no_more_than_asked_and_every_text_once(texts, tokens):
    parts = in_parts(texts, tokens)
    assert sorted(i for part in parts for i in part) == list(range(len(texts)))
    assert all(sum(LENGTHS[i] for i in part) <= tokens or len(part) == 1 for part in parts)
    lengths = [LENGTHS[i] for part in parts for i in part]
    assert lengths == sorted(LENGTHS)


def test_parts_are_filled(texts):
    assert in_parts(texts, sum(LENGTHS)) == [list(range(len(texts)))]
    assert in_parts([[2, 3]] * 5, 4) == [[0, 1], [2, 3], [4]]
    assert in_parts([], 4) == []


@pytest.mark.parametrize("tokens", [1, 30, 10_000])
@pytest.mark.parametrize("width", [1, 30])
def test_read_part_by_part_gives_each_text_its_own(texts, tokens, width, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", tokens)
    bert = toy()
    found = read(bert, texts, 0, last_cls, width)
    expected = torch.stack([plainly(bert, ids)[-1][0] for ids in texts])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    weights = list(bert.parameters())
    for one, other in zip(gradient(found, weights), gradient(expected, weights), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9 * float(other.abs().max()) + 1e-12, rtol=0)


def test_to_read_nothing_is_refused():
    with pytest.raises(ValueError, match="no text is given; give one or more"):
        read(toy(), [], 0, last_cls)
