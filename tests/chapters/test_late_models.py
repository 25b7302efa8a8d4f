"""The models of the chapter on late facts at a size of seconds: who reads what, and what is kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_setup import one_by_one

from dprlens.bert.cloze import cloze
from dprlens.bert.encoder import EncoderSpec
from dprlens.cache.parallel import only_cached
from dprlens.chapters import late_models
from dprlens.knowledge_bound import exhibits as bound
from dprlens.late_facts import exhibits as late
from dprlens.late_facts import steps
from dprlens.late_facts.exhibits import ARMS, NEVER, LateSpec
from dprlens.late_facts.steps import Entering, LateTelling
from dprlens.profile import get_profile
from dprlens.training.dpr import DPRSpec
from dprlens.training.pretrain import PretrainSpec
from dprlens.world.closed import ClosedSpec, TextSpec
from dprlens.world.closed.entry import AFTER, deal_entries, under_study

pytestmark = pytest.mark.slow

CHOSEN = replace(
    get_profile("tiny"),
    world=ClosedSpec(12, 6, 0, 0, relations=("born_in", "river"), exposures=6, low_doses=(2,), train=0.4, held_out=0.2),
    text=TextSpec(remarks=1),
    encoder=EncoderSpec(layers=3, d_model=16, d_ff=16, heads=2, max_length=64),
    pretrain=PretrainSpec(shallow_layers=1, batch=8, muon="float32"),
    dpr=DPRSpec(epochs=1, batch=8, warm_up_steps=1, learning_rate=1e-2),
    late=LateSpec(layers=2, size=1.0, points=(0.0, 0.5), deals=2, constant=1, arms=("plain", "opened")),
)
SPEC = CHOSEN.late
SEED = 0


def with_late(**knobs):
    """The profile with other knobs of the chapter."""
    return replace(CHOSEN, late=replace(SPEC, **knobs))


@pytest.fixture(scope="module", autouse=True)
def _one_after_the_other(tmp_path_factory):
    """A cache of our own, and no further processes, which take seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPRLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(late_models, "run", one_by_one)
        yield


@pytest.fixture(scope="module")
def setup():
    return late_models.setup_of(CHOSEN, SEED)


@pytest.fixture(scope="module")
def world(setup):
    return setup.world


@pytest.fixture(scope="module")
def rows():
    return late_models.by_entry(CHOSEN, SEED)


@pytest.fixture(scope="module")
def told():
    return late_models.by_telling(CHOSEN, SEED)


def test_the_world_has_its_own_size_and_no_low_doses(world):
    assert {world.state(fact.id) for fact in world.facts} == {"known", "held out"}
    assert len(late_models.setup_of(with_late(size=2.0), SEED).world.facts) > 1.5 * len(world.facts)


def test_each_deal_is_a_model_and_the_first_ones_also_have_constant_rates(rows):
    assert {*zip(rows["rates"], rows["model"], strict=True)} == {("falling", 0), ("falling", 1), ("constant", 0)}
    assert len(rows) == 3 * rows["question"].nunique()
    assert not rows[[*bound.WORLD, "fact", "recalled", "kept", "place"]].isna().any(axis=None)


def test_rows_are_questions_through_facts_under_study_or_held_out_with_their_entry(rows, world):
    facts = under_study(world)
    for turn in range(2):
        deal = deal_entries(world, facts, (0.0, 0.5, AFTER), turn, SEED)
        for row in rows[rows["model"] == turn].itertuples():
            assert row.entry == (NEVER if world.held_out(row.fact) else deal[row.fact])
    assert {*rows["entry"]} == {NEVER, 0.0, 0.5, AFTER}
    trained = {id_ for question in world.questions if question.split == "train" for id_ in question.facts}
    assert not trained & {*rows["fact"]}


def test_places_are_among_the_passages(rows, told, world):
    for frame in (rows, told):
        assert frame["place"].between(0, len(world.passages) - 1).all()
        assert frame["place"].nunique() > 2


def test_worlds_are_counted_from_the_seed_of_the_page(rows):
    both = late_models.by_entry(with_late(worlds=2), SEED)
    assert {*both["seed"]} == {SEED, SEED + 1}
    same = both[both["seed"] == SEED].reset_index(drop=True)
    assert same.drop(columns="entry").equals(rows.drop(columns="entry").astype(same.drop(columns="entry").dtypes))


