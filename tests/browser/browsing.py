"""Opening a page of the book as a reader would, and writing down what it does."""

from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Response

# Besides quiet and safety in a container: no name but this machine's own is resolved, so that nothing can leave it.
FLAGS = [
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--no-first-run",
]
AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
WIDGET_SCRIPT = 'script[type="application/vnd.jupyter.widget-view+json"]'


class Visit(NamedTuple):
    """What one page did while it was loaded and shown."""

    url: str
    errors: list[str]  # on the console, or thrown
    failed: list[str]  # requests that got no answer, or one of 400 and above
    outside: list[str]  # requests to any other place than the site
    facts: dict  # see LOOK


class Look(NamedTuple):
    """A page over http in one of the two themes."""

    page: str
    theme: str
    faults: list[str]  # errors, requests that failed or left the site
    faint: list[str]  # see FAINT
    barriers: list[tuple[str, str]]  # axe's rule and the element, where axe calls it serious or critical


# What is asked of every page, in the page.
LOOK = """() => {
  const images = [...document.querySelectorAll("img")];
  const label = e => e.outerHTML.slice(0, 120);
  return {
    broken: images.filter(i => !(i.complete && i.naturalWidth > 0) && i.offsetParent !== null).map(label),
    unnamed: images.filter(i => !i.hasAttribute("alt")).map(label),
    headings: document.querySelectorAll("article h1").length,
    width: document.documentElement.scrollWidth - window.innerWidth,
  };
}"""


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

# What axe finds against WCAG 2, levels A and AA, that keeps a reader out.
BARRIERS = """async () => {
  const found = await axe.run(document, {runOnly: ["wcag2a", "wcag2aa"], resultTypes: ["violations"]});
  return found.violations.filter(rule => ["serious", "critical"].includes(rule.impact))
    .flatMap(rule => rule.nodes.map(node => [rule.id, node.html.slice(0, 160)]));
}"""


def open_page(context: BrowserContext, root: str, page: str) -> tuple[Page, Visit]:
    """Opens a page and waits until it rests; `root` is where the site is, a file:// or an http:// address."""
    tab = context.new_page()
    visit = Visit(f"{root}/{page}", [], [], [], {})

    def answered(response: Response) -> None:
        if response.status >= 400:
            visit.failed.append(f"{response.url} {response.status}")

    def said(message: ConsoleMessage) -> None:
        if message.type == "error":
            visit.errors.append(message.text)

    tab.on("console", said)
    tab.on("pageerror", lambda error: visit.errors.append(str(error)))
    tab.on("requestfailed", lambda request: visit.failed.append(f"{request.url} {request.failure}"))
    tab.on("response", answered)
    inside = (root, "data:", "blob:")
    tab.on("request", lambda request: None if request.url.startswith(inside) else visit.outside.append(request.url))
    tab.goto(visit.url, wait_until="load")
    if tab.locator(WIDGET_SCRIPT).count():
        tab.locator(".jupyter-widgets").first.wait_for(timeout=20_000)
    tab.evaluate("() => window.MathJax?.startup?.promise?.then(() => null)")
    tab.add_style_tag(content="* { transition: none !important; }")
    tab.wait_for_timeout(100)
    visit.facts.update(tab.evaluate(LOOK))
    return tab, visit


def look(tab: Page, visit: Visit, page: str, theme: str) -> Look:
    """An open page in a theme, which the reader's own button chooses."""
    found = visit.errors + visit.failed + visit.outside
    for _ in range(3):
        if tab.locator("html").get_attribute("data-theme") == theme:
            break
        tab.locator(".theme-switch-button:visible").first.click()
    else:
        found.append(f"the theme switch does not reach {theme}")
    if not tab.evaluate("() => 'axe' in window"):
        tab.evaluate(AXE)
    return Look(page, theme, found, tab.evaluate(FAINT, 4.5), [tuple(pair) for pair in tab.evaluate(BARRIERS)])
