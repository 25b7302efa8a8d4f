"""Passages ranked for questions by an encoder pair's dot products, in memory or in shards on the disk.

`Index` is the one place that knows where the vectors are. The cached steps that rank with it, and what the commands
`encode` and `trec` do.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy import ndarray

from dprlens.bert.encoder import DualEncoder, Text
from dprlens.bert.pretrained import load_towers
from dprlens.cache.artifacts import default_root, digest, step
from dprlens.retrieval import trec
from dprlens.retrieval.corpus.encode import Encoded, Job, encode, make_plan
from dprlens.retrieval.corpus.plan import ShardSpec
from dprlens.retrieval.corpus.search import Placed, placed, search
from dprlens.retrieval.corpus.shards import Shards
from dprlens.retrieval.exact_search import FlatIndex, Ranking, answer_places
from dprlens.setup import Setup
from dprlens.world import natural
from dprlens.world.natural import NaturalSpec
from dprlens.world.passages import Store
from dprlens.world.records import Passage, World


class Index(Protocol):
    """Vectors of passages, to be ranked for vectors of questions [question, d_model]; passages are rows from 0."""

    def search(self, queries: ndarray, k: int) -> Ranking:
        """The k best passages of each question."""

    def ranks(self, queries: ndarray, rows: ndarray) -> Placed:
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
        return self._flat.search(queries, k)

    def ranks(self, queries: ndarray, rows: ndarray) -> Placed:
        scores = (torch.from_numpy(queries) @ self._vectors.T).numpy()[:, self._of_text]
        chosen = np.take_along_axis(scores, rows, 1)
        gold, before = chosen[:, :1], np.arange(scores.shape[1]) < rows[:, :1]
        return Placed(chosen, ((scores > gold) | ((scores == gold) & before)).sum(1))

    @cached_property
    def _flat(self) -> FlatIndex:
        return FlatIndex(self._vectors[self._of_text].numpy())


class InShards(NamedTuple):
    """An index of passages whose vectors stay on the disk."""

    shards: Shards

    def search(self, queries: ndarray, k: int) -> Ranking:
        return search(self.shards, queries, k)

    def ranks(self, queries: ndarray, rows: ndarray) -> Placed:
        return placed(self.shards, queries, rows)


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


@step(version=1, libraries=("faiss-cpu",), threads=1)
def rankings(dual: DualEncoder, world: World, k: int = 100) -> Ranking:
    """The k best passages (all, if there are fewer) for every question of the world, in their order there."""
    queries = dual.questions([question.text for question in world.questions]).numpy()
    return index_of(dual, world).search(queries, min(k, len(world.passages)))


@step(version=1, libraries=("faiss-cpu",), threads=1)
def answered(dual: DualEncoder, world: World, questions: Sequence[natural.OpenQuestion], k: int) -> ndarray:
    """Rank of the first passage with an answer, by DPR's measure, for questions without a gold passage [question].

    k where none of the first k has one.
    """
    queries = dual.questions([question.text for question in questions]).numpy()
    ranking = index_of(dual, world).search(queries, k)
    return answer_places(ranking, [question.answers for question in questions], world.passages)


def compare_with_published(setup: Setup, dual: DualEncoder) -> dict[str, ndarray]:
    """`answered` of this DPR and of the published towers, if the profile asks for the check (`ModelsSpec.check`)."""
    if not setup.profile.models.check:
        return {}
    spec = setup.profile.world
    assert isinstance(spec, NaturalSpec), "published towers are checked in the real setting alone"
    questions, k = natural.asked_openly(spec), min(100, len(setup.world.passages))
    towers = {"DPR": dual, "published DPR": load_towers(setup.profile.models.published, Path(spec.folder))}
    return {name: answered(one, setup.world, questions, k) for name, one in towers.items()}


def encode_in_group(setup: Setup) -> Encoded:
    """`encode_store` with the profile's DPR, which must be trained, as one of torchrun's processes, or alone.

    Raises ValueError if it is not, or if the passages are in memory.
    """
    if not isinstance(setup.world.passages, Store):
        name = setup.profile.name
        raise ValueError(f"the passages of profile {name!r} are in memory and need no shards; nothing to do")
    return encode_store(setup.require_dpr(), setup.world)


def write_trec(setup: Setup, folder: Path) -> None:
    """Write dpr.run and gold.qrels: how the profile's DPR, which must be trained, ranks passages for test questions.

    Raises ValueError if it is not trained, and for ids that TREC's formats cannot hold.
    """
    world = setup.world
    ranking = rankings(setup.require_dpr(), world, min(100, len(world.passages)))
    places = [i for i, question in enumerate(world.questions) if question.split == "test"]
    asked = [world.questions[i] for i in places]
    folder.mkdir(parents=True, exist_ok=True)
    of_test = Ranking(*(field[places] for field in ranking))
    trec.write_run(folder / "dpr.run", of_test, [question.id for question in asked], world.passages, "dprlens")
    trec.write_qrels(folder / "gold.qrels", trec.gold(asked))
