"""The README's table of results: what the committed results say now, in its place, as text."""

from dataclasses import replace
from pathlib import Path

import pytest

from dprlens import cli
from dprlens.book import readme
from dprlens.book.notebooks import Mistake, Notebook, discover
from dprlens.book.pages.scorecard import BuiltResults, read_results
from dprlens.book.readme import BEGIN, END, results_table, with_results
from dprlens.intervals import Estimate
from dprlens.paper import CLAIMS

REPOSITORY = Path(__file__).resolve().parents[2]
CHAPTERS = discover(REPOSITORY / "notebooks")
CLAIM = next(claim for claim in CLAIMS if claim.id == "C.1")
NOTHING = BuiltResults("full", {}, frozenset(), {})


def found(low, high):
    """Results with the one number that decides `CLAIM`."""
    return BuiltResults(
        "small", {CLAIM.check.needs[0]: Estimate((low + high) / 2, low, high, 100)}, frozenset({"bound"}), {}
    )


def line(table, text):
    (row,) = [row for row in table.splitlines() if text in row]
    return row


def test_the_readme_says_what_the_committed_results_say():
    text = (REPOSITORY / "README.md").read_text("utf-8")
    small, full = (read_results(REPOSITORY / "results", name) for name in ("small", "full"))
    assert with_results(text, CHAPTERS, small, full) == text, "run `python -m dprlens readme` and commit the README"


@pytest.mark.parametrize(
    ("low", "high", "cell"),
    [
        (0.4, 0.6, ("**✓ holds**: ", "0.50 [0.40, 0.60], n = 100.")),
        (-0.6, -0.4, ("**✗ does not hold**: ", "−0.50 [−0.60, −0.40], n = 100.")),
        (-0.1, 0.3, ("**? cannot tell here**: ", "0.10 [−0.10, 0.30], n = 100.")),
    ],
)
def test_a_row_has_the_verdict_its_number_and_the_way_to_the_chapter(low, high, cell):
    row = line(results_table(CHAPTERS, found(low, high), NOTHING), CLAIM.text)
    claim, said, objection = row.strip("| ").split(" | ")
    assert claim.endswith("(notebooks/B_1_knowledge_bound.ipynb)")
    assert said.startswith(cell[0])
    assert said.endswith(cell[1])
    assert objection == CLAIM.objection


def test_the_record_stands_beside_where_it_is_another_experiment():
    other = BuiltResults("full", {CLAIM.needs[0]: Estimate(0.5, 0.4, 0.6, 900)}, frozenset(), {})
    row = line(results_table(CHAPTERS, found(-0.1, 0.3), other), CLAIM.text)
    assert "On record: **✓ holds**: 0.50 [0.40, 0.60], n = 900. |" in row


def test_only_what_is_between_the_comments_changes():
    text = f"before\n{BEGIN}\nstale\n{END}\nafter\n"
    written = with_results(text, CHAPTERS, found(0.4, 0.6), NOTHING)
    assert written.startswith(f"before\n{BEGIN}\n| Claim | Verdict")
    assert written.endswith(f"|\n{END}\nafter\n")
    assert "stale" not in written
    assert with_results(written, CHAPTERS, found(0.4, 0.6), NOTHING) == written


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}", f"{BEGIN} {END} {END}"])
def test_a_readme_without_one_place_for_it_is_a_mistake(text):
    with pytest.raises(Mistake, match="no single place"):
        with_results(text, CHAPTERS, found(0.4, 0.6), NOTHING)


def test_a_claim_is_text_in_its_cell(monkeypatch):
    text = "a | b ](https://c) <script> $d$ `e` **f**\n\n# g"
    hostile = replace(CLAIM, id="X", text=text, objection=text)
    monkeypatch.setattr(readme, "BY_ID", {"X": hostile})
    monkeypatch.setattr(readme, "GLANCE", ("X",))
    (row,) = results_table([Notebook("B", Path("B.ipynb"), "B", (), ("bound",), ())], NOTHING, NOTHING).splitlines()[2:]
    shown = r"a \| b \](https://c) \<script\> \$d\$ \`e\` \*\*f\*\* \# g"
    assert row == f"| [{shown}](notebooks/B.ipynb) | – | {shown} |"


def test_the_command_writes_it(tmp_path, monkeypatch):
    (tmp_path / "notebooks").symlink_to(REPOSITORY / "notebooks")
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["readme"]) == 0
    assert "(notebooks/B_1_knowledge_bound.ipynb) | – | " in line(
        (tmp_path / "README.md").read_text("utf-8"), CLAIM.text
    )
    (tmp_path / "README.md").write_text("")
    assert cli.main(["readme"]) == 2
