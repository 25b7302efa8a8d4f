"""The explorer: pages about a question that was asked of models, and live widgets around them, for JupyterLab.

A page is a piece of HTML, in which all text from data is escaped; the rendered book shows pages of one question as they
are. The widgets need a kernel. They answer through `observe` and `HTML` alone, since `interact` and `Output` hang
papermill, and whatever goes wrong is a sentence in the place of the page that could not be made.
"""

import html
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd

from dprlens.bert.encoder import Encoder
from dprlens.decentralization.attribution import SITES
from dprlens.explorer.inspection import DPR, PRETRAINED, Ground, Inspection, beliefs, facts_of_question, notes, place
from dprlens.report import figures
from dprlens.report.report import svg
from dprlens.report.widgets import AS_TEXT, mark_answers, picture
from dprlens.report.widgets import beliefs as blanked
from dprlens.retrieval.exact_search import Ranking

SUGGESTED = 400  # questions that the field offers
LISTED = 40  # neurons to choose from
SHOWN_FACTS, SHOWN_NEURONS = 6, 8
WIDE = {"width": "100%", "max_width": "60em"}
# JupyterLab has no style for the pages; the book has its own, and does not show the widget that brings this one
STYLE = """<style>
.article-grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18em), 1fr)); gap: 1em 2em; }
.question { margin: 0.4em 0; padding-left: 0.9em; border-left: 3px solid var(--jp-border-color1, #bdbdbd); }
.question p, .question li { margin: 0.15em 0; line-height: 1.45; overflow-wrap: anywhere; }
.question .asked { font-style: italic; }
.question .fine { color: var(--jp-ui-font-color2, #616161); font-size: 0.9em; }
.question mark { background: #cfe3f6; color: #10202f; padding: 0 0.15em; }
.question img { background: #fff; }
.question td, .question th { padding: 0 1em 0 0; text-align: right; }
</style>"""


def page(*parts: str) -> str:
    """Parts of HTML as one page."""
    return f'<div class="question {AS_TEXT}">{"".join(parts)}</div>'


def sentence(text: str) -> str:
    """A remark."""
    return f'<p class="fine" dir="auto">{html.escape(text)}</p>'


# pages


def stamp(ground: Ground, profile: str, seed: int) -> str:
    """Which world and models answer."""
    world = ", ".join(f"{name} {value}" for name, value in ground.world.summary().items())
    return page(sentence(f"Profile {profile} · seed {seed} · world: {world}. {about_edited(ground)}"))


def about_edited(ground: Ground) -> str:
    """Which edited models there are to choose from."""
    edited = [name for name in ground.models if name not in (PRETRAINED, DPR)]
    if not edited:
        return "No edited model is in the cache; run the chapter “Adding facts” (make run NB=04_1) to have some here."
    return (
        f"{len(edited)} of the models come from the chapter “Adding facts”. They were told {len(ground.told)} facts; "
        "questions about these come first among those that the field suggests."
    )


def passages(asked: Mapping[str, Inspection], top: int) -> str:
    """What each model, by its name on the page, ranks first: titles, scores, texts with the answers marked."""
    first, *_ = asked.values()
    searched, all_ = len(first.model.places), len(first.ground.world.passages)
    remarks = [f"{searched:,} passages were searched" + (f", of {all_:,}." if searched < all_ else ".")]
    if first.question is None:
        remarks.append("This is no question of the world, so that nobody has said which passage answers it.")
    remarks += notes(first.model.dual.query, first.text)
    lists = {name: one.found for name, one in asked.items()}
    return page(
        f'<p class="asked" dir="auto">{html.escape(first.text)}</p>',
        ranked(first, lists, top, follow=first.question is not None),
        sentence(" ".join(remarks)),
    )


