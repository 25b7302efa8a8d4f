"""The results file and what a notebook shows: the same bytes each run, nothing lost, text from data only ever text."""

import base64
import csv
import html.parser
import io
import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from dprlens.intervals import Estimate, exact, share
from dprlens.report import report as module
from dprlens.report.report import Report, judge_again, light_svg, plain, read_record, svg

CANARY = (
    "<script>alert(1)</script> | $x^2$ *em* _u_ `code` {{ 7*7 }} {ref}`x` [l](javascript:alert(1)) "
    "&amp; ![i](x) \\ :::\n# h"
)
FLAT = CANARY.replace("\n", " ")

pytestmark = pytest.mark.usefixtures("shown")  # no test writes outside its own folder


class World:
    def summary(self):
        return {"maker": "closed", "facts": 1385, "passages": 945, "digest": "3f6c0d9a51b7e824"}


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """What the notebook would show: (data, metadata) of each output."""
    outputs = []
    monkeypatch.setenv("DPRLENS_RESULTS", str(tmp_path))
    monkeypatch.setattr(module, "display", lambda data, metadata=None, **_: outputs.append((data, metadata or {})))
    return outputs


def make(profile="small", **parameters):
    return Report("00_world", profile=profile, seed=0, world=World(), parameters=parameters)


def read(report):
    return json.loads(report.path.read_text(encoding="utf-8"))


def line_figure(y=(0, 1)):
    figure, axes = plt.subplots()
    axes.plot([0, 1], y)
    return figure


def texts(markup):
    """Tags and texts of an HTML document, as a browser would take them."""
    found = {"tags": set(), "text": ""}
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found["tags"].add(tag) or found.setdefault(tag, dict(attributes))
    parser.handle_data = lambda data: found.update(text=found["text"] + data)
    parser.feed(markup)
    return found


# --- the results file ---


def test_the_file_is_as_designed(tmp_path):
    report = make(layers=(0, 12), threshold=1 / 3)
    report.table("table1", pd.DataFrame({"a": [1]}), "Probes", {"table1.n2.pretrained.layer12": share(590, 1000)})
    assert report.path == tmp_path / "small" / "00_world.json"
    assert read(report) == {
        "notebook": "00_world",
        "profile": "small",
        "seed": 0,
        "parameters": {"layers": [0, 12], "threshold": 0.333333},
        "world": World().summary(),
        "exhibits": {
            "table1": {
                "kind": "table",
                "title": "Probes",
                "numbers": {
                    "table1.n2.pretrained.layer12": {
                        "ours": 0.59,
                        "low": 0.559228,
                        "high": 0.620083,
                        "n": 1000,
                        "paper": 0.84,
                    }
                },
                "claims": [],
            }
        },
    }
    text = report.path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def test_numbers_are_rounded_and_plain_whatever_their_type():
    report = make()
    report.number("a.count", np.int64(1323))
    report.number("a.third", np.float64(1) / 3)
    report.number("a.sampled", Estimate(np.float64(0.1234567), 0.1, 0.2, np.int64(7)))
    numbers = read(report)["exhibits"]["a"]["numbers"]
    assert numbers["a.count"] == {"ours": 1323, "low": None, "high": None, "n": None, "paper": None}
    assert numbers["a.third"]["ours"] == 0.333333
    assert numbers["a.sampled"] == {"ours": 0.123457, "low": 0.1, "high": 0.2, "n": 7, "paper": None}


def everything():
    report = make(seed=0)
    report.number("table1.n2.untrained.layer0", share(500, 1000))
    report.table("table1", pd.DataFrame({"x": [0.5]}), "T")
    report.figure("dose", line_figure(), "F", "a line", {"dose.slope": Estimate(0.1, 0.05, 0.15, 9)})
    report.claims("table1")
    report.provenance()
    report.close()
    return report.path.read_bytes()


@pytest.mark.slow
def test_two_runs_give_the_same_bytes_in_the_file_and_in_what_is_shown(shown):
    first, half = everything(), len(shown)
    assert everything() == first
    assert shown[:half] == shown[half:]


def test_a_new_report_leaves_no_number_of_an_earlier_run():
    everything()
    assert read(make())["exhibits"] == {}


