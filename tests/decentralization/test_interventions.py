"""Neurons silenced, doubled and replaced, against hooks on transformers' own forward."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from dprlens.bert.encoder import Encoder, EncoderSpec, random_bert
from dprlens.decentralization.interventions import (
    KINDS,
    PATCHES,
    chosen,
    first_lost,
    patch_block,
    places_in_line,
    scale_neurons,
)

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
    torch.testing.assert_close(scale_neurons(pair[0], TEXTS, ones()), pair[0].cls(TEXTS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [0, 2])
@pytest.mark.parametrize(("block", "neuron"), [(0, 3), (1, 63), (1, 64), (2, 90)])
def test_a_factor_is_that_of_a_hook_at_cls(pair, block, neuron, factor):
    factors = ones()
    factors[1, block, neuron] = factor
    found = scale_neurons(pair[0], TEXTS, factors)
    module = layer(pair[0], block).intermediate if neuron < D_FF else layer(pair[0], block).output.dense

    def change(out: Tensor) -> Tensor:
        out = out.clone()
        out[:, 0, neuron % D_FF] *= factor
        return out

    torch.testing.assert_close(found[1], hooked(pair[0], TEXTS[1], (module, change)), atol=1e-5, rtol=0)
    plain = pair[0].cls(TEXTS)
    assert (found[1] - plain[1]).abs().max() > 1e-4
    torch.testing.assert_close(found[[0, 2]], plain[[0, 2]], atol=1e-5, rtol=0)


# in double precision, where only the result is rounded to single, with biases that are large as well


LIVELY = 1e-6  # of vectors whose entries reach 4
MIXED = [
    "Which river flows through the city where she was born, in one summer?",
    "A city.",
    ("A river", "The river flows through a city in one summer."),
    "Where was she born?",
]


@pytest.fixture(scope="module")
def lively(tokenizer) -> tuple[Encoder, Encoder]:
    shape = EncoderSpec(layers=BLOCKS, d_model=D_MODEL, d_ff=D_FF, heads=2, max_length=40)
    encoders = []
    for seed in (3, 4):
        model, generator = random_bert(tokenizer, shape, seed).double(), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if "LayerNorm" not in name:
                    weights.copy_(0.3 * torch.randn(weights.shape, generator=generator, dtype=torch.double))
        encoders.append(Encoder(tokenizer, model, "cpu"))
    return tuple(encoders)


def plain(encoder: Encoder, texts: list) -> Tensor:
    return torch.stack([hooked(encoder, text) for text in texts]).float()


def random_factors(texts: int) -> np.ndarray:
    return np.random.default_rng(1).choice([0.0, 0.5, 1, 2, -1], size=(texts, BLOCKS, D_FF + D_MODEL))


def test_factors_at_all_neurons_of_all_blocks_are_hooks_in_all_of_them(lively):
    factors = random_factors(len(MIXED))
    found = scale_neurons(lively[0], MIXED, factors)
    for text, own, vector in zip(MIXED, torch.tensor(factors), found, strict=True):
        hooks = []
        for block in range(BLOCKS):
            for module, part in (
                (layer(lively[0], block).intermediate, own[block, :D_FF]),
                (layer(lively[0], block).output.dense, own[block, D_FF:]),
            ):
                hooks.append((module, lambda out, part=part: torch.cat([out[:, :1] * part, out[:, 1:]], dim=1)))
        torch.testing.assert_close(vector, hooked(lively[0], text, *hooks).float(), atol=LIVELY, rtol=0)
    assert ((found - plain(lively[0], MIXED)).abs().amax(1) > 0.1).all()


def test_factors_of_one_give_the_plain_vectors_and_leave_the_model_alone(lively):
    before = plain(lively[0], MIXED)
    scale_neurons(lively[0], MIXED, np.zeros((len(MIXED), BLOCKS, D_FF + D_MODEL)))
    torch.testing.assert_close(plain(lively[0], MIXED), before, atol=0, rtol=0)
    found = scale_neurons(lively[0], MIXED, np.ones((len(MIXED), BLOCKS, D_FF + D_MODEL)))
    torch.testing.assert_close(found, before, atol=LIVELY, rtol=0)
    torch.testing.assert_close(found, lively[0].cls(MIXED), atol=LIVELY, rtol=0)


@pytest.mark.parametrize("room", [1, 24, 4096])  # each text alone, the two short ones together, all together
def test_company_does_not_matter(lively, monkeypatch, room):
    factors = random_factors(len(MIXED))
    alone = torch.cat([scale_neurons(lively[0], [text], factors[i : i + 1]) for i, text in enumerate(MIXED)])
    patches = {what: torch.cat([patch_block(*lively, [text], 1, what) for text in MIXED]) for what in PATCHES}
    monkeypatch.setattr("dprlens.decentralization.interventions.ROOM", room)
    torch.testing.assert_close(scale_neurons(lively[0], MIXED, factors), alone, atol=LIVELY, rtol=0)
    for what, expected in patches.items():
        torch.testing.assert_close(patch_block(*lively, MIXED, 1, what), expected, atol=LIVELY, rtol=0)
    order = [2, 0, 3, 1]
    turned = scale_neurons(lively[0], [MIXED[i] for i in order], factors[order])
    torch.testing.assert_close(turned, alone[order], atol=LIVELY, rtol=0)
    assert torch.pdist(alone).min() > 0.1


def test_no_text_gives_no_vector(lively):
    assert scale_neurons(lively[0], [], np.ones((0, BLOCKS, D_FF + D_MODEL))).shape == (0, D_MODEL)
    assert patch_block(*lively, [], 0, "state").shape == (0, D_MODEL)


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


def test_the_top_go_by_sign_and_the_bottom_by_size():
    scores = np.array([[[-9.0, 5, 0.5, -0.1], [4.0, -7, -0.2, 0.3]]])
    assert chosen(scores, 2, "top").tolist() == [[[False, True, False, False], [True, False, False, False]]]
    assert chosen(scores, 2, "bottom").tolist() == [[[False, False, False, True], [False, False, True, False]]]
    assert chosen(scores, 3, "top")[0, 0].tolist() == [False, True, True, False]  # 5, 4, 0.5


@pytest.mark.parametrize("k", [0, 1, 17, 60])
@pytest.mark.parametrize("kind", KINDS)
def test_every_example_gets_k_neurons_or_what_its_blocks_have(k, kind):
    before = SCORES.copy()
    top, mask = chosen(SCORES, k, "top"), chosen(SCORES, k, kind)
    assert (top.sum((1, 2)) == k).all()
    assert mask.shape == SCORES.shape
    assert mask.dtype == bool
    expected = top.sum(2) if kind == "top" else np.minimum(top.sum(2), 40 - top.sum(2))
    assert (mask.sum(2) == expected).all()
    assert (before == SCORES).all()
    for e, scores in enumerate(SCORES):
        assert set(scores[top[e]]) == set(sorted(scores.ravel())[120 - k :])


@pytest.mark.parametrize("kind", ["random", "bottom"])
def test_a_block_with_fewer_others_than_top_ones_gives_what_it_has(kind):
    scores = np.array([[[8.0, 7, 6, 1], [5.0, 0, 0, 0]]])  # three of the top four in the first block, one left over
    assert chosen(scores, 4, "top").sum(2).tolist() == [[3, 1]]
    mask = chosen(scores, 4, kind)
    assert mask[0, 0].tolist() == [False, False, False, True]
    assert mask[0, 1].sum() == 1
    assert not mask[0, 1, 0]


def test_every_other_neuron_of_a_block_is_drawn_equally_often():
    scores = np.tile(np.arange(24.0).reshape(1, 2, 12), (300, 1, 1))
    scores[:, 0, :2] += 100  # two of the top three in the first block
    top = chosen(scores, 3, "top")
    assert top[0].sum(1).tolist() == [2, 1]
    times = sum(chosen(scores, 3, "random", seed=seed).sum(0) for seed in range(4))
    for block, many, others in ((0, 2, 10), (1, 1, 11)):
        p = many / others
        drawn = times[block][~top[0, block]]
        assert drawn.sum() == 1200 * many
        assert (np.abs(drawn - 1200 * p) < 4.5 * np.sqrt(1200 * p * (1 - p))).all()


def test_a_kind_or_a_number_that_is_not_there_is_refused_in_a_sentence(refused):
    with refused("'Top'", "top, random, bottom"):
        chosen(SCORES, 1, "Top")
    for kind in KINDS:
        with refused("k = 61", "0 to 60"):
            chosen(SCORES, 61, kind)


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
    assert first_lost(found, [1, 2, 4]).tolist() == [0, 1, 4, np.inf, 1]
    with pytest.raises(ValueError, match="4 rows for 2 steps"):
        first_lost(found, [1, 2])


def test_the_first_loss_is_that_of_a_loop():
    found, steps = np.random.default_rng(2).random((5, 200)) < 0.7, [1, 3, 10, 30]
    expected = []
    for there, *later in found.T:
        count = 0
        if there:
            count = np.inf
            for step, still in zip(steps, later, strict=True):
                if not still:
                    count = step
                    break
        expected.append(count)
    assert first_lost(found, steps).tolist() == expected
    assert set(expected) == {0, 1, 3, 10, 30, np.inf}


def test_one_step_is_enough_and_rows_must_fit(refused):
    table = np.array([[1, 1, 0], [0, 1, 0]], bool)
    assert first_lost(table, [5]).tolist() == [5, np.inf, 0]
    for steps in ([5, 6], [1, 2, 3]):
        with refused(f"2 rows for {len(steps)} steps", "one row more"):
            first_lost(table, steps)


def test_places_count_those_that_stand_before():
    keys = np.random.default_rng(3).integers(0, 6, size=(7, 15))  # many alike: the first stays first
    for row, places in zip(keys.tolist(), places_in_line(keys).tolist(), strict=True):
        assert places == [sum((other, j) < (key, i) for j, other in enumerate(row)) for i, key in enumerate(row)]
    assert places_in_line(np.array([[5.0, -np.inf, 0.0], [0, 1, 2]])).tolist() == [[2, 0, 1], [0, 1, 2]]


def test_places_in_line():
    assert places_in_line(np.array([[3.0, 1.0, 2.0, 1.0]])).tolist() == [[3, 0, 2, 1]]


@pytest.mark.parametrize("what", ["state", "cls", "feed-forward"])
@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_patch_from_oneself_changes_nothing(pair, block, what):
    found = patch_block(pair[0], pair[0], TEXTS, block, what)
    torch.testing.assert_close(found, pair[0].cls(TEXTS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_patch_is_that_of_a_hook(pair, block):
    into, other = pair
    kept: dict[str, Tensor] = {}

    def keep(name: str):
        return lambda out: kept.__setitem__(name, out.clone())

    for what in ("state", "cls", "feed-forward"):
        found = patch_block(into, other, TEXTS, block, what)
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
    last = patch_block(into, other, TEXTS, BLOCKS - 1, "state")
    torch.testing.assert_close(last, other.cls(TEXTS), atol=1e-5, rtol=0)
    assert (patch_block(into, other, TEXTS, 0, "cls") - into.cls(TEXTS)).abs().max() > 1e-3


@pytest.mark.parametrize("what", PATCHES)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_lively_patch_from_oneself_changes_nothing(lively, block, what):
    for one in lively:
        torch.testing.assert_close(patch_block(one, one, MIXED, block, what), plain(one, MIXED), atol=LIVELY, rtol=0)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_patched_state_is_a_model_of_the_others_lower_and_ones_own_upper_blocks(lively, block):
    into, other = lively
    joined = Encoder(into.tokenizer, copy.deepcopy(other.model), "cpu")
    for i in range(block + 1, BLOCKS):
        joined.bert.encoder.layer[i] = into.bert.encoder.layer[i]
    found = patch_block(into, other, MIXED, block, "state")
    torch.testing.assert_close(found, plain(joined, MIXED), atol=LIVELY, rtol=0)
    assert ((found - plain(into, MIXED)).abs().amax(1) > 0.1).all()
    same = torch.allclose(found, plain(other, MIXED), atol=LIVELY, rtol=0)
    assert same == (block == BLOCKS - 1)


@pytest.mark.parametrize("block", range(BLOCKS))
@pytest.mark.parametrize("what", ["cls", "feed-forward"])
def test_a_lively_patch_is_that_of_a_hook(lively, block, what):
    into, other = lively
    found = patch_block(into, other, MIXED, block, what)
    for text, vector in zip(MIXED, found, strict=True):
        kept: list[Tensor] = []
        modules = [layer(one, block) if what == "cls" else layer(one, block).output.dense for one in (other, into)]
        hooked(other, text, (modules[0], kept.append))

        def change(out: Tensor, theirs: Tensor = kept[0]) -> Tensor:
            return torch.cat([theirs[:, :1], out[:, 1:] if what == "cls" else theirs[:, 1:]], dim=1)

        torch.testing.assert_close(vector, hooked(into, text, (modules[1], change)).float(), atol=LIVELY, rtol=0)


def test_kinds_of_patches_differ_but_for_the_state_of_the_last_block(lively):
    """Of the last block only [CLS] is read: its state there is all its state."""
    for block in range(BLOCKS):
        found = torch.stack([patch_block(*lively, MIXED, block, what) for what in PATCHES])
        if block == BLOCKS - 1:
            torch.testing.assert_close(found[0], found[1], atol=LIVELY, rtol=0)
        else:
            assert (found[0] - found[1]).abs().max() > 0.1
        assert (found[0] - found[2]).abs().max() > 0.1


def test_patches_of_blocks_that_are_not_there_are_refused_in_a_sentence(lively, refused):
    for block in (-1, BLOCKS):
        for what in PATCHES:
            with refused(f"block {block} is out of range", "0 to 2"):
                patch_block(*lively, MIXED, block, what)
    with refused("'CLS'", "state, cls, feed-forward"):
        patch_block(*lively, MIXED, 0, "CLS")


def test_a_block_that_only_the_other_lacks_is_refused_as_well(lively, tokenizer, refused):
    # block 2 is silently its block 1, where the docstring promises a ValueError for a block that is not there.
    shape = EncoderSpec(layers=BLOCKS - 1, d_model=D_MODEL, d_ff=D_FF, heads=2, max_length=40)
    shorter = Encoder(tokenizer, random_bert(tokenizer, shape, 5).double(), "cpu")
    with refused(f"block {BLOCKS - 1} is out of range"):
        patch_block(lively[0], shorter, MIXED, BLOCKS - 1, "state")


def test_wrong_patches_are_refused(pair):
    with pytest.raises(ValueError, match="block 3 is out of range: these encoders have blocks 0 to 2"):
        patch_block(*pair, TEXTS, 3, "state")
    with pytest.raises(ValueError, match="what = 'attention' is not known"):
        patch_block(*pair, TEXTS, 0, "attention")
