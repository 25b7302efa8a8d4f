"""What made a page: the commit, the profile, the seed, the world and the versions of what matters.

Results files hold nothing that changes from commit to commit, so the pages get it from here, when they are rendered.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

CHANGES = ("status", "--porcelain", "--", ".", ":(exclude)results")
LIBRARIES = ("dprlens", "torch", "transformers", "numpy")


def stamps(root: Path, profile: str, results: Mapping[str, dict], runs: Mapping[str, dict]) -> str:
    """A Jinja file for the book's `stamp.html`: `pages`, the stamp of each chapter by page, and `other`, of all others.

    `results` are the chapters' results files, `runs` what is on record of their runs, both by the notebooks' names.
    """
    versions = [f"{library} {importlib.metadata.version(library)}" for library in LIBRARIES]
    ends = [*versions, f"Python {platform.python_version()}"]
    begins = [commit(root), f"profile {profile}"]
    pages = {
        f"notebooks/{name}": " · ".join([*begins, *_world(result), *_made(runs.get(name, {})), *ends])
        for name, result in results.items()
    }
    return f"{{% set pages = {json.dumps(pages)} %}}\n{{% set other = {json.dumps(' · '.join([*begins, *ends]))} %}}\n"


def _world(result: dict) -> list[str]:
    world = result["world"]
    return [f"seed {result['seed']}", f"{world['maker']} world {world['digest']}"]


def _made(run: dict) -> list[str]:
    """The steps of which something came with the package, and those whose networks are not the ones on record."""
    shipped = sorted(step for step, last in run.get("steps", {}).items() if last["state"] == "shipped")
    siblings = sorted(run.get("siblings", ()))
    return [
        *([f"as shipped: {', '.join(shipped)}"] if shipped else []),
        *([f"made here in float32, siblings of the networks on record: {', '.join(siblings)}"] if siblings else []),
    ]


def commit(root: Path) -> str:
    """The commit of the working tree, and whether it was changed since; what is above `root` is not asked.

    `results/` does not count: a build writes there what it measured, which is no change of what it was made with.
    """
    found = _git(root, "rev-parse", "--short=10", "HEAD")
    if found is None:
        return "commit unknown"
    return f"commit {found.strip()}{' with local changes' if _git(root, *CHANGES) else ''}"


def _git(root: Path, *arguments: str) -> str | None:
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(root.parent), "GIT_OPTIONAL_LOCKS": "0"}
    try:
        return subprocess.run(
            ["git", *arguments], cwd=root, env=environment, check=True, capture_output=True, text=True
        ).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