def test_a_failed_write_leaves_the_file_before_it_whole(monkeypatch):
    report = make()
    report.number("a.b", share(1, 2))
    before = report.path.read_bytes()

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_room)
    with pytest.raises(OSError, match="No space"):
        report.number("a.c", share(1, 2))
    assert report.path.read_bytes() == before
    assert [path.name for path in report.path.parent.iterdir()] == ["00_world.json"]


def test_without_the_variable_results_go_to_the_build_folder(monkeypatch):
    monkeypatch.delenv("DPRLENS_RESULTS")
    monkeypatch.setattr(module, "write_json", lambda *_: None)
    assert make().path.parts[-4:-2] == ("_build", "results")


# --- what may be reported ---


def test_a_number_is_reported_once_and_a_refused_call_changes_nothing():
    report = make()
    report.number("a.b", share(1, 2))
    before = report.path.read_bytes()
    with pytest.raises(ValueError, match=r"'a\.b' was reported before"):
        report.number("a.b", share(1, 2))
    with pytest.raises(ValueError, match=r"'a\.b' was reported before"):
        report.table("a", pd.DataFrame({"x": [1]}), "T", {"a.c": share(1, 2), "a.b": share(1, 2)})
    assert report.path.read_bytes() == before
    assert list(report.numbers) == ["a.b"]


def test_numbers_before_a_table_belong_to_it_and_an_exhibit_is_shown_once():
    report = make()
    report.number("a.b", share(1, 2))
    report.table("a", pd.DataFrame({"x": [1]}), "T", {"a.c": share(1, 2)})
    exhibit = read(report)["exhibits"]["a"]
    assert (exhibit["kind"], exhibit["title"], sorted(exhibit["numbers"])) == ("table", "T", ["a.b", "a.c"])
    with pytest.raises(ValueError, match="'a' was reported before, as a table"):
        report.figure("a", line_figure(), "F", "a line")
    plt.close("all")


@pytest.mark.parametrize("name", ["a", "A.b", "a.b c", "a..b", "../a.b", "a.<b>"])
def test_an_id_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match=r"is no (id|number)"):
        make().number(name, 1)


def test_a_number_of_another_exhibit_is_refused():
    with pytest.raises(ValueError, match=r"'b\.c' was reported before or is no number of 'a'"):
        make().table("a", pd.DataFrame({"x": [1]}), "T", {"b.c": share(1, 2)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Estimate(0.5, float("nan"), 1, 3)])
def test_a_number_without_a_value_is_refused(value):
    with pytest.raises(ValueError, match="report finite numbers"):
        make().number("a.b", value)


def test_a_number_that_could_not_be_computed_is_left_out_and_its_claims_are_open():
    report = make()
    numbers = {"bound.difference.auc": share(9, 10), "bound.lexical_difference.top1": None}
    report.table("bound", pd.DataFrame({"x": [1]}), "T", numbers)
    report.figure("dose", line_figure(), "F", "a line", {"dose.slope": None})
    report.claims("bound")
    assert list(report.numbers) == ["bound.difference.auc"]
    exhibits = read(report)["exhibits"]
    assert (list(exhibits["bound"]["numbers"]), exhibits["dose"]["numbers"]) == (["bound.difference.auc"], {})
    verdicts = {claim["id"]: (claim["verdict"], claim["why"]) for claim in exhibits["bound"]["claims"]}
    assert verdicts["K.1"][0] == "cannot tell here"
    assert verdicts["K.1"][1].startswith("Not reported here: share of questions whose passage ranks first")
    assert verdicts["C.1"][0] == "holds"
    report.number("bound.lexical_difference.top1", share(1, 2))  # nor is its name taken


# --- claims ---


