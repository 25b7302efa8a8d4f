"""What Tables 3 and 4 say, from an outcome: the numbers, the ids that they go by, and what a reader looks at.

Ids begin with the exhibit: `table3.mend.probing_added`. The arms are those of `editing.arms`.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from numpy import ndarray

from dprlens import edits, paper
from dprlens.edits import Outcome
from dprlens.intervals import Estimate, exact, mean

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
WORDINGS = {
    "told": "told wording",
    "unread": "other wording",
    "bystanders": "bystanders",
    "neighbours": "neighbours",
    "kept": "other known facts",
}


def label(arm: str) -> str:
    """An arm in words."""
    if arm in LABELS:
        return LABELS[arm]
    for prefix, words in (("unrelated_", "unrelated facts, by "), ("random_", "random change, as large as ")):
        if arm.startswith(prefix):
            return words + LABELS[arm.removeprefix(prefix)]
    return f"no edit, other seed ({arm.removeprefix('reseeded')})"


def numbers(exhibit: str, x: Outcome, n: int, probe: str = "probe", kind: str | None = None) -> dict[str, Estimate]:
    """Every column of every arm among n passages, by id; of one `kind` of question, or all.

    What has no value, for lack of a question, is left out.
    """
    asked = (x.before["kind"] == (kind or x.before["kind"])).to_numpy()
    before = x.before[asked].reset_index(drop=True)
    found = {}
    for arm, rows in x.after.items():
        after = rows[asked].reset_index(drop=True)
        for name, value in edits.columns(before, after, x.chosen, x.direction, n, probe)._asdict().items():
            if value is not None:
                found[f"{exhibit}.{arm}.{_column(name, x.direction)}"] = value
    return found


def printed(exhibit: str, found: Mapping[str, Estimate], x: Outcome) -> pd.DataFrame:
    """The table as the paper prints it, an arm a row, the paper's own row below each of its editors."""

    def row(name: str, values: Mapping, arm: str) -> dict:
        keys = {key: f"{exhibit}.{arm}.{_column(key, x.direction)}" for key in PRINTED}
        return {"": name, **{PRINTED[key]: _brief(values.get(id_)) for key, id_ in keys.items()}}

    rows = []
    for arm in x.after:
        rows.append(row(label(arm), found, arm))
        if f"{exhibit}.{arm}.{_column('probing', x.direction)}" in paper.numbers():
            rows.append(row("· the paper", paper.numbers(), arm))
    return pd.DataFrame(rows)


def chosen_columns(exhibit: str, found: Mapping[str, Estimate], x: Outcome, names: Mapping[str, str]) -> pd.DataFrame:
    """Some columns of every arm, `names` from the column's name to what stands above it."""
    return pd.DataFrame(
        {"": label(arm), **{title: _brief(found.get(f"{exhibit}.{arm}.{name}")) for name, title in names.items()}}
        for arm in x.after
    )


def against_nulls(exhibit: str, x: Outcome, arms: Sequence[str], n: int) -> tuple[dict[str, Estimate], pd.DataFrame]:
    """Each arm minus each null arm on the edited facts' questions, paired; and as a table, with McNemar's p."""
    nulls = [arm for arm in x.after if arm.startswith(("unrelated_", "random_", "reseeded"))]
    found, rows = {}, []
    for arm in arms:
        for null in nulls:
            line = {"": label(arm), "minus": label(null)}
            for what, title in (("probe", "probe"), ("match", "DPR")):
                one = edits.contrast(x.before, x.after[arm], x.after[null], x.chosen, x.direction, n, what)
                if one:
                    found[f"{exhibit}.{arm}_minus_{null}.{what}"] = one.difference
                line[title], line[f"p, {title}"] = (_brief(one.difference), f"{one.p:.2g}") if one else ("–", "–")
            rows.append(line)
    return found, pd.DataFrame(rows)


def success(exhibit: str, said: pd.DataFrame) -> dict[str, Estimate]:
    """Share of statements completed as told, by arm and group (`editing.said`), facts drawn whole."""
    return {
        f"{exhibit}.{arm}.{group}": mean(rows["recalled"], rows["fact"])
        for (arm, group), rows in said.groupby(["arm", "group"], sort=False)
    }


def traded(found: Mapping[str, Estimate], exhibit: str) -> pd.DataFrame:
    """What telling the facts again and again wins and costs, as a table: numbers of `success` on `editing.traded`."""
    arms = dict.fromkeys(id_.split(".")[1] for id_ in found)
    return pd.DataFrame(
        {
            "": label(arm.rpartition("_")[0]),
            "rounds": arm.rpartition("_")[2],
            **{WORDINGS[group]: _brief(found.get(f"{exhibit}.{arm}.{group}")) for group in WORDINGS},
        }
        for arm in arms
    )


def moved(exhibit: str, far: pd.DataFrame) -> dict[str, Estimate]:
    """How far [CLS] moved, mean by arm and by what is read (`editing.moved`)."""
    return {
        f"{exhibit}.{arm}.{group}": _mean(rows["far"].to_numpy(), rows["fact"])
        for (arm, group), rows in far.groupby(["arm", "group"], sort=False)
    }


