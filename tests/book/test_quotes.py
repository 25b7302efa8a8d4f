"""Numbers and verdicts in prose: what the results say under an id, and nothing where they say nothing."""

import html
from pathlib import Path

import pytest

from dprlens.book.notebooks import Mistake
from dprlens.book.pages.quotes import QUOTE, as_markdown, with_quotes
from dprlens.book.pages.scorecard import BuiltResults, read_results
from dprlens.intervals import Estimate, exact
from dprlens.paper import CLAIMS, OWN_CLAIMS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted((REPOSITORY / "book").glob("*.md"))
HERE = BuiltResults(
    "small", {"a.b": Estimate(0.412, 0.37, 0.45, 600), "bound.difference.top20": exact(0.5)}, frozenset(), {}
)
FULL = BuiltResults("full", {"a.b": Estimate(0.5, 0.4, 0.6, 10)}, frozenset(), {})


def read(text):
    """As a reader sees it."""
    return html.unescape(with_quotes(text, HERE, FULL)).replace("\u00a0", " ")


def test_a_number_comes_with_its_interval_and_n():
    assert (
        read("found {result}`a.b`, once {record}`a.b`.")
        == "found 0.41 [0.37, 0.45], n = 600, once 0.50 [0.40, 0.60], n = 10."
    )


def test_what_is_not_there_is_said_to_be_missing():
    assert read("{result}`a.c` and {record}`a.c`") == "*not measured here* and *not on record*"


@pytest.mark.parametrize(("value", "sign"), [(0.5, "✓ holds"), (-0.5, "✗ does not hold")])
def test_a_verdict_is_that_of_the_results(value, sign):
    (needed,) = next(claim.needs for claim in CLAIMS if claim.id == "C.1")
    here = HERE._replace(numbers={needed: exact(value)})
    assert with_quotes("{verdict}`C.1`", here, FULL) == f"**{sign}**"
    assert with_quotes("{verdict}`C.2`", here, FULL) == "**? cannot tell here**"


def test_a_claim_that_there_is_not_is_a_mistake():
    with pytest.raises(Mistake, match=r"'X\.9', which is no claim"):
        with_quotes("{verdict}`X.9`", HERE, FULL)


def test_all_else_stays_as_it_is():
    text = "{term}`CLS` {numref}`bound` `{{ x }}` {glue:text}`a.b` $a$ {result} `a.b`\n"
    assert with_quotes(text, HERE, FULL) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (exact(1192.0), "1,192"),
        (exact(4.0), "4"),
        (exact(0.1), "0.10"),
        (Estimate(-5, -6, -4, 9), "−5.00 [−6.00, −4.00], n = 9"),
    ],
)
def test_counts_are_whole(number, text):
    assert html.unescape(as_markdown(number)).replace("\u00a0", " ") == text


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_quote_in_the_book_finds_what_it_names(page):
    """At `small`, the profile that the book shows; so a number that was renamed does not turn into “not measured”."""
    known = {
        "result": read_results(REPOSITORY / "results", "small").numbers,
        "record": read_results(REPOSITORY / "results", "full").numbers,
        "verdict": {claim.id for claim in (*CLAIMS, *OWN_CLAIMS)},
    }
    assert [quote for quote in QUOTE.findall(page.read_text("utf-8")) if quote[1] not in known[quote[0]]] == []
