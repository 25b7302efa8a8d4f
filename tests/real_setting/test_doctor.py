"""What a profile needs, what is here, and what the steps cost."""

import argparse
import gzip
import re

import pytest

from dprlens.real_setting import doctor as module
from dprlens.real_setting.doctor import Gpu, Machine, PlanSpec, costs, doctor, measure_machine, report
from dprlens.world.natural.resources import resources

LAPTOP = Machine(cores=2, memory=20 * 10**9, disk=500 * 10**9, gpus=(), fp32=1.5e11, bf16=None, text=1.5e8)
SERVER = Machine(16, 128 * 10**9, 2 * 10**12, (Gpu("big", 149 * 10**9),), 5e13, 7e14, 1.5e8)
PAPER = PlanSpec()


def by_name(rows):
    return {(row.part, row.name): row for row in rows}


@pytest.fixture
def placed(tmp_path):
    """A data folder with everything that profile "paper" needs."""
    for resource in resources().needed("paper"):
        path = tmp_path / resource.place
        if resource.is_model:
            path.mkdir(parents=True)
            for name in (*resource.files, resource.weights[0]):
                (path / name).write_text("x")
        else:
            path.write_bytes(gzip.compress(b"[]"))
    return tmp_path


def test_operations_are_those_of_bert_base():
    assert PAPER.forward(1) == 2 * 12 * (4 * 768**2 + 2 * 768 * 3072) + 4 * 12 * 768
    assert PAPER.parameters == pytest.approx(108.9e6, rel=0.01)  # transformers' BertModel without its pooler
    # by hand: 21,015,324 × 24.5 G; 58,880 × 40 × 3 × (2.39 + 2 × 24.5) G; 3,610 × 21,015,324 × 2 × 768
    of = {cost.step: cost for cost in costs(LAPTOP, PAPER)}
    speed = 0.6 * 1.5e11
    assert of["encode"].seconds * speed == pytest.approx(515e15, rel=0.005)
    assert of["DPR training"].seconds * speed == pytest.approx(363e15, rel=0.005)
    assert of["search"].seconds * speed == pytest.approx(117e12, rel=0.005)
    assert of["attribution"].seconds * speed == pytest.approx(1000 * (229e9 + 2.352e12), rel=0.005)
    assert of["editing grid"].seconds == pytest.approx(36 * (of["encode"].seconds + of["DPR training"].seconds))
    assert {"515 PFLOP", "363 PFLOP", "117 TFLOP"} <= set(
        re.findall(r"\d+ [PT]FLOP", " ".join(c.how for c in of.values()))
    )


def test_sizes_of_vectors():
    assert PAPER.vectors(PAPER.passages) / 1e9 == pytest.approx(64.56, abs=0.01)
    assert PAPER.vectors(PAPER.passages, 2) / 1e9 == pytest.approx(32.28, abs=0.01)
    assert PAPER.quantised / 1e9 == pytest.approx(2.02, abs=0.01)


def test_costs_follow_from_the_machine_and_the_corpus():
    alone = {cost.step: cost for cost in costs(SERVER, PAPER)}
    four = {cost.step: cost for cost in costs(SERVER._replace(gpus=SERVER.gpus * 4), PAPER)}
    pool = {cost.step: cost for cost in costs(SERVER, PAPER, PAPER.pool)}
    for step in ("encode", "DPR training", "editing grid"):
        assert four[step].seconds == pytest.approx(alone[step].seconds / 4)
    assert alone["encode"].seconds == pytest.approx(515e15 / (0.4 * 5e13), rel=0.005)
    assert pool["encode"].disk == pytest.approx(1e6 * 768 * 4)
    assert pool["encode"].seconds < alone["encode"].seconds / 20
    assert pool["DPR training"] == alone["DPR training"]


def test_nothing_is_there(tmp_path):
    rows = doctor("paper", tmp_path / "data", machine=LAPTOP)
    files = [row for row in rows if row.part == "files"]
    assert [(row.name, row.ok) for row in files] == [
        ("psgs_w100", False),
        ("nq-train", False),
        ("nq-dev", False),
        ("bert-base-uncased", False),
    ]
    assert str(tmp_path / "data" / "psgs_w100.tsv.gz") in files[0].text
    assert "21,015,324 rows" in files[0].text
    assert "size not published" in files[0].text
    fetch = by_name(rows)["advice", "fetch"].text
    assert "fetch psgs_w100 nq-train nq-dev bert-base-uncased`" in fetch
    assert str(tmp_path) in fetch
    assert all("\n" not in row.text and not re.search(r"\. [A-Z]", row.text) for row in rows)
    assert not list(tmp_path.iterdir())  # looking makes nothing


def test_everything_is_there(placed):
    rows = doctor("paper", placed, machine=SERVER)
    assert all(row.ok is not False for row in rows)
    assert ("advice", "fetch") not in by_name(rows)
    said = report("paper", rows)
    assert said.endswith("profile paper can run")
    assert "flat fp32: 64.6 GB fit" in said
    assert "PQ96 2.0 GB" in said
    assert "placed by hand" in said
    thorough = doctor("paper", placed, machine=SERVER, thorough=True)
    assert re.search("SHA-256 [0-9a-f]{12}…", by_name(thorough)["files", "nq-dev"].text)


