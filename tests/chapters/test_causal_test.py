"""The arms of the causal test and its baselines: what each makes, what is counted, and which models there are."""

import inspect
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small_setup import (
    DPR,
    LINKED,
    MICRO,
    NEGATIVES,
    SEED,
    SHAPE,
    TEXT,
    TRAIN,
    bounds_of_places,
    one_by_one,
)

from dprlens.bert import cloze
from dprlens.bert.cloze import cloze_recall
from dprlens.bert.encoder import DualEncoder, reinitialise
from dprlens.chapters import causal_test
from dprlens.knowledge_bound import exhibits, steps
from dprlens.knowledge_bound.exhibits import BoundSpec
from dprlens.knowledge_bound.steps import TOLD, Making, causal_arm, cooccurrence_arm, pretrained_arm
from dprlens.retrieval.steps import rankings
from dprlens.setup import Setup
from dprlens.training.steps import Training, base_model, dpr
from dprlens.world.closed import false_gold, with_false_links
from dprlens.world.steps import closed_world

pytestmark = pytest.mark.slow

MAKING = Making(LINKED, TEXT, SHAPE, TRAIN, NEGATIVES, DPR, SEED)


@pytest.fixture(scope="module")
def arms(cache):
    """`findings` of each arm, {told: frame}; what was made for it, {told: [step]}; and the true and the false world."""
    _, states = cache
    found, made = {}, {}
    for told in TOLD:
        states()
        found[told] = causal_arm(MAKING, told)
        made[told] = [name for name, state in states() if state == "made"]
    true = closed_world(LINKED, SEED)
    return SimpleNamespace(found=found, made=made, true=true, false=with_false_links(true, SEED))


def start_of(told: str, arms: SimpleNamespace) -> DualEncoder:
    """The model from which DPR training has to start in this arm."""
    base = base_model(arms.false if told == "false" else arms.true, TEXT, SHAPE, TRAIN, SEED)
    start = reinitialise(base, SEED) if told == "nothing" else base
    return DualEncoder(start, start)


def training_of(told: str, arms: SimpleNamespace) -> Training:
    """DPR training of this arm."""
    return Training(start_of(told, arms), arms.true, NEGATIVES, DPR, SEED)


@pytest.mark.parametrize("told", TOLD)
def test_places_are_those_of_all_passages_scored_by_hand(arms, told):
    frame, world = arms.found[told], arms.true
    dual = dpr(training_of(told, arms)).dual
    least, most = bounds_of_places(dual, world, {question.id: question.gold for question in world.questions})
    assert frame["place"].between(least, most).all()
    assert (least == most).mean() > 0.8
    wrong = false_gold(world, arms.false)
    least, most = bounds_of_places(dual, world, wrong)
    told_falsely = frame["question"].isin(wrong)
    assert frame[told_falsely]["false_place"].between(least, most).all()
    assert len(least) >= 5
    assert (frame[~told_falsely]["false_place"] == -1).all()


