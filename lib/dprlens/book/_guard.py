"""The guard of the cache: which code each cached step can reach, so that no change of it goes unnoticed.

An artifact is found again by its step's name, version and arguments, not by code (`artifacts`). `lib/steps.lock` keeps,
a line a step, its version and a hash of all code of the package that it can reach; then, a line a definition, the hash
of that alone, by which a change can be named. The code is read, never imported.

A definition is a function, a class, a method, a module's variable (each `module:name`), or a data file that the code
names. A step reaches what its definition names, in annotations too, and what that names, and so on; a class with its
methods and its subclasses, since one may come where the other is expected. So it reaches the steps that it calls, and
their versions: when these change, it has changed.

No part of a hash: docstrings, comments, layout, annotations, the words of raised built-in errors and of notices.
No code of a step: the cache itself, but for how results are written and read (`artifacts._storage`).
"""

import ast
import builtins
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

PACKAGE = "dprlens"
CACHE, STORAGE = ("dprlens.cache.artifacts:", "dprlens.cache.events:"), "dprlens.cache.artifacts:_storage"
TELLS = {"notice", "_notice", "print", "warn", "progress"}  # functions whose words a reader sees and no step keeps
LEFT_OUT = {"annotation", "returns", "type_params", "type_comment", "ctx", "kind"}  # fields of syntax trees
SCOPES = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Step(NamedTuple):
    """A cached step: its version, the hash of all code that it can reach, and the definitions in that code."""

    version: int
    hash: str
    reaches: frozenset[str] = frozenset()


class Code:
    """All definitions of the package in a folder `lib`, by `module:name`."""

    def __init__(self, lib: Path):
        self.lib = lib
        self.modules = {
            ".".join(path.relative_to(lib).with_suffix("").parts).removesuffix(".__init__"): path
            for path in sorted((lib / PACKAGE).rglob("*.py"))
        }
        self.imports: dict[str, dict[str, str]] = {}
        self.nodes: dict[str, ast.stmt | ast.Module] = {}
        for module, path in self.modules.items():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            _Silent().visit(tree)
            self.imports[module] = _imports(tree.body)
            for name, node in _definitions(tree):
                key = f"{module}:{name}"  # a variable may be set in several statements
                before = self.nodes.get(key)
                self.nodes[key] = node if before is None else ast.Module([*_statements(before), node], [])
        self.hashes: dict[str, str] = {}
        self._names: dict[str, frozenset[str]] = {}

    @cached_property
    def steps(self) -> dict[str, Step]:
        """The package's cached steps by name. Raises ValueError if two have the same name."""
        found = {}
        for definition, node in self.nodes.items():
            if (version := _version(node)) is not None:
                name, reached = definition.partition(":")[2], frozenset(self.reached(definition))
                if name in found:
                    raise ValueError(f"two steps are called {name!r}; rename one, since the cache goes by names")
                lines = [f"{one} {self.hashes[one]}\n" for one in sorted(reached)]
                found[name] = Step(version, _hash("".join(lines), 16), reached)
        return dict(sorted(found.items()))

    def reached(self, start: str) -> set[str]:
        """All definitions that one can reach, with itself and with how results are stored."""
        return self._closure(start) | self._storage

    @cached_property
    def _storage(self) -> set[str]:
        return self._closure(STORAGE, within_cache=True) if STORAGE in self.nodes else set()

    def _closure(self, start: str, within_cache: bool = False) -> set[str]:
        found, waiting = set(), [start]
        while waiting:
            one = waiting.pop()
            if one not in found and (within_cache or not one.startswith(CACHE)):
                found.add(one)
                waiting += [*self.names(one), *self._inside.get(one, ())]
        return found

    @cached_property
    def _inside(self) -> dict[str, set[str]]:
        """The methods and subclasses of each class."""
        found: dict[str, set[str]] = {}
        for definition, node in self.nodes.items():
            owner, dot, _ = definition.partition(":")[2].rpartition(".")
            if dot:
                found.setdefault(f"{definition.partition(':')[0]}:{owner}", set()).add(definition)
            for base in node.bases if isinstance(node, ast.ClassDef) else ():
                for name in self._named(definition, base):
                    found.setdefault(name, set()).add(definition)
        return found

    def names(self, definition: str) -> frozenset[str]:
        """The definitions that one names; its own hash is then in `hashes`."""
        if definition not in self._names:
            node = self.nodes.get(definition)
            self.hashes[definition] = _hash(_content(self.lib / definition) if node is None else _written(node))
            self._names[definition] = frozenset(() if node is None else self._named(definition, node))
        return self._names[definition]

    def _named(self, definition: str, node: ast.AST) -> Iterator[str]:
        """The definitions that a piece of a module's code may mean, data files of the module's folder included."""
        module, parts = definition.partition(":")[0], [*_parts(node)]
        local = self.imports[module] | _imports(parts)
        own = {*_own_names(node)}
        for part in parts:
            if isinstance(part, ast.Name | ast.Attribute):
                dotted = _dotted(part)
                if dotted and dotted[0] not in own:
                    yield from self._resolved(dotted, module, local)
            elif isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str)):
                yield from self._files(self.modules[module].parent, part)

    def _resolved(self, dotted: list[str], module: str, local: Mapping[str, str]) -> Iterator[str]:
        """What a name with attributes, `steps.vectors`, means in a module: at most one definition."""
        at = f"{module}:{dotted[0]}"
        if at not in self.nodes:
            at = self._origin(local.get(dotted[0], ""))
            for attribute in dotted[1:]:
                at = self._origin(f"{at}.{attribute}") if at in self.modules else at
        if at in self.nodes:
            yield at

    def _origin(self, dotted: str) -> str:
        """Where "dprlens.bert.read" is defined, "dprlens.bert.packing:read"; modules stay."""
        module, _, name = dotted.rpartition(".")
        if dotted in self.modules or module not in self.modules:
            return dotted
        if f"{module}:{name}" not in self.nodes and name in self.imports[module]:
            return self._origin(self.imports[module][name])
        return f"{module}:{name}"

    def _files(self, folder: Path, part: ast.JoinedStr | ast.Constant) -> Iterator[str]:
        """The data files in a folder that a string may name: f"{table}.csv" may name every CSV file."""
        texts = part.values if isinstance(part, ast.JoinedStr) else [part]
        pattern = "".join(re.escape(str(t.value)) if isinstance(t, ast.Constant) else r"[^/]+" for t in texts)
        if pattern.endswith((r"\.toml", r"\.csv", r"\.json")):
            found = (path for path in sorted(folder.iterdir()) if re.fullmatch(pattern, path.name))
            yield from (path.relative_to(self.lib).as_posix() for path in found)


