"""The cache of steps: each result computed once and kept in a folder of plain files.

    <root>/pretrain-v2-3f6c0d9a51b7e824/    name, version, first 16 digits of the key
        model.safetensors, vocab.txt, …     whatever the step saved (never a pickle)
        meta.json                           arguments, libraries, size and SHA-256 of each file; written last

An artifact is made in `<root>/.tmp-…`, synced and renamed, so that it is there whole or not at all. The key covers the
step's name and version, all its arguments (an upstream artifact through its `digest`), the versions of `LIBRARIES` and
of those that the step names, and the kind of device unless it is the CPU. It does not cover the step's code: whoever
changes what a step computes raises its `version`, over which `book.guard` watches. Checksums are verified at every
read. One file lock a key keeps two runs from making the same thing twice; the system frees it when its owner dies.

Some artifacts that take long come with the package, in `shipped/` (its README says how they were made): they are read
there, with the same checks, unless `$DPRLENS_FROM_NOTHING` is set.
"""

import contextlib
import dataclasses
import errno
import fcntl
import functools
import hashlib
import importlib.metadata
import inspect
import json
import math
import os
import shutil
import time
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import numpy as np
import pandas as pd

from dprlens.cache.events import _notice, emit
from dprlens.cache.parallel import refuse_to_make, threads

P = ParamSpec("P")
R = TypeVar("R")

PACKAGED = Path(__file__).parents[1] / "shipped"  # artifacts that come with the package
LIBRARIES = ("torch", "transformers", "numpy")  # their versions are part of every key
# metadata of a dataclass's field that came when there were artifacts already: at its default, which is what they were
# made with, it is no part of a key, so that they stay valid
LATER = types.MappingProxyType({"later": True})
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CacheError(OSError):
    """The cache folder cannot be used: not writable, or no room left."""


class Artifact(NamedTuple):
    """What the cache returns for a step: the folder of its result and its metadata."""

    folder: Path
    meta: dict  # name, version, arguments, libraries, files, seconds, made
    fresh: bool  # made by this call; False: it came from the cache


class Basis(NamedTuple):
    """What the result of a step depends on besides its arguments: further libraries, and the kind of device."""

    libraries: tuple[str, ...] = ()
    device: str = "cpu"  # "cuda" is part of the key; the CPU is not, so that keys are what they were without it


ALONE = Basis()


