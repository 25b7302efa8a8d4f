"""Records of statements for real questions, by which section 4 edits facts that no generator knows.

The paper had an LLM turn each (question, answer) pair into sentences, which cannot be reproduced. The default here is
a rule-based writer that works offline (`writer`); sentences that an LLM wrote can replace its own through `read`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dprlens.cache.artifacts import write_json
from dprlens.world.natural.bad_rows import MODES
from dprlens.world.passages import replacing
from dprlens.world.records import Statement
from dprlens.world.statements._english import compared_by, is_one_line, upper_first

FIELDS = {"id": str, "question": str, "answer": str, "statements": list, "alternatives": list}  # of a line of the cache
MOST_SHOWN = 5  # rejects that are named one by one


class Entry(NamedTuple):
    """The statements and false answers of one pair."""

    id: str
    question: str
    answer: str
    statements: tuple[Statement, ...]
    alternatives: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """Entries by the id of their pair, and how many pairs were rejected for which reason."""

    entries: Mapping[str, Entry]
    rejects: Mapping[str, int]
    first: tuple[str, ...] = ()  # the first few rejects: "place: reason"

    @property
    def statements(self) -> Mapping[str, tuple[Statement, ...]]:
        """Statements by the id of their pair."""
        return {id_: entry.statements for id_, entry in self.entries.items()}

    @property
    def alternatives(self) -> Mapping[str, tuple[str, ...]]:
        """False answers by the id of their pair."""
        return {id_: entry.alternatives for id_, entry in self.entries.items()}

    def save(self, folder: Path) -> None:
        """Save `statements.jsonl`, in the format of `read`, and `rejects.json`."""
        write(folder / "statements.jsonl", self.entries.values())
        write_json(folder / "rejects.json", {"rejects": dict(self.rejects), "first": list(self.first)})

    @classmethod
    def load(cls, folder: Path) -> "Written":
        """Load the entries and rejects from a folder that `save` wrote."""
        told = json.loads((folder / "rejects.json").read_text(encoding="utf-8"))
        entries = read(folder / "statements.jsonl").entries
        return cls(entries, told["rejects"], tuple(told["first"]))


class Rejects:
    """Counts of what is left out, and the first few places."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: list[str] = []

    def add(self, place: str, reason: str) -> None:
        """Count one reject."""
        self.counts[reason] += 1
        if len(self.first) < MOST_SHOWN:
            self.first.append(f"{place}: {reason}")


def answer_span(text: str, answer: str) -> tuple[int, int] | None:
    """Find the answer's first occurrence in the text as a whole word or words: (start, end), or None.

    The case must agree, but at the start of the text the answer's first letter may be a capital.
    """
    whole = [f"(?<!\\w){re.escape(answer)}(?!\\w)", f"\\A{re.escape(upper_first(answer))}(?!\\w)"]
    found = [match.span() for pattern in whole if (match := re.search(pattern, text))]
    return min(found, default=None)


def occurrences(text: str, answer: str) -> int:
    """Count the occurrences of the answer in the text as a whole word or words, whatever the case."""
    return len(re.findall(f"(?<!\\w){re.escape(answer.casefold())}(?!\\w)", text.casefold()))


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Write one JSON object a line, in the format of `read`; the file is written completely or not at all."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        for entry in entries:
            said = [{"text": one.text, "reserved": one.reserved} for one in entry.statements]
            file.write(json.dumps({**entry._asdict(), "statements": said}, ensure_ascii=False) + "\n")


def read(path: Path, mode: str = "strict") -> Written:
    """Read statements from another source, e.g. an LLM, as the paper's.

    UTF-8, one object a line: `{"id", "question", "answer", "statements": [{"text", "reserved"}], "alternatives": […]}`;
    `id` is that of the question's fact. The answer must stand in each statement (`answer_span`; where it does so more
    than once, the first place is masked), some statement must be reserved and some not, and no false answer may be the
    right one. Empty lines are passed over. A bad line raises ValueError with its number if `mode` is "strict"; if it is
    "skip", it is counted in `rejects`.
    """
    if mode not in MODES:
        raise ValueError(f"mode = {mode!r} is not known; choose {' or '.join(MODES)}")
    entries, rejects = {}, Rejects()
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
    if bad := [text for text in texts if not text.strip() or not is_one_line(text)]:
        raise _BadLine("a text that is empty or more than one line", bad[0])
    if {one.reserved for one in said} != {True, False}:
        raise _BadLine("no statement to be told, or none in reserve")
    if right := [text for text in alternatives if compared_by(text) == compared_by(row["answer"])]:
        raise _BadLine("an alternative that is the right answer", right[0])
    return Entry(row["id"], row["question"], row["answer"], said, tuple(alternatives))


def _read_statement(one: object, answer: str) -> Statement:
    if not (isinstance(one, dict) and isinstance(one.get("text"), str) and isinstance(one.get("reserved"), bool)):
        raise _BadLine("a statement that is no object with a text and true or false for reserved")
    text = one["text"]
    if not text.strip() or not is_one_line(text):
        raise _BadLine("a text that is empty or more than one line", text)
    place = answer_span(text, answer) if answer else None
    if place is None:
        raise _BadLine(f"a statement without its answer {answer[:40]!r}", text)
    return Statement(text, *place, one["reserved"])
