"""The book's sources, without a build: vendored files are the ones that were locked, and no choice is missing."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
VENDORS = [REPOSITORY / "book" / "_assets" / "vendor", REPOSITORY / "tests" / "browser" / "vendor"]
BY_HAND = {"lock.json", "refresh.py", "licences/README.md", "licences/requirejs.txt"}
AMBIGUITIES = [
    f"AMB-{part}{i}" for part, last in (("B", 10), ("C", 12), ("D", 3), ("E", 3)) for i in range(1, last + 1)
]


@pytest.mark.parametrize("vendor", VENDORS, ids=["book", "tests"])
def test_vendored_files_are_the_locked_ones(vendor: Path) -> None:
    lock = json.loads((vendor / "lock.json").read_text())
    locked = {path: sha256 for package in lock.values() for path, sha256 in package["files"].items()}
    there = {
        path.relative_to(vendor).as_posix()
        for path in vendor.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert there - BY_HAND == set(locked)
    changed = [
        path for path, sha256 in locked.items() if hashlib.sha256((vendor / path).read_bytes()).hexdigest() != sha256
    ]
    assert changed == []


@pytest.mark.parametrize("id_", AMBIGUITIES)
def test_every_open_point_of_the_paper_has_a_choice(id_: str) -> None:
    text = (REPOSITORY / "book" / "choices.md").read_text(encoding="utf-8")
    assert f"\n({id_.lower()})=\n### {id_} · " in text


def test_every_page_of_the_contents_exists() -> None:
    contents = yaml.safe_load((REPOSITORY / "_toc.yml").read_text(encoding="utf-8"))
    files = [contents["root"], *(chapter["file"] for part in contents["parts"] for chapter in part["chapters"])]
    made = {"book/parameters", "book/scorecard", "book/numbers"}  # by the runner
    assert made <= set(files)
    there = {
        path.relative_to(REPOSITORY).with_suffix("").as_posix() for path in REPOSITORY.glob("*/*") if path.is_file()
    }
    assert set(files) - made <= there


def test_prose_types_no_results() -> None:
    """Numbers with two or more decimals are measured ones; prose takes them from the notebooks."""
    allowed = {"0.41", "0.37", "0.45"}  # how_to_read's made-up example
    for page in sorted((REPOSITORY / "book").glob("*.md")):
        typed = set(re.findall(r"(?<![\d.:/])\d?\.\d{2,}(?![\d.])", page.read_text(encoding="utf-8")))
        assert typed - allowed <= {"0.25"}, page.name  # how_to_rerun's example of a share


def test_the_glossary_explains_each_term_once() -> None:
    text = (REPOSITORY / "book" / "glossary.md").read_text(encoding="utf-8")
    (terms,) = re.findall(r"^```\{glossary\}\n:sorted:\n\n(.*?)^```", text, re.M | re.S)
    entries = [entry.splitlines() for entry in terms.strip().split("\n\n")]
    names = [name.casefold() for name, *_ in entries]
    assert len(names) == len(set(names)) > 40
    assert [name for name, *said in entries if not said or not all(line.startswith("  ") for line in said)] == []


def test_no_other_page_has_a_glossary() -> None:
    pages = [page.name for page in (REPOSITORY / "book").glob("*.md") if "{glossary}" in page.read_text("utf-8")]
    assert pages == ["glossary.md"]
