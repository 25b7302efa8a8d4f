"""Passages ranked for questions by an encoder pair's dot products, in memory or in shards on the disk.

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
    """Vectors of passages, to be ranked for vectors of questions [question, d_model]; passages are rows from 0."""

    def search(self, queries: ndarray, k: int) -> Ranking:
        """The k best passages of each question."""

    def ranks(self, queries: ndarray, rows: ndarray) -> RowRanks:
        """Scores of the passages in `rows` [question, choice], and the first one's rank among all, from 0."""


class InMemory:
    """An index of passages that fit into memory, encoded here. Raises ValueError without passages."""

    def __init__(self, dual: DualEncoder, passages: Sequence[Passage]) -> None:
        if not passages:
            raise ValueError("there are 0 passages to search; give 1 or more")
        places: dict[Text, int] = {}  # each distinct text is encoded once, so that equal ones tie to the last digit
        texts = ((passage.title, passage.text) for passage in passages)
        self._of_text = [places.setdefault(text, len(places)) for text in texts]
        self._vectors = dual.passages([*places])

    def search(self, queries: ndarray, k: int) -> Ranking:
        """Rank by FAISS's exact search; see `Index.search`."""
        return self._flat.search(queries, k)

    def ranks(self, queries: ndarray, rows: ndarray) -> RowRanks:
        """Score by one matrix product; see `Index.ranks`."""
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
        """Rank shard by shard; see `Index.search`."""
        return search(self.shards, queries, k)

    def ranks(self, queries: ndarray, rows: ndarray) -> RowRanks:
        """Score shard by shard; see `Index.ranks`."""
        return rank_rows(self.shards, queries, rows)


def index_of(dual: DualEncoder, world: World) -> Index:
    """All passages of a world, encoded by the passage tower: in shards if the world keeps them in a store."""
    if isinstance(world.passages, Store):
        return InShards(encode_store(dual, world).shards)
    return InMemory(dual, world.passages)


def encode_store(dual: DualEncoder, world: World) -> Encoded:
    """Vectors of all passages of a store, in shards below the cache; what is missing of them is made.

    One of the processes that torchrun started makes its own share of them only.
    """
    spec = ShardSpec()
    name = digest(make_plan(spec, dual, world.passages))[:16]
    return encode(Job(default_root() / "vectors" / name, lambda: dual, lambda: world.passages, spec))


def passage_texts(world: World, places: Iterable[int]) -> list[tuple[str, str]]:
    """The passages at these places, (title, text) each, as the passage tower reads them."""
    return [(world.passages[i].title, world.passages[i].text) for i in places]


def question_texts(world: World, places: Iterable[int]) -> list[str]:
    """The questions at these places, as the question tower reads them."""
    return [world.questions[i].text for i in places]