class Cache:
    """Artifacts in folders below `root`, which is made when first needed.

    `notice` is called with reports of damage and of waiting. An artifact in `shipped`, a read-only folder of the same
    layout, need not be made on any kind of device: it was made on a CPU.
    """

    def __init__(self, root: Path, notice: Callable[[str], None] | None = None, shipped: Path | None = None):
        self.root = Path(root)
        self.notice = notice or _notice
        self.shipped = shipped

    def get(
        self, name: str, version: int, arguments: Mapping, make: Callable[[Path], None], basis: Basis = ALONE
    ) -> Artifact:
        """Return the artifact of this name, version and arguments; if it is not whole, `make(folder)` fills it.

        Raises TypeError for an argument that has no key (see `canonical`), CacheError if the folder is full or
        not writable, and whatever `make` raises. After any error no half-made artifact is left.
        """
        identity, folder = self._place(name, version, arguments, basis)
        with self._usable():
            meta, _ = _verify(folder, identity)
        if meta is None and self.shipped is not None:
            shipped, meta, damage = self._verify_shipped(self.shipped, name, version, arguments, basis)
            if meta is not None:
                emit("step", name=name, state="shipped", seconds=0.0)
                return Artifact(shipped, meta, fresh=False)
            refuse_to_make(name)
            if damage:
                self.notice(f"{name}: of what came with the package, {damage}; making it")
        if meta is None:
            refuse_to_make(name)
            with self._locked(folder.name, name):
                meta, damage = _verify(folder, identity)  # another run may have made it while this one waited
                if meta is None:
                    if damage:
                        self.notice(f"{name}: {damage}; making it again")
                    return self._make(folder, identity, make, "remade" if damage else "made")
        emit("step", name=name, state="cached", seconds=0.0)
        return Artifact(folder, meta, fresh=False)

    def look(self, name: str, version: int, arguments: Mapping, basis: Basis = ALONE) -> dict | None:
        """Return the metadata of this artifact if it is there whole, without making anything."""
        identity, folder = self._place(name, version, arguments, basis)
        with self._usable():
            meta, _ = _verify(folder, identity)
        if meta is None and self.shipped is not None:
            _, meta, _ = self._verify_shipped(self.shipped, name, version, arguments, basis)
        return meta

    def _verify_shipped(
        self, shipped: Path, name: str, version: int, arguments: Mapping, basis: Basis
    ) -> tuple[Path, dict | None, str]:
        """Verify the artifact that may have come with the package; return its folder and the findings."""
        identity, folder = self._place(name, version, arguments, basis._replace(device="cpu"))
        return shipped / folder.name, *_verify(shipped / folder.name, identity)

    def _place(self, name: str, version: int, arguments: Mapping, basis: Basis) -> tuple[dict, Path]:
        """Return the identity of an artifact (what its key is made from) and its folder."""
        libraries = sorted({*LIBRARIES, *basis.libraries})
        identity = {
            "name": name,
            "version": version,
            "arguments": canonical(dict(arguments)),
            "libraries": {library: importlib.metadata.version(library) for library in libraries},
        }
        if basis.device != "cpu":
            identity["device"] = basis.device
        return identity, self.root / f"{name}-v{version}-{digest(identity)[:16]}"

    def _make(self, folder: Path, identity: dict, make: Callable[[Path], None], state: str) -> Artifact:
        """Make the artifact in a draft folder and rename it to its own; after any error no draft is left."""
        name, began = identity["name"], time.monotonic()
        draft = self.root / f".tmp-{folder.name}"
        emit("step", name=name, state="start", seconds=0.0)
        try:
            with self._usable():
                shutil.rmtree(draft, ignore_errors=True)  # a dead run's, since the lock is ours
                draft.mkdir()
            try:
                make(draft)
                paths = sorted(path for path in draft.rglob("*") if path.is_file())
                files = {path.relative_to(draft).as_posix(): seal(path) for path in paths}
                seconds = round(time.monotonic() - began, 3)
                made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                meta = {**identity, "files": files, "seconds": seconds, "made": made}
                write_json(draft / "meta.json", meta)
            except Exception as error:
                if not _is_disk_full(error):
                    raise
                written = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
                raise CacheError(
                    f"the cache folder {self.root} has no room left for {name!r}, which needs more than the"
                    f" {written:,} bytes it could write: free some space or set DPRLENS_CACHE to another disk"
                ) from error
            with self._usable():
                for path in [*draft.rglob("*"), draft]:
                    sync(path)
                if folder.exists():  # the damaged one
                    shutil.rmtree(folder)
                os.rename(draft, folder)
                sync(self.root)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        emit("step", name=name, state=state, seconds=seconds)
        return Artifact(folder, meta, fresh=True)

    @contextlib.contextmanager
    def _locked(self, key: str, name: str) -> Iterator[None]:
        """Hold the lock of `key`, waiting for it if necessary, and remove the drafts of dead runs."""
        locks = self.root / ".locks"
        with self._usable():
            locks.mkdir(parents=True, exist_ok=True)
            file = (locks / key).open("a")
        with file:
            if not _try_lock(file):
                self.notice(f"{name}: another run is making it; waiting")
                fcntl.flock(file, fcntl.LOCK_EX)
            for draft in self.root.glob(".tmp-*"):
                with self._usable(), (locks / draft.name.removeprefix(".tmp-")).open("a") as other:
                    if _try_lock(other):  # its maker is dead
                        shutil.rmtree(draft, ignore_errors=True)
            yield

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """Turn an OSError in the cache folder into a `CacheError`."""
        try:
            yield
        except OSError as error:
            raise CacheError(
                f"the cache folder {self.root} cannot be used ({error.strerror}): make it writable, with room on"
                " its disk, or set DPRLENS_CACHE to another folder"
            ) from error


def _verify(folder: Path, identity: dict) -> tuple[dict | None, str]:
    """Return the metadata of a whole artifact, or None and what is wrong with it ("" if it was never made)."""
    if not folder.exists():
        return None, ""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if {field: meta[field] for field in identity} != identity:
            return None, "meta.json is damaged (it describes another artifact)"
        for relative, expected in meta["files"].items():
            path = folder / relative
            found = seal(path) if path.is_file() else {"bytes": "no file", "sha256": "no file"}
            for what in ("bytes", "sha256"):
                wanted, got = str(expected[what]), str(found[what])
                if wanted != got:
                    return None, f"{relative} is damaged (expected {what} {wanted[:12]}, found {got[:12]})"
    except FileNotFoundError:
        return None, "meta.json is missing"
    except (ValueError, KeyError, TypeError, AttributeError):  # whatever a damaged JSON file can lead to
        return None, "meta.json is damaged (expected a JSON record)"
    return meta, ""


