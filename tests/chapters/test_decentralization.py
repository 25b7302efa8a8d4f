"""The exhibits of chapter 03, on neurons and ranks that are worked out by hand."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from small_setup import one_by_one

from chapters.neuron_comparisons import EXAMPLES, SAME, SPREAD, attribution, comparison
from dprlens.chapters import decentralization as chapter
from dprlens.chapters import interventions
from dprlens.chapters.decentralization import Active, Cases, Criterion, Search, Variant
from dprlens.chapters.interventions import Silencing
from dprlens.decentralization import exhibits, steps
from dprlens.decentralization.active_neurons import ActivitySpec
from dprlens.decentralization.attribution import FIDELITY
from dprlens.decentralization.pathways import Search as Silent
from dprlens.decentralization.steps import GoldRanks
from dprlens.intervals import Estimate, exact, share
from dprlens.retrieval.exact_search import Ranking

NOW = Criterion(0.5)
HALF = Estimate(0.5, 0.25, 0.75, 8)


@pytest.fixture(autouse=True)
def _figures_are_closed():
    yield
    plt.close("all")


@pytest.fixture
def compared(world):
    """Pre-trained BERT uses one neuron for all questions; DPR, its control and another seed use several."""
    return comparison(world, pretrained=SAME, dpr=SPREAD, shuffled=SAME, continued=SAME, dpr1=SPREAD)


@pytest.fixture
def active(compared):
    return Active(compared, NOW)


def ranked(compared, first: dict[str, list[int]]) -> Search:
    """A search in which models rank these passages first, by question of the sample; passage 0 for all others."""
    n = len(compared.world.questions)
    rankings = {name: np.zeros((n, 5), int) for name in first}
    for name, places in first.items():
        rankings[name][compared.sample.examples, 0] = places
    right = {name: np.zeros(n, bool) for name in first}
    for name, places in first.items():
        right[name][compared.sample.examples] = np.array(places) == compared.sample.candidates[:, 0]
    return Search({name: Ranking(at, np.zeros((n, 5))) for name, at in rankings.items()}, pd.DataFrame(right))


def two_finders(compared) -> Search:
    """Pre-trained BERT finds the passages of the first four questions of the sample, DPR those of every other."""
    golds = compared.sample.candidates[:, 0]
    bert = [gold if i < 4 else gold + 1 for i, gold in enumerate(golds)]
    dpr = [gold if i % 2 == 0 else gold + 1 for i, gold in enumerate(golds)]
    return ranked(compared, {"pretrained": bert, "dpr": dpr})


def test_gold_passages_are_the_clusters_of_both_sides(world):
    questions, passages = (comparison(world, side, dpr=SAME) for side in ("query", "passage"))
    golds = [world.place(world.questions[i].gold) for i in questions.sample.examples]
    assert questions.clusters == golds
    assert passages.clusters == passages.sample.examples.tolist()
    assert (questions.n, questions.neurons, questions.few.examples) == (EXAMPLES, 12, 3)


def test_candidate_cards_show_the_first_questions(world, compared):
    page = chapter.candidate_cards(world, compared.sample, 2).data
    texts = [world.questions[i].text in page for i in compared.sample.examples[:3]]
    assert texts == [True, True, False]
    assert page.count("the first candidates") == 2


def test_figure_1_counts_the_neurons_of_the_two_models(active):
    drawn = chapter.figure1(active)
    assert drawn.title == "Active neurons by block before and after DPR training (threshold 0.5)"
    assert "of questions" in drawn.alt
    assert drawn.numbers["figure1.pretrained.intermediate.union"].value == 1
    assert drawn.numbers["figure1.dpr.intermediate.union"].value == 4
    assert drawn.numbers["figure1.dpr.block1.intermediate.union"].value == 0
    assert drawn.numbers["figure1.dpr_minus_pretrained.block0.intermediate.union"].value == 3
    assert not any("shuffled" in id_ for id_ in drawn.numbers)
    assert len(drawn.figure.axes) == 5  # two sites, two models, and the scale


def test_strips_of_passages_speak_of_passages(world):
    passages = comparison(world, "passage", pretrained=SAME, dpr=SPREAD)
    assert "of passages" in chapter.strips("figure2", Active(passages, NOW), "title").alt


def test_counts_in_words():
    counts = {f"figure1.{name}.intermediate.{what}": exact(n) for name, what, n in (
        ("pretrained", "union", 12), ("pretrained", "mean", 3.14), ("dpr", "union", 1200), ("dpr", "mean", 2)
    )}  # fmt: skip
    assert chapter.counts_in_words(counts, "figure1") == {
        "union_before": "12", "mean_before": "3.1", "union_after": "1200", "mean_after": "2.0"
    }  # fmt: skip


def test_gains_show_both_models_and_report_those_of_dpr(active):
    figure = chapter.figure1(active)
    table = chapter.gains(active, figure.numbers)
    assert list(table.frame["model"]) == ["pre-trained BERT", "DPR"] * 2
    assert list(table.frame["sharing"][:2]) == [1, pytest.approx(1 / 7)]  # of seven others one uses the same neuron
    assert {id_.split(".")[1] for id_ in table.numbers} == {"dpr_minus_pretrained"}
    assert table.numbers["gains.dpr_minus_pretrained.intermediate.union"].value == 3
    assert table.numbers["gains.dpr_minus_pretrained.intermediate.mean"].value == 0


def test_eight_questions_are_two_of_each_case(active, monkeypatch):
    monkeypatch.setattr(chapter, "run", one_by_one)
    monkeypatch.setattr(steps, "attribute_sample", lambda task, side, only: SPREAD)  # noqa: ARG005
    found = two_finders(active.compared)
    eight = chapter.cases(active, found)
    right = [tuple(found.right.loc[i]) for i in eight.questions]
    assert right == [(a, b) for a in (False, True) for b in (False, True) for _ in range(2)]
    assert eight.strong["dpr"].tolist() == [1] * EXAMPLES
    tested = {i for i, question in enumerate(active.compared.world.questions) if question.split == "test"}
    assert set(eight.questions) <= tested


def test_table_2_is_of_eight_questions_and_its_words_of_the_sample(active):
    compared, found = active.compared, two_finders(active.compared)
    strong = {"pretrained": np.arange(8), "dpr": np.arange(8) + 10}
    eight = Cases(found, compared.sample.examples.tolist(), strong)
    table = chapter.table2(active, eight)
    assert list(table.frame["BERT"]) == ["✓"] * 4 + ["✗"] * 4
    assert list(table.frame["DPR"]) == ["✓", "✗"] * 4
    assert list(table.frame["neurons, DPR"]) == list(range(10, 18))
    assert [table.numbers[f"table2.q{q}.bert_top1"] for q in range(1, 9)] == [1] * 4 + [0] * 4
    assert table.numbers["table2.q3.dpr_strong"] == 12
    assert table.numbers["table2.dpr.strong"].value == 1
    assert table.numbers["table2.more_strong"].value == 0
    words = chapter.table2_in_words(table.numbers)
    assert words.keys() == {"bert", "dpr", "more", "on_topic"}
    assert words["bert"] == "1"
    page = chapter.case_cards(active, eight).data
    assert "pre-trained BERT: 0 neurons, DPR: 10 neurons" in page


def test_topics_are_shares_of_the_first_five_passages(compared):
    always = chapter.topic_shares(compared, two_finders(compared))
    assert always.keys() == {f"table2.{name}.on_topic" for name in ("bert", "dpr", "dpr_minus_bert")}
    assert 0 <= always["table2.bert.on_topic"].value <= 1
    a, b, minus = (always[f"table2.{name}.on_topic"].value for name in ("dpr", "bert", "dpr_minus_bert"))
    assert minus == pytest.approx(a - b)


def test_pages_of_questions_begin_with_one_that_only_dpr_finds(active):
    world, examples = active.compared.world, active.compared.sample.examples
    pages = chapter.question_pages(active, two_finders(active.compared), 3)
    question = world.questions[examples[4]]  # the first with a passage of DPR alone
    assert next(iter(pages)) == f"{question.text} ({question.kind.replace('_', '-')})"
    assert len(pages) <= 3
    assert all("1 active neurons" in page for page in pages.values())


def test_a_variant_changes_one_thing(compared, monkeypatch):
    monkeypatch.setattr(chapter, "run", one_by_one)
    monkeypatch.setattr(steps, "attribute_sample", lambda task, side, score: (task, side, score))
    changes = {"dot": Variant("dot"), "left": Variant(spec=FIDELITY), "cold": Variant(temperature=9.0)}
    found = chapter.attribute_few(compared, changes)
    assert [(title, *models) for title, models in found.items()] == [(title, *chapter.PAIR) for title in changes]
    usual = compared.tasks["dpr"]
    few = replace(usual, sampling=replace(usual.sampling, sampled=compared.few))
    assert found["dot"]["dpr"] == (few, "query", "dot")
    assert found["left"]["dpr"] == (replace(few, spec=FIDELITY), "query", "choice")
    assert found["cold"]["dpr"] == (replace(few, temperature=9.0), "query", "choice")


def test_the_mask_is_attributed_with_the_old_head(compared, monkeypatch):
    monkeypatch.setattr(chapter, "run", one_by_one)
    monkeypatch.setattr(chapter.cloze, "with_head", lambda tower, old: f"{tower} with the head of {old}")
    monkeypatch.setattr(steps, "masked_answers", lambda *arguments: arguments)
    found = chapter.attribute_masked(compared)[chapter.MASKED]
    assert found["pretrained"][0] == "pretrained query"
    assert found["dpr"][0] == "dpr query with the head of pretrained query"
    assert found["dpr"][3:] == (3, 0)  # few facts, seed


def test_completeness_is_of_the_worst_site():
    whole = attribution({0: [0, 1]})  # sums to its change
    off = whole._replace(change=whole.change * 2)  # half of the change is missing where anything changes
    compared = type("Compared", (), {"attributions": {"dpr": whole}})
    table = chapter.completeness(compared, {"left, 20 nodes": {"dpr": off}})
    assert list(table.frame["rule"]) == ["Gauss, 4 nodes or more", "left, 20 nodes"]
    assert list(table.frame["greatest gap"]) == ["0.0000", "0.5000"]
    assert list(table.frame["nodes"]) == ["4.0", "4.0"]
    assert table.numbers == {
        "completeness.dpr.gauss.median": 0, "completeness.dpr.gauss.greatest": 0,
        "completeness.dpr.left.median": 0, "completeness.dpr.left.greatest": 0.5,
    }  # fmt: skip


def test_the_neuron_that_all_questions_use_is_the_first_outlier(compared):
    assert chapter.outliers(compared)[0] == 0
    assert len(chapter.outliers(compared)) == 10


def test_concentration_is_measured_by_site_and_without_outliers(compared):
    table = chapter.measures(compared, [1, 2, 3])
    assert list(table.frame["neurons"].unique()) == ["intermediate", "output", "all", "all, trimmed"]
    assert list(table.frame["measure"][:4]) == ["participation", "entropy", "gini", "mass in top"]
    assert table.numbers["measures.dpr.all.participation"].value == 1
    assert table.numbers["measures.trimmed.dpr.all.participation"].value == 0.25  # two of eight questions have any left
    assert not any(id_.startswith(("trimmed", "measures.trimmed.dpr.output")) for id_ in table.numbers)


def test_controls_have_a_row_a_model(active):
    table = chapter.controls(active)
    assert list(table.frame["model"]) == [exhibits.label(name) for name in active.sites]
    assert list(table.frame["temperature"]) == ["1.00", "2.00", "3.00", "4.00", "5.00"]
    assert list(table.frame.columns[2:]) == [
        "intermediate, any", "intermediate, one", "output, any", "output, one", "sharing"
    ]  # fmt: skip
    assert table.numbers["controls.dpr_minus_shuffled.intermediate.union"].value == 3
    assert table.numbers["controls.shuffled_minus_pretrained.intermediate.union"].value == 0
    assert table.numbers["controls.dpr1_minus_pretrained.output.mean"].value == 0


def test_other_ways_to_count_have_a_row_each(compared):
    few = {"pretrained": SAME, "dpr": SPREAD}
    table = chapter.variants(
        compared,
        {chapter.BASE: few, chapter.MASKED: few},
        {"without outliers": Criterion(0.5, without=(0,))},
    )
    assert list(table.frame.columns) == [
        "way", "intermediate, any", "output, any", "intermediate, one", "output, one"
    ]  # fmt: skip
    assert list(table.frame["way"]) == [chapter.BASE, chapter.MASKED, "without outliers"]
    assert table.numbers["variants.s2_as_above.dpr.intermediate.union"] == 4
    assert table.numbers["variants.s1_masked_lm.dpr_minus_pretrained.intermediate.union"].value == 3
    assert table.numbers["variants.without_outliers.pretrained.intermediate.union"] == 0
    assert table.numbers["variants.without_outliers.dpr_minus_pretrained.intermediate.mean"].value == 0.75


def judged(place: np.ndarray) -> GoldRanks:
    """Ranks among all passages; first among the candidates while among the first 20; margins of 1, then less."""
    return GoldRanks(place, np.where(place < 20, 0, 1), np.where(place < 20, 1.0, 0.2))


def test_causal_effects_are_in_units_of_the_temperature(compared):
    place = np.zeros((1 + 2 * 3 * 2, EXAMPLES), int)
    place[1] = 99  # the top two neurons silenced
    drawn = interventions.causal(compared, {name: judged(place) for name in chapter.PAIR})
    assert drawn.numbers["causal.pretrained.silenced.top.k2.margin"].value == pytest.approx(-0.8)
    assert drawn.numbers["causal.dpr.silenced.top.k2.margin"].value == pytest.approx(-0.4)
    assert drawn.numbers["causal.dpr.doubled.bottom.k5.found"].value == 1
    assert [axes.get_title(loc="left") for axes in drawn.figure.axes] == [
        f"{name}, {action}" for name in ("pre-trained BERT", "DPR") for action in ("silenced", "doubled")
    ]


SILENT = [1, 2, 4]


def losses(lost: list[float]) -> GoldRanks:
    """Questions that are lost at these numbers of silent neurons; 0: never found."""
    return judged(np.array([[0 if n > k else 50 for n in lost] for k in (0, *SILENT)]))


@pytest.fixture
def silenced():
    """DPR keeps what it finds; pre-trained BERT loses it, and finds nothing that requires knowledge."""
    kinds = ["lexical", "lexical", "knowledge_required", "knowledge_required"]
    by_model = {"pretrained": [1, 2, 0, 0], "dpr": [np.inf, 4, np.inf, 1], "shuffled": [1, 1, 2, 2]}
    return Silencing(
        Silent(SILENT, kinds, [10, 11, 12, 13]),
        {(name, order): losses(lost) for name, lost in by_model.items() for order in ("top", "random")},
    )


def test_neurons_are_silenced_by_doubling(compared, monkeypatch):
    monkeypatch.setattr(interventions, "run", one_by_one)
    monkeypatch.setattr(steps, "silence_neurons", lambda task, silent, order: (task.temperature, silent[-1], order))
    made = interventions.silence(compared)
    assert made.judged["dpr", "random"] == (2, 12, "random")
    assert list(made.search.silent) == [1, 2, 4, 8, 12]
    assert {model for model, _ in made.judged} == set(chapter.TRIO)
    assert list(made.search.clusters) == compared.clusters


def test_survival_keeps_kinds_and_meanings_apart(silenced):
    drawn = interventions.survival(silenced)
    assert drawn.numbers["pathways.lexical.dpr.never_lost"].value == 0.5
    assert drawn.numbers["pathways.knowledge_required.pretrained.found"].value == 0
    assert drawn.numbers["pathways.among.lexical.dpr_outlasts_pretrained"] == share(2, 2)
    assert drawn.numbers["pathways.knowledge_required.dpr_outlasts_pretrained"] is None
    assert drawn.numbers["pathways.knowledge_required.dpr_outlasts_shuffled"] == share(1, 2)
    assert set(drawn.points["panel"]) == {"lexical questions", "knowledge-required questions"}
    lines = drawn.points[drawn.points["panel"] == "knowledge-required questions"]["line"]
    assert set(lines) == {  # no curve of what was never found
        "DPR", "DPR (random)", "DPR on shuffled pairs", "DPR on shuffled pairs (random)"
    }  # fmt: skip


def test_half_of_the_margin_is_the_models_own(silenced):
    whole = GoldRanks(np.zeros((4, 1), int), np.zeros((4, 1), int), np.array([[4.0], [3.0], [2.0], [1.0]]))
    (lost,) = Silencing(Silent(SILENT, ["lexical"], [0]), {("dpr", "top"): whole}).lost["pathways.margin"].values()
    assert lost.tolist() == [2]  # at a margin of 2 of 4 no more than half is left
    assert silenced.lost.keys() == interventions.MEANINGS.keys()


def reported(drawn) -> dict[str, Estimate]:
    """The numbers of an exhibit as `Report.numbers` has them."""
    found = {id_: e for id_, e in drawn.numbers.items() if e is not None}
    return {id_: e if isinstance(e, Estimate) else exact(e) for id_, e in found.items()}


def test_survivors_have_a_dash_where_nothing_was_found(silenced):
    table = interventions.survivors(silenced, reported(interventions.survival(silenced)))
    rows = table.frame.set_index(["questions", "model"])
    assert list(rows.loc[("knowledge-required", "pre-trained BERT")][1:]) == ["–"] * 3
    assert rows.loc[("lexical", "DPR on shuffled pairs"), "half are lost at"].startswith("1 [")
    assert len(rows) == 6


def test_outlasting_counts_who_decides(silenced):
    table = interventions.outlasting(silenced, reported(interventions.survival(silenced)))
    assert len(table.frame) == 2 * 3 * 3
    first = table.frame.set_index(["questions", "found means", "one model", "the other"])
    undecided = first.loc[("knowledge-required", "among the first 20 of all passages", "DPR", "pre-trained BERT")]
    assert list(undecided) == [0, 0, "–"]
    decided = first.loc[("lexical", "first of its candidates", "DPR", "pre-trained BERT")]
    assert list(decided) == [2, 2, share(2, 2).brief]


def test_outlasting_in_words_says_what_is_not_decided():
    words = interventions.outlasting_in_words({"pathways.among.knowledge_required.dpr_outlasts_pretrained": HALF})
    assert words.pop("dpr_among") == "0.50 [0.25, 0.75], n = 8"
    assert words.keys() == {"dpr", "dpr_margin", "shuffled", "shuffled_among", "shuffled_margin"}
    assert set(words.values()) == {"(not decided here)"}


def test_patching_goes_both_ways(compared, monkeypatch):
    monkeypatch.setattr(interventions, "run", one_by_one)
    monkeypatch.setattr(steps, "patch_blocks", lambda into, other, sampling, what: (into, other, what))  # noqa: ARG005
    calls = interventions.patch(compared)
    assert calls["dpr", "pretrained", "cls"] == (compared.tasks["dpr"].dual, compared.tasks["pretrained"].dual, "cls")
    place = np.array([[0] * 8, [50] * 8])
    alone = {"causal.dpr.found": HALF, "causal.pretrained.found": HALF}
    drawn = interventions.patching(compared, {key: judged(place) for key in calls}, alone)
    assert drawn.numbers["patching.dpr.feed_forward.block0"].value == 1
    assert drawn.numbers["patching.pretrained.state.block1"].value == 0
    assert len(drawn.numbers) == 2 * 3 * 2
    assert [axes.get_title(loc="left") for axes in drawn.figure.axes] == [
        "pre-trained BERT in DPR",
        "DPR in pre-trained BERT",
    ]


def test_ratios_of_one_world_are_those_on_record():
    kept = {
        "ratios.dpr_over_pretrained.sharing": HALF,
        "ratios.dpr_over_pretrained.block0.output.union": HALF,
        "ratios.t0_01.dpr_over_pretrained.sharing": HALF,
        "figure1.dpr.union": HALF,
    }
    table = chapter.ratios([], ActivitySpec(), kept)
    assert table.title.endswith("(on record, profile full)")
    assert table.frame.to_numpy().tolist() == [["DPR", "pre-trained BERT", "sharing", HALF]]
    assert not table.numbers
    assert chapter.recorded_in_words(kept, "sharing") == str(HALF)
    assert chapter.recorded_in_words({}, "sharing") == "(not on record yet)"


def test_ratios_of_several_worlds_are_reported():
    worlds = [{"pretrained": SAME, "dpr": SPREAD}] * 2
    table = chapter.ratios(worlds, ActivitySpec(threshold=0.5, thresholds=(0.2,)), {})
    assert table.title == "Ratios of models over worlds"
    assert set(table.frame["in"]) <= {what.replace(".", ", ") for what in exhibits.ACROSS}
    assert table.numbers["ratios.dpr_over_pretrained.intermediate.union"].value == pytest.approx(4)
    assert table.numbers["ratios.t0_2.dpr_over_pretrained.intermediate.union"].value == pytest.approx(4)
