"""The page of all printed numbers: the paper's, cell by cell, beside this build's and those on record for `full`.

A table for each exhibit, whole without JavaScript; `book/_assets/js/filter.js` puts a field and a drop-down above them.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dprlens.book.notebooks import Notebook
from dprlens.book.pages.scorecard import BuiltResults, unbroken
from dprlens.intervals import Estimate, exact
from dprlens.paper import numbers, replication, text_numbers, titles
from dprlens.report.report import plain

NAMES = {
    "untrained": "pre-trained BERT, probe not trained",
    "pretrained": "pre-trained BERT",
    "dpr_query": "DPR, query tower",
    "dpr_context": "DPR, context tower",
    "bert": "pre-trained BERT",
    "dpr": "DPR",
    "transformer_patcher": "Transformer-Patcher",
    "malmen": "MALMEN",
    "mend": "MEND",
}
COLUMNS = {
    "top1": "answer in the first passage",
    "strong": "strongly activated neurons",
    "probing_added": "share by the probe",
    "probing_removed": "share by the probe",
    "off_target_flips": "off-target flips of the probe",
    "dpr_added": "of these, share after DPR training",
    "dpr_removed": "of these, share after DPR training",
    "off_target_edits": "off-target edits after DPR training",
}
REPLICATED = {"pretrained": "bert-base-uncased", "dpr_query": "dpr-question", "dpr_context": "dpr-context"}
COUNTS = ("strong", "off_target_flips", "off_target_edits", "questions")  # whole numbers
UNMEASURED = "not measured here"
FIGURES = tuple(f"figure{i}" for i in range(1, 8))
INTRODUCTION = """# Every printed number

What the paper prints, and what it says in its text, number by number, beside ours: from this build (profile
{profile}), with 95 % interval and *n*, and from the record of the profile `full`. **Compare directions and shapes, not
heights**: ours come from a small network in a generated world ({{doc}}`how_to_read`). Where this build measured
nothing, or had nothing of which to take a share, stands *not measured here*. A number without interval and *n* is a
count. Where the record has the same *n* as this build of the profile `small`, it is of the same world too: the same
experiment once more, no second witness."""
NOTES = {
    "table1": """Accuracy of the probe. From three passages on the paper prints one row for both towers; here it stands
under each. The replication is that of {cite:t}`yao2025pretraining` on the real models and Natural Questions, read off
its figures.""",
    "table2": """The paper's eight questions are of Natural Questions, ours of our world, so that a row does not compare
the same question. Read the columns. The titles that the paper prints besides are not numbers.""",
    "table3": """Facts added. The off-target counts depend on how many questions are asked, which the paper does not
say.""",
    "table4": "Facts removed. The share after DPR training is read as the text reads it: facts that stay lost.",
}
TEXT = """Numbers that the paper says outside its tables, by section. A *setting* is a choice of its authors; ours are
on the page of [choices](choices.md)."""
FIGURES_NOTE = """The paper's figures print, beside each block, how many neurons are active for any example. These
counts are in the pictures. The text that we have holds only the captions, so that nothing can be set beside ours."""
SCRIPT = """```{raw} html
<script defer src="../_static/js/filter.js"></script>
```"""


class Row(NamedTuple):
    """A row of the page: a printed number beside ours."""

    what: str
    printed: str
    replicated: str
    ids: tuple[str, ...]  # of our numbers
    instead: str = UNMEASURED  # said for a number that this build does not have


def printed_page(notebooks: Sequence[Notebook], here: BuiltResults, full: BuiltResults) -> str:
    """The whole page as MyST Markdown, of this build's results and of those on record for `full`."""
    chapters = {exhibit: notebook for notebook in notebooks for exhibit in notebook.exhibits}
    parts = [INTRODUCTION.format(profile=plain(here.profile)), SCRIPT]
    for exhibit, note in NOTES.items():
        parts += [f"## Table {exhibit[-1]}", note, _source(exhibit, here, chapters)]
        parts.append(_table(_printed(exhibit), here, full, replicated=exhibit == "table1"))
    parts += ["## The text", TEXT, _table(_in_the_text(), here, full)]
    parts += ["## The figures", FIGURES_NOTE, _figures(here, chapters)]
    return "\n\n".join(parts) + "\n"