def test_verdicts_are_shown_and_kept_with_their_reason(shown):
    report = make()
    report.table("bound", pd.DataFrame({"x": [1]}), "T", {"bound.difference.auc": Estimate(0.3, 0.2, 0.4, 300)})
    report.claims("bound")
    claims = read(report)["exhibits"]["bound"]["claims"]
    verdicts = {claim["id"]: claim["verdict"] for claim in claims}
    assert [*verdicts] == ["C.1", "C.4", "C.2", "C.3", "K.1", "K.2", "K.8"]
    assert {*verdicts.values()} == {"holds", "cannot tell here"}
    assert verdicts["C.1"] == "holds"
    assert claims[0]["why"].endswith("(difference of AUC): 0.30 [0.20, 0.40], n = 300; the claim needs more than 0.")
    boxes = [data for data, _ in shown[-7:]]
    assert ["verdict holds" in box["text/html"] for box in boxes] == [True, *[False] * 6]
    assert ["verdict unclear" in box["text/markdown"] for box in boxes] == [False, *[True] * 6]
    for face in ("text/plain", "text/html"):
        assert "holds" in boxes[0][face]
        assert "0.30 [0.20, 0.40]" in boxes[0][face]
        assert "Strongest objection: In the pre-training text nearly every known link" in boxes[0][face]


def test_numbers_that_come_later_and_those_on_record_over_worlds_are_heard(shown, monkeypatch):
    kept = {"ratios.dpr_over_pretrained.sharing": Estimate(0.8, 0.7, 0.9, 5)}
    monkeypatch.setattr("dprlens.report.report.read_record", lambda _, profile: kept if profile == "full" else {})
    report = make()
    report.table("figure1", pd.DataFrame({"x": [1]}), "T")
    report.claims("figure1")
    (box,) = [data for data, _ in shown if "S3.4" in data.get("text/plain", "")]
    assert box["text/plain"].startswith("cannot tell here")
    assert "On record, over several worlds and networks: holds." in box["text/plain"]
    report.number("figure1.dpr_minus_pretrained.sharing", Estimate(-0.2, -0.3, -0.1, 50))
    report.close()
    verdicts = {claim["id"]: claim["verdict"] for claim in read(report)["exhibits"]["figure1"]["claims"]}
    assert verdicts["S3.4"] == "holds"


def test_a_results_file_is_judged_again_on_its_own_numbers():
    report = make()
    report.table("bound", pd.DataFrame({"x": [1]}), "T", {"bound.difference.auc": Estimate(0.3, 0.2, 0.4, 300)})
    report.table("recall", pd.DataFrame({"x": [1]}), "R")
    report.claims("bound")
    as_run = read(report)
    old = json.loads(json.dumps(as_run))
    old["exhibits"]["bound"]["claims"] = [{"id": "C.1", "text": "an older sentence", "verdict": "fails", "why": "-"}]
    assert judge_again(old) == as_run
    assert judge_again(old)["exhibits"]["recall"]["claims"] == []  # an exhibit that was not judged


def test_our_own_claims_are_judged_like_the_papers():
    report = make()
    numbers = {f"recall.known.{wording}": Estimate(0.99, 0.98, 1.0, 100) for wording in ("seen", "reserved")}
    numbers |= {f"recall.held_out.{wording}": Estimate(0.2, 0.1, 0.3, 100) for wording in ("seen", "reserved")}
    report.table("recall", pd.DataFrame({"x": [1]}), "T", numbers)
    report.claims("recall")
    verdicts = {claim["id"]: claim["verdict"] for claim in read(report)["exhibits"]["recall"]["claims"]}
    assert verdicts == {"W.1": "holds", "W.2": "holds", "W.3": "does not hold", "W.4": "does not hold"}


def test_the_profile_decides_whether_sizes_are_judged():
    for profile, verdict in (("small", "cannot tell here"), ("paper", "holds")):
        report = make(profile=profile)
        names = ("transformer_patcher", "malmen", "mend")
        report.table(
            "table3",
            pd.DataFrame({"x": [1]}),
            "T",
            {f"table3.{name}.probing_added": Estimate(0.55, 0.5, 0.6, 284) for name in names},
        )
        report.claims("table3")
        assert next(c for c in read(report)["exhibits"]["table3"]["claims"] if c["id"] == "S4.1")["verdict"] == verdict


@pytest.mark.parametrize("exhibit", ["world", "table1"])
def test_claims_of_an_exhibit_that_has_none_or_was_not_reported_are_refused(exhibit):
    report = make()
    report.table("world", pd.DataFrame({"x": [1]}), "T")
    with pytest.raises(ValueError, match=f"No claim or no result for '{exhibit}'"):
        report.claims(exhibit)


