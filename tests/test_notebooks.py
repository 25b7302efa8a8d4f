"""Notebooks beside the library: whatever they take from it is there (to run them takes minutes)."""

import ast
import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

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


def _named(module: str, name: str) -> object:
    """What `from module import name` gives; AttributeError if there is no such name."""
    found = importlib.import_module(module)
    return getattr(found, name) if hasattr(found, name) else importlib.import_module(f"{module}.{name}")
