"""The rendered book in a real browser: from disk, over http, in the dark, on a phone, on paper, by keyboard."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browsing import Look, Visit, open_page
from playwright.sync_api import Browser, BrowserContext
from playwright.sync_api import TimeoutError as PlaywrightTimeout

pytestmark = pytest.mark.book

# axe's rule, a part of the element -> why it stays
BARRIERS_OF_OTHERS = {
    (
        "aria-required-children",
        'class="citation-list"',
    ): "docutils marks a bibliography as a list and its entries not as"
    " items; they are read one after the other all the same",
}

WIDGET_SCRIPT_TYPE = "application/vnd.jupyter.widget-view+json"

# What the widgets of a page show now: visible pictures and texts, without the selectors' own labels.
SHOWN = """() => [...document.querySelectorAll(".widget-html-content, .jupyter-widgets img, .jupyter-widgets svg")]
  .filter(e => e.offsetParent !== null || e.tagName === "svg" && e.getBoundingClientRect().width > 0)
  .map(e => e.src || e.outerHTML).join("\\n")"""


def faults(visits: list[Visit], which: str) -> dict[str, object]:
    """Url -> what is wrong, for the pages where something is."""
    return {v.url: found for v in visits if (found := getattr(v, which) if which in Visit._fields else v.facts[which])}


@pytest.mark.parametrize("which", ["errors", "failed", "outside", "broken", "unnamed"])
def test_every_page_opens_from_disk_without(visits: list[Visit], which: str) -> None:
    assert faults(visits, which) == {}


def test_every_page_has_one_title(visits: list[Visit]) -> None:
    titles = {v.url: v.facts["headings"] for v in visits if not v.url.endswith(("genindex.html", "search.html"))}
    assert set(titles.values()) == {1}, titles


def test_no_page_scrolls_sideways_on_a_phone(visits: list[Visit]) -> None:
    assert {v.url: v.facts["width"] for v in visits if v.facts["width"] > 0} == {}


@pytest.mark.parametrize("which", ["faults", "faint"])
def test_every_page_over_http_in_light_and_dark_is_without(looks: list[Look], which: str) -> None:
    assert {(seen.page, seen.theme): found for seen in looks if (found := getattr(seen, which))} == {}


def test_no_page_keeps_a_reader_out(looks: list[Look]) -> None:
    """Axe finds nothing serious in light or dark, but for what is listed; and the list is not too long."""
    found = {(rule, element): (seen.page, seen.theme) for seen in looks for rule, element in seen.barriers}
    known = {pair for pair in found if any(pair[0] == rule and part in pair[1] for rule, part in BARRIERS_OF_OTHERS)}
    assert {pair: where for pair, where in found.items() if pair not in known} == {}
    assert {rule for rule, _ in known} == {rule for rule, _ in BARRIERS_OF_OTHERS}


@pytest.fixture(scope="module")
def explorable(site: Path, pages: list[str]) -> list[str]:
    """The pages with widgets."""
    return [page for page in pages if WIDGET_SCRIPT_TYPE in (site / page).read_text(encoding="utf-8")]


@pytest.mark.parametrize("by", ["keyboard", "mouse"])
def test_each_selector_changes_what_is_seen(site: Path, explorable: list[str], desk: BrowserContext, by: str) -> None:
    assert explorable
    dead = []
    for page in explorable:
        tab, _ = open_page(desk, site.as_uri(), page)
        for selector in tab.locator(".jupyter-widgets select:has(option + option)").all():
            before = tab.evaluate(SHOWN)
            if by == "keyboard":
                selector.focus()
                selector.press("ArrowDown")
            else:
                selector.click()
                options = selector.locator("option")
                selector.select_option(index=(selector.evaluate("e => e.selectedIndex") + 1) % options.count())
            try:
                tab.wait_for_function(f"before => ({SHOWN})() !== before", arg=before, timeout=5_000)
            except PlaywrightTimeout:
                dead.append(f"{page}: {selector.get_attribute('aria-label') or selector.inner_text()[:60]}")
        tab.close()
    assert dead == []


def test_without_javascript_each_explorer_shows_a_still(
    site: Path, explorable: list[str], desk: BrowserContext, browser: Browser
) -> None:
    plain = browser.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=False)
    for page in explorable:
        tab, _ = open_page(desk, site.as_uri(), page)
        explorers = tab.locator(".jupyter-widgets.widget-vbox:has(> .widget-dropdown)").count()
        tab.close()
        still = plain.new_page()
        still.goto(f"{site.as_uri()}/{page}")
        shown = still.locator("noscript > *:nth-child(2)").all()
        still.close()
        assert len(shown) == explorers > 0, page
    plain.close()


def test_no_page_weighs_more_than_a_megabyte_and_a_half(site: Path, pages: list[str]) -> None:
    heavy = {page: size for page in pages if (size := (site / page).stat().st_size) > 1_500_000}
    assert heavy == {}


def test_the_front_door_leads_to_the_first_page(site: Path, desk: BrowserContext) -> None:
    tab = desk.new_page()
    tab.goto(f"{site.as_uri()}/index.html")
    tab.wait_for_url("**/book/index.html", timeout=10_000)
    tab.close()


def test_search_finds_a_page(site: Path, desk: BrowserContext) -> None:
    tab, _ = open_page(desk, site.as_uri(), "search.html?q=exposure")
    tab.locator("ul.search li a").first.wait_for(timeout=10_000)
    tab.close()


def test_pages_print_without_their_furniture(site: Path, pages: list[str], desk: BrowserContext) -> None:
    furniture = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .prev-next-footer, button"
    chapters = [page for page in pages if page.startswith("notebooks/")]
    for page in ["book/index.html", *chapters[:1]]:
        tab, _ = open_page(desk, site.as_uri(), page)
        assert tab.pdf(format="A4").startswith(b"%PDF-")
        tab.emulate_media(media="print")
        assert [
            e.evaluate("e => e.outerHTML.slice(0, 90)") for e in tab.locator(furniture).all() if e.is_visible()
        ] == []
        tab.close()


class References(HTMLParser):
    """The ids of a page, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links = {"", "top"}, []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        given = dict(attrs)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        self.links += [given[name] for name in ("href", "src") if given.get(name)]
        if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self.links.append(given["content"].partition("url=")[2])


def test_internal_links_resolve(site: Path, pages: list[str]) -> None:
    read = {page: References((site / page).read_text(encoding="utf-8")) for page in ["index.html", *pages]}
    dangling = []
    for page, references in read.items():
        for link in references.links:
            to = urlsplit(link)
            if to.scheme or to.netloc:
                continue
            target = (site / page).parent.joinpath(unquote(to.path)).resolve() if to.path else (site / page)
            if not target.is_file():
                dangling.append(f"{page}: {link}")
            elif target.suffix == ".html" and to.fragment:
                name = target.relative_to(site.resolve()).as_posix()
                if name in read and unquote(to.fragment) not in read[name].ids:
                    dangling.append(f"{page}: {link}")
    assert dangling == []
