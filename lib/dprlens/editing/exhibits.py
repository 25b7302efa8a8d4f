"""Numbers of Tables 3 and 4 by id, from an outcome, and tables for the reader.

Ids begin with the exhibit: `table3.mend.probing_added`. The arms are those of `steps.arms`. An arm that cannot reach
[CLS] (`protocol.acts`) has no effects: its table cells state so, and no claim can read a number of it.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import pandas as pd

from dprlens import paper
from dprlens.editing import protocol
from dprlens.editing.protocol import Outcome
from dprlens.intervals import Estimate, mean
from dprlens.paper.claims.section4 import TOOK
from dprlens.world.records import Fact

TABLES = {"added": "table3", "removed": "table4"}
LABELS = {
    "transformer_patcher": "Transformer-Patcher",
    "malmen": "MALMEN",
    "mend": "MEND",
    "finetuning": "constrained fine-tuning",
    "rehearsal": "more masked-LM, with rehearsal",
    "relearning": "the same in large steps",
    "nothing": "no edit",
}
PRINTED = {
    "probing": "probe",
    "off_target_flips": "off-target flips",
    "dpr": "DPR",
    "off_target_edits": "DPR off target",
}
WHAT = {"facts": "facts", "questions": "questions", "linked": "through a link"}
PLAIN = ("off_target_flips", "off_target_edits", "off_target_rate", "found", "found_effect")  # of arms that cannot act
ALIKE = ("malmen", "mend")  # whose numbers in the paper are nearly the same
BASELINE, CANNOT = "baseline", "cannot move"
NULLS = ("unrelated_", "random_", "nothing", "reseeded")
WORDINGS = {
    "told": "told wording",
    "unread": "other wording",
    "bystanders": "bystanders",
    "neighbours": "neighbours",
    "kept": "other known facts",
}


def label(arm: str) -> str:
    """Name an arm in words."""
    if arm in LABELS:
        return LABELS[arm]
    for prefix, words in (("unrelated_", "unrelated facts, by "), ("random_", "random change, as large as ")):
        if arm.startswith(prefix):
            return words + LABELS[arm.removeprefix(prefix)]
    return f"no edit, other seed ({arm.removeprefix('reseeded')})"


def numbers(exhibit: str, x: Outcome, n: int, probe: str = "probe", kind: str | None = None) -> dict[str, Estimate]:
    """Compute every column of every arm among n passages, by id; of one `kind` of question, or all.

    Columns without a value, for lack of a question, are left out; of arms that cannot act all but the counts are.
    """
    asked = (x.before["kind"] == (kind or x.before["kind"])).to_numpy()
    before = x.before[asked].reset_index(drop=True)
    found = {}
    for arm, rows in x.after.items():
        after = rows[asked].reset_index(drop=True)
        for name, value in protocol.columns(before, after, x.chosen, x.direction, n, probe)._asdict().items():
            if value is not None and (name in PLAIN or protocol.acts(arm, rows)):
                found[f"{exhibit}.{arm}.{_column(name, x.direction)}"] = value
    return found


def as_printed(exhibit: str, found: Mapping[str, Estimate], x: Outcome) -> pd.DataFrame:
    """Lay out the table as the paper prints it, an arm a row, the paper's own row below each of its editors."""

    def row(name: str, values: Mapping, arm: str, none: str) -> dict:
        keys = {key: f"{exhibit}.{arm}.{_column(key, x.direction)}" for key in PRINTED}
        return {"": name, **{PRINTED[key]: _brief(values.get(id_), none) for key, id_ in keys.items()}}

    rows = []
    for arm in x.after:
        rows.append(row(label(arm), found, arm, _absent(arm, x)))
        if f"{exhibit}.{arm}.{_column('probing', x.direction)}" in paper.numbers():
            rows.append(row("· the paper", paper.numbers(), arm, "–"))
    return pd.DataFrame(rows)


def chosen_columns(exhibit: str, found: Mapping[str, Estimate], x: Outcome, names: Mapping[str, str]) -> pd.DataFrame:
    """Tabulate some columns of every arm; `names` maps the name of a column to its heading."""
    return pd.DataFrame(
        {
            "": label(arm),
            **{title: _brief(found.get(f"{exhibit}.{arm}.{name}"), _absent(arm, x)) for name, title in names.items()},
        }
        for arm in x.after
    )


def _absent(arm: str, x: Outcome) -> str:
    """Choose the cell of an arm without a number: the reason, if the arm itself is the reason."""
    if arm == "nothing":
        return BASELINE
    return "–" if protocol.acts(arm, x.after[arm]) else CANNOT


