"""Fetching the real setting's files, only when asked: `python -m dprlens fetch`.

Plain HTTPS through Python's own urllib, models through the Hugging Face hub's library. A download goes to `<name>.part`
and can be cut off at any byte: the next attempt, or the next run, asks for the rest, provided that the server still has
the same file. It is renamed when its length, and its checksum where one is published, are right; the SHA-256 is then
recorded beside it, so that later damage is seen.
"""

import argparse
import contextlib
import email.utils
import errno
import fcntl
import http.client
import importlib
import json
import os
import re
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, BinaryIO, NamedTuple

from dprlens.cache.artifacts import write_json
from dprlens.ranges import COUNT, NOT_NEGATIVE, POSITIVE, check
from dprlens.world.natural.resources import (
    GZIP,
    PART,
    Resource,
    ResourceState,
    amount,
    data_folder,
    look,
    resources,
    seal,
    sha256,
)

BLOCK = 1 << 20  # bytes that are read at once
BUSY = (408, 429, 500, 502, 503, 504)  # answers after which it is worth trying again
LOCAL = ("localhost", "127.0.0.1", "::1")
EXTRAS = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json")  # of a model, where the hub has them


class FetchError(OSError):
    """A file could not be fetched; one sentence says why, and what to do."""


@dataclass(frozen=True)
class FetchSpec:
    """How patient a download is."""

    attempts: int = 6  # in a row without a byte of progress
    first_delay: float = 1.0  # seconds before the second attempt; doubled for each further one
    most_delay: float = 120.0  # seconds; also where a server asks for more
    timeout: float = 60.0  # seconds of silence

    def __post_init__(self) -> None:
        check(self, COUNT, "attempts")
        check(self, NOT_NEGATIVE, "first_delay", "most_delay")
        check(self, POSITIVE, "timeout")


class Fetched(NamedTuple):
    """One resource that is now in the data folder."""

    name: str
    path: Path
    bytes: int
    fresh: bool  # False: it was there before
    remark: str  # how it was checked


def fetch(
    chosen: Sequence[Resource],
    folder: Path,
    base: str | None = None,
    spec: FetchSpec | None = None,
    *,
    hub: ModuleType | None = None,
    sleep: Callable[[float], None] = time.sleep,
    notice: Callable[[str], None] = lambda _: None,
) -> list[Fetched]:
    """Brings these resources into the folder; what is there and not damaged stays as it is.

    `base` is another server's address with the same paths below it (default: DPR's own), `available` another list of
    resources; `hub` stands in for the hub's library; `notice` is told what goes on, line by line.

    Raises ValueError for an unknown name or a base that is not HTTPS, FetchError, in one sentence, for everything that
    keeps a file from coming; what was fetched until then is kept.
    """
    spec, folder, base = spec or FetchSpec(), Path(folder), base or resources().base
    _check_address(base)
    done = []
    for i, resource in enumerate(chosen):
        found = look(resource, folder)
        if found.state == "damaged":
            raise FetchError(f"{found.path} is damaged ({found.remark}); remove it and fetch again")
        if found.state == "there":
            notice(f"{resource.name}: there already ({found.remark})")
            done.append(Fetched(resource.name, found.path, found.bytes, False, found.remark))
            continue
        notice(f"{resource.name}: {resource.size}, to {folder / resource.place}")
        try:
            if resource.is_model:
                one = _fetch_model(resource, folder, hub)
            else:
                one = _Download(resource, folder, base, spec, sleep, notice).run()
        except _Unreachable as error:
            left = ", ".join(other.place for other in chosen[i:] if look(other, folder).state != "there")
            raise FetchError(f"{error}; get online, or place these yourself in {folder}: {left}") from error
        done.append(one)
        notice(f"{resource.name}: {amount(one.bytes)}, {one.remark}")
    return done


def _check_address(base: str) -> None:
    parts = urllib.parse.urlsplit(base)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL)):
        raise ValueError(f"base = {base!r} is no address to fetch from; give one that begins with https://")


class _Unreachable(Exception):
    """No answer from the server, as when there is no network."""


