"""The notebooks of the book: where they are, in which order they run, which parameters they take.

A notebook's metadata may have `"dprlens": {"after": [names]}`: the notebooks to run before it. Its cell tagged
`parameters` has lines `name: type = default  # help`, where a type is str, int, float, bool, None, `tuple[…]` or
`list[…]` of types, and unions of these with `|`. Papermill hands both tuples and lists over as lists.

The help of a number begins with the range that it may have, in brackets: `[0 to 9]`, `[1 or more]`, `[above 0]` or
`[above 0 to 1]`; that of a choice with its words: `[cls or mean]`. Of a list this is said of each item, and no item may
come twice; `[5 of above 0 to 1]` says how many items there must be. None may always be given where the type allows it.
"""

import ast
import contextlib
import difflib
import graphlib
import io
import json
import math
import re
import statistics
import tokenize
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

LONGEST_CELL, LONGEST_FUNCTION = 25, 8  # lines
LONGEST_NOTEBOOK, MEDIAN_CELL = 200, 6  # lines of code; parameters and sentences are not counted
NEEDS_A_KERNEL = {"interact", "interact_manual", "interactive", "interactive_output", "Output"}  # these hang papermill
RANGE = re.compile(r"\[([^\]]+)\] *")
SCALARS = {"str": str, "int": int, "float": float, "bool": bool}


class Mistake(ValueError):
    """Something the caller can put right; one sentence says what came, what is accepted, what to do."""


class Parameter(NamedTuple):
    """A line of a notebook's parameters cell."""

    name: str
    type: str  # as annotated
    default: Any  # a literal
    help: str  # range included

    @property
    def range(self) -> str:
        """What stands in brackets at the beginning of the help: "0 to 9"; "" if nothing does."""
        found = RANGE.match(self.help)
        return found[1] if found else ""

    def check_range(self, value: Any) -> None:
        """Raises ValueError if the value, which is of the type, is outside the range; says what would be inside."""
        if value is None or not self.range:
            return
        count, _, each = self.range.rpartition(" of ")
        several = isinstance(value, tuple | list)
        items = list(value) if several else [value]
        if several and (not items or (count and len(items) != int(count))):
            raise ValueError(f"give {f'{count} values' if count else 'one or more values'}")
        if several and len({repr(item) for item in items}) < len(items):
            raise ValueError("give each value once")
        if wrong := [item for item in items if not _within(item, each)]:
            raise ValueError(f"give {each}" + f", not {wrong[0]!r}" * several)


class Notebook(NamedTuple):
    """A notebook of the book, as its source describes it."""

    name: str
    path: Path
    title: str
    after: tuple[str, ...]
    exhibits: tuple[str, ...]
    parameters: tuple[Parameter, ...]


def repository() -> Path:
    """The nearest folder from the current one upwards that has notebooks/; Mistake if there is none."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "notebooks").is_dir():
            return folder
    raise Mistake(f"there is no notebooks/ in {Path.cwd()} or above it: run this inside the repository")


def discover(folder: Path) -> list[Notebook]:
    """All notebooks in `folder`, each after those it depends on; Mistake for an unknown dependency or a cycle."""
    found = {path.stem: read(path) for path in sorted(folder.glob("*.ipynb"))}
    for notebook in found.values():
        for name in notebook.after:
            if name not in found:
                raise Mistake(
                    f"{notebook.name} is to run after {name!r}, which is no notebook{_closest(name, found)}:"
                    f" {_listed(found)}"
                )
    try:
        graphlib.TopologicalSorter({name: found[name].after for name in found}).prepare()
    except graphlib.CycleError as error:
        raise Mistake(
            f"these notebooks wait for each other: {', '.join(error.args[1])}; take one name out of an `after`"
        ) from None
    ordered: dict[str, Notebook] = {}
    while len(ordered) < len(found):  # by name as far as the dependencies allow
        name = next(n for n in found if n not in ordered and ordered.keys() >= set(found[n].after))
        ordered[name] = found[name]
    return list(ordered.values())


def read(path: Path) -> Notebook:
    """One notebook's name, title, dependencies and parameters."""
    content = load(path)
    known = content.get("metadata", {}).get("dprlens", {})
    prose = "\n".join(source(cell) for cell in content["cells"] if cell["cell_type"] == "markdown")
    titles = [line.removeprefix("# ") for line in prose.splitlines() if line.startswith("# ")]
    return Notebook(
        path.stem,
        path,
        titles[0] if titles else path.stem,
        tuple(known.get("after", ())),
        tuple(known.get("exhibits", ())),
        tuple(_parameters(content, path.stem)),
    )


