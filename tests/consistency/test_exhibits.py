"""Table 1's numbers against counts by hand: who is right where, by which id, and nothing that was not asked for."""

import re

import numpy as np
import pandas as pd
import pytest
from numpy import ndarray
from scipy.stats import binomtest

from dprlens import intervals, paper
from dprlens.consistency.exhibits import (
    LABELS,
    PRINTED,
    PROBE_TITLES,
    Results,
    across,
    across_table,
    beside_the_paper,
    by_choices,
    by_probe,
    by_strength,
    half_width,
    in_words,
    matching,
    n_once,
    select,
    significance,
    table1,
    three_sources,
)
from dprlens.consistency.probes import PROBES, ProbeResult
from dprlens.intervals import Estimate, difference, mean, over_runs

GOLDS = np.array([7, 7, 3, 5])  # the first two questions have the same gold passage
ENCODERS = ("pretrained", "dpr_query", "dpr_context", "dpr_paired", "random0", "random1")


def cell(correct: str, shuffled: str = "....") -> ProbeResult:
    """One number of passages, one layer: "x.x." is right on the first and the third question."""
    right, other = (np.array([[[mark == "x" for mark in marks]]]) for marks in (correct, shuffled))
    return ProbeResult(right, other, np.ones((1, 1)))


def drawn(seed: int, n: int = 2, layers: int = 2, questions: int = 4) -> ProbeResult:
    """Right and wrong at random."""
    correct, shuffled = np.random.default_rng(seed).random((2, n, layers, questions)) < 0.6
    return ProbeResult(correct, shuffled, np.ones((n, layers)))


def one(**probes: ProbeResult) -> Results:
    """A page of one number of passages (2) and one layer (12): pretrained__tied=… is the tied probe of pretrained."""
    return Results({tuple(name.split("__")): found for name, found in probes.items()}, [2], [12], GOLDS)


def page(encoders=ENCODERS, probes=tuple(PROBES), choices=(2, 5), layers=(0, 12)) -> Results:
    names = [(encoder, probe) for encoder in encoders for probe in probes]
    return Results({name: drawn(i, len(choices), len(layers)) for i, name in enumerate(names)}, choices, layers, GOLDS)


def values(numbers: dict[str, Estimate]) -> dict[str, float]:
    return {id_: found.value for id_, found in numbers.items()}


def subjects(numbers: dict) -> set[str]:
    """What the ids are about, a_minus_b in table1.n2.a_minus_b.layer12; no shares of a signal, no `by_choices`."""
    found = (re.fullmatch(r"\w+\.n\d\.(.+)\.layer\d+", id_) for id_ in numbers if "_of_signal" not in id_)
    return {match[1] for match in found if match}


# --- what is right ---


def test_right_is_that_of_the_number_of_passages_and_the_layer():
    probed = drawn(0, 3, 2)
    results = Results({("pretrained", "linear"): probed}, [2, 4, 5], [3, 12], GOLDS)
    for i, n in enumerate((2, 4, 5)):
        for j, layer in enumerate((3, 12)):
            np.testing.assert_array_equal(results.right("pretrained", "linear", n, layer), probed.correct[i, j])
            found = results.right("pretrained", "linear", n, layer, shuffled=True)
            np.testing.assert_array_equal(found, probed.shuffled[i, j])
    assert [*results.cells()] == [(2, 3), (2, 12), (4, 3), (4, 12), (5, 3), (5, 12)]


def test_networks_of_random_weights_are_one_by_their_mean():
    results = one(random0__linear=cell("xx.."), pretrained__linear=cell("...."), random1__linear=cell("x..x", "x..."))
    assert results.right("random", "linear", 2, 12).tolist() == [1, 0.5, 0, 0.5]
    assert results.right("random", "linear", 2, 12, shuffled=True).tolist() == [0.5, 0, 0, 0]
    assert results.right("random1", "linear", 2, 12).tolist() == [1, 0, 0, 1]  # by its number it is itself
    assert results.encoders("linear") == ["random", "pretrained"]
    assert results.accuracy("random", "linear", 2, 12).value == 0.5


