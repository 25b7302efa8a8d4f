"""Passages, and a store that keeps millions of them on disk behind the interface of a sequence.

    <folder>/passages.arrow   id, title, text; an Arrow file, read through a memory map
             hashes.npy       the ids' 64-bit hashes, sorted …
             places.npy       … and each one's row in passages.arrow
             manifest.json    sizes and SHA-256 of these files, number and digest of the passages; written last

A store is made in a folder beside its own and renamed, so that it is there whole or not at all.
"""

import contextlib
import fcntl
import hashlib
import json
import mmap
import operator
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from dprlens.cache.artifacts import seal, sync, write_json

FORMAT = 1  # of the files; a store of another format is made again
FILES = ("passages.arrow", "hashes.npy", "places.npy")
ROWS, CHARACTERS = 4096, 1 << 24  # of one batch of passages.arrow, at most: what is in memory at once
READS = 128  # single passages that are read before their pages are let go; each may map half a megabyte


class Passage(NamedTuple):
    """A retrieval unit: a titled paragraph, and the facts that it states."""

    id: str
    title: str
    text: str
    facts: tuple[str, ...] = ()


def row_of(record: object) -> str:
    """Serialise a record as one line of JSON, of which files and digests are made."""
    return json.dumps(record, ensure_ascii=False)


def _refuse(repeated: Mapping[str, Sequence[int]]) -> None:
    id_, rows = next(iter(repeated.items()))
    raise ValueError(
        f"passage id {id_!r} is that of passages {rows[0]} and {rows[1]} (counted from 0); give each passage its own"
    )


