"""Chapter 02's exhibits on probes whose right answers are written down: cells, ids, and what is not asked for."""

from dataclasses import dataclass
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from dprlens.chapters import knowledge_consistency as chapter
from dprlens.chapters import probe_grid
from dprlens.consistency import exhibits
from dprlens.consistency.controls import Selectivity
from dprlens.consistency.exhibits import Results
from dprlens.consistency.probes import Items, ProbeResult, ProbeSpec
from dprlens.intervals import Estimate, over_runs
from dprlens.report.report import Absent

PROBE = ProbeSpec(l2=0.5)
GOLDS = np.array([7, 7, 3, 5])  # the first two questions have the same gold passage
ANY = Estimate(0.25, 0.125, 0.375, 4)


def marks(*cells: str) -> np.ndarray:
    """One layer, a number of passages a string: "x.x." is right on the first and the third question."""
    return np.array([[[mark == "x" for mark in cell]] for cell in cells])


def probed(*cells: str, train: float = 1.0) -> ProbeResult:
    right = marks(*cells)
    return ProbeResult(right, right, np.full(right.shape[:2], train))


def page(**probes: ProbeResult) -> Results:
    """pretrained__tied=… is the tied probe of pretrained, at layer 12; cells are for 2, then for 5 passages."""
    choices = [2, 5][: len(next(iter(probes.values())).correct)]
    return Results({tuple(name.split("__")): one for name, one in probes.items()}, choices, [12], GOLDS)


@dataclass(frozen=True)
class Task:
    """In the place of a `ProbingTask`: what tells which features a probe was given."""

    name: str
    seed: int = 3
    spec: ProbeSpec = PROBE

    def items(self, split: str) -> Items:
        golds = GOLDS if split == "test" else np.arange(16)
        return Items(np.arange(len(golds)), golds[:, None])


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """Calls of steps that are asked for, which give nothing but themselves: (task, further arguments)."""
    calls: list[dict] = []

    def run(wanted, workers):
        assert workers is None
        calls.append({key: call.args for key, call in wanted.items()})
        return calls[-1]

    monkeypatch.setattr(probe_grid, "run", run)
    return calls


def grid(encoders=("pretrained", "dpr_query", "dpr_paired", "random0"), probes=("linear",), layers=(0, 6, 12)):
    profile = SimpleNamespace(probing=SimpleNamespace(repeats=2), probe=PROBE)
    setup = SimpleNamespace(seed=3, profile=profile)
    return probe_grid.Grid(setup, {who: Task(who) for who in encoders}, probes, [2, 5], layers)


# what is fitted


def test_table_1_is_fitted_without_cells_that_say_nothing(asked):
    results = probe_grid.fit_probes(grid(("pretrained", "random0"), ("linear", "low_rank", "untrained", "replication")))
    assert [*asked[0]] == [
        ("pretrained", "linear"),
        ("random0", "linear"),
        ("pretrained", "low_rank"),
        ("pretrained3", "untrained"),
        ("pretrained4", "untrained"),
    ]
    assert asked[0]["random0", "linear"] == (Task("random0"), "linear", [2, 5], (0, 6, 12))
    assert asked[0]["pretrained4", "untrained"][0] == Task("pretrained", seed=4)
    assert results.golds.tolist() == GOLDS.tolist()


def test_without_pretrained_features_there_is_no_untrained_probe(asked):
    probe_grid.fit_probes(grid(("dpr_query",), ("untrained",)))
    assert asked == [{}]


@pytest.mark.usefixtures("asked")
def test_draws_have_their_seeds_and_penalties_their_strength():
    whole = grid()
    redrawn, penalties = probe_grid.fit_redrawn(whole), probe_grid.fit_penalties(whole)
    assert [*redrawn] == [(who, seed) for who in ("pretrained", "dpr_query") for seed in (3, 4)]
    assert all(args == (Task(who, seed), "linear", [2, 5], [12]) for (who, seed), args in redrawn.items())
    strengths = {key: args[0].spec.l2 for key, args in penalties.items()}
    assert strengths == {
        (s, who): l2 for s, l2 in (("stronger", 5), ("weaker", 0.05)) for who in ("pretrained", "dpr_query")
    }
    no_linear = grid(probes=("tied",))
    assert probe_grid.fit_redrawn(no_linear) == probe_grid.fit_penalties(no_linear) == {}


