"""DPR training and encoding beside sentence-transformers: same weights, same examples, same order, one thread.

`bench.py` makes the environment for it and runs it. Prints two tables, and ends with status 1 if the two sides did
not compute the same thing, since then no ratio means anything. README.md says what is timed and what is not.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    util,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Router, Transformer
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging

from dprlens.bert.encoder import DualEncoder, Encoder, random_bert
from dprlens.bert.vocabulary import make_tokenizer, vocabulary
from dprlens.profile import SMALL
from dprlens.retrieval.negatives import hard_negatives
from dprlens.training.dpr import Example, examples, nll, train_dpr
from dprlens.world.closed import make_world
from dprlens.world.records import World

SEED = 0
SPEC = replace(SMALL.dpr, epochs=1, dropout=0.0)
WORDS = 60, 120  # in a long passage, at least and at most; DPR's passages have 100
THEIR_BATCHES = 32, 256  # texts that sentence-transformers encodes at once: its default, and ours
LOSSES, VECTORS = 1e-3, 1e-3  # the two sides may differ by this much: float noise is some hundred times smaller

Passage = tuple[str, str]  # title, text


@dataclass(frozen=True)
class Setting:
    """Sizes of one comparison. `tiny` would tell nothing: the model is that of the profile `small`."""

    name: str
    long: bool
    steps: int  # of training, in each round
    texts: int  # encoded in each round
    rounds: int = 3


SETTINGS = (
    Setting("closed world", long=False, steps=10, texts=960),
    Setting("60–120 words", long=True, steps=4, texts=160),
)


class Task(NamedTuple):
    """What both sides are given."""

    examples: list[Example]  # one hard negative each
    unseen: list[Example]  # a batch more, for the loss after training
    passages: list[Passage]
    start: Encoder


class Round(NamedTuple):
    """One run of one side."""

    wall: float  # seconds
    cpu: float  # seconds of this process
    found: object = None


class Clock:
    """Seconds on the wall and on the CPU since `start`."""

    def start(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def stop(self, found: object = None) -> Round:
        return Round(time.perf_counter() - self.began[0], time.process_time() - self.began[1], found)


# what both sides work on


def make_task(setting: Setting) -> Task:
    """Train questions of the closed world with their mined negatives, in random order, and a BERT of random weights."""
    world = make_world(SMALL.world, SEED)
    shown = lengthened(world) if setting.long else {}
    mined = hard_negatives(world, SMALL.negatives)
    pairs = [
        Example(e.question, shown.get(e.positive, e.positive), (shown.get(e.negatives[0], e.negatives[0]),))
        for e in examples(world, mined, "train")
        if e.negatives
    ]
    order = np.random.default_rng(SEED).permutation(len(pairs))
    chosen = [pairs[i] for i in order[: (setting.steps + 1) * SPEC.batch]]
    passages = [shown.get((p.title, p.text), (p.title, p.text)) for p in world.passages[: setting.texts]]
    tokenizer = make_tokenizer(vocabulary(world.texts()))
    shape = replace(SMALL.encoder, max_length=256) if setting.long else SMALL.encoder  # long: nothing is cut
    start = Encoder(tokenizer, random_bert(tokenizer, shape, SEED).bert, "cpu")
    return Task(chosen[: -SPEC.batch], chosen[-SPEC.batch :], passages, start)


def lengthened(world: World) -> dict[Passage, Passage]:
    """Every passage with the text of those after it, cut at a random length."""
    rng, n = np.random.default_rng(SEED), len(world.passages)
    found = {}
    for i, passage in enumerate(world.passages):
        words: list[str] = []
        while len(words) < WORDS[1]:
            words += world.passages[i % n].text.split()
            i += 1
        cut = rng.integers(WORDS[0], WORDS[1], endpoint=True)
        found[passage.title, passage.text] = passage.title, " ".join(words[:cut])
    return found


# our side


def train_ours(task: Task) -> Round:
    """All of `train_dpr`. Found: mean loss of the steps, and the loss of the unseen batch afterwards."""
    clock = Clock()
    clock.start()
    trained = train_dpr(DualEncoder(task.start, task.start), task.examples, [], SPEC, SEED)
    done = clock.stop()
    loss = unseen_loss(task, trained.dual.questions, trained.dual.passages)
    return done._replace(found=(trained.history["loss"].item(), loss))


def encode_ours(task: Task) -> Round:
    """Found: the passages' vectors [text, d_model]."""
    clock = Clock()
    clock.start()
    return clock.stop(task.start.cls(task.passages))


