"""Bad rows: an error in mode "strict", a count in mode "skip"."""

import pytest

from dprlens.world.natural.bad_rows import PLACES, BadRows, Finding, shorter


def test_strict_refuses_a_bad_row_at_once(refused):
    with refused("a.tsv, line 7", "no text", "'Ada'", "skip"):
        BadRows().bad("a.tsv", "line", 7, "no text", "Ada")


def test_skip_counts_bad_rows_and_keeps_the_first_places():
    findings = BadRows("skip")
    for place in range(9):
        findings.bad("a.tsv", "line", place, "no text")
    findings.bad("b.tsv", "line", 3, "no text")
    findings.kept("a.tsv", "line", 4, "no title")
    assert findings.rows() == (
        Finding("a.tsv", "no text", True, 9, "line", tuple(range(PLACES))),
        Finding("b.tsv", "no text", True, 1, "line", (3,)),
        Finding("a.tsv", "no title", False, 1, "line", (4,)),
    )


def test_what_is_left_out_or_kept_is_counted_in_either_mode():
    for mode in ("strict", "skip"):
        findings = BadRows(mode)
        findings.left_out("a", "record", 0, "x")
        findings.kept("a", "record", 0, "x")
        assert [(row.left_out, row.times) for row in findings.rows()] == [(True, 1), (False, 1)]


def test_findings_of_another_time_are_added_up():
    findings = BadRows()
    findings.kept("a", "record", 1, "x")
    findings.add(
        [Finding("a", "x", False, 10, "record", (2, 3, 4, 5, 6)), Finding("b", "x", False, 2, "record", (0, 1))]
    )
    assert [(row.times, row.places) for row in findings.rows()] == [(11, (1, 2, 3, 4, 5)), (2, (0, 1))]


def test_an_unknown_mode_is_refused(refused):
    with refused("'lenient'", "strict, skip"):
        BadRows("lenient")


@pytest.mark.parametrize("value", ["x" * 10**6, "a\nb\x1b[0m", "\ud800", ["é"] * 1000, None, {"a": 1}])
def test_values_from_files_are_shown_short_and_harmless(value):
    shown = shorter(value)
    assert len(shown) <= 60
    assert shown.isprintable()
    shown.encode()