def test_the_last_layer_is_fitted_where_encoder_and_probe_are_asked_for(asked):
    results = probe_grid.fit_last_layer(grid(), ["dpr_context", "dpr_query"], ["tied", "linear"], fit_on="test")
    assert asked == [{("dpr_query", "linear"): (Task("dpr_query"), "linear", [2, 5], [12], "test")}]
    assert (results.choices, results.layers) == ([2, 5], [12])


def test_controls_are_fitted_at_two_layers_and_learning_curves_to_parts_of_the_train_questions(monkeypatch):
    some = grid(("pretrained", "dpr_query"), ("linear", "dot", "tied"))
    assert (some.middle, some.last, some.some_layers, some.fewest) == (6, 12, [6, 12], 2)
    whos = [("pretrained", "linear"), ("pretrained", "tied")]
    assert [*some.controlled()] == whos
    rates = {"questions": [0, 1], "task": ["at 6", "at 12"], "control": ["c6", "c12"]}
    monkeypatch.setattr(probe_grid, "run", lambda calls, workers: dict.fromkeys(calls, rates))  # noqa: ARG005
    fitted = probe_grid.fit_control_tasks(some)
    assert [*fitted] == [(*who, layer) for who in whos for layer in (6, 12)]
    assert fitted["pretrained", "tied", 12] == Selectivity([0, 1], "at 12", "c12")
    monkeypatch.setattr(probe_grid, "run", lambda calls, workers: {who: ["a", "b"] for who in calls})  # noqa: ARG005
    assert probe_grid.fit_online_codes(some)["pretrained", "linear", 12] == "b"
    monkeypatch.setattr(probe_grid, "run", lambda calls, workers: {who: call.args[-1] for who, call in calls.items()})  # noqa: ARG005
    assert probe_grid.fit_parts(some)["pretrained", "tied"] == {size: size for size in (2, 4, 8, 16)}


def test_reversible_pairs_are_given_to_four_probes_whatever_is_asked_for(asked):
    probe_grid.fit_reversible(grid(("dpr_query", "random0"), ("no_query",)))
    assert [*asked[0]] == [("random0", name) for name in ("linear", "tied", "bilinear", "dot")]


# what is shown


def test_a_question_of_each_kind_is_shown_with_its_choices():
    passages = [SimpleNamespace(id=name, title=f"Title {name}", text=f"text {name}") for name in "abc"]
    questions = [
        SimpleNamespace(kind=kind, text=f"{kind} {gold}?", gold=gold)
        for kind, gold in (("lexical", "a"), ("lexical", "b"), ("knowledge_required", "c"))
    ]
    world = SimpleNamespace(questions=questions, passages=passages, passage={p.id: p for p in passages})
    items = Items(np.array([2, 1, 0]), np.array([[2, 0], [1, 2], [0, 1]]))
    html = chapter.question_cards(world, items).data
    assert html.count('class="asked"') == 2
    assert "knowledge_required c?" in html
    assert "lexical a?" in html
    assert "lexical b?" not in html
    assert html.index("Title c ✓") < html.index("<b>Title a</b>")


def test_table_1_and_its_curves_show_the_same_numbers():
    results = page(pretrained__linear=probed("xx..", "x..."), dpr_query__linear=probed("xxx.", "x..."))
    numbers = exhibits.table1(results)
    table = chapter.table1(results, numbers)
    assert table.numbers is numbers
    assert table.frame.set_index("N")["BERT"].tolist() == ["0.50 (0.84)", "0.25 (0.61)"]
    drawing = chapter.curves(results, numbers)
    plt.close(drawing.figure)
    ours = drawing.points[drawing.points["panel"] == "this page"].set_index("line")["value"]
    assert ours.to_dict() == {"N = 2": 0.5, "N = 2 (DPR)": 0.75, "N = 5": 0.25, "N = 5 (DPR)": 0.25}


