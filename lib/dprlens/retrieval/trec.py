"""Rankings and relevance judgements in TREC's formats, for trec_eval and ir_measures.

    run     question Q0 passage place score tag      (place from 1)
    qrels   question 0 passage relevance

trec_eval looks at neither the order of the lines nor the place: it sorts by score as a C float, and puts the
greater id first where scores are equal. So that it sees our ranking, a score that is not below the one before it
is written as the next lower float32.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dprlens.retrieval.exact_search import Ranking
from dprlens.world.passages import replacing
from dprlens.world.records import Passage, Question


class Judgement(NamedTuple):
    """The relevance of a passage to a question; 0 or less: not relevant."""

    question: str
    passage: str
    relevance: int


def gold(questions: Iterable[Question]) -> list[Judgement]:
    """Judge each question's gold passage relevant, and no other."""
    return [Judgement(question.id, question.gold, 1) for question in questions]


def write_run(path: Path, ranking: Ranking, questions: Sequence[str], passages: Sequence[Passage], tag: str) -> None:
    """Write a ranking of questions [question] (their ids) over passages.

    `passages` are all that were searched; those retrieved are read. Raises ValueError, in one sentence, for ids that
    are empty, have white space in them, come twice, or do not fit the ranking; nothing is written then.
    """
    if len(questions) != len(ranking.passages):
        raise ValueError(f"{len(questions)} ids for a ranking of {len(ranking.passages)} questions; give one for each")
    if (least := ranking.passages.max(initial=-1) + 1) > len(passages):
        raise ValueError(f"{len(passages)} passages for a search of {least} or more; give all that were searched")
    _check_ids("tag", [tag])
    names = {row: passages[row].id for row in np.unique(ranking.passages).tolist()}
    for what, ids in (("question", questions), ("passage", list(names.values()))):
        _check_ids(what, ids)
        if twice := [name for name, times in Counter(ids).items() if times > 1]:
            raise ValueError(f"{what} ids stand for one thing each, and {twice[0]!r} comes twice; give other ids")
    lines = [
        f"{question} Q0 {names[row]} {place} {score} {tag}"
        for question, rows, scores in zip(questions, ranking.passages.tolist(), ranking.scores, strict=True)
        for place, (row, score) in enumerate(zip(rows, _falling(scores), strict=True), start=1)
    ]
    _write(path, lines)


def write_qrels(path: Path, judgements: Iterable[Judgement]) -> None:
    """Write judgements.

    Errors as `write_run`, and ValueError for a pair that is judged twice.
    """
    judgements = list(judgements)
    _check_ids("question", (judgement.question for judgement in judgements))
    _check_ids("passage", (judgement.passage for judgement in judgements))
    if twice := len(judgements) - len({judgement[:2] for judgement in judgements}):
        raise ValueError(f"{twice} pairs of question and passage are judged twice; give one judgement for each")
    _write(path, [f"{question} 0 {passage} {relevance}" for question, passage, relevance in judgements])


def _falling(scores: np.ndarray) -> list[str]:
    """Write scores as text, each below the one before it when read as a C float."""
    written, last = [], np.float32(np.inf)
    for score in scores.astype(np.float32):
        last = score if score < last else np.nextafter(last, np.float32(-np.inf))
        written.append(f"{last:.9g}")  # nine digits tell float32 numbers apart
    return written


def _check_ids(what: str, ids: Iterable[str]) -> None:
    for name in ids:
        if [name] != name.split():
            raise ValueError(f"{what} id {name!r} has white space in it, or is empty; TREC's formats cannot hold it")


def _write(path: Path, lines: Iterable[str]) -> None:
    """Write all lines, or, after any error, nothing."""
    with replacing(path) as draft:
        draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