# --- what is on record ---


@pytest.fixture
def record(monkeypatch, tmp_path):
    """The folder of the records, which the reports of this module write."""
    monkeypatch.setenv("DPRLENS_RECORDS", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("record")
def test_recorded_numbers_are_those_that_were_reported():
    report = make()
    report.number("a.third", share(1, 3))
    report.table("b", pd.DataFrame({"x": [1]}), "Tränen – 涙", {"b.count": 1323, "b.part": 0.5, "b.none": None})
    found = read_record("00_world", "small")
    assert sorted(found) == ["a.third", "b.count", "b.part"]
    assert found["a.third"] == tuple(float(f"{x:.6g}") for x in share(1, 3))
    assert f"{found['a.third']}" == f"{share(1, 3)}"
    assert (found["b.count"], found["b.part"]) == (exact(1323), exact(0.5))
    assert f"{found['b.count']:,}" == "1,323"


@pytest.mark.usefixtures("record")
def test_records_are_of_one_notebook_in_one_profile():
    make(profile="full").number("a.b", 1)
    assert read_record("00_world", "full")
    assert read_record("00_world", "small") == read_record("01_other", "full") == {}


def test_a_damaged_record_is_no_missing_one(record):
    make()
    (record / "small" / "00_world.json").write_text("{")
    with pytest.raises(json.JSONDecodeError):
        read_record("00_world", "small")


def test_records_are_the_committed_files_unless_told(monkeypatch):
    monkeypatch.delenv("DPRLENS_RECORDS", raising=False)
    file = Path(__file__).parents[2] / "results" / "small" / "00_world_and_models.json"
    exhibits = json.loads(file.read_text(encoding="utf-8"))["exhibits"]
    assert exhibits
    values = {name: n["ours"] for exhibit in exhibits.values() for name, n in exhibit["numbers"].items()}
    assert {name: e.value for name, e in read_record("00_world_and_models", "small").items()} == values


# --- what is shown ---


def test_a_table_has_a_face_for_lab_and_a_numbered_one_for_the_page(shown):
    frame = pd.DataFrame({"model": ["BERT", "DPR"], "n": [2, 3], "ours": [0.5, None], "e": [share(1, 2), None]})
    make().table("recall", frame, "Recall by model")
    data, metadata = shown[-1]
    assert data["text/markdown"].splitlines()[:2] == [":::{table} Recall by model", ":name: recall"]
    page = data["text/markdown"].splitlines()[3:-1]
    assert page[0] == "| model | n | ours | e |"
    assert page[1] == "| :--- | ---: | ---: | :--- |"
    assert [row.count("|") for row in page] == [5] * 4
    assert "<caption>Recall by model</caption>" in data["text/html"]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", data["text/html"]) == [
        *("BERT", "2", "0.50", "0.50 [0.09,\u00a00.91],\u00a0n\u00a0=\u00a02"),
        *("DPR", "3", "–", "–"),
    ]
    assert not metadata


def test_a_cell_without_a_number_is_a_dash_wherever_it_stands(shown):
    """Columns of estimates, of words, of nothing else, and rows in which a key is missing."""
    rows = [{"e": share(1, 2), "word": None, "none": None}, {"e": None, "word": "x", "none": None, "n": 3}]
    make().table("recall", pd.DataFrame(rows), "T")
    data = shown[-1][0]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", data["text/html"])
    assert cells == ["0.50 [0.09,\u00a00.91],\u00a0n\u00a0=\u00a02", "–", "–", "–", "–", "x", "–", "3.00"]
    last = data["text/markdown"].splitlines()[-2]
    assert texts(rendered("| a | b | c | d |\n|---|---|---|---|\n" + last))["text"].split()[-4:] == [
        "–",
        "x",
        "–",
        "3.00",
    ]


def test_columns_of_two_levels_are_one_line(shown):
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("BERT", "ours"), ("BERT", "paper")]))
    make().table("recall", frame, "T")
    assert "BERT · ours" in texts(shown[-1][0]["text/html"])["text"]


