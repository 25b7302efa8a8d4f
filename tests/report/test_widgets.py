"""HTML of data: nothing in a text becomes markup, and every word of it can be read."""

import re
import urllib.parse
from html.parser import HTMLParser
from xml.etree import ElementTree

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from dprlens.report.widgets import (
    article,
    articles,
    beliefs,
    drawn,
    edited_fact,
    explorer,
    picture,
    questions,
    rankings,
    still,
    strongest,
)
from dprlens.world.records import Exposure, Fact, Passage, Question, Statement, World


def bar_widths(source: str) -> list[float]:
    """Widths of the bars in percent of their tracks."""
    return [float(width) for width in re.findall(r"(?<!-)width:([\d.]+)%", source)]


CANARY = "<script>alert(1)</script> {{x}} $x$ & \"q\" 'a' &lt; </p> <img src=x onerror=alert(2)>"
VOID = ("img", "br", "hr")


class Reader(HTMLParser):
    """What a browser makes of it: the elements, their attributes, and the text that is read."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements, self.attributes, self.text, self.open = [], [], "", []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text += data


def world(text=CANARY, title=CANARY, answers=("Wick",), times=(3, 0, 1)) -> World:
    facts = tuple(Fact(f"f{i}", title, f"r{CANARY}", "Wick", "test") for i in range(3))
    passages = tuple(Passage(f"p{i}", title, f"{i} {text}", (f"f{i}",)) for i in range(3))
    asked = Question("q0", f"Who? {text}", answers, "p1", ("f1", "f0"), "test", "knowledge_required")
    lexical = Question("q1", "Where?", answers, "p0", ("f0",), "test", "lexical")
    known = {fact.id: Exposure(n) for fact, n in zip(facts, times, strict=True)}
    return World("closed", facts, passages, (asked, lexical), known)


def safe(source: str) -> Reader:
    reader = Reader(source)
    assert not reader.open, f"left open: {reader.open}"
    assert not {"script", "img"} & set(reader.elements)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    return reader


def test_articles_escape_titles_and_passages():
    page = safe(article(world(), CANARY))
    assert page.text.count(CANARY) == 4  # a title and three paragraphs
    assert safe(articles(world(), [CANARY, CANARY]).data).text.count(CANARY) == 8


def test_articles_say_what_is_held_out():
    page = Reader(article(world(text="A."), CANARY))
    paragraphs = page.text.removeprefix(CANARY)
    assert paragraphs.index("1 A. held out") > paragraphs.index("0 A.")
    assert paragraphs.index("2 A. low dose") > paragraphs.index("held out")
    assert page.elements.count("mark") == 2


def test_questions_escape_all_they_show():
    page = safe(questions(world(), world().questions).data)
    assert page.text.count(CANARY) >= 6
    assert "held out" in page.text


@pytest.mark.parametrize(
    ("text", "answers", "marked"),
    [
        ("Ada & Bo live in Wick.", ("Wick",), "Wick"),
        ("Ada & Bo live in Wick.", ("Ada & Bo",), "Ada & Bo"),
        ("It's amp & 27.", ("amp",), "amp"),
        ("It's 27 or 39.", ("27",), "27"),
        ("The answer is Wick, by class.", ("Wick", "class"), "Wick"),
    ],
)
def test_the_answer_is_marked_and_the_text_stays_as_it_was(text, answers, marked):
    shown = world(text=text, title="Ada", answers=answers)
    page = safe(questions(shown, shown.questions[:1]).data)
    assert text in page.text
    assert f'<mark class="answer">{marked.replace("&", "&amp;")}</mark>' in questions(shown, shown.questions[:1]).data


def test_rankings_escape_all_they_show():
    shown = world()
    page = safe(rankings(shown, shown.questions[0], {CANARY: [0, 1]}, CANARY))
    assert page.text.count(CANARY) >= 6  # question, model, two titles, note, gold passage
    assert CANARY in safe(rankings(shown, shown.questions[0], {})).text


def listed(source: str) -> list[list[str]]:
    """The items of each list, as they are read; a marked one begins with an asterisk."""
    lists = re.findall(r"<ol>(.*?)</ol>", source)
    return [
        [("*" if "<mark" in item else "") + Reader(item).text for item in re.findall(r"<li.*?</li>", part)]
        for part in lists
    ]


def test_rankings_keep_the_order_of_each_model_and_mark_the_gold_passage_alone():
    cities = tuple(Passage(f"p{i}", title, f"About {title}.") for i, title in enumerate(["Wick", "Wend", "Zale"]))
    asked = Question("q0", "Which city?", ("Wend",), "p1", (), "test", "lexical")
    shown = World("closed", (), cities, (asked,), {})
    page = rankings(shown, asked, {"BERT": [2, 0], "DPR": [1, 2, 0]})
    before, after = listed(page)
    assert before == ["Zale About Zale.", "Wick About Wick."]
    assert after == ["*Wend ✓ About Wend.", "Zale About Zale.", "Wick About Wick."]
    assert page.count("<mark") == page.count("✓") == 1
    text = safe(page).text
    assert text.index("Which city?") < text.index("BERT") < text.index("DPR") < text.index("gold: Wend: About Wend.")
    assert (
        "lexical, known · gold: Wend: About Wend."
        in Reader(rankings(shown, asked, {"DPR": [0]}, "lexical, known")).text
    )


def test_of_a_long_passage_its_beginning_is_listed():
    shown = world(text="words and " * 50, title="Ada")
    ((item,),) = listed(rankings(shown, shown.questions[0], {"DPR": [2]}))
    assert item.startswith("Ada 2 words and words and")
    assert len(item) < 100


def test_a_question_without_its_gold_passage_in_a_list_has_nothing_marked():
    shown = world(text="A.", title="Ada")
    page = rankings(shown, shown.questions[0], {"DPR": [0, 2]})
    assert "<mark" not in page
    assert "✓" not in page
    assert "gold: Ada: 1 A." in safe(page).text


def test_beliefs_escape_statement_guesses_and_answer():
    said = Statement(f"{CANARY} is {CANARY}!", len(CANARY) + 4, 2 * len(CANARY) + 4)
    page = safe(beliefs(said, [(CANARY, 0.5), ("other", 0.125)]))
    assert page.text.count(CANARY) == 3  # before the blank, a guess, the answer; not in the blank
    assert "▢▢▢!" in page.text
    assert "50%" in page.text
    assert page.text.count("✓") == 1


def test_beliefs_tick_the_right_answer_only_and_draw_bars_by_probability():
    source = beliefs(Statement("Ada is a Poet.", 9, 13), [("poet", 0.75), ("poets", 0.25)])
    assert "poet ✓" in source
    assert "poets ✓" not in source
    assert bar_widths(source) == [75, 25]


def test_an_explorer_works_in_the_browser_alone(monkeypatch):
    links, link = [], ipywidgets.jslink
    monkeypatch.setattr(ipywidgets, "jslink", lambda a, b: links.append((a, b)) or link(a, b))
    shown = world()
    box = explorer({CANARY: article(shown, CANARY), "B": "<p>b</p>"}, CANARY)
    selector, stack = box.children
    assert isinstance(stack, ipywidgets.Stack)
    assert [page.value for page in stack.children] == [article(shown, CANARY), "<p>b</p>"]
    assert (stack.selected_index, selector.index) == (0, 0)
    assert [name for name, _ in selector.options] == [CANARY, "B"]  # option and label are shown as text, not HTML
    assert not selector.description_allow_html
    assert links == [((selector, "index"), (stack, "selected_index"))]
    safe("".join(page.value for page in stack.children))


def test_selectors_of_several_kinds_lead_to_the_page_of_their_combination():
    models, sizes = ("BERT", "DPR"), ("2", "3", "5")
    box = explorer({(model, size): f"<p>{model} {size}</p>" for model in models for size in sizes}, "model", "N")
    *selectors, stack = box.children
    assert [[name for name, _ in selector.options] for selector in selectors] == [list(models), list(sizes)]
    inner = stack.children[1].children[2]
    assert inner.value == "<p>DPR 5</p>"
    assert [stack.selected_index, *(child.selected_index for child in stack.children)] == [0, 0, 0]


def test_each_selector_moves_every_stack_of_its_kind(monkeypatch):
    links = []
    monkeypatch.setattr(ipywidgets, "jslink", lambda a, b: links.append((a[0], b[0])))
    model, size, stack = explorer({(a, b): "" for a in "AB" for b in "123"}, "model", "N").children
    assert {id(target) for source, target in links if source is model} == {id(stack)}
    assert {id(target) for source, target in links if source is size} == {id(child) for child in stack.children}


def test_a_combination_without_a_page_is_named():
    with pytest.raises(ValueError, match=r"each combination of model, N needs a page; without one: \('DPR', '3'\)"):
        explorer({("BERT", "2"): "", ("BERT", "3"): "", ("DPR", "2"): ""}, "model", "N")


@pytest.mark.parametrize(("start", "at"), [(None, [0, 0]), (("DPR", "5"), [1, 2])])
def test_an_explorer_starts_where_asked(start, at):
    pages = {(model, size): f"{model} {size}" for model in ("BERT", "DPR") for size in "235"}
    *selectors, stack = explorer(pages, "model", "N", start=start).children
    assert [selector.index for selector in selectors] == at
    assert stack.selected_index == at[0]
    assert {inner.selected_index for inner in stack.children} == {at[1]}
    with pytest.raises(ValueError, match="not in list"):
        explorer(pages, "model", "N", start=("DPR", "7"))


def test_a_still_is_one_page_for_browsers_without_javascript_with_its_name_escaped():
    pages = {(CANARY, "B"): "<p>first</p>", ("A", "B"): "<p>second</p>"}
    read = safe(still(pages).data)
    assert read.elements[0] == "noscript"
    assert CANARY in read.text
    assert "first" in read.text
    assert "second" not in read.text
    assert "second" in still(pages, ("A", "B")).data
    assert "A, B (" in still(pages, ("A", "B")).data


def test_the_strongest_neurons_are_listed_by_model_with_bars_by_share():
    rows = pd.DataFrame({"block": [3, 0, 1], "site": [CANARY] * 3, "neuron": [7, 8, 9], "share": [1.0, 0.5, 0.25]})
    source = strongest({CANARY: rows, "none": rows[:0]}, most=2)
    read = safe(source)
    assert f"{CANARY}: 3 active neurons, the strongest:" in read.text
    assert "none: 0 active neurons" in read.text
    assert bar_widths(source) == [100, 50]
    assert read.text.index(f"block 3, {CANARY} 7") < read.text.index(f"block 0, {CANARY} 8")
    assert f"{CANARY} 9" not in read.text


def test_an_edited_fact_shows_models_side_by_side_and_escapes_all():
    shown = world()
    told, blank = Statement(f"{CANARY} is Wick.", len(CANARY) + 4, len(CANARY) + 8), Statement("Wick it is.", 0, 4)
    seen = pd.DataFrame({"": ["no edit", CANARY], "says": [CANARY, "wick"], "place": ["7", "1"]})
    source = edited_fact(told, blank, shown.questions[0], shown.passages[0], seen)
    read = safe(source)
    assert read.text.count(CANARY) >= 6  # statement, question, title, passage, model, what it says
    assert "blank: ▢▢▢ it is." in read.text
    assert '<mark class="answer">Wick</mark>' in source
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", source)]
    assert [row[0] for row in rows] == ["", "says", "place"]
    assert rows[2] == ["place", "7", "1"]


@pytest.mark.parametrize("source", ["<svg>é % # &amp;</svg>", '<svg a="b">\n</svg>'])
def test_a_picture_is_the_svg_with_its_words_escaped(source):
    read = Reader(picture(source, CANARY))
    attributes = dict(read.attributes)
    assert read.elements == ["img"]
    assert attributes["alt"] == CANARY
    kind, _, drawn_as = attributes["src"].partition(",")
    assert kind == "data:image/svg+xml"
    assert urllib.parse.unquote(drawn_as) == source.replace('"', "'")


def test_a_drawn_figure_is_a_picture_of_valid_svg_and_closed():
    figure, axes = plt.subplots()
    axes.plot([0, 1], [1, 3], label=CANARY)
    axes.legend()
    attributes = dict(Reader(drawn(figure, "a line")).attributes)
    assert attributes["alt"] == "a line"
    root = ElementTree.fromstring(urllib.parse.unquote(attributes["src"].partition(",")[2]))
    assert root.tag.endswith("svg")
    assert not plt.fignum_exists(figure.number)
