"""The scorecard: verdicts come from results files, and from nowhere else."""

import json
from pathlib import Path

import pytest

from dprlens.book.notebooks import discover
from dprlens.book.pages.outcome import outcome
from dprlens.book.pages.scorecard import GLANCE, LETTERS, SECTIONS, anchor, glance, read_results, scorecard_page
from dprlens.book.readme import results_table
from dprlens.paper import CLAIMS, OWN_CLAIMS
from dprlens.report.report import plain

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CLAIM = next(claim for claim in CLAIMS if claim.id == "C.1")


def results(folder, profile, value, exhibit="bound", n=100, world="a"):
    """Results with the one number that decides `CLAIM`."""
    number = {"ours": value, "low": value - 0.05, "high": value + 0.05, "n": n, "paper": None}
    found = {exhibit: {"numbers": {CLAIM.check.needs[0]: number}, "claims": []}}
    content = {"profile": profile, "world": {"digest": world, "passages": 9}, "exhibits": found}
    (folder / profile).mkdir(exist_ok=True)
    (folder / profile / "B_1_knowledge_bound.json").write_text(json.dumps(content))
    return read_results(folder, profile)


def block(page, id_):
    """What the page says on one claim."""
    (found,) = [part for part in page.split(":::{container} ") if f" [{id_.replace('.', '&#46;')}](#claim-" in part]
    return found.partition("\n:::")[0]


@pytest.mark.parametrize(
    ("value", "css", "word"),
    [(0.5, "holds", "holds"), (-0.5, "fails", "does not hold"), (0.0, "unclear", "cannot tell")],
)
def test_a_verdict_is_that_of_the_number(tmp_path, value, css, word):
    here = results(tmp_path, "small", value)
    said = block(scorecard_page([], here, read_results(tmp_path, "full")), "C.1")
    assert said.startswith(f"verdict {css}\n")
    assert word in said
    assert "{numref}`bound`" in said
    nothing = read_results(tmp_path, "full")
    assert word in next(line for line in glance(here, nothing).splitlines() if plain(CLAIM.text) in line)
    assert f"Strongest objection: {plain(CLAIM.objection)}" in said


@pytest.mark.slow
def test_what_is_on_record_speaks_where_it_can(tmp_path):
    here, full = results(tmp_path, "small", -0.5), results(tmp_path, "full", 0.5, n=200)
    assert "On record: *holds*" in block(scorecard_page([], here, full), "C.1")
    assert "On record" not in block(scorecard_page([], here, full), "C.2")
    assert "On record" not in scorecard_page([], full, full)


@pytest.mark.parametrize(("n", "world", "again"), [(100, "a", True), (200, "a", False), (100, "b", False)])
def test_the_same_cases_of_the_same_world_are_no_second_witness(tmp_path, n, world, again):
    here, full = results(tmp_path, "small", 0.0), results(tmp_path, "full", 0.5, n=n, world=world)
    said = block(scorecard_page([], here, full), "C.1")
    assert ("On record, the same experiment on the same data: *holds*" in said) == again
    assert ("On record: *holds*" in said) != again
    assert ("on record ✓ holds" in outcome(here, full)) != again
    assert ("On record: " in results_table(discover(NOTEBOOKS), here, full)) != again


def test_the_papers_own_numbers_speak_where_they_can(tmp_path):
    nothing = read_results(tmp_path, "small")
    page = scorecard_page([], nothing, nothing)
    assert "The paper's own numbers: *holds*" in block(page, "S2.1")
    assert "The paper's own numbers" not in block(page, "C.1")


def test_the_replication_speaks_where_it_can(tmp_path):
    nothing = read_results(tmp_path, "small")
    page = scorecard_page([], nothing, nothing)
    assert "The replication's: *does not hold*" in block(page, "S2.7")
    assert "The replication's" not in block(page, "S2.8")
    assert "The replication's" not in block(page, "C.1")


def test_without_results_nothing_is_decided_and_nothing_is_referred_to(tmp_path):
    nothing = read_results(tmp_path, "small")
    page = scorecard_page([], nothing, nothing) + glance(nothing, nothing)
    assert "numref" not in page
    assert "verdict holds" not in page
    assert "verdict fails" not in page
    untested = sum(claim.check is None for claim in CLAIMS)
    assert page.count(":::{container} verdict unclear") == len(CLAIMS) - untested
    assert page.count(":::{container} verdict untested") == untested
    assert f"| of the paper | 0 | 0 | {len(CLAIMS) - untested} | {untested} |" in page
    assert f"| our own | 0 | 0 | {len(OWN_CLAIMS)} | 0 |" in page
    assert "of the 0 claims decided here" in page


def test_a_letter_is_explained_and_a_claim_has_a_place_of_its_own(tmp_path):
    nothing = read_results(tmp_path, "small")
    page = scorecard_page(discover(NOTEBOOKS), nothing, nothing)
    for claim in (*CLAIMS, *OWN_CLAIMS):
        assert claim.id[0] in LETTERS
        assert page.count(f":name: {anchor(claim)}\n") == 1


def test_how_many_verdicts_may_be_false_goes_with_the_number_decided(tmp_path):
    here = results(tmp_path, "small", 0.5)
    page = scorecard_page([], here, read_results(tmp_path, "full"))
    assert "of the 1 claims decided here, up to 0.0 verdicts" in page


def test_every_claim_has_a_section_and_the_front_page_ten():
    assert {claim.section.partition(",")[0] for claim in CLAIMS} <= set(SECTIONS)
    assert len(set(GLANCE)) == 10
    assert set(GLANCE) <= {claim.id for claim in (*CLAIMS, *OWN_CLAIMS)}
