"""The paper's numbers against its text, and every claim against numbers that make it true and false."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from dprlens import paper
from dprlens.intervals import Estimate, exact
from dprlens.paper import CLAIMS, FAILS, HOLDS, OPEN, OWN_CLAIMS, UNTESTED, _reading, own_reading, replicated_reading
from dprlens.paper._reading import row
from dprlens.paper.numbers import FOLDER

REPOSITORY = Path(__file__).resolve().parents[2]
READINGS = {one.id: one for one in own_reading()}
ALL_CLAIMS = (*CLAIMS, *OWN_CLAIMS)


# --- numbers ---


def test_every_cell_of_every_table_is_there():
    table1 = {
        f"table1.n{n}.{model}.layer{layer}"
        for n in range(2, 6)
        for model in ("pretrained", "dpr_query", "dpr_context", *(["untrained"] if n == 2 else []))
        for layer in range(13)
    }
    table2 = {
        f"table2.q{q}.{model}_{what}" for q in range(1, 9) for model in ("bert", "dpr") for what in ("top1", "strong")
    }
    edits = {
        f"{table}.{editor}.{column}"
        for table, done in (("table3", "added"), ("table4", "removed"))
        for editor in ("transformer_patcher", "malmen", "mend")
        for column in (f"probing_{done}", "off_target_flips", f"dpr_{done}", "off_target_edits")
    }
    assert set(paper.numbers()) == table1 | table2 | edits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("table1.n2.untrained.layer11", 0.54),
        ("table1.n2.pretrained.layer12", 0.84),
        ("table1.n2.dpr_query.layer12", 0.82),
        ("table1.n4.pretrained.layer8", 0.56),
        ("table1.n5.dpr_context.layer10", 0.60),
        ("table2.q6.dpr_strong", 1522),
        ("table2.q7.bert_top1", 1),
        ("table3.transformer_patcher.dpr_added", 0.44),
        ("table3.mend.off_target_flips", 592),
        ("table4.malmen.dpr_removed", 0.81),
        ("table4.mend.off_target_edits", 252),
    ],
)
def test_cells_are_as_printed(name, value):
    assert paper.numbers()[name] == value


def test_shares_are_fractions_and_the_consolidated_row_stands_under_both_towers():
    assert all(0 <= v <= 1 for k, v in paper.numbers().items() if re.search(r"layer|added$|removed$|top1$", k))
    for n in range(2, 6):
        np.testing.assert_array_equal(row(n, "dpr_query"), row(n, "dpr_context"))


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "table4"])
def test_no_id_stands_twice_in_a_file(name):
    with (FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
        ids = [line[0] for line in csv.reader(file) if not line[0].startswith("#")][1:]
    assert len(ids) == len(set(ids)) > 0
    assert all(i.startswith(f"{name}.") for i in ids)


def test_the_numbers_cannot_be_changed():
    with pytest.raises(TypeError):
        paper.numbers()["table1.n2.pretrained.layer12"] = 1.0


def test_table_2_has_eight_questions_with_five_titles_of_each_model():
    titles = paper.titles()
    assert (titles.groupby(["question", "model"])["rank"].apply(list).map(lambda r: r == [1, 2, 3, 4, 5])).all()
    assert len(titles) == 80
    assert titles.iloc[-1].to_dict() == {
        "question": "q8",
        "query": "when did mozart compose his first piece of music",
        "model": "dpr",
        "rank": 5,
        "title": "Wolfgang Amadeus Mozart",
    }
    assert titles["title"].str.contains("Queensrÿche").sum() == 1


def test_table_2_shows_two_questions_in_each_cell_of_ticks_and_crosses():
    cells = [(paper.numbers()[f"table2.q{q}.bert_top1"], paper.numbers()[f"table2.q{q}.dpr_top1"]) for q in range(1, 9)]
    assert sorted(cells) == [(0, 0)] * 2 + [(0, 1)] * 2 + [(1, 0)] * 2 + [(1, 1)] * 2


def test_the_replication_has_thirteen_layers_of_each_of_48_rows_and_starts_at_chance():
    frame = paper.replication()
    rows = frame.groupby(["dataset", "pooling", "n_passages", "model"])["layer"].apply(list)
    assert len(rows) == 48
    assert all(layers == list(range(13)) for layers in rows)
    start = frame[(frame.layer == 0) & (frame.pooling == "cls")]
    off = abs(start.accuracy - 1 / start.n_passages).groupby(start.dataset).max()
    assert off["nq"] < 0.005  # these two bounds are what `replication` says of itself
    assert off["msmarco"] < 0.0065
    last = frame.query("dataset == 'nq' and pooling == 'cls' and n_passages == 2 and layer == 12").set_index("model")
    assert last.accuracy["bert-base-uncased"] == pytest.approx(0.60, abs=0.005)
    assert last.accuracy["dpr-context"] == pytest.approx(0.53, abs=0.005)


def test_what_the_text_says_agrees_with_the_tables():
    """Each range in the text is that of a column; the leads are those of Table 1, as far as hundredths tell."""
    text = {(number.section, number.said): number for number in paper.text_numbers()}
    for number in text.values():
        if number.said.endswith("%") and len(number.ids) == 3:
            low, high = re.findall(r"\d+", number.said)
            column = [round(100 * paper.numbers()[id_]) for id_ in number.ids]
            assert (min(column), max(column)) == (int(low), int(high))
    assert [n.said for n in paper.text_numbers() if n.said == str(paper.FACTS)] == ["284", "284"]
    lead = {n: 100 * (row(n, "pretrained") - row(n, "dpr_query"))[12] for n in range(2, 6)}
    assert lead[2] == pytest.approx(1.8, abs=1)
    assert lead[5] == pytest.approx(6, abs=1.1)  # the table's five points
    assert max(lead.values()) == lead[5]


def test_every_number_of_the_text_has_a_kind_and_ids_that_are_reported_or_none():
    assert {number.kind for number in paper.text_numbers()} == {"setting", "result"}
    assert not any(number.ids for number in paper.text_numbers() if number.kind == "setting")
    records = [json.loads(path.read_text("utf-8")) for path in (REPOSITORY / "results").glob("[sf]*/*.json")]
    reported = {id_ for record in records for exhibit in record["exhibits"].values() for id_ in exhibit["numbers"]}
    asked = {id_ for number in paper.text_numbers() for id_ in number.ids}
    # of facts that Transformer-Patcher adds or removes none shows in the probe, so that no share of them can be taken
    assert asked - reported == {"table3.transformer_patcher.dpr_added", "table4.transformer_patcher.dpr_removed"}


# --- the claims: for each, one world in which it is true and one in which it is false ---

TRUE_IN = [  # pattern of claim and id, value in a world where all the claims are true, one where all are false
    (r"P\.1 .*minus_no_query", 0.0, 0.9),  # S2.8 asks for the contrary
    (r"P\.[23] ", 0.0, -0.9),
    (r"S2\.9 .*random_minus_pretrained", -0.1, 0.1),
    (r"S2\.11 ", 0.06, 0.5),
    (r"D\.[1-4] ", 100, -100),
    (r"D\.5 ", -1, 1),
    (r"D\.6 ", 0.3, 0.9),
    (r"reversible\.", 0.5, 0.8),
    (r"dpr_paired_minus_pretrained", 0.1, -0.1),
    (r"pretrained_minus_dpr_query", 0.1, -0.1),
    (r"dpr_query_minus_pretrained_of_signal", 0.0, 0.9),
    (r"dpr_context_minus_dpr_query_of_signal", 0.0, 0.9),
    (r"untrained", 0.5, 0.7),
    (r"\.(pretrained|dpr_query|dpr_context)\.layer0$", lambda n: 1 / int(n[8]), 0.9),
    (r"table1\.n\d_minus_n\d", 0.1, -0.1),
    (r"minus_no_query", 0.1, -0.01),
    (r"S3\.3 .*minus", -5, 5),
    (r"figure2\..*block0\.", -5, 5),
    (r"minus_pretrained\.(block\d+\.)?intermediate", 5, -5),
    (r"over_pretrained\.block\d+\.output", 1.0, 2.0),
    (r"\.sharing", -0.1, 0.1),
    (r"outlasts", 0.8, 0.2),
    (r"more_strong", 0.9, 0.1),
    (r"on_topic", 0.5, -0.5),
    (r"L\.[137] ", 0.0, 0.5),
    (r"L\.[24568] ", 0.3, -0.1),
    (r"S4\..* .*_cloze\.|E\.[245] .*_cloze", 0.95, 0.95),
    (r"_cloze\.", 0.95, 0.5),
    (r"_moved\.", 0.5, 0.5),
    (r"removed_found", -0.2, 0.1),
    (r"S4\.9 table3", 0.9, 0.05),
    (r"S4\.9 table4", 0.1, 0.9),
    (r"S4\.10 table3", 0.1, 0.9),
    (r"S4\.10 table4", 0.9, 0.1),
    (r"agreement", 0.5, -0.5),
    (r"probing_added", 0.55, 0.05),
    (r"dpr_added", 0.4, 0.9),
    (r"probing_removed", 0.13, 0.9),
    (r"dpr_removed", 0.9, 0.1),
    (r"_did|_effect|added_minus_off_target", 0.2, -0.1),
    (r"held_out\.auc", 0.5, 0.9),
    (r"C\.5 ", -0.1, 0.4),
    (r"difference\.auc", 0.3, -0.1),
    (r"held_out_minus_unpretrained", 0.0, 0.2),
    (r"dose\.slope", 0.1, -0.1),
    (r"recall\.known", 0.99, 0.5),
    (r"recall\.held_out", 0.01, 0.3),
    (r"lexical_difference", 0.0, -0.1),
    (r"unpretrained_difference", 0.0, 0.1),
    (r"effect\.false_passage", 0.2, -0.1),
    (r"effect\.true_passage", -0.2, 0.1),
    (r"taught\.full_depth\.difference", 0.2, -0.1),
    (r"surface\.form|form_effect", 0.2, -0.1),
]
TESTED = [claim for claim in ALL_CLAIMS if claim.check]


def invented(claim, which):
    numbers = {}
    for name in claim.needs:
        value = next(rule[1 + which] for rule in TRUE_IN if re.search(rule[0], f"{claim.id} {name}"))
        numbers[name] = exact(value(name) if callable(value) else value)
    return numbers


def ids(claims):
    return [claim.id for claim in claims]


@pytest.mark.parametrize("claim", TESTED, ids=ids(TESTED))
def test_a_claim_holds_where_it_is_true_and_fails_where_it_is_false(claim):
    assert claim.verdict(invented(claim, 0)).verdict == HOLDS
    assert claim.verdict(invented(claim, 1)).verdict == FAILS


@pytest.mark.parametrize("claim", TESTED, ids=ids(TESTED))
def test_a_claim_is_open_if_the_intervals_are_wide_never_vary_or_numbers_are_missing(claim):
    numbers = invented(claim, 0)
    wide = {name: Estimate(value, value - 1e6, value + 1e6, 3) for name, (value, *_) in numbers.items()}
    assert claim.verdict(wide).verdict == OPEN
    constant = {name: Estimate(value, value, value, 50) for name, (value, *_) in invented(claim, 1).items()}
    if claim.id not in ("S4.9", "S4.10"):  # two groups, each with an interval of its own
        assert claim.verdict(constant).verdict == OPEN
    assert claim.verdict({}).verdict == OPEN
    if not any("_cloze" in name for name in numbers):  # arms without numbers test nothing, the others decide
        numbers.popitem()
        assert claim.verdict(numbers).verdict == OPEN


@pytest.mark.parametrize("claim", [c for c in TESTED if c.across], ids=ids(c for c in TESTED if c.across))
def test_numbers_over_worlds_decide_where_they_are_and_the_one_world_stands_beside(claim):
    here = invented(claim, 1)
    over = {}
    for name in claim.across.needs:
        value = invented_over(claim, name)
        over[name] = Estimate(value, value - 0.001, value + 0.001, 5)
    verdict = claim.verdict(here | over)
    assert verdict.verdict == HOLDS
    assert "Over worlds and networks" in verdict.why
    assert "In the world of this page: does not hold" in verdict.why
    assert claim.verdict(here).verdict == FAILS


def invented_over(claim, name):
    """Inside the claim: ratios around 1 where differences are around 0."""
    if name.startswith("ratios."):
        return {"S3.2": 1.0, "S3.3": 0.5, "S3.4": 0.5}.get(claim.id, 2.0)
    value = next(rule[1] for rule in TRUE_IN if re.search(rule[0], f"{claim.id} {name}"))
    return value(name) if callable(value) else value


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.size], ids=ids(c for c in CLAIMS if c.size))
def test_sizes_are_judged_in_the_papers_setting_only(claim):
    verdict = claim.verdict(invented(claim, 0), profile="small")
    assert verdict.verdict == OPEN
    assert "only in the paper's own setting" in verdict.why


def test_a_sentence_without_a_test_says_which_experiment_would_test_it():
    untested = [claim for claim in ALL_CLAIMS if claim.check is None]
    assert ids(untested) == ["S2.10", "S3.8", "S3.9", "S7.1"]
    for claim in untested:
        verdict = claim.verdict({})
        assert verdict.verdict == UNTESTED
        assert claim.experiment
        assert claim.experiment in verdict.why


def test_claims_have_their_own_ids_a_short_sentence_and_an_objection():
    assert len({c.id for c in ALL_CLAIMS}) == len({c.text for c in ALL_CLAIMS}) == len(ALL_CLAIMS)
    for claim in ALL_CLAIMS:
        own = claim in OWN_CLAIMS
        assert re.fullmatch(r"[WKPDEL]\.\d" if own else r"(S[2347]|A|C)\.?\d+(\.\d)?", claim.id)
        assert (claim.section == "–") == own
        assert claim.text.endswith(".")
        assert claim.objection.endswith(".")
        assert len(claim.text) <= 230
        assert all(re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)+", name) for name in claim.needs)
        if claim.exhibit:
            assert (
                any(name.startswith(f"{claim.exhibit}.") for name in claim.needs)
                or claim.check is None
                or (claim.id.startswith(("S4", "E")))
            )


# --- what the paper's own numbers say ---


def test_the_printed_numbers_decide_the_claims_that_need_only_them():
    assert [r for r in READINGS if not r.startswith("R")] == [
        "S2.1",
        "S2.2",
        "S2.3",
        "S2.4",
        "S2.5",
        "S2.6",
        "S2.7",
        "S4.9",
    ]
    assert all(READINGS[i].verdict.verdict == HOLDS for i in READINGS if not i.startswith("R"))


@pytest.mark.parametrize(
    ("n", "bert", "dpr", "ahead"),
    [(2, 0.791, 0.795, (6, 3)), (3, 0.655, 0.668, (8, 3)), (4, 0.570, 0.589, (9, 3)), (5, 0.506, 0.520, (9, 2))],
)
def test_means_over_layers_and_who_is_ahead(n, bert, dpr, ahead):
    """Each side recomputed from the table's text: mean over layers 1–12, layers where DPR leads, where BERT does."""
    a, b = row(n, "pretrained")[1:], row(n, "dpr_query")[1:]
    assert a.mean() == pytest.approx(bert, abs=0.001)
    assert b.mean() == pytest.approx(dpr, abs=0.001)
    assert (int((b - a > 0.001).sum()), int((a - b > 0.001).sum())) == ahead
    assert f"{a.mean():.4f} and {b.mean():.4f} (N = {n})" in READINGS["R1"].verdict.why


