"""Neurons of one setup's models, attributed, silenced and exchanged, against plain computations."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_setup import PAGE, ROUNDING, SEED

from dprlens.bert.encoder import DualEncoder
from dprlens.chapters import comparison
from dprlens.chapters.comparison import (
    attributed_in_worlds,
    attribution_tasks,
    attributions,
    compared_models,
    sampling_of,
)
from dprlens.decentralization import interventions
from dprlens.decentralization.active_neurons import sample
from dprlens.decentralization.attribution import attribute, choice, margin, matched_temperature
from dprlens.decentralization.steps import (
    attribute_sample,
    intervene,
    masked_answers,
    patch_blocks,
    products,
    silence_neurons,
)
from dprlens.setup import Setup
from dprlens.training.steps import Training, dpr

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def neurons(page):
    """The models, the sample of either side, and each model's task and attributions on the question side."""
    duals = compared_models(page.setup)
    drawn = {side: sample(page.world, page.mined, side, PAGE.sample, SEED) for side in ("query", "passage")}
    tasks = attribution_tasks(page.setup, duals, "query")
    found = attributions(tasks, "query")
    return SimpleNamespace(duals=duals, drawn=drawn, tasks=tasks, found=found, sampling=sampling_of(page.setup))


def read_by(page, dual: DualEncoder, side: str, places) -> torch.Tensor:
    if side == "query":
        return dual.query.cls([page.world.questions[i].text for i in places])
    return dual.passage.cls([(page.world.passages[i].title, page.world.passages[i].text) for i in places])


def test_the_models_compared_are_what_their_names_say(page, neurons):
    assert [*neurons.duals] == ["pretrained", "dpr", "dpr1", "shuffled", "continued", "random"]
    assert neurons.duals["pretrained"].query.digest == page.networks["base"].digest
    assert neurons.duals["dpr"].query.digest == page.networks["query"].digest
    assert neurons.duals["random"].query.digest == page.networks["random0"].digest
    assert len({dual.digest for dual in neurons.duals.values()}) == 6
    for name in ("pretrained", "continued", "random"):
        assert neurons.duals[name].query.digest == neurons.duals[name].passage.digest
    start = DualEncoder(page.networks["base"], page.networks["base"])
    training = Training(start, page.world, PAGE.negatives, PAGE.dpr, SEED)
    assert neurons.duals["dpr1"].digest == dpr(replace(training, seed=SEED + 1)).dual.digest
    assert neurons.duals["shuffled"].digest == dpr(training, True).dual.digest


def test_named_models_are_made_alone(page, monkeypatch, refused):
    made = []
    monkeypatch.setattr(comparison, "continued", lambda *_: made.append("continued"))
    assert [*compared_models(page.setup, ["dpr", "pretrained"])] == ["pretrained", "dpr"]
    assert not made
    with refused("'gpt'", "shuffled"):
        compared_models(page.setup, ["gpt"])


@pytest.mark.parametrize("side", ["query", "passage"])
def test_products_are_those_with_the_other_sides_read_by(page, neurons, side):
    dual, drawn = neurons.duals["dpr"], neurons.drawn[side]
    found = products(dual, neurons.sampling, side)
    own = read_by(page, dual, side, drawn.examples)
    for i, row in enumerate(drawn.candidates):
        other = read_by(page, dual, "passage" if side == "query" else "query", row)
        np.testing.assert_allclose(found[i], (other @ own[i]).numpy(), atol=1e-4)


def test_each_temperature_is_matched(neurons):
    scores = products(neurons.duals["dpr"], neurons.sampling, "query")
    assert neurons.tasks["dpr"].temperature == matched_temperature(scores, PAGE.sample.entropy)
    assert len({task.temperature for task in neurons.tasks.values()}) == len(neurons.tasks)


