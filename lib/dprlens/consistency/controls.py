"""Controls for the layer-wise `probes` (the paper has none): alternative explanations of Table 1.

Each control asks one question. Could the probe learn any labelling of these passages (`selectivity`, Hewitt & Liang
2019)? How much of the answer lies in the features and how much in the probe (`online_code`, Voita & Titov 2020)? Would
more questions help (`learning_curve`)? Can a probe tell pairs in which each passage is the gold one for one of two
questions (`reversible`)? And how far does one get without any network (`surface_features`)?
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer

from dprlens.consistency.probes import Dot, Items, Matching, Probe, Tied
from dprlens.retrieval.exact_search import has_answer
from dprlens.retrieval.negatives import BM25, NegativesSpec
from dprlens.world.records import World

MOST_WORDS = 5_000  # of a bag of words, the commonest; a closed world has fewer
# shares of the questions after which to refit
PARTS = 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0


# selectivity


class Selectivity(NamedTuple):
    """Whether the probe is right on each held-back question, in its own task and in the control task."""

    questions: ndarray  # [held-back question]: index into the questions given
    task: ndarray  # [held-back question] bool
    control: ndarray  # [held-back question] bool


def selectivity(
    probe: Probe, shown: Matching, chosen: Items, names: Sequence[str], n: int, seed: int = 0
) -> Selectivity:
    """Fit the probe to its task, and to a control task with a randomly chosen "gold" passage.

    The "gold" passage of the control task is the one with the highest random score. Each passage (`names` [passage] are
    ids) has one score, drawn from a hash of its id, and passages recur in other questions: a probe with enough capacity
    to memorise passages also solves the control task. Seven tenths of the questions are for fitting, the others are
    held back.
    """
    shown = shown.first(n)
    scores = np.array([_hashed(name, seed) for name in names])[chosen.choices[:, :n]]
    rows = np.arange(len(scores))[:, None]
    order = np.argsort(np.arange(n) != scores.argmax(1)[:, None], axis=1, kind="stable")  # the highest, then the others
    relabelled = Matching(shown.questions, shown.passages[rows, order])
    drawn = np.random.default_rng([seed, 0x5E1]).permutation(len(rows))
    fit, held = np.split(drawn, [len(rows) * 7 // 10])
    found = []
    for task in (shown, relabelled):
        fitted = clone(probe).fit(*task.part(fit).shown(n, seed))
        X, y = task.part(held).shown(n, seed)
        found.append(fitted.predict(X) == y)
    return Selectivity(held, *found)


def _hashed(name: str, seed: int) -> float:
    """Hash the name and seed to a pseudo-random number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big") / 2**64


# description length


def online_code(probe: Probe, X: ndarray, y: ndarray, orders: int, seed: int = 0) -> ndarray:
    """Compute the length in bits of the slots y [question] given X, by Voita & Titov's online code: [order].

    The questions come in random order and in blocks (`PARTS`). The first block costs log2(n) bits a question; in every
    later block a question costs −log2 of its probability under a probe fitted to all blocks before. No probe can be
    fitted while all gold passages so far stood in one slot; such a block costs as much as the first.
    """
    slots = X.shape[1] - 1
    ends = np.unique(np.maximum(1, np.round(np.array(PARTS) * len(y)).astype(int)))
    bits = []
    for i in range(orders):
        order = np.random.default_rng([seed, i]).permutation(len(y))
        sent = ends[0] * np.log2(slots)
        for start, end in pairwise(ends):
            known, block = order[:start], order[start:end]
            if len(np.unique(y[known])) == 1:
                sent += len(block) * np.log2(slots)
                continue
            fitted = clone(probe).set_params(l2=probe.l2 * len(y) / start).fit(X[known], y[known])
            scores = fitted.decision_function(X[block])
            sent -= log_softmax(scores, axis=1)[np.arange(len(block)), y[block]].sum() / np.log(2)
        bits.append(sent)
    return np.array(bits)


# learning curve


def learning_curve(
    probe: Probe, train: Matching, test: Matching, n: int, sizes: Sequence[int], seed: int = 0
) -> dict[int, ndarray]:
    """Fit the probe to training sets of several sizes and test it: {size: whether each test question is right}.

    The results are bool [question]. The penalty keeps its weight relative to each question: fewer questions, a greater
    `l2`. Raises ValueError for a size outside 1 … the number of training questions.
    """
    if not sizes or not 1 <= min(sizes) <= max(sizes) <= len(train.questions):
        raise ValueError(f"sizes = {list(sizes)}: give 1 to {len(train.questions)}, the number of questions to fit to")
    order = np.random.default_rng([seed, 0x1C]).permutation(len(train.questions))
    X, y = test.shown(n, seed)
    found = {}
    for size in sizes:
        fitted = clone(probe).set_params(l2=probe.l2 * len(order) / size).fit(*train.part(order[:size]).shown(n, seed))
        found[size] = fitted.predict(X) == y
    return found


