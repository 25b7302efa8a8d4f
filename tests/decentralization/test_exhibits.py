"""The numbers of Figures 1–7 and Table 2, against their definitions."""

import numpy as np
import pytest

from dprlens.decentralization import exhibits
from dprlens.decentralization.active_neurons import activity, participation, union_gain, union_ratio
from dprlens.decentralization.attribution import SITES, Attribution
from dprlens.decentralization.exhibits import (
    across,
    across_thresholds,
    at_threshold,
    blocks_in_words,
    both,
    concentration,
    counts,
    examples_by_kind,
    gains,
    intervention_effects,
    label,
    on_topic,
    paired_differences,
    strength,
    strip_in_words,
)
from dprlens.intervals import Estimate, difference, mean, over_runs

RNG = np.random.default_rng(2)
CLUSTERS = list("aabbcdef")


def random_sites() -> dict[str, np.ndarray]:
    return {"intermediate": RNG.random((8, 2, 10)) < 0.3, "output": RNG.random((8, 2, 4)) < 0.4}


MODELS = {"pretrained": random_sites(), "dpr": random_sites(), "dpr1": random_sites()}


def attributions(seed: int) -> Attribution:
    rng = np.random.default_rng(seed)
    return Attribution(
        rng.normal(size=(8, 2, 10)), rng.normal(size=(8, 2, 4)), np.ones(8), np.ones((8, 2, 2)), np.ones(8, int)
    )


def test_names_on_the_page():
    assert [label(name) for name in ("pretrained", "dpr", "dpr2")] == ["pre-trained BERT", "DPR", "DPR, seed 3"]


def test_counts_have_the_ids_of_the_figure():
    found = counts("figure1", MODELS, CLUSTERS)
    for model in MODELS:
        for site in SITES:
            for block in range(2):
                own = MODELS[model][site][:, block]
                assert found[f"figure1.{model}.block{block}.{site}.union"].value == own.any(0).sum()
                assert found[f"figure1.{model}.block{block}.{site}.mean"] == mean(own.sum(1), CLUSTERS)
            every = MODELS[model][site]
            assert found[f"figure1.{model}.{site}.union"].value == every.any(0).sum()
            assert found[f"figure1.{model}.{site}.in_50"] == (every.sum(0) >= 4).sum()
            assert found[f"figure1.{model}.{site}.sharing_by_chance"] == activity(every, CLUSTERS).chance
        assert found[f"figure1.{model}.sharing"] == activity(both(MODELS[model]), CLUSTERS).sharing
    assert both(MODELS["dpr"]).shape == (8, 2, 14)


def test_gains_are_over_pre_trained_bert_and_paired():
    found = gains("gains", MODELS, CLUSTERS)
    assert {id_.split(".")[1] for id_ in found} == {"dpr_minus_pretrained", "dpr1_minus_pretrained"}
    a, b = (MODELS[name]["output"] for name in ("dpr", "pretrained"))
    assert found["gains.dpr_minus_pretrained.output.union"].value == int(a.any(0).sum()) - int(b.any(0).sum())
    expected = difference(a.sum((1, 2)), b.sum((1, 2)), CLUSTERS)
    assert found["gains.dpr_minus_pretrained.output.mean"] == expected


def test_concentration_by_site_and_without_outliers():
    models = {"pretrained": attributions(0), "dpr": attributions(1)}
    found = concentration("measures", models, CLUSTERS)
    values = {name: participation(one.intermediate) for name, one in models.items()}
    assert found["measures.dpr.intermediate.participation"] == mean(values["dpr"], CLUSTERS)
    expected = difference(values["dpr"], values["pretrained"], CLUSTERS)
    assert found["measures.dpr_minus_pretrained.intermediate.participation"] == expected
    assert len(found) == 3 * 3 * 4  # models and their difference, sites and all, measures
    trimmed = concentration("trimmed", models, CLUSTERS, without=[0, 13, 14])
    flat = np.delete(models["dpr"].scores.reshape(8, -1), [0, 13, 14], axis=1)
    assert trimmed["trimmed.dpr.all.participation"] == mean(participation(flat), CLUSTERS)
    assert not any(".output." in id_ for id_ in trimmed)


