"""Readers of TREC's formats, to see what was written."""

from pathlib import Path
from typing import NamedTuple

from dprlens.retrieval.trec import Judgement


class Line(NamedTuple):
    """One line of a run."""

    question: str
    passage: str
    place: int  # from 1
    score: float
    tag: str


def read_run(path: Path) -> list[Line]:
    fields = (line.split() for line in path.read_text("utf-8").splitlines())
    return [
        Line(question, passage, int(place), float(score), tag) for question, _, passage, place, score, tag in fields
    ]


def read_qrels(path: Path) -> list[Judgement]:
    fields = (line.split() for line in path.read_text("utf-8").splitlines())
    return [Judgement(question, passage, int(relevance)) for question, _, passage, relevance in fields]
