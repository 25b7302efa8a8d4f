"""The cached steps: computed once for the same arguments, and again for others."""

import json
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from dprlens import bound, knowledge, steps
from dprlens.bound import BoundSpec
from dprlens.closed import ClosedSpec, TextSpec, false_gold, misinformed
from dprlens.encoder import DualEncoder, EncoderSpec, untrained
from dprlens.negatives import NegativesSpec
from dprlens.profile import Profile
from dprlens.training.dpr import DPRSpec, Trained
from dprlens.training.pretrain import PretrainSpec

WORLD = ClosedSpec(0, 6, 0, 0, relations=("river",), exposures=8, low_doses=())
TEXT = TextSpec(remarks=1)
SHAPE = EncoderSpec(layers=1, d_model=16, d_ff=16, heads=2, max_length=64)
TRAIN = PretrainSpec(shallow_layers=1, batch=8, threads=1)

# People, where they were born and the rivers there: questions through links, held-out ones and false ones among them.
LINKED = ClosedSpec(10, 6, 0, 0, relations=("born_in", "river"), exposures=6, low_doses=(), train=0.5, held_out=0.2)
NEGATIVES = NegativesSpec(per_question=2)
DPR = DPRSpec(epochs=1, batch=8, warm_up_steps=1, learning_rate=1e-2)
SEED = 1
ARM = LINKED, TEXT, SHAPE, TRAIN, NEGATIVES, DPR, SEED
ROUNDING = 1e-5  # of scores of about 16


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The folder of a cache, and a function: the states ("made", "cached", …) of the steps since its last call."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("cache")
        events = root / "events.jsonl"
        patch.setenv("DPRLENS_CACHE", str(root))
        patch.setenv("DPRLENS_EVENTS", str(events))

        def states():
            lines = events.read_text(encoding="utf-8").splitlines() if events.exists() else []
            events.unlink(missing_ok=True)
            told = [json.loads(line) for line in lines]
            return [(t["name"], t["state"]) for t in told if t["event"] == "step" and t["state"] != "start"]

        yield root, states


@pytest.fixture(scope="module")
def made(cache):
    assert cache
    world = steps.closed_world(WORLD, 0)
    return world, steps.base_model(world, TEXT, SHAPE, TRAIN, 0)


def test_the_second_call_comes_from_the_cache(cache, made):
    _, states = cache
    world, model = made
    found = steps.cloze_recall(model, world)
    states()
    again = steps.closed_world(WORLD, 0)
    model_again = steps.base_model(again, TEXT, SHAPE, TRAIN, 0)
    assert steps.cloze_recall(model_again, again).equals(found)
    assert states() == [(name, "cached") for name in ("closed_world", "base_model", "cloze_recall")]
    assert (again, again.digest, model_again.digest) == (world, world.digest, model.digest)


@pytest.mark.parametrize("change", ["world", "text", "shape", "spec", "seed"])
def test_whatever_goes_in_is_in_the_key_of_the_base_model(cache, made, change):
    root, states = cache
    arguments = {"world": made[0], "text": TEXT, "shape": SHAPE, "spec": TRAIN, "seed": 0}
    first = made[0].facts[0]
    other = {
        "world": replace(made[0], facts=(first._replace(alternatives=first.alternatives[:1]), *made[0].facts[1:])),
        "text": TextSpec(remarks=2),
        "shape": replace(SHAPE, d_ff=24),
        "spec": replace(TRAIN, batch=9),
        "seed": 1,
    }
    before = len(list(root.glob("base_model-*")))
    states()
    steps.base_model(**arguments | {change: other[change]})
    assert states() == [("base_model", "made")]
    assert len(list(root.glob("base_model-*"))) == before + 1


def test_an_unrelated_world_is_another_world(cache):
    _, states = cache
    states()
    one, two = steps.closed_world(WORLD, 8), steps.closed_world(WORLD, 9)
    assert one.digest != two.digest
    assert states() == [("closed_world", "made")] * 2


def test_a_model_knows_all_words_of_the_world_and_its_text(made):
    world, model = made
    for shown in world.texts():
        assert not [piece for piece in model.tokenizer.tokenize(shown) if piece == "[UNK]" or piece.startswith("##")]


