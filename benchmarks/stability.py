"""Do the numbers of Table 1 depend on threads, BLAS kernels, the order of the train questions, or float noise?

Fits the probes of Table 1's cells and differences in profile `small` again under each variation, every one in a process
of its own, and prints the greatest change of any number. Ends with status 1 if one is 0.001 or more. README.md says
what is varied and what is not.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy import ndarray
from threadpoolctl import threadpool_info

from dprlens.bert.encoder import reinitialise
from dprlens.consistency.exhibits import CONTRASTS
from dprlens.consistency.probes import Features, Items, items, make_probe, matching
from dprlens.consistency.steps import features
from dprlens.profile import PROFILES
from dprlens.setup import Setup

SEED = 0
CHOICES = 2, 5  # passages to choose from
PROBES = dict.fromkeys(("pretrained", "dpr_query"), ("linear", "no_query", "tied"))  # the others: linear
LIMIT = 0.001  # the third decimal
NOISE = 1e-6  # relative: what a sum of some hundred float32 products is off by
KERNELS = "Haswell", "Zen", "SkylakeX", "Sandybridge", "Nehalem"

Matrices = Mapping[str, ndarray]


def sides_of(setup: Setup) -> dict[str, tuple[Features, Features]]:
    """Who encodes questions and passages, by name, as in Table 1; one network of random weights."""
    encoders = {
        "pretrained": setup.base,
        "dpr_query": setup.dpr.query,
        "dpr_context": setup.dpr.passage,
        "random": reinitialise(setup.base, SEED),
    }
    found = {name: features(encoder, setup.world) for name, encoder in encoders.items()}
    return {name: (one, one) for name, one in found.items()} | {
        "dpr_paired": (found["dpr_query"], found["dpr_context"])
    }


def write_inputs(setup: Setup, folder: Path) -> list[int]:
    """Keep features of three layers and what is asked, so that each process reads the very same; the layers."""
    profile = setup.profile
    layers = sorted({1, profile.encoder.layers // 2, profile.encoder.layers})
    for split in ("train", "test"):
        asked = items(setup.world, setup.negatives, split, profile.probe.most, SEED)
        np.savez(folder / f"{split}.npz", **asked._asdict())
    for name, sides in sides_of(setup).items():
        np.savez(folder / f"{name}.npz", questions=sides[0].questions[layers], passages=sides[1].passages[layers])
    return layers


def right(folder: Path, variation: str) -> Matrices:
    """Whether each test question is right [question], by encoder, probe, n and layer, the input varied so."""
    rng = np.random.default_rng(1)
    asked = {split: Items(**np.load(folder / f"{split}.npz")) for split in ("train", "test")}
    found = {}
    for path in sorted(set(folder.glob("*.npz")) - {folder / "train.npz", folder / "test.npz"}):
        states = dict(np.load(path))
        if variation == "noise":
            states = {side: x * (1 + NOISE * rng.standard_normal(x.shape, np.float32)) for side, x in states.items()}
        seen = Features(**states)
        for layer in range(len(seen.questions)):
            train, test = (matching(seen, seen, layer, asked[split]) for split in ("train", "test"))
            for n in CHOICES:
                (X, y), (X_test, y_test) = train.shown(n, 3 * SEED), test.shown(n, 3 * SEED + 2)
                order = rng.permutation(len(y)) if variation == "order" else np.arange(len(y))
                for probe in PROBES.get(path.stem, ("linear",)):
                    fitted = make_probe(probe, PROFILES["small"].probe).fit(X[order], y[order])
                    found[f"{path.stem} {probe} N={n} {layer}"] = fitted.predict(X_test) == y_test
    return found


def numbers(found: Matrices) -> dict[str, float]:
    """Accuracies, and their differences as the chapter reports them."""
    rates = {id_: correct.mean() for id_, correct in found.items()}
    pairs = [(f"{a} linear", f"{b} linear") for a, b in CONTRASTS]
    pairs += [(f"{a} linear", f"{a} {probe}") for a in PROBES for probe in PROBES[a][1:]]
    cells = {id_.split(" ", 2)[2] for id_ in found}
    minus = {f"{a} − {b} {cell}": rates[f"{a} {cell}"] - rates[f"{b} {cell}"] for a, b in pairs for cell in cells}
    return rates | minus


def variations() -> dict[str, tuple[str, dict[str, str]]]:
    """Each with how the input is varied, and the environment."""
    return {
        "as it is": ("none", {}),
        "2 threads": ("none", {"OPENBLAS_NUM_THREADS": "2"}),
        "train questions in another order": ("order", {}),
        f"features with noise of {NOISE:g}": ("noise", {}),
        **{f"kernels of {name}": ("none", {"OPENBLAS_CORETYPE": name}) for name in KERNELS},
    }


def in_a_process(environment: Mapping[str, str], *arguments: str) -> str:
    """What this file prints with these arguments, on one thread. Raises CalledProcessError if it failed."""
    one = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, **one, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def kernels() -> str:
    """Of the BLAS that NumPy calls here."""
    return next((one["architecture"] for one in threadpool_info() if "numpy" in one["filepath"]), "unknown")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="small", choices=("tiny", "small"))
    parser.add_argument("--kernels", action="store_true", help="print those of this process, and nothing else")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.fit:
        np.savez(asked.out, **right(asked.folder, asked.fit))
        return 0
    if asked.kernels:
        print(kernels())
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layers = write_inputs(Setup(PROFILES[asked.profile], SEED), folder)
        print(f"{platform.machine()}, NumPy {np.__version__}; profile {asked.profile}, layers {layers}")
        print(f"{'':38}{'greatest change':>16}{'answers':>11}  of", flush=True)
        before, greatest, had = {}, 0.0, {in_a_process({}, "--kernels")}
        for label, (variation, environment) in variations().items():
            kernel = in_a_process(environment, "--kernels")
            if "OPENBLAS_CORETYPE" in environment and kernel in had:
                print(f"{label:38}{'–':>16}{'–':>11}  here the same as {kernel}", flush=True)
                continue
            had.add(kernel)
            out = folder / "out" / f"{label}.npz"
            out.parent.mkdir(exist_ok=True)
            try:
                in_a_process(environment, "--fit", variation, "--folder", str(folder), "--out", str(out))
            except subprocess.CalledProcessError as failure:
                if failure.returncode != -signal.SIGILL:
                    raise
                print(f"{label:38}{'–':>16}{'–':>11}  this processor has not their instructions", flush=True)
                continue
            found = dict(np.load(out))
            before = before or found
            was, now = numbers(before), numbers(found)
            worst = max(now, key=lambda id_: abs(now[id_] - was[id_]))
            change = abs(now[worst] - was[worst])
            flipped = sum(int((found[id_] != before[id_]).sum()) for id_ in found)
            print(f"{label:38}{change:16.4f}{flipped:11,}  {worst if change else ''}", flush=True)
            greatest = max(greatest, change)
    answers = sum(correct.size for correct in before.values())
    print(f"{len(was):,} numbers of {answers:,} answers in {time.monotonic() - began:.0f} s; limit {LIMIT}")
    return int(greatest >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