def test_every_probe_has_a_picture_for_each_number_of_passages():
    results = page(pretrained__tied=probed("xx..", "x..."))
    pages = chapter.pages_by_probe(results, exhibits.table1(results))
    assert [*pages] == [("one scorer for all slots, no question", f"N = {n}") for n in (2, 5)]
    assert "pre-trained BERT 0.25 at layer 12. chance: 0.20." in pages[[*pages][1]]


def test_leads_stand_beside_the_number_of_cells_in_which_they_are_significant():
    results = page(pretrained__linear=probed("xxx.", "x..."), dpr_query__linear=probed("x...", "x..."))
    significant = exhibits.significant_cells(results)
    assert significant == {"dpr_query": 0}  # of four questions nothing can be said
    table = chapter.differences(results, exhibits.table1(results), significant)
    assert table.title == "Accuracy of pre-trained BERT minus that of DPR, layer 12; n = 4"
    assert [cell.split()[0] for cell in table.frame["minus DPR, query tower"]] == ["0.50", "0.00"]
    assert table.numbers == {"differences.dpr_query.significant_cells": 0}
    words = {"query": "0", "context": "(not asked for)", "pair": "(not asked for)"}
    assert chapter.significant_in_words(significant) == words


def test_a_lead_in_many_questions_is_a_significant_cell():
    right, wrong = (np.full((1, 1, 40), value) for value in (True, False))
    made = {who: ProbeResult(a, a, np.ones((1, 1))) for who, a in (("pretrained", right), ("dpr_paired", wrong))}
    results = Results({(who, "linear"): one for who, one in made.items()}, [2], [12], np.arange(40))
    assert exhibits.significant_cells(results) == {"dpr_paired": 1}


def test_draws_are_a_mean_over_seeds_and_penalties_a_difference_over_questions():
    results = page(pretrained__linear=probed("xxxx"))
    redrawn = {
        ("pretrained", 0): probed("xxxx"),
        ("pretrained", 1): probed("xxx."),
        ("dpr_query", 0): probed("xx.."),
        ("dpr_query", 1): probed("xx.."),
    }
    table = chapter.spread(
        results, redrawn, {("weaker", w): probed(m) for w, m in (("pretrained", "xx.."), ("dpr_query", "x..."))}
    )
    assert table.numbers["spread.n2.pretrained"] == over_runs([1, 0.75])
    assert table.numbers["spread.n2.pretrained_minus_dpr_query"] == over_runs([0.5, 0.25])
    assert table.numbers["spread.n2.weaker.pretrained_minus_dpr_query"].value == 0.25
    (row,) = table.frame.to_dict("records")
    assert row["difference"] == over_runs([0.5, 0.25])
    assert row["stronger penalty"] is None


def test_without_draws_the_spread_is_empty():
    table = chapter.spread(page(pretrained__tied=probed("xxxx")), {}, {})
    assert table.numbers == {}
    assert table.frame["passages"].tolist() == [2]


def test_one_encoder_alone_has_no_difference_over_draws():
    found = exhibits.by_draw(
        {("dpr_query", 0): probed("x...", "...."), ("dpr_query", 1): probed("xx..", "....")}, [2, 5]
    )
    assert found == {"spread.n2.dpr_query": over_runs([0.25, 0.5]), "spread.n5.dpr_query": over_runs([0.0, 0.0])}


def test_the_replications_probe_has_a_row_a_number_of_passages():
    table = chapter.replication(
        page(dpr_context__replication=probed("xx..", "...."), pretrained__tied=probed("xxxx", "xxxx"))
    )
    assert {id_: e.value for id_, e in table.numbers.items()} == {
        "replication.n2.dpr_context": 0.5,
        "replication.n5.dpr_context": 0,
    }
    assert table.title == "The replication's way of fitting, layer 12; n = 4"
    assert table.frame.columns.tolist() == ["passages", "DPR, context tower"]


