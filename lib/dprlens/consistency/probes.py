"""Layer-wise probes: classifiers that pick the gold passage among N passages (paper, section 2, Table 1).

A probe reads frozen features of a question, q, and of N passages in slots, p_1 … p_N, and predicts the slot of the gold
passage. The paper's probe is linear on the concatenation [q; p_1; …; p_N]. Its score for slot j,
a_j · q + Σ_i B_ji p_i + c_j, has no product of q with any passage, so that at its optimum q plays no part: see
`Linear`. The other probes settle what this leaves open: the same probe without the question, one scorer shared by all
slots (`Tied`), and scores with a product of q and p_j (`Bilinear`, `LowRank`, `Dot`, `Cosine`).

Probes keep scikit-learn's contract with X [question, 1 + slot, d_model], row 0 the question, and y [question], the slot
of the gold passage.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from dprlens.world.records import SPLITS, World

GRADIENT = 1e-6  # the greatest component at which a fit has converged
MOST_AXES = 1024  # features up to which computing principal axes pays
FLOOR = 1e-4  # a feature whose standard deviation is below it counts as constant: states are of the order of 1


@dataclass(frozen=True)
class ProbeSpec:
    """Selection of questions to probe, and fitting of probes; the paper specifies neither (AMB-B4 … AMB-B10)."""

    most: int = 5  # passages to choose from, at most; questions with fewer hard negatives are left out; paper: 5
    l2: float = 0.1  # strength of the penalty
    l2_bilinear: float = 1.0  # of the bilinear probe's, which has far more weights
    iterations: int = 5000  # of L-BFGS, at most; a convex fit converges long before
    rank: int = 16  # of the low-rank probe

    def __post_init__(self) -> None:
        _check_least(self, most=2, iterations=1, rank=1)
        for field in ("l2", "l2_bilinear"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field} = {getattr(self, field)} leaves no unique solution; give a strength above 0")


@dataclass(frozen=True)
class ProbingSpec:
    """Numbers of repetitions in the chapter on probes."""

    random_encoders: int = 3  # encoders of random weights
    repeats: int = 5  # draws of slots and negatives, for the spread that they cause; orders of the online code
    worlds: int = 1  # worlds and networks in which the last comparisons are made again
    questions: int | None = None  # of each split, at most, that are probed; None: all

    def __post_init__(self) -> None:
        _check_least(self, random_encoders=1, repeats=2, worlds=1)
        if self.questions is not None:
            _check_least(self, questions=2)


def _check_least(spec: object, **least: int) -> None:
    for field, fewest in least.items():
        if getattr(spec, field) < fewest:
            raise ValueError(f"{field} = {getattr(spec, field)} is too few; give {fewest} or more")


# what is probed


class Items(NamedTuple):
    """Questions of one split and the passages that each chooses from, as places in the world."""

    questions: ndarray  # [question]
    choices: ndarray  # [question, choice]: places of passages; 0 is the gold one, the others are hard negatives


def probed_part(world: World, most: int | None, seed: int = 0) -> World:
    """Sample at most `most` questions of each split at random, and only the passages that they name.

    `most` = None returns the world itself. States of every layer are kept, which is infeasible for millions of
    passages.
    """
    if most is None:
        return world
    order = np.random.default_rng([seed, 0x9A7]).permutation(len(world.questions))
    by_split = {split: [i for i in order if world.questions[i].split == split][:most] for split in SPLITS}
    asked = [world.questions[i] for i in sorted(i for chosen in by_split.values() for i in chosen)]
    named = dict.fromkeys(id_ for question in asked for id_ in (question.gold, *question.hard_negatives))
    return replace(world, questions=tuple(asked), passages=tuple(world.passage[id_] for id_ in named))


def items(world: World, mined: Mapping[str, Sequence[str]], split: str, most: int, seed: int = 0) -> Items:
    """Select the questions of a split with `most` − 1 hard negatives or more, these drawn in random order.

    For fewer passages take the first columns: the questions stay the same, and the choices are nested (AMB-B7).
    Raises ValueError if no question has so many negatives.
    """
    rng = np.random.default_rng([seed, 0xC401CE])
    chosen, choices = [], []
    for i, question in enumerate(world.questions):
        negatives = mined[question.id]
        if question.split == split and len(negatives) >= most - 1:
            drawn = rng.permutation(len(negatives))[: most - 1]
            chosen.append(i)
            choices.append([world.place(id_) for id_ in (question.gold, *(negatives[j] for j in drawn))])
    if not chosen:
        raise ValueError(f"no {split} question has {most - 1} hard negatives; choose from fewer passages")
    return Items(np.array(chosen), np.array(choices))


@dataclass(frozen=True)
class Features:
    """One encoder's states of all texts that probes may need, by place in the world."""

    questions: ndarray  # [layer, question, d_model]
    passages: ndarray  # [layer, passage, d_model]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of both arrays."""
        sha = hashlib.sha256(repr((self.questions.shape, self.passages.shape)).encode())
        for array in (self.questions, self.passages):
            sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()

    def save(self, folder: Path) -> None:
        """Write both arrays to a folder."""
        for name in ("questions", "passages"):
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> "Features":
        """Read what `save` wrote."""
        return cls(*(np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("questions", "passages")))