def weights(encoder):
    return {name: w.numpy() for name, w in encoder.model.state_dict().items()}


@pytest.mark.usefixtures("rows")
def test_every_knob_of_the_order_makes_another_model(setup, world):
    order = SPEC.points, SPEC.learning_rate, SPEC.rehearsal, True, 0, SEED
    task = Entering(world, CHOSEN.text, setup.profile.encoder, setup.profile.pretrain, *order)
    with only_cached():
        first = steps.entered(task)  # as the chapter asks for it
    assert first.layers == SPEC.layers
    others = {"falling": False, "turn": 1, "points": (0.0, 0.25), "learning_rate": 1e-2, "rehearsal": 0.0}
    for knob, value in others.items():
        assert steps.entered(replace(task, **{knob: value})).digest != first.digest, knob


def test_arms_and_references_are_judged_on_questions_through_facts_under_study(told, world):
    facts = {fact.id for fact in under_study(world)}
    by_arm = {arm: {*found["question"]} for arm, found in told.groupby("arm")}
    assert [*told["arm"].unique()] == ["never", "start", "plain", "opened"]
    assert by_arm["never"] == by_arm["start"] == by_arm["plain"]
    assert {*told["fact"]} <= facts
    assert set() < by_arm["opened"] < by_arm["plain"]
    asked_through = {fact.id for fact in under_study(world)[::2]}
    assert not asked_through & {*told[told["arm"] == "opened"]["fact"]}
    assert late.arm_difference(told, "opened", "plain", 20) is not None


def test_only_the_parts_that_an_arm_names_are_changed():
    models = late_models.told_models(late_models.setup_of(with_late(arms=("plain", "second_block")), SEED))
    before, all_, second = (weights(models[name]) for name in ("never", "plain", "second_block"))
    changed = {name for name in before if not np.array_equal(before[name], second[name])}
    assert changed
    assert all("encoder.layer.1." in name for name in changed)
    assert {name.split(".")[1] for name in before if not np.array_equal(before[name], all_[name])} >= {
        "embeddings",
        "encoder",
    }


def test_references_have_one_tokenizer_and_the_arms_learn_at_their_own_rate(setup, world):
    models = late_models.told_models(setup)
    assert models["never"].tokenizer.get_vocab().keys() == models["start"].tokenizer.get_vocab().keys()
    assert models["never"].digest != models["start"].digest
    assert torch.get_num_threads() == 1
    reading = CHOSEN.text, ARMS["plain"].telling, replace(CHOSEN.pretrain, shallow_layers=2)
    task = LateTelling(models["never"], world, *reading, 1e-5, 1.0, (), False, SEED)
    slow, fast = (steps.told_late(replace(task, learning_rate=rate)) for rate in (1e-5, 1e-2))
    start = models["never"].bert.embeddings.word_embeddings.weight
    moved = [(m.bert.embeddings.word_embeddings.weight - start).abs().max().item() for m in (slow, fast)]
    assert 0 < moved[0] < moved[1]


def test_attribution_is_asked_for_each_fact_and_block(world):
    rows = late_models.by_block(CHOSEN, SEED)
    facts = under_study(world)
    assert len(rows) == SPEC.deals * SPEC.layers * len(facts)
    assert {*rows["block"]} == {0, 1}
    assert np.allclose(rows.groupby(["model", "fact"])["share"].sum(), 1)
    deal = deal_entries(world, facts, (0.0, 0.5, AFTER), 1, SEED)
    second = rows[rows["model"] == 1]
    assert dict(zip(second["fact"], second["entry"], strict=True)) == deal


def test_patched_networks_are_the_one_at_one_end_and_the_other_at_the_other(setup, world):
    """A network patched into itself is itself; with all blocks from another, only the head is left of it."""
    models = late_models.told_models(setup)
    into, other = models["never"], models["plain"]
    first = [fact.statements[0] for fact in under_study(world)]
    own = [answer.recalled for answer in cloze(other, first)]
    assert steps.patch_answers(other, other, world).tolist() == [own] * 3
    found = steps.patch_answers(into, other, world)
    assert found.shape == (3, len(first))
    assert found.dtype == bool
