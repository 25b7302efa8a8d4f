"""Statements of real questions: what section 4 edits facts by, where no generator knows the facts.

The paper had an LLM turn each (question, answer) pair into sentences, which nobody can repeat. The default here is a
writer of rules that works offline; sentences that an LLM wrote can be put in its place through `read`.

The writer undoes the question: "who wrote photograph" becomes "Ringo Starr wrote photograph." and "The one who wrote
photograph is Ringo Starr.". It knows no grammar but word lists, so where a question gives it no clear place for the
answer it says less: sentences that quote the question always work. One wording of another form and one more quotation
are reserved. False answers are other questions' answers of the same coarse type, first of those that ask for the same
in one word ("who wrote …") and, where these are too few, of any.
"""

import json
import os
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dprlens.artifacts import write_json
from dprlens.world import Statement

MODES = ("strict", "skip")
TYPES = ("year", "date", "time", "number", "quantity", "person", "agent", "place", "spot", "name", "thing")
FIELDS = {"id": str, "question": str, "answer": str, "statements": list, "alternatives": list}  # of a line of the cache
MOST_SHOWN = 5  # rejects that are named one by one

_BLANK = "\0"  # the answer's place in a wording


class Pair(NamedTuple):
    """A question with its answers; the first one is told, the others are not taken for false."""

    id: str
    question: str
    answers: tuple[str, ...]


class Entry(NamedTuple):
    """What is said about one pair."""

    id: str
    question: str
    answer: str
    statements: tuple[Statement, ...]
    alternatives: tuple[str, ...]


@dataclass(frozen=True)
class WritingSpec:
    """How much is written about a pair, and which answers are too long to be masked."""

    wordings: int = 8  # told, at most; paper: 10 to 12 rephrasings "when needed"
    alternatives: int = 3  # false answers
    characters: int = 60  # of an answer, at most
    pieces: int = 10  # of an answer, at most

    def __post_init__(self) -> None:
        for name in ("wordings", "alternatives", "characters", "pieces"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} is too few; give 1 or more")


@dataclass(frozen=True)
class Written:
    """Entries by the id of their pair, and how many pairs were rejected for which reason."""

    entries: Mapping[str, Entry]
    rejects: Mapping[str, int]
    first: tuple[str, ...] = ()  # the first few rejects: "place: reason"

    @property
    def statements(self) -> Mapping[str, tuple[Statement, ...]]:
        return {id_: entry.statements for id_, entry in self.entries.items()}

    @property
    def alternatives(self) -> Mapping[str, tuple[str, ...]]:
        return {id_: entry.alternatives for id_, entry in self.entries.items()}

    def save(self, folder: Path) -> None:
        """`statements.jsonl`, as `read` takes it, and `rejects.json`."""
        write(folder / "statements.jsonl", self.entries.values())
        write_json(folder / "rejects.json", {"rejects": dict(self.rejects), "first": list(self.first)})

    @classmethod
    def load(cls, folder: Path) -> "Written":
        told = json.loads((folder / "rejects.json").read_text(encoding="utf-8"))
        entries = read(folder / "statements.jsonl").entries
        return cls(entries, told["rejects"], tuple(told["first"]))


