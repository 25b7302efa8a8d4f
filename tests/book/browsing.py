"""Opening a page of the book as a reader would, and writing down what it does."""

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
WIDGET_SCRIPT = 'script[type="application/vnd.jupyter.widget-view+json"]'


class Visit(NamedTuple):
    """What one page did while it was loaded and shown."""

    url: str
    errors: list[str]  # on the console, or thrown
    failed: list[str]  # requests that got no answer, or one of 400 and above
    outside: list[str]  # requests to any other place than the site
    facts: dict  # see LOOK


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
