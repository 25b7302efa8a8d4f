"""Questions turned into declarative sentences: "who wrote photograph" into "▢ wrote photograph".

Rules over word lists (`english`), one function a question word. Where a rule is not sure of the answer's place, it
returns nothing.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dprlens.world.statements._answers import form_of
from dprlens.world.statements._english import (
    ADVERBS,
    BE,
    DETERMINERS,
    DO,
    HAVE,
    MODALS,
    OF_TIME,
    PREPOSITIONS,
    VERBS,
    Tokens,
    is_finite,
    is_participle,
    past_form,
    third_form,
    tokens_of,
    up_to,
    words_of,
)

BLANK = "\0"  # the answer's place in a wording
_RELATIVE = {*words_of("who whom whose that which where when if because")}
_CALLED = {"called", "named", "termed", "nicknamed"}
_TOWARDS = {"go", "move", "travel", "sail", "migrate", "flee", "return"}
_MEASURES = ("tall", "high", "long", "old", "deep", "wide", "far", "big", "large", "heavy", "fast")
_AFTER_THE_VERB = {"times", "years", "days", "hours", "minutes", "miles", "weeks", "months"}
_ALSO_NOUNS = {
    *words_of(
        "open show play air end record act return change walk race rule trade cover love like cost cause vote use",
        "need run fall rise ride set cut hit put split fight drink draw drive border cross pass land host feature",
        "launch form switch drop ban work study date lead control",
    )
}


class _Clause(NamedTuple):
    """A question's words in the order of a statement: subject, verb as the auxiliary had it, rest."""

    subject: str
    verb: str
    rest: tuple[str, ...]
    base: str = ""  # of a full verb

    @property
    def text(self) -> str:
        return " ".join([self.subject, self.verb, *self.rest])

    @property
    def hangs(self) -> bool:
        """True if it ends in the question's preposition: "the pilgrims came from"."""
        return bool(self.rest) and self.rest[-1].lower() in PREPOSITIONS - {"out", "up", "off", "over"}

    def around(self, blank: str) -> str | None:
        """Insert an object into the clause; return None where its place is not clear."""
        if self.hangs or not self.rest:
            return f"{self.text} {blank}"
        if self.base != "do" and self.rest[0].lower() in PREPOSITIONS - {"out", "up", "off", "over"}:
            return " ".join([self.subject, self.verb, blank, *self.rest])
        return None


def _with_do(auxiliary: str, after: Tokens) -> _Clause | None:
    """Form the clause of "did the pilgrims come from": the first verb that does not follow "the" is the verb."""
    places = [
        i
        for i, token in enumerate(after.low)
        if i and token in VERBS and after.low[i - 1] not in DETERMINERS | PREPOSITIONS
    ]
    sure = [i for i in places if after.low[i] not in _ALSO_NOUNS]
    if not places:
        return None
    i = sure[0] if sure else places[-1]
    base = after.low[i]
    verb = {"did": past_form(base), "does": third_form(base), "do": base}.get(auxiliary, f"{auxiliary} {base}")
    return _Clause(after.part(0, i).text, verb, after.words[i + 1 :], base)


def _with_be(be: str, after: Tokens) -> _Clause | None:
    """Form the clause of "was the first telephone made in": the verb goes before the last participle."""
    if _RELATIVE.intersection(after.low) or re.match(r"the (?:\w+ )?time\b", " ".join(after.low)):
        return None
    places = [i for i, token in enumerate(after.low) if i and (is_participle(token) or _is_progressive(token))]
    if places:
        i = places[-1]
        while i > 1 and after.low[i - 1] in ADVERBS:
            i -= 1
        return _Clause(after.part(0, i).text, be, after.words[i:])
    if after.low and after.low[-1] in PREPOSITIONS and (len(after.low) < 4 or after.low[0] in DETERMINERS):
        return _Clause(after.part(0, -1).text, be, after.words[-1:]) if len(after.low) > 1 else None
    return None


def _is_progressive(token: str) -> bool:
    return token in ("coming", "going", "happening", "playing", "airing", "taking", "starting", "living", "working")


class _Undone(NamedTuple):
    """Clauses with a blank for the answer, and noun phrases for the answer, each with its "is" or "was"."""

    plain: Sequence[str] = ()
    noun: Sequence[tuple[str, str]] = ()


def undone(question: str, answer: str) -> _Undone:
    """Turn the question into clauses and noun phrases that do not quote it."""
    asked = tokens_of(question)
    in_place = re.fullmatch(r"(.+ in) (?:what|which) year", question, flags=re.IGNORECASE)
    if in_place:
        return _Undone([f"{in_place[1]} {BLANK}"]) if form_of(answer) == "year" else _Undone()
    if len(asked.low) < 2:
        return _Undone()
    if asked.low[0] in PREPOSITIONS and len(asked.low) > 3 and asked.low[1] in ("what", "which", "whom"):
        return _fronted(asked, answer)
    rules: dict[str, Callable[[Tokens, str], _Undone]]
    rules = {"who": _who, "whom": _who, "when": _when, "where": _where, "what": _what, "which": _what, "how": _how}
    rule = rules.get(asked.low[0])
    return rule(asked, answer) if rule else _Undone()


