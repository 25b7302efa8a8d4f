"""Draw card.png, the picture beside a shared link to the book, from card.svg, in the browser that the tests use.

python book/_assets/card.py
"""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 630})
        page.goto((HERE / "card.svg").as_uri())
        page.evaluate("() => document.fonts.ready.then(() => null)")
        page.screenshot(path=HERE / "card.png")