def reach(exhibit: str, x: Outcome) -> dict[str, Estimate]:
    """Estimate how far every edit moves [CLS] of the test questions (`protocol.reach`), by id."""
    unedited = ("nothing", "reseeded")
    return {f"{exhibit}.{arm}": protocol.reach(rows) for arm, rows in x.after.items() if not arm.startswith(unedited)}


def took(told: Estimate) -> str:
    """Decide if an edit took (yes, no, unclear) by the interval of the share of its statements completed."""
    return "yes" if told.low > TOOK else "no" if told.high <= TOOK else "unclear"


def that_took(exhibit: str, worked: Mapping[str, Estimate], x: Outcome) -> list[str]:
    """List the arms whose edit took and that can act, on which claims about edits are judged; no null arms.

    `worked` are numbers of `success` under `exhibit`.
    """
    edited = [arm for arm in x.after if not arm.startswith(NULLS) and protocol.acts(arm, x.after[arm])]
    return [arm for arm in edited if took(worked[f"{exhibit}.{arm}.told"]) == "yes"]


def set_aside(exhibit: str, worked: Mapping[str, Estimate], x: Outcome) -> str:
    """List the edits on which no claim can be judged, each with the reason, as part of a sentence."""
    judged, reasons = that_took(exhibit, worked, x), []
    for arm in x.after:
        if not arm.startswith(NULLS) and arm not in judged:
            told = worked[f"{exhibit}.{arm}.told"]
            acts = protocol.acts(arm, x.after[arm])
            why = f"its model completes {told.brief} of the statements" if acts else "it does not reach [CLS]"
            reasons.append(f"{label(arm)} ({why})")
    return ", ".join(reasons) or "none"


def by_arm(found: Mapping[str, Estimate], exhibit: str, column: str) -> dict[str, Estimate]:
    """Collect a column of all arms that have it, by the arm in words."""
    ids = [id_ for id_ in found if id_.startswith(f"{exhibit}.") and id_.endswith(f".{column}")]
    return {label(id_.split(".")[1]): found[id_] for id_ in ids}


def with_took(frame: pd.DataFrame, exhibit: str, worked: Mapping[str, Estimate], x: Outcome) -> pd.DataFrame:
    """Add a column to a table of arms: whether each edit took, and the share of its statements completed so."""

    def cell(arm: str) -> str:
        told = worked[f"{exhibit}.{arm}.told"]
        return "null arm" if arm.startswith(NULLS) else f"{took(told)} ({told.value:.2f})"

    cells = {label(arm): cell(arm) for arm in x.after}
    wider = frame.copy()
    wider.insert(1, "edit took", frame[""].map(cells).fillna(""))
    return wider


def agreements(exhibit: str, x: Outcome, n: int) -> tuple[dict[str, Estimate], pd.DataFrame]:
    """Compute kappa of MALMEN and MEND, and of each with every other arm that can act, and tabulate it."""
    arms = sorted((arm for arm in x.after if protocol.acts(arm, x.after[arm])), key=lambda arm: arm not in ALIKE)
    found, rows = {}, []
    for one, other in ((one, other) for one, other in combinations(arms, 2) if one in ALIKE):
        line = {"": label(one), "and": label(other)}
        for what, title in (("probe", "probe"), ("match", "DPR")):
            kappa = protocol.agreement(x, one, other, n, what)
            line[f"kappa, {title}"] = _brief(kappa)
            if kappa is not None:
                found[f"{exhibit}.{one}_{other}.{what}"] = kappa
        rows.append(line)
    return found, pd.DataFrame(rows)


def against_nulls(exhibit: str, x: Outcome, arms: Sequence[str], n: int) -> tuple[dict[str, Estimate], pd.DataFrame]:
    """Compare each arm with each null arm on the edited facts' questions, paired, and tabulate with McNemar's p.

    Arms that cannot act are left out.
    """
    acting = [arm for arm, rows in x.after.items() if protocol.acts(arm, rows)]
    nulls = [arm for arm in acting if arm.startswith(NULLS)]
    found, rows = {}, []
    for arm in (arm for arm in arms if arm in acting):
        for null in nulls:
            line = {"": label(arm), "minus": label(null)}
            for what, title in (("probe", "probe"), ("match", "DPR")):
                one = protocol.contrast(x.before, x.after[arm], x.after[null], x.chosen, x.direction, n, what)
                if one:
                    found[f"{exhibit}.{arm}_minus_{null}.{what}"] = one.difference
                line[title], line[f"p, {title}"] = (_brief(one.difference), f"{one.p:.2g}") if one else ("–", "–")
            rows.append(line)
    return found, pd.DataFrame(rows)


