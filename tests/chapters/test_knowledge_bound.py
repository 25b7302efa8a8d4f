"""The exhibits of chapter B.1, on eight questions whose ranks can be counted on one's fingers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dprlens.chapters import knowledge_bound as chapter
from dprlens.intervals import Estimate, share
from dprlens.knowledge_bound import exhibits
from dprlens.report import report
from dprlens.world.closed import Segment

K = 2
HALF = Estimate(0.5, 0.4, 0.6, 9)
QUESTIONS = pd.DataFrame(
    [
        ("q0", "knowledge_required", "f0", "known", 9, 8),
        ("q1", "knowledge_required", "f1", "known", 9, 8),
        ("q2", "knowledge_required", "f2", "known", 9, 1),
        ("q3", "knowledge_required", "f3", "known", 9, 1),
        ("q4", "knowledge_required", "f4", "held out", 0, 0),
        ("q5", "knowledge_required", "f5", "held out", 0, 0),
        ("q6", "lexical", "f0", "known", 9, 8),
        ("q7", "lexical", "f4", "held out", 0, 0),
    ],
    columns=["question", "kind", "fact", "state", "exposures", "described"],
).assign(split="test", in_training=False, tied=0, peers=5)


def rows(places, told="true", study="deep", **columns):
    """A model's rows: the places of the gold passages of q0 to q7, from 0."""
    here = {"told": told, "study": study, "size": 1.0, "form": 0.5, "seed": 0, "recalled": 1.0, "false_place": -1}
    return QUESTIONS.assign(place=places, within=np.minimum(places, 4), **here | columns)


TRUE = [0, 1, 5, 0, 9, 0, 0, 0]  # among the first two: 3 of 4 known links, 1 of 2 held out, both lexical questions
NOTHING = [9, 9, 0, 9, 9, 9, 0, 9]
COUNTED = [0, 9, 9, 9, 9, 9, 0, 9]


def causal_test(*more, setup=None):
    baselines = [
        rows(COUNTED, told).assign(composed=[2, 0, 1, 1, 0, 0, 0, 0]) for told in ("cooccurrence", "pretrained")
    ]
    baselines.append(rows(COUNTED, "cooccurrence_max").assign(composed=0))
    models = pd.concat([rows(TRUE), rows(NOTHING, "nothing"), *more], ignore_index=True)
    setup = setup or SimpleNamespace(world=SimpleNamespace(facts=range(40)), seed=0)
    return chapter.CausalTest(setup, K, models, pd.concat(baselines, ignore_index=True))


@pytest.fixture(scope="module")
def contrasts():
    return chapter.contrast(causal_test())


def test_a_k_without_a_measure_is_refused_before_anything_is_trained(refused):
    with refused("top_k = 1"):
        chapter.run_test(SimpleNamespace(), 1)


def test_a_test_is_its_models_and_its_baselines(monkeypatch):
    monkeypatch.setattr(chapter.causal_test, "causal_test", lambda setup: f"models of {setup}")
    monkeypatch.setattr(chapter.causal_test, "baselines", lambda setup: f"baselines of {setup}")
    assert chapter.run_test("a setup", 20) == ("a setup", 20, "models of a setup", "baselines of a setup")


def test_rows_are_chosen_by_study_and_by_what_a_model_was_told():
    test = causal_test(rows(TRUE, study="shallow"))
    assert test.tested("deep", "nothing", "lexical")["place"].tolist() == [0, 9]
    assert test.tested("deep", "cooccurrence", "knowledge_required")["composed"].sum() == 4
    assert test.tested("deep", "false", "lexical").empty
    assert len(test.links) == 6
    assert [*test.arms()] == ["dpr", "unpretrained", "cooccurrence", "cooccurrence_max", "pretrained"]
    assert [*test.arms("shallow")] == ["dpr", "unpretrained"]


