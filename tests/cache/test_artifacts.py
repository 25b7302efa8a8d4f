"""The cache against everything that happens to a cache: kills, races, damage, a full disk, bad arguments."""

import functools
import importlib.metadata
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from dprlens.cache import artifacts
from dprlens.cache.artifacts import Basis, Cache, CacheError, Task, canonical, default_root, digest, step, write_json
from dprlens.cache.events import emit, progress

LIB = Path(artifacts.__file__).parents[2]


def write_value(folder: Path) -> None:
    (folder / "value.txt").write_text("forty-two\n")
    (folder / "more").mkdir()
    (folder / "more" / "bytes.bin").write_bytes(bytes(range(256)))


def is_whole(folder: Path) -> bool:
    return (folder / "value.txt").read_text() == "forty-two\n" and len((folder / "more/bytes.bin").read_bytes()) == 256


def never(_: Path) -> None:
    raise AssertionError("made again although it was in the cache")


def child(script: str, *arguments: object) -> subprocess.Popen:
    """A Python process of its own that runs `script` with the imports that every script here needs."""
    head = "import os, sys, time\nfrom pathlib import Path\nfrom dprlens.cache.artifacts import Cache\n"
    command = [sys.executable, "-c", head + script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(LIB)}
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.01)


def visible(root: Path) -> list[str]:
    """What a listing of the cache shows besides the locks."""
    return sorted(path.name for path in root.iterdir() if path.name != ".locks")


# made once


def test_is_made_once_and_meta_is_readable(tmp_path):
    cache = Cache(tmp_path / "cache")
    first = cache.get("demo", 1, {"seed": 3}, write_value)
    second = cache.get("demo", 1, {"seed": 3}, never)
    assert first.fresh
    assert not second.fresh
    assert first.folder == second.folder
    assert first.meta == second.meta == json.loads((first.folder / "meta.json").read_text())
    assert is_whole(second.folder)
    assert first.folder.name.startswith("demo-v1-")
    assert len(first.folder.name) == len("demo-v1-") + 16
    assert first.meta["arguments"] == {"seed": 3}
    assert first.meta["files"]["value.txt"]["bytes"] == 10
    assert set(first.meta["files"]) == {"value.txt", "more/bytes.bin"}
    assert set(first.meta["libraries"]) == {"torch", "transformers", "numpy"}


def test_what_is_shipped_is_read_where_it_is(tmp_path):
    shipped = Cache(tmp_path / "package").get("demo", 1, {"seed": 3}, write_value).folder
    cache = Cache(tmp_path / "cache", shipped=tmp_path / "package")
    assert cache.look("demo", 1, {"seed": 3})["files"]
    found = cache.get("demo", 1, {"seed": 3}, never)
    assert (found.folder, found.fresh) == (shipped, False)
    assert not (tmp_path / "cache").exists()
    assert cache.get("demo", 1, {"seed": 4}, write_value).folder.parent == tmp_path / "cache"


def test_what_is_shipped_and_damaged_is_made_again_elsewhere(tmp_path):
    shipped = Cache(tmp_path / "package").get("demo", 1, {}, write_value).folder
    (shipped / "value.txt").write_text("other text")
    notices = []
    cache = Cache(tmp_path / "cache", notices.append, shipped=tmp_path / "package")
    assert cache.look("demo", 1, {}) is None
    found = cache.get("demo", 1, {}, write_value)
    assert found.fresh
    assert is_whole(found.folder)
    assert (shipped / "value.txt").read_text() == "other text"
    assert notices == [notices[0]]
    assert notices[0].startswith("demo: of what came with the package, value.txt is damaged")
    assert not cache.get("demo", 1, {}, never).fresh


def test_a_switch_makes_everything_from_nothing(monkeypatch):
    monkeypatch.delenv("DPRLENS_FROM_NOTHING", raising=False)
    assert artifacts.shipped_root() == Path(artifacts.__file__).parents[1] / "shipped"
    monkeypatch.setenv("DPRLENS_FROM_NOTHING", "1")
    assert artifacts.default_cache().shipped is None


