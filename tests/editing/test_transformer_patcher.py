"""New neurons in the last feed-forward, against their definition (H-D of the methods)."""

from dataclasses import replace
from math import e, exp

import numpy as np
import pytest
import torch

from dprlens.bert.cloze import cloze, mask_answers
from dprlens.bert.encoder import Encoder
from dprlens.editing.editors import sequentially, transformer_patcher
from dprlens.editing.editors.objective import blanks, copy_model, training_statements
from dprlens.editing.editors.transformer_patcher import (
    Patch,
    PatcherSpec,
    Told,
    TransformerPatcher,
    activation_loss,
    append_patch,
    clip_gradients,
    drawn_tokens,
    feed_forward_inputs,
    first_patch,
    memory_losses,
    neurons_for,
    no_patch,
    patches,
    readouts,
)

D_MODEL, D_FF, BLOCKS = 32, 64, 3  # of conftest's encoder
TEXTS = ["Where was she born?", "Wick", ("The Red Door", "It was shot in one summer.")]
LAST = f"bert.encoder.layer.{BLOCKS - 1}"
WIDER = {f"{LAST}.intermediate.dense.weight", f"{LAST}.intermediate.dense.bias", f"{LAST}.output.dense.weight"}
# random weights have nothing in common for two wordings of a fact, and this world's memory is small
ONCE = PatcherSpec(wordings=1, memory=100, memory_top=6, most_steps=200)
BRIEF = replace(ONCE, most_steps=10)  # too few for an answer to be said, enough to see what draws and data do


def lively(encoder: Encoder, dtype: torch.dtype = torch.float) -> Encoder:
    """The encoder with random weights so large that it is far from linear, and that texts differ."""
    model, generator = copy_model(encoder).to(dtype), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.copy_(0.2 * torch.randn(weights.shape, generator=generator))
    return Encoder(encoder.tokenizer, model, "cpu")


@pytest.fixture(scope="module")
def toy(encoder):
    return lively(encoder)


@pytest.fixture(scope="module")
def facts(world, toy):
    """A fact whose answer has one piece, one of two, another of one; the model knows none of them."""
    by_length = [
        [fact for fact in world.facts if len(mask_answers(toy, [fact.statements[0]])[1][0]) == length]
        for length in (1, 2)
    ]
    return [by_length[0][0], by_length[1][0], by_length[0][1]]


@pytest.fixture(scope="module")
def memory(world, facts):
    return [statement for fact in world.facts if fact not in facts for statement in training_statements(fact)]


@pytest.fixture(scope="module")
def patcher(memory):
    return TransformerPatcher(ONCE, memory, seed=5)


@pytest.fixture(scope="module")
def edited(patcher, toy, facts):
    return patcher.edit(toy, facts)


def said_right(encoder, facts) -> list[bool]:
    """Of each fact's first statement."""
    return [belief.recalled for belief in cloze(encoder, [fact.statements[0] for fact in facts])]


def random_patch(n: int, seed: int = 0, size: float = 1.0) -> Patch:
    generator = torch.Generator().manual_seed(seed)
    wide = [size * torch.randn(n, D_MODEL, generator=generator) for _ in range(3)]
    return Patch(wide[0], torch.randn(n, generator=generator), *wide[1:])


def hidden_states(model, ids) -> list[torch.Tensor]:
    """By layer [token, d_model], by transformers' own forward."""
    with torch.no_grad():
        return [state[0] for state in model.bert(torch.tensor([ids]), output_hidden_states=True).hidden_states]


# the neurons (H-D.1 … H-D.3, H-D.5)


@pytest.mark.parametrize("silent", ["v = 0", "bias"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float, 1e-5), (torch.double, 5e-14)])
def test_silent_neurons_change_nothing(encoder, silent, dtype, tolerance):
    encoder, patch = lively(encoder, dtype), random_patch(7)
    patch = patch._replace(scale=0 * patch.scale) if silent == "v = 0" else patch._replace(bias=patch.bias - 1e4)
    wide = append_patch(encoder.model, Patch(*(part.to(dtype) for part in patch)))
    ids = torch.tensor(encoder.token_ids(TEXTS[:1]))
    with torch.no_grad():
        torch.testing.assert_close(wide(ids).logits, encoder.model(ids).logits, atol=tolerance, rtol=0)


