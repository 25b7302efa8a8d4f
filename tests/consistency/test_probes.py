"""Probes against their derivation, scikit-learn, finite differences, and features whose accuracy is known."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from numpy import ndarray
from scipy.optimize import check_grad
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from dprlens.consistency import probes as module
from dprlens.consistency.controls import both_orders
from dprlens.consistency.probes import (
    FLOOR,
    GRADIENT,
    PROBES,
    Bilinear,
    Cosine,
    Dot,
    Features,
    Items,
    Linear,
    LowRank,
    Matching,
    NoQuery,
    Probe,
    ProbeSpec,
    ProbingSpec,
    Replication,
    Tied,
    Untrained,
    cross_fit,
    evaluate,
    items,
    make_probe,
    matching,
)
from dprlens.world.records import Fact, Passage, Question, World

TRAINED = ["linear", "no_query", "tied", "low_rank", "bilinear"]


def noise(n: int, choices: int = 5, width: int = 8, seed: int = 0) -> Matching:
    """Features that say nothing."""
    rng = np.random.default_rng(seed)
    return Matching(rng.normal(size=(n, width)), rng.normal(size=(n, choices, width)))


def meeting(n: int, choices: int = 2, seed: int = 0) -> Matching:
    """A gold passage resembles its question, and each negative a question that is not here: alone all look alike."""
    questions, passages = noise(n, choices, seed=seed)
    passages[:, 0, :4] += 3 * questions[:, :4]
    passages[:, 1:, :4] += 3 * np.random.default_rng([seed, 1]).normal(size=(n, choices - 1, 4))
    return Matching(questions, passages)


def biased(n: int, choices: int = 2, seed: int = 0) -> Matching:
    """Gold passages resemble their question, and look like gold ones whatever the question."""
    questions, passages = noise(n, choices, width=16, seed=seed)
    passages[:, 0, 5] += 1.4
    passages[:, 0, :4] += 2 * questions[:, :4]
    return Matching(questions, passages)


def injected(n: int, choices: int = 5, seed: int = 0) -> Matching:
    """Noise, but for 10 more at one coordinate of the gold passage."""
    questions, passages = noise(n, choices, seed=seed)
    passages[:, 0, 3] += 10
    return Matching(questions, passages)


def reversed_pairs(n: int, seed: int = 0) -> Matching:
    """Rows i and n + i are (q1; A, B) and (q2; B, A): each passage is gold for the question that it resembles."""
    rng = np.random.default_rng(seed)
    questions, passages = rng.normal(size=(2, n, 16)), rng.normal(size=(2, n, 16))
    passages[:, :, :4] += 3 * questions[:, :, :4]
    return Matching(np.concatenate(questions), np.concatenate([np.stack(passages, 1), np.stack(passages[::-1], 1)]))


def near_chance(correct: ndarray, n: int) -> bool:
    """Within three binomial standard errors of 1/n."""
    return abs(np.mean(correct) - 1 / n) < 3 * np.sqrt((1 / n) * (1 - 1 / n) / len(correct))


def cross_entropy(probe: Probe, X: ndarray, y: ndarray) -> float:
    return -log_softmax(probe.decision_function(X), axis=1)[np.arange(len(y)), y].mean()


def penalty(probe: Probe) -> float:
    weights = probe.weights_[:1] if isinstance(probe, Linear) else probe.weights_  # intercepts are free
    return probe.l2 / 2 * sum(np.square(w).sum() for w in weights)


# --- which questions, which passages ---

PLACES = {f"p{i}": i for i in range(10)}


def world() -> World:
    """q0 … q3 of the training questions and q4 of dev; question i's gold passage is p(9 − i)."""
    questions = [
        Question(f"q{i}", "Who sails?", ("Ada",), f"p{9 - i}", ("f",), "dev" if i == 4 else "train", "lexical")
        for i in range(5)
    ]
    facts = (Fact("f", "Ada", "sails", "Wend", "train"),)
    return World("closed", facts, tuple(Passage(id_, "", "A mill.") for id_ in PLACES), tuple(questions))


MINED = {
    "q0": ["p0", "p1", "p2", "p3", "p4", "p5"],
    "q1": ["p3", "p1"],
    "q2": [],
    "q3": ["p7", "p5", "p3", "p1"],
    "q4": ["p9", "p8", "p7", "p6"],
}


def test_questions_with_too_few_negatives_are_left_out():
    found = {most: items(world(), MINED, "train", most).questions.tolist() for most in (2, 3, 4, 5, 6, 7)}
    assert found == {2: [0, 1, 3], 3: [0, 1, 3], 4: [0, 3], 5: [0, 3], 6: [0], 7: [0]}
    assert items(world(), MINED, "dev", 5).questions.tolist() == [4]


