"""The whole book of a profile: what is stale is run, two notebooks at a time, and shown while it runs; then rendered.

A notebook is up to date if its source, its values, the library, constraints.txt, its executed copy, its results and, in
the real setting, the data folder are what they were after its last run (`_build/<profile>/stamps`).
"""

import concurrent.futures
import contextlib
import fcntl
import graphlib
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from dprlens.book._results import compare_results
from dprlens.book.execution import CELL_SECONDS, OTHER_CELL_SECONDS, RunFailed, execute, kill
from dprlens.book.notebooks import Notebook, check, check_profile, discover, parse
from dprlens.book.render import render, tree_digest
from dprlens.cache.artifacts import digest, folder_for, shipped_root, write_json

AT_ONCE = 2  # notebooks
SHOWN_DIFFERENCES = 12
REAL = "paper"  # the profile that reads files which a reader places


class Job(NamedTuple):
    """One notebook to be run: its values, and where its output, results and events go."""

    notebook: Notebook
    values: dict  # checked; always with a profile
    out: Path  # the executed notebook
    results: Path  # the folder that the kernel writes <profile>/<notebook>.json to
    root: Path

    @property
    def results_file(self) -> Path:
        """The JSON file of the notebook's numbers."""
        return self.results / self.values["profile"] / f"{self.notebook.name}.json"

    @property
    def events(self) -> Path:
        """Where the kernel tells what it does."""
        return self.out.with_suffix(".events")


@dataclass
class Watch:
    """What is known of a running job."""

    job: Job
    began: float
    read: int = 0  # bytes of its events
    doing: str = "running"
    steps: dict[str, dict] = field(default_factory=dict)  # step -> its last event
    siblings: list[str] = field(default_factory=list)  # steps whose networks are not those on record


def book(root: Path, profile: str) -> None:
    """Run what is stale in `profile`, render, and print where to open the book.

    Raises Mistake (unknown profile, broken notebook), RunFailed or RenderFailed; what was finished before is kept.
    """
    check_profile(profile)
    build = root / "_build" / profile
    notebooks = discover(root / "notebooks")
    with _alone(build / ".lock"):
        # pages show the numbers on record for `full` beside their own; to `full` itself they are output
        records = [root / "results" / "full"] if profile != "full" else []
        inputs = tree_digest([root / "lib" / "dprlens", root / "constraints.txt", *records], root) + _placed(profile)
        inputs += "" if shipped_root() else " from nothing"
        stale, made_from = {}, {}
        for notebook in notebooks:
            values = check(notebook, {"profile": profile})
            job = Job(notebook, values, build / "notebooks" / notebook.path.name, root / "results", root)
            made_from[notebook.name] = digest([_seal(notebook.path), values, inputs])
            stamp = build / "stamps" / f"{notebook.name}.json"
            if _record(stamp) == _stamp(job, made_from[notebook.name]):
                print(f"{notebook.name}: up to date", flush=True)
            else:
                stale[notebook.name] = job

        def finish(watch: Watch, seconds: float) -> None:
            name = watch.job.notebook.name
            write_json(build / "stamps" / f"{name}.json", _stamp(watch.job, made_from[name]))
            runs = build / "runs.json"
            record = {
                "seconds": round(seconds, 1),
                "steps": watch.steps,
                "siblings": watch.siblings,
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
            }
            write_json(runs, {**_record(runs), name: record})

        run_jobs(stale, finish)
        began = time.monotonic()
        print("rendering", flush=True)
        fresh = render(root, notebooks, profile)
        print(f"rendered in {time.monotonic() - began:.0f} s" if fresh else "the rendered book is up to date")
    print(f"open file://{build}/html/index.html", flush=True)


