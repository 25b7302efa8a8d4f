"""The filter of the page of printed numbers: by keyboard, on a phone, and the page without it."""

from pathlib import Path

import pytest
from browsing import open_page
from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.book

PAGE = "book/numbers.html"
ROWS = ".printed tbody tr"


@pytest.fixture
def tab(site: Path, desk: BrowserContext) -> Page:
    tab, _ = open_page(desk, site.as_uri(), PAGE)
    yield tab
    tab.close()


def seen(tab: Page) -> list[str]:
    """The rows that are shown, as text."""
    return [row.inner_text() for row in tab.locator(ROWS).all() if row.is_visible()]


def test_words_and_exhibit_leave_the_rows_that_have_both(tab: Page) -> None:
    all_ = seen(tab)
    tab.get_by_label("with the words").fill("LAYER 12")
    found = seen(tab)
    assert 0 < len(found) < len(all_)
    assert all("layer" in row and "12" in row for row in found)
    tab.get_by_label("Exhibit").select_option("Table 3")
    assert seen(tab) == []
    assert tab.get_by_role("search").locator("output").inner_text() == f"0 of {len(all_)} rows"
    tab.get_by_label("with the words").fill("")
    assert len(seen(tab)) == 12
    assert not tab.get_by_role("heading", name="Table 1").is_visible()


def test_the_keyboard_alone_goes_from_the_exhibit_to_the_words(tab: Page) -> None:
    tab.get_by_label("Exhibit").focus()
    tab.keyboard.press("ArrowDown")
    assert all(row.startswith("N = ") for row in seen(tab))
    tab.keyboard.press("Tab")
    tab.keyboard.type("context tower layer 7")
    assert len(seen(tab)) == 4  # one for each number of passages


def test_without_javascript_every_row_is_there_and_no_filter(site: Path, tab: Page, browser: Browser) -> None:
    plain = browser.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=False)
    still = plain.new_page()
    still.goto(f"{site.as_uri()}/{PAGE}")
    assert len(seen(still)) == len(seen(tab)) == still.locator(ROWS).count() > 200
    assert still.get_by_role("search").locator("output").count() == 0
    plain.close()


def test_on_a_phone_a_row_says_which_number_is_whose(site: Path, browser: Browser) -> None:
    phone = browser.new_context(viewport={"width": 390, "height": 844})
    tab, _ = open_page(phone, site.as_uri(), PAGE)
    cells = tab.locator(".printed.replicated tbody tr").first.locator("td").all()
    said = [cell.evaluate("e => getComputedStyle(e, '::before').content") for cell in cells]
    assert said == ["none", '"paper "', '"replication "', '"here "', '"on record "']
    assert all(cell.bounding_box()["width"] <= 390 for cell in cells)
    phone.close()