def _printed(exhibit: str) -> list[Row]:
    """The rows of one of the paper's tables, in its order."""
    ids = [id_ for id_ in numbers() if id_.startswith(f"{exhibit}.")]
    if exhibit == "table1":
        return _probes(ids)
    if exhibit == "table2":
        return _questions(ids)
    done, rows = "added" if exhibit == "table3" else "removed", []
    for id_ in ids:
        _, editor, column = id_.split(".")
        rows.append(
            Row(f"{NAMES[editor]}, facts {done}: {COLUMNS[column]}", _shown(id_, exact(numbers()[id_])), "–", (id_,))
        )
    return rows


def _probes(ids: Iterable[str]) -> list[Row]:
    frame = replication().query("dataset == 'nq' and pooling == 'cls'")
    replicated = frame.set_index(["model", "n_passages", "layer"])["accuracy"].to_dict()
    rows = []
    for id_ in ids:
        _, passages, model, place = id_.split(".")
        n, layer = int(passages.removeprefix("n")), int(place.removeprefix("layer"))
        other = replicated.get((REPLICATED.get(model), n, layer))
        what = f"N = {n}, {NAMES[model]}, layer {layer}"
        rows.append(Row(what, _shown(id_, exact(numbers()[id_])), "–" if other is None else f"{other:.2f}", (id_,)))
    return rows


def _questions(ids: Iterable[str]) -> list[Row]:
    asked = titles().drop_duplicates("question").set_index("question")["query"]
    rows = []
    for id_ in ids:
        _, question, cell = id_.split(".")
        model, column = cell.split("_")
        what = f"{question} “{asked[question]}”, {NAMES[model]}: {COLUMNS[column]}"
        rows.append(Row(what, _shown(id_, exact(numbers()[id_])), "–", (id_,)))
    return rows


def _in_the_text() -> list[Row]:
    instead = {"setting": "a setting", "result": UNMEASURED}
    return [
        Row(f"Section {number.section}: {number.what}", number.said, "–", number.ids, instead[number.kind])
        for number in text_numbers()
    ]


def _table(rows: Iterable[Row], here: BuiltResults, full: BuiltResults, replicated: bool = False) -> str:
    """A table that the filter knows by its container."""
    recorded = here.profile != full.profile
    heads = ["Number", "Paper", *(["Replication"] if replicated else []), "Here", *(["On record"] if recorded else [])]
    lines = [heads, [":---"] * len(heads)]
    for row in rows:
        cells = [row.what, row.printed, *([row.replicated] if replicated else []), _ours(row, here, row.instead)]
        cells += [_ours(row, full, "–")] if recorded else []
        lines.append([plain(cell) for cell in cells])
    return _contained((f"| {' | '.join(line)} |" for line in lines), "printed replicated" if replicated else "printed")


def _ours(row: Row, found: BuiltResults, instead: str) -> str:
    """Our numbers for a row; `instead` stands for each that was not measured."""
    shown = [_shown(id_, found.numbers[id_]) if id_ in found.numbers else instead for id_ in row.ids]
    return "; ".join(shown) or instead


def _shown(id_: str, number: Estimate) -> str:
    """A number as its column wants it: with what is known of it, or yes or no, or a count, or a share."""
    if number.n:
        return unbroken(str(number))
    if id_.endswith("top1"):
        return "yes" if number.value else "no"
    return f"{number.value:,.0f}" if id_.endswith(COUNTS) else f"{number.value:.2f}"


def _source(exhibit: str, here: BuiltResults, chapters: dict[str, Notebook]) -> str:
    """Where ours is: the exhibit and its chapter, as far as this build has them."""
    if exhibit not in here.exhibits or exhibit not in chapters:
        return "This build does not have the exhibit."
    return f"Ours: {{numref}}`{exhibit}`, in {_chapter(chapters[exhibit])}."


def _chapter(notebook: Notebook) -> str:
    return f"[{plain(notebook.title)}](../notebooks/{notebook.path.name})"


def _figures(here: BuiltResults, chapters: dict[str, Notebook]) -> str:
    """A row for each figure, with the way to ours."""
    lines = ["| Number | Paper | Here |", "| :--- | :--- | :--- |"]
    for exhibit in FIGURES:
        ours = f"{{numref}}`{exhibit}`, {_chapter(chapters[exhibit])}" if exhibit in here.exhibits else UNMEASURED
        lines.append(f"| Figure {exhibit[-1]}: active neurons of each block | not in the text | {ours} |")
    return _contained(lines, "printed")


def _contained(lines: Iterable[str], css: str) -> str:
    return "\n".join([f":::{{container}} {css}", *lines, ":::"])
