"""Exact search over shards of vectors that stay on the disk.

The k best rows of each shard are merged. A matrix product proposes rows, a block at a time, and FAISS scores
again whatever may be among the k best. A product's last digits depend on the matrix around a vector, FAISS's score of a
pair on its two vectors alone. So the ranking, ties and scores included, is that of `exact_search.Index`, whatever the
shards, the block, the threads and the device. As there, the lower row comes first where scores are equal.
"""

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import NamedTuple

import faiss
import numpy as np
import torch
from torch import Tensor

from dprlens.bert.encoder import pick_device
from dprlens.cache.parallel import pool
from dprlens.retrieval.corpus.shards import Shards
from dprlens.retrieval.exact_search import Ranking, check_k

MOST_SCORES = 2**24  # of a matrix product, in memory at once: 64 MB
SPARE = 8  # rows proposed beyond k, so that few questions need a second look
TOGETHER = 64  # questions whose proposed rows are fetched together


def search(shards: Shards, queries: np.ndarray, k: int, workers: int = 1, device: str = "cpu") -> Ranking:
    """Rank the k best passages for each query [question, d_model], over all shards.

    With several workers, so many processes search a shard each. `device` is where the matrix products are made.
    Raises ValueError for a k that is not 1 … the number of passages, and for vectors that do not fit or are not finite.
    """
    plan = shards.plan
    check_k(k, plan.rows)
    if workers < 1:
        raise ValueError(f"workers = {workers} search nothing; give 1 or more")
    queries = as_queries(queries, plan.width)
    if workers == 1:
        return merge((_of_shard(shards, shard, queries, k, device) for shard in range(len(shards))), k)
    with pool(min(workers, len(shards))) as processes:
        return merge(
            processes.map(_of_shard, repeat(shards), range(len(shards)), repeat(queries), repeat(k), repeat(device)), k
        )


def merge(rankings: Iterable[Ranking], k: int) -> Ranking:
    """Merge rankings of the same questions over different passages into the k best.

    Each ranking has its own k best (or all).
    """
    best: Ranking | None = None
    for ranking in rankings:
        together = ranking if best is None else Ranking(*map(_beside, best, ranking))
        best = in_order(together, k)
    if best is None:
        raise ValueError("no ranking is given to merge; give one or more")
    return best