# their side


class InOrder(DefaultBatchSampler):
    """Batches in the order of the data set."""

    def __init__(self, dataset: Dataset, **options: object) -> None:
        super().__init__(SequentialSampler(dataset), **options)


class Loop(TrainerCallback):
    """Times the training loop alone, without what the trainer prepares before it."""

    def __init__(self) -> None:
        self.clock = Clock()

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.clock.start()

    def on_train_end(self, *_: object, **__: object) -> None:
        self.done = self.clock.stop()


def two_towers(start: Encoder) -> SentenceTransformer:
    """A question tower and a passage tower, both as `start`, as sentence-transformers' router has them."""
    with tempfile.TemporaryDirectory() as folder:
        start.save(Path(folder))
        towers = [Transformer(folder, model_kwargs={"add_pooling_layer": False}) for _ in range(2)]
    routes = ([tower, Pooling(tower.get_embedding_dimension(), pooling_mode="cls")] for tower in towers)
    router = Router.for_query_document(*routes)
    return SentenceTransformer(modules=[router], similarity_fn_name="dot", device="cpu")


def one_string(passage: Passage) -> str:
    """The passage such that their tokenizer makes the same ids of it, with all-zero token types, as ours."""
    return " [SEP] ".join(passage)


def train_theirs(task: Task) -> Round:
    """The loop of their trainer. Found: mean loss of the steps, and the loss of the unseen batch afterwards."""
    model, loop = two_towers(task.start), Loop()
    visited = [task.examples[i] for i in np.random.default_rng([SEED, 0xD9, 0]).permutation(len(task.examples))]
    columns = {
        "anchor": [example.question for example in visited],
        "positive": [one_string(example.positive) for example in visited],
        "negative": [one_string(example.negatives[0]) for example in visited],
    }
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=their_arguments(folder),
            train_dataset=Dataset.from_dict(columns),
            loss=MultipleNegativesRankingLoss(model, scale=1.0, similarity_fct=util.dot_score),
            callbacks=[loop],
        )
        trainer.remove_callback(PrinterCallback)
        mean_loss = trainer.train().training_loss

    def passages(texts: Sequence[Passage]) -> Tensor:
        return model.encode_document([one_string(text) for text in texts], convert_to_tensor=True)

    loss = unseen_loss(task, lambda texts: model.encode_query(texts, convert_to_tensor=True), passages)
    return loop.done._replace(found=(mean_loss, loss))


def their_arguments(folder: str) -> SentenceTransformerTrainingArguments:
    """What `SPEC` says, in their words. The optimiser is theirs by default, AdamW, which is ours."""
    return SentenceTransformerTrainingArguments(
        output_dir=folder,
        num_train_epochs=SPEC.epochs,
        per_device_train_batch_size=SPEC.batch,
        learning_rate=SPEC.learning_rate,
        weight_decay=0.0,
        lr_scheduler_type="linear",
        warmup_steps=SPEC.warm_up_steps,
        max_grad_norm=SPEC.clip,
        batch_sampler=InOrder,
        router_mapping={"anchor": "query", "positive": "document", "negative": "document"},
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
    )


def encode_theirs(task: Task, model: SentenceTransformer, batch: int) -> Round:
    """Found: the passages' vectors [text, d_model]."""
    texts = [one_string(passage) for passage in task.passages]
    clock = Clock()
    clock.start()
    return clock.stop(model.encode_document(texts, batch_size=batch, convert_to_tensor=True))


# both