def _mean(values: ndarray, clusters: Sequence[str]) -> Estimate:
    return mean(values, clusters) if values.any() else exact(0.0)  # what cannot move has no interval


def _column(key: str, direction: str) -> str:
    return f"{key}_{direction}" if key in ("probing", "dpr") else key


def _brief(value: Estimate | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, Estimate):
        return value.brief if value.n else f"{value.value:g}"
    return f"{value:g}"


def selection(exhibit: str, x: Outcome, choices: Sequence[int]) -> tuple[dict[str, int], pd.DataFrame]:
    """How many facts and questions are eligible among n passages, edited and not: the numbers, and a table."""
    counted, rows = {}, []
    for n in choices:
        status = edits.eligible(x.before, x.direction, n)
        for name, group in zip(("edited", "bystanders"), x.chosen.among(x.before), strict=True):
            mine = x.before[status & group]
            counts = {"facts": mine["fact"].nunique(), "questions": len(mine)}
            counts["linked"] = int((mine["kind"] == "knowledge_required").sum())
            counted |= {f"{exhibit}.n{n}.{name}.{what}": count for what, count in counts.items()}
            rows.append({"N": str(n), "": name, **{WHAT[what]: str(count) for what, count in counts.items()}})
    return counted, pd.DataFrame(rows)


def known_from_the_start(x: Outcome) -> Estimate | None:
    """What there is to win: of the questions through a link that pre-training told in full, the share found."""
    mine = x.before[(x.before["kind"] == "knowledge_required") & (x.before["state"] == "known")]
    return mean(mine["place"] < edits.TOP, mine["fact"]) if len(mine) else None


def on_record(kept: Mapping[str, Estimate], direction: str) -> tuple[dict[str, Estimate], pd.DataFrame]:
    """What is on record for every arm (`report.recorded`), by id, and as a table; empty if nothing is."""
    table, exhibit = TABLES[direction], f"{direction}_on_record"
    columns = {
        "told wording": f"{direction}_cloze.{{}}.told",
        "probe": f"{table}.{{}}.probing_{direction}",
        "effect, probe": f"{direction}_effects.{{}}.probing_effect",
        "effect, DPR": f"{direction}_effects.{{}}.dpr_effect",
        f"effect, first {edits.TOP}": f"{direction}_found.{{}}.found_effect",
    }
    arms = [id_.split(".")[1] for id_ in kept if id_.startswith(f"{table}.") and id_.endswith(".off_target_flips")]
    found = {
        f"{exhibit}.{arm}.{id_.rpartition('.')[2]}": kept[id_.format(arm)]
        for arm in arms
        for id_ in columns.values()
        if id_.format(arm) in kept
    }
    rows = [
        {"": label(arm), **{title: _brief(kept.get(id_.format(arm))) for title, id_ in columns.items()}} for arm in arms
    ]
    return found, pd.DataFrame(rows)


def through_every_arm(view: pd.DataFrame) -> pd.DataFrame:
    """`editing.followed` as a reader sees it."""
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
    """How many worlds the numbers are of, in words."""
    return "one world and network" if n == 1 else f"{n} worlds and networks"


def reread(exhibit: str, table: str) -> tuple[dict[str, float], pd.DataFrame]:
    """What one of the paper's tables supports by itself: 1 for what holds, and a table with the arithmetic."""
    found = [one for one in paper.own_reading() if one.exhibit == table]
    frame = pd.DataFrame(
        {"": one.id, "claim": one.text, "verdict": one.verdict.verdict, "numbers": one.verdict.why} for one in found
    )
    holds = {one.id.lower().replace(".", "_"): float(one.verdict.verdict == "holds") for one in found}
    return {f"{exhibit}.{id_}": value for id_, value in holds.items()}, frame


def in_words(found: Mapping[str, Estimate], exhibit: str, column: str, arms: Sequence[str]) -> str:
    """A column of some arms as part of a sentence: "MALMEN 0.05 [0.01, 0.09], MEND …"."""
    values = {arm: found.get(f"{exhibit}.{arm}.{column}") for arm in arms}
    return ", ".join(f"{label(arm)} {_brief(value)}" for arm, value in values.items())


def apart_from_zero(found: Mapping[str, Estimate], exhibit: str, column: str, arms: Sequence[str]) -> str:
    """Which arms' intervals lie above 0, which below, as a sentence."""
    values = {label(arm): found[f"{exhibit}.{arm}.{column}"] for arm in arms if f"{exhibit}.{arm}.{column}" in found}
    above = [name for name, value in values.items() if value.low > 0]
    below = [name for name, value in values.items() if value.high < 0]
    rest = len(values) - len(above) - len(below)
    parts = [f"above 0 for {', '.join(above)}" if above else "", f"below 0 for {', '.join(below)}" if below else ""]
    parts.append(f"not to be told from 0 for {rest if above or below else 'any'} of {len(values)}" if rest else "")
    return "; ".join(part for part in parts if part)
