"""The runner: notebooks written here are found, ordered, checked, run, compared and rendered."""

import concurrent.futures
import json
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pytest

import dprlens
from dprlens.book import build as book_module
from dprlens.book import execution
from dprlens.book._results import Difference, compare_results
from dprlens.book.build import book, run_one
from dprlens.book.execution import Hung, RunFailed, execute, normalise, what_is_wrong
from dprlens.book.notebooks import Mistake, Parameter, check, discover, find, parse, problems, read
from dprlens.book.render import RenderFailed, parameters_page, render, tree_digest

LIB = Path(dprlens.__file__).parents[1]
PARAMETERS = """
profile: str = "tiny"  # tiny, small or full
seed: int = 0  # [-9 to 9] all random choices
threshold: float | None = None  # [0 or more] share of the greatest | attribution <0 to 1>; None = the profile's
layers: tuple[int, ...] = (0, 1)  # [0 to 9]
fast: bool = False
""".strip()
STEP = """
from dprlens.cache import artifacts, events

@artifacts.step(version=1)
def count(n: int) -> dict:
    return {"n": sum(1 for _ in events.progress(range(n), "counting"))}

print(count(3)["n"], flush=True); print(seed)
""".strip()
WIDGET = """
import ipywidgets as w

slider = w.IntSlider(max=1)
stack = w.Stack([w.HTML("one"), w.HTML("two")])
link = w.jslink((slider, "value"), (stack, "selected_index"))
w.VBox([slider, stack])
""".strip()
RESULTS = """
import json, os, pathlib
out = pathlib.Path(os.environ["DPRLENS_RESULTS"]) / profile / "00_world.json"
out.parent.mkdir(parents=True, exist_ok=True)
world = {"maker": "closed", "digest": "3f6c0d9a51b7e824"}
number = {"ours": seed, "low": None, "high": None, "n": None}
exhibits = {"world": {"numbers": {"world.n": number}}}
done = out.write_text(json.dumps({"seed": seed, "world": world, "exhibits": exhibits}))
""".strip()


def cell(source: str, *tags: str) -> dict:
    made = {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
    made["metadata"] = {"tags": list(tags)} if tags else {}
    return made


def write(path: Path, *cells: str | dict, after=(), exhibits=(), parameters=PARAMETERS) -> Path:
    """A notebook with a title, a parameters cell and these cells."""
    heading = {"cell_type": "markdown", "metadata": {}, "source": f"# The {path.stem}"}
    every = [heading, cell(parameters, "parameters"), *(cell(c) if isinstance(c, str) else c for c in cells)]
    content = {
        "cells": [{**one, "id": f"cell-{n}"} for n, one in enumerate(every)],
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
            "dprlens": {"after": list(after), "exhibits": list(exhibits)},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def make_repository(root: Path) -> Path:
    """A small book of two notebooks, with a library file that only matters as content."""
    write(root / "notebooks" / "00_world.ipynb", STEP, RESULTS, exhibits=["world"])
    write(root / "notebooks" / "01_widget.ipynb", WIDGET, after=["00_world"])
    (root / "book").mkdir()
    (root / "book" / "index.md").write_text("# Front\n\nHello.\n")
    pages = ["notebooks/00_world", "notebooks/01_widget", "book/parameters"]
    chapters = "".join(f"- file: {page}\n" for page in pages)
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{chapters}")
    (root / "_config.yml").write_text(
        "title: test\nexecute:\n  execute_notebooks: 'off'\nonly_build_toc_files: true\n"
        "parse:\n  myst_enable_extensions: [colon_fence, dollarmath]\n"
    )
    (root / "lib" / "dprlens").mkdir(parents=True)
    (root / "lib" / "dprlens" / "module.py").write_text("x = 1\n")
    (root / "constraints.txt").write_text("numpy==2.4.6\n")
    return root


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """Profiles of our own, and kernels that find this library."""
    profiles = types.SimpleNamespace(PROFILES={"tiny": 1, "small": 2, "full": 3})
    monkeypatch.setitem(sys.modules, "dprlens.profile", profiles)
    monkeypatch.setenv("PYTHONPATH", str(LIB))
    monkeypatch.delenv("DPRLENS_CACHE", raising=False)


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path)


# finding, ordering


def test_order_is_by_name_as_far_as_dependencies_allow(tmp_path):
    write(tmp_path / "00_b.ipynb", after=["02_a"])
    write(tmp_path / "01_c.ipynb")
    write(tmp_path / "02_a.ipynb")
    assert [notebook.name for notebook in discover(tmp_path)] == ["01_c", "02_a", "00_b"]


def test_unknown_dependency_and_cycle_are_one_sentence(tmp_path):
    write(tmp_path / "00_world.ipynb", after=["01_b"])
    with pytest.raises(
        Mistake, match=r"^00_world is to run after '01_b', which is no notebook.*: choose from 00_world$"
    ):
        discover(tmp_path)
    write(tmp_path / "01_b.ipynb", after=["00_world"])
    with pytest.raises(Mistake, match=r"wait for each other: .*00_world.*01_b|01_b.*00_world"):
        discover(tmp_path)


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"nbformat": 3, "cells": []}', "\x00\x01"])
def test_a_broken_notebook_is_one_sentence(tmp_path, content):
    (tmp_path / "00_x.ipynb").write_text(content)
    with pytest.raises(Mistake, match=r"00_x.ipynb is not a notebook in format 4: restore it from git"):
        discover(tmp_path)