def test_choices_are_the_gold_passage_and_then_different_negatives():
    for seed in range(20):
        for i, (gold, *others) in zip(*items(world(), MINED, "train", 5, seed), strict=True):
            assert gold == 9 - i
            assert len(set(others)) == 4
            assert set(others) <= {PLACES[id_] for id_ in MINED[f"q{i}"]}


def test_negatives_are_drawn_by_the_seed_and_any_may_be_first():
    drawn = [items(world(), MINED, "train", 5, seed).choices for seed in range(60)]
    assert {choices[0, 1] for choices in drawn} == {0, 1, 2, 3, 4, 5}
    np.testing.assert_array_equal(items(world(), MINED, "train", 5, 7).choices, drawn[7])


def test_a_split_without_enough_negatives_is_refused(refused):
    with refused("train", "7 hard negatives", "fewer passages"):
        items(world(), MINED, "train", 8)
    with refused("test", "1 hard negatives"):
        items(world(), MINED, "test", 2)


@pytest.mark.parametrize(
    ("spec", "field", "value"),
    [
        (ProbeSpec, "most", 1),
        (ProbeSpec, "iterations", 0),
        (ProbeSpec, "rank", 0),
        (ProbingSpec, "random_encoders", 0),
        (ProbingSpec, "repeats", 1),
        (ProbingSpec, "worlds", 0),
    ],
)
def test_a_spec_with_too_few_of_something_is_refused(refused, spec, field, value):
    with refused(f"{field} = {value}", "too few"):
        spec(**{field: value})


@pytest.mark.parametrize("field", ["l2", "l2_bilinear"])
@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan")])
def test_a_strength_without_a_unique_solution_is_refused(refused, field, strength):
    with refused(f"{field} = {strength}", "above 0"):
        ProbeSpec(**{field: strength})


# --- features ---


def features(shift: float = 0.0, layers: int = 3) -> Features:
    """Each number tells where it stands: of questions layer.text, of passages 10 + layer.text."""
    questions, passages = (np.arange(layers)[:, None] + np.arange(texts) / 100 for texts in (6, 10))
    return Features(questions[..., None] + shift, 10 + passages[..., None] + shift)


def test_features_come_back_from_the_disk_as_they_were(tmp_path):
    before = features()
    before.save(tmp_path)
    back = Features.load(tmp_path)
    np.testing.assert_array_equal(back.questions, before.questions)
    np.testing.assert_array_equal(back.passages, before.passages)
    assert back.digest == before.digest == features().digest
    assert len(before.digest) == 64


def test_the_digest_sees_every_number_and_the_shape():
    base = features()
    for name in ("questions", "passages"):
        changed = getattr(base, name).copy()
        changed[2, 5, 0] += 1e-6
        assert Features(**{"questions": base.questions, "passages": base.passages, name: changed}).digest != base.digest
    assert Features(base.questions.reshape(3, 3, 2), base.passages).digest != base.digest
    assert Features(base.passages, base.questions).digest != base.digest


def test_matching_takes_each_side_from_its_encoder():
    chosen = Items(np.array([4, 1]), np.array([[9, 0, 2], [3, 3, 1]]))
    found = matching(features(), features(shift=100), 2, chosen)
    np.testing.assert_allclose(found.questions[..., 0], [2.04, 2.01])
    np.testing.assert_allclose(found.passages[..., 0], [[112.09, 112, 112.02], [112.03, 112.03, 112.01]])
    part = found.part(np.array([False, True]))
    np.testing.assert_allclose(part.questions[..., 0], [2.01])
    np.testing.assert_array_equal(part.passages, found.passages[1:])


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_is_not_there_is_refused(refused, layer):
    with refused(f"layer {layer}", "0 to 2"):
        matching(features(), features(), layer, Items(np.array([0]), np.array([[0, 1]])))


def test_encoders_of_different_depth_are_refused(refused):
    with refused("layer 1"):
        matching(features(), features(layers=4), 1, Items(np.array([0]), np.array([[0, 1]])))


# --- slots ---


def named(n: int, width: int = 1) -> Matching:
    """Question i is i, and its choice c is 10 i + c."""
    questions = np.arange(n, dtype=float)
    passages = 10 * questions[:, None] + np.arange(5)
    return Matching(*(np.repeat(array[..., None], width, axis=-1) for array in (questions, passages)))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_gold_passage_stands_in_slot_y_and_the_others_are_the_next_choices(n):
    X, y = named(300).shown(n)
    i = np.arange(300)
    np.testing.assert_array_equal(X[:, 0, 0], i)
    np.testing.assert_array_equal(X[i, 1 + y, 0], 10 * i)
    choices = X[:, 1:, 0] - 10 * i[:, None]
    np.testing.assert_array_equal(np.sort(choices, axis=1), np.tile(np.arange(n), (300, 1)))