def test_encoders_are_those_of_the_probe():
    results = one(pretrained__linear=cell("...."), dpr_query__tied=cell("...."), dpr_query__linear=cell("...."))
    assert results.encoders("linear") == ["pretrained", "dpr_query"]
    assert results.encoders("tied") == ["dpr_query"]
    assert results.encoders("dot") == []
    assert results.has("dpr_query", "tied")
    assert not results.has("pretrained", "tied")
    assert not results.has("dpr", "linear")  # part of a name is no name


@pytest.mark.parametrize(("encoder", "probe"), [("random", "linear"), ("pretrained", "dot"), ("pre", "linear")])
def test_a_probe_that_is_not_on_the_page_is_refused(refused, encoder, probe):
    with refused(probe, repr(encoder), "run the page with both"):
        one(pretrained__linear=cell("xxxx")).right(encoder, probe, 2, 12)


# --- Table 1 ---


def test_the_cells_of_table_1_by_hand():
    found = values(
        table1(
            one(
                pretrained__linear=cell("xxx.", "x..."),
                pretrained__no_query=cell(".xx."),
                pretrained__tied=cell("xxxx"),
                pretrained__untrained=cell("...x"),
                dpr_query__untrained=cell("xxxx"),
                dpr_query__linear=cell("x...", "xx.."),
                random0__linear=cell("xx.."),
                random1__linear=cell("x..."),
            )
        )
    )
    assert found == {
        f"table1.n2.{name}.layer12": value
        for name, value in {
            "pretrained": 0.75,
            "pretrained.shuffled_query": 0.25,
            "pretrained.no_query": 0.5,
            "pretrained.tied": 1.0,
            "untrained": 0.25,  # pre-trained BERT's only
            "dpr_query": 0.25,
            "dpr_query.shuffled_query": 0.5,
            "random": 0.375,
            "random.shuffled_query": 0.0,
            "pretrained_minus_dpr_query": 0.5,
            "random_minus_pretrained": -0.375,
            "pretrained_minus_no_query": 0.25,
            "pretrained.tied_minus_linear": 0.25,
        }.items()
    }


def test_every_number_of_passages_and_layer_has_its_own_id():
    results = page()
    numbers = table1(results)
    plain = [id_ for id_ in numbers if "_of_signal" not in id_ and id_ not in by_choices(results)]
    assert len(plain) == 4 * len(subjects(numbers))
    for i, n in enumerate((2, 5)):
        for j, layer in enumerate((0, 12)):
            for encoder in ENCODERS[:4]:
                shares = {probe: results.probed[encoder, probe].correct[i, j].mean() for probe in PROBES}
                assert numbers[f"table1.n{n}.{encoder}.layer{layer}"].value == shares["linear"]
                assert numbers[f"table1.n{n}.{encoder}.low_rank.layer{layer}"].value == shares["low_rank"]
                difference = numbers[f"table1.n{n}.{encoder}_minus_no_query.layer{layer}"].value
                assert difference == pytest.approx(shares["linear"] - shares["no_query"])


def test_intervals_draw_whole_gold_passages_and_differences_pairs():
    golds = np.repeat(np.arange(12), 5)
    shares = np.random.default_rng(0).random((2, 12, 1)) < 0.5
    right, other = (np.tile(share, (1, 5)).reshape(1, 1, -1) for share in shares)  # all of a passage, or none
    other[0, 0, :7] = True
    cells = {who: ProbeResult(a, a, np.ones((1, 1))) for who, a in (("pretrained", right), ("dpr_query", other))}
    numbers = table1(Results({(who, "linear"): a for who, a in cells.items()}, [2], [12], golds))
    assert numbers["table1.n2.pretrained.layer12"] == mean(right.ravel(), golds)
    apart = mean(right.ravel())
    whole = numbers["table1.n2.pretrained.layer12"]
    assert whole.n == 60
    assert whole.high - whole.low > 1.5 * (apart.high - apart.low)
    found = numbers["table1.n2.pretrained_minus_dpr_query.layer12"]
    assert found == difference(right.ravel(), other.ravel(), golds)
    same = Results({(who, "linear"): cells["pretrained"] for who in cells}, [2], [12], golds)
    none = table1(same)["table1.n2.pretrained_minus_dpr_query.layer12"]
    assert (none.value, none.n) == (0, 60)
    assert none.low < 0 < none.high  # twelve passages that show no difference do not show that there is none


