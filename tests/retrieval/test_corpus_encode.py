"""Shards of real vectors: alone, as torchrun's processes, side by side, killed, and on Ray."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import dprlens
from dprlens.bert.encoder import DualEncoder
from dprlens.retrieval.corpus.encode import Encoded, Job, encode, make_plan, passages_digest, place
from dprlens.retrieval.corpus.plan import ShardSpec
from dprlens.retrieval.corpus.search import search
from dprlens.retrieval.corpus.shards import MISSING, WHOLE, Shards
from dprlens.retrieval.index import InMemory
from dprlens.world.records import Passage

BLOCK = 5


class Texts(Sequence):
    """Passages read from a JSON file; the first worker that comes to a row of `deadly` is killed there."""

    def __init__(self, path: Path, deadly: int | None = None) -> None:
        self.rows = [Passage(*row) for row in json.loads(path.read_text(encoding="utf-8"))]
        self.tombstone, self.deadly = path.with_name("tombstone"), deadly

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows):
        if self.deadly is not None and isinstance(rows, slice) and rows.start == self.deadly:
            try:
                self.tombstone.touch(exist_ok=False)
            except FileExistsError:
                return self.rows[rows]
            os.kill(os.getpid(), signal.SIGKILL)
        return self.rows[rows]


class Doomed(Texts):
    """Passages of which one row kills whoever comes to it."""

    def __getitem__(self, rows):
        self.tombstone.unlink(missing_ok=True)
        return super().__getitem__(rows)


@pytest.fixture(scope="module")
def models(encoder, tmp_path_factory):
    """A folder with a pair of encoders, and passages of it: 63 texts of all lengths."""
    folder = tmp_path_factory.mktemp("models")
    DualEncoder(encoder, encoder).save(folder)
    return folder


@pytest.fixture(scope="module")
def texts(world, models):
    rng = random.Random(2)
    words = " ".join(passage.text for passage in world.passages).split()
    rows = [(f"p{i}", f"{rng.choice(words)}", " ".join(rng.choices(words, k=rng.randint(1, 45)))) for i in range(63)]
    (path := models / "passages.json").write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture
def job(models, texts, tmp_path):
    """A job of so many shards, in a folder of its own."""

    def of(shards: int = 4, name: str = "vectors", dtype: str = "float32") -> Job:
        opened = partial(DualEncoder.load, models, "cpu"), partial(Texts, texts)
        return Job(tmp_path / name, *opened, ShardSpec(shards, block=BLOCK, dtype=dtype))

    return of


def vectors(done: Encoded | Shards) -> np.ndarray:
    shards = done.shards if isinstance(done, Encoded) else done
    return np.concatenate([shards.vectors(shard) for shard in range(len(shards))])


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder but its locks."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# the numbers


@pytest.mark.slow
def test_one_two_and_seven_shards_hold_the_same_numbers_in_order(job):
    dual, texts = job().encoder(), job().passages()
    made = {n: vectors(encode(job(n, f"{n}"))) for n in (1, 2, 7)}
    by_block = [dual.passages([(p.title, p.text) for p in texts[i : i + BLOCK]]) for i in range(0, len(texts), BLOCK)]
    for n, found in made.items():
        np.testing.assert_array_equal(found, torch.cat(by_block).numpy(), err_msg=f"{n} shards")
    at_once = dual.passages([(passage.title, passage.text) for passage in texts]).numpy()
    np.testing.assert_allclose(made[1], at_once, atol=1e-5)


def test_a_search_over_the_shards_is_that_of_the_index_in_memory(job, world):
    questions = [question.text for question in world.questions[:30]]
    dual, texts = job().encoder(), job().passages()
    whole = Job(job().folder, job().encoder, job().passages, ShardSpec(1, block=len(texts)))
    queries = dual.questions(questions).numpy()
    ranking = search(encode(whole).shards, queries, 10)
    expected = InMemory(dual, texts).search(queries, 10)
    np.testing.assert_array_equal(ranking.passages, expected.passages)
    np.testing.assert_array_equal(ranking.scores, expected.scores)


@pytest.mark.slow
def test_half_precision_keeps_the_nearest_numbers(job):
    np.testing.assert_array_equal(
        vectors(encode(job(3, "half", "float16"))), vectors(encode(job(3))).astype(np.float16)
    )


def test_mean_pooling_has_other_vectors_and_another_plan(job, encoder, refused):
    cls = encode(job(2))
    mean = job(2)._replace(encoder=lambda: DualEncoder(encoder, encoder, "mean"))
    with refused("encoder = "):
        encode(mean)
    other = encode(mean._replace(folder=mean.folder.with_name("mean")))
    assert np.abs(vectors(other) - vectors(cls)).max() > 0.1


# what is there and what is not


@pytest.mark.slow
def test_a_second_run_makes_nothing_and_a_third_what_is_missing(job):
    first = encode(job())
    assert (first.made, first.missing, first.damaged, first.lost) == (4, 0, (), 0)
    before = content(job().folder)
    assert encode(job()).made == 0
    (job().folder / "00002.json").unlink()
    assert encode(job()).made == 1
    assert content(job().folder) == before


@pytest.mark.slow
def test_damage_is_found_told_and_made_good(job):
    encode(job())
    before = content(folder := job().folder)
    (folder / "00001.npy").write_bytes(before["00001.npy"][:-100])
    flipped = bytearray(before["00003.npy"])
    flipped[-50] ^= 4
    (folder / "00003.npy").write_bytes(flipped)
    truncated = encode(job())
    assert truncated.made == 1
    assert "shard 1" in truncated.damaged[0]
    thorough = encode(job(), thorough=True)
    assert thorough.made == 1
    assert "shard 3" in thorough.damaged[0]
    assert content(folder) == before


@pytest.mark.slow
def test_other_passages_are_refused(job, texts, refused):
    encode(job())
    rows = Texts(texts).rows
    with refused("passages", "another folder"):
        encode(job()._replace(passages=lambda: [*rows[:-1], rows[-1]._replace(text="other")]))
    with refused("rows = 63 and not 62"):
        encode(job()._replace(passages=lambda: rows[:-1]))


def test_passages_may_bring_a_digest(texts):
    rows = Texts(texts).rows
    assert passages_digest(rows) == passages_digest(tuple(rows)) != passages_digest(rows[::-1])
    rows = type("Store", (list,), {"digest": "that of the store"})(rows)
    assert passages_digest(rows) == "that of the store"


@pytest.mark.slow
def test_a_worker_out_of_memory_goes_on_with_smaller_batches(job):
    class Small(DualEncoder):
        def passages(self, texts):
            sizes.append(len(texts))
            if len(texts) > 2:
                raise torch.OutOfMemoryError
            return super().passages(texts)

    sizes, dual = [], job().encoder()
    short = encode(job(2)._replace(encoder=lambda: Small(dual.query, dual.passage)))
    np.testing.assert_allclose(vectors(short), vectors(encode(job(2, "ample"))), atol=1e-5)
    assert sizes[:3] == [5, 3, 2]
    assert max(sizes[2:]) == 2  # it does not try again
    assert json.loads((short.shards.folder / "00001.json").read_text())["at_once"] == 2
    hopeless = job(2, "hopeless")._replace(encoder=lambda: Small(dual.query, dual.passage))
    Small.passages = lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError)
    with pytest.raises(torch.OutOfMemoryError):
        encode(hopeless)


# torchrun


@pytest.mark.slow
def test_each_of_torchruns_processes_makes_its_own_shards(job, monkeypatch, refused):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    first = encode(job(7))
    assert [first.shards.state(shard) for shard in range(7)] == [WHOLE if i in (1, 4) else MISSING for i in range(7)]
    assert (first.made, first.missing) == (2, 5)
    with refused("5 of 7 shards", "shard 0: missing"):
        Shards.open(job().folder)
    with refused("workers = 2", "torchrun"):
        encode(job(7), workers=2)
    for rank in ("0", "2"):
        monkeypatch.setenv("RANK", rank)
        last = encode(job(7))
    assert last.missing == 0
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    np.testing.assert_array_equal(vectors(last), vectors(encode(job(1, "alone"))))


@pytest.mark.parametrize(("rank", "size"), [("3", "3"), ("-1", "2"), ("one", "2"), ("0", "0")])
def test_a_place_that_is_none_is_refused(rank, size, monkeypatch, refused):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with refused(f"RANK = {rank}", f"WORLD_SIZE = {size}"):
        place()


# killed, and two at once


UNDER_FIRE = """
import importlib, multiprocessing, os, random, signal, sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
import numpy as np
from dprlens.retrieval.corpus.encode import Job, encode
from dprlens.retrieval.corpus.plan import ShardSpec
from dprlens.retrieval.corpus.search import search
from dprlens.retrieval.corpus.shards import Shards
from dprlens.bert.encoder import DualEncoder
from retrieval.test_corpus_encode import BLOCK, Doomed, Texts

