"""The steps that all chapters start from: made once for the same arguments, and again for others; and setups."""

import pickle
from dataclasses import replace

import pytest
from small_setup import DPR, LINKED, MICRO, NEGATIVES, SEED, SHAPE, TEXT, TRAIN

from dprlens import setup as module
from dprlens.bert.cloze import cloze_recall
from dprlens.bert.encoder import DualEncoder
from dprlens.cache.parallel import Missing, only_cached
from dprlens.real_setting import commands
from dprlens.real_setting.commands import train_in_group
from dprlens.setup import Setup
from dprlens.training import steps as training_steps
from dprlens.training.dpr import Trained
from dprlens.training.steps import Training, base_model, dpr
from dprlens.world.closed import ClosedSpec, TextSpec
from dprlens.world.steps import closed_world

pytestmark = pytest.mark.slow

WORLD = ClosedSpec(0, 6, 0, 0, relations=("river",), exposures=8, low_doses=())


@pytest.fixture(scope="module")
def made(cache):
    assert cache
    world = closed_world(WORLD, 0)
    return world, base_model(world, TEXT, SHAPE, TRAIN, 0)


def test_the_second_call_comes_from_the_cache(cache, made):
    _, states = cache
    world, model = made
    found = cloze_recall(model, world)
    states()
    again = closed_world(WORLD, 0)
    model_again = base_model(again, TEXT, SHAPE, TRAIN, 0)
    assert cloze_recall(model_again, again).equals(found)
    assert states() == [(name, "cached") for name in ("closed_world", "base_model", "cloze_recall")]
    assert (again, again.digest, model_again.digest) == (world, world.digest, model.digest)


@pytest.mark.parametrize("change", ["world", "text", "shape", "spec", "seed"])
def test_whatever_goes_in_is_in_the_key_of_the_base_model(cache, made, change):
    root, states = cache
    arguments = {"world": made[0], "text": TEXT, "shape": SHAPE, "spec": TRAIN, "seed": 0}
    first = made[0].facts[0]
    other = {
        "world": replace(made[0], facts=(first._replace(alternatives=first.alternatives[:1]), *made[0].facts[1:])),
        "text": TextSpec(remarks=2),
        "shape": replace(SHAPE, d_ff=24),
        "spec": replace(TRAIN, batch=9),
        "seed": 1,
    }
    before = len(list(root.glob("base_model-*")))
    states()
    base_model(**arguments | {change: other[change]})
    assert states() == [("base_model", "made")]
    assert len(list(root.glob("base_model-*"))) == before + 1


def test_an_unrelated_world_is_another_world(cache):
    _, states = cache
    states()
    one, two = closed_world(WORLD, 8), closed_world(WORLD, 9)
    assert one.digest != two.digest
    assert states() == [("closed_world", "made")] * 2


def test_a_model_knows_all_words_of_the_world_and_its_text(made):
    world, model = made
    for shown in world.texts():
        assert not [piece for piece in model.tokenizer.tokenize(shown) if piece == "[UNK]" or piece.startswith("##")]


# --- one profile and seed ---


@pytest.fixture(scope="module")
def micro(cache):
    """A setup whose DPR is trained."""
    assert cache
    setup = Setup(MICRO, SEED)
    assert setup.trained
    return setup


@pytest.mark.usefixtures("micro")
def test_a_setup_makes_nothing_until_it_is_asked_and_reads_each_thing_once(cache):
    _, states = cache
    states()
    setup = Setup(MICRO, SEED)
    assert states() == []
    first = [setup.dpr.digest, setup.world, setup.negatives, setup.base.digest, setup.training]
    assert states() == [(name, "cached") for name in ("closed_world", "base_model", "dpr", "mined_negatives")]
    assert [setup.dpr.digest, setup.world, setup.negatives, setup.base.digest, setup.training] == first
    assert states() == []


def test_a_setup_has_what_the_steps_make_of_its_profile(micro):
    world = closed_world(LINKED, SEED)
    base = base_model(world, TEXT, SHAPE, TRAIN, SEED)
    assert (micro.world.digest, micro.base.digest) == (world.digest, base.digest)
    assert micro.part is micro.world
    trained = dpr(Training(DualEncoder(base, base), world, NEGATIVES, DPR, SEED))
    assert micro.dpr.digest == trained.dual.digest
    assert [*micro.negatives] == [question.id for question in world.questions]
    assert micro.notes() == []  # of a generated world


def test_another_process_finds_what_this_one_made_by_a_setup(micro):
    """Whatever of it this process holds already."""
    for setup in (micro, Setup(MICRO, SEED)):
        received = pickle.loads(pickle.dumps(setup))
        with only_cached():
            assert received == micro
            assert received.world.digest == micro.world.digest
            assert received.dpr.digest == micro.dpr.digest


