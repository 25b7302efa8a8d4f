"""MALMEN: the ridge regression, its closed gradients, and training in two phases."""

import numpy as np
import pytest
import torch
from torch.func import functional_call

from dprlens.editing.editors.hypernetwork import Practice, Rows, _Upper, linear, shape
from dprlens.editing.editors.malmen import Malmen, MalmenSpec, ridge, ridge_gradients
from dprlens.editing.editors.objective import drift, nll

SMALL = {"blocks": 2, "rank": 4, "batch": 6, "kept": 8, "steps": 1, "eta": 0.01, "penalty": 0.7}


def random(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# the regression


@pytest.mark.parametrize("n", [1, 10, 29, 30, 31, 80])  # in = 30: the dual system below, the primal one from there
@pytest.mark.parametrize("penalty", [0.01, 1.0, 40.0])
def test_the_ridge_regression_is_least_squares_on_the_augmented_system(n, penalty):
    keys, wishes = random(n, 30), random(n, 8, seed=1)
    above = torch.cat([keys, penalty**0.5 * torch.eye(30, dtype=torch.float64)])
    below = torch.cat([wishes, torch.zeros(30, 8, dtype=torch.float64)])
    expected = torch.linalg.lstsq(above, below).solution
    torch.testing.assert_close(ridge(keys, wishes, torch.tensor(penalty).double()), expected, rtol=1e-8, atol=1e-8)


def test_with_little_penalty_every_wish_is_met():
    keys, wishes = random(30, 50), random(30, 8, seed=1)
    torch.testing.assert_close(keys @ ridge(keys, wishes, torch.tensor(1e-9).double()), wishes, rtol=0, atol=1e-6)


def test_with_much_penalty_nothing_changes():
    keys, wishes = random(60, 50), random(60, 8, seed=1)
    change = ridge(keys, wishes, torch.tensor(1e9).double())
    assert change.abs().max() < 1e-6
    torch.testing.assert_close(1e9 * change, keys.T @ wishes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [6, 10])
def test_orthonormal_keys_do_not_disturb_each_other(n):
    keys, wishes = torch.linalg.qr(random(10, n)).Q.T, random(n, 4, seed=1)
    torch.testing.assert_close(
        ridge(keys, wishes, torch.tensor(0.25).double()), keys.T @ wishes / 1.25, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("n", [12, 40])
def test_closed_gradients_are_those_through_the_solution(n):
    keys, wishes = random(n, 20), random(n, 5, seed=1).requires_grad_()
    log_penalty = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    change = torch.linalg.solve(keys.T @ keys + log_penalty.exp() * torch.eye(20, dtype=torch.float64), keys.T @ wishes)
    gradient = random(20, 5, seed=2)
    expected = torch.autograd.grad((change * gradient).sum(), [wishes, log_penalty])
    penalty = log_penalty.detach().exp()
    found = ridge_gradients(keys, ridge(keys, wishes.detach(), penalty), penalty, gradient)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


# the editor


def test_a_wish_weighs_the_pseudo_gradient_by_input_times_pseudo_input(toy):
    editor = Malmen(MalmenSpec(**SMALL | {"norm": False}), shape(toy))
    x, delta = random(3, 64).float(), random(3, 32, seed=1).float()
    expected = -0.01 * x.square().sum(1, keepdim=True) * delta  # untrained, what comes out is what goes in
    torch.testing.assert_close(editor.wishes((2, "output"), x, delta), expected)


def test_wishes_are_met_at_the_keys_if_they_can_be(toy):
    editor = Malmen(MalmenSpec(**SMALL | {"penalty": 1e-6}), shape(toy))
    rows = Rows(random(20, 64).float(), random(20, 32, seed=1).float(), torch.arange(20))
    editor.trunks["output"].see(rows)
    change = editor.change((1, "output"), rows, torch.ones(20))
    wishes = editor.wishes((1, "output"), rows.x, rows.delta)
    torch.testing.assert_close(rows.x @ change.T, wishes.detach(), rtol=1e-3, atol=1e-3)


def single_graph(editor, model, lesson):
    """The outer loss as one graph, by autograd through the solution of the regression."""
    named = {}
    for block, kind in editor.sites:
        x, delta, _ = lesson.rows[block, kind]
        wishes = editor.wishes((block, kind), x, delta)
        penalty = editor.log_penalty[kind][block - editor.first].double().exp()
        gram = x.double().T @ x.double() + penalty * torch.eye(x.shape[1], dtype=torch.float64)
        change = torch.linalg.solve(gram, x.double().T @ wishes.double())
        weight = linear(model, (block, kind)).weight
        named[f"model.bert.encoder.layer.{block}.{kind}.dense.weight"] = weight + change.T.to(weight.dtype)
    upper = _Upper(model, editor.first)
    told = nll(functional_call(upper, named, (lesson.rephrased,)), lesson.rephrased)
    return editor.spec.edit_weight * told + editor.spec.locality_weight * drift(
        lesson.before, functional_call(upper, named, (lesson.kept,))
    )


@pytest.mark.slow
@pytest.mark.parametrize("sites", [("output",), ("intermediate", "output")])
def test_two_phases_are_one_graph(toy, practice, kept, sites):
    editor = Malmen(MalmenSpec(**SMALL | {"sites": sites, "chunk": 5}), shape(toy), seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # away from where it starts, at which half of the gradients are 0
        for parameter in editor.trunks.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    material = Practice(editor, toy, practice, kept)
    rng = np.random.default_rng(0)
    lesson = material.draw(*material.split(rng)[0], rng)
    total = editor.step(material.model, lesson)
    whole = single_graph(editor, material.model, lesson)
    assert total == pytest.approx(whole.item(), rel=1e-5)
    names, parameters = zip(*editor.named_parameters(), strict=True)
    for name, parameter, expected in zip(names, parameters, torch.autograd.grad(whole, parameters), strict=True):
        scale = expected.abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=2e-4 * scale, msg=name)


def test_284_facts_go_in_chunks_of_32(toy, world):
    facts = list({(fact.subject, fact.relation): fact for fact in world.facts}.values())
    assert len(facts) >= 284 // 8
    said = [fact._replace(id=f"{fact.id} {i}", subject=f"{fact.subject} {i}") for i in range(8) for fact in facts][:284]
    editor = Malmen(MalmenSpec(**SMALL | {"chunk": 32, "norm": False, "wordings": 1}), shape(toy))
    whole = Malmen(MalmenSpec(**SMALL | {"chunk": 284, "norm": False, "wordings": 1}), shape(toy))
    found, expected = (of.edit(toy, said).model for of in (editor, whole))
    for site in editor.sites:
        torch.testing.assert_close(linear(found, site).weight, linear(expected, site).weight, rtol=1e-3, atol=1e-4)
        assert not torch.equal(linear(found, site).weight, linear(toy.model, site).weight)


def test_the_published_deviations_are_a_switch(toy):
    rows = Rows(random(8, 64).float(), random(8, 32, seed=1).float(), torch.arange(8))
    found = []
    for inflated in (False, True):
        editor = Malmen(MalmenSpec(**SMALL, inflated=inflated), shape(toy))
        editor.trunks["output"].see(rows)
        found.append(editor.trunks["output"].standardiser.deviation)
    torch.testing.assert_close(found[1], found[0] * (8 / 7) ** 0.5)


@pytest.mark.parametrize("field", ["eta", "penalty", "ridge_learning_rate"])
def test_what_must_be_positive_is_checked(field, refused):
    with refused(field, "0"):
        MalmenSpec(**{field: 0.0})


def test_eta_and_penalty_move_by_their_own_rate(toy, practice, kept):
    editor = Malmen.trained(toy, practice, kept, MalmenSpec(**SMALL, ridge_learning_rate=0.05))
    eta, log_penalty = editor.eta["output"].detach(), editor.log_penalty["output"].detach()
    np.testing.assert_allclose((eta / 0.01 - 1).abs(), 0.05, rtol=1e-3)  # Adam's first step
    np.testing.assert_allclose((log_penalty - np.log(0.7)).abs(), 0.05, rtol=1e-3)