class Matching(NamedTuple):
    """Features of questions and of their passages, kept apart: the record that every probe and control reads."""

    questions: ndarray  # [question, d_model]
    passages: ndarray  # [question, choice, d_model]; choice 0 is the gold passage

    def part(self, rows: ndarray) -> "Matching":
        """Select questions by index or mask."""
        return Matching(self.questions[rows], self.passages[rows])

    def first(self, n: int) -> "Matching":
        """Select the first n choices.

        Raises ValueError for an n outside 2 … the number of choices.
        """
        most = self.passages.shape[1]
        if not 2 <= n <= most:
            raise ValueError(f"n = {n} passages: give 2 to {most}, for so many choices has each question")
        return Matching(self.questions, self.passages[:, :n])

    def shown(self, n: int, seed: int = 0) -> tuple[ndarray, ndarray]:
        """Shuffle n passages into random slots (AMB-B5): X [question, 1 + slot, d_model] and y [question].

        The slots depend only on the number of questions, n and the seed: every encoder and layer has the same.
        Raises ValueError as `first` does.
        """
        passages = self.first(n).passages
        order = np.argsort(np.random.default_rng([seed, n]).random((len(self.questions), n)), axis=1)
        passages = np.take_along_axis(passages, order[:, :, None], axis=1)
        return np.concatenate([self.questions[:, None], passages], axis=1), np.argmin(order, axis=1)


def matching(query: Features, passage: Features, layer: int, chosen: Items) -> Matching:
    """Select features of questions from one encoder, of their passages from another or the same, at a layer.

    Layer 0 is the embeddings. Raises ValueError for a layer that the encoders do not have.
    """
    layers = len(query.questions)
    if not 0 <= layer < layers or len(passage.passages) != layers:
        raise ValueError(f"layer {layer} is out of range: these encoders have layers 0 to {layers - 1}")
    return Matching(query.questions[layer][chosen.questions], passage.passages[layer][chosen.choices])


# probes


