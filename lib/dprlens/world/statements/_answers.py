"""Coarse types of answers, so that a false answer is of the type of the right one."""

import re
from collections.abc import Sequence

from dprlens.world.statements._english import (
    BE,
    DIGITS,
    DO,
    HAVE,
    MODALS,
    OF_TIME,
    PREPOSITIONS,
    is_finite,
    tokens_of,
    up_to,
    words_of,
)

TYPES = ("year", "date", "time", "number", "quantity", "person", "agent", "place", "spot", "name", "thing")
_MONTHS = words_of("january february march april may june july august september october november december")
_MONTHS += [month[:3] for month in _MONTHS] + ["sept"]
_NUMBERS = {
    *DIGITS,
    *words_of("thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty"),
    *words_of("seventy eighty ninety hundred thousand million billion trillion and a half"),
}
_PARTICLES = {*words_of("de da di du del della la le van von der den ter bin ibn al el of y and")}
_OF_PERSONS = {
    *words_of(
        "actor actress author artist singer player president king queen writer director person composer poet",
        "scientist character mayor founder guitarist drummer emperor pope philosopher woman man judge senator",
        "governor coach",
    )
}
_OF_PLACES = {
    *words_of(
        "city country state town county place continent province region river island ocean sea lake mountain",
        "capital village street location stadium district park nation territory",
    )
}


def answer_type(question: str, answer: str) -> str:
    """Classify an answer as one of `TYPES`, by its form, and else by the question.

    A person answers a question with "who" or a word such as "actor" and has a name of two to four words; any other
    answer to such a question is an agent (a team, a band, a single name). A place is written with a capital, a spot
    without ("the upper abdomen"); so are a name and a thing, where nothing else determines the type.
    """
    form = form_of(answer)
    which, noun = asked_for(tokens_of(question).low)
    if which == "how many" and form == "year":
        return "number"
    if form:
        return form
    capital = any(word[:1].isupper() for word in answer.split())
    if which == "when" or noun in OF_TIME:
        return "time"
    if which in ("who", "whom", "whose") or noun in _OF_PERSONS:
        return "person" if _is_full_name(answer) else "agent"
    if which == "where" or noun in _OF_PLACES:
        return "place" if capital else "spot"
    return "name" if capital else "thing"


def asked_for(tokens: Sequence[str]) -> tuple[str, str]:
    """Find the question word, in any position, and the noun after "what" or "which".

    "" for what is not there.
    """
    for i, token in enumerate(tokens):
        if token == "how" and {*tokens[i + 1 : i + 2]} & {"many", "much"}:
            return "how many", ""
        if token in ("who", "whom", "whose", "when", "where", "how"):
            return token, ""
        if token in ("what", "which"):
            # of "type of government" the first noun is meant, of "capital city" the last one
            noun = up_to(tokens[i + 1 : i + 5], {*BE, *DO, *HAVE, *MODALS, *PREPOSITIONS}, is_finite)
            return token, noun[-1] if noun else ""
    return "", ""


def form_of(answer: str) -> str | None:
    """Return year, date, number or quantity, where the answer has that form whatever the question."""
    words = re.findall(r"[\w.,']*\w", answer.lower())
    if re.fullmatch(r"(?:c\. ?)?(?:1\d{3}|20\d{2})|\d{1,4} (?:bc|bce|ad|ce)|ad \d{1,4}", answer.lower()):
        return "year"
    if any(word.rstrip(".,") in _MONTHS for word in words) and any(character.isdigit() for character in answer):
        return "date"
    if re.fullmatch(r"(?:the )?(?:early |mid |late |mid-)?(?:1\d|20)\d0s", answer.lower()):
        return "time"
    if not words:
        return None
    number = [word in _NUMBERS or re.fullmatch(r"\d[\d.,]*", word) for word in re.split(r"[\s-]+", " ".join(words))]
    if all(number) and not {*words} <= {"a", "and", "half"}:
        bare = re.fullmatch(r"[\w\s.,'-]+", answer)
        return "number" if bare else "quantity"
    if words[0][0].isdigit() and not re.match(r"\d+(?:st|nd|rd|th)\b", words[0]):
        return "quantity"
    if len(words) > 1 and words[0] in _NUMBERS - {"a", "and", "half"} and answer.islower():
        return "quantity"
    return None


def _is_full_name(answer: str) -> bool:
    words = re.sub(r"[,(].*", "", answer).split()
    named = [word[0].isupper() or word.lower() in _PARTICLES for word in words]
    ends = words and words[0][0].isupper() and words[0] != "The" and words[-1][0].isupper()
    return bool(2 <= len(words) <= 4 and all(named) and ends)
