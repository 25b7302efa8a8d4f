"""The cached steps of the book: a few lines of composition each, computed once for the same arguments.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from dprlens import attribution, bound, controls, cooccurrence, interventions, knowledge, natural
from dprlens.artifacts import default_root, digest, step
from dprlens.attribution import Attribution, AttributionSpec
from dprlens.closed import ClosedSpec, TextSpec, false_gold, make_world, misinformed, reading, segments
from dprlens.consistency import ACROSS, Results, selected, without_number
from dprlens.corpus import trec
from dprlens.corpus.encode import Encoded, Job, encode, make_plan
from dprlens.corpus.plan import ShardSpec
from dprlens.corpus.search import placed, search
from dprlens.encoder import POOLINGS, DualEncoder, Encoder, EncoderSpec, Text, untrained
from dprlens.natural import Natural, NaturalSpec
from dprlens.natural.models import load_encoder, load_towers
from dprlens.natural.statements import Written
from dprlens.natural.statements import read as statements_of
from dprlens.natural.writer import Pair, written
from dprlens.negatives import NegativesSpec, hard_negatives
from dprlens.neurons import Sample, SampleSpec, sample
from dprlens.probe import (
    Features,
    Items,
    Matching,
    Probed,
    ProbeSpec,
    cross_fitted,
    evaluate,
    items,
    make_probe,
    matching,
    probed_part,
)
from dprlens.profile import Profile
from dprlens.retrieval import Ranking, Retriever, answer_places, gold_places
from dprlens.store import Store
from dprlens.tokens import make_tokenizer, vocabulary
from dprlens.training import processes
from dprlens.training.dpr import DPRSpec, Trained, examples, shuffled_pairs, train_dpr
from dprlens.training.muon import in_quick_precision
from dprlens.training.pretrain import PretrainSpec, continue_pretraining, pretrain
from dprlens.world import SPLITS, World

ROUNDED = 9  # decimals of co-occurrence scores, so that equal ones tie whatever the order of their sums
PROBES = ("bm25s", "scipy", "scikit-learn")  # the libraries that a fitted probe and its items depend on
TOLD = ("true", "false", "nothing")  # what pre-training says about the linking facts under test


def _lacks_base(asked: Mapping) -> bool:
    """Must the base model of these `findings` be made?"""
    read = _told(closed_world(asked["world"], asked["seed"]), asked.get("told", "true"), asked["seed"])
    start = read, asked["text"], asked["shape"], asked["pretraining"], asked["seed"]
    return base_model.as_asked.record(*start) is None


@in_quick_precision(needed=_lacks_base)
@step(version=2, libraries=("bm25s", "faiss-cpu", "scipy"))
def findings(
    world: ClosedSpec,
    text: TextSpec,
    shape: EncoderSpec,
    pretraining: PretrainSpec,
    negatives: NegativesSpec,
    training: DPRSpec,
    seed: int,
    told: str = "true",
) -> pd.DataFrame:
    """One arm of the causal test, from the world to the rankings: what a model that was `told` this finds.

    `knowledge.asked` with more columns: recalled (share of the fact's unread wordings that the model completes before
    DPR training as it was told them), place (from 0) of the gold passage, and false_place, that of the passage which
    would be gold if the counterfactual link were true (−1 where no link is false); within, tied, peers: the gold
    passage among those of its relation (`bound.standings`).
    """
    if told not in TOLD:
        raise ValueError(f"told = {told!r} is no arm; choose one of {', '.join(TOLD)}")
    true = closed_world(world, seed)
    read = _told(true, told, seed)
    base = base_model(read, text, shape, pretraining, seed)
    start = untrained(base, seed) if told == "nothing" else base
    recalled = cloze_recall(start, read).query("wording == 'reserved'").groupby("fact")["recalled"].mean()
    trained = dpr(DualEncoder(start, start), true, negatives, training, seed)
    ranking = rankings(trained.dual, true, k=len(true.passages))
    other = false_gold(true, misinformed(true, seed))
    gold = [true.place(question.gold) for question in true.questions]
    wrong = [true.place(other[question.id]) if question.id in other else -1 for question in true.questions]
    frame = knowledge.asked(true)
    frame["recalled"] = recalled.loc[frame["fact"]].to_numpy()
    frame["place"] = gold_places(ranking, gold)
    frame["false_place"] = np.where(np.array(wrong) < 0, -1, gold_places(ranking, wrong))
    return frame.assign(**bound.standings(true, _scores(ranking)))


def _scores(ranking: Ranking) -> np.ndarray:
    """The scores [question, passage] of a ranking of all passages."""
    scores = np.empty_like(ranking.scores)
    np.put_along_axis(scores, ranking.passages, ranking.scores, 1)
    return scores


@in_quick_precision(needed=_lacks_base)
@step(version=1, libraries=("faiss-cpu", "scipy"))
def untrained_findings(
    world: ClosedSpec, text: TextSpec, shape: EncoderSpec, pretraining: PretrainSpec, seed: int
) -> pd.DataFrame:
    """What pre-trained BERT retrieves without DPR training: `knowledge.asked`, place, and `bound.standings`."""
    true = closed_world(world, seed)
    base = base_model(true, text, shape, pretraining, seed)
    ranking = rankings(DualEncoder(base, base), true, k=len(true.passages))
    place = gold_places(ranking, [true.place(question.gold) for question in true.questions])
    return knowledge.asked(true).assign(place=place, **bound.standings(true, _scores(ranking)))


@step(version=1, libraries=("scipy",), on_device=False)
def cooccurrence_findings(world: ClosedSpec, text: TextSpec, seed: int, pool: str = "mean") -> pd.DataFrame:
    """What word co-occurrence in the pre-training text retrieves (`cooccurrence.score`), without any network.

    `knowledge.asked` with place (from 0; of the passages with the same score half rank before), `bound.standings`, and
    composed, how often the text states the question's target in a description through its link (`bound.compositions`;
    0 for lexical questions).
    """
    true = closed_world(world, seed)
    read = segments(true, text, seed)
    questions = [question.text for question in true.questions]
    passages = [f"{passage.title} {passage.text}" for passage in true.passages]
    counted = cooccurrence.count(segment.text for segment in read)
    scores = cooccurrence.score(counted, questions, passages, pool).round(ROUNDED)
    own = scores[range(len(scores)), [true.place(question.gold) for question in true.questions]][:, None]
    place = (scores > own).sum(1) + ((scores == own).sum(1) - 1) // 2
    composed = bound.compositions(read)
    return knowledge.asked(true).assign(
        place=place,
        **bound.standings(true, scores),
        composed=[composed[question.facts] for question in true.questions],
    )


def _told(world: World, told: str, seed: int) -> World:
    """The world as an arm of the causal test reads of it."""
    return misinformed(world, seed) if told == "false" else world


@step(version=1)
def features(encoder: Encoder, world: World, pooling: str = "cls") -> Features:
    """States by layer of all questions and passages of the world."""
    if pooling not in POOLINGS:
        raise ValueError(f"pooling = {pooling!r} is not known; choose one of {', '.join(POOLINGS)}")
    read = encoder.cls_by_layer if pooling == "cls" else encoder.mean_by_layer
    with processes.threads(1):
        questions = read([question.text for question in world.questions])
        passages = read([(passage.title, passage.text) for passage in world.passages])
    return Features(questions.numpy(), passages.numpy())


def encoder_pairs(
    chosen: Profile, seed: int, pooling: str = "cls", workers: ProcessPoolExecutor | None = None
) -> dict[str, tuple[Features, Features]]:
    """Who encodes the questions and who the passages, in Table 1: (question features, passage features) by name.

    They are features of the questions and passages of `probed_part`.
    pretrained; dpr_query and dpr_context, one tower for both; dpr_paired, each tower for its own (AMB-B2); random0 …,
    networks of random weights.
    """
    world = world_of(chosen, seed)
    base = base_of(chosen, world, seed)
    dual = dpr(DualEncoder(base, base), world, chosen.negatives, chosen.dpr, seed).dual
    random = [untrained(base, seed + i) for i in range(chosen.probing.random_encoders)]
    part = probed_part(world, chosen.probing.questions, seed)
    calls = [(encoder, part, pooling) for encoder in (base, dual.query, dual.passage, *random)]
    before, query, passage, *others = processes.in_parallel(features, calls, workers)
    return {
        "pretrained": (before, before),
        "dpr_query": (query, query),
        "dpr_context": (passage, passage),
        "dpr_paired": (query, passage),
        **{f"random{i}": (found, found) for i, found in enumerate(others)},
    }


@step(version=2, libraries=PROBES, on_device=False)
def probed(
    query: Features,
    passage: Features,
    world: World,
    negatives: NegativesSpec,
    spec: ProbeSpec,
    probe: str,
    choices: Sequence[int],
    layers: Sequence[int],
    seed: int,
    fit_on: str = "train",
) -> Probed:
    """One probe on questions as one encoder sees them and passages as another (or the same) does.

    It is fitted to the train questions, on which DPR was trained too, or (fit_on = "test") to the other half of the
    test questions.
    """
    if fit_on not in ("train", "test"):
        raise ValueError(f"fit_on = {fit_on!r} is not known; choose train or test")
    chosen, seen = _probed_items(query, passage, world, negatives, spec, layers, seed)
    maker = make_probe(probe, spec, seed)
    with threadpool_limits(1):
        if fit_on == "test":
            golds = chosen["test"].choices[:, 0]
            return cross_fitted(maker, seen["test"], golds, choices, seed)
        return evaluate(maker, seen["train"], seen["test"], choices, seed)


def probed_in_worlds(
    chosen: Profile,
    seed: int,
    choices: Sequence[int],
    layers: Sequence[int],
    pooling: str = "cls",
    workers: ProcessPoolExecutor | None = None,
) -> list[Results]:
    """The probes of `consistency.ACROSS` in several worlds, from the page's seed on; none if the profile has one."""
    if chosen.probing.worlds == 1:
        return []
    found, wanted = [], {who for pair in ACROSS.values() for who in pair}
    for s in range(seed, seed + chosen.probing.worlds):
        world = probed_part(world_of(chosen, s), chosen.probing.questions, s)
        calls = {
            (who, probe): (*pair, world, chosen.negatives, chosen.probe, probe, choices, layers, s)
            for who, pair in encoder_pairs(chosen, s, pooling, workers).items()
            for name, probe in wanted
            if name == without_number(who)
        }
        asked = items(world, mined_negatives(world, chosen.negatives), "test", chosen.probe.most, s)
        right = dict(zip(calls, processes.in_parallel(probed, list(calls.values()), workers), strict=True))
        found.append(Results(right, choices, layers, asked.choices[:, 0]))
    return found


