"""Plans, and shards of plain numbers: what is whole, what is missing, what is damaged."""

import dataclasses
import errno
import json
import shutil

import numpy as np
import pytest

from dprlens.cache.artifacts import CacheError, sha256
from dprlens.retrieval.corpus import shards as module
from dprlens.retrieval.corpus.plan import Plan, ShardSpec
from dprlens.retrieval.corpus.shards import MISSING, WHOLE, Block, Shards

NUMBERS = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)


def plan(shards=3, block=4, dtype="float32", rows=50, **other):
    return dataclasses.replace(Plan.of(ShardSpec(shards, block=block, dtype=dtype), rows, 6, "e", "p"), **other)


def blocks(plan, shard, numbers=NUMBERS):
    return lambda: (Block(numbers[rows.start : rows.stop], plan.block) for rows in plan.blocks(shard))


def made(folder, plan, numbers=NUMBERS):
    shards = Shards.begin(folder, plan)
    for shard in range(len(shards)):
        assert shards.make(shard, blocks(plan, shard, numbers))
    return shards


def flip(path, place=-7):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


# plans


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 50, 1000])
@pytest.mark.parametrize("shards", [1, 2, 7, 300])
def test_shards_are_runs_of_whole_blocks_that_cover_every_row_once(rows, shards):
    of = plan(shards, rows=rows)
    dealt = [list(of.of_shard(shard)) for shard in range(of.shards)]
    assert [row for shard in dealt for row in shard] == list(range(rows))
    assert of.shards == min(shards, -(-rows // 4))
    assert all(len(shard) for shard in dealt)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 7  # a block, and what the last one lacks
    together = [list(block) for shard in range(of.shards) for block in of.blocks(shard)]
    assert together == [list(range(start, min(start + 4, rows))) for start in range(0, rows, 4)]


def test_without_a_number_of_shards_none_has_more_than_the_given_rows():
    of = Plan.of(ShardSpec(rows=10, block=4), 50, 6, "e", "p")
    assert max(len(of.of_shard(shard)) for shard in range(of.shards)) == 8
    assert of.shards == 7
    assert Plan.of(ShardSpec(), 21_015_324, 768, "e", "p").shards == 321


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shards": 0}, ("shards = 0", "1 or more")),
        ({"block": 0}, ("block = 0",)),
        ({"rows": 8, "block": 9}, ("rows = 8", "block of 9")),
        ({"dtype": "bfloat16"}, ("'bfloat16'", "float32, float16")),
    ],
)
def test_a_spec_refuses(fields, words, refused):
    with refused(*words):
        ShardSpec(**fields)


def test_no_passages_are_refused(refused):
    with refused("0 passages", "1 or more"):
        plan(rows=0)


# what is there


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_vectors_come_back_mapped_and_equal_for_any_number_of_shards(tmp_path, dtype):
    for n in (1, 2, 7):
        shards = made(tmp_path / str(n), plan(n, dtype=dtype))
        parts = [shards.vectors(shard) for shard in range(n)]
        assert all(isinstance(part, np.memmap) for part in parts)
        np.testing.assert_array_equal(np.concatenate(parts), NUMBERS.astype(dtype))
        assert Shards.open(tmp_path / str(n), thorough=True).plan == shards.plan


def test_the_entry_tells_rows_bytes_and_hash(tmp_path):
    shards = made(tmp_path, plan())
    entry = json.loads((tmp_path / "00001.json").read_text())
    assert (entry["first"], entry["rows"], entry["at_once"]) == (16, 16, 4)
    assert entry["bytes"] == (tmp_path / "00001.npy").stat().st_size == shards.plan.bytes(1)
    assert entry["sha256"] == sha256(tmp_path / "00001.npy")


def test_what_is_whole_is_not_made_again(tmp_path):
    shards = made(tmp_path, plan())
    assert not shards.make(0, lambda: pytest.fail("it was there"))


def test_a_file_without_an_entry_is_missing(tmp_path):
    shards = made(tmp_path, plan())
    (tmp_path / "00002.json").unlink()
    assert [shards.state(shard) for shard in range(3)] == [WHOLE, WHOLE, MISSING]
    assert shards.tend(range(3)) == []
    assert shards.make(2, blocks(shards.plan, 2))