def test_find_by_name_beginning_or_path(tmp_path):
    for name in ("00_world", "04_1_add", "04_2_remove"):
        write(tmp_path / f"{name}.ipynb")
    found = discover(tmp_path)
    for name in ("00", "00_world", "notebooks/00_world.ipynb"):
        assert find(name, found).name == "00_world"
    with pytest.raises(Mistake, match="'04' begins the names of several notebooks: choose from 04_1_add, 04_2_remove"):
        find("04", found)
    with pytest.raises(Mistake, match=r"no notebook '04_1_ad_' \(did you mean '04_1_add'\?\): choose from 00_world"):
        find("04_1_ad_", found)


# parameters


def test_parameters_are_read_with_type_default_and_help(tmp_path):
    notebook = read(write(tmp_path / "00_world.ipynb"))
    assert notebook.title == "The 00_world"
    assert notebook.parameters == (
        Parameter("profile", "str", "tiny", "tiny, small or full"),
        Parameter("seed", "int", 0, "[-9 to 9] all random choices"),
        Parameter(
            "threshold",
            "float | None",
            None,
            "[0 or more] share of the greatest | attribution <0 to 1>; None = the profile's",
        ),
        Parameter("layers", "tuple[int, ...]", (0, 1), "[0 to 9]"),
        Parameter("fast", "bool", False, ""),
    )


@pytest.mark.parametrize(
    "line", ["seed = 0", "seed: int = f()", "seed: int = 'x'", "seed: int", "import os", "x: Foo = 1", "x: int = True"]
)
def test_a_bad_parameters_cell_is_one_sentence(tmp_path, line):
    with pytest.raises(Mistake, match=r"the parameters cell of 00_x has the line `.*`: write `name: type = default"):
        read(write(tmp_path / "00_x.ipynb", parameters=line))


RANGES = """profile: str = "tiny"
k: int = 20  # [1 to 1,000] counted
rate: float | None = None  # [above 0 to 1] of learning
shares: list[float] | None = (
    None  # [2 of above 0 to 1] of the greatest
)
layers: list[int] = [1, 2]  # [0 or more] shown
heat: float = 1.5  # [above 0] of choices
pooling: str = "cls"  # [cls, max or mean] of states"""


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("k", "0", "give 1 to 1,000"),
        ("k", "-1", "give 1 to 1,000"),
        ("k", "1001", "give 1 to 1,000"),
        ("rate", "0", "give above 0 to 1"),
        ("rate", "1.01", "give above 0 to 1"),
        ("shares", "[0.5]", "give 2 values"),
        ("shares", "[0.5, 0]", "give above 0 to 1, not 0.0"),
        ("layers", "[]", "give one or more values"),
        ("layers", "[3, 3]", "give each value once"),
        ("layers", "[3, -1]", "give 0 or more, not -1"),
        ("heat", "0", "give above 0"),
        ("pooling", "min", "give cls, max or mean"),
    ],
)
def test_values_outside_their_range_are_refused_before_anything_runs(tmp_path, name, text, wanted):
    notebook = read(write(tmp_path / "00.ipynb", parameters=RANGES))
    with pytest.raises(Mistake, match=f"the parameter {name} of 00 cannot be .*: {wanted}"):
        check(notebook, parse(notebook, {name: text}))


def test_values_inside_their_range_are_taken(tmp_path):
    notebook = read(write(tmp_path / "00.ipynb", parameters=RANGES))
    for name, text in [("k", "1"), ("k", "1000"), ("rate", "1"), ("rate", "None"), ("shares", "[1, 0.1]")]:
        check(notebook, parse(notebook, {name: text}))
    for name, text in [("layers", "[0, 999]"), ("heat", "1e9"), ("pooling", "max"), ("pooling", "cls")]:
        check(notebook, parse(notebook, {name: text}))
    assert notebook.parameters[3].help == "[2 of above 0 to 1] of the greatest"


def test_a_number_without_a_range_breaks_a_rule(tmp_path):
    lines = 'profile: str = "tiny"\nx: int | None = 1  # counted\nname: str = "a"\nfast: bool = True'
    (found,) = problems(write(tmp_path / "00.ipynb", parameters=lines))
    assert found == "its parameter x does not say its range: begin its help as `[0 or more]`"


@pytest.mark.parametrize("range_", ["1 too 3", "3", "above 1 or more", "lots"])
def test_a_range_that_cannot_be_read_and_a_default_outside_are_one_sentence(tmp_path, range_):
    for line in (f"k: int = 1  # [{range_}] counted", "k: int = 0  # [1 to 3] counted"):
        with pytest.raises(Mistake, match="a range in brackets before the help"):
            read(write(tmp_path / "00.ipynb", parameters=line))


