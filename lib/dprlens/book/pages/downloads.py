"""What a reader can take away from an exhibit: its numbers, its table or picture, the command that makes it again.

An executed notebook holds all but the numbers: the output of an exhibit has a MyST face whose `:name:` is the exhibit's
id, and beside it a table as CSV or a picture as PNG (`report.Report`). Here these move to files in the staged source,
and one line under that face leads to them. JupyterLab shows the other face and never sees the line.
"""

import base64
import csv
import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from dprlens.book.notebooks import Notebook

COLUMNS = ("ours", "low", "high", "n", "paper")  # of a number, as in the results file
NAME = re.compile(r"^:name: (\w+)$", re.MULTILINE)
SVG = re.compile(r"data:image/svg\+xml;base64,([\w+/=]+)")


def with_downloads(content: dict, notebook: Notebook, profile: str, results: dict, source: Path) -> dict:
    """An executed notebook in which a line of downloads stands under each exhibit; the files go below `source`.

    `results` is what its results file holds.
    """
    folder = Path("downloads") / notebook.name
    again = commands(notebook, profile)
    for cell in content["cells"]:
        for data in (output.get("data", {}) for output in cell.get("outputs", ())):
            page = "".join(data.get("text/markdown", ""))
            named = NAME.search(page)
            if named and (exhibit := results["exhibits"].get(named[1])):
                links = []
                for label, ending, file in _files(data, exhibit["numbers"]):
                    path = folder / f"{named[1]}{ending}"
                    (source / path).parent.mkdir(parents=True, exist_ok=True)
                    (source / path).write_bytes(file)
                    links.append(f"{{download}}`{label} </{path.as_posix()}>`")
                data["text/markdown"] = f"{page}\n\n{_line(links, again)}"
    return content


def commands(notebook: Notebook, profile: str) -> str:
    """Shell lines that run the notebook with the values of its page: with our checks, and by papermill alone."""
    values = {p.name: p.default for p in notebook.parameters if p.name != "profile" and p.default is not None}
    given = [f"-p {name} {shlex.quote(_typed(value))}" for name, value in values.items()]
    listed = {name: value for name, value in values.items() if isinstance(value, list | tuple)}
    plain = [f"-p {name} {shlex.quote(_typed(value))}" for name, value in values.items() if name not in listed]
    plain += [f"-y {shlex.quote(f'{name}: {_typed(value)}')}" for name, value in listed.items()]
    return (
        f'make run NB={notebook.name} PROFILE={profile} ARGS="{" ".join(given)}"\n'
        "# or, without our checks:\n"
        f".venv/bin/papermill notebooks/{notebook.path.name} out.ipynb -p profile {profile} {' '.join(plain)}"
    )


def _typed(value: object) -> str:
    """A parameter's value as one types it."""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list | tuple) else str(value)


def _files(data: dict, numbers: dict[str, dict]) -> Iterator[tuple[str, str, bytes]]:
    """Label, ending of the name, and content of each file of an exhibit."""
    if numbers:
        rows = [[id_, *(number[column] for column in COLUMNS)] for id_, number in sorted(numbers.items())]
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([("id", *COLUMNS), *rows])
        yield "numbers (CSV)", ".csv", file.getvalue().encode()
    drawn = SVG.search("".join(data["text/markdown"]))
    if shown := data.pop("text/csv", None):  # a page does not know this type
        name = "points" if drawn else "table"
        yield f"{name} (CSV)", f".{name}.csv", "".join(shown).encode()
    if drawn:
        yield "SVG", ".svg", base64.b64decode(drawn[1])
    if pixels := data.pop("image/png", None):
        yield "PNG", ".png", base64.b64decode("".join(pixels))


def _line(links: list[str], again: str) -> str:
    return (
        f"::::{{container}} take-away\n{' · '.join(links)}\n\n"
        f":::{{dropdown}} make it again\n```bash\n{again}\n```\n:::\n::::"
    )