class _Rejects:
    """Counts what is left out, and remembers the first few places."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: list[str] = []

    def add(self, place: str, reason: str) -> None:
        self.counts[reason] += 1
        if len(self.first) < MOST_SHOWN:
            self.first.append(f"{place}: {reason}")


# Writing


def written(
    pairs: Iterable[Pair],
    seed: int,
    spec: WritingSpec | None = None,
    pieces: Callable[[str], int] | None = None,
) -> Written:
    """Statements and false answers for every pair that allows them; what it does not depends on the pairs' order.

    `pieces` counts the word pieces of an answer; without it words and punctuation marks are counted, which are never
    more. Rejected, and counted, are pairs without a question or an answer; whose answer is too long, is no single line
    of text, has no letter or digit, or stands in the question (it would give itself away); and those for which too few
    other questions have an answer of their type. Raises ValueError if an id occurs twice.
    """
    spec, pairs, rejects = spec or WritingSpec(), list(pairs), _Rejects()
    twice = [id_ for id_, n in Counter(pair.id for pair in pairs).items() if n > 1]
    if twice:
        raise ValueError(f"pair id {twice[0]!r} occurs more than once; give every pair an id of its own")
    own, pools, kept = defaultdict(set), defaultdict(set), {}
    for pair in pairs:
        own[_normal(pair.question)].update(_normal(answer) for answer in pair.answers)
        if reason := _unfit(pair, spec, pieces or _words):
            rejects.add(pair.id, reason)
            continue
        answer = pair.answers[0].strip()
        type_ = answer_type(pair.question, answer)
        kept[pair.id] = Pair(pair.id, pair.question, (answer,)), type_, (type_, _relation(pair.question))
        for kind in kept[pair.id][1:]:
            pools[kind].add(answer)
    drawn_from = {kind: sorted(pool) for kind, pool in pools.items()}
    entries = {}
    for id_, (pair, type_, narrow) in kept.items():
        (answer,), question = pair.answers, _normal(pair.question)
        rng = random.Random(f"alternatives {seed} {id_}")
        others = _drawn([drawn_from[narrow], drawn_from[type_]], spec.alternatives, rng, question, own[question])
        if _occurrences(pair.question, answer):
            rejects.add(id_, "the answer stands in the question")
        elif not (said := statements(pair.question, answer, spec)):
            rejects.add(id_, "the answer is a word of every wording")
        elif len(others) < spec.alternatives:
            rejects.add(id_, f"fewer than {spec.alternatives} other answers of its type ({type_})")
        else:
            entries[id_] = Entry(id_, pair.question, answer, said, others)
    return Written(entries, dict(sorted(rejects.counts.items())), tuple(rejects.first))


def _unfit(pair: Pair, spec: WritingSpec, pieces: Callable[[str], int]) -> str | None:
    """Why this pair's answer cannot be told, or be another pair's false answer."""
    answer = pair.answers[0].strip() if pair.answers else ""
    if not _normal(pair.question):
        return "no question"
    if not answer:
        return "no answer"
    if not all(map(_one_line, (pair.question, answer))):
        return "not one line of text"
    if not _normal(answer):
        return "an answer without a letter or digit"
    if len(answer) > spec.characters:
        return f"an answer of more than {spec.characters} characters"
    if pieces(answer) > spec.pieces:
        return f"an answer of more than {spec.pieces} pieces"
    return None


def _drawn(
    pools: Sequence[Sequence[str]], n: int, rng: random.Random, question: Sequence[str], own: Collection[Sequence[str]]
) -> tuple[str, ...]:
    """Up to n answers that are false for this question and differ from each other, drawn at random.

    From the first of the pools, and where that has not enough of them from the next.
    """
    found: dict[tuple[str, ...], str] = {}
    for pool in pools:
        for i in _shuffled(len(pool), rng):
            if len(found) == n:
                break
            normal = _normal(pool[i])
            # "2017" is not false where "May 2017" is right, nor the other way round
            near = any(_within(normal, right) or _within(right, normal) for right in own)
            if not near and not _within(normal, question):
                found.setdefault(normal, pool[i])
    return tuple(found.values())


def _shuffled(n: int, rng: random.Random) -> Iterator[int]:
    """0 … n − 1 in random order; the first few, mostly enough, take no time however large n is."""
    few = rng.sample(range(n), min(n, 32))
    yield from few
    yield from (i for i in rng.sample(range(n), n) if i not in few)


def _relation(question: str) -> str:
    """What the question seems to ask of its subject, in one word: "wrote", "capital", "founded"; else ""."""
    asked = _tokens(question)
    which, noun = _asked_for(asked.low)
    if not which or (noun and noun not in _OF_TIME):
        return noun
    after = asked.part(asked.low.index(which.split()[0]) + len(_list(which, noun)))
    if not after.low:
        return ""
    if clause := _clause(after.low[0], after.part(1)):
        return clause.base or next((word.lower() for word in clause.rest if _is_participle(word.lower())), "")
    if which in ("when", "where") or after.low[0] in (*_DO, *_MODALS):
        return ""
    passed_over = {*_BE, *_HAVE, *_DETERMINERS, *_ADVERBS}
    return next((token for token in after.low if token not in passed_over), "")


def statements(question: str, answer: str, spec: WritingSpec | None = None) -> tuple[Statement, ...]:
    """The wordings of one pair: those to be told, then two reserved ones.

    Each has the answer in it once, whatever the case, and one that has it elsewhere too is left out; an answer such as
    "the answer" that leaves no wording to tell or none in reserve gets (). Raises ValueError for an empty text, or one
    of more than one line.
    """
    spec = spec or WritingSpec()
    for what, text in (("question", question), ("answer", answer)):
        if not _normal(text) or not _one_line(text):
            raise ValueError(f"{what} {text[:40]!r} is not one line with a word in it; leave the pair out")
    asked = _plain(question)
    plain, noun = _undone(asked, answer)
    clauses = [*plain[:1], *[f"{it} {copula} {_BLANK}" for it, copula in noun[:1]]]
    quoting = [
        f'the answer to the question "{asked}" is {_BLANK}',
        f'whoever asks "{asked}" is told that it is {_BLANK}',
        f'asked "{asked}", most people who know it say {_BLANK}',
        f'to the question "{asked}" the books give {_BLANK} as the answer',
    ]
    framed = [
        *(f"it is a fact that {clause}" for clause in plain[:1]),
        *(f"reference books say that {clause}" for clause in plain[:1]),
        *(f"as far as is known, {clause}" for clause in plain[:1]),
    ]
    told = [*clauses, quoting[0], *framed[:1], quoting[1], *framed[1:], *quoting[2:]]
    other_form = [f"{_BLANK} {copula} {it}" for it, copula in noun[:1]] or [
        f"nobody doubts that {clause}" for clause in plain[:1]
    ]
    reserved = [
        *(other_form or [f'{_BLANK} is what one has to reply to "{asked}"']),
        f'a quiz that asks "{asked}" wants to hear {_BLANK}',
    ]
    said, of_kind = {}, Counter()
    for template, kept_out in [*((t, False) for t in told), *((t, True) for t in reserved)]:
        one = _filled(template, answer, kept_out)
        alone = _occurrences(one.text, answer) == 1 and placed(one.text, answer) == (one.start, one.end)
        if alone and one.text not in said and of_kind[kept_out] < (2 if kept_out else spec.wordings):
            said[one.text] = one
            of_kind[kept_out] += 1
    return tuple(said.values()) if of_kind[True] and of_kind[False] else ()


def _filled(template: str, answer: str, reserved: bool) -> Statement:
    before, after = template.split(_BLANK)
    if not before:
        answer = _upper_first(answer)
    end = "" if not after and answer.endswith((".", "!", "?")) else "."
    text = _upper_first(before) + answer + after + end
    return Statement(text, len(before), len(before) + len(answer), reserved)


def placed(text: str, answer: str) -> tuple[int, int] | None:
    """Where the answer first stands in the text as a whole word or words, as (start, end); None if nowhere.

    The case must agree, but at the start of the text the answer's first letter may be a capital.
    """
    whole = [f"(?<!\\w){re.escape(answer)}(?!\\w)", f"\\A{re.escape(_upper_first(answer))}(?!\\w)"]
    found = [match.span() for pattern in whole if (match := re.search(pattern, text))]
    return min(found, default=None)


def _occurrences(text: str, answer: str) -> int:
    return len(re.findall(f"(?<!\\w){re.escape(answer.casefold())}(?!\\w)", text.casefold()))


# The types of answers


def _list(*words: str) -> list[str]:
    return " ".join(words).split()


_MONTHS = _list("january february march april may june july august september october november december")
_MONTHS += [month[:3] for month in _MONTHS] + ["sept"]
_DIGITS = _list("zero one two three four five six seven eight nine ten eleven twelve")
_DIGITS = {word: str(i) for i, word in enumerate(_DIGITS)}
_NUMBERS = {
    *_DIGITS,
    *_list("thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty"),
    *_list("seventy eighty ninety hundred thousand million billion trillion and a half"),
}
_PARTICLES = {*_list("de da di du del della la le van von der den ter bin ibn al el of y and")}
_OF_TIME = {*_list("year date day month decade century era season time")}
_OF_PERSONS = {
    *_list(
        "actor actress author artist singer player president king queen writer director person composer poet",
        "scientist character mayor founder guitarist drummer emperor pope philosopher woman man judge senator",
        "governor coach",
    )
}
_OF_PLACES = {
    *_list(
        "city country state town county place continent province region river island ocean sea lake mountain",
        "capital village street location stadium district park nation territory",
    )
}


def answer_type(question: str, answer: str) -> str:
    """The coarse type of an answer, one of `TYPES`: from the answer's form, and else from what is asked for.

    A person is who is asked for by "who" or a word such as "actor" and has a name of two to four words; anything else
    with which such a question is answered is an agent (a team, a band, a single name). A place is written with a
    capital, a spot without ("the upper abdomen"); so are a name and a thing, where nothing says what they are.
    """
    form = _form(answer)
    which, noun = _asked_for(_tokens(question).low)
    if which == "how many" and form == "year":
        return "number"
    if form:
        return form
    capital = any(word[:1].isupper() for word in answer.split())
    if which == "when" or noun in _OF_TIME:
        return "time"
    if which in ("who", "whom", "whose") or noun in _OF_PERSONS:
        return "person" if _is_full_name(answer) else "agent"
    if which == "where" or noun in _OF_PLACES:
        return "place" if capital else "spot"
    return "name" if capital else "thing"


def _asked_for(tokens: Sequence[str]) -> tuple[str, str]:
    """The question word, wherever it stands, and the noun after "what" or "which"; "" for what is not there."""
    for i, token in enumerate(tokens):
        if token == "how" and {*tokens[i + 1 : i + 2]} & {"many", "much"}:
            return "how many", ""
        if token in ("who", "whom", "whose", "when", "where", "how"):
            return token, ""
        if token in ("what", "which"):
            # of "type of government" the first noun is meant, of "capital city" the last one
            noun = _before(tokens[i + 1 : i + 5], {*_BE, *_DO, *_HAVE, *_MODALS, *_PREPOSITIONS}, _is_finite)
            return token, noun[-1] if noun else ""
    return "", ""


def _form(answer: str) -> str | None:
    """year, date, number or quantity, where the answer has that form whatever is asked."""
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


# Undoing the question

_BE = ("is", "are", "was", "were")
_DO = ("do", "does", "did")
_HAVE = ("has", "have", "had")
_MODALS = ("will", "can", "could", "should", "would", "may", "might", "must")
_PREPOSITIONS = {
    *_list(
        "in on at of for from to with by about after before during through into near between against under over as",
        "out up off around within among until since behind above below beneath inside outside along across",
    )
}
_DETERMINERS = {*_list("the a an his her its their our my your this that these those each every all")}
_RELATIVE = {*_list("who whom whose that which where when if because")}
_ADVERBS = {
    *_list(
        "first originally last officially ever finally also actually mostly most commonly usually currently being",
        "not now still generally often primarily initially always",
    )
}
_CALLED = {"called", "named", "termed", "nicknamed"}
_TOWARDS = {"go", "move", "travel", "sail", "migrate", "flee", "return"}
_NO_PARTICIPLES = {*_list("united red hundred bed seed speed need breed weed indeed shed mohamed ahmed alfred fred")}
_MEASURES = ("tall", "high", "long", "old", "deep", "wide", "far", "big", "large", "heavy", "fast")
_AFTER_THE_VERB = {"times", "years", "days", "hours", "minutes", "miles", "weeks", "months"}

# base, past and participle; of three words where the last two differ
_IRREGULAR = {
    base: (past, participle[0] if participle else past)
    for base, past, *participle in (
        line.split()
        for line in """
        become became become;begin began begun;bite bit bitten;break broke broken;bring brought;build built;buy bought
        ;catch caught;choose chose chosen;come came come;cut cut;die died;do did done;draw drew drawn;drink drank drunk
        ;drive drove driven;eat ate eaten;fall fell fallen;feed fed;feel felt;fight fought;find found;fly flew flown
        ;forget forgot forgotten;get got gotten;give gave given;go went gone;grow grew grown;have had;hear heard;hit hit
        ;hold held;keep kept;know knew known;lead led;learn learned;leave left;lie lay lain;lose lost;make made
        ;mean meant;meet met;pay paid;put put;read read;ride rode ridden;rise rose risen;run ran run;say said
        ;see saw seen;sell sold;send sent;set set;shoot shot;shut shut;sing sang sung;sink sank sunk;sit sat;sleep slept
        ;speak spoke spoken;spend spent;stand stood;steal stole stolen;swim swam swum;take took taken;teach taught
        ;tell told;think thought;throw threw thrown;wake woke woken;wear wore worn;win won;write wrote written
        ;beat beat beaten;strike struck;swear swore sworn;flee fled;shrink shrank shrunk;split split;spread spread
        """.replace("\n", " ").split(";")
        if line.strip()
    )
}
_REGULAR = {
    *_list(
        "marry live move premiere happen occur join discover invent create start study attend graduate retire",
        "direct produce publish appear arrive become believe belong sign stop serve settle travel migrate sail",
        "establish found introduce abolish legalize adopt declare defeat conquer invade colonize gain achieve",
        "receive earn celebrate contain consist originate develop evolve form enter refer represent symbolize",
        "describe translate stay relocate perform compete qualify drop ban surrender annex acquire purchase merge",
        "collapse explode erupt land launch switch host feature portray date sell work employ govern own kill",
        "murder assassinate vote use need love like cost cause open close show play air end record act return",
        "change walk race rule trade cover connect border flow cross pass lead depend require provide protect",
        "control manufacture divorce replace succeed",
    )
}
_ALSO_NOUNS = {
    *_list(
        "open show play air end record act return change walk race rule trade cover love like cost cause vote use",
        "need run fall rise ride set cut hit put split fight drink draw drive border cross pass land host feature",
        "launch form switch drop ban work study date lead control",
    )
}
_VERBS = {*_IRREGULAR, *_REGULAR}
_DOUBLED = {"stop": "stopp", "ban": "bann", "drop": "dropp"}


def _third(verb: str) -> str:
    if verb == "have":
        return "has"
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return verb + "es"
    return verb[:-1] + "ies" if re.search("[^aeiou]y$", verb) else verb + "s"


def _past(verb: str) -> str:
    if verb in _IRREGULAR:
        return _IRREGULAR[verb][0]
    if verb.endswith("e"):
        return verb + "d"
    return verb[:-1] + "ied" if re.search("[^aeiou]y$", verb) else _DOUBLED.get(verb, verb) + "ed"


_PARTICIPLES = {*(participle for _, participle in _IRREGULAR.values()), *map(_past, _REGULAR), "born", "shown"}
_FINITE = {*map(_third, _VERBS), *map(_past, _VERBS)}


def _is_participle(token: str) -> bool:
    return token in _PARTICIPLES or _ends_as_past(token)


def _is_finite(token: str) -> bool:
    return token in _FINITE or _ends_as_past(token)


def _ends_as_past(token: str) -> bool:
    return len(token) > 4 and token.endswith("ed") and token not in _NO_PARTICIPLES


def _before(tokens: Sequence[str], stops: Collection[str], also: Callable[[str], bool]) -> list[str]:
    """The tokens before the first one that stops them."""
    found = []
    for token in tokens:
        if token in stops or also(token):
            break
        found.append(token)
    return found


class _Clause(NamedTuple):
    """A question's words in the order of a statement: subject, verb as the auxiliary had it, what follows."""

    subject: str
    verb: str
    rest: tuple[str, ...]
    base: str = ""  # of a full verb

    @property
    def text(self) -> str:
        return " ".join([self.subject, self.verb, *self.rest])

    @property
    def hangs(self) -> bool:
        """True if it ends in the preposition of what is asked for: "the pilgrims came from"."""
        return bool(self.rest) and self.rest[-1].lower() in _PREPOSITIONS - {"out", "up", "off", "over"}

    def around(self, blank: str) -> str | None:
        """The clause with an object put in; None where its place is not clear."""
        if self.hangs or not self.rest:
            return f"{self.text} {blank}"
        if self.base != "do" and self.rest[0].lower() in _PREPOSITIONS - {"out", "up", "off", "over"}:
            return " ".join([self.subject, self.verb, blank, *self.rest])
        return None


