"""Profiles and their knobs."""

import dataclasses

import pytest

from dprlens.bert.encoder import EncoderSpec
from dprlens.bert.pretrained import ModelsSpec
from dprlens.consistency.probes import ProbeSpec, ProbingSpec
from dprlens.decentralization.active_neurons import ActivitySpec, SampleSpec
from dprlens.decentralization.attribution import AttributionSpec
from dprlens.editing.editors import EditorSpecs
from dprlens.editing.protocol import ProtocolSpec
from dprlens.knowledge_bound.exhibits import BoundSpec
from dprlens.knowledge_bound.steps import TOLD
from dprlens.late_facts.exhibits import LateSpec
from dprlens.profile import PROFILES, SPECS, get_profile
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.training.dpr import PAPER, DPRSpec
from dprlens.training.pretrain import PretrainSpec
from dprlens.world.closed import ClosedSpec, TextSpec, make_world
from dprlens.world.natural import NaturalSpec


def test_profiles_are_found_by_their_names(refused):
    assert {"tiny", "small", "full", "paper"} <= set(PROFILES)
    assert all(get_profile(name).name == name for name in PROFILES)
    with refused("'smal'", *PROFILES):
        get_profile("smal")


@pytest.mark.parametrize(
    ("knob", "value", "spec"),
    [
        ("people", 30, "world"),
        ("single", 0.9, "text"),
        ("d_ff", 64, "encoder"),
        ("random_mask", 0.3, "pretrain"),
        ("per_question", 3, "negatives"),
        ("epochs", 9, "dpr"),
        ("shallow_size", 0.3, "bound"),
    ],
)
def test_but_turns_one_knob_and_no_other(knob, value, spec):
    tiny = get_profile("tiny")
    turned = tiny.but(**{knob: value})
    assert getattr(getattr(turned, spec), knob) == value
    assert turned == dataclasses.replace(tiny, **{spec: dataclasses.replace(getattr(tiny, spec), **{knob: value})})
    assert getattr(getattr(get_profile("tiny"), spec), knob) != value


def test_but_turns_several_knobs_of_one_spec_and_leaves_what_is_none():
    tiny = get_profile("tiny")
    turned = tiny.but(people=30, films=11, cities=None, held_out=0.0)
    world = turned.world
    assert (world.people, world.films, world.cities, world.held_out) == (30, 11, tiny.world.cities, 0.0)
    assert tiny.but(people=None) == tiny == tiny.but()


@pytest.mark.parametrize("value", [None, 3])
@pytest.mark.parametrize("knob", ["peopel", "name", "world", "dpr"])
def test_a_knob_that_there_is_not_is_refused_even_as_none(refused, knob, value):
    with refused(repr(knob), "'tiny'", "no spec has it"):
        get_profile("tiny").but(**{knob: value})


@pytest.mark.parametrize("value", [None, 7])
@pytest.mark.parametrize(("knob", "owners"), [("batch", "pretrain, dpr"), ("shallow_layers", "pretrain, bound")])
def test_a_knob_of_two_specs_is_refused_by_its_bare_name(refused, knob, owners, value):
    with refused(repr(knob), "'tiny'", f"more than one spec has it ({owners})"):
        get_profile("tiny").but(**{knob: value})


def test_a_knob_of_two_specs_is_turned_through_its_spec():
    tiny = get_profile("tiny")
    turned = tiny.but(dpr={"learning_rate": 0.5, "batch": None})
    assert turned == dataclasses.replace(tiny, dpr=dataclasses.replace(tiny.dpr, learning_rate=0.5))
    assert turned.pretrain.learning_rate == tiny.pretrain.learning_rate != 0.5
    assert tiny.but(dpr={"learning_rate": None}) == tiny.but(dpr={}) == tiny
    both = tiny.but(dpr={"batch": 7}, pretrain={"batch": 5, "threads": 2}, epochs=9)
    assert (both.dpr.batch, both.dpr.epochs, both.pretrain.batch, both.pretrain.threads) == (7, 9, 5, 2)


@pytest.mark.parametrize("value", [None, 3])
def test_a_knob_that_its_spec_does_not_have_is_refused(refused, value):
    with refused("'learning_rat'", "dpr", "'tiny'"):
        get_profile("tiny").but(dpr={"learning_rat": value})


def test_a_value_that_its_spec_refuses_is_refused(refused):
    with refused("people", "-1"):
        get_profile("tiny").but(people=-1)
    with refused("learning_rate", "-1"):
        get_profile("tiny").but(dpr={"learning_rate": -1.0})


def test_profiles_are_frozen_and_can_be_keys():
    tiny = get_profile("tiny")
    assert len({*PROFILES.values(), tiny.but(people=30), tiny}) == len(PROFILES) + 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.name = "small"
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.world.people = 3


def test_a_list_from_papermill_is_taken_as_a_tuple():
    """`papermill -y "{low_doses: [1, 5]}"` hands over a list; the profile must still be a key, and the same one."""
    turned = get_profile("tiny").but(low_doses=[1, 5])
    assert hash(turned) == hash(get_profile("tiny").but(low_doses=(1, 5)))
    turned = get_profile("tiny").but(world={"low_doses": [1, 5]})
    assert hash(turned) == hash(get_profile("tiny").but(low_doses=(1, 5)))


