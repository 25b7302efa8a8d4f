"""Training, encoding and attribution beside other libraries, in one command: python3 benchmarks/bench.py

Makes the environment `.venv-bench` (again when what it is made from changes), apart from the book's own, and runs
`throughput.py` (both tables of sentence-transformers) and `attribution.py` in it, on one thread and without network.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VENV = ROOT / ".venv-bench"
SCRIPTS = "throughput.py", "attribution.py"
MADE_FROM = HERE / "requirements.txt", ROOT / "constraints.txt", ROOT / "pyproject.toml"

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
QUIET = {"TQDM_DISABLE": "1"}


def make_environment() -> Path:
    """The environment's Python, with everything installed."""
    python, installed = VENV / "bin" / "python", VENV / "installed"
    if installed.exists() and all(file.stat().st_mtime <= installed.stat().st_mtime for file in MADE_FROM):
        return python
    print("== installing the other libraries and dprlens into .venv-bench (some minutes the first time)", flush=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", MADE_FROM[0], "-c", MADE_FROM[1]], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", ROOT], check=True)
    installed.touch()
    return python


if __name__ == "__main__":
    environment = os.environ | ONE_THREAD | OFFLINE | QUIET
    python = make_environment()
    codes = [subprocess.run([python, HERE / script, *sys.argv[1:]], env=environment).returncode for script in SCRIPTS]
    sys.exit(next(filter(None, codes), 0))  # of the first that failed; the others run all the same
