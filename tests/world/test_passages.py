"""A store of passages: the same as a tuple of them, found by id, whole or refused."""

import json
import multiprocessing
import pickle
import random
import sys
import time
from pathlib import Path

import pytest

from dprlens.world import passages as module
from dprlens.world.passages import Passage, Store

PASSAGES = tuple(
    Passage(f"p{i * 7 % 11}", f"Title {i}", text)
    for i, text in enumerate(
        ["Ada.", "", 'a "quote"\tand\ttabs', "two\nlines\r\n", "Öland 🚣 \u202bשלום\u202c", "\0\ufffe", "x"]
    )
)


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 3)


def build(folder: Path, passages=PASSAGES, source=None, **more) -> Store:
    return Store.build(folder / "store", passages, source or {"of": "these"}, **more)


@pytest.mark.usefixtures("small_batches")
def test_a_store_is_read_like_the_tuple_it_was_made_from(tmp_path):
    store = build(tmp_path)
    assert len(store._starts) > 3, "more than one batch"
    assert len(store) == len(PASSAGES)
    assert tuple(store) == PASSAGES
    assert [store[i] for i in range(-len(PASSAGES), len(PASSAGES))] == [*PASSAGES, *PASSAGES]
    for start in (None, *range(-9, 10)):
        for stop in (None, *range(-9, 10)):
            for step in (None, 1, 2, -1, -3):
                assert store[start:stop:step] == PASSAGES[start:stop:step]
    assert PASSAGES[4] in store
    assert PASSAGES[4]._replace(text="other") not in store
    assert store.index(PASSAGES[5]) == 5


@pytest.mark.parametrize("i", [7, -8])
def test_places_out_of_range_are_refused(tmp_path, refused, i):
    with refused(str(i), "7 passages", error=IndexError):
        build(tmp_path)[i]


@pytest.mark.usefixtures("small_batches")
def test_passages_are_found_by_their_ids(tmp_path):
    store = build(tmp_path)
    assert [store.place(passage.id) for passage in PASSAGES] == list(range(len(PASSAGES)))
    assert store.places(["p7", "p8", "", "p0", "P7"]).tolist() == [1, -1, -1, 0, -1]
    assert store.places([]).tolist() == []
    with pytest.raises(KeyError, match="p8"):
        store.place("p8")


@pytest.mark.usefixtures("small_batches")
def test_passages_are_found_by_their_titles(tmp_path):
    rows = [Passage(f"p{i}", title, "text") for i, title in enumerate(["Öland", "", "Wick", "Öland", "Öland", ""])]
    store = build(tmp_path, rows)
    for title in ("Öland", "", "Wick", "Wic"):
        assert store.titled(title) == [i for i, passage in enumerate(rows) if passage.title == title]
    assert store.titles == 3


@pytest.mark.usefixtures("small_batches")
def test_ids_are_told_apart_even_if_their_hashes_are_not(tmp_path, monkeypatch):
    true = module._hashes_of
    monkeypatch.setattr(module, "_hashes_of", lambda ids: true(ids) % 2)
    store = build(tmp_path)
    assert store.places([passage.id for passage in PASSAGES]).tolist() == list(range(len(PASSAGES)))
    assert store.places(["other", "p8"]).tolist() == [-1, -1]
    assert tuple(store) == PASSAGES


def test_many_random_passages_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHARACTERS", 2000)
    rng = random.Random(1)
    passages = tuple(
        Passage(str(i), "t" * rng.randrange(3), chr(rng.randrange(32, 0xD800)) * rng.randrange(200))
        for i in rng.sample(range(10**6), 1000)
    )
    store = build(tmp_path, iter(passages))
    assert tuple(store) == passages
    order = rng.sample(range(1000), 1000)
    assert store.places([passages[i].id for i in order]).tolist() == order


def test_the_digest_is_of_the_passages_in_their_order_and_of_nothing_else(tmp_path, monkeypatch):
    first = build(tmp_path / "a")
    monkeypatch.setattr(module, "ROWS", 2)
    assert build(tmp_path / "b", source={"of": "others"}) == first
    assert hash(build(tmp_path / "b")) == hash(first)
    others = {
        build(tmp_path / str(i), passages).digest
        for i, passages in enumerate(
            [
                PASSAGES[::-1],
                PASSAGES[1:],
                *((*PASSAGES[:-1], PASSAGES[-1]._replace(**{field: "y"})) for field in ("id", "title", "text")),
            ]
        )
    }
    assert len(others | {first.digest}) == 6
    assert build(tmp_path / "c", [PASSAGES[0]._replace(facts=("f0",)), *PASSAGES[1:]]) == first
    assert first != PASSAGES


def test_a_store_of_the_same_source_is_not_made_again(tmp_path):
    build(tmp_path, findings=lambda: [{"times": 2}])

    def never():
        raise AssertionError("no passage is read")
        yield

    store = build(tmp_path, never())
    assert tuple(store) == PASSAGES
    assert store.manifest["findings"] == [{"times": 2}]
    assert tuple(build(tmp_path, PASSAGES[:2], source={"of": "others"})) == PASSAGES[:2]


@pytest.mark.parametrize("name", module.FILES)
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_a_file_that_is_gone_or_cut_short_is_refused_and_made_again(tmp_path, refused, name, damage):
    store = build(tmp_path)
    damage(store.folder / name)
    with refused(str(store.folder), name, "delete the folder"):
        Store.open(store.folder)
    assert tuple(build(tmp_path)) == PASSAGES