def clause_of(auxiliary: str, after: Tokens) -> _Clause | None:
    """Form the clause that follows an auxiliary, in the order of a statement.

    None where the rules are not sure, or there is no auxiliary.
    """
    if auxiliary in BE:
        return _with_be(auxiliary, after)
    return _with_do(auxiliary, after) if auxiliary in (*DO, *MODALS) else None


def _who(asked: Tokens, _: str) -> _Undone:
    auxiliary, after = asked.low[1], asked.part(2)
    if auxiliary in BE and after.low:
        return _being(asked, "the one who")
    clause = clause_of(auxiliary, after) if auxiliary not in MODALS else None
    if clause:
        around = clause.around(BLANK)
        return _Undone([around] if around else [], [(f"the one whom {clause.text}", "is")])
    if asked.low[0] == "whom" or auxiliary in ("do", "does"):
        return _Undone()
    rest = asked.part(1).text
    return _Undone([f"{BLANK} {rest}"], [(f"the one who {rest}", "is")])


def _being(asked: Tokens, one: str) -> _Undone:
    """Undo "who is …" and "what is …", whose rest names the answer or predicates something of it."""
    be, after = asked.words[1], asked.part(2)
    first, last = after.low[0], after.low[-1]
    if first in ("it", "there") or be.lower() not in BE:
        return _Undone()
    if last in PREPOSITIONS or last in _CALLED:
        clause = _with_be(be, after)
        return _Undone([f"{clause.text} {BLANK}"]) if clause else _Undone()
    said = f"{be} {after.text}"
    if is_participle(first) or first.endswith("ing") or first in PREPOSITIONS | ADVERBS:
        return _Undone([f"{BLANK} {said}"], [(f"{one} {said}", "is")])
    if last.endswith("ing") and after.low[-2:-1] and after.low[-2] in PREPOSITIONS:  # "known for making"
        clause = _with_be(be, after)
        return _Undone([f"{clause.text} {BLANK}"]) if clause else _Undone()
    bare = asked.low[0] == "what" and first not in DETERMINERS
    if (is_participle(last) and last != "born") or (bare and any(map(is_participle, after.low))):
        return _Undone()  # "what is the word water derived", "what is gold mined in africa"
    if first in DETERMINERS or any("'" in word for word in after.low) or asked.low[0] != "who":
        return _Undone([f"{after.text} {be} {BLANK}"], [(after.text, be)])
    return _Undone([f"{BLANK} {said}"])


def _when(asked: Tokens, answer: str, prefix: int = 1) -> _Undone:
    after = asked.part(prefix + 1)
    auxiliary = asked.low[prefix] if len(asked.low) > prefix else ""
    if not after.low:
        return _Undone()
    form, in_ = form_of(answer), _at_time(answer)
    if auxiliary in BE and re.match(r"the (?:\w+ )?time\b", " ".join(after.low)):
        return _Undone([f"{after.text} {auxiliary} {in_}{BLANK}"] if in_ is not None else [])
    clause = clause_of(auxiliary, after)
    if clause:
        day = "the date on which" if in_ == "on " else "the month in which"
        which = {"year": "the year in which", "date": day}.get(form or "", "the time when")
        plain = [] if in_ is None or clause.hangs else [f"{clause.text} {in_}{BLANK}"]
        return _Undone(plain, [] if clause.hangs else [(f"{which} {clause.text}", "is")])
    named = after.low[0] in DETERMINERS or len(after.low) < 3
    if auxiliary in BE and named and in_ is not None and not _RELATIVE.intersection(after.low):
        return _Undone([f"{after.text} {auxiliary} {in_}{BLANK}"])
    return _Undone()


def _at_time(answer: str) -> str | None:
    """Choose the preposition, with its space, for the answer to "when"; None where that is not clear."""
    low = answer.lower()
    if low.split()[0] in PREPOSITIONS | {"every", "around", "annually", "today", "yesterday", "early", "late", "mid"}:
        return "" if low.split()[0] not in ("early", "late", "mid") else "in "
    form = form_of(answer)
    if form == "date":
        day = re.search(r"\b\d{1,2}(?:st|nd|rd|th)?\b(?!\d)", low)
        return "on " if day else "in "
    return "in " if form == "year" or re.search(r"\d0s$|century$|spring|summer|autumn|fall$|winter", low) else None


def _where(asked: Tokens, answer: str) -> _Undone:
    auxiliary, after = asked.low[1], asked.part(2)
    if not after.low:
        return _Undone()
    in_ = "" if answer.lower().split()[0] in PREPOSITIONS else "in "
    clause = clause_of(auxiliary, after)
    if clause and clause.hangs:
        return _Undone([f"{clause.text} {BLANK}"] if in_ else [])
    if clause:
        towards = "to " if clause.base in _TOWARDS and not clause.rest and in_ else in_
        noun = [(f"the place where {clause.text}", "is")] if in_ else []
        return _Undone([f"{clause.text} {towards}{BLANK}"], noun)
    named = after.low[0] in DETERMINERS or len(after.low) < 3
    if auxiliary in BE and named and not _RELATIVE.intersection(after.low):
        return _Undone([f"{after.text} {auxiliary} {in_}{BLANK}"])
    return _Undone()