def test_the_headline_holds_at_the_last_layer_and_not_over_all_of_them():
    assert READINGS["S2.1"].verdict.verdict == HOLDS
    assert READINGS["R1"].verdict.verdict == FAILS
    assert "6, 8, 9, 9 of 12 layers" in READINGS["R1"].verdict.why


def test_the_lead_of_two_hundredths_is_about_one_standard_error():
    assert READINGS["R2"].verdict.verdict == OPEN
    assert "0.017 if n = 1,000" in READINGS["R2"].verdict.why
    assert "0.009 if n = 3,610" in READINGS["R2"].verdict.why


def test_additions_are_not_all_told_from_a_coin():
    assert READINGS["R3"].verdict.verdict == OPEN
    assert "transformer_patcher 0.54 [0.48, 0.60]" in READINGS["R3"].verdict.why
    assert "mend 0.57 [0.51, 0.63]" in READINGS["R3"].verdict.why


def test_removal_hits_bystanders_as_often_as_targets_or_oftener():
    assert READINGS["R4"].verdict.verdict == OPEN  # it depends on how many questions were evaluated
    assert "20.7 %, 21.7 %, 21.7 % if 3,610" in READINGS["R4"].verdict.why
    assert "11.1 %, 11.6 %, 11.6 % if 6,515" in READINGS["R4"].verdict.why


