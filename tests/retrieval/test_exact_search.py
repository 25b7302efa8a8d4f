"""Exact search against plain numpy, and DPR's measure on vectors worked by hand."""

import numpy as np
import pytest
import torch

from dprlens.intervals import mean
from dprlens.retrieval.exact_search import FlatIndex, Ranking, accuracy, answer_places, gold_places, has_answer
from dprlens.world.records import Passage


def integers(*shape: int, seed: int = 0) -> np.ndarray:
    """Small whole numbers: their dot products are exact, and many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, size=shape).astype(np.float32)


@pytest.mark.parametrize("k", [1, 2, 7, 100, 399, 400])
def test_the_search_is_exact_and_ties_go_to_the_lower_index(k):
    vectors, queries = integers(400, 6), integers(50, 6, seed=1)
    exact = queries @ vectors.T
    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    ranking = FlatIndex(vectors).search(queries, k)
    np.testing.assert_array_equal(ranking.passages, order)
    np.testing.assert_array_equal(ranking.scores, np.take_along_axis(exact, order, 1))
    assert ranking.passages.dtype == np.int64
    assert ranking.scores.dtype == np.float32


def test_the_search_agrees_with_numpy_where_no_two_scores_are_equal():
    rng = np.random.default_rng(2)
    vectors, queries = rng.normal(size=(300, 128)), rng.normal(size=(40, 128))
    ranking = FlatIndex(vectors).search(queries, 10)
    exact = queries @ vectors.T
    np.testing.assert_array_equal(ranking.passages, np.argsort(-exact)[:, :10])
    np.testing.assert_allclose(ranking.scores, -np.sort(-exact)[:, :10], atol=1e-4)


@pytest.mark.parametrize("questions", [1, 64, 300])
@pytest.mark.parametrize("width", [128, 768])
def test_equal_vectors_tie_in_any_place_and_any_company(questions, width):
    rng = np.random.default_rng(3)
    original, queries = rng.normal(size=(250, width)), rng.normal(size=(questions, width))
    of = np.concatenate([np.arange(250), rng.integers(250, size=750)])  # each passage's original, four passages to one
    index = FlatIndex(original[of])
    ranking = index.search(queries, 1000)
    for passages in ranking.passages:
        originals = of[passages]
        same = originals[1:] == originals[:-1]
        assert same.sum() == 750  # copies stand side by side …
        assert (np.diff(passages)[same] > 0).all()  # … in the order of their indices
    alone = [index.search(query[None], 1000) for query in queries[:20]]
    for field, together in zip(Ranking._fields, ranking, strict=True):
        np.testing.assert_array_equal(np.concatenate([getattr(one, field) for one in alone]), together[:20])


def test_a_tie_of_all_passages_is_in_order():
    ranking = FlatIndex(np.ones((70, 3))).search(np.ones((2, 3)), 5)
    np.testing.assert_array_equal(ranking.passages, [[0, 1, 2, 3, 4]] * 2)
    np.testing.assert_array_equal(ranking.scores, np.full((2, 5), 3.0))


def test_a_shallow_search_is_the_head_of_a_deep_one():
    vectors, queries = integers(200, 5, seed=4), integers(20, 5, seed=5)
    deep = FlatIndex(vectors).search(queries, 200)
    for k in (1, 10, 60):
        for shallow, whole in zip(FlatIndex(vectors).search(queries, k), deep, strict=True):
            np.testing.assert_array_equal(shallow, whole[:, :k])


def test_no_questions_have_an_empty_ranking():
    ranking = FlatIndex(integers(5, 3)).search(np.empty((0, 3)), 2)
    assert ranking.passages.shape == ranking.scores.shape == (0, 2)
    assert answer_places(ranking, [], [Passage("p", "", "Wick")] * 5).shape == gold_places(ranking, []).shape == (0,)


def test_the_index_keeps_a_copy_and_changes_nothing():
    vectors, queries = torch.tensor(integers(30, 4)), torch.tensor(integers(3, 4, seed=1))
    index, before = FlatIndex(vectors), (vectors.clone(), queries.clone())
    first = index.search(queries, 4)
    assert torch.equal(vectors, before[0])
    vectors.zero_()
    np.testing.assert_array_equal(index.search(queries, 4).passages, first.passages)
    assert torch.equal(queries, before[1])


@pytest.mark.parametrize("k", [0, -1, 6])
def test_a_k_that_cannot_be_had_is_refused(refused, k):
    with refused(f"k = {k}", "1 to 5"):
        FlatIndex(integers(5, 3)).search(integers(2, 3), k)


def test_vectors_that_cannot_be_searched_are_refused(refused):
    index = FlatIndex(integers(5, 3))
    with refused("0 passages"):
        FlatIndex(np.empty((0, 3)))
    with refused("passage vectors", "(3,)", "[text, d_model]"):
        FlatIndex(np.ones(3))
    with refused("question vectors", "4", "3"):
        index.search(integers(2, 4), 1)
    for bad in (np.nan, np.inf):
        vectors = integers(5, 3)
        vectors[2, 1] = bad
        with refused("passage vector 2", "not finite"):
            FlatIndex(vectors)
        with refused("question vector 2", "not finite"):
            index.search(vectors, 1)


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ("U.S.", "the u.s. army", True),
        ("US", "the U.S. army", False),
        ("art", "party time", False),
        ("don't", "I don’t know", False),
        ("3", "about 3.5 million", True),
        ("3.5", "about 3.5 million", True),
        ("new york", "New\nYork", True),
        ("A-B", "a - b", True),
        ("Beyonce", "Beyoncé Knowles", False),
        ("Beyonc\u00e9", "BEYONCE\u0301", True),  # one letter, or a letter and its accent
        ("straße", "STRASSE", False),
        ("²", "x²", False),
        ("C++", "i like c + + a lot", True),
        ("14 December 1972 UTC", "14 December 1972, UTC", False),
        ("", "anything", True),  # a quirk of DPR's code
    ],
)
def test_has_answer_is_dprs(answer, text, expected):
    assert has_answer([answer], text) is expected


def test_any_answer_will_do_and_none_never_does():
    assert has_answer(["Holm", "Wick"], "She was born in Wick.")
    assert not has_answer([], "She was born in Wick.")
    assert not has_answer(["Wick"], "")
    assert has_answer([" \u200b"], "")  # no tokens: in every text, the empty one too


def test_an_answer_is_consecutive_tokens_and_may_stand_at_either_end():
    assert has_answer(["amber vale"], "Amber Vale is a county")
    assert has_answer(["Amber Vale"], "The county of Amber vale")
    assert not has_answer(["Amber Vale"], "Amber is a colour of the Vale")
    assert not has_answer(["Vale Amber"], "Amber Vale")


def test_texts_are_decomposed_before_they_are_cut():
    assert has_answer(["="], "a ≠ b")  # NFD: an equals sign and a stroke, which is a mark


def test_one_text_in_place_of_answers_is_refused(refused):
    with refused("'Wick'", "list of answers"):
        has_answer("Wick", "She was born in Wick.")


#                       question 0    question 1    question 2
RANKING = Ranking(np.array([[3, 1, 0], [0, 2, 1], [2, 0, 3]]), np.zeros((3, 3), dtype=np.float32))
TEXTS = ("It lies on the Wend.", "WICK, a city.", "Ada sails.", "She was born in Wick.")
PASSAGES = [Passage(f"p{i}", "Wick", text) for i, text in enumerate(TEXTS)]


def test_gold_places_on_fingers():
    places = gold_places(RANKING, [1, 0, 1])
    assert places.tolist() == [1, 0, 3]  # 3: not among the first 3
    assert places.dtype == np.int64


def test_answer_places_on_fingers():
    answers = [("Wick",), ("Holm", "wick"), ("Mere",)]
    assert answer_places(RANKING, answers, PASSAGES).tolist() == [0, 2, 3]
    assert answer_places(RANKING, [("Holm",), ("",), ()], PASSAGES).tolist() == [3, 0, 3]


def test_places_need_one_entry_a_question_and_all_texts(refused):
    with refused("2 gold passages", "3 questions"):
        gold_places(RANKING, [1, 0])
    with refused("1 lists of answers", "3 questions"):
        answer_places(RANKING, [("Wick",)], PASSAGES)
    with refused("3 passages", "4 or more"):
        answer_places(RANKING, [("Wick",)] * 3, PASSAGES[:3])
    with refused("'Wick'", "list of answers"):
        answer_places(RANKING, ["Wick"] * 3, PASSAGES)


def test_accuracy_on_fingers_and_by_cluster():
    places = np.array([0, 4, 1, 5, 5])
    assert [accuracy(places, k).value for k in (1, 2, 5, 6)] == [0.2, 0.4, 0.6, 1.0]
    clusters = ["a", "a", "b", "b", "b"]
    assert accuracy(places, 2, clusters) == mean([1, 0, 1, 0, 0], clusters)
    assert accuracy(places, 2, clusters) != accuracy(places, 2)


def test_nothing_is_said_of_places_deeper_than_the_search(refused):
    """Of 3 passages that were searched, a fourth place is that of nothing."""
    ranking = Ranking(np.array([[4, 2, 7], [1, 0, 3]]), np.zeros((2, 3), np.float32))
    places = gold_places(ranking, [7, 9])
    assert (places.tolist(), places.depth) == ([2, 3], 3)
    assert accuracy(places, 3).value == 0.5
    for some in (places, places[[1]], places[np.array([True, False])]):
        with refused("k = 4", "3 passages", "deeper"):
            accuracy(some, 4)


def test_accuracy_never_falls_with_k_and_places_agree_with_a_deeper_search():
    index, queries, gold = FlatIndex(integers(60, 4)), integers(30, 4, seed=1), np.arange(30)
    deep = gold_places(index.search(queries, 60), gold)
    shares = [accuracy(deep, k).value for k in range(1, 61)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1] == 1.0
    np.testing.assert_array_equal(gold_places(index.search(queries, 7), gold), np.minimum(deep, 7))


@pytest.mark.parametrize("k", [0, -3])
def test_accuracy_of_no_passage_is_refused(refused, k):
    with refused(f"k = {k}", "1 or more"):
        accuracy([0, 1], k)