def ranked(asked: Inspection, lists: Mapping[str, Ranking], top: int, follow: bool = True) -> str:
    """The first passages of some rankings side by side, the gold one with a sign.

    With `follow`, each says where the question's right passage is.
    """
    answers = asked.question.answers if asked.question else ()
    what = "The gold passage" if asked.question else "The passage that was ranked first"

    def entry(i: int, score: float) -> str:
        passage = asked.ground.world.passages[i]
        title = html.escape(passage.title)
        if asked.question and i == asked.right:
            title = f'<mark class="answer">{title} ✓</mark>'
        text = mark_answers(passage.text, answers) if answers else html.escape(passage.text)
        return f'<li dir="auto"><b>{title}</b> <span class="fine">{score:.2f}</span><br>{text}</li>'

    def column(name: str, found: Ranking) -> str:
        first = zip(found.passages[:top].tolist(), found.scores[:top].tolist(), strict=True)
        entries = "".join(entry(i, score) for i, score in first)
        where = place(found, asked.right)
        said = f"{what} is number {where:,} of {len(found.passages):,}." if where else f"{what} was not searched."
        return f"<div><p><b>{html.escape(name)}</b></p><ol>{entries}</ol>{sentence(said) if follow else ''}</div>"

    return f'<div class="article-grid">{"".join(column(*one) for one in lists.items())}</div>'


def believed(ground: Ground, text: str, encoders: Mapping[str, Encoder]) -> str:
    """What each masked-LM puts into the blanks of statements about what the question names."""
    facts = facts_of_question(ground, text)
    if not facts:
        return page(sentence("The question names no entity of which the world states a fact."))
    shown = facts[:SHOWN_FACTS]
    answers = zip(*(beliefs(encoder, shown) for encoder in encoders.values()), strict=True)
    cards = [
        f"<div>{sentence(f'{fact.subject}, {_words(fact.relation)}: {ground.world.state(fact.id)} · {name}')}"
        f"{blanked(*belief)}</div>"
        for fact, each in zip(shown, answers, strict=True)
        for name, belief in zip(encoders, each, strict=True)
    ]
    more = [sentence(f"{len(facts) - len(shown)} more facts are not shown.")] if len(facts) > len(shown) else []
    return page(f'<div class="article-grid">{"".join(cards)}</div>', *more)


def layers(asked: Mapping[str, Inspection]) -> str:
    """The question's cosine with the right passage and with the hard ones, by layer, as a picture."""
    first, *_ = asked.values()
    names = {"right": "gold passage", "hard": "hard negatives, mean"}
    if first.question is None:
        names = {"right": "passage ranked first", "hard": "passages ranked next, mean"}
    panels = {model: {names[what]: curve for what, curve in one.similarity.items()} for model, one in asked.items()}
    ends = "; ".join(
        f"{model}: " + ", ".join(f"{name} {[*curve.values()][-1]:.2f}" for name, curve in curves.items())
        for model, curves in panels.items()
    )
    figure = figures.by_layer(panels, "cosine")
    source = svg(figure)
    plt.close(figure)
    return page(picture(source, f"Cosine with the question by layer, one panel a model. At the last layer, {ends}."))


def neurons(asked: Inspection, active: pd.DataFrame, threshold: float) -> str:
    """How many neurons of each block and site are active, and which are the strongest."""
    all_ = asked.attribution.scores.size
    counts = pd.crosstab(active["block"], active["site"]).reindex(
        index=range(asked.model.dual.query.layers), columns=SITES, fill_value=0
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("block", *SITES))
    rows = "".join(
        f'<tr><th scope="row">{block}</th>{"".join(f"<td>{n:,}</td>" for n in row)}</tr>'
        for block, row in enumerate(counts.to_numpy().tolist())
    )
    strongest = "; ".join(f"{neuron_name(row)} ({row.share:.0%})" for row in active[:SHOWN_NEURONS].itertuples())
    return page(
        f"<p><b>{len(active):,} of {all_:,} neurons</b> are active: ",
        f"they have at least {threshold:g} of the greatest attribution.</p>",
        sentence(f"The strongest, with their share of the greatest: {strongest or 'none'}."),
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>",
        sentence(
            "What is attributed is the probability of the right passage among those ranked highest. "
            f"Attributions add up to its change within {asked.attribution.gap.max():.1%} at every block and site."
        ),
    )


def neuron_name(neuron: Any) -> str:
    """A row of `Asked.active` in words."""
    return f"block {neuron.block}, {neuron.site} {neuron.neuron}"


def silenced(asked: Inspection, silent: pd.DataFrame, top: int) -> str:
    """The ranking as it is, and when these neurons are silent."""
    if silent.empty:
        return page(sentence("No neuron is silent."))
    name = f"without {len(silent):,} neuron{'s' if len(silent) > 1 else ''}"
    lists = {"as it is": asked.found, name: asked.silenced(silent)}
    return page(ranked(asked, lists, top))


