"""The committed results belong to the code beside them: exhibits, claims and world are those of today."""

import json
from pathlib import Path

import pytest

from dprlens.book.notebooks import discover
from dprlens.chapters.late_models import setup_of
from dprlens.paper import CLAIMS, OWN_CLAIMS
from dprlens.profile import PROFILES
from dprlens.world.closed import make_world

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [notebook for notebook in discover(ROOT / "notebooks") if notebook.exhibits]
COMMITTED = sorted((ROOT / "results").glob("small/*.json"))


def test_every_notebook_has_committed_results_and_no_result_is_left_over():
    assert [path.stem for path in COMMITTED] == sorted(notebook.name for notebook in NOTEBOOKS)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_results_hold_what_the_notebook_promises(notebook):
    results = json.loads((ROOT / "results" / "small" / f"{notebook.name}.json").read_text())
    assert sorted(results["exhibits"]) == sorted(notebook.exhibits)
    assert (results["profile"], results["seed"]) == ("small", 0)
    for name, exhibit in results["exhibits"].items():
        claims = [claim.id for claim in (*CLAIMS, *OWN_CLAIMS) if claim.exhibit == name]
        assert [claim["id"] for claim in exhibit["claims"]] == claims
        assert all(
            number["n"] is None or number["low"] <= number["ours"] <= number["high"]
            for number in exhibit["numbers"].values()
        )


@pytest.mark.slow
@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_results_were_made_in_the_world_that_the_code_makes_today(path):
    results = json.loads(path.read_text())
    small = PROFILES["small"]
    own = {"B_2_late_facts": setup_of(small, 0).profile.world}.get(path.stem, small.world)
    assert results["world"] == make_world(own, results["seed"]).summary()
