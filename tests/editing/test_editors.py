"""The contract of all editors, null arms included; the baselines and null arms themselves."""

import numpy as np
import pytest
import torch

from dprlens.bert import cloze
from dprlens.bert.encoder import Encoder
from dprlens.editing.editors import (
    EDITORS,
    HYPERNETWORKS,
    EditorSpecs,
    FinetuningSpec,
    MalmenSpec,
    Material,
    MendSpec,
    Nothing,
    PatcherSpec,
    RandomChange,
    RehearsalSpec,
    Unrelated,
    sequentially,
)
from dprlens.editing.editors.finetuning import Finetuning, Rehearsal
from dprlens.editing.protocol import with_object

SMALL = {"blocks": 1, "rank": 2, "batch": 3, "told": 1, "rephrasings": 1, "kept": 4, "steps": 2, "validate_every": 1}
SPECS = EditorSpecs(
    transformer_patcher=PatcherSpec(memory=20, memory_top=5, most_steps=4, first_check=2, check_every=2, wordings=2),
    malmen=MalmenSpec(**SMALL),
    mend=MendSpec(**SMALL),
    finetuning=FinetuningSpec(epochs=2, batch=16, bound=0.02, learning_rate=5e-3),
    rehearsal=RehearsalSpec(times=4, batch=8, learning_rate=1e-2),
    relearning=RehearsalSpec(times=4, batch=8, learning_rate=None),
)
NULLS = {
    "unrelated": lambda editor, others: Unrelated(editor, others),
    "random": lambda editor, _: RandomChange(editor, seed=3),
}
CHANGING = [name for name in EDITORS if name != "nothing"]


@pytest.fixture(scope="module")
def held_out(world):
    return [fact for fact in world.facts if world.held_out(fact.id)]


@pytest.fixture(scope="module")
def material(world, text):
    known = [fact for fact in world.facts if world.state(fact.id) == "known"]
    practice = [with_object(fact, fact.alternatives[0]) for fact in known[:30] if fact.alternatives]
    kept = [statement for fact in known[30:60] for statement in fact.statements]
    return Material(tuple(practice), tuple(kept), tuple(text))


@pytest.fixture(scope="module")
def editors(encoder, material, held_out):
    """Every editor, and both null arms of one."""
    made = {name: make(getattr(SPECS, name), material, encoder, 5) for name, make in EDITORS.items()}
    return made | {name: null(made["finetuning"], held_out[6:]) for name, null in NULLS.items()}


ALL = [*EDITORS, *NULLS]


@pytest.mark.parametrize("name", ALL)
def test_the_encoder_given_stays_bit_for_bit_what_it_was(name, editors, encoder, held_out):
    before = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    edited = editors[name].edit(encoder, held_out[:3])
    after = encoder.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not encoder.model.training
    assert isinstance(edited, Encoder)
    ours = {p.data_ptr() for p in encoder.model.parameters()}
    assert not any(p.data_ptr() in ours for p in edited.model.parameters()), "weights are shared with the original"
    assert all(p.requires_grad for p in edited.model.parameters()), "DPR training must reach every weight"
    assert not edited.model.training


@pytest.mark.parametrize("name", ALL)
def test_no_facts_no_change(name, editors, encoder):
    edited = editors[name].edit(encoder, [])
    for a, b in zip(edited.model.parameters(), encoder.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CHANGING, "unrelated", "random"])
def test_facts_change_the_model_and_the_same_ones_always_the_same(name, editors, encoder, held_out):
    once, again = (editors[name].edit(encoder, held_out[:3]) for _ in range(2))
    assert once.digest == again.digest != encoder.digest


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGING)
def test_a_fact_given_twice_is_told_once(name, editors, encoder, held_out):
    once, twice = (editors[name].edit(encoder, facts) for facts in (held_out[:2], held_out[:2] + held_out[:1]))
    assert once.digest == twice.digest


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGING)
def test_contradictions_are_refused(name, editors, encoder, held_out, refused):
    fact = next(fact for fact in held_out if fact.alternatives)
    with refused(repr(fact.object), repr(fact.alternatives[0])):
        editors[name].edit(encoder, [fact, with_object(fact, fact.alternatives[0])])


