"""Encoding of passages into shards of vectors: in this process, in several, or as one of torchrun's.

A worker opens encoder and passages for itself and makes one shard after the other, in any order and beside any other
worker: all they share is the folder (`shards`). So a worker that is killed loses the shard it was at, and whoever
encodes again makes what is missing.

    job = Job(folder, partial(DualEncoder.load, models), partial(open_passages, path))
    encode(job)                    # one worker, here
    encode(job, workers=2)         # two processes; on a machine with GPUs, each with one of its own
    torchrun --nproc-per-node 8 …  # the same `encode(job)` in each: rank r makes the shards r, r + 8, …

On a CPU a worker computes on one thread, so that the numbers do not depend on how many threads there are.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from dprlens.bert.encoder import DualEncoder
from dprlens.cache.artifacts import digest
from dprlens.cache.parallel import pool, threads
from dprlens.retrieval.corpus.plan import Plan, ShardSpec
from dprlens.retrieval.corpus.shards import WHOLE, Block, Shards
from dprlens.world.records import Passage


class Job(NamedTuple):
    """The task of a worker: calls that open encoder and passages, made wherever it runs."""

    folder: Path
    encoder: Callable[[], DualEncoder]
    passages: Callable[[], Sequence[Passage]]
    spec: ShardSpec = ShardSpec()


class Encoded(NamedTuple):
    """The shards of a call of `encode`, and what was made, damaged or lost."""

    shards: Shards
    made: int  # shards that were missing and are there now
    missing: int  # shards that are still to be made: those of torchrun's other processes
    damaged: tuple[str, ...]  # what was wrong with the shards put into quarantine
    lost: int  # workers that died; others made their shards


def encode(job: Job, workers: int = 1, thorough: bool = False) -> Encoded:
    """Make the shards of a job that are missing or damaged.

    `thorough` reads those that are there and compares their SHA-256; else only their size is checked. Raises
    ValueError for a folder that holds other vectors, CacheError if the disk is too small, ChildProcessError if workers
    died before everything was made, and what a worker raises; what was made is kept.
    """
    if workers < 1:
        raise ValueError(f"workers = {workers} encode nothing; give 1 or more")
    rank, size = place()
    if size > 1 and workers > 1:
        raise ValueError(f"workers = {workers} in each of {size} processes of torchrun is not possible; give 1")
    if workers == 1:
        return _alone(job, rank, size, thorough)
    plan = make_plan(job.spec, job.encoder(), job.passages())
    shards, own, damaged = begin(job.folder, plan, thorough=thorough)
    return finish(shards, own, damaged, _side_by_side(job, plan, own, min(workers, len(own))))


def make_plan(spec: ShardSpec, dual: DualEncoder, passages: Sequence[Passage]) -> Plan:
    """Plan the folder of these passages' vectors."""
    encoder = digest((dual.passage.digest, dual.pooling, dual.similarity))
    return Plan.of(spec, len(passages), dual.passage.bert.config.hidden_size, encoder, passages_digest(passages))


def begin(
    folder: Path, plan: Plan, rank: int = 0, size: int = 1, thorough: bool = False
) -> tuple[Shards, list[int], tuple[str, ...]]:
    """Open the plan's shards; return them, this process's missing ones, and what was put into quarantine."""
    shards = Shards.begin(folder, plan)
    own = range(rank, len(shards), size)
    damaged = tuple(shards.tend(own, thorough))
    missing = [shard for shard in own if shards.state(shard) != WHOLE]
    shards.check_room(missing)
    return shards, missing, damaged


def finish(shards: Shards, own: Sequence[int], damaged: tuple[str, ...], lost: int = 0) -> Encoded:
    """Summarise what was done of the shards `own`.

    Raises ChildProcessError if workers that died left some of them.
    """
    missing = {shard for shard in range(len(shards)) if shards.state(shard) != WHOLE}
    if left := missing.intersection(own):
        raise ChildProcessError(
            f"{len(left)} of {len(shards)} shards are still missing, and {lost} workers died; encode again, with fewer "
            "workers if memory was short: what is done is kept"
        )
    return Encoded(shards, len(own), len(missing), damaged, lost)