def test_two_editors_flip_the_same_number_of_other_questions():
    assert READINGS["R5"].verdict.verdict == FAILS
    assert "592 and 592 with facts added, 721 and 722 with facts removed" in READINGS["R5"].verdict.why


def test_no_printed_lead_is_six_points():
    assert READINGS["R6"].verdict.verdict == FAILS
    assert "2, 2, 3, 5 points" in READINGS["R6"].verdict.why


# --- what the replication's numbers say ---


def test_the_replication_decides_what_its_figures_show_clearly():
    found = {one.id: one.verdict.verdict for one in replicated_reading()}
    assert found == {"S2.1": OPEN, "S2.2": OPEN, "S2.4": HOLDS, "S2.5": HOLDS, "S2.6": HOLDS, "S2.7": FAILS}


@pytest.mark.parametrize(("gain", "verdict"), [(0.02, HOLDS), (-0.02, FAILS), (0.009, OPEN), (-0.009, OPEN)])
def test_a_difference_within_the_error_of_reading_decides_nothing(monkeypatch, gain, verdict):
    cells = paper.replication()
    cells["accuracy"] = 0.7 + gain * (cells["model"] == "bert-base-uncased")
    monkeypatch.setattr(_reading, "replication", lambda: cells)
    (found,) = [one for one in replicated_reading() if one.id == "S2.1"]
    assert found.verdict.verdict == verdict
