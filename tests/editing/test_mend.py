"""MEND: what an untrained editor does, step sizes, and the gradients of the outer loss."""

import numpy as np
import pytest
import torch

from dprlens.bert.forward import masked_lm
from dprlens.editing.editors.hypernetwork import Lesson, Practice, Rows, linear, shape
from dprlens.editing.editors.mend import Mend, MendSpec
from dprlens.editing.editors.objective import blanks, copy_model, nll, training_statements

SMALL = {"blocks": 2, "rank": 4, "batch": 6, "kept": 8, "steps": 1}


@pytest.fixture(scope="module")
def told(world):
    """Facts told by all their statements, and one that is told by a single one."""
    some = [fact for fact in world.facts if world.state(fact.id) == "held out"][:4]
    return [*some[:3], some[3]._replace(statements=some[3].statements[:1])]


def test_without_standardisation_an_untrained_editor_is_a_gradient_step(toy, told):
    editor = Mend(MendSpec(**SMALL, norm=False, alpha=0.05), shape(toy))
    model, edited = copy_model(toy), editor.edit(toy, told)
    loss = 0.0
    for fact in told:
        given = blanks(toy, training_statements(fact), 0)
        loss = loss + nll(masked_lm(model, given, 0), given)  # a mean over the fact's statements
    weights = [linear(model, site).weight for site in editor.sites]
    for site, gradient in zip(editor.sites, torch.autograd.grad(loss, weights), strict=True):
        change = linear(edited.model, site).weight - linear(toy.model, site).weight
        scale = gradient.abs().max().item()
        torch.testing.assert_close(change, -0.05 * gradient, rtol=1e-4, atol=1e-5 * scale)


def test_with_standardisation_it_adds_up_standardised_rows(toy):
    generator = torch.Generator().manual_seed(0)
    x, delta = 3 + torch.randn(40, 64, generator=generator), 1e-3 * torch.randn(40, 32, generator=generator)
    editor = Mend(MendSpec(**SMALL, alpha=0.5), shape(toy))
    rows, share = Rows(x, delta, torch.arange(40)), torch.linspace(0.1, 1, 40)
    editor.trunks["output"].see(rows)
    x_hat, delta_hat = ((of - of.mean(0)) / (of.std(0) + 1e-7) for of in (x, delta))
    torch.testing.assert_close(editor.trunks["output"](x, delta, 0), (x_hat, delta_hat), rtol=1e-4, atol=1e-4)
    expected = -0.5 * (share[:, None] * delta_hat).T @ x_hat
    torch.testing.assert_close(editor.change((2, "output"), rows, share), expected, rtol=1e-4, atol=1e-3)
    cosine = torch.nn.functional.cosine_similarity(expected.flatten(), (-delta.T @ x).flatten(), dim=0)
    assert cosine < 0.9  # so that the untrained editor is not a gradient step


@pytest.mark.parametrize("rate", [1e-6, 1e-4])  # what acts in the published code, and what is meant
def test_alpha_moves_by_its_learning_rate(toy, practice, kept, rate):
    editor = Mend.trained(toy, practice, kept, MendSpec(**SMALL, alpha_learning_rate=rate))
    for of_kind in editor.alpha.values():
        steps = (of_kind - 4e-4).abs()
        np.testing.assert_allclose(steps.detach(), rate, rtol=1e-3)  # Adam's first step


def double(lesson):
    """The lesson in float64."""

    def of(value):
        return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    rows = {site: Rows(*map(of, part)) for site, part in lesson.rows.items()}
    blanks_ = [type(part)(*map(of, part)) for part in (lesson.rephrased, lesson.kept)]
    return Lesson(rows, of(lesson.share), *blanks_, of(lesson.before))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("alpha.output", (1,)),
        ("alpha.intermediate", (0,)),
        ("trunks.output.blocks.0.bias", (3,)),
        ("trunks.output.blocks.1.bias", (70,)),
        ("trunks.intermediate.blocks.1.scale", (0, 5)),
        ("trunks.intermediate.blocks.0.up", (2, 1)),
    ],
)
def test_gradients_of_the_outer_loss_are_finite_differences(toy, practice, kept, name, place):
    editor = Mend(MendSpec(**SMALL, alpha=3e-3, edit_weight=1.0), shape(toy), seed=3)
    material = Practice(editor, toy, practice, kept)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # away from where it starts, at which half of the gradients are 0
        for name_, parameter in editor.named_parameters():
            if "blocks" in name_:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    rng = np.random.default_rng(0)
    lesson = double(material.draw(*material.split(rng)[0], rng))
    editor, model = editor.double(), material.model.double()
    editor.step(model, lesson)  # after which the standardiser has seen the rows
    parameter, h = editor.get_parameter(name), 1e-6
    losses = []
    for shift in (h, -h):
        with torch.no_grad():
            parameter[place] += shift
            losses.append(editor.loss(model, lesson))
            parameter[place] -= shift
    slope = (losses[0] - losses[1]) / (2 * h)
    assert parameter.grad[place].item() == pytest.approx(slope, rel=1e-3)
    assert abs(slope) > 1e-5


@pytest.mark.parametrize("field", ["alpha", "alpha_learning_rate"])
def test_a_step_size_of_nothing_is_refused(field, refused):
    with refused(field, "0"):
        MendSpec(**{field: 0.0})
