"""One small world, its text and an untrained encoder, made once for all tests."""

import contextlib
import re

import pytest
import torch

from dprlens.closed import ClosedSpec, TextSpec, make_world, segments
from dprlens.encoder import Encoder, EncoderSpec, random_bert
from dprlens.tokens import make_tokenizer, vocabulary

SPEC = ClosedSpec(
    people=24, cities=8, companies=8, films=10, exposures=40, low_doses=(2, 7), low_dose_share=0.1, train_held_out=0.4
)
SHAPE = EncoderSpec(layers=3, d_model=32, d_ff=64, heads=2, max_length=40)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


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
