"""Shards of vectors: one file a shard, and beside it the entry that marks it as whole.

    <folder>/plan.json        what is to be made: rows, width, how rows are dealt to shards, digests
    <folder>/00003.npy        the vectors of shard 3: [row, d_model]
    <folder>/00003.json       its entry, written last: rows, bytes, SHA-256; without it the shard is not there
    <folder>/quarantine/      what was damaged, put aside for whoever wants to look at it
    <folder>/.locks/00003     held by whoever makes shard 3; the system frees it when its owner dies

Folders with the same plan.json can be copied together: the shards of several machines are those of one run.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dprlens.cache.artifacts import CacheError, sha256, sync, write_json
from dprlens.retrieval.corpus.plan import DTYPES, Plan

WHOLE, MISSING = "whole", "missing"


class Block(NamedTuple):
    """The vectors of one block [row, d_model], and how many passages were encoded at once to make them."""

    vectors: np.ndarray
    at_once: int


class Shards:
    """The shards of a plan in a folder, some of them made and some not."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = Path(folder)
        self.plan = plan

    @classmethod
    def begin(cls, folder: Path, plan: Plan) -> "Shards":
        """Open the folder for this plan, and make it if necessary.

        Raises ValueError if it is the folder of another plan.
        """
        shards = cls(folder, plan)
        with shards._locked("plan", wait=True):
            try:
                found = _read_plan(shards.folder)
            except ValueError:  # no harm done: every entry names the plan that it belongs to
                shards._put_aside([shards.folder / "plan.json"])
                found = None
            if found is None:
                write_json(shards.folder / "plan.json", dataclasses.asdict(plan) | {"digest": plan.digest})
                return shards
        if found != plan:
            field = next(f.name for f in dataclasses.fields(Plan) if getattr(found, f.name) != getattr(plan, f.name))
            there, wanted = (getattr(p, field) for p in (found, plan))
            raise ValueError(
                f"{folder} holds vectors of another plan, with {field} = {_short(there)} and not {_short(wanted)}; "
                "give another folder, or remove this one"
            )
        return shards

    @classmethod
    def open(cls, folder: Path, thorough: bool = False) -> "Shards":
        """Open a complete folder; `thorough` reads all files and compares their SHA-256.

        Raises ValueError, in one sentence, for a folder that has no plan, and for shards that are missing or damaged.
        """
        if (plan := _read_plan(Path(folder))) is None:
            raise ValueError(f"{folder} holds no vectors: plan.json is missing; encode the passages there first")
        shards = cls(folder, plan)
        states = {shard: shards.state(shard, thorough) for shard in range(plan.shards)}
        if wrong := {shard: state for shard, state in states.items() if state != WHOLE}:
            shard, state = next(iter(wrong.items()))
            raise ValueError(
                f"{len(wrong)} of {plan.shards} shards in {folder} cannot be used (shard {shard}: {state}); "
                "encode again, which makes only these"
            )
        return shards

    def __len__(self) -> int:
        return self.plan.shards

    def state(self, shard: int, thorough: bool = False) -> str:
        """Return WHOLE, MISSING, or what is wrong with a shard; only `thorough` reads the file."""
        file, entry = self._paths(shard)
        try:
            told = json.loads(entry.read_text(encoding="utf-8"))
            plan, recorded = told["plan"], told["sha256"]
        except FileNotFoundError:
            return MISSING
        except (ValueError, KeyError, TypeError):  # whatever a damaged JSON file can lead to
            return f"{entry.name} is damaged (expected a JSON record)"
        if plan != self.plan.digest:
            return f"{entry.name} belongs to another plan"
        if not file.is_file():
            return f"{file.name} is gone"
        if (size := file.stat().st_size) != self.plan.bytes(shard):
            return f"{file.name} has {size:,} bytes instead of {self.plan.bytes(shard):,}"
        if thorough and (found := sha256(file)) != recorded:
            return f"{file.name} is damaged (expected SHA-256 {recorded[:12]}, found {found[:12]})"
        return WHOLE

    def vectors(self, shard: int) -> np.ndarray:
        """Map the vectors of a whole shard [row, d_model] into memory; what is used is read from the disk."""
        return np.load(self._paths(shard)[0], mmap_mode="r", allow_pickle=False)

    def tend(self, shards: Iterable[int], thorough: bool = False) -> list[str]:
        """Put damaged shards into quarantine, so that they are missing, and report what was wrong with them."""
        found = []
        for shard in shards:
            if self.state(shard, thorough) in (WHOLE, MISSING):
                continue
            with self._locked(_name(shard), wait=True):  # another run may have made it anew in the meantime
                if (state := self.state(shard, thorough)) not in (WHOLE, MISSING):
                    self._put_aside(self._paths(shard)[::-1])  # the entry first: no entry, no shard
                    found.append(f"shard {shard}: {state}")
        return found

    def check_room(self, shards: Sequence[int]) -> None:
        """Raise CacheError if these shards do not fit on the folder's disk."""
        needed, free = sum(map(self.plan.bytes, shards)), shutil.disk_usage(self.folder).free
        if needed > free:
            raise CacheError(
                f"{len(shards)} shards need {needed:,} bytes and the disk of {self.folder} has {free:,} left; "
                "free some space, or choose another disk or float16"
            )

    def make(self, shard: int, blocks: Callable[[], Iterable[Block]], wait: bool = True) -> bool:
        """Make a shard of `blocks()` unless it is whole; return True if this call made it.

        While another process makes it, this one waits, or leaves it to the other if `wait` is False. Raises ValueError
        for vectors that are not finite and CacheError if the disk is full; the shard is missing then.
        """
        with self._locked(_name(shard), wait) as ours:
            if not ours or self.state(shard) == WHOLE:
                return False
            file, entry = self._paths(shard)
            draft = self.folder / f".{file.name}.{uuid.uuid4().hex}"
            try:
                written = self._write(draft, shard, blocks())
                os.replace(draft, file)
                sync(self.folder)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                raise CacheError(
                    f"{self.folder} has no room left for shard {shard} of {self.plan.bytes(shard):,} bytes; free some "
                    "space and encode again, which goes on with this shard"
                ) from error
            finally:
                draft.unlink(missing_ok=True)
            rows = self.plan.of_shard(shard)
            told = {"plan": self.plan.digest, "shard": shard, "first": rows.start, "rows": len(rows)}
            write_json(entry, told | {"bytes": self.plan.bytes(shard)} | written)
            sync(self.folder)
            return True

    def _write(self, draft: Path, shard: int, blocks: Iterable[Block]) -> dict:
        """Write the shard's file block by block; return its entry, with the smallest `at_once` of a block."""
        fewest = self.plan.block
        sha = hashlib.sha256(header := self.plan.header(shard))
        with draft.open("xb") as file:
            file.write(header)
            for rows, (vectors, at_once) in zip(self.plan.blocks(shard), blocks, strict=True):
                if vectors.shape != (len(rows), self.plan.width):
                    raise ValueError(
                        f"passages {rows.start} to {rows.stop - 1} have vectors of shape {vectors.shape}; "
                        f"give {(len(rows), self.plan.width)}"
                    )
                with np.errstate(over="ignore"):  # float16 ends at 65,504
                    kept = np.ascontiguousarray(vectors, dtype=DTYPES[self.plan.dtype])
                if not np.isfinite(kept).all():
                    row = rows.start + int((~np.isfinite(kept)).any(1).argmax())
                    raise ValueError(
                        f"the vector of passage {row} has a number that is not finite in {self.plan.dtype}; "
                        "check the encoder, or choose float32"
                    )
                file.write(kept.data)
                sha.update(kept.data)
                fewest = min(fewest, at_once)
            file.flush()
            os.fsync(file.fileno())
        return {"sha256": sha.hexdigest(), "at_once": fewest}

    @contextlib.contextmanager
    def _locked(self, what: str, wait: bool) -> Iterator[bool]:
        """Hold the lock of "plan" or "00003" and remove the drafts of dead owners.

        Yields False if another process holds it.
        """
        locks = self.folder / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / what).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            for draft in self.folder.glob(f".{what}.*"):
                draft.unlink(missing_ok=True)
            yield True

    def _paths(self, shard: int) -> tuple[Path, Path]:
        """Return the paths of a shard's file and its entry."""
        return self.folder / f"{_name(shard)}.npy", self.folder / f"{_name(shard)}.json"

    def _put_aside(self, paths: Iterable[Path]) -> None:
        (aside := self.folder / "quarantine").mkdir(parents=True, exist_ok=True)
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside / f"{path.name}.{uuid.uuid4().hex[:8]}")


def _read_plan(folder: Path) -> Plan | None:
    """Read the plan of a folder; None if it has none, ValueError if plan.json is damaged."""
    try:
        told = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        found = told.pop("digest")
        plan = Plan(**told | {"libraries": tuple(told["libraries"])})
        if plan.digest == found:
            return plan
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):  # whatever a damaged JSON file can lead to
        pass
    raise ValueError(f"plan.json in {folder} is damaged; encode again, which writes it anew and keeps the shards")


def _name(shard: int) -> str:
    return f"{shard:05d}"


def _short(value: object) -> str:
    """Shorten a field of a plan for an error message: a digest to its beginning."""
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)
