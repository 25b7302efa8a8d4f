"""Threads and processes: alone, side by side, and as the group that torchrun starts."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dprlens.artifacts import step
from dprlens.training import processes
from dprlens.training.processes import (
    add_up,
    agreed,
    ahead,
    everybodys,
    group,
    in_parallel,
    own,
    pool,
    rank,
    side_by_side,
    size,
    threads,
)


def test_threads_are_set_and_put_back():
    with threads(2):
        assert torch.get_num_threads() == 2
        with threads(3):
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1
    with pytest.raises(KeyError), threads(2):
        raise KeyError
    assert torch.get_num_threads() == 1


# side by side


@step(version=1)
def meet(i: int, folder: str) -> dict:
    """Calls 0 and 1 wait for each other, the first longer; 2 and 3 fail, the last first."""
    (Path(folder) / f"{i} is here").touch()
    if i >= 2:
        time.sleep(0.5 * (3 - i))
        raise ZeroDivisionError(f"call {i} divides by nothing")
    end = time.monotonic() + 120
    while not (Path(folder) / f"{1 - i} is here").exists():
        assert time.monotonic() < end, "the other call did not run at the same time"
        time.sleep(0.01)
    time.sleep(0.3 * (1 - i))
    return {"call": i, "threads": torch.get_num_threads(), "process": os.getpid()}


@step(version=1)
def where(i: int, j: int, folder: str) -> dict:  # noqa: ARG001, part of the key
    return {"process": os.getpid()}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path / "cache"))
    return str(tmp_path)


def test_calls_run_side_by_side_in_processes_of_one_thread(cache, monkeypatch):
    with threads(2), pool(2) as workers, pytest.raises(ZeroDivisionError, match="call 2 divides by nothing"):
        in_parallel(meet, [(i, cache) for i in range(4)], workers)
    monkeypatch.delattr(processes, "ProcessPoolExecutor")  # from here on everything needed is in the cache
    found = in_parallel(meet, [(1, cache), (0, cache)])
    assert [result["call"] for result in found] == [1, 0]
    assert [result["threads"] for result in found] == [1, 1]
    assert len({os.getpid(), *(result["process"] for result in found)}) == 3
    assert in_parallel(meet, []) == []


def chain(i: int, folder: str) -> None:
    if i < 2:
        meet(i, folder)
        return
    where(i, where(i, 0, folder)["process"], folder)


def test_chains_of_steps_go_ahead_side_by_side_and_leave_their_results(cache, monkeypatch):
    ahead(chain, [(0, cache), (1, cache), (2, cache)])
    assert {meet.record(i, cache) is None for i in (0, 1)} == {False}
    first = where(2, 0, cache)["process"]
    assert first != os.getpid()
    assert where(2, first, cache)["process"] == first
    with pool(1) as workers, pytest.raises(ZeroDivisionError, match="call 2 divides by nothing"):
        ahead(meet, [(2, cache)], workers)
    monkeypatch.delattr(processes, "ProcessPoolExecutor")
    ahead(chain, [])


def test_different_steps_side_by_side(cache, monkeypatch):
    monkeypatch.delattr(processes, "ProcessPoolExecutor")
    (Path(cache) / "1 is here").touch()
    meet(0, cache), where(3, 4, cache)
    found = side_by_side([(where, (3, 4, cache)), (meet, (0, cache))])
    assert [sorted(one) for one in found] == [["process"], ["call", "process", "threads"]]


def test_a_single_call_needs_no_process_of_its_own(cache, monkeypatch):
    monkeypatch.delattr(processes, "ProcessPoolExecutor")
    (Path(cache) / "1 is here").touch()
    with threads(2):
        (found,) = in_parallel(meet, [(0, cache)])
        assert torch.get_num_threads() == 2
    assert found == {"call": 0, "threads": 1, "process": os.getpid()}  # one thread here as well: the result is the same


def test_calls_can_share_their_processes(cache):
    with pool(2) as workers:
        first, second = (in_parallel(where, [(i, j, cache) for j in range(4)], workers) for i in range(2))
    used = {result["process"] for result in [*first, *second]}
    assert os.getpid() not in used
    assert len(used) <= 2


@pytest.mark.slow
def test_the_processes_of_a_killed_run_end_too(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import os, time\n"
        "from dprlens.training.processes import pool\n"
        "if __name__ == '__main__':\n"
        "    workers = pool(1)\n"
        "    print(workers.submit(os.getpid).result(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as run:
        worker = int(run.stdout.readline())
        run.kill()
    end = time.monotonic() + 120
    while Path(f"/proc/{worker}").exists() and "zombie" not in Path(f"/proc/{worker}/status").read_text():
        assert time.monotonic() < end, "the worker outlived the run"
        time.sleep(0.1)


# a group


@pytest.mark.parametrize("n", [0, 1, 2, 5, 7, 128])
@pytest.mark.parametrize("together", [1, 2, 3, 8])
def test_shares_follow_each_other_and_are_even(monkeypatch, n, together):
    shares = []
    for place in range(together):
        monkeypatch.setattr(processes, "rank", lambda place=place: place)
        monkeypatch.setattr(processes, "size", lambda: together)
        shares.append(list(range(n))[own(n)])
    assert [item for share in shares for item in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_alone_is_a_group_of_one(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with group():
        assert not torch.distributed.is_initialized()
        assert (rank(), size(), own(5)) == (0, 1, slice(0, 5))
        mine = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        together = everybodys(mine * 1, slice(0, 2), 2)
        assert together.tolist() == [[1, 2], [3, 4]]
        assert not together.requires_grad
        add_up([mine])
        assert mine.tolist() == [[1, 2], [3, 4]]
        assert agreed("it") == "it"


MEMBER = """
import json, sys
from pathlib import Path
import torch
from dprlens.training.processes import add_up, agreed, ahead, everybodys, group, own, rank, size

with group():
    mine = own(3)
    rows = torch.tensor([[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]], dtype=torch.double, requires_grad=True)[mine]
    together = everybodys(rows, mine, 3)
    gradients = [torch.full((2, 2), 1.0 + rank()), torch.tensor(10.0 * rank())]
    add_up(gradients)
    found = {
        "place": [rank(), size()],
        "share": [mine.start, mine.stop],
        "together": together.tolist(),
        "graph": together.requires_grad,
        "type": str(together.dtype),
        "sums": [gradient.tolist() for gradient in gradients],
        "agreed": str(agreed(Path(f"epoch-{rank()}"))),
    }
found["over"] = [rank(), size(), torch.distributed.is_initialized()]
Path(sys.argv[1], f"{found['place'][0]}.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_torchrun_starts_a_group(tmp_path):
    (tmp_path / "member.py").write_text(MEMBER)
    lib = Path(processes.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(lib), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*torchrun, tmp_path / "member.py", tmp_path], env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    for place in (0, 1):
        assert json.loads((tmp_path / f"{place}.json").read_text()) == {
            "place": [place, 2],
            "share": [[0, 1], [1, 3]][place],
            "together": [[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]],
            "graph": False,
            "type": "torch.float64",
            "sums": [[[3.0, 3.0], [3.0, 3.0]], 10.0],
            "agreed": "epoch-0",
            "over": [0, 1, False],
        }
