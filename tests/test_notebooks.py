"""Notebooks beside the library: whatever they take from it is there (to run them takes minutes)."""

import ast
import importlib
import json
import pkgutil
import re
import typing
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from dprlens import chapters

CHAPTERS = [importlib.import_module(f"dprlens.chapters.{one.name}") for one in pkgutil.iter_modules(chapters.__path__)]
DRAWINGS = {  # functions that return a drawing, perhaps
    name
    for chapter in CHAPTERS
    for name, one in vars(chapter).items()
    if isinstance(one, FunctionType) and "Drawing" in str(typing.get_type_hints(one).get("return"))
}
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_takes_from_the_library_is_there(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    taken = {
        alias.asname or alias.name: _named(node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "dprlens"
        for alias in node.names
    }
    uses = [
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    modules = {name: one for name, one in taken.items() if isinstance(one, ModuleType)}
    assert [f"{name}.{attr}" for name, attr in uses if name in modules and not hasattr(modules[name], attr)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_figure_is_shown_by_the_cell_that_draws_it(path):
    """An open figure is shown at the end of its cell, without number and caption."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    drawn = [source for source in sources if DRAWINGS & {*re.findall(r"\.(\w+)\(", source)}]
    assert [source for source in drawn if "report.show(" not in source] == []


def _named(module: str, name: str) -> object:
    """What `from module import name` gives; AttributeError if there is no such name."""
    found = importlib.import_module(module)
    return getattr(found, name) if hasattr(found, name) else importlib.import_module(f"{module}.{name}")