@pytest.mark.slow
@pytest.mark.parametrize(
    "claim", [c for c in (*paper.CLAIMS, *paper.OWN_CLAIMS) if c.exhibit in ("table1", "matching")]
)
def test_a_whole_page_has_all_that_claims_are_judged_by(claim, whole):
    assert set(claim.check.needs) <= set(whole)


@pytest.fixture(scope="module")
def whole() -> dict[str, Estimate]:
    results = page(choices=tuple(range(2, 6)), layers=tuple(PRINTED))
    golds = np.arange(200)  # so many that every probe is surely above chance: shares of a signal need one
    found = {who: drawn(i, 4, len(PRINTED), len(golds)) for i, who in enumerate(results.probed)}
    results = results._replace(probed=found, golds=golds)
    return table1(results) | matching(results)


# --- what a meeting adds ---


def test_what_a_meeting_adds_by_hand():
    found = matching(
        one(
            pretrained__tied=cell("x..."),
            pretrained__bilinear=cell("x.x."),
            dpr_paired__tied=cell("..xx"),
            dpr_paired__bilinear=cell("xxx."),
            pretrained__dot=cell("xx.x"),
            dpr_paired__dot=cell("xx.."),
            dpr_query__cosine=cell("xxxx"),
            dpr_paired__cosine=cell("xxxx"),
        )
    )
    assert values(found) == {
        "matching.n2.pretrained.bilinear_minus_tied.layer12": 0.25,
        "matching.n2.dpr_paired.bilinear_minus_tied.layer12": 0.25,
        "matching.n2.dpr_paired_minus_pretrained.bilinear.layer12": 0.25,
        "matching.n2.dpr_paired_minus_pretrained.dot.layer12": -0.25,
    }


# --- significance ---


def test_significance_is_mcnemars_of_each_cell_adjusted_for_their_number():
    """Of 20 questions a alone has 1, 6 and 4, b alone 9, 6 and 0."""
    cells = {2: (1, 9), 3: (6, 6), 4: (4, 0)}
    a, b = np.zeros((2, 3, 1, 20), dtype=bool)
    for i, (only_a, only_b) in enumerate(cells.values()):
        a[i, 0, :only_a], b[i, 0, only_a : only_a + only_b] = True, True
        a[i, 0, -3:] = b[i, 0, -3:] = True  # both
    probed = {(who, "tied"): ProbeResult(right, right, np.ones((3, 1))) for who, right in (("a", a), ("b", b))}
    found = significance(Results(probed, [*cells], [12], np.arange(20)), ("a", "tied"), ("b", "tied"))
    one_by_one = {n: binomtest(*of, p=0.5).pvalue for n, of in ((2, (1, 10)), (3, (6, 12)), (4, (4, 4)))}
    assert one_by_one[2] == pytest.approx(22 / 1024)
    assert found == {
        (2, 12): pytest.approx(3 * one_by_one[2]),
        (4, 12): pytest.approx(2 * one_by_one[4]),
        (3, 12): 1,
    }
    assert [*found] == [(2, 12), (3, 12), (4, 12)]
    swapped = significance(Results(probed, [*cells], [12], np.arange(20)), ("b", "tied"), ("a", "tied"))
    assert swapped == pytest.approx(found)