def test_numbers_of_the_book_say_their_range():
    """… and what was refused too late once is refused before anything runs."""
    folder = Path(__file__).parents[2] / "notebooks"
    found = {notebook.name: notebook for notebook in discover(folder)}
    cases = [(name, "seed", value) for name in found for value in (-1, 10**30)]
    cases += [("01", "top_k", value) for value in (0, 101, 500)]
    cases += [("02", "n_passages", value) for value in ([6], [], [1], [2, 2])]
    cases += [("02", "layers", [-1]), ("03", "threshold", 0.0), ("03", "maximum", "none"), ("04_1", "facts", 0)]
    cases += [("A_2", "thresholds", value) for value in ([0.1], [0.1, 0.2, 0.3, 0.4, 2.0])]
    cases += [("B_1", "top_k", 0), ("B_2", "late_rate", 0.0), ("00", "held_out", 1.5), ("explorer", "top", 0)]
    for name, parameter, value in cases:
        with pytest.raises(Mistake, match=f"the parameter {parameter} of .* cannot be"):
            check(find(name, found.values()), {parameter: value})


def test_values_as_typed_take_the_annotated_type(tmp_path):
    notebook = read(write(tmp_path / "00_world.ipynb"))
    for name, text, value in [
        ("seed", "3", 3),
        ("seed", "-3", -3),
        ("threshold", "1", 1.0),
        ("threshold", "2e-1", 0.2),
        ("threshold", "None", None),
        ("layers", "[1, 2, 3]", [1, 2, 3]),
        ("layers", "(4,)", [4]),
        ("fast", "True", True),
    ]:
        got = check(notebook, parse(notebook, {name: text}))[name]
        assert (got, type(got)) == (value, type(value))
    strings = read(write(tmp_path / "01.ipynb", parameters="name: str = ''\nmaybe: str | None = None"))
    assert parse(strings, {"name": "3", "maybe": "None"}) == {"name": "3", "maybe": None}


@pytest.mark.parametrize(
    ("name", "text", "came"),
    [
        ("seed", "three", r"is int, but 'three' \(str\) came: give a value of that type, such as the default 0"),
        ("seed", "True", r"is int, but True \(bool\) came"),
        ("seed", "1.5", r"is int, but 1.5 \(float\) came"),
        ("threshold", "True", r"is float \| None, but True \(bool\) came"),
        ("threshold", "nan", r"is float \| None, but 'nan' \(str\) came"),
        ("threshold", "1e999", r"is float \| None, but inf \(float\) came"),
        ("layers", "[1, 'x']", r"is tuple\[int, ...\], but \[1, 'x'\] \(list\) came"),
        ("fast", "1", r"is bool, but 1 \(int\) came"),
    ],
)
def test_ill_typed_values_are_one_sentence(tmp_path, name, text, came):
    notebook = read(write(tmp_path / "00_world.ipynb"))
    with pytest.raises(Mistake, match=f"^the parameter {name} of 00_world {came}"):
        check(notebook, parse(notebook, {name: text}))


def test_unknown_parameter_and_profile_are_one_sentence(tmp_path):
    notebook = read(write(tmp_path / "00_world.ipynb"))
    with pytest.raises(
        Mistake, match=r"00_world has no parameter 'sede' \(did you mean 'seed'\?\): it takes profile: str,"
    ):
        check(notebook, parse(notebook, {"sede": "1"}))
    with pytest.raises(Mistake, match=r"no profile 'smal' \(did you mean 'small'\?\): choose from tiny, small, full"):
        check(notebook, {"profile": "smal"})
    with pytest.raises(Mistake, match="no profile 'huge'"):
        book(tmp_path, "huge")


# the rules for sources


def test_a_good_source_breaks_no_rule(tmp_path):
    live = cell("import ipywidgets as w\nw.interact(print, x=3)", "live-only")
    assert list(problems(write(tmp_path / "00.ipynb", WIDGET, live, "def f(x):\n    return x"))) == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("x = 1\n" * 26, "cell 3 has 26 lines, more than 25: move the work into the library"),
        ("class A:\n    pass", "cell 3 defines the class A: classes belong in the library"),
        ("def f():\n" + "    x = 1\n" * 8, "cell 3 defines f in 9 lines, more than 8: move it into the library"),
        ("from ipywidgets import interact as i", "cell 3 uses interact, which hangs a run"),
        ("w.Output()", "cell 3 uses Output, which hangs a run"),
        ("w.interactive(print)", "cell 3 uses interactive, which hangs a run"),
        ("%matplotlib inline", "cell 3 is not plain Python (line 1:"),
        ({**cell("1"), "execution_count": 1}, "cell 3 holds outputs: clear them"),
        ({**cell("1"), "outputs": [{"output_type": "stream"}]}, "cell 3 holds outputs: clear them"),
        (cell("x: int = 1", "parameters"), "it has 2 cells tagged parameters instead of one"),
    ],
)
def test_each_rule_is_told_with_its_cell(tmp_path, source, problem):
    found = list(problems(write(tmp_path / "00.ipynb", source, "1", "2")))
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_a_notebook_that_computes_instead_of_choosing_is_named(tmp_path):
    long = write(tmp_path / "00.ipynb", *["x = 1\n" * 20, "f()", "f()"] * 10)
    assert list(problems(long)) == ["it has 220 lines of code, more than 200: move the work into its chapter"]
    wide = write(tmp_path / "00.ipynb", *["x = 1\n" * 7] * 3, cell("say(\n1)", "prose"))
    assert list(problems(wide)) == ["half of its cells of code have more than 6 lines: move the work into its chapter"]