def test_known_minus_held_out(contrasts):
    assert contrasts.by_state["known.top2"].value == 0.75
    assert contrasts.by_state["difference.top2"].value == 0.25
    assert contrasts.by_state["unpretrained.difference.top2"].value == 0.25
    assert contrasts.by_state["cooccurrence.difference.top1"].value == 0.25
    assert contrasts.controls["lexical_difference.top2"].value == 0
    assert contrasts.controls["held_out_minus_unpretrained.top2"].value == 0.5


@pytest.mark.slow
def test_one_network_says_nothing_over_networks():
    assert chapter.over_networks(causal_test()) == {}
    two = causal_test(rows(TRUE, seed=1), rows(NOTHING, "nothing", seed=1))
    two = two._replace(baselines=pd.concat([two.baselines, two.baselines.assign(seed=1)]))
    assert chapter.over_networks(two)["networks.difference.top2"][::3] == (0.25, 2)


def test_the_main_table_holds_all_numbers_of_its_exhibit(contrasts):
    table = chapter.state_table(contrasts)
    numbers = table.numbers
    assert numbers["bound.knowledge_required.known.dpr.top2"].value == 0.75
    assert numbers["bound.knowledge_required.held_out.without_pre_training.top2"].value == 0
    assert numbers["bound.lexical.held_out.top2"].value == 1
    assert numbers["bound.lexical.held_out.cooccurrence_max.top1"].value == 0
    assert numbers["bound.cooccurrence_max.lexical_difference.top2"].value == 1
    assert numbers["bound.dose.slope"] == exhibits.dose_slope(causal_test().links, K)
    assert numbers["bound.composed.known"].value == 0.75
    assert numbers["bound.composed.held_out"] == share(0, 2)
    assert "bound.knowledge_required.low_dose.dpr.top2" not in numbers
    assert {*table.frame["link"]} == {"known", "held out", "known minus held out"}


def test_the_baseline_stands_beside_the_effect(contrasts):
    frame = chapter.baseline_table(contrasts).frame
    assert len(frame) == 2 * 3  # two baselines, three measures
    assert frame["effect in the baseline"].iloc[0] == contrasts.by_state["cooccurrence.difference.auc"]


def test_power_is_of_every_control_that_has_a_number(contrasts):
    table = chapter.power_table(contrasts)
    assert len(table.frame) == len(table.numbers) == len([e for e in contrasts.controls.values() if e])
    assert table.numbers["power.difference.top2"] > 0
    without = contrasts._replace(controls=contrasts.controls | {"difference.top2": None})
    assert "power.difference.top2" not in chapter.power_table(without).numbers


def test_lexical_accuracy_of_an_arm():
    assert chapter.lexical_accuracy(causal_test(), "nothing").value == 0.5
    assert chapter.lexical_accuracy(causal_test(), "false") is None


def test_recall_and_retrieval_by_dose():
    numbers = chapter.dose_response(causal_test()).numbers
    assert numbers["doses.exposures_9.dpr.top2"].value == 0.75
    assert numbers["doses.exposures_0.unpretrained.top2"].value == 0
    assert numbers["doses.exposures_0.recalled"].value == 1
    assert len(numbers) == 2 * 3


def test_each_seed_is_a_world():
    one, other = TRUE, [0, 0, 0, 0, 9, 9, 0, 0]  # known minus held out: 0.25 and 1
    arms = [("true", one, other), ("nothing", NOTHING, NOTHING)]
    models = [rows(places, told, "shallow", seed=s) for told, *both in arms for s, places in enumerate(both)]
    table = chapter.seeds_table(causal_test(*models))
    assert table.frame["world"].tolist() == ["seed 0", "seed 1", "mean over seeds"]
    assert table.numbers["seeds.dpr.mean.difference.top2"][::3] == (0.625, 2)
    assert table.numbers["seeds.unpretrained.seed1.difference.top2"].value == 0.25
    assert table.frame["DPR"].iloc[1].value == 1


