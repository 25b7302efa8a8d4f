"""The real setting at the smallest scale: files in DPR's formats and a random BERT go the way of all chapters."""

from dataclasses import replace

import data_nq
import numpy as np
import pytest
import torch
from small_setup import one_by_one
from transformers import BertConfig, BertForMaskedLM
from trec import read_qrels, read_run

from dprlens.bert import cloze
from dprlens.bert.cloze import cloze_recall
from dprlens.bert.pretrained import TowersSpec
from dprlens.bert.vocabulary import vocabulary
from dprlens.chapters import editing_experiment
from dprlens.chapters.dense_retrieval import compare_with_published
from dprlens.chapters.editing_experiment import judging_of
from dprlens.chapters.probe_grid import probing_tasks
from dprlens.consistency.probes import items, probed_part
from dprlens.decentralization.attribution import AttributionSpec
from dprlens.decentralization.steps import masked_answers
from dprlens.editing.steps import material, rank_passages
from dprlens.explorer import inspection, widgets
from dprlens.profile import get_profile
from dprlens.real_setting.commands import encode_in_group, write_trec
from dprlens.retrieval.exact_search import answer_places
from dprlens.retrieval.index import InMemory, InShards, encode_store, index_of
from dprlens.retrieval.steps import mined_negatives, rankings
from dprlens.setup import Setup
from dprlens.training.dpr import DPRSpec
from dprlens.training.steps import Continuing, continued
from dprlens.world.closed import TextSpec, is_linking, reading
from dprlens.world.natural import NaturalSpec, asked_openly, make_world
from dprlens.world.statements.records import write
from dprlens.world.steps import statements