def test_only_the_passages_are_missing(placed):
    (placed / "psgs_w100.tsv.gz").unlink()
    rows = by_name(doctor("paper", placed, machine=SERVER))
    assert "hard negatives alone" in rows["advice", "pool"].text
    (placed / "nq-train.qa.csv").write_text("")
    (placed / "biencoder-nq-dev.json.gz").write_bytes(b"<html>")
    rows = by_name(doctor("paper", placed, machine=SERVER))
    assert "damaged (it is no gzip file)" in rows["files", "nq-dev"].text
    assert ("advice", "pool") not in rows


@pytest.mark.parametrize(
    ("disk", "ok", "words"),
    [
        (112e9, True, "flat fp32: 64.6 GB fit"),
        (111e9, True, "choose flat fp16: 32.3 GB fit"),
        (79e9, True, "choose PQ96, which is approximate: 2.0 GB fit"),
        (48e9, True, "choose a pool of 1,000,000: 3.1 GB fit"),
        (37e9, False, "no form fits in 37.0 GB"),
    ],
)
def test_what_fits_on_the_disk(placed, disk, ok, words):
    rows = by_name(doctor("paper", placed, machine=SERVER._replace(disk=int(disk))))
    assert rows["advice", "vectors"].ok is ok
    assert words in rows["advice", "vectors"].text


def test_what_does_not_fit_in_memory(placed):
    rows = by_name(doctor("paper", placed, machine=LAPTOP._replace(memory=3 * 10**9)))
    assert rows["steps", "encode"].ok
    assert rows["steps", "DPR training"].ok is False
    assert "smaller batches" in rows["steps", "DPR training"].text
    # of a machine with GPUs, that of the smallest counts, and for what runs there only
    small = SERVER._replace(gpus=(Gpu("big", 149 * 10**9), Gpu("small", 10**9)), memory=10**12)
    rows = by_name(doctor("paper", placed, machine=small))
    assert (rows["steps", "DPR training"].ok, rows["steps", "search"].ok) == (False, True)


def test_what_takes_too_long_comes_with_a_proposal(placed):
    slow, fast = (by_name(doctor("paper", placed, machine=machine)) for machine in (LAPTOP, SERVER))
    assert "1,589 h here; a pool" in slow["advice", "encode"].text
    assert "GPU" in slow["advice", "encode"].text
    assert "dpr-context-encoder" in slow["advice", "DPR training"].text
    assert ("advice", "encode") not in fast
    assert "439 h here; with such a pool it takes 194 h" in fast["advice", "editing grid"].text
    assert "14 times as fast" in fast["advice", "precision"].text
    assert ("advice", "precision") not in slow


def test_a_busy_machine_is_said_to_be_so(placed):
    rows = by_name(doctor("paper", placed, machine=LAPTOP._replace(busy=1.9)))
    assert "other programs kept 1.9 cores busy" in rows["machine", "speed"].text
    assert "busy" not in by_name(doctor("paper", placed, machine=LAPTOP))["machine", "speed"].text


def test_the_closed_world_needs_nothing(tmp_path):
    rows = doctor("small", tmp_path, machine=LAPTOP)
    assert {row.part for row in rows} == {"machine", "advice"}
    assert report("small", rows).endswith("profile small can run")


@pytest.mark.slow
def test_this_machine(tmp_path):
    machine = measure_machine(tmp_path / "not" / "yet")
    assert machine.cores >= 1
    assert 1e6 < machine.memory < 1e14
    assert machine.disk > 0
    assert 1e8 < machine.fp32 < 1e16
    assert 1e5 < machine.text < 1e11
    assert (machine.bf16 is None) == (not machine.gpus)
    assert not list(tmp_path.iterdir())


def test_limits_of_a_group_of_processes(monkeypatch):
    said = {
        "/sys/fs/cgroup/memory.max": "1000000",
        "/sys/fs/cgroup/memory.current": "400000",
        "/sys/fs/cgroup/cpu.max": "50000 100000",
    }
    monkeypatch.setattr(module, "_said", lambda path: said.get(path, ""))
    assert module._memory() == 600_000
    assert module._cores() == 1
    monkeypatch.setattr(module, "_said", lambda path: "max 100000" if "cpu" in path else "max")
    assert module._memory() > 10**6
    assert module._cores() >= 1


@pytest.mark.parametrize("field", ["passages", "epochs", "nodes", "heads"])
def test_the_plan_checks_itself(refused, field):
    with refused(field, "0", "1 or more"):
        PlanSpec(**{field: 0})


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "less than a second"), (9, "9 s"), (90, "1.5 min"), (36000, "10 h"), (5.7e6, "1,583 h")],
)
def test_durations(seconds, words):
    assert module._duration(seconds) == words


def command(*words):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.main(parser.parse_args(words))


def test_the_command(placed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "measure_machine", lambda _: SERVER)
    assert command("--data", str(placed), "--hash") == 0
    assert capsys.readouterr().out.endswith("profile paper can run\n")
    assert command("--data", str(tmp_path / "empty")) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "profile paper cannot run yet: see psgs_w100, nq-train, nq-dev, bert-base-uncased"
    monkeypatch.setenv("DPRLENS_DATA", str(placed))
    assert command() == 0
    assert command("--profile", "tiny") == 0