def success(exhibit: str, said: pd.DataFrame) -> dict[str, Estimate]:
    """Estimate the share of statements completed as edited in, by arm and group (`steps.said`).

    Intervals draw whole facts.
    """
    return {
        f"{exhibit}.{arm}.{group}": mean(rows["recalled"], rows["fact"])
        for (arm, group), rows in said.groupby(["arm", "group"], sort=False)
    }


def trade_off(found: Mapping[str, Estimate], exhibit: str) -> pd.DataFrame:
    """Tabulate gains and costs of repeated editing: numbers of `success` on `steps.traded`."""
    arms = dict.fromkeys(id_.split(".")[1] for id_ in found)
    return pd.DataFrame(
        {
            "": label(arm.rpartition("_")[0]),
            "rounds": arm.rpartition("_")[2],
            **{WORDINGS[group]: _brief(found.get(f"{exhibit}.{arm}.{group}")) for group in WORDINGS},
        }
        for arm in arms
    )


def cls_shift(exhibit: str, far: pd.DataFrame) -> dict[str, Estimate]:
    """Average how far [CLS] moved, by arm and group of texts (`steps.moved`), without unedited models."""
    edited = far[~far["arm"].str.startswith(("nothing", "reseeded"))]
    return {
        f"{exhibit}.{arm}.{group}": mean(rows["far"], rows["fact"])
        for (arm, group), rows in edited.groupby(["arm", "group"], sort=False)
    }


def _column(key: str, direction: str) -> str:
    if key == "added_minus_off_target":
        return f"{direction}_minus_off_target"
    return f"{key}_{direction}" if key in ("probing", "dpr") else key


def _brief(value: Estimate | float | None, none: str = "–") -> str:
    if value is None:
        return none
    if isinstance(value, Estimate):
        return value.brief if value.n else f"{value.value:g}"
    return f"{value:g}"


def selection(exhibit: str, x: Outcome, choices: Sequence[int]) -> tuple[dict[str, int], pd.DataFrame]:
    """Count the facts and questions eligible among n passages, edited and not, and tabulate them."""
    counted: dict[str, int] = {}
    rows = []
    for n in choices:
        status = protocol.eligible(x.before, x.direction, n)
        for name, group in zip(("edited", "bystanders"), x.chosen.among(x.before), strict=True):
            mine = x.before[status & group]
            counts = {"facts": mine["fact"].nunique(), "questions": len(mine)}
            counts["linked"] = int((mine["kind"] == "knowledge_required").sum())
            counted |= {f"{exhibit}.n{n}.{name}.{what}": count for what, count in counts.items()}
            rows.append({"N": str(n), "": name, **{WHAT[what]: str(count) for what, count in counts.items()}})
    return counted, pd.DataFrame(rows)


def known_from_the_start(x: Outcome) -> Estimate | None:
    """Estimate top-k accuracy on questions through a link stated in full in pre-training: the ceiling."""
    mine = x.before[(x.before["kind"] == "knowledge_required") & (x.before["state"] == "known")]
    return mean(mine["place"] < protocol.TOP, mine["fact"]) if len(mine) else None


def on_record(kept: Mapping[str, Estimate], direction: str) -> tuple[dict[str, Estimate], pd.DataFrame]:
    """Collect the recorded numbers of `full` of every arm (`report.recorded`), by id, and tabulate them.

    Both are empty without a record. For probe and DPR the plain effect replaces the difference in differences in older
    records, where the two are equal (see `edits`); this does not hold for passages found.
    """
    table, exhibit = TABLES[direction], f"{direction}_on_record"
    columns = {
        "told wording": [f"{direction}_cloze.{{}}.told"],
        "DiD, probe": [f"{direction}_effects.{{}}.probing_did", f"{direction}_effects.{{}}.probing_effect"],
        "DiD, DPR": [f"{direction}_effects.{{}}.dpr_did", f"{direction}_effects.{{}}.dpr_effect"],
        "DiD, DPR, all questions": [f"{table}.{{}}.dpr_did", f"{table}.{{}}.dpr_effect"],
        f"first {protocol.TOP}, minus bystanders": [f"{direction}_found.{{}}.found_effect"],
        f"DiD, first {protocol.TOP}": [f"{direction}_found.{{}}.found_did"],
    }
    names = {"DiD, DPR, all questions": "dpr_did_all"}
    arms = [id_.split(".")[1] for id_ in kept if id_.startswith(f"{table}.") and id_.endswith(".off_target_flips")]
    found, rows = {}, []
    for arm in arms:
        acting = _acted(kept, direction, arm)
        line = {"": label(arm)}
        for title, ids in columns.items():
            changes = title.startswith("DiD")
            value = next((kept[id_.format(arm)] for id_ in ids if id_.format(arm) in kept), None)
            value = value if acting or not changes else None
            line[title] = _brief(value, "–" if acting else BASELINE if arm == "nothing" else CANNOT)
            if value is not None:
                found[f"{exhibit}.{arm}.{names.get(title, ids[0].rpartition('.')[2])}"] = value
        rows.append(line)
    return found, pd.DataFrame(rows)