def rendered(page):
    """The page's face without its directive lines, as Markdown with tables makes HTML of it."""
    body = [line for line in page.splitlines() if not re.match(r":::|:name:|:alt:", line)]
    return MarkdownIt("commonmark").enable("table").render("\n".join(body))


def test_markup_in_data_stays_text_in_both_faces_of_a_table(shown):
    make().table("recall", pd.DataFrame({CANARY: [CANARY, "plain"]}), CANARY)
    data = shown[-1][0]
    lab, page = texts(data["text/html"]), texts(rendered(data["text/markdown"]))
    assert lab["tags"] == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert "tex2jax_ignore" in lab["div"]["class"]  # no formula of MathJax 2 or 3
    assert lab["text"].count(CANARY) == 3
    assert page["tags"] == {"table", "thead", "tbody", "tr", "th", "td"}
    assert page["text"].count(FLAT) == 2
    directive = data["text/markdown"].splitlines()
    assert directive[0] == ":::{table} " + plain(CANARY)
    assert len(directive) == 8  # the line break in the data made no line here


def test_markup_in_data_stays_text_in_both_faces_of_a_figure(shown):
    make().figure("dose", line_figure(), CANARY, '"' + CANARY)
    data = shown[-1][0]
    lab, page = texts(data["text/html"]), texts(rendered(data["text/markdown"]))
    assert lab["tags"] == {"div", "figure", "img", "figcaption"}
    assert lab["img"]["alt"] == '"' + CANARY
    assert lab["text"] == CANARY
    assert page["tags"] == {"p"}
    assert page["text"].strip() == FLAT
    alt = next(line for line in data["text/markdown"].splitlines() if line.startswith(":alt: "))
    assert json.loads(alt.removeprefix(":alt: ")) == '"' + FLAT


def test_markup_in_a_world_stays_text_in_the_line_of_provenance(shown, monkeypatch):
    monkeypatch.setattr(World, "summary", lambda _: {"maker": CANARY})
    monkeypatch.setattr(module.importlib.metadata, "version", lambda _: "1.0")
    make().provenance()
    data = shown[-1][0]
    assert texts(data["text/html"])["tags"] == {"div", "p", "small"}
    assert texts(rendered(data["text/markdown"]))["tags"] == {"p", "em"}
    assert FLAT in texts(rendered(data["text/markdown"]))["text"]


def test_provenance_names_what_matters_and_nothing_that_changes(shown, monkeypatch):
    monkeypatch.setattr(module.importlib.metadata, "version", lambda library: {"torch": "2.13.0"}.get(library, "1.0"))
    make().provenance()
    assert shown[-1][0]["text/plain"] == (
        "Profile small · seed 0 · world: maker closed, facts 1385, passages 945, digest 3f6c0d9a51b7e824 · "
        "dprlens 1.0, torch 2.13.0, transformers 1.0"
    )


def test_a_table_without_rows_is_a_table_all_the_same(shown):
    make().table("table1", pd.DataFrame(columns=["a", "b"]), "T")
    (data, _) = shown[-1]
    assert "This table has no rows here." in texts(rendered(data["text/markdown"]))["text"]


def test_a_number_that_nothing_shows_is_reported(shown):
    report = make()
    report.number("recall.known", share(95, 100))
    assert shown == []
    assert "recall.known" in report.numbers


def test_plain_text_is_the_same_text_for_any_markdown():
    assert plain("a b 1") == "a b 1"
    assert plain("a|b_c") == "a&#124;b&#95;c"
    for sample in (CANARY, "1. one", "- item", "   code", "Queensrÿche – “q”", "~~~", "> quote", "a\u2028b"):
        page = texts(MarkdownIt("commonmark").render(plain(sample)))
        assert page["tags"] == {"p"}
        assert page["text"].strip() == " ".join(sample.split())


# --- figures ---


@pytest.mark.slow
def test_a_figure_is_closed_and_the_same_bytes_each_time():
    report = make()
    figure = line_figure()
    report.figure("dose", figure, "F", "a line")
    assert not plt.fignum_exists(figure.number)
    first, second = line_figure(), line_figure()
    assert svg(first) == svg(second)
    assert "<dc:date>" not in svg(first)
    assert svg(line_figure((0, 2))) != svg(first)
    plt.close("all")


