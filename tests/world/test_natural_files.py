"""DPR's three formats: what is read, what is refused, what is counted."""

import csv
import gzip
import io
import json
import random

import pytest

from dprlens.world.natural._files import Context, Record, lines_of, open_questions, passages, records
from dprlens.world.natural.bad_rows import BadRows
from dprlens.world.passages import Passage

HEADER = "id\ttext\ttitle\n"
LONG = "wörd " * 200_000  # 1.2 MB


def write(folder, name: str, content: bytes | str):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


# passages


def psgs(folder, content, mode="skip", expected=None):
    """The passages, and (what, left out, times, first place) of the findings."""
    findings = BadRows(mode)
    content = HEADER.encode() + content if isinstance(content, bytes) else HEADER + content
    found = list(passages(write(folder, "psgs.tsv", content), findings, expected))
    return found, [(row.what, row.left_out, row.times, row.places[0]) for row in findings.rows()]


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        ("1\tAda sails.\tAda\n", Passage("1", "Ada", "Ada sails.")),
        ("1\tAda sails.\tAda", Passage("1", "Ada", "Ada sails.")),
        ("1\tAda sails.\tAda\r\n", Passage("1", "Ada", "Ada sails.")),
        ('1\t"Ada ""sails""\tfar."\t"Ad""a"\n', Passage("1", 'Ad"a', 'Ada "sails"\tfar.')),
        ('1\t"""Ada"" sails"\tAda\n', Passage("1", "Ada", 'Ada" sails')),  # DPR's stripping, not ours
        ('1\t"Ada\nsails.\r\n"\tAda\n', Passage("1", "Ada", "Ada\nsails.\r\n")),
        ('1\tAda "sails"\tAda\n', Passage("1", "Ada", 'Ada "sails')),
        ("x y\t \u202bשלום\u202c\u200b \tÖ\n", Passage("x y", "Ö", " \u202bשלום\u202c\u200b ")),
        ("1\te\u0301\té\n", Passage("1", "é", "e\u0301")),  # no normalisation
        (f"1\t{LONG}\tt\n", Passage("1", "t", LONG)),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_passage_is_read(tmp_path, row, passage):
    assert psgs(tmp_path, row, "strict") == ([passage], [])


def test_a_byte_order_mark_and_gzip_are_passed_over(tmp_path):
    content = ("\ufeff" + HEADER + "1\tAda sails.\tAda\n").encode()
    for name, packed in (("p.tsv", content), ("p.tsv.gz", gzip.compress(content)), ("p.tsv", gzip.compress(content))):
        assert list(passages(write(tmp_path, name, packed))) == [Passage("1", "Ada", "Ada sails.")]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("2\ttext\n", "2 columns"),
        ("2\n", "1 columns"),
        ("2\ta\tb\tc\n", "4 columns"),
        ("\ttext\ttitle\n", "id is empty"),
        ("2\t\ttitle\n", "text is empty"),
        ('2\t" "" "\ttitle\n'.replace('" "" "', '""""""'), "text is empty"),
        ("2\t \ttitle\n", "text is empty"),
        (b"2\tcaf\xe9\ttitle\n", "not valid Unicode"),
        (b"2\ttext\t\xed\xa0\x80\n", "not valid Unicode"),  # half of a surrogate pair
        ('2\t"text\ttitle\n', "quote"),
    ],
)
def test_a_bad_row_is_refused_or_counted_and_the_others_are_read(tmp_path, refused, row, what):
    row = row if isinstance(row, bytes) else row.encode()
    content = b"1\tAda sails.\tAda\n" + row + b"3\tBo rows.\tBo\n"
    with refused("psgs.tsv, line 3", what, "skip"):
        psgs(tmp_path, content, "strict")
    found, ((told, left_out, times, line),) = psgs(tmp_path, content)
    assert found == [Passage("1", "Ada", "Ada sails."), Passage("3", "Bo", "Bo rows.")]
    assert what in told
    assert (left_out, times, line) == (True, 1, 3)


def test_a_missing_title_is_kept_and_counted(tmp_path):
    found, findings = psgs(tmp_path, "1\tAda sails.\t\n", "strict")
    assert found == [Passage("1", "", "Ada sails.")]
    assert findings == [("the title is empty", False, 1, 2)]


