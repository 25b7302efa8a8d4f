"""The lock of the steps: what is settled is recorded, what is not is named and stays as it was."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from dprlens.book import lock
from dprlens.book._guard import Step
from dprlens.book.lock import Lock, changed_steps, read_lock, renew
from dprlens.book.notebooks import Mistake

LOCK = Lock(
    {"inner": Step(1, "aaaa"), "outer": Step(2, "bbbb"), "gone": Step(1, "cccc")},
    {"m:inner": "11", "m:outer": "22", "m:helper": "33"},
)


def code(inner=(1, "aaaa"), outer=(2, "bbbb"), helper="33", **more):
    """Code in which `outer` calls `inner`, and both reach a helper."""
    steps = {
        "inner": Step(*inner, frozenset({"m:inner", "m:helper"})),
        "outer": Step(*outer, frozenset({"m:inner", "m:outer", "m:helper"})),
        **more,
    }
    return SimpleNamespace(steps=steps, hashes={"m:inner": "11", "m:outer": "22", "m:helper": helper, "m:new": "44"})


def test_a_lock_is_read_as_it_was_written(tmp_path):
    file = tmp_path / "steps.lock"
    file.write_text(str(LOCK))
    assert read_lock(file) == LOCK
    assert read_lock(tmp_path / "none") == Lock({}, {})
    file.write_text("<<<<<<< HEAD one two\n")
    with pytest.raises(Mistake, match="restore it from git"):
        read_lock(file)


def test_unchanged_and_raised_and_new_steps_are_settled():
    assert changed_steps(code(), LOCK) == []
    assert changed_steps(code(inner=(2, "dddd"), outer=(3, "eeee"), helper="34"), LOCK) == []
    assert changed_steps(code(new=Step(1, "ffff", frozenset({"m:new"}))), LOCK) == []


def test_changed_code_and_lowered_versions_are_not():
    changed = code(inner=(1, "dddd"), outer=(3, "eeee"), helper="34")
    assert changed_steps(changed, LOCK) == ["inner"]
    assert lock.changes(changed, LOCK, "inner") == ["m:helper"]
    assert changed_steps(code(outer=(1, "bbbb")), LOCK) == ["outer"]
    assert lock.changes(code(outer=(1, "bbbb")), LOCK, "outer") == ["which definitions it reaches"]


def test_what_is_not_settled_stays_as_recorded():
    half = renew(code(inner=(1, "dddd"), outer=(3, "eeee"), helper="34"), LOCK)
    assert {name: step[:2] for name, step in half.steps.items()} == {"inner": (1, "aaaa"), "outer": (3, "eeee")}
    assert half.definitions == LOCK.definitions  # so that the helper is still named for `inner`
    whole = renew(code(inner=(1, "dddd"), outer=(3, "eeee"), helper="34"), LOCK, ["inner"])
    assert whole.steps["inner"][:2] == (1, "dddd")
    assert whole.definitions["m:helper"] == "34"


# a repository whose steps are run by a command of three lines

STEPS = """
from dprlens.cache.artifacts import step
from dprlens.maths import triple
@step(version=1)
def tripled(x: int) -> dict:
    return {"y": triple(x)}
"""
MAIN = """
import json, os, pathlib, sys
from dprlens.maths import triple
assert sys.argv[1:5] == ["run", "00_first", "--profile", "tiny"]
folder = pathlib.Path(os.environ["DPRLENS_CACHE"]) / "tripled-v1"
folder.mkdir(parents=True)
meta = {"name": "tripled", "files": {"value.json": {"sha256": str(triple(2))}}}
(folder / "meta.json").write_text(json.dumps(meta))
"""


@pytest.fixture
def root(tmp_path):
    """A repository with a step, its lock and a record of which notebook asks for it; committed."""
    package = tmp_path / "lib" / "dprlens"
    package.mkdir(parents=True)
    files = {"__init__": "", "steps": STEPS, "__main__": MAIN, "maths": "def triple(x): return 3 * x\n"}
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    (package / "artifacts.py").write_text("def step(version): return lambda f: f\ndef _storage(kind): return kind\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tiny.json").write_text(json.dumps({"notebooks": {"tripled": ["00_first"]}}))
    lock.write(tmp_path)
    person = ["-c", "user.name=A", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*person, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def change(root, text):
    (root / "lib" / "dprlens" / "maths.py").write_text(text)


def test_the_same_bytes_with_other_code_are_recorded(root):
    assert [*lock.problems(root)] == []
    change(root, "def triple(x): return x + x + x\n")
    found = [*lock.problems(root)]
    assert found[0] == "the code of step tripled changed, still version 1: dprlens.maths:triple"
    assert "steps --same tripled" in found[1]
    assert lock.try_same(root, ["tripled"], "HEAD") == {"tripled": ""}
    lock.write(root, ["tripled"])
    assert [*lock.problems(root)] == []


def test_other_bytes_are_not(root):
    change(root, "def triple(x): return x + x\n")
    assert lock.try_same(root, ["tripled"], "HEAD") == {"tripled": "1 of 1 artifacts have other bytes"}
    lock.write(root)
    assert len([*lock.problems(root)]) == 2


def test_what_cannot_be_tried_is_refused(root):
    with pytest.raises(Mistake, match="nothing to try about 'tripled'"):
        lock.try_same(root, ["tripled"], "HEAD")
    change(root, "def triple(x): return x + x + x\n")
    with pytest.raises(Mistake, match="git has no files of 'nowhere'"):
        lock.try_same(root, ["tripled"], "nowhere")
    (root / "results" / "tiny.json").write_text(json.dumps({"notebooks": {}}))
    with pytest.raises(Mistake, match="raise its version"):
        lock.try_same(root, ["tripled"], "HEAD")


def test_code_that_the_lock_was_not_written_for_is_no_measure(root):
    change(root, "def triple(x): return x + x + x\n")
    subprocess.run(
        ["git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qam", "second"], cwd=root, check=True
    )
    with pytest.raises(Mistake, match="--against"):
        lock.try_same(root, ["tripled"], "HEAD")
    assert lock.try_same(root, ["tripled"], "HEAD~1") == {"tripled": ""}


def test_a_raised_version_is_recorded_and_asked_for(root):
    change(root, "def triple(x): return x + x\n")
    file = root / "lib" / "dprlens" / "steps.py"
    file.write_text(file.read_text().replace("version=1", "version=2"))
    assert [*lock.problems(root)] == [
        "lib/steps.lock does not say which code and versions there are: python -m dprlens steps --write"
    ]
    lock.write(root)
    assert [*lock.problems(root)] == []
