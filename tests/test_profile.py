"""Profiles and their knobs."""

import dataclasses

import pytest

from dprlens.closed import ClosedSpec, TextSpec
from dprlens.encoder import EncoderSpec
from dprlens.profile import PROFILES, Profile, get_profile
from dprlens.training.pretrain import PretrainSpec


def test_profiles_are_found_by_their_names(refused):
    assert {"tiny", "small", "full"} <= set(PROFILES)
    assert all(get_profile(name).name == name for name in PROFILES)
    with refused("'smal'", *PROFILES):
        get_profile("smal")


@pytest.mark.parametrize(
    ("knob", "value", "spec"),
    [("people", 30, "world"), ("single", 0.9, "text"), ("d_ff", 64, "encoder"), ("batch", 7, "pretrain")],
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
@pytest.mark.parametrize("knob", ["peopel", "name", "world"])
def test_a_knob_that_there_is_not_is_refused_even_as_none(refused, knob, value):
    with refused(repr(knob), "'tiny'", "no spec has it"):
        get_profile("tiny").but(**{knob: value})


def test_a_knob_of_two_specs_is_refused(refused):
    both = Profile("both", ClosedSpec(), ClosedSpec(), EncoderSpec(), PretrainSpec())
    with refused("'people'", "world", "text"):
        both.but(people=3)


def test_a_value_that_its_spec_refuses_is_refused(refused):
    with refused("people", "-1"):
        get_profile("tiny").but(people=-1)


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


def test_every_profile_can_be_read_as_one_spec_a_module():
    for profile in PROFILES.values():
        kinds = [type(getattr(profile, field.name)) for field in dataclasses.fields(profile)]
        assert kinds == [str, ClosedSpec, TextSpec, EncoderSpec, PretrainSpec]
        assert profile.encoder.layers % min(profile.pretrain.shallow_layers, profile.encoder.layers) == 0
    assert get_profile("small").encoder.layers == get_profile("full").encoder.layers == 12