class Store(Sequence[Passage]):
    """The passages of one folder, in the order in which they were given; `Passage.facts` is empty.

    A passage is read on access: `store[i]`, `store[a:b]` (a tuple), `for passage in store`. What stays in
    memory hardly grows with the passages. Two stores are equal if their passages are; a process that is given one
    opens it anew.
    """

    def __init__(self, folder: Path, manifest: Mapping) -> None:
        """Use `Store.open` or `Store.build`."""
        self.folder = folder
        self.manifest = manifest
        self._reads = 0  # since mapped pages were let go

    @classmethod
    def build(
        cls,
        folder: Path,
        passages: Iterable[Passage],
        source: Mapping,
        repeated: Callable[[Mapping[str, Sequence[int]]], None] = _refuse,
        findings: Callable[[], list] = list,
    ) -> "Store":
        """Build the store of these passages; `source`, plain JSON, identifies what they are made from.

        If the folder has a whole store of the same source, that one is opened and no passage is read. Any other is made
        again. `repeated` is called with ids that several passages have, and their places among those given; it raises
        ValueError (the default) or lets the first of them stand for all. `findings`, called when all passages were
        read, returns what the store is to remember about them, as plain JSON.

        Needs memory for one batch of passages and 32 bytes a passage. Of two builds at once, one makes it and the other
        waits. Raises ValueError if there are no passages, or one that is not Unicode.
        """
        folder = Path(folder).absolute()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock")):
            with contextlib.suppress(ValueError, FileNotFoundError):
                if (found := cls.open(folder)).manifest["source"] == json.loads(json.dumps(source)):
                    return found
            draft = folder.with_name(f".{folder.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)  # a dead run's, since the lock is ours
            draft.mkdir()
            try:
                rows, digest = _write(draft, passages, repeated)
                files = {name: seal(draft / name) for name in FILES}
                about = {"format": FORMAT, "passages": rows, "digest": digest, "files": files}
                write_json(draft / "manifest.json", {**about, "source": source, "findings": findings()})
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(draft, folder)
                sync(folder.parent)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Open the store in a folder; check its manifest and the sizes of its files (see `verify`).

        Raises FileNotFoundError if no whole store is there, ValueError if it is damaged or of another format.
        """
        folder = Path(folder).absolute()
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            kind, sizes = manifest["format"], {name: manifest["files"][name]["bytes"] for name in FILES}
            types = {"passages": int, "digest": str, "source": dict, "findings": list}
            if not all(isinstance(manifest[name], type_) for name, type_ in types.items()):
                raise TypeError
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder} is no store of passages: it has no manifest.json") from None
        except (ValueError, KeyError, TypeError):  # whatever a damaged JSON file can lead to
            raise _damaged(folder, "its manifest.json cannot be read") from None
        if kind != FORMAT:
            raise ValueError(
                f"the store {folder} is of format {kind} and this version reads format {FORMAT}; delete the folder, "
                "and it is made again when it is needed"
            )
        for name, size in sizes.items():
            there = (folder / name).stat().st_size if (folder / name).is_file() else "no"
            if there != size:
                raise _damaged(folder, f"{name} has {there} bytes instead of {size}")
        store = cls(folder, manifest)
        if not len(store._hashes) == len(store._places) == len(store):
            raise _damaged(folder, f"it has ids for {len(store._hashes)} passages instead of {len(store)}")
        return store

    def verify(self) -> None:
        """Read every byte.

        Raises ValueError if it is not what was written.
        """
        for name, expected in self.manifest["files"].items():
            if seal(self.folder / name) != expected:
                raise _damaged(self.folder, f"{name} is not what was written")
        sha = hashlib.sha256()
        for passage in self:
            sha.update(row_of(passage).encode() + b"\n")
        if sha.hexdigest() != self.digest:
            raise _damaged(self.folder, "its passages are not those of its digest")

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the passages in their order, one line of JSON each."""
        return self.manifest["digest"]

    def place(self, id_: str) -> int:
        """Find the place of the passage with this id.

        Raises KeyError if no passage has it.
        """
        (place,) = self.places([id_])
        if place < 0:
            raise KeyError(id_)
        return int(place)

    def places(self, ids: Sequence[str]) -> np.ndarray:
        """Find the place of each id, −1 where no passage has it: int64 [id]."""
        wanted = _hashes_of(ids)
        places = np.full(len(ids), -1, dtype=np.int64)
        for i, first in enumerate(np.searchsorted(self._hashes, wanted)):
            for j in range(first, len(self)):  # one round, but for ids of the same hash
                if self._hashes[j] != wanted[i]:
                    break
                if self._id(place := int(self._places[j])) == ids[i]:
                    places[i] = place
                    break
        return places

    def titled(self, title: str) -> list[int]:
        """Find the places of the passages under one title, in order."""
        import pyarrow.compute as pc

        found = pc.indices_nonzero(pc.equal(self._columns[1], title)).to_pylist()
        self._forget()
        return found

    @property
    def titles(self) -> int:
        """Number of different titles of the passages."""
        import pyarrow.compute as pc

        found = pc.count_distinct(self._columns[1]).as_py()
        self._forget()
        return found

    def __len__(self) -> int:
        return self.manifest["passages"]

    @overload
    def __getitem__(self, i: int) -> Passage: ...

    @overload
    def __getitem__(self, i: slice) -> tuple[Passage, ...]: ...

    def __getitem__(self, i: int | slice) -> Passage | tuple[Passage, ...]:
        if isinstance(i, slice):
            start, stop, step = i.indices(len(self))
            return tuple(self._run(start, stop)) if step == 1 else tuple(self[j] for j in range(start, stop, step))
        if not -len(self) <= (i := operator.index(i)) < len(self):
            raise IndexError(f"place {i} is out of range: this store has {len(self)} passages")
        i %= len(self)
        self._reads += 1
        if self._reads > READS:
            self._forget()
        return Passage(*(column[i].as_py() for column in self._columns))

    def __iter__(self) -> Iterator[Passage]:
        return self._run(0, len(self))

    def __contains__(self, passage: object) -> bool:
        return isinstance(passage, Passage) and (i := self.places([passage.id])[0]) >= 0 and self[i] == passage

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Store) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple:
        return Store.open, (self.folder,)

    def __repr__(self) -> str:
        return f"Store({str(self.folder)!r}, {len(self):,} passages)"

    def _run(self, start: int, stop: int) -> Iterator[Passage]:
        """Yield consecutive passages, read from the file batch by batch."""
        starts = self._starts
        for i in range(np.searchsorted(starts, start, side="right") - 1, len(starts) - 1):
            if start >= stop or starts[i] >= stop:
                return
            low, high = max(start - starts[i], 0), min(stop, starts[i + 1]) - starts[i]
            fields = [column.chunk(i).slice(low, high - low).to_pylist() for column in self._columns]
            self._forget()
            yield from map(Passage, *fields)

    def _id(self, place: int) -> str:
        return self._columns[0][place].as_py()

    def _forget(self) -> None:
        """Release the mapped pages, which would otherwise count as this process's until the system needs room."""
        self._reads = 0
        with contextlib.suppress(AttributeError):  # where the system has no such call
            self._map.madvise(mmap.MADV_DONTNEED)

    @cached_property
    def _map(self) -> mmap.mmap:
        with (self.folder / FILES[0]).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def _columns(self) -> list:
        """The columns id, title and text of all passages, mapped."""
        import pyarrow as pa

        try:
            table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._map))).read_all()
        except pa.ArrowInvalid:
            raise _damaged(self.folder, f"{FILES[0]} cannot be read") from None
        if len(table) != len(self):
            raise _damaged(self.folder, f"it has {len(table)} passages instead of {len(self)}")
        return table.columns

    @cached_property
    def _starts(self) -> np.ndarray:
        """Place of the first passage of each batch, and the number of passages [batch + 1]."""
        return np.cumsum([0, *(len(batch) for batch in self._columns[0].chunks)])

    @cached_property
    def _hashes(self) -> np.ndarray:
        return self._mapped("hashes.npy")

    @cached_property
    def _places(self) -> np.ndarray:
        return self._mapped("places.npy")

    def _mapped(self, name: str) -> np.ndarray:
        try:
            return np.asarray(np.load(self.folder / name, mmap_mode="r", allow_pickle=False))
        except ValueError:
            raise _damaged(self.folder, f"{name} cannot be read") from None