models, path, root = map(Path, sys.argv[1:])
texts = Texts(path)  # opened once, before the children

def job(name):
    return Job(root / name, partial(DualEncoder.load, models, "cpu"), lambda: texts, ShardSpec(4, block=BLOCK))

def child(name, before=lambda: None):
    if pid := os.fork():
        return pid
    made, make = [], Shards.make
    try:
        before()
        Shards.make = lambda *arguments: made.append(make(*arguments)) or made[-1]
        encode(job(name))
        os._exit(sum(made))
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(99)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

_, code, usage = os.wait4(child("undisturbed"), 0)
assert os.waitstatus_to_exitcode(code) == 4
seconds = usage.ru_utime + usage.ru_stime
rng = random.Random(7)

# at ten random moments, one after the other in one folder; moments of its own work, as a busy machine makes others late
kills = 0
for _ in range(40):
    moment = rng.uniform(0.2, 1) * seconds
    code = ended(child("moments", lambda: signal.setitimer(signal.ITIMER_PROF, moment)))  # the kernel ends it at once
    kills += code == -signal.SIGPROF
    if kills == 10:
        break
    assert code in (-signal.SIGPROF, *range(5))
    (root / "moments" / f"0000{rng.randrange(4)}.json").unlink(missing_ok=True)  # so that there is something to make
