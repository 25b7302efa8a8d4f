"""Threads, processes, and calls that are run side by side or only read."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import threadpoolctl
import torch

from dprlens.cache import parallel
from dprlens.cache.artifacts import step
from dprlens.cache.parallel import Missing, only_cached, pool, run, threads


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


def test_threads_are_those_of_all_libraries():
    def of_all():
        return {library["num_threads"] for library in threadpoolctl.threadpool_info()}

    before = threadpoolctl.threadpool_info()
    with threads(2):
        assert of_all() == {2}
        with threads(1):
            assert of_all() == {1}
        assert of_all() == {2}
    assert threadpoolctl.threadpool_info() == before


# steps of a test's own


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


def chain(i: int, folder: str) -> dict:
    """One step after the other: the second's arguments are what the first one found."""
    return where(i, where(i, 0, folder)["process"], folder)


def meets_late(folder: str) -> dict:
    """Another chain."""
    where(1, 0, folder)
    return meet(1, folder)


def stops(i: int, folder: str) -> None:
    """A chain whose second step fails."""
    where(i, 1, folder)
    meet(2, folder)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path / "cache"))
    return str(tmp_path)


@pytest.fixture
def no_processes(monkeypatch):
    """From when it is called on, to start a process is an error."""
    return lambda: monkeypatch.delattr(parallel, "ProcessPoolExecutor")


# only reading


def test_nothing_is_made_where_only_what_is_cached_is_read(cache):
    there = where(0, 0, cache)
    with only_cached():
        assert where(0, 0, cache) == there
        with pytest.raises(Missing, match="where"):
            where(0, 1, cache)
        with only_cached(), pytest.raises(Missing):
            where(0, 1, cache)
        with pytest.raises(Missing):  # the inner block did not end the outer one
            where(0, 1, cache)
    assert where.record(0, 1, cache) is None
    assert where(0, 1, cache) == {"process": os.getpid()}


def test_after_an_error_there_steps_are_made_again(cache):
    with pytest.raises(KeyError), only_cached():
        raise KeyError
    assert where(0, 0, cache)["process"] == os.getpid()


def test_a_damaged_result_is_missing_where_only_what_is_cached_is_read(cache):
    where(0, 0, cache)
    (value,) = (Path(cache) / "cache").glob("where-*/value.json")
    value.write_text("{}")
    with only_cached(), pytest.raises(Missing):
        where(0, 0, cache)
    assert where(0, 0, cache) == {"process": os.getpid()}


# side by side


def test_calls_run_side_by_side_in_processes_of_one_thread(cache, no_processes):
    calls = {f"call {i}": partial(meet, i, cache) for i in (1, 0)}
    with threads(2), pool(2) as workers:
        run(calls, workers)
    no_processes()  # from here on everything needed is in the cache
    found = run(calls)
    assert [(key, result["call"]) for key, result in found.items()] == [("call 1", 1), ("call 0", 0)]
    assert [result["threads"] for result in found.values()] == [1, 1]
    assert len({os.getpid(), *(result["process"] for result in found.values())}) == 3
    assert run({}) == {}


def test_what_the_first_call_raises_is_raised_and_what_others_made_is_kept(cache):
    calls = {i: partial(meet, i, cache) for i in range(4)}
    with pool(2) as workers, pytest.raises(ZeroDivisionError, match="call 2 divides by nothing"):
        run(calls, workers)
    with only_cached():
        assert [meet(i, cache)["call"] for i in (0, 1)] == [0, 1]
    assert meet.record(2, cache) is None


def test_without_a_pool_of_its_callers_it_has_one_of_its_own(cache):
    first, second = run({i: partial(meet, i, cache) for i in (0, 1)}).values()
    assert os.getpid() not in (first["process"], second["process"])


def test_what_is_cached_is_read_here_and_only_what_is_missing_is_made(cache, no_processes):
    """One of three is missing, so that no process is needed for it."""
    made = [where(i, 0, cache) for i in range(2)]
    no_processes()
    found = run({i: partial(where, i, 0, cache) for i in (2, 1, 0)})
    assert [*found] == [2, 1, 0]
    assert [found[0], found[1]] == made


def test_different_steps_and_chains_side_by_side_in_the_order_of_the_calls(cache):
    (Path(cache) / "1 is here").touch()
    here = where(3, 4, cache)
    calls = {
        "chain": partial(chain, 2, cache),
        ("a", 0): partial(meet, 0, folder=cache),
        "there": partial(where, 3, 4, cache),
        7: partial(where, i=5, j=6, folder=cache),
    }
    with pool(2) as workers:
        found = run(calls, workers)
    assert [*found] == [*calls]
    assert {key: sorted(one) for key, one in found.items()} == {
        "chain": ["process"],
        ("a", 0): ["call", "process", "threads"],
        "there": ["process"],
        7: ["process"],
    }
    assert found["there"] == here
    assert os.getpid() not in {found[key]["process"] for key in ("chain", ("a", 0), 7)}


def test_a_chain_goes_on_without_waiting_for_others_and_leaves_its_steps(cache):
    """The first call ends only when the chain has come to its second step."""
    with pool(2) as workers:
        found = run({"waits": partial(meet, 0, cache), "chain": partial(meets_late, cache)}, workers)
    with only_cached():
        first, second = where(1, 0, cache), meet(1, cache)
    assert first["process"] == second["process"] != found["waits"]["process"]
    assert os.getpid() not in (first["process"], found["waits"]["process"])
    assert found["chain"] == second


def test_a_chain_that_stops_on_its_way_keeps_what_it_made(cache):
    with pool(1) as workers, pytest.raises(ZeroDivisionError, match="call 2 divides by nothing"):
        run({i: partial(stops, i, cache) for i in (0, 1)}, workers)
    assert where.record(0, 1, cache)
    assert meet.record(2, cache) is None


def test_a_single_call_needs_no_process_of_its_own(cache, no_processes):
    no_processes()
    (Path(cache) / "1 is here").touch()
    with threads(2):
        (found,) = run({"only": partial(meet, 0, cache)}).values()
        assert torch.get_num_threads() == 2
    assert found == {"call": 0, "threads": 1, "process": os.getpid()}  # one thread here as well: the result is the same


def test_where_only_what_is_cached_is_read_a_missing_call_is_missing(cache, no_processes):
    no_processes()
    where(0, 0, cache)
    with only_cached():
        assert [*run({0: partial(where, 0, 0, cache)})] == [0]
        with pytest.raises(Missing):
            run({i: partial(where, i, 0, cache) for i in (0, 1)})
    assert where.record(1, 0, cache) is None


def test_where_only_what_is_cached_is_read_several_missing_calls_start_no_process(cache, no_processes):
    no_processes()
    with only_cached(), pytest.raises(Missing):
        run({i: partial(where, i, 0, cache) for i in range(3)})
    assert [where.record(i, 0, cache) for i in range(3)] == [None] * 3


def test_calls_can_share_their_processes(cache):
    with pool(2) as workers:
        first, second = (run({j: partial(where, i, j, cache) for j in range(4)}, workers) for i in range(2))
    used = {result["process"] for result in [*first.values(), *second.values()]}
    assert os.getpid() not in used
    assert len(used) <= 2


@pytest.mark.slow
def test_the_processes_of_a_killed_run_end_too(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import os, time\n"
        "from dprlens.cache.parallel import pool\n"
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
