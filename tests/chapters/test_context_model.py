"""The exhibits of chapter A.1, on neurons that are worked out by hand."""

import matplotlib.pyplot as plt
import pytest

from chapters.neuron_comparisons import EXAMPLES, SAME, SPREAD, attribution, comparison
from dprlens.chapters import context_model as chapter
from dprlens.chapters.decentralization import Active, Criterion
from dprlens.intervals import Estimate, exact

TWO = attribution({i: [0, 1] for i in range(EXAMPLES)})


@pytest.fixture(autouse=True)
def _figures_are_closed():
    yield
    plt.close("all")


@pytest.fixture
def active(world):
    """Pre-trained BERT uses one neuron for all passages, DPR four in turn, its control two for all."""
    return Active(comparison(world, "passage", pretrained=SAME, dpr=SPREAD, shuffled=TWO), Criterion(0.1))


def test_candidates_begin_with_the_passages_own_question(world, active):
    sample = active.compared.sample
    shown = chapter.candidates(world, sample)
    assert list(shown.columns) == ["", world.passages[sample.examples[0]].text]
    assert list(shown.iloc[:, 0]) == ["its question", "others", "", ""]
    assert list(shown.iloc[:, 1]) == [world.questions[i].text for i in sample.candidates[0]]


def test_figure_2_is_of_passages(active):
    drawn = chapter.figure2(active)
    assert drawn.title == "Context model: active neurons by block before and after DPR training (threshold 0.1)"
    assert drawn.numbers["figure2.dpr_minus_pretrained.intermediate.union"].value == 3
    assert drawn.numbers["figure2.pretrained.intermediate.sharing"].value == 1


def test_gains_are_over_pretrained_bert(active):
    table = chapter.gains(active)
    assert list(table.frame["minus pre-trained BERT"]) == ["DPR", "DPR on shuffled pairs"]
    assert table.numbers["passages.dpr_minus_pretrained.intermediate.union"].value == 3
    assert table.numbers["passages.shuffled_minus_pretrained.intermediate.union"].value == 1
    assert table.numbers["passages.shuffled_minus_pretrained.intermediate.mean"].value == 1
    assert table.title.endswith("(n = 8)")


def test_measures_are_of_all_neurons(active):
    table = chapter.measures(active.compared)
    assert list(table.frame.columns) == ["measure", "BERT", "DPR minus BERT"]
    assert table.frame.loc[0, "BERT"] == 1  # participation of one neuron
    assert table.numbers["passage_measures.dpr_minus_pretrained.all.participation"].value == 0


def test_both_sides_are_counted_alike(world, active):
    questions = Active(comparison(world, pretrained=SAME, dpr=TWO), Criterion(0.1))
    words = chapter.both_sides_in_words(chapter.figure2(active).numbers, questions)
    assert words == {
        "union_before": "1", "union_after": "4", "mean_before": "1.0", "mean_after": "1.0",
        "query_union_before": "1", "query_union_after": "2", "query_mean_before": "1.0", "query_mean_after": "2.0",
    }  # fmt: skip


def test_differences_in_words():
    minus = "dpr_minus_pretrained"
    numbers = {
        f"figure2.{minus}.intermediate.union": exact(3),
        f"figure2.{minus}.block0.intermediate.union": Estimate(2, 1, 3, 8),
        f"figure2.{minus}.block1.intermediate.union": Estimate(0, -1, 1, 8),
        f"figure2.{minus}.sharing": exact(0.25),
        f"passages.{minus}.intermediate.mean": exact(4),
        f"passage_measures.{minus}.all.participation": exact(5),
    }
    assert chapter.differences_in_words(numbers) == {
        "union": "3.00", "sharing": "0.25", "mean": "4.00", "participation": "5.00",
        "blocks": "above 0 in block 0; on both sides of 0 in block 1",
    }  # fmt: skip
