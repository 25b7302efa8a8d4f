"""DPR training (Karpukhin et al. 2020, as in the authors' code; choice TR-1).

Two towers start from the same BERT. With q_i the question vectors of a batch and c_j the vectors of its passages, one
gold and, if there is one, one hard negative for each question, the loss is

    L = −(1/B) Σ_i [ q_i · c_y(i) − log Σ_j exp(q_i · c_j) ],    y(i) the gold passage of question i:

every other passage of the batch is a negative. The gradient is computed in two steps, from the loss to the vectors and
from there to the weights. So a batch that does not fit into memory is encoded in chunks, twice (gradient caching, Gao
et al. 2021), and several processes can share it; in both cases the gradient is that of one process and one chunk.
"""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertModel

from dprlens.bert.encoder import DualEncoder, Encoder, Text, new_model
from dprlens.bert.forward import forward
from dprlens.bert.packing import read
from dprlens.cache.artifacts import digest, sha256, write_json
from dprlens.cache.events import progress
from dprlens.cache.parallel import threads
from dprlens.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Range, check
from dprlens.training import processes
from dprlens.world.records import World

COLUMNS = ["epoch", "loss", "dev_nll", "dev_rank"]  # of a history; the last two if there are dev questions
KEPT = "now", "best", "optimiser"  # tensors of a checkpoint


@dataclass(frozen=True)
class DPRSpec:
    """DPR training; the comments give the values of DPR's own code for Natural Questions."""

    epochs: int = 5  # 40
    batch: int = 32  # questions; 128
    learning_rate: float = 3e-4  # 2e-5 (the article: 1e-5)
    warm_up_steps: int = 30  # 1237
    clip: float = 2.0  # norm of the gradient; 16: its 2.0 applies to an eighth of ours, the mean over 8 processes
    dropout: float = 0.0  # 0.1
    rank_from: float = 0.75  # share of the epochs after which average rank, not NLL, picks the best epoch; 0.75
    chunk: int | None = None  # texts encoded at once, for small memory; None: all of the batch
    threads: int = 1  # part of the result, since sums are split among threads

    def __post_init__(self) -> None:
        check(self, COUNT, "epochs", "chunk", "threads")
        check(self, Range(lambda batch: batch >= 2, "is too few; give 2 or more"), "batch")
        check(self, NOT_NEGATIVE, "warm_up_steps")
        check(self, POSITIVE, "learning_rate", "clip")
        check(self, Range(lambda share: 0 <= share <= 0.99, "is out of range; give 0 to 0.99"), "dropout")
        check(self, SHARE, "rank_from")


# As DPR's own code trains on Natural Questions (its configuration `biencoder_nq`): 460 steps an epoch
PAPER = DPRSpec(
    epochs=40, batch=128, learning_rate=2e-5, warm_up_steps=1237, clip=16.0, dropout=0.1, rank_from=0.75, chunk=32
)


class Example(NamedTuple):
    """A question with its gold passage and its hard negatives, as texts."""

    question: str
    positive: Text
    negatives: tuple[Text, ...] = ()


class Trained(NamedTuple):
    """The trained towers, and the history of losses and validation: one row an epoch (see `train_dpr`)."""

    dual: DualEncoder
    history: pd.DataFrame

    def save(self, folder: Path) -> None:
        """Save the towers and `history.json`."""
        self.dual.save(folder)
        write_json(folder / "history.json", [[name, column.tolist()] for name, column in self.history.items()])

    @classmethod
    def load(cls, folder: Path) -> "Trained":
        """Load the towers and their history from a folder that `save` wrote."""
        history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
        return cls(DualEncoder.load(folder), pd.DataFrame(dict(history)))


def examples(world: World, negatives: Mapping[str, Sequence[str]], split: str) -> list[Example]:
    """Collect a split's training examples; `negatives` maps a question's id to passage ids."""

    def text(passage_id: str) -> Text:
        passage = world.passage[passage_id]
        return passage.title, passage.text

    return [
        Example(q.text, text(q.gold), tuple(text(negative) for negative in negatives.get(q.id, ())))
        for q in world.questions
        if q.split == split
    ]


def shuffled_pairs(true: Sequence[Example], seed: int) -> list[Example]:
    """Shuffle questions among the passages: the control, in which hardly any question has its own passage.

    Questions and passages stay the same. Questions rotate among the examples in a random order, so that only passages
    that several questions share can come back to one of them.
    """
    order = np.random.default_rng([seed, 0x5F]).permutation(len(true))
    return [true[i]._replace(question=true[j].question) for i, j in zip(order, np.roll(order, 1), strict=True)]


def nll(questions: Tensor, passages: Tensor, right: Tensor) -> Tensor:
    """Compute the loss above, a scalar.

    questions [question, d_model], passages [passage, d_model], right [question].
    """
    return torch.nn.functional.cross_entropy(questions @ passages.T, right)


