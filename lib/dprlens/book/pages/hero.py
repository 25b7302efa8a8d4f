"""The front page's picture and the sentence above it, from the results files: what DPR retrieves, by what BERT knows.

Numbers on record for the profile `full` come first; where they lack the baseline, this build's do: the effect is never
shown without it.
"""

import html
from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dprlens.book.pages.scorecard import BuiltResults, unbroken
from dprlens.intervals import Estimate
from dprlens.late_facts import exhibits
from dprlens.report import figures
from dprlens.report.report import data_uri, plain, svg

TOP = 20  # passages, as in the chapters' decisive numbers
STATES = {"known": "stated in pre-training", "held_out": "never stated"}
ARMS = {  # of the left panel: the id of its number, after the state
    "DPR": f"top{TOP}",
    "word co-occurrence, no network": f"cooccurrence.top{TOP}",
    "DPR without pre-training": f"knowledge_required.{{}}.without_pre_training.top{TOP}",
}
LEFT = "Retrieval by whether pre-training stated the fact that the question needs"
RIGHT = "Recall and retrieval by when the fact was read"
UNMEASURED = "The experiment behind this picture has not been run yet: `make book` runs it.\n"


def hero(here: BuiltResults, full: BuiltResults) -> str:
    """The sentence that answers the title of the paper, and the picture under it, as MyST Markdown."""
    source = max((full, here), key=lambda found: sum(map(bool, _states(found).values())))  # the first of equals
    arms = _states(source)
    if not arms:
        return UNMEASURED
    panels = [_panel(LEFT, figures.bars(arms, f"passage among the first {TOP}", _chance(source)), _said(arms))]
    if curves := _curves(full) or _curves(here):
        panels.append(
            _panel(
                RIGHT,
                figures.dose_response(curves, "read after so much of pre-training, %", "share"),
                _said(curves, "after {} %"),
            )
        )
    return (
        f'{_answer(source)}\n\n```{{raw}} html\n<div class="hero">{"".join(panels)}</div>\n```\n\n{_caption(source)}\n'
    )


def _states(found: BuiltResults) -> dict[str, dict[str, Estimate]]:
    """{arm: {state of the fact: share of questions whose passage is retrieved}}, as far as it was measured."""
    arms = {}
    for arm, end in ARMS.items():
        ids = {
            name: f"bound.{end.format(state) if '{}' in end else f'{state}.{end}'}" for state, name in STATES.items()
        }
        measured = all(id_ in found.numbers for id_ in ids.values())
        arms[arm] = {name: found.numbers[id_] for name, id_ in ids.items()} if measured else {}
    return arms if arms["DPR"] else {}


def _curves(found: BuiltResults) -> dict[str, dict[int, Estimate]]:
    """Recall and retrieval by the time at which a fact was read, where learning rates fall."""
    names = {"found, rates fall": "retrieved by DPR", "recalled, rates fall": "recalled by BERT"}
    curves = exhibits.curves_on_record(found.numbers)
    return {new: curves[old] for old, new in names.items() if curves.get(old)}


def _chance(found: BuiltResults) -> float | None:
    """Of the passages, the share that stands among the first."""
    return TOP / found.passages if found.passages else None


def _panel(title: str, figure: Figure, alt: str) -> str:
    source = data_uri(svg(figure))
    plt.close(figure)
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    return f'<figure>{caption}<img src="{source}" alt="{html.escape(f"{title}: {alt}", quote=True)}"></figure>'


def _said(lines: Mapping[str, Mapping], place: str = "{}") -> str:
    """What a picture draws, in words with its numbers."""
    return "; ".join(
        f"{name}, " + ", ".join(f"{place.format(key)} {estimate.brief}" for key, estimate in values.items())
        for name, values in lines.items()
        if values
    )


def _answer(found: BuiltResults) -> str:
    known, held_out = (found.numbers[f"bound.{state}.top{TOP}"] for state in STATES)
    share, within = (found.numbers.get(f"bound.cooccurrence_over_dpr.difference.{of}") for of in (f"top{TOP}", "auc"))
    sentence = (
        "**In a closed world, where it is on record what BERT has read, what DPR retrieves depends on what BERT"
        " knows:**"
        f" it puts the right passage among its first {TOP} for {known.value:.0%} of the questions whose linking fact"
        f" pre-training stated, and for {held_out.value:.0%} of those whose linking fact it never stated"
    )
    if share is None or within is None:
        return f"{sentence}."
    return (
        f"{sentence}. A table of word co-occurrence in the same text, without any network, shows {share.value:.0%} of"
        f" that difference, and {within.value:.0%} of it by rank among passages of the same relation: whether DPR uses"
        " the fact or the words that stand beside it, this design cannot tell."
    )


def _caption(found: BuiltResults) -> str:
    known, held_out = (found.numbers.get(f"bound.{state}.auc") for state in STATES)
    within = (
        f" Among passages of the same relation the right one outranks another with probability {_number(known)} if the"
        f" fact was stated, and {_number(held_out)} if it never was (chance 0.50)."
        if known is not None and held_out is not None
        else ""
    )
    return (
        "*Left:* questions whose passage only somebody can find who knows a linking fact, which was stated or left out"
        f" by lot.{within} *Right:* facts read late are recalled as well, and lead to their passage less often. Bars"
        " and whiskers are shares with 95&nbsp;% intervals"
        f" (profile {plain(found.profile)}): {{doc}}`../notebooks/B_1_knowledge_bound`,"
        " {doc}`../notebooks/B_2_late_facts`. A small network in a generated world; how large any of it is in"
        " BERT-base on Wikipedia it does not say."
    )


def _number(estimate: Estimate) -> str:
    return plain(unbroken(str(estimate)))