# syntax trees


class _Silent(ast.NodeTransformer):
    """Takes out what no result depends on: docstrings, words of errors and notices, all but the version of a step."""

    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            if hasattr(builtins, node.exc.func.id):  # an error of our own may bring its words to who catches it
                node.exc.args = []
        elif isinstance(node, ast.Call) and (_dotted(node.func) or [""])[-1] in TELLS:
            node.args = [one for one in node.args if not isinstance(one, ast.Constant | ast.JoinedStr)]
        elif isinstance(node, ast.Call) and _dotted(node.func) == ["step"]:
            node.keywords = [one for one in node.keywords if one.arg == "version"]
        return node


def _statements(node: ast.stmt | ast.Module) -> list[ast.stmt]:
    return node.body if isinstance(node, ast.Module) else [node]


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """The definitions of a module by name: a class without its methods, which follow as `class.method`."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{one.name}", one) for one in node.body if isinstance(one, ast.FunctionDef))
            node.body = [one for one in node.body if not isinstance(one, ast.FunctionDef)]
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, node
        elif not isinstance(node, ast.Import | ast.ImportFrom):
            targets = getattr(node, "targets", [getattr(node, "target", node)])  # of an assignment; else all names
            names = {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
            yield from ((name, node) for name in sorted(names))


def _imports(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """What imported names of the package stand for, {"digest": "dprlens.cache.artifacts.digest"}."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            found |= {one.asname or PACKAGE: one.name if one.asname else PACKAGE for one in node.names}
    return found


def _version(node: ast.AST) -> int | None:
    """The version of a cached step, None for other definitions."""
    for one in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
        if isinstance(one, ast.Call) and _dotted(one.func) == ["step"]:
            return ast.literal_eval(one.keywords[0].value)
    return None


def _own_names(node: ast.AST) -> Iterator[str]:
    """A function's parameters and variables, which are not the module's names; those of inner scopes left out."""
    waiting = [node.args, *node.body] if isinstance(node, ast.FunctionDef) else []
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.arg):
            yield part.arg
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id
        elif not isinstance(part, SCOPES):
            waiting += ast.iter_child_nodes(part)


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree, and those of the annotations that are written as strings."""
    for part in ast.walk(node):
        yield part
        for field in ("annotation", "returns"):
            text = getattr(getattr(part, field, None), "value", None)
            if isinstance(text, str):
                yield from ast.walk(ast.parse(text, mode="eval"))


def _dotted(node: ast.AST) -> list[str]:
    """["steps", "vectors"] of `steps.vectors`; empty for what begins with anything but a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if not isinstance(node, ast.Attribute):
        return []
    before = _dotted(node.value)
    return [*before, node.attr] if before else []


def _written(node: object) -> str:
    """A syntax tree as text, which is the same in all versions of Python (that of `ast.dump` is not)."""
    if isinstance(node, list):
        return f"[{' '.join(map(_written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    kept = [(name, value) for name, value in ast.iter_fields(node) if name not in LEFT_OUT]
    fields = [f"{name}={_written(value)}" for name, value in kept if value is not None and value != []]
    return f"{type(node).__name__}({' '.join(fields)})"


def _content(path: Path) -> str:
    """What a data file says; of a TOML file without its comments, in the order of its entries."""
    text = path.read_text(encoding="utf-8")
    return json.dumps(tomllib.loads(text)) if path.suffix == ".toml" else text


def _hash(text: str, digits: int = 8) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