def _write(draft: Path, passages: Iterable[Passage], repeated: Callable) -> tuple[int, str]:
    """Fill a folder with the files of a store; return the number and the digest of its passages."""
    digest, hashes = _write_passages(draft / FILES[0], passages)
    order = np.argsort(hashes, kind="stable")
    if superfluous := _superfluous(draft / FILES[0], hashes, order, repeated):
        (draft / FILES[0]).rename(draft / "all")
        kept = (p for i, p in enumerate(_passages(draft / "all")) if i not in superfluous)
        digest, hashes = _write_passages(draft / FILES[0], kept)
        order = np.argsort(hashes, kind="stable")
        (draft / "all").unlink()
    for name, array in (("hashes.npy", hashes[order]), ("places.npy", order)):
        with (draft / name).open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    return len(hashes), digest


def _write_passages(path: Path, passages: Iterable[Passage]) -> tuple[str, np.ndarray]:
    """Write the passages; return their digest, and the hashes of their ids [passage]."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in Passage._fields[:3]])
    sha, hashes = hashlib.sha256(), []
    with path.open("wb") as file:
        with pa.ipc.new_file(file, schema) as writer:
            for batch in _batches(passages):
                try:
                    for passage in batch:
                        sha.update(row_of(passage).encode() + b"\n")
                except UnicodeEncodeError:
                    raise ValueError(
                        f"passage {passage.id!r} is not valid Unicode; leave it out or repair its text"
                    ) from None
                ids, titles, texts, _ = zip(*batch, strict=True)
                writer.write_batch(pa.record_batch([pa.array(x, pa.string()) for x in (ids, titles, texts)], schema))
                hashes.append(_hashes_of(ids))
        file.flush()
        os.fsync(file.fileno())
    if not hashes:
        raise ValueError("there are 0 passages to store; give 1 or more")
    return sha.hexdigest(), np.concatenate(hashes)


def _batches(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    """Split passages into runs of at most `ROWS` passages, and of about `CHARACTERS` at most."""
    batch, size = [], 0
    for passage in passages:
        batch.append(passage._replace(facts=()) if passage.facts else passage)
        size += len(passage.title) + len(passage.text)
        if len(batch) == ROWS or size >= CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _superfluous(path: Path, hashes: np.ndarray, order: np.ndarray, repeated: Callable) -> set[int]:
    """Find the rows whose id an earlier row has."""
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    if not len(same):
        return set()
    suspects = {int(row) for row in (*order[same], *order[same + 1])}
    rows: dict[str, list[int]] = {}  # of each id; different ids may have one hash
    for row, passage in enumerate(_passages(path)):
        if row in suspects:
            rows.setdefault(passage.id, []).append(row)
    several = {id_: found for id_, found in rows.items() if len(found) > 1}
    if several:
        repeated(several)
    return {row for found in several.values() for row in found[1:]}


def _passages(path: Path) -> Iterator[Passage]:
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for i in range(reader.num_record_batches):
            yield from map(Passage, *(column.to_pylist() for column in reader.get_batch(i).columns))


def _hashes_of(ids: Iterable[str]) -> np.ndarray:
    """Compute the first 64 bits of each id's BLAKE2b [id]."""
    joined = b"".join(hashlib.blake2b(id_.encode("utf-8", "replace"), digest_size=8).digest() for id_ in ids)
    return np.frombuffer(joined, dtype="<u8")


def _damaged(folder: Path, how: str) -> ValueError:
    return ValueError(
        f"the store {folder} is damaged ({how}); delete the folder, and it is made again when it is needed"
    )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft that replaces the path when it is written, and is removed after an error."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, waiting for it if necessary; the system frees it when its owner dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
