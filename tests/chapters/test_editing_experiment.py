"""The steps of section 4 at the smallest scale: all arms go the same way, and the null arms are null."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_setup import one_by_one

from dprlens.bert import cloze
from dprlens.bert.encoder import EncoderSpec
from dprlens.cache import parallel
from dprlens.cache.parallel import Missing, only_cached
from dprlens.chapters import editing_experiment
from dprlens.chapters.editing_experiment import (
    Arm,
    arms,
    cloze_rows,
    edit_and_train,
    experiment,
    judging_of,
    trace_fact,
)
from dprlens.consistency.probes import items
from dprlens.editing import protocol, steps
from dprlens.editing.editors import EditorSpecs, FinetuningSpec, MalmenSpec, MendSpec, PatcherSpec, RehearsalSpec
from dprlens.editing.exhibits import label
from dprlens.editing.protocol import ProtocolSpec
from dprlens.editing.steps import material
from dprlens.explorer import inspection
from dprlens.profile import get_profile
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.retrieval.steps import mined_negatives
from dprlens.setup import Setup
from dprlens.training.dpr import DPRSpec, Trained
from dprlens.training.pretrain import PretrainSpec
from dprlens.training.steps import dpr
from dprlens.world.closed import ClosedSpec, TextSpec

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


def half_recalled(setup):
    """Instead of what this network knows, which is nothing: every other fact."""
    return pd.Series({fact.id: float(i % 2) for i, fact in enumerate(setup.world.facts)})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPRLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(editing_experiment, "run", one_by_one)
        patch.setattr(editing_experiment, "_recalled", half_recalled)
        setup = Setup(MICRO, SEED)
        found = {direction: experiment(setup, direction) for direction in protocol.DIRECTIONS}
        yield setup, found


DIRECTIONS = pytest.mark.parametrize("direction", protocol.DIRECTIONS)


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
    world = page[0].world
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
    _, found = page
    x = found[direction]
    for rows in x.rows.values():
        pd.testing.assert_series_equal(rows["question"], x.plan.before["question"])
        assert not rows["in_training"].any()
        assert (rows["split"] == "test").all()
        assert {f"{what}{n}" for what in ("probe", "retrained", "match") for n in (2, 3)} <= {*rows.columns}


@DIRECTIONS
def test_no_edit_leaves_everything_as_it_was(page, direction):
    setup, found = page
    x = found[direction]
    assert x.after["nothing"].encoder.digest == setup.base.digest
    pd.testing.assert_frame_equal(x.rows["nothing"], x.plan.before)


@DIRECTIONS
def test_another_seed_is_the_same_model_trained_again(page, direction):
    setup, found = page
    rows, x = found[direction].rows["reseeded1"], found[direction]
    assert x.after["reseeded1"].encoder.digest == setup.base.digest
    assert x.after["reseeded1"].dual.digest != x.after["nothing"].dual.digest
    assert (rows["probe2"] == rows["retrained2"]).all()
    assert (rows["retrained2"] != x.plan.before["retrained2"]).any()


@DIRECTIONS
def test_every_edit_is_another_model(page, direction):
    setup, found = page
    after = found[direction].after
    digests = [one.encoder.digest for name, one in after.items() if name not in ("nothing", "reseeded1")]
    assert len({*digests, setup.base.digest}) == len(digests) + 1


@DIRECTIONS
def test_facts_are_eligible_halves_and_told_truly_or_falsely(page, direction):
    setup, found = page
    world = setup.world
    x = found[direction]
    status = np.logical_or.reduce([protocol.eligible(x.plan.before, direction, n) for n in (2, 3)])
    assert {*x.plan.chosen.edited, *x.plan.chosen.bystanders} <= {*x.plan.before["fact"][status]}
    assert tuple(fact.id for fact in x.plan.told) == x.plan.chosen.edited
    for fact in x.plan.told:
        true = world.fact[fact.id]
        assert (fact.object == true.object) == (direction == "added")
        assert fact.object in (true.object, true.alternatives[0] if true.alternatives else None)


@DIRECTIONS
def test_unrelated_facts_decide_nothing(page, direction):
    setup, found = page
    world = setup.world
    chosen = found[direction].plan.chosen
    others = editing_experiment._unrelated(setup, chosen, direction)
    ids = {fact.id for fact in others}
    assert len(ids) == len(others) == len(chosen.edited)
    assert not ids & {*chosen.edited, *chosen.bystanders}
    assert not ids & {id_ for q in world.questions if q.link for id_ in q.facts}
    assert {half_recalled(setup)[id_] for id_ in ids} == {float(direction == "removed")}


def test_a_patch_in_the_last_block_leaves_lower_layers_bit_for_bit(page):
    setup, found = page
    world = setup.world
    texts = [question.text for question in world.questions[:20]]
    layers = range(setup.base.layers)
    before = setup.base.cls_by_layer(texts, layers)
    after = found["added"].after["transformer_patcher"].encoder.cls_by_layer(texts, layers)
    assert (before == after).all()


def test_what_was_computed_is_not_computed_again(page):
    _, found = page
    with only_cached():
        again = experiment(Setup(MICRO, SEED), "added")
    for arm, rows in again.rows.items():
        pd.testing.assert_frame_equal(rows, found["added"].rows[arm])


def test_what_models_say_is_grouped(page):
    setup, found = page
    world = setup.world
    x = found["added"]
    frame = cloze_rows(x)
    assert [*frame["arm"].unique()] == [*x.rows]
    one = frame[frame["arm"] == "mend"]
    told = one[one["fact"].isin(x.plan.chosen.edited)]
    assert (told["group"] == np.where(told["reserved"], "unread", "told")).all()
    assert {*one["fact"][one["group"] == "bystanders"]} == {*x.plan.chosen.bystanders}
    assert one["reserved"][one["group"].isin(["bystanders", "neighbours", "kept"])].all()
    names = {name for fact in x.plan.told for name in (fact.subject, fact.object)}
    for group, near in (("neighbours", True), ("kept", False)):
        for id_ in one["fact"][one["group"] == group].unique():
            assert bool({world.fact[id_].subject, world.fact[id_].object} & names) == near
            assert half_recalled(setup)[id_] == 1


def test_a_fact_is_followed_through_every_arm(page, refused):
    _, found = page
    x = found["added"]
    fact = x.plan.chosen.edited[0]
    told, blank, question, frame = trace_fact(x, fact, 2)
    row = np.flatnonzero(x.plan.before["question"] == question.id)[0]
    assert x.plan.before["fact"][row] == fact
    mine = (x.plan.before["fact"] == fact) & protocol.eligible(x.plan.before, "added", 2)
    assert mine[row] or not mine.any()
    assert (told.reserved, blank.reserved) == (False, True)
    assert {told, blank} <= {s for one in x.plan.told if one.id == fact for s in one.statements}
    assert frame["arm"].tolist() == [*x.rows]
    for line in frame.itertuples():
        mine = x.rows[line.arm].loc[row]
        assert (line.probe, line.match, line.place) == (mine["probe2"], mine["match2"], mine["place"] + 1)
        (one,) = cloze.cloze(x.after[line.arm].encoder, [blank])
        assert (line.said, line.probability) == (one.said, one.probability)
    with refused(repr(x.plan.chosen.bystanders[0]), "was not edited"):
        trace_fact(x, x.plan.chosen.bystanders[0], 2)


def test_examples_are_edited_facts_those_with_an_eligible_question_first(page):
    _, found = page
    for direction, x in found.items():
        facts = editing_experiment.examples(x, 2, 99)
        assert sorted(facts) == sorted(x.plan.chosen.edited)
        status = protocol.eligible(x.plan.before, direction, 2) & x.plan.chosen.among(x.plan.before)[0]
        mine = x.plan.before[status]
        linked = {*mine["fact"][mine["kind"] == "knowledge_required"]}
        assert {*facts[: len(linked)]} == linked
        assert {*facts[: mine["fact"].nunique()]} == {*mine["fact"]}
        assert editing_experiment.examples(x, 2, 1) == facts[:1]


def test_telling_again_is_counted_by_rounds(page):
    _, found = page
    frame = editing_experiment.trade_off_rows(found["added"])
    assert [*frame["arm"].unique()] == [
        f"{name}_{rounds}" for name in ("malmen", "mend") for rounds in editing_experiment.ROUNDS
    ]
    once = frame[frame["arm"] == "malmen_1"].reset_index(drop=True)
    own = cloze_rows(found["added"]).query("arm == 'malmen'").reset_index(drop=True)
    pd.testing.assert_frame_equal(once.drop(columns="arm"), own.drop(columns="arm"))


def test_every_model_is_trained_with_the_same_few_questions(page, monkeypatch):
    setup, found = page
    seen = []
    monkeypatch.setattr(
        editing_experiment, "dpr", lambda training: seen.append(training) or Trained(training.start, None)
    )
    told = found["added"].plan.edits[Arm("mend")]
    for arm, edit in ((Arm(), None), (Arm(reseed=1), None), (Arm("mend"), told)):
        model = edit_and_train(setup, arm, edit)
        assert seen[-1].start.query.digest == seen[-1].start.passage.digest == model.encoder.digest
    assert {training.world.digest for training in seen} == {protocol.asking_less(setup.world, 40, SEED).digest}
    assert {(training.negatives, training.spec) for training in seen} == {(MICRO.negatives, MICRO.protocol.training)}
    assert [training.seed for training in seen] == [SEED, SEED + 1, SEED]
    digests = [training.start.query.digest for training in seen]
    assert digests == [setup.base.digest, setup.base.digest, found["added"].after["mend"].encoder.digest]


def test_how_far_cls_moved_by_what_is_read(page):
    setup, found = page
    world = setup.world
    x = found["added"]
    frame = editing_experiment.cls_shift_rows(x)
    assert (frame["far"][frame["arm"] == "nothing"] == 0).all()
    place = {question.id: i for i, question in enumerate(world.questions)}
    a, b = (x.after[arm].features.questions[0] for arm in ("mend", "nothing"))
    mine = frame[(frame["arm"] == "mend") & (frame["group"] != "gold")].reset_index(drop=True)
    for row, id_ in enumerate(x.plan.before["question"][:9]):
        i = place[id_]
        assert mine["far"][row] == pytest.approx(np.linalg.norm(a[i] - b[i]) / np.linalg.norm(b[i]))
    groups = [
        "edited" if f in x.plan.chosen.edited else "bystanders" if f in x.plan.chosen.bystanders else "others"
        for f in x.plan.before["fact"]
    ]
    assert mine["group"].tolist() == groups
    edited = {*x.plan.before["question"][x.plan.chosen.among(x.plan.before)[0]]}
    gold = {q.gold for q in world.questions if q.id in edited}
    assert {*frame["fact"][frame["group"] == "gold"]} == gold


def test_products_are_those_of_the_vectors(page):
    setup, found = page
    world = setup.world
    dual = found["added"].after["mend"].dual
    one = steps.rank_passages(judging_of(setup), dual)
    asked = items(world, mined_negatives(world, MICRO.negatives), "test", 3, SEED)
    questions = dual.questions([world.questions[i].text for i in asked.questions]).numpy()
    passages = dual.passages([(p.title, p.text) for p in world.passages]).numpy()
    expected = (passages[asked.choices] * questions[:, None]).sum(2)
    np.testing.assert_allclose(one.products, expected, rtol=1e-4, atol=1e-5)
    all_ = questions @ passages.T
    own = np.take_along_axis(all_, asked.choices[:, :1], 1)
    at_place = np.take_along_axis(-np.sort(-all_, axis=1), one.place[:, None], 1)
    np.testing.assert_allclose(at_place, own, rtol=1e-4, atol=1e-5)


def test_an_experiment_in_every_world(monkeypatch):
    seen = []
    monkeypatch.setattr(editing_experiment, "experiment", lambda *call: seen.append(call) or len(seen))
    first = Setup(MICRO.but(protocol={"worlds": 3}), 5)
    assert editing_experiment.experiments(first, "added", "workers") == [1, 2, 3]
    assert seen == [(Setup(first.profile, seed), "added", "workers") for seed in (5, 6, 7)]
    assert seen[0][0] is first  # what it holds already is not read again


def test_the_frozen_probe_is_fitted_once_and_a_reseeded_one_learns_from_other_slots(page):
    setup, found = page
    x = found["added"]
    base, other = (x.after[name].features for name in ("nothing", "malmen"))
    judging = replace(judging_of(setup), probe="linear", choices=(2, 3))
    both = steps.probe_verdicts(judging, base, [base, other])
    assert (both[1] == steps.probe_verdicts(judging, base, [other])[0]).all()
    assert (both[0] == steps.probe_verdicts(judging, base, [base])[0]).all()
    assert (both[0] != steps.probe_verdicts(judging, base, [base], 1)[0]).any()


@DIRECTIONS
def test_an_arm_alone_goes_the_same_way_as_in_the_experiment(page, direction):
    """Its DPR, its own probe and its ranks are those of the tables."""
    setup, found = page
    x = found[direction]
    for arm in (Arm(), Arm("malmen"), Arm("malmen", "unrelated"), Arm(reseed=1)):
        with only_cached():
            one = editing_experiment.run_arm(setup, arm, x.plan.edits[arm])
        kept = x.after[arm.name]
        assert (one.encoder.digest, one.dual.digest) == (kept.encoder.digest, kept.dual.digest)
        rows = x.rows[arm.name]
        test = [setup.part.questions[i].id for i in judging_of(setup).items("test").questions]
        shown = np.isin(test, rows["question"])
        assert [id_ for id_, there in zip(test, shown, strict=True) if there] == rows["question"].tolist()
        for i, n in enumerate((2, 3)):
            np.testing.assert_array_equal(one.verdicts[i][shown], rows[f"retrained{n}"])
        np.testing.assert_array_equal(one.retrieved.place[shown], rows["place"])


def plain() -> list[str]:
    """The arms of the paper's editors and the baselines."""
    return [arm.name for arm in arms(MICRO) if arm.edits and not arm.null]


