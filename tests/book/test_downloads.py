"""What a page offers of an exhibit: files that hold what the page shows, and commands that mean what the page says."""

import ast
import base64
import csv
import io
import re
import shlex

import pytest

from dprlens.book.notebooks import Notebook, Parameter, check, parse
from dprlens.book.pages.downloads import commands, with_downloads
from dprlens.cli import _parser

PARAMETERS = (
    Parameter("profile", "str", "small", ""),
    Parameter("seed", "int", 0, ""),
    Parameter("n_passages", "list[int]", [2, 3], ""),
    Parameter("probe", "list[str] | None", None, ""),
    Parameter("pooling", "str", "cls", ""),
)
SVG, PNG = b"<svg/>", b"\x89PNG\r\n\x1a\n"
FIGURE = f':::{{figure}} data:image/svg+xml;base64,{base64.b64encode(SVG).decode()}\n:name: dose\n:alt: "a"\n\nF\n:::'
TABLE = ":::{table} T\n:name: recall\n\n| x |\n| --- |\n| 1 |\n:::"
RESULTS = {
    "exhibits": {
        "dose": {"numbers": {"dose.b": {"ours": 0.5, "low": 0.4, "high": 0.6, "n": 9, "paper": None}}},
        "recall": {"numbers": {}},
    }
}


@pytest.fixture
def notebook(tmp_path):
    return Notebook("00_world", tmp_path / "00_world.ipynb", "The world", (), (), PARAMETERS)


def executed(*outputs):
    return {"cells": [{"cell_type": "code", "outputs": [{"output_type": "display_data", "data": o} for o in outputs]}]}


def pages(content):
    return [output["data"]["text/markdown"] for output in content["cells"][0]["outputs"]]


def test_a_figure_offers_its_numbers_and_itself_in_two_formats(notebook, tmp_path):
    data = {"text/markdown": FIGURE.splitlines(keepends=True), "image/png": base64.b64encode(PNG).decode()}
    (page,) = pages(with_downloads(executed(data), notebook, "small", RESULTS, tmp_path))
    assert page.startswith(FIGURE + "\n\n::::{container} take-away\n")
    there = re.findall(r"\{download\}`([^`]+) <(/[^>]+)>`", page)
    assert [label for label, _ in there] == ["numbers (CSV)", "SVG", "PNG"]
    numbers, picture, pixels = ((tmp_path / path.lstrip("/")).read_bytes() for _, path in there)
    assert list(csv.reader(io.StringIO(numbers.decode()))) == [
        ["id", "ours", "low", "high", "n", "paper"],
        ["dose.b", "0.5", "0.4", "0.6", "9", ""],
    ]
    assert (picture, pixels) == (SVG, PNG)
    assert set(data) == {"text/markdown"}, "what became a file is not in the page's notebook a second time"


def test_a_table_offers_itself_and_no_numbers_where_there_are_none(notebook, tmp_path):
    data = {"text/markdown": TABLE, "text/csv": ["x\n", "1\n"]}
    (page,) = pages(with_downloads(executed(data), notebook, "small", RESULTS, tmp_path))
    assert re.findall(r"\{download\}`([^`]+) <", page) == ["table (CSV)"]
    assert (tmp_path / "downloads" / "00_world" / "recall.table.csv").read_bytes() == b"x\n1\n"


def test_a_figure_of_numbers_from_elsewhere_offers_its_points(notebook, tmp_path):
    data = {"text/markdown": FIGURE.replace("dose", "recall"), "text/csv": "place,value\n0,1\n"}
    (page,) = pages(with_downloads(executed(data), notebook, "small", RESULTS, tmp_path))
    assert re.findall(r"\{download\}`([^`]+) <", page) == ["points (CSV)", "SVG"]
    assert (tmp_path / "downloads" / "00_world" / "recall.points.csv").read_bytes() == b"place,value\n0,1\n"


def test_what_is_no_exhibit_stays_as_it_was(notebook, tmp_path):
    others = ["**✓ holds** S2.1 · :name: dose", ":::{table} T\n:name: elsewhere\n:::", ""]
    content = with_downloads(
        executed(*({"text/markdown": page} for page in others)), notebook, "small", RESULTS, tmp_path
    )
    assert pages(content) == others
    assert not (tmp_path / "downloads").exists()


def test_the_checked_command_gives_the_values_of_the_page(notebook):
    make = commands(notebook, "tiny").splitlines()[0]
    words = shlex.split(make)
    assert words[:4] == ["make", "run", "NB=00_world", "PROFILE=tiny"]
    options = _parser(None).parse_args(["run", "00_world", *shlex.split(words[4].removeprefix("ARGS="))])
    assert check(notebook, parse(notebook, dict(options.parameter))) == {
        "seed": 0,
        "n_passages": [2, 3],
        "pooling": "cls",
    }


@pytest.mark.slow
def test_papermill_alone_gets_the_same_values(notebook):
    from papermill.cli import papermill

    words = shlex.split(commands(notebook, "tiny").splitlines()[-1])
    given = papermill.make_context("papermill", words[1:]).params
    assert (given["notebook_path"], given["output_path"]) == ("notebooks/00_world.ipynb", "out.ipynb")
    assert dict(given["parameters"]) == {"profile": "tiny", "seed": "0", "pooling": "cls"}
    assert [ast.literal_eval(text.removeprefix("n_passages: ")) for text in given["parameters_yaml"]] == [[2, 3]]
