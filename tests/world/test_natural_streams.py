"""Rows against Python's csv module, JSON items against its json module, damage of every kind."""

import csv
import gzip
import io
import json
import random

import pytest

from dprlens.world.natural import _streams
from dprlens.world.natural._streams import is_unicode, items, rows
from dprlens.world.natural.bad_rows import BadRows


def write(folder, content: bytes | str):
    path = folder / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def read(folder, content, mode="skip"):
    """The rows, and what was found."""
    findings = BadRows(mode)
    return list(rows(write(folder, content), findings)), findings.rows()


def test_rows_that_csv_wrote_are_read_as_csv_reads_them(tmp_path):
    """Any text but lone CRs, at which csv ends a row."""
    rng = random.Random(2)
    table = [["".join(rng.choices('a"\t\nÖ ', k=rng.randrange(6))) for _ in range(3)] for _ in range(3000)]
    for end in ("\n", "\r\n"):
        out = io.StringIO(newline="")
        csv.writer(out, delimiter="\t", lineterminator=end).writerows(table)
        found, findings = read(tmp_path, out.getvalue())
        assert [fields for _, fields in found] == table
        assert not findings
        lines = out.getvalue().split("\n")
        assert all(fields[0].split("\n")[0].replace('"', '""') in lines[line - 1] for line, fields in found)


@pytest.mark.slow
def test_rows_of_one_line_are_read_as_csv_reads_them_however_quotes_stand(tmp_path):
    rng = random.Random(3)
    for _ in range(1500):
        line = "".join(rng.choices('a"\t ', k=rng.randrange(1, 12)))
        (expected,) = csv.reader([line + "\n"], delimiter="\t")
        found, findings = read(tmp_path, line + "\n")
        if findings:  # csv takes the end of the file for the end of the field
            assert expected[-1].endswith("\n")
        else:
            assert [fields for _, fields in found] == ([expected] if expected != [""] else [])  # an empty line


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a\tb", [(1, ["a", "b"])]),
        (b"\xef\xbb\xbfa\tb\r\n", [(1, ["a", "b"])]),
        (b"\n\na\n\r\nb\n", [(3, ["a"]), (5, ["b"])]),
        (b'"a\nb"\tc\nd\n', [(1, ["a\nb", "c"]), (3, ["d"])]),
        (b"a\rb\tc\n", [(1, ["a\rb", "c"])]),
        (b"\xff\ta\n", [(1, ["\udcff", "a"])]),
    ],
)
def test_lines_and_where_they_start(tmp_path, content, expected):
    assert read(tmp_path, content) == (expected, ())
    assert read(tmp_path, gzip.compress(content)) == (expected, ())


@pytest.mark.parametrize("after", ["b\tc\n", 'b\t"c ""d"""\n', '"b"\tc\n'])
def test_a_quote_that_is_not_closed_costs_one_row(tmp_path, refused, after):
    """Also where the quotes of later rows would close it."""
    content = 'x\ty\n1\t"a\n' + after * 5
    found, (finding,) = read(tmp_path, content)
    assert [line for line, _ in found] == [1, 3, 4, 5, 6, 7]
    assert (finding.times, finding.places) == (1, (2,))
    with refused("file, line 2", "quote"):
        read(tmp_path, content, "strict")


def test_many_open_quotes_are_all_found(tmp_path, monkeypatch):
    monkeypatch.setattr(_streams, "LINES", 5)
    found, (finding,) = read(tmp_path, '"a\n' * 20 + "".join(f"{i}\n" for i in range(20)))
    assert found == [(21 + i, [str(i)]) for i in range(20)]
    assert finding.times == 20