def test_every_profile_can_be_read_as_one_spec_a_module():
    expected = [ModelsSpec, TextSpec, EncoderSpec, PretrainSpec, NegativesSpec, DPRSpec, BoundSpec]
    expected += [ProbeSpec, ProbingSpec, SampleSpec, AttributionSpec, ActivitySpec, ProtocolSpec, EditorSpecs, LateSpec]
    ground = ("world", "models", "text", "encoder", "pretrain", "negatives", "dpr")
    methods = ("bound", "probe", "probing", "sample", "attribution", "activity", "protocol", "editors", "late")
    assert (*ground, *methods) == SPECS
    for profile in PROFILES.values():
        kinds = [type(getattr(profile, name)) for name in SPECS]
        assert kinds == [NaturalSpec if profile.name == "paper" else ClosedSpec, *expected]
        for layers in (profile.encoder.layers, profile.bound.shallow_layers):
            assert layers % min(profile.pretrain.shallow_layers, layers) == 0
    assert get_profile("small").encoder.layers == get_profile("full").encoder.layers == 12


def test_full_is_small_with_more_models():
    """What is on record for `full` is about the models that the book shows: the first of each are the same."""
    small, full = get_profile("small"), get_profile("full")
    fewer = {name: getattr(small, name) for name in ("bound", "probing", "activity", "protocol", "editors", "late")}
    assert dataclasses.replace(full, name="small", **fewer) == small
    assert dataclasses.replace(full.activity, worlds=1, dpr_seeds=1) == small.activity
    assert dataclasses.replace(full.probing, worlds=1) == small.probing
    assert small.editors == dataclasses.replace(
        full.editors,
        finetuning=dataclasses.replace(full.editors.finetuning, learning_rate=6e-4, epochs=10),
        malmen=dataclasses.replace(full.editors.malmen, steps=30),
        mend=dataclasses.replace(full.editors.mend, steps=30),
    )
    for arms in ("deep_arms", "shallow_arms"):
        fewer, more = dict(getattr(small.bound, arms)), dict(getattr(full.bound, arms))
        assert all(more[told] >= n for told, n in fewer.items())
    assert set(small.bound.grid) < set(full.bound.grid)
    assert full.bound.shallow_size == small.bound.shallow_size


def test_the_real_setting_is_the_papers(monkeypatch, tmp_path):
    paper = get_profile("paper")
    assert paper.dpr == paper.protocol.training == PAPER
    assert paper.protocol.facts == 284
    assert (paper.encoder.layers, paper.encoder.d_model, paper.encoder.max_length) == (12, 768, 256)
    assert paper.controlled == get_profile("small")
    assert all(get_profile(name).controlled == get_profile(name) for name in ("tiny", "small", "full"))
    monkeypatch.setenv("DPRLENS_DATA", str(tmp_path))
    assert get_profile("paper").world.folder == str(tmp_path)


CLOSED = {name: profile.controlled for name, profile in PROFILES.items()}


@pytest.mark.parametrize("profile", CLOSED.values(), ids=CLOSED)
def test_the_causal_test_of_a_profile_has_all_that_its_page_compares(profile):
    deep, shallow = dict(profile.bound.deep_arms), dict(profile.bound.shallow_arms)
    assert set(deep) <= set(TOLD) == set(shallow)
    assert deep["true"] == deep["nothing"] >= 1  # questions of one world are paired
    assert shallow["true"] == shallow["nothing"] >= 2  # a mean over seeds needs two
    assert 1 <= shallow["false"] <= shallow["true"]
    assert profile.bound.shallow_layers < profile.encoder.layers
    smaller = {profile.bound.shallow_size, *(size for size, _ in profile.bound.grid if size < 1)}
    for size in smaller:  # small worlds may have too few facts for all doses
        assert make_world(profile.world.scaled(size), 0).questions


OWN = """
experiments = "tiny"
[world]
mode = "skip"
[bound]
grid = [[1.0, 0.5]]
[attribution]
tolerance = 1
[protocol]
choices = [2, 3]
training = {epochs = 4}
[models]
published = {query = "other", pooling = "mean"}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """`own(text)` puts a profile.toml into the data folder."""
    monkeypatch.setenv("DPRLENS_DATA", str(tmp_path))
    return (tmp_path / "profile.toml").write_text


def test_the_data_folder_turns_knobs_of_the_real_setting_alone(own):
    before = get_profile("paper")
    own(OWN)
    after = get_profile("paper")
    expected = before.but(mode="skip", grid=((1.0, 0.5),), tolerance=1.0, choices=(2, 3))
    expected = dataclasses.replace(
        expected,
        experiments="tiny",
        protocol=dataclasses.replace(expected.protocol, training=dataclasses.replace(PAPER, epochs=4)),
        models=dataclasses.replace(
            expected.models, published=dataclasses.replace(expected.models.published, query="other", pooling="mean")
        ),
    )
    assert dataclasses.replace(after, turned=()) == expected
    assert hash(after) != hash(before)
    assert after.turned[:2] == ("experiments = tiny", "world.mode = skip")
    assert "protocol.training.epochs = 4" in after.turned
    assert after.controlled == PROFILES["tiny"] == get_profile("tiny")
    assert before.turned == get_profile("small").turned == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("experiments = 'tinny'", ("tinny",)),
        ("name = 'mine'", ("'name'", "experiments")),
        ("[wordl]", ("'wordl'", "world")),
        ("[dpr]\nepoch = 3", ("DPRSpec", "'epoch'", "epochs")),
        ("[dpr]\nepochs = 'three'", ("epochs", "'three'", "40")),
        ("[dpr]\nepochs = true", ("epochs", "True")),
        ("[dpr]\nepochs = 0", ("epochs = 0",)),
        ("dpr = 3", ("dpr", "table")),
        ("[dpr.epochs]", ("epochs", "table")),
        ("[world", ("profile.toml",)),
    ],
)
def test_what_a_profile_cannot_be_told_is_refused(own, refused, text, words):
    own(text)
    with refused("profile.toml", *words):
        get_profile("paper")
