"""Numbers and verdicts in the prose of the book: a page names them by id, and what the results files say comes in.

    {result}`bound.difference.top20`   the number of this build, with its interval and n
    {record}`bound.difference.top20`   the number on record for the profile `full`
    {verdict}`C.1`                     this build's verdict on a claim

They look like MyST's roles and are replaced while the book is staged, so that no page types a result.
"""

import re

from dprlens.book.notebooks import Mistake
from dprlens.book.pages.scorecard import BuiltResults, sign, unbroken, with_record
from dprlens.intervals import Estimate
from dprlens.paper import BY_ID
from dprlens.report.report import plain

QUOTE = re.compile(r"\{(result|record|verdict)\}`([^`\n]*)`")


def with_quotes(text: str, here: BuiltResults, full: BuiltResults) -> str:
    """A page's text with its numbers and verdicts in place of their names; Mistake for a claim that there is not.

    A number that the results do not have is said to be not measured here, or not on record.
    """
    judged = with_record(here, full)

    def said(quote: re.Match) -> str:
        kind, id_ = quote.groups()
        if kind == "result":
            return as_markdown(here.numbers[id_]) if id_ in here.numbers else "*not measured here*"
        if kind == "record":
            return as_markdown(full.numbers[id_]) if id_ in full.numbers else "*not on record*"
        if id_ not in BY_ID:
            raise Mistake(f"a page asks for the verdict on {id_!r}, which is no claim: {', '.join(BY_ID)}")
        return f"**{sign(judged.verdict(BY_ID[id_]))}**"

    return QUOTE.sub(said, text)


def as_markdown(number: Estimate) -> str:
    """A number for prose, as MyST: a count in full, all else with what is known of it, not broken before its n."""
    whole = number.n == 0 and float(number.value).is_integer()
    return plain(f"{number.value:,.0f}" if whole else unbroken(str(number)))