class Probe(ClassifierMixin, BaseEstimator):
    """Base class: standardised features, mean cross-entropy plus l2/2 · ‖weights‖², minimised by L-BFGS.

    The fit runs in double precision until the gradient vanishes: the loss of every probe but `LowRank` is strictly
    convex (but for a shift of all intercepts), so that its minimum depends neither on the order of the questions nor on
    the processor.

    A subclass defines its part of the features (`_parts`), its weights and how they score the slots (`_start`,
    `_logits`, `_gradient`). Features are standardised with the mean and standard deviation of the training questions,
    passages of all slots together; a constant feature is left out. Ties go to the first slot.
    """

    peeks = False  # whether the reported questions select among its fits
    gain = 0.0  # a fit also ends with a step that lowers the loss by less than this share

    def __init__(self, l2: float = 0.1, iterations: int = 5000) -> None:
        self.l2 = l2
        self.iterations = iterations

    def fit(self, X: ndarray, y: ndarray) -> "Probe":
        """Fit the weights.

        Raises ValueError if X does not have three axes, or y names a slot that X does not have.
        """
        parts, y = self._prepared(X, y)
        self.weights_ = self._minimised(parts, y, self._start(parts))
        return self

    def loss_gradient(self, X: ndarray, y: ndarray) -> ndarray:
        """Compute the gradient of the loss on these questions at the fitted weights, flat: zero at the minimum."""
        check_is_fitted(self)
        X, y = _checked(X, y)
        parts, flat = self._parts(self._standardised(X)), np.concatenate([w.ravel() for w in self.weights_])
        return self._objective(parts, y, self.weights_)(flat)[1]

    def decision_function(self, X: ndarray) -> ndarray:
        """Score the slots [question, slot]."""
        check_is_fitted(self)
        return self._logits(self._parts(self._standardised(_floats(X))), self.weights_)

    def predict(self, X: ndarray) -> ndarray:
        """Predict the slot of the passage with the highest score [question]."""
        return self.decision_function(X).argmax(axis=1)

    def _prepared(self, X: ndarray, y: ndarray) -> tuple[tuple[ndarray, ...], ndarray]:
        """Fit the standardisation, and return the probe's part of X, standardised, and y."""
        X, y = _checked(X, y)
        self.classes_ = np.arange(X.shape[1] - 1)
        mean = X.mean(0)  # [1 + slot, d_model]
        self.centre_ = np.stack([mean[0], mean[1:].mean(0)])
        square = np.square(self._centred(X)).mean(0)
        deviation = np.sqrt(np.stack([square[0], square[1:].mean(0)]))
        self.scale_ = np.where(deviation > FLOOR, 1 / np.maximum(deviation, FLOOR), 0)
        return self._parts(self._standardised(X)), y

    def _minimised(self, parts: tuple[ndarray, ...], y: ndarray, start: list[ndarray]) -> list[ndarray]:
        """Minimise the loss from `start`, in units of the curvature there, and return the weights."""
        options: dict[str, float] = {"maxiter": self.iterations, "maxfun": 2 * self.iterations, "maxcor": 20}
        options |= {"ftol": self.gain, "gtol": GRADIENT}
        unit = (self._curvature(parts, start) + self._strength(start)) ** -0.5
        objective = self._objective(parts, y, start)

        def loss(scaled: ndarray) -> tuple[float, ndarray]:
            value, gradient = objective(scaled * unit)
            return value, gradient * unit

        first = np.concatenate([w.ravel() for w in start]) / unit
        return _shaped(minimize(loss, first, jac=True, method="L-BFGS-B", options=options).x * unit, start)

    def _strength(self, weights: list[ndarray]) -> ndarray:
        """Compute the strength of the penalty on each of the flat weights."""
        return self.l2 * np.concatenate([np.full(w.size, penalised) for w, penalised in self._penalised(weights)])

    def _objective(
        self, parts: tuple[ndarray, ...], y: ndarray, like: list[ndarray]
    ) -> Callable[[ndarray], tuple[float, ndarray]]:
        """Build the function from flat weights, shaped as `like`, to the loss and its gradient."""
        rows, strength = np.arange(len(y)), self._strength(like)

        def loss(flat: ndarray) -> tuple[float, ndarray]:
            weights = _shaped(flat, like)
            likelihood = _log_softmax(self._logits(parts, weights))
            residual = np.exp(likelihood)
            residual[rows, y] -= 1
            gradient = self._gradient(parts, residual / len(y), weights)
            value = -likelihood[rows, y].mean() + strength @ (flat * flat) / 2
            return value, np.concatenate([g.ravel() for g in gradient]) + strength * flat

        return loss

    def _centred(self, X: ndarray) -> ndarray:
        return X - self.centre_[np.minimum(np.arange(X.shape[1]), 1)]  # 0 the question, 1 a passage

    def _standardised(self, X: ndarray) -> ndarray:
        return self._centred(X) * self.scale_[np.minimum(np.arange(X.shape[1]), 1)]

    def _parts(self, Z: ndarray) -> tuple[ndarray, ...]:
        """Select what the probe reads of standardised features: question [question, d_model], passages apart."""
        return np.ascontiguousarray(Z[:, 0]), np.ascontiguousarray(Z[:, 1:])

    def _start(self, parts: tuple[ndarray, ...]) -> list[ndarray]:
        """Initialise the weights."""
        raise NotImplementedError

    def _penalised(self, weights: list[ndarray]) -> Iterator[tuple[ndarray, bool]]:
        """Pair each array of weights with whether the penalty applies."""
        return ((w, True) for w in weights)

    def _curvature(self, parts: tuple[ndarray, ...], weights: list[ndarray]) -> ndarray:  # noqa: ARG002
        """Compute the cross-entropy's second derivative by each flat weight, all at 0; 0 where not worth it."""
        return np.zeros(sum(w.size for w in weights))

    def _logits(self, parts: tuple[ndarray, ...], weights: Sequence[ndarray]) -> ndarray:
        """Score the slots [question, slot]."""
        raise NotImplementedError

    def _gradient(self, parts: tuple[ndarray, ...], residual: ndarray, weights: Sequence[ndarray]) -> list[ndarray]:
        """Compute the gradient of the loss by the weights from `residual` [question, slot], that by the scores."""
        raise NotImplementedError