@pytest.mark.parametrize("n", [2, 3])
def test_every_order_of_the_passages_is_as_likely(n):
    X, y = named(6000).shown(n)
    assert all(near_chance(y == slot, n) for slot in range(n))
    orders = [tuple(row) for row in X[:, 1:, 0].astype(int) % 10]
    for order in permutations(range(n)):
        assert near_chance(np.array([found == order for found in orders]), len(set(orders)))


def test_slots_are_the_same_for_every_encoder_and_layer_and_for_a_seed():
    y = named(200).shown(4)[1]
    np.testing.assert_array_equal(noise(200, width=3).shown(4)[1], y)
    np.testing.assert_array_equal(noise(200, choices=4, seed=1).shown(4, seed=0)[1], y)
    assert (named(200).shown(4, seed=1)[1] != y).mean() > 0.5
    assert (named(200).shown(3)[1] != y).any()


@pytest.mark.parametrize("n", [-1, 0, 1, 6])
def test_a_number_of_passages_that_cannot_be_shown_is_refused(refused, n):
    with refused(f"n = {n}", "2 to 5"):
        named(4).shown(n)


# --- the contract ---


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_keeps_scikit_learns_contract(name):
    spec = ProbeSpec(iterations=7, rank=3)
    probe, (X, y) = make_probe(name, spec), biased(60, 3).shown(3)
    assert type(probe) is PROBES[name]
    own = {"low_rank": {"rank": 3, "seed": 0}, "untrained": {"seed": 0}}.get(name, {})
    fitting = {"l2": 1.0 if name == "bilinear" else 0.1, "iterations": 7}
    if name == "replication":
        fitting = {"epochs": 30, "rate": 1e-4, "batch": 32_768, "seed": 0}
    assert probe.get_params() == {**fitting, **own}
    with pytest.raises(NotFittedError):
        probe.predict(X)
    (knob, *_) = fitting
    assert probe.set_params(**{knob: 2}) is probe
    before = X.copy()
    assert probe.fit(X, y) is probe
    np.testing.assert_array_equal(X, before)
    assert probe.decision_function(X).shape == (60, 3)
    np.testing.assert_array_equal(probe.predict(X), probe.decision_function(X).argmax(1))
    assert probe.score(X, y) == (probe.predict(X) == y).mean()
    assert probe.classes_.tolist() == [0, 1, 2]
    copy = clone(probe)
    assert copy.get_params() == probe.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(X)
    np.testing.assert_array_equal(copy.fit(X, y).decision_function(X), probe.decision_function(X))


def test_random_weights_are_drawn_by_the_seed():
    X, y = biased(60, 3).shown(3)
    for name in ("untrained", "low_rank"):
        first, again, other = (make_probe(name, ProbeSpec(), seed).fit(X, y).weights_[0] for seed in (4, 4, 5))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 0.01


def test_a_probe_that_does_not_exist_is_refused(refused):
    with refused("'quadratic'", *PROBES):
        make_probe("quadratic", ProbeSpec())


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 4), (6, 3, 4, 1)])
def test_features_of_another_shape_are_refused(refused, name, shape):
    y = np.array([0, 1] * 3)
    with refused(str(shape), "[question, 1 + slot, d_model]"):
        PROBES[name]().fit(np.ones(shape), y)
    fitted = PROBES[name]().fit(np.random.default_rng(0).normal(size=(6, 3, 4)), y)
    with refused(str(shape), "[question, 1 + slot, d_model]"):
        fitted.predict(np.ones(shape))


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("y", [[0, 1, 2, 0], [0, 1, -1, 0], [0, 1, 1], [0, 1, 1, 0, 1]])
def test_slots_that_are_not_there_are_refused(refused, name, y):
    with refused("4 questions", "0 to 1"):
        PROBES[name]().fit(np.random.default_rng(0).normal(size=(4, 3, 2)), np.array(y))


def test_to_fit_nothing_is_refused(refused):
    with refused("0 questions", "one or more"):
        Linear().fit(np.empty((0, 3, 2)), np.empty(0, dtype=int))


@pytest.mark.parametrize("probe", [Linear(), NoQuery()])
def test_a_probe_with_weights_for_each_slot_refuses_gold_passages_all_in_one(refused, probe):
    X = np.random.default_rng(0).normal(size=(5, 4, 2))
    with refused("slot 2", "draw the slots"):
        probe.fit(X, np.full(5, 2))
    assert Tied().fit(X, np.full(5, 2)).predict(X).shape == (5,)


# --- what is minimised ---


