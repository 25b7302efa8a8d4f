"""One notebook through papermill: run it, make sure that it really ran, and make two equal runs equal files.

Papermill's own exit status is not enough: a cell can store an error without raising it, and widgets can be shown
without the state that a page needs. Both are found here, before anything is rendered.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil
import yaml

from dprlens.book.notebooks import Notebook, load, source, tags
from dprlens.cache.artifacts import write_json

CELL_SECONDS = {"tiny": 900, "small": 1800}  # the longest a cell may take in a profile, on a busy machine too
OTHER_CELL_SECONDS = 24 * 3600  # … in `full` and `paper`
WIDGET_STATE, WIDGET_VIEW = "application/vnd.jupyter.widget-state+json", "application/vnd.jupyter.widget-view+json"
START_SECONDS = 120  # for a kernel to start and papermill to read and write, on a busy machine
SHOWN_LINES = 6  # of a failing cell and of its error


class RunFailed(RuntimeError):
    """A notebook did not run to its end; the message says which cell and why."""


class Hung(RunFailed):
    """It was stopped because it took too long."""


def execute(
    notebook: Notebook,
    values: Mapping,
    out: Path,
    environment: Mapping[str, str],
    limit: float,
    notice: Callable[[str], None],
) -> None:
    """Run `notebook` with checked `values` and leave the executed, normalised notebook at `out`, whole or not at all.

    `environment` is added to ours for the kernel; a cell may take `limit` seconds, the notebook about twice that.
    What hung is tried once more (a kernel's last message can get lost); anything else that goes wrong is final:
    RunFailed.
    """
    draft = out.with_name(f"{out.stem}.half-run.ipynb")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        _papermill(notebook, values, draft, environment, limit)
    except Hung as hung:
        notice(f"{hung}; trying once more")
        _papermill(notebook, values, draft, environment, limit)
    content = normalise(load(draft))
    if wrong := what_is_wrong(content):
        raise RunFailed(f"{notebook.name}: {wrong}\n  the run is kept in {draft}")
    write_json(out, content)
    draft.unlink()


def _papermill(notebook: Notebook, values: Mapping, draft: Path, environment: Mapping[str, str], limit: float) -> None:
    draft.unlink(missing_ok=True)
    log = draft.with_suffix(".log")
    command = [sys.executable, "-m", "papermill", str(notebook.path), str(draft), "--kernel", "python3"]
    command += ["--cwd", str(notebook.path.parent), "--execution-timeout", str(int(limit)), "--no-progress-bar"]
    command += ["--log-level", "ERROR", "--parameters_yaml", yaml.safe_dump(_lists(values))]
    with log.open("w") as output:
        # a session of its own, so that a Ctrl-C reaches only the runner, which then ends everything in order
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0", "JUPYTER_PREFER_ENV_PATH": "1", **environment},
            start_new_session=True,
        )
        try:
            process.wait(timeout=START_SECONDS + 2 * limit)
        except subprocess.TimeoutExpired:
            kill([psutil.Process(process.pid)])
            process.wait()
            raise Hung(
                f"{notebook.name} was stopped after {START_SECONDS + 2 * limit:.0f} s\n  what it said is in {log}"
            ) from None
    said = log.read_text(errors="replace")
    if "CellTimeoutError" in said:
        raise Hung(f"{notebook.name}: a cell took more than {limit:.0f} s{_failure(draft, said)}")
    if process.returncode:
        raise RunFailed(f"{notebook.name} failed{_failure(draft, said)}")
    log.unlink()


def kill(processes: Iterable[psutil.Process]) -> None:
    """End the processes and all they started; a kernel has a session of its own, so a group would not reach it."""
    for process in processes:
        try:
            family = [*process.children(recursive=True), process]
        except psutil.NoSuchProcess:
            continue
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=5)


def _lists(value: object) -> object:
    """Tuples as lists, which is what papermill hands over."""
    if isinstance(value, dict):
        return {name: _lists(item) for name, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value


# did it run?


def number_cells(content: dict) -> list[tuple[int | None, dict]]:
    """The cells with their numbers in the source notebook, None for those that papermill put in."""
    cells, n = [], 0
    for cell in content["cells"]:
        if "papermill-error-cell-tag" in tags(cell):
            continue
        own = "injected-parameters" not in tags(cell)
        n += own
        cells.append((n if own else None, cell))
    return cells


def what_is_wrong(content: dict) -> str:
    """Why an executed notebook must not be shown, or "" if all is well."""
    widgets = content["metadata"].get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for n, cell in number_cells(content):
        if cell["cell_type"] != "code" or not source(cell).strip():
            continue
        if cell["execution_count"] is None:
            return f"cell {n} was never run"
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                return f"cell {n} stored an error\n{_excerpt(cell, output)}"
            view = output.get("data", {}).get(WIDGET_VIEW)
            if view and view["model_id"] not in widgets:
                return f"cell {n} shows a widget whose state was not saved, so that the page would show nothing"
    return ""


def _failure(draft: Path, said: str) -> str:
    """Where and how a run stopped, from the half-run notebook; from what papermill said if there is none."""
    last = "\n".join(said.strip().splitlines()[-SHOWN_LINES:])
    if not draft.exists() or draft.stat().st_size == 0:
        return f" before its first cell\n{_indented(last)}"
    kept = f"  the half-run notebook is {draft}"
    code = [(n, cell) for n, cell in number_cells(load(draft)) if cell["cell_type"] == "code" and source(cell).strip()]
    for n, cell in code:
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                return f" in cell {n or 'injected-parameters'}\n{_excerpt(cell, output)}\n{kept}"
    for n, cell in code:
        if cell["execution_count"] is None:
            return f" in cell {n or 'injected-parameters'}\n{_excerpt(cell)}\n{_indented(last)}\n{kept}"
    return f" after its last cell\n{_indented(last)}\n{kept}"


def _excerpt(cell: dict, error: dict | None = None) -> str:
    first = source(cell).strip().splitlines()[:SHOWN_LINES]
    trace = "\n".join(error["traceback"] or [f"{error['ename']}: {error['evalue']}"]) if error else ""
    last = re.sub(r"\x1b\[[0-9;]*m", "", trace).strip().splitlines()[-SHOWN_LINES:]
    return _indented("\n".join([*first, *(["…"] if last else []), *last]))


def _indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())


# two equal runs, one file


def normalise(content: dict) -> dict:
    """The executed notebook without what differs between equal runs.

    Removed: papermill's and the kernel's times and paths. Renamed: the injected cell's id, and widget model ids in the
    order in which the pages' views reach them. Joined: printed text that arrived in pieces.
    """
    content["metadata"].pop("papermill", None)
    for cell in content["cells"]:
        for volatile in ("papermill", "execution"):
            cell["metadata"].pop(volatile, None)
        if "injected-parameters" in tags(cell):
            cell["id"] = "injected-parameters"
        if cell["cell_type"] == "code":
            cell["outputs"] = _joined(cell["outputs"])
    names = {old: f"{n:032x}" for n, old in enumerate(_widget_order(content), start=1)}
    if not names:
        return content
    return json.loads(re.sub("|".join(names), lambda found: names[found.group()], json.dumps(content)))


def _joined(outputs: list[dict]) -> list[dict]:
    joined: list[dict] = []
    for output in outputs:
        before = joined[-1] if joined else {}
        if output["output_type"] == "stream" and output["name"] == before.get("name"):
            before["text"] = "".join(before["text"]) + "".join(output["text"])
        else:
            joined.append(output)
    return joined


def _widget_order(content: dict) -> list[str]:
    """Model ids in the order in which a walk from the shown views finds them; then links between them, and the rest."""
    state = content["metadata"].get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    order: dict[str, None] = {}

    def walk(model: str) -> None:
        if model in state and model not in order:
            order[model] = None
            for inner in re.findall(r"IPY_MODEL_(\w+)", json.dumps(state[model], sort_keys=True)):
                walk(inner)

    def place(model: str) -> tuple:  # of one that nothing shown refers to, such as a jslink: by what it refers to
        text = json.dumps(state[model], sort_keys=True)
        known = [list(order).index(inner) for inner in re.findall(r"IPY_MODEL_(\w+)", text) if inner in order]
        return not known, known, re.sub(r"IPY_MODEL_\w+", "", text)

    for cell in content["cells"]:
        for output in cell.get("outputs", ()):
            walk(output.get("data", {}).get(WIDGET_VIEW, {}).get("model_id", ""))
    while unreached := [model for model in state if model not in order]:
        walk(min(unreached, key=place))
    return list(order)
