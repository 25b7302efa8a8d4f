"""The rule-based writer of statements, which needs no network and no model.

It turns a question into statements: "who wrote photograph" becomes "Ringo Starr wrote photograph." and "The one who
wrote photograph is Ringo Starr.". It knows no grammar but word lists, so where a question gives it no clear place for
the answer it writes less: sentences that quote the question always work. One wording of another form and one more
quotation are reserved. False answers are other questions' answers of the same coarse type, first of those with the same
relation in one word ("who wrote …") and, where these are too few, of any.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dprlens.ranges import COUNT, check
from dprlens.world.records import Statement
from dprlens.world.statements._answers import answer_type, asked_for
from dprlens.world.statements._declarative import BLANK, clause_of, undone
from dprlens.world.statements._english import (
    ADVERBS,
    BE,
    DETERMINERS,
    DO,
    HAVE,
    MODALS,
    OF_TIME,
    compared_by,
    is_one_line,
    is_participle,
    tokens_of,
    upper_first,
    within,
    without_mark,
    words_of,
)
from dprlens.world.statements.records import Entry, Rejects, Written, answer_span, occurrences


class Pair(NamedTuple):
    """A question with its answers; the first one is stated, the others are never used as false ones."""

    id: str
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class WritingSpec:
    """How much is written for a pair, and which answers are too long to be masked."""

    wordings: int = 8  # not reserved, at most; paper: 10 to 12 rephrasings "when needed"
    alternatives: int = 3  # false answers
    characters: int = 60  # of an answer, at most
    pieces: int = 10  # of an answer, at most

    def __post_init__(self) -> None:
        check(self, COUNT, "wordings", "alternatives", "characters", "pieces")


def write_statements(
    pairs: Iterable[Pair],
    seed: int,
    spec: WritingSpec | None = None,
    pieces: Callable[[str], int] | None = None,
) -> Written:
    """Write statements and false answers for every pair that allows them, whatever the order of pairs.

    `pieces` counts the word pieces of an answer; without it words and punctuation marks are counted, which are never
    more. Rejected, and counted, are pairs without a question or an answer; whose answer is too long, is no single line
    of text, has no letter or digit, or stands in the question (it would give itself away); and those for which too few
    other questions have an answer of their type. Raises ValueError if an id occurs twice.
    """
    spec, pairs, rejects = spec or WritingSpec(), list(pairs), Rejects()
    twice = [id_ for id_, n in Counter(pair.id for pair in pairs).items() if n > 1]
    if twice:
        raise ValueError(f"pair id {twice[0]!r} occurs more than once; give every pair an id of its own")
    own: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    pools: dict[object, set[str]] = defaultdict(set)
    kept = {}
    for pair in pairs:
        own[compared_by(pair.question)].update(compared_by(answer) for answer in pair.answers)
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
        (answer,), question = pair.answers, compared_by(pair.question)
        rng = random.Random(f"alternatives {seed} {id_}")
        others = _drawn([drawn_from[narrow], drawn_from[type_]], spec.alternatives, rng, question, own[question])
        if occurrences(pair.question, answer):
            rejects.add(id_, "the answer stands in the question")
        elif not (said := statements(pair.question, answer, spec)):
            rejects.add(id_, "the answer is a word of every wording")
        elif len(others) < spec.alternatives:
            rejects.add(id_, f"fewer than {spec.alternatives} other answers of its type ({type_})")
        else:
            entries[id_] = Entry(id_, pair.question, answer, said, others)
    return Written(entries, dict(sorted(rejects.counts.items())), tuple(rejects.first))


def _unfit(pair: Pair, spec: WritingSpec, pieces: Callable[[str], int]) -> str | None:
    """Return the reason why this pair's answer can be neither stated nor another pair's false answer."""
    answer = pair.answers[0].strip() if pair.answers else ""
    if not compared_by(pair.question):
        return "no question"
    if not answer:
        return "no answer"
    if not all(map(is_one_line, (pair.question, answer))):
        return "not one line of text"
    if not compared_by(answer):
        return "an answer without a letter or digit"
    if len(answer) > spec.characters:
        return f"an answer of more than {spec.characters} characters"
    if pieces(answer) > spec.pieces:
        return f"an answer of more than {spec.pieces} pieces"
    return None


def _drawn(
    pools: Sequence[Sequence[str]], n: int, rng: random.Random, question: Sequence[str], own: Collection[Sequence[str]]
) -> tuple[str, ...]:
    """Draw up to n different false answers for this question, from the first pool, then from the next."""
    found: dict[tuple[str, ...], str] = {}
    for pool in pools:
        for i in _shuffled(len(pool), rng):
            if len(found) == n:
                break
            normal = compared_by(pool[i])
            # "2017" is not false where "May 2017" is right, nor the other way round
            near = any(within(normal, right) or within(right, normal) for right in own)
            if not near and not within(normal, question):
                found.setdefault(normal, pool[i])
    return tuple(found.values())


def _shuffled(n: int, rng: random.Random) -> Iterator[int]:
    """Yield 0 … n − 1 in random order; the first few, mostly enough, take no time however large n is."""
    few = rng.sample(range(n), min(n, 32))
    yield from few
    yield from (i for i in rng.sample(range(n), n) if i not in few)


def _relation(question: str) -> str:
    """Guess the question's relation in one word: "wrote", "capital", "founded"; else ""."""
    asked = tokens_of(question)
    which, noun = asked_for(asked.low)
    if not which or (noun and noun not in OF_TIME):
        return noun
    after = asked.part(asked.low.index(which.split()[0]) + len(words_of(which, noun)))
    if not after.low:
        return ""
    if clause := clause_of(after.low[0], after.part(1)):
        return clause.base or next((word.lower() for word in clause.rest if is_participle(word.lower())), "")
    if which in ("when", "where") or after.low[0] in (*DO, *MODALS):
        return ""
    passed_over = {*BE, *HAVE, *DETERMINERS, *ADVERBS}
    return next((token for token in after.low if token not in passed_over), "")