def test_neurons_do_what_their_equation_says(toy):
    patch = random_patch(5)
    ids = toy.token_ids(TEXTS[:1])[0]
    fed = []
    last = toy.bert.encoder.layer[-1]
    handle = last.intermediate.register_forward_hook(lambda _, inputs, __: fed.append(inputs[0][0]))
    hidden_states(toy.model, ids)
    handle.remove()
    with torch.no_grad():
        added = torch.nn.functional.gelu(fed[0] @ patch.key.T + patch.bias) @ (patch.direction * patch.scale)
        expected = last.output.LayerNorm(last.output.dense(last.intermediate(fed[0])) + added + fed[0])
    found = hidden_states(append_patch(toy.model, patch), ids)[-1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [3, 30])
def test_no_patch_reaches_the_states_below_the_last_block(toy, n):
    wide = append_patch(toy.model, random_patch(n, size=3.0))
    for ids in toy.token_ids(TEXTS):
        before, after = hidden_states(toy.model, ids), hidden_states(wide, ids)
        for layer in range(BLOCKS):
            assert torch.equal(before[layer], after[layer]), layer
        assert (before[BLOCKS] - after[BLOCKS]).abs().max() > 0.1


def test_the_last_layer_changes_only_where_a_neuron_fires(toy, memory):
    """A key along one token's input, so steep that GELU is 0 at all others."""
    given = blanks(toy, memory[:1], BLOCKS - 1)
    rows, token = feed_forward_inputs(toy.model, given)[0], 3
    along = rows @ rows[token]
    others = torch.arange(len(rows)) != token
    steep = 60 / (along[token] - along[others].max())
    patch = random_patch(1)._replace(key=steep * rows[None, token], bias=3 - steep * along[None, token])
    u = patch.reached(rows)[:, 0]
    assert u[token] == pytest.approx(3, abs=1e-3)
    assert u[others].max() < -50
    ids = mask_answers(toy, memory[:1])[0][0]
    change = (hidden_states(append_patch(toy.model, patch), ids)[-1] - hidden_states(toy.model, ids)[-1]).abs().amax(1)
    assert change[token] > 0.1
    assert change[others].max() < 1e-5


@pytest.mark.parametrize("wordings", [1, 3])
def test_a_new_neuron_begins_at_pre_activation_1(toy, facts, wordings):
    told = readouts(toy, [training_statements(fact)[:wordings] for fact in facts])
    reads = torch.tensor(neurons_for(told, torch.ones(len(told.rows), dtype=torch.bool)))
    assert reads.shape == (4, wordings)
    patch = first_patch(told.rows, reads, 10.0, np.random.default_rng(0))
    at_home = patch.reached(told.rows).T.gather(1, reads)
    torch.testing.assert_close(at_home.mean(1), torch.ones(4), atol=1e-5, rtol=0)
    assert torch.equal(patch.bias, torch.zeros(4))
    assert (patch.scale == 10).all()
    drawn = torch.tensor(np.random.default_rng(0).standard_normal((4, D_MODEL))).float()
    torch.testing.assert_close(patch.value, 10 * drawn)


def test_many_patches_widen_the_last_feed_forward_and_are_kept_on_disk(tmp_path, encoder):
    wide = Encoder(encoder.tokenizer, append_patch(encoder.model, random_patch(284)), "cpu")
    assert wide.bert.encoder.layer[-1].output.dense.weight.shape == (D_MODEL, D_FF + 284)
    assert [block.output.dense.in_features for block in wide.bert.encoder.layer[:-1]] == [D_FF] * (BLOCKS - 1)
    wide.save(tmp_path)
    loaded = Encoder.load(tmp_path, "cpu")
    assert patches(loaded.model.config) == 284
    ids = torch.tensor(encoder.token_ids(TEXTS[:1]))
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, wide.model(ids).logits)


def test_a_patch_joins_those_that_are_there(toy):
    first, second = random_patch(2, 1), random_patch(3, 2)
    twice, once = append_patch(append_patch(toy.model, first), second), append_patch(toy.model, first.joined(second))
    assert patches(twice.config) == patches(once.config) == 5
    assert patches(toy.model.config) == 0
    for name, weights in once.state_dict().items():
        assert torch.equal(twice.state_dict()[name], weights), name
    nothing = no_patch(first.key)
    assert all(torch.equal(one, other) for one, other in zip(nothing.joined(first), first, strict=True))


@pytest.mark.slow
def test_only_new_neurons_differ(toy, edited):
    before, after = toy.model.state_dict(), edited.model.state_dict()
    for name, weights in before.items():
        old = tuple(slice(size) for size in weights.shape)
        assert torch.equal(after[name][old], weights), name
        assert (after[name].shape != weights.shape) == (name in WIDER), name
    assert all(weights.grad is None for weights in (*toy.model.parameters(), *edited.model.parameters()))
    assert all(weights.requires_grad for weights in edited.model.parameters())  # DPR training goes on with all (D3)