def test_rules_for_the_metadata(tmp_path):
    path = write(tmp_path / "00.ipynb", parameters="seed: int = 0")
    content = json.loads(path.read_text())
    content["metadata"] = {"papermill": {}}
    del content["cells"][0]["id"]
    path.write_text(json.dumps(content))
    assert [problem[:30] for problem in problems(path)] == [
        "its kernelspec is not python3",
        "it has no language_info, witho",
        "it holds the state of a run: c",
        "its parameters cell does not d",
        "cell 1 has no id (save the not",
    ]


# was it really run?


def executed(outputs: list, count: int | None = 1, widgets: dict | None = None) -> dict:
    made = {**cell("f(1)"), "outputs": outputs, "execution_count": count}
    state = {"widgets": {execution.WIDGET_STATE: {"state": widgets}}} if widgets is not None else {}
    return {"cells": [made], "metadata": state, "nbformat": 4}


def test_hidden_faults_of_a_run_are_found():
    error = {"output_type": "error", "ename": "E", "evalue": "bad", "traceback": ["\x1b[31mline\x1b[0m", "E: bad"]}
    view = {"output_type": "display_data", "data": {execution.WIDGET_VIEW: {"model_id": "ab"}}}
    assert what_is_wrong(executed([])) == ""
    assert what_is_wrong(executed([view], widgets={"ab": {}})) == ""
    assert what_is_wrong(executed([], count=None)) == "cell 1 was never run"
    assert what_is_wrong(executed([error])) == "cell 1 stored an error\n  | f(1)\n  | …\n  | line\n  | E: bad"
    assert what_is_wrong(executed([view], widgets={})).startswith("cell 1 shows a widget whose state was not saved")
    assert what_is_wrong(executed([view])).startswith("cell 1 shows a widget whose state was not saved")


def test_printed_pieces_are_joined():
    pieces = [{"output_type": "stream", "name": name, "text": text} for name, text in
              [("stdout", "a"), ("stdout", ["b", "c"]), ("stderr", "d"), ("stdout", "e")]]  # fmt: skip
    outputs = normalise(executed(pieces))["cells"][0]["outputs"]
    assert [(output["name"], output["text"]) for output in outputs] == [
        ("stdout", "abc"),
        ("stderr", "d"),
        ("stdout", "e"),
    ]


# running, with a kernel


def run(path: Path, out: Path, limit: float = 60, **values) -> list[str]:
    """Execute with what a job would set; the notices."""
    notices = []
    execute(
        read(path), {"profile": "tiny", **values}, out, {"DPRLENS_EVENTS": str(out) + ".events"}, limit, notices.append
    )
    return notices


@pytest.mark.slow
def test_two_runs_are_byte_equal_and_hold_widget_state_and_values(tmp_path):
    path = write(tmp_path / "notebooks" / "00.ipynb", WIDGET, 'print(repr(threshold), layers, flush=True); print("x")')
    outs = [tmp_path / "a" / "00.ipynb", tmp_path / "b" / "00.ipynb"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        notices = list(pool.map(lambda out: run(path, out, threshold=1e-5, layers=(3, 4)), outs))
    assert notices == [[], []]
    assert outs[0].read_bytes() == outs[1].read_bytes()
    content = json.loads(outs[0].read_text())
    state = content["metadata"]["widgets"][execution.WIDGET_STATE]["state"]
    view = next(o["data"][execution.WIDGET_VIEW] for c in content["cells"] for o in c.get("outputs", ()) if "data" in o)
    assert view["model_id"] == f"{1:032x}"
    assert sorted(state) == [f"{n:032x}" for n in range(1, len(state) + 1)]
    inner = set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(state)))
    assert inner < set(state)
    assert [s["model_name"] for s in state.values()].count("LinkModel") == 1
    assert content["cells"][-1]["outputs"][0]["text"] == "1e-05 [3, 4]\nx\n"
    assert "papermill" not in outs[0].read_text()
    assert [p.name for p in outs[0].parent.iterdir() if p.name != "00.ipynb"] == []


@pytest.mark.slow
def test_a_failing_cell_is_told_with_its_number_source_and_error(tmp_path):
    path = write(
        tmp_path / "notebooks" / "00.ipynb", "x = 1", 'a = [1, 2]\nraise ValueError("only " + str(a))', "y = 2"
    )
    out = tmp_path / "out" / "00.ipynb"
    with pytest.raises(RunFailed) as caught:
        run(path, out)
    lines = str(caught.value).splitlines()
    assert lines[0] == "00 failed in cell 4"
    assert lines[1:4] == ["  | a = [1, 2]", '  | raise ValueError("only " + str(a))', "  | …"]
    assert lines[-2] == "  | ValueError: only [1, 2]"
    assert lines[-1] == f"  the half-run notebook is {tmp_path}/out/00.half-run.ipynb"
    assert (tmp_path / "out" / "00.half-run.ipynb").exists()
    assert not out.exists()


