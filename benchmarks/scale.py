"""Encoding and searching corpora of growing size: seconds, memory and disk of each phase.

    python benchmarks/scale.py --sizes 10000 100000 1000000 --out scale.json

Passages of 100 generated words, an encoder of 2 layers with random weights (d_model 128), two processes of one thread.
What is measured is cost; random vectors say nothing about finding anything, least of all the recall of IVF-PQ, which
is printed to show that it is measured. Ends with status 1 if the processes together held more than `--memory` GB at any
moment, or if one in a hundred passages was not found by its own vector. What two processes take to begin, which no
phase could do without, is a phase of its own, and in the times of "encode" and "search" too.
"""

import argparse
import json
import os
import platform
import random
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil

from dprlens.bert.encoder import DualEncoder, Encoder, EncoderSpec, random_bert
from dprlens.bert.vocabulary import make_tokenizer, vocabulary
from dprlens.cache.parallel import pool
from dprlens.retrieval.corpus.compressed import IVFPQSpec, build_ivfpq, search_ivfpq
from dprlens.retrieval.corpus.encode import Job, encode
from dprlens.retrieval.corpus.plan import ShardSpec
from dprlens.retrieval.corpus.search import search
from dprlens.retrieval.corpus.shards import Shards
from dprlens.world.records import Passage

SHAPE = EncoderSpec(layers=2, d_model=128, d_ff=512, heads=2, max_length=128)
SHARDS = ShardSpec(rows=4_096, block=1_024)
QUESTIONS, K = 256, 100
WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in ("a", "ei", "o", "u") for c in ("rin", "tas", "vel", "mok") * 2]
WORDS = sorted({f"{one}{other}" for one in WORDS for other in WORDS})[:8_192]


class Generated(Sequence):
    """Passages of 100 words, made when they are asked for, each from its own number."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.digest = f"generated {n}"

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows: int | slice) -> Passage | list[Passage]:
        if isinstance(rows, slice):
            return [self[row] for row in range(*rows.indices(self.n))]
        words = random.Random(rows).choices(WORDS, k=102)
        return Passage(str(rows), " ".join(words[:2]), " ".join(words[2:]))


class Memory:
    """Peak memory of this process and its children together, in GB, from now until `end`.

    Pages that several of them share are counted in each (RSS), or divided among them (PSS, where the system tells it).
    """

    def __init__(self) -> None:
        self.rss = self.pss = 0.0
        self._ended = threading.Event()
        self._look()
        threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            self._look()

    def _look(self) -> None:
        rss = pss = 0
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            with suppress(psutil.Error):  # it has just ended
                info = process.memory_full_info()
                rss, pss = rss + info.rss, pss + getattr(info, "pss", 0)
        self.rss, self.pss = max(self.rss, rss / 1e9), max(self.pss, pss / 1e9)


@contextmanager
def timed(phases: dict, name: str) -> Iterator[None]:
    memory, began, used = Memory(), time.monotonic(), _cpu_seconds()
    yield
    memory.end()
    seconds, cpu = time.monotonic() - began, _cpu_seconds() - used
    phases[name] = {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "rss_gb": round(memory.rss, 2),
        "pss_gb": round(memory.pss, 2),
    }
    taken = f"{seconds:>9.1f} s  {cpu:>9.1f} CPU-s"
    print(f"  {name:<22} {taken}    {memory.rss:>6.2f} GB RSS  {memory.pss:>6.2f} GB PSS", flush=True)


def _cpu_seconds() -> float:
    """What this process and its ended children have computed: other work on the machine stretches only the seconds."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _ready(_: int) -> None:
    time.sleep(0.5)  # so that no process does the other's share