def test_random_weights_are_right_where_most_of_their_networks_are():
    """Two of three networks are right on the first two questions, one on the other four."""
    networks = {f"random{i}__linear": cell(marks) for i, marks in enumerate(("xx....", "xx....", "..xxxx"))}
    results = one(pretrained__linear=cell("xxxxxx"), **networks)._replace(golds=np.arange(6))
    found = significance(results, ("pretrained", "linear"), ("random", "linear"))
    assert found == {(2, 12): pytest.approx(2 / 2**4)}


# --- three sources ---


def test_the_papers_and_the_replications_curves_are_read_back():
    printed = three_sources({}, [2, 5], [0, 1])
    assert [*printed] == ["the paper", "the replication"]  # nothing of this page
    lines = ["N = 2", "N = 2 (DPR)", "N = 5", "N = 5 (DPR)"]
    for source in printed.values():
        assert [*source] == lines
        assert all([*line] == [*range(13)] for line in source.values())
    by_paper, replicated = printed.values()
    assert (by_paper["N = 2"][12], by_paper["N = 2 (DPR)"][12]) == (0.84, 0.82)
    assert by_paper["N = 5"][12] == 0.61
    assert [float(replicated[line][12]) for line in lines] == [0.6005, 0.5921, 0.3104, 0.3024]
    assert float(replicated["N = 2"][0]) == 0.5007


def test_this_pages_curve_has_its_layers_and_lines_without_values_are_left_out():
    numbers = {f"table1.n2.pretrained.layer{layer}": Estimate(layer / 10, 0, 1, 9) for layer in (0, 2, 5)}
    numbers["table1.n2.dpr_paired.layer5"] = numbers["table1.n3.dpr_context.layer5"] = Estimate(1, 1, 1, 9)
    found = three_sources(numbers, [2, 3], [0, 2, 5])
    assert found["this page"] == {"N = 2": {layer: Estimate(layer / 10, 0, 1, 9) for layer in (0, 2, 5)}}
    assert [*found["the paper"]] == ["N = 2", "N = 2 (DPR)", "N = 3", "N = 3 (DPR)"]


def test_a_network_deeper_than_the_papers_shows_all_its_layers():
    numbers = {f"table1.n2.dpr_query.layer{layer}": Estimate(0.5, 0.4, 0.6, 9) for layer in (24, 3)}
    found = three_sources(numbers, [2], [3, 24])
    assert [*found["this page"]["N = 2 (DPR)"]] == [3, 24]
    assert [*found["the paper"]["N = 2"]] == [*range(13)]


def test_more_passages_than_the_paper_has_are_on_this_page_only():
    numbers = {"table1.n7.pretrained.layer0": Estimate(0.1, 0.0, 0.2, 9)}
    assert three_sources(numbers, [7], [0]) == {"this page": {"N = 7": {0: Estimate(0.1, 0.0, 0.2, 9)}}}
    assert three_sources({}, [7], [0]) == {}


# --- any probe ---


def test_every_probe_of_a_page_has_a_title_and_its_own_curves():
    numbers = table1(page())
    found = by_probe(numbers, [2, 5], [0, 12])
    assert PROBE_TITLES.keys() == PROBES.keys() | {"shuffled_query"}
    assert [*found] == [(title, n) for title in PROBE_TITLES.values() for n in (2, 5)]
    tied = found[PROBE_TITLES["tied"], 5]
    assert [*tied] == ["this page"]  # the paper does not have it
    assert tied["this page"][LABELS["dpr_query"]] == {
        layer: numbers[f"table1.n5.dpr_query.tied.layer{layer}"] for layer in (0, 12)
    }
    assert set(tied["this page"]) == set(LABELS.values())
    untrained = found[PROBE_TITLES["untrained"], 2]["this page"]
    assert untrained == {LABELS["pretrained"]: {x: numbers[f"table1.n2.untrained.layer{x}"] for x in (0, 12)}}