class Upstream(NamedTuple):
    digest: str


def test_key_changes_with_parameter_version_name_upstream_and_library(tmp_path, monkeypatch):
    cache = Cache(tmp_path)

    def folder(name="demo", version=1, seed=0, upstream="aa"):
        return cache.get(name, version, {"seed": seed, "model": Upstream(upstream)}, write_value).folder

    folders = [folder(), folder(seed=1), folder(version=2), folder(name="other"), folder(upstream="bb")]
    monkeypatch.setattr(artifacts.importlib.metadata, "version", lambda _: "9.9")
    folders.append(folder())
    assert len(set(folders)) == len(folders)
    monkeypatch.undo()
    assert folder() == folders[0]


def test_an_error_in_make_passes_through_and_leaves_nothing(tmp_path):
    cache = Cache(tmp_path)

    def fail(folder):
        (folder / "half").write_text("half")
        raise ZeroDivisionError("the step's own error")

    with pytest.raises(ZeroDivisionError, match="the step's own error"):
        cache.get("demo", 1, {}, fail)
    assert visible(tmp_path) == []
    assert cache.get("demo", 1, {}, write_value).fresh


# killed, and two at once

DIES_IN_MAKE = """
def make(folder):
    (folder / "value.txt").write_text("forty")
    Path(sys.argv[2]).touch()
    time.sleep(60)
"""
DIES_BEFORE_THE_RENAME = """
def make(folder):
    (folder / "value.txt").write_text("forty-two, but never promised")

def rename(*_):
    Path(sys.argv[2]).touch()
    time.sleep(60)

os.rename = rename
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [DIES_IN_MAKE, DIES_BEFORE_THE_RENAME])
@pytest.mark.parametrize("next_step", ["demo", "another"])
def test_kill_9_leaves_no_artifact_and_the_next_run_sweeps_and_makes_it(tmp_path, script, next_step):
    root, ready = tmp_path / "cache", tmp_path / "ready"
    process = child(script + "Cache(Path(sys.argv[1])).get('demo', 1, {}, make)", root, ready)
    wait_for(ready)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [name.startswith(".tmp-demo-") for name in visible(root)] == [True], "the kill came too early or too late"
    artifact = Cache(root).get(next_step, 1, {}, write_value)
    assert artifact.fresh
    assert is_whole(artifact.folder)
    assert visible(root) == [artifact.folder.name]


MAKES_SLOWLY = """
def make(folder):
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    time.sleep(1.0)
    (folder / "value.txt").write_text(str(os.getpid()))