# --- one arm of the causal test ---


@pytest.fixture(scope="module")
def arms(cache):
    """`findings` of each arm, {told: frame}; what was made for it, {told: [step]}; and the true and the false world."""
    _, states = cache
    found, made = {}, {}
    for told in steps.TOLD:
        states()
        found[told] = steps.findings(*ARM, told)
        made[told] = [name for name, state in states() if state == "made"]
    true = steps.closed_world(LINKED, SEED)
    return SimpleNamespace(found=found, made=made, true=true, false=misinformed(true, SEED))


def start_of(told: str, arms: SimpleNamespace) -> DualEncoder:
    """The model from which DPR training has to start in this arm."""
    base = steps.base_model(arms.false if told == "false" else arms.true, TEXT, SHAPE, TRAIN, SEED)
    start = untrained(base, SEED) if told == "nothing" else base
    return DualEncoder(start, start)


def vectors(encoder, *texts) -> np.ndarray:
    """[CLS] after the last block [text, d_model], by transformers' own padded batches."""
    read = encoder.tokenizer(*texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = encoder.bert(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).last_hidden_state
    return states[:, 0].double().numpy()


def bounds_of_places(dual: DualEncoder, world, passages: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest place that rounding allows for each question's passage, by scoring every pair."""
    asked = [question for question in world.questions if question.id in passages]
    titles, texts = ([getattr(passage, name) for passage in world.passages] for name in ("title", "text"))
    scores = vectors(dual.query, [question.text for question in asked]) @ vectors(dual.passage, titles, texts).T
    number = {passage.id: i for i, passage in enumerate(world.passages)}
    own = scores[range(len(asked)), [number[passages[question.id]] for question in asked]][:, None]
    return (scores > own + ROUNDING).sum(1), (scores > own - ROUNDING).sum(1) - 1


@pytest.mark.parametrize("told", steps.TOLD)
def test_places_are_those_of_all_passages_scored_by_hand(arms, told):
    frame, world = arms.found[told], arms.true
    dual = steps.dpr(start_of(told, arms), world, NEGATIVES, DPR, SEED).dual
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
    asked = knowledge.asked(arms.true)
    for frame in arms.found.values():
        assert frame[asked.columns].equals(asked)
        assert [*frame.columns] == [*asked.columns, "recalled", "place", "false_place"]
    places = [tuple(frame["place"]) for frame in arms.found.values()]
    assert len(set(places)) == len(places)


def test_each_arm_makes_only_what_the_others_have_not(arms):
    trained = ["cloze_recall", "dpr", "rankings", "findings"]
    assert sorted(arms.made["true"]) == sorted(["closed_world", "base_model", "mined_negatives", *trained])
    assert sorted(arms.made["false"]) == sorted(["base_model", *trained])
    assert sorted(arms.made["nothing"]) == sorted(trained)  # its network is the true one's, with random weights


def test_a_model_told_false_links_reads_the_false_text_and_is_asked_about_the_true_world(arms):
    of_true, of_false = start_of("true", arms), start_of("false", arms)
    assert of_true.digest != of_false.digest
    assert steps.dpr.record(of_false, arms.true, NEGATIVES, DPR, SEED)
    assert steps.cloze_recall.record(of_false.query, arms.false)  # is it recalled as it was told?
    assert not steps.dpr.record(of_false, arms.false, NEGATIVES, DPR, SEED)
    assert not steps.cloze_recall.record(of_false.query, arms.true)


def test_a_model_told_nothing_starts_from_random_weights(arms):
    base, start = start_of("true", arms), start_of("nothing", arms)
    assert start.digest != base.digest
    assert steps.dpr.record(start, arms.true, NEGATIVES, DPR, SEED)
    assert steps.cloze_recall.record(start.query, arms.true)
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
    frame = steps.findings.__wrapped__(*ARM, "false")
    share = {fact.id: (1, 0.5, 0)[i % 3] for i, fact in enumerate(arms.false.facts)}
    assert frame["recalled"].tolist() == [share[fact] for fact in frame["fact"]]
    assert read == [(start_of("false", arms).query.digest, arms.false.digest)]


def test_an_arm_that_is_none_is_refused_and_leaves_nothing(cache, refused):
    root, states = cache
    states()
    kept = sorted(root.glob("findings-*"))
    with refused("'lies'", *steps.TOLD):
        steps.findings(*ARM, "lies")
    assert sorted(root.glob("findings-*")) == kept
    assert states() == []


# --- what a knob costs ---


@pytest.mark.usefixtures("arms")
def test_another_learning_rate_of_dpr_trains_dpr_again_and_nothing_before_it(cache):
    _, states = cache
    states()
    steps.findings(*ARM[:5], replace(DPR, learning_rate=2e-3), SEED)
    by_state = defaultdict(list)
    for name, state in states():
        by_state[state].append(name)
    assert by_state == {
        "cached": ["closed_world", "base_model", "cloze_recall", "mined_negatives"],
        "made": ["dpr", "rankings", "findings"],
    }


def test_another_top_k_makes_nothing(cache, arms):
    """Neither where places are counted, nor in a ranking that is deep enough."""
    _, states = cache
    dual = steps.dpr(start_of("true", arms), arms.true, NEGATIVES, DPR, SEED).dual
    steps.rankings(dual, arms.true)
    states()
    rows = steps.findings(*ARM).assign(study="deep", size=1.0, form=0.5, seed=SEED)
    found = [bound.top(rows, k).value for k in (1, 5, 16)]
    assert found == sorted(set(found))
    assert found[-1] == 1
    by_rank = steps.rankings(dual, arms.true).passages
    number = {passage.id: i for i, passage in enumerate(arms.true.passages)}
    gold = np.array([[number[question.gold]] for question in arms.true.questions])
    assert [(by_rank[:, :k] == gold).any(1).mean() for k in (1, 5, 16)] == found
    assert states() == [("findings", "cached"), ("rankings", "cached")]


def test_rankings_are_of_every_question_and_no_deeper_than_there_are_passages(arms):
    dual, world = start_of("true", arms), arms.true
    two, every = steps.rankings(dual, world, 2), steps.rankings(dual, world)
    assert two.passages.shape == two.scores.shape == (len(world.questions), 2)
    assert every.passages.shape == (len(world.questions), len(world.passages))
    assert np.array_equal(every.passages[:, :2], two.passages)
    least, most = bounds_of_places(dual, world, {question.id: question.gold for question in world.questions})
    gold = [next(i for i, p in enumerate(world.passages) if p.id == question.gold) for question in world.questions]
    places = [ranked.tolist().index(passage) for ranked, passage in zip(every.passages, gold, strict=True)]
    assert ((least <= places) & (places <= most)).all()


@pytest.mark.parametrize("shuffled", [False, True])
def test_dpr_sees_training_and_dev_questions_and_the_control_their_passages_in_disorder(arms, monkeypatch, shuffled):
    seen = []
    monkeypatch.setattr(steps, "train_dpr", lambda _, *sets_and_more: seen.append(sets_and_more))
    world = replace(
        arms.true, questions=tuple(q._replace(split=q.split.replace("test", "dev")) for q in arms.true.questions)
    )
    steps.dpr.__wrapped__("start", world, NEGATIVES, DPR, SEED, shuffled)
    ((train, dev, *more),) = seen
    assert more == [DPR, SEED, None]
    gold = {question.text: world.passage[question.gold] for question in world.questions}
    for split, examples in (("train", train), ("dev", dev)):
        asked = [question.text for question in world.questions if question.split == split]
        assert sorted(example.question for example in examples) == sorted(asked)
        own = [gold[example.question][1:3] == example.positive for example in examples]
        assert sum(own) < len(own) / 2 if shuffled else all(own)
        assert sorted(example.positive for example in examples) == sorted(gold[text][1:3] for text in asked)
        assert any(example.negatives for example in examples)


# --- DPR on several processes ---

MICRO = Profile("micro", LINKED, TEXT, SHAPE, TRAIN, NEGATIVES, DPR, BoundSpec())


class Recorder:
    """A step that is or is not in the cache, and what was done with it."""

    def __init__(self, cached: bool) -> None:
        self.cached, self.made = cached, []

    def __call__(self, *arguments):
        self.made.append(("kept", *arguments))

    def __wrapped__(self, *arguments):
        self.made.append(("made", *arguments))

    def record(self, *arguments):
        self.asked = arguments
        return {"seconds": 1.0} if self.cached else None


@pytest.mark.parametrize(("rank", "done"), [(0, "kept"), (1, "made")])
def test_in_a_group_all_processes_train_and_the_first_keeps_it(monkeypatch, rank, done):
    """Others call the function under the step: a cached one would wait for the first one's lock, and it for them."""
    dpr = Recorder(cached=False)
    monkeypatch.setattr(steps, "dpr", dpr)
    monkeypatch.setattr(steps, "closed_world", lambda *of: ("world", *of))
    monkeypatch.setattr(steps, "base_model", lambda *of: ("base", *of))
    monkeypatch.setattr(steps.processes, "rank", lambda: rank)
    steps.dpr_in_group(MICRO, 5)
    world = "world", LINKED, 5
    base = "base", world, TEXT, SHAPE, TRAIN, 5
    call = DualEncoder(base, base), world, NEGATIVES, DPR, 5
    assert dpr.asked == call
    assert dpr.made == [(done, *call)]


@pytest.mark.parametrize(("cached", "agreed", "trains"), [(True, None, 0), (True, True, 1), (False, False, 0)])
def test_in_a_group_the_first_processs_cache_decides(monkeypatch, cached, agreed, trains):
    """All or none must train, even where one of them already sees what another has just finished."""
    dpr = Recorder(cached)
    monkeypatch.setattr(steps, "dpr", dpr)
    monkeypatch.setattr(steps, "closed_world", lambda *_: "world")
    monkeypatch.setattr(steps, "base_model", lambda *_: "base")
    if agreed is not None:
        monkeypatch.setattr(steps.processes, "agreed", lambda _: agreed)
    steps.dpr_in_group(MICRO, 5)
    assert len(dpr.made) == trains


def test_what_a_group_made_is_found_by_the_book(cache, arms):
    _, states = cache
    once_more = replace(MICRO, dpr=replace(DPR, clip=1.0))
    states()
    steps.dpr_in_group(once_more, SEED)
    assert ("dpr", "made") in states()
    trained = steps.dpr(start_of("true", arms), arms.true, NEGATIVES, once_more.dpr, SEED)
    assert isinstance(trained, Trained)
    states()
    steps.dpr_in_group(once_more, SEED)
    assert states() == [("closed_world", "cached"), ("base_model", "cached")]


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

    class Findings:
        def record(self, *_):
            return {}  # as if cached: no process is started

        def __call__(self, *arguments):
            calls.append(arguments)
            return pd.DataFrame({"question": ["q0", "q1"], "call": len(calls) - 1})

    monkeypatch.setattr(steps, "findings", Findings())
    return calls


def test_the_causal_test_has_the_models_of_its_spec(calls):
    found = steps.causal_test(WIDE, 5)
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


def test_each_model_is_of_its_own_world_and_depth_and_the_rest_is_the_pages(calls):
    found = steps.causal_test(WIDE, 5)
    for _, row in found.iterrows():
        world, text, shape, pretraining, negatives, training, seed, told = calls[row["call"]]
        assert (seed, told) == (row["seed"], row["told"])
        assert (text, pretraining, negatives, training) == (TEXT, TRAIN, NEGATIVES, DPR)
        assert shape == replace(SHAPE, layers=4 if row["study"] == "deep" else 1)
        people, cities = {0.5: (5, 3), 1.0: (10, 6), 2.0: (20, 12)}[row["size"]]
        described = (row["form"],) if row["study"] == "grid" else (0.2, 0.6)
        assert world == replace(LINKED, people=people, cities=cities, described=described)


def test_the_page_can_open_the_first_deep_model_of_the_causal_test(calls):
    """Arguments one by one as the notebook gives them to the steps, so that both find the same artifacts."""
    found = steps.causal_test(WIDE, 5)
    (number,) = set(found.query("study == 'deep' and seed == 5 and told == 'true'")["call"])
    assert calls[number] == (WIDE.world, TEXT, WIDE.encoder, TRAIN, NEGATIVES, DPR, 5, "true")
