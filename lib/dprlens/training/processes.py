"""Threads and processes.

A training run has one process, or several that `torchrun` (or accelerate) started: then each computes its share of a
batch, all see the vectors of the whole batch, and all take the same step. A single process is a group of one; its code
is the same. Runs that do not need each other go side by side with `in_parallel`.
"""

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

SLOW_IMPORTS = ["torch", "transformers.models.bert.modeling_bert", "pandas", "scipy.stats", "sklearn.linear_model"]


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch computes with n threads in here, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pool(n: int | None = None) -> ProcessPoolExecutor:
    """Up to n (None: one a core) processes of one thread each, which several `in_parallel` can share.

    The first of a process take some seconds to start. They end with `shutdown`, or with the process that made them,
    however that ends.
    """
    # not forked from here: a copy of a process in which torch has threads can hang. A server imports once what takes
    # seconds, and workers are forked from it; it never computes
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(SLOW_IMPORTS)
    return ProcessPoolExecutor(n or os.cpu_count() or 1, context, _begin, (os.getpid(), dict(os.environ)))


def in_parallel(step: Callable, calls: Sequence[tuple], workers: ProcessPoolExecutor | None = None) -> list:
    """`[step(*call) for call in calls]` of a cached step; what is not in the cache yet is made side by side.

    In `workers`, or in a pool for this call alone. What the first of them raises is raised here.
    """
    return side_by_side([(step, call) for call in calls], workers)


def side_by_side(calls: Sequence[tuple[Callable, tuple]], workers: ProcessPoolExecutor | None = None) -> list:
    """`in_parallel` for different steps: [step(*call)] of pairs of a cached step and its arguments."""
    missing = [(step, call) for step, call in calls if step.record(*call) is None]
    if len(missing) > 1:
        cores = min(len(missing), os.cpu_count() or 1)
        with contextlib.nullcontext(workers) if workers else pool(cores) as at_work:
            _finish([at_work.submit(_make, step, call) for step, call in missing])
    with threads(1):
        return [step(*call) for step, call in calls]


def ahead(work: Callable, calls: Sequence[tuple], workers: ProcessPoolExecutor | None = None) -> None:
    """Run `work(*call)` for all calls side by side. What it leaves are the cached steps that it takes on its way.

    So a chain of steps goes on in one process without waiting for the others. Errors as in `in_parallel`.
    """
    if calls:
        with contextlib.nullcontext(workers) if workers else pool(min(len(calls), os.cpu_count() or 1)) as at_work:
            _finish([at_work.submit(_make, work, call) for call in calls])


def _finish(made: Sequence[Future]) -> None:
    try:
        for future in made:
            future.result()
    except BaseException:
        for future in made:
            future.cancel()  # what waits is not begun; what runs is finished and kept
        raise


def _begin(user: int, environment: dict[str, str]) -> None:
    os.environ.clear()  # the server still has what was set when it started
    os.environ.update(environment)
    torch.set_num_threads(1)

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(user)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(1)
        os._exit(1)  # who had the pool was killed and could not say so

    threading.Thread(target=watch, daemon=True).start()


def _make(step: Callable, call: tuple) -> None:
    step(*call)  # its result stays in the cache


@contextlib.contextmanager
def group() -> Iterator[None]:
    """Join the processes that `torchrun` started with this one; without torchrun there is nothing to join."""
    if "RANK" not in os.environ:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's place in the group."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes the group has."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own(n: int) -> slice:
    """This process's share of n items: shares follow each other and differ by at most one item."""
    return slice(n * rank() // size(), n * (rank() + 1) // size())


def everybodys(mine: Tensor, where: slice, n: int) -> Tensor:
    """The n rows of all processes together, of which `mine` are the rows `where`; without gradient."""
    rows = mine.new_zeros(n, *mine.shape[1:])
    rows[where] = mine.detach()
    if size() > 1:
        dist.all_reduce(rows)
    return rows


def add_up(gradients: Sequence[Tensor]) -> None:
    """Replace each process's gradients by their sum over the processes."""
    if size() > 1:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def agreed(value: object) -> object:
    """The first process's value, in every process."""
    values = [value]
    if size() > 1:
        dist.broadcast_object_list(values)
    return values[0]
