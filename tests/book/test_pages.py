"""The rendered book in a real browser: from disk, over http, in the dark, on a phone, on paper, by keyboard."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browsing import Visit, open_page
from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.book

# Contrast (WCAG's ratio) of every piece of visible text with what is behind it, as far as plain colours go.
FAINT = """least => {
  const rgb = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  const faint = new Set();
  const walker = document.createTreeWalker(document.querySelector(".bd-container"), NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const e = node.parentElement;
    if (!node.data.trim() || !e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (e.closest("svg, script, style, .headerlink, .search-button__kbd-shortcut, mjx-container")) continue;
    const [a, b] = [luminance(rgb(getComputedStyle(e).color)), luminance(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least) faint.add(`${ratio.toFixed(1)} ${e.tagName}.${e.className} "${node.data.trim().slice(0, 30)}"`);
  }
  return [...faint];
}"""

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


def test_every_page_works_over_http_in_light_and_dark(pages: list[str], address: str, desk: BrowserContext) -> None:
    wrong = {}
    for page in pages:
        tab, visit = open_page(desk, address, page)
        found = visit.errors + visit.failed + visit.outside
        for theme in ("light", "dark"):
            for _ in range(3):
                if tab.locator("html").get_attribute("data-theme") == theme:
                    break
                tab.locator(".theme-switch-button:visible").first.click()
            else:
                found.append(f"the theme switch does not reach {theme}")
            found += [f"{theme}: {text}" for text in tab.evaluate(FAINT, 4.5)]
        if found:
            wrong[page] = found
        tab.close()
    assert wrong == {}


def test_widgets_answer_to_the_keyboard(site: Path, pages: list[str], desk: BrowserContext) -> None:
    dead = []
    for page in pages:
        if "application/vnd.jupyter.widget-view+json" not in (site / page).read_text(encoding="utf-8"):
            continue
        tab, _ = open_page(desk, site.as_uri(), page)
        for selector, key in ((".jupyter-widgets select", "ArrowDown"), (".noUi-handle", "ArrowRight")):
            for handle in tab.locator(selector).all():
                if handle.is_visible():
                    before = tab.evaluate(SHOWN)
                    handle.focus()
                    handle.press(key)
                    tab.wait_for_timeout(400)
                    if tab.evaluate(SHOWN) == before:
                        dead.append(f"{page}: {selector} {handle.get_attribute('aria-label') or ''}")
        tab.close()
    assert dead == []


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
