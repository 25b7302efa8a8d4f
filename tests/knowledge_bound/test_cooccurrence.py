"""Word co-occurrence on a text of eight segments, by hand."""

from math import log

import numpy as np
import pytest

from dprlens.knowledge_bound import cooccurrence

# ada in 2 of 8 segments, kestrel in 2, wend in 2; ada and kestrel share 2, ada and wend 1.
TEXT = ["Ada, Kestrel", "ada kestrel wend", "wend", "born", "born", "born", "tide", "tide"]


@pytest.fixture(scope="module")
def counted():
    return cooccurrence.count(TEXT)


def ppmi(counted, a: str, b: str) -> float:
    return counted.ppmi.toarray()[counted.rows[a], counted.rows[b]]


def test_words_are_different_and_in_lower_case():
    assert cooccurrence.words("The Wend, the WEND's 2nd.") == ["2nd", "s", "the", "wend"]


@pytest.mark.parametrize(
    ("a", "b", "by_hand"),
    [
        ("ada", "kestrel", log(2 / 8 / (2 / 8 * 2 / 8))),  # log 4
        ("ada", "wend", log(1 / 8 / (2 / 8 * 2 / 8))),  # log 2
        ("ada", "born", 0),  # they share no segment
        ("born", "born", log(8 / 3)),  # its rarity
    ],
)
def test_ppmi_by_hand(counted, a, b, by_hand):
    assert ppmi(counted, a, b) == ppmi(counted, b, a) == pytest.approx(by_hand)


def test_words_that_share_fewer_segments_than_chance_has_it_count_zero_and_not_less():
    """P(a, b) = 1/5 where 3/5 · 3/5 was to be expected."""
    found = cooccurrence.count(["a b", "a", "a", "b", "b"])
    assert log(1 / 5 / (3 / 5 * 3 / 5)) < 0
    assert ppmi(found, "a", "b") == 0


def test_independent_words_count_nothing():
    found = cooccurrence.count(["a b", "a", "b", "c"])
    assert ppmi(found, "a", "b") == pytest.approx(0)


def test_a_word_twice_in_a_segment_is_there_once_and_the_order_of_segments_does_not_matter(counted):
    again = cooccurrence.count([f"{segment} {segment}" for segment in reversed(TEXT)])
    for a in counted.rows:
        assert [ppmi(again, a, b) for b in counted.rows] == [ppmi(counted, a, b) for b in counted.rows]


def test_scores_by_hand(counted):
    questions, passages = ["Ada, born?", "who?"], ["Kestrel. Wend", "tide", "", "Kestrel unread"]
    mean = cooccurrence.score(counted, questions, passages)
    assert mean == pytest.approx(np.array([[(log(4) + log(2)) / 2, 0, 0, log(4)], [0, 0, 0, 0]]))
    most = cooccurrence.score(counted, questions, passages, "max")
    assert most == pytest.approx(np.array([[log(4), 0, 0, log(4)], [0, 0, 0, 0]]))


def test_scores_sum_over_the_words_of_the_question(counted):
    both, one, other = cooccurrence.score(counted, ["ada wend", "ada", "wend ada wend"], ["kestrel"])[:, 0]
    assert both == other == pytest.approx(one + ppmi(counted, "wend", "kestrel"))


def test_what_cannot_be_counted_or_scored_is_refused(counted, refused):
    with refused("no segment has a word"):
        cooccurrence.count([])
    with refused("'sum'", "mean", "max"):
        cooccurrence.score(counted, ["ada"], ["wend"], "sum")