@pytest.mark.parametrize(
    "header", ["", "\n", "1\tAda sails.\tAda\n", "id\ttitle\ttext\n", "id text title\n", '[{"a": 1}]']
)
@pytest.mark.parametrize("mode", ["strict", "skip"])
def test_a_file_without_the_header_is_refused_in_both_modes(tmp_path, refused, header, mode):
    with refused("psgs.tsv", "header"):
        list(passages(write(tmp_path, "psgs.tsv", header), BadRows(mode)))


def test_the_number_of_rows_counts_bad_ones_too(tmp_path, refused):
    content = "1\tAda sails.\tAda\nbad\n2\tBo rows.\tBo\n"
    assert len(psgs(tmp_path, content, expected=3)[1]) == 1
    with refused("2 rows", "3 are expected"):
        psgs(tmp_path, "1\ta\tb\n2\ta\tb", "strict", expected=3)
    found, findings = psgs(tmp_path, content, expected=4)
    assert len(found) == 2
    assert findings[-1] == ("the file ends after 3 rows where 4 are expected", False, 1, 4)


def test_a_file_that_was_cut_short_in_a_row_is_told(tmp_path, refused):
    with refused("line 3", "2 columns"):
        psgs(tmp_path, "1\tAda sails.\tAda\n2\tBo ro", "strict")


def test_rows_of_one_id_are_found_by_line(tmp_path):
    path = write(tmp_path, "p.tsv", HEADER + '7\t"a\nb"\tt\nbad\n8\ta\tt\n7\ta\tt\n7\t\tt\n')
    assert lines_of(path, {"7"}) == {"7": [2, 6]}


def test_passages_that_csv_wrote_come_back(tmp_path):
    rng = random.Random(4)
    texts = ["Ö" + "".join(rng.choices('ab"\t\n ', k=rng.randrange(20))) + "x" for _ in range(2000)]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter="\t", lineterminator="\n").writerows([i, text, text] for i, text in enumerate(texts))
    found, findings = psgs(tmp_path, out.getvalue(), "strict", expected=2000)
    assert found == [Passage(str(i), text, text) for i, text in enumerate(texts)]
    assert findings == []


# questions with answers


def asked(folder, content, mode="skip", expected=None):
    findings = BadRows(mode)
    found = list(open_questions(write(folder, "nq-test.qa.csv", content), findings, expected))
    return found, [(row.what, row.left_out, row.times, row.places[0]) for row in findings.rows()]