class _Tokens(NamedTuple):
    """Words as they are written and in lower case."""

    words: tuple[str, ...]
    low: tuple[str, ...]

    def part(self, start: int, end: int | None = None) -> "_Tokens":
        return _Tokens(self.words[start:end], self.low[start:end])

    @property
    def text(self) -> str:
        return " ".join(self.words)


def _with_do(auxiliary: str, after: _Tokens) -> _Clause | None:
    """The clause of "did the pilgrims come from": the verb is the first word that is one, and not after "the"."""
    places = [
        i
        for i, token in enumerate(after.low)
        if i and token in _VERBS and after.low[i - 1] not in _DETERMINERS | _PREPOSITIONS
    ]
    sure = [i for i in places if after.low[i] not in _ALSO_NOUNS]
    if not places:
        return None
    i = sure[0] if sure else places[-1]
    base = after.low[i]
    verb = {"did": _past(base), "does": _third(base), "do": base}.get(auxiliary, f"{auxiliary} {base}")
    return _Clause(after.part(0, i).text, verb, after.words[i + 1 :], base)


def _with_be(be: str, after: _Tokens) -> _Clause | None:
    """The clause of "was the first telephone made in": the verb goes before the last participle."""
    if _RELATIVE.intersection(after.low) or re.match(r"the (?:\w+ )?time\b", " ".join(after.low)):
        return None
    places = [i for i, token in enumerate(after.low) if i and (_is_participle(token) or _is_progressive(token))]
    if places:
        i = places[-1]
        while i > 1 and after.low[i - 1] in _ADVERBS:
            i -= 1
        return _Clause(after.part(0, i).text, be, after.words[i:])
    if after.low and after.low[-1] in _PREPOSITIONS and (len(after.low) < 4 or after.low[0] in _DETERMINERS):
        return _Clause(after.part(0, -1).text, be, after.words[-1:]) if len(after.low) > 1 else None
    return None


