"""HTML for pages and kernel-free explorers. All text from data is escaped here, and only here.

An explorer is a selector linked in the browser (`jslink`) to a `Stack` of prepared pictures: it works in the rendered
book, offline and without a kernel. Never `interact` or `Output` in a notebook that papermill runs: they hang it.
"""

import html
import itertools
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from textwrap import shorten

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from dprlens.report.figures import COLOURS
from dprlens.report.report import light_svg
from dprlens.world.records import Passage, Question, Statement, World

Key = str | tuple[str, ...]  # of a page of an explorer: what its selectors stand at
AS_TEXT = "tex2jax_ignore mathjax_ignore"  # dollars in data are no formulas
SNIPPET = 70  # characters of a passage that stand behind its title
# The track of a bar has its width from the row alone, the same in every row, so that bars are as long as their numbers.
BAR = (
    '<div class="bar" style="display:grid;grid-template-columns:minmax(0,2fr) minmax(0,3fr) 3em;align-items:center;'
    'column-gap:0.5em"><span>{name}</span><span class="track" style="display:block">'
    '<span style="display:block;background:{colour};width:{share:.2%};height:0.9em"></span></span>'
    '<span style="text-align:right">{share:.0%}</span></div>'
)


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
        if question.link is None:
            note = "lexical"
        else:
            link = world.fact[question.link]
            name, state = link.relation.replace("_", " "), world.state(link.id)
            note = f"knowledge-required; link: {link.subject} – {name} – {link.object} ({state})"
        blocks.append(
            f'<div class="question {AS_TEXT}"><p class="asked">{html.escape(question.text)}</p>'
            f"<p><b>{html.escape(passage.title)}</b> · {mark_answers(passage.text, question.answers)}</p>"
            f'<p class="fine">{html.escape(note)}</p></div>'
        )
    return HTML("".join(blocks))


def mark_answers(text: str, answers: Sequence[str]) -> str:
    """A text as HTML in which the answers are marked."""
    parts = re.split("|".join(f"({re.escape(answer)})" for answer in answers), text)
    return "".join(
        f'<mark class="answer">{html.escape(part)}</mark>' if part in answers else html.escape(part)
        for part in parts
        if part
    )


def rankings(world: World, question: Question, lists: Mapping[str, Iterable[int]], note: str = "") -> str:
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
    rows = []
    for guess, probability in guesses:
        right = guess.lower() == statement.answer.lower()
        name = html.escape(guess) + (" ✓" if right else "")
        rows.append(BAR.format(name=name, colour=COLOURS["blue" if right else "grey"], share=probability))
    return (
        f'<div class="question {AS_TEXT}"><p class="asked">{_blanked(statement)}</p>{"".join(rows)}'
        f'<p class="fine">the world says: {html.escape(statement.answer)}</p></div>'
    )


def strongest(models: Mapping[str, pd.DataFrame], most: int = 8) -> str:
    """The strongest neurons of one question, side by side by model, from the rows of `active_neurons.strongest`."""
    columns = []
    for model, active in models.items():
        bars = []
        for neuron in active[:most].itertuples():
            name = html.escape(f"block {neuron.block}, {neuron.site} {neuron.neuron}")
            bars.append(BAR.format(name=name, colour=COLOURS["blue"], share=neuron.share))
        said = f"{html.escape(model)}: {len(active):,} active neurons" + (", the strongest:" if bars else "")
        columns.append(f"<div><p>{said}</p>{''.join(bars)}</div>")
    return f'<div class="question {AS_TEXT}"><div class="article-grid">{"".join(columns)}</div></div>'