def test_relatives_of_the_probe_leave_out_what_is_not_there():
    results = page(
        pretrained__linear=probed("xx..", train=0.875),
        pretrained__no_query=probed("x..."),
        random0__bilinear=probed("xxxx", train=0.5),
        random1__bilinear=probed("xxxx", train=0.75),
    )
    table = chapter.question(results, exhibits.table1(results))
    assert table.numbers == {"question.n2.pretrained.linear.train": 0.875, "question.n2.random.bilinear.train": 0.625}
    rows = table.frame.set_index("features").astype(object)
    assert rows.loc["pre-trained BERT", ["on train", "linear", "other question", "no question"]].tolist() == [
        0.875,
        0.5,
        0.5,
        0.25,
    ]
    assert rows.loc["random weights", "bilinear"] == 1
    assert rows.loc["DPR, both towers"].drop("N").isna().all()


def test_what_needs_no_network_is_named_in_words():
    results = page(pretrained__linear=probed("xxxx", "xxxx"))
    right = {name: marks("x...", "....")[:, 0] for name in chapter.SURFACE} | {"title": marks("xxxx", "xx..")[:, 0]}
    table = chapter.no_network(right, results)
    assert table.title == "Accuracy without a network; n = 4"
    assert table.numbers["no_network.n2.bag_of_words"].value == 0.25
    assert table.numbers["no_network.n5.title"].value == 0.5
    assert table.frame["what decides"].tolist() == ["length", "bag of words", "bm25", "overlap", "title"]
    assert table.frame.columns.tolist() == ["what decides", "N = 2", "N = 5"]


def test_reversible_pairs_by_the_way_of_fitting():
    """Eight marks: two pairs, each of two questions in two orders of the slots."""
    ordinary, balanced, none = np.array([1, 0] * 4), np.array([1] * 6 + [0, 0]), np.array([])
    right = {
        ("pretrained", "linear"): {"ordinary": ordinary, "balanced": balanced},
        ("random0", "dot"): {"ordinary": ordinary, "balanced": none},
    }
    table = chapter.reversible(right, 12)
    assert {id_: (e.value, e.n) for id_, e in table.numbers.items()} == {
        "reversible.pretrained.linear": (0.5, 8),
        "reversible.pretrained.linear.balanced": (0.75, 8),
        "reversible.random0.dot": (0.5, 8),
    }
    assert table.frame[["features", "fitted to"]].to_numpy().tolist() == [
        [label, fitted_to]
        for label in ("pre-trained BERT", "random weights")
        for fitted_to in ("ordinary questions", "reversible pairs")
    ]
    assert not chapter.compares_rivals(table)
    both = chapter.reversible(right | {("dpr_paired", "dot"): {"ordinary": ordinary}}, 12)
    assert chapter.compares_rivals(both)


def test_a_world_without_reversible_pairs_says_so():
    absent = chapter.reversible({("pretrained", "dot"): {"ordinary": np.array([])}}, 4)
    assert isinstance(absent, Absent)
    assert (absent.exhibit, absent.title) == ("reversible", "Accuracy on reversible pairs, layer 4")
    assert not chapter.compares_rivals(absent)


def test_selectivity_is_the_task_minus_the_control_task_on_the_same_questions():
    one = Selectivity(np.array([0, 2, 3]), np.array([True, True, True]), np.array([False, False, True]))
    table = chapter.selectivity({("random0", "tied", 6): one}, GOLDS)
    assert {id_: round(e.value, 3) for id_, e in table.numbers.items()} == {
        "selectivity.random0.tied.layer6.task": 1,
        "selectivity.random0.tied.layer6.control": 0.333,
        "selectivity.random0.tied.layer6": 0.667,
    }
    assert table.title.endswith("two passages; n = 3")
    assert table.frame[["features", "probe", "task"]].to_numpy().tolist() == [["random weights, layer 6", "tied", 1.0]]


def test_compression_has_a_row_an_encoder_and_layer_and_a_column_a_probe():
    orders = {
        ("pretrained", name, layer): np.array([1.0, 3.0]) * layer for name in ("linear", "tied") for layer in (1, 2)
    }
    table = chapter.code(orders)
    assert table.numbers["code.pretrained.tied.layer2"] == over_runs([2, 6])
    assert table.title == "Compression by the online code, mean over orders; n = 2"
    assert table.frame.columns.tolist() == ["features", "linear", "tied"]
    assert table.frame["features"].tolist() == ["pre-trained BERT, layer 1", "pre-trained BERT, layer 2"]


