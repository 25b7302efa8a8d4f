"""The steps of section 4 at the smallest scale: all arms go the same way, and the null arms are null."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dprlens import editing, edits, exploring, knowledge, steps
from dprlens.closed import ClosedSpec, TextSpec
from dprlens.editing import Arm, arms, experiment, followed, material, said
from dprlens.editors import EditorSpecs, FinetuningSpec, MalmenSpec, MendSpec, PatcherSpec, RehearsalSpec
from dprlens.edits import ProtocolSpec
from dprlens.effects import label
from dprlens.encoder import EncoderSpec
from dprlens.negatives import NegativesSpec
from dprlens.probe import items
from dprlens.profile import get_profile
from dprlens.training.dpr import DPRSpec
from dprlens.training.pretrain import PretrainSpec

pytestmark = pytest.mark.slow

SEED = 2
HYPERNETWORK = {"blocks": 1, "rank": 2, "batch": 3, "told": 1, "rephrasings": 1, "kept": 4, "steps": 2}
MICRO = replace(
    get_profile("tiny"),
    name="micro",
    world=ClosedSpec(20, 8, 6, 6, exposures=4, low_doses=(), train=0.5),
    text=TextSpec(remarks=1),
    encoder=EncoderSpec(layers=2, d_model=16, d_ff=16, heads=2, max_length=64),
    pretrain=PretrainSpec(shallow_layers=1, batch=16, muon="float32"),
    negatives=NegativesSpec(per_question=3),
    dpr=DPRSpec(epochs=5, batch=16, warm_up_steps=1, learning_rate=1e-3),
    protocol=ProtocolSpec(
        facts=6, choices=(2, 3), training=DPRSpec(epochs=1, batch=16, learning_rate=1e-3, warm_up_steps=1), questions=40
    ),
    editors=EditorSpecs(
        transformer_patcher=PatcherSpec(memory=10, memory_top=4, most_steps=3, first_check=2, wordings=1),
        malmen=MalmenSpec(**HYPERNETWORK),
        mend=MendSpec(**HYPERNETWORK),
        finetuning=FinetuningSpec(epochs=1, learning_rate=1e-2, bound=0.1),
        rehearsal=RehearsalSpec(times=4, learning_rate=1e-2),
        relearning=RehearsalSpec(times=4, learning_rate=None),
    ),
)


def one_by_one(step, calls, workers=None):  # noqa: ARG001
    return [step(*call) for call in calls]


def half_recalled(_base, world):
    """Instead of what this network knows, which is nothing: every other fact."""
    return pd.Series({fact.id: float(i % 2) for i, fact in enumerate(world.facts)})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPRLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(editing.processes, "in_parallel", one_by_one)
        patch.setattr(editing.processes, "side_by_side", lambda calls, _: [step(*call) for step, call in calls])
        patch.setattr(editing.processes, "ahead", one_by_one)
        patch.setattr(editing, "_recalled", half_recalled)
        world = steps.closed_world(MICRO.world, SEED)
        base = steps.base_model(world, MICRO.text, MICRO.encoder, MICRO.pretrain, SEED)
        found = {direction: experiment(MICRO, direction, SEED) for direction in edits.DIRECTIONS}
        yield world, base, found


DIRECTIONS = pytest.mark.parametrize("direction", edits.DIRECTIONS)


def test_the_rows_of_the_tables():
    names = [arm.name for arm in arms(MICRO)]
    assert names == [
        *("transformer_patcher", "malmen", "mend", "finetuning", "rehearsal"),
        *("unrelated_malmen", "random_malmen", "nothing", "reseeded1"),
    ]
    more = MICRO.but(protocol={"baselines": ("relearning",), "shams": (), "reseeded": 2})
    assert [arm.name for arm in arms(more)] == [
        *("transformer_patcher", "malmen", "mend", "relearning", "nothing", "reseeded1", "reseeded2")
    ]
    assert Arm("mend", reseed=2).name == "reseeded2"


def test_material_is_disjoint_from_what_is_tested_and_from_itself(page):
    world, _, _ = page
    given = material(world, MICRO.text, SEED)
    practice = {fact.id for fact in given.practice}
    kept = {id_ for id_, fact in world.fact.items() if {*fact.statements} & {*given.kept}}
    assert practice
    assert kept
    assert not practice & kept
    needed = {id_ for question in world.questions if question.split == "test" for id_ in question.facts[:1]}
    train = {fact.id for fact in world.facts if fact.split == "train"}
    assert practice | kept <= train
    assert not {q.link or q.target for q in world.questions if q.split == "test"} & practice & (needed - train)
    assert all(fact.object in world.fact[fact.id].alternatives for fact in given.practice)
    assert not any(statement.reserved for statement in given.kept)


@DIRECTIONS
def test_every_arm_answers_the_same_questions(page, direction):
    _, _, found = page
    x = found[direction]
    for rows in x.after.rows.values():
        pd.testing.assert_series_equal(rows["question"], x.before["question"])
        assert not rows["in_training"].any()
        assert (rows["split"] == "test").all()
        assert {f"{what}{n}" for what in ("probe", "retrained", "match") for n in (2, 3)} <= {*rows.columns}


@DIRECTIONS
def test_no_edit_leaves_everything_as_it_was(page, direction):
    _, base, found = page
    x = found[direction]
    assert x.after.encoders["nothing"].digest == base.digest
    pd.testing.assert_frame_equal(x.after.rows["nothing"], x.before)


@DIRECTIONS
def test_another_seed_is_the_same_model_trained_again(page, direction):
    _, base, found = page
    rows, x = found[direction].after.rows["reseeded1"], found[direction]
    assert x.after.encoders["reseeded1"].digest == base.digest
    assert x.after.duals["reseeded1"].digest != x.after.duals["nothing"].digest
    assert (rows["probe2"] == rows["retrained2"]).all()
    assert (rows["retrained2"] != x.before["retrained2"]).any()


@DIRECTIONS
def test_every_edit_is_another_model(page, direction):
    _, base, found = page
    encoders = found[direction].after.encoders
    digests = [encoder.digest for name, encoder in encoders.items() if name not in ("nothing", "reseeded1")]
    assert len({*digests, base.digest}) == len(digests) + 1


@DIRECTIONS
def test_facts_are_eligible_halves_and_told_truly_or_falsely(page, direction):
    world, _, found = page
    x = found[direction]
    status = np.logical_or.reduce([edits.eligible(x.before, direction, n) for n in (2, 3)])
    assert {*x.chosen.edited, *x.chosen.bystanders} <= {*x.before["fact"][status]}
    assert tuple(fact.id for fact in x.told) == x.chosen.edited
    for fact in x.told:
        true = world.fact[fact.id]
        assert (fact.object == true.object) == (direction == "added")
        assert fact.object in (true.object, true.alternatives[0] if true.alternatives else None)


@DIRECTIONS
def test_unrelated_facts_decide_nothing(page, direction):
    world, base, found = page
    chosen = found[direction].chosen
    others = editing._unrelated(world, base, chosen, direction, SEED)
    ids = {fact.id for fact in others}
    assert len(ids) == len(others) == len(chosen.edited)
    assert not ids & {*chosen.edited, *chosen.bystanders}
    assert not ids & {id_ for q in world.questions if q.link for id_ in q.facts}
    assert {half_recalled(base, world)[id_] for id_ in ids} == {float(direction == "removed")}


def test_a_patch_in_the_last_block_leaves_lower_layers_bit_for_bit(page):
    world, base, found = page
    texts = [question.text for question in world.questions[:20]]
    layers = range(base.layers)
    before = base.cls_by_layer(texts, layers)
    after = found["added"].after.encoders["transformer_patcher"].cls_by_layer(texts, layers)
    assert (before == after).all()


def test_what_was_computed_is_not_computed_again(page, monkeypatch):
    _, _, found = page
    for name in ("train_dpr", "pretrain"):
        monkeypatch.setattr(steps, name, None)
    again = experiment(MICRO, "added", SEED)
    for arm, rows in again.after.rows.items():
        pd.testing.assert_frame_equal(rows, found["added"].after.rows[arm])


def test_what_models_say_is_grouped(page):
    world, base, found = page
    x = found["added"]
    frame = said(x)
    assert [*frame["arm"].unique()] == [*x.after.rows]
    one = frame[frame["arm"] == "mend"]
    told = one[one["fact"].isin(x.chosen.edited)]
    assert (told["group"] == np.where(told["reserved"], "unread", "told")).all()
    assert {*one["fact"][one["group"] == "bystanders"]} == {*x.chosen.bystanders}
    assert one["reserved"][one["group"].isin(["bystanders", "neighbours", "kept"])].all()
    names = {name for fact in x.told for name in (fact.subject, fact.object)}
    for group, near in (("neighbours", True), ("kept", False)):
        for id_ in one["fact"][one["group"] == group].unique():
            assert bool({world.fact[id_].subject, world.fact[id_].object} & names) == near
            assert half_recalled(base, world)[id_] == 1


def test_a_fact_is_followed_through_every_arm(page, refused):
    _, _, found = page
    x = found["added"]
    fact = x.chosen.edited[0]
    told, blank, question, frame = followed(x, fact, 2)
    row = np.flatnonzero(x.before["question"] == question.id)[0]
    assert x.before["fact"][row] == fact
    mine = (x.before["fact"] == fact) & edits.eligible(x.before, "added", 2)
    assert mine[row] or not mine.any()
    assert (told.reserved, blank.reserved) == (False, True)
    assert {told, blank} <= {s for one in x.told if one.id == fact for s in one.statements}
    assert frame["arm"].tolist() == [*x.after.rows]
    for line in frame.itertuples():
        mine = x.after.rows[line.arm].loc[row]
        assert (line.probe, line.match, line.place) == (mine["probe2"], mine["match2"], mine["place"] + 1)
        (one,) = knowledge.cloze(x.after.encoders[line.arm], [blank])
        assert (line.said, line.probability) == (one.said, one.probability)
    with refused(repr(x.chosen.bystanders[0]), "was not edited"):
        followed(x, x.chosen.bystanders[0], 2)


def test_examples_are_edited_facts_those_with_an_eligible_question_first(page):
    _, _, found = page
    for direction, x in found.items():
        facts = editing.examples(x, 2, 99)
        assert sorted(facts) == sorted(x.chosen.edited)
        status = edits.eligible(x.before, direction, 2) & x.chosen.among(x.before)[0]
        mine = x.before[status]
        linked = {*mine["fact"][mine["kind"] == "knowledge_required"]}
        assert {*facts[: len(linked)]} == linked
        assert {*facts[: mine["fact"].nunique()]} == {*mine["fact"]}
        assert editing.examples(x, 2, 1) == facts[:1]


def test_telling_again_is_counted_by_rounds(page):
    _, _, found = page
    frame = editing.traded(MICRO, found["added"])
    assert [*frame["arm"].unique()] == [f"{name}_{rounds}" for name in ("malmen", "mend") for rounds in editing.ROUNDS]
    once = frame[frame["arm"] == "malmen_1"].reset_index(drop=True)
    own = said(found["added"]).query("arm == 'malmen'").reset_index(drop=True)
    pd.testing.assert_frame_equal(once.drop(columns="arm"), own.drop(columns="arm"))


def test_every_model_is_trained_with_the_same_few_questions(page, monkeypatch):
    world, base, _ = page
    seen = []
    monkeypatch.setattr(editing.processes, "in_parallel", lambda step, calls, _: seen.append((step, calls)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        editing._judged(MICRO, world, base, {Arm(): base, Arm(reseed=1): base}, SEED, None)
    ((step, calls),) = seen
    assert step is steps.dpr
    (first, *_), (second, *_) = [call[1:] for call in calls]
    assert first.digest == second.digest == edits.asking_less(world, 40, SEED).digest
    assert [call[3] for call in calls] == [MICRO.protocol.training] * 2
    assert [call[4] for call in calls] == [SEED, SEED + 1]


def test_how_far_cls_moved_by_what_is_read(page):
    world, _, found = page
    x = found["added"]
    frame = editing.moved(x)
    assert (frame["far"][frame["arm"] == "nothing"] == 0).all()
    place = {question.id: i for i, question in enumerate(world.questions)}
    a, b = (x.after.features[arm].questions[0] for arm in ("mend", "nothing"))
    mine = frame[(frame["arm"] == "mend") & (frame["group"] != "gold")].reset_index(drop=True)
    for row, id_ in enumerate(x.before["question"][:9]):
        i = place[id_]
        assert mine["far"][row] == pytest.approx(np.linalg.norm(a[i] - b[i]) / np.linalg.norm(b[i]))
    groups = [
        "edited" if f in x.chosen.edited else "bystanders" if f in x.chosen.bystanders else "others"
        for f in x.before["fact"]
    ]
    assert mine["group"].tolist() == groups
    gold = {q.gold for q in world.questions if q.id in {*x.before["question"][x.chosen.among(x.before)[0]]}}
    assert {*frame["fact"][frame["group"] == "gold"]} == gold


def test_products_are_those_of_the_vectors(page):
    world, _, found = page
    dual = found["added"].after.duals["mend"]
    one = editing.retrieved(dual, world, MICRO.negatives, 3, SEED)
    asked = items(world, steps.mined_negatives(world, MICRO.negatives), "test", 3, SEED)
    questions = dual.questions([world.questions[i].text for i in asked.questions]).numpy()
    passages = dual.passages([(p.title, p.text) for p in world.passages]).numpy()
    expected = (passages[asked.choices] * questions[:, None]).sum(2)
    np.testing.assert_allclose(one["products"], expected, rtol=1e-4, atol=1e-5)
    all_ = questions @ passages.T
    own = np.take_along_axis(all_, asked.choices[:, :1], 1)
    at_place = np.take_along_axis(-np.sort(-all_, axis=1), one["place"][:, None], 1)
    np.testing.assert_allclose(at_place, own, rtol=1e-4, atol=1e-5)


def test_an_experiment_in_every_world(monkeypatch):
    seen = []
    monkeypatch.setattr(editing, "experiment", lambda *call: seen.append(call) or len(seen))
    chosen = MICRO.but(protocol={"worlds": 3})
    assert editing.experiments(chosen, "added", 5, "workers") == [1, 2, 3]
    assert seen == [(chosen, "added", seed, "workers") for seed in (5, 6, 7)]


def test_the_frozen_probe_is_fitted_once_and_a_reseeded_one_learns_from_other_slots(page):
    world, _, found = page
    x = found["added"]
    base, other = (x.after.features[name] for name in ("nothing", "malmen"))
    fixed = world, MICRO.negatives, MICRO.probe, "linear", (2, 3), SEED
    both = editing.probe_verdicts(base, [base, other], *fixed)
    assert (both[1] == editing.probe_verdicts(base, [other], *fixed)[0]).all()
    assert (both[0] == editing.probe_verdicts(base, [base], *fixed)[0]).all()
    assert (both[0] != editing.probe_verdicts(base, [base], *fixed, 1)[0]).any()


def test_what_is_on_record_is_what_the_experiment_made(page):
    _, _, found = page
    x = found["added"]
    kept = editing.on_record(MICRO, "added", SEED)
    plain = [arm.name for arm in arms(MICRO) if not arm.null and not arm.reseed]
    assert kept.told == x.told
    assert list(kept.encoders) == list(kept.duals) == plain
    assert all(kept.encoders[name].digest == x.after.encoders[name].digest for name in plain)
    assert all(kept.duals[name].digest == x.after.duals[name].digest for name in plain)


def test_nothing_is_edited_or_trained_to_see_what_is_on_record(page, monkeypatch, tmp_path):
    world, base, _ = page
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path))
    monkeypatch.setattr(steps, "world_of", lambda *_: world)
    monkeypatch.setattr(steps, "base_of", lambda *_: base)
    assert editing.on_record(MICRO, "added", SEED) == ((), {}, {})
    assert not [*tmp_path.glob("edited-*"), *tmp_path.glob("dpr-*")]


def test_an_edit_without_its_retriever_is_left_out(page, monkeypatch):
    record = steps.dpr.record
    unedited = editing._trainings(MICRO, page[0], {Arm(): page[1]}, SEED)[0][0].digest
    monkeypatch.setattr(
        editing.steps.dpr, "record", lambda *call: record(*call) if call[0].digest == unedited else None
    )
    assert list(editing.on_record(MICRO, "added", SEED).encoders) == ["nothing"]


def test_the_explorer_offers_the_edited_models(page):
    ground = exploring.ground(MICRO, SEED)
    plain = [arm.name for arm in arms(MICRO) if not arm.null and not arm.reseed]
    assert list(ground.models) == [exploring.PRETRAINED, exploring.DPR, *(f"DPR, {label(arm)}" for arm in plain)]
    assert {fact.id for fact in ground.told} == set(page[2]["added"].chosen.edited)
    asked = exploring.Asked(ground, ground.models["DPR, MALMEN"], exploring.default_question(ground, 5))
    assert len(asked.active(0.1))
