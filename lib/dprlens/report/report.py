"""What a notebook reports: every number once, beside the paper's, in its results file and on its page.

Tables, figures and claims are shown by one output with two faces: HTML, which JupyterLab shows, and MyST Markdown, from
which the book makes a numbered table or figure whose label is the exhibit's id (`nb_mime_priority_overrides` and
`nb_render_markdown_format` in `_config.yml` choose it). `say` shows a paragraph with numbers likewise. All text is
shown as text: whatever could be markup, in either face, is escaped. A table's output also holds its cells as CSV, a
figure's a PNG: no page shows them, the renderer makes downloads of them.
"""

import base64
import html
import importlib.metadata
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from textwrap import dedent
from typing import Any, NamedTuple, Protocol, TypedDict
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from dprlens import paper
from dprlens.cache.artifacts import folder_for, write_json
from dprlens.intervals import Estimate, exact

SVG_SPACE = "http://www.w3.org/2000/svg"
SVG: dict[Any, Any] = {
    "svg.hashsalt": "dprlens",
    "svg.fonttype": "path",
}  # the same bytes each time; no font needed to show them
LIBRARIES = ("dprlens", "torch", "transformers")
SIGNS = {  # verdict: sign, CSS class
    "holds": ("✓", "holds"),
    "does not hold": ("✗", "fails"),
    "cannot tell here": ("?", "unclear"),
    "not tested yet": ("–", "untested"),
}
NO_BREAK = "\u00a0"
PIXELS = 150  # an inch, of a figure as PNG
EXHIBIT = re.compile(r"[a-z][a-z0-9_]*")
ROLE = re.compile(r"\{(?P<role>[a-z:]+)\}`(?P<words>[^`]*)`")  # of MyST: {term}`gold passage`
VALUE = re.compile(r"\{(\w+)\}(?!`)")  # in a sentence: {linear}
MARKDOWN = MarkdownIt()
NUMBER = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")


class Summarized(Protocol):
    """All that a report asks of a world: sizes and digest, as a dict ready for JSON."""

    def summary(self) -> dict:
        """Return the world's sizes and digest, ready for JSON."""


class Number(TypedDict):
    """A reported number as a results file has it; a count has no interval."""

    ours: float
    low: float | None
    high: float | None
    n: int | None
    paper: float | None


class Exhibit(TypedDict):
    """A table, a figure, or numbers alone, as a results file has it."""

    kind: str
    title: str
    numbers: dict[str, Number]
    claims: list[dict[str, str]]


class Results(TypedDict):
    """A results file."""

    notebook: str
    profile: str
    seed: int
    parameters: dict[str, Any]
    world: dict[str, Any]
    exhibits: dict[str, Exhibit]


class Table(NamedTuple):
    """A numbered table of a chapter, and the numbers behind it, by id."""

    exhibit: str
    frame: pd.DataFrame
    title: str
    numbers: Mapping[str, Estimate | float | None] = {}


class Drawing(NamedTuple):
    """A numbered figure of a chapter, what it shows in words, the numbers behind it, and the points that are drawn."""

    exhibit: str
    figure: Figure
    title: str
    alt: str
    numbers: Mapping[str, Estimate | float | None] = {}
    points: pd.DataFrame | None = None


class Absent(NamedTuple):
    """An exhibit that this world, or this record, has nothing to show of."""

    exhibit: str
    title: str
    why: str