def passages_digest(passages: Sequence[Passage]) -> str:
    """Return the `digest` that the passages have, else the SHA-256 (hex) of their titles and texts in order."""
    if isinstance(own := getattr(passages, "digest", None), str):
        return own
    sha = hashlib.sha256()
    for passage in passages:
        sha.update(json.dumps([passage.title, passage.text]).encode() + b"\n")
    return sha.hexdigest()


def place() -> tuple[int, int]:
    """Return this process's rank and the number of processes, by RANK and WORLD_SIZE (torchrun), else 0 and 1."""
    told = [os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))]
    with contextlib.suppress(ValueError):
        rank, size = map(int, told)
        if 0 <= rank < size:
            return rank, size
    raise ValueError(
        f"RANK = {told[0]} of WORLD_SIZE = {told[1]} is no process; start this with torchrun, or unset both"
    )


class Worker:
    """A worker: an encoder and passages, opened once, and the shards that it makes with them."""

    def __init__(self, dual: DualEncoder, passages: Sequence[Passage], shards: Shards) -> None:
        self._dual = dual
        self._passages = passages
        self._shards = shards
        self._at_once = shards.plan.block

    @classmethod
    def of(cls, job: Job, plan: Plan, number: int) -> "Worker":
        """Make a worker that opens the job for itself; `number` is its place on its machine and decides its GPU."""
        choose_gpu(number)
        return cls(job.encoder(), job.passages(), Shards(job.folder, plan))

    def make(self, shards: Sequence[int]) -> int:
        """Make those of the shards that are missing, and return how many were made.

        Shards that another worker is making are left to the end, and then waited for: if the other dies, they are made
        here.
        """
        with threads(1):
            turns = [(shard, wait) for wait in (False, True) for shard in shards]
            return sum(self._shards.make(shard, partial(self._blocks, shard), wait) for shard, wait in turns)

    def _blocks(self, shard: int) -> Iterator[Block]:
        for rows in self._shards.plan.blocks(shard):
            passages = self._passages[rows.start : rows.stop]
            yield self._encoded([(passage.title, passage.text) for passage in passages])

    def _encoded(self, texts: list[tuple[str, str]]) -> Block:
        """Encode a block.

        From the first block on that does not fit into the GPU's memory, half as many passages are encoded at once.
        """
        while True:
            try:
                parts = [self._dual.passages(texts[i : i + self._at_once]) for i in range(0, len(texts), self._at_once)]
                return Block(torch.cat(parts).numpy(), self._at_once)
            except torch.OutOfMemoryError:
                if self._at_once == 1:
                    raise
            # not within `except`, where the error would still hold the tensors that it came from
            self._at_once = -(-self._at_once // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def choose_gpu(number: int) -> None:
    """Make one of the machine's GPUs, if there are any, the one that `auto` and `cuda` mean in this process."""
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def _alone(job: Job, rank: int, size: int, thorough: bool) -> Encoded:
    choose_gpu(int(os.environ.get("LOCAL_RANK", 0)))
    dual, passages = job.encoder(), job.passages()
    shards, own, damaged = begin(job.folder, make_plan(job.spec, dual, passages), rank, size, thorough)
    Worker(dual, passages, shards).make(own)
    return finish(shards, own, damaged)


def _side_by_side(job: Job, plan: Plan, own: Sequence[int], workers: int) -> int:
    """Make the shards in so many processes, each its own share first; return how many of them died."""
    lost = 0
    with contextlib.ExitStack() as pools:  # a pool for each: a worker that dies takes its whole pool with it
        futures = []
        for i in range(workers):
            order = [shard for j in range(workers) for shard in own[(i + j) % workers :: workers]]
            futures.append(pools.enter_context(pool(1)).submit(_work, job, plan, i, order))
        for future in futures:
            try:
                future.result()
            except BrokenProcessPool:
                lost += 1
    return lost


def _work(job: Job, plan: Plan, number: int, shards: Sequence[int]) -> int:
    return Worker.of(job, plan, number).make(shards)