class Linear(Probe):
    """The paper's probe, N-way logistic regression on [q; p_1; …; p_N]: z_j = a_j · q + Σ_i B_ji p_i + c_j.

    With random slots the minimiser of its population loss has a_j = a, c_j = c, B_jj = u and B_ji = v for i ≠ j: terms
    that do not depend on j cancel in the softmax, and z_j = (u − v) · p_j remains. The probe then tests whether p_j
    looks like a gold passage, not whether p_j matches q; a finite sample adds only overfitting.
    """

    def _prepared(self, X: ndarray, y: ndarray) -> tuple[tuple[ndarray, ...], ndarray]:
        if len(y) and len(np.unique(y)) == 1:
            raise ValueError(f"all gold passages stand in slot {y[0]}: there is nothing to tell apart; draw the slots")
        return super()._prepared(X, y)

    def _parts(self, Z: ndarray) -> tuple[ndarray, ...]:
        return (Z.reshape(len(Z), -1),)

    def _start(self, parts: tuple[ndarray, ...]) -> list[ndarray]:
        (seen,) = parts
        slots = len(self.classes_)
        return [np.zeros((slots, seen.shape[1])), np.zeros(slots)]

    def _penalised(self, weights: list[ndarray]) -> Iterator[tuple[ndarray, bool]]:
        return zip(weights, (True, False), strict=True)  # not for the intercepts

    def _minimised(self, parts: tuple[ndarray, ...], y: ndarray, start: list[ndarray]) -> list[ndarray]:
        """Minimise along the principal axes of questions and passages, in half the steps."""
        width, slots = self.centre_.shape[1], len(self.classes_)
        if width > MOST_AXES:
            return super()._minimised(parts, y, start)
        texts = parts[0].reshape(len(y), -1, width).swapaxes(0, 1)  # [question or slot, example, d_model]
        asked = len(texts) - slots  # 1, or 0 without the question
        axes = np.stack([*map(_axes, texts[:asked]), *[_axes(texts[asked:])] * slots])
        turned = (texts @ axes).swapaxes(0, 1).reshape(parts[0].shape)
        weights, bias = super()._minimised((turned,), y, start)  # they all start at 0
        back = weights.reshape(slots, len(texts), 1, width) @ axes.swapaxes(1, 2)
        return [back.reshape(weights.shape), bias]

    def _curvature(self, parts: tuple[ndarray, ...], weights: list[ndarray]) -> ndarray:
        slots = len(weights[1])
        spread = (1 - 1 / slots) / slots  # of each slot's probability
        return np.concatenate([np.tile(np.square(parts[0]).mean(0) * spread, slots), np.full(slots, spread)])

    def _logits(self, parts: tuple[ndarray, ...], weights: Sequence[ndarray]) -> ndarray:
        by_slot, bias = weights
        return parts[0] @ by_slot.T + bias

    def _gradient(self, parts: tuple[ndarray, ...], residual: ndarray, _: Sequence[ndarray]) -> list[ndarray]:
        return [residual.T @ parts[0], residual.sum(0)]


class NoQuery(Linear):
    """The paper's probe on [p_1; …; p_N], without the question."""

    def _parts(self, Z: ndarray) -> tuple[ndarray, ...]:
        return (Z[:, 1:].reshape(len(Z), -1),)