artifact = Cache(Path(sys.argv[1])).get("slow", 1, {}, make)
print(artifact.fresh, (artifact.folder / "value.txt").read_text())
"""


@pytest.mark.slow
def test_two_processes_at_once_compute_once_and_read_the_same(tmp_path):
    root, log = tmp_path / "cache", tmp_path / "log"
    processes = [child(MAKES_SLOWLY, root, log), child(MAKES_SLOWLY, root, log)]
    wait_for(log)
    other = Cache(root).get("other", 1, {}, write_value)  # another key: does not wait, sweeps no live draft
    assert any(name.startswith(".tmp-slow-") for name in visible(root))
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    fresh, values = zip(*(out.split() for out, _ in outputs), strict=True)
    assert log.read_text() == "made\n"
    assert sorted(fresh) == ["False", "True"]
    assert len(set(values)) == 1
    assert len(visible(root)) == 2
    assert is_whole(other.folder)


@pytest.mark.slow
def test_who_waits_is_told(tmp_path):
    log = tmp_path / "log"
    process = child(MAKES_SLOWLY, tmp_path / "cache", log)
    wait_for(log)
    notices = []
    assert not Cache(tmp_path / "cache", notices.append).get("slow", 1, {}, never).fresh
    assert notices == ["slow: another run is making it; waiting"]
    process.communicate(timeout=120)


# damage


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("harm", "file", "told"),
    [
        (flip, "more/bytes.bin", "demo: more/bytes.bin is damaged (expected sha256 "),
        (truncate, "value.txt", "demo: value.txt is damaged (expected bytes 10, found 7); making it again"),
        (empty, "value.txt", "demo: value.txt is damaged (expected bytes 10, found 0); making it again"),
        (Path.unlink, "value.txt", "demo: value.txt is damaged (expected bytes 10, found no file); making it again"),
        (Path.unlink, "meta.json", "demo: meta.json is missing; making it again"),
        (empty, "meta.json", "demo: meta.json is damaged (expected a JSON record); making it again"),
        (truncate, "meta.json", "demo: meta.json is damaged (expected a JSON record); making it again"),
        (lambda path: path.write_text("[1, 2]"), "meta.json", "demo: meta.json is damaged (expected a JSON record)"),
        (
            lambda path: path.write_text(path.read_text().replace('"seed": 3', '"seed": 4')),
            "meta.json",
            "demo: meta.json is damaged (it describes another artifact); making it again",
        ),
    ],
)
def test_damage_is_told_in_one_line_and_remade(tmp_path, harm, file, told):
    notices = []
    cache = Cache(tmp_path, notices.append)
    folder = cache.get("demo", 1, {"seed": 3}, write_value).folder
    neighbour = cache.get("demo", 1, {"seed": 5}, write_value).folder
    harm(folder / file)
    again = cache.get("demo", 1, {"seed": 3}, write_value)
    assert again.fresh
    assert again.folder == folder
    assert is_whole(folder)
    assert len(notices) == 1
    assert notices[0].startswith(told)
    assert "\n" not in notices[0]
    assert is_whole(neighbour)
    assert not cache.get("demo", 1, {"seed": 3}, never).fresh
    assert len(notices) == 1


def test_notice_goes_to_stderr_or_to_the_runner(tmp_path, monkeypatch, capsys):
    cache = Cache(tmp_path / "cache")
    monkeypatch.delenv("DPRLENS_EVENTS", raising=False)
    empty(cache.get("demo", 1, {}, write_value).folder / "value.txt")
    cache.get("demo", 1, {}, write_value)
    assert capsys.readouterr().err.startswith("demo: value.txt is damaged")
    monkeypatch.setenv("DPRLENS_EVENTS", str(tmp_path / "events"))
    empty(cache.get("demo", 1, {}, write_value).folder / "value.txt")
    cache.get("demo", 1, {}, write_value)
    assert capsys.readouterr().err == ""
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [event["event"] for event in events] == ["step", "notice", "step", "step"]
    assert events[1]["text"].startswith("demo: value.txt is damaged")
    assert [event["state"] for event in events if event["event"] == "step"] == ["cached", "start", "remade"]


# a cache that cannot be used

FILLS_THE_DISK = """
import resource
import numpy as np
from dprlens.cache.artifacts import CacheError, step

if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))

@step(version=1)
def embed(megabytes: int) -> dict[str, np.ndarray]:
    return {"a": np.ones(1000), "b": np.arange(megabytes * 125_000, dtype=float)}

@step(version=1)
def outer() -> dict:
    return {"sum": float(embed(4)["b"].sum())}

os.environ["DPRLENS_CACHE"] = sys.argv[1]
embed(1)
for call in (lambda: embed(4), outer):
    try:
        call()
    except CacheError as error:
        print(error)