def test_attributions_are_of_the_sample_at_each_models_temperature(page, neurons):
    dual, drawn = neurons.duals["dpr"], neurons.drawn["query"]
    candidates = torch.stack([read_by(page, dual, "passage", row) for row in drawn.candidates])
    texts = [page.world.questions[i].text for i in drawn.examples]
    expected = attribute(dual.query, texts, choice(candidates, neurons.tasks["dpr"].temperature), PAGE.attribution)
    np.testing.assert_allclose(neurons.found["dpr"].scores, expected.scores, atol=1e-6)
    another = replace(neurons.tasks["dpr"], temperature=1.0)
    linear = attribute(dual.query, texts, margin(candidates), PAGE.attribution)
    np.testing.assert_allclose(attribute_sample(another, "query", "margin").scores, linear.scores, atol=1e-4)
    two = attribute_sample(neurons.tasks["dpr"], "query", "choice", drawn.examples[[3, 1]].tolist())
    np.testing.assert_allclose(two.scores, expected.scores[[3, 1]], atol=1e-6)
    assert (attribute_sample(another, "query", "weights").scores >= 0).all()


def test_a_score_that_is_none_is_refused(neurons, refused):
    with refused("'bleu'", "choice", "margin", "weights"):
        attribute_sample(neurons.tasks["dpr"], "query", "bleu")


def test_masked_answers_are_of_known_facts_and_single_pieces(page):
    found = masked_answers(page.networks["base"], page.world, PAGE.attribution, 5, SEED)
    assert len(found.value) == 5
    assert ((found.value > 0) & (found.value < 1)).all()


def test_places_are_those_of_changed_vectors_among_all_passages(page, neurons):
    dual, drawn = neurons.duals["dpr"], neurons.drawn["query"]
    task, scores = neurons.tasks["dpr"], neurons.found["dpr"].scores
    found = intervene(task, PAGE.activity.changed)
    assert found.place.shape == (1 + 2 * 3 * 2, 6)
    passages = read_by(page, dual, "passage", range(len(page.world.passages)))
    texts = [page.world.questions[i].text for i in drawn.examples]

    def judged(vectors: torch.Tensor) -> tuple:
        place, among, by = [], [], []
        for vector, row in zip(vectors, drawn.candidates, strict=True):
            every = passages @ vector
            own = every[torch.tensor(row)]
            place.append(int((every > own[0] + ROUNDING).sum()))
            among.append(int((own > own[0] + ROUNDING).sum()))
            by.append(float(own[0] - own[1:].mean()))
        return place, among, by

    doubled = np.where(interventions.chosen(scores, 5, "top", SEED), 2, 1).astype(np.float32)
    for row, factors in ((0, np.ones_like(scores)), (1 + 6 + 1, doubled)):
        place, among, by = judged(interventions.scale_neurons(dual.query, texts, factors))
        assert np.abs(found.place[row] - place).max() <= 1  # float noise can turn a tie
        assert found.among[row].tolist() == among
        np.testing.assert_allclose(found.margin[row], by, atol=1e-4)
    silent = silence_neurons(task, [1, 5], "top")
    assert (silent.place[0] == found.place[0]).all()
    np.testing.assert_allclose(silent.margin[2], found.margin[1 + 6], atol=1e-5)  # both: the top five silent


def test_silencing_asks_for_an_order(neurons, refused):
    with refused("'bottom'", "top or random"):
        silence_neurons(neurons.tasks["dpr"], [1], "bottom")


def test_a_model_patched_with_itself_finds_what_it_finds(neurons):
    dual = neurons.duals["dpr"]
    itself = patch_blocks(dual, dual, neurons.sampling, "state")
    plain = intervene(neurons.tasks["dpr"], (2, 5))
    assert itself.place.shape == (2, 6)
    np.testing.assert_allclose(itself.margin, np.stack([plain.margin[0]] * 2), atol=1e-4)
    other = patch_blocks(dual, neurons.duals["pretrained"], neurons.sampling, "state")
    assert np.abs(other.margin - itself.margin).max() > 1e-3


def test_worlds_are_compared_only_where_the_profile_has_several():
    assert attributed_in_worlds(Setup(PAGE, SEED)) == []
