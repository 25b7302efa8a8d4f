"""The cached steps: computed once for the same arguments, and again for others."""

import json
from dataclasses import replace

import pytest

from dprlens import steps
from dprlens.closed import ClosedSpec, TextSpec
from dprlens.encoder import EncoderSpec
from dprlens.training.pretrain import PretrainSpec

WORLD = ClosedSpec(0, 6, 0, 0, relations=("river",), exposures=8, low_doses=())
TEXT = TextSpec(remarks=1)
SHAPE = EncoderSpec(layers=1, d_model=16, d_ff=16, heads=2, max_length=64)
TRAIN = PretrainSpec(shallow_layers=1, batch=8, threads=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The folder of a cache, and a function: the states ("made", "cached", …) of the steps since its last call."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("cache")
        events = root / "events.jsonl"
        patch.setenv("DPRLENS_CACHE", str(root))
        patch.setenv("DPRLENS_EVENTS", str(events))

        def states():
            lines = events.read_text(encoding="utf-8").splitlines() if events.exists() else []
            events.unlink(missing_ok=True)
            told = [json.loads(line) for line in lines]
            return [(t["name"], t["state"]) for t in told if t["event"] == "step" and t["state"] != "start"]

        yield root, states


@pytest.fixture(scope="module")
def made(cache):
    assert cache
    world = steps.closed_world(WORLD, 0)
    return world, steps.base_model(world, TEXT, SHAPE, TRAIN, 0)


def test_the_second_call_comes_from_the_cache(cache, made):
    _, states = cache
    world, model = made
    found = steps.cloze_recall(model, world)
    states()
    again = steps.closed_world(WORLD, 0)
    model_again = steps.base_model(again, TEXT, SHAPE, TRAIN, 0)
    assert steps.cloze_recall(model_again, again).equals(found)
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
    steps.base_model(**arguments | {change: other[change]})
    assert states() == [("base_model", "made")]
    assert len(list(root.glob("base_model-*"))) == before + 1


def test_an_unrelated_world_is_another_world(cache):
    _, states = cache
    states()
    one, two = steps.closed_world(WORLD, 8), steps.closed_world(WORLD, 9)
    assert one.digest != two.digest
    assert states() == [("closed_world", "made")] * 2


def test_a_model_knows_all_words_of_the_world_and_its_text(made):
    world, model = made
    for shown in world.texts():
        assert not [piece for piece in model.tokenizer.tokenize(shown) if piece == "[UNK]" or piece.startswith("##")]
