"""Indexes that rank passages by an encoder pair's dot products, in memory or in shards on the disk.

`Index` is the one place that knows where the vectors are.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy import ndarray

from dprlens.bert.encoder import DualEncoder, Text
from dprlens.cache.artifacts import default_root, digest
from dprlens.retrieval.corpus.encode import Encoded, Job, encode, make_plan
from dprlens.retrieval.corpus.plan import ShardSpec
from dprlens.retrieval.corpus.search import RowRanks, rank_rows, search
from dprlens.retrieval.corpus.shards import Shards
from dprlens.retrieval.exact_search import FlatIndex, Ranking
from dprlens.world.passages import Store
from dprlens.world.records import Passage, World


class Index(Protocol):
    """An index of passages for vectors of questions [question, d_model]; passages are rows from 0."""

    def search(self, queries: ndarray, k: int) -> Ranking:
        """Rank the k best passages of each question."""

    def ranks(self, queries: ndarray, rows: ndarray) -> RowRanks:
        """Score the passages in `rows` [question, choice], and rank the first of them among all, from 0."""


class InMemory:
    """An index of passages that fit into memory, encoded here.

    Raises ValueError without passages.
    """

    def __init__(self, dual: DualEncoder, passages: Sequence[Passage]) -> None:
        if not passages:
            raise ValueError("there are 0 passages to search; give 1 or more")
        places: dict[Text, int] = {}  # each distinct text is encoded once, so that equal ones tie to the last digit
        texts = ((passage.title, passage.text) for passage in passages)
        self._of_text = [places.setdefault(text, len(places)) for text in texts]
        self._vectors = dual.passages([*places])

    def search(self, queries: ndarray, k: int) -> Ranking:
        """Rank the k best passages of each question."""
        return self._flat.search(queries, k)

    def ranks(self, queries: ndarray, rows: ndarray) -> RowRanks:
        """Score the passages in `rows` [question, choice], and rank the first of them among all, from 0."""
        scores = (torch.from_numpy(queries) @ self._vectors.T).numpy()[:, self._of_text]
        chosen = np.take_along_axis(scores, rows, 1)
        gold, before = chosen[:, :1], np.arange(scores.shape[1]) < rows[:, :1]
        return RowRanks(chosen, ((scores > gold) | ((scores == gold) & before)).sum(1))

    @cached_property
    def _flat(self) -> FlatIndex:
        return FlatIndex(self._vectors[self._of_text].numpy())


class InShards(NamedTuple):
    """An index of passages whose vectors stay on the disk."""

    shards: Shards

    def search(self, queries: ndarray, k: int) -> Ranking:
        """Rank the k best passages of each question."""
        return search(self.shards, queries, k)

    def ranks(self, queries: ndarray, rows: ndarray) -> RowRanks:
        """Score the passages in `rows` [question, choice], and rank the first of them among all, from 0."""
        return rank_rows(self.shards, queries, rows)


def index_of(dual: DualEncoder, world: World) -> Index:
    """Index all passages of a world by the passage tower: in shards if the world keeps them in a store."""
    if isinstance(world.passages, Store):
        return InShards(encode_store(dual, world).shards)
    return InMemory(dual, world.passages)


def encode_store(dual: DualEncoder, world: World) -> Encoded:
    """Encode all passages of a store in shards below the cache; only missing shards are made.

    A process that torchrun started makes only its own share of them.
    """
    spec = ShardSpec()
    name = digest(make_plan(spec, dual, world.passages))[:16]
    return encode(Job(default_root() / "vectors" / name, lambda: dual, lambda: world.passages, spec))


def passage_texts(world: World, places: Iterable[int]) -> list[tuple[str, str]]:
    """List the passages at these places as (title, text), the passage tower's input."""
    return [(world.passages[i].title, world.passages[i].text) for i in places]


def question_texts(world: World, places: Iterable[int]) -> list[str]:
    """List the questions at these places, the question tower's input."""
    return [world.questions[i].text for i in places]
