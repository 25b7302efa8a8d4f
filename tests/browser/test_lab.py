"""The explorer as a reader uses it: a real JupyterLab in a browser, Run All, a question, the slider, silent neurons."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from dprlens.book.execution import kill
from dprlens.book.notebooks import load, source

pytestmark = pytest.mark.book

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "explorer"
OFFLINE = [  # as in the Makefile
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
]
LONGEST = 90_000  # ms for a kernel to start and to import torch on a busy machine
SOON = 20_000  # ms for an answer


def at_tiny(notebook: Path) -> str:
    """The notebook with `tiny` as its profile."""
    content = load(notebook)
    for cell in content["cells"]:
        cell["source"] = source(cell).replace('profile: str = "small"', 'profile: str = "tiny"')
    return json.dumps(content)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab of our own on a folder with the explorer."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "explorer.ipynb").write_text(at_tiny(REPOSITORY / "notebooks" / "explorer.ipynb"), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{name}_DIR": str(folder / ".own" / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder / ".own" / name) for name in ("SETTINGS", "WORKSPACES")}
    cache = os.path.abspath(os.environ.get("DPRLENS_CACHE") or REPOSITORY / "_build" / "test-cache")
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", *OFFLINE]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=output, env={**os.environ, **own, "DPRLENS_CACHE": cache}
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5).close()
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        kill([psutil.Process(process.pid)])
        process.wait()


@pytest.fixture(scope="module")
def lab(server: str, browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """The explorer in JupyterLab after Run All; what its page asked other hosts for, or threw, is written down."""
    tab, wrong = browser.new_context(viewport={"width": 1280, "height": 900}).new_page(), []
    inside = (server, server.replace("http", "ws"), "data:", "blob:")
    tab.on("request", lambda request: None if request.url.startswith(inside) else wrong.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(f"{server}/lab/tree/explorer.ipynb?token={TOKEN}")
    tab.locator("#jp-main-statusbar", has_text="| Idle").wait_for(timeout=LONGEST)  # else it asks for a kernel
    tab.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    tab.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    tab.get_by_label("Question", exact=True).wait_for(timeout=LONGEST)
    yield tab, wrong
    tab.context.close()


def shown(tab: Page, page: str) -> Locator:
    """One of the explorer's pages."""
    return tab.locator(f".explorer_{page} .widget-html-content")


def ask(tab: Page, text: str) -> None:
    field = tab.get_by_label("Question", exact=True)
    field.fill(text)
    field.press("Enter")


def columns(page: Locator) -> list[list[str]]:
    """The passages in each column of a page, with their scores."""
    return [column.locator("li").all_inner_texts() for column in page.locator(".article-grid > div").all()]


def test_a_question_finds_passages_and_another_one_finds_others(lab):
    tab, _ = lab
    page, field = shown(tab, "passages"), tab.get_by_label("Question", exact=True)
    before = columns(page)
    assert [len(column) for column in before] == [5, 5]
    assert before[0] != before[1]
    other = tab.locator(f"[id='{field.get_attribute('list')}'] option").nth(1).get_attribute("value")
    assert other != field.input_value()
    ask(tab, other)
    expect(page.locator(".asked")).to_have_text(other, timeout=SOON)
    expect(tab.get_by_role("status")).to_have_text("ready", timeout=SOON)
    assert columns(page) != before
    assert "is number" in page.inner_text()
    assert "world says" in shown(tab, "believed").inner_text()
    assert "gold passage" in shown(tab, "layers").locator("img").get_attribute("alt")


def test_the_slider_changes_how_many_neurons_are_active(lab):
    tab, _ = lab
    page = shown(tab, "neurons").locator("b").first
    before = page.inner_text()
    handle = tab.locator(".noUi-handle").first
    handle.focus()
    for _ in range(20):
        handle.press("ArrowRight")
    expect(page).not_to_have_text(before, timeout=SOON)
    assert int(page.inner_text().split()[0]) < int(before.split()[0])


def test_silent_neurons_change_the_ranking(lab):
    tab, _ = lab
    page = shown(tab, "silenced")
    expect(page).to_contain_text("No neuron is silent")
    tab.get_by_label("silence all active neurons").check()
    expect(page.locator(".article-grid > div")).to_have_count(2, timeout=SOON)
    as_it_is, without = columns(page)
    assert as_it_is == columns(shown(tab, "passages"))[1]
    assert without != as_it_is
    tab.get_by_label("silence all active neurons").uncheck()
    expect(page).to_contain_text("No neuron is silent", timeout=SOON)
    tab.get_by_label("Silence", exact=True).select_option(index=[0, 1])
    expect(page).to_contain_text("without 2 neurons", timeout=SOON)


def test_an_edited_model_finds_other_passages_and_says_what_it_believes(lab):
    tab, _ = lab
    before = columns(shown(tab, "passages"))
    tab.get_by_label("On the right").select_option("DPR, MALMEN")
    expect(shown(tab, "passages")).to_contain_text("DPR, MALMEN", timeout=SOON)
    expect(shown(tab, "believed")).to_contain_text("· DPR, MALMEN", timeout=SOON)
    after = columns(shown(tab, "passages"))
    assert after[0] == before[0]
    assert after[1] != before[1]
    tab.get_by_label("On the right").select_option("DPR")
    expect(shown(tab, "passages")).not_to_contain_text("MALMEN", timeout=SOON)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("???", "has no letter and no digit"),
        ("why " * 600, "give at most 2,000"),
    ],
)
def test_what_is_no_question_is_answered_by_one_sentence(lab, text, said):
    tab, _ = lab
    ask(tab, text)
    expect(shown(tab, "passages")).to_contain_text(said, timeout=SOON)
    expect(shown(tab, "neurons")).to_have_text("")


def test_what_is_typed_is_shown_as_text(lab):
    tab, _ = lab
    text = "<img src=x onerror=alert(1)> $x$ {{y}} מי נולד בעיר?"
    ask(tab, text)
    expect(shown(tab, "passages").locator(".asked")).to_have_text(text, timeout=SOON)
    expect(shown(tab, "passages")).to_contain_text("The model reads [UNK] for")
    assert shown(tab, "passages").locator("img").count() == 0


def test_make_lab_opens_the_explorer_with_these_settings():
    said = subprocess.run(["make", "-n", "lab"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    assert all(part in said for part in ("jupyter lab notebooks/explorer.ipynb", *OFFLINE))


def test_nothing_outside_was_asked_for_and_nothing_failed(lab):
    _, wrong = lab
    assert wrong == []
