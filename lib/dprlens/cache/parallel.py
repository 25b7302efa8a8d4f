"""Threads, processes, and work done in parallel.

`run` is the one way to do several things at once: a cached step for several arguments, or a chain of such steps. What
the cache has is read; what is missing is made in processes of one thread each, and then read.
"""

import contextlib
import contextvars
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

import psutil
import threadpoolctl

SLOW_IMPORTS = ["torch", "transformers.models.bert.modeling_bert", "pandas", "scipy.stats", "sklearn.linear_model"]

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

_only_reading = contextvars.ContextVar("only_reading", default=False)


class Missing(LookupError):
    """The error for a result that is not in the cache where nothing may be made (inside `only_cached`)."""


@contextlib.contextmanager
def only_cached() -> Iterator[None]:
    """Make every cached step raise `Missing`, inside the context, instead of making a missing result."""
    before = _only_reading.set(True)
    try:
        yield
    finally:
        _only_reading.reset(before)


def refuse_to_make(name: str) -> None:
    """Raise `Missing`, with the step's name, inside `only_cached`."""
    if _only_reading.get():
        raise Missing(name)


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Limit Torch, BLAS and OpenMP to n threads inside the context; afterwards they have as many as before."""
    import torch  # here, so that code that only reads the cache does not import it

    before = torch.get_num_threads()
    with threadpoolctl.threadpool_limits(n):
        torch.set_num_threads(n)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def pool(n: int | None = None) -> ProcessPoolExecutor:
    """Start a pool of up to n (None: one a core) processes of one thread each, for several calls of `run`.

    The first of a process take some seconds to start. They end with `shutdown`, or with the process that made them,
    however that ends.
    """
    # not forked from here: a copy of a process in which torch has threads can hang. A server imports once what takes
    # seconds, and workers are forked from it; it never computes
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(SLOW_IMPORTS)
    return ProcessPoolExecutor(n or os.cpu_count() or 1, context, _begin, (os.getpid(), dict(os.environ)))


def run(calls: Mapping[Key, Callable[[], Result]], workers: ProcessPoolExecutor | None = None) -> dict[Key, Result]:
    """Return {key: call()}: results of cached steps, or of chains of them, in the order of the calls.

    A call is a `functools.partial` of a step or of a module's function, so that another process can be given it. What
    is in the cache is read here. Several calls that lack something are made side by side, in `workers` or in a pool for
    this call of `run` alone, where a chain goes on without waiting for the others; their results come back through the
    cache. What the first of them raises is raised here. Inside `only_cached` what is missing is `Missing`.
    """
    results: dict[Key, Result] = {}
    for key, call in calls.items():
        try:
            with only_cached():
                results[key] = call()
        except Missing:
            if _only_reading.get():
                raise
    missing = {key: call for key, call in calls.items() if key not in results}
    if len(missing) > 1:
        cores = min(len(missing), os.cpu_count() or 1)
        with contextlib.nullcontext(workers) if workers else pool(cores) as at_work:
            _finish([at_work.submit(_make, call) for call in missing.values()])
    if missing:
        with threads(1):
            results |= {key: call() for key, call in missing.items()}
    return {key: results[key] for key in calls}


def _finish(made: list[Future]) -> None:
    try:
        for future in made:
            future.result()
    except BaseException:
        for future in made:
            future.cancel()  # what waits is not begun; what runs is finished and kept
        raise


def _begin(user: int, environment: dict[str, str]) -> None:
    import torch

    os.environ.clear()  # the server still has what was set when it started
    os.environ.update(environment)
    torch.set_num_threads(1)

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(user)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(1)
        os._exit(1)  # the pool's owner was killed and could not shut it down

    threading.Thread(target=watch, daemon=True).start()


def _make(call: Callable[[], object]) -> None:
    call()  # its result stays in the cache