class _Again(Exception):
    """Worth another attempt, after so many seconds if the server said so."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows an address to another one, but from https only to https."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise FetchError(f"{req.full_url} leads to {newurl}, which is not HTTPS; fetch the file yourself")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Offer(NamedTuple):
    """What a server's answer says about the file."""

    start: int  # the first byte that it sends
    total: int | None  # bytes of the whole file; None: the server does not say, but marks the end
    version: str | None  # by which the server can tell the file from a later one of the same name


class _Download:
    """One file: attempts until it is whole."""

    def __init__(
        self,
        resource: Resource,
        folder: Path,
        base: str,
        spec: FetchSpec,
        sleep: Callable[[float], None],
        notice: Callable[[str], None],
    ) -> None:
        self.resource, self.spec, self.sleep, self.notice = resource, spec, sleep, notice
        self.address = urllib.parse.urljoin(base.rstrip("/") + "/", urllib.parse.quote(resource.path or ""))
        self.path = folder / resource.place
        self.part = self.path.with_name(self.path.name + PART)
        self.about = self.path.with_name(f"{self.path.name}{PART}.json")  # version and length of what the part is of
        self.came = False  # did anything come in this run
        self.opener = urllib.request.build_opener(_NoDowngrade)

    def run(self) -> Fetched:
        with self._full_disk(), _locked_part(self.part) as part:
            if self.path.exists():  # another run fetched it while this one looked elsewhere
                self.part.unlink(missing_ok=True)
                return Fetched(self.resource.name, self.path, self.path.stat().st_size, False, "fetched by another run")
            self._receive(part)
            part.flush()
            os.fsync(part.fileno())
            return self._finish(part)

    def _receive(self, part: BinaryIO) -> None:
        """Asks until the part is whole; gives up after some attempts in a row that brought nothing."""
        failed = 0
        while True:
            before = part.seek(0, os.SEEK_END)
            try:
                self._attempt(part, before)
                return
            except _Again as again:
                failed = 0 if part.seek(0, os.SEEK_END) > before else failed
                if (failed := failed + 1) >= self.spec.attempts:
                    raise _Unreachable(f"{self.address} cannot be fetched after {failed} attempts ({again})") from again
                delay = self.spec.first_delay * 2 ** (failed - 1) if again.after is None else again.after
                delay = min(delay, self.spec.most_delay)
                self.notice(f"{self.resource.name}: {again}; trying again in {delay:.0f} s")
                self.sleep(delay)

    def _attempt(self, part: BinaryIO, have: int) -> None:
        known = self._known(have)
        headers = {"Accept-Encoding": "identity", "User-Agent": "dprlens"}
        if known:
            headers |= {"Range": f"bytes={have}-", "If-Range": known["version"]}
        try:
            answer = self.opener.open(urllib.request.Request(self.address, headers=headers), timeout=self.spec.timeout)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, part)
                return
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            if not self.came and _no_way_there(reason):
                raise _Unreachable(f"{self.address} cannot be reached ({_words(reason)})") from error
            raise _Again(f"no answer: {_words(reason)}") from error
        with answer:
            offer = self._offer(answer, have if known else 0, known)
            self._copy(answer, part, offer)

    def _known(self, have: int) -> dict | None:
        """What the first answer said of the file of which `have` bytes are there; None: begin again."""
        if not have:
            return None
        try:
            known = json.loads(self.about.read_text(encoding="utf-8"))
            same = known["address"] == self.address and isinstance(known["version"], str)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return known if same else None

    def _refused(self, error: urllib.error.HTTPError, part: BinaryIO) -> None:
        """An answer that is an error: go on later, begin again, or give up."""
        if error.code in BUSY:
            raise _Again(f"the answer is {error.code} {error.reason}", _retry_after(error.headers.get("Retry-After")))
        if error.code == 416:  # nothing after the last byte that we have: the part is whole, or of something else
            total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range") or "")
            if total and int(total[1]) == part.seek(0, os.SEEK_END):
                return
            part.truncate(0)
            raise _Again("the server has not the rest of this part")
        raise FetchError(
            f"{self.address} answers {error.code} {error.reason}; place the file yourself as {self.path}, or give"
            " another base"
        )

    def _offer(self, answer: http.client.HTTPResponse, have: int, known: dict | None) -> _Offer:
        """Checks that an answer is the file that is wanted, or the rest of it."""
        length = answer.headers.get("Content-Length")
        chunked = answer.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if length is None and not chunked:
            raise FetchError(
                f"{self.address} comes without its length, so that a cut would not be seen; place the file yourself as"
                f" {self.path}"
            )
        start, total = 0, None if length is None else int(length)
        if answer.status == 206:
            said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range") or "")
            if not known or not said or int(said[1]) != have:
                raise FetchError(f"{self.address} answers with a part that was not asked for; remove {self.part}")
            start, total = have, int(said[3])
        etag, modified = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
        # a weak one says that two files are alike, not that they are equal
        version = modified if etag is None or etag.startswith("W/") else etag
        same = known is not None and version == known["version"] and known["bytes"] in (None, total)
        if start and not same:  # some servers do not heed If-Range
            self.about.unlink()
            raise _Again("the server has another file by now")
        if self.resource.bytes not in (None, total) and total is not None:
            raise FetchError(
                f"{self.address} has {total:,} bytes where {self.resource.bytes:,} are published; give another base, or"
                f" place the file yourself as {self.path}"
            )
        return _Offer(start, total, version)

    def _copy(self, answer: http.client.HTTPResponse, part: BinaryIO, offer: _Offer) -> None:
        """Writes what comes behind what is there."""
        if offer.start == 0:
            part.truncate(0)
            about = {"address": self.address, "version": offer.version, "bytes": offer.total}
            write_json(self.about, about)
        if offer.total is not None:
            self._check_room(offer.total - offer.start)
        at, told = offer.start, time.monotonic()
        try:
            while block := answer.read1(BLOCK):  # `read` would drop what came of a chunk that is cut
                part.write(block)
                self.came = True
                at += len(block)
                if time.monotonic() - told > 5:
                    told = time.monotonic()
                    self.notice(f"{self.resource.name}: {amount(at)} of {amount(offer.total or at)}")
        except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
            part.flush()
            raise _Again(f"the connection was cut: {_words(error)}") from error
        part.flush()
        if offer.total is not None and at < offer.total:  # with some lengths a read comes back short without an error
            raise _Again(f"the connection was cut after {at:,} of {offer.total:,} bytes")

    def _check_room(self, missing: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if missing > free:
            raise FetchError(
                f"{self.resource.name} takes another {amount(missing)} and {self.part.parent} has {amount(free)} left;"
                " free some space or choose another data folder"
            )

    def _finish(self, part: BinaryIO) -> Fetched:
        """Checks the whole part and gives it its name; a wrong one is removed."""
        size, sum_, published = self.part.stat().st_size, sha256(self.part), self.resource.sha256
        with self.part.open("rb") as file:
            begins = file.read(len(GZIP))
        wrong = None
        if self.resource.bytes not in (None, size):
            wrong = f"has {size:,} bytes where {self.resource.bytes:,} are published"
        elif published not in (None, sum_):
            wrong = f"has SHA-256 {sum_[:12]}… where {published[:12]}… is published"
        elif self.path.suffix == ".gz" and begins != GZIP:
            wrong = "is no gzip file, but perhaps a page with a message"
        if wrong:
            part.truncate(0)
            self.part.unlink()
            self.about.unlink(missing_ok=True)
            raise FetchError(f"what came from {self.address} {wrong}; it was removed, fetch again or give another base")
        # the seal first: a seal without its file is nothing, a file without its seal would count as placed by hand
        write_json(seal(self.path), {"bytes": size, "sha256": sum_, "source": self.address})
        os.replace(self.part, self.path)
        self.about.unlink(missing_ok=True)
        remark = "checksum as published" if published else "length as the server said, SHA-256 recorded"
        return Fetched(self.resource.name, self.path, size, True, remark)

    @contextlib.contextmanager
    def _full_disk(self) -> Iterator[None]:
        try:
            self.part.parent.mkdir(parents=True, exist_ok=True)
            yield
        except FetchError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise FetchError(
                    f"{self.part.parent} is full; free some space and fetch again, which goes on where it stopped"
                ) from error
            if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
                raise FetchError(
                    f"{self.part.parent} cannot be written to ({error.strerror}); choose another data folder"
                ) from error
            raise


@contextlib.contextmanager
def _locked_part(part: Path) -> Iterator[BinaryIO]:
    """The part, open for appending and ours alone; the system frees it when its owner dies."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FetchError(f"another run is fetching {part.name.removesuffix(PART)}; wait for it") from error
        yield file


def _retry_after(said: str | None) -> float | None:
    """Seconds that a server asks to wait for: a number, or the date to wait for."""
    if said is None:
        return None
    if re.fullmatch(r"\d{1,9}", said.strip()):
        return float(said)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _no_way_there(reason: object) -> bool:
    """True where waiting does not help: no network, no such server, nobody listening, a certificate that is wrong."""
    if isinstance(reason, socket.gaierror | ConnectionRefusedError | ssl.SSLCertVerificationError):
        return True
    return getattr(reason, "errno", None) in (errno.ENETUNREACH, errno.EHOSTUNREACH)


def _words(error: object) -> str:
    """The first sentence of an error's message, in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return re.split(r"(?<=[.!?]) ", " ".join(text.split()))[0].rstrip(".")[:120]


def _fetch_model(resource: Resource, folder: Path, hub: ModuleType | None) -> Fetched:
    """The model's files through the hub's library, which goes on with unfinished ones by itself."""
    hub, place = hub or importlib.import_module("huggingface_hub"), folder / resource.place
    try:
        there = hub.list_repo_files(resource.hub)
        weights = [name for name in resource.weights if name in there][:1]
        if missing := [name for name in resource.files if name not in there]:
            raise FetchError(f"{resource.hub} has no {missing[0]} on the hub; place its files yourself in {place}")
        if not weights:
            either = " or ".join(resource.weights)
            raise FetchError(f"{resource.hub} has no {either} on the hub; place its files yourself in {place}")
        for name in (*resource.files, *(extra for extra in EXTRAS if extra in there), *weights):
            hub.hf_hub_download(resource.hub, name, local_dir=place)
    except FetchError:
        raise
    except Exception as error:  # the library has errors of its own and of several libraries below it
        raise _Unreachable(f"the hub does not give {resource.hub} ({type(error).__name__}: {_words(error)})") from error
    found = look(resource, folder)
    if found.state != "there":
        raise FetchError(f"{place} is not whole after fetching ({found.remark}); remove it and fetch again")
    return Fetched(resource.name, place, found.bytes, True, found.remark)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m dprlens fetch`."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch (default: all that the profile needs)")
    parser.add_argument("--profile", default="paper", help="whose files, where no name is given (default: paper)")
    parser.add_argument("--data", type=Path, help="the data folder (default: $DPRLENS_DATA, else data)")
    parser.add_argument("--base", help="another address with the same files below it")
    parser.add_argument("--list", action="store_true", help="only list what there is, and fetch nothing")


def main(options: argparse.Namespace) -> int:
    """Fetches, and says what it does: 0 if everything is there now, 1 if something could not be fetched."""
    folder = options.data or data_folder()
    if options.list:
        print(list_resources(folder))
        return 0
    chosen = resources().named(options.names) if options.names else resources().needed(options.profile)
    if not chosen:
        print(f"profile {options.profile} needs no files")
    try:
        fetch(chosen, folder, options.base, notice=lambda line: print(line, flush=True))
    except FetchError as error:
        print(f"dprlens: {error}", file=sys.stderr)
        return 1
    return 0


def list_resources(folder: Path) -> str:
    """Every resource with what it is for, its size, and what of it is there."""
    lines = []
    for resource in resources().all.values():
        found: ResourceState = look(resource, folder)
        needed = f"needed for {', '.join(resource.profiles)}" if resource.profiles else "optional"
        rows = f"{resource.rows:,} rows, " if resource.rows else ""
        lines.append(f"{resource.name}: {found.state}; {resource.why} ({rows}{resource.size}, {needed})")
    return "\n".join([*lines, f"licence: {resources().licence}"])
