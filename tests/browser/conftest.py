"""What the browser tests share: the built site, the same over http, one headless Chromium, one visit to each page."""

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browsing import FLAGS, Look, Visit, look, open_page
from playwright.sync_api import Browser, BrowserContext, sync_playwright

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = ("lab", "visits", "looks")  # what takes long to make
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what takes long to make run in one process of xdist, which makes it once."""
    for item in items:
        for name in SHARED:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the rendered book."""
    folder = REPOSITORY / "_build" / os.environ.get("DPRLENS_TEST_PROFILE", "tiny") / "html"
    if not (folder / "index.html").exists():
        pytest.fail(f"there is no built book at {folder}; build it first (make test does)", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def pages(site: Path) -> list[str]:
    """Paths of all pages, relative to the site; without its front door, which only leads to the first of them."""
    found = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html"))]
    return [page for page in found if page != "index.html" and not page.startswith(("_static/", "_sources/"))]


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """The site over http on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed: the browser tests need it")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def desk(browser: Browser) -> BrowserContext:
    """A wide window; its tabs share cache and storage, as a reader's do."""
    return browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")


@pytest.fixture(scope="session")
def visits(site: Path, pages: list[str], browser: Browser) -> list[Visit]:
    """Every page once from disk, on a screen as narrow as a phone's."""
    phone = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="light")
    seen = []
    for page in pages:
        tab, visit = open_page(phone, site.as_uri(), page)
        seen.append(visit)
        tab.close()
    return seen


@pytest.fixture(scope="session")
def looks(address: str, pages: list[str], desk: BrowserContext) -> list[Look]:
    """Every page once over http, in the light and in the dark."""
    seen = []
    for page in pages:
        tab, visit = open_page(desk, address, page)
        seen += [look(tab, visit, page, theme) for theme in ("light", "dark")]
        tab.close()
    return seen