@pytest.mark.parametrize(
    ("harm", "thorough", "says"),
    [
        (lambda folder: flip(folder / "00001.npy"), True, "SHA-256"),
        (lambda folder: (folder / "00001.npy").write_bytes((folder / "00001.npy").read_bytes()[:-1]), False, "bytes"),
        (lambda folder: (folder / "00001.npy").write_bytes(b""), False, "0 bytes"),
        (lambda folder: (folder / "00001.npy").unlink(), False, "gone"),
        (lambda folder: (folder / "00001.json").write_text("{"), False, "JSON"),
        (lambda folder: (folder / "00001.json").write_text("[]"), False, "JSON"),
        (lambda folder: (folder / "00001.json").write_bytes(b"\xff\xfe"), False, "JSON"),
    ],
)
def test_damage_is_named_put_aside_and_made_good(tmp_path, harm, thorough, says, refused):
    shards = made(tmp_path, plan())
    before = {path.name: path.read_bytes() for path in tmp_path.glob("0*")}
    harm(tmp_path)
    with refused("1 of 3 shards", "shard 1", says):
        Shards.open(tmp_path, thorough)
    (told,) = shards.tend(range(3), thorough)
    assert says in told
    assert shards.state(1) == MISSING
    assert list((tmp_path / "quarantine").iterdir())
    assert shards.make(1, blocks(shards.plan, 1))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("0*")} == before
    assert Shards.open(tmp_path, thorough=True)


def test_a_flipped_byte_is_found_only_by_reading(tmp_path):
    shards = made(tmp_path, plan())
    flip(tmp_path / "00001.npy")
    assert shards.state(1) == WHOLE
    assert "damaged" in shards.state(1, thorough=True)


def test_an_entry_of_another_plan_does_not_count(tmp_path):
    other = made(tmp_path / "other", plan(encoder="another"))
    shards = made(tmp_path / "this", plan())
    for name in ("00000.npy", "00000.json"):
        shutil.copy(other.folder / name, shards.folder)
    assert "another plan" in shards.state(0)


def test_another_plan_is_refused_and_nothing_is_touched(tmp_path, refused):
    made(tmp_path, plan(encoder="a" * 64))
    with refused("encoder", "aaaaaaaaaaaa…", "bbbbbbbbbbbb…", "another folder"):
        Shards.begin(tmp_path, plan(encoder="b" * 64))
    with refused("shards = 3 and not 2"):
        Shards.begin(tmp_path, plan(2, encoder="a" * 64))
    assert Shards.open(tmp_path, thorough=True).plan.shards == 3


def test_a_damaged_plan_is_refused_for_searching_and_written_anew_for_encoding(tmp_path, refused):
    made(tmp_path, plan())
    before = (tmp_path / "plan.json").read_text()
    for harm in (before.replace('"rows": 50', '"rows": 51'), "", "[]", "{}", "null"):
        (tmp_path / "plan.json").write_text(harm)
        with refused("plan.json", "damaged", "encode again"):
            Shards.open(tmp_path)
        assert Shards.begin(tmp_path, plan()).state(2) == WHOLE
        assert (tmp_path / "plan.json").read_text() == before


def test_a_folder_without_a_plan_is_refused(tmp_path, refused):
    with refused("plan.json is missing"):
        Shards.open(tmp_path)


# what goes wrong while a shard is made


@pytest.mark.parametrize(("number", "dtype"), [(np.nan, "float32"), (np.inf, "float32"), (70_000.0, "float16")])
def test_numbers_that_are_not_finite_are_never_written(tmp_path, number, dtype, refused):
    numbers = NUMBERS.copy()
    numbers[21, 3] = number
    shards = Shards.begin(tmp_path, of := plan(dtype=dtype))
    with refused("passage 21", dtype):
        shards.make(1, blocks(of, 1, numbers))
    assert shards.state(1) == MISSING
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["plan.json"]


def test_vectors_of_another_shape_are_refused(tmp_path, refused):
    shards = Shards.begin(tmp_path, of := plan())
    with refused("(4, 5)", "(4, 6)"):
        shards.make(0, blocks(of, 0, NUMBERS[:, :5]))
    with pytest.raises(ValueError, match="shorter"):
        shards.make(0, lambda: iter([Block(NUMBERS[:4], 4)]))
    assert shards.state(0) == MISSING


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, refused):
    shards = Shards.begin(tmp_path, of := plan())

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with refused("no room left for shard 0", f"{of.bytes(0):,} bytes", error=CacheError):
        shards.make(0, blocks(of, 0))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["plan.json"]


def test_too_small_a_disk_is_seen_beforehand(tmp_path, refused):
    shards = Shards.begin(tmp_path, plan(rows=2**50, block=2**40))
    with refused("bytes", "free", error=CacheError):
        shards.check_room(range(3))
    shards.check_room([])


def test_drafts_of_dead_makers_are_removed(tmp_path):
    shards = Shards.begin(tmp_path, of := plan())
    (tmp_path / ".00001.npy.dead").write_bytes(b"half")
    (tmp_path / ".00002.npy.dead").write_bytes(b"half")
    shards.make(1, blocks(of, 1))
    assert [path.name for path in tmp_path.glob(".0*")] == [".00002.npy.dead"]  # its maker may be alive


def test_a_shard_that_another_makes_is_left_to_it(tmp_path):
    shards = Shards.begin(tmp_path, of := plan())
    with shards._locked("00001", wait=True):
        assert not shards.make(1, lambda: pytest.fail("the other makes it"), wait=False)
    assert shards.make(1, blocks(of, 1), wait=False)
