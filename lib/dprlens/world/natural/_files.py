"""Readers of DPR's own files, as streams: passages, questions with passages, questions with answers.

| file | reader | format |
|---|---|---|
| `psgs_w100.tsv` | `passages` | tab separated, header `id text title`, `"` as Python's csv has it |
| `biencoder-nq-{train,dev}.json` | `records` | a JSON list of objects, several GB |
| `nq-{train,dev,test}.qa.csv` | `open_questions` | tab separated, no header; a question and a Python list of answers |

Each may be compressed by gzip, which is recognised by the content. Encoding is UTF-8; a byte order mark is passed over,
lines end in LF or CRLF. A bad row goes to `BadRows.bad`: an error in mode "strict", left out and counted in mode
"skip". A file that is bad as a whole (cut short, damaged gzip, no header, no JSON list) is a ValueError in both modes,
since it is unknown what is missing.

Readers do not compare rows with each other; that passage ids are unique is for `dprlens.world.passages` to see.
"""

import ast
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dprlens.world.natural._streams import is_unicode, items, rows
from dprlens.world.natural.bad_rows import BadRows, shorter
from dprlens.world.passages import Passage

HEADER = ["id", "text", "title"]
NOT_UNICODE = "it is not valid Unicode (bytes that are not UTF-8, or half of a surrogate pair)"


class Context(NamedTuple):
    """A passage in a training record."""

    id: str
    title: str
    text: str


class Record(NamedTuple):
    """A question with its passages, of which DPR trains with the first positive."""

    place: int  # in the file, from 0
    question: str
    answers: tuple[str, ...]
    positives: tuple[Context, ...]  # one or more
    hard_negatives: tuple[Context, ...]
    negatives: tuple[Context, ...]


class OpenQuestion(NamedTuple):
    """A question and its answers, without passages."""

    id: str
    text: str
    answers: tuple[str, ...]


def passages(path: Path, findings: BadRows | None = None, expected: int | None = None) -> Iterator[Passage]:
    """Read the passages of `psgs_w100.tsv`, in order.

    Quotes at both ends of a text are taken off, as DPR does. Bad rows: not three columns, no id, no text, not UTF-8, a
    quote that is not closed, and, at the end, another number of rows than `expected`. A missing title is kept as "" and
    counted. Empty lines are passed over. Raises ValueError as the module says.
    """
    return (passage for _, passage in _passages(path, findings or BadRows(), expected))


def lines_of(path: Path, ids: Container[str]) -> dict[str, list[int]]:
    """Find the lines at which the passages with these ids start, by id."""
    found = defaultdict(list)
    for line, passage in _passages(path, BadRows("skip"), None):
        if passage.id in ids:
            found[passage.id].append(line)
    return found


def open_questions(path: Path, findings: BadRows | None = None, expected: int | None = None) -> Iterator[OpenQuestion]:
    """Read the questions of `nq-*.qa.csv`, with ids such as "nq-test-7" (the 7th row, from 0).

    Bad rows: not two columns, an empty question, not UTF-8, answers that are no Python list of strings, or none that is
    more than blanks (blank ones beside others are left out and counted). Raises ValueError as the module says.
    """
    at, number = _Place(findings or BadRows(), Path(path).name, "line", 1), 0
    for line, fields in rows(path, at.findings):
        at, number = at._replace(place=line), number + 1
        try:
            if len(fields) != 2:
                raise _Bad(f"{len(fields)} columns instead of 2", "\t".join(fields))
            if not fields[0].strip():
                raise _Bad("the question is empty", fields[1])
            if not is_unicode(*fields):
                raise _Bad(NOT_UNICODE, fields[0])
            answers = _answers(_literal(fields[1]), at)
        except _Bad as bad:
            at.bad(*bad.args)
        else:
            yield OpenQuestion(f"{at.file.split('.')[0]}-{number - 1}", plain(fields[0]), answers)
    _check_number(at, number, expected)


def records(path: Path, findings: BadRows | None = None, expected: int | None = None) -> Iterator[Record]:
    """Read the training records of `biencoder-nq-*.json`, in order, one at a time in memory.

    A record without a positive passage is left out and counted, in either mode, as DPR leaves it out. Bad rows: no
    object, no question, no answer (see `open_questions`), passages that are no list; and, at the end, another number of
    records than `expected`. A bad passage in a good record (no object, no text, not Unicode) is a bad row as well, and
    left out alone. A passage's id is its `passage_id`, or `psg_id` as older files have it, or, if it has neither,
    "text-" and 16 digits of the SHA-256 of title and text, which is counted. A passage that is listed among the
    positives and as a negative is taken off the negatives and counted. A missing title is kept as "" and counted.
    Raises ValueError as the module says.
    """
    at = _Place(findings or BadRows(), Path(path).name, "record", -1)
    for place, raw in enumerate(items(path)):
        at = at._replace(place=place)
        try:
            record = _record(raw, at)
        except _Bad as bad:
            at.bad(*bad.args)
        else:
            yield from () if record is None else (record,)
    _check_number(at, at.place + 1, expected)


def plain(question: str) -> str:
    """Normalise a question as DPR does: straighten the curly apostrophe, strip blanks."""
    return question.replace("’", "'").strip()


