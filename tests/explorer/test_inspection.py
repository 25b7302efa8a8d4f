"""One question asked of one model, against plain computations; and the pages and widgets that show it (`live`)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dprlens.bert.encoder import DualEncoder, Encoder, EncoderSpec, new_model, random_bert
from dprlens.decentralization.active_neurons import SampleSpec
from dprlens.decentralization.attribution import AttributionSpec
from dprlens.explorer import inspection, widgets
from dprlens.explorer.inspection import (
    Ground,
    Inspection,
    Model,
    beliefs,
    check_question,
    default_question,
    facts_of_question,
    notes,
    place,
    pool,
    words,
)
from dprlens.retrieval.index import InMemory, passage_texts
from dprlens.world.passages import Store

pytestmark = pytest.mark.slow

SAMPLE = SampleSpec(candidates=6)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPRLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def base(tokenizer) -> Encoder:
    """A masked-LM with lively weights."""
    model = random_bert(tokenizer, EncoderSpec(layers=3, d_model=32, d_ff=64, heads=2, max_length=40), seed=7)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() == 2 and ".layer." in name:
                weights *= 8
    return Encoder(tokenizer, model, "cpu")


@pytest.fixture(scope="module")
def ground(world, base, toy) -> Ground:
    """Two models on the small world: the base, and a pair of different towers."""
    places = np.arange(len(world.passages))
    models = {
        inspection.PRETRAINED: Model(DualEncoder(base, base), base, world, places),
        inspection.DPR: Model(DualEncoder(toy, base), base, world, places),
    }
    ids = [passage.id for passage in world.passages]
    negatives = {q.id: [id_ for id_ in ids if id_ != q.gold][:4] for q in world.questions}
    return Ground(world, models, (), negatives, AttributionSpec(nodes=16, most_nodes=32), SAMPLE)


@pytest.fixture(scope="module")
def asked(ground) -> Inspection:
    return Inspection(ground, ground.models[inspection.DPR], ground.world.questions[5].text)


@pytest.fixture(scope="module")
def free(ground) -> Inspection:
    return Inspection(ground, ground.models[inspection.DPR], "Who lives in a house by the river?")


# what was typed


@pytest.mark.parametrize("text", ["", "  \n ", "???", "… — !"])
def test_what_is_no_question_is_refused_in_one_sentence(ground, refused, text):
    with refused("type a question"):
        Inspection(ground, ground.models[inspection.DPR], text)


def test_a_question_of_too_many_characters_is_refused(refused):
    assert check_question("a" * inspection.CHARACTERS)
    with refused("2,001", "2,000"):
        check_question("a" * (inspection.CHARACTERS + 1))


def test_spaces_do_not_matter(ground, asked):
    assert Inspection(ground, asked.model, f"  {asked.text.replace(' ', '  ')} \n").text == asked.text


def test_a_question_of_the_world_is_known_in_any_case_of_letters(ground, asked):
    assert asked.question == ground.world.questions[5]
    assert Inspection(ground, asked.model, asked.text.upper()).question == asked.question


def test_words_are_without_case_and_keep_signs():
    assert words("Élan, or not?") == ("e\u0301lan", ",", "or", "not", "?")


def test_notes_say_what_is_cut_and_what_is_unknown(base):
    assert notes(base, "Where was she born?") == []
    (cut,) = notes(base, "born " * 50)
    assert "first 38 of 50" in cut
    (unknown,) = notes(base, "Where is תל born?")
    assert "[UNK] for תל" in unknown


def test_the_facts_of_a_question_come_first_then_those_of_the_entities_named(ground, world):
    question = next(q for q in world.questions if q.link)
    found = [fact.id for fact in facts_of_question(ground, question.text)]
    assert tuple(found[:2]) == question.facts
    assert len(set(found)) == len(found)
    link = world.fact[question.link]
    own = {fact.id for fact in world.facts if fact.subject == link.subject}
    assert own <= set(found)


def test_free_text_names_the_entities_in_it_whatever_the_case(ground, world):
    subject = world.facts[0].subject
    found = facts_of_question(ground, f"tell me of {subject.lower()}!")
    assert {fact.subject for fact in found} == {subject}
    assert facts_of_question(ground, "tell me of nobody") == []


def test_suggestions_are_test_questions_and_begin_with_what_was_told(ground, world):
    question = [q for q in world.questions if q.split == "test"][-1]
    told = replace(ground, told=(world.fact[question.target],))
    about = {q.text for q in world.questions if question.target in q.facts}
    assert told.suggestions(1)[0] in about
    assert set(told.suggestions(10_000)) == {q.text for q in world.questions if q.split == "test"}
    assert len(ground.suggestions(7)) == 7


def test_the_default_question_takes_a_fact_that_the_model_may_know(ground, world):
    question = ground.questions[words(default_question(ground, 1))]
    assert question.split == "test"
    assert world.may_know(question.link)
    lexical = replace(world, questions=tuple(q for q in world.questions if q.kind == "lexical"))
    assert default_question(replace(ground, world=lexical), 1) in {q.text for q in lexical.questions}


def test_the_default_question_is_answered_after_training_and_not_before(ground, world):
    before, after = (ground.models[name] for name in (inspection.PRETRAINED, inspection.DPR))

    def finds(model: Model, text: str, top: int) -> bool:
        one = Inspection(ground, model, text)
        return one.right in one.found.passages[:top]

    tops = [top for top in range(1, 20) if finds(after, default_question(ground, top), top)]
    assert tops  # the two models differ somewhere
    assert not any(finds(before, default_question(ground, top), top) for top in tops)
    same = replace(ground, models=dict.fromkeys(ground.models, after))
    first = next(q for q in world.questions if q.split == "test" and q.link and world.may_know(q.facts[0]))
    assert default_question(same, 3) == first.text  # no question shows a difference


# which passages


def test_a_small_world_is_searched_as_a_whole(ground, world):
    assert pool(world, ground.negatives, len(world.passages), 0).tolist() == list(range(len(world.passages)))


def test_a_pool_has_what_test_questions_need_and_others_at_random(ground, world):
    asked = [q for q in world.questions if q.split == "test"]
    needed = {world.place(id_) for q in asked for id_ in (q.gold, *ground.negatives[q.id])}
    most = len(needed) + 5
    one, other = (pool(world, ground.negatives, most, seed) for seed in (0, 1))
    assert needed <= set(one)
    assert len(one) == len(set(one)) == most
    assert (np.diff(one) > 0).all()
    assert set(one) != set(other)
    assert (pool(world, ground.negatives, most, 0) == one).all()


def test_the_ranking_is_that_of_the_index_in_memory(asked, world):
    vector = asked.model.dual.questions([asked.text]).numpy()
    expected = InMemory(asked.model.dual, world.passages).search(vector, len(world.passages))
    assert asked.found.passages.tolist() == expected.passages[0].tolist()
    np.testing.assert_allclose(asked.found.scores, expected.scores[0], rtol=1e-5)


def test_a_pool_ranks_its_own_passages_in_the_same_order(ground, asked):
    places = np.arange(0, len(ground.world.passages), 3)
    found = Inspection(ground, replace(asked.model, places=places), asked.text).found
    assert found.passages.tolist() == [i for i in asked.found.passages.tolist() if i % 3 == 0]
    assert place(found, 1) is None
    assert place(found, int(found.passages[4])) == 5


def test_passages_on_the_disk_give_the_same_answers(ground, asked, tmp_path):
    store = Store.build(tmp_path / "store", ground.world.passages, {})
    world = replace(ground.world, passages=store)
    places = pool(world, ground.negatives, len(store) - 20, 0)
    model = replace(asked.model, world=world, places=places)
    found = Inspection(replace(ground, world=world), model, asked.text)
    searched = set(places)
    assert found.found.passages.tolist() == [i for i in asked.found.passages.tolist() if i in searched]
    assert (found.right, found.hard) == (asked.right, asked.hard)
    assert found.similarity == asked.similarity
    assert f"of {len(store):,}." in widgets.passages({"m": found}, 3)


def test_the_right_passage_is_the_gold_one_or_the_first(ground, asked, free, world):
    assert world.passages[asked.right].id == asked.question.gold
    assert [world.passages[i].id for i in asked.hard] == ground.negatives[asked.question.id]
    assert free.question is None
    assert [free.right, *free.hard] == free.found.passages[:6].tolist()


# layers, beliefs, neurons


def test_similarity_is_the_cosine_of_the_states_at_cls(asked, world):
    dual, layer = asked.model.dual, 2
    q = dual.query.cls_by_layer([asked.text])[layer, 0]
    texts = [(world.passages[i].title, world.passages[i].text) for i in (asked.right, *asked.hard)]
    cosines = [float(q @ p / q.norm() / p.norm()) for p in dual.passage.cls_by_layer(texts)[layer]]
    assert list(asked.similarity["right"]) == [0, 1, 2, 3]
    assert asked.similarity["right"][layer] == pytest.approx(cosines[0], abs=1e-5)
    assert asked.similarity["hard"][layer] == pytest.approx(np.mean(cosines[1:]), abs=1e-5)


def test_beliefs_are_asked_in_wording_that_was_not_read(base, world):
    facts = world.facts[:3]
    found = beliefs(base, facts)
    assert [statement.reserved for statement, _ in found] == [True] * 3
    assert all(statement in fact.statements for fact, (statement, _) in zip(facts, found, strict=True))
    assert all(len(guesses) == 3 for _, guesses in found)


def test_attributions_add_up_and_active_neurons_stand_in_order(asked):
    assert asked.attribution.gap.max() < 0.02
    scores, active = asked.attribution.scores[0], asked.active(0.2)
    assert active["share"].iloc[0] == 1
    assert active["share"].is_monotonic_decreasing
    assert len(active) == (scores >= 0.2 * scores.max()).sum()
    top = active.iloc[0]
    assert scores[top["block"], top["unit"]] == scores.max()
    assert set(asked.active(0.5)["unit"]) <= set(active["unit"])


def test_a_neuron_is_named_by_its_site_and_its_place_there(asked):
    for row in asked.active(0.01).itertuples():
        site = getattr(asked.attribution, row.site)
        assert site[0, row.block, row.neuron] == asked.attribution.scores[0, row.block, row.unit]


def test_the_candidates_are_those_ranked_highest_with_the_right_one_first(asked):
    others = [i for i in asked.found.passages[: SAMPLE.candidates].tolist() if i != asked.right]
    texts = passage_texts(asked.ground.world, [asked.right, *others][: SAMPLE.candidates])
    products = (asked.model.dual.questions([asked.text]) @ asked.model.dual.passages(texts).T).numpy()
    heat = inspection.attribution.matched_temperature(products, SAMPLE.entropy)
    chances = np.exp((products - products.max()) / heat)[0]
    assert asked.attribution.value[0] == pytest.approx(chances[0] / chances.sum(), rel=1e-4)


def test_silent_neurons_change_the_ranking_and_none_does_not(asked):
    active = asked.active(0.2)
    np.testing.assert_allclose(asked.silenced(active[:0]).scores, asked.found.scores, atol=1e-4)
    without = asked.silenced(active)
    assert sorted(without.passages) == sorted(asked.found.passages)
    assert without.passages.tolist() != asked.found.passages.tolist()


def test_a_model_with_added_neurons_is_not_attributed(ground, base, refused):
    config = base.model.config.__class__.from_dict(base.model.config.to_dict() | {"patches": 3})
    wide = Encoder(base.tokenizer, new_model(config), "cpu")
    model = replace(ground.models[inspection.DPR], dual=DualEncoder(wide, wide))
    found = Inspection(ground, model, "Who was born there?")
    assert len(found.found.passages) == len(ground.world.passages)
    with refused("3", "choose another model"):
        _ = found.attribution


# the pages and the widgets


@pytest.fixture(scope="module")
def explorer(ground, asked) -> widgets.Explorer:
    return widgets.Explorer(ground, asked.text, threshold=0.2, top=3)


def values(explorer: widgets.Explorer) -> list[str]:
    return [shown.value for shown, _ in explorer.pages]


def test_a_question_fills_every_page_and_another_changes_it(explorer, asked, free):
    explorer.question.value = asked.text
    before = values(explorer)
    assert all(before)
    assert "ready" in explorer.status.value
    explorer.question.value = free.text
    after = values(explorer)
    assert all(one != other for one, other in zip(before[:4], after[:4], strict=True))
    assert "nobody has said" in after[0]
    assert "passage ranked first" in after[2]


def test_what_is_wrong_is_one_sentence_and_empties_what_follows(explorer, asked):
    explorer.question.value = "?!"
    first, *rest = values(explorer)
    assert "no letter and no digit" in first
    assert rest == [""] * 4
    explorer.question.value = asked.text
    assert all(values(explorer))


def test_an_unexpected_failure_is_a_sentence_too(explorer, asked, monkeypatch):
    monkeypatch.setattr(widgets, "layers", lambda _: 1 / 0)
    explorer.question.value = f"{asked.text} Really?"
    assert "ZeroDivisionError" in values(explorer)[2]
    assert values(explorer)[3:] == ["", ""]
    assert "ready" in explorer.status.value


def test_threshold_and_silence_make_only_the_pages_that_depend_on_them(explorer, asked):
    explorer.question.value = asked.text
    before = values(explorer)
    explorer.threshold.value = 0.6
    assert values(explorer)[:3] == before[:3]
    assert values(explorer)[3] != before[3]
    assert "No neuron is silent" in values(explorer)[4]
    explorer.all.value = True
    silent = asked.active(0.6)
    assert f"without {len(silent)} neurons" in values(explorer)[4]
    explorer.all.value = False
    explorer.chosen.value = (0,)
    assert "without 1 neuron<" in values(explorer)[4]
    explorer.threshold.value = 0.2
    assert explorer.chosen.value == ()


def test_the_same_model_twice_is_one_column(explorer, asked):
    explorer.question.value = asked.text
    explorer.left.value = inspection.DPR
    assert values(explorer)[0].count("<ol>") == 1
    explorer.left.value = inspection.PRETRAINED
    assert values(explorer)[0].count("<ol>") == 2


CANARY = "<script>alert(1)</script> $x$ & {{y}} <img src=x onerror=alert(2)>"


def test_text_from_data_and_from_the_reader_is_shown_as_text(ground, asked):
    changed = tuple(p._replace(title=f"{p.title} {CANARY}", text=f"{p.text} {CANARY}") for p in ground.world.passages)
    relations = tuple(f._replace(relation=CANARY) for f in ground.world.facts)
    world = replace(ground.world, passages=changed, facts=relations)
    models = {f"{name} {CANARY}": replace(model, world=world) for name, model in ground.models.items()}
    hostile = replace(ground, world=world, models=models)
    for text in (asked.text, f"{CANARY} {ground.world.facts[0].subject}"):
        several = {name: Inspection(hostile, model, text) for name, model in models.items()}
        one = next(iter(several.values()))
        active = one.active(0.2)
        pages = [
            widgets.passages(several, 3),
            widgets.believed(hostile, text, {CANARY: one.model.says}),
            widgets.layers(several),
            widgets.neurons(one, active, 0.2),
            widgets.silenced(one, active, 3),
        ]
        for page in pages:
            assert "<script" not in page
            assert "<img src=x" not in page
            assert 'class="question tex2jax_ignore mathjax_ignore"' in page


def test_the_gold_passage_and_its_answers_are_marked(ground, asked):
    page = widgets.passages({"m": asked}, len(ground.world.passages))
    assert page.count("✓") == 1
    assert all(f'<mark class="answer">{answer}</mark>' in page for answer in asked.question.answers)
    assert f"number {place(asked.found, asked.right)} of {len(ground.world.passages)}" in page


def test_a_pool_says_how_much_was_searched(ground, asked):
    few = Inspection(ground, replace(asked.model, places=np.arange(4)), asked.text)
    page = widgets.passages({"m": few}, 3)
    assert f"4 passages were searched, of {len(ground.world.passages)}" in page


def test_without_edited_models_the_page_says_how_to_have_them(ground):
    assert "make run NB=04_1" in widgets.about_edited(ground)
    model = ground.models[inspection.DPR]
    edited = replace(ground, models={**ground.models, "DPR, MEND": model}, told=ground.world.facts[:3])
    assert "told 3 facts" in widgets.about_edited(edited)
    assert "1 of the models" in widgets.about_edited(edited)