print("killed", kills)
assert ended(child("moments")) in range(5)

# just before and just after every step by which a shard comes to be
def die_at(n):
    def watched(function):
        def call(*args, **kwargs):
            for turn in (0, 1):
                done = None if turn == 0 else function(*args, **kwargs)
                count.append(1)
                if len(count) == n:
                    os.kill(os.getpid(), signal.SIGKILL)
            return done
        return call
    count = []
    os.replace, os.fsync = watched(os.replace), watched(os.fsync)

points = 0
for n in range(1, 200):
    code = ended(child("steps", lambda: die_at(n)))
    if code != -signal.SIGKILL:
        break
    points += 1
    (root / "steps" / "00003.json").unlink(missing_ok=True)  # so that there is always something left to make
print("points", points)
assert ended(child("steps")) in range(5)

# two at once
both = [child("both"), child("both")]
print("both", *[ended(pid) for pid in both])

# in pools, of processes that need not import everything first
def forked(n):
    return ProcessPoolExecutor(n, multiprocessing.get_context("fork"))

for module in ("encode", "search"):
    importlib.import_module(f"dprlens.retrieval.corpus.{module}").pool = forked
done = encode(job("bereaved")._replace(passages=partial(Texts, path, 20)), workers=2)
print("bereaved", done.made, done.missing, done.lost)
try:
    encode(job("doomed")._replace(passages=partial(Doomed, path, 20)), workers=2)
except ChildProcessError as error:
    print("doomed", error)
print("left", encode(job("doomed")).made)
shards, queries = Shards.open(root / "both"), np.random.default_rng(0).normal(size=(9, 32))
same = [np.array_equal(*pair) for pair in zip(search(shards, queries, 20), search(shards, queries, 20, workers=2))]
print("search", same)
"""


@pytest.mark.slow
def test_killed_at_random_points_and_begun_again_it_makes_the_same_bytes(models, texts, tmp_path, job):
    command = [sys.executable, "-c", UNDER_FIRE, models, texts, tmp_path]
    folders = Path(__file__).parents[1], Path(dprlens.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders)), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    told = dict(line.split(" ", 1) for line in ran.stdout.splitlines())
    assert int(told["killed"]) == 10, "too few were killed before they were done"
    assert int(told["points"]) >= 8
    one, other = map(int, told["both"].split())
    assert one + other == 4  # each shard was made once, by one of them
    assert told["bereaved"] == "4 0 1", "a killed worker loses one shard, which the other makes"
    assert told["doomed"][0] == told["left"] in "123", "what was done before they died is kept"
    assert "2 workers died; encode again" in told["doomed"]
    assert told["search"] == "[True, True]"
    undisturbed = content(tmp_path / "undisturbed")
    assert undisturbed == content(encode(job()).shards.folder)
    for name in ("moments", "steps", "both", "bereaved", "doomed"):
        assert content(tmp_path / name) == undisturbed, name
        assert not (tmp_path / name / "quarantine").exists(), "what a killed run leaves is never taken for a shard"


def test_no_workers_are_refused(job, refused):
    with refused("workers = 0"):
        encode(job(), workers=0)


# Ray


def test_on_ray_the_same_bytes_are_made(job, refused, monkeypatch):
    pytest.importorskip("ray", reason="the extra `scale` is not installed")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # its workers must find `Texts`
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")  # a busy machine takes longer than Ray expects
    from dprlens.retrieval.corpus import cluster

    alone, clustered = encode(job(2, "alone")), job(2, "clustered")
    with refused("workers = 0"):
        cluster.encode(clustered, workers=0)
    done = cluster.encode(clustered, workers=2)
    assert (done.made, done.missing) == (2, 0)
    assert content(done.shards.folder) == content(alone.shards.folder)
    assert cluster.encode(clustered).made == 0


def test_the_plan_names_the_width_and_the_block(job):
    plan = make_plan(job().spec, job().encoder(), job().passages())
    assert (plan.rows, plan.width, plan.block, plan.shards) == (63, 32, BLOCK, 4)
