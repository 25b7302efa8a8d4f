"""Runs and qrels: written, read back, and what TREC's formats cannot hold."""

import numpy as np
import pytest
from trec import read_qrels, read_run

from dprlens.retrieval.exact_search import Ranking
from dprlens.retrieval.trec import Judgement, gold, write_qrels, write_run
from dprlens.world.records import Passage

RANKING = Ranking(np.array([[2, 0, 1], [0, 1, 2]]), np.array([[3.5, 3.5, -1.25], [0.1, 0.1, 0.1]], np.float32))
QUESTIONS = ["q1", "q2"]


def named(*ids: str) -> list[Passage]:
    return [Passage(id_, "title", "text") for id_ in ids]


PASSAGES = named("a", "b", "Łódź/9")


def test_a_run_is_read_back_in_its_order_with_scores_that_fall(tmp_path):
    write_run(tmp_path / "run", RANKING, QUESTIONS, PASSAGES, "dprlens")
    run = read_run(tmp_path / "run")
    assert [(line.question, line.passage, line.place) for line in run] == [
        ("q1", "Łódź/9", 1), ("q1", "a", 2), ("q1", "b", 3), ("q2", "a", 1), ("q2", "b", 2), ("q2", "Łódź/9", 3)
    ]  # fmt: skip
    assert {line.tag for line in run} == {"dprlens"}
    scores = np.array([line.score for line in run], dtype=np.float32).reshape(2, 3)
    assert (np.diff(scores) < 0).all()
    np.testing.assert_allclose(scores, RANKING.scores, rtol=1e-6)
    assert scores[0, 0] == RANKING.scores[0, 0]
    assert scores[0, 2] == RANKING.scores[0, 2]


def test_as_trec_eval_sorts_it_a_run_is_our_ranking(tmp_path):
    """By score as a C float, the greater id first where scores are equal: so they must not be."""
    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.integers(0, 4, size=(5, 40)).astype(np.float32) / 7)
    passages = np.stack([rng.permutation(40) for _ in range(5)])
    names = [f"p{i}" for i in range(40)]
    write_run(tmp_path / "run", Ranking(passages, scores), [f"q{i}" for i in range(5)], named(*names), "t")
    for i, expected in enumerate(passages):
        lines = [line for line in read_run(tmp_path / "run") if line.question == f"q{i}"]
        lines.sort(key=lambda line: line.passage, reverse=True)
        lines.sort(key=lambda line: -np.float32(line.score))
        assert [line.passage for line in lines] == [names[passage] for passage in expected]


def test_gold_passages_are_judged_and_read_back(tmp_path, world):
    judged = gold(world.questions)
    write_qrels(tmp_path / "qrels", judged)
    assert read_qrels(tmp_path / "qrels") == judged
    assert judged[3] == Judgement(world.questions[3].id, world.questions[3].gold, 1)


@pytest.mark.parametrize("name", ["New York", "", "a\tb", "a\u00a0b", "end\n", "\u2028"])
def test_ids_with_white_space_are_refused_and_nothing_is_written(name, tmp_path, refused):
    with refused("question id", "white space"):
        write_run(tmp_path / "run", RANKING, ["q1", name], PASSAGES, "t")
    with refused("passage id", "white space"):
        write_run(tmp_path / "run", RANKING, QUESTIONS, named("a", "b", name), "t")
    with refused("tag", "white space"):
        write_run(tmp_path / "run", RANKING, QUESTIONS, PASSAGES, name)
    for judgement in (Judgement(name, "p", 1), Judgement("q", name, 1)):
        with refused("white space"):
            write_qrels(tmp_path / "qrels", [judgement])
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_refused(tmp_path, refused):
    with refused("1 ids", "2 questions"):
        write_run(tmp_path / "run", RANKING, ["q1"], PASSAGES, "t")
    with refused("2 passages", "3 or more"):
        write_run(tmp_path / "run", RANKING, QUESTIONS, PASSAGES[:2], "t")
    with refused("question ids", "'q1'", "twice"):
        write_run(tmp_path / "run", RANKING, ["q1", "q1"], PASSAGES, "t")
    with refused("passage ids", "'a'", "twice"):
        write_run(tmp_path / "run", RANKING, QUESTIONS, named("a", "b", "a"), "t")
    with refused("1 pairs", "judged twice"):
        write_qrels(tmp_path / "qrels", [Judgement("q", "p", 1), Judgement("q", "p", 0)])
