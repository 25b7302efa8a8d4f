"""A build that moved is told from the one on record, and the noise of another processor is not."""

import copy
import json
import subprocess

import numpy as np
import pytest
from safetensors.numpy import save_file

from dprlens.book import baseline
from dprlens.book.notebooks import Mistake
from dprlens.cache.artifacts import Cache

RESULTS = {
    "world": {"digest": "abc"},
    "exhibits": {
        "recall": {
            "claims": [{"id": "S2.1", "verdict": "holds"}],
            "numbers": {"recall.read": {"ours": 0.5, "low": 0.4, "high": 0.6, "n": 40}},
        }
    },
}
WEIGHTS = np.random.default_rng(0).normal(size=100)
FIRST, LATER = "00_world_and_models", "02_knowledge_consistency"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository whose tiny book is on record."""
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path / "cache"))
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    build(tmp_path, WEIGHTS)
    runs = {
        LATER: {"seconds": 9, "steps": {"base_model": {}, "probed": {}}},
        FIRST: {"seconds": 5, "steps": {"base_model": {}, "closed_world": {}}},
    }
    (tmp_path / "_build" / "tiny").mkdir(parents=True)
    (tmp_path / "_build" / "tiny" / "runs.json").write_text(json.dumps(runs))
    for name in (FIRST, LATER):
        write(tmp_path, name, RESULTS)
    baseline.record(tmp_path)
    return tmp_path


def build(root, weights, words="Ada\n", places=(1, 2)):
    """Make the artifacts anew."""
    subprocess.run(["rm", "-rf", str(root / "cache")], check=True)
    cache = Cache(root / "cache")

    def model(folder):
        save_file({"weights": weights}, folder / "model.safetensors")
        (folder / "vocab.txt").write_text(words)

    cache.get("base_model", 1, {}, model)
    cache.get("rankings", 1, {}, lambda folder: np.save(folder / "value.npy", np.array(places)))
    cache.get("closed_world", 1, {}, lambda folder: (folder / "facts.jsonl").write_text("{}\n"))


def write(root, name, results):
    folder = root / "results" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results))


def other(monkeypatch):
    monkeypatch.setattr(baseline, "processor", lambda: "of another kind")


def test_the_same_build_is_as_on_record(root):
    assert [*baseline.compare(root, "tiny")] == []
    assert baseline.notebooks_of(root)["base_model"] == [FIRST, LATER]


def test_on_the_same_processor_one_bit_counts(root):
    changed = WEIGHTS.copy()
    changed[0] = np.nextafter(changed[0], 1)
    build(root, changed)
    moved = copy.deepcopy(RESULTS)
    moved["exhibits"]["recall"]["numbers"]["recall.read"]["ours"] = 0.501
    write(root, LATER, moved)
    assert [*baseline.compare(root, "tiny")] == [
        "base_model: other bytes than on record",
        f"results/tiny/{LATER}.json has other bytes, on the same kind of processor",
    ]


def test_on_another_processor_rounding_does_not_count(root, monkeypatch):
    other(monkeypatch)
    build(root, WEIGHTS * 1.001, places=(2, 1))
    moved = copy.deepcopy(RESULTS)
    moved["exhibits"]["recall"]["numbers"]["recall.read"]["ours"] = 0.9
    moved["exhibits"]["recall"]["claims"][0]["verdict"] = "fails"
    write(root, LATER, moved)
    assert [*baseline.compare(root, "tiny")] == []


@pytest.mark.parametrize(
    ("weights", "words", "said"),
    [
        (1.02, "Ada\n", "base_model: weights 2.00% away from those on record in root mean square, more than 0.5%"),
        (0.98, "Ada\n", "base_model: weights 2.00% away from those on record in root mean square, more than 0.5%"),
        (1.0, "Eve\n", "base_model: other bytes than on record"),
    ],
)
def test_on_another_processor_larger_changes_count(root, monkeypatch, weights, words, said):
    other(monkeypatch)
    build(root, WEIGHTS * weights, words)
    assert [*baseline.compare(root, "tiny")] == [said]


@pytest.mark.parametrize(("step", "counts"), [("probe_verdicts", False), ("probed", True)])
def test_on_another_processor_models_that_become_the_same_do_not_count(step, counts):
    one = {"n": 2, "bytes": "b", "plain": "", "weights": []}
    said = [*baseline.compare_artifacts({step: one}, {step: one | {"n": 1}}, alike=False)]
    assert said == [f"{step}: 1 artifacts, 2 on record"] * counts
    assert len([*baseline.compare_artifacts({step: one}, {step: one | {"n": 1}}, alike=True)]) == 1


@pytest.mark.parametrize(
    ("name", "where", "value", "said"),
    [
        (FIRST, ("world", "digest"), "abd", [f"{FIRST}: another world"]),
        (FIRST, ("exhibits", "recall", "claims"), [], [f"{FIRST}: other exhibits or claims"]),
        (LATER, ("exhibits", "more"), {}, [f"{LATER}: other exhibits or claims"]),
        (
            FIRST,
            ("exhibits", "recall", "numbers", "recall.read", "n"),
            39,
            [f"{FIRST}: recall.read: n = 39, 40 on record"],
        ),
        (LATER, ("exhibits", "recall", "numbers", "recall.read", "n"), 39, []),
    ],
)
def test_on_another_processor_what_the_world_decides_counts(root, monkeypatch, name, where, value, said):
    other(monkeypatch)
    changed = copy.deepcopy(RESULTS)
    part = changed
    for step in where[:-1]:
        part = part[step]
    part[where[-1]] = value
    write(root, name, changed)
    assert [*baseline.compare(root, "tiny")] == said


def test_what_is_missing_or_more_counts(root):
    (root / "results" / "tiny" / f"{LATER}.json").unlink()
    write(root, "03", RESULTS)
    Cache(root / "cache").get("dpr", 2, {}, lambda folder: (folder / "a.txt").write_text(""))
    assert [*baseline.compare(root, "tiny")] == [
        "dpr: no artifact on record",
        f"results/tiny/{LATER}.json is gone",
        "results/tiny/03.json is new",
    ]


def test_other_profiles_are_compared_by_intervals(root):
    (root / "results" / "small").mkdir()
    file = root / "results" / "small" / f"{LATER}.json"
    file.write_text(json.dumps(RESULTS))
    subprocess.run(["git", "add", "results/small"], cwd=root, check=True)
    found = {}
    for ours in (0.41, 0.59, 0.3, 0.7):
        moved = copy.deepcopy(RESULTS)
        number = moved["exhibits"]["recall"]["numbers"]["recall.read"]
        half = (number["high"] - number["low"]) / 2
        number |= {"ours": ours, "low": ours - half, "high": ours + half}
        file.write_text(json.dumps(moved))
        found[ours] = len([*baseline.compare(root, "small")])
    assert found == {0.41: 0, 0.59: 0, 0.3: 1, 0.7: 1}


def test_without_a_record_it_says_how_to_make_one(tmp_path):
    with pytest.raises(Mistake, match="make record"):
        baseline.notebooks_of(tmp_path)