def test_arms_ask_the_same_questions_and_find_other_passages(arms):
    asked = cloze.question_table(arms.true)
    for frame in arms.found.values():
        assert frame[asked.columns].equals(asked)
        ranked = ["within", "tied", "peers"]
        assert [*frame.columns] == [*asked.columns, "recalled", "place", "false_place", *ranked]
    places = [tuple(frame["place"]) for frame in arms.found.values()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("told", TOLD)
def test_ranks_within_the_relation_are_counted_in_the_ranking(arms, told):
    frame, world = arms.found[told], arms.true
    ranked = rankings(dpr(training_of(told, arms)).dual, world, len(world.passages)).passages
    for i, (question, row) in enumerate(zip(world.questions, frame.itertuples(), strict=True)):
        relation = world.fact[question.target].relation
        alike = [
            place
            for place in ranked[i]
            if relation in {world.fact[fact].relation for fact in world.passages[place].facts}
        ]
        assert row.peers == len(alike)
        assert row.within <= alike.index(world.place(question.gold)) <= row.within + row.tied


def test_baselines_are_asked_the_same_questions(arms):
    asked = cloze.question_table(arms.true)
    before = pretrained_arm(LINKED, TEXT, SHAPE, TRAIN, SEED)
    counted = cooccurrence_arm(LINKED, TEXT, SEED)
    for frame in (before, counted):
        assert frame[asked.columns].equals(asked)
        assert frame["peers"].equals(arms.found["true"]["peers"])
        assert (frame["within"] <= frame["place"]).all()
    assert not before["place"].equals(arms.found["true"]["place"])
    links = counted[counted["kind"] == "knowledge_required"]
    assert (links["composed"] <= links["described"]).all()
    assert links["composed"].sum() > 0
    assert (counted.loc[counted["kind"] == "lexical", "composed"] == 0).all()


def test_each_arm_makes_only_what_the_others_have_not(arms):
    trained = ["cloze_recall", "dpr", "rankings", "causal_arm"]
    assert sorted(arms.made["true"]) == sorted(["closed_world", "base_model", "mined_negatives", *trained])
    assert sorted(arms.made["false"]) == sorted(["base_model", *trained])
    assert sorted(arms.made["nothing"]) == sorted(trained)  # its network is the true one's, with random weights


def test_a_model_told_false_links_reads_the_false_text_and_is_asked_about_the_true_world(arms):
    of_true, of_false = start_of("true", arms), start_of("false", arms)
    assert of_true.digest != of_false.digest
    assert dpr.record(training_of("false", arms))
    assert cloze_recall.record(of_false.query, arms.false)  # is it recalled as it was told?
    assert not dpr.record(replace(training_of("false", arms), world=arms.false))
    assert not cloze_recall.record(of_false.query, arms.true)


def test_a_model_told_nothing_starts_from_random_weights(arms):
    base, start = start_of("true", arms), start_of("nothing", arms)
    assert start.digest != base.digest
    assert dpr.record(training_of("nothing", arms))
    assert cloze_recall.record(start.query, arms.true)
    pieces = base.query.tokenizer.get_vocab()
    assert start.query.tokenizer.get_vocab() == pieces
    learned, random = (dual.query.bert.embeddings.word_embeddings.weight for dual in (base, start))
    assert random.std().item() == pytest.approx(0.02, rel=0.1)  # BERT's initialisation
    assert learned.std() > 1.2 * random.std()


def test_recalled_is_the_share_of_unread_wordings_before_dpr_training(arms, monkeypatch):
    """An invented model completes one of two unread wordings of every third fact, and all that it has read."""
    read = []

    def recall(encoder, world):
        read.append((encoder.digest, world.digest))
        rows = [(fact.id, "seen", True) for fact in world.facts]
        for i, fact in enumerate(world.facts):
            rows += [(fact.id, "reserved", i % 3 == 0), (fact.id, "reserved", i % 3 != 2)]
        return pd.DataFrame(rows, columns=["fact", "wording", "recalled"])

    monkeypatch.setattr(steps, "cloze_recall", recall)
    frame = inspect.unwrap(causal_arm)(MAKING, "false")
    share = {fact.id: (1, 0.5, 0)[i % 3] for i, fact in enumerate(arms.false.facts)}
    assert frame["recalled"].tolist() == [share[fact] for fact in frame["fact"]]
    assert read == [(start_of("false", arms).query.digest, arms.false.digest)]


def test_an_arm_that_is_none_is_refused_and_leaves_nothing(cache, refused):
    root, states = cache
    states()
    kept = sorted(root.glob("findings-*"))
    with refused("'lies'", *TOLD):
        causal_arm(MAKING, "lies")
    assert sorted(root.glob("findings-*")) == kept
    assert states() == []


# --- what a knob costs ---


@pytest.mark.usefixtures("arms")
def test_another_learning_rate_of_dpr_trains_dpr_again_and_nothing_before_it(cache):
    _, states = cache
    states()
    causal_arm(replace(MAKING, training=replace(DPR, learning_rate=2e-3)))
    by_state = defaultdict(list)
    for name, state in states():
        by_state[state].append(name)
    assert by_state == {
        "cached": ["closed_world", "base_model", "cloze_recall", "mined_negatives"],
        "made": ["dpr", "rankings", "causal_arm"],
    }


def test_another_top_k_makes_nothing(cache, arms):
    """Neither where places are counted, nor in a ranking that is deep enough."""
    _, states = cache
    dual = dpr(training_of("true", arms)).dual
    rankings(dual, arms.true)
    states()
    rows = causal_arm(MAKING).assign(study="deep", size=1.0, form=0.5, seed=SEED)
    found = [exhibits.mean_measure(rows, k).value for k in (1, 5, 16)]
    assert found == sorted(set(found))
    assert found[-1] == 1
    by_rank = rankings(dual, arms.true).passages
    number = {passage.id: i for i, passage in enumerate(arms.true.passages)}
    gold = np.array([[number[question.gold]] for question in arms.true.questions])
    assert [(by_rank[:, :k] == gold).any(1).mean() for k in (1, 5, 16)] == found
    assert states() == [("causal_arm", "cached"), ("rankings", "cached")]


# --- all models of the causal test ---

SPEC = BoundSpec(
    deep_arms=(("true", 2), ("nothing", 1)),
    shallow_arms=(("true", 3), ("false", 1), ("nothing", 2)),
    shallow_layers=1,
    shallow_size=0.5,
    grid=((0.5, 0.1), (2.0, 0.9)),
    grid_seeds=2,
)
WIDE = replace(MICRO, bound=SPEC, encoder=replace(SHAPE, layers=4), world=replace(LINKED, described=(0.2, 0.6)))


@pytest.fixture
def calls(monkeypatch):
    """The calls of `findings`, which answers each with two rows that say which call they are."""
    calls = []

    def found(*arguments):
        calls.append(arguments)
        return pd.DataFrame({"question": ["q0", "q1"], "call": len(calls) - 1})

    monkeypatch.setattr(causal_test, "causal_arm", found)
    return calls


def test_the_causal_test_has_the_models_of_its_spec(calls):
    found = causal_test.causal_test(Setup(WIDE, 5))
    models = found.drop(columns=["question", "call"]).drop_duplicates()
    assert [*models.columns] == ["study", "size", "form", "seed", "told"]
    assert len(models) == len(calls) == len(found) / 2
    assert sorted(models.itertuples(index=False, name=None)) == sorted(
        [
            *(("deep", 1.0, 0.4, *arm) for arm in ((5, "true"), (6, "true"), (5, "nothing"))),
            *(("shallow", 0.5, 0.4, *arm) for arm in ((5, "true"), (6, "true"), (7, "true"), (5, "false"))),
            *(("shallow", 0.5, 0.4, *arm) for arm in ((5, "nothing"), (6, "nothing"))),
            *(("grid", size, form, seed, "true") for size, form in ((0.5, 0.1), (2.0, 0.9)) for seed in (5, 6)),
        ]
    )
    assert found.index.tolist() == [*range(len(found))]


def test_baselines_are_in_the_worlds_of_the_causal_test_whose_text_is_true(monkeypatch):
    def frame(*arguments):
        return pd.DataFrame({"question": ["q0"], "arguments": [arguments]})

    monkeypatch.setattr(causal_test, "run", one_by_one)
    for name in ("causal_arm", "cooccurrence_arm", "pretrained_arm"):
        monkeypatch.setattr(causal_test, name, frame)
    of = [*exhibits.WORLD]
    tested = causal_test.causal_test(Setup(WIDE, 5)).query("told == 'true'")[of].drop_duplicates()
    found = causal_test.baselines(Setup(WIDE, 5))
    for told, pool in (("cooccurrence", "mean"), ("cooccurrence_max", "max")):
        rows = found[found["told"] == told]
        assert sorted(map(tuple, rows[of].to_numpy())) == sorted(map(tuple, tested.to_numpy()))
        assert all(
            (a[1], a[2], a[3]) == (TEXT, seed, pool) for a, seed in zip(rows["arguments"], rows["seed"], strict=True)
        )
    before = found[found["told"] == "pretrained"]
    assert set(before["study"]) == {"deep"}
    assert [a[2] for a in before["arguments"]] == [WIDE.encoder] * len(before)


def test_each_model_is_of_its_own_world_and_depth_and_the_rest_is_the_pages(calls):
    found = causal_test.causal_test(Setup(WIDE, 5))
    for _, row in found.iterrows():
        making, told = calls[row["call"]]
        assert (making.seed, told) == (row["seed"], row["told"])
        assert (making.text, making.pretraining, making.negatives, making.training) == (TEXT, TRAIN, NEGATIVES, DPR)
        assert making.shape == replace(SHAPE, layers=4 if row["study"] == "deep" else 1)
        people, cities = {0.5: (5, 3), 1.0: (10, 6), 2.0: (20, 12)}[row["size"]]
        described = (row["form"],) if row["study"] == "grid" else (0.2, 0.6)
        assert making.world == replace(LINKED, people=people, cities=cities, described=described)


def test_the_page_can_open_the_first_deep_model_of_the_causal_test(calls):
    """The notebook gives its own setup's parts to the steps: both must find the same artifacts."""
    found = causal_test.causal_test(Setup(WIDE, 5))
    (number,) = set(found.query("study == 'deep' and seed == 5 and told == 'true'")["call"])
    assert calls[number] == (Making(WIDE.world, TEXT, WIDE.encoder, TRAIN, NEGATIVES, DPR, 5), "true")
    assert calls[number][0] == causal_test.making_of(WIDE, 5)


@pytest.mark.usefixtures("arms")
def test_what_an_arm_made_is_found_by_the_setup_of_the_page(cache):
    """World, base model, and DPR of the arm that was told the truth are those of the setup."""
    _, states = cache
    states()
    setup = Setup(MICRO, SEED)
    assert setup.dpr
    assert states() == [("closed_world", "cached"), ("base_model", "cached"), ("dpr", "cached")]