class Untrained(Linear):
    """The paper's probe with random weights that are never fitted."""

    def __init__(self, l2: float = 0.1, iterations: int = 5000, seed: int = 0) -> None:
        super().__init__(l2, iterations)
        self.seed = seed

    def _minimised(self, parts: tuple[ndarray, ...], y: ndarray, start: list[ndarray]) -> list[ndarray]:  # noqa: ARG002
        rng = np.random.default_rng(self.seed)
        return [rng.normal(size=w.shape) for w in start]


class Replication(Linear):
    """The paper's probe as its replication fits it (Yao, Wang & Zuccon 2025; AMB-B9), weaknesses included.

    Raw features, no penalty, 30 epochs of Adam at a rate of 1e-4 in batches of up to 32,768 questions, and the epoch of
    the highest accuracy on the very questions that are reported.
    """

    peeks = True

    def __init__(self, epochs: int = 30, rate: float = 1e-4, batch: int = 32_768, seed: int = 0) -> None:
        self.epochs = epochs
        self.rate = rate
        self.batch = batch
        self.seed = seed

    def fit(self, X: ndarray, y: ndarray, select: tuple[ndarray, ndarray] | None = None) -> "Replication":
        """Fit the weights; keep the epoch of greatest accuracy on `select` (X, y), the last without `select`."""
        epochs = self._epochs(*self._prepared(X, y))
        if select is None:
            *_, self.weights_ = epochs
            return self
        shown, right = _checked(*select)
        seen, best = self._parts(self._standardised(shown)), -1.0
        for weights in epochs:
            accuracy = float(np.mean(self._logits(seen, weights).argmax(1) == right))
            if accuracy > best:
                best, self.weights_ = accuracy, [w.copy() for w in weights]
        return self

    def _standardised(self, X: ndarray) -> ndarray:
        return X

    def _epochs(self, parts: tuple[ndarray, ...], y: ndarray) -> Iterator[list[ndarray]]:
        """Yield the weights after each epoch, initialised as torch initialises a linear layer."""
        rng, bound = np.random.default_rng(self.seed), parts[0].shape[1] ** -0.5
        weights = [rng.uniform(-bound, bound, start.shape) for start in self._start(parts)]
        moments, step = [(np.zeros_like(w), np.zeros_like(w)) for w in weights], 0
        for _ in range(self.epochs):
            order = rng.permutation(len(y))
            for rows in (order[i : i + self.batch] for i in range(0, len(y), self.batch)):
                batch, step = tuple(part[rows] for part in parts), step + 1
                residual = np.exp(_log_softmax(self._logits(batch, weights)))
                residual[np.arange(len(rows)), y[rows]] -= 1
                gradient = self._gradient(batch, residual / len(rows), weights)
                for w, (first, second), g in zip(weights, moments, gradient, strict=True):
                    first += 0.1 * (g - first)
                    second += 0.001 * (g * g - second)
                    w -= self.rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            yield weights


class Tied(Probe):
    """One scorer for all slots, without the question: z_j = w · p_j."""

    def _parts(self, Z: ndarray) -> tuple[ndarray, ...]:
        return (np.ascontiguousarray(Z[:, 1:]),)

    def _start(self, parts: tuple[ndarray, ...]) -> list[ndarray]:
        return [np.zeros(parts[0].shape[2])]

    def _minimised(self, parts: tuple[ndarray, ...], y: ndarray, start: list[ndarray]) -> list[ndarray]:
        """Minimise along the principal axes of the passages, as `Linear` does."""
        if parts[0].shape[2] > MOST_AXES:
            return super()._minimised(parts, y, start)
        axes = _axes(parts[0])
        (weights,) = super()._minimised((parts[0] @ axes,), y, start)
        return [axes @ weights]

    def _curvature(self, parts: tuple[ndarray, ...], weights: list[ndarray]) -> ndarray:  # noqa: ARG002
        return parts[0].var(axis=1).mean(0)

    def _logits(self, parts: tuple[ndarray, ...], weights: Sequence[ndarray]) -> ndarray:
        return parts[0] @ weights[0]

    def _gradient(self, parts: tuple[ndarray, ...], residual: ndarray, _: Sequence[ndarray]) -> list[ndarray]:
        return [residual.ravel() @ parts[0].reshape(-1, parts[0].shape[2])]


