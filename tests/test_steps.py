"""The cached steps: computed once for the same arguments, and again for others."""

import inspect
import json
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dprlens import bound, controls, interventions, knowledge, steps
from dprlens.attribution import AttributionSpec, attribute, choice, margin, matched_temperature
from dprlens.bound import BoundSpec
from dprlens.closed import ClosedSpec, TextSpec, false_gold, misinformed
from dprlens.editors import EditorSpecs
from dprlens.edits import ProtocolSpec
from dprlens.encoder import DualEncoder, EncoderSpec, untrained
from dprlens.late import LateSpec
from dprlens.natural.models import ModelsSpec
from dprlens.negatives import BM25, NegativesSpec
from dprlens.neurons import ActivitySpec, SampleSpec, sample
from dprlens.probe import Features, Items, ProbeSpec, ProbingSpec, items, make_probe, matching
from dprlens.profile import Profile
from dprlens.training.dpr import DPRSpec, Trained
from dprlens.training.pretrain import PretrainSpec
from dprlens.world import SPLITS

pytestmark = pytest.mark.slow

WORLD = ClosedSpec(0, 6, 0, 0, relations=("river",), exposures=8, low_doses=())
TEXT = TextSpec(remarks=1)
SHAPE = EncoderSpec(layers=1, d_model=16, d_ff=16, heads=2, max_length=64)
TRAIN = PretrainSpec(shallow_layers=1, batch=8, threads=1, muon="float32")

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
        ranked = ["within", "tied", "peers"]
        assert [*frame.columns] == [*asked.columns, "recalled", "place", "false_place", *ranked]
    places = [tuple(frame["place"]) for frame in arms.found.values()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("told", steps.TOLD)
def test_ranks_within_the_relation_are_counted_in_the_ranking(arms, told):
    frame, world = arms.found[told], arms.true
    dual = steps.dpr(start_of(told, arms), world, NEGATIVES, DPR, SEED).dual
    ranked = steps.rankings(dual, world, len(world.passages)).passages
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
    asked = knowledge.asked(arms.true)
    before = steps.untrained_findings(LINKED, TEXT, SHAPE, TRAIN, SEED)
    counted = steps.cooccurrence_findings(LINKED, TEXT, SEED)
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
    frame = inspect.unwrap(steps.findings)(*ARM, "false")
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

NEURONAL = (
    SampleSpec(examples=6, candidates=4, hard=2),
    AttributionSpec(nodes=2, most_nodes=2),
    ActivitySpec(few=3, changed=(2, 5), dpr_seeds=2),
    ProtocolSpec(),
    EditorSpecs(),
    LateSpec(),
)
GROUND = LINKED, ModelsSpec(), TEXT
MICRO = Profile("micro", *GROUND, SHAPE, TRAIN, NEGATIVES, DPR, BoundSpec(), ProbeSpec(), ProbingSpec(), *NEURONAL)


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


def test_baselines_are_in_the_worlds_of_the_causal_test_whose_text_is_true(monkeypatch):
    def frame(*arguments):
        return pd.DataFrame({"question": ["q0"], "arguments": [arguments]})

    def one_by_one(step, arguments):
        return [step(*each) for each in arguments]

    monkeypatch.setattr(steps.processes, "in_parallel", one_by_one)
    for name in ("findings", "cooccurrence_findings", "untrained_findings"):
        monkeypatch.setattr(steps, name, frame)
    of = [*bound.WORLD]
    tested = steps.causal_test(WIDE, 5).query("told == 'true'")[of].drop_duplicates()
    found = steps.baselines(WIDE, 5)
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


# --- probes ---

# Some 270 train and 540 test questions with four hard negatives, for networks of two blocks.
PAGE = replace(
    MICRO,
    world=ClosedSpec(40, 12, 12, 15, exposures=4, low_doses=(), train=0.5, dev=0.15),
    encoder=replace(SHAPE, layers=2),
    negatives=NegativesSpec(per_question=4),
    probing=ProbingSpec(random_encoders=2, repeats=2),
)
PROBE = PAGE.probe


@pytest.fixture(scope="module")
def page(cache):
    """The world, its networks, features of each, and what `encoder_pairs` makes of them."""
    _, states = cache
    world = steps.closed_world(PAGE.world, SEED)
    base = steps.base_model(world, TEXT, PAGE.encoder, TRAIN, SEED)
    dual = steps.dpr(DualEncoder(base, base), world, PAGE.negatives, DPR, SEED).dual
    random = {f"random{i}": untrained(base, SEED + i) for i in range(2)}
    networks = {"base": base, "query": dual.query, "passage": dual.passage, **random}
    # made here one after the other: side by side each would need a process of its own
    seen = {name: steps.features(network, world) for name, network in networks.items()}
    states()
    pairs, found = steps.encoder_pairs(PAGE, SEED), states()
    mined = steps.mined_negatives(world, PAGE.negatives)
    return SimpleNamespace(
        world=world,
        networks=networks,
        seen=seen,
        pairs=pairs,
        states=found,
        mined=mined,
        items={split: items(world, mined, split, PROBE.most, SEED) for split in SPLITS},
        rest=(world, PAGE.negatives, PROBE),
    )


def shown_of(page, who: str, layer: int) -> list:
    """Train, dev and test questions as this pair of encoders sees them."""
    return [matching(*page.pairs[who], layer, page.items[split]) for split in SPLITS]


def test_features_are_the_states_of_all_texts_in_the_worlds_order(page):
    world = page.world
    titles, texts = ([getattr(passage, name) for passage in world.passages] for name in ("title", "text"))
    for name, found in page.seen.items():
        assert found.questions.shape == (3, len(world.questions), 16)
        assert found.passages.shape == (3, len(world.passages), 16)
        asked = vectors(page.networks[name], [question.text for question in world.questions])
        np.testing.assert_allclose(found.questions[-1], asked, atol=1e-5)
        np.testing.assert_allclose(found.passages[-1], vectors(page.networks[name], titles, texts), atol=1e-5)


def test_features_may_be_means_over_tokens(page):
    base, world = page.networks["base"], page.world
    means = steps.features(base, world, "mean")
    np.testing.assert_array_equal(means.questions, base.mean_by_layer([question.text for question in world.questions]))
    np.testing.assert_array_equal(means.passages, base.mean_by_layer([p[1:3] for p in world.passages]))
    assert np.ptp(page.seen["base"].passages[0], axis=0).max() == 0  # [CLS] before any block, which the mean is not
    assert np.ptp(means.passages[0], axis=0).max() > 0.01


def test_an_unknown_pooling_leaves_no_features(cache, page, refused):
    kept = sorted(cache[0].glob("features-*"))
    with refused("'max'", "cls, mean"):
        steps.features(page.networks["base"], page.world, "max")
    with refused("'max'", "cls, mean"):
        steps.features.__wrapped__(page.networks["base"], page.world, "max")
    assert sorted(cache[0].glob("features-*")) == kept


def test_each_pair_is_of_its_encoders_and_finds_their_features(page):
    assert [*page.pairs] == ["pretrained", "dpr_query", "dpr_context", "dpr_paired", "random0", "random1"]
    who = {
        "pretrained": ("base", "base"),
        "dpr_query": ("query", "query"),
        "dpr_context": ("passage", "passage"),
        "dpr_paired": ("query", "passage"),
        "random0": ("random0", "random0"),
        "random1": ("random1", "random1"),
    }
    for name, pair in page.pairs.items():
        assert tuple(found.digest for found in pair) == tuple(page.seen[of].digest for of in who[name])
    assert len({found.digest for found in page.seen.values()}) == 5
    made = ["closed_world", "base_model", "dpr", *["features"] * 5]
    assert page.states == [(name, "cached") for name in made]


# an independent route to what `probed` says


def shown_by_numpy(page, who: str, n: int, layer: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """[q; p_1; …; p_N], standardised as the train questions are, and the slot, for train, dev and test questions."""
    parts = [part.shown(n, 3 * SEED + i) for i, part in enumerate(shown_of(page, who, layer))]
    X = parts[0][0].astype(float)
    groups = X[:, 0], X[:, 1:].reshape(-1, X.shape[2])  # questions; passages of all slots
    mean, deviation = (np.stack([of(group, axis=0) for group in groups])[[0, *[1] * n]] for of in (np.mean, np.std))
    scale = np.where(deviation > 1e-4, 1 / np.maximum(deviation, 1e-4), 0)
    return [(((X - mean) * scale).reshape(len(X), -1), y) for X, y in parts]


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("who", ["pretrained", "dpr_paired"])
def test_the_papers_probe_is_right_where_logistic_regression_is(page, who, n, layer):
    """scikit-learn keeps one vector of weights for two slots, ours two of half its length: half the penalty."""
    (Z, y), _, (testing, right) = shown_by_numpy(page, who, n, layer)
    strength = (2 if n == 2 else 1) / (len(y) * PROBE.l2)
    theirs = LogisticRegression(C=strength, max_iter=5000, tol=1e-8).fit(Z, y).predict(testing) == right
    found = steps.probed(*page.pairs[who], *page.rest, "linear", (2, 3), (1, 2), SEED)
    ours = found.correct[n - 2, layer - 1]
    assert (ours == theirs).mean() >= 0.998
    assert len(ours) > 500


@pytest.mark.parametrize("who", ["pretrained", "dpr_paired"])
def test_without_a_probe_the_dot_product_decides(page, who):
    """By numpy, and without slots: the gold passage must score higher than the others."""
    found = steps.probed(*page.pairs[who], *page.rest, "dot", (2, 3, 5), (1, 2), SEED)
    query, passage = page.pairs[who]
    chosen = page.items["test"]
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


def test_embeddings_of_cls_leave_the_dot_product_with_the_first_slot(page):
    found = steps.probed(*page.pairs["pretrained"], *page.rest, "dot", (2, 3), (0,), SEED)
    for i, n in enumerate((2, 3)):
        slots = shown_of(page, "pretrained", 0)[2].shown(n, 3 * SEED + 2)[1]
        np.testing.assert_array_equal(found.correct[i, 0], slots == 0)


def test_probes_fitted_to_the_other_half_are_tested_on_every_question(page):
    call = *page.pairs["pretrained"], *page.rest, "tied", (2, 4), (0, 1, 2), SEED
    by_train, by_test = steps.probed(*call), steps.probed(*call, "test")
    questions = len(page.items["test"].questions)
    for found in (by_train, by_test):
        assert found.correct.shape == found.shuffled.shape == (2, 3, questions)
        assert found.correct.dtype == bool
        assert found.train.shape == (2, 3)
    assert (by_train.correct != by_test.correct).any()


def test_a_half_that_is_none_and_a_layer_that_is_not_there_are_refused(page, refused):
    pair = page.pairs["pretrained"]
    with refused("'dev'", "train or test"):
        steps.probed(*pair, *page.rest, "tied", (2,), (1,), SEED, fit_on="dev")
    with refused("layer 3", "0 to 2"):
        steps.probed(*pair, *page.rest, "tied", (2,), (1, 3), SEED)
    with refused("layer -1", "0 to 2"):
        steps.learned(*pair, *page.rest, "tied", 2, -1, (20,), SEED)
    with refused("'quadratic'"):
        steps.probed(*pair, *page.rest, "quadratic", (2,), (1,), SEED)
    with refused("n = 6"):
        steps.probed(*pair, *page.rest, "tied", (2, 6), (1,), SEED)


def test_another_strength_fits_probes_again_and_reads_no_text_again(cache, page):
    _, states = cache
    call = [*page.pairs["pretrained"], *page.rest, "tied", (2,), (1,), SEED]
    steps.probed(*call)
    other = replace(PROBE, l2=100.0)
    call[4] = other
    assert steps.probed.record(*call) is None
    states()
    again = steps.encoder_pairs(replace(PAGE, probe=other), SEED)
    found = steps.probed(*again["pretrained"], *call[2:])
    told = states()
    assert [name for name, state in told if state != "cached"] == ["probed"]
    assert [name for name, _ in told].count("features") == 5
    assert (found.correct != steps.probed(*page.pairs["pretrained"], *page.rest, *call[5:]).correct).any()
    assert steps.probed.record(*call)


# what the controls make of the same features


def test_selectivity_is_of_the_test_questions_held_back(page):
    found = steps.selective(*page.pairs["pretrained"], *page.rest, "tied", 2, (0, 2), SEED)
    questions = len(page.items["test"].questions)
    assert {name: array.shape for name, array in found.items()} == {
        "task": (2, questions - questions * 7 // 10),
        "control": (2, questions - questions * 7 // 10),
        "questions": (questions - questions * 7 // 10,),
    }
    assert len(set(found["questions"])) == len(found["questions"])
    assert 0 <= found["questions"].min() <= found["questions"].max() < questions
    ids = [passage.id for passage in page.world.passages]
    shown, maker = shown_of(page, "pretrained", 2)[2], make_probe("tied", PROBE, SEED)
    expected = controls.selectivity(maker, shown, page.items["test"], ids, 2, SEED)
    np.testing.assert_array_equal(found["task"][1], expected.task)
    np.testing.assert_array_equal(found["control"][1], expected.control)


def test_code_lengths_are_shares_of_what_slots_cost_without_features(page):
    found = steps.code_lengths(*page.pairs["dpr_query"], *page.rest, "tied", 3, (0, 2), 2, SEED)
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found[0], 1, atol=1e-6)  # [CLS] before any block tells nothing
    X, y = shown_of(page, "dpr_query", 2)[2].shown(3, SEED)
    bits = controls.online_code(make_probe("tied", PROBE, SEED), X, y, 2, SEED)
    np.testing.assert_allclose(found[1], len(y) * np.log2(3) / bits)


def test_learning_curves_have_a_row_a_size(page, refused):
    sizes = (10, 40, len(page.items["train"].questions))
    found = steps.learned(*page.pairs["dpr_paired"], *page.rest, "tied", 2, 2, sizes, SEED)
    assert found.shape == (3, len(page.items["test"].questions))
    assert found.dtype == bool
    assert len({row.tobytes() for row in found}) == 3
    train, _, test = shown_of(page, "dpr_paired", 2)
    expected = controls.learning_curve(make_probe("tied", PROBE, SEED), train, test, 2, sizes, SEED)
    for row, size in zip(found, sizes, strict=True):
        np.testing.assert_array_equal(row, expected[size])
    with refused(str(sizes[-1] + 1), f"1 to {sizes[-1]}"):
        steps.learned(*page.pairs["dpr_paired"], *page.rest, "tied", 2, 2, (10, sizes[-1] + 1), SEED)


def test_reversed_pairs_are_tested_in_both_orders(page):
    questions = len(controls.reversible(page.world, page.mined, "test", SEED).questions)
    assert questions > 100
    blind = steps.reversed_pairs(*page.pairs["dpr_paired"], *page.rest, "tied", 2, SEED)
    assert {name: right.shape for name, right in blind.items()} == {
        "ordinary": (2 * questions,),
        "balanced": (2 * questions,),
    }
    # who does not see the question is right on just one of each two, or always takes the first slot
    np.testing.assert_array_equal(blind["ordinary"].reshape(2, -1, 2).sum(2), 1)
    assert blind["balanced"].mean() == 0.5
    dot = steps.reversed_pairs(*page.pairs["dpr_paired"], *page.rest, "dot", 2, SEED)
    np.testing.assert_array_equal(dot["ordinary"], dot["balanced"])  # nothing is fitted
    chosen, (query, passage) = controls.reversible(page.world, page.mined, "test", SEED), page.pairs["dpr_paired"]
    q, p = query.questions[2][chosen.questions].astype(float), passage.passages[2][chosen.choices].astype(float)
    scores = (p * q[:, None]).sum(-1)
    lead = np.tile(scores[:, 0] - scores[:, 1], 2)
    clear = abs(lead) > ROUNDING
    np.testing.assert_array_equal(dot["ordinary"][clear], lead[clear] > 0)


def test_without_reversible_pairs_there_is_nothing_to_report(page, monkeypatch):
    nothing = Items(np.empty(0, dtype=int), np.empty((0, 2), dtype=int))
    monkeypatch.setattr(controls, "reversible", lambda *_: nothing)
    found = steps.reversed_pairs.__wrapped__(*page.pairs["pretrained"], *page.rest, "tied", 1, SEED)
    assert [(name, len(right)) for name, right in found.items()] == [("ordinary", 0)]


def test_what_needs_no_network_is_tested_on_the_same_questions(page):
    found = steps.without_network(*page.rest, (2, 3), SEED)
    chosen = page.items["test"]
    assert {name: right.shape for name, right in found.items()} == {
        name: (2, len(chosen.questions)) for name in ("length", "bag_of_words", "bm25", "overlap", "title")
    }
    asked = [page.world.questions[i].text for i in chosen.questions]
    ranked = BM25(page.world.passages, PAGE.negatives).search(asked, len(page.world.passages))
    for i, n in enumerate((2, 3)):
        for right, passages, scores, choices in zip(found["bm25"][i], *ranked, chosen.choices[:, :n], strict=True):
            gold, *others = (scores[passages == place].item() for place in choices)
            if gold != max(others):  # ties are for the first slot
                assert right == (gold > max(others))


def test_a_page_may_probe_features_that_were_kept(page, tmp_path):
    """By their digest, whatever made them."""
    page.seen["query"].save(tmp_path)
    kept = Features.load(tmp_path)
    call = *page.rest, "cosine", (2,), (1,), SEED
    steps.probed(page.seen["query"], page.seen["query"], *call)
    assert steps.probed.record(kept, kept, *call)
    assert not steps.probed.record(kept, page.seen["base"], *call)


# --- neurons ---


@pytest.fixture(scope="module")
def neurons(page):
    """The models, the sample of either side, and each model's temperature and attributions on the question side."""
    duals = steps.compared_models(PAGE, SEED)
    drawn = {side: sample(page.world, page.mined, side, PAGE.sample, SEED) for side in ("query", "passage")}
    heats = steps.temperatures(PAGE, duals, page.world, "query", SEED)
    found = steps.compared(PAGE, duals, page.world, "query", SEED)
    fixed = page.world, PAGE.negatives, PAGE.sample
    return SimpleNamespace(duals=duals, drawn=drawn, heats=heats, found=found, fixed=fixed)


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
    settings = start, page.world, PAGE.negatives, PAGE.dpr
    assert neurons.duals["dpr1"].digest == steps.dpr(*settings, SEED + 1).dual.digest
    assert neurons.duals["shuffled"].digest == steps.dpr(*settings, SEED, True).dual.digest


def test_named_models_are_made_alone(monkeypatch, refused):
    made = []
    monkeypatch.setattr(steps, "continued", lambda *_: made.append("continued"))
    assert [*steps.compared_models(PAGE, SEED, ["dpr", "pretrained"])] == ["pretrained", "dpr"]
    assert not made
    with refused("'gpt'", "shuffled"):
        steps.compared_models(PAGE, SEED, ["gpt"])


@pytest.mark.parametrize("side", ["query", "passage"])
def test_products_are_those_with_the_other_sides_read_by(page, neurons, side):
    dual, drawn = neurons.duals["dpr"], neurons.drawn[side]
    found = steps.products(dual, *neurons.fixed, side, SEED)
    own = read_by(page, dual, side, drawn.examples)
    for i, row in enumerate(drawn.candidates):
        other = read_by(page, dual, "passage" if side == "query" else "query", row)
        np.testing.assert_allclose(found[i], (other @ own[i]).numpy(), atol=1e-4)


def test_each_temperature_is_matched(neurons):
    products = steps.products(neurons.duals["dpr"], *neurons.fixed, "query", SEED)
    assert neurons.heats["dpr"] == matched_temperature(products, PAGE.sample.entropy)
    assert len(set(neurons.heats.values())) == len(neurons.heats)


def test_attributions_are_of_the_sample_at_each_models_temperature(page, neurons):
    dual, drawn = neurons.duals["dpr"], neurons.drawn["query"]
    candidates = torch.stack([read_by(page, dual, "passage", row) for row in drawn.candidates])
    texts = [page.world.questions[i].text for i in drawn.examples]
    expected = attribute(dual.query, texts, choice(candidates, neurons.heats["dpr"]), PAGE.attribution)
    np.testing.assert_allclose(neurons.found["dpr"].scores, expected.scores, atol=1e-6)
    call = dual, *neurons.fixed, PAGE.attribution, "query", 1.0, SEED
    linear = attribute(dual.query, texts, margin(candidates), PAGE.attribution)
    np.testing.assert_allclose(steps.attributed(*call, "margin").scores, linear.scores, atol=1e-4)
    two = steps.attributed(*call[:-2], neurons.heats["dpr"], SEED, "choice", drawn.examples[[3, 1]].tolist())
    np.testing.assert_allclose(two.scores, expected.scores[[3, 1]], atol=1e-6)
    assert (steps.attributed(*call, "weights").scores >= 0).all()


def test_a_score_that_is_none_is_refused(neurons, refused):
    with refused("'bleu'", "choice", "margin", "weights"):
        steps.attributed(neurons.duals["dpr"], *neurons.fixed, PAGE.attribution, "query", 1.0, SEED, "bleu")


def test_masked_answers_are_of_known_facts_and_single_pieces(page):
    found = steps.masked_answers(page.networks["base"], page.world, PAGE.attribution, 5, SEED)
    assert len(found.value) == 5
    assert ((found.value > 0) & (found.value < 1)).all()


def test_places_are_those_of_changed_vectors_among_all_passages(page, neurons):
    dual, drawn = neurons.duals["dpr"], neurons.drawn["query"]
    heat, scores = neurons.heats["dpr"], neurons.found["dpr"].scores
    call = dual, *neurons.fixed, PAGE.attribution, heat
    found = steps.intervened(*call, PAGE.activity.changed, SEED)
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
        place, among, by = judged(interventions.scaled(dual.query, texts, factors))
        assert np.abs(found.place[row] - place).max() <= 1  # float noise can turn a tie
        assert found.among[row].tolist() == among
        np.testing.assert_allclose(found.margin[row], by, atol=1e-4)
    silent = steps.silenced(*call, [1, 5], "top", SEED)
    assert (silent.place[0] == found.place[0]).all()
    np.testing.assert_allclose(silent.margin[2], found.margin[1 + 6], atol=1e-5)  # both: the top five silent


def test_silencing_asks_for_an_order(neurons, refused):
    call = neurons.duals["dpr"], *neurons.fixed, PAGE.attribution, 1.0
    with refused("'bottom'", "top or random"):
        steps.silenced(*call, [1], "bottom", SEED)


def test_a_model_patched_with_itself_finds_what_it_finds(neurons):
    dual = neurons.duals["dpr"]
    itself = steps.patched(dual, dual, *neurons.fixed, "state", SEED)
    plain = steps.intervened(dual, *neurons.fixed, PAGE.attribution, neurons.heats["dpr"], (2, 5), SEED)
    assert itself.place.shape == (2, 6)
    np.testing.assert_allclose(itself.margin, np.stack([plain.margin[0]] * 2), atol=1e-4)
    other = steps.patched(dual, neurons.duals["pretrained"], *neurons.fixed, "state", SEED)
    assert np.abs(other.margin - itself.margin).max() > 1e-3


def test_worlds_are_compared_only_where_the_profile_has_several():
    assert steps.compared_in_worlds(PAGE, SEED) == []