@pytest.mark.parametrize(
    ("row", "question", "answers"),
    [
        ("who sails\t['Ada']\n", "who sails", ("Ada",)),
        ("who sails \t['Ada', 'Ada B']\r\n", "who sails", ("Ada", "Ada B")),
        ('who’s there\t["Bo\'s"]\n', "who's there", ("Bo's",)),
        ("who sails\t['Ada \"B\"']\n", "who sails", ('Ada "B"',)),
        ('who sails\t"[""Bo\'s"", \'C\']"\n', "who sails", ("Bo's", "C")),
        ("who sails\t['\\u00d6', 'a\\\\b', '\\d']", "who sails", ("Ö", "a\\b", "\\d")),
    ],
)
def test_a_question_is_read(tmp_path, row, question, answers):
    assert asked(tmp_path, row, "strict") == ([("nq-test-0", question, answers)], [])


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("who sails\n", "1 columns"),
        ("who sails\t['a']\tb\n", "3 columns"),
        (" \t['a']\n", "question is empty"),
        ("who sails\t[]\n", "no answer"),
        ("who sails\t['', ' ']\n", "no answer"),
        ("who sails\t'Ada'\n", "no list of strings"),
        ("who sails\t[1942]\n", "no list of strings"),
        ("who sails\t['Ada'\n", "no list of strings"),
        ("who sails\t__import__('os').getcwd()\n", "no list of strings"),
        (f"who sails\t{'[' * 5000}\n", "no list of strings"),
        ("who sails\t['\\ud800']\n", "not valid Unicode"),
        (b"who sails\t['caf\xe9']\n", "not valid Unicode"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_question_is_refused_or_counted(tmp_path, refused, row, what):
    row = row if isinstance(row, bytes) else row.encode()
    content = b"a\t['b']\n" + row + b"c\t['d']\n"
    with refused("nq-test.qa.csv, line 2", what):
        asked(tmp_path, content, "strict")
    found, ((told, left_out, times, line),) = asked(tmp_path, content)
    assert [question.id for question in found] == ["nq-test-0", "nq-test-2"]
    assert what in told
    assert (left_out, times, line) == (True, 1, 2)


def test_an_empty_answer_beside_others_is_left_out_in_both_modes(tmp_path, refused):
    found, findings = asked(tmp_path, "a\t['', 'b']\n", "strict", expected=1)
    assert found[0].answers == ("b",)
    assert findings == [("an empty answer beside others", True, 1, 1)]
    with refused("1 rows", "3610"):
        asked(tmp_path, "a\t['b']\n", "strict", expected=3610)


# records


def context(id_="7", **changes) -> dict:
    whole = {"title": "Ada", "text": '"Ada sails."', "score": 1.5, "title_score": 0, "passage_id": id_, **changes}
    return {name: value for name, value in whole.items() if value is not ...}


def record(**changes) -> dict:
    whole = {
        "dataset": "nq",
        "question": " who’s at sea ",
        "answers": ["Ada", "Ada B"],
        "positive_ctxs": [context("1"), context("2")],
        "negative_ctxs": [context("3")],
        "hard_negative_ctxs": [context("4"), context("5"), context("4")],
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not ...}


def asking(folder, listed, mode="skip", expected=None):
    findings = BadRows(mode)
    content = listed if isinstance(listed, str | bytes) else json.dumps(listed)
    found = list(records(write(folder, "train.json", content), findings, expected))
    return found, [(row.what, row.left_out, row.times, row.places[0]) for row in findings.rows()]


def ctx(id_: str) -> Context:
    return Context(id_, "Ada", '"Ada sails."')


def test_a_record_is_read(tmp_path):
    """Texts stand as they are, quotes included."""
    expected = Record(0, "who's at sea", ("Ada", "Ada B"), (ctx("1"), ctx("2")), (ctx("4"), ctx("5")), (ctx("3"),))
    assert asking(tmp_path, [record()], "strict", expected=1) == ([expected], [])
    assert asking(tmp_path, b"\xef\xbb\xbf" + json.dumps([record()], indent=4).encode(), "strict") == ([expected], [])


def test_a_passage_listed_twice_counts_once_the_first_time(tmp_path):
    listed = [context("4"), context("5"), context("4", text="other")]
    (found,), _ = asking(tmp_path, [record(hard_negative_ctxs=listed)], "strict")
    assert found.hard_negatives == (ctx("4"), ctx("5"))


def test_a_passage_of_a_megabyte_and_strange_letters(tmp_path):
    text = LONG + "🚣\u202bשלום\u200b\0"
    for ascii_ in (True, False):
        content = json.dumps([record(positive_ctxs=[context(text=text)])] * 2, ensure_ascii=ascii_)
        found, findings = asking(tmp_path, content, "strict")
        assert [one.positives[0].text for one in found] == [text, text]
        assert findings == []


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("text", "no JSON object"),
        (record(question=...), "no question"),
        (record(question=" "), "no question"),
        (record(question=["a"]), "no question"),
        (record(question="\ud800"), "not valid Unicode"),
        (record(answers=...), "no list of strings"),
        (record(answers="Ada"), "no list of strings"),
        (record(answers=[1]), "no list of strings"),
        (record(answers=[]), "no answer"),
        (record(answers=[" "]), "no answer"),
        (record(answers=["\udc00"]), "not valid Unicode"),
        (record(positive_ctxs={"a": 1}), "positive_ctxs is no list"),
        (record(hard_negative_ctxs="a"), "hard_negative_ctxs is no list"),
        (record(negative_ctxs=None), "negative_ctxs is no list"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_a_bad_record_is_refused_or_counted(tmp_path, refused, bad, what):
    listed = [record(), bad, record()]
    with refused("train.json, record 1", what):
        asking(tmp_path, listed, "strict")
    found, ((told, left_out, times, place),) = asking(tmp_path, listed)
    assert [one.place for one in found] == [0, 2]
    assert what in told
    assert (left_out, times, place) == (True, 1, 1)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("text", "no JSON object"),
        (context(text=...), "no text"),
        (context(text=None), "no text"),
        (context(text=" "), "no text"),
        (context(title=3), "no string"),
        (context(id_=[1]), "no string"),
        (context(text="\ud800"), "not valid Unicode"),
        (context(title="\udfff"), "not valid Unicode"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["positive_ctxs", "hard_negative_ctxs"])
def test_a_bad_passage_costs_the_record_nothing_else(tmp_path, refused, bad, what, name):
    listed = [record(**{name: [bad, context("8")]})]
    with refused("record 0", what, name):
        asking(tmp_path, listed, "strict")
    (found,), ((told, left_out, times, _),) = asking(tmp_path, listed)
    assert (found.positives if name == "positive_ctxs" else found.hard_negatives) == (ctx("8"),)
    assert what in told
    assert (left_out, times) == (True, 1)


@pytest.mark.parametrize("positives", [[], ...])
def test_a_record_without_positive_is_left_out_in_both_modes_as_in_dpr(tmp_path, positives):
    found, findings = asking(tmp_path, [record(positive_ctxs=positives), record()], "strict")
    assert [one.place for one in found] == [1]
    assert findings == [("it has no positive passage", True, 1, 0)]


def test_lists_of_negatives_may_be_empty_or_missing(tmp_path):
    for gone in ([], ...):
        (found,), findings = asking(tmp_path, [record(negative_ctxs=gone, hard_negative_ctxs=gone)], "strict")
        assert (found.hard_negatives, found.negatives, findings) == ((), (), [])


def test_a_positive_is_taken_off_the_negatives(tmp_path):
    listed = [record(hard_negative_ctxs=[context("2"), context("4")], negative_ctxs=[context("1")])]
    (found,), findings = asking(tmp_path, listed, "strict")
    assert (found.hard_negatives, found.negatives) == ((ctx("4"),), ())
    assert [(left_out, times) for _, left_out, times, _ in findings] == [(False, 2)]


def test_what_names_a_passage(tmp_path):
    """passage_id, else psg_id as in older files, else the text."""
    listed = [
        context(id_=12),
        context(id_=..., psg_id="13"),
        context(id_=None, psg_id=14),
        context(id_="15", psg_id="16"),
        context(id_=...),
        context(id_="", text="other"),
        context(id_=..., title="other"),
        context(id_=..., score=9),
    ]
    (found,), findings = asking(tmp_path, [record(hard_negative_ctxs=listed)], "strict")
    ids = [one.id for one in found.hard_negatives]
    assert ids[:4] == ["12", "13", "14", "15"]
    assert len(set(ids[4:])) == len(ids[4:]) == 3
    assert all(id_.startswith("text-") and len(id_) == 21 for id_ in ids[4:])
    assert findings == [("a passage has no passage_id: named by its text", False, 4, 0)]


@pytest.mark.parametrize("title", [..., None, ""])
def test_a_passage_without_title_is_kept_and_counted(tmp_path, title):
    (found,), findings = asking(tmp_path, [record(positive_ctxs=[context(title=title)])], "strict")
    assert found.positives == (ctx("7")._replace(title=""),)
    assert findings == [("the title of a passage is empty", False, 1, 0)]


def test_bytes_that_are_not_utf8_cost_one_record(tmp_path, refused):
    content = json.dumps([record(), record(question="cafe"), record()]).encode().replace(b"cafe", b"caf\xe9")
    with refused("record 1", "UTF-8"):
        asking(tmp_path, content, "strict")
    assert [one.place for one in asking(tmp_path, content)[0]] == [0, 2]


def test_the_number_of_records_counts_those_left_out(tmp_path, refused):
    assert asking(tmp_path, [record(), record(positive_ctxs=[])], "strict", expected=2)[0]
    with refused("2 rows", "58880"):
        asking(tmp_path, [record(), record()], "strict", expected=58880)


@pytest.mark.parametrize("mode", ["strict", "skip"])
@pytest.mark.parametrize("content", ['{"question": "a"}', "", json.dumps([record()])[:-40], "[1"])
def test_what_is_no_list_is_refused_in_both_modes(tmp_path, refused, mode, content):
    with refused("train.json"):
        asking(tmp_path, content, mode)


@pytest.mark.slow
def test_damage_does_not_bring_down_the_reader(tmp_path):
    """Whatever byte is changed: records, findings, or a ValueError, and in mode "skip" never more than one record lost
    without a word."""
    whole = json.dumps([record(), record(), record()]).encode()
    rng = random.Random(5)
    for _ in range(600):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] = rng.randrange(256)
        try:
            found, findings = asking(tmp_path, bytes(damaged))
        except ValueError:
            continue
        assert len(found) + sum(left_out for _, left_out, *_ in findings) >= 3