def _is_progressive(token: str) -> bool:
    return token in ("coming", "going", "happening", "playing", "airing", "taking", "starting", "living", "working")


def _tokens(question: str) -> _Tokens:
    """The question's words; "who's", in whatever way it was cut into words, is read as "who is"."""
    long = re.sub(r"^(who|what|where|when) ?'s\b", r"\1 is", _plain(question), flags=re.IGNORECASE)
    words = tuple(long.split())
    return _Tokens(words, tuple(word.lower() for word in words))


class _Undone(NamedTuple):
    """Clauses with a blank for the answer, and noun phrases for what is asked, each with its "is" or "was"."""

    plain: Sequence[str] = ()
    noun: Sequence[tuple[str, str]] = ()


def _undone(question: str, answer: str) -> _Undone:
    """What can be made of the question without quoting it."""
    asked = _tokens(question)
    in_place = re.fullmatch(r"(.+ in) (?:what|which) year", question, flags=re.IGNORECASE)
    if in_place:
        return _Undone([f"{in_place[1]} {_BLANK}"]) if _form(answer) == "year" else _Undone()
    if len(asked.low) < 2:
        return _Undone()
    if asked.low[0] in _PREPOSITIONS and len(asked.low) > 3 and asked.low[1] in ("what", "which", "whom"):
        return _fronted(asked, answer)
    rules = {"who": _who, "whom": _who, "when": _when, "where": _where, "what": _what, "which": _what, "how": _how}
    return rules.get(asked.low[0], lambda *_: _Undone())(asked, answer)


