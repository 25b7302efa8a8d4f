"""What comes with the package: models of the default world that take long to train, out of a cache that made them.

They are plain artifacts of the cache (`artifacts`), so nothing else knows of them: a run that asks for one of the same
key reads it here, checks its SHA-256, and would make it if one byte were different.
"""

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from dprlens.book.notebooks import Mistake
from dprlens.book.pages.stamp import commit
from dprlens.cache.artifacts import PACKAGED, canonical, default_root
from dprlens.profile import Profile
from dprlens.setup import Setup

TRAINED = ("base_model", "entered", "told_late", "continued", "malmen", "mend")  # steps whose results are weights
README = """# Models that come with the package

Pre-trained and DPR-trained models of the default world (profile `{profile}`, seed {seed}), so that the book is
there sooner. They are artifacts of the cache as a run has left them: `meta.json` beside each has the arguments and
the libraries that made it, and the SHA-256 of each file, which is checked whenever it is read. With other arguments
or other versions of the libraries they are not used, but made.

* command: `make ship`, which runs the book from nothing and copies them
* {commit}
* made on: {machine}, {cores} cores, {day}
* without them: `make book FROM_NOTHING=1`

| artifact | seconds | model files: SHA-256 |
| --- | ---: | --- |
{rows}
"""


def ship(root: Path, chosen: Profile, seed: int) -> list[Path]:
    """Copy what ships out of the cache into the package, in the place of what was there, and say how it was made.

    Raises Mistake if the cache has none of it.
    """
    found = sorted(_to_ship(default_root(), chosen, seed))
    if not found:
        raise Mistake(
            f"{default_root()} has no models of the profile {chosen.name!r}: run `make ship`, which makes them"
        )
    made_at, to = commit(root), PACKAGED  # asked before the copies change the tree
    shutil.rmtree(to, ignore_errors=True)
    rows = []
    for folder in found:
        shutil.copytree(folder, to / folder.name)
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        sums = [f"`{name}` {file['sha256']}" for name, file in meta["files"].items() if name.endswith(".safetensors")]
        rows.append(f"| {folder.name} | {meta['seconds']:.0f} | {'<br>'.join(sums)} |")
    said = README.format(
        profile=chosen.name,
        seed=seed,
        commit=made_at,
        machine=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count(),
        day=time.strftime("%Y-%m-%d", time.gmtime()),
        rows="\n".join(rows),
    )
    (to / "README.md").write_text(said, encoding="utf-8")
    return [to / folder.name for folder in found]


def _to_ship(cache: Path, chosen: Profile, seed: int) -> Iterator[Path]:
    """All that is pre-trained, the editors' hypernetworks, and DPR as `chosen.dpr` trains it in the page's world."""
    world, training = canonical(Setup(chosen, seed).world), canonical(chosen.dpr)
    for path in cache.glob("*/meta.json"):
        meta = json.loads(path.read_text(encoding="utf-8"))
        arguments = meta["arguments"]
        if meta["name"] in TRAINED or (
            meta["name"] == "dpr" and (arguments["world"], arguments["spec"]) == (world, training)
        ):
            yield path.parent
