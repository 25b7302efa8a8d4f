"""The doors to the environment name the same files and one set of versions."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def names(file: str) -> dict[str, str]:
    """Package -> the rest of its line, from a requirements file."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    split = [re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", line) for line in lines if line]
    return {re.sub(r"[-_.]+", "-", found[1]).lower(): found[2] for found in split}


def plan(*arguments: str) -> str:
    """What make would run."""
    command = ["make", "-n", "--no-print-directory", *arguments]
    alone = os.environ | {"MAKEFLAGS": ""}  # whatever make runs the tests
    return subprocess.run(command, cwd=ROOT, env=alone, check=True, capture_output=True, text=True).stdout


def checks() -> set[str]:
    """What tests and lint need besides."""
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"])


def test_conda_door_has_no_pins_of_its_own():
    text = (ROOT / "environment.yml").read_text()
    content = yaml.safe_load(text)
    assert "==" not in text
    assert content["dependencies"][-1] == {"pip": ["-r requirements.txt", "-c constraints.txt", "-e ."]}
    assert [one.partition("=")[0] for one in content["dependencies"][:-1]] == ["python", "pip"]
    for file in ("requirements.txt", "constraints.txt", "pyproject.toml"):
        assert (ROOT / file).exists()


def test_conda_python_is_one_that_the_package_accepts():
    python = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][0].partition("=")[2]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    least = re.fullmatch(r">=(\d+)\.(\d+)", wanted)
    assert tuple(map(int, python.split("."))) >= tuple(map(int, least.groups()))


def test_every_requirement_is_pinned_in_constraints_and_only_there():
    pinned = names("constraints.txt")
    for name, rest in (names("requirements.txt") | dict.fromkeys(checks(), "")).items():
        assert "==" not in rest, name
        assert pinned[name].startswith("=="), name


def test_who_only_reads_the_book_installs_nothing_for_tests():
    assert not checks() & set(names("requirements.txt"))
    for target, needed in (("book", False), ("lint", True)):
        assert (".[dev]" in plan("-W", ".venv/installed", target)) == needed, target


def test_the_hooks_of_pre_commit_are_the_parts_of_make_lint():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in local["hooks"])
    parts = plan("-o", ".venv/installed-dev", "lint").splitlines()
    assert [hook["entry"] for hook in local["hooks"]] == [part for part in parts if not part.startswith("echo")]


def test_make_knows_the_promised_targets():
    for target in ("book", "quick", "test", "nightly", "lint", "lab", "serve", "run", "clean"):
        plan(target, "NB=00")
