"""HTML for pages and kernel-free explorers. All text from data is escaped here, and only here.

An explorer is a selector linked in the browser (`jslink`) to a `Stack` of prepared pictures: it works in the rendered
book, offline and without a kernel. Never `interact` or `Output` in a notebook that papermill runs: they hang it.
"""

import html
import re
from collections.abc import Mapping, Sequence
from textwrap import shorten

import ipywidgets
from IPython.display import HTML

from dprlens.figures import COLOURS
from dprlens.report import data_uri
from dprlens.world import Passage, Question, Statement, World

AS_TEXT = "tex2jax_ignore mathjax_ignore"  # dollars in data are no formulas
SNIPPET = 70  # characters of a passage that stand behind its title
ROW = "display:flex;align-items:center;gap:0.5em"
BAR = "background:{colour};width:{width:.1f}%;min-width:2px;height:0.9em"


def article(world: World, title: str) -> str:
    """An encyclopedia article as HTML; a paragraph whose facts pre-training states never, or seldom, says so."""
    paragraphs = []
    for passage in world.article(title):
        facts = passage.facts if world.known is not None else ()  # elsewhere nobody can say
        states = {world.state(fact) for fact in facts} - {"known"}
        mark = f' <mark class="held-out">{states.pop()}</mark>' if states else ""
        paragraphs.append(f"<p>{html.escape(passage.text)}{mark}</p>")
    heading = f'<p class="article-title">{html.escape(title)}</p>'
    return f'<div class="article-card">{heading}{"".join(paragraphs)}</div>'


def articles(world: World, titles: Sequence[str]) -> HTML:
    """Some articles side by side."""
    return HTML(f'<div class="article-grid {AS_TEXT}">{"".join(article(world, title) for title in titles)}</div>')


def questions(world: World, chosen: Sequence[Question]) -> HTML:
    """Questions, each with the state of its linking fact and its gold passage, in which the answer is marked."""
    blocks = []
    for question in chosen:
        passage = world.passage[question.gold]
        parts = re.split("|".join(f"({re.escape(answer)})" for answer in question.answers), passage.text)
        text = "".join(
            f'<mark class="answer">{html.escape(part)}</mark>' if part in question.answers else html.escape(part)
            for part in parts
            if part
        )
        if question.link is None:
            note = "lexical"
        else:
            link = world.fact[question.link]
            name, state = link.relation.replace("_", " "), world.state(link.id)
            note = f"knowledge-required; link: {link.subject} – {name} – {link.object} ({state})"
        blocks.append(
            f'<div class="question {AS_TEXT}"><p class="asked">{html.escape(question.text)}</p>'
            f"<p><b>{html.escape(passage.title)}</b> · {text}</p>"
            f'<p class="fine">{html.escape(note)}</p></div>'
        )
    return HTML("".join(blocks))


def rankings(world: World, question: Question, lists: Mapping[str, Sequence[int]], note: str = "") -> str:
    """A question, and the passages that each model ranks first (indices into `world.passages`), the gold one marked."""

    def entry(passage: Passage) -> str:
        title = html.escape(passage.title)
        if passage.id == question.gold:
            title = f'<mark class="answer">{title} ✓</mark>'
        return f'<li><b>{title}</b> <span class="fine">{html.escape(shorten(passage.text, SNIPPET))}</span></li>'

    columns = [
        f"<div><p>{html.escape(model)}</p><ol>{''.join(entry(world.passages[i]) for i in places)}</ol></div>"
        for model, places in lists.items()
    ]
    gold = world.passage[question.gold]
    said = " · ".join(filter(None, (note, f"gold: {gold.title}: {gold.text}")))
    return (
        f'<div class="question {AS_TEXT}"><p class="asked">{html.escape(question.text)}</p>'
        f'<div class="article-grid">{"".join(columns)}</div><p class="fine">{html.escape(said)}</p></div>'
    )


def beliefs(statement: Statement, guesses: Sequence[tuple[str, float]]) -> str:
    """A statement with its answer blanked, and the model's first guesses for the blank with their probabilities."""
    blank = html.escape(statement.text[: statement.start]) + "<b>▢▢▢</b>" + html.escape(statement.text[statement.end :])
    rows = []
    for guess, probability in guesses:
        right = guess.lower() == statement.answer.lower()
        bar = BAR.format(colour=COLOURS["blue" if right else "grey"], width=45 * probability)
        sign = " ✓" if right else ""
        rows.append(
            f'<div style="{ROW}"><span style="flex:0 0 40%">{html.escape(guess)}{sign}</span>'
            f'<span style="{bar}"></span><span>{probability:.0%}</span></div>'
        )
    return (
        f'<div class="question {AS_TEXT}"><p class="asked">{blank}</p>{"".join(rows)}'
        f'<p class="fine">the world says: {html.escape(statement.answer)}</p></div>'
    )


def picture(source: str, alt: str) -> str:
    """An SVG picture (as `report.svg` gives it) as HTML, with words for those who cannot see it."""
    return f'<img src="{data_uri(source)}" alt="{html.escape(alt)}" style="max-width:100%">'


def slider(pages: Mapping[str, str], label: str, first: str | None = None) -> ipywidgets.VBox:
    """A slider over prepared HTML pages, that works without a kernel; it starts at the page `first`."""
    start = list(pages).index(first) if first is not None else 0
    selector = ipywidgets.SelectionSlider(
        options=[(name, i) for i, name in enumerate(pages)],
        index=start,
        description=label,
        layout={"width": "100%", "max_width": "36em"},
        style={"description_width": "initial"},
    )
    return _linked(selector, pages, start)


def explorer(pages: Mapping[str, str], label: str) -> ipywidgets.VBox:
    """A drop-down over prepared HTML pages, that works without a kernel."""
    selector = ipywidgets.Dropdown(
        options=[(name, i) for i, name in enumerate(pages)],
        description=label,
        layout={"width": "100%", "max_width": "36em"},
        style={"description_width": "initial"},
    )
    return _linked(selector, pages, 0)


def _linked(selector: ipywidgets.DOMWidget, pages: Mapping[str, str], start: int) -> ipywidgets.VBox:
    stack = ipywidgets.Stack([ipywidgets.HTML(page) for page in pages.values()], selected_index=start)
    ipywidgets.jslink((selector, "index"), (stack, "selected_index"))
    return ipywidgets.VBox([selector, stack])