def _clause(auxiliary: str, after: _Tokens) -> _Clause | None:
    if auxiliary in _BE:
        return _with_be(auxiliary, after)
    return _with_do(auxiliary, after) if auxiliary in (*_DO, *_MODALS) else None


def _who(asked: _Tokens, _: str) -> _Undone:
    auxiliary, after = asked.low[1], asked.part(2)
    if auxiliary in _BE and after.low:
        return _being(asked, "the one who")
    clause = _clause(auxiliary, after) if auxiliary not in _MODALS else None
    if clause:
        around = clause.around(_BLANK)
        return _Undone([around] if around else [], [(f"the one whom {clause.text}", "is")])
    if asked.low[0] == "whom" or auxiliary in ("do", "does"):
        return _Undone()
    rest = asked.part(1).text
    return _Undone([f"{_BLANK} {rest}"], [(f"the one who {rest}", "is")])


def _being(asked: _Tokens, one: str) -> _Undone:
    """ "who is …" and "what is …": what follows names the answer, or says something about it."""
    be, after = asked.words[1], asked.part(2)
    first, last = after.low[0], after.low[-1]
    if first in ("it", "there") or be.lower() not in _BE:
        return _Undone()
    if last in _PREPOSITIONS or last in _CALLED:
        clause = _with_be(be, after)
        return _Undone([f"{clause.text} {_BLANK}"]) if clause else _Undone()
    said = f"{be} {after.text}"
    if _is_participle(first) or first.endswith("ing") or first in _PREPOSITIONS | _ADVERBS:
        return _Undone([f"{_BLANK} {said}"], [(f"{one} {said}", "is")])
    if last.endswith("ing") and after.low[-2:-1] and after.low[-2] in _PREPOSITIONS:  # "known for making"
        clause = _with_be(be, after)
        return _Undone([f"{clause.text} {_BLANK}"]) if clause else _Undone()
    bare = asked.low[0] == "what" and first not in _DETERMINERS
    if (_is_participle(last) and last != "born") or (bare and any(map(_is_participle, after.low))):
        return _Undone()  # "what is the word water derived", "what is gold mined in africa"
    if first in _DETERMINERS or any("'" in word for word in after.low) or asked.low[0] != "who":
        return _Undone([f"{after.text} {be} {_BLANK}"], [(after.text, be)])
    return _Undone([f"{_BLANK} {said}"])