def test_what_is_on_record_is_what_the_experiment_made(page):
    setup, found = page
    x = found["added"]
    kept = editing_experiment.on_record(setup, "added")
    assert kept.told == x.plan.told
    assert list(kept.models) == plain()
    assert all(kept.models[name].encoder.digest == x.after[name].encoder.digest for name in plain())
    assert all(kept.models[name].dual.digest == x.after[name].dual.digest for name in plain())


@pytest.mark.parametrize("held", [(), ("world", "base")])
def test_nothing_is_edited_or_trained_to_see_what_is_on_record(page, monkeypatch, tmp_path, held):
    """In other processes neither, whatever the setup holds already."""
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path))
    monkeypatch.setattr(editing_experiment, "run", parallel.run)
    monkeypatch.delattr(parallel, "ProcessPoolExecutor")
    setup = Setup(MICRO, SEED)
    vars(setup).update({name: getattr(page[0], name) for name in held})
    assert editing_experiment.on_record(setup, "added") == ((), {})
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_an_edit_without_its_retriever_is_left_out(page, monkeypatch):
    setup, found = page
    trained = found["added"].after["mend"].encoder.digest

    def one_is_missing(training):
        if training.start.query.digest == trained:
            raise Missing("dpr")
        return dpr(training)

    monkeypatch.setattr(editing_experiment, "dpr", one_is_missing)
    kept = editing_experiment.on_record(setup, "added")
    assert list(kept.models) == [name for name in plain() if name != "mend"]
    assert kept.told == found["added"].plan.told


def test_the_explorer_offers_the_edited_models(page):
    ground = inspection.ground(Setup(MICRO, SEED))
    assert list(ground.models) == [inspection.PRETRAINED, inspection.DPR, *(f"DPR, {label(arm)}" for arm in plain())]
    assert {fact.id for fact in ground.told} == set(page[1]["added"].plan.chosen.edited)
    asked = inspection.Inspection(ground, ground.models["DPR, MALMEN"], inspection.default_question(ground, 5))
    assert len(asked.active(0.1))