pytestmark = pytest.mark.slow

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
SEED = 1


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A setup of the profile `paper` on a small set of files, with little training."""
    folder = tmp_path_factory.mktemp("data")
    data_nq.write(folder)
    words = vocabulary(make_world(NaturalSpec(folder=str(folder))).world.texts())
    torch.manual_seed(0)
    place = folder / "models" / "bert-base-uncased"
    BertForMaskedLM(BertConfig(vocab_size=len(words), max_position_embeddings=300, **SHAPE)).save_pretrained(place)
    (place / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPRLENS_DATA", str(folder))
        patch.setenv("DPRLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        chosen = get_profile("paper")
        chosen = replace(chosen, dpr=DPRSpec(epochs=1, batch=16, learning_rate=1e-3, warm_up_steps=1))
        yield Setup(chosen, SEED)


def test_the_world_is_that_of_the_files_with_statements_by_rules(page):
    world = page.world
    assert (world.maker, world.known) == ("natural", None)
    told = [fact for fact in world.facts if fact.statements]
    assert len(told) > 0.9 * len(world.facts)
    assert all(statement.answer.lower() == fact.object.lower() for fact in told for statement in fact.statements)
    assert all(len(fact.alternatives) == 3 for fact in told)
    assert Setup(page.profile, SEED).world.digest == world.digest


def test_statements_may_come_from_a_file(page, tmp_path):
    chosen, world = page.profile, page.world
    fact = next(fact for fact in world.facts if fact.statements)
    kept = statements(replace(world, known=None), None, SEED)
    file = tmp_path / "statements.jsonl"
    write(file, [kept.entries[fact.id]])
    own = Setup(chosen.but(statements=str(file)), SEED).world
    assert [one.id for one in own.facts if one.statements] == [fact.id]


def test_nobody_knows_what_the_model_has_read(page):
    world = page.world
    id_ = world.facts[0].id
    assert world.state(id_) == "not recorded"
    assert world.doses(id_) == (-1, -1)
    assert world.may_know(id_)
    asked = cloze.question_table(world)
    assert {*asked["state"]} == {"not recorded"}
    assert {*asked["exposures"]} == {*asked["described"]} == {-1}
    assert {*cloze.constant_guess(world)["state"]} == {"not recorded"}
    assert not any(is_linking(fact) for fact in world.facts)


def test_more_masked_lm_reads_the_passages(page):
    world = page.world
    read = reading(world, TextSpec(), SEED)
    assert [segment.text for segment in read] == [passage.text for passage in world.passages]
    assert {segment.form for segment in read} == {"passage"}


def test_the_model_is_read_from_its_folder_and_goes_through_training_and_search(page):
    chosen, world = page.profile, page.world
    base = page.base
    assert base.max_length == 256
    assert base.digest == Setup(chosen, SEED).base.digest
    ranking = rankings(page.dpr, world, 10)
    assert ranking.passages.shape == (len(world.questions), 10)
    found = cloze_recall(base, world)
    assert {*found["fact"]} == {fact.id for fact in world.facts if fact.statements}
    assert masked_answers(base, world, AttributionSpec(most_nodes=8), 3, SEED).scores.shape[0] == 3
    longer = continued(Continuing(base, world, chosen.text, chosen.negatives, chosen.pretrain, chosen.dpr, SEED))
    assert longer.digest != base.digest


def test_passages_of_a_store_are_searched_in_shards_as_they_would_be_in_memory(page):
    world, dual = page.world, page.dpr
    ranking = rankings(dual, world, 7)
    queries = dual.questions([question.text for question in world.questions]).numpy()
    own = InMemory(dual, world.passages[:]).search(queries, 7)
    np.testing.assert_allclose(ranking.scores, own.scores, rtol=1e-4, atol=1e-5)
    assert (ranking.passages == own.passages).mean() > 0.9  # but for near ties
    assert encode_store(dual, world).made == 0


def test_vectors_are_made_by_trained_models_of_stored_worlds_alone(page, refused):
    assert rankings(page.dpr, page.world, 7)
    done = encode_in_group(page)
    assert (done.made, done.missing, len(done.shards) > 0) == (0, 0, True)
    with refused("not trained yet"):
        encode_in_group(Setup(page.profile.but(dpr={"learning_rate": 0.5}), SEED))
    in_memory = Setup(page.profile, SEED)
    vars(in_memory)["world"] = replace(page.world, passages=page.world.passages[:])
    with refused("in memory"):
        encode_in_group(in_memory)


def test_the_ranking_is_written_for_trecs_tools(page, tmp_path, refused):
    world = page.world
    with refused("not trained yet"):
        write_trec(Setup(page.profile.but(dpr={"learning_rate": 0.5}), SEED), tmp_path)
    assert page.dpr
    write_trec(page, tmp_path)
    run, judged = read_run(tmp_path / "dpr.run"), read_qrels(tmp_path / "gold.qrels")
    asked = {question.id: question for question in world.questions if question.split == "test"}
    assert {line.question for line in run} == {one.question for one in judged} == asked.keys()
    assert all(one.passage == asked[one.question].gold for one in judged)
    (number, question), *_ = ((i, q) for i, q in enumerate(world.questions) if q.split == "test")
    first = rankings(page.dpr, world, min(100, len(world.passages))).passages[number]
    assert [line.passage for line in run if line.question == question.id] == [world.passages[i].id for i in first]


def test_published_towers_are_checked_on_questions_without_gold_passages(page):
    chosen, world, dual = page.profile, page.world, page.dpr
    assert compare_with_published(page, dual) == {}
    towers = TowersSpec(chosen.models.start)
    found = compare_with_published(Setup(chosen.but(check=True, published=towers), SEED), dual)
    asked = asked_openly(chosen.world)
    assert asked[0].id == "nq-test-0"
    assert {name: len(places) for name, places in found.items()} == dict.fromkeys(("DPR", "published DPR"), len(asked))
    passages = world.passages[:]
    queries = dual.questions([question.text for question in asked]).numpy()
    ranking = InMemory(dual, passages).search(queries, min(100, len(passages)))
    own = answer_places(ranking, [question.answers for question in asked], passages)
    assert (found["DPR"] == own).mean() > 0.9  # but for near ties
    assert (found["DPR"] < len(passages)).any()


def test_what_was_left_out_is_told_in_order(page):
    chosen, world = page.profile, page.world
    told = dict(page.notes())
    assert int(told.pop("facts with statements")) == sum(bool(fact.statements) for fact in world.facts)
    assert all(":" in what for what in told)
    turned = replace(chosen, turned=("dpr.epochs = 1",))
    assert Setup(turned, SEED).notes()[-1] == ("turned by profile.toml", "dpr.epochs = 1")
    assert Setup(get_profile("tiny"), SEED).notes() == []


def test_places_among_stored_passages_are_those_among_passages_in_memory(page):
    """Section 4 and the interventions of section 3, whose worlds in memory do without shards."""
    world, dual = page.world, page.dpr
    part = probed_part(world, 30, SEED)
    in_memory = replace(part, passages=tuple(p._replace(facts=()) for p in world.passages))
    judging = replace(judging_of(page), part=part, choices=(2, 3))
    stored = rank_passages(judging, dual)
    own = rank_passages(replace(judging, world=in_memory), dual)
    np.testing.assert_allclose(stored.products, own.products, rtol=1e-4, atol=1e-5)
    assert (stored.place == own.place).mean() > 0.9  # but for near ties
    asked = [question.text for question in part.questions[:9]]
    rows = np.array([[world.place(id_) for id_ in (q.gold, *q.hard_negatives[:2])] for q in part.questions[:9]])
    indexes = [index_of(dual, one) for one in (world, in_memory)]
    assert [type(index) for index in indexes] == [InShards, InMemory]
    (shown, places), (own_shown, own_places) = (index.ranks(dual.questions(asked).numpy(), rows) for index in indexes)
    np.testing.assert_allclose(shown, own_shown, rtol=1e-4, atol=1e-5)
    assert (places == own_places).mean() > 0.7


def test_probes_see_a_part_of_the_world_with_what_its_questions_name(page):
    chosen, world = page.profile, page.world
    assert probed_part(world, None) is world
    part = probed_part(world, 5, SEED)
    assert {split: sum(q.split == split for q in part.questions) for split in ("train", "dev", "test")} == {
        "train": 5,
        "dev": 5,
        "test": 5,
    }
    assert {p.id for p in part.passages} == {id_ for q in part.questions for id_ in (q.gold, *q.hard_negatives)}
    assert probed_part(world, 5, SEED + 1).digest != part.digest == probed_part(world, 5, SEED).digest
    tasks = probing_tasks(Setup(chosen.but(probing={"questions": 5}), SEED))
    assert tasks["pretrained"].query.questions.shape[1] == 15
    assert tasks["pretrained"].world.digest == part.digest
    mined = mined_negatives(part, chosen.negatives)
    assert len(items(part, mined, "train", 3).questions) > 0


def test_editors_practise_on_facts_that_no_test_question_is_about(page):
    chosen, world = page.profile, page.world
    given = material(world, chosen.text, SEED)
    test = {fact.id for fact in world.facts if fact.split == "test"}
    assert given.practice
    assert given.kept
    assert not {fact.id for fact in given.practice} & test
    assert len(given.text) == len(world.passages)


def test_facts_that_the_two_models_get_wrong_can_be_added(page, monkeypatch):
    """The whole of section 4's experiment up to the choice of facts."""
    chosen = page.profile
    monkeypatch.setattr(editing_experiment, "run", one_by_one)
    small = Setup(chosen.but(protocol={"training": chosen.dpr, "choices": (2, 3), "questions": 30}), SEED)
    unedited = editing_experiment.Arm()
    rows = editing_experiment._rows(small, {unedited: editing_experiment.run_arm(small, unedited, None)})["nothing"]
    assert {*rows["recalled"].unique()} <= {0.0, 0.5, 1.0}
    assert rows["probe2"].dtype == rows["match3"].dtype == bool
    assert np.isfinite(rows["place"]).all()


def test_the_explorer_answers_there_too(page):
    world = page.world
    ground = inspection.ground(page)
    assert list(ground.models) == [inspection.PRETRAINED, inspection.DPR]
    assert "make run NB=04_1" in widgets.about_edited(ground)
    first = next(q.text for q in world.questions if q.split == "test" and world.fact[q.target].statements)
    explorer = widgets.Explorer(ground, first, threshold=0.1, top=3)
    found, believed, layers, neurons, silenced = (shown.value for shown, _ in explorer.pages)
    assert f"of {len(world.passages)}" in found
    assert "not recorded" in believed
    assert "gold passage" in layers
    assert "neurons</b> are active" in neurons
    assert "No neuron is silent" in silenced