assert embed(1)["b"][-1] == 124_999
"""


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True).returncode:
        pytest.skip("this user cannot mount a small disk; the test with a file size limit still runs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def full_disk_is_one_sentence(root: Path, how: str) -> None:
    process = child(FILLS_THE_DISK, root, how)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    sentences = out.splitlines()
    assert len(sentences) == 2
    assert sentences[0] == sentences[1], "an outer step must pass on what the inner one said"
    assert sentences[0].startswith(f"the cache folder {root} has no room left for 'embed', which needs more than the ")
    assert int(sentences[0].split("more than the ")[1].split()[0].replace(",", "")) > 500_000
    assert [name[: len("embed-v1-")] for name in visible(root)] == ["embed-v1-"], "litter"


@pytest.mark.slow
def test_full_disk_leaves_earlier_artifacts_whole_and_no_litter(small_disk):
    full_disk_is_one_sentence(small_disk, "tmpfs")


@pytest.mark.slow
def test_file_size_limit_is_told_like_a_full_disk(tmp_path):
    full_disk_is_one_sentence(tmp_path / "cache", "limit")


def test_full_disk_is_recognised_when_safetensors_writes(small_disk):
    from safetensors.numpy import save_file

    with pytest.raises(CacheError, match="has no room left for 'weights'"):
        Cache(small_disk).get("weights", 1, {}, lambda to: save_file({"w": np.ones(10**6)}, to / "w.safetensors"))
    assert visible(small_disk) == []


def test_read_only_cache_still_serves_what_it_has(small_disk):
    Cache(small_disk).get("demo", 1, {}, write_value)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert not Cache(small_disk).get("demo", 1, {}, never).fresh
    with pytest.raises(CacheError, match=r"cannot be used \(Read-only file system\)"):
        Cache(small_disk).get("demo", 2, {}, write_value)


def test_unwritable_cache_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError) as caught:
        Cache(tmp_path / "file" / "cache").get("demo", 1, {}, never)
    assert str(caught.value) == (
        f"the cache folder {tmp_path}/file/cache cannot be used (Not a directory): make it writable, with room on its"
        " disk, or set DPRLENS_CACHE to another folder"
    )


# keys


@dataclass(frozen=True)
class Spec:
    layers: int
    share: float | None = None


class Pair(NamedTuple):
    left: int
    right: tuple


class Digested:
    digest = "abc"


def test_canonical_by_hand():
    assert canonical({"b": (1, [True, None]), "a": Spec(2)}) == {
        "b": [1, [True, None]],
        "a": {"type": "Spec", "layers": 2, "share": None},
    }
    assert canonical(Pair(1, (2.5,))) == {"type": "Pair", "left": 1, "right": [2.5]}
    assert canonical(Digested()) == {"digest": "abc"}


def test_digest_is_stable_and_separates():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    # sha256 of the text {"a": 1}
    assert digest({"a": 1}) == "f9d86028c6e0d64e225186f96acb69338b2c59764df79162107f5c4bb34d1310"
    different = [0, False, 0.0, "0", None, [0], {"a": 0}, Spec(0), Spec(0, 0.0), Pair(0, ()), Digested()]
    assert len({digest(value) for value in different}) == len(different)


@pytest.mark.parametrize("value", [{1, 2}, Path("x"), np.float32(1), object(), {1: 2}, b"x", np.ones(2), Spec])
def test_argument_without_a_key_is_one_sentence(tmp_path, value):
    with pytest.raises(TypeError, match="cannot be an argument of a cached step: give None, bool, int") as caught:
        Cache(tmp_path).get("demo", 1, {"deep": [{"x": value}]}, never)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_float_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="give a finite number or None"):
        digest({"threshold": value})


# the decorator


class Words:
    """A type that saves and loads itself."""

    def __init__(self, words):
        self.words = words

    def save(self, folder):
        (folder / "words.txt").write_text(" ".join(self.words))

    @classmethod
    def load(cls, folder):
        return cls((folder / "words.txt").read_text().split())


@pytest.fixture
def calls(tmp_path, monkeypatch):
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path / "cache"))
    return []


def test_step_is_computed_once_per_bound_arguments(calls):
    @step(version=1)
    def add(a: int, b: int = 2) -> dict:
        """Adds."""
        calls.append((a, b))
        return {"sum": a + b}

    assert add(1) == add(1, 2) == add(b=2, a=1) == {"sum": 3}
    assert add(1, b=3) == {"sum": 4}
    assert calls == [(1, 2), (1, 3)]
    assert add.__name__ == "add"
    assert add.__doc__ == "Adds."


def test_step_returns_what_a_later_run_reads(calls):
    @step(version=1)
    def table() -> pd.DataFrame:
        calls.append(1)
        return pd.DataFrame(
            {"n": [1, 2], "x": [0.1 + 0.2, float("nan")], "s": ["NA", None], "t": ["", "é\n,"], "ok": [True, False]}
        ).astype({"n": "int32"})

    @step(version=1)
    def array() -> np.ndarray:
        calls.append(1)
        return np.arange(6, dtype=np.float16).reshape(2, 3)

    @step(version=1)
    def arrays() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"layer.1": np.arange(3), "layer.0": np.array(["a", "bc"])}

    @step(version=1)
    def words() -> Words:
        calls.append(1)
        return Words(["a", "b"])

    for read in (table, table):
        assert read()["x"][0] == 0.1 + 0.2
        assert read()["x"].isna().tolist() == [False, True]
        assert read()["s"].isna().tolist() == [False, True]
        assert read()["s"][0] == "NA"
        assert read()["t"].tolist() == ["", "é\n,"]
        assert [str(kind) for kind in read().dtypes] == ["int32", "float64", "str", "str", "bool"]
    for _ in range(2):
        np.testing.assert_array_equal(array(), np.arange(6, dtype=np.float16).reshape(2, 3))
        assert array().dtype == np.float16
        assert {name: values.tolist() for name, values in arrays().items()} == {
            "layer.0": ["a", "bc"],
            "layer.1": [0, 1, 2],
        }
        assert words().words == ["a", "b"]
    assert len(calls) == 4


def test_step_that_returns_something_else_is_one_sentence(calls):
    @step(version=1)
    def bad() -> set:
        return {1}

    with pytest.raises(TypeError, match="the step 'bad' is annotated to return <class 'set'>: annotate dict, numpy"):
        bad()
    assert calls == []


@pytest.mark.parametrize(
    "frame", [pd.DataFrame({"a": [1, 2]}, index=["x", "y"]), pd.DataFrame({1: [2]}), pd.DataFrame({"a": [(1, 2)]})]
)
def test_frame_that_would_change_is_refused_and_not_kept(calls, tmp_path, frame):
    @step(version=1)
    def table() -> pd.DataFrame:
        calls.append(1)
        return frame

    with pytest.raises(TypeError, match="would not come back from the cache as it was"):
        table()
    assert calls == [1]
    assert visible(tmp_path / "cache") == []


def test_never_a_pickle(calls, tmp_path):
    @step(version=1)
    def array() -> np.ndarray:
        calls.append(1)
        return np.array([{"an": "object"}], dtype=object)

    with pytest.raises(ValueError, match="allow_pickle=False"):
        array()
    assert visible(tmp_path / "cache") == []

    def hostile(folder):  # a pickle under the step's own key, with the right checksums
        np.save(folder / "value.npy", np.array([{"an": "object"}], dtype=object), allow_pickle=True)

    Cache(tmp_path / "cache").get("array", 1, {}, hostile)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        array()
    assert calls == [1]


class Found(NamedTuple):
    """A type made of arrays; its fields are not in the order of their names."""

    scores: np.ndarray
    passages: np.ndarray


def test_a_named_tuple_of_arrays_is_kept(calls, tmp_path):
    @step(version=1)
    def search() -> Found:
        calls.append(1)
        return Found(np.array([[0.5, 0.25]], dtype=np.float32), np.array([[7, 3]]))

    for _ in range(2):
        found = search()
        assert type(found) is Found
        assert found.scores.dtype == np.float32
        assert found.scores.tolist() == [[0.5, 0.25]]
        assert found.passages.tolist() == [[7, 3]]
    assert calls == [1]
    assert len(list((tmp_path / "cache").glob("search-*/*.npy"))) == 2


def test_a_named_tuple_of_other_things_is_no_result(calls):
    @step(version=1)
    def bad() -> Pair:
        calls.append(1)
        return Pair(1, ())

    with pytest.raises(TypeError, match="the step 'bad' is annotated to return"):
        bad()
    assert calls == []


# a step that a kill interrupts


COUNTS = """
from dprlens.cache.artifacts import step

