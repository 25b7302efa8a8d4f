"""The page of printed numbers: each of the paper's numbers once, ours beside it only where it was measured."""

import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from dprlens.book.notebooks import Notebook
from dprlens.book.pages import printed_numbers
from dprlens.book.pages.printed_numbers import printed_page
from dprlens.book.pages.scorecard import BuiltResults, read_results
from dprlens.paper import TextNumber, numbers, text_numbers

NOTEBOOK = Notebook("02_probes", Path("02_probes.ipynb"), "Probes", (), ("table1",), ())
NUMBER = "table1.n2.pretrained.layer12"
HOSTILE = "<script>alert(1)</script> {{ x }} $a$ | `b` [c](d) ::: \u202e"


def results(folder, profile, found, exhibit="table1"):
    """Results of one profile: `found` has a value, an interval and n by id."""
    kept = {
        name: dict(zip(("ours", "low", "high", "n"), number, strict=True), paper=None) for name, number in found.items()
    }
    (folder / profile).mkdir()
    content = {"profile": profile, "exhibits": {exhibit: {"numbers": kept, "claims": []}}}
    (folder / profile / "02_probes.json").write_text(json.dumps(content))
    return read_results(folder, profile)


def rows(page):
    """The cells of the page's tables, as a reader sees them, by what the first says."""
    lines = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| :")]
    cells = [
        [html.unescape(cell.strip()).replace("\u00a0", " ") for cell in line.strip("|").split("|")] for line in lines
    ]
    return {row[0]: row[1:] for row in cells if row[0] != "Number"}


@pytest.fixture
def nothing(tmp_path):
    return read_results(tmp_path, "small")


def test_every_number_of_the_paper_stands_there_once(nothing):
    page = printed_page([], nothing, nothing._replace(profile="full"))
    found = rows(page)
    assert len(found) == len(numbers()) + len(text_numbers()) + len(printed_numbers.FIGURES)
    tables = re.split(r"^## ", page, flags=re.M)
    for exhibit in printed_numbers.NOTES:
        (part,) = [table for table in tables if table.startswith(f"Table {exhibit[-1]}\n")]
        assert len(rows(part)) == sum(id_.startswith(f"{exhibit}.") for id_ in numbers())
    assert found["N = 2, pre-trained BERT, layer 12"] == ["0.84", "0.60", "not measured here", "–"]
    assert found["N = 2, pre-trained BERT, probe not trained, layer 11"][:2] == ["0.54", "–"]
    assert found["MEND, facts added: off-target flips of the probe"][0] == "592"
    assert found["MEND, facts removed: of these, share after DPR training"][0] == "1.00"
    assert (
        found["q7 “when did wesley leave last of the summer wine”, pre-trained BERT: answer in the first passage"][0]
        == "yes"
    )
    assert found["Section 4.1: questions whose facts are added"][0] == "284"


def test_ours_stands_where_it_was_measured_with_interval_and_n(tmp_path):
    here = results(
        tmp_path, "small", {NUMBER: (0.612, 0.58, 0.64, 700), "table3.mend.off_target_flips": (1855, None, None, None)}
    )
    full = results(tmp_path, "full", {NUMBER: (0.655, 0.63, 0.68, 900)})
    found = rows(printed_page([NOTEBOOK], here, full))
    assert found["N = 2, pre-trained BERT, layer 12"][2:] == [
        "0.61 [0.58, 0.64], n = 700",
        "0.66 [0.63, 0.68], n = 900",
    ]
    assert found["MEND, facts added: off-target flips of the probe"][1:] == ["1,855", "–"]
    assert sum("not measured here" in cell for row in found.values() for cell in row) > 200


def test_an_exhibit_is_referred_to_only_where_it_is(tmp_path, nothing):
    here = results(tmp_path, "small", {NUMBER: (0.6, 0.5, 0.7, 10)})
    page = printed_page([NOTEBOOK], here, nothing)
    assert "{numref}`table1`, in [Probes](../notebooks/02_probes.ipynb)" in page
    assert page.count("This build does not have the exhibit.") == 3
    assert "numref" not in printed_page([NOTEBOOK], nothing, nothing)


def test_the_record_is_not_set_beside_itself(tmp_path):
    full = results(tmp_path, "full", {NUMBER: (0.6, 0.5, 0.7, 10)})
    assert "On record" not in printed_page([], full, full)
    assert rows(printed_page([], full, full))["N = 2, pre-trained BERT, layer 12"][2:] == ["0.60 [0.50, 0.70], n = 10"]


def test_what_comes_from_data_is_shown_as_text(nothing, monkeypatch):
    queries = pd.DataFrame({"question": [f"q{i}" for i in range(1, 9)], "query": HOSTILE})
    monkeypatch.setattr(printed_numbers, "titles", lambda: queries)
    monkeypatch.setattr(printed_numbers, "text_numbers", lambda: (TextNumber("9", HOSTILE, HOSTILE, "result", ()),))
    notebook = NOTEBOOK._replace(title=HOSTILE)
    page = printed_page([notebook], BuiltResults(HOSTILE, {}, frozenset({"table1"}), {}), nothing)
    assert f"Section 9: {HOSTILE.strip()}" in rows(page)
    ours = page.replace(printed_numbers.SCRIPT, "")
    for markup in ("<script>", "{{", "$a$", "`b`", "[c](d)"):
        assert markup not in ours
    assert ours.count("\n:::\n") + ours.endswith("\n:::\n") >= 6  # containers end where they should