def test_one_step_moves_keys_biases_and_values(toy, facts, memory):
    """Adam's first step is the learning rate in every weight: that of v = e ∘ s is about 10 times as large."""
    patcher = TransformerPatcher(replace(ONCE, most_steps=1, weight_decay=0.0), memory)
    last = patcher.edit(toy, facts[:1]).bert.encoder.layer[-1]
    told = readouts(toy, [training_statements(facts[0])[:1]])
    key = told.rows[0] / told.rows[0].square().sum()
    assert last.intermediate.dense.bias[D_FF].abs().item() == pytest.approx(0.01, rel=1e-4)
    moved = (last.intermediate.dense.weight[D_FF] - key).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.01), atol=1e-5, rtol=0)
    assert last.output.dense.weight[:, D_FF].norm().item() == pytest.approx(10 * D_MODEL**0.5, rel=0.5)


# the losses (H-D.4)


def test_losses_on_numbers_worked_by_hand():
    own, memory = torch.tensor([0.0, 1.0]), torch.tensor([-4.0, -2.0])
    assert activation_loss(own, 5).item() == pytest.approx((1 + 1 / e) / 2, abs=1e-6)
    apart, below = memory_losses(memory, own, 1000, 3.0)
    assert apart.item() == pytest.approx((exp(-1) + e + exp(-2) + 1) / 4, abs=1e-6)
    assert below.item() == pytest.approx((1 / e + e) / 2, abs=1e-6)


@pytest.mark.parametrize(("k", "expected"), [(1, 1.0), (2, (1 + 1 / e) / 2)])
def test_only_the_weakest_readouts_count(k, expected):
    assert activation_loss(torch.tensor([2.0, 0.0, 1.0]), k).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [1, 3, 7, 100])
@pytest.mark.parametrize("margin", [3.0, 6.0])
def test_memory_losses_are_those_of_all_pairs_sorted(k, margin):
    generator = torch.Generator().manual_seed(k)
    memory, own = torch.randn(4, 9, generator=generator), torch.randn(4, 3, generator=generator)
    apart, below = memory_losses(memory, own, k, margin)
    for neuron in range(4):
        pairs = sorted((float(m - a) for m in memory[neuron] for a in own[neuron]), reverse=True)[:k]
        rows = sorted(memory[neuron].tolist(), reverse=True)[:k]
        assert apart[neuron].item() == pytest.approx(np.mean(np.exp(np.array(pairs) + margin)), rel=1e-5)
        assert below[neuron].item() == pytest.approx(np.mean(np.exp(np.array(rows) + margin)), rel=1e-5)