def objective(probe: Probe, X: ndarray, y: ndarray) -> tuple[Callable, int]:
    """The function that the probe minimises, and how many weights it takes."""
    parts, y = probe._prepared(X, y)
    start = probe._start(parts)
    return probe._objective(parts, y, start), sum(weights.size for weights in start)


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("name", TRAINED)
def test_gradients_are_those_of_finite_differences(name, n):
    X, y = biased(30, 5).shown(n)
    probe = make_probe(name, ProbeSpec(rank=3)).set_params(l2=0.3)
    loss, size = objective(probe, X, y)
    weights = np.random.default_rng(1).normal(size=size) * 0.3
    gradient = loss(weights)[1]
    assert check_grad(lambda w: loss(w)[0], lambda w: loss(w)[1], weights) < 1e-6 * max(1, np.linalg.norm(gradient))
    assert np.abs(gradient - 0.3 * weights).max() > 1e-3  # more than the penalty


@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_is_cross_entropy_and_half_the_squared_weights(name):
    X, y = biased(30, 3).shown(3)
    probe = make_probe(name, ProbeSpec()).set_params(l2=0.3)
    loss, size = objective(clone(probe), X, y)
    probe.fit(X, y)
    flat = np.concatenate([weights.ravel() for weights in probe.weights_])
    assert len(flat) == size
    assert loss(flat)[0] == pytest.approx(cross_entropy(probe, X, y) + penalty(probe), rel=1e-12)
    assert loss(flat)[0] < loss(np.zeros(size))[0] == pytest.approx(np.log(3))