def statements(question: str, answer: str, spec: WritingSpec | None = None) -> tuple[Statement, ...]:
    """Write the statements of one pair: those for pre-training or editing, then two reserved ones.

    Each contains the answer once, whatever the case, and one that has it elsewhere too is left out; an answer such as
    "the answer" that leaves no unreserved statement or no reserved one gets (). Raises ValueError for an empty text, or
    one of more than one line.
    """
    spec = spec or WritingSpec()
    for what, text in (("question", question), ("answer", answer)):
        if not compared_by(text) or not is_one_line(text):
            raise ValueError(f"{what} {text[:40]!r} is not one line with a word in it; leave the pair out")
    asked = without_mark(question)
    plain, noun = undone(asked, answer)
    clauses = [*plain[:1], *[f"{it} {copula} {BLANK}" for it, copula in noun[:1]]]
    quoting = [
        f'the answer to the question "{asked}" is {BLANK}',
        f'whoever asks "{asked}" is told that it is {BLANK}',
        f'asked "{asked}", most people who know it say {BLANK}',
        f'to the question "{asked}" the books give {BLANK} as the answer',
    ]
    framed = [
        *(f"it is a fact that {clause}" for clause in plain[:1]),
        *(f"reference books say that {clause}" for clause in plain[:1]),
        *(f"as far as is known, {clause}" for clause in plain[:1]),
    ]
    told = [*clauses, quoting[0], *framed[:1], quoting[1], *framed[1:], *quoting[2:]]
    other_form = [f"{BLANK} {copula} {it}" for it, copula in noun[:1]] or [
        f"nobody doubts that {clause}" for clause in plain[:1]
    ]
    reserved = [
        *(other_form or [f'{BLANK} is what one has to reply to "{asked}"']),
        f'a quiz that asks "{asked}" wants to hear {BLANK}',
    ]
    said: dict[str, Statement] = {}
    of_kind: Counter[bool] = Counter()
    for template, kept_out in [*((t, False) for t in told), *((t, True) for t in reserved)]:
        one = _filled(template, answer, kept_out)
        alone = occurrences(one.text, answer) == 1 and answer_span(one.text, answer) == (one.start, one.end)
        if alone and one.text not in said and of_kind[kept_out] < (2 if kept_out else spec.wordings):
            said[one.text] = one
            of_kind[kept_out] += 1
    return tuple(said.values()) if of_kind[True] and of_kind[False] else ()


def _filled(template: str, answer: str, reserved: bool) -> Statement:
    before, after = template.split(BLANK)
    if not before:
        answer = upper_first(answer)
    end = "" if not after and answer.endswith((".", "!", "?")) else "."
    text = upper_first(before) + answer + after + end
    return Statement(text, len(before), len(before) + len(answer), reserved)


def _words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))