def load(path: Path) -> dict:
    """The notebook's JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["nbformat"] == 4 and isinstance(content["cells"], list):
            return content
    except FileNotFoundError:
        raise Mistake(f"there is no notebook {path}") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise Mistake(f"{path} is not a notebook in format 4: restore it from git")


def source(cell: dict) -> str:
    """Return the source of a cell as one text."""
    return "".join(cell["source"])


def tags(cell: dict) -> list[str]:
    """Return the tags of a cell."""
    return cell.get("metadata", {}).get("tags", [])


def find(name: str, notebooks: Collection[Notebook]) -> Notebook:
    """The notebook called `name`, or the only one whose name begins so, or the one at that path."""
    wanted = Path(name).stem if name.endswith(".ipynb") else name
    fitting = [n for n in notebooks if n.name == wanted] or [n for n in notebooks if n.name.startswith(wanted)]
    if len(fitting) == 1:
        return fitting[0]
    names = [n.name for n in fitting or notebooks]
    if fitting:
        raise Mistake(f"{name!r} begins the names of several notebooks: {_listed(names)}; write more of it")
    raise Mistake(f"there is no notebook {name!r}{_closest(name, names)}: {_listed(names)}")


# parameters


def _parameters(content: dict, name: str) -> Iterator[Parameter]:
    for cell in content["cells"]:
        if cell["cell_type"] == "code" and "parameters" in tags(cell):
            text = source(cell)
            try:
                lines = ast.parse(text).body
            except SyntaxError as error:
                raise Mistake(
                    f"the parameters cell of {name} is not Python (line {error.lineno}: {error.msg})"
                ) from None
            tokens = tokenize.generate_tokens(io.StringIO(text).readline)
            helps = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
            for line in lines:
                own = range(
                    line.lineno, (line.end_lineno or line.lineno) + 1
                )  # the formatter may have put the value into brackets
                yield _parameter(line, next((helps[n] for n in own if n in helps), ""), name)


def _parameter(line: ast.stmt, help_: str, name: str) -> Parameter:
    with contextlib.suppress(ValueError, TypeError):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None:
            default = ast.literal_eval(line.value)
            fit(line.annotation, default)
            parameter = Parameter(line.target.id, ast.unparse(line.annotation), default, help_)
            parameter.check_range(default)
            return parameter
    raise Mistake(
        f"the parameters cell of {name} has the line `{ast.unparse(line)}`: write `name: type = default  # help`"
        " with a literal default of that type, the type made from str, int, float, bool, None, tuple[…], list[…],"
        " |; a range in brackets before the help is `0 to 9`, `1 or more`, `above 0`, `above 0 to 1` or words"
    )


def fit(annotation: ast.expr, value: Any) -> Any:
    """`value` as the annotated type, an int standing for a float too, a list for a tuple; ValueError if it is not."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            try:
                return fit(left, value)
            except ValueError:
                return fit(right, value)
        case ast.Constant(value=None) if value is None:
            return None
        case ast.Name(id="float") if type(value) in (int, float) and math.isfinite(value):
            return float(value)
        case ast.Name(id=name) if name in SCALARS and name != "float" and type(value) is SCALARS[name]:
            return value
        case ast.Subscript(value=ast.Name(id="tuple" | "list" as kind), slice=inner) if isinstance(value, tuple | list):
            kinds = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if kind == "list" or (isinstance(kinds[-1], ast.Constant) and kinds[-1].value is ...):
                kinds = [kinds[0]] * len(value)
            return [fit(one, item) for one, item in zip(kinds, value, strict=True)]
    raise ValueError(f"{value!r} is not {ast.unparse(annotation)}")


def _within(value: Any, told: str) -> bool:
    """Is a value within a range, or one of its words? ValueError for a range that is not written as it should be."""
    if isinstance(value, str):
        return value in re.split(r", | or ", told)
    number = r"-?[\d,]+(?:\.\d+)?"
    found = re.fullmatch(rf"(above )?({number})(?: (or more)| to ({number}))?", told)
    if found is None or bool(found[1]) + bool(found[3]) + bool(found[4]) == 0 or (found[1] and found[3]):
        raise ValueError(f"[{told}] is no range")
    least, most = float(found[2].replace(",", "")), float((found[4] or "inf").replace(",", ""))
    return (value > least if found[1] else value >= least) and value <= most


def parse(notebook: Notebook, texts: Mapping[str, str]) -> dict:
    """Values typed on a command line: read as a literal where that fits the parameter's type, else as plain text."""
    types = {parameter.name: ast.parse(parameter.type, mode="eval").body for parameter in notebook.parameters}
    values = {}
    for name, text in texts.items():
        try:
            values[name] = ast.literal_eval(text)
            fit(types[name], values[name])
        except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
            try:
                values[name] = fit(types[name], text)
            except (ValueError, KeyError):
                values.setdefault(name, text)
    return values


