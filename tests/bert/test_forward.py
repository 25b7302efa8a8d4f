"""The forward pass against transformers' own, called with one text at a time, and what taps see and change."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from toy_bert import D_FF, LAYERS, LENGTHS, TEXTS, gradient, plainly, toy
from transformers import BertModel, DistilBertConfig, DistilBertModel

from dprlens.bert.forward import (
    TAP_SITES,
    Batch,
    activations,
    attention_mask,
    forward,
    masked_lm,
    mean_over_tokens,
    pad_texts,
    text_numbers,
)
from dprlens.bert.packing import pack

LAST = LAYERS - 1


def rows_of(bert: BertModel, width: int | None) -> Batch:
    """The texts read at [CLS], padded if there is no width, else packed."""
    return pad_texts(bert, TEXTS) if width is None else pack(TEXTS, pad=0, width=width)


def states(bert: BertModel, batch: Batch) -> list[Tensor]:
    """By layer, 0 (the embedding output) to the last: [row, token, d_model] each."""
    return [forward(bert, batch, stop=layer) for layer in range(bert.config.num_hidden_layers + 1)]


def of_text(state: Tensor, batch: Batch, i: int) -> Tensor:
    """The part of [row, token, …] that is text i's: [token, …]."""
    return state[batch.text == i]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("width", [None, 1, 30, 96], ids=["padded", "one text a row", "some a row", "all in one row"])