def test_a_line_without_end_is_refused(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(_streams, "LONGEST", 1000)
    with refused("line of 1,000 characters"):
        read(tmp_path, "a" * 2000)


def test_a_megabyte_in_one_field(tmp_path):
    long = 'ä "b" \n' * 150_000
    out = io.StringIO(newline="")
    csv.writer(out, delimiter="\t", lineterminator="\n").writerow(["1", long.replace("\n", "\t"), "t"])
    assert read(tmp_path, out.getvalue())[0] == [(1, ["1", long.replace("\n", "\t"), "t"])]


@pytest.mark.parametrize("cut", [5, 12, -9, -1])
def test_a_gzip_that_is_cut_short_is_refused_in_both_modes(tmp_path, refused, cut):
    packed = gzip.compress("".join(f"{i}\tb\n" for i in range(1000)).encode())
    for mode in ("strict", "skip"):
        with refused("file is cut short or damaged"):
            read(tmp_path, packed[:cut], mode)


def test_a_gzip_with_a_changed_byte_is_refused(tmp_path, refused):
    packed = bytearray(gzip.compress(json.dumps([{"a": "b" * 1000}] * 10).encode()))
    packed[len(packed) - 6] ^= 1
    with refused("cut short or damaged"):
        list(items(write(tmp_path, bytes(packed))))


def test_a_file_that_is_not_there_is_told_in_one_sentence(tmp_path, refused):
    for reader in (items, lambda path: rows(path, BadRows())):
        with refused(str(tmp_path / "none"), error=FileNotFoundError):
            list(reader(tmp_path / "none"))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 22])
def test_items_are_what_json_reads_whatever_is_read_at_once(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(_streams, "CHUNK", chunk)
    listed = [
        {"a": ['"\\\u2028Ö🚣', 1.5, -12, None, True], "b": {"c": "x" * 50}},
        123,
        "\ud800x\udc00",
        [],
        {},
        1e300,
        "y",
    ]
    for content in (
        json.dumps(listed),
        json.dumps(listed, indent=4),
        json.dumps(listed, separators=(",", ":")) + "\r\n",
    ):
        path = write(tmp_path, "\ufeff" + content)
        assert list(items(path)) == listed
        path.write_bytes(gzip.compress(path.read_bytes()))
        assert list(items(path)) == listed
    assert list(items(write(tmp_path, " [ ] "))) == []


def test_items_come_before_the_file_is_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(_streams, "CHUNK", 10)
    stream = items(write(tmp_path, '[{"a": 1}, {"b": 2}, nonsense'))
    assert [next(stream), next(stream)] == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "it is empty"),
        ("  \n", "it is empty"),
        ('{"a": 1}', "starts with '{'"),
        ("id\ttext", "starts with 'i'"),
        ("[", "cut short"),
        ('[{"a": 1}', "cut short"),
        ('[{"a": 1},', "cut short"),
        ('[{"a": 1}, {"b"', "record 1"),
        ('[{"a": "b', "record 0"),
        ('[{"a": 1},]', "record 1"),
        ('[{"a": 1} {"b": 2}]', "after record 0"),
        ('[{"a": 1}] x', "after its end"),
        ("[{'a': 1}]" + " " * 100, "record 0"),
        ("[" + "[" * 100_000, "record 0"),
        ("[1" + "0" * 5000 + ", 2]", "record 0"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 22])
def test_what_is_no_list_is_refused_with_the_place(tmp_path, refused, monkeypatch, content, words, chunk):
    monkeypatch.setattr(_streams, "CHUNK", max(chunk, len(content) // 10))
    with refused("file is not the JSON list", words):
        list(items(write(tmp_path, content)))


def test_a_mistake_is_told_without_reading_on(tmp_path, refused, monkeypatch):
    """And a string that never ends, when it is longer than a record may be."""
    monkeypatch.setattr(_streams, "CHUNK", 100)
    monkeypatch.setattr(_streams, "LARGEST", 1000)
    for record, most in (("{'a'", 200), ('{"a": "', 4000)):
        path = write(tmp_path, "[" + record + "x" * 100_000)
        taken = []
        monkeypatch.setattr(_streams, "_opened", lambda path, taken=taken: _counting(path, taken))
        with refused("record 0"):
            list(items(path))
        assert sum(taken) <= max(most, io.DEFAULT_BUFFER_SIZE)


class _Counting(io.BytesIO):
    taken: list

    def read1(self, size=-1):
        self.taken.append(len(found := super().read1(size)))
        return found


def _counting(path, taken):
    file = _Counting(path.read_bytes())
    file.taken = taken
    return file


def test_halves_of_surrogate_pairs_and_foreign_bytes_are_told_apart_from_text():
    assert is_unicode("", "Ö🚣", "\0", "\ufffe")
    assert not is_unicode("a", "\ud83d")
    assert not is_unicode(b"\xe9".decode("utf-8", "surrogateescape"))