def measured(n: int, models: Path, folder: Path, workers: int) -> dict:
    """Every phase at one size."""
    print(f"{n:,} passages")
    phases: dict = {}
    passages = Generated(n)
    job = Job(folder / "vectors", partial(DualEncoder.load, models, "cpu"), partial(Generated, n), SHARDS)
    with timed(phases, "begin"), pool(workers) as processes:
        list(processes.map(_ready, range(workers)))
    with timed(phases, "encode"):
        shards = encode(job, workers=workers).shards
    with timed(phases, "verify"):
        Shards.open(job.folder, thorough=True)
    asked = [row * n // QUESTIONS for row in range(QUESTIONS)]
    dual = job.encoder()
    queries = dual.passages([(passages[row].title, passages[row].text) for row in asked]).numpy()
    queries -= queries.mean(0)  # random networks say nearly the same of all texts
    with timed(phases, "search"):
        exact = search(shards, queries, K, workers=workers)
    spec = IVFPQSpec(lists=max(16, int(n**0.5)), code_bytes=16, probes=16, sample=max(10_240, 40 * int(n**0.5)))
    with timed(phases, "IVF-PQ, build"):
        build_ivfpq(shards, spec, folder / "ivfpq")
    with timed(phases, "IVF-PQ, search"):
        approximate = search_ivfpq(folder / "ivfpq", queries, exact, spec)
    on_disk = sum(path.stat().st_size for path in job.folder.glob("*.npy"))
    found = float(np.mean([row in ranked for row, ranked in zip(asked, exact.passages, strict=True)]))
    rate = n / (phases["encode"]["seconds"] - phases["begin"]["seconds"])
    per_core = n / (phases["encode"]["cpu_seconds"] - phases["begin"]["cpu_seconds"])
    print(
        f"  {rate:,.0f} passages/s encoded, {per_core:,.0f} a CPU-second; "
        f"{on_disk / 1e6:,.1f} MB of vectors in {len(shards)} shards, "
        f"{approximate.bytes / 1e6:,.1f} MB of IVF-PQ, recall@{K} {approximate.recall:.3f}; found by itself {found:.3f}"
    )
    return {
        "passages": n,
        "phases": phases,
        "passages_per_second": round(rate, 1),
        "passages_per_cpu_second": round(per_core, 1),
        "bytes_of_vectors": on_disk,
        "bytes_of_ivfpq": approximate.bytes,
        "recall": round(approximate.recall, 4),
        "found_by_itself": found,
        "shards": len(shards),
        "rss_gb": max(phase["rss_gb"] for phase in phases.values()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], help="numbers of passages")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--memory", type=float, default=6.0, help="GB that must never be exceeded")
    parser.add_argument("--folder", type=Path, help="where to work; it needs 1 GB for a million passages")
    parser.add_argument("--out", type=Path, help="JSON file for the measurements")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir=chosen.folder))
    try:
        tokenizer = make_tokenizer(vocabulary(WORDS))
        encoder = Encoder(tokenizer, random_bert(tokenizer, SHAPE), device="cpu")
        (models := folder / "models").mkdir()
        DualEncoder(encoder, encoder).save(models)
        load = round(os.getloadavg()[0], 1)
        print(f"{chosen.workers} processes of one thread on {os.cpu_count()} cores; load at the start {load}")
        sizes = []
        for n in chosen.sizes:
            (at := folder / str(n)).mkdir()
            sizes.append(measured(n, models, at, chosen.workers))
            shutil.rmtree(at)
    finally:
        shutil.rmtree(folder)
    for less, more in pairwise(sizes):
        times = more["passages"] / less["passages"]
        told = ", ".join(
            f"{name} {more['phases'][name]['cpu_seconds'] / max(less['phases'][name]['cpu_seconds'], 0.01):.1f}"
            for name in ("encode", "verify", "search")
        )
        print(f"{more['passages']:,} passages are {times:g} times {less['passages']:,}; CPU-seconds, times: {told}")
    report = {
        "cores": os.cpu_count(),
        "workers": chosen.workers,
        "load": load,
        "questions": QUESTIONS,
        "k": K,
        "encoder": {"layers": SHAPE.layers, "d_model": SHAPE.d_model, "d_ff": SHAPE.d_ff},
        "libraries": {name: version(name) for name in ("torch", "transformers", "faiss-cpu")},
        "python": platform.python_version(),
        "sizes": sizes,
    }
    if chosen.out:
        chosen.out.write_text(json.dumps(report, indent=1) + "\n")
    wrong = [size for size in sizes if size["rss_gb"] > chosen.memory or size["found_by_itself"] < 0.99]
    for size in wrong:
        print(
            f"{size['passages']:,} passages: {size['rss_gb']} GB (at most {chosen.memory}), found by themselves "
            f"{size['found_by_itself']:.3f} (at least 0.99)",
            file=sys.stderr,
        )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
