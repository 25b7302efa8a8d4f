"""Fetch the third-party files that the book serves itself, so that no reader's browser asks another host; and those of
the book's tests, which are in no book.

    python book/_assets/vendor/refresh.py        # needs npm and the network; `make book` needs neither

`lock.json` records package, version, the tarball's sha512 and the sha256 of every file taken. A tarball of a locked
version must have the locked sha512. To move to a new version, change its line below, run this, and read the difference.
"""

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from fnmatch import fnmatch
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[2] / "tests" / "browser" / "vendor"

# package -> version, {pattern in the tarball: folders or files that receive it}. The widget manager asks for its
# fonts in one of two folders, depending on which of its two loaders is faster; so both have them.
BOOK_PACKAGES = {
    "requirejs": ("2.3.8", {"package/require.js": ["require.js"]}),
    "@jupyter-widgets/html-manager": (
        "1.0.14",
        {
            "package/dist/embed-amd.js": ["embed-amd.js"],
            "package/dist/*.woff2": ["@jupyter-widgets/", "@jupyter-widgets/html-manager/dist/"],
            "package/LICENSE": ["licences/html-manager.txt"],
            "package/dist/embed.js.LICENSE.txt": ["licences/html-manager-bundled.txt"],
        },
    ),
    "mathjax": (
        "3.2.2",
        {
            "package/es5/tex-chtml-full.js": ["mathjax/tex-chtml-full.js"],
            "package/es5/output/chtml/fonts/woff-v2/*.woff": ["mathjax/output/chtml/fonts/woff-v2/"],
            "package/LICENSE": ["licences/mathjax.txt"],
        },
    ),
    "@fontsource-variable/source-serif-4": (
        "5.3.1",
        {
            "package/files/source-serif-4-latin-wght-normal.woff2": ["fonts/source-serif-4.woff2"],
            "package/files/source-serif-4-latin-wght-italic.woff2": ["fonts/source-serif-4-italic.woff2"],
            "package/LICENSE": ["licences/source-serif-4.txt"],
        },
    ),
}
TEST_PACKAGES = {
    "axe-core": (
        "4.14.1",
        {
            "package/axe.min.js": ["axe.min.js"],
            "package/LICENSE": ["licences/axe-core.txt"],
            "package/LICENSE-3RD-PARTY.txt": ["licences/axe-core-bundled.txt"],
        },
    ),
}


def fetch(package: str, version: str, wanted: dict[str, list[str]], folder: Path, locked: dict) -> dict:
    """Write the wanted files of one package below `folder` and return its entry for the lock.json there."""
    with tempfile.TemporaryDirectory() as empty:
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{package}@{version}"], cwd=empty, check=True, capture_output=True, text=True
        )
        tarball = Path(empty, packed.stdout.strip().splitlines()[-1])
        sha512 = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
        if locked.get("version") == version and locked["sha512"] != sha512:
            raise SystemExit(
                f"{package} {version}: the tarball has {sha512}, lock.json says {locked['sha512']}; do not use it."
            )
        files = {}
        with tarfile.open(tarball) as archive:
            for member in archive.getmembers():
                for pattern, places in wanted.items():
                    if fnmatch(member.name, pattern):
                        content = archive.extractfile(member).read()
                        for place in places:
                            path = place + Path(member.name).name if place.endswith("/") else place
                            (folder / path).parent.mkdir(parents=True, exist_ok=True)
                            (folder / path).write_bytes(content)
                            files[path] = hashlib.sha256(content).hexdigest()
    return {"version": version, "sha512": sha512, "files": dict(sorted(files.items()))}


def refresh(folder: Path, packages: dict) -> None:
    """Fetch packages into `folder` and write its lock.json."""
    lock = folder / "lock.json"
    old = json.loads(lock.read_text()) if lock.exists() else {}
    new = {name: fetch(name, *wanted, folder, old.get(name, {})) for name, wanted in packages.items()}
    lock.write_text(json.dumps(new, indent=2) + "\n")


if __name__ == "__main__":
    refresh(HERE, BOOK_PACKAGES)
    refresh(TESTS, TEST_PACKAGES)