# reversible pairs


def reversible(world: World, mined: Mapping[str, Sequence[str]], split: str, seed: int = 0) -> Items:
    """Build pairs of questions about the same two passages, each gold for one and a hard negative for the other.

    Rows 2 i and 2 i + 1 are a pair: (q1; A, B) and (q2; B, A), the gold passage first. B is among the hard negatives of
    q1, and A contains no answer of q2. Two passages make one pair. Any property of a passage alone is then as often
    right as wrong: no scorer that cannot see the question exceeds an accuracy of one half. Empty without pairs.
    """
    asked = [i for i, question in enumerate(world.questions) if question.split == split]
    by_gold: dict[str, list[int]] = {}
    for i in asked:
        by_gold.setdefault(world.questions[i].gold, []).append(i)
    rng = np.random.default_rng([seed, 0x2E7])
    questions, choices, seen = [], [], set()
    for i in rng.permutation(asked):
        first = world.questions[i]
        for other in mined[first.id]:
            partners = [
                j
                for j in by_gold.get(other, [])
                if not has_answer(world.questions[j].answers, world.passage[first.gold].text)
            ]
            both = frozenset((first.gold, other))
            if partners and both not in seen:
                seen.add(both)
                questions += [i, rng.choice(partners)]
                pair = [world.place(first.gold), world.place(other)]
                choices += [pair, pair[::-1]]
                break
    return Items(np.array(questions, dtype=int), np.array(choices, dtype=int).reshape(-1, 2))


def both_orders(shown: Matching) -> tuple[ndarray, ndarray]:
    """Build X and y of two passages, each question twice: gold passage in slot 0, then gold passage in slot 1."""
    parts = [
        np.concatenate([shown.questions[:, None], shown.passages[:, list(order)]], axis=1) for order in ((0, 1), (1, 0))
    ]
    return np.concatenate(parts), np.repeat([0, 1], len(shown.questions))


# without a network


def surface_features(
    world: World, splits: Sequence[Items], spec: NegativesSpec
) -> dict[str, tuple[Probe, list[Matching]]]:
    """Build baselines without a network, each a probe and one `Matching` per split, the first for fitting.

    Features of the passage alone: its length in words, and its bag of words. Of question and passage: BM25, the share
    of the question's words that occur in the passage, and whether the question contains the passage's title.
    """
    texts = [f"{passage.title} {passage.text}" for passage in world.passages]
    asked = [question.text for question in world.questions]
    counter = CountVectorizer(binary=True, dtype=np.float32, token_pattern=r"(?u)\w+", max_features=MOST_WORDS)
    counter.fit([*texts, *asked])
    words, in_questions = counter.transform(texts), counter.transform(asked)  # sparse: dense, they would not fit
    length = np.array([[len(text.split())] for text in texts], dtype=np.float32)

    def alone(features: ndarray, chosen: Items) -> Matching:
        nothing = np.zeros((len(chosen.questions), features.shape[-1]), dtype=np.float32)
        return Matching(nothing, features)

    def words_of(chosen: Items) -> ndarray:
        return words[chosen.choices.ravel()].toarray().reshape(*chosen.choices.shape, -1)

    def together(scores: ndarray) -> Matching:
        return Matching(np.ones((len(scores), 1), dtype=np.float32), scores[:, :, None].astype(np.float32))

    bm25 = BM25(world.passages, spec)
    titles = [passage.title.lower() for passage in world.passages]

    def by_words(chosen: Items) -> ndarray:
        rows = zip(chosen.questions, chosen.choices, strict=True)
        return np.stack([bm25.scores(asked[q])[choices] for q, choices in rows])

    def overlap(chosen: Items) -> ndarray:
        own = in_questions[chosen.questions].toarray()
        return np.einsum("qw,qcw->qc", own, words_of(chosen)) / np.maximum(1, own.sum(1, keepdims=True))

    def named(chosen: Items) -> ndarray:
        rows = zip(chosen.questions, chosen.choices, strict=True)
        return np.array([[titles[c] in asked[q].lower() for c in choices] for q, choices in rows])

    return {
        "length": (Tied(), [alone(length[chosen.choices], chosen) for chosen in splits]),
        "bag_of_words": (Tied(), [alone(words_of(chosen), chosen) for chosen in splits]),
        "bm25": (Dot(), [together(by_words(chosen)) for chosen in splits]),
        "overlap": (Dot(), [together(overlap(chosen)) for chosen in splits]),
        "title": (Dot(), [together(named(chosen)) for chosen in splits]),
    }
