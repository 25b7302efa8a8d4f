"""The cached steps of retrieval: mined hard negatives, and passages ranked for questions.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from collections.abc import Sequence

from numpy import ndarray

from dprlens.bert.encoder import DualEncoder
from dprlens.cache.artifacts import step
from dprlens.retrieval.exact_search import Ranking, answer_places
from dprlens.retrieval.index import index_of
from dprlens.retrieval.negatives import NegativesSpec, hard_negatives
from dprlens.world import natural
from dprlens.world.records import World


@step(version=1, libraries=("bm25s",), on_device=False)
def mined_negatives(world: World, spec: NegativesSpec) -> dict:
    """Mine the hard negatives (`negatives.hard_negatives`) of every question: question id -> passage ids."""
    return hard_negatives(world, spec)


@step(version=1, libraries=("faiss-cpu",), threads=1)
def rankings(dual: DualEncoder, world: World, k: int = 100) -> Ranking:
    """Rank the k best passages (all, if there are fewer) for every question of the world, in their order there."""
    queries = dual.questions([question.text for question in world.questions]).numpy()
    return index_of(dual, world).search(queries, min(k, len(world.passages)))


@step(version=1, libraries=("faiss-cpu",), threads=1)
def answer_ranks(dual: DualEncoder, world: World, questions: Sequence[natural.OpenQuestion], k: int) -> ndarray:
    """Rank the first passage with an answer, by DPR's measure, for questions without a gold passage [question].

    The rank is k where none of the first k has one.
    """
    queries = dual.questions([question.text for question in questions]).numpy()
    ranking = index_of(dual, world).search(queries, k)
    return answer_places(ranking, [question.answers for question in questions], world.passages)