def test_a_setup_of_another_seed_is_another_world(micro):
    assert replace(micro, seed=SEED + 1).world.digest != micro.world.digest


def test_a_dpr_that_is_not_trained_is_not_trained_on_the_way(cache, micro, refused):
    _, states = cache
    assert Setup(MICRO, SEED).require_dpr().digest == micro.dpr.digest
    states()
    with refused("'micro'", "not trained yet", "dprlens train"):
        Setup(replace(MICRO, dpr=replace(DPR, clip=0.7)), SEED).require_dpr()
    assert {state for _, state in states()} == {"cached"}


@pytest.mark.parametrize("shuffled", [False, True])
def test_dpr_sees_training_and_dev_questions_and_the_control_their_passages_in_disorder(micro, monkeypatch, shuffled):
    seen = []
    monkeypatch.setattr(training_steps, "train_dpr", lambda _, *sets_and_more: seen.append(sets_and_more))
    world = replace(
        micro.world, questions=tuple(q._replace(split=q.split.replace("test", "dev")) for q in micro.world.questions)
    )
    dpr.__wrapped__(Training("start", world, NEGATIVES, DPR, SEED), shuffled)
    ((train, dev, *more),) = seen
    assert more == [DPR, SEED, None]
    gold = {question.text: world.passage[question.gold] for question in world.questions}
    for split, examples in (("train", train), ("dev", dev)):
        asked = [question.text for question in world.questions if question.split == split]
        assert sorted(example.question for example in examples) == sorted(asked)
        own = [gold[example.question][1:3] == example.positive for example in examples]
        assert sum(own) < len(own) / 2 if shuffled else all(own)
        assert sorted(example.positive for example in examples) == sorted(gold[text][1:3] for text in asked)
        assert any(example.negatives for example in examples)


# --- DPR on several processes ---


class Recorder:
    """A step that is or is not in the cache, and what was done with it."""

    def __init__(self, cached: bool) -> None:
        self.cached, self.made = cached, []

    def __call__(self, *arguments):
        self.made.append(("kept", *arguments))

    def __wrapped__(self, *arguments):
        self.made.append(("made", *arguments))

    def record(self, *arguments):
        self.asked = arguments
        return {"seconds": 1.0} if self.cached else None


@pytest.mark.parametrize(("rank", "done"), [(0, "kept"), (1, "made")])
def test_in_a_group_all_processes_train_and_the_first_keeps_it(monkeypatch, rank, done):
    """Others call the function under the step: a cached one would wait for the first one's lock, and it for them."""
    dpr = Recorder(cached=False)
    monkeypatch.setattr(commands, "dpr", dpr)
    monkeypatch.setattr(module, "closed_world", lambda *of: ("world", *of))
    monkeypatch.setattr(module, "base_model", lambda *of: ("base", *of))
    monkeypatch.setattr(commands.processes, "rank", lambda: rank)
    train_in_group(Setup(MICRO, 5))
    world = "world", LINKED, 5
    base = "base", world, TEXT, SHAPE, TRAIN, 5
    training = Training(DualEncoder(base, base), world, NEGATIVES, DPR, 5)
    assert dpr.asked == (training,)
    assert dpr.made == [(done, training)]


@pytest.mark.parametrize(("cached", "agreed", "trains"), [(True, None, 0), (True, True, 1), (False, False, 0)])
def test_in_a_group_the_first_processs_cache_decides(monkeypatch, cached, agreed, trains):
    """All or none must train, even where one of them already sees what another has just finished."""
    dpr = Recorder(cached)
    monkeypatch.setattr(commands, "dpr", dpr)
    monkeypatch.setattr(module, "closed_world", lambda *_: "world")
    monkeypatch.setattr(module, "base_model", lambda *_: "base")
    if agreed is not None:
        monkeypatch.setattr(commands.processes, "share_first", lambda _: agreed)
    train_in_group(Setup(MICRO, 5))
    assert len(dpr.made) == trains


def test_what_a_group_made_is_found_by_the_book(cache, micro):
    _, states = cache
    once_more = Setup(replace(MICRO, dpr=replace(DPR, clip=1.0)), SEED)
    states()
    train_in_group(once_more)
    assert ("dpr", "made") in states()
    trained = dpr(Training(micro.start, micro.world, NEGATIVES, once_more.profile.dpr, SEED))
    assert isinstance(trained, Trained)
    states()
    train_in_group(Setup(once_more.profile, SEED))
    assert states() == [("closed_world", "cached"), ("base_model", "cached")]


@pytest.mark.usefixtures("cache")
def test_where_nothing_is_made_a_setup_without_its_world_is_missing():
    with only_cached(), pytest.raises(Missing, match="closed_world"):
        _ = Setup(MICRO, SEED + 77).base