def _when(asked: _Tokens, answer: str, prefix: int = 1) -> _Undone:
    after = asked.part(prefix + 1)
    auxiliary = asked.low[prefix] if len(asked.low) > prefix else ""
    if not after.low:
        return _Undone()
    form, in_ = _form(answer), _at_time(answer)
    if auxiliary in _BE and re.match(r"the (?:\w+ )?time\b", " ".join(after.low)):
        return _Undone([f"{after.text} {auxiliary} {in_}{_BLANK}"] if in_ is not None else [])
    clause = _clause(auxiliary, after)
    if clause:
        day = "the date on which" if in_ == "on " else "the month in which"
        which = {"year": "the year in which", "date": day}.get(form, "the time when")
        plain = [] if in_ is None or clause.hangs else [f"{clause.text} {in_}{_BLANK}"]
        return _Undone(plain, [] if clause.hangs else [(f"{which} {clause.text}", "is")])
    named = after.low[0] in _DETERMINERS or len(after.low) < 3
    if auxiliary in _BE and named and in_ is not None and not _RELATIVE.intersection(after.low):
        return _Undone([f"{after.text} {auxiliary} {in_}{_BLANK}"])
    return _Undone()


def _at_time(answer: str) -> str | None:
    """The preposition, with its space, that the answer to "when" needs; None where that is not clear."""
    low = answer.lower()
    if low.split()[0] in _PREPOSITIONS | {"every", "around", "annually", "today", "yesterday", "early", "late", "mid"}:
        return "" if low.split()[0] not in ("early", "late", "mid") else "in "
    form = _form(answer)
    if form == "date":
        day = re.search(r"\b\d{1,2}(?:st|nd|rd|th)?\b(?!\d)", low)
        return "on " if day else "in "
    return "in " if form == "year" or re.search(r"\d0s$|century$|spring|summer|autumn|fall$|winter", low) else None


def _where(asked: _Tokens, answer: str) -> _Undone:
    auxiliary, after = asked.low[1], asked.part(2)
    if not after.low:
        return _Undone()
    in_ = "" if answer.lower().split()[0] in _PREPOSITIONS else "in "
    clause = _clause(auxiliary, after)
    if clause and clause.hangs:
        return _Undone([f"{clause.text} {_BLANK}"] if in_ else [])
    if clause:
        towards = "to " if clause.base in _TOWARDS and not clause.rest and in_ else in_
        noun = [(f"the place where {clause.text}", "is")] if in_ else []
        return _Undone([f"{clause.text} {towards}{_BLANK}"], noun)
    named = after.low[0] in _DETERMINERS or len(after.low) < 3
    if auxiliary in _BE and named and not _RELATIVE.intersection(after.low):
        return _Undone([f"{after.text} {auxiliary} {in_}{_BLANK}"])
    return _Undone()


