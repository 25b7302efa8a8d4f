"""Files as streams, packed by gzip or not: the rows of a table, the items of a JSON list.

Text is UTF-8, with or without a byte order mark; a byte that is not is passed on as half of a surrogate pair, see
`is_unicode`. A file that is bad as a whole is a ValueError.
"""

import contextlib
import gzip
import io
import json
import re
import zlib
from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TextIO, cast

from dprlens.world.natural.bad_rows import BadRows
from dprlens.world.natural.resources import GZIP

LINES = 1000  # a quoted field may run over so many; if its quote is still open then, the quote was a mistake
LONGEST = 1 << 24  # characters of a line
LARGEST = 1 << 26  # characters of a JSON item
CUT = 16  # characters: a JSON error nearer than this to the end of what was read may be gone with the next chunk
CHUNK = 1 << 22  # characters that are read at once
BLANKS = re.compile(r"[ \t\r\n]*")
# One field: in quotes ("" stands for one of them), whatever follows the closing quote; or without quotes at its start.
FIELD = re.compile(r'"((?:[^"]++|"")*+)"([^\t]*+)|((?!")[^\t]*+)')


def rows(path: Path, findings: BadRows) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not empty: its line number, from 1, and its fields.

    A row may run over several lines. Python's csv module would read the same, but a field of more than 128 KB only
    after a change for the whole process; and where a quote is never closed it takes the rest of the file for one field.
    """
    file = Path(path).name
    with _opened(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline="\n") as text:
        ahead: deque[str] = deque()  # lines that were read and belong to no row yet
        number = 0  # of the lines that do

        def next_line() -> str:
            line = text.readline(LONGEST)
            if len(line) == LONGEST:
                raise ValueError(
                    f"{file} has a line of {LONGEST:,} characters or more, so that it is no file of rows; give one in "
                    "DPR's format"
                )
            return line

        while first := ahead.popleft() if ahead else next_line():
            row = first
            taken: list[str] = []
            fields, tidy = _split(row)
            while fields is None and len(taken) < LINES and (line := ahead.popleft() if ahead else next_line()):
                taken.append(line)
                row += line
                fields, tidy = _split(row) if '"' in line else (None, True)
            if fields is None or (taken and not tidy):  # the quote that closed it was another row's
                findings.bad(file, "line", number + 1, "a quote is opened and not closed", first)
                ahead.extendleft(reversed(taken))
                fields, taken = [""], []
            if fields != [""]:
                yield number + 1, fields
            number += 1 + len(taken)


def _split(row: str) -> tuple[list[str] | None, bool]:
    """Split a row into fields as Python's csv does; return also whether quotes are tidy.

    The fields are None if a quote is left open.
    """
    row = row.removesuffix("\n").removesuffix("\r")
    if not (row.startswith('"') or '\t"' in row):
        return row.split("\t"), True
    fields, at, tidy = [], 0, True
    while field := FIELD.match(row, at):
        quoted, rest, bare = field.groups()
        fields.append(bare if quoted is None else quoted.replace('""', '"') + rest)
        tidy = tidy and not rest
        at = field.end()
        if at == len(row):
            return fields, tidy
        at += 1  # the tab
    return None, tidy


def items(path: Path) -> Iterator[object]:
    """Yield the items of a JSON list, one at a time in memory."""
    file = Path(path).name
    with _opened(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape") as source:
        text = _Buffer(source, file)
        if (sign := text.sign()) != "[":
            raise _no_list(file, f"it starts with {sign!a}" if sign else "it is empty")
        text.at += 1
        for place in count():
            if place or text.sign() != "]":
                yield text.value(place)
            sign = text.sign()
            text.at += 1
            if sign == "]":
                break
            if sign != ",":
                raise _no_list(file, f"after record {place} stands {sign!a}" if sign else "it is cut short")
        if sign := text.sign():
            raise _no_list(file, f"after its end stands {sign!a}")


class _Buffer:
    """JSON read piece by piece.

    Escapes are as in `json.load`, where faster parsers replace half of a surrogate pair.
    """

    def __init__(self, source: TextIO, file: str) -> None:
        self.at = 0
        self._source, self._file, self._text = source, file, ""
        self._decode = json.JSONDecoder().raw_decode

    def sign(self) -> str:
        """Read the next character that is no blank; "" at the end."""
        while True:
            self.at = cast(re.Match, BLANKS.match(self._text, self.at)).end()  # it matches no character, too
            if self.at < len(self._text) or not self._more():
                return self._text[self.at : self.at + 1]

    def value(self, place: int) -> object:
        """Read the next value.

        Raises ValueError if there is none, or one of more than `LARGEST` characters.
        """
        if not self.sign():
            raise _no_list(self._file, "it is cut short")
        while True:
            try:
                value, end = self._decode(self._text, self.at)
                if end < len(self._text) and (isinstance(value, dict | list | str) or self._text[end] in ",] \t\r\n"):
                    self.at = end
                    return value
                problem, final = "it is cut short", False  # a number that may go on
            except json.JSONDecodeError as error:
                open_string = error.msg.startswith("Unterminated")  # its place is where the string starts
                problem, final = error.msg, not open_string and error.pos < len(self._text) - CUT
            except (RecursionError, ValueError) as error:  # a value for which Python has no room
                problem, final = str(error), True
            if final or len(self._text) - self.at > LARGEST or not self._more():
                raise _no_list(self._file, f"record {place} cannot be read: {problem}")

    def _more(self) -> bool:
        more = self._source.read(max(CHUNK, len(self._text) - self.at))
        self._text, self.at = self._text[self.at :] + more, 0
        return bool(more)


def _no_list(file: str, how: str) -> ValueError:
    return ValueError(
        f"{file} is not the JSON list of records that DPR's biencoder-nq files are ({how}); get the file again or "
        "repair it, for nothing after that can be read"
    )


def is_unicode(*texts: str) -> bool:
    """Test whether texts are Unicode, without half of a surrogate pair.

    A byte that is not UTF-8 is passed on as such a half, too.
    """
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[gzip.GzipFile | io.BufferedReader]:
    """Open a file's content, unpacked if it is gzip.

    Damage to the packing becomes a ValueError.
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there; place DPR's file of that name in that folder") from None
    with file:
        packed = file.read(2) == GZIP
        file.seek(0)
        try:
            with gzip.open(file) if packed else contextlib.nullcontext(file) as content:
                yield content
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path.name} is cut short or damaged ({error}); get the file again") from None
