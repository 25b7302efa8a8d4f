"""Muon in float32 against PyTorch's and against its formula; and which precision a step takes on which machine."""

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from dprlens.cache import artifacts, events
from dprlens.cache.artifacts import LATER, Task, digest, step
from dprlens.editing.editors import RehearsalSpec
from dprlens.editing.steps import Edit, edit_model
from dprlens.knowledge_bound.steps import Making, causal_arm
from dprlens.late_facts.steps import Entering, LateTelling, entered, told_late
from dprlens.profile import FULL, SMALL, TINY
from dprlens.training import muon
from dprlens.training.muon import Muon, in_quick_precision, orthogonal
from dprlens.training.pretrain import PretrainSpec
from dprlens.training.steps import base_model
from dprlens.world.closed import with_false_links
from dprlens.world.steps import closed_world

SHAPES = ((16, 16), (48, 16), (16, 48))


def matrices(seed, dtype=torch.float32):
    drawn = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=drawn, dtype=torch.float64).to(dtype) for shape in SHAPES]


def trained(optimiser, start, steps_=4):
    """The weights after some steps by gradients that are the same for every optimiser."""
    weights = [torch.nn.Parameter(one.clone()) for one in start]
    taken = optimiser(weights)
    for i in range(steps_):
        for one, gradient in zip(weights, matrices(100 + i, start[0].dtype), strict=True):
            one.grad = gradient
        taken.step()
    return [one.detach() for one in weights]


def test_the_update_is_that_of_pytorch_up_to_rounding_in_bfloat16():
    start = matrices(0)
    ours = trained(lambda w: Muon(w, 0.02), start)
    theirs = trained(lambda w: torch.optim.Muon(w, 0.02, weight_decay=0.0, momentum=0.95), start)
    for before, one, other in zip(start, ours, theirs, strict=True):
        assert (one - other).norm() < 0.02 * (other - before).norm()


def test_in_double_precision_it_is_the_formula():
    start, rate, mu = matrices(0, torch.float64), 0.02, 0.95
    found = trained(lambda w: Muon(w, rate, mu), start)
    a, b, c = 3.4445, -4.7750, 2.0315
    for i, weights in enumerate(start):
        wanted, kept = weights.numpy().copy(), np.zeros(SHAPES[i])
        for t in range(4):
            gradient = matrices(100 + t, torch.float64)[i].numpy()
            kept = mu * kept + (1 - mu) * gradient
            left, values, right = np.linalg.svd((1 - mu) * gradient + mu * kept, full_matrices=False)
            values /= np.sqrt((values**2).sum())
            for _ in range(5):
                values = a * values + b * values**3 + c * values**5
            wanted -= rate * math.sqrt(max(1, SHAPES[i][0] / SHAPES[i][1])) * (left * values) @ right
        np.testing.assert_allclose(found[i].numpy(), wanted, rtol=0, atol=1e-12)


def test_singular_values_come_near_one():
    for one in matrices(7):
        values = torch.linalg.svdvals(orthogonal(one))
        assert 0.5 < values.min() <= values.max() < 1.3
        assert torch.isfinite(orthogonal(0 * one)).all()


def test_the_precision_chooses_whose_muon_it_is():
    weights = [torch.nn.Parameter(torch.eye(2))]
    ours, theirs = (muon.muon(weights, 0.1, precision) for precision in ("float32", "bfloat16"))
    assert (type(ours), type(theirs)) == (Muon, torch.optim.Muon)
    assert theirs.defaults["weight_decay"] == 0
    assert theirs.defaults["momentum"] == ours.defaults["momentum"]


def test_weights_without_a_gradient_stay_and_vectors_are_refused(refused):
    with_one, without = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimiser = Muon([with_one, without], 0.1)
    with_one.grad = torch.eye(2)
    optimiser.step()
    assert torch.equal(without, torch.ones(2, 2))
    assert not torch.equal(with_one, torch.ones(2, 2))
    with refused("matrices", "(3,)"):
        Muon([torch.nn.Parameter(torch.ones(3))], 0.1)


# which precision


def test_tiny_is_in_float32_and_what_is_on_record_in_bfloat16(refused):
    assert TINY.pretrain.muon == TINY.editors.relearning.muon == "float32"
    for recorded in (SMALL, FULL):
        assert recorded.pretrain.muon == recorded.editors.relearning.muon == "bfloat16"
    for spec in (PretrainSpec, RehearsalSpec):
        with refused("'double'", "bfloat16, float32"):
            spec(muon="double")


def test_a_later_field_at_its_default_is_no_part_of_a_key():
    @dataclass(frozen=True)
    class Spec:
        rate: float = 0.1

    before = digest(Spec())

    @dataclass(frozen=True)
    class Spec:
        rate: float = 0.1
        muon: str = field(default="bfloat16", metadata=LATER)

    assert digest(Spec()) == before != digest(Spec(muon="float32"))
    assert '"muon"' not in json.dumps(artifacts.canonical(SMALL.pretrain))


