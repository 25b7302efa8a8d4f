"""The short list: each claim stands under its verdict, and says where the record knows more."""

from dataclasses import replace

import pytest

from dprlens.book.pages import outcome as module
from dprlens.book.pages.outcome import GROUPS, SHORT, outcome, standing
from dprlens.book.pages.scorecard import BuiltResults
from dprlens.intervals import Estimate
from dprlens.paper import CLAIMS, OWN_CLAIMS
from dprlens.report.report import SIGNS, plain

CLAIM = next(claim for claim in CLAIMS if claim.id == "C.1")
NOTHING = BuiltResults("small", {}, frozenset(), {})


def found(profile, low, high):
    """Results with the one number that decides `CLAIM`."""
    number = Estimate((low + high) / 2, low, high, 100)
    return BuiltResults(profile, {CLAIM.check.needs[0]: number}, frozenset({"bound"}), {})


def groups(page):
    """The lines of each group."""
    parts = page.split("## ")[1:]
    return {part.partition("\n")[0]: [line for line in part.splitlines() if line.startswith("* ")] for part in parts}


@pytest.mark.parametrize(
    ("low", "high", "title"),
    [(0.4, 0.6, "What holds"), (-0.6, -0.4, "What does not hold"), (-0.1, 0.3, "What cannot be told here")],
)
def test_a_claim_stands_under_its_verdict_with_its_number(low, high, title):
    page = groups(outcome(found("small", low, high), NOTHING._replace(profile="full")))
    (line,) = [line for lines in page.values() for line in lines if plain(CLAIM.text) in line]
    assert "{numref}`bound`" in line
    assert line in page[title]
    assert "n\u00a0&#61;\u00a0100" in line
    assert "difference of AUC" in line
    assert sum(map(len, page.values())) == len(SHORT)


def test_what_is_open_here_says_what_the_record_says():
    open_here, on_record = found("small", -0.1, 0.3), found("full", 0.4, 0.6)
    assert outcome(open_here, on_record).count("on record ✓ holds") == 1
    assert "on record" not in outcome(found("small", 0.4, 0.6), on_record)  # decided here
    assert "on record" not in outcome(open_here, found("full", -0.1, 0.3))  # open there too
    assert "on record" not in outcome(found("full", -0.1, 0.3), on_record)  # the record itself


def test_without_results_everything_is_open_and_nothing_is_referred_to():
    page = outcome(NOTHING, NOTHING)
    assert "numref" not in page
    untested = sum(claim.check is None for claim in (*CLAIMS, *OWN_CLAIMS) if claim.id in SHORT)
    assert {title: len(lines) for title, lines in groups(page).items()} == {
        "What holds": 0,
        "What does not hold": 0,
        "What cannot be told here": len(SHORT) - untested,
        "What is not tested yet": untested,
    }
    assert page.count("Nothing on the short list.") == 2


def test_ours_is_told_from_the_papers():
    lines = groups(outcome(NOTHING, NOTHING))["What cannot be told here"]
    assert sum("*(ours)*" in line for line in lines) == sum(id_ in {c.id for c in OWN_CLAIMS} for id_ in SHORT)


def test_the_short_list_is_of_claims_once_each_and_no_claim_about_sizes():
    sizes = {claim.id: claim.size for claim in (*CLAIMS, *OWN_CLAIMS)}
    assert len(set(SHORT)) == len(SHORT)
    assert not any(sizes[id_] for id_ in SHORT)
    assert set(GROUPS) == set(SIGNS)


def test_the_sentence_counts_every_claim_of_the_paper():
    said = standing(found("small", 0.4, 0.6), NOTHING)
    untested = sum(claim.check is None for claim in CLAIMS)
    assert f"Of {len(CLAIMS)} claims" in said
    assert "**1 hold**" in said
    assert "**0 do not**" in said
    assert f"{len(CLAIMS) - 1 - untested} cannot be told here (5 of them" in said
    assert f"{untested} are not tested yet" in said
    assert "height" not in standing(NOTHING._replace(profile="paper"), NOTHING)


def test_numbers_over_worlds_decide_where_they_are_on_record():
    here = found("small", 0.4, 0.6)
    over = found("full", -0.6, -0.4)._replace(numbers={CLAIM.across.needs[0]: Estimate(-0.5, -0.6, -0.4, 5)})
    assert "**0 hold**" in standing(here, over)
    assert "**1 do not**" in standing(here, over)
    (line,) = [line for line in outcome(here, over).splitlines() if plain(CLAIM.text) in line]
    assert "Over worlds and networks" in line
    assert "on record" not in line


def test_text_is_shown_as_text(monkeypatch):
    hostile = replace(CLAIM, id="X", text="<script>{{ x }} $a$ [b](c) `d`\n\n# e")
    monkeypatch.setattr(module, "BY_ID", {"X": hostile})
    monkeypatch.setattr(module, "SHORT", ("X",))
    page = outcome(NOTHING, NOTHING) + standing(NOTHING._replace(profile="<script>"), NOTHING)
    for markup in ("<script>", "{{", "$a$", "[b](c)", "`d`", "# e"):
        assert markup not in page
