"""One small world, its text and an untrained encoder, made once for all tests; and a cache and a page for steps."""

import contextlib
import json
import re
import signal
from types import SimpleNamespace

import pytest
import torch
from small_setup import PAGE, SEED

from dprlens.bert.encoder import Encoder, EncoderSpec, new_model, random_bert, reinitialise
from dprlens.bert.vocabulary import make_tokenizer, vocabulary
from dprlens.editing.protocol import with_object
from dprlens.setup import Setup
from dprlens.world.closed import ClosedSpec, TextSpec, make_world, segments

SPEC = ClosedSpec(
    people=24, cities=8, companies=8, films=10, exposures=40, low_doses=(2, 7), low_dose_share=0.1, train_held_out=0.4
)
SHAPE = EncoderSpec(layers=3, d_model=32, d_ff=64, heads=2, max_length=40)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _interruptible():
    """Ctrl-C reaches what the tests start, even if they were started by a shell that has it ignored (a job behind &).

    The product does not do so: who puts a run into the background wants no Ctrl-C of the terminal to end it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def spec():
    return SPEC


@pytest.fixture(scope="session")
def world():
    return make_world(SPEC, seed=3)


@pytest.fixture(scope="session")
def text(world):
    return segments(world, TextSpec(remarks=3), seed=3)


@pytest.fixture(scope="session")
def tokenizer(world):
    return make_tokenizer(vocabulary(world.texts()))


@pytest.fixture(scope="session")
def encoder(tokenizer):
    return Encoder(tokenizer, random_bert(tokenizer, SHAPE, seed=1), device="cpu")


@pytest.fixture(scope="session")
def toy(encoder):
    """The encoder with weights so large that it is not nearly linear."""
    model = new_model(encoder.model.config, seed=5)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() == 2 and ".layer." in name:
                weights *= 8
    return Encoder(encoder.tokenizer, model, device="cpu")


@pytest.fixture(scope="session")
def practice(world):
    """Known facts of split train, each told with two false objects."""
    known = [fact for fact in world.facts if fact.split == "train" and world.state(fact.id) == "known"]
    return [with_object(fact, other) for fact in known[:10] for other in fact.alternatives[:2]]


@pytest.fixture(scope="session")
def kept(world):
    """Statements that editors are to leave alone."""
    return [fact.statements[0] for fact in world.facts if fact.split == "test"][:24]


@pytest.fixture
def refused():
    """`with refused("people", "-1"):` expects a ValueError of one sentence in which these words stand."""

    @contextlib.contextmanager
    def expect(*words, error=ValueError):
        with pytest.raises(error) as caught:
            yield
        message = str(caught.value)
        assert isinstance(caught.value, error)
        assert message
        assert "\n" not in message
        assert not re.search(r"\. [A-Z]", message), f"more than one sentence: {message}"
        assert len(message) < 400
        for word in words:
            assert word in message, f"{word!r} is not in {message!r}"

    return expect


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
def page(cache):
    """A setup, its world and networks, and the hard negatives of its questions."""
    assert cache
    setup = Setup(PAGE, SEED)
    random = {f"random{i}": reinitialise(setup.base, SEED + i) for i in range(2)}
    networks = {"base": setup.base, "query": setup.dpr.query, "passage": setup.dpr.passage, **random}
    return SimpleNamespace(setup=setup, world=setup.world, networks=networks, mined=setup.negatives)