def edited_fact(told: Statement, blank: Statement, question: Question, gold: Passage, seen: pd.DataFrame) -> str:
    """An edited fact: the statement that told it, another with a blank, a question; and what became of them.

    `seen` has a row a model (its name in the first column); here the models stand side by side.
    """
    models, *columns = (seen[name].astype(str) for name in seen)
    head = "".join(f'<th scope="col">{html.escape(model)}</th>' for model in models)
    lines = []
    for column in columns:
        cells = "".join(f"<td>{html.escape(value)}</td>" for value in column)
        lines.append(f'<tr><th scope="row">{html.escape(str(column.name))}</th>{cells}</tr>')
    return (
        f'<div class="question {AS_TEXT}"><p class="asked">{mark_answers(told.text, [told.answer])}</p>'
        f'<p class="fine">blank: {_blanked(blank)}</p><p class="fine">question: {html.escape(question.text)}</p>'
        f'<p class="fine">its passage: {html.escape(f"{gold.title}: {gold.text}")}</p>'
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _blanked(statement: Statement) -> str:
    """A statement as HTML, a blank in the place of its answer."""
    return html.escape(statement.text[: statement.start]) + "<b>▢▢▢</b>" + html.escape(statement.text[statement.end :])


def picture(source: str, alt: str) -> str:
    """An SVG picture (as `report.svg` gives it) as HTML, with words for those who cannot see it."""
    # a page of many pictures is a fifth lighter than in base 64
    address = "data:image/svg+xml," + urllib.parse.quote(source.replace('"', "'"), safe=" !$'()*+,-./:;=>?@[]^_`{|}~")
    return f'<img src="{address}" alt="{html.escape(alt)}" style="max-width:100%">'


def drawn(figure: Figure, alt: str) -> str:
    """A figure as HTML for a page of an explorer, with words for those who cannot see it; the figure is closed."""
    source = light_svg(figure)
    plt.close(figure)
    return picture(source, alt)


def still(pages: Mapping[Key, str], start: Key | None = None) -> HTML:
    """A page of an explorer for browsers without JavaScript, which would show nothing there; all others hide it."""
    key = next(iter(pages)) if start is None else start
    name = html.escape(key if isinstance(key, str) else ", ".join(key))
    return HTML(f'<noscript><p class="fine">{name} (the others need JavaScript)</p>{pages[key]}</noscript>')


def explorer(pages: Mapping[Key, str], *labels: str, start: Key | None = None) -> ipywidgets.VBox:
    """Drop-downs over prepared HTML pages, that work without a kernel; they start at the key `start`, or the first.

    One label: the keys are names. Several: the keys are tuples, a name for each label, and every combination has a page
    (else ValueError); names keep the order in which they first come.
    """
    by_key = {(key,) if isinstance(key, str) else key: page for key, page in pages.items()}
    names = [list(dict.fromkeys(key[i] for key in by_key)) for i in range(len(labels))]
    lacking = sorted(set(itertools.product(*names)) - set(by_key))
    if lacking:
        raise ValueError(f"each combination of {', '.join(labels)} needs a page; without one: {lacking[0]}")
    first = next(iter(by_key)) if start is None else (start,) if isinstance(start, str) else start
    selectors = [
        ipywidgets.Dropdown(
            options=[(name, i) for i, name in enumerate(chosen)],
            index=chosen.index(name),
            description=label,
            layout={"width": "100%", "max_width": "36em"},
            style={"description_width": "initial"},
        )
        for chosen, label, name in zip(names, labels, first, strict=True)
    ]

    def pictures(*chosen: str) -> ipywidgets.DOMWidget:
        """What is seen once the first selectors stand at `chosen`: a stack of stacks, down to the pages."""
        depth = len(chosen)
        if depth == len(labels):
            return ipywidgets.HTML(by_key[chosen])
        return _stack([pictures(*chosen, name) for name in names[depth]], selectors[depth])

    return ipywidgets.VBox([*selectors, pictures()])


def _stack(children: Sequence[ipywidgets.DOMWidget], selector: ipywidgets.DOMWidget) -> ipywidgets.Stack:
    """Of the children, the one that the selector stands at is seen; the browser sees to that, without a kernel."""
    stack = ipywidgets.Stack(children, selected_index=selector.index)
    ipywidgets.jslink((selector, "index"), (stack, "selected_index"))
    return stack