def multiplier(step: int, warm_up: int, steps: int) -> float:
    """Compute the factor of the learning rate after `step` steps of `steps`.

    It rises from 0 linearly, then falls linearly to almost 0 (DPR's code).
    """
    if step < warm_up:
        return step / max(1, warm_up)
    return max(1e-7, (steps - step) / max(1, steps - warm_up))


def average_rank(scores: Tensor, right: Tensor) -> float:
    """Compute the mean number of passages that score above the gold passage; 0 is perfect.

    scores [question, passage], right [question].
    """
    own = scores.gather(1, right[:, None])
    return (scores > own).sum(1).float().mean().item()


class Tokens(NamedTuple):
    """An example as token ids."""

    question: list[int]
    positive: list[int]
    negatives: list[list[int]]


class Batch(NamedTuple):
    """Token ids of a batch; each question's passages are consecutive, the gold passage first."""

    questions: list[list[int]]
    passages: list[list[int]]
    right: list[int]  # [question]: index into passages


def batch_of(chosen: Sequence[Tokens], rng: np.random.Generator | None = None) -> Batch:
    """Form a batch with one hard negative a question, drawn at random; without `rng`, the first."""
    passages: list[list[int]] = []
    right = []
    for tokens in chosen:
        right.append(len(passages))
        passages.append(tokens.positive)
        if tokens.negatives:
            passages.append(tokens.negatives[rng.integers(len(tokens.negatives)) if rng else 0])
    return Batch([tokens.question for tokens in chosen], passages, right)


def backward(towers: Sequence[BertModel], batch: Batch, chunk: int | None = None, seed: int = 0) -> float:
    """Compute the loss of a batch (nats) and its gradient, which is put into the towers' weights.

    A passage that occurs twice in the batch is encoded once and counts twice. Each process encodes its share of the
    questions and of the passages, `chunk` texts at a time; vectors and gradients of all processes are then combined.
    `seed` determines what dropout drops.
    """
    distinct, places = zip(*map(_distinct, batch[:2]), strict=True)
    shares = [processes.own(len(texts)) for texts in distinct]
    encodings = [
        _Encoding(tower, texts[share], chunk, seed)
        for tower, texts, share in zip(towers, distinct, shares, strict=True)
    ]
    vectors = [
        processes.everybodys(encoding.vectors, share, len(texts)).requires_grad_()
        for encoding, texts, share in zip(encodings, distinct, shares, strict=True)
    ]
    questions, passages = (of_text[where] for of_text, where in zip(vectors, places, strict=True))
    loss = nll(questions, passages, torch.tensor(batch.right, device=vectors[0].device))
    loss.backward()
    for encoding, of_text, share in zip(encodings, vectors, shares, strict=True):
        if of_text.grad is not None:
            encoding.backward(of_text.grad[share])
    weights = [weights for tower in towers for weights in tower.parameters()]
    for unused in (w for w in weights if w.grad is None):  # a process without questions in a small last batch
        unused.grad = torch.zeros_like(unused)
    processes.add_up([w.grad for w in weights if w.grad is not None])
    return loss.item()


class _Encoding:
    """Texts encoded by a tower, chunk by chunk; with several chunks the backward pass builds each graph again."""

    def __init__(self, tower: BertModel, texts: Sequence[list[int]], chunk: int | None, seed: int) -> None:
        self.tower, self.seed = tower, seed
        chunk = chunk or max(1, len(texts))
        self.chunks = [texts[i : i + chunk] for i in range(0, len(texts), chunk)]
        with torch.set_grad_enabled(len(self.chunks) == 1):
            none = torch.zeros(0, tower.config.hidden_size, device=tower.device)
            self.vectors = torch.cat([none, *map(self._encode, range(len(self.chunks)))])

    def backward(self, gradient: Tensor) -> None:
        """Propagate the gradient of the loss at the vectors [text, d_model] to the tower's weights."""
        if len(self.chunks) == 1:
            self.vectors.backward(gradient)
            return
        parts = gradient.split([len(texts) for texts in self.chunks]) if self.chunks else ()
        for i, part in enumerate(parts):
            self._encode(i).backward(part)

    def _encode(self, i: int) -> Tensor:
        torch.manual_seed(self.seed + i)
        return read(self.tower, self.chunks[i], forward)


