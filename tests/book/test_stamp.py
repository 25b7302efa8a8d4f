"""The stamp in the foot of a page: the commit as git sees it, and each chapter's own world."""

import subprocess

import jinja2
import pytest

from dprlens.book.pages.stamp import stamps

RUNS = {"00_world": {"steps": {"dpr": {"state": "shipped"}, "world": {"state": "made"}, "base": {"state": "shipped"}}}}
RESULTS = {"00_world": {"seed": 3, "world": {"maker": "closed", "digest": "3f6c0d9a"}}}


def git(folder, *arguments):
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def committed(tmp_path):
    root = tmp_path / "book"
    root.mkdir()
    git(root, "init", "-q")
    (root / "a").write_text("1")
    git(root, "add", "a")
    git(root, "commit", "-q", "-m", "one")
    return root


def read(root, page, runs=()):
    module = jinja2.Template(stamps(root, "small", RESULTS, dict(runs))).module
    return module.pages.get(page, module.other)


def test_a_chapter_has_its_own_seed_and_world_and_other_pages_have_none(committed):
    chapter, prose = read(committed, "notebooks/00_world"), read(committed, "book/index")
    for page in (chapter, prose):
        assert " · profile small · " in page
        assert " · torch " in page
    assert "seed 3 · closed world 3f6c0d9a" in chapter
    assert "seed" not in prose


def test_what_came_with_the_package_is_said(committed):
    assert " · as shipped: base, dpr · " in read(committed, "notebooks/00_world", RUNS)
    assert "shipped" not in read(committed, "notebooks/00_world")
    assert "shipped" not in read(committed, "book/index", RUNS)


def test_networks_that_are_not_those_on_record_are_named(committed):
    runs = {"00_world": {**RUNS["00_world"], "siblings": ["entered", "base_model"]}}
    assert "siblings of the networks on record: base_model, entered · " in read(committed, "notebooks/00_world", runs)
    assert "siblings" not in read(committed, "notebooks/00_world", RUNS)


def test_the_commit_is_named_and_so_is_a_change_since(committed):
    name = subprocess.run(["git", "rev-parse", "HEAD"], cwd=committed, capture_output=True, text=True).stdout[:10]
    clean = read(committed, "book/index")
    assert clean.startswith(f"commit {name} · ")
    assert read(committed, "book/index") == clean
    (committed / "results").mkdir()
    (committed / "results" / "small.json").write_text("{}")  # by the build itself
    assert read(committed, "book/index") == clean
    (committed / "a").write_text("2")
    assert read(committed, "book/index").startswith(f"commit {name} with local changes · ")


def test_outside_a_repository_and_inside_a_foreign_one_the_commit_is_unknown(tmp_path, committed):
    assert read(tmp_path, "book/index").startswith("commit unknown · ")
    (committed / "unpacked").mkdir()
    assert read(committed / "unpacked", "book/index").startswith("commit unknown · ")