@pytest.mark.parametrize("name", CHANGING)
def test_an_encoder_without_a_head_is_refused(name, editors, encoder, held_out, refused):
    bare = Encoder(encoder.tokenizer, encoder.model.bert, "cpu")
    with refused("no masked-LM head"):
        editors[name].edit(bare, held_out[:1])


@pytest.mark.parametrize("name", CHANGING)
def test_what_was_edited_comes_back_from_the_disk(name, editors, encoder, held_out, tmp_path):
    edited = editors[name].edit(encoder, held_out[:2])
    edited.save(tmp_path)
    loaded = Encoder.load(tmp_path, "cpu")
    assert loaded.digest == edited.digest
    statements = [s for fact in held_out[:4] for s in fact.statements]
    assert cloze.cloze(loaded, statements) == cloze.cloze(edited, statements)


def test_sequentially_is_one_fact_after_the_other(encoder, held_out):
    editor = Finetuning(SPECS.finetuning, 0)
    by_hand = editor.edit(editor.edit(encoder, held_out[:1]), held_out[1:2])
    assert sequentially(editor, encoder, held_out[:2]).digest == by_hand.digest
    assert sequentially(editor, encoder, []).digest == encoder.digest


# --- baselines ---


def test_fine_tuning_stays_within_its_bound_and_its_blocks(encoder, held_out):
    spec = FinetuningSpec(blocks=1, bound=1e-3, learning_rate=1e-2, epochs=3, batch=8)
    edited = Finetuning(spec, 0).edit(encoder, held_out[:4])
    for (name, a), b in zip(edited.model.named_parameters(), encoder.model.parameters(), strict=True):
        far = (a - b).abs().max().item()
        if f"layer.{encoder.layers - 1}." in name:
            assert far <= 1e-3 * (1 + 1e-4)
        else:
            assert far == 0, name
    assert edited.digest != encoder.digest


def test_fine_tuning_tells_a_fact(encoder, held_out):
    spec = FinetuningSpec(bound=0.5, learning_rate=5e-3, epochs=60, batch=16)
    fact = held_out[0]
    edited = Finetuning(spec, 0).edit(encoder, [fact])
    statements = [s for s in fact.statements if not s.reserved]
    assert not any(found.recalled for found in cloze.cloze(encoder, statements))
    assert all(found.recalled for found in cloze.cloze(edited, statements))


def test_rehearsal_reads_each_fact_so_often_and_old_text_beside_it(monkeypatch, encoder, held_out, text):
    seen = []

    def record(encoder, read, spec, learning_rate, seed):
        seen.append((read, spec, learning_rate, seed))
        return encoder

    monkeypatch.setattr("dprlens.editing.editors.finetuning.read_on", record)
    spec = RehearsalSpec(times=20, old=0.5, batch=10, random_mask=0.2, learning_rate=0.1)
    Rehearsal(spec, text, seed=4).edit(encoder, held_out[:3])
    ((read, reading, rate, seed),) = seen
    assert (reading.batch, reading.random_mask, rate, seed) == (10, 0.2, 0.1, 4)
    new = [segment for segment in read if {*segment.facts} & {fact.id for fact in held_out[:3]}]
    assert len(new) == 60
    assert len(read) == 90
    for fact in held_out[:3]:
        said = {s.text for s in fact.statements if not s.reserved}
        mine = [segment for segment in new if segment.facts == (fact.id,)]
        assert len(mine) == 20
        assert {segment.text for segment in mine} == said
        assert all(s.text[a:b] in (fact.object, fact.object.capitalize()) for s in mine for a, b in s.answers)


