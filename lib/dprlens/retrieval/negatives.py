"""Hard negatives: passages that resemble a question and do not answer it (choice CW-15).

BM25 (Robertson & Zaragoza 2009, in Lucene's form) ranks passages by the words that they share with the question.
Its best passages without an answer are DPR's negatives, besides the other passages of the batch (Karpukhin et al. 2020,
section 3.2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import bm25s
import numpy as np

from dprlens.retrieval.exact_search import Ranking, check_k, has_answer
from dprlens.world.passages import Store
from dprlens.world.records import SPLITS, Passage, Question, World

TOKENIZE = {"stopwords": "en", "show_progress": False}


@dataclass(frozen=True)
class NegativesSpec:
    """BM25's two parameters, and the number of hard negatives of a question."""

    k1: float = 0.9  # saturation of a repeated word; DPR: 0.9
    b: float = 0.4  # how much long passages are marked down, 0–1; DPR: 0.4
    per_question: int = 8  # one of them is drawn at each visit in training; DPR: up to 30 in validation

    def __post_init__(self) -> None:
        if not 0 <= self.k1 < math.inf:
            raise ValueError(f"k1 = {self.k1} is no parameter of BM25; give a finite number of 0 or more")
        if not 0 <= self.b <= 1:
            raise ValueError(f"b = {self.b} is not a share; give a number from 0 to 1")
        if self.per_question < 1:
            raise ValueError(f"per_question = {self.per_question} keeps no hard negative; give 1 or more")


class BM25:
    """BM25 over title and text: lower case, words of two letters or more, no English stop words, no stemming."""

    def __init__(self, passages: Sequence[Passage], spec: NegativesSpec) -> None:
        words = bm25s.tokenize([f"{passage.title} {passage.text}" for passage in passages], **TOKENIZE)
        if not any(words.ids):
            raise ValueError(f"none of the {len(passages)} passages has a word to search for; give passages with text")
        self.passages = len(passages)
        self._index = bm25s.BM25(k1=spec.k1, b=spec.b, method="lucene")
        self._index.index(words, show_progress=False)

    def search(self, texts: Sequence[str], k: int) -> Ranking:
        """Rank the k best passages for each question.

        A passage that shares no word with the question scores 0; for a question of unknown words they are the first k
        passages, all with that score. Raises ValueError for a k that is not 1 … the number of passages.
        """
        if isinstance(texts, str):
            raise ValueError(f"{texts!r} is one text and not a list of texts; give [{texts!r}]")
        check_k(k, self.passages)
        ranking = Ranking(np.empty((len(texts), k), dtype=int), np.empty((len(texts), k), dtype=np.float32))
        for row, scores in enumerate(map(self.scores, texts)):
            best = np.argsort(-scores, kind="stable")[:k]
            ranking.passages[row], ranking.scores[row] = best, scores[best]
        return ranking

    def scores(self, text: str) -> np.ndarray:
        """Score every passage for one question [passage]."""
        (words,) = bm25s.tokenize([text], return_ids=False, **TOKENIZE)
        return self._index.get_scores_from_ids(self._index.get_tokens_ids(words))


def hard_negatives(world: World, spec: NegativesSpec) -> dict[str, list[str]]:
    """Mine each question's hard negatives: passage ids, best first, by the question's id.

    Questions are in the world's order. Hard negatives are the `spec.per_question` best passages of BM25 that share a
    word with the question, contain none of its answers (`has_answer`) and are not its gold passage: fewer, or none,
    where there are not so many. Passages under test stay out of training: a question is given only passages all of
    whose facts are of its own split or an earlier one (train, dev, test). A question that has its own hard negatives,
    as in DPR's files, keeps those; passages in a store, which may be millions, are not searched for others.

    Raises ValueError for an answer without letters, digits or signs, which every passage would contain.
    """
    found = {question.id: list(question.hard_negatives) for question in world.questions}
    for split in SPLITS:
        asked = [question for question in world.questions if question.split == split and not question.hard_negatives]
        if asked and not isinstance(world.passages, Store) and (passages := _passages_for(split, world)):
            bm25 = BM25(passages, spec)
            found |= {question.id: _negatives(question, passages, bm25, spec.per_question) for question in asked}
    return found


def _passages_for(split: str, world: World) -> list[Passage]:
    """Select passages all of whose facts are of this split or an earlier one, also those without facts."""
    allowed = SPLITS[: SPLITS.index(split) + 1]
    return [p for p in world.passages if all(world.fact[fact].split in allowed for fact in p.facts)]


def _negatives(question: Question, passages: Sequence[Passage], bm25: BM25, n: int) -> list[str]:
    for answer in question.answers:
        if has_answer([answer], ""):  # nothing stands in an empty text but an answer without tokens
            raise ValueError(
                f"answer {answer!r} of question {question.id!r} has no letter, digit or sign, so that every passage "
                "contains it; give the question another answer or hard negatives of its own"
            )
    (ranked,), (scores,) = bm25.search([question.text], len(passages))
    candidates = (passages[i] for i in ranked[scores > 0])
    clean = (p.id for p in candidates if p.id != question.gold and not has_answer(question.answers, p.text))
    return list(islice(clean, n))