@pytest.mark.slow
def test_what_hangs_is_stopped_and_tried_once_more(tmp_path, monkeypatch):
    path = write(tmp_path / "notebooks" / "00.ipynb", "import time\ntime.sleep(60)")
    first = execution._papermill

    def second(_, __, draft, *___):
        draft.write_text(json.dumps(executed([])))

    def papermill(*arguments):
        monkeypatch.setattr(execution, "_papermill", second)
        first(*arguments)

    monkeypatch.setattr(execution, "_papermill", papermill)
    notices = run(path, tmp_path / "out.ipynb", limit=6)
    assert len(notices) == 1
    assert notices[0].startswith("00: a cell took more than 6 s in cell 3\n  | import time\n  | time.sleep(60)\n")
    assert notices[0].endswith("; trying once more")
    assert (tmp_path / "out.ipynb").exists()


def test_a_run_that_shows_nothing_is_not_kept_as_a_page(tmp_path, monkeypatch):
    view = {"output_type": "display_data", "data": {execution.WIDGET_VIEW: {"model_id": "ab"}}}

    def papermill(_, __, draft, *___):
        draft.write_text(json.dumps(executed([view])))

    monkeypatch.setattr(execution, "_papermill", papermill)
    with pytest.raises(RunFailed, match=r"(?s)^00: cell 1 shows a widget whose state.*kept in .*half-run\.ipynb$"):
        run(write(tmp_path / "00.ipynb"), tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()


def test_only_a_hang_is_tried_again_and_only_once(tmp_path, monkeypatch):
    tries = []
    notebook = read(write(tmp_path / "00.ipynb"))

    def fail_with(error):
        def papermill(*_):
            tries.append(error)
            raise error("said")

        monkeypatch.setattr(execution, "_papermill", papermill)
        with pytest.raises(error, match="said"):
            execute(notebook, {}, tmp_path / "out.ipynb", {}, 1, tries.append)

    fail_with(RunFailed)
    assert tries == [RunFailed]
    fail_with(Hung)
    assert tries[1:] == [Hung, "said; trying once more", Hung]


def test_the_outer_limit_ends_the_whole_family(tmp_path, monkeypatch):
    stuck = tmp_path / "stuck.py"
    stuck.write_text(
        "import subprocess, sys, time\nsubprocess.Popen(['sleep', '61'], start_new_session=True)\ntime.sleep(61)"
    )
    monkeypatch.setattr(execution, "START_SECONDS", 0)
    monkeypatch.setattr(execution.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{sys.base_exec_prefix}/bin/python3" {stuck}\n')
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(Hung, match="00 was stopped after 1 s"):
        execution._papermill(read(write(tmp_path / "00.ipynb")), {}, tmp_path / "o.ipynb", {}, 0.5)
    assert [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "61"]] == []


INTERRUPTED = """
import sys, types
sys.modules["dprlens.profile"] = types.SimpleNamespace(PROFILES={"tiny": 1})
from dprlens.cli import main
sys.exit(main(["book", "--profile", "tiny"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 3])  # impatient people press it again, and `timeout` passes it on as well
def test_ctrl_c_ends_everything_and_says_what_is_kept(times, tmp_path):
    ready = tmp_path / "ready"
    write(
        tmp_path / "notebooks" / "00.ipynb",
        f"import pathlib, time\npathlib.Path({str(ready)!r}).touch()\ntime.sleep(600)",
    )
    runner = subprocess.Popen([sys.executable, "-c", INTERRUPTED], cwd=tmp_path, text=True, stderr=subprocess.PIPE)
    end = time.monotonic() + 120  # for a kernel to start, on however busy a machine
    while not ready.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    family = psutil.Process(runner.pid).children(recursive=True)
    assert len(family) >= 2, "papermill and its kernel"
    for _ in range(times):
        runner.send_signal(signal.SIGINT)
        time.sleep(0.03)
    _, said = runner.communicate(timeout=120)
    assert runner.returncode == 130
    assert "interrupted; finished notebooks and steps are kept, the same command goes on" in said
    assert "Traceback" not in said
    assert [process for process in family if process.is_running()] == []


# the book, with a kernel and a renderer


@pytest.mark.slow
def test_a_book_from_nothing_then_nothing_to_do(repository, capsys, monkeypatch):
    book(repository, "tiny")
    said = capsys.readouterr().out
    build = repository / "_build" / "tiny"
    assert re.search(r"\[ +\d+ s\] 00_world: count made in \d+\.\d s\n", said)
    assert re.search(r"00_world: done in \d+ s; made count; results are new\n", said)
    assert re.search(r"01_widget: done in \d+ s; no results\n", said)
    assert said.index("00_world: done") < said.index("01_widget: started")
    assert said.endswith(f"open file://{build}/html/index.html\n")
    assert (build / "html" / "index.html").exists()
    cells = json.loads((build / "notebooks" / "00_world.ipynb").read_text())["cells"]
    printed = [o for c in cells for o in c.get("outputs", ())]
    assert printed == [{"name": "stdout", "output_type": "stream", "text": "3\n0\n"}], "no progress bar in the page"
    assert (repository / "artifacts").is_dir()
    runs = json.loads((build / "runs.json").read_text())
    assert runs["00_world"]["steps"]["count"]["state"] == "made"
    assert runs["00_world"]["seconds"] > 0
    page = (build / "html" / "book" / "parameters.html").read_text()
    assert "share of the greatest | attribution &lt;0 to 1&gt;; None = the profile’s" in page
    assert "widget-state+json" in (build / "html" / "notebooks" / "01_widget.html").read_text()

    monkeypatch.setattr(book_module, "execute", None)  # a call would be an error
    began = time.process_time()
    book(repository, "tiny")
    assert time.process_time() - began < 2
    said = capsys.readouterr().out
    assert "00_world: up to date\n01_widget: up to date\n" in said
    assert "the rendered book is up to date" in said


# the book's decisions, with a notebook run replaced by a copy


@pytest.fixture
def light(repository, monkeypatch):
    """`book` without kernels and renderer: returns the repository and the list of what was run."""
    ran = []
    behaviour = {"numbers": {"world.n": {"ours": 1.0, "low": 0.8, "high": 1.2}}}

    def execute(notebook, values, out, environment, *_):
        ran.append(notebook.name)
        path = Path(environment["DPRLENS_RESULTS"]) / values["profile"] / f"{notebook.name}.json"
        if notebook.exhibits and behaviour["numbers"] is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"exhibits": {"world": {"numbers": behaviour["numbers"]}}}))
        if behaviour.get("slow") == notebook.name:
            time.sleep(0.5)
        if behaviour.get("fail") == notebook.name:
            raise RunFailed(f"{notebook.name} failed in cell 3")
        out.write_text(notebook.path.read_text())

    monkeypatch.setattr(book_module, "execute", execute)
    monkeypatch.setattr(book_module, "render", lambda *_: True)
    return repository, ran, behaviour


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@pytest.mark.parametrize(
    ("change", "rerun"),
    [
        (Path.exists, []),
        (lambda root: append(root / "notebooks/01_widget.ipynb", " "), ["01_widget"]),
        (lambda root: append(root / "lib/dprlens/module.py", "y = 2\n"), ["00_world", "01_widget"]),
        (lambda root: append(root / "constraints.txt", "x==1\n"), ["00_world", "01_widget"]),
        (lambda root: append(root / "_build/tiny/notebooks/01_widget.ipynb", " "), ["01_widget"]),
        (lambda root: (root / "_build/tiny/notebooks/00_world.ipynb").unlink(), ["00_world"]),
        (lambda root: append(root / "results/tiny/00_world.json", " "), ["00_world"]),
        (lambda root: (root / "results/tiny/00_world.json").unlink(), ["00_world"]),
        (lambda root: (root / "_build/tiny/stamps/00_world.json").unlink(), ["00_world"]),
        (lambda root: (root / "_build/tiny/stamps/00_world.json").write_text(""), ["00_world"]),
    ],
)
def test_only_what_is_stale_is_run_again(light, change, rerun):
    root, ran, _ = light
    book(root, "tiny")
    assert ran == ["00_world", "01_widget"]
    change(root)
    ran.clear()
    book(root, "tiny")
    assert sorted(ran) == rerun
    ran.clear()
    book(root, "small")
    assert len(ran) == 2, "another profile is another book"


def test_in_the_real_setting_what_is_in_the_data_folder_counts(light, tmp_path, monkeypatch):
    root, ran, _ = light
    monkeypatch.setattr(book_module, "REAL", "full")  # of the profiles that are here
    monkeypatch.setenv("DPRLENS_DATA", str(data := tmp_path / "data"))
    (data / "stores" / "pool").mkdir(parents=True)
    (data / "psgs_w100.tsv").write_text("id\ttext\ttitle\n")
    for place, rerun in ((None, 2), (None, 0), ("profile.toml", 2), ("stores/pool/made.json", 0), (None, 0)):
        if place is not None:
            (data / place).write_text("x")
        ran.clear()
        book(root, "full")
        assert len(ran) == rerun, place


def test_results_are_compared_with_what_was_there(light, capsys):
    root, _, behaviour = light
    results = root / "results" / "tiny" / "00_world.json"

    def rerun(low=0.8, high=1.2, **number):
        behaviour["numbers"] = {"world.n": {"low": low, "high": high, **number}}
        append(root / "constraints.txt", "#\n")
        book(root, "tiny")
        return capsys.readouterr().out

    assert "results are new" in rerun(ours=1.0)
    assert "results same as before, byte for byte" in rerun(ours=1.0)
    assert "results changed, but none by more than noise, and no verdict turned" in rerun(ours=1.19)
    said = rerun(ours=0.4, low=0.3, high=0.5)
    assert (
        "1 results MOVED (by more than noise; verdicts that turned first):\n    world.n: 1.19 before, 0.4 now" in said
    )
    assert json.loads(results.read_text())["exhibits"]["world"]["numbers"]["world.n"]["ours"] == 0.4


def test_a_failure_restores_the_results_and_starts_nothing_that_waits(light, capsys):
    root, ran, behaviour = light
    committed = root / "results" / "tiny" / "00_world.json"
    committed.parent.mkdir(parents=True)
    committed.write_text('{"exhibits": {}}')
    behaviour["fail"] = "00_world"
    with pytest.raises(RunFailed, match="00_world failed in cell 3"):
        book(root, "tiny")
    assert ran == ["00_world"]
    assert committed.read_text() == '{"exhibits": {}}'
    assert "00_world: FAILED after 0 s" in capsys.readouterr().out
    committed.unlink()
    with pytest.raises(RunFailed):
        book(root, "tiny")
    assert not committed.exists()


def test_after_a_failure_nothing_new_is_started_but_what_runs_is_finished(light):
    root, ran, behaviour = light
    for name in ("02_slow", "03_never"):
        write(root / "notebooks" / f"{name}.ipynb")
    behaviour.update(fail="00_world", slow="02_slow")
    with pytest.raises(RunFailed):
        book(root, "tiny")
    assert sorted(ran) == ["00_world", "02_slow"]
    assert (root / "_build" / "tiny" / "stamps" / "02_slow.json").exists()


def test_promised_results_that_were_not_written_are_a_failure(light):
    root, _, behaviour = light
    book(root, "tiny")
    behaviour["numbers"] = None  # the old file lies there, but this run writes none
    append(root / "constraints.txt", "#\n")
    with pytest.raises(RunFailed, match=r"00_world ran, but wrote no results to .*00_world\.json: it promises world"):
        book(root, "tiny")


def test_a_promised_exhibit_that_was_not_reported_is_a_failure(light):
    root, _, _ = light
    write(root / "notebooks" / "00_world.ipynb", STEP, RESULTS, exhibits=["world", "dose"])
    with pytest.raises(RunFailed, match="00_world ran, but did not report dose: report each exhibit"):
        book(root, "tiny")


def test_a_second_book_waits_for_the_first(light, capsys):
    root, ran, _ = light
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with book_module._alone(root / "_build" / "tiny" / ".lock"):
            second = pool.submit(book, root, "tiny")
            time.sleep(0.3)
            assert not second.done()
            assert ran == []
        second.result(timeout=120)
    assert ran == ["00_world", "01_widget"]
    assert "another run is building this profile; waiting for it" in capsys.readouterr().out


def test_two_independent_notebooks_run_at_once_and_a_third_waits(tmp_path, monkeypatch):
    alive, most = [], []

    def execute(notebook, _, out, *__):
        alive.append(notebook.name)
        most.append(len(alive))
        time.sleep(0.2)
        alive.remove(notebook.name)
        out.write_text("")

    monkeypatch.setattr(book_module, "execute", execute)
    monkeypatch.setattr(book_module, "render", lambda *_: True)
    for n in range(3):
        write(tmp_path / "notebooks" / f"0{n}.ipynb")
    book(tmp_path, "tiny")
    assert max(most) == 2
    assert len(most) == 3


def test_run_one_leaves_the_book_alone(light, capsys):
    root, ran, _ = light
    notebook = find("00", discover(root / "notebooks"))
    run_one(root, notebook, {"seed": "3"}, None)
    run_one(root, notebook, {"seed": "4"}, root / "mine.ipynb")
    assert ran == ["00_world", "00_world"]
    assert not (root / "results").exists()
    assert (root / "_build" / "results" / "tiny" / "00_world.json").exists()
    assert (root / "mine.ipynb").exists()
    assert re.fullmatch(r"00_world-[0-9a-f]{8}\.ipynb", next((root / "_build" / "runs").iterdir()).name)
    assert "its results are " in capsys.readouterr().out


# results, rendering


def results(verdict="holds", **numbers) -> dict:
    """A results file with numbers given as (ours, low, high)."""
    records = {id_: dict(zip(("ours", "low", "high"), values, strict=True)) for id_, values in numbers.items()}
    return {"exhibits": {"t": {"numbers": records, "claims": [{"id": "S2.1", "verdict": verdict}]}}}


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        ((0.5, 0.4, 0.6), (0.5, 0.4, 0.6), False),
        ((0.5, 0.4, 0.6), (0.59, 0.1, 0.9), False),
        ((0.5, 0.4, 0.6), (0.64, 0.54, 0.74), False),  # outside, but by less than a quarter of the width
        ((0.5, 0.4, 0.6), (0.66, 0.56, 0.76), True),
        ((0.5, 0.4, 0.6), (0.34, 0.24, 0.44), True),
        ((0.5, 0.4, 0.6), (0.66, 0.3, 1.0), False),  # the first value is well within the interval of the second
        ((0.5, 0.1, 0.9), (0.66, 0.65, 0.67), False),  # and the other way round
        ((0.5, 0.5, 0.5), (0.500001, 0.500001, 0.500001), True),
        ((7, None, None), (7, None, None), False),
        ((7, None, None), (8, None, None), False),  # counts have counting noise
        ((100, None, None), (129, None, None), False),
        ((100, None, None), (135, None, None), True),
        ((0, None, None), (12, None, None), True),
        ((0.95, None, None), (0.93, None, None), False),
        ((0.95, None, None), (0.8, None, None), True),
        ((7, None, None), (None, None, None), True),
        ((None, None, None), (None, None, None), False),
        ((None, None, None), (0.5, 0.4, 0.6), True),
        ((0.5, 0.4, 0.6), (None, None, None), True),
    ],
)
def test_what_has_moved(before, after, moved):
    found = compare_results(results(n=before), results(n=after))
    assert found == ([Difference("n", before[0], after[0])] if moved else [])


def test_what_came_went_or_was_judged_otherwise_has_moved():
    assert compare_results(results(a=(1, 0, 2)), results("cannot tell here", b=(1, 0, 2))) == [
        Difference("S2.1", "holds", "cannot tell here"),
        Difference("a", 1, None),
        Difference("b", None, 1),
    ]
    moved = results(a=(1, 0, 2), c=(0, -1, 1)), results("does not hold", b=(1, 0, 2), c=(9, 8, 10))
    assert [difference.id for difference in compare_results(*moved)] == ["S2.1", "c", "a", "b"]
    assert str(Difference("a", 0.25, None)) == "a: 0.25 before, nothing now"


@pytest.fixture
def renderer(repository, monkeypatch):
    """Notebooks that count as executed and a jupyter-book of our own: `script` decides what it does."""
    for path in (repository / "notebooks").iterdir():
        executed = repository / "_build" / "tiny" / "notebooks" / path.name
        executed.parent.mkdir(parents=True, exist_ok=True)
        executed.write_text(path.read_text())
    program = repository / "bin" / "jupyter-book"
    program.parent.mkdir()
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))

    def script(text: str) -> None:
        program.write_text(f'#!/bin/sh\nsource="$2"; new="$4"; mkdir -p "$new/_build/html"; cd "$source"\n{text}\n')
        program.chmod(0o755)

    return repository, script


WORKS = 'cat book/index.md > "$new/_build/html/index.html"; echo chatter'
COMPLAINS = 'echo "$source/book/index.md:3: WARNING: unknown target: nowhere"; echo chatter; exit 1'


@pytest.mark.slow
def test_a_site_is_swapped_in_when_finished_and_stays_when_the_next_fails(renderer, capfd):
    root, script = renderer
    notebooks = discover(root / "notebooks")
    page = root / "_build" / "tiny" / "html" / "index.html"
    script(WORKS)
    assert render(root, notebooks, "tiny")
    script(COMPLAINS)
    assert not render(root, notebooks, "tiny"), "nothing changed, so nothing is rendered"
    (root / "book" / "index.md").write_text("# Front, changed\n")
    with pytest.raises(RenderFailed) as caught:
        render(root, notebooks, "tiny")
    assert str(caught.value) == (
        f"the book did not render (the whole log is {root}/_build/tiny/render.log)\n"
        "  book/index.md:3: WARNING: unknown target: nowhere"
    )
    assert page.read_text() == "# Front\n\nHello.\n"
    script(WORKS)
    assert render(root, notebooks, "tiny")
    assert page.read_text() == "# Front, changed\n"
    assert sorted(path.name for path in page.parents[1].iterdir() if path.name.startswith("html")) == [
        "html",
        "html.digest",
    ]
    assert capfd.readouterr().out == "", "the renderer's chatter belongs in the log"


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["_toc.yml", "_config.yml", "constraints.txt", "book/index.md"])
def test_every_input_of_the_site_makes_it_stale(renderer, changed):
    root, script = renderer
    script(WORKS)
    notebooks = discover(root / "notebooks")
    assert render(root, notebooks, "tiny")
    append(root / changed, "\n")
    assert render(root, notebooks, "tiny")
    executed = root / "_build/tiny/notebooks/00_world.ipynb"
    executed.write_text(executed.read_text().replace("The 00_world", "The world"))
    assert render(root, notebooks, "tiny")
    assert not render(root, notebooks, "tiny")


def test_rendering_before_running_is_one_sentence(repository):
    with pytest.raises(Mistake, match="00_world has not been run in the profile 'tiny': run `make book` first"):
        render(repository, discover(repository / "notebooks"), "tiny")


def test_parameters_page_escapes_and_shows_a_command(tmp_path):
    odd = write(tmp_path / "00.ipynb", parameters="profile: str = 'a|b'\nx: float | None = None  # a|b $x$ <b> {y} `p`")
    page = parameters_page([read(odd)])
    assert "| `profile` | `str` | `'a\\|b'` |  |\n" in page
    assert "| `x` | `float \\| None` | `None` | a\\|b \\$x\\$ &lt;b> \\{y\\} `p` |\n" in page
    assert 'make run NB=00 ARGS="-p x None"' in page


def test_tree_digest_sees_names_and_contents_but_not_byte_code(tmp_path):
    (tmp_path / "a.py").write_text("1")
    seen = {tree_digest([tmp_path], tmp_path)}
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("1")
    assert tree_digest([tmp_path], tmp_path) in seen
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    seen.add(tree_digest([tmp_path], tmp_path))
    (tmp_path / "b.py").write_text("2")
    seen.add(tree_digest([tmp_path], tmp_path))
    assert len(seen) == 3