def check(notebook: Notebook, values: Mapping[str, object]) -> dict:
    """The values as the notebook's types want them; Mistake for an unknown parameter, a wrong type or profile."""
    known = {parameter.name: parameter for parameter in notebook.parameters}
    takes = ", ".join(f"{p.name}: {p.type}" for p in known.values()) or "none"
    checked = {}
    for name, value in values.items():
        if name not in known:
            raise Mistake(f"{notebook.name} has no parameter {name!r}{_closest(name, known)}: it takes {takes}")
        wanted = known[name].type
        try:
            checked[name] = fit(ast.parse(wanted, mode="eval").body, value)
        except ValueError:
            raise Mistake(
                f"the parameter {name} of {notebook.name} is {wanted}, but {value!r} ({type(value).__name__}) came:"
                f" give a value of that type, such as the default {known[name].default!r}"
            ) from None
        try:
            known[name].check_range(checked[name])
        except ValueError as wrong:
            raise Mistake(f"the parameter {name} of {notebook.name} cannot be {value!r}: {wrong}") from None
    if "profile" in checked:
        check_profile(checked["profile"])
    return checked


def check_profile(profile: str) -> None:
    """Raise Mistake for a profile that does not exist."""
    from dprlens.profile import PROFILES  # here, since `check` and `serve` need no profile

    if profile not in PROFILES:
        raise Mistake(f"there is no profile {profile!r}{_closest(profile, PROFILES)}: {_listed(PROFILES)}")


def _closest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _listed(names: Collection[str]) -> str:
    return f"choose from {', '.join(names)}" if names else "there are none"


# the rules for sources


def problems(path: Path) -> Iterator[str]:
    """What in a notebook's source breaks the book's rules, one line each."""
    content = load(path)
    metadata = content.get("metadata", {})
    if metadata.get("kernelspec", {}).get("name") != "python3":
        yield "its kernelspec is not python3"
    if "name" not in metadata.get("language_info", {}):
        yield "it has no language_info, without which the book does not render"
    if "widgets" in metadata or "papermill" in metadata:
        yield "it holds the state of a run: clear its outputs"
    parameters = [n for n, cell in enumerate(content["cells"], start=1) if "parameters" in tags(cell)]
    if len(parameters) != 1:
        yield f"it has {len(parameters)} cells tagged parameters instead of one"
    elif "profile" not in {parameter.name for parameter in read(path).parameters}:
        yield "its parameters cell does not declare `profile: str`"
    else:
        for parameter in read(path).parameters:
            if not parameter.range and re.search(r"\b(int|float)\b", parameter.type):
                yield f"its parameter {parameter.name} does not say its range: begin its help as `[0 or more]`"
    for n, cell in enumerate(content["cells"], start=1):
        if "id" not in cell:
            yield f"cell {n} has no id (save the notebook in format 4.5), so that two runs would differ"
        if cell["cell_type"] == "code":
            if cell["outputs"] or cell["execution_count"]:
                yield f"cell {n} holds outputs: clear them"
            for problem in _code_problems(source(cell), live="live-only" in tags(cell)):
                yield f"cell {n} {problem}"
    lines = [
        sum(bool(line.strip()) for line in source(cell).splitlines())
        for cell in content["cells"]
        if cell["cell_type"] == "code" and not {"parameters", "prose"} & {*tags(cell)}
    ]
    if sum(lines) > LONGEST_NOTEBOOK:
        yield f"it has {sum(lines)} lines of code, more than {LONGEST_NOTEBOOK}: move the work into its chapter"
    if lines and statistics.median(lines) > MEDIAN_CELL:
        yield f"half of its cells of code have more than {MEDIAN_CELL} lines: move the work into its chapter"


def _code_problems(text: str, live: bool) -> Iterator[str]:
    lines = len(text.splitlines())
    if lines > LONGEST_CELL:
        yield f"has {lines} lines, more than {LONGEST_CELL}: move the work into the library"
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError as error:
        yield f"is not plain Python (line {error.lineno}: {error.msg})"
        return
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            yield f"defines the class {node.name}: classes belong in the library"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"defines {node.name} in {length} lines, more than {LONGEST_FUNCTION}: move it into the library"
        used = getattr(node, "id", None) or getattr(node, "attr", None)
        used = node.name if isinstance(node, ast.alias) else used
        if used in NEEDS_A_KERNEL and not live:
            yield f"uses {used}, which hangs a run without a browser: tag the cell live-only or use jslink"