@pytest.mark.parametrize("l2", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("probe", [Linear(), NoQuery()])
def test_the_linear_probe_is_logistic_regression(probe, l2):
    """scikit-learn's with C = 1 / (n · l2); neither penalises the intercepts."""
    X, y = biased(400, 3).shown(3)
    probe = clone(probe).set_params(l2=l2).fit(X, y)
    first = 0 if type(probe) is Linear else 1
    Z = X[:, first:].reshape(400, -1).copy()
    groups = np.repeat(np.minimum(np.arange(first, 4), 1), 16)  # coordinates of the question, of passages
    for group in set(groups):  # one mean and deviation a coordinate, of passages over all slots
        part = Z[:, groups == group].reshape(-1, 16)
        Z[:, groups == group] = ((part - part.mean(0)) / part.std(0)).reshape(400, -1)
    theirs = LogisticRegression(C=1 / (400 * l2), max_iter=5000, tol=1e-8).fit(Z, y)
    least = -theirs.predict_log_proba(Z)[np.arange(400), y].mean() + l2 / 2 * np.square(theirs.coef_).sum()
    assert cross_entropy(probe, X, y) + penalty(probe) == pytest.approx(least, rel=1e-8)
    np.testing.assert_array_equal(probe.predict(X), theirs.predict(Z))
    ours = np.exp(log_softmax(probe.decision_function(X), axis=1))
    np.testing.assert_allclose(ours, theirs.predict_proba(Z), atol=1e-4)


def test_the_scale_of_a_feature_does_not_matter_and_its_mean_neither():
    X, y = biased(200, 3).shown(3)
    stretched = X * np.logspace(-2, 2, 16) + np.linspace(-5, 5, 16)
    for name in TRAINED:
        probe, other = (make_probe(name, ProbeSpec()).fit(features, y) for features in (X, stretched))
        np.testing.assert_allclose(other.decision_function(stretched), probe.decision_function(X), atol=1e-6)


def test_a_test_question_is_standardised_as_the_training_questions_are():
    X, y = biased(200, 3).shown(3)
    probe = Bilinear().fit(X, y)
    np.testing.assert_allclose(probe.decision_function(X[:7]), probe.decision_function(X)[:7], atol=1e-12)


TOLERANCE = {"low_rank": 0.02}  # not convex


@pytest.mark.parametrize("name", TRAINED)
def test_single_precision_gives_nearly_the_same(name):
    X, y = biased(300, 3).shown(3)
    probe = make_probe(name, ProbeSpec())
    double, single = clone(probe).fit(X, y), clone(probe).fit(X.astype(np.float32), y)
    assert cross_entropy(single, X.astype(np.float32), y) == pytest.approx(
        cross_entropy(double, X, y), rel=TOLERANCE.get(name, 1e-6)
    )


# --- Proposition 1: on all orders of the passages the best weights do not see the question ---


def all_orders(part: Matching) -> tuple[ndarray, ndarray]:
    """Each question with its passages in every order: X and y."""
    orders = list(permutations(range(part.passages.shape[1])))
    X = [np.concatenate([part.questions[:, None], part.passages[:, order]], axis=1) for order in orders]
    return np.concatenate(X), np.repeat([order.index(0) for order in orders], len(part.questions))


def relabelled(weights: ndarray, bias: ndarray, order: tuple[int, ...]) -> tuple[ndarray, ndarray]:
    """The same probe after slot and class j were given the name order[j]."""
    blocks = weights.reshape(len(order), 1 + len(order), -1)  # [slot scored, question or slot seen, d_model]
    seen = [0, *(1 + slot for slot in order)]
    return blocks[list(order)][:, seen].reshape(weights.shape), bias[list(order)]


def risk(probe: Probe, X: ndarray, y: ndarray, weights: tuple[ndarray, ndarray]) -> float:
    probe.weights_ = list(weights)
    return cross_entropy(probe, X, y) + penalty(probe)


def test_symmetrised_weights_are_no_worse_and_relabelling_changes_nothing():
    X, y = all_orders(biased(40, 3))
    probe = Linear(l2=0.1, iterations=1).fit(X, y)  # for its standardisation: the weights are ours
    rng, orders = np.random.default_rng(2), list(permutations(range(3)))
    for _ in range(5):
        weights = rng.normal(size=(3, 4 * 16)), rng.normal(size=3)
        relabellings = [relabelled(*weights, order) for order in orders]
        losses = [risk(probe, X, y, other) for other in relabellings]
        np.testing.assert_allclose(losses, losses[0], rtol=0, atol=1e-10)  # the sample is closed
        mean = tuple(np.mean(same, axis=0) for same in zip(*relabellings, strict=True))
        assert risk(probe, X, y, mean) < np.mean(losses) - 1e-3  # strictly: random weights are not symmetric


def test_slots_and_labels_renamed_leave_the_symmetrised_loss_on_any_sample():
    X, y = biased(100, 3).shown(3)
    probe = Linear(iterations=1).fit(X, y)
    rng, orders = np.random.default_rng(3), list(permutations(range(3)))
    weights = rng.normal(size=(3, 4 * 16)), rng.normal(size=3)
    mean = tuple(np.mean(same, axis=0) for same in zip(*(relabelled(*weights, o) for o in orders), strict=True))
    for order in orders[1:]:
        moved, slots = X[:, [0, *(1 + slot for slot in order)]], np.argsort(order)[y]
        assert risk(probe, moved, slots, mean) == pytest.approx(risk(probe, X, y, mean), abs=1e-10)
        assert abs(risk(probe, moved, slots, weights) - risk(probe, X, y, weights)) > 1e-3  # not so any weights


def test_fitted_to_all_orders_the_linear_probe_does_not_see_the_question_and_is_the_tied_one():
    """a_j = a, B_jj = u, B_ji = v; u − v are the weights of one scorer for all slots, by its own penalty."""
    X, y = all_orders(biased(80, 3))
    probe = Linear(l2=0.01).fit(X, y)
    other = X.copy()
    other[:, 0] = np.random.default_rng(4).normal(size=(len(X), 16)) * 10
    shares, others = (log_softmax(probe.decision_function(features), axis=1) for features in (X, other))
    np.testing.assert_allclose(shares, others, atol=1e-8)
    # of all u, v with u − v = w the penalty 3 u² + 6 v² is least at 2 w², where the tied probe pays w²
    tied = Tied(l2=0.02).fit(X, y)
    np.testing.assert_allclose(shares, log_softmax(tied.decision_function(X), axis=1), atol=1e-3)


# --- accuracies that are known ---


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("name", PROBES)
def test_constant_features_name_one_slot_and_are_at_chance(name, n):
    """Layer 0: the embedding of [CLS] is the same in every text. Ties go to the first slot."""
    one = np.random.default_rng(0).normal(size=6)
    train, test = (Matching(np.tile(one, (size, 1)), np.tile(one, (size, 5, 1))) for size in (200, 1000))
    probe = make_probe(name, ProbeSpec()).fit(*train.shown(n, 0))
    X, y = test.shown(n, 1)
    slot = {
        "linear": np.bincount(train.shown(n, 0)[1]).argmax(),  # a bias for each slot is all that can be learnt
        "no_query": np.bincount(train.shown(n, 0)[1]).argmax(),
        "untrained": probe.weights_[-1].argmax() if name == "untrained" else None,
        "replication": probe.predict(X)[0],  # its random weights decide as well
    }.get(name, 0)
    assert set(probe.predict(X)) == {slot}
    assert near_chance(probe.predict(X) == y, n)


@pytest.mark.parametrize("name", TRAINED)
def test_rounding_errors_of_a_constant_feature_are_not_blown_up(name):
    train = noise(100)
    X, y = Matching(1 + FLOOR / 10 * train.questions, 1 + FLOOR / 10 * train.passages).shown(3)
    probe = make_probe(name, ProbeSpec()).fit(X, y)
    assert not probe.scale_.any()
    assert len(set(probe.predict(X))) == 1


@pytest.mark.parametrize("name", TRAINED)
def test_a_feature_injected_into_the_gold_passage_is_found_always(name):
    probe = make_probe(name, ProbeSpec()).fit(*injected(300).shown(5))
    assert probe.score(*injected(500, seed=1).shown(5, seed=1)) == 1


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("name", [*TRAINED, "untrained"])
def test_labels_at_random_are_guessed_at_chance(name, n):
    rng = np.random.default_rng(5)
    X, y = biased(2000, 5).shown(n)
    rng.shuffle(y)
    probe = make_probe(name, ProbeSpec(iterations=20)).fit(X[:500], y[:500])
    assert near_chance(probe.predict(X[500:]) == y[500:], n)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_untrained_probe_is_at_chance_and_never_fitted(n):
    X, y = meeting(2000, 5).shown(n)
    probe = Untrained().fit(X, y)
    assert near_chance(probe.predict(X) == y, n)
    for ours, again in zip(probe.weights_, Untrained().fit(X[:50], y[:50]).weights_, strict=True):
        np.testing.assert_array_equal(ours, again)


def test_reversible_pairs_tell_probes_that_match_from_those_that_do_not():
    train, test = both_orders(reversed_pairs(1500)), both_orders(reversed_pairs(1500, seed=1))
    score = {name: make_probe(name, ProbeSpec()).fit(*train).score(*test) for name in TRAINED}
    assert score["linear"] == pytest.approx(0.5, abs=0.02)
    assert score["no_query"] == pytest.approx(0.5, abs=0.02)
    assert score["tied"] == 0.5  # what is right for one question is wrong for the other
    assert score["bilinear"] > 0.9
    assert score["low_rank"] > 0.9


def test_a_linear_probe_fitted_elsewhere_is_right_on_half_of_reversible_pairs():
    probe = Linear().fit(*biased(1000).shown(2))
    assert probe.score(*biased(1000, seed=1).shown(2, seed=1)) > 0.8
    assert probe.score(*both_orders(reversed_pairs(1500))) == pytest.approx(0.5, abs=0.02)


def test_without_the_question_or_with_one_scorer_the_linear_probe_does_as_well():
    train, test = biased(3000).shown(2), biased(4000, seed=1).shown(2, seed=1)
    score = {name: make_probe(name, ProbeSpec()).fit(*train).score(*test) for name in TRAINED}
    assert score["linear"] > 0.8
    assert score["no_query"] == pytest.approx(score["linear"], abs=0.01)
    assert score["tied"] >= score["linear"] - 0.01
    assert score["bilinear"] > score["linear"] + 0.1  # though there was more to be had


def test_the_low_rank_probe_is_the_bilinear_one_with_a_product_for_its_matrix():
    X, y = meeting(100, 3).shown(3)
    low, full = LowRank(rank=2).fit(X, y), Bilinear().fit(X, y)
    left, right, weights = low.weights_
    assert left.shape == right.shape == (8, 2)
    full.weights_ = [left @ right.T, weights]
    np.testing.assert_allclose(low.decision_function(X), full.decision_function(X), atol=1e-10)


@pytest.mark.parametrize(("probe", "expected"), [(Dot(), [[3, 1, 0, -4]]), (Cosine(), [[0.6, 1, 0, -0.8]])])
def test_dot_and_cosine_on_fingers(probe, expected):
    X = np.array([[[1.0, 0], [3, 4], [1, 0], [0, 0], [-4, 3]]])
    np.testing.assert_allclose(probe.fit(X, np.array([0])).decision_function(X), expected, atol=1e-12)
    stretched = probe.decision_function(5 * X)
    np.testing.assert_allclose(stretched, np.multiply(expected, 25 if type(probe) is Dot else 1), atol=1e-12)


# --- the same numbers everywhere ---

CONVEX = ["linear", "no_query", "tied", "bilinear"]


def features_like_ours(n: int, seed: int = 0) -> tuple[ndarray, ndarray]:
    """X and y of 3 passages in float32; directions of very different spread, as networks have them, and little to see.

    Their covariance is the same for every seed.
    """
    mixed = np.random.default_rng(9).normal(size=(24, 24)) * np.logspace(0, -1.5, 24)
    questions, passages = noise(n, 3, width=24, seed=seed)
    passages[:, 0] += 0.3 * questions + 0.2
    return Matching((questions @ mixed).astype(np.float32), (passages @ mixed).astype(np.float32)).shown(3, seed)


@pytest.mark.parametrize("name", CONVEX)
def test_a_fit_ends_where_the_gradient_vanishes(name):
    X, y = features_like_ours(500)
    probe = make_probe(name, ProbeSpec()).fit(X, y)
    assert np.abs(probe.loss_gradient(X, y)).max() < 5 * GRADIENT
    early = make_probe(name, ProbeSpec(iterations=3)).fit(X, y)
    assert np.abs(early.loss_gradient(X, y)).max() > 100 * GRADIENT  # so that the test can fail


@pytest.mark.parametrize("name", ["linear", "no_query", "tied"])
def test_principal_axes_change_the_way_and_not_the_end(name, monkeypatch):
    X, y = features_like_ours(500)
    found = make_probe(name, ProbeSpec()).fit(X, y)
    monkeypatch.setattr(module, "MOST_AXES", 0)
    plain = make_probe(name, ProbeSpec()).fit(X, y)
    for ours, theirs in zip(found.weights_, plain.weights_, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "no_query", "tied"])