@step(version=1)
def count(to: int, checkpoint: Path | None = None) -> dict:
    (checkpoint / "deep").mkdir(parents=True)
    (checkpoint / "deep" / "place").write_text("2")
    os.kill(os.getpid(), 9)

os.environ["DPRLENS_CACHE"] = sys.argv[1]
count(3)
"""


@pytest.fixture
def count(calls):
    """A step that counts from where its checkpoint says, and may break off; `calls` has what it counted."""

    @step(version=1)
    def count(to: int, checkpoint: Path | None = None) -> dict:
        place = checkpoint / "deep" / "place"
        place.parent.mkdir(parents=True, exist_ok=True)
        for i in range(int(place.read_text()) if place.exists() else 0, to):
            calls.append(i)
            if i == 100:
                raise KeyboardInterrupt
            place.write_text(str(i + 1))
        return {"counted": to}

    return count


def unfinished(root: Path) -> list[str]:
    return [path.name for path in (root / ".unfinished").glob("*")]


@pytest.mark.slow
def test_after_kill_9_a_step_goes_on_from_its_checkpoint(calls, count, tmp_path):
    root = tmp_path / "cache"
    process = child(COUNTS, root)
    assert process.wait() == -signal.SIGKILL, process.communicate()
    (key,) = unfinished(root)
    assert count(3) == {"counted": 3}
    assert calls == [2]
    assert (root / key / "meta.json").exists()
    assert unfinished(root) == []
    assert count(3) == {"counted": 3}
    assert calls == [2]


def test_the_checkpoint_outlives_an_error_and_serves_its_own_arguments_only(calls, count, tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            count(102)
    assert calls == [*range(101), 100]
    calls.clear()
    assert count(2) == {"counted": 2}
    assert calls == [0, 1]
    assert len(unfinished(tmp_path / "cache")) == 1  # of count(102)


def test_the_checkpoint_outlives_a_failure_to_keep_the_result(calls, count, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artifacts.os, "rename", full)
        with pytest.raises(CacheError):
            count(3)
    assert len(unfinished(tmp_path / "cache")) == 1
    assert count(3) == {"counted": 3}
    assert calls == [0, 1, 2]
    assert unfinished(tmp_path / "cache") == []


def test_the_checkpoint_is_no_part_of_the_key(count, tmp_path):
    assert count.record(2) is None
    count(2)
    assert count.record(2)["arguments"] == {"to": 2}
    assert count.record(to=2)["seconds"] >= 0
    assert count.record(3) is None
    assert unfinished(tmp_path / "cache") == []


# tasks


@dataclass(frozen=True)
class Reading(Task):
    """What is read."""

    text: str
    times: int = 2


@dataclass(frozen=True)
class Learning(Task):
    """What is learned from what is read."""

    reading: Reading
    rate: float


def test_the_fields_of_a_task_are_arguments_as_if_each_were_given_alone(calls):
    """Also those of a task in a task, and beside others: what was made before tasks were formed is found."""

    def named(name, function):
        function.__name__ = name
        return step(version=1)(function)

    def alone(text: str, times: int, rate: float, seed: int = 0) -> dict:
        calls.append((text, times, rate, seed))
        return {"text": text}

    def together(learning: Learning, seed: int = 0) -> dict:
        pytest.fail(f"{learning} with {seed} is there already")

    def beside(reading: Reading, rate: float, seed: int = 0) -> dict:
        pytest.fail(f"{reading} with {rate} and {seed} is there already")

    before = named("learn", alone)
    assert before("a", 2, 0.1) == {"text": "a"}
    assert named("learn", together)(Learning(Reading("a"), 0.1)) == {"text": "a"}
    assert named("learn", together)(learning=Learning(Reading("a"), 0.1), seed=0) == {"text": "a"}
    assert named("learn", beside)(Reading("a", 2), 0.1) == {"text": "a"}
    assert calls == [("a", 2, 0.1, 0)]
    kept = named("learn", together)
    assert kept.record(Learning(Reading("a"), 0.1))["arguments"] == {"text": "a", "times": 2, "rate": 0.1, "seed": 0}
    for other in (Learning(Reading("b"), 0.1), Learning(Reading("a", 3), 0.1), Learning(Reading("a"), 0.2)):
        assert kept.record(other) is None
    assert kept.record(Learning(Reading("a"), 0.1), 1) is None


def test_a_dataclass_that_is_no_task_is_one_argument(calls):
    @step(version=1)
    def layers(spec: Spec) -> dict:
        calls.append(spec)
        return {}

    layers(Spec(2))
    assert layers.record(Spec(2))["arguments"] == {"spec": {"type": "Spec", "layers": 2, "share": None}}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ((Reading("a"), Learning(Reading("b"), 0.1), 0), "text"),
        ((Reading("a"), 1, 0.1), "times"),
        ((Learning(Reading("b"), 0.1), 1, 0.1), "times"),
    ],
)
def test_a_name_that_is_given_twice_is_refused(calls, given, name):
    @step(version=1)
    def learn(one: object, times: object, seed: object) -> dict:
        calls.append((one, times, seed))
        return {}

    with pytest.raises(TypeError, match=f"'{name}' is given twice, by name and in a task") as caught:
        learn(*given)
    assert "\n" not in str(caught.value)
    assert not calls


@step(version=1)
def outside(seed: int) -> dict:
    """A step of a module, which another process can be given."""
    return {"seed": seed}


def test_a_step_is_sent_to_another_process_by_its_name():
    assert pickle.loads(pickle.dumps(outside)) is outside
    sent = pickle.loads(pickle.dumps(functools.partial(outside, 3)))
    assert (sent.func, sent.args) == (outside, (3,))


def test_a_step_computes_on_as_many_threads_as_it_says(calls):
    @step(version=1, threads=2)
    def on_two() -> dict:
        return {"threads": torch.get_num_threads()}

    @step(version=1)
    def on_all() -> dict:
        return {"threads": torch.get_num_threads()}

    assert calls == []
    before = torch.get_num_threads()
    assert (on_two(), on_all()) == ({"threads": 2}, {"threads": before})
    assert torch.get_num_threads() == before


# files and events


def test_write_json_is_sorted_and_whole_or_not_there(tmp_path):
    path = tmp_path / "deep" / "x.json"
    write_json(path, {"b": 0.1 + 0.2, "a": "é"})
    assert path.read_text(encoding="utf-8") == '{\n "a": "é",\n "b": 0.30000000000000004\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"b": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        write_json(path, {"b": "\udc80"})
    assert json.loads(path.read_text(encoding="utf-8"))["a"] == "é"
    assert [other.name for other in path.parent.iterdir()] == ["x.json"]


def test_default_root(tmp_path, monkeypatch):
    monkeypatch.setenv("DPRLENS_CACHE", "some/where")
    assert default_root() == Path.cwd() / "some/where"
    monkeypatch.delenv("DPRLENS_CACHE")
    assert default_root() == LIB.parent / "artifacts"
    monkeypatch.setattr(artifacts, "__file__", str(tmp_path / "site-packages/dprlens/cache/artifacts.py"))
    assert default_root() == Path.cwd() / "artifacts"


def test_events_of_a_step(tmp_path, monkeypatch):
    monkeypatch.setenv("DPRLENS_EVENTS", str(tmp_path / "events"))
    cache = Cache(tmp_path / "cache")
    for make in (write_value, never):
        cache.get("demo", 1, {}, make)
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [(e["event"], e["name"], e["state"]) for e in events] == [
        ("step", "demo", "start"),
        ("step", "demo", "made"),
        ("step", "demo", "cached"),
    ]
    assert events[1]["seconds"] >= 0


def test_events_never_stop_a_run(monkeypatch, tmp_path):
    monkeypatch.setenv("DPRLENS_EVENTS", str(tmp_path / "no" / "such" / "folder"))
    emit("step", name="demo")
    assert list(progress([1, 2], "x")) == [1, 2]


def test_progress_tells_at_most_twice_a_second_and_the_end(tmp_path, monkeypatch):
    monkeypatch.setenv("DPRLENS_EVENTS", str(tmp_path / "events"))
    clock = iter(np.arange(0, 100, 0.1))
    monkeypatch.setattr(artifacts.time, "monotonic", lambda: next(clock))
    assert list(progress(iter(range(20)), "pre-training", total=20)) == list(range(20))
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    done = [event["done"] for event in events]
    assert done[0] == 1
    assert done[-1] == 20
    assert 4 <= len(done) <= 7
    assert events[0] == {"event": "progress", "label": "pre-training", "done": 1, "total": 20}


def test_progress_without_a_runner_shows_a_bar(monkeypatch, capsys):
    monkeypatch.delenv("DPRLENS_EVENTS", raising=False)
    assert list(progress(range(3), "pre-training")) == [0, 1, 2]
    assert "pre-training" in capsys.readouterr().err


# what else a key holds


def test_a_named_library_is_part_of_the_key_and_without_one_keys_stay(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    plain = cache.get("demo", 1, {}, write_value)
    named = cache.get("demo", 1, {}, write_value, Basis(("scipy",)))
    assert named.fresh
    assert {*named.meta["libraries"]} - {*plain.meta["libraries"]} == {"scipy"}
    assert cache.look("demo", 1, {}, Basis(("scipy",))) == named.meta
    versions = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda one: "0" if one == "scipy" else versions(one))
    assert cache.look("demo", 1, {}, Basis(("scipy",))) is None
    assert not cache.get("demo", 1, {}, never).fresh


def test_the_kind_of_device_is_part_of_the_key_unless_it_is_the_cpu(tmp_path):
    cache = Cache(tmp_path)
    on_cpu = cache.get("demo", 1, {}, write_value)
    assert "device" not in on_cpu.meta
    assert not cache.get("demo", 1, {}, never, Basis(device="cpu")).fresh
    on_gpu = cache.get("demo", 1, {}, write_value, Basis(device="cuda"))
    assert on_gpu.fresh
    assert on_gpu.meta["device"] == "cuda"


def test_what_comes_with_the_package_is_taken_on_every_device(tmp_path):
    Cache(tmp_path / "package").get("demo", 1, {}, write_value)
    cache = Cache(tmp_path / "cache", shipped=tmp_path / "package")
    assert not cache.get("demo", 1, {}, never, Basis(device="cuda")).fresh
    assert cache.look("demo", 1, {}, Basis(device="cuda"))["files"]


def test_a_step_without_a_network_is_the_same_on_every_device(calls, monkeypatch):
    @step(version=1, on_device=False)
    def counted() -> dict:
        calls.append("counted")
        return {}

    @step(version=1, libraries=("scipy",))
    def encoded() -> dict:
        calls.append("encoded")
        return {}

    for kind in ("cpu", "cuda", "cuda"):
        monkeypatch.setattr(artifacts, "device", lambda kind=kind: kind)
        counted()
        encoded()
    assert calls == ["counted", "encoded", "encoded"]
    assert encoded.record()["device"] == "cuda"
    assert "scipy" in encoded.record()["libraries"]