@step(version=2, libraries=PROBES, on_device=False)
def selective(
    query: Features,
    passage: Features,
    world: World,
    negatives: NegativesSpec,
    spec: ProbeSpec,
    probe: str,
    n: int,
    layers: Sequence[int],
    seed: int,
) -> dict[str, np.ndarray]:
    """`controls.selectivity` on the test questions: task and control [layer, held-back question], questions."""
    chosen, seen = _probed_items(query, passage, world, negatives, spec, layers, seed)
    ids = [passage.id for passage in world.passages]
    with threadpool_limits(1):
        found = [
            controls.selectivity(make_probe(probe, spec, seed), shown, chosen["test"], ids, n, seed)
            for shown in seen["test"]
        ]
    return {
        "task": np.array([one.task for one in found]),
        "control": np.array([one.control for one in found]),
        "questions": found[0].questions,
    }


@step(version=2, libraries=PROBES, on_device=False)
def code_lengths(
    query: Features,
    passage: Features,
    world: World,
    negatives: NegativesSpec,
    spec: ProbeSpec,
    probe: str,
    n: int,
    layers: Sequence[int],
    orders: int,
    seed: int,
) -> np.ndarray:
    """Compression by `controls.online_code` on the test questions [layer, order]: 1 if the features tell nothing."""
    _, seen = _probed_items(query, passage, world, negatives, spec, layers, seed)
    found = []
    with threadpool_limits(1):
        for shown in seen["test"]:
            X, y = shown.shown(n, seed)
            maker = make_probe(probe, spec, seed)
            found.append(len(y) * np.log2(n) / controls.online_code(maker, X, y, orders, seed))
    return np.array(found)


