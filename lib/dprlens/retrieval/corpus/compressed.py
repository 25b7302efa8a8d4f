"""Search through a compressed index: FAISS's inverted lists of product-quantised vectors (IVF-PQ).

It takes a fraction of the memory and of the time, and it is not exact; so it never comes without its recall against
the exact ranking. No number of the book is made with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from dprlens.ranges import COUNT, check
from dprlens.retrieval.corpus.search import as_queries, in_order
from dprlens.retrieval.corpus.shards import Shards
from dprlens.retrieval.exact_search import Ranking
from dprlens.world.passages import replacing


@dataclass(frozen=True)
class IVFPQSpec:
    """The shape of a compressed index, as for 21 million passages."""

    lists: int = 16_384  # about 4 √passages
    code_bytes: int = 64  # a vector; 21 M take 1.3 GB, and 8 bytes each for their numbers
    probes: int = 64  # lists that are looked into for a question
    sample: int = 655_360  # vectors that the lists are learnt from: 40 a list
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, COUNT, "lists", "code_bytes", "probes", "sample")
        if self.probes > self.lists:
            raise ValueError(f"probes = {self.probes} of {self.lists} lists is not possible; give 1 to {self.lists}")
        if self.sample < (least := max(self.lists, 256)):
            raise ValueError(f"sample = {self.sample} is too small to learn from; give {least} or more")


class Approximate(NamedTuple):
    """An approximate ranking and its recall against the exact one."""

    ranking: Ranking
    recall: float  # share of the exact k best that are among these k, mean over questions
    bytes: int  # size of the index's file


def build_ivfpq(shards: Shards, spec: IVFPQSpec, path: Path) -> None:
    """Build a compressed index and write it to FAISS's file.

    Lists and codes are learnt from a sample of the vectors; then all vectors are added shard by shard.
    """
    plan = shards.plan
    if plan.width % spec.code_bytes:
        raise ValueError(
            f"code_bytes = {spec.code_bytes} does not divide vectors of {plan.width} numbers; give a divisor"
        )
    if plan.rows < (least := max(spec.lists, 256)):
        raise ValueError(f"{plan.rows} passages are too few for {spec.lists} lists, which take {least}; search exactly")
    index: Any = faiss.index_factory(plan.width, f"IVF{spec.lists},PQ{spec.code_bytes}", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = index.pq.cp.seed = spec.seed
    index.do_polysemous_training = False  # takes minutes, for a search that is not used here
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # else FAISS prints warnings
    rng = np.random.default_rng(spec.seed)
    chosen = np.sort(rng.choice(plan.rows, min(spec.sample, plan.rows), replace=False))
    index.train(np.concatenate([part for part in _picked(shards, chosen) if len(part)]))
    for shard in range(len(shards)):
        vectors = shards.vectors(shard)
        for start in range(0, len(vectors), plan.block):
            index.add(np.array(vectors[start : start + plan.block], dtype=np.float32))
    with replacing(path) as draft:
        faiss.write_index(index, str(draft))


def search_ivfpq(path: Path, queries: np.ndarray, exact: Ranking, spec: IVFPQSpec) -> Approximate:
    """Rank as many passages as `exact` has for each query, from the file of `build_ivfpq`, and measure recall.

    Raises ValueError for a file that is no index, and where the lists that are searched hold fewer than k passages.
    """
    try:
        index: Any = faiss.read_index(str(path))
    except RuntimeError:
        raise ValueError(f"{path} is no index that FAISS can read; build it again") from None
    index.nprobe = spec.probes
    k = exact.passages.shape[1]
    scores, found = index.search(as_queries(queries, index.d), k)
    if (found < 0).any():
        question = int((found < 0).any(1).argmax())
        raise ValueError(
            f"the {spec.probes} lists looked into for question {question} hold fewer than {k} passages; raise probes"
        )
    ranking = in_order(Ranking(found, scores), k)
    return Approximate(ranking, recall(ranking, exact), path.stat().st_size)


def recall(ranking: Ranking, exact: Ranking) -> float:
    """Measure an approximate ranking's recall of the exact one, mean over questions; NaN without questions."""
    if ranking.passages.shape[0] != exact.passages.shape[0]:
        raise ValueError(
            f"rankings of {len(ranking.passages)} and {len(exact.passages)} questions cannot be compared; give the same"
        )
    pairs = zip(exact.passages, ranking.passages, strict=True)
    return float(np.mean([np.isin(wanted, found).mean() for wanted, found in pairs])) if len(exact.passages) else np.nan


def _picked(shards: Shards, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the vectors of some rows, sorted, shard by shard: float32 [row, d_model]."""
    for shard in range(len(shards)):
        of_shard = shards.plan.of_shard(shard)
        inside = rows[(rows >= of_shard.start) & (rows < of_shard.stop)]
        yield np.array(shards.vectors(shard)[inside - of_shard.start], dtype=np.float32)
