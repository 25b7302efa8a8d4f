"""What MEND and MALMEN share: rows, standardisation, residual blocks, practice, and the contract of an editor."""

import json

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from dprlens.bert.encoder import Encoder, new_model
from dprlens.bert.forward import masked_lm
from dprlens.editing.editors.hypernetwork import (
    ABOUT,
    ROWS,
    WEIGHTS,
    Practice,
    Rows,
    Shape,
    Standardiser,
    blanks_by_part,
    linear,
    shape,
    told_rows,
)
from dprlens.editing.editors.malmen import Malmen, MalmenBlock, MalmenSpec
from dprlens.editing.editors.mend import Mend, MendBlock, MendSpec
from dprlens.editing.editors.objective import blanks, copy_model, nll, training_statements

SMALL = {"blocks": 2, "rank": 4, "batch": 6, "kept": 8, "steps": 3, "validate_every": 2, "chunk": 16}
MEND, MALMEN = MendSpec(**SMALL), MalmenSpec(**SMALL)
BOTH = pytest.mark.parametrize(("method", "spec"), [(Mend, MEND), (Malmen, MALMEN)], ids=["mend", "malmen"])


@pytest.fixture(scope="module")
def told(world):
    return [fact for fact in world.facts if world.state(fact.id) == "held out"][:5]


@pytest.fixture(scope="module")
def editors(toy, practice, kept):
    return {
        method: method.trained(toy, practice, kept, spec, seed=1) for method, spec in ((Mend, MEND), (Malmen, MALMEN))
    }


@pytest.fixture(scope="module")
def lessons(toy, practice, kept):
    """Practice of MEND, which draws batches."""
    return Practice(Mend(MEND, shape(toy)), toy, practice, kept)


def loss(encoder, facts):
    with torch.no_grad():
        given = blanks(encoder, [statement for fact in facts for statement in training_statements(fact)], 0)
        return nll(masked_lm(encoder.model, given, 0), given).item()


# rows


@pytest.mark.parametrize("site", [(1, "intermediate"), (1, "output"), (2, "intermediate"), (2, "output")])
def test_products_of_rows_add_up_to_the_gradient_of_the_weights(toy, told, site):
    model = copy_model(toy)
    given = blanks(toy, [statement for fact in told for statement in training_statements(fact)], 1)
    (gradient,) = torch.autograd.grad(
        nll(masked_lm(model, given, 1), given) * len(given.input), linear(model, site).weight
    )
    x, delta, _ = told_rows(model, given, 1, [site], masks_only=False)[site]
    torch.testing.assert_close(delta.T @ x, gradient, rtol=1e-5, atol=1e-6)


def test_rows_that_do_not_reach_the_loss_are_left_out(toy, told):
    model = copy_model(toy)
    given = blanks(toy, training_statements(told[0]) + training_statements(told[-1]), 1)
    rows = told_rows(model, given, 1, [(1, "output"), (2, "output")], masks_only=False)
    masks = told_rows(model, given, 1, [(1, "output")], masks_only=True)[1, "output"]
    assert len(rows[1, "output"].x) == given.inside.sum()  # every token but padding is attended to
    assert rows[2, "output"].statement.tolist() == given.row.tolist()  # after the last block only masks are read
    assert masks.statement.tolist() == given.row.tolist()
    where = given.inside.nonzero().tolist()
    chosen = [where.index([s, p]) for s, p in zip(given.row.tolist(), given.place.tolist(), strict=True)]
    assert torch.equal(masks.x, rows[1, "output"].x[chosen])
    assert torch.equal(masks.delta, rows[1, "output"].delta[chosen])


def test_a_tap_is_gone_after_the_call(toy, told):
    model, given = copy_model(toy), blanks(toy, training_statements(told[0]), 1)
    before = masked_lm(model, given, 1)
    told_rows(model, given, 1, [(1, "output")], masks_only=True)
    assert torch.equal(masked_lm(model, given, 1), before)


@pytest.mark.parametrize("chunk", [32, 284, 1000])
def test_284_statements_in_chunks_leave_the_rows_of_284_statements(toy, world, chunk):
    given = blanks(toy, [statement for fact in world.facts for statement in training_statements(fact)][:284], 1)
    editor = Malmen(MalmenSpec(**SMALL | {"chunk": chunk}), shape(toy))
    rows = editor.rows(copy_model(toy), given)[2, "output"]
    assert rows.statement.tolist() == given.row.tolist()
    assert rows.statement[-1] == 283
    whole = told_rows(copy_model(toy), given, 1, [(2, "output")], masks_only=True)[2, "output"]
    torch.testing.assert_close(rows.x, whole.x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows.delta, whole.delta, rtol=1e-4, atol=1e-5)