def test_curvatures_are_second_derivatives_at_zero(name):
    X, y = features_like_ours(60)
    probe = make_probe(name, ProbeSpec())
    parts, y = probe._prepared(X, y)
    start = probe._start(parts)
    loss, curvature = probe._objective(parts, y, start), probe._curvature(parts, start) + probe._strength(start)
    for i in np.linspace(0, len(curvature) - 1, 9).astype(int):
        step = np.zeros(len(curvature))
        step[i] = 1e-4
        assert (loss(step)[1][i] - loss(-step)[1][i]) / 2e-4 == pytest.approx(curvature[i], rel=1e-4)


@pytest.mark.parametrize("name", CONVEX)
def test_the_order_of_the_train_questions_does_not_matter(name):
    (X, y), (other, _) = features_like_ours(500), features_like_ours(2000, seed=1)
    order = np.random.default_rng(2).permutation(len(y))
    first, second = (make_probe(name, ProbeSpec()).fit(*part) for part in ((X, y), (X[order], y[order])))
    np.testing.assert_allclose(first.decision_function(other), second.decision_function(other), atol=2e-4)
    assert (first.predict(other) != second.predict(other)).mean() < 0.001


@pytest.mark.parametrize("name", CONVEX)
def test_the_number_of_threads_does_not_matter(name):
    (X, y), (other, _) = features_like_ours(500), features_like_ours(2000, seed=1)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(make_probe(name, ProbeSpec()).fit(X, y).predict(other))
    assert (found[0] != found[1]).mean() < 0.001