class _Bad(Exception):
    """A row that cannot be used: what is wrong with it, and the part of it to show."""


class _Place(NamedTuple):
    """A place in a file, and what was found in the file."""

    findings: BadRows
    file: str
    unit: str
    place: int

    def bad(self, what: str, shown: object = None) -> None:
        self.findings.bad(self.file, self.unit, self.place, what, shown)

    def left_out(self, what: str) -> None:
        self.findings.left_out(self.file, self.unit, self.place, what)

    def kept(self, what: str) -> None:
        self.findings.kept(self.file, self.unit, self.place, what)


# records of JSON


def _record(raw: object, at: _Place) -> Record | None:
    if not isinstance(raw, dict):
        raise _Bad("it is no JSON object", raw)
    question = raw.get("question")
    if not isinstance(question, str) or not question.strip():
        raise _Bad("it has no question", question)
    if not is_unicode(question):
        raise _Bad(NOT_UNICODE, question)
    answers = _answers(raw.get("answers"), at)
    lists = ("positive_ctxs", "hard_negative_ctxs", "negative_ctxs")
    positives, hard, negatives = (_contexts(raw.get(name, []), name, at) for name in lists)
    if not positives:
        at.left_out("it has no positive passage")
        return None
    for wrong in (hard, negatives):
        if both := positives.keys() & wrong.keys():
            at.kept("a positive passage is also a negative: taken off the negatives")
            for id_ in both:
                del wrong[id_]
    passages = (tuple(found.values()) for found in (positives, hard, negatives))
    return Record(at.place, plain(question), answers, *passages)


def _contexts(listed: object, name: str, at: _Place) -> dict[str, Context]:
    """Read the passages of a list by id: one that is listed twice counts once."""
    if not isinstance(listed, list):
        raise _Bad(f"{name} is no list", listed)
    found: dict[str, Context] = {}
    for one in listed:
        try:
            context = _context(one, name, at)
        except _Bad as bad:
            at.bad(*bad.args)
        else:
            found.setdefault(context.id, context)
    return found


def _context(raw: Any, name: str, at: _Place) -> Context:
    if not isinstance(raw, dict):
        raise _Bad(f"a passage of {name} is no JSON object", raw)
    title, text = raw.get("title"), raw.get("text")
    id_ = raw.get("psg_id") if raw.get("passage_id") is None else raw["passage_id"]
    if not isinstance(text, str) or not text.strip():
        raise _Bad(f"a passage of {name} has no text", title)
    if not isinstance(title, str | None) or not isinstance(id_, str | int | None):
        raise _Bad(f"a passage of {name} has a title or id that is no string", text)
    if not is_unicode(title or "", text, str(id_)):
        raise _Bad(f"a passage of {name}: {NOT_UNICODE}", text)
    if not (title or "").strip():
        at.kept("the title of a passage is empty")
    if id_ is None or not str(id_).strip():
        at.kept("a passage has no passage_id: named by its text")
        id_ = "text-" + hashlib.sha256("\n".join([title or "", text]).encode()).hexdigest()[:16]
    return Context(str(id_), title or "", text)


# passages and answers


def _passages(path: Path, findings: BadRows, expected: int | None) -> Iterator[tuple[int, Passage]]:
    """Yield the line at which each passage starts, and the passage."""
    at, number = _Place(findings, Path(path).name, "line", 1), 0
    table = rows(path, findings)
    _, header = next(table, (1, []))
    if header != HEADER:
        raise ValueError(
            f"{at.file} starts with {shorter(header)} where a file of passages has the header id, text, title with tabs"
            " between them; give DPR's psgs_w100.tsv or a file in its format"
        )
    for line, fields in table:
        at, number = at._replace(place=line), number + 1
        if len(fields) != len(HEADER):
            at.bad(f"{len(fields)} columns instead of 3", "\t".join(fields))
            continue
        id_, text, title = fields[0], fields[1].strip('"'), fields[2]
        if not id_.strip():
            at.bad("the id is empty", text)
        elif not text.strip():
            at.bad("the text is empty", title)
        elif not is_unicode(id_, text, title):
            at.bad(NOT_UNICODE, text)
        else:
            if not title.strip():
                at.kept("the title is empty")
            yield line, Passage(id_, title, text)
    _check_number(at, number, expected)


def _literal(text: str) -> object:
    """Parse a Python literal; return None if it is none."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes such as "\\d", which Python keeps as they are
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _answers(listed: object, at: _Place) -> tuple[str, ...]:
    """Select the answers that are more than blanks."""
    if not isinstance(listed, list) or not all(isinstance(answer, str) for answer in listed):
        raise _Bad("its answers are no list of strings", listed)
    answers = tuple(answer for answer in listed if answer.strip())
    if not answers:
        raise _Bad("it has no answer")
    if not is_unicode(*answers):
        raise _Bad(NOT_UNICODE, answers[0])
    if len(answers) < len(listed):
        at.left_out("an empty answer beside others")
    return answers


def _check_number(at: _Place, number: int, expected: int | None) -> None:
    if expected is not None and number != expected:
        tell = at.bad if at.findings.mode == "strict" else at.kept  # what was read stays
        tell(f"the file ends after {number} rows where {expected} are expected")