def test_what_the_paper_prints_stands_below_the_same_probe():
    linear = by_probe(table1(page()), [2], [0, 12])[PROBE_TITLES["linear"], 2]
    assert [*linear] == ["this page", "the paper"]
    assert linear["the paper"][LABELS["pretrained"]][12] == 0.84
    assert "random weights" not in linear["the paper"]


def test_probes_that_were_not_asked_for_are_not_on_the_menu():
    numbers = table1(page(probes=("dot",), encoders=("pretrained",)))
    assert [*by_probe(numbers, [2], [0, 12])] == [(PROBE_TITLES["dot"], 2)]
    assert by_probe({}, [2], [0]) == {}


def test_curves_in_words_say_where_each_ends():
    ours = {"BERT": {0: Estimate(0.5, 0, 1, 9), 12: Estimate(0.625, 0, 1, 9)}, "none": {0: 0.25}}
    said = in_words({"this page": ours, "the paper": {"BERT": {12: 0.84}}}, 5)
    assert said == (
        "Accuracy by layer, 5 passages. this page: BERT 0.62 at layer 12, none 0.25 at layer 0. "
        "the paper: BERT 0.84 at layer 12. chance: 0.20."
    )


# --- pages of less ---


@pytest.mark.parametrize(
    ("asked", "in_table", "in_matching"),
    [
        ({"probes": ("bilinear",), "encoders": ("pretrained",)}, {"pretrained.bilinear"}, set()),
        ({"probes": ("untrained",)}, {"untrained"}, set()),
        (
            {"probes": ("dot",), "encoders": ("pretrained", "dpr_paired")},
            {"pretrained.dot", "dpr_paired.dot"},
            {"dpr_paired_minus_pretrained.dot"},
        ),
        (
            {"encoders": ("dpr_query",)},
            {
                *("dpr_query", "dpr_query.shuffled_query", "dpr_query_minus_no_query", "dpr_query.tied_minus_linear"),
                *(f"dpr_query.{probe}" for probe in PROBES if probe not in ("linear", "untrained")),
            },
            {"dpr_query.bilinear_minus_tied"},
        ),
        (
            {"probes": ("linear",), "encoders": ("dpr_context", "random0", "dpr_query")},
            {
                *("dpr_context", "random", "dpr_query", "dpr_query_minus_dpr_context"),
                *(f"{encoder}.shuffled_query" for encoder in ("dpr_context", "random", "dpr_query")),
            },
            set(),
        ),
    ],
    ids=["a probe of an encoder", "the untrained probe", "two to compare", "an encoder", "a probe of three encoders"],
)
def test_a_page_of_less_reports_what_is_there(asked, in_table, in_matching):
    results = page(**asked, choices=[3], layers=[4])
    in_two = table1(results), matching(results)
    assert tuple(map(subjects, in_two)) == (in_table, in_matching)
    assert all(".n3." in id_ and id_.endswith(".layer4") for numbers in in_two for id_ in numbers)


def test_every_number_lies_in_its_interval_and_all_but_differences_are_shares():
    for id_, found in table1(page()).items():
        assert found.low <= found.value <= found.high, id_
        if "_of_signal" not in id_:
            assert (-1 if "_minus_" in id_ else 0) <= found.low <= found.high <= 1, id_


def test_the_arrays_of_a_page_are_left_as_they_were():
    results = page()
    before: list[ndarray] = [part.copy() for probed in results.probed.values() for part in probed]
    table1(results), matching(results), significance(results, ("random", "tied"), ("pretrained", "dot"))
    after = [part for probed in results.probed.values() for part in probed]
    for one_, same in zip(before, after, strict=True):
        np.testing.assert_array_equal(one_, same)


def test_accuracy_on_train_questions_is_a_mean_over_repeats_too():
    ones = np.ones((1, 1, 4), dtype=bool)
    made = {(f"random{i}", "linear"): ProbeResult(ones, ones, np.array([[rate]])) for i, rate in ((0, 0.5), (1, 1))}
    results = Results(made, [2], [12], GOLDS)
    assert results.on_train("random", "linear", 2, 12) == 0.75
    assert results.on_train("random1", "linear", 2, 12) == 1
    with pytest.raises(ValueError, match="there is no tied probe of 'random' here"):
        results.on_train("random", "tied", 2, 12)