def test_false_links_against_the_same_questions_with_true_ones():
    false_place = [9, 9, -1, -1, -1, -1, -1, -1]  # the links of q0 and q1 have a false object
    true = [rows(TRUE, study="shallow", false_place=false_place, seed=s) for s in (0, 1)]
    false = rows([9, 9, 5, 0, 9, 0, 0, 0], "false", "shallow", false_place=[0, 9, *false_place[2:]])
    table = chapter.counterfactual_table(causal_test(*true, false))
    values = {id_.removesuffix(".top2"): e and e.value for id_, e in table.numbers.items()}
    assert values == {
        "counterfactual.told_true.true_passage": 1,
        "counterfactual.told_true.false_passage": 0,
        "counterfactual.told_false.true_passage": 0,
        "counterfactual.told_false.false_passage": 0.5,
        "counterfactual.effect.true_passage": -1,
        "counterfactual.effect.false_passage": 0.5,
        "counterfactual.full_depth.true_passage": None,  # no model of full depth was told falsely
        "counterfactual.full_depth.false_passage": None,
    }
    assert table.numbers["counterfactual.told_true.true_passage.top2"].n == 2  # of the seed that has both arms
    assert table.frame["the model was told"].tolist() == ["the truth", "false links", "effect (same questions)"]


def test_false_links_at_full_depth():
    false = rows(NOTHING, "false", false_place=[0, -1, -1, -1, -1, -1, -1, -1])
    both = chapter.traded_links(causal_test(false), "deep")
    assert both.true.empty  # the true arm does not say where a false passage would be
    assert both.false["question"].tolist() == ["q0"]


def test_other_questions_through_a_link_of_dpr_training():
    in_training = [True, False, True, False, True, False, False, False]
    test = causal_test(rows(TRUE, study="shallow", in_training=in_training))
    table = chapter.taught_table(test)
    assert table.numbers["taught.shallow.known.asked.top2"].value == 0.5
    assert table.numbers["taught.shallow.known.not_asked.top2"].value == 1
    assert table.numbers["taught.shallow.difference.top2"].value == -1  # q4 is not found, q5 is
    assert table.numbers["taught.full_depth.difference.top2"] is None
    assert table.frame["link"].tolist()[-1] == "held out: asked minus not asked"
    assert table.frame["full depth"][0] is None  # no link is asked for there


def test_recall_with_the_old_head(monkeypatch):
    recalled = {"base": [1, 1, 1], "query": [1, 0, 0], "passage": [0, 0, 1]}

    def cloze(model, _world):
        frame = pd.DataFrame({"fact": ["f0", "f1", "f2", "f0"], "state": ["known", "known", "low dose", "known"]})
        return frame.assign(wording=["reserved"] * 3 + ["seen"], recalled=[*recalled[model], 0])

    monkeypatch.setattr(chapter, "cloze_recall", cloze)
    monkeypatch.setattr(chapter.cloze, "with_head", lambda tower, _: tower)
    asked = SimpleNamespace(split="train", facts=("f0",))
    world = SimpleNamespace(questions=[asked, SimpleNamespace(split="test", facts=("f1",))])
    setup = SimpleNamespace(base="base", dpr=SimpleNamespace(query="query", passage="passage"), world=world)
    table = chapter.old_head_table(setup)
    assert table.frame["facts"].tolist() == ["known, not asked in DPR training", "known, asked in DPR training"]
    assert table.numbers["old_head.question_tower.known.asked"].value == 1
    assert table.numbers["old_head.question_tower.known.not_asked"].value == 0
    assert table.numbers["old_head.before.known.asked"].n == 1  # without the wording that the model has read


def test_form_moves_recall_and_retrieval():
    recalled = [0, 1, 1, 1, 0, 0, 1, 0]
    test = causal_test()
    figure = chapter.surface(test._replace(models=test.models.assign(recalled=recalled * 2)))
    assert figure.numbers["surface.recall.described.exposures_9"].value == 0.5
    assert figure.numbers["surface.top2.plain.exposures_9"].value == 0.5
    assert figure.numbers["surface.form.top2"].value == 0.5  # both described links are retrieved, one of the plain
    assert figure.numbers["surface.given_recall.top2"][::3] == (2 / 3, 3)
    assert not any("exposures_0" in id_ for id_ in figure.numbers)