@pytest.mark.parametrize("name", module.FILES)
def test_a_changed_byte_is_found_when_it_is_looked_for(tmp_path, refused, name):
    store = build(tmp_path)
    store.verify()
    content = bytearray((store.folder / name).read_bytes())
    content[len(content) // 2] ^= 4
    (store.folder / name).write_bytes(content)
    with refused(name, "delete the folder"):
        Store.open(store.folder).verify()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "files": 3}'])
def test_a_damaged_manifest_is_refused(tmp_path, refused, text):
    store = build(tmp_path)
    (store.folder / "manifest.json").write_text(text)
    with refused("manifest.json", str(store.folder)):
        Store.open(store.folder)


def test_a_manifest_of_another_number_or_digest_is_refused(tmp_path, refused):
    store = build(tmp_path)
    path = store.folder / "manifest.json"
    for change, words in (
        ({"passages": 6}, "7 passages"),
        ({"digest": "0" * 64}, "digest"),
        ({"format": 0}, "format 0"),
    ):
        path.write_text(json.dumps({**store.manifest, **change}))
        with refused(words, "delete the folder"):
            Store.open(store.folder).verify()


def test_where_no_store_is_one_sentence_says_so(tmp_path, refused):
    with refused(str(tmp_path / "store"), "manifest.json", error=FileNotFoundError):
        Store.open(tmp_path / "store")


def test_no_passages_make_no_store(tmp_path, refused):
    with refused("0 passages"):
        build(tmp_path, ())
    assert not list(tmp_path.glob("*store/*"))


@pytest.mark.parametrize("field", ["id", "title", "text"])
def test_half_a_surrogate_pair_is_refused_and_nothing_is_left(tmp_path, refused, field):
    with refused("not valid Unicode"):
        build(tmp_path, [*PASSAGES, Passage("q", "", "")._replace(**{field: "q\ud800"})])
    assert [path.name for path in tmp_path.iterdir()] == [".store.lock"]


@pytest.mark.usefixtures("small_batches")
def test_ids_given_twice_are_refused_or_the_first_one_stays(tmp_path, refused):
    twice = [*PASSAGES, Passage("p7", "again", "z"), Passage("new", "", ""), Passage("p7", "a third time", "z")]
    with refused("'p7'", "1 and 7"):
        build(tmp_path, twice)
    told = []
    store = build(tmp_path, twice, repeated=told.append)
    assert told == [{"p7": [1, 7, 9]}]
    assert tuple(store) == (*PASSAGES, Passage("new", "", ""))
    assert store.place("new") == 7
    store.verify()
    assert store.digest == build(tmp_path / "clean", store[:]).digest
    assert sorted(path.name for path in store.folder.iterdir()) == sorted([*module.FILES, "manifest.json"])


def test_an_error_on_the_way_leaves_the_earlier_store(tmp_path):
    build(tmp_path)

    def broken():
        yield PASSAGES[0]
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        build(tmp_path, broken(), source={"of": "others"})
    assert tuple(Store.open(tmp_path / "store")) == PASSAGES
    assert not (tmp_path / ".store.draft").exists()


def _build_slowly(folder: str) -> None:
    """In a process of its own: dies in the middle."""

    def passages():
        yield from PASSAGES * 1
        __import__("os").kill(__import__("os").getpid(), 9)

    Store.build(Path(folder) / "store", passages(), {"of": "these"})


def test_what_a_killed_run_leaves_is_no_store_and_in_nobodys_way(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_build_slowly, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert (tmp_path / ".store.draft").exists()
    with pytest.raises(FileNotFoundError):
        Store.open(tmp_path / "store")
    assert tuple(build(tmp_path)) == PASSAGES
    assert not (tmp_path / ".store.draft").exists()


def test_two_builds_at_once_make_one_store(tmp_path):
    context = multiprocessing.get_context("fork")
    reads = context.Value("i", 0)

    def passages():
        with reads.get_lock():
            reads.value += 1
        for passage in PASSAGES:
            time.sleep(0.02)  # so that all three are at it
            yield passage

    processes = [context.Process(target=build, args=(tmp_path, passages())) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert reads.value == 1
    assert tuple(Store.open(tmp_path / "store")) == PASSAGES


def test_another_process_is_handed_the_folder_and_not_the_passages(tmp_path):
    store = build(tmp_path, [Passage(str(i), "t", "word " * 100) for i in range(1000)])
    assert tuple(store)[-1].id == "999"
    handed = pickle.dumps(store)
    assert len(handed) < 500
    assert pickle.loads(handed) == store


def test_a_large_passage_among_small_ones(tmp_path):
    passages = (*PASSAGES, Passage("large", "", "ä" * (1 << 20)), Passage("after", "", "b"))
    store = build(tmp_path, passages)
    assert tuple(store) == passages
    assert store[-1] == passages[-1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_read_does_not_stay_in_memory(tmp_path, monkeypatch):
    def mapped() -> int:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
        return int(line.split()[1]) // 1024  # MB

    monkeypatch.setattr(module, "ROWS", 100)
    store = build(tmp_path, (Passage(str(i), "t", "word " * 4000) for i in range(3000)))
    assert store[0].id == "0"
    size, before = 57, mapped()  # MB
    assert sum(len(passage.text) for passage in store) >> 20 == size
    assert mapped() - before < size // 2
    assert [store[i].id for i in range(2999)] == [str(i) for i in range(2999)]
    assert mapped() - before < size // 2