def test_gradients_are_shortened_neuron_by_neuron():
    wide = torch.tensor([[3.0, 0.0], [0.3, 0.0], [0.0, 0.0]])
    bias = torch.tensor([4.0, 0.4, 0.0])
    shortened = clip_gradients([wide, bias], 2.5)  # lengths 5, 0.5 and 0
    torch.testing.assert_close(shortened[0], torch.tensor([[1.5, 0.0], [0.3, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(shortened[1], torch.tensor([2.0, 0.4, 0.0]))


# which neurons, which memory


def of_pieces(fact, order) -> Told:
    return Told(None, torch.zeros(len(fact), 2), torch.tensor(fact), torch.tensor(order))


def test_a_neuron_for_each_piece_that_is_wrong_somewhere():
    """Fact 0 in two statements of two pieces, fact 1 in one of three pieces, of which the second is right."""
    told = of_pieces([0, 0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1, 2])
    wrong = torch.tensor([False, False, True, False, True, False, True])
    assert neurons_for(told, wrong) == [[0, 2], [4, 4], [6, 6]]
    assert neurons_for(told, torch.zeros(7, dtype=torch.bool)) == []


def test_no_fact_gets_more_than_five():
    told = of_pieces([0] * 7 + [1] * 2 + [2] * 6, [*range(7), *range(2), *range(6)])
    found = neurons_for(told, torch.ones(15, dtype=torch.bool))
    assert found == [[mask] for mask in (0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13)]


def test_readouts_are_the_masks_of_the_statements(toy, facts):
    told = readouts(
        toy, [training_statements(facts[0])[:2], training_statements(facts[1])[:1], training_statements(facts[2])[:1]]
    )
    assert told.fact.tolist() == [0, 0, 1, 1, 2]
    assert told.order.tolist() == [0, 0, 0, 1, 0]
    masked, places, _ = mask_answers(toy, [facts[1].statements[0]])
    fed = []
    handle = toy.bert.encoder.layer[-1].intermediate.register_forward_hook(lambda _, rows, __: fed.append(rows[0][0]))
    hidden_states(toy.model, masked[0])
    handle.remove()
    torch.testing.assert_close(told.rows[2:4], fed[0][places[0]], atol=1e-5, rtol=0)


def test_memory_is_drawn_at_masks_at_cls_and_at_other_tokens(toy, memory):
    given = blanks(toy, memory[:200], 0)
    masked = torch.zeros_like(given.inside)
    masked[given.row, given.place] = True
    mask, cls, other = (token.tolist() for token in drawn_tokens(given, np.random.default_rng(0)))
    assert set(cls) == {0}
    for row in range(200):
        assert masked[row, mask[row]]
        assert given.inside[row, other[row]]
        assert not masked[row, other[row]]
        assert other[row] > 0
    assert len(set(other)) > 5


# editing (H-D.6 and the contract of editors)


@pytest.mark.slow
def test_one_fact_is_said_and_others_left_alone(toy, memory, facts):
    """With 1,000 rows of memory, at least 99 % of what is said there is the same as before."""
    kept = memory[::6][:334]
    edited = TransformerPatcher(PatcherSpec(wordings=1, most_steps=200), kept).edit(toy, facts[:1])
    assert said_right(toy, facts[:1]) == [False]
    assert said_right(edited, facts[:1]) == [True]
    before, after = cloze(toy, kept), cloze(edited, kept)
    assert np.mean([b.said == a.said for b, a in zip(before, after, strict=True)]) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("sequential", [False, True])
def test_several_facts_are_said_by_a_neuron_for_each_piece(toy, memory, facts, sequential):
    edited = TransformerPatcher(replace(ONCE, sequential=sequential), memory).edit(toy, facts)
    assert said_right(toy, facts) == [False] * 3
    assert said_right(edited, facts) == [True] * 3
    assert patches(edited.model.config) == 4  # the second answer has two pieces


@pytest.mark.slow
def test_neurons_stay_clear_of_the_masks_of_other_facts(toy, memory, facts):
    """By about the margin, where the memory is small enough for a key of 32 weights to stay clear of it as well."""
    edited = TransformerPatcher(ONCE, memory[:10]).edit(toy, facts)
    told = readouts(toy, [training_statements(fact)[:1] for fact in facts])
    with torch.no_grad():  # [mask, neuron]: with one wording, neuron i is that of mask i
        u = edited.bert.encoder.layer[-1].intermediate.dense(told.rows)[:, D_FF:]
    others = u.masked_fill(told.fact[:, None] == told.fact, -torch.inf).amax(0)
    assert others.max() < -ONCE.margin
    assert (u.diagonal() - others).min() > ONCE.margin - 0.5


@pytest.mark.slow
def test_all_given_wordings_are_told(toy, memory, facts):
    """A piece's one neuron fires at its masks in several statements."""
    several = replace(ONCE, wordings=2)
    edited = TransformerPatcher(several, memory).edit(toy, facts[:1])
    assert patches(edited.model.config) == 1
    assert all(belief.recalled for belief in cloze(edited, training_statements(facts[0])[:2]))


def test_the_encoder_stays_as_it_was(toy, memory, facts):
    digest, generator = Encoder(toy.tokenizer, toy.model, "cpu").digest, torch.random.get_rng_state()
    one, again = (TransformerPatcher(BRIEF, memory, seed=5).edit(toy, facts) for _ in range(2))
    assert again.digest == one.digest != digest
    assert Encoder(toy.tokenizer, toy.model, "cpu").digest == digest
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert patches(toy.model.config) == 0


def test_another_seed_draws_another_patch(toy, memory, facts):
    one, other = (TransformerPatcher(BRIEF, memory, seed).edit(toy, facts) for seed in (5, 6))
    assert one.digest != other.digest


def test_no_facts_no_change(toy, patcher):
    assert patcher.edit(toy, []).digest == Encoder(toy.tokenizer, toy.model, "cpu").digest


def test_what_is_known_gets_no_neuron(patcher, facts, edited):
    assert patcher.edit(edited, facts[::-1]).digest == edited.digest


def test_a_repeated_fact_is_told_once(toy, memory, facts):
    brief = TransformerPatcher(BRIEF, memory)
    assert brief.edit(toy, [facts[0], facts[0], *facts]).digest == brief.edit(toy, facts).digest


def test_contradictions_are_refused(refused, patcher, toy, facts):
    false = facts[0]._replace(object=facts[0].alternatives[0])
    with refused("cannot have both", repr(facts[0].object)):
        patcher.edit(toy, [facts[0], false])


def test_without_a_head_nothing_can_be_told(refused, patcher, toy, facts):
    with refused("head"):
        patcher.edit(Encoder(toy.tokenizer, toy.bert, "cpu"), facts)


@pytest.mark.parametrize("statements", [0, 1])
def test_a_memory_that_cannot_be_divided_is_refused(refused, memory, statements):
    with refused(f"{statements} statements", "2 or more"):
        TransformerPatcher(ONCE, memory[:statements])


@pytest.mark.slow
def test_an_edited_encoder_can_be_edited_and_saved(tmp_path, toy, patcher, facts):
    """What was added in an earlier call stays, but is no memory in this one."""
    stepwise = sequentially(patcher, toy, facts[:2])
    assert said_right(stepwise, facts[1:2]) == [True]
    assert patches(stepwise.model.config) == 3
    first = patcher.edit(toy, facts[:1]).model.state_dict()
    for name in WIDER:
        old = tuple(slice(size) for size in first[name].shape)
        assert torch.equal(stepwise.model.state_dict()[name][old], first[name]), name
    stepwise.save(tmp_path)
    loaded = Encoder.load(tmp_path, "cpu")
    assert loaded.digest == stepwise.digest
    masked, places, _ = mask_answers(toy, [fact.statements[0] for fact in facts])
    both = (torch.cat(encoder.mask_logits(masked, places)) for encoder in (loaded, stepwise))
    assert torch.equal(*both)


def watched(monkeypatch) -> list[tuple[int, int]]:
    """Rows of the two memories at each training, as it comes."""
    seen, learned = [], transformer_patcher._Task.learned

    def watching(task, memory, checked, *rest):
        seen.append((len(memory), len(checked)))
        return learned(task, memory, checked, *rest)

    monkeypatch.setattr(transformer_patcher._Task, "learned", watching)
    return seen


def test_each_fact_told_joins_the_memory(monkeypatch, toy, memory, facts):
    seen = watched(monkeypatch)
    spec = replace(ONCE, sequential=True, memory=100, most_steps=1)
    TransformerPatcher(spec, memory).edit(toy, facts)
    assert seen == [(240, 60), (241, 61), (243, 63)]  # 80 and 20 statements of three rows; then one mask, two masks


def steps_of(monkeypatch, patcher, toy, facts) -> int:
    """How many steps training takes."""
    taken = []

    def counting(steps, _):
        for step in steps:
            taken.append(step)
            yield step

    monkeypatch.setattr(transformer_patcher, "progress", counting)
    patcher.edit(toy, facts)
    return len(taken)


@pytest.mark.slow
def test_training_ends_when_the_memory_gets_no_better(monkeypatch, toy, memory, facts):
    patcher = TransformerPatcher(replace(ONCE, most_steps=400), memory, seed=5)
    steps = steps_of(monkeypatch, patcher, toy, facts[:1])
    assert 100 < steps < 400
    assert steps % 25 == 0
    monkeypatch.setattr(transformer_patcher, "BETTER", -float("inf"))
    assert steps_of(monkeypatch, patcher, toy, facts[:1]) == 400


@pytest.mark.slow
def test_training_does_not_end_while_an_answer_is_wrong(monkeypatch, toy, memory, facts):
    """With next to no learning the answer stays wrong, and the memory loss the same."""
    slow = TransformerPatcher(replace(ONCE, learning_rate=1e-9, most_steps=150), memory)
    assert steps_of(monkeypatch, slow, toy, facts[:1]) == 150


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("wordings", 0),
        ("memory", 1),
        ("memory_top", 0),
        ("activation_top", 0),
        ("most_steps", 0),
        ("check_every", 0),
        ("margin", -3.0),
        ("margin", float("nan")),
        ("memory_weight", -1.0),
        ("amplify", 0.0),
        ("learning_rate", 0.0),
        ("clip", float("inf")),
        ("plateau", 1.0),
    ],
)
def test_specs_that_make_no_sense_are_refused(refused, field, value):
    with refused(f"{field} = {value}".removesuffix(".0"), "give"):
        PatcherSpec(**{field: value})