def test_what_is_selected_keeps_its_order_and_must_be_there():
    assert select("layer", range(3), None) == [0, 1, 2]
    assert select("layer", range(3), [2, 0]) == [0, 2]
    with pytest.raises(ValueError, match="there is no probe 'linaer'; choose from linear, tied"):
        select("probe", {"linear": 1, "tied": 2}, ["tied", "linaer"])
    with pytest.raises(ValueError, match="no layer is asked for; choose from 0, 1"):
        select("layer", range(2), [])


# what the page shows


def test_a_table_beside_the_paper_has_our_value_and_the_printed_one():
    numbers = {
        "table1.n2.pretrained.layer12": Estimate(0.574, 0.54, 0.6, 9),
        "table1.n5.untrained.layer0": Estimate(0.2, 0.1, 0.3, 9),
        "table1.n2.pretrained.bilinear.layer12": Estimate(0.9, 0.1, 1.0, 9),
    }
    frame = beside_the_paper(numbers, [2, 5], [0, 12]).set_index(["N", "layer"])
    assert frame.columns.tolist() == ["untrained", "BERT", "DPR query", "DPR context"]
    assert frame.loc[(2, 12), "BERT"] == "0.57 (0.84)"
    assert frame.loc[(5, 0), "untrained"] == "0.20 (–)"  # the paper has this row for two passages only
    assert frame.loc[(2, 0), "BERT"] == "–"
    assert half_width(numbers) == pytest.approx(0.1)  # of the untrained probe's; the bilinear one is not in the table
    assert half_width({}) == 0


def test_over_worlds_a_difference_is_the_mean_of_theirs():
    golds, right = np.arange(4), np.array([[[1, 1, 1, 1]]]) > 0
    wrong = right & [[[True, False, False, False]]]
    half = right & [[[True, True, False, False]]]

    def world(bert: np.ndarray) -> Results:
        cells = {("pretrained", "linear"): bert, ("dpr_query", "linear"): wrong}
        made = {who: ProbeResult(a, a, np.ones((1, 1))) for who, a in cells.items()}
        return Results(made, [2], [12], golds)

    found = across([world(right), world(half)])
    assert found.pop("worlds.n2.pretrained_minus_dpr_query.linear.layer12") == over_runs([0.75, 0.25])
    assert found == {
        "worlds.n2.pretrained.linear.layer12": over_runs([1, 0.5]),
        "worlds.n2.dpr_query.linear.layer12": over_runs([0.25, 0.25]),
    }  # nobody's four questions tell DPR or pre-trained BERT from chance in both worlds
    assert across([world(right)]) == {}
    assert not len(across_table({}))


def test_the_table_of_several_worlds_has_a_row_a_comparison_at_the_last_layer():
    one, other = Estimate(0.25, 0.1, 0.4, 5), Estimate(0.05, -0.1, 0.2, 5)
    frame = across_table(
        {
            "worlds.n2.dpr_query_minus_no_query.linear.layer12": one,
            "worlds.n5.dpr_query_minus_no_query.linear.layer12": other,
            "worlds.n2.dpr_query_minus_no_query.linear.layer6": other,
            "worlds.n2_minus_n3.pretrained.linear.layer12": other,
            "worlds.n5.pretrained.tied_minus_linear_of_signal.layer12": one,
        }
    )
    assert frame.columns.tolist() == ["what", "probe", "N = 2", "N = 5"]
    assert frame.fillna("").to_numpy().tolist() == [
        ["dpr query minus no query", "linear", one.brief, other.brief],
        ["pretrained", "tied minus linear of signal", "", one.brief],
    ]


