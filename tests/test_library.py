"""The public face: its names are there, importing it costs nothing, and the page about it runs as it stands."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dprlens

PAGE = Path(__file__).parents[1] / "book" / "use_as_library.md"


def test_public_names_are_there_and_documented():
    assert dprlens.__all__ == sorted({*dprlens.__all__})
    assert {*dprlens.__all__} <= {*dir(dprlens)}
    assert [name for name in dprlens.__all__ if not getattr(dprlens, name).__doc__] == []


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match=r"no attribute 'Retriever'; public names are AttributionSpec, BM25"):
        dprlens.Retriever  # noqa: B018


@pytest.mark.slow
def test_importing_the_package_does_not_import_torch():
    program = "import sys, dprlens; print('torch' in sys.modules, dprlens.__all__[0])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "AttributionSpec"]


@pytest.mark.slow
def test_the_page_about_the_library_runs_as_it_stands(monkeypatch, tmp_path):
    monkeypatch.setenv("DPRLENS_CACHE", str(tmp_path))
    examples = re.sub(r"^```.*$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(examples, {}, PAGE.name, str(PAGE), 0)
    assert len(test.examples) > 20
    report = []
    assert doctest.DocTestRunner().run(test, out=report.append).failed == 0, "".join(report)
