"""Exact dense retrieval and its measures: ranks of gold passages and answers, top-k accuracy.

A passage's score is the dot product of its vector with the question's, over all passages (DPR's flat index, choice
CW-14). A question is answered by a passage that is its gold passage, or that contains one of its answers
(`has_answer`, DPR's measure). Ranks are counted from 0.
"""

import unicodedata
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import faiss
import numpy as np
import regex
from numpy.typing import ArrayLike
from torch import Tensor

from dprlens.intervals import Estimate, mean
from dprlens.world.records import Passage

# Questions that FAISS scores at once. It hands larger batches to BLAS, where a sum may depend on a vector's place in
# the matrix; below, a score depends on its two vectors alone, so that equal vectors always tie.
BATCH = 16
TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")


class Ranking(NamedTuple):
    """The k best passages of each question, best first; the lower index first where scores are equal."""

    passages: np.ndarray  # int [question, k]: index into the passages that were searched
    scores: np.ndarray  # float32 [question, k]


class Places(np.ndarray):
    """Ranks from 0, int [question]; a passage that is not among the `depth` that were searched has rank `depth`.

    Parts of the array keep the depth as well, so that no accuracy beyond it can be computed (`accuracy`).
    """

    depth: int | None = None

    def __array_finalize__(self, whole: object) -> None:
        self.depth = getattr(whole, "depth", None)


class FlatIndex:
    """An exact inner-product index over passage vectors, without approximation (FAISS's IndexFlatIP).

    The same vectors give the same ranking, whichever questions are searched together and on however many threads.
    """

    def __init__(self, vectors: np.ndarray | Tensor) -> None:
        """Index `vectors` [passage, d_model], an array or a tensor on the CPU, copied as float32."""
        rows = _vectors(vectors, "passage")
        if not len(rows):
            raise ValueError("there are 0 passages to search; give 1 or more")
        self._index = faiss.IndexFlatIP(rows.shape[1])
        self._index.add(rows)

    def search(self, queries: np.ndarray | Tensor, k: int) -> Ranking:
        """Rank the k best passages for each query [question, d_model].

        Raises ValueError for a k that is not 1 … the number of passages, and for vectors of another width or with
        numbers that are not finite.
        """
        check_k(k, self._index.ntotal)
        queries = _vectors(queries, "question")
        if queries.shape[1] != self._index.d:
            raise ValueError(
                f"question vectors have {queries.shape[1]} numbers and passage vectors {self._index.d}; "
                "encode both with one pair of encoders"
            )
        starts = range(0, max(1, len(queries)), BATCH)  # no questions: one empty batch, an empty ranking
        batches = [self._search(queries[start : start + BATCH], k) for start in starts]
        return Ranking(*map(np.concatenate, zip(*batches, strict=True)))

    def _search(self, queries: np.ndarray, k: int) -> Ranking:
        """Search one batch.

        FAISS returns any of the passages that tie at rank k: search deeper until the tie has ended.
        """
        passages, depth = self._index.ntotal, k
        settled = False
        while not settled:
            depth = min(depth + max(1, depth - k), passages)  # k + 1, k + 2, k + 4 …
            scores, found = self._index.search(queries, depth)
            settled = depth == passages or bool((scores[:, k - 1] > scores[:, -1]).all())
        order = np.lexsort((found, -scores))[:, :k]
        return Ranking(np.take_along_axis(found, order, 1), np.take_along_axis(scores, order, 1))


def has_answer(answers: Sequence[str], text: str) -> bool:
    """Test whether an answer is in the text as whole, consecutive tokens (DPR's measure).

    Tokens are runs of letters, digits and marks, or single other characters, after Unicode NFD and in lower case;
    accents count. An answer without tokens is in every text: a quirk of DPR's code that we keep for comparison with the
    published numbers.
    """
    return any(answer in _spaced(text) for answer in _all_spaced(answers))


def gold_places(ranking: Ranking, gold: Sequence[int]) -> Places:
    """Rank each question's gold passage, from 0: int [question].

    `gold` [question] holds indices as in `index.passages`. A passage that is not among the first k has rank k.
    """
    _check_questions(ranking, gold, "gold passages")
    return _first(ranking.passages == np.asarray(gold, dtype=int)[:, None])


def answer_places(ranking: Ranking, answers: Sequence[Sequence[str]], passages: Sequence[Passage]) -> Places:
    """Rank the first passage that has an answer, by `has_answer`, from 0: int [question]; k where there is none.

    `answers` [question]: each question's answers; `passages`: all that were searched, of which the retrieved ones are
    read (their texts, without titles, as in DPR).
    """
    _check_questions(ranking, answers, "lists of answers")
    if (least := ranking.passages.max(initial=-1) + 1) > len(passages):
        raise ValueError(f"{len(passages)} passages for a search of {least} or more; give all that were searched")
    spaced = {place: _spaced(passages[place].text) for place in np.unique(ranking.passages)}
    hits = np.zeros(ranking.passages.shape, dtype=bool)
    for row, found, wanted in zip(hits, ranking.passages, map(_all_spaced, answers), strict=True):
        row[:] = [any(answer in spaced[passage] for answer in wanted) for passage in found]
    return _first(hits)


def accuracy(places: ArrayLike, k: int, clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Estimate top-k accuracy: the share of questions whose rank from 0 [question] is below k.

    `clusters` as in `intervals.mean`. Raises ValueError for a k below 1, and for one beyond the depth of a search
    (`Places`): for passages that were not retrieved it is unknown whether they are among the first k.
    """
    if k < 1:
        raise ValueError(f"k = {k} counts no passage; give 1 or more, up to the depth that was searched")
    depth = getattr(places, "depth", None)
    if depth is not None and k > depth:
        raise ValueError(f"k = {k} is deeper than the {depth} passages that were searched; search deeper or give less")
    return mean(np.asarray(places) < k, clusters)


def check_k(k: int, passages: int) -> None:
    """Raise ValueError for a k that is not 1 … the number of passages."""
    if not 1 <= k <= passages:
        raise ValueError(f"k = {k} of {passages} passages cannot be ranked; give 1 to {passages}")


def _vectors(vectors: np.ndarray | Tensor, whose: str) -> np.ndarray:
    """Convert [text, d_model] for FAISS: float32, contiguous, finite."""
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"{whose} vectors of shape {array.shape} cannot be searched; give [text, d_model]")
    if not np.isfinite(array).all():
        text = int((~np.isfinite(array)).any(1).argmax())
        raise ValueError(f"{whose} vector {text} has a number that is not finite; check its encoder")
    return array


def _spaced(text: str) -> str:
    """Join the tokens by single spaces, " new york ", so that token lists can be compared as strings."""
    return " ".join(["", *TOKEN.findall(unicodedata.normalize("NFD", text)), ""]).lower()


def _all_spaced(answers: Sequence[str]) -> list[str]:
    if isinstance(answers, str):
        raise ValueError(f"{answers!r} is one text and not a list of answers; give [{answers!r}]")
    return [_spaced(answer) for answer in answers]


def _first(hits: np.ndarray) -> Places:
    """Rank the first hit [question, k] of each question, k where there is none: int [question]."""
    places = np.where(hits.any(1), hits.argmax(1), hits.shape[1]).view(Places)
    places.depth = hits.shape[1]
    return places


def _check_questions(ranking: Ranking, given: Sequence, what: str) -> None:
    if len(given) != len(ranking.passages):
        raise ValueError(f"{len(given)} {what} for {len(ranking.passages)} questions; give one for each question")
