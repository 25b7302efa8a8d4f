"""Neurons silenced, doubled and replaced, against hooks on transformers' own forward."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dprlens.encoder import Encoder, EncoderSpec, random_bert
from dprlens.interventions import chosen, first_lost, patched, places_in_line, scaled

TEXTS = ["Where was she born?", "A city.", "Which river flows through the city where she was born, in one summer?"]
BLOCKS, D_MODEL, D_FF = 3, 32, 64


@pytest.fixture(scope="module")
def pair(tokenizer) -> tuple[Encoder, Encoder]:
    """Two lively encoders, in single precision."""
    shape = EncoderSpec(layers=BLOCKS, d_model=D_MODEL, d_ff=D_FF, heads=2, max_length=40)
    encoders = []
    for seed in (1, 2):
        model, generator = random_bert(tokenizer, shape, seed), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in model.parameters():
                if weights.dim() > 1:
                    weights.copy_(0.25 * torch.randn(weights.shape, generator=generator))
        encoders.append(Encoder(tokenizer, model, "cpu"))
    return tuple(encoders)


def hooked(encoder: Encoder, text: str, *hooks: tuple[torch.nn.Module, object]) -> Tensor:
    """[CLS] after a forward in which each (module, change) has its output changed."""
    handles = [module.register_forward_hook(lambda _m, _i, out, c=change: c(out)) for module, change in hooks]
    try:
        with torch.no_grad():
            return encoder.bert(torch.tensor(encoder.token_ids([text]))).last_hidden_state[0, 0]
    finally:
        for handle in handles:
            handle.remove()


def layer(encoder: Encoder, block: int) -> torch.nn.Module:
    return encoder.bert.encoder.layer[block]


def ones() -> np.ndarray:
    return np.ones((len(TEXTS), BLOCKS, D_FF + D_MODEL), np.float32)


def test_factors_of_one_change_nothing(pair):
    torch.testing.assert_close(scaled(pair[0], TEXTS, ones()), pair[0].cls(TEXTS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [0, 2])
@pytest.mark.parametrize(("block", "neuron"), [(0, 3), (1, 63), (1, 64), (2, 90)])
def test_a_factor_is_that_of_a_hook_at_cls(pair, block, neuron, factor):
    factors = ones()
    factors[1, block, neuron] = factor
    found = scaled(pair[0], TEXTS, factors)
    module = layer(pair[0], block).intermediate if neuron < D_FF else layer(pair[0], block).output.dense

    def change(out: Tensor) -> Tensor:
        out = out.clone()
        out[:, 0, neuron % D_FF] *= factor
        return out

    torch.testing.assert_close(found[1], hooked(pair[0], TEXTS[1], (module, change)), atol=1e-5, rtol=0)
    plain = pair[0].cls(TEXTS)
    assert (found[1] - plain[1]).abs().max() > 1e-4
    torch.testing.assert_close(found[[0, 2]], plain[[0, 2]], atol=1e-5, rtol=0)


SCORES = np.random.default_rng(0).normal(size=(4, 3, 40))


def test_the_top_are_the_greatest():
    mask = chosen(SCORES, 6, "top")
    for scores, own in zip(SCORES, mask, strict=True):
        assert own.sum() == 6
        assert scores[own].min() > scores[~own].max()


@pytest.mark.parametrize("kind", ["random", "bottom"])
def test_the_others_are_as_many_of_each_block(kind):
    top, mask = chosen(SCORES, 6, "top"), chosen(SCORES, 6, kind, seed=3)
    assert (mask.sum(2) == top.sum(2)).all()
    assert not (mask & top).any()
    assert (chosen(SCORES, 6, kind, seed=3) == mask).all()
    assert (chosen(SCORES, 6, kind, seed=4) != mask).any() == (kind == "random")


def test_the_bottom_are_the_smallest_in_size():
    top, mask = chosen(SCORES, 6, "top"), chosen(SCORES, 6, "bottom")
    for e, b in np.ndindex(4, 3):
        if mask[e, b].any():
            sizes = np.abs(SCORES[e, b])
            assert sizes[mask[e, b]].max() < sizes[~mask[e, b] & ~top[e, b]].min()


def test_wrong_choices_are_refused():
    assert not chosen(SCORES, 0, "random").any()
    for k in (-1, 61):
        with pytest.raises(ValueError, match=f"k = {k} neurons: give 0 to 60"):
            chosen(SCORES, k, "top")
    with pytest.raises(ValueError, match="kind = 'worst' is not known"):
        chosen(SCORES, 1, "worst")


def test_what_is_lost_and_when():
    found = np.array(
        [  # never there, lost at first, lost at last, survives, found again
            [0, 1, 1, 1, 1],
            [1, 0, 1, 1, 0],
            [1, 0, 1, 1, 1],
            [1, 0, 0, 1, 1],
        ],
        bool,
    )
    assert first_lost(found, [1, 2, 4]).tolist() == [0, 1, 4, 8, 1]
    with pytest.raises(ValueError, match="4 rows for 2 steps"):
        first_lost(found, [1, 2])


def test_places_in_line():
    assert places_in_line(np.array([[3.0, 1.0, 2.0, 1.0]])).tolist() == [[3, 0, 2, 1]]


@pytest.mark.parametrize("what", ["state", "cls", "feed-forward"])
@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_patch_from_oneself_changes_nothing(pair, block, what):
    found = patched(pair[0], pair[0], TEXTS, block, what)
    torch.testing.assert_close(found, pair[0].cls(TEXTS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_patch_is_that_of_a_hook(pair, block):
    into, other = pair
    kept: dict[str, Tensor] = {}

    def keep(name: str):
        return lambda out: kept.__setitem__(name, out.clone())

    for what in ("state", "cls", "feed-forward"):
        found = patched(into, other, TEXTS, block, what)
        for text, vector in zip(TEXTS, found, strict=True):
            source = layer(other, block) if what != "feed-forward" else layer(other, block).output.dense
            hooked(other, text, (source, keep("theirs")))
            target = layer(into, block) if what != "feed-forward" else layer(into, block).output.dense
            theirs = kept["theirs"]
            if what == "cls":
                change = lambda out, theirs=theirs: torch.cat([theirs[:, :1], out[:, 1:]], dim=1)  # noqa: E731
            else:
                change = lambda out, theirs=theirs: theirs  # noqa: ARG005, E731
            torch.testing.assert_close(vector, hooked(into, text, (target, change)), atol=1e-5, rtol=0)
    last = patched(into, other, TEXTS, BLOCKS - 1, "state")
    torch.testing.assert_close(last, other.cls(TEXTS), atol=1e-5, rtol=0)
    assert (patched(into, other, TEXTS, 0, "cls") - into.cls(TEXTS)).abs().max() > 1e-3


def test_wrong_patches_are_refused(pair):
    with pytest.raises(ValueError, match="block 3 is out of range: these encoders have blocks 0 to 2"):
        patched(*pair, TEXTS, 3, "state")
    with pytest.raises(ValueError, match="what = 'attention' is not known"):
        patched(*pair, TEXTS, 0, "attention")