def sha256(path: Path) -> str:
    """Compute the SHA-256 checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: Path) -> dict:
    """Return the size in bytes and the SHA-256 of a file, which show whether it is still as it was written."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def sync(path: Path) -> None:
    """Wait until the content of a file, or the list of files in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(file: typing.TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_disk_full(error: Exception) -> bool:
    # by its words, since safetensors writes outside Python and raises the system's words without an errno
    return any(os.strerror(code) in str(error) for code in _DISK_FULL)


def canonical(value: object) -> object:
    """Convert `value` to plain JSON that is the same for equal values in every run, for digests and keys.

    None, bool, int, float, str, tuples, lists and dicts with str keys become themselves, an object with a str `digest`
    that digest, a dataclass or NamedTuple its type's name and fields. Fields that are `LATER` are left out at their
    default. Raises TypeError for anything else, ValueError for a float that is not finite.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be an argument of a cached step: give a finite number or None")
        return value
    if isinstance(own := getattr(value, "digest", None), str):
        return {"digest": own}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        in_key = {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value) if _in_key(field, value)
        }
        return {"type": type(value).__name__, **_each_canonical(in_key)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {"type": type(value).__name__, **_each_canonical(value._asdict())}
    if isinstance(value, tuple | list):
        return [canonical(item) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return _each_canonical(value)
    raise TypeError(
        f"a {type(value).__name__} cannot be an argument of a cached step: give None, bool, int, float, str,"
        " a tuple, list or str-keyed dict of them, a dataclass, a NamedTuple, or an object with a `digest`"
    )


def _each_canonical(values: Mapping[str, object]) -> dict[str, object]:
    return {name: canonical(value) for name, value in values.items()}


def _in_key(field: dataclasses.Field, value: object) -> bool:
    """Test whether this field of a dataclass is part of its key."""
    return not field.metadata.get("later") or getattr(value, field.name) != field.default


def digest(value: object) -> str:
    """Compute the SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(canonical(value), sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON with sorted keys, completely or, after any error, not at all; make the folder if necessary."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def folder_for(variable: str, *default: str) -> Path:
    """Return the folder that an environment variable names, else `default` in the repository or current folder."""
    if chosen := os.environ.get(variable):
        return Path(chosen).absolute()
    repository = Path(__file__).parents[3]
    return (repository if (repository / "notebooks").is_dir() else Path.cwd()).joinpath(*default)


def default_root() -> Path:
    """Return `$DPRLENS_CACHE`, else `artifacts/` in the repository, or in the current folder if there is none."""
    return folder_for("DPRLENS_CACHE", "artifacts")


def shipped_root() -> Path | None:
    """Return the folder of the artifacts that came with the package; None if `$DPRLENS_FROM_NOTHING` is set."""
    return None if os.environ.get("DPRLENS_FROM_NOTHING") else PACKAGED


def default_cache() -> Cache:
    """Return the cache of the steps, with `default_root` and `shipped_root`."""
    return Cache(default_root(), shipped=shipped_root())


def device() -> str:
    """Return the kind of device on which networks are computed: "cuda" where there is one, else "cpu"."""
    import torch  # here, so that code without a network does not import it

    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclasses.dataclass(frozen=True)
class Task:
    """Base of frozen dataclasses that group arguments of steps.

    A step's key holds their fields as if each were an argument of its own, so that tasks can be formed without making
    anything anew.
    """


def spread(arguments: Mapping[str, object]) -> dict[str, object]:
    """Flatten arguments by name, those of a `Task` one by one.

    Raises TypeError if two have the same name.
    """
    found: dict[str, object] = {}
    for name, value in arguments.items():
        own = spread(vars_of(value)) if isinstance(value, Task) else {name: value}
        if twice := found.keys() & own.keys():
            raise TypeError(f"the argument {min(twice)!r} is given twice, by name and in a task; rename one of them")
        found |= own
    return found


def vars_of(task: Task) -> dict[str, object]:
    """Return the fields of a task by name."""
    return {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}


class Step(Generic[P, R]):
    """A function whose results are cached, made by `step`."""

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], version: int, libraries: tuple[str, ...], options: "Options") -> None:
        functools.update_wrapper(self, function)  # pickled, it is a name in its module, as the function would be
        self.function, self.version, self.libraries, self.options = function, version, libraries, options
        self.signature = inspect.signature(function)

    def __reduce__(self) -> str:
        return self.function.__qualname__

    @property
    def on_device(self) -> bool:
        """Whether the key holds the kind of device."""
        return self.options.on_device

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the function's result, computed at most once and read back from the cache."""
        save, load = _storage(typing.get_type_hints(self.function).get("return"), self.__name__)
        unfinished = default_root() / ".unfinished"

        def make(folder: Path) -> None:
            own = {"checkpoint": unfinished / folder.name.removeprefix(".tmp-")}
            limited = contextlib.nullcontext() if self.options.threads is None else threads(self.options.threads)
            call: Callable[..., R] = functools.partial(self.function, *args, **kwargs)
            with limited:
                made = call(**own) if "checkpoint" in self.signature.parameters else call()
            save(made, folder)

        artifact = default_cache().get(
            self.__name__, self.version, self.arguments(*args, **kwargs), make, self._basis()
        )
        shutil.rmtree(unfinished / artifact.folder.name, ignore_errors=True)
        return load(artifact.folder)

    def record(self, *args: P.args, **kwargs: P.kwargs) -> dict | None:
        """Return the metadata of the artifact, such as the seconds that it took; None if it is not there."""
        return default_cache().look(self.__name__, self.version, self.arguments(*args, **kwargs), self._basis())

    def arguments(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, object]:
        """Bind the arguments as the key holds them: by name, defaults included, tasks spread."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return spread({name: value for name, value in bound.arguments.items() if name != "checkpoint"})

    def _basis(self) -> Basis:
        return Basis(self.libraries, device() if self.on_device else "cpu")


class Options(NamedTuple):
    """How a step is computed."""

    on_device: bool  # False: it has no network, and its result is the same on every kind of device
    threads: int | None  # None: as many as the caller has


def step(
    version: int, libraries: Sequence[str] = (), on_device: bool = True, threads: int | None = None
) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Decorate `f(…) -> T`, to be computed once per name, version and bound arguments, defaults included.

    `libraries` are those, besides `LIBRARIES`, whose versions may change the result; `on_device` is False for a step
    without a network, whose result is the same on every kind of device; with `threads` it computes with so many.

    T is dict (kept as JSON), numpy.ndarray, dict[str, numpy.ndarray] or a NamedTuple of them (.npy), pandas.DataFrame
    (JSON with its types), or has `save(self, folder)` and a class method `load(folder)`. What the call returns was read
    back from the disk, the first time too, so that no run sees a value that a later one would not.

    A function with a parameter `checkpoint: Path | None = None` is given a folder of its own, which outlives a killed
    run, to go on from; it is no part of the key and is removed when the step is done. Inside `parallel.only_cached`
    nothing is made: a result that is not there is `parallel.Missing`.
    """
    return lambda function: Step(function, version, tuple(libraries), Options(on_device, threads))


def _storage(kind: Any, name: str) -> tuple[Callable, Callable]:
    """Choose how a result of this type is saved in a folder and loaded from it."""
    if hasattr(kind, "save") and hasattr(kind, "load"):
        return kind.save, kind.load
    if kind is dict or typing.get_origin(kind) is dict:
        if typing.get_args(kind)[1:] == (np.ndarray,):
            return _save_arrays, _load_arrays
        return lambda value, to: write_json(to / "value.json", value), lambda at: json.loads(_text(at))
    if isinstance(kind, type) and {*getattr(kind, "__annotations__", {}).values()} == {np.ndarray}:
        return lambda value, to: _save_arrays(value._asdict(), to), lambda at: kind(**_load_arrays(at))
    if kind is np.ndarray:
        return lambda value, to: _save_arrays({"value": value}, to), lambda at: _load_arrays(at)["value"]
    if kind is pd.DataFrame:
        return _save_frame, _load_frame
    raise TypeError(
        f"the step {name!r} is annotated to return {kind!r}: annotate dict, numpy.ndarray,"
        " dict[str, numpy.ndarray], pandas.DataFrame, or a type with `save(self, folder)` and a class method"
        " `load(folder)`"
    )


def _text(folder: Path) -> str:
    return (folder / "value.json").read_text(encoding="utf-8")


def _save_arrays(arrays: Mapping[str, np.ndarray], folder: Path) -> None:
    for name, array in arrays.items():
        with (folder / f"{name}.npy").open("wb") as file:
            # given only `write`, numpy writes through it and a full disk is an OSError with its errno
            np.save(types.SimpleNamespace(write=file.write), array, allow_pickle=False)


def _load_arrays(folder: Path) -> dict[str, np.ndarray]:
    return {path.name[:-4]: np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))}


def _save_frame(frame: pd.DataFrame, folder: Path) -> None:
    columns = [(str(name), str(column.dtype), column.tolist()) for name, column in frame.items()]
    missing_as_none = [(name, kind, [None if x != x else x for x in values]) for name, kind, values in columns]
    write_json(folder / "value.json", missing_as_none)
    if not _load_frame(folder).equals(frame):
        raise TypeError(
            "this data frame would not come back from the cache as it was: give it a plain index from 0 and"
            " columns of int, float, bool or str under names of their own"
        )


def _load_frame(folder: Path) -> pd.DataFrame:
    return pd.DataFrame({n: pd.Series(values, dtype=kind) for n, kind, values in json.loads(_text(folder))})