def run_one(root: Path, notebook: Notebook, texts: Mapping[str, str], out: Path | None) -> None:
    """Run one notebook with values as typed; its copy and its results go below `_build`, the book stays as it is."""
    defaults = {parameter.name: parameter.default for parameter in notebook.parameters}
    values = check(notebook, {"profile": defaults.get("profile", "small"), **parse(notebook, texts)})
    target = out or root / "_build" / "runs" / f"{notebook.name}-{digest({**defaults, **values})[:8]}.ipynb"
    job = Job(notebook, values, target.absolute(), root / "_build" / "results", root)
    job.results_file.unlink(missing_ok=True)
    run_jobs({notebook.name: job}, lambda *_: None)
    print(f"the notebook is {job.out}")
    if job.results_file.exists():
        print(f"its results are {job.results_file}")


def _placed(profile: str) -> str:
    """What tells the files of the data folder from others, for the profile that reads them: name, size and time."""
    if profile != REAL:
        return ""
    folder = folder_for("DPRLENS_DATA", "data")
    made_here = folder / "stores"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and made_here not in path.parents)
    return digest([(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files])


def _stamp(job: Job, made_from: str) -> dict:
    return {"made_from": made_from, "executed": _seal(job.out), "results": _seal(job.results_file)}


def _record(path: Path) -> dict:
    """A JSON record of an earlier run; empty if there is none that can be read, so that its work is done again."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _seal(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a build folder; a second run waits, then finds its work done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another run is building this profile; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# running


def run_jobs(jobs: Mapping[str, Job], finish: Callable[[Watch, float], None]) -> None:
    """Run the jobs, each after those it depends on, and show what they do; `finish(watch, seconds)` follows each.

    After a failure nothing new is started, and RunFailed is raised with every failure when the others have ended. On
    Ctrl-C all processes are ended at once.
    """
    order = graphlib.TopologicalSorter({name: set(job.notebook.after) & jobs.keys() for name, job in jobs.items()})
    order.prepare()
    began = time.monotonic()
    waiting: list[str] = []
    failures: list[str] = []
    running: dict[concurrent.futures.Future, Watch] = {}
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            while order.is_active():
                waiting += order.get_ready()
                while waiting and len(running) < AT_ONCE and not failures:
                    job = jobs[waiting.pop(0)]
                    running[pool.submit(_run, job)] = Watch(job, time.monotonic())
                    _say(began, f"{job.notebook.name}: started")
                if not running:
                    break
                ended, _ = concurrent.futures.wait(running, 0.2, concurrent.futures.FIRST_COMPLETED)
                for watch in running.values():
                    _follow(watch, began)
                _live(began, running.values())
                for future in ended:
                    watch = running.pop(future)
                    name, seconds = watch.job.notebook.name, time.monotonic() - watch.began
                    watch.job.events.unlink(missing_ok=True)
                    try:
                        results = future.result()
                    except RunFailed as failure:
                        failures.append(str(failure))
                        _say(began, f"{name}: FAILED after {seconds:.0f} s")
                        continue
                    finish(watch, seconds)
                    _say(began, f"{name}: done in {seconds:.0f} s{_summary(watch.steps)}; {results}")
                    order.done(name)
        except BaseException:
            with _undisturbed():
                while not all(future.done() for future in running):
                    kill(psutil.Process().children())
                    time.sleep(0.1)
            raise
    if failures:
        raise RunFailed("\n".join(failures))


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore signals for a while: a second Ctrl-C must not keep alive what the first one is ending."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(job: Job) -> str:
    """Run one job and say what became of its results; after a failure the results are again what they were."""
    job.out.parent.mkdir(parents=True, exist_ok=True)
    job.events.write_text("")
    path, promised = job.results_file, job.notebook.exhibits
    before, written = (path.read_text(), path.stat().st_mtime_ns) if path.exists() else (None, None)

    def notice(text: str) -> None:
        with job.events.open("a") as file:
            file.write(json.dumps({"event": "notice", "text": text}) + "\n")

    environment = {
        "DPRLENS_CACHE": os.path.abspath(os.environ.get("DPRLENS_CACHE") or job.root / "artifacts"),
        "DPRLENS_EVENTS": str(job.events),
        "DPRLENS_RESULTS": str(job.results),
        # one number however many notebooks run at once: sums in another order would differ in their last digits
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(len(os.sched_getaffinity(0))),
    }
    limit = CELL_SECONDS.get(job.values["profile"], OTHER_CELL_SECONDS)
    try:
        execute(job.notebook, job.values, job.out, environment, limit, notice)
        if promised and (not path.exists() or path.stat().st_mtime_ns == written):
            raise RunFailed(
                f"{job.notebook.name} ran, but wrote no results to {path}: it promises {', '.join(promised)}"
            )
        if promised and (missing := set(promised) - json.loads(path.read_text())["exhibits"].keys()):
            raise RunFailed(
                f"{job.notebook.name} ran, but did not report {', '.join(sorted(missing))}: report each exhibit,"
                " or take it out of the notebook's metadata"
            )
    except RunFailed:
        if before is not None:
            path.write_text(before)
        else:
            path.unlink(missing_ok=True)
        raise
    return _compared(before, path)


def _compared(before: str | None, path: Path) -> str:
    if not path.exists():
        return "no results"
    after = path.read_text()
    if before is None:
        return "results are new"
    if before == after:
        return "results same as before, byte for byte"
    differences = compare_results(json.loads(before), json.loads(after))
    if not differences:
        return "results changed, but none by more than noise, and no verdict turned"
    lines = [f"    {difference}" for difference in differences[:SHOWN_DIFFERENCES]]
    more = [f"    … and {len(differences) - SHOWN_DIFFERENCES} more"] if len(differences) > SHOWN_DIFFERENCES else []
    return "\n".join(
        [f"{len(differences)} results MOVED (by more than noise; verdicts that turned first):", *lines, *more]
    )


# showing


def _follow(watch: Watch, began: float) -> None:
    """Read what the kernel told since the last look."""
    name = watch.job.notebook.name
    if not watch.job.events.exists():
        return
    with watch.job.events.open("rb") as file:
        file.seek(watch.read)
        whole, _, _ = file.read().rpartition(b"\n")
    watch.read += len(whole) + bool(whole)
    for event in map(json.loads, whole.splitlines()):
        match event:
            case {"event": "progress", "label": label, "done": done, "total": total}:
                watch.doing = f"{label} {done}/{total}" if total else f"{label} {done}"
            case {"event": "notice", "text": text}:
                _say(began, f"{name}: {text}")
            case {"event": "sibling", "name": step, "text": text} if step not in watch.siblings:
                watch.siblings.append(step)
                _say(began, f"{name}: {text}")
            case {"event": "step", "name": step, "state": "start"}:
                watch.doing = step
                if not sys.stdout.isatty():
                    _say(began, f"{name}: {step} …")
            case {"event": "step", "name": step, "state": state, "seconds": seconds}:
                watch.doing = "running"
                if watch.steps.get(step, {}).get("state") not in ("made", "remade"):
                    watch.steps[step] = {"state": state, "seconds": seconds}
                if state not in ("cached", "shipped"):
                    _say(began, f"{name}: {step} {state} in {seconds:.1f} s")


def _summary(steps: Mapping[str, dict]) -> str:
    words = {"made": "made", "remade": "made", "cached": "from the cache", "shipped": "as shipped"}
    of_a_kind: dict[str, list[str]] = {word: [] for word in words.values()}
    for step, event in steps.items():
        of_a_kind[words[event["state"]]].append(step)
    return "".join(f"; {word} {', '.join(names)}" for word, names in of_a_kind.items() if names)


def _say(began: float, text: str) -> None:
    clear = "\r\x1b[K" if sys.stdout.isatty() else ""
    print(f"{clear}[{time.monotonic() - began:4.0f} s] {text}", flush=True)


def _live(began: float, watches: Iterable[Watch]) -> None:
    """One line at the bottom of a terminal: what each running notebook does."""
    if sys.stdout.isatty():
        now = time.monotonic()
        parts = [f"{watch.job.notebook.name}: {watch.doing}, {now - watch.began:.0f} s" for watch in watches]
        line = f"[{now - began:4.0f} s] {' | '.join(parts)}"
        print("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1], end="", flush=True)
