"""What the book hands out: files of exhibits, executed notebooks, stamp, card; and what it is without scripts."""

import csv
import json
import os
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from browsing import open_page
from playwright.sync_api import Browser, BrowserContext

pytestmark = pytest.mark.book

REPOSITORY = Path(__file__).resolve().parents[2]
DOWNLOAD = re.compile(r'<a class="reference download internal" download="" href="([^"]+)"')
PNG = b"\x89PNG\r\n\x1a\n"

# Without scripts: what of the article cannot be seen though it is not folded, and pictures that are not there.
UNSEEN = """() => [
  ...[...document.querySelectorAll("article :is(h1, h2, h3, p, li, td, th, figcaption, pre, figure img)")]
    .filter(e => !e.closest("details:not([open]), .only-dark, .onlyprint, script") && !e.checkVisibility()),
  ...[...document.querySelectorAll("article figure img")].filter(i => !(i.complete && i.naturalWidth > 0)),
].map(e => e.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def results(site: Path) -> dict[str, dict]:
    """Page -> what its notebook reported in the profile of the site."""
    profile = site.parent.name
    assert profile == os.environ.get("DPRLENS_TEST_PROFILE", "tiny")
    files = sorted((REPOSITORY / "results" / profile).glob("*.json"))
    found = {f"notebooks/{file.stem}.html": json.loads(file.read_text(encoding="utf-8")) for file in files}
    return {page: result for page, result in found.items() if (site / page).exists()}


def test_every_exhibit_can_be_downloaded_and_read(site: Path, results: dict[str, dict]) -> None:
    assert results
    for page, result in results.items():
        text = (site / page).read_text(encoding="utf-8")
        files = {Path(link).name: (site / page).parent / link for link in DOWNLOAD.findall(text)}
        for exhibit, reported in result["exhibits"].items():
            if reported["kind"] == "numbers":
                continue
            if reported["numbers"]:
                rows = list(csv.DictReader(files.pop(f"{exhibit}.csv").open(encoding="utf-8", newline="")))
                assert {row["id"] for row in rows} == set(reported["numbers"]), exhibit
                assert [float(row["ours"]) for row in rows] == [reported["numbers"][row["id"]]["ours"] for row in rows]
            if reported["kind"] == "table":
                table = list(csv.reader(files.pop(f"{exhibit}.table.csv").open(encoding="utf-8", newline="")))
                assert {len(row) for row in table} == {len(table[0])}, exhibit
            else:
                assert ElementTree.parse(files.pop(f"{exhibit}.svg")).getroot().tag.endswith("svg")
                assert files.pop(f"{exhibit}.png").read_bytes().startswith(PNG)
                files.pop(f"{exhibit}.points.csv", None)
        assert files == {}, page


def test_the_notebook_that_a_page_offers_is_the_executed_one(site: Path, results: dict[str, dict]) -> None:
    for page, result in results.items():
        offered = re.search(r'href="(\.\./_sources/[^"]+\.ipynb)"', (site / page).read_text(encoding="utf-8"))[1]
        cells = json.loads((site / page).parent.joinpath(offered).read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert all(cell["execution_count"] for cell in code if "".join(cell["source"]).strip()), page
        injected = [
            "".join(cell["source"]) for cell in code if "injected-parameters" in cell["metadata"].get("tags", [])
        ]
        assert len(injected) == 1
        assert f'profile = "{result["profile"]}"' in injected[0]


def test_every_page_says_what_made_it(site: Path, pages: list[str], results: dict[str, dict]) -> None:
    for page in pages:
        stamp = unescape(re.search(r'<p class="stamp">(.*?)</p>', (site / page).read_text(encoding="utf-8"))[1])
        assert re.match(rf"Made by commit \S+( with local changes)? · profile {site.parent.name} · ", stamp), page
        assert " · torch " in stamp
        if page in results:
            made = results[page]
            assert f" · seed {made['seed']} · {made['world']['maker']} world {made['world']['digest']} · " in stamp


def test_every_page_brings_the_card_for_shared_links(site: Path, pages: list[str]) -> None:
    titles = set()
    for page in pages:
        found = dict(re.findall(r'<meta property="(og:[a-z_:]+)" content="([^"]*)"', (site / page).read_text("utf-8")))
        assert found["og:title"]
        assert found["og:description"]
        titles.add(found["og:title"])
        picture = (site / page).parent.joinpath(found["og:image"]).read_bytes()
        size = [int.from_bytes(picture[i : i + 4]) for i in (16, 20)]  # PNG: width and height in its first chunk
        assert (picture[:8], size) == (PNG, [1200, 630])
    assert len(titles) == len(pages)


def test_every_page_has_its_text_and_figures_without_scripts(site: Path, pages: list[str], browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=False)
    tab, wrong = context.new_page(), {}
    for page in pages:
        tab.goto(f"{site.as_uri()}/{page}", wait_until="load")
        wrong |= {page: found} if (found := tab.evaluate(UNSEEN)) else {}
        assert tab.evaluate("() => getComputedStyle(document.body).getPropertyValue('--book-edge')"), "no colours"
    context.close()
    assert wrong == {}


def test_the_command_under_an_exhibit_unfolds_and_can_be_copied(
    site: Path, results: dict[str, dict], desk: BrowserContext
) -> None:
    page = next(iter(results))
    tab, _ = open_page(desk, site.as_uri(), page)
    line = tab.locator(".take-away").first
    assert not line.locator("pre").is_visible()
    line.locator("summary").focus()
    tab.keyboard.press("Enter")
    line.locator("pre").wait_for(state="visible", timeout=2000)
    assert line.locator("pre").inner_text().startswith(f"make run NB={Path(page).stem} PROFILE={site.parent.name} ")
    assert line.locator("button.copybtn").count() == 1
    tab.close()