class Bilinear(Probe):
    """Probe with a product of question and passage: z_j = q · M p_j + w · p_j; its gain over `Tied` is matching."""

    def _start(self, parts: tuple[ndarray, ...]) -> list[ndarray]:
        questions, passages = parts
        return [np.zeros((questions.shape[1], passages.shape[2])), np.zeros(passages.shape[2])]

    def _logits(self, parts: tuple[ndarray, ...], weights: Sequence[ndarray]) -> ndarray:
        (questions, passages), (matrix, alone) = parts, weights
        return np.einsum("qjd,qd->qj", passages, questions @ matrix + alone)

    def _gradient(self, parts: tuple[ndarray, ...], residual: ndarray, _: Sequence[ndarray]) -> list[ndarray]:
        questions, passages = parts
        mixed = np.einsum("qj,qjd->qd", residual, passages)
        return [questions.T @ mixed, mixed.sum(0)]


class LowRank(Bilinear):
    """`Bilinear` with a matrix of low rank, M = U Vᵀ.

    Not convex: every fit starts from the same random U and V, and stops early, since the point of convergence depends
    on rounding errors anyway. Its numbers differ slightly from one processor to another.
    """

    gain = 1e-5

    def __init__(self, l2: float = 0.1, iterations: int = 5000, rank: int = 16, seed: int = 0) -> None:
        super().__init__(l2, iterations)
        self.rank = rank
        self.seed = seed

    def _start(self, parts: tuple[ndarray, ...]) -> list[ndarray]:
        rng = np.random.default_rng(self.seed)
        sides = [rng.normal(size=(part.shape[-1], self.rank)) * part.shape[-1] ** -0.5 for part in parts]
        return [*sides, np.zeros(parts[1].shape[2])]

    def _logits(self, parts: tuple[ndarray, ...], weights: Sequence[ndarray]) -> ndarray:
        (questions, passages), (left, right, alone) = parts, weights
        return np.einsum("qjd,qd->qj", passages, questions @ left @ right.T + alone)

    def _gradient(self, parts: tuple[ndarray, ...], residual: ndarray, weights: Sequence[ndarray]) -> list[ndarray]:
        (questions, passages), (left, right, _) = parts, weights
        mixed = np.einsum("qj,qjd->qd", residual, passages)
        return [questions.T @ (mixed @ right), mixed.T @ (questions @ left), mixed.sum(0)]


class Dot(Probe):
    """Untrained probe: z_j = q · p_j of the raw features, as DPR compares vectors."""

    def _prepared(self, X: ndarray, y: ndarray) -> tuple[tuple[ndarray, ...], ndarray]:
        X, y = _checked(X, y)
        self.classes_ = np.arange(X.shape[1] - 1)
        return self._parts(X), y

    def _standardised(self, X: ndarray) -> ndarray:
        return X

    def _start(self, parts: tuple[ndarray, ...]) -> list[ndarray]:  # noqa: ARG002
        return []

    def _minimised(self, parts: tuple[ndarray, ...], y: ndarray, start: list[ndarray]) -> list[ndarray]:  # noqa: ARG002
        return start

    def _logits(self, parts: tuple[ndarray, ...], weights: Sequence[ndarray]) -> ndarray:  # noqa: ARG002
        questions, passages = parts
        return np.einsum("qjd,qd->qj", passages, questions)


class Cosine(Dot):
    """Untrained probe: the cosine of q and p_j."""

    def _parts(self, Z: ndarray) -> tuple[ndarray, ...]:
        return super()._parts(Z / np.maximum(np.linalg.norm(Z, axis=2, keepdims=True), FLOOR))


PROBES: dict[str, type[Probe]] = {
    "linear": Linear,
    "no_query": NoQuery,
    "untrained": Untrained,
    "replication": Replication,
    "tied": Tied,
    "low_rank": LowRank,
    "bilinear": Bilinear,
    "dot": Dot,
    "cosine": Cosine,
}


def make_probe(name: str, spec: ProbeSpec, seed: int = 0) -> Probe:
    """Make a probe by name; `seed` is for random weights.

    Raises ValueError for an unknown name.
    """
    if name not in PROBES:
        raise ValueError(f"there is no probe {name!r}; choose one of {', '.join(PROBES)}")
    if name == "replication":
        return Replication(seed=seed)
    own = {"low_rank": {"rank": spec.rank, "seed": seed}, "untrained": {"seed": seed}}
    l2 = spec.l2_bilinear if name == "bilinear" else spec.l2
    return PROBES[name](l2=l2, iterations=spec.iterations, **own.get(name, {}))