@step(version=2, libraries=PROBES, on_device=False)
def learned(
    query: Features,
    passage: Features,
    world: World,
    negatives: NegativesSpec,
    spec: ProbeSpec,
    probe: str,
    n: int,
    layer: int,
    sizes: Sequence[int],
    seed: int,
) -> np.ndarray:
    """`controls.learning_curve`: whether each test question is right [size, question]."""
    _, seen = _probed_items(query, passage, world, negatives, spec, [layer], seed)
    maker, train, test = make_probe(probe, spec, seed), seen["train"][0], seen["test"][0]
    with threadpool_limits(1):
        return np.array([*controls.learning_curve(maker, train, test, n, sizes, seed).values()])


@step(version=2, libraries=PROBES, on_device=False)
def reversed_pairs(
    query: Features,
    passage: Features,
    world: World,
    negatives: NegativesSpec,
    spec: ProbeSpec,
    probe: str,
    layer: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """A probe on the reversible pairs of the test questions, both orders of the slots [order · question].

    ordinary: fitted to the train questions as in Table 1; balanced: to the reversible pairs among them. Empty where the
    world has no such pairs.
    """
    mined = mined_negatives(world, negatives)
    _, seen = _probed_items(query, passage, world, negatives, spec, [layer], seed)
    pairs = {split: matching(query, passage, layer, controls.reversible(world, mined, split, seed)) for split in SPLITS}
    X, y = controls.both_orders(pairs["test"])
    fits = {"ordinary": seen["train"][0].shown(2, seed)}
    if all(len(pairs[split].questions) for split in ("train", "test")):
        fits["balanced"] = controls.both_orders(pairs["train"])
    with threadpool_limits(1):
        return {
            name: make_probe(probe, spec, seed).fit(*fit).predict(X) == y if len(y) else y for name, fit in fits.items()
        }


@step(version=2, libraries=PROBES, on_device=False)
def without_network(
    world: World, negatives: NegativesSpec, spec: ProbeSpec, choices: Sequence[int], seed: int
) -> dict[str, np.ndarray]:
    """`controls.surface_features` on the test questions: whether each is right, by name [n, question]."""
    mined = mined_negatives(world, negatives)
    splits = [items(world, mined, split, spec.most, seed) for split in ("train", "test")]
    with threadpool_limits(1):
        return {
            name: evaluate(probe, *([part] for part in parts), choices, seed).correct[:, 0]
            for name, (probe, parts) in controls.surface_features(world, splits, negatives).items()
        }


def _probed_items(
    query: Features,
    passage: Features,
    world: World,
    negatives: NegativesSpec,
    spec: ProbeSpec,
    layers: Sequence[int],
    seed: int,
) -> tuple[dict[str, Items], dict[str, list[Matching]]]:
    """By split: what is asked, and as the encoders see it at each layer."""
    mined = mined_negatives(world, negatives)
    chosen = {split: items(world, mined, split, spec.most, seed) for split in SPLITS}
    return chosen, {
        split: [matching(query, passage, layer, found) for layer in layers] for split, found in chosen.items()
    }


def texts_of(world: World, side: str, places: Sequence[int]) -> list[Text]:
    """The questions ("query") or passages ("passage") at these places, as an encoder reads them."""
    if side == "query":
        return [world.questions[i].text for i in places]
    return [(world.passages[i].title, world.passages[i].text) for i in places]


def _candidates(dual: DualEncoder, world: World, side: str, candidates: np.ndarray) -> torch.Tensor:
    """Vectors of the candidates [example, choice, d_model]; of the other side than the examples."""
    distinct, where = np.unique(candidates, return_inverse=True)
    other = dual.passages if side == "query" else dual.questions
    vectors = other(texts_of(world, "passage" if side == "query" else "query", distinct))
    return vectors[torch.tensor(where.reshape(candidates.shape))]


@step(version=1, libraries=("bm25s",))
def products(
    dual: DualEncoder, world: World, negatives: NegativesSpec, spec: SampleSpec, side: str, seed: int
) -> np.ndarray:
    """Dot products of the sample's examples with their candidates [example, choice]."""
    drawn = sample(world, mined_negatives(world, negatives), side, spec, seed)
    with processes.threads(1):
        own = dual.questions if side == "query" else dual.passages
        vectors = own(texts_of(world, side, drawn.examples))
        return (_candidates(dual, world, side, drawn.candidates) @ vectors[:, :, None])[:, :, 0].numpy()


@step(version=2, libraries=("bm25s",))
def attributed(
    dual: DualEncoder,
    world: World,
    negatives: NegativesSpec,
    sampled: SampleSpec,
    spec: AttributionSpec,
    side: str,
    temperature: float,
    seed: int,
    score: str = "choice",
    only: Sequence[int] | None = None,
) -> Attribution:
    """Attributions of the neurons of one encoder on the sample: of the question's, or of the context's ("passage").

    `only` gives other examples than the random ones (see `neurons.sample`).

    `score` is "choice" (S2), with the temperature, a name in `attribution.SCORES`, or "weights": the weight-level
    reading of "choice".
    """
    drawn = sample(world, mined_negatives(world, negatives), side, sampled, seed, only)
    encoder = dual.query if side == "query" else dual.passage
    texts = texts_of(world, side, drawn.examples)
    with processes.threads(1):
        candidates = _candidates(dual, world, side, drawn.candidates)
        if score == "weights":
            says = attribution.choice(candidates, temperature)
            return attribution.attribute_weights(encoder, texts, says, spec.rule, 2 * spec.nodes)
        if score == "choice":
            says = attribution.choice(candidates, temperature)
        elif score in attribution.SCORES:
            says = attribution.SCORES[score](candidates)
        else:
            known = ", ".join(["choice", *attribution.SCORES, "weights"])
            raise ValueError(f"score = {score!r} is not known; choose one of {known}")
        return attribution.attribute(encoder, texts, says, spec, pooling=dual.pooling)


@step(version=2)
def masked_answers(encoder: Encoder, world: World, spec: AttributionSpec, n: int, seed: int) -> Attribution:
    """S1, as in Dai et al.: attributions at the mask for the answers of n known facts that are a single piece."""
    known = [fact for fact in world.facts if world.may_know(fact.id)]
    order = np.random.default_rng([seed, 0x51]).permutation(len(known))
    statements = [known[i].statements[0] for i in order if known[i].statements]
    masked, places, answers = knowledge.blanked(encoder, statements)
    single = [i for i, pieces in enumerate(answers) if len(pieces) == 1][:n]
    with processes.threads(1):
        return attribution.attribute_at(
            encoder,
            [masked[i] for i in single],
            [places[i][0] for i in single],
            attribution.answer(encoder.model, torch.tensor([answers[i][0] for i in single])),
            spec,
        )


def compared_models(chosen: Profile, seed: int, names: Sequence[str] | None = None) -> dict[str, DualEncoder]:
    """The models whose neurons are compared, by name; of these the named ones, or all.

    pretrained, dpr; dpr1 … from other DPR seeds; and the controls shuffled (DPR on wrong pairs), continued (as many
    more steps of masked-LM) and random (weights that have read nothing).
    """
    world = world_of(chosen, seed)
    base = base_of(chosen, world, seed)
    start = DualEncoder(base, base)
    settings = start, world, chosen.negatives, chosen.dpr
    trainings = {f"dpr{i or ''}": (*settings, seed + i) for i in range(chosen.activity.dpr_seeds)}
    trainings["shuffled"] = *settings, seed, True
    found = selected("model", ["pretrained", *trainings, "continued", "random"], names)
    calls = {name: call for name, call in trainings.items() if name in found}
    trained = dict(zip(calls, processes.in_parallel(dpr, list(calls.values())), strict=True))
    models = {"pretrained": start} | {name: model.dual for name, model in trained.items()}
    if "continued" in found:
        longer = continued(base, world, chosen.text, chosen.negatives, chosen.pretrain, chosen.dpr, seed)
        models["continued"] = DualEncoder(longer, longer)
    if "random" in found:
        random = untrained(base, seed)
        models["random"] = DualEncoder(random, random)
    return {name: models[name] for name in found}


def compared(
    chosen: Profile,
    duals: Mapping[str, DualEncoder],
    world: World,
    side: str,
    seed: int,
    workers: ProcessPoolExecutor | None = None,
) -> dict[str, Attribution]:
    """`attributed` of each model on one side, by name, each at its own temperature."""
    heats = temperatures(chosen, duals, world, side, seed, workers)
    fixed = world, chosen.negatives, chosen.sample, chosen.attribution, side
    calls = [(dual, *fixed, heats[name], seed) for name, dual in duals.items()]
    return dict(zip(duals, processes.in_parallel(attributed, calls, workers), strict=True))


def compared_in_worlds(
    chosen: Profile, seed: int, workers: ProcessPoolExecutor | None = None
) -> list[dict[str, Attribution]]:
    """The question side's `compared` in several worlds, from the page's seed on; none if the profile has one."""
    many = chosen.activity.worlds if chosen.activity.worlds > 1 else 0
    chosen = replace(chosen, activity=replace(chosen.activity, dpr_seeds=1))
    return [
        compared(chosen, compared_models(chosen, s), world_of(chosen, s), "query", s, workers)
        for s in range(seed, seed + many)
    ]


def temperatures(
    chosen: Profile,
    duals: Mapping[str, DualEncoder],
    world: World,
    side: str,
    seed: int,
    workers: ProcessPoolExecutor | None = None,
) -> dict[str, float]:
    """Each model's temperature, at which its choices have the entropy that the profile asks for."""
    calls = [(dual, world, chosen.negatives, chosen.sample, side, seed) for dual in duals.values()]
    found = processes.in_parallel(products, calls, workers)
    return {
        name: attribution.matched_temperature(one, chosen.sample.entropy)
        for name, one in zip(duals, found, strict=True)
    }


@step(version=1, libraries=("bm25s",))
def intervened(
    dual: DualEncoder,
    world: World,
    negatives: NegativesSpec,
    sampled: SampleSpec,
    spec: AttributionSpec,
    temperature: float,
    changed: Sequence[int],
    seed: int,
) -> Judged:
    """The sample's questions with k of their neurons changed: [1 + k · kind · factor, example], the first as they are.

    For each k of `changed` each kind of `interventions.KINDS`, and for each kind the neurons silenced (factor 0) and
    doubled (factor 2).
    """
    found = attributed(dual, world, negatives, sampled, spec, "query", temperature, seed)
    drawn = sample(world, mined_negatives(world, negatives), "query", sampled, seed)
    texts, scores = texts_of(world, "query", drawn.examples), found.scores
    with processes.threads(1):
        masks = [interventions.chosen(scores, k, kind, seed) for k in changed for kind in interventions.KINDS]
        factors = [np.ones_like(scores), *(np.where(mask, f, 1).astype(scores.dtype) for mask in masks for f in (0, 2))]
        return _judged(dual, world, drawn, (interventions.scaled(dual.query, texts, each) for each in factors))


@step(version=1, libraries=("bm25s",))
def silenced(
    dual: DualEncoder,
    world: World,
    negatives: NegativesSpec,
    sampled: SampleSpec,
    spec: AttributionSpec,
    temperature: float,
    counts: Sequence[int],
    kind: str,
    seed: int,
) -> Judged:
    """The sample's questions with more and more of their neurons silent: [1 + count, example], the first with none.

    `kind` "top" takes the greatest attributions first, "random" any neurons.
    """
    if kind not in ("top", "random"):
        raise ValueError(f"kind = {kind!r} is no order; choose top or random")
    found = attributed(dual, world, negatives, sampled, spec, "query", temperature, seed)
    drawn = sample(world, mined_negatives(world, negatives), "query", sampled, seed)
    texts, scores = texts_of(world, "query", drawn.examples), found.scores
    keys = -scores if kind == "top" else np.random.default_rng([seed, 0x511]).random(scores.shape)
    line = interventions.places_in_line(keys.reshape(len(keys), -1)).reshape(keys.shape)
    with processes.threads(1):
        factors = ((line >= count).astype(scores.dtype) for count in (0, *counts))
        return _judged(dual, world, drawn, (interventions.scaled(dual.query, texts, each) for each in factors))


@step(version=1, libraries=("bm25s",))
def patched(
    into: DualEncoder,
    other: DualEncoder,
    world: World,
    negatives: NegativesSpec,
    sampled: SampleSpec,
    what: str,
    seed: int,
) -> Judged:
    """The sample's questions read by `into`, one block's result replaced by that of `other`: [block, example].

    Judged by the passages of `into`; see `interventions.patched`.
    """
    drawn = sample(world, mined_negatives(world, negatives), "query", sampled, seed)
    texts = texts_of(world, "query", drawn.examples)
    with processes.threads(1):
        blocks = range(into.query.layers)
        readings = (interventions.patched(into.query, other.query, texts, i, what) for i in blocks)
        return _judged(into, world, drawn, readings)


class Run(NamedTuple):
    """One model of the causal test."""

    study: str  # "deep", "shallow" or "grid"
    profile: Profile
    size: float  # of its world, against the page's
    form: float  # mean share of a linking fact's statements that are descriptions
    seed: int
    told: str


def causal_test(chosen: Profile, seed: int) -> pd.DataFrame:
    """`findings` of all models of the causal test (`bound.BoundSpec`), one below the other.

    Further columns say which model a row is about: study, size, form, seed, told (see `Run`).
    """
    runs = [
        *_shallow_runs(chosen, seed),
        *_deep_runs(chosen, seed),
    ]  # the deep ones may have to wait for the base model
    return _stacked(runs, processes.in_parallel(findings, [_findings_of(run) for run in runs]))


def baselines(chosen: Profile, seed: int) -> pd.DataFrame:
    """What is retrieved without a trained retriever, in the worlds of `causal_test`, with the same further columns.

    told "cooccurrence" and "cooccurrence_max": `cooccurrence_findings` in each world whose text is true, by pool; told
    "pretrained": `untrained_findings` of each model of full depth.
    """
    runs = [run for run in (*_deep_runs(chosen, seed), *_shallow_runs(chosen, seed)) if run.told == "true"]
    deep = [run for run in runs if run.study == "deep"]
    pools = {"cooccurrence": "mean", "cooccurrence_max": "max"}
    named = [(run._replace(told=arm), pool) for arm, pool in pools.items() for run in runs]
    calls = [(run.profile.world, run.profile.text, run.seed, pool) for run, pool in named]
    counted = processes.in_parallel(cooccurrence_findings, calls)
    calls = [(p.world, p.text, p.encoder, p.pretrain, run.seed) for run in deep for p in (run.profile,)]
    before = processes.in_parallel(untrained_findings, calls)
    all_runs = [run for run, _ in named] + [run._replace(told="pretrained") for run in deep]
    return _stacked(all_runs, [*counted, *before])


def _stacked(runs: Sequence[Run], frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The frame of each run, one below the other, with columns that say which run it is of."""
    return pd.concat(
        [
            frame.assign(study=run.study, size=run.size, form=run.form, seed=run.seed, told=run.told)
            for frame, run in zip(frames, runs, strict=True)
        ],
        ignore_index=True,
    )


def _deep_runs(chosen: Profile, seed: int) -> list[Run]:
    form = float(np.mean(chosen.world.described))
    return [
        Run("deep", chosen, 1.0, form, s, told) for told, n in chosen.bound.deep_arms for s in range(seed, seed + n)
    ]


def _shallow_runs(chosen: Profile, seed: int) -> list[Run]:
    spec, form = chosen.bound, float(np.mean(chosen.world.described))

    def shallow(size: float, described: tuple[float, ...]) -> Profile:
        world = replace(chosen.world.scaled(size), described=described)
        return replace(chosen, world=world, encoder=replace(chosen.encoder, layers=spec.shallow_layers))

    smaller = shallow(spec.shallow_size, chosen.world.described)
    arms = [
        Run("shallow", smaller, spec.shallow_size, form, s, told)
        for told, n in spec.shallow_arms
        for s in range(seed, seed + n)
    ]
    grid = [
        Run("grid", shallow(size, (share,)), size, share, s, "true")
        for size, share in spec.grid
        for s in range(seed, seed + spec.grid_seeds)
    ]
    return arms + grid


def _findings_of(run: Run) -> tuple:
    p = run.profile
    return p.world, p.text, p.encoder, p.pretrain, p.negatives, p.dpr, run.seed, run.told
