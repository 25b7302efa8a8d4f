"""Probes of one setup, against scikit-learn and plain computations, and their controls."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from small_setup import PAGE, ROUNDING, SEED, vectors

from dprlens.chapters.probe_grid import probed_in_worlds, probing_tasks
from dprlens.consistency import controls
from dprlens.consistency.probes import Features, Items, items, make_probe, matching
from dprlens.consistency.steps import (
    code_lengths,
    control_task,
    features,
    fit_probe,
    fit_reversible_pairs,
    fit_surface_features,
    learning_curve,
)
from dprlens.retrieval.negatives import BM25
from dprlens.setup import Setup
from dprlens.world.records import SPLITS

pytestmark = pytest.mark.slow

PROBE = PAGE.probe


@pytest.fixture(scope="module")
def probing(cache, page):
    """The page's questions, features of each network, and the tasks of Table 1 with what was needed for them."""
    _, states = cache
    # made here one after the other: side by side each would need a process of its own
    seen = {name: features(network, page.world) for name, network in page.networks.items()}
    states()
    tasks, found = probing_tasks(Setup(PAGE, SEED)), states()
    asked = {split: items(page.world, page.mined, split, PROBE.most, SEED) for split in SPLITS}
    return SimpleNamespace(**vars(page), seen=seen, tasks=tasks, states=found, items=asked)


def shown_of(probing, who: str, layer: int) -> list:
    """Train, dev and test questions as this pair of encoders sees them."""
    task = probing.tasks[who]
    return [matching(task.query, task.passage, layer, probing.items[split]) for split in SPLITS]


def test_features_are_the_states_of_all_texts_in_the_worlds_order(probing):
    world = probing.world
    titles, texts = ([getattr(passage, name) for passage in world.passages] for name in ("title", "text"))
    for name, found in probing.seen.items():
        assert found.questions.shape == (3, len(world.questions), 16)
        assert found.passages.shape == (3, len(world.passages), 16)
        asked = vectors(probing.networks[name], [question.text for question in world.questions])
        np.testing.assert_allclose(found.questions[-1], asked, atol=1e-5)
        np.testing.assert_allclose(found.passages[-1], vectors(probing.networks[name], titles, texts), atol=1e-5)


def test_features_may_be_means_over_tokens(probing):
    base, world = probing.networks["base"], probing.world
    means = features(base, world, "mean")
    np.testing.assert_array_equal(means.questions, base.mean_by_layer([question.text for question in world.questions]))
    np.testing.assert_array_equal(means.passages, base.mean_by_layer([p[1:3] for p in world.passages]))
    assert np.ptp(probing.seen["base"].passages[0], axis=0).max() == 0  # [CLS] before any block, which the mean is not
    assert np.ptp(means.passages[0], axis=0).max() > 0.01


def test_an_unknown_pooling_leaves_no_features(cache, probing, refused):
    kept = sorted(cache[0].glob("features-*"))
    with refused("'max'", "cls, mean"):
        features(probing.networks["base"], probing.world, "max")
    with refused("'max'", "cls, mean"):
        features.__wrapped__(probing.networks["base"], probing.world, "max")
    assert sorted(cache[0].glob("features-*")) == kept


def test_each_pair_is_of_its_encoders_and_finds_their_features(probing):
    assert [*probing.tasks] == ["pretrained", "dpr_query", "dpr_context", "dpr_paired", "random0", "random1"]
    who = {
        "pretrained": ("base", "base"),
        "dpr_query": ("query", "query"),
        "dpr_context": ("passage", "passage"),
        "dpr_paired": ("query", "passage"),
        "random0": ("random0", "random0"),
        "random1": ("random1", "random1"),
    }
    for name, task in probing.tasks.items():
        of = tuple(probing.seen[network].digest for network in who[name])
        assert (task.query.digest, task.passage.digest) == of
        assert (task.world.digest, task.negatives, task.spec, task.seed) == (
            probing.world.digest,
            PAGE.negatives,
            PROBE,
            SEED,
        )
    assert len({found.digest for found in probing.seen.values()}) == 5
    made = ["closed_world", "base_model", "dpr", *["features"] * 5]
    assert probing.states == [(name, "cached") for name in made]


# an independent route to what `probed` says