def test_a_part_of_the_rows_counts_statements_anew():
    rows = Rows(torch.arange(5.0)[:, None], -torch.arange(5.0)[:, None], torch.tensor([0, 0, 1, 3, 3]))
    x, delta, statement = rows.part([3, 2, 0])
    assert x.flatten().tolist() == [3, 4, 0, 1]
    assert delta.flatten().tolist() == [-3, -4, 0, -1]
    assert statement.tolist() == [0, 0, 2, 2]  # statement 2 left no row


def test_blanks_by_part_are_blanks(toy, world):
    said = [statement for fact in world.facts[:6] for statement in training_statements(fact)]
    found, expected = blanks_by_part(toy, said, 1, size=7), blanks(toy, said, 1)
    for name in ("text", "row", "place", "piece"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    inside = expected.inside  # what fills rows up may differ
    torch.testing.assert_close(found.input[inside], expected.input[inside], rtol=1e-5, atol=1e-5)


# the hypernetwork


@pytest.mark.parametrize("chunk", [1, 4, 50])
def test_running_statistics_are_those_of_all_rows(chunk):
    rows = torch.from_numpy(np.random.default_rng(0).normal(3, [1, 1e-4, 10], (50, 3)))
    standardiser = Standardiser(3)
    for part in rows.split(chunk):
        standardiser.update(part)
    standardiser.update(rows[:0])
    np.testing.assert_allclose(standardiser.mean, rows.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(standardiser.deviation, rows.numpy().std(0, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(standardiser(rows).std(0), 1, rtol=2e-3)  # 1e-4 is small enough to feel the 1e-7


def test_the_published_slip_inflates_the_deviation():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 1)))
    slip, right = Standardiser(1, inflated=True), Standardiser(1)
    for part in rows.split(4):
        slip.update(part)
        right.update(part)
    within = sum(part.var(0) for part in rows.split(4))  # added four times instead of three times
    assert slip.squares - right.squares == pytest.approx(within.item(), rel=1e-9)
    assert slip.deviation.item() == pytest.approx(1.12, abs=0.02)
    slip.update(rows[:1])
    assert slip.deviation.isfinite()


@pytest.mark.parametrize("seen", [0, 1])
def test_one_row_has_no_deviation(seen, refused):
    standardiser = Standardiser(2)
    standardiser.update(torch.ones(seen, 2))
    with refused(f"{seen} rows", "train"):
        standardiser(torch.ones(1, 2))


@pytest.mark.parametrize("block", [MendBlock, MalmenBlock])
def test_a_new_block_passes_rows_on_and_can_learn(block):
    new = block(6, 3, 2, torch.Generator().manual_seed(0))
    z = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    out = new(z, 1)
    assert torch.equal(out, z)
    out.sum().backward()
    assert (new.up.grad != 0).all()  # a ReLU would pass nothing on at 0
    assert (new.down.grad == 0).all()  # as up is 0
    assert (new.shift.grad[1] == 5).all()
    assert (new.shift.grad[0] == 0).all()


def test_scale_and_shift_stand_before_the_clamp_in_mend_and_after_it_in_malmen():
    found = {}
    for block in (MendBlock, MalmenBlock):
        new = block(1, 1, 1, torch.Generator())
        with torch.no_grad():
            for name, value in (("down", 1.0), ("up", 1.0), ("bias", 1.0), ("scale", -2.0), ("shift", 5.0)):
                getattr(new, name).fill_(value)
        found[block] = [new(torch.tensor([[z]]), 0).item() for z in (1.0, 3.0, -3.0)]
    assert found[MendBlock] == [1 + 1, 3 + 0, -3 + 9]  # max(0, −2 (z + 1) + 5)
    assert found[MalmenBlock] == [1 + 1, 3 - 3, -3 + 5]  # −2 max(0, z + 1) + 5


@BOTH
def test_sites_are_counted_from_the_last_block_and_capped(method, spec, toy):
    kinds = spec.sites
    assert method(spec, shape(toy)).sites == [(block, kind) for block in (1, 2) for kind in kinds]
    deep = method(type(spec)(), Shape(12, 8, 16)).sites
    assert [min(deep)[0], max(deep)[0]] == [12 - type(spec)().blocks, 11]
    assert min(method(type(spec)(**SMALL | {"blocks": 9}), shape(toy)).sites)[0] == 0


# practice


def test_a_batch_tells_some_statements_of_a_fact_and_asks_for_others(lessons, practice):
    rng = np.random.default_rng(0)
    (topics, _), _ = lessons.split(rng)
    lesson = lessons.draw(*lessons.split(np.random.default_rng(0))[0], rng)
    fact_of = [fact for fact in practice for _ in training_statements(fact)]
    whole, part = (rows[1, "output"] for rows in (lessons.rows, lesson.rows))
    left = [whole.delta[whole.statement == i].flatten().tolist() for i in range(len(fact_of))]  # by each statement
    drawn = [left.index(part.delta[part.statement == i].flatten().tolist()) for i in range(len(lesson.share))]
    known = lessons.statements
    pieces = [(known.input[i].flatten().tolist(), known.piece[known.row == i].tolist()) for i in range(len(left))]
    given = lesson.rephrased
    asked = [
        pieces.index((state.flatten().tolist(), given.piece[given.row == i].tolist()))
        for i, state in enumerate(given.input)
    ]
    assert not set(drawn) & set(asked)
    assert {fact_of[i] for i in drawn} == {fact_of[i] for i in asked}
    about = {(fact_of[i].subject, fact_of[i].relation) for i in drawn}
    assert len(about) == len({fact_of[i] for i in drawn}) == min(6, len(topics))  # no two objects of one topic
    assert len(drawn) == 2 * len(about)
    assert lesson.share.tolist() == [0.5] * len(drawn)
    assert len(lesson.kept.input) == 8
    assert len(lesson.before) == len(lesson.kept.place)


def test_what_is_known_before_belongs_to_the_kept_masks(lessons, toy):
    rng = np.random.default_rng(1)
    lesson = lessons.draw(*lessons.split(rng)[0], rng)
    with torch.no_grad():
        torch.testing.assert_close(lesson.before, masked_lm(toy.model, lesson.kept, 1), rtol=1e-4, atol=1e-4)


def test_validation_is_apart(lessons):
    (topics, kept), (other_topics, other_kept) = lessons.split(np.random.default_rng(0))
    assert sorted([*topics, *other_topics]) == [*range(len(lessons.topics))]
    assert sorted([*kept, *other_kept]) == [*range(24)]
    assert len(other_topics) == 1  # a tenth of 10
    assert len(other_kept) == 2  # of 24


def test_reserved_statements_are_never_used(lessons, practice):
    assert len(lessons.statements.input) == sum(not s.reserved for fact in practice for s in fact.statements)


def test_practice_that_cannot_be_split_is_refused(toy, practice, kept, refused):
    short = practice[0]._replace(statements=practice[0].statements[:1])
    with refused(short.id, "1 statements"):
        Mend.trained(toy, [short, *practice], kept, MEND)
    with refused("1 practice facts"):
        Mend.trained(toy, practice[:2], kept, MEND)
    with refused("1 kept"):
        Mend.trained(toy, practice, kept[:1], MEND)


@pytest.mark.slow
@BOTH
def test_chunks_do_not_change_a_step(method, spec, toy, practice, kept):
    found = []
    for chunk in (5, 1000):
        editor = method(type(spec)(**SMALL | {"chunk": chunk, "batch": 12, "kept": 13}), shape(toy), seed=2)
        material = Practice(editor, toy, practice, kept)
        rng = np.random.default_rng(0)
        total = editor.step(material.model, material.draw(*material.split(rng)[0], rng))
        found.append((total, [p.grad for p in editor.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for few, many in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(few, many, rtol=1e-3, atol=1e-4 * max(1e-6, many.abs().max().item()))


@BOTH
def test_a_change_of_nothing_costs_only_what_the_facts_cost(method, spec, toy, practice, kept):
    editor = method(spec, shape(toy))
    material = Practice(editor, toy, practice, kept)
    rng = np.random.default_rng(0)
    lesson = material.draw(*material.split(rng)[0], rng)
    nothing = {site: torch.zeros_like(linear(toy.model, site).weight) for site in editor.sites}
    editor.changes = lambda *_: nothing
    with torch.no_grad():
        expected = nll(masked_lm(toy.model, lesson.rephrased, 1), lesson.rephrased).item()
    assert editor.loss(material.model, lesson) == pytest.approx(spec.edit_weight * expected, rel=1e-5)


@pytest.mark.slow
@BOTH
def test_training_lowers_the_loss_of_validation(method, spec, toy, practice, kept):
    spec = type(spec)(**SMALL | {"steps": 8, "validate_every": 1, "edit_weight": 1.0})
    editor = method.trained(toy, practice, kept, spec)
    losses = [value for _, value in editor.validation]
    assert [step for step, _ in editor.validation] == [*range(1, 9)]
    assert min(losses[3:]) < losses[0]


@pytest.mark.slow
@BOTH
def test_the_best_checkpoint_is_restored(method, spec, toy, practice, kept, monkeypatch):
    found = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(method, "loss", lambda *_: next(found))
    every = type(spec)(**SMALL | {"validate_every": 1})
    editor = method.trained(toy, practice, kept, every, seed=1)
    assert editor.validation == [(1, 3.0), (2, 1.0), (3, 2.0)]
    found = iter([0.0])
    shorter = method.trained(toy, practice, kept, type(spec)(**SMALL | {"steps": 2}), seed=1)
    assert torch.equal(parameters_to_vector(editor.parameters()), parameters_to_vector(shorter.parameters()))


@BOTH
def test_training_that_diverges_raises(method, spec, toy, practice, kept, refused):
    wild = type(spec)(**SMALL | {"learning_rate": 1e25})
    with refused("lower", error=FloatingPointError):
        method.trained(toy, practice, kept, wild)


# the contract of an editor


@pytest.mark.slow
@BOTH
def test_the_encoder_given_stays_what_it_was(method, spec, toy, practice, kept, told):
    fresh = Encoder(toy.tokenizer, copy_model(toy), device="cpu")
    before = fresh.digest
    del fresh.digest
    edited = method.trained(fresh, practice, kept, spec, seed=1).edit(fresh, told)
    assert fresh.digest == before
    assert edited.digest != before


@pytest.mark.slow
@BOTH
def test_only_the_sites_change(method, spec, editors, toy, told):  # noqa: ARG001
    edited = editors[method].edit(toy, told).model.state_dict()
    changed = {name for name, weights in toy.model.state_dict().items() if not torch.equal(weights, edited[name])}
    sites = editors[method].sites
    assert changed == {f"bert.encoder.layer.{block}.{kind}.dense.weight" for block, kind in sites}


@BOTH
def test_no_facts_no_change(method, spec, editors, toy):  # noqa: ARG001
    assert editors[method].edit(toy, []).digest == toy.digest


@BOTH
def test_facts_are_told_once_and_without_contradiction(method, spec, editors, toy, told, refused):  # noqa: ARG001
    edit = editors[method].edit
    assert edit(toy, [*told, told[0]]).digest == edit(toy, told).digest
    with refused(told[0].subject):
        edit(toy, [told[0], told[0]._replace(object="Nowhere")])


@BOTH
def test_an_edit_leaves_the_hypernetwork_as_it_was(method, spec, editors, toy, told):  # noqa: ARG001
    before = {name: value.clone() for name, value in editors[method].state_dict().items()}
    editors[method].edit(toy, told)
    assert all(torch.equal(value, before[name]) for name, value in editors[method].state_dict().items())


@BOTH
def test_fewer_wordings_tell_less(method, spec, editors, toy, told, monkeypatch):  # noqa: ARG001
    short = [fact._replace(statements=fact.statements[:2]) for fact in told]
    expected = editors[method].edit(toy, short).digest
    editor = method(type(spec)(**SMALL | {"wordings": 2}), shape(toy))
    editor.load_state_dict(editors[method].state_dict())
    assert editor.edit(toy, told).digest == expected


@BOTH
def test_a_second_round_tells_the_model_of_the_first(method, spec, editors, toy, told):
    editor = method(type(spec)(**SMALL | {"rounds": 2}), shape(toy))
    editor.load_state_dict(editors[method].state_dict())
    once = editors[method].edit(toy, told)
    assert editor.edit(toy, told).digest == editors[method].edit(once, told).digest


@pytest.mark.slow
@BOTH
def test_the_seed_decides(method, spec, editors, toy, practice, kept):
    assert method.trained(toy, practice, kept, spec, seed=1).digest == editors[method].digest
    assert method.trained(toy, practice, kept, spec, seed=2).digest != editors[method].digest


@BOTH
def test_the_global_generator_is_left_alone(method, spec, toy, practice, kept):
    before = torch.get_rng_state()
    method.trained(toy, practice, kept, type(spec)(**SMALL | {"steps": 1}))
    assert torch.equal(torch.get_rng_state(), before)


@BOTH
def test_answers_of_several_pieces_can_be_told(method, spec, editors, toy, world):  # noqa: ARG001
    long = [f for f in world.facts if f.relation == "founder"][:3]
    counts = torch.bincount(blanks(toy, [statement for fact in long for statement in training_statements(fact)], 0).row)
    assert counts.max() > 1
    assert editors[method].edit(toy, long).digest != toy.digest


@pytest.mark.slow
@pytest.mark.parametrize("norm", [True, False])
@BOTH
def test_telling_lowers_the_loss_of_what_is_told(method, spec, toy, practice, kept, told, norm):
    spec = type(spec)(**SMALL | {"norm": norm, "steps": 10, "edit_weight": 1.0})
    editor = method.trained(toy, practice, kept, spec)
    assert loss(editor.edit(toy, told), told) < loss(toy, told)


@BOTH
def test_another_shape_is_refused(method, spec, told, toy, refused):
    with refused("layers=3", "layers=12"):
        method(spec, Shape(12, 32, 64)).edit(toy, told)


def test_a_patched_model_is_refused(toy, told, refused):
    config = type(toy.model.config).from_dict(toy.model.config.to_dict() | {"patches": 3})
    patched = Encoder(toy.tokenizer, new_model(config), device="cpu")
    with refused("3 patched"):
        Malmen(MALMEN, shape(toy)).edit(patched, told)


# keeping


@BOTH
def test_saved_and_loaded_it_is_the_same(method, spec, editors, toy, told, tmp_path):  # noqa: ARG001
    editors[method].save(tmp_path)
    again = method.load(tmp_path)
    assert again.digest == editors[method].digest
    assert again.spec == editors[method].spec
    assert again.validation == editors[method].validation
    assert again.edit(toy, told).digest == editors[method].edit(toy, told).digest


def test_damaged_folders_are_refused(editors, tmp_path, refused):
    with refused(WEIGHTS, "missing"):
        Mend.load(tmp_path)
    editors[Mend].save(tmp_path)
    with refused("Mend", "Malmen"):
        Malmen.load(tmp_path)
    about = json.loads((tmp_path / ABOUT).read_text())
    (tmp_path / ABOUT).write_text(json.dumps(about | {"shape": {"layers": 3, "d_model": 16, "d_ff": 64}}))
    with refused("damaged"):
        Mend.load(tmp_path)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:100])
    with refused("damaged"):
        Mend.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(name, 0) for name in ("blocks", "rank", "batch", "told", "rephrasings", "kept", "rounds", "steps", "chunk")],
        ("validate_every", 0),
        ("wordings", 0),
        ("sites", ()),
        ("sites", ("attention",)),
        ("sites", ("output", "output")),
        ("learning_rate", 0.0),
        ("clip", float("inf")),
        ("edit_weight", -1.0),
        ("locality_weight", float("nan")),
        ("validation", 1.0),
    ],
)
@pytest.mark.parametrize("spec", [MendSpec, MalmenSpec])
def test_specs_refuse_what_makes_no_sense(spec, field, value, refused):
    with refused(field):
        spec(**{field: value})


def test_rows_go_through_the_hypernetwork_in_parts(toy):
    generator = torch.Generator().manual_seed(0)
    rows = Rows(
        torch.randn(ROWS + 7, 64, generator=generator),
        torch.randn(ROWS + 7, 32, generator=generator),
        torch.arange(ROWS + 7),
    )
    for method, spec in ((Mend, MEND), (Malmen, MALMEN)):
        editor = method(spec, shape(toy))
        editor.trunks["output"].see(rows)
        change = editor.change((2, "output"), rows, torch.ones(ROWS + 7))
        some = editor.change((2, "output"), rows.part(range(ROWS)), torch.ones(ROWS))
        assert change.shape == some.shape == (32, 64)
        assert not torch.allclose(change, some)  # the last part counts