def train_dpr(
    start: DualEncoder,
    train: Sequence[Example],
    dev: Sequence[Example],
    spec: DPRSpec,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> Trained:
    """Train DPR from `start`, which stays as it is; return the epoch that is best in validation.

    `history` has one row an epoch: epoch (from 1), loss (nats, mean over its batches), and if there are dev questions
    dev_nll (nats, mean over dev batches with the first hard negative) and dev_rank (average rank of the gold passage
    among all dev passages, from 0). Epochs are compared by dev_nll, from `spec.rank_from` on by dev_rank; without dev
    questions the last epoch is kept.

    Texts are read at [CLS], whatever pooling `start` has. `checkpoint` is a folder of this call alone, in which the
    last finished epoch is kept: the same call resumes from there if it was killed. Raises ValueError for fewer than two
    questions, FloatingPointError as soon as the loss is not finite.
    """
    if len(train) < 2:
        raise ValueError(f"{len(train)} training questions leave nothing to tell apart; give 2 or more")
    checkpoint = cast(Path | None, processes.share_first(checkpoint))
    with threads(spec.threads), torch.random.fork_rng():
        run = _Run(start, train, dev, spec, seed)
        if checkpoint is not None:
            run.resume(checkpoint)
        while len(run.history) < spec.epochs:
            run.epoch()
            if checkpoint is not None and processes.rank() == 0:  # on a disk that all processes see
                run.keep(checkpoint)
        return run.result()


class _Run:
    """The state of a training run: towers, optimiser, history, and the best epoch so far."""

    def __init__(
        self, start: DualEncoder, train: Sequence[Example], dev: Sequence[Example], spec: DPRSpec, seed: int
    ) -> None:
        self.start, self.spec, self.seed = start, spec, seed
        self.query, self.passage = (_tower(encoder, spec.dropout) for encoder in (start.query, start.passage))
        self.towers = torch.nn.ModuleList([self.query, self.passage])
        self.optimiser = torch.optim.AdamW(self.towers.parameters(), weight_decay=0.0, fused=True)
        self.train, self.dev = _tokens(start, train), _tokens(start, dev)
        self.history: list[dict] = []
        self.best = self._weights()

    def epoch(self) -> None:
        """Train on all questions once, in random order, then validate."""
        done, spec = len(self.history), self.spec
        rng = np.random.default_rng([self.seed, 0xD9, done])
        order = rng.permutation(len(self.train))
        batches = [order[i : i + spec.batch] for i in range(0, len(order), spec.batch)]
        losses: list[float] = []
        for batch in progress(batches, f"DPR training, epoch {done + 1} of {spec.epochs}"):
            step = done * len(batches) + len(losses)
            rate = spec.learning_rate * multiplier(step, spec.warm_up_steps, len(batches) * spec.epochs)
            losses.append(self._step(batch_of([self.train[i] for i in batch], rng), step, rate))
            self._insist(losses[-1], f"the loss in epoch {done + 1}, batch {len(losses)},")
        self.history.append({"epoch": done + 1, "loss": float(np.mean(losses)), **self._validated()})
        self._insist(sum(self.history[-1].values()), f"what validation saw after epoch {done + 1}")
        self._insist(sum(w.detach().abs().sum().item() for w in self.towers.parameters()), "the sum of all weights")
        if self._is_best():
            self.best = self._weights()

    def _insist(self, number: float, what: str) -> None:
        if not math.isfinite(number):
            rate = f"lower learning_rate, which is {self.spec.learning_rate:g}"
            raise FloatingPointError(f"DPR training went wrong, as {what} is {number}; {rate}")

    def _step(self, batch: Batch, step: int, rate: float) -> float:
        seed = np.random.SeedSequence([self.seed, step, processes.rank()]).generate_state(1, np.uint32)
        self.optimiser.zero_grad(set_to_none=True)
        self.towers.train()
        loss = backward([self.query, self.passage], batch, self.spec.chunk, int(seed[0]))
        torch.nn.utils.clip_grad_norm_(self.towers.parameters(), self.spec.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        return loss

    @torch.no_grad()
    def _validated(self) -> dict[str, float]:
        if not self.dev:
            return {}
        self.towers.eval()
        everything = [[tokens.positive, *tokens.negatives] for tokens in self.dev]
        starts = np.cumsum([0, *map(len, everything)])
        questions = _encoded(self.query, [tokens.question for tokens in self.dev])
        pool, places = _distinct([ids for own in everything for ids in own])
        vectors = _encoded(self.passage, pool)
        # each distinct passage is scored once: the columns of a matrix product differ in their last digits even where
        # vectors are equal, and a passage must not beat itself
        scores, passages = (questions @ vectors.T)[:, places], vectors[places]
        rank = average_rank(scores, torch.tensor(starts[:-1], device=passages.device))
        losses = []
        for i in range(0, len(self.dev), self.spec.batch):
            shown = [min(2, len(own)) for own in everything[i : i + self.spec.batch]]
            rows = [starts[i + j] + k for j, n in enumerate(shown) for k in range(n)]
            right = torch.tensor(np.cumsum([0, *shown])[:-1], device=passages.device)
            losses.append(nll(questions[i : i + self.spec.batch], passages[rows], right).item())
        return {"dev_nll": float(np.mean(losses)), "dev_rank": rank}

    def _is_best(self) -> bool:
        turn = math.ceil(self.spec.rank_from * self.spec.epochs)  # epochs before it are compared by NLL
        by_rank = len(self.history) > turn
        rows = self.history[turn:] if by_rank else self.history
        values = [row["dev_rank" if by_rank else "dev_nll"] for row in rows] if self.dev else [0.0]
        return len(values) == 1 or values[-1] < min(values[:-1])

    def _weights(self) -> dict[str, Tensor]:
        return {name: weights.detach().clone() for name, weights in self.towers.state_dict().items()}

    def result(self) -> Trained:
        """Return the towers of the best epoch, and the history."""
        self.towers.load_state_dict(self.best)
        query, passage = (
            Encoder(encoder.tokenizer, tower, tower.device.type)
            for encoder, tower in ((self.start.query, self.query), (self.start.passage, self.passage))
        )
        return Trained(DualEncoder(query, passage), pd.DataFrame(self.history, columns=COLUMNS[: 4 if self.dev else 2]))

    # checkpoints

    def keep(self, checkpoint: Path) -> None:
        """Save this epoch as a checkpoint in the folder, atomically, in place of the one before."""
        draft, final = checkpoint / ".draft", checkpoint / f"epoch-{len(self.history)}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, tensors in zip(KEPT, (self._weights(), self.best, self._moments()), strict=True):
            save_file(tensors, draft / f"{name}.safetensors")
        sums = {file.name: sha256(file) for file in sorted(draft.iterdir())}
        write_json(draft / "progress.json", {"history": self.history, "seal": digest([self.history, sums])})
        shutil.rmtree(final, ignore_errors=True)  # a damaged one
        os.replace(draft, final)
        for older in set(checkpoint.glob("epoch-*")) - {final}:
            shutil.rmtree(older)

    def resume(self, checkpoint: Path) -> None:
        """Resume from the last undamaged epoch in the folder, if there is one; all processes from the same."""
        epochs = sorted(checkpoint.glob("epoch-*"), key=lambda folder: -int(folder.name[6:]))
        for folder in cast(list[Path], processes.share_first(epochs)):
            try:
                kept = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
                sums = {f"{name}.safetensors": sha256(folder / f"{name}.safetensors") for name in KEPT}
                if digest([kept["history"], sums]) != kept["seal"]:
                    continue
                now, self.best, moments = (load_file(folder / f"{name}.safetensors") for name in KEPT)
            except (OSError, ValueError, TypeError, KeyError, SafetensorError):  # whatever damage can lead to
                continue
            self.towers.load_state_dict(now)
            self._set_moments(moments)
            self.history = kept["history"]
            return

    def _moments(self) -> dict[str, Tensor]:
        state = self.optimiser.state_dict()["state"]
        return {f"{weights}.{name}": tensor for weights, of in state.items() for name, tensor in of.items()}

    def _set_moments(self, moments: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in moments.items():
            weights, name = key.split(".")
            state.setdefault(int(weights), {})[name] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})


def _tower(encoder: Encoder, dropout: float) -> BertModel:
    """Copy the encoder's BERT without its head, with this dropout."""
    config = encoder.bert.config.to_dict() | {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    tower = new_model(type(encoder.bert.config).from_dict(config), with_head=False)
    tower.load_state_dict(encoder.bert.state_dict())
    return tower.to(encoder.model.device)


def _tokens(dual: DualEncoder, texts: Sequence[Example]) -> list[Tokens]:
    questions = dual.query.token_ids([example.question for example in texts])
    passages = list(dict.fromkeys(passage for example in texts for passage in (example.positive, *example.negatives)))
    ids = dict(zip(passages, dual.passage.token_ids(passages), strict=True))
    return [
        Tokens(question, ids[example.positive], [ids[negative] for negative in example.negatives])
        for question, example in zip(questions, texts, strict=True)
    ]


def _encoded(tower: BertModel, texts: Sequence[list[int]]) -> Tensor:
    """Encode texts as [CLS] vectors [text, d_model]; each process encodes its share of the distinct texts."""
    distinct, places = _distinct(texts)
    mine = processes.own(len(distinct))
    found = torch.zeros(0, tower.config.hidden_size, device=tower.device)
    if distinct[mine]:
        found = read(tower, distinct[mine], forward)
    return processes.everybodys(found, mine, len(distinct))[places]


def _distinct(texts: Sequence[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Remove repeated texts; return the distinct ones, and the place of each text among them."""
    known: dict[tuple[int, ...], int] = {}
    places = [known.setdefault(tuple(text), len(known)) for text in texts]
    return list(map(list, known)), places