def test_controls_of_probes_that_are_not_asked_for_are_absent():
    for absent in (chapter.selectivity({}, GOLDS), chapter.code({})):
        assert isinstance(absent, Absent)
        assert "None of the probes linear, tied, bilinear is asked for" in absent.why


def test_learning_curves_have_a_number_for_each_size():
    parts = {("random0", "tied"): {2: marks("x...")[0, 0], 4: marks("xx..")[0, 0]}}
    drawing = chapter.learning(parts, grid())
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["tied"]
    plt.close(drawing.figure)
    assert {id_: e.value for id_, e in drawing.numbers.items()} == {
        "learning.random0.tied.train2": 0.25,
        "learning.random0.tied.train4": 0.5,
    }


def test_matching_has_a_panel_a_probe_and_leads_are_of_seen_and_unseen_questions():
    seen = page(
        pretrained__bilinear=probed("x..."),
        pretrained__tied=probed("x..."),
        dpr_paired__bilinear=probed("xxx."),
        dpr_paired__tied=probed("x..."),
    )
    unseen = page(pretrained__bilinear=probed("xx.."), dpr_paired__bilinear=probed("xxx."))
    gains = chapter.matching_gains(seen, unseen)
    drawing = chapter.matching(seen, exhibits.table1(seen), gains)
    titles = [axes.get_title(loc="left") for axes in drawing.figure.axes]
    plt.close(drawing.figure)
    assert titles == ["bilinear, N = 2", "dot product, nothing trained, N = 2"]
    assert drawing.numbers is gains
    assert gains["matching.n2.dpr_paired.bilinear_minus_tied.layer12"].value == 0.5
    assert chapter.lead(gains, 12).value == 0.5
    words = chapter.leads_in_words(gains, 12)
    assert (words["seen"][:4], words["unseen"][:4]) == ("0.50", "0.25")
    assert chapter.leads_in_words({}, 12) == dict.fromkeys(("seen", "unseen"), "(not asked for)")


def test_the_pages_main_numbers_in_words():
    numbers = {"table1.n2.pretrained.layer12": ANY, "table1.n2.random.layer6": ANY}
    gains = {"matching.n2.dpr_paired_minus_pretrained.bilinear.layer6": ANY}
    assert chapter.in_words(numbers, gains, grid()) == {
        "linear": str(ANY),
        "no_query": "(not asked for)",
        "random": "(not asked for)",
        "gain": str(ANY),
        "gain_last": "(not asked for)",
        "middle": "6",
    }
    assert chapter.question_of_signal(numbers, 12) == "(not asked for)"


def test_one_world_shows_the_worlds_on_record_without_reporting_them():
    kept = {"worlds.n2.pretrained.linear.layer12": ANY, "table1.n2.random.layer12": ANY}
    table = chapter.worlds({}, kept)
    assert table.title.endswith("(on record, profile full)")
    assert table.numbers == {}
    assert table.frame.to_dict("records") == [{"what": "pretrained", "probe": "linear", "N = 2": ANY.brief}]
    ours = {"worlds.n2.pretrained.linear.layer4": ANY}
    assert chapter.worlds(ours, kept).numbers == ours
    assert chapter.worlds(ours, kept).title == "Accuracies and their differences over worlds"


def test_comparisons_on_record_are_those_of_the_last_layer():
    words = chapter.on_record({"worlds.n2.dpr_paired_minus_pretrained.dot.layer12": ANY})
    assert words.pop("dot") == str(ANY)
    assert set(words.values()) == {"(not on record yet)"}
    pairs = {name: f"worlds.n2.{pair}.layer12" for name, pair in (("dpr", "pretrained_minus_dpr_query.linear"),)}
    assert chapter.on_record({pairs["dpr"]: ANY})["dpr"] == str(ANY)


def test_the_papers_sentences_about_its_table_are_judged():
    frame = chapter.printed().frame
    assert frame.columns.tolist() == ["", "sentence", "on its own numbers", "why"]
    assert len(frame) > 3
    assert set(frame["on its own numbers"]) <= {"holds", "does not hold", "cannot tell here"}