def unseen_loss(task: Task, questions: Callable, passages: Callable) -> float:
    """Loss (nats) of the unseen batch, all its passages as candidates."""
    positives, negatives = [e.positive for e in task.unseen], [e.negatives[0] for e in task.unseen]
    vectors = questions([e.question for e in task.unseen]), passages(positives + negatives)
    return nll(*vectors, torch.arange(len(task.unseen))).item()


def compare_training(setting: Setting, task: Task) -> bool:
    """A line of the table; True if both sides learned the same."""
    warm_up = task._replace(examples=task.examples[: SPEC.batch])
    train_ours(warm_up), train_theirs(warm_up)
    ours, theirs = zip(*((train_ours(task), train_theirs(task)) for _ in range(setting.rounds)), strict=True)
    line(setting.name, f"{setting.steps} steps", setting.steps * SPEC.batch, ours, theirs)
    found, expected = np.array(ours[-1].found), np.array(theirs[-1].found)
    print(f"    loss, mean of the steps: {found[0]:.6f}  {expected[0]:.6f}    on unseen questions afterwards:", end="")
    print(f" {found[1]:.6f}  {expected[1]:.6f}    difference: {abs(found - expected).max():.1e}")
    return abs(found - expected).max() <= LOSSES


def compare_encoding(setting: Setting, task: Task) -> bool:
    """Lines of the table, one for each of their batch sizes; True if both sides found the same vectors."""
    model = two_towers(task.start)
    encode_ours(task._replace(passages=task.passages[:32]))
    encode_theirs(task._replace(passages=task.passages[:32]), model, 32)
    sides = [encode_ours, *(partial(encode_theirs, model=model, batch=batch) for batch in THEIR_BATCHES)]
    ours, *theirs = zip(*([side(task) for side in sides] for _ in range(3 * setting.rounds)), strict=True)
    for batch, their_rounds in zip(THEIR_BATCHES, theirs, strict=True):
        line(setting.name, f"batches of {batch}", setting.texts, ours, their_rounds)
    difference = max((ours[-1].found - their_rounds[-1].found).abs().max().item() for their_rounds in theirs)
    print(f"    greatest difference between two vectors' components: {difference:.1e}")
    return difference <= VECTORS


def line(name: str, how: str, items: int, ours: Sequence[Round], theirs: Sequence[Round]) -> None:
    """Median throughputs, their ratio with the range over the rounds, and the ratio in CPU time."""
    wall = [b.wall / a.wall for a, b in zip(ours, theirs, strict=True)]
    cpu = [b.cpu / a.cpu for a, b in zip(ours, theirs, strict=True)]
    speeds = (items / median(r.wall for r in side) for side in (ours, theirs))
    busy = sum(r.cpu for r in (*ours, *theirs)) / sum(r.wall for r in (*ours, *theirs))
    print(
        f"{name:14} {how:15}"
        + "".join(f"{speed:12.1f}" for speed in speeds)
        + f"{median(wall):8.2f} ({min(wall):.2f}–{max(wall):.2f}){median(cpu):8.2f}{busy:8.0%}",
        flush=True,
    )


def heading(what: str) -> None:
    print(f"\n{what}\n{'':30}{'dprlens':>12}{'sent.-tr.':>12}{'ratio':>8} {'(range)':11}{'in CPU':>9}{'on CPU':>8}")


def main() -> int:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("sentence-transformers", "transformers", "torch"))
    shape = SMALL.encoder
    print(
        f"{libraries}, Python {platform.python_version()}; {torch.get_num_threads()} thread; "
        f"BERT {shape.layers} × {shape.d_model}; {SPEC.batch} questions a step\n"
        f"load of the machine at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    tasks = [make_task(setting) for setting in SETTINGS]
    heading("Training (examples/s)")
    same = [compare_training(setting, task) for setting, task in zip(SETTINGS, tasks, strict=True)]
    heading("Encoding passages (texts/s)")
    same += [compare_encoding(setting, task) for setting, task in zip(SETTINGS, tasks, strict=True)]
    if not all(same):
        print("the two sides did not compute the same, so no ratio counts: compare losses and vectors above")
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