def test_relearning_is_rehearsal_in_the_steps_of_pretraining(monkeypatch, encoder, held_out, material):
    assert EditorSpecs().relearning.learning_rate is None
    rates = []
    monkeypatch.setattr("dprlens.editing.editors.finetuning.read_on", lambda *call: rates.append(call[3]) or call[0])
    for name in ("rehearsal", "relearning"):
        EDITORS[name](getattr(SPECS, name), material, encoder, 5).edit(encoder, held_out[:2])
    assert rates == [1e-2, None]


@pytest.mark.parametrize(
    ("spec", "knob", "value"),
    [
        *((FinetuningSpec, knob, value) for knob, value in (("blocks", 0), ("bound", 0.0), ("learning_rate", -1.0))),
        *((FinetuningSpec, knob, 0) for knob in ("batch", "epochs")),
        *((RehearsalSpec, knob, value) for knob, value in (("times", 0), ("old", -0.5), ("batch", 0))),
        (RehearsalSpec, "learning_rate", float("inf")),
    ],
)
def test_specs_check_themselves(refused, spec, knob, value):
    with refused(knob, f"{value:g}"):
        spec(**{knob: value})


# --- null arms ---


def test_nothing_changes_nothing(encoder, held_out):
    assert Nothing().edit(encoder, held_out).digest == encoder.digest


def test_the_sham_tells_as_many_other_facts(encoder, held_out):
    given = []

    class Recorder:
        def edit(self, encoder, facts):
            given.append(facts)
            return encoder

    Unrelated(Recorder(), held_out[5:]).edit(encoder, [*held_out[:3], held_out[0]])
    assert given == [held_out[5:8]]


def test_the_sham_refuses_too_few_facts_and_related_ones(encoder, held_out, refused):
    editor = Finetuning(SPECS.finetuning, 0)
    with refused("3 facts but 2 unrelated"):
        Unrelated(editor, held_out[5:7]).edit(encoder, held_out[:3])
    with refused(repr(held_out[2].id)):
        Unrelated(editor, held_out[2:]).edit(encoder, held_out[:3])


@pytest.mark.parametrize("name", ["finetuning", *HYPERNETWORKS])
def test_a_random_change_has_the_size_and_rank_of_the_editors_own(name, editors, encoder, held_out):
    own = dict(editors[name].edit(encoder, held_out[:3]).model.named_parameters())
    random = dict(RandomChange(editors[name], seed=1).edit(encoder, held_out[:3]).model.named_parameters())
    for key, before in encoder.model.named_parameters():
        changes = [(after[key] - before).detach().double() for after in (own, random)]
        norms = [change.norm().item() for change in changes]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3, abs=1e-7), key
        if norms[0] > 1e-6:
            assert abs((changes[0] * changes[1]).sum().item()) < 0.9 * norms[0] * norms[1], f"{key} is no other change"
            if before.dim() == 2 and name in HYPERNETWORKS:
                ranks = [int(torch.linalg.matrix_rank(change, rtol=1e-3)) for change in changes]
                assert ranks[1] <= int(torch.linalg.matrix_rank(changes[0].float())), key


def test_a_random_patch_has_as_many_neurons_of_the_same_strength(editors, encoder, held_out):
    editor = editors["transformer_patcher"]
    own, random = (one.edit(encoder, held_out[:3]) for one in (editor, RandomChange(editor, seed=1)))
    assert own.model.config.patches == random.model.config.patches > 0
    d_ff = encoder.bert.config.intermediate_size
    norms = []
    for model in (own.model, random.model):
        last = model.bert.encoder.layer[-1]
        norms.append(
            (last.intermediate.dense.weight[d_ff:].norm(dim=1), last.output.dense.weight[:, d_ff:].norm(dim=0))
        )
    for a, b in zip(*norms, strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), rtol=1e-4)
    assert own.digest != random.digest


def test_different_seeds_are_different_random_changes(encoder, held_out):
    editor = Finetuning(SPECS.finetuning, 0)
    a, b = (RandomChange(editor, seed).edit(encoder, held_out[:2]) for seed in (0, 1))
    assert a.digest != b.digest