def shown_by_numpy(probing, who: str, n: int, layer: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """[q; p_1; …; p_N], standardised as the train questions are, and the slot, for train, dev and test questions."""
    parts = [part.shown(n, 3 * SEED + i) for i, part in enumerate(shown_of(probing, who, layer))]
    X = parts[0][0].astype(float)
    groups = X[:, 0], X[:, 1:].reshape(-1, X.shape[2])  # questions; passages of all slots
    mean, deviation = (np.stack([of(group, axis=0) for group in groups])[[0, *[1] * n]] for of in (np.mean, np.std))
    scale = np.where(deviation > 1e-4, 1 / np.maximum(deviation, 1e-4), 0)
    return [(((X - mean) * scale).reshape(len(X), -1), y) for X, y in parts]


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("who", ["pretrained", "dpr_paired"])
def test_the_papers_probe_is_right_where_logistic_regression_is(probing, who, n, layer):
    """scikit-learn keeps one vector of weights for two slots, ours two of half its length: half the penalty."""
    (Z, y), _, (testing, right) = shown_by_numpy(probing, who, n, layer)
    strength = (2 if n == 2 else 1) / (len(y) * PROBE.l2)
    theirs = LogisticRegression(C=strength, max_iter=5000, tol=1e-8).fit(Z, y).predict(testing) == right
    found = fit_probe(probing.tasks[who], "linear", (2, 3), (1, 2))
    ours = found.correct[n - 2, layer - 1]
    assert (ours == theirs).mean() >= 0.998
    assert len(ours) > 500


@pytest.mark.parametrize("who", ["pretrained", "dpr_paired"])
def test_without_a_probe_the_dot_product_decides(probing, who):
    """By numpy, and without slots: the gold passage must score higher than the others."""
    found = fit_probe(probing.tasks[who], "dot", (2, 3, 5), (1, 2))
    query, passage = probing.tasks[who].query, probing.tasks[who].passage
    chosen = probing.items["test"]
    for i, n in enumerate((2, 3, 5)):
        for j, layer in enumerate((1, 2)):
            q = query.questions[layer].astype(float)[chosen.questions]
            p = passage.passages[layer].astype(float)[chosen.choices[:, :n]]
            others, order = q.copy(), np.random.default_rng(SEED).permutation(len(q))
            others[order] = q[np.roll(order, 1)]
            for asked, right in ((q, found.correct[i, j]), (others, found.shuffled[i, j])):
                scores = (p * asked[:, None]).sum(-1)
                lead = scores[:, 0] - scores[:, 1:].max(1)
                clear = abs(lead) > ROUNDING
                np.testing.assert_array_equal(right[clear], lead[clear] > 0)
                assert clear.mean() > 0.95


def test_embeddings_of_cls_leave_the_dot_product_with_the_first_slot(probing):
    found = fit_probe(probing.tasks["pretrained"], "dot", (2, 3), (0,))
    for i, n in enumerate((2, 3)):
        slots = shown_of(probing, "pretrained", 0)[2].shown(n, 3 * SEED + 2)[1]
        np.testing.assert_array_equal(found.correct[i, 0], slots == 0)


def test_probes_fitted_to_the_other_half_are_tested_on_every_question(probing):
    call = probing.tasks["pretrained"], "tied", (2, 4), (0, 1, 2)
    by_train, by_test = fit_probe(*call), fit_probe(*call, "test")
    questions = len(probing.items["test"].questions)
    for found in (by_train, by_test):
        assert found.correct.shape == found.shuffled.shape == (2, 3, questions)
        assert found.correct.dtype == bool
        assert found.train.shape == (2, 3)
    assert (by_train.correct != by_test.correct).any()


def test_a_half_that_is_none_and_a_layer_that_is_not_there_are_refused(probing, refused):
    task = probing.tasks["pretrained"]
    with refused("'dev'", "train or test"):
        fit_probe(task, "tied", (2,), (1,), fit_on="dev")
    with refused("layer 3", "0 to 2"):
        fit_probe(task, "tied", (2,), (1, 3))
    with refused("layer -1", "0 to 2"):
        learning_curve(task, "tied", 2, -1, (20,))
    with refused("'quadratic'"):
        fit_probe(task, "quadratic", (2,), (1,))
    with refused("n = 6"):
        fit_probe(task, "tied", (2, 6), (1,))


def test_another_strength_fits_probes_again_and_reads_no_text_again(cache, probing):
    _, states = cache
    call = "tied", (2,), (1,)
    task = probing.tasks["pretrained"]
    fit_probe(task, *call)
    other = replace(PROBE, l2=100.0)
    assert fit_probe.record(replace(task, spec=other), *call) is None
    states()
    again = probing_tasks(Setup(replace(PAGE, probe=other), SEED))
    found = fit_probe(again["pretrained"], *call)
    told = states()
    assert [name for name, state in told if state != "cached"] == ["fit_probe"]
    assert [name for name, _ in told].count("features") == 5
    assert (found.correct != fit_probe(task, *call).correct).any()
    assert fit_probe.record(replace(task, spec=other), *call)


# what the controls make of the same features


def test_selectivity_is_of_the_test_questions_held_back(probing):
    found = control_task(probing.tasks["pretrained"], "tied", 2, (0, 2))
    questions = len(probing.items["test"].questions)
    assert {name: array.shape for name, array in found.items()} == {
        "task": (2, questions - questions * 7 // 10),
        "control": (2, questions - questions * 7 // 10),
        "questions": (questions - questions * 7 // 10,),
    }
    assert len(set(found["questions"])) == len(found["questions"])
    assert 0 <= found["questions"].min() <= found["questions"].max() < questions
    ids = [passage.id for passage in probing.world.passages]
    shown, maker = shown_of(probing, "pretrained", 2)[2], make_probe("tied", PROBE, SEED)
    expected = controls.selectivity(maker, shown, probing.items["test"], ids, 2, SEED)
    np.testing.assert_array_equal(found["task"][1], expected.task)
    np.testing.assert_array_equal(found["control"][1], expected.control)


def test_code_lengths_are_shares_of_what_slots_cost_without_features(probing):
    found = code_lengths(probing.tasks["dpr_query"], "tied", 3, (0, 2), 2)
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found[0], 1, atol=1e-6)  # [CLS] before any block tells nothing
    X, y = shown_of(probing, "dpr_query", 2)[2].shown(3, SEED)
    bits = controls.online_code(make_probe("tied", PROBE, SEED), X, y, 2, SEED)
    np.testing.assert_allclose(found[1], len(y) * np.log2(3) / bits)


def test_learning_curves_have_a_row_a_size(probing, refused):
    sizes = (10, 40, len(probing.items["train"].questions))
    found = learning_curve(probing.tasks["dpr_paired"], "tied", 2, 2, sizes)
    assert found.shape == (3, len(probing.items["test"].questions))
    assert found.dtype == bool
    assert len({row.tobytes() for row in found}) == 3
    train, _, test = shown_of(probing, "dpr_paired", 2)
    expected = controls.learning_curve(make_probe("tied", PROBE, SEED), train, test, 2, sizes, SEED)
    for row, size in zip(found, sizes, strict=True):
        np.testing.assert_array_equal(row, expected[size])
    with refused(str(sizes[-1] + 1), f"1 to {sizes[-1]}"):
        learning_curve(probing.tasks["dpr_paired"], "tied", 2, 2, (10, sizes[-1] + 1))


def test_reversed_pairs_are_tested_in_both_orders(probing):
    questions = len(controls.reversible(probing.world, probing.mined, "test", SEED).questions)
    assert questions > 100
    blind = fit_reversible_pairs(probing.tasks["dpr_paired"], "tied", 2)
    assert {name: right.shape for name, right in blind.items()} == {
        "ordinary": (2 * questions,),
        "balanced": (2 * questions,),
    }
    # who does not see the question is right on just one of each two, or always takes the first slot
    np.testing.assert_array_equal(blind["ordinary"].reshape(2, -1, 2).sum(2), 1)
    assert blind["balanced"].mean() == 0.5
    dot = fit_reversible_pairs(probing.tasks["dpr_paired"], "dot", 2)
    np.testing.assert_array_equal(dot["ordinary"], dot["balanced"])  # nothing is fitted
    chosen, task = controls.reversible(probing.world, probing.mined, "test", SEED), probing.tasks["dpr_paired"]
    query, passage = task.query, task.passage
    q, p = query.questions[2][chosen.questions].astype(float), passage.passages[2][chosen.choices].astype(float)
    scores = (p * q[:, None]).sum(-1)
    lead = np.tile(scores[:, 0] - scores[:, 1], 2)
    clear = abs(lead) > ROUNDING
    np.testing.assert_array_equal(dot["ordinary"][clear], lead[clear] > 0)


def test_without_reversible_pairs_there_is_nothing_to_report(probing, monkeypatch):
    nothing = Items(np.empty(0, dtype=int), np.empty((0, 2), dtype=int))
    monkeypatch.setattr(controls, "reversible", lambda *_: nothing)
    found = fit_reversible_pairs.__wrapped__(probing.tasks["pretrained"], "tied", 1)
    assert [(name, len(right)) for name, right in found.items()] == [("ordinary", 0)]


def test_what_needs_no_network_is_tested_on_the_same_questions(probing):
    found = fit_surface_features(probing.world, PAGE.negatives, PROBE, (2, 3), SEED)
    chosen = probing.items["test"]
    assert {name: right.shape for name, right in found.items()} == {
        name: (2, len(chosen.questions)) for name in ("length", "bag_of_words", "bm25", "overlap", "title")
    }
    asked = [probing.world.questions[i].text for i in chosen.questions]
    ranked = BM25(probing.world.passages, PAGE.negatives).search(asked, len(probing.world.passages))
    for i, n in enumerate((2, 3)):
        for right, passages, scores, choices in zip(found["bm25"][i], *ranked, chosen.choices[:, :n], strict=True):
            gold, *others = (scores[passages == place].item() for place in choices)
            if gold != max(others):  # ties are for the first slot
                assert right == (gold > max(others))


def test_a_page_may_probe_features_that_were_kept(probing, tmp_path):
    """By their digest, whatever made them."""
    probing.seen["query"].save(tmp_path)
    kept = Features.load(tmp_path)
    call = "cosine", (2,), (1,)
    task = probing.tasks["dpr_query"]
    fit_probe(task, *call)
    assert fit_probe.record(replace(task, query=kept, passage=kept), *call)
    assert not fit_probe.record(replace(task, query=kept, passage=probing.seen["base"]), *call)


def test_worlds_are_probed_only_where_the_profile_has_several():
    assert probed_in_worlds(Setup(PAGE, SEED), (2,), (1,)) == []
