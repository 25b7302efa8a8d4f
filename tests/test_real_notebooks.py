"""Every notebook with `profile=paper`, unchanged, on a small set of files in DPR's formats and small random models.

Slow (`make real`): the whole book is run and rendered. The chapters that stay in a generated world take their models
from the cache, if an earlier run at `tiny` left them there.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import data_nq
import pytest
from trec import read_qrels, read_run

from dprlens.book.notebooks import discover
from dprlens.world.closed import ClosedSpec, make_world

pytestmark = pytest.mark.real

REPOSITORY = Path(__file__).parents[1]
BUILT = {"_build", "artifacts", "data", "results"}
# Few questions of two kinds and few answers, so that a BERT that always gives the same one knows some facts
SPEC = ClosedSpec(
    people=60, cities=4, companies=24, films=0, relations=("born_in", "headquarters"), exposures=40, low_doses=(),
    train=0.4, dev=0.3,
)  # fmt: skip
SIZES = """
experiments = "tiny"
world = {mode = "skip", sample = 20}
models = {check = true}
dpr = {epochs = 2, batch = 16, warm_up_steps = 2}
probing = {random_encoders = 1, repeats = 2}
sample = {examples = 12, candidates = 8, hard = 3}
activity = {few = 4, outliers = 2, changed = [5, 20]}

[protocol]
facts = 4
questions = 16
worlds = 1
baselines = ["finetuning"]
shams = ["malmen"]
reseeded = 1
training = {epochs = 1, batch = 8, warm_up_steps = 1}

[editors]
finetuning = {epochs = 2}
transformer_patcher = {memory = 60, memory_top = 10, most_steps = 50}
malmen = {blocks = 2, rank = 8, kept = 8, batch = 4, steps = 4, validate_every = 2}
mend = {blocks = 2, rank = 8, kept = 8, batch = 4, steps = 4, validate_every = 2}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A repository of its own with the sources of this one, after `dprlens book --profile paper`."""
    root = tmp_path_factory.mktemp("real")
    for path in REPOSITORY.iterdir():
        if path.name not in BUILT and not path.name.startswith("."):
            (root / path.name).symlink_to(path)
    said = Counter(question.answers[0].lower() for question in make_world(SPEC, 3).questions)
    says = next(answer for answer, _ in said.most_common() if len(answer) <= data_nq.LONGEST)
    data_nq.write(data := root / "data", train=40, dev=80, spec=SPEC)
    data_nq.write_models(data, SPEC, says=says)
    with (data / "psgs_w100.tsv").open("a", encoding="utf-8") as file:
        file.write("9999\ta line of two columns\n")
    (data / "profile.toml").write_text(SIZES, encoding="utf-8")
    dprlens(root, "book", "--profile", "paper")
    return root


def dprlens(root: Path, *arguments: str) -> str:
    cache = os.environ.get("DPRLENS_CACHE") or root / "artifacts"
    environment = os.environ | {"DPRLENS_DATA": str(root / "data"), "DPRLENS_CACHE": str(Path(cache).absolute())}
    command = [sys.executable, "-m", "dprlens", *arguments]
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def results(root: Path, notebook: str) -> dict:
    return json.loads((root / "results" / "paper" / f"{notebook}.json").read_text(encoding="utf-8"))


def numbers(root: Path, notebook: str) -> dict:
    exhibits = results(root, notebook)["exhibits"].values()
    return {id_: number for exhibit in exhibits for id_, number in exhibit["numbers"].items()}


def test_every_notebook_runs_and_every_exhibit_is_there(root):
    there = discover(root / "notebooks")
    assert len(there) > 9
    for notebook in there:
        if notebook.exhibits:
            assert results(root, notebook.name)["exhibits"].keys() == {*notebook.exhibits}
    made_by = {one.name: results(root, one.name)["world"]["maker"] for one in there if one.exhibits}
    generated = {name for name, maker in made_by.items() if maker != "natural"}
    assert generated == {"B_1_knowledge_bound", "B_2_late_facts"}, "only there must be known what was read"
    assert (root / "_build" / "paper" / "html" / "index.html").is_file()


def test_the_first_page_says_what_was_left_out_and_what_was_turned(root):
    page = (root / "_build" / "paper" / "html" / "notebooks" / "00_world_and_models.html").read_text(encoding="utf-8")
    for told in ("psgs_w100.tsv: 2 columns instead of 3 (left out)", "facts with statements", "dpr.epochs = 2"):
        assert told in page, told


def test_published_towers_stand_beside_ours(root):
    found = numbers(root, "01_dense_retrieval")
    for who in ("dpr", "published_dpr"):
        shares = [found[f"answer_string.nq_test.{who}.top{k}"]["ours"] for k in (1, 5, 20)]
        assert 0 <= shares[0] <= shares[1] <= shares[2] <= 1
        assert shares[2] > 0


def test_facts_are_told_and_taken_away(root):
    for notebook, table in (("04_1_knowledge_addition", "table3"), ("04_2_knowledge_removal", "table4")):
        assert any(id_.startswith(table) for id_ in numbers(root, notebook))


def test_the_run_is_written_for_trecs_tools(root):
    dprlens(root, "trec", "--profile", "paper", "--out", str(root / "trec"))
    run, judged = read_run(root / "trec" / "dpr.run"), read_qrels(root / "trec" / "gold.qrels")
    assert {line.question for line in run} == {one.question for one in judged}