@pytest.mark.parametrize("name", CONVEX)
def test_rounding_errors_of_the_features_do_not_make_an_accuracy_jump(name):
    (X, y), (other, right) = features_like_ours(500), features_like_ours(2000, seed=1)
    rates = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        noisy, tested = (part * (1 + seed * 1e-6 * rng.normal(size=part.shape)) for part in (X, other))
        rates.append((make_probe(name, ProbeSpec()).fit(noisy, y).predict(tested) == right).mean())
    assert np.ptp(rates) < 0.001
    assert 0.36 < rates[0] < 0.95  # between chance and certainty, where answers can flip


def test_the_low_rank_probe_finds_what_there_is():
    """From the saddle U = V = 0, at which a strong penalty leaves it, there is no way on."""
    train = meeting(600).shown(2)
    nothing = LowRank(l2=1000.0, rank=4).fit(*train)
    assert np.abs(nothing.weights_[0] @ nothing.weights_[1].T).max() < 1e-6
    probe = LowRank(l2=0.01, rank=4).fit(*train)
    assert probe.score(*meeting(1000, seed=2).shown(2, seed=2)) > 0.9


# --- evaluation ---


def layers(n: int, seed: int) -> list[Matching]:
    """Layer 0 says nothing, layer 1 all, layer 2 only together with the question."""
    return [noise(n, 5, seed=seed), injected(n, 5, seed), meeting(n, 5, seed)]


SPLITS = layers(500, 0), layers(400, 2)  # train, test


@pytest.mark.parametrize("name", ["linear", "tied", "bilinear"])
def test_each_number_of_passages_and_layer_has_its_own_probe(name):
    probe = make_probe(name, ProbeSpec(iterations=40))
    found = evaluate(probe, *SPLITS, (2, 4))
    assert found.correct.shape == found.shuffled.shape == (2, 3, 400)
    assert found.correct.dtype == found.shuffled.dtype == bool
    assert found.train.shape == (2, 3)
    assert found.correct[:, 1].all()
    assert (found.train[:, 1] == 1).all()
    for row, n in zip(found.correct, (2, 4), strict=True):
        assert near_chance(row[0], n)
        if name != "bilinear":
            assert near_chance(row[2], n)
    with pytest.raises(NotFittedError):
        probe.predict(np.ones((1, 3, 8)))


def test_another_question_takes_matching_away():
    found = evaluate(Bilinear(iterations=40), *SPLITS, (2, 5))
    assert (found.correct[:, 2].mean(1) > [0.85, 0.7]).all()
    assert near_chance(found.shuffled[0, 2], 2)
    assert near_chance(found.shuffled[1, 2], 5)


@pytest.mark.parametrize("probe", [Tied(), NoQuery()])
def test_another_question_changes_nothing_for_a_probe_that_does_not_see_it(probe):
    found = evaluate(probe, *SPLITS, (3,))
    np.testing.assert_array_equal(found.shuffled, found.correct)
    assert 0.2 < found.correct[:, 0].mean() < 0.5  # neither is trivial