class TestParity:
    """Rows of any kind, and both of transformers' ways to attend, give what one text alone gives."""

    def test_states(self, width, attention):
        bert = toy(attention=attention)
        batch = rows_of(bert, width)
        found = states(bert, batch)
        for i, ids in enumerate(TEXTS):
            for state, expected in zip(found, plainly(bert, ids), strict=True):
                torch.testing.assert_close(of_text(state, batch, i), expected, atol=1e-10, rtol=0)

    @pytest.mark.slow
    @pytest.mark.parametrize("layers", [1, LAYERS])
    def test_what_is_read_and_its_gradient(self, width, attention, layers):
        bert = toy(layers, attention)
        reader = torch.randn(len(TEXTS), 32, generator=torch.Generator().manual_seed(7), dtype=torch.double)
        found = forward(bert, rows_of(bert, width))
        expected = torch.stack([plainly(bert, ids)[-1][0] for ids in TEXTS])
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
        weights = list(bert.parameters())
        for one, other in zip(gradient(found * reader, weights), gradient(expected * reader, weights), strict=True):
            torch.testing.assert_close(one, other, atol=1e-9 * float(other.abs().max()) + 1e-12, rtol=0)

    def test_texts_may_be_read_at_any_token(self, width, attention):
        bert = toy(attention=attention)
        batch = rows_of(bert, width)
        places = torch.tensor([n // 2 for n in LENGTHS])
        found = forward(bert, batch._replace(place=batch.place + places))
        expected = torch.stack([plainly(bert, ids)[-1][n // 2] for ids, n in zip(TEXTS, LENGTHS, strict=True)])
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_the_parity_tests_can_tell():
    """The toy is no constant: texts differ, and a text that sees its neighbour, or counts on from it, is another."""
    bert, packed = toy(), pack(TEXTS, pad=0)
    cls = forward(bert, packed)
    assert torch.pdist(cls).min() > 0.1
    mixed = packed._replace(text=torch.where(packed.text == 2, 8, packed.text))  # 2 stands right behind 8
    shifted = packed._replace(position=packed.position + (packed.text == 3))
    for other, changed in ((mixed, [2, 8]), (shifted, [3])):
        found = forward(bert, other, stop=LAYERS)[packed.row, packed.place]
        assert (found - cls)[changed].abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("width", [None, 30])
def test_padding_is_not_looked_at(width):
    bert = toy()
    batch = rows_of(bert, width)
    filled = batch._replace(input=torch.where(batch.text < 0, 44, batch.input))
    assert not torch.equal(filled.input, batch.input)
    torch.testing.assert_close(forward(bert, filled), forward(bert, batch), atol=1e-12, rtol=0)


@pytest.mark.parametrize("width", [None, 1, 30, 96])
def test_the_mean_is_over_a_texts_own_tokens(width):
    bert = toy()
    batch = rows_of(bert, width)
    found = mean_over_tokens(forward(bert, batch, stop=LAYERS), batch)
    expected = torch.stack([plainly(bert, ids)[-1].mean(0) for ids in TEXTS])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_in_single_precision_the_difference_is_float_noise():
    bert = toy().float()
    expected = torch.stack([plainly(bert, ids)[-1][0] for ids in TEXTS])
    torch.testing.assert_close(forward(bert, pack(TEXTS, pad=0)), expected, atol=1e-5, rtol=0)


def test_logits_are_those_of_transformers():
    model = toy(head=True)
    batch = pad_texts(model, TEXTS, [1, 4, 0, 16], [1, 0, 2, 2])
    found = masked_lm(model, batch)
    for logits, row, place in zip(found, [1, 0, 2, 2], [1, 4, 0, 16], strict=True):
        expected = model(torch.tensor([TEXTS[row]])).logits[0, place]
        torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)


# where a pass begins and ends


@pytest.mark.parametrize("width", [None, 30])
@pytest.mark.parametrize("start", range(LAYERS + 1))
def test_a_pass_that_begins_in_any_block_is_the_whole_pass(start, width):
    bert = toy()
    batch = rows_of(bert, width)
    begun = batch._replace(input=forward(bert, batch, stop=start))
    torch.testing.assert_close(forward(bert, begun, start=start), forward(bert, batch), atol=1e-12, rtol=0)
    for stop in range(start, LAYERS + 1):
        assert torch.equal(forward(bert, begun, start=start, stop=stop), forward(bert, batch, stop=stop))


def test_the_last_block_is_computed_only_where_it_is_read_unless_it_is_tapped():
    bert, shapes = toy(), []
    handle = bert.encoder.layer[-1].output.dense.register_forward_hook(lambda *call: shapes.append(call[2].shape))
    for batch in (pad_texts(bert, TEXTS), pack(TEXTS, pad=0)):
        for taps in ({}, {(0, "state"): torch.clone}, {(LAST, "state"): torch.clone}):
            forward(bert, batch, taps)
        assert [len(shape) for shape in shapes] == [2, 2, 3]
        shapes.clear()
    handle.remove()


# taps


def hooked(bert: BertModel, ids: list[int], block: int, site: str) -> Tensor:
    """What a hook of torch sees at a site of one text: [token, …]."""
    layer, seen = bert.encoder.layer[block], []
    module = {
        "attended": layer.attention.output,
        "preactivation": layer.intermediate.dense,
        "intermediate": layer.intermediate,
        "output": layer.output.dense,
        "state": layer,
    }[site]
    handle = module.register_forward_hook(lambda *call: seen.append(call[2]))
    bert(torch.tensor([ids]))
    handle.remove()
    return seen[0][0]


@pytest.mark.parametrize("width", [None, 30])
@pytest.mark.parametrize("site", TAP_SITES)
def test_a_tap_sees_what_a_hook_sees(site, width):
    bert = toy()
    batch = rows_of(bert, width)
    for block in (0, LAST):
        seen = activations(bert, batch, [(block, site)])[block, site]
        for i, ids in enumerate(TEXTS):
            expected = hooked(bert, ids, block, site)
            torch.testing.assert_close(of_text(seen, batch, i), expected, atol=1e-10, rtol=0)


def test_taps_see_all_that_they_are_put_at():
    bert = toy()
    places = [(block, site) for block in range(LAYERS) for site in TAP_SITES]
    seen = activations(bert, pad_texts(bert, TEXTS), places)
    assert {*seen} == {*places}
    assert seen[2, "intermediate"].shape == (len(TEXTS), max(LENGTHS), D_FF)
    torch.testing.assert_close(seen[2, "intermediate"], torch.nn.functional.gelu(seen[2, "preactivation"]))


@pytest.mark.parametrize("block", [0, 2, LAST])
@pytest.mark.parametrize("site", TAP_SITES)
def test_an_activation_in_its_own_place_changes_nothing_and_another_one_does(site, block):
    bert = toy()
    batch = pad_texts(bert, TEXTS)
    plain = forward(bert, batch)
    found = forward(bert, batch, {(block, site): torch.clone})
    torch.testing.assert_close(found, plain, atol=1e-12, rtol=0)
    changed = forward(bert, batch, {(block, site): lambda seen: seen.flip(-1)})
    assert (changed - plain).abs().amax(1).min() > 1e-3
    assert torch.equal(forward(bert, batch), plain)  # no tap stays behind


def test_a_silent_neuron_is_a_column_of_zeros():
    bert, silenced = toy(), toy()

    def silence(hidden: Tensor) -> Tensor:
        return hidden * (torch.arange(D_FF) != 5)

    with torch.no_grad():
        silenced.encoder.layer[1].output.dense.weight[:, 5] = 0
    for width in (None, 30):
        batch = rows_of(bert, width)
        found = forward(bert, batch, {(1, "intermediate"): silence})
        torch.testing.assert_close(found, forward(silenced, batch), atol=1e-12, rtol=0)
    assert (found - forward(bert, batch)).abs().max() > 1e-3


def test_a_replaced_state_is_a_pass_that_begins_behind_it():
    bert, other = toy(), toy(attention="eager")
    batch = pad_texts(bert, TEXTS)
    state = forward(other, batch, stop=2).flip(-1)
    found = forward(bert, batch, {(1, "state"): lambda _: state})
    torch.testing.assert_close(found, forward(bert, batch._replace(input=state), start=2), atol=1e-12, rtol=0)


def test_taps_that_the_pass_does_not_come_by_are_refused(refused):
    bert = toy()
    batch = pad_texts(bert, TEXTS)
    with refused("'hidden'", "attended, preactivation, intermediate, output, state"):
        forward(bert, batch, {(0, "hidden"): torch.clone})
    for block, stop in ((LAYERS, None), (-1, None), (1, 1)):
        with refused(f"block {block}", "from block 0"):
            forward(bert, batch, {(block, "state"): torch.clone}, stop=stop)


def test_another_kind_of_model_is_refused(refused):
    other = DistilBertModel(DistilBertConfig(vocab_size=60, dim=8, n_heads=2, n_layers=1, hidden_dim=8))
    with refused("DistilBertModel", "BertPreTrainedModel"):
        forward(other, pad_texts(other, TEXTS))


# batches


def test_masks_by_hand():
    least = torch.finfo(torch.float).min
    batch = pad_texts(toy(), [[2, 3], [2, 7, 3]])
    assert attention_mask(batch, torch.float).tolist() == [[[[0, 0, least]]], [[[0, 0, 0]]]]
    assert attention_mask(pad_texts(toy(), [[2, 3], [2, 3]]), torch.float) is None
    packed = pack([[2], [2, 3]], pad=0, width=4)
    assert packed.text.tolist() == [[1, 1, 0]]
    one, other = [0, 0, least], [least, least, 0]
    assert attention_mask(packed, torch.float).tolist() == [[[one, one, other]]]


def test_parts_and_repetitions_of_padded_rows():
    batch = pad_texts(toy(), [[2, 3], [2, 7, 3], [2, 8, 8, 3]], [1, 0, 2, 3], [0, 1, 1, 2])
    batch = batch._replace(piece=torch.tensor([10, 11, 12, 13]))
    part = batch.part([2, 1])
    assert part.text.tolist() == [[0, 0, 0, 0], [1, 1, 1, -1]]
    assert [field.tolist() for field in (part.row, part.place, part.piece)] == [[0, 1, 1], [3, 0, 2], [13, 11, 12]]
    once = pad_texts(toy(), [[2, 3], [2, 7, 3]])
    twice = once.repeated(2, torch.zeros(4, 3, 32))
    assert twice.text.tolist() == [[0, 0, -1], [1, 1, -1], [2, 2, 2], [3, 3, 3]]
    assert twice.row.tolist() == [0, 1, 2, 3]
    assert text_numbers(batch.inside).tolist() == batch.text.tolist()


# dropout


def drawn(bert: BertModel, packed: Batch, seed: int) -> Tensor:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        return forward(bert, packed)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_dropout_drops_in_training_mode_only(attention):
    bert, packed = toy(attention=attention, dropout=0.1), pack(TEXTS, pad=0)
    assert torch.equal(drawn(bert, packed, 0), drawn(bert, packed, 1))
    bert.train()
    first, again, other = (drawn(bert, packed, seed) for seed in (0, 0, 1))
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert (first - other).abs().amax(1).min() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        lambda block: block.attention.self.dropout,
        lambda block: block.attention.output.dropout,
        lambda block: block.output.dropout,
    ],
    ids=["attention", "after attention", "after the feed-forward"],
)
def test_each_dropout_of_the_last_block_acts(place: Callable):
    """The last block is computed by our own code; its average over draws is near the value without dropout."""
    bert, packed = toy(), pack(TEXTS, pad=0)
    calm = drawn(bert, packed, 0)
    bert.train()
    assert torch.equal(drawn(bert, packed, 0), calm)  # no dropout yet
    place(bert.encoder.layer[-1]).p = 0.05
    draws = [drawn(bert, packed, seed) for seed in range(50)]
    assert all((one - other).abs().max() > 1e-3 for one, other in pairwise(draws))
    spread = torch.stack(draws).std(0).mean()
    assert (torch.stack(draws).mean(0) - calm).abs().mean() < 0.5 * spread
