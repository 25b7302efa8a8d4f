"""The list of the real setting's resources, and their state in a data folder.

Nothing is fetched here. What `fetch` brought has a *seal* beside it, `<name>.fetched.json`: source, size and SHA-256 at
that time. A file that a reader placed by hand has none and is taken as it is.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from dprlens.cache.artifacts import folder_for, sha256

GZIP = b"\x1f\x8b"
SEAL, PART = ".fetched.json", ".part"


@dataclass(frozen=True)
class Resource:
    """One file, or one model, i.e. a folder of files; the fields are explained at the head of `resources.toml`."""

    name: str
    place: str
    why: str
    path: str | None = None
    hub: str | None = None
    files: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    rows: int | None = None
    bytes: int | None = None  # None: not published
    sha256: str | None = None  # None: not published

    def __post_init__(self) -> None:
        inside = PurePosixPath(self.place)
        if inside.is_absolute() or ".." in inside.parts or not inside.parts:
            raise ValueError(
                f"place = {self.place!r} of {self.name} is not below the data folder; give a relative path"
            )
        if (self.path is None) == (self.hub is None):
            raise ValueError(
                f"{self.name} has not one source but {self.path!r} and {self.hub!r}; give a path or a hub id"
            )
        if self.hub and not self.weights:
            raise ValueError(f"model {self.name} has no weights = {self.weights!r}; name the files that they may be in")
        for field in ("rows", "bytes"):
            if (number := getattr(self, field)) is not None and number < 1:
                raise ValueError(f"{field} = {number} of {self.name} is no size; give 1 or more, or leave it out")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 = {self.sha256!r} of {self.name} is no checksum; give 64 hexadecimal digits")

    @property
    def is_model(self) -> bool:
        """Whether it is a model, from a hub."""
        return self.hub is not None

    @property
    def size(self) -> str:
        """Its size for a reader, or that none was published."""
        return "size not published" if self.bytes is None else amount(self.bytes)


@dataclass(frozen=True)
class Resources:
    """The contents of `resources.toml`."""

    base: str
    licence: str
    all: Mapping[str, Resource]

    def named(self, names: Iterable[str]) -> list[Resource]:
        """Select the resources of these names, in the order of the list.

        Raises ValueError for a name that it does not have.
        """
        wanted = list(names)
        if unknown := [name for name in wanted if name not in self.all]:
            raise ValueError(f"there is no resource {unknown[0]!r}; choose among {', '.join(self.all)}")
        return [resource for name, resource in self.all.items() if name in wanted]

    def needed(self, profile: str) -> list[Resource]:
        """Select the resources that this profile requires; none for a profile of the closed world."""
        return [resource for resource in self.all.values() if profile in resource.profiles]


@cache
def resources() -> Resources:
    """Load the list, once."""
    table = tomllib.loads(files(__package__).joinpath("resources.toml").read_text(encoding="utf-8"))
    return parse_resources(table)


def parse_resources(table: Mapping) -> Resources:
    """Parse such a table into the list.

    Raises ValueError for an unknown field, or for one with a bad value.
    """
    rows = {**table["files"], **table["models"]}
    known = set(Resource.__dataclass_fields__) - {"name"}
    for name, row in rows.items():
        if unknown := sorted(set(row) - known):
            raise ValueError(f"resource {name} has a field {unknown[0]!r}; the fields are {', '.join(sorted(known))}")
    found = {}
    for name, row in rows.items():
        fields: dict[str, Any] = {field: tuple(v) if isinstance(v, list) else v for field, v in row.items()}
        found[name] = Resource(name, **fields)
    return Resources(table["base"], table["licence"], found)


def data_folder() -> Path:
    """Return `$DPRLENS_DATA`, else `data/` in the repository, or in the current folder if there is none."""
    return folder_for("DPRLENS_DATA", "data")


class ResourceState(NamedTuple):
    """The state of a resource in the data folder."""

    state: str  # "there", "missing", "partly" (an unfinished download) or "damaged"
    path: Path  # where it is, or belongs
    bytes: int = 0  # of what is there
    sha256: str | None = None  # as recorded by `fetch`, or as computed where the whole file was read
    remark: str = ""  # what is wrong with it, or has not been checked


def look(resource: Resource, folder: Path, thorough: bool = False) -> ResourceState:
    """Check what of the resource is in the folder.

    Sizes are compared with the published ones and with the seal's, and a `.gz` must begin as gzip does; if `thorough`,
    the file is read whole and its SHA-256 compared. A name without its ".gz" does as well.
    """
    place = Path(folder) / resource.place
    if resource.is_model:
        return _look_at_model(resource, place)
    unpacked = place.with_name(place.name.removesuffix(".gz"))
    path = place if place.exists() or not unpacked.exists() else unpacked
    if not path.is_file():
        part = place.with_name(place.name + PART)
        if part.is_file():
            return ResourceState(
                "partly", place, part.stat().st_size, remark="an unfinished download, which fetch goes on with"
            )
        return ResourceState("missing", place)
    return _checked(path, resource if path == place else None, thorough)


def _checked(path: Path, published: Resource | None, thorough: bool) -> ResourceState:
    size, sealed = path.stat().st_size, read_seal(path)
    with path.open("rb") as file:
        begins = file.read(2)
    if not size:
        return ResourceState("damaged", path, size, remark="it is empty")
    if path.suffix == ".gz" and begins != GZIP:
        return ResourceState("damaged", path, size, remark="it is no gzip file")
    bytes_ = {"published": published.bytes if published else None, "recorded when it was fetched": sealed.get("bytes")}
    sums = {"published": published.sha256 if published else None, "recorded when it was fetched": sealed.get("sha256")}
    for source, wanted in bytes_.items():
        if wanted is not None and wanted != size:
            return ResourceState("damaged", path, size, remark=f"it has {size:,} bytes, {wanted:,} are {source}")
    if not thorough:
        known = next((sum_ for sum_ in sums.values() if sum_), None)
        remark = "size checked, content not" if any(bytes_.values()) else "placed by hand, its content is not checked"
        return ResourceState("there", path, size, known, remark)
    found = sha256(path)
    for source, wanted in sums.items():
        if wanted is not None and wanted != found:
            return ResourceState(
                "damaged", path, size, found, f"its SHA-256 is {found[:12]}…, {wanted[:12]}… is {source}"
            )
    remark = "checksum agrees" if any(sums.values()) else "no checksum is published or recorded to compare with"
    return ResourceState("there", path, size, found, remark)


def _look_at_model(resource: Resource, place: Path) -> ResourceState:
    missing = [name for name in resource.files if not (place / name).is_file()]
    weights = [name for name in resource.weights if (place / name).is_file()]
    missing += [] if weights else [" or ".join(resource.weights)]
    size = sum(path.stat().st_size for path in place.glob("*") if path.is_file())
    if not size:
        return _in_the_hubs_cache(resource) or ResourceState("missing", place)
    if missing:
        return ResourceState("partly", place, size, remark=f"without {', '.join(missing)}")
    empty = [name for name in (*resource.files, *weights) if not (place / name).stat().st_size]
    if empty:
        return ResourceState("damaged", place, size, remark=f"{empty[0]} is empty")
    return ResourceState("there", place, size, remark=f"weights in {weights[0]}")


def _in_the_hubs_cache(resource: Resource) -> ResourceState | None:
    """Check the hub's cache for the model, as other programs have fetched it before."""
    from huggingface_hub import try_to_load_from_cache  # here, since it takes long to import

    there = {name: try_to_load_from_cache(resource.hub or "", name) for name in (*resource.files, *resource.weights)}
    paths = {name: Path(path) for name, path in there.items() if isinstance(path, str) and Path(path).is_file()}
    weights = [name for name in resource.weights if name in paths]
    if not weights or not paths.keys() >= {*resource.files}:
        return None
    size = sum(paths[name].stat().st_size for name in (*resource.files, weights[0]))
    return ResourceState(
        "there", paths[weights[0]].parent, size, remark=f"weights in {weights[0]}, in the hub's own cache"
    )


def seal(path: Path) -> Path:
    """Return the path of a file's seal."""
    return path.with_name(path.name + SEAL)


def read_seal(path: Path) -> dict:
    """Read the size and SHA-256 that a file had when it was fetched.

    {} if it was placed by hand or its seal cannot be read.
    """
    try:
        said = json.loads(seal(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(said, dict) and isinstance(said.get("bytes"), int) and isinstance(said.get("sha256"), str)
    return said if whole else {}


def amount(bytes_: float) -> str:
    """Format a number of bytes for a reader, in the units of discs: 64.6 GB is 64,600,000,000 bytes."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes_ >= 0.95 * size:
            return f"{bytes_ / size:.1f} {unit}"
    return f"{bytes_:.0f} bytes"
