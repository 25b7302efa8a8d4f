"""The assignment of a corpus's vectors to shards.

Passages are encoded in blocks of so many consecutive rows, and a shard is a run of whole blocks. A vector's last digits
depend on the texts that are read together with its own. So they depend on the block and not on the shards: any number
of shards gives the same numbers.
"""

import dataclasses
import importlib.metadata
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dprlens.cache.artifacts import LIBRARIES, digest
from dprlens.ranges import COUNT, check, one_of

DTYPES: dict[str, np.dtype] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


@dataclass(frozen=True)
class ShardSpec:
    """Format and size of shards."""

    shards: int | None = None  # None: so many that none has more than `rows`; DPR: 50
    rows: int = 65_536  # most passages of a shard where `shards` is None: 201 MB of 768 float32 each
    block: int = 1_024  # passages that are read together; other blocks, other last digits
    dtype: str = "float32"  # or "float16": half the disk; scores are computed in float32 either way

    def __post_init__(self) -> None:
        check(self, COUNT, "shards", "rows", "block")
        check(self, one_of(DTYPES), "dtype")
        if self.shards is None and self.rows < self.block:
            raise ValueError(f"rows = {self.rows} is less than a block of {self.block}; give a block or more")


@dataclass(frozen=True)
class Plan:
    """The contents of a folder of shards once it is complete."""

    rows: int
    width: int  # d_model
    shards: int
    block: int
    dtype: str
    encoder: str  # digest of what makes the vectors
    passages: str  # digest of what they are made of
    libraries: tuple[str, ...]  # "torch 2.13.0", …: other versions, other last digits

    @classmethod
    def of(cls, spec: ShardSpec, rows: int, width: int, encoder: str, passages: str) -> "Plan":
        """Make the plan for so many passages; there are never more shards than blocks."""
        if rows < 1:
            raise ValueError("there are 0 passages to encode; give 1 or more")
        blocks = -(-rows // spec.block)
        shards = min(spec.shards or -(-blocks // (spec.rows // spec.block)), blocks)
        libraries = tuple(f"{library} {importlib.metadata.version(library)}" for library in LIBRARIES)
        return cls(rows, width, shards, spec.block, spec.dtype, encoder, passages, libraries)

    def of_shard(self, shard: int) -> range:
        """Return the rows of a shard."""
        blocks = -(-self.rows // self.block)
        start, stop = (blocks * i // self.shards * self.block for i in (shard, shard + 1))
        return range(start, min(stop, self.rows))

    def blocks(self, shard: int) -> Iterator[range]:
        """Yield the rows of each block of a shard, in order."""
        of_shard = self.of_shard(shard)
        return (range(start, min(start + self.block, of_shard.stop)) for start in of_shard[:: self.block])

    def header(self, shard: int) -> bytes:
        """Make the header of a shard's file, which precedes its numbers."""
        file = io.BytesIO()
        shape = len(self.of_shard(shard)), self.width
        form = {"descr": DTYPES[self.dtype].str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, form)
        return file.getvalue()

    def bytes(self, shard: int) -> int:
        """Compute the size of a shard's file."""
        return len(self.header(shard)) + len(self.of_shard(shard)) * self.width * DTYPES[self.dtype].itemsize

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all fields."""
        return digest(dataclasses.asdict(self))