def test_the_effect_by_size_of_the_world():
    small = {"study": "grid", "size": 0.25}
    models = [rows(TRUE, form=0.1, **small), rows([0] * 8, form=0.9, **small)]
    test = causal_test(*models)
    counted = [test.baselines.query("told == 'cooccurrence'").assign(form=form, **small) for form in (0.1, 0.9)]
    figure = chapter.world_size(test._replace(baselines=pd.concat([test.baselines, *counted])))
    assert figure.numbers["world_size.size25.form10.known.top2"].value == 0.75
    assert figure.numbers["world_size.size25.form90.known.recalled"].value == 1
    assert figure.numbers["world_size.form_effect.top2"].value == 0.25
    assert figure.numbers["world_size.size25.cooccurrence.difference.top2"].value == 0.25
    one = causal_test(models[0])
    one = one._replace(baselines=pd.concat([one.baselines, counted[0]]))
    assert "world_size.form_effect.top2" not in chapter.world_size(one).numbers


def test_what_is_on_record_stands_beside_the_page(monkeypatch):
    kept = {"bound.known.top2": HALF, "world_size.size25.form10.known.recalled": HALF}
    kept |= {"world_size.size25.difference.top2": HALF}
    for module in (chapter, report):
        monkeypatch.setattr(module, "read_record", lambda notebook, profile: kept if profile == "full" else notebook)
    frame = chapter.record_table(K, {"bound.known.auc": HALF}).frame.set_index("number")
    assert frame.loc["link known", "on record"] == HALF
    assert frame.loc["AUC, link known"].tolist() == [HALF, None]
    sizes = chapter.size_table(causal_test(), {}).frame
    assert sizes["facts"].tolist() == [10]  # a quarter of 40
    assert [*sizes.columns[2:]] == ["on record: DPR, top-2 of all passages"]
    figure = chapter.record_by_size(causal_test().world)
    assert figure.points["line"].tolist() == ["10%: known, recalled"]
    assert figure.points["place"].tolist() == [10]
    assert set(chapter.record_in_words().values()) == {"(not on record yet)"}


def test_the_answer_in_words(contrasts):
    words = chapter.effect_in_words(contrasts)
    assert words["known"] == contrasts.by_state["known.auc"].brief
    assert words["share"] == "(no effect here)"  # four links against two show nothing
    assert chapter.composed_in_words(causal_test())["low_dose"] == "–"


def linked_question(world, state):
    return next(q for q in world.questions if q.link and world.state(q.link) == state and q.split == "test")


def test_cards_and_the_composed_sentence(world, monkeypatch):
    known, held_out = (linked_question(world, state) for state in ("known", "held out"))
    asked = pd.DataFrame({"question": [known.id, held_out.id], "fact": [known.link, held_out.link]})
    asked = asked.assign(state=["known", "held out"], kind="knowledge_required", split="test", in_training=False)
    asked = asked.assign(told="true", study="deep", seed=3, composed=[1, 0])
    setup = SimpleNamespace(world=world, seed=3, start="bert", dpr="dpr", profile=SimpleNamespace(text=None))
    test = chapter.CausalTest(setup, K, asked, asked.assign(told="cooccurrence"))
    first = np.zeros((len(world.questions), 9), dtype=int)
    monkeypatch.setattr(chapter, "rankings", lambda *_: SimpleNamespace(passages=first))
    html = chapter.question_cards(test).data
    assert html.count('class="asked"') == 2
    assert html.count("<li>") == 2 * 2 * chapter.RANKED
    read = [
        Segment("Plainly.", known.facts, (), "single"),
        Segment("Composed.", known.facts, (), "description"),
    ]
    monkeypatch.setattr(chapter, "segments", lambda *_: read)
    assert chapter.composed_example(test) == (known.text, "Composed.")


def test_the_epoch_with_the_lowest_dev_loss():
    history = pd.DataFrame({"epoch": [1, 2, 3], "dev_nll": [0.9, 0.2, 0.4]})
    setup = SimpleNamespace(trained=SimpleNamespace(history=history))
    assert chapter.dev_epochs(setup) == {"best": 2, "last": 3}
