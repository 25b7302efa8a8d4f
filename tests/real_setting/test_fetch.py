"""The list of resources, what of it is in a folder, and fetching it from a server that misbehaves in every way."""

import argparse
import errno
import gzip
import hashlib
import json
import os
import random
import shutil
import socket
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dprlens.real_setting import fetch as fetching
from dprlens.real_setting.fetch import FetchError, FetchSpec, fetch
from dprlens.world.natural.resources import Resource, amount, look, parse_resources, read_seal, resources, seal

BODY = random.Random(3).randbytes(300_000)
TABLE = gzip.compress(b"id\ttext\ttitle\n1\tA lake.\tWick\n", mtime=0)
PLAIN = Resource("answers", "deep/answers.csv", "answers", path="data/answers.csv")
QUICK = FetchSpec(attempts=3, first_delay=1.0, timeout=5)


class Script:
    """What a server does: one function a request, the last one for all that follow."""

    def __init__(self, *answers, body=BODY):
        self.answers, self.body, self.asked = list(answers), body, []

    def next(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        script = self.server.script
        script.asked.append((self.path, dict(self.headers)))
        self.close_connection = True
        script.next()(self, script.body)

    def log_message(self, *_):
        pass

    def head(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


def whole(request, body, version='"v1"', **headers):
    request.head(200, Content_Length=len(body), **({"ETag": version} if version else {}), **headers)
    request.wfile.write(body)


def ranged(request, body, version='"v1"'):
    """As a server that knows ranges and If-Range."""
    asked = request.headers.get("Range")
    if not asked or request.headers.get("If-Range") != version:
        return whole(request, body, version)
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    if start >= len(body):
        return request.head(416, Content_Range=f"bytes */{len(body)}", Content_Length=0)
    request.head(
        206, Content_Length=len(body) - start, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}", ETag=version
    )
    request.wfile.write(body[start:])
    return None


def cut(after, version='"v1"', known_ranges=True):
    """Sends so many bytes of what was asked for, then hangs up."""

    def answer(request, body):
        asked = request.headers.get("Range") if known_ranges else None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        headers = {"ETag": version} if version else {}
        if start:
            headers |= {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        request.head(206 if start else 200, Content_Length=len(body) - start, **headers)
        request.wfile.write(body[start : start + after])
        request.wfile.flush()
        request.connection.close()

    return answer


def error(code, **headers):
    return lambda request, _: request.head(code, Content_Length=0, **headers)


@pytest.fixture
def serve():
    """`serve(script)` gives a server's address; the next script is that of the same server."""
    servers = []

    def start(script):
        if servers:
            servers[0][0].script = script
            return f"http://127.0.0.1:{servers[0][0].server_port}/dpr"
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.script = script
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/dpr"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def get(serve, tmp_path):
    """`get(script)` fetches `PLAIN` from such a server; `get.waits` are the seconds that it waited."""

    def run(script, resource=PLAIN, spec=QUICK):
        run.said = []
        base = serve(script)
        (one,) = fetch([resource], tmp_path, base, spec, sleep=run.waits.append, notice=run.said.append)
        return one

    run.waits = []
    return run


def left(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_comes_with_its_seal(get, tmp_path):
    script = Script(whole)
    one = get(script)
    assert one[:4] == ("answers", tmp_path / "deep/answers.csv", len(BODY), True)
    assert one.path.read_bytes() == BODY
    assert left(tmp_path) == ["deep/answers.csv", "deep/answers.csv.fetched.json"]
    sealed = read_seal(one.path)
    assert sealed["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert sealed["bytes"] == len(BODY)
    assert sealed["source"].endswith("/dpr/data/answers.csv")
    (path, headers), *more = script.asked
    assert path == "/dpr/data/answers.csv"
    assert headers["Accept-Encoding"] == "identity"
    assert not more
    assert get.waits == []


def test_what_is_there_is_not_fetched_again(get, tmp_path):
    get(Script(whole))
    again = Script(error(500))
    one = get(again)
    assert not one.fresh
    assert again.asked == []
    byhand = tmp_path / "deep/other.csv"
    byhand.write_text("q\t['a']\n")
    other = get(again, Resource("other", "deep/other.csv.gz", "unpacked by hand", path="x"))
    assert (other.path, other.fresh) == (byhand, False)


def test_a_cut_connection_is_taken_up_where_it_was(get):
    script = Script(cut(100_000), cut(50_001), ranged)
    assert get(script).path.read_bytes() == BODY
    assert [headers.get("Range") for _, headers in script.asked] == [None, "bytes=100000-", "bytes=150001-"]
    assert {headers.get("If-Range") for _, headers in script.asked[1:]} == {'"v1"'}
    assert get.waits == [1.0, 1.0]  # there was progress in between
    assert any("cut" in line for line in get.said)


def test_a_server_without_ranges_begins_again(get):
    script = Script(cut(100_000), whole)
    assert get(script).path.read_bytes() == BODY
    assert script.asked[1][1]["Range"] == "bytes=100000-"
    nameless = Script(cut(100_000, version=None), lambda request, body: whole(request, body, version=None))
    assert get(nameless, PLAIN_2).path.read_bytes() == BODY
    assert "Range" not in nameless.asked[1][1]  # nobody could tell whether it is the same file


PLAIN_2 = Resource("second", "second.csv", "the same again", path="data/second.csv")


def test_a_part_of_a_file_that_has_changed_is_not_used(get):
    new = BODY[::-1] + b"more"
    script = Script(cut(100_000), lambda request, _: ranged(request, new, '"v2"'))
    assert get(script).path.read_bytes() == new
    careless = Script(cut(100_000), cut(9, '"v2"'), lambda request, _: whole(request, new, '"v2"'))
    assert get(careless, PLAIN_2).path.read_bytes() == new  # If-Range was not heeded
    assert [("Range" in headers) for _, headers in careless.asked] == [False, True, False]


def test_a_weak_version_is_none(get):
    def weak(request, body):
        request.head(200, Content_Length=len(body), ETag='W/"v1"', Last_Modified=monday)
        request.wfile.write(body[:1000])
        request.connection.close()

    monday = "Mon, 02 Jan 2023 00:00:00 GMT"
    script = Script(weak, whole)
    assert get(script).path.read_bytes() == BODY
    assert script.asked[1][1]["If-Range"] == monday
    alone = Script(cut(1000, 'W/"v1"'), whole)
    assert get(alone, PLAIN_2).path.read_bytes() == BODY
    assert "Range" not in alone.asked[1][1]


def test_another_run_goes_on(get, refused, tmp_path):
    broken = Script(cut(70_000), cut(0))
    with refused("cut", "3 attempts", "deep/answers.csv", str(tmp_path), error=FetchError):
        get(broken)
    assert look(PLAIN, tmp_path)[:3] == ("partly", tmp_path / "deep/answers.csv", 70_000)
    script = Script(ranged)
    assert get(script).path.read_bytes() == BODY
    assert script.asked[0][1]["Range"] == "bytes=70000-"
    assert left(tmp_path) == ["deep/answers.csv", "deep/answers.csv.fetched.json"]


def test_killed_before_the_last_step(get, monkeypatch, tmp_path):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(fetching.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            get(Script(whole))
    assert not (tmp_path / "deep/answers.csv").exists()
    script = Script(ranged)
    assert get(script).path.read_bytes() == BODY


def test_a_part_that_was_whole_already(get, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(fetching._Download, "_finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            get(Script(whole))
    script = Script(ranged)
    assert get(script).path.read_bytes() == BODY
    assert [headers["Range"] for _, headers in script.asked] == [f"bytes={len(BODY)}-"]


def test_a_part_from_elsewhere_is_not_gone_on_with(get, tmp_path):
    about, part = tmp_path / "deep/answers.csv.part.json", tmp_path / "deep/answers.csv.part"
    about.parent.mkdir()
    for said in ({"address": "https://a.example/x", "version": '"v1"', "bytes": len(BODY)}, [], {"version": 3}):
        part.write_bytes(b"other")
        about.write_text(json.dumps(said))
        script = Script(whole)
        one = get(script)
        assert "Range" not in script.asked[0][1]
        assert one.path.read_bytes() == BODY
        one.path.unlink()


def test_busy_servers_are_waited_for(get):
    later = Script(
        error(429, Retry_After=7), error(503), error(500, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), whole
    )
    assert get(later, spec=FetchSpec(attempts=4)).path.read_bytes() == BODY
    assert get.waits == [7.0, 2.0, 0.0]
    get.waits.clear()
    greedy = Script(error(429, Retry_After=10**8), whole)
    get(greedy, PLAIN_2)
    assert get.waits == [120.0]


def test_patience_ends(get, refused, tmp_path):
    script = Script(error(503))
    with refused("503", "3 attempts", "place these yourself", "deep/answers.csv", error=FetchError):
        get(script)
    assert get.waits == [1.0, 2.0]
    assert len(script.asked) == 3
    assert not (tmp_path / "deep/answers.csv").exists()


def test_a_missing_file_is_not_asked_for_twice(get, refused, tmp_path):
    script = Script(error(404))
    with refused("404", str(tmp_path / "deep/answers.csv"), "another base", error=FetchError):
        get(script)
    assert len(script.asked) == 1
    assert get.waits == []


def test_sizes_and_sums_that_are_published_are_checked(get, refused, tmp_path):
    sum_ = hashlib.sha256(BODY).hexdigest()
    with refused("300,000", "299,999", error=FetchError):
        get(Script(whole), Resource("a", "a", "", path="a", bytes=299_999))
    with refused("SHA-256", "000000000000", "removed", error=FetchError):
        get(Script(whole), Resource("b", "b", "", path="b", sha256="0" * 64))
    assert not [name for name in left(tmp_path) if name.startswith("b")]
    one = get(Script(whole), Resource("c", "c", "", path="c", bytes=len(BODY), sha256=sum_))
    assert one.remark == "checksum as published"


def chunks(request, body):
    request.head(200, Transfer_Encoding="chunked")
    for start in range(0, len(body), 100_000):
        piece = body[start : start + 100_000]
        request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    request.wfile.write(b"0\r\n\r\n")


def chunks_cut(request, body):
    request.head(200, Transfer_Encoding="chunked", ETag='"v1"')
    request.wfile.write(f"{len(body):x}\r\n".encode() + body[:5000])
    request.wfile.flush()
    request.connection.close()


def test_lengths_that_are_not_stated(get, refused):
    script = Script(chunks_cut, ranged)
    assert get(script).path.read_bytes() == BODY
    assert [headers.get("Range") for _, headers in script.asked] == [None, "bytes=5000-"]
    assert get(Script(chunks_cut, chunks), PLAIN_2).path.read_bytes() == BODY

    def endless(request, body):
        request.head(200)
        request.wfile.write(body)

    with refused("without its length", "place the file yourself", error=FetchError):
        get(Script(endless), Resource("fourth", "fourth", "", path="d"))
    with refused("299,999", error=FetchError):
        get(Script(chunks), Resource("third", "third", "", path="c", bytes=299_999))


def test_a_page_with_a_message_is_no_file(get, refused, tmp_path):
    table = Resource("table", "table.tsv.gz", "", path="t")
    with refused("no gzip file", error=FetchError):
        get(Script(whole, body=b"<html>moved</html>"), table)
    assert left(tmp_path) == []
    assert get(Script(whole, body=TABLE), table).path.read_bytes() == TABLE  # kept packed, as the readers take it


def test_an_answer_that_was_not_asked_for(get, refused):
    def odd(request, body):
        request.head(206, Content_Length=10, Content_Range=f"bytes 5-14/{len(body)}")
        request.wfile.write(body[5:15])

    with refused("not asked for", error=FetchError):
        get(Script(odd))


def test_room_on_the_disk_is_looked_for_first(get, refused, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    script = Script(whole)
    with refused("300.0 kB", "1.0 kB", "free some space", error=FetchError):
        get(script)


def test_a_full_disk(get, refused, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fetching._Download, "_copy", full)
    with refused("is full", "goes on where it stopped", error=FetchError):
        get(Script(whole))


def test_a_folder_that_is_a_file(refused, serve, tmp_path):
    (tmp_path / "data").write_text("")
    with refused("cannot be written to", "another data folder", error=FetchError):
        fetch([PLAIN], tmp_path / "data", serve(Script(whole)), QUICK)


def test_two_runs_at_once(get, refused, serve, tmp_path):
    (tmp_path / "deep").mkdir()
    with (
        fetching._locked_part(tmp_path / "deep/answers.csv.part"),
        refused("another run is fetching answers.csv", error=FetchError),
    ):
        fetch([PLAIN], tmp_path, serve(Script(whole)), QUICK)
    assert get(Script(whole)).fresh


def test_redirects_are_followed_but_not_out_of_https(get, refused):
    def moved(request, _):
        place = "/dpr/data/answers.csv" if "new" in request.path else "/dpr/new"
        request.head(302, Location=place, Content_Length=0)

    script = Script(moved, whole)
    assert get(script).path.read_bytes() == BODY
    assert [path for path, _ in script.asked] == ["/dpr/data/answers.csv", "/dpr/new"]
    request = fetching.urllib.request.Request("https://a.example/x")
    with refused("http://b.example/x", "not HTTPS", error=FetchError):
        fetching._NoDowngrade().redirect_request(request, None, 302, "", {}, "http://b.example/x")


@pytest.mark.parametrize(
    "base", ["http://files.example/dpr", "file:///etc", "ftp://files.example", "files.example", ""]
)
def test_only_https(refused, tmp_path, base):
    with refused("https://"):
        fetch([PLAIN], tmp_path, base or "x")


def test_offline_it_says_what_to_place_where(refused, tmp_path):
    files = [resource for resource in resources().needed("paper") if not resource.is_model]
    waits = []
    dead = f"http://127.0.0.1:{_unused()}/dpr"
    (tmp_path / "biencoder-nq-dev.json.gz").write_bytes(TABLE)
    with refused("cannot be reached", str(tmp_path), "psgs_w100.tsv.gz, biencoder-nq-train.json.gz", error=FetchError):
        fetch(files, tmp_path, dead, QUICK, sleep=waits.append)
    assert waits == []  # it fails at once


def _unused():
    """A port where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize(
    ("field", "value"), [("attempts", 0), ("first_delay", -1), ("most_delay", float("nan")), ("timeout", 0)]
)
def test_the_spec_checks_itself(refused, field, value):
    with refused(field, "give"):
        FetchSpec(**{field: value})


# Models


def hub(files, fail=None):
    """Stands in for the hub's library: a model with these files."""
    asked = []

    def hf_hub_download(_, name, local_dir):
        asked.append(name)
        if fail:
            raise fail
        Path(local_dir).mkdir(parents=True, exist_ok=True)
        (Path(local_dir) / name).write_bytes(b"x" * 10)

    return types.SimpleNamespace(list_repo_files=lambda _: files, hf_hub_download=hf_hub_download, asked=asked)


BERT = ("config.json", "vocab.txt", "pytorch_model.bin", "tf_model.h5", "tokenizer.json")


def test_models_come_through_the_hub(tmp_path, refused):
    both = hub([*BERT, "model.safetensors"])
    (one,) = fetch(resources().named(["bert-base-uncased"]), tmp_path, hub=both)
    assert both.asked == [
        "config.json",
        "vocab.txt",
        "tokenizer.json",
        "model.safetensors",
    ]  # no pickle where it can be
    assert one.remark == "weights in model.safetensors"
    old = hub(BERT)
    fetch(resources().named(["dpr-context-encoder"]), tmp_path, hub=old)
    assert old.asked[-1] == "pytorch_model.bin"
    with refused("has no model.safetensors or pytorch_model.bin", error=FetchError):
        fetch(resources().named(["dpr-question-encoder"]), tmp_path, hub=hub(["config.json", "vocab.txt"]))
    with refused("has no vocab.txt", error=FetchError):
        fetch(resources().named(["dpr-question-encoder"]), tmp_path, hub=hub(["config.json", "model.safetensors"]))
    offline = hub(BERT, fail=ConnectionError("Cannot reach it. Sorry."))
    with refused("Cannot reach it", "models/dpr-question_encoder-single-nq-base", "place", error=FetchError):
        fetch(resources().named(["dpr-question-encoder"]), tmp_path, hub=offline)


def test_a_model_is_looked_at(tmp_path):
    bert = resources().all["bert-base-uncased"]
    place = tmp_path / bert.place
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    assert look(bert, tmp_path)[::4] == ("partly", "without vocab.txt, model.safetensors or pytorch_model.bin")
    (place / "vocab.txt").write_text("[PAD]")
    (place / "model.safetensors").write_text("")
    assert look(bert, tmp_path)[::4] == ("damaged", "model.safetensors is empty")
    (place / "model.safetensors").write_text("x")
    assert look(bert, tmp_path).state == "there"


# The list, and what is in a folder


def test_the_list_is_sound():
    found = resources()
    assert found.base.startswith("https://")
    rows = {name: resource.rows for name, resource in found.all.items() if resource.rows}
    assert rows["psgs_w100"] == 21_015_324
    assert (rows["nq-train"], rows["nq-dev"], rows["nq-test-answers"]) == (58_880, 6_515, 3_610)
    assert {resource.place for resource in found.needed("paper")} == {
        "psgs_w100.tsv.gz",
        "biencoder-nq-train.json.gz",
        "biencoder-nq-dev.json.gz",
        "models/bert-base-uncased",
    }
    assert found.needed("small") == []
    places = [resource.place for resource in found.all.values()]
    assert len(set(places)) == len(places)
    assert all(resource.size == "size not published" for resource in found.all.values())


GOOD = {"place": "a.csv", "path": "b.csv", "why": "because"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"place": "/etc/a"}, "below the data folder"),
        ({"place": "../a"}, "below the data folder"),
        ({"hub": "x/y"}, "one source"),
        ({"path": None, "hub": "x/y"}, "weights"),
        ({"rows": 0}, "rows = 0"),
        ({"bytes": -1}, "bytes = -1"),
        ({"sha256": "abc"}, "64 hexadecimal"),
        ({"md5": "abc"}, "'md5'"),
    ],
)
def test_a_bad_entry_of_the_list(refused, change, words):
    table = {"base": "https://a.example/", "licence": "", "models": {}}
    parse_resources({**table, "files": {"one": GOOD}})
    with refused("one", words):
        parse_resources({**table, "files": {"one": {**GOOD, **change}}})


def test_an_unknown_name(refused, tmp_path):
    with refused("'psgs'", "psgs_w100"):
        fetch(resources().named(["psgs"]), tmp_path)


def test_damage_is_seen(get, refused, tmp_path):
    table = Resource("table", "table.tsv.gz", "", path="t")
    path = get(Script(whole, body=TABLE), table).path
    assert look(table, tmp_path)[::4] == ("there", "size checked, content not")
    assert look(table, tmp_path, thorough=True)[::4] == ("there", "checksum agrees")
    path.write_bytes(TABLE[:-1] + b"?")
    assert look(table, tmp_path).state == "there"  # in seconds, so by size alone
    found = look(table, tmp_path, thorough=True)
    assert found.state == "damaged"
    assert "SHA-256" in found.remark
    path.write_bytes(TABLE[:-1])
    with refused("damaged", f"{len(TABLE)} are recorded", "remove it", error=FetchError):
        get(Script(whole), table)
    path.write_bytes(b"")
    assert look(table, tmp_path).remark == "it is empty"
    seal(path).write_text("nonsense")
    path.write_bytes(b"<html>")
    assert look(table, tmp_path).remark == "it is no gzip file"
    path.write_bytes(TABLE)
    assert look(table, tmp_path).remark == "placed by hand, its content is not checked"
    assert look(table, tmp_path, thorough=True).sha256 == hashlib.sha256(TABLE).hexdigest()
    published = Resource("table", "table.tsv.gz", "", path="t", bytes=len(TABLE), sha256="0" * 64)
    assert look(published, tmp_path).state == "there"
    assert look(published, tmp_path, thorough=True).state == "damaged"


@pytest.mark.parametrize(
    ("bytes_", "words"), [(12, "12 bytes"), (64.56e9, "64.6 GB"), (999_960_000, "1.0 GB"), (1500, "1.5 kB")]
)
def test_amounts(bytes_, words):
    assert amount(bytes_) == words


# The command


def command(*words):
    parser = argparse.ArgumentParser()
    fetching.add_arguments(parser)
    return fetching.main(parser.parse_args(words))


def test_the_command(serve, tmp_path, capsys):
    base = serve(Script(whole))
    data = ["--data", str(tmp_path)]
    assert command("nq-test-answers", *data, "--base", base) == 0
    assert (tmp_path / "nq-test.qa.csv").read_bytes() == BODY
    assert "300.0 kB" in capsys.readouterr().out
    assert command("nq-dev-answers", *data, "--base", serve(Script(error(404)))) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("dprlens: http://127.0.0.1")
    assert shown.count("\n") == 1
    assert command("--profile", "small", *data) == 0
    assert "needs no files" in capsys.readouterr().out
    assert command("--list", *data) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "psgs_w100: missing; the 21 million passages (21,015,324 rows, size not published, needed"
    )
    assert any(line.startswith("nq-test-answers: there") for line in lines)
    assert lines[-1].startswith("licence: ")
