"""Encoding of shards on many machines, through Ray Data.

Needs the extra `scale`: pip install .[scale]. Each actor of Ray's is a worker of `encode`, and each row of the data set
a shard that is missing. The job's folder, and what its calls open, must be reachable under the same path from every
machine. Ray restarts a worker that died and gives it the shard that it was making; what was done is in the folder and
not in Ray, so that a run can be resumed after the whole cluster was lost, or be finished on a laptop.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.data

from dprlens.retrieval.corpus.encode import Encoded, Job, Worker, begin, finish, make_plan
from dprlens.retrieval.corpus.plan import Plan


def encode(
    job: Job, workers: int = 1, address: str | None = None, gpus: float = 0.0, thorough: bool = False
) -> Encoded:
    """Encode a job (`encode.encode`) by so many of Ray's actors, with a core and so many GPUs each.

    `address` None starts Ray on this machine and ends it afterwards, unless this process has joined a cluster
    already; else the cluster there is joined ("auto": the one that this machine belongs to). Errors as `encode.encode`.
    """
    if workers < 1:
        raise ValueError(f"workers = {workers} encode nothing; give 1 or more")
    plan = make_plan(job.spec, job.encoder(), job.passages())
    shards, own, damaged = begin(job.folder, plan, thorough=thorough)
    if own:
        with _joined(address, workers):
            rows = ray.data.from_items([{"shard": shard} for shard in own], override_num_blocks=len(own))
            made = rows.map_batches(
                _Actor,
                fn_constructor_args=(job, plan),
                batch_size=1,
                num_cpus=1,
                num_gpus=gpus,
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(own))),
            )
            made.materialize()
    return finish(shards, own, damaged)


class _Actor:
    def __init__(self, job: Job, plan: Plan) -> None:
        self._worker = Worker.of(job, plan, 0)  # of several GPUs, Ray shows an actor its own only

    def __call__(self, batch: dict) -> dict:
        self._worker.make(batch["shard"].tolist())
        return batch


@contextmanager
def _joined(address: str | None, workers: int) -> Iterator[None]:
    """Connect to Ray inside the context; what was started or joined here is left afterwards."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use to its makers unless told not to
    if address is None:
        ray.init(address="local", num_cpus=workers, include_dashboard=False)
    else:
        ray.init(address=address)
    try:
        yield
    finally:
        ray.shutdown()