def test_a_passage_is_on_topic_if_its_article_is_of_an_entity_in_question(world):
    question = next(q for q in world.questions if q.kind == "knowledge_required")
    link = world.fact[question.link]
    places = {passage.id: i for i, passage in enumerate(world.passages)}
    by_title = {passage.title: i for i, passage in enumerate(world.passages)}
    entities = {world.passage[question.gold].title, link.subject, link.object, world.fact[question.target].object}
    off = next(i for title, i in by_title.items() if title not in entities)
    assert on_topic(world, question, [places[question.gold], by_title[link.subject], off, off]) == 0.5


def test_changes_are_relative_to_the_untouched_row_and_to_the_scale():
    ks, shape = (1, 2), (1 + 2 * 3 * 2, 8)
    margins, places = RNG.normal(size=shape), RNG.integers(0, 40, shape)
    found = intervention_effects("causal.dpr", margins, places, ks, 20, 4.0, CLUSTERS)
    rows = [(k, kind, action) for k in ks for kind in ("top", "random", "bottom") for action in ("silenced", "doubled")]
    for i, (k, kind, action) in enumerate(rows, start=1):
        id_ = f"causal.dpr.{action}.{kind}.k{k}"
        assert found[f"{id_}.margin"] == mean((margins[i] - margins[0]) / 4, CLUSTERS)
        assert found[f"{id_}.found"] == mean(places[i] < 20, CLUSTERS)
    top, random = (rows.index((2, kind, "doubled")) + 1 for kind in ("top", "random"))
    expected = difference((margins[top] - margins[0]) / 4, (margins[random] - margins[0]) / 4, CLUSTERS)
    assert found["causal.dpr.doubled.top.k2_minus_random.margin"] == pytest.approx(expected)
    assert found["causal.dpr.found"] == mean(places[0] < 20, CLUSTERS)


def test_paired_numbers_are_those_of_the_two_models():
    found = paired_differences("figure2", MODELS, CLUSTERS)
    for model in ("dpr", "dpr1"):
        minus, over = (f"figure2.{model}_{word}_pretrained" for word in ("minus", "over"))
        for site in SITES:
            a, b = MODELS[model][site], MODELS["pretrained"][site]
            for name, part in [(f"block{i}.{site}", slice(i, i + 1)) for i in range(2)] + [(site, slice(None))]:
                pair = a[:, part], b[:, part]
                assert found[f"{minus}.{name}.union"] == union_gain(*pair, CLUSTERS)
                assert found[f"{over}.{name}.union"] == union_ratio(*pair, CLUSTERS)
                assert found[f"{over}.{name}.union"].value == pytest.approx(pair[0].any(0).sum() / pair[1].any(0).sum())
        shared = [activity(both(MODELS[one]), CLUSTERS).sharing.value for one in (model, "pretrained")]
        assert found[f"{minus}.sharing"].value == pytest.approx(shared[0] - shared[1])
    assert not any("pretrained_" in id_ for id_ in found)


def test_blocks_are_told_by_their_side_of_zero():
    ends = [(1, 2), (-1, 1), (-3, -2), (0.5, 4), (0, 1)]
    found = {f"a.block{b}.union": Estimate(sum(e) / 2, *e, 9) for b, e in enumerate(ends)}
    words = blocks_in_words(found, "a.block{}.union")
    assert words == "above 0 in blocks 0, 3; below 0 in block 2; on both sides of 0 in blocks 1, 4"


def test_strength_is_over_all_examples():
    strong = {"bert": np.array([3, 3, 1, 0, 9, 9, 5, 4]), "dpr": np.array([4, 3, 2, 1, 8, 9, 7, 6])}
    found = strength("table2", strong, CLUSTERS)
    assert found["table2.more_strong"].value == 5 / 8  # ties are not more
    assert found["table2.more_strong"].n == 8
    assert found["table2.bert.strong"] == mean(strong["bert"], CLUSTERS)
    assert found["table2.dpr_minus_bert.strong"] == difference(strong["dpr"], strong["bert"], CLUSTERS)


def test_worlds_are_compared_by_ratios():
    worlds = [{"pretrained": attributions(s), "dpr": attributions(s + 10)} for s in range(3)]
    found = across("worlds", worlds, 0.2)
    logs = []
    for world in worlds:
        unions = {name: one.by_site(one.active(0.2))["intermediate"].any(0).sum() for name, one in world.items()}
        logs.append(np.log2(unions["dpr"] / unions["pretrained"]))
    expected = over_runs(logs)
    got = found["worlds.dpr_over_pretrained.intermediate.union"]
    assert got == pytest.approx((2**expected.value, 2**expected.low, 2**expected.high, 3))
    blocks = {f"block{b}.{site}.union" for b in range(2) for site in SITES}
    assert {id_.split(".", 2)[2] for id_ in found} == {*exhibits.ACROSS, *blocks, "more_strong"}
    assert across("worlds", worlds[:1], 0.2) == {}