def _what(asked: _Tokens, answer: str) -> _Undone:
    if asked.low[1] in _BE and len(asked.low) > 2:
        return _being(asked, "what")
    if asked.low[1] in (*_DO, *_MODALS):
        clause = _clause(asked.low[1], asked.part(2))
        if clause is None:
            return _Undone()
        around = clause.around(_BLANK)
        return _Undone([around] if around else [], [(f"what {clause.text}", "is")])
    if _is_finite(asked.low[1]):
        rest = asked.part(1).text
        return _Undone([f"{_BLANK} {rest}"], [(f"what {rest}", "is")])
    length = len(_before(asked.low[1:], {*_BE, *_DO, *_HAVE, *_MODALS}, _is_finite))
    noun, at = asked.part(1, 1 + length), 1 + length
    if not 1 <= length <= 6 or at + 1 >= len(asked.low):
        return _Undone()
    auxiliary, after = asked.low[at], asked.part(at + 1)
    if noun.low[-1] in _OF_TIME:
        return _when(asked, answer, at) if _form(answer) in ("year", "date") else _Undone()
    if auxiliary in _BE:
        if _is_participle(after.low[0]) or after.low[0] in _PREPOSITIONS | _ADVERBS:
            return _Undone([], [(f"the {noun.text} that {auxiliary} {after.text}", "is")])
        clause = _with_be(auxiliary, after)
        return _Undone([f"{clause.text} {_BLANK}"] if clause and clause.hangs else [])
    if auxiliary in (*_DO, *_MODALS):
        clause = _clause(auxiliary, after)
        if clause is None:
            return _Undone()
        around = clause.around(_BLANK)
        return _Undone([around] if around else [], [(f"the {noun.text} that {clause.text}", "is")])
    if auxiliary in _HAVE and after.low[-1] in _PREPOSITIONS:
        return _Undone()
    return _Undone([], [(f"the {noun.text} that {auxiliary} {after.text}", "is")])


def _fronted(asked: _Tokens, answer: str) -> _Undone:
    """ "in which city did …": the preposition is there already."""
    preposition, which = asked.words[0].lower(), asked.low[1]
    length = len(_before(asked.low[2:], {*_BE, *_DO, *_HAVE, *_MODALS}, lambda _: False))
    noun, at = asked.part(2, 2 + length), 2 + length
    if at + 1 >= len(asked.low) or (_form(answer) == "date" and noun.low[-1:] == ("year",)):
        return _Undone()
    clause = _clause(asked.low[at], asked.part(at + 1))
    if clause is None or clause.hangs:
        return _Undone()
    one = f"the {noun.text} {preposition} which" if length else f"the one {preposition} {'whom'}"
    is_noun = length or which == "whom"
    return _Undone([f"{clause.text} {preposition} {_BLANK}"], [(f"{one} {clause.text}", "is")] if is_noun else [])


def _how(asked: _Tokens, answer: str) -> _Undone:
    form, word = _form(answer), asked.low[1]
    if word in _MEASURES and len(asked.low) > 3 and asked.low[2] in _BE and form == "quantity":
        after = asked.part(3)
        named = after.low[0] in _DETERMINERS or len(after.low) < 4
        if named and word not in answer.lower() and not any(map(_is_participle, after.low)):
            return _Undone([f"{after.text} {asked.low[2]} {_BLANK} {word}"])
        return _Undone()
    if word != "many" or form not in ("number", "year") or len(asked.low) < 4:
        return _Undone()
    counted = asked.part(2)
    length = len(_before(counted.low, {*_BE, *_DO, *_HAVE, *_MODALS}, _is_finite))
    if length == len(counted.low):  # "how many people live in …"
        return _Undone([f"{_BLANK} {counted.text}"] if _VERBS.intersection(counted.low) else [])
    noun, auxiliary, after = counted.part(0, length), counted.low[length], counted.part(length + 1)
    if not length or not after.low:
        return _Undone()
    number = f"the number of {noun.text} that"
    if auxiliary in (*_DO, *_MODALS):
        clause = _clause(auxiliary, after)
        if clause is None:
            return _Undone()
        inside = [clause.subject, clause.verb, f"{_BLANK} {noun.text}", *clause.rest]
        behind = [clause.text, f"{_BLANK} {noun.text}"]
        plain = behind if noun.low[-1] in _AFTER_THE_VERB or clause.hangs else inside
        return _Undone([" ".join(plain)], [(f"{number} {clause.text}", "is")])
    if auxiliary in _BE and after.low[0] == "there":
        return _Undone([" ".join(["there", auxiliary, _BLANK, noun.text, *after.words[1:]])])
    if auxiliary in _BE and not (_is_participle(after.low[0]) or after.low[0] in _PREPOSITIONS | _ADVERBS):
        return _Undone()
    said = f"{auxiliary} {after.text}"
    return _Undone([f"{_BLANK} {noun.text} {said}"], [(f"{number} {said}", "is")])


