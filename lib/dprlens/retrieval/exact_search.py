"""Exact dense retrieval, and what counts as having found an answer.

A passage's score is the dot product of its vector with the question's, over all passages (DPR's flat index, choice
CW-14). A question is answered by a passage that is its gold passage, or that contains one of its answers
(`has_answer`, DPR's measure). Places are counted from 0.
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
    """int [question]: where a passage was found, from 0; `depth`, as many as were searched, stands for one not found.

    Parts of it know the depth as well, so that nothing is said of places that nobody looked at (`accuracy`).
    """

    depth: int | None = None

    def __array_finalize__(self, whole: object) -> None:
        self.depth = getattr(whole, "depth", None)


class FlatIndex:
    """Exact inner-product search over passage vectors, without approximation (FAISS's IndexFlatIP).

    The same vectors give the same ranking, whichever questions are searched together and on however many threads.
    """

    def __init__(self, vectors: np.ndarray | Tensor) -> None:
        """`vectors` [passage, d_model], an array or a tensor on the CPU, copied as float32."""
        rows = _vectors(vectors, "passage")
        if not len(rows):
            raise ValueError("there are 0 passages to search; give 1 or more")
        self._index = faiss.IndexFlatIP(rows.shape[1])
        self._index.add(rows)

    def search(self, queries: np.ndarray | Tensor, k: int) -> Ranking:
        """The k best passages for each query [question, d_model].

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
        """One batch. FAISS keeps any of the passages that tie for place k: look deeper until the tie has ended."""
        passages, depth = self._index.ntotal, k
        settled = False
        while not settled:
            depth = min(depth + max(1, depth - k), passages)  # k + 1, k + 2, k + 4 …
            scores, found = self._index.search(queries, depth)
            settled = depth == passages or bool((scores[:, k - 1] > scores[:, -1]).all())
        order = np.lexsort((found, -scores))[:, :k]
        return Ranking(np.take_along_axis(found, order, 1), np.take_along_axis(scores, order, 1))


def has_answer(answers: Sequence[str], text: str) -> bool:
    """True if one of the answers stands in the text as whole, consecutive tokens (DPR's measure).

    Tokens are runs of letters, digits and marks, or single other characters, after Unicode NFD and in lower case;
    accents count. An answer without tokens is in every text: a quirk of DPR's code that we keep, as the published
    numbers have it.
    """
    return any(answer in _spaced(text) for answer in _all_spaced(answers))


def gold_places(ranking: Ranking, gold: Sequence[int]) -> Places:
    """Place of each question's gold passage, `gold` [question] (indices as in `index.passages`): int [question].

    k stands for a passage that is not among the first k.
    """
    _check_questions(ranking, gold, "gold passages")
    return _first(ranking.passages == np.asarray(gold, dtype=int)[:, None])


def answer_places(ranking: Ranking, answers: Sequence[Sequence[str]], passages: Sequence[Passage]) -> Places:
    """Place of the first passage that has an answer, by `has_answer`: int [question]; k where none of the first k has.

    `answers` [question]: each question's answers; `passages`: all that were searched, of which those found are read
    (their texts, without titles, as DPR).
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
    """Top-k accuracy: the share of questions whose place [question] is below k; `clusters` as in `intervals.mean`.

    Raises ValueError for a k below 1, and for one beyond the depth of a search (`Places`): of the passages that were
    not found, nobody knows whether they are among so many.
    """
    if k < 1:
        raise ValueError(f"k = {k} counts no passage; give 1 or more, up to the depth that was searched")
    depth = getattr(places, "depth", None)
    if depth is not None and k > depth:
        raise ValueError(f"k = {k} is deeper than the {depth} passages that were searched; search deeper or give less")
    return mean(np.asarray(places) < k, clusters)


def check_k(k: int, passages: int) -> None:
    """Raises ValueError for a k that cannot be had from so many passages."""
    if not 1 <= k <= passages:
        raise ValueError(f"k = {k} of {passages} passages cannot be ranked; give 1 to {passages}")


def _vectors(vectors: np.ndarray | Tensor, whose: str) -> np.ndarray:
    """[text, d_model] as FAISS takes it: float32, row by row, finite."""
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"{whose} vectors of shape {array.shape} cannot be searched; give [text, d_model]")
    if not np.isfinite(array).all():
        text = int((~np.isfinite(array)).any(1).argmax())
        raise ValueError(f"{whose} vector {text} has a number that is not finite; check its encoder")
    return array


def _spaced(text: str) -> str:
    """The tokens between single spaces, " new york ", so that a list of tokens is in another if its string is."""
    return " ".join(["", *TOKEN.findall(unicodedata.normalize("NFD", text)), ""]).lower()


def _all_spaced(answers: Sequence[str]) -> list[str]:
    if isinstance(answers, str):
        raise ValueError(f"{answers!r} is one text and not a list of answers; give [{answers!r}]")
    return [_spaced(answer) for answer in answers]


def _first(hits: np.ndarray) -> Places:
    """Place of the first hit [question, k] of each question, k where there is none: int [question]."""
    places = np.where(hits.any(1), hits.argmax(1), hits.shape[1]).view(Places)
    places.depth = hits.shape[1]
    return places


def _check_questions(ranking: Ranking, given: Sequence, what: str) -> None:
    if len(given) != len(ranking.passages):
        raise ValueError(f"{len(given)} {what} for {len(ranking.passages)} questions; give one for each question")
