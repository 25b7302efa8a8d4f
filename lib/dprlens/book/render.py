"""From executed notebooks and prose to the site: stage, render, swap.

`_build/<profile>/source` mirrors the repository with the executed notebooks in the place of their sources, so that
links to sources stay right. The site is rendered beside the old one, which stays until the new one is finished.
"""

import contextlib
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from dprlens.book.notebooks import Mistake, Notebook, Parameter, load
from dprlens.book.pages.downloads import with_downloads
from dprlens.book.pages.scale import measured_costs
from dprlens.book.pages.stamp import stamps
from dprlens.cache.artifacts import write_json

SHOWN_COMPLAINTS = 20


class RenderFailed(RuntimeError):
    """The book did not render; the message has the warnings and errors."""


def render(root: Path, notebooks: list[Notebook], profile: str) -> bool:
    """Render the book to `_build/<profile>/html`; False if it was up to date, RenderFailed for any warning."""
    build = root / "_build" / profile
    html, old, new, stamp = build / "html", build / "html.old", build / "html.new", build / "html.digest"
    stage(root, notebooks, profile)
    inputs = tree_digest([build / "source", root / "constraints.txt"], root)
    if (html / "index.html").exists() and stamp.exists() and stamp.read_text() == inputs:
        return False
    shutil.rmtree(new, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(build / "source")]
    command += ["--path-output", str(new), "--all", "-W", "-n", "--keep-going", "-q"]
    log = build / "render.log"
    with log.open("w") as output:
        if subprocess.run(command, stdout=output, stderr=output, env={**os.environ, "PYTHONHASHSEED": "0"}).returncode:
            raise RenderFailed(
                f"the book did not render (the whole log is {log})\n{_complaints(log, build / 'source')}"
            )
    stamp.unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    if html.exists():
        os.rename(html, old)
    os.rename(new / "_build" / "html", html)
    stamp.write_text(inputs)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(new)
    return True


def stage(root: Path, notebooks: list[Notebook], profile: str) -> None:
    """Make `_build/<profile>/source` anew; Mistake if a notebook has not been run in this profile."""
    build = root / "_build" / profile
    source = build / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "book", source / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, source / name)
    results = Path("results") / profile
    if (root / results).is_dir():
        shutil.copytree(root / results, source / results)
    found = {}
    for notebook in notebooks:
        executed = build / "notebooks" / notebook.path.name
        if not executed.exists():
            raise Mistake(f"{notebook.name} has not been run in the profile {profile!r}: run `make book` first")
        content = load(executed)
        reported = root / results / f"{notebook.name}.json"
        if reported.exists():  # not of a notebook that reports nothing
            found[notebook.name] = json.loads(reported.read_text(encoding="utf-8"))
            content = with_downloads(content, notebook, profile, found[notebook.name], source)
        write_json(source / "notebooks" / notebook.path.name, content)
    templates = source / "book" / "_templates"
    templates.mkdir(exist_ok=True)
    runs = build / "runs.json"
    made_by = json.loads(runs.read_text(encoding="utf-8")) if runs.exists() else {}
    (templates / "stamps.jinja").write_text(stamps(root, profile, found, made_by), encoding="utf-8")
    _write_generated(root, notebooks, profile, source / "book")


def _write_generated(root: Path, notebooks: list[Notebook], profile: str, book: Path) -> None:
    """Put results into the staged prose pages, and write the pages and parts of pages that are made of nothing else."""
    # they bring matplotlib along, for which no other command should wait
    from dprlens.book.pages import hero, outcome, printed_numbers, quotes, scorecard

    here, full = (scorecard.read_results(root / "results", name) for name in (profile, "full"))
    for page in book.glob("*.md"):
        page.write_text(quotes.with_quotes(page.read_text(encoding="utf-8"), here, full), encoding="utf-8")
    made = {
        "parameters.md": parameters_page(notebooks),
        "scorecard.md": scorecard.scorecard_page(notebooks, here, full),
        "numbers.md": printed_numbers.printed_page(notebooks, here, full),
        # parts of pages; as .md they would be pages of their own
        "hero.txt": hero.hero(here, full),
        "glance.txt": scorecard.glance(here, full),
        "outcome.txt": outcome.outcome(here, full),
        "standing.txt": outcome.standing(here, full),
        "scale.txt": measured_costs(root / "benchmarks" / "scale.json"),
    }
    for name, text in made.items():
        (book / name).write_text(text, encoding="utf-8")


def tree_digest(paths: Iterable[Path], root: Path) -> str:
    """SHA-256 of the names (from `root`) and contents of the files at and below `paths`, byte code left out."""
    seal = hashlib.sha256()
    files = {file for path in paths for file in [path, *path.rglob("*")] if file.is_file()}
    for file in sorted(file for file in files if "__pycache__" not in file.parts):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        seal.update(f"{file.relative_to(root).as_posix()} {content}\n".encode())
    return seal.hexdigest()


def _complaints(log: Path, source: Path) -> str:
    """The warnings and errors of a log, with paths as in the repository."""
    lines = log.read_text(errors="replace").replace(f"{source}/", "").splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    found = [line for line in plain if re.search(r"WARNING|ERROR|CRITICAL|Error:", line)] or plain
    return "\n".join(f"  {line}" for line in found[:SHOWN_COMPLAINTS])


def parameters_page(notebooks: list[Notebook]) -> str:
    """A page with every notebook's parameters and a command that turns one of them."""
    parts = [
        "# Parameters",
        "Every notebook takes parameters; the values below are the defaults. A notebook rerun with other values lands"
        " beside the book, in `_build/runs`, and waits only for what really changed.",
    ]
    for notebook in notebooks:
        if notebook.parameters:
            parts += [f"## {_escaped(notebook.title)}", _table(notebook.parameters), _example(notebook)]
    return "\n\n".join(parts) + "\n"


def _table(parameters: Iterable[Parameter]) -> str:
    rows = [
        f"| `{p.name}` | `{_escaped_code(p.type)}` | `{_escaped_code(repr(p.default))}` | {_escaped(p.help)} |"
        for p in parameters
    ]
    return "\n".join(["| name | type | default | what it does |", "| --- | --- | --- | --- |", *rows])


def _example(notebook: Notebook) -> str:
    turned = next((p for p in notebook.parameters if p.name != "profile"), notebook.parameters[0])
    value = turned.default + 1 if type(turned.default) is int else turned.default
    given = f"-p {turned.name} {value}"
    return (
        f'```bash\nmake run NB={notebook.name} ARGS="{given}"\n'
        f"# or, without our checks:\npapermill notebooks/{notebook.path.name} out.ipynb {given}\n```"
    )


def _escaped(text: str) -> str:
    """As plain text in a cell of a Markdown table; code in backticks stays code."""
    return re.sub(r"([|$\\{}\[\]*_~])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")


def _escaped_code(text: str) -> str:
    return text.replace("|", r"\|")


def serve(folder: Path, port: int) -> None:
    """Serve a built site to this machine's browsers until interrupted."""
    if not (folder / "index.html").exists():
        raise Mistake(f"there is no book in {folder}: run `make book` first")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