# widgets


class Explorer:
    """The widgets of the explorer; `view` shows them. A choice above makes the pages below it anew."""

    def __init__(self, ground: Ground, question: str, threshold: float, top: int) -> None:
        self.ground, self.top = ground, top
        wide = {"layout": WIDE, "style": {"description_width": "7em"}}
        self.question = ipywidgets.Combobox(
            value=question,
            options=ground.suggestions(SUGGESTED),
            placeholder="type any question and press Enter",
            description="Question",
            continuous_update=False,
            **wide,
        )
        names = list(ground.models)
        self.left = ipywidgets.Dropdown(options=names, value=PRETRAINED, description="On the left", **wide)
        self.right = ipywidgets.Dropdown(options=names, value=DPR, description="On the right", **wide)
        self.threshold = ipywidgets.FloatSlider(
            value=threshold,
            min=0.01,
            max=1,
            step=0.01,
            description="Threshold",
            continuous_update=False,
            **wide,
        )
        self.all = ipywidgets.Checkbox(description="silence all active neurons", indent=False)
        self.chosen = ipywidgets.SelectMultiple(description="Silence", rows=8, **wide)
        self.status = ipywidgets.HTML()
        makers = (self._passages, self._believed, self._layers, self._neurons, self._silenced)
        self.pages: list[tuple[ipywidgets.HTML, Callable[[], str]]] = [
            (ipywidgets.HTML().add_class(f"explorer{make.__name__}"), make) for make in makers
        ]
        for selector, first in (
            (self.question, 0),
            (self.left, 0),
            (self.right, 0),
            (self.threshold, makers.index(self._neurons)),
            (self.all, makers.index(self._silenced)),
            (self.chosen, makers.index(self._silenced)),
        ):
            selector.observe(lambda _, first=first: self._show(first), "value")
        self._show(0)

    @cached_property
    def view(self) -> ipywidgets.VBox:
        """Everything, in reading order."""
        found, believed_, layers_, neurons_, silenced_ = (shown for shown, _ in self.pages)
        return ipywidgets.VBox(
            [
                ipywidgets.HTML(STYLE),
                *(self.question, self.left, self.right, self.status, found),
                *(_heading("What BERT believes"), believed_),
                *(_heading("Similarity by layer"), layers_),
                *(_heading("Neurons of the model on the right"), self.threshold, neurons_),
                *(_heading("Without some of them"), self.all, self.chosen, silenced_),
            ]
        )

    def _show(self, first: int) -> None:
        """Make the pages from this one on; one that cannot be made says why, and those after it are empty."""
        self.status.value = '<p role="status">working …</p>'
        pages = iter(self.pages[first:])
        for shown, make in pages:
            try:
                shown.value = make()
            except Exception as error:
                known = isinstance(error, ValueError)  # a sentence of ours
                text = str(error) if known else f"this could not be computed ({type(error).__name__}: {error})"
                shown.value = page(sentence(f"{text[:1].upper()}{text[1:]}."))
                break
        for shown, _ in pages:
            shown.value = ""
        self.status.value = '<p role="status">ready</p>'

    def _passages(self) -> str:
        names = (self.left.value, self.right.value)
        self.asked = {name: Inspection(self.ground, self.ground.models[name], self.question.value) for name in names}
        return passages(self.asked, self.top)

    def _believed(self) -> str:
        says = {self.ground.models[name].says: name for name in reversed(self.asked)}
        return believed(self.ground, self.question.value, {name: encoder for encoder, name in says.items()})

    def _layers(self) -> str:
        return layers(self.asked)

    def _neurons(self) -> str:
        asked = self.asked[self.right.value]
        self.active = asked.active(self.threshold.value)
        listed = self.active[:LISTED].itertuples()
        self.chosen.options = [(f"{neuron_name(row)} ({row.share:.0%})", i) for i, row in enumerate(listed)]
        return neurons(asked, self.active, self.threshold.value)

    def _silenced(self) -> str:
        silent = self.active if self.all.value else self.active.iloc[list(self.chosen.value)]
        return silenced(self.asked[self.right.value], silent, self.top)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _heading(text: str) -> ipywidgets.HTML:
    return ipywidgets.HTML(f"<h3>{html.escape(text)}</h3>")