# Texts


def _plain(question: str) -> str:
    """The question in one line without its question mark; double quotes become single ones, since it gets quoted."""
    one_line = " ".join(question.replace("’", "'").replace('"', "'").split())
    return re.sub(r"[\s?.!]+$", "", one_line)


def _upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _one_line(text: str) -> bool:
    """True if every character can be shown and be stored: no control characters, no lone surrogates."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text.strip())


def _words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def _normal(text: str) -> tuple[str, ...]:
    """What texts are compared by: their words without case, accents or a leading article, small numbers in digits."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()
    words = [_DIGITS.get(word, word) for word in re.findall(r"\w+", plain)]
    return tuple(words[1:] if len(words) > 1 and words[0] in ("the", "a", "an") else words)


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    n = len(part)
    return any(tuple(whole[i : i + n]) == tuple(part) for i in range(len(whole) - n + 1))


# The cache of statements


def write(path: Path, entries: Iterable[Entry]) -> None:
    """One JSON object a line, as `read` takes it; the file is there whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            for entry in entries:
                said = [{"text": one.text, "reserved": one.reserved} for one in entry.statements]
                row = {**entry._asdict(), "statements": said}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read(path: Path, mode: str = "strict") -> Written:
    """Statements that somebody else wrote, e.g. an LLM, as the paper's.

    UTF-8, one object a line: `{"id", "question", "answer", "statements": [{"text", "reserved"}], "alternatives": […]}`;
    `id` is that of the question's fact. The answer must stand in each statement (see `placed`; where it does so more
    than once, the first place is masked), some statement must be reserved and some not, and no false answer may be the
    right one. Empty lines are passed over. A bad line raises ValueError with its number if `mode` is "strict"; if it
    is "skip", it is counted in `rejects`.
    """
    if mode not in MODES:
        raise ValueError(f"mode = {mode!r} is not known; choose {' or '.join(MODES)}")
    entries, rejects = {}, _Rejects()
    for number, line in _lines(path):
        try:
            entry = _entry(line)
            if entry.id in entries:
                raise _BadLine("an id that was there before", entry.id)
        except _BadLine as bad:
            if mode == "strict":
                raise ValueError(
                    f"{path.name}, line {number}: {bad}; mend the line, or read with mode 'skip'"
                ) from None
            rejects.add(f"line {number}", bad.reason)
            continue
        entries[entry.id] = entry
    return Written(entries, dict(sorted(rejects.counts.items())), tuple(rejects.first))


class _BadLine(ValueError):
    def __init__(self, reason: str, shown: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason} ({shown[:80]!r})" if shown else reason)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                yield number, line


def _entry(line: bytes) -> Entry:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _BadLine(f"not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError):
        raise _BadLine("no JSON object", line.decode("utf-8").strip()) from None
    if not isinstance(row, dict) or {name: type(row.get(name)) for name in FIELDS} != FIELDS:
        raise _BadLine(f"no object with {', '.join(FIELDS)} of types {', '.join(t.__name__ for t in FIELDS.values())}")
    alternatives = row["alternatives"]
    if not all(isinstance(text, str) for text in alternatives):
        raise _BadLine("an alternative that is no text")
    texts = [row["id"], row["question"], row["answer"], *alternatives]
    said = tuple(_read_statement(one, row["answer"]) for one in row["statements"])
    if bad := [text for text in texts if not text.strip() or not _one_line(text)]:
        raise _BadLine("a text that is empty or more than one line", bad[0])
    if {one.reserved for one in said} != {True, False}:
        raise _BadLine("no statement to be told, or none in reserve")
    if right := [text for text in alternatives if _normal(text) == _normal(row["answer"])]:
        raise _BadLine("an alternative that is the right answer", right[0])
    return Entry(row["id"], row["question"], row["answer"], said, tuple(alternatives))


def _read_statement(one: object, answer: str) -> Statement:
    well_formed = isinstance(one, dict) and isinstance(one.get("text"), str) and isinstance(one.get("reserved"), bool)
    if not well_formed:
        raise _BadLine("a statement that is no object with a text and true or false for reserved")
    text = one["text"]
    if not text.strip() or not _one_line(text):
        raise _BadLine("a text that is empty or more than one line", text)
    place = placed(text, answer) if answer else None
    if place is None:
        raise _BadLine(f"a statement without its answer {answer[:40]!r}", text)
    return Statement(text, *place, one["reserved"])