def test_an_evaluation_is_repeated_by_its_seed_and_leaves_the_features():
    before = [part.passages.copy() for part in SPLITS[1]]
    first, again, other = (evaluate(Linear(iterations=10), *SPLITS, (2,), seed) for seed in (0, 0, 1))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert (first.correct != other.correct).any()
    for part, old in zip(SPLITS[1], before, strict=True):
        np.testing.assert_array_equal(part.passages, old)


# --- cross-fitting ---


class Memory(Tied):
    """Names the gold passage (the one at 1) of groups (coordinate 0 of the question) that it was fitted to only."""

    def fit(self, X, y):  # noqa: ARG002
        self.groups_ = np.unique(X[:, 0, 0])
        return self

    def predict(self, X):
        gold = X[:, 1:, 0].argmax(1)
        return np.where(np.isin(X[:, 0, 0], self.groups_), gold, (gold + 1) % (X.shape[1] - 1))


def test_no_question_is_tested_by_a_probe_that_was_fitted_to_its_group():
    groups = np.random.default_rng(0).integers(0, 31, size=300)
    passages = np.zeros((300, 3, 1))
    passages[:, 0] = 1
    test = [Matching(groups[:, None].astype(float), passages)] * 2
    for seed in range(5):
        found = cross_fit(Memory(), test, groups, (2, 3), seed)
        assert not found.correct.any()
        assert not found.shuffled.any()
        np.testing.assert_array_equal(found.train, np.ones((2, 2)))


def test_cross_fitting_tests_every_question_in_its_place():
    """A probe that is not trained is right where the gold passage is longer; both halves hold some of either kind."""
    longer = np.random.default_rng(1).random(100) < 0.5
    passages = np.zeros((100, 2, 1))
    passages[:, 0, 0] = np.where(longer, 1, -1)
    test = [Matching(np.ones((100, 1)), sign * passages) for sign in (1, -1)]
    groups = np.array([f"p{i // 3}" for i in range(100)])
    found = cross_fit(Dot(), test, groups, (2,))
    np.testing.assert_array_equal(found.correct, [[longer, ~longer]])
    np.testing.assert_array_equal(found.shuffled, [[longer, ~longer]])
    assert found.train.shape == (1, 2)


def test_both_halves_learn():
    found = cross_fit(Linear(), [injected(200), noise(200)], np.arange(200) // 2, (3,))
    assert found.correct[0, 0].all()
    assert near_chance(found.correct[0, 1], 3)


def test_whole_numbers_are_features_too():
    X = np.random.default_rng(3).integers(-3, 4, (60, 3, 4))
    y = np.random.default_rng(4).integers(2, size=60)
    X[np.arange(60), 1 + y, 0] += 10
    assert Tied().fit(X, y).score(X, y) == 1


@pytest.mark.parametrize("name", PROBES)
def test_no_probe_takes_a_slot_that_is_not_there(name):
    X, y = biased(20, 3).shown(3)
    with pytest.raises(ValueError, match="a slot from 0 to 2 each"):
        make_probe(name, ProbeSpec()).fit(X, y + 3)


def test_the_replication_chooses_by_questions_that_are_there():
    X, y = biased(20, 3).shown(3)
    for select in ((X, y + 3), (X[:0], y[:0])):
        with pytest.raises(ValueError, match="a slot from 0 to 2 each"):
            Replication().fit(X, y, select)


def test_the_replication_keeps_the_epoch_that_does_best_on_what_is_reported():
    X, y = biased(300, 3).shown(3)
    epochs = [np.mean(Replication(epochs=e, rate=0.01).fit(X, y).predict(X) == y) for e in range(1, 8)]
    kept = Replication(epochs=7, rate=0.01).fit(X, y, (X, y))
    assert kept.score(X, y) == max(epochs) > epochs[0]
    assert Replication.peeks
    assert not Linear.peeks


def test_the_replication_steps_as_torchs_adam_does():
    X, y = biased(80, 3).shown(3)
    ours = Replication(epochs=5, rate=0.01, batch=80).fit(X, y)
    layer = torch.nn.Linear(X[0].size, 3, dtype=torch.double)
    start = np.random.default_rng(0)
    with torch.no_grad():
        for weights in (layer.weight, layer.bias):
            bound = X[0].size ** -0.5
            weights.copy_(torch.from_numpy(start.uniform(-bound, bound, weights.shape)))
    adam, seen = torch.optim.Adam(layer.parameters(), lr=0.01), torch.from_numpy(X.reshape(80, -1))
    for _ in range(5):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(layer(seen), torch.from_numpy(y)).backward()
        adam.step()
    np.testing.assert_allclose(ours.weights_[0], layer.weight.detach().numpy(), atol=1e-8)
    np.testing.assert_allclose(ours.weights_[1], layer.bias.detach().numpy(), atol=1e-8)
