"""The group of processes that `torchrun` (or accelerate) starts for one training run.

Each computes its share of a batch, all see the vectors of the whole batch, and all take the same step. A single process
is a group of one; its code is the same. Independent runs are run in parallel by `parallel.run`.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor


@contextlib.contextmanager
def group() -> Iterator[None]:
    """Join the processes that `torchrun` started with this one, if it did."""
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
    """Return this process's place in the group."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return the number of processes in the group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own(n: int) -> slice:
    """Return this process's share of n items: shares are consecutive and differ by at most one item."""
    return slice(n * rank() // size(), n * (rank() + 1) // size())


def everybodys(mine: Tensor, where: slice, n: int) -> Tensor:
    """Gather the n rows of all processes, of which `mine` are the rows `where`; without gradient."""
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


def share_first(value: object) -> object:
    """Broadcast the first process's value to every process."""
    values = [value]
    if size() > 1:
        dist.broadcast_object_list(values)
    return values[0]
