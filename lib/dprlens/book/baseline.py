"""A profile's build against the one on record: results, and for tiny the artifacts in the cache.

What is on record is what git has staged or committed, since a build writes into the same files. `results/tiny.json`
describes the artifacts of the tiny book, step by step. On a processor of the kind on record all bytes must be the same.

Other kinds round otherwise, which is to training what another seed is: at tiny, accuracies move beyond their intervals.
There the exhibits, the claims and the world must be the same, n of each number that the world alone decides, how many
artifacts there are, the bytes of whatever no network has a part in, and the size of pre-trained weights (`FAR`).
"""

import hashlib
import json
import math
import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from dprlens.book._results import compare_results
from dprlens.book.notebooks import Mistake
from dprlens.cache.artifacts import default_root, write_json

PLAIN = ("closed_world", "mined_negatives")  # steps without a network: the same bytes on every processor
WEIGHTS = ".safetensors"
PLAIN_FILES = (".txt", ".jsonl")  # vocabularies and worlds, whatever step saved them
BY_WORLD = ("00_world_and_models", "01_dense_retrieval")  # notebooks whose numbers have an n that the world decides
PRETRAINED = "base_model"  # the step whose weights no processor moves far; what learns from little (DPR, editors) moves
FAR = 0.005  # relative difference of mean root mean squares of its weights; measured in CONTRIBUTING.md
BY_CONTENT = ("probe_verdicts",)  # steps with one artifact for two edits where rounding makes their models the same


def processor() -> str:
    """What decides how sums are rounded: make, instructions, threads."""
    import torch  # here, since `check` and `serve` do without it

    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    makes = [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    bf16 = "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "no bf16"
    threads = os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
    make, kind = makes[0] if makes else "of unknown make", torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {make}, {kind}, {bf16}, {threads} threads"


def artifacts(cache: Path) -> dict[str, dict]:
    """Of each step in a cache: n of its artifacts, checksums of their files, root mean squares of weights."""
    found = defaultdict(list)
    for path in sorted(cache.glob("*/meta.json")):
        meta = json.loads(path.read_text(encoding="utf-8"))
        found[meta["name"]].append((path.parent, meta["files"]))
    return {
        step: {
            "n": len(made),
            "bytes": _seal([(name, file["sha256"]) for _, files in made for name, file in files.items()]),
            "plain": _seal([(n, f["sha256"]) for _, files in made for n, f in files.items() if _is_plain(step, n)]),
            "weights": sorted(
                _rms(folder / name) for folder, files in made for name in files if name.endswith(WEIGHTS)
            ),
        }
        for step, made in sorted(found.items())
    }


def _is_plain(step: str, file: str) -> bool:
    return step in PLAIN or file.endswith(PLAIN_FILES)


def _seal(files: list[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(sorted(files)).encode()).hexdigest()[:16] if files else ""


def _rms(file: Path) -> float:
    """Root mean square of the weights in a file, to seven digits."""
    arrays = load_file(file).values()
    squares = sum(float(np.square(array.astype(float)).sum()) for array in arrays)
    return float(f"{math.sqrt(squares / sum(array.size for array in arrays)):.7g}")


# on record


def record(root: Path) -> Path:
    """Put the tiny book that was just built on record: its artifacts in `results/tiny.json`, all staged in git."""
    file = root / "results" / "tiny.json"
    runs = json.loads((root / "_build" / "tiny" / "runs.json").read_text(encoding="utf-8"))
    asking = defaultdict(list)  # the quickest first, which `steps --same` will run
    for notebook, run in sorted(runs.items(), key=lambda one: (one[1]["seconds"], one[0])):
        for step in run["steps"]:
            asking[step].append(notebook)
    write_json(file, {"processor": processor(), "notebooks": asking, "steps": artifacts(default_root())})
    _git(root, "add", "--", "results/tiny", "results/tiny.json")
    return file


def notebooks_of(root: Path) -> dict[str, list[str]]:
    """The notebooks that ask for each step at tiny, the quickest first."""
    return _described(root)["notebooks"]


def _described(root: Path) -> dict:
    file = root / "results" / "tiny.json"
    if not file.exists():
        raise Mistake(f"there is no {file}: make record")
    return json.loads(file.read_text(encoding="utf-8"))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Mistake(f"what is on record is read from git, which says: {done.stderr.strip()}")
    return done.stdout


# comparing


def compare(root: Path, profile: str) -> Iterator[str]:
    """What of a profile's results, and of tiny's artifacts, is not as on record, one line each."""
    alike = True
    if profile == "tiny":
        told = _described(root)
        alike = told["processor"] == processor()
        yield from compare_artifacts(told["steps"], artifacts(default_root()), alike)
    files = _git(root, "ls-files", "--", f"results/{profile}").splitlines()
    here = {f"results/{profile}/{path.name}" for path in (root / "results" / profile).glob("*.json")}
    yield from (f"{file} is {'new' if file in here else 'gone'}" for file in sorted(here ^ {*files}))
    for file in sorted(here & {*files}):
        before, after = _git(root, "show", f":{file}"), (root / file).read_text(encoding="utf-8")
        if profile == "tiny" and alike and before != after:
            yield f"{file} has other bytes, on the same kind of processor"
        elif profile == "tiny":
            yield from (f"{Path(file).stem}: {line}" for line in _reshaped(Path(file).stem, before, after))
        else:
            moved = compare_results(json.loads(before), json.loads(after))
            yield from (f"{Path(file).stem}: {difference}" for difference in moved)


def compare_artifacts(before: dict[str, dict], after: dict[str, dict], alike: bool) -> Iterator[str]:
    """The steps whose artifacts are not as on record; `alike` if by the same kind of processor."""
    for step in sorted(before.keys() | after.keys()):
        was, now = before.get(step), after.get(step)
        if was is None or now is None:
            yield f"{step}: {'no artifact' if now is None else 'no artifact on record'}"
        elif was["n"] != now["n"] and (alike or step not in BY_CONTENT):
            yield f"{step}: {now['n']} artifacts, {was['n']} on record"
        elif was["plain"] != now["plain"] or (alike and was["bytes"] != now["bytes"]):
            yield f"{step}: other bytes than on record"
        elif step == PRETRAINED and (far := _apart(was["weights"], now["weights"])) > FAR:
            yield f"{step}: weights {far:.2%} away from those on record in root mean square, more than {FAR:.1%}"


def _apart(was: list[float], now: list[float]) -> float:
    return abs(float(np.mean(now) / np.mean(was)) - 1)


def _reshaped(name: str, before: str, after: str) -> Iterator[str]:
    """What of a results file is not the same though processors are free to round as they do."""
    old, new = json.loads(before), json.loads(after)
    if old["world"] != new["world"]:
        yield "another world"
    if _claims(old) != _claims(new):
        yield "other exhibits or claims"
    if name in BY_WORLD:
        was, now = _counts(old), _counts(new)
        ids = sorted(id_ for id_ in was.keys() | now.keys() if was.get(id_) != now.get(id_))
        yield from (f"{id_}: n = {now.get(id_)}, {was.get(id_)} on record" for id_ in ids)


def _claims(results: dict) -> dict[str, list[str]]:
    return {id_: [claim["id"] for claim in one.get("claims", ())] for id_, one in results["exhibits"].items()}


def _counts(results: dict) -> dict[str, int | None]:
    return {id_: n["n"] for one in results["exhibits"].values() for id_, n in one.get("numbers", {}).items()}