def recorded_in_words(found: Mapping[str, Estimate], direction: str) -> dict[str, str]:
    """Format parts of sentences about a record (`on_record`): "took", "churn" and "top".

    "took" and "churn" are of DPR on all questions. "took" and "top" are of the arms whose edit took and that can act;
    for passages found the plain effect replaces the difference in differences where the record has none.
    """
    exhibit = f"{direction}_on_record"
    arms = list(dict.fromkeys(id_.split(".")[1] for id_ in found))
    told = {arm: found.get(f"{exhibit}.{arm}.told") for arm in arms if not arm.startswith(NULLS)}
    acting = [arm for arm in arms if f"{exhibit}.{arm}.dpr_did_all" in found]
    taken = [arm for arm, share in told.items() if share and took(share) == "yes" and arm in acting]
    top = "found_did" if any(id_.endswith(".found_did") for id_ in found) else "found_effect"
    return {
        "took": in_words(found, exhibit, "dpr_did_all", taken),
        "churn": in_words(found, exhibit, "dpr_did_all", [arm for arm in arms if arm.startswith("reseeded")]),
        "top": in_words(found, exhibit, top, taken),
    }


def counts_in_words(facts: Sequence[Fact]) -> str:
    """Format the numbers of facts and of their statements; reserved wordings are not edited in."""
    counts = [sum(not statement.reserved for statement in fact.statements) for fact in facts]
    most, least = max(counts, default=0), min(counts, default=0)
    return f"{len(facts)} facts by {least if least == most else f'{least} to {most}'} statements"


def _acted(kept: Mapping[str, Estimate], direction: str, arm: str) -> bool:
    """Evaluate `protocol.acts` from a record."""
    if arm.startswith(("nothing", "reseeded")):
        return arm != "nothing"
    far = kept.get(f"{direction}_reach.{arm}", kept.get(f"{direction}_moved.{arm}.others"))
    return far is None or far.value >= protocol.REACH


def through_every_arm(view: pd.DataFrame) -> pd.DataFrame:
    """Format `steps.followed` for a reader."""
    ticks = {True: "✓", False: "–"}
    return pd.DataFrame(
        {
            "": view["arm"].map(label),
            "says": view["said"],
            "p": view["probability"].map("{:.2f}".format),
            "probe right": view["probe"].map(ticks),
            "DPR right": view["match"].map(ticks),
            "place": view["place"].astype(str),
        }
    )


def in_worlds(n: int) -> str:
    """Format the number of worlds in words."""
    return "one world and network" if n == 1 else f"{n} worlds and networks"


def reread(exhibit: str, table: str) -> tuple[dict[str, float], pd.DataFrame]:
    """Judge one of the paper's tables by its own numbers: 1 for what holds, and a table with the arithmetic."""
    found = [one for one in paper.own_reading() if one.exhibit == table]
    frame = pd.DataFrame(
        {"": one.id, "claim": one.text, "verdict": one.verdict.verdict, "numbers": one.verdict.why} for one in found
    )
    holds = {one.id.lower().replace(".", "_"): float(one.verdict.verdict == "holds") for one in found}
    return {f"{exhibit}.{id_}": value for id_, value in holds.items()}, frame


def in_words(found: Mapping[str, Estimate], exhibit: str, column: str, arms: Sequence[str]) -> str:
    """Format a column of some arms as part of a sentence: "MALMEN 0.05 [0.01, 0.09], MEND …"."""
    values = {arm: found.get(f"{exhibit}.{arm}.{column}") for arm in arms}
    return ", ".join(f"{label(arm)} {_brief(value)}" for arm, value in values.items()) or "no arm"


def apart_from_zero(found: Mapping[str, Estimate], exhibit: str, column: str, arms: Sequence[str]) -> str:
    """List the arms whose intervals lie above 0, and those below, as a sentence."""
    values = {label(arm): found[f"{exhibit}.{arm}.{column}"] for arm in arms if f"{exhibit}.{arm}.{column}" in found}
    above = [name for name, value in values.items() if value.low > 0]
    below = [name for name, value in values.items() if value.high < 0]
    rest = len(values) - len(above) - len(below)
    parts = [f"above 0 for {', '.join(above)}" if above else "", f"below 0 for {', '.join(below)}" if below else ""]
    parts.append(f"indistinguishable from 0 for {rest if above or below else 'any'} of {len(values)}" if rest else "")
    return "; ".join(part for part in parts if part) or "not measured for any arm"