# how well a probe does


class ProbeResult(NamedTuple):
    """Results of one probe on an encoder pair, for each number of passages and each layer."""

    correct: ndarray  # [n, layer, question]: whether a test question's gold passage is predicted
    shuffled: ndarray  # [n, layer, question]: the same with each test question replaced by another
    train: ndarray  # [n, layer]: accuracy on the questions that the probe was fitted to


def evaluate(
    probe: Probe, train: Sequence[Matching], test: Sequence[Matching], choices: Sequence[int], seed: int = 0
) -> ProbeResult:
    """Fit the probe for every n of `choices` and every layer (one `Matching` each), and test it."""
    cells = [[_cell(probe, *by_layer, n, seed) for by_layer in zip(train, test, strict=True)] for n in choices]
    return ProbeResult(*(np.array([[cell[i] for cell in row] for row in cells]) for i in range(3)))


def _cell(probe: Probe, train: Matching, test: Matching, n: int, seed: int) -> tuple[ndarray, ndarray, float]:
    seen, (X, y) = train.shown(n, 3 * seed), test.shown(n, 3 * seed + 2)
    fitted = clone(probe)
    fitted.fit(*seen, (X, y)) if probe.peeks else fitted.fit(*seen)
    correct = fitted.predict(X) == y
    order = np.random.default_rng(seed).permutation(len(X))
    X[order, 0] = X[np.roll(order, 1), 0]  # each question stands where another was
    return correct, fitted.predict(X) == y, fitted.score(*seen)


def cross_fit(
    probe: Probe, test: Sequence[Matching], groups: ndarray, choices: Sequence[int], seed: int = 0
) -> ProbeResult:
    """Run `evaluate` by two-fold cross-fitting on the test questions, without the training questions.

    `groups` [question], such as gold passages, are never split. DPR was not trained on these questions, so that its
    features are those of any unseen question. `train` is the mean of the halves.
    """
    names = np.unique(groups)
    half = np.isin(groups, np.random.default_rng([seed, 0xF01D]).permutation(names)[: len(names) // 2])
    found = [
        evaluate(probe, [m.part(~fold) for m in test], [m.part(fold) for m in test], choices, seed)
        for fold in (half, ~half)
    ]
    correct, shuffled = (np.empty((*found[0].correct.shape[:2], len(groups)), dtype=bool) for _ in range(2))
    correct[:, :, half], correct[:, :, ~half] = (part.correct for part in found)
    shuffled[:, :, half], shuffled[:, :, ~half] = (part.shuffled for part in found)
    return ProbeResult(correct, shuffled, np.mean([part.train for part in found], axis=0))


def _axes(features: ndarray) -> ndarray:
    """Compute principal axes of features [.., d_model], as columns [d_model, axis]."""
    flat = features.reshape(-1, features.shape[-1])
    return np.linalg.eigh(flat.T @ flat)[1]


def _shaped(flat: ndarray, like: Sequence[ndarray]) -> list[ndarray]:
    """Reshape flat weights like `like`."""
    ends = np.cumsum([w.size for w in like])[:-1]
    return [w.reshape(shape.shape) for w, shape in zip(np.split(flat, ends), like, strict=True)]


def _log_softmax(scores: ndarray) -> ndarray:
    """Compute log-softmax over the last axis; scipy's takes longer than the rest of a step at these sizes."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _floats(X: ndarray) -> ndarray:
    X = np.asarray(X)
    if X.ndim != 3 or X.shape[1] < 3:
        raise ValueError(f"features of shape {X.shape}: give [question, 1 + slot, d_model] with two slots or more")
    return X.astype(float)  # a copy in double precision


def _checked(X: ndarray, y: ndarray) -> tuple[ndarray, ndarray]:
    X, y = _floats(X), np.asarray(y)
    if len(X) != len(y) or len(y) == 0 or y.min() < 0 or y.max() >= X.shape[1] - 1:
        raise ValueError(f"y must give {len(X)} questions, one or more, a slot from 0 to {X.shape[1] - 2} each")
    return X, y