class Report:
    """The results of one notebook, written to `<root>/<profile>/<notebook>.json` after each call, whole or not at all.

    The root is `$DPRLENS_RESULTS`, else `_build/results` of the repository, else of the current folder.
    """

    def __init__(
        self,
        notebook: str,
        *,
        profile: str,
        seed: int,
        world: Summarized,
        parameters: Mapping[str, object],
    ):
        self.numbers: dict[str, Estimate] = {}
        self.path = folder_for("DPRLENS_RESULTS", "_build", "results") / profile / f"{notebook}.json"
        self._judged: list[str] = []  # exhibits whose claims were shown
        self._results: Results = {
            "notebook": notebook,
            "profile": profile,
            "seed": seed,
            "parameters": dict(parameters),
            "world": world.summary(),
            "exhibits": {},
        }
        self._write()  # from now on no number of an earlier run is left

    def number(self, name: str, value: Estimate | float) -> None:
        """Report one number that no table or figure shows.

        `name` is `<exhibit>.<…>`; a plain number is an exact count. Raises ValueError if it was reported before.
        """
        self._add(name.split(".")[0], {name: value})
        self._write()

    def table(
        self,
        exhibit: str,
        frame: pd.DataFrame,
        title: str,
        numbers: Mapping[str, Estimate | float | None] | None = None,
    ) -> None:
        """Show `frame` as a numbered table and report the `numbers` behind it.

        Cells are shown as they are if text; floats with two decimals, estimates with their interval, nothing as "–".
        The index is not shown: `reset_index` first if it says something. A table without rows says that it has none,
        since Markdown has no such tables.
        """
        if frame.empty:
            frame = pd.DataFrame({"nothing to show": ["This table has no rows here."]})
        self._exhibit(exhibit, "table", title, numbers)
        names = [" · ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns]
        rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
        right = [
            all(isinstance(value, int | float | np.number) for value in frame.iloc[:, i]) for i in range(len(names))
        ]
        rule = ["---:" if numeric else ":---" for numeric in right]
        lines = [[plain(name) for name in names], rule, *([plain(cell) for cell in row] for row in rows)]
        page = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        self._show(
            title,
            f"<table>\n<caption>{html.escape(title)}</caption>\n<thead>{_html_row('th', names, right)}</thead>\n"
            f"<tbody>\n{''.join(_html_row('td', row, right) for row in rows)}</tbody>\n</table>",
            f":::{{table}} {plain(title)}\n:name: {exhibit}\n\n{page}\n:::",
            {"text/csv": _csv(pd.DataFrame(rows, columns=names))},
        )

    def nothing(self, exhibit: str, title: str, why: str) -> None:
        """Report an exhibit that this world has nothing to show of: a table of one sentence, without numbers."""
        self.table(exhibit, pd.DataFrame({"nothing to show": [why]}), title)

    def figure(
        self,
        exhibit: str,
        figure: Figure,
        title: str,
        alt: str,
        numbers: Mapping[str, Estimate | float | None] | None = None,
        points: pd.DataFrame | None = None,
    ) -> None:
        """Show a matplotlib figure (closed afterwards) as a numbered figure and report the `numbers` behind it.

        `alt` says in words what the picture shows, for those who cannot see it. `points` is what is drawn, for a figure
        of numbers that are reported elsewhere.
        """
        self._exhibit(exhibit, "figure", title, numbers)
        source, pixels = svg(figure), png(figure)
        plt.close(figure)
        uri = data_uri(source)
        self._show(
            f"{title}: {alt}",
            f'<figure><img src="{uri}" alt="{html.escape(alt)}"><figcaption>{html.escape(title)}</figcaption></figure>',
            f":::{{figure}} {uri}\n:name: {exhibit}\n:alt: {json.dumps(_line(alt), ensure_ascii=False)}\n\n"
            f"{plain(title)}\n:::",
            {
                "image/png": base64.b64encode(pixels).decode(),
                **({} if points is None else {"text/csv": _csv(points)}),
            },
        )

    def claims(self, exhibit: str) -> None:
        """Judge the claims about an exhibit (the paper's and our own) on all numbers so far; keep the verdicts."""
        claims = _about(exhibit)
        if not claims or exhibit not in self._results["exhibits"]:
            raise ValueError(f"No claim or no result for {exhibit!r}: report an exhibit that paper.CLAIMS names first.")
        self._judged.append(exhibit)
        self._judge()
        for claim in claims:
            verdict = claim.verdict(self.numbers, self._results["profile"])
            sign, css = SIGNS[verdict.verdict]
            parts = (verdict.verdict, claim.id, claim.text, verdict.why, self._on_record(claim), objection(claim))
            word, name, text, *notes = map(html.escape, parts)
            small = "".join(f"<p><small>{note}</small></p>" for note in notes if note)
            lab = f"<p><strong>{sign} {word}</strong> {name} · {text}</p>{small}"
            word, name, text, *notes = map(plain, parts)
            page = "\n\n".join([f"**{sign} {word}** {name} · {text}", *filter(None, notes)])
            self._show(
                " — ".join(filter(None, parts)),
                f'<div class="verdict {css}">{lab}</div>',
                f":::{{container}} verdict {css}\n{page}\n:::",
            )

    def _judge(self) -> None:
        """Keep the verdicts of all exhibits that were judged, on all numbers so far."""
        for exhibit in self._judged:
            self._results["exhibits"][exhibit]["claims"] = _judged(exhibit, self.numbers, self._results["profile"])
        self._write()

    def _on_record(self, claim: paper.Claim) -> str:
        """What the record of `full` says of the claim over several worlds and networks; "" if it says nothing."""
        kept = {} if self._results["profile"] == "full" else read_record(self._results["notebook"], "full")
        if not claim.is_across(kept):
            return ""
        verdict = claim.verdict(kept, "full")
        return f"On record, over several worlds and networks: {verdict.verdict}. {verdict.why}"

    def show(self, *exhibits: Table | Drawing | Absent) -> None:
        """Show exhibits of a chapter and report their numbers."""
        for one in exhibits:
            if isinstance(one, Table):
                self.table(*one)
            elif isinstance(one, Drawing):
                self.figure(*one)
            else:
                self.nothing(*one)

    def say(self, text: str, **values: object) -> None:
        """Show a paragraph of Markdown in which `{name}` stands for a value: in JupyterLab, on GitHub and in the book.

        A value is shown as text, with what could be markup escaped; an `Estimate` with its interval and n. The text may
        have the book's roles, of which JupyterLab shows the words. Raises KeyError for a name without a value.
        """
        words = dedent(text).strip()
        if left := set(VALUE.findall(words)) ^ values.keys():
            raise ValueError(f"{sorted(left)[0]!r} is a name without a value, or a value that is not named; give both")
        page = VALUE.sub(lambda name: plain(str(values[name[1]])), words)
        lab = MARKDOWN.render(ROLE.sub(_words_of_role, page))
        self._show(VALUE.sub(lambda name: str(values[name[1]]), words), lab, page)

    def provenance(self) -> None:
        """Show what made this page's numbers: profile, seed, world and the versions of the libraries that matter."""
        results = self._results
        world = ", ".join(f"{key} {value}" for key, value in results["world"].items())
        versions = ", ".join(f"{library} {importlib.metadata.version(library)}" for library in LIBRARIES)
        line = f"Profile {results['profile']} · seed {results['seed']} · world: {world} · {versions}"
        self._show(line, f"<p><small>{html.escape(line)}</small></p>", f"*{plain(line)}*")

    def close(self) -> None:
        """Judge all claims once more: numbers over worlds come last."""
        self._judge()

    def _exhibit(
        self, exhibit: str, kind: str, title: str, numbers: Mapping[str, Estimate | float | None] | None
    ) -> None:
        known = self._results["exhibits"].get(_checked(exhibit, EXHIBIT))
        if known and known["kind"] != "numbers":
            raise ValueError(f"{exhibit!r} was reported before, as a {known['kind']}: give each exhibit its own id.")
        self._add(exhibit, numbers or {})
        self._results["exhibits"][exhibit] |= {"kind": kind, "title": title}
        self._write()

    def _add(self, exhibit: str, numbers: Mapping[str, Estimate | float | None]) -> None:
        """Keep numbers of one exhibit, all or none; what is None could not be computed here and is left out."""
        found = {
            name: value if isinstance(value, Estimate) else exact(float(value))
            for name, value in numbers.items()
            if value is not None
        }
        for name, value in found.items():
            if name in self.numbers or _checked(name, NUMBER).split(".")[0] != exhibit:
                raise ValueError(
                    f"{name!r} was reported before or is no number of {exhibit!r}: ids start with their exhibit."
                )
            if not all(map(math.isfinite, value)):
                raise ValueError(f"{name} is {value}: report finite numbers, or leave out what has no value.")
        self.numbers |= found
        blank: Exhibit = {"kind": "numbers", "title": "", "numbers": {}, "claims": []}
        kept = self._results["exhibits"].setdefault(exhibit, blank)["numbers"]
        for name, (ours, low, high, n) in found.items():
            printed = paper.numbers().get(name)
            if n:
                kept[name] = {"ours": ours, "low": low, "high": high, "n": n, "paper": printed}
            else:  # a count keeps all its digits
                count = int(ours) if ours == int(ours) else ours
                kept[name] = {"ours": count, "low": None, "high": None, "n": None, "paper": printed}

    def _show(self, text: str, lab: str, page: str, files: Mapping[str, str] | None = None) -> None:
        ignored = f'<div class="tex2jax_ignore mathjax_ignore">{lab}</div>'  # dollars in the text are no formulas
        display({"text/plain": text, "text/html": ignored, "text/markdown": page, **(files or {})}, raw=True)

    def _write(self) -> None:
        write_json(self.path, _rounded(self._results))


def _words_of_role(role: re.Match) -> str:
    """What a reader without the book sees of a role: nothing of a citation, else its words without their target."""
    if role["role"].startswith("cite"):
        return ""
    return re.sub(r"\s*<[^>]*>$", "", role["words"])


def objection(claim: paper.Claim) -> str:
    """The strongest objection to a claim's verdict, as a sentence."""
    return f"Strongest objection: {claim.objection}" if claim.objection else ""


def judge_again(results: Results) -> Results:
    """A results file with the verdicts that today's claims give on its numbers: for a rule that changed after a run."""
    numbers, exhibits = estimates(results), {}
    for name, exhibit in results["exhibits"].items():
        claims = _judged(name, numbers, results["profile"]) if exhibit["claims"] else []
        exhibits[name] = exhibit | {"claims": claims}
    return results | {"exhibits": exhibits}


def _judged(exhibit: str, numbers: Mapping[str, Estimate], profile: str) -> list[dict]:
    """The claims about an exhibit as a results file has them."""
    verdicts = [(claim, claim.verdict(numbers, profile)) for claim in _about(exhibit)]
    return [{"id": claim.id, "text": claim.text, **verdict._asdict()} for claim, verdict in verdicts]


def _about(exhibit: str) -> list[paper.Claim]:
    return [claim for claim in (*paper.CLAIMS, *paper.OWN_CLAIMS) if claim.exhibit == exhibit]


def beside_record(exhibit: str, notebook: str, here: Mapping[str, Estimate], ids: Mapping[str, str]) -> Table:
    """Lay out a page's numbers beside those on record for the profile full; `ids` names them in words."""
    kept = read_record(notebook, "full")
    rows = [(words, here.get(id_), kept.get(id_)) for words, id_ in ids.items()]
    title = "This page's numbers beside those on record for the profile full"
    return Table(exhibit, pd.DataFrame(rows, columns=["number", "here", "on record"]), title)


def read_record(notebook: str, profile: str) -> dict[str, Estimate]:
    """The numbers that are on record for a notebook in a profile, by id; none if it was never recorded there.

    Records are the committed files in `results/`: what took hours is read here instead of computed again.
    """
    try:
        results = json.loads(
            (folder_for("DPRLENS_RECORDS", "results") / profile / f"{notebook}.json").read_text("utf-8")
        )
    except FileNotFoundError:
        return {}
    return estimates(results)


def estimates(results: Results) -> dict[str, Estimate]:
    """The numbers of a results file by id."""
    return {
        id_: _estimate(number) for exhibit in results["exhibits"].values() for id_, number in exhibit["numbers"].items()
    }


def _estimate(number: Number) -> Estimate:
    if number["low"] is None or number["high"] is None:
        return exact(number["ours"])
    return Estimate(number["ours"], number["low"], number["high"], number["n"] or 0)


def plain(text: str) -> str:
    """Text for Markdown of any dialect: on one line, every sign that is no letter, digit or space as an entity."""
    return re.sub(r"[^\w\s]|_", lambda sign: f"&#{ord(sign[0])};", _line(text))


def svg(figure: Figure) -> str:
    """The figure as SVG: the same figure gives the same bytes."""
    file = io.StringIO()
    with mpl.rc_context(SVG):
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def light_svg(figure: Figure) -> str:
    """The figure as SVG of less than half the size, for pages of many pictures; points are cut after a tenth."""
    file = io.StringIO()
    with mpl.rc_context(SVG | {"svg.fonttype": "none"}):
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(file.getvalue())  # without comments and document type
    for element in root.iter():
        if element.tag == f"{{{SVG_SPACE}}}g":
            element.attrib.pop("id", None)  # nothing refers to groups
        if "style" in element.attrib:
            element.set("style", re.sub(r"font-family: [^;]*", "font-family: sans-serif", element.attrib["style"]))
        for name in {"d", "x", "y", "points"} & element.attrib.keys():
            element.set(name, re.sub(r"(\.\d)\d+", r"\1", " ".join(element.attrib[name].split())))
        for name, value in element.attrib.items():
            if value.startswith("data:"):
                element.set(name, re.sub(r"\s", "", value))
    _thin_out(root)
    for prefix, space in (("", SVG_SPACE), ("xlink", "http://www.w3.org/1999/xlink")):
        ElementTree.register_namespace(prefix, space)
    return ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")


def _thin_out(element: ElementTree.Element) -> None:
    """Take out metadata, white space, groups that say nothing; say once what all of a group have as their style."""
    children: list[ElementTree.Element] = []
    for child in element:
        _thin_out(child)
        child.tail = None if not (child.tail or "").strip() else child.tail
        plain = child.tag == f"{{{SVG_SPACE}}}g" and not child.attrib
        children += child if plain else [] if child.tag == f"{{{SVG_SPACE}}}metadata" else [child]
    element[:] = children
    if not (element.text or "").strip():
        element.text = None
    styles = {child.get("style") for child in children}
    style = styles.pop() if len(styles) == 1 else None
    if element.tag == f"{{{SVG_SPACE}}}g" and "style" not in element.attrib and style is not None:
        element.set("style", style)
        for child in children:
            del child.attrib["style"]


def png(figure: Figure) -> bytes:
    """The figure as PNG, fine enough for a slide: the same figure gives the same bytes on the same machine."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=PIXELS, bbox_inches="tight", metadata={"Software": None})
    return file.getvalue()


def data_uri(source: str) -> str:
    """An SVG picture as the address of an image, so that no file is needed beside the page."""
    return "data:image/svg+xml;base64," + base64.b64encode(source.encode()).decode()


def _checked(name: str, pattern: re.Pattern) -> str:
    if not pattern.fullmatch(name):
        raise ValueError(f"{name!r} is no id: use small letters, digits and _, as in table3.mend.dpr_added.")
    return name


def _line(text: str) -> str:
    return re.sub(r"[^\S\u00a0]+", " ", str(text)).strip(" ")  # no-break spaces stay


def _cell(value: Any) -> str:
    if isinstance(value, Estimate):  # in a narrow column it breaks before its interval and nowhere else
        number, _, rest = str(value).partition(" ")
        return f"{number} {rest.replace(' ', NO_BREAK)}"
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "–"
    return f"{value:.2f}" if isinstance(value, float | np.floating) else str(value)


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n", float_format="%.6g").replace(NO_BREAK, " ")


def _html_row(tag: str, cells: Sequence[str], right: Sequence[bool]) -> str:
    sides = ["right" if numeric else "left" for numeric in right]
    row = [f'<{tag} style="text-align: {s}">{html.escape(c)}</{tag}>' for c, s in zip(cells, sides, strict=True)]
    return f"<tr>{''.join(row)}</tr>\n"


def _rounded(value: object) -> object:
    """The same with floats at six significant digits and plain types throughout."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}")
    return int(value) if isinstance(value, np.integer) else value