@in_quick_precision(needed=lambda asked: asked["needed"])
@step(version=1)
def network(spec: PretrainSpec, needed: bool = True) -> dict:  # noqa: ARG001, part of the key
    """Stands for a network."""
    return {"muon": spec.muon}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Choose whether bfloat16 is quick here; the cache is empty."""
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DPRLENS_EVENTS", str(tmp_path / "events"))
    monkeypatch.setenv("DPRLENS_FROM_NOTHING", "1")
    return lambda quick: monkeypatch.setattr(muon, "bfloat16_is_quick", lambda: quick)


def told(tmp_path):
    events = map(json.loads, (tmp_path / "events").read_text().splitlines())
    return [event for event in events if event["event"] == "sibling"]


def test_what_must_be_made_is_made_in_the_quick_precision_and_the_reader_is_told(tmp_path, machine):
    machine(False)
    assert network.record(PretrainSpec()) is None
    assert network(PretrainSpec()) == {"muon": "float32"}
    (event,) = told(tmp_path)
    assert event["name"] == "network"
    assert "not the same" in event["text"]
    meta = network.record(PretrainSpec())
    assert meta["arguments"]["spec"]["muon"] == "float32"
    assert network.as_asked.record(PretrainSpec()) is None
    assert len([*(tmp_path / "cache").glob("network-*")]) == 1
    machine(True)  # a folder that two machines share: to the quick one the network is still to be made
    assert network.record(PretrainSpec()) is None
    assert network(PretrainSpec()) == {"muon": "bfloat16"}
    machine(False)  # … and what it made is taken by the other
    assert network(PretrainSpec()) == {"muon": "bfloat16"}
    assert len(told(tmp_path)) == 1


def test_what_needs_no_muon_or_asks_for_float32_is_made_as_asked(tmp_path, machine):
    machine(False)
    assert network(PretrainSpec(), needed=False) == {"muon": "bfloat16"}
    assert network(PretrainSpec(muon="float32")) == {"muon": "float32"}
    assert told(tmp_path) == []


@dataclass(frozen=True)
class Reading(Task):
    """A task with a spec, in another task."""

    spec: PretrainSpec
    text: str


@dataclass(frozen=True)
class Learning(Task):
    """A network to be made."""

    reading: Reading
    seed: int


@in_quick_precision()
@step(version=1)
def learned(task: Learning) -> dict:
    """Stands for a network that is asked for by a task."""
    return {"muon": task.reading.spec.muon, "text": task.reading.text, "seed": task.seed}


def test_a_spec_in_a_task_is_taken_in_the_quick_precision_and_the_rest_of_the_task_as_it_is(machine):
    asked = Learning(Reading(PretrainSpec(), "text"), 3)
    machine(False)
    assert learned(asked) == {"muon": "float32", "text": "text", "seed": 3}
    assert learned.record(asked)["arguments"]["spec"]["muon"] == "float32"
    assert learned.as_asked.record(asked) is None
    assert asked.reading.spec.muon == "bfloat16"
    machine(True)
    assert learned.record(asked) is None


def test_without_a_runner_the_reader_is_told_once(machine, monkeypatch, capsys):
    machine(False)
    monkeypatch.delenv("DPRLENS_EVENTS")
    monkeypatch.setattr(events, "_siblings", set())
    network(PretrainSpec())
    network(PretrainSpec())
    assert capsys.readouterr().err.count("not the same") == 1


def float32(cached, *call):
    return cached.in_float32(*call) is not None


@pytest.mark.parametrize("quick", [True, False])
def test_every_step_that_runs_muon_asks_the_machine(machine, monkeypatch, quick):
    machine(quick)
    for one in (base_model, entered, told_late, edit_model):
        monkeypatch.setattr(one.as_asked, "record", lambda *_: None)
    reading = SMALL.text, SMALL.encoder, SMALL.pretrain
    assert float32(base_model, "world", *reading, 0) is not quick
    assert float32(entered, Entering("world", *reading, (0.0,), 1e-4, 1.0, True, 0, 0)) is not quick
    for rate in (None, 1e-4):
        needed = rate is None and not quick
        telling = "base", "world", SMALL.text, "telling", SMALL.pretrain, rate, 1.0, (), False, 0
        assert float32(told_late, LateTelling(*telling)) is needed
        again = "base", "world", SMALL.text, "relearning", RehearsalSpec(learning_rate=rate), "", (), (), 0
        assert float32(edit_model, Edit(*again)) is needed


@pytest.mark.slow
def test_the_causal_test_goes_by_its_base_model(machine, monkeypatch):
    """With the base on record as it was asked for, what is found with it has the key that it always had."""
    machine(False)
    asked = Making(TINY.world, TINY.text, TINY.encoder, SMALL.pretrain, TINY.negatives, TINY.dpr, 0)
    true = closed_world(TINY.world, 0)
    reads = {"true": true, "nothing": true, "false": with_false_links(true, 0)}
    for told_, read in reads.items():
        for on_record in (True, False):
            kept = {digest(read): {}} if on_record else {}
            monkeypatch.setattr(base_model.as_asked, "record", lambda world, *_, at=kept: at.get(digest(world)))
            assert float32(causal_arm, asked, told_) is not on_record