def best_of(vectors: np.ndarray, queries: np.ndarray, k: int, first: int = 0, device: str = "cpu") -> Ranking:
    """Rank the k best rows (or all) of one matrix [row, d_model] for each query; rows are counted from `first`.

    `vectors` may be mapped into memory and of any float type; it is read block by block and scored as float32.
    """
    queries = as_queries(queries, vectors.shape[1])
    if torch.get_float32_matmul_precision() != "highest":
        raise ValueError(
            "torch's float32_matmul_precision is not 'highest', which an exact search needs; set it with "
            "torch.set_float32_matmul_precision('highest')"
        )
    rows, k = len(vectors), min(k, len(vectors))
    found = Ranking(np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k), dtype=np.float32))
    todo, depth = np.arange(len(queries)), min(k + SPARE, rows)
    while len(todo):
        left = []
        at_once = max(TOGETHER, MOST_SCORES // depth)
        for part in (todo[i : i + at_once] for i in range(0, len(todo), at_once)):
            proposed = _propose(vectors, queries[part], depth, first, pick_device(device))
            # no row that was left out can score as high as k of those proposed
            certain = proposed.scores[:, k - 1] - proposed.scores[:, -1] > 2 * proposed.error
            certain |= depth == rows
            if certain.any():
                exact = _rescored(vectors, queries[part[certain]], proposed.rows[certain], k)
                found.passages[part[certain]], found.scores[part[certain]] = exact
            left.append(part[~certain])
        todo, depth = np.concatenate(left), min(2 * depth, rows)
    return Ranking(found.passages + first, found.scores)


class Candidates(NamedTuple):
    """Rows with the greatest matrix products, best first."""

    rows: np.ndarray  # int [question, depth]
    scores: np.ndarray  # float64 [question, depth]
    error: np.ndarray  # float64 [question]: a score is at most so far from FAISS's


def _propose(vectors: np.ndarray, queries: np.ndarray, depth: int, first: int, device: torch.device) -> Candidates:
    asked = torch.from_numpy(queries).to(device)
    scores, rows = asked.new_empty(len(asked), 0), asked.new_empty(len(asked), 0, dtype=torch.int64)
    longest, block = 0.0, max(1, MOST_SCORES // max(1, len(asked)))
    for start in range(0, len(vectors), block):
        part = torch.from_numpy(np.array(vectors[start : start + block], dtype=np.float32)).to(device)
        lengths = torch.linalg.vector_norm(part, dim=1)
        if not lengths.isfinite().all():
            row = first + start + int((~lengths.isfinite()).int().argmax())
            raise ValueError(f"the vector of passage {row} has a number that is not finite; encode its shard again")
        longest = max(longest, float(lengths.max()))
        scores, rows = _deepest(scores, rows, asked @ part.T, start, depth)
    # Either sum of d products, in whatever order, is off by at most d·u·|q|·|p| (1 + O(d·u)), u = 2^-24 (Higham, §3.1);
    # twice that for the two of them, and a little more for the lengths' own rounding
    error = 2.02 * queries.shape[1] * 2.0**-24 * np.linalg.norm(queries.astype(np.float64), axis=1) * longest
    return Candidates(rows.cpu().numpy(), scores.cpu().numpy().astype(np.float64), error)


def _deepest(scores: Tensor, rows: Tensor, more: Tensor, start: int, depth: int) -> tuple[Tensor, Tensor]:
    """Merge scores so far [question, ·] and their rows with `more`, from row `start`, into the `depth` best."""
    at = more.topk(min(depth, more.shape[1]), dim=1)
    scores, rows = torch.cat([scores, at.values], dim=1), torch.cat([rows, at.indices + start], dim=1)
    best = scores.topk(min(depth, scores.shape[1]), dim=1)
    return best.values, rows.gather(1, best.indices)


def _rescored(vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray, k: int) -> Ranking:
    """Rank the k best of the rows [question, depth] by FAISS's scores."""
    parts = []
    for start in range(0, len(queries), TOGETHER):
        asked, among = queries[start : start + TOGETHER], np.sort(rows[start : start + TOGETHER], axis=1)
        needed, places = np.unique(among, return_inverse=True)
        fetched = np.array(vectors[needed], dtype=np.float32)
        places = np.ascontiguousarray(places.reshape(among.shape), dtype=np.int64)
        scores = np.empty(among.shape, dtype=np.float32)
        pointers = [faiss.swig_ptr(array) for array in (scores, asked, fetched, places)]
        faiss.fvec_inner_products_by_idx(  # type: ignore[attr-defined]  # FAISS's own types leave it out
            *pointers, asked.shape[1], *among.shape
        )
        parts.append(in_order(Ranking(among, scores), k))
    return Ranking(*map(np.concatenate, zip(*parts, strict=True)))


def _of_shard(shards: Shards, shard: int, queries: np.ndarray, k: int, device: str) -> Ranking:
    return best_of(shards.vectors(shard), queries, k, shards.plan.of_shard(shard).start, device)


class RowRanks(NamedTuple):
    """Scores of given passages for each question, and ranks among all passages of the shards."""

    scores: np.ndarray  # float32 [question, choice]
    places: (
        np.ndarray
    )  # int [question]: of choice 0, from 0; as in a ranking, the lower row first where scores are equal


def rank_rows(shards: Shards, queries: np.ndarray, rows: np.ndarray, device: str = "auto") -> RowRanks:
    """Score the passages in `rows` [question, choice], and rank the first of them among all passages.

    The ranking itself, as long as the number of passages, is never made; the vectors are read twice, block by block.
    Scores are those of a matrix product, whose last digits differ from FAISS's.
    """
    place = pick_device(device)
    asked = torch.from_numpy(as_queries(queries, shards.plan.width)).to(place)
    wanted = torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(place)
    block = max(1, MOST_SCORES // max(1, len(asked)))
    scores, places = asked.new_zeros(wanted.shape), torch.zeros(len(asked), dtype=torch.int64, device=place)
    for first, vectors in _blocks(shards, block, place):
        inside = (wanted >= first) & (wanted < first + len(vectors))
        if inside.any():
            found = (asked @ vectors.T).gather(1, (wanted - first).clamp(0, len(vectors) - 1))
            scores[inside] = found[inside]
    gold, own = scores[:, :1], wanted[:, :1]
    for first, vectors in _blocks(shards, block, place):
        every, row = asked @ vectors.T, torch.arange(first, first + len(vectors), device=place)
        places += ((every > gold) | ((every == gold) & (row < own))).sum(1)
    return RowRanks(scores.cpu().numpy(), places.cpu().numpy())


def _blocks(shards: Shards, block: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Yield the first row of each block of so many vectors, and the vectors [row, d_model]."""
    for shard in range(len(shards)):
        vectors, first = shards.vectors(shard), shards.plan.of_shard(shard).start
        for start in range(0, len(vectors), block):
            part = torch.from_numpy(np.array(vectors[start : start + block], dtype=np.float32))
            yield first + start, part.to(device)


def in_order(ranking: Ranking, k: int) -> Ranking:
    """Sort a ranking's passages and keep the k best; of equal scores the lower row is first."""
    order = np.lexsort((ranking.passages, -ranking.scores))[:, :k]
    return Ranking(*(np.take_along_axis(field, order, 1) for field in ranking))


def _beside(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.concatenate([one, other], axis=1)


def as_queries(queries: np.ndarray, width: int) -> np.ndarray:
    """Check query vectors and convert them for search: [question, d_model], float32, contiguous, finite."""
    array = np.ascontiguousarray(queries, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(
            f"question vectors of shape {array.shape} cannot be searched among passage vectors of {width} numbers; "
            f"give [question, {width}], from the same pair of encoders"
        )
    if not np.isfinite(array).all():
        question = int((~np.isfinite(array)).any(1).argmax())
        raise ValueError(f"question vector {question} has a number that is not finite; check its encoder")
    return array