def test_worlds_are_compared_block_by_block_and_with_the_controls():
    worlds = [
        {name: attributions(s + 10 * i) for i, name in enumerate(("pretrained", "dpr", "shuffled"))} for s in (0, 1)
    ]
    found = across("ratios", worlds, 0.2)
    assert {id_.split(".")[1] for id_ in found} == {
        "dpr_over_pretrained", "shuffled_over_pretrained", "dpr_over_shuffled"
    }  # fmt: skip
    logs, more = [], []
    for world in worlds:
        active = {name: one.active(0.2) for name, one in world.items()}
        unions = {name: one.by_site(active[name])["output"][:, 1].any(0).sum() for name, one in world.items()}
        logs.append(np.log2(unions["dpr"] / unions["shuffled"]))
        more.append(np.mean(active["dpr"].sum((1, 2)) > active["shuffled"].sum((1, 2))))
    assert found["ratios.dpr_over_shuffled.block1.output.union"].value == pytest.approx(2 ** np.mean(logs))
    assert found["ratios.dpr_over_shuffled.more_strong"] == over_runs(more)


def test_thresholds_over_worlds_have_ids_of_their_own():
    worlds = [
        {name: attributions(s + 10 * i) for i, name in enumerate(("pretrained", "dpr", "random"))} for s in (0, 1)
    ]
    found = across_thresholds("ratios", worlds, [0.05, 0.3])
    assert at_threshold(0.05) == "t0_05"
    for t in (0.05, 0.3):
        id_ = "dpr_over_pretrained.intermediate.union"
        assert found[f"ratios.{at_threshold(t)}.{id_}"] == across("ratios", worlds, t)[f"ratios.{id_}"]
    assert not any("random" in id_ or "block" in id_ for id_ in found)
    assert across_thresholds("ratios", worlds[:1], [0.05]) == {}


def test_a_ratio_to_nothing_is_left_out():
    nothing = attributions(0)._replace(intermediate=-np.ones((8, 2, 10)))
    found = across("worlds", [{"pretrained": nothing, "dpr": attributions(1)}] * 2, 0.2)
    assert "worlds.dpr_over_pretrained.intermediate.union" not in found
    assert "worlds.dpr_over_pretrained.output.union" in found


def test_questions_to_follow_are_as_many_of_each_kind_in_their_order(world):
    kinds = [question.kind for question in world.questions]
    examples = np.random.default_rng(0).permutation(len(kinds))[:40]
    places = examples_by_kind(world, examples, 6)
    assert len(set(places)) == 6
    by_kind = {}
    for i in places:
        by_kind.setdefault(kinds[examples[i]], []).append(i)
    assert {len(of_kind) for of_kind in by_kind.values()} == {3}
    for kind, of_kind in by_kind.items():
        assert of_kind == [i for i in range(40) if kinds[examples[i]] == kind][:3]
    assert examples_by_kind(world, examples[:1], 6) == [0]
    assert examples_by_kind(world, [], 6) == []


def test_the_question_that_is_followed_first_is_one_that_only_the_second_model_finds(world):
    examples = np.random.default_rng(0).permutation(len(world.questions))[:40]
    golds = np.array([world.place(question.gold) for question in world.questions])
    before = np.stack([golds + 1, golds + 2], 1)  # finds nothing
    after = before.copy()
    assert examples_by_kind(world, examples, 6, before, after) == examples_by_kind(world, examples, 6)
    after[examples[[13, 30]], 1] = golds[examples[[13, 30]]]
    first, *others = examples_by_kind(world, examples, 6, before, after)
    assert first == 13
    assert others == [i for i in examples_by_kind(world, examples, 6) if i != 13][:5]
    before[examples[13], 0] = golds[examples[13]]
    assert examples_by_kind(world, examples, 6, before, after)[0] == 30


def test_a_strip_in_words_counts_the_neurons_of_each_block():
    share = np.array([[0.0, 0.5, 1.0], [0.0, 0.0, 0.25], [0.0, 0.0, 0.0]])
    assert strip_in_words(share, "BERT") == "BERT. Neurons active for any question, by block: 0: 2, 1: 1, 2: 0."