@pytest.mark.slow
def test_a_figure_comes_as_a_png_too_and_its_bytes_are_the_same_each_time(shown):
    for _ in range(2):
        make().figure("dose", line_figure(), "F", "a line")
    first, second = (base64.b64decode(data["image/png"]) for data, _ in shown)
    assert first == second
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    assert b"Software" not in first


def test_a_table_comes_as_csv_too_as_it_is_shown(shown):
    frame = pd.DataFrame({CANARY: [CANARY, 'a "b", c'], "e": [share(1, 2), None]})
    make().table("recall", frame, "T")
    rows = list(csv.reader(io.StringIO(shown[-1][0]["text/csv"])))
    assert rows == [[CANARY, "e"], [CANARY, "0.50 [0.09, 0.91], n = 2"], ['a "b", c', "–"]]


@pytest.mark.slow
def test_the_outputs_are_valid_in_a_notebook(shown):
    import nbformat  # seconds, which no other test needs

    report = make()
    report.number("a.b", share(1, 2))
    report.table("a", pd.DataFrame({"x": [1]}), "T")
    report.figure("dose", line_figure(), "F", "a line")
    outputs = [nbformat.v4.new_output("display_data", data, metadata=metadata) for data, metadata in shown]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=outputs)])
    nbformat.validate(notebook)


@pytest.mark.slow
def test_a_light_picture_is_the_same_picture_in_fewer_bytes():
    figure, axes = plt.subplots()
    axes.plot([0, 1], [0.123456, 2])
    axes.imshow([[0, 1]], aspect="auto")
    axes.set_title("1.234 <b> & x")
    light, whole = light_svg(figure), svg(figure)
    assert len(light) < 0.6 * len(whole)
    drawn, full = ElementTree.fromstring(light), ElementTree.fromstring(whole)

    def count(tree, name):
        return len(tree.findall(f".//{{http://www.w3.org/2000/svg}}{name}"))

    assert "1.234 <b> & x" in "".join(drawn.itertext())
    assert all(drawn.get(name) == full.get(name) for name in ("width", "height", "viewBox"))
    assert count(drawn, "image") == count(full, "image") == 1
    assert count(drawn, "clipPath") == count(full, "clipPath")
    ids = set(re.findall(r' id="([^"]*)"', light))
    assert set(re.findall(r"url\(#([^)]*)\)", light)) | set(re.findall(r'href="#([^"]*)"', light)) <= ids
    assert light == light_svg(figure)


# --- sentences and exhibits as records ---


def test_a_sentence_has_its_values_in_every_face(shown):
    make().say("The {term}`gold passage <gold>` is found in {share} of the cases {cite:p}`key`.", share=share(3, 4))
    ((data, _),) = shown
    value = str(share(3, 4))
    assert value in data["text/plain"]
    assert f"The gold passage is found in {value} of the cases" in texts(data["text/html"])["text"]
    assert plain(value) in data["text/markdown"]
    assert "{term}`gold passage <gold>`" in data["text/markdown"]


def test_values_of_a_sentence_are_text(shown):
    make().say("It says: {canary}", canary=CANARY)
    ((data, _),) = shown
    assert texts(data["text/html"])["tags"] <= {"div", "p"}
    assert FLAT in " ".join(texts(data["text/html"])["text"].split()) + " "


@pytest.mark.parametrize("values", [{}, {"a": 1, "b": 2}])
def test_a_sentence_names_all_its_values_and_no_others(refused, values):
    with refused("name", "value"):
        make().say("One is {a}.", **values)


def test_exhibits_as_records_are_those_given_one_by_one(shown):
    frame, numbers = pd.DataFrame({"a": [1]}), {"t.a": 1.0}
    one, other = make(), make()
    one.show(module.Table("t", frame, "A table", numbers), module.Drawing("f", line_figure(), "A figure", "a line"))
    one.show(module.Absent("n", "Nothing", "no reason"))
    first = [*shown]
    shown.clear()
    other.table("t", frame, "A table", numbers)
    other.figure("f", line_figure(), "A figure", "a line")
    other.nothing("n", "Nothing", "no reason")
    assert shown == first
