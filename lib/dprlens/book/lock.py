"""`lib/steps.lock`, what code the versions of the cached steps stand for: checked, renewed, tried at profile tiny."""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dprlens.book import baseline
from dprlens.book._guard import Code, Step
from dprlens.book.notebooks import Mistake

LOCK = Path("lib") / "steps.lock"  # beside the package: it says something about the code and is no part of it
HEAD = (
    "# What code the cached steps can reach (CONTRIBUTING.md); written by `python -m dprlens steps --write`.\n"
    "# step, version, hash of all code that it can reach\n"
)
MIDDLE = "# definition, hash\n"
WAYS_OUT = (
    "Raise `@step(version=…)` where the results may change, and `python -m dprlens steps --write`; or, where they do"
    " not, `python -m dprlens steps --same {names}` tries it at profile tiny."
)


class Lock(NamedTuple):
    """Version and hash of each step, and the hash of each definition that steps reach."""

    steps: dict[str, Step]
    definitions: dict[str, str]

    def __str__(self) -> str:
        steps = [f"{name} {step.version} {step.hash}\n" for name, step in sorted(self.steps.items())]
        return "".join([HEAD, *steps, MIDDLE, *(f"{name} {seal}\n" for name, seal in sorted(self.definitions.items()))])


def read_lock(file: Path) -> Lock:
    """The lock in a file; an empty one if there is no file. Raises Mistake for a line that is no line of a lock."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    lock = Lock({}, {})
    for words in (line.split() for line in lines if not line.startswith("#")):
        match words:
            case [name, version, seal] if version.isdecimal():
                lock.steps[name] = Step(int(version), seal)
            case [name, seal]:
                lock.definitions[name] = seal
            case _:
                raise Mistake(f"{file} has the line {' '.join(words)!r}: restore it from git")
    return lock


def changes(code: Code, lock: Lock, name: str) -> list[str]:
    """The definitions that a step reaches and that are not what they were when its line was written."""
    found = sorted(one for one in code.steps[name].reaches if code.hashes[one] != lock.definitions.get(one))
    return found or ["which definitions it reaches"]


def changed_steps(code: Code, lock: Lock) -> list[str]:
    """The steps whose code is not what it was while their version is, or is a lower one."""
    return [
        name
        for name, now in code.steps.items()
        if (was := lock.steps.get(name)) and now.version <= was.version and now[:2] != was[:2]
    ]


def problems(root: Path) -> Iterator[str]:
    """What is wrong with the lock, a line a step, then what to do about it."""
    code, lock = Code(root / "lib"), read_lock(root / LOCK)
    left = changed_steps(code, lock)
    for name in left:
        version = f"still version {code.steps[name].version}"
        if code.steps[name].version < lock.steps[name].version:
            version = f"version {code.steps[name].version} after {lock.steps[name].version}"
        yield f"the code of step {name} changed, {version}: {', '.join(changes(code, lock, name))}"
    if left:
        yield WAYS_OUT.format(names=" ".join(left))
    elif str(renew(code, lock)) != str(lock):
        yield f"{LOCK} does not say which code and versions there are: python -m dprlens steps --write"


def renew(code: Code, lock: Lock, same: Collection[str] = ()) -> Lock:
    """The lock of today's code; steps that are neither settled nor `same`, and what they reach, stay as recorded."""
    left = {*changed_steps(code, lock)} - {*same}
    reaching = {name: step for name, step in code.steps.items() if name not in left}
    held = {one for name in left for one in code.steps[name].reaches}
    definitions = {one: code.hashes[one] for step in reaching.values() for one in step.reaches if one not in held}
    definitions |= {one: lock.definitions[one] for one in held if one in lock.definitions}
    return Lock({**reaching, **{name: lock.steps[name] for name in left}}, definitions)


def write(root: Path, same: Collection[str] = ()) -> None:
    """Record new steps, raised versions, and steps that are the `same` as before."""
    file = root / LOCK
    file.write_text(str(renew(Code(root / "lib"), read_lock(file), same)), encoding="utf-8")


# trying whether a change changes results


def try_same(root: Path, names: Sequence[str], revision: str) -> dict[str, str]:
    """Why each step is not the same at profile tiny as with the code of a revision, from empty caches; "" if it is.

    The steps are computed by notebooks that ask for them, as `results/tiny` has on record. Same means: as many
    artifacts, and the same bytes in their files. Raises Mistake for steps that no notebook computes at tiny, and if the
    lock was not written for the revision's code.
    """
    code, lock = Code(root / "lib"), read_lock(root / LOCK)
    open_, asking = changed_steps(code, lock), baseline.notebooks_of(root)
    for name in names:
        if name not in open_ or code.steps[name].version != lock.steps[name].version:
            raise Mistake(f"there is nothing to try about {name!r}: choose from {', '.join(open_) or 'no step'}")
        if name not in asking:
            raise Mistake(f"no notebook computes {name!r} at profile tiny; raise its version")
    with tempfile.TemporaryDirectory(prefix="dprlens-same-") as temporary:
        before, caches = Path(temporary) / "before", [Path(temporary) / kind for kind in ("old", "new")]
        _check_out(root, revision, before)
        old = Code(before / "lib")
        for name in names:
            if name not in old.steps or old.steps[name][:2] != lock.steps[name][:2]:
                raise Mistake(
                    f"the code of {name!r} in {revision} is not what {LOCK} says: name the commit for which it was"
                    " written with --against"
                )
        for notebook in _enough(names, asking):
            for tree, cache in zip((before, root), caches, strict=True):
                print(f"{notebook} at tiny, {cache.name} code", flush=True)
                _run(tree, notebook, cache, Path(temporary) / f"{cache.name}.ipynb")
        return {name: _difference(*(_files_of(cache, name) for cache in caches)) for name in names}


def _check_out(root: Path, revision: str, folder: Path) -> None:
    """The files of a revision, in a folder."""
    done = subprocess.run(["git", "archive", revision], cwd=root, capture_output=True, check=False)
    if done.returncode:
        raise Mistake(f"git has no files of {revision!r}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _enough(names: Sequence[str], asking: dict[str, list[str]]) -> list[str]:
    """Notebooks that together ask for all these steps."""
    chosen: list[str] = []
    for name in names:
        if not {*asking[name]} & {*chosen}:
            chosen.append(asking[name][0])
    return chosen


def _run(tree: Path, notebook: str, cache: Path, out: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree / "lib"),
        "DPRLENS_CACHE": str(cache),
        "DPRLENS_FROM_NOTHING": "1",
    }
    command = [sys.executable, "-m", "dprlens", "run", notebook, "--profile", "tiny", "--out", str(out)]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Mistake(f"{notebook} does not run with the code in {tree}: {(done.stderr or done.stdout)[-2000:]}")


def _files_of(cache: Path, step: str) -> list[str]:
    """The checksums of a step's artifacts in a cache."""
    metas = [json.loads(path.read_text(encoding="utf-8")) for path in cache.glob("*/meta.json")]
    return sorted(json.dumps(meta["files"], sort_keys=True) for meta in metas if meta["name"] == step)


def _difference(old: list[str], new: list[str]) -> str:
    if not old or not new:
        return "it was not computed"
    return "" if old == new else f"{len({*new} - {*old})} of {len(new)} artifacts have other bytes"