def _what(asked: Tokens, answer: str) -> _Undone:
    if asked.low[1] in BE and len(asked.low) > 2:
        return _being(asked, "what")
    if asked.low[1] in (*DO, *MODALS):
        clause = clause_of(asked.low[1], asked.part(2))
        if clause is None:
            return _Undone()
        around = clause.around(BLANK)
        return _Undone([around] if around else [], [(f"what {clause.text}", "is")])
    if is_finite(asked.low[1]):
        rest = asked.part(1).text
        return _Undone([f"{BLANK} {rest}"], [(f"what {rest}", "is")])
    length = len(up_to(asked.low[1:], {*BE, *DO, *HAVE, *MODALS}, is_finite))
    noun, at = asked.part(1, 1 + length), 1 + length
    if not 1 <= length <= 6 or at + 1 >= len(asked.low):
        return _Undone()
    auxiliary, after = asked.low[at], asked.part(at + 1)
    if noun.low[-1] in OF_TIME:
        return _when(asked, answer, at) if form_of(answer) in ("year", "date") else _Undone()
    if auxiliary in BE:
        if is_participle(after.low[0]) or after.low[0] in PREPOSITIONS | ADVERBS:
            return _Undone([], [(f"the {noun.text} that {auxiliary} {after.text}", "is")])
        clause = _with_be(auxiliary, after)
        return _Undone([f"{clause.text} {BLANK}"] if clause and clause.hangs else [])
    if auxiliary in (*DO, *MODALS):
        clause = clause_of(auxiliary, after)
        if clause is None:
            return _Undone()
        around = clause.around(BLANK)
        return _Undone([around] if around else [], [(f"the {noun.text} that {clause.text}", "is")])
    if auxiliary in HAVE and after.low[-1] in PREPOSITIONS:
        return _Undone()
    return _Undone([], [(f"the {noun.text} that {auxiliary} {after.text}", "is")])


def _fronted(asked: Tokens, answer: str) -> _Undone:
    """Undo "in which city did …", where the preposition is already in place."""
    preposition, which = asked.words[0].lower(), asked.low[1]
    length = len(up_to(asked.low[2:], {*BE, *DO, *HAVE, *MODALS}, lambda _: False))
    noun, at = asked.part(2, 2 + length), 2 + length
    if at + 1 >= len(asked.low) or (form_of(answer) == "date" and noun.low[-1:] == ("year",)):
        return _Undone()
    clause = clause_of(asked.low[at], asked.part(at + 1))
    if clause is None or clause.hangs:
        return _Undone()
    one = f"the {noun.text} {preposition} which" if length else f"the one {preposition} {'whom'}"
    is_noun = length or which == "whom"
    return _Undone([f"{clause.text} {preposition} {BLANK}"], [(f"{one} {clause.text}", "is")] if is_noun else [])


def _how(asked: Tokens, answer: str) -> _Undone:
    form, word = form_of(answer), asked.low[1]
    if word in _MEASURES and len(asked.low) > 3 and asked.low[2] in BE and form == "quantity":
        after = asked.part(3)
        named = after.low[0] in DETERMINERS or len(after.low) < 4
        if named and word not in answer.lower() and not any(map(is_participle, after.low)):
            return _Undone([f"{after.text} {asked.low[2]} {BLANK} {word}"])
        return _Undone()
    if word != "many" or form not in ("number", "year") or len(asked.low) < 4:
        return _Undone()
    counted = asked.part(2)
    length = len(up_to(counted.low, {*BE, *DO, *HAVE, *MODALS}, is_finite))
    if length == len(counted.low):  # "how many people live in …"
        return _Undone([f"{BLANK} {counted.text}"] if VERBS.intersection(counted.low) else [])
    noun, auxiliary, after = counted.part(0, length), counted.low[length], counted.part(length + 1)
    if not length or not after.low:
        return _Undone()
    number = f"the number of {noun.text} that"
    if auxiliary in (*DO, *MODALS):
        clause = clause_of(auxiliary, after)
        if clause is None:
            return _Undone()
        inside = [clause.subject, clause.verb, f"{BLANK} {noun.text}", *clause.rest]
        behind = [clause.text, f"{BLANK} {noun.text}"]
        plain = behind if noun.low[-1] in _AFTER_THE_VERB or clause.hangs else inside
        return _Undone([" ".join(plain)], [(f"{number} {clause.text}", "is")])
    if auxiliary in BE and after.low[0] == "there":
        return _Undone([" ".join(["there", auxiliary, BLANK, noun.text, *after.words[1:]])])
    if auxiliary in BE and not (is_participle(after.low[0]) or after.low[0] in PREPOSITIONS | ADVERBS):
        return _Undone()
    said = f"{auxiliary} {after.text}"
    return _Undone([f"{BLANK} {noun.text} {said}"], [(f"{number} {said}", "is")])
