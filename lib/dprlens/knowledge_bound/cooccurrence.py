"""Word co-occurrence: a baseline that ranks passages by the pre-training text alone, without any network.

The positive pointwise mutual information of two words within a segment of text,

    PPMI(u, v) = max(0, log P(u, v) / (P(u) P(v))),

where P(u) is the share of segments that contain u, and P(u, v) of those that contain both (Church and Hanks 1990; that
negative values are best set to 0: Bullinaria and Levy 2007). For one word twice it is −log P(u), its rarity, so that
shared words count as in classical retrieval.

A passage's score for a question sums over the different words of the question. Each counts with its PPMI to the words
of the passage: with their mean ("mean", the bilinear form qᵀ PPMI d / |d|, so that one vector per text suffices, as in
DPR), or with their greatest ("max": the best-matching word of the passage, which takes one vector per word).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

POOLS = ("mean", "max")
WORD = re.compile(r"\w+")


class Cooccurrence(NamedTuple):
    """Words of a text, and the strength of association of each pair."""

    rows: Mapping[str, int]  # of `ppmi`, by word
    ppmi: csr_array  # [word, word], symmetric, natural logarithm


def words(text: str) -> list[str]:
    """List the different words of a text in lower case, sorted: runs of letters and digits."""
    return sorted(set(WORD.findall(text.lower())))


def count(segments: Iterable[str]) -> Cooccurrence:
    """Count words that share a segment, and compute their PPMI.

    Raises ValueError if no segment has a word.
    """
    times = Counter(segments)  # many sentences occur more than once in a text
    index: dict[str, int] = {}
    held = [[index.setdefault(word, len(index)) for word in words(segment)] for segment in times]
    if not index:
        raise ValueError("no segment has a word; give a text")
    within, often = _bags(held, len(index)), np.array(list(times.values()), dtype=float)
    together = (within.T @ (within * often[:, None]).tocsr()).tocoo()  # in how many segments [word, word]
    alone = within.T @ often
    first, second = together.coords
    pmi = np.log(together.data * often.sum() / (alone[first] * alone[second]))
    ppmi = csr_array((np.maximum(pmi, 0), (first, second)), shape=together.shape)
    ppmi.eliminate_zeros()
    return Cooccurrence(index, ppmi)


def score(found: Cooccurrence, questions: Sequence[str], passages: Sequence[str], pool: str = "mean") -> np.ndarray:
    """Score every passage for every question [question, passage].

    Words that do not occur in the counted text are ignored; a passage of none but such words scores 0. Raises
    ValueError for a pool that is not in `POOLS`.
    """
    if pool not in POOLS:
        raise ValueError(f"pool = {pool!r} is not known; choose one of {', '.join(POOLS)}")
    asked, shown = ([_known(found, text) for text in texts] for texts in (questions, passages))
    strength = found.ppmi.toarray()
    pooled = [getattr(strength[:, one], pool)(1) if one else np.zeros(len(strength)) for one in shown]
    return _bags(asked, len(strength)) @ np.stack(pooled, axis=1)


def _known(found: Cooccurrence, text: str) -> list[int]:
    return [found.rows[word] for word in words(text) if word in found.rows]


def _bags(texts: Sequence[Sequence[int]], size: int) -> csr_array:
    """Mark the words of each text: 1 or 0 [text, word]."""
    columns = [word for text in texts for word in text]
    starts = np.cumsum([0, *map(len, texts)])
    return csr_array((np.ones(len(columns)), columns, starts), shape=(len(texts), size))