def made(right: dict[tuple[str, str], np.ndarray], choices: list[int]) -> Results:
    """Results of the last layer only, from what is right [n, question]."""
    probed = {who: ProbeResult(a[:, None], a[:, None], np.ones((len(choices), 1))) for who, a in right.items()}
    return Results(probed, choices, [12], np.arange(next(iter(right.values())).shape[1]))


def test_a_difference_of_the_signal_is_a_share_of_what_the_second_has_above_chance():
    """0.75 against 0.625 among two passages: an eighth of accuracy, half of the signal."""
    better, less = np.arange(800) % 4 > 0, np.arange(800) % 8 > 2
    results = made({("dpr_query", "linear"): better[None], ("pretrained", "linear"): less[None]}, [2])
    share = results.of_signal(("dpr_query", "linear"), ("pretrained", "linear"), 2, 12)
    assert share.value == pytest.approx(1.0)
    back = results.of_signal(("pretrained", "linear"), ("dpr_query", "linear"), 2, 12)
    assert back.value == pytest.approx(-0.5)
    assert table1(results)["table1.n2.dpr_query_minus_pretrained_of_signal.layer12"] == share
    assert share.low < share.value < share.high


def test_without_a_signal_there_is_no_share_of_it():
    rng = np.random.default_rng(0)
    results = made({(who, "linear"): (rng.random(400) < 0.5)[None] for who in ("dpr_query", "pretrained")}, [2])
    assert results.of_signal(("dpr_query", "linear"), ("pretrained", "linear"), 2, 12) is None
    assert not [id_ for id_ in table1(results) if "_of_signal" in id_]


def test_more_passages_are_compared_on_the_same_questions():
    """The same 1 in 10 questions are lost from two to three, and among three DPR alone loses 1 in 10 more."""
    i = np.arange(1000)
    bert, dpr = np.stack([i % 10 > 2, i % 10 > 3]), np.stack([i % 10 > 2, i % 10 > 4])
    found = by_choices(made({("pretrained", "linear"): bert, ("dpr_query", "linear"): dpr}, [2, 3]))
    assert {id_: round(e.value, 6) for id_, e in found.items()} == {
        "table1.n2_minus_n3.pretrained.layer12": 0.1,
        "table1.n2_minus_n3.dpr_query.layer12": 0.2,
        "table1.n3_minus_n2.pretrained_minus_dpr_query.layer12": 0.1,
    }
    loose = intervals.gap(bert[0], bert[1])  # as if the questions were others
    pair = found["table1.n2_minus_n3.pretrained.layer12"]
    assert pair.high - pair.low < 0.6 * (loose.high - loose.low)


def test_one_number_of_passages_has_nothing_to_be_compared_with():
    assert by_choices(made({("pretrained", "linear"): np.ones((1, 8), dtype=bool)}, [2])) == {}


def test_an_n_that_all_share_is_told_once():
    one, same, other = Estimate(0.5, 0.4, 0.6, 40), Estimate(0.1, 0.0, 0.2, 40), Estimate(0.1, 0.0, 0.2, 39)
    frame, title = n_once(pd.DataFrame({"N": [2, 5], "BERT": [one, same]}), "Accuracy")
    assert title == "Accuracy; n = 40"
    assert frame.to_numpy().tolist() == [[2, "0.50 [0.40, 0.60]"], [5, "0.10 [0.00, 0.20]"]]
    mixed = pd.DataFrame({"BERT": [one, other]})
    assert n_once(mixed, "Accuracy")[0] is mixed
    nothing = pd.DataFrame({"BERT": [0.5, None]})
    assert n_once(nothing, "Accuracy")[1] == "Accuracy"


def test_the_lead_is_told_for_every_strength_that_has_both_encoders():
    right, wrong = cell("xxx."), cell("x...")
    found = by_strength(
        {("weaker", "pretrained"): right, ("weaker", "dpr_query"): wrong, ("stronger", "pretrained"): right}, [2], GOLDS
    )
    assert values(found) == {"spread.n2.weaker.pretrained_minus_dpr_query": 0.5}
