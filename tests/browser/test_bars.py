"""Bars are as long as their numbers, in a browser and at the width of a phone, whatever is written beside them."""

import pandas as pd
import pytest
from playwright.sync_api import Browser

from dprlens.report.widgets import beliefs, strongest
from dprlens.world.records import Statement

WIDTHS = """() => [...document.querySelectorAll(".track")].map(track =>
  track.firstElementChild.getBoundingClientRect().width / track.getBoundingClientRect().width)"""
TRACKS = '() => [...document.querySelectorAll(".track")].map(track => track.getBoundingClientRect().width)'


@pytest.mark.book
@pytest.mark.parametrize("width", [1280, 390])
def test_bars_are_as_long_as_their_numbers(browser: Browser, width: int):
    shares = [1.0, 0.99, 0.85, 0.1]
    rows = pd.DataFrame({"block": range(4), "site": ["intermediate"] * 4, "neuron": [7, 1234, 9, 2], "share": shares})
    guesses = [("a", 0.5), ("the name of a very long-winded company of many words", 0.25), ("b" * 60, 0.05)]
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_content(strongest({"BERT": rows}) + beliefs(Statement("Ada is a Poet.", 9, 13), guesses))
    found, tracks = page.evaluate(WIDTHS), page.evaluate(TRACKS)
    page.close()
    assert found == pytest.approx([*shares, 0.5, 0.25, 0.05], abs=0.005)
    for same in (tracks[:4], tracks[4:]):
        assert same == pytest.approx([same[0]] * len(same), abs=0.1)
        assert same[0] > 50
