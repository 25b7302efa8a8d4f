"""Chapter B.2, late facts: does it matter for retrieval when, and how, a model was told a fact?"""

from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import pandas as pd

from dprlens import intervals
from dprlens.chapters import late_models
from dprlens.intervals import Estimate
from dprlens.late_facts import exhibits, steps
from dprlens.profile import Profile
from dprlens.report import figures
from dprlens.report.report import Absent, Drawing, Table, beside_record, read_record
from dprlens.setup import Setup
from dprlens.world.closed.entry import AFTER, telling_text, under_study, without_facts

NOTEBOOK = "B_2_late_facts"
NOT_ON_RECORD = "This chapter is not on record for the profile full."
EXAMPLES = 6  # questions of the first table
TELLINGS = {  # references and arms in words
    "never": "never told",
    "start": "told from the start",
    "plain": "plain statements",
    "few": "a quarter as often",
    "many": "twice as often",
    "one_wording": "in one wording only",
    "half_described": "half in descriptions",
    "described": "all in descriptions",
    "beside_neighbours": "beside facts about either end",
    "at_cls": "plain, object asked for at [CLS] too",
    "fast": "plain, five times the rate",
    "large_steps": "plain, steps as in pre-training",
    "as_at_start": "steps, number and form as in pre-training",
    "embeddings": "only embeddings learn",
    "first_block": "only the first block learns",
    "second_block": "only the second block learns",
    "third_block": "only the third block learns",
    "opened": "plain; DPR asks through others",
}
CONTRASTS = {
    "start_minus_after.recalled": "from the start minus after: recalled",
    "start_minus_after.top{k}": "from the start minus after: found",
    "start_minus_never.top{k}": "from the start minus never: found",
    "after_minus_never.top{k}": "after minus never: found",
    "slope.top{k}": "found, slope from start to after",
}
COMPARED = {  # a number here and on record: its words, and its id
    "found, told from the start": "entry.at0.top{k}",
    "found, told after": "entry.after.top{k}",
    "found, never told": "entry.never.top{k}",
    "recalled, told from the start": "entry.at0.recalled",
    "recalled, told after": "entry.after.recalled",
    "start minus after, recalled": "entry.start_minus_after.recalled",
    "start minus after, found": "entry.start_minus_after.top{k}",
    "after minus never, found": "entry.after_minus_never.top{k}",
    "slope within pre-training, falling rates": "rates.falling.slope_within.top{k}",
    "the same, constant rates": "rates.constant.slope_within.top{k}",
}
HALVES = {  # networks joined at a border: whose blocks are above it, whose below
    "told below, untold above": ("never", "plain"),
    "untold below, told above": ("plain", "never"),
}


class Study(NamedTuple):
    """The models of the chapter after DPR training, a row a question and model."""

    chosen: Profile
    setup: Setup  # this page's world
    top_k: int
    by_entry: pd.DataFrame  # `steps.by_entry`: facts told at their points of entry
    by_telling: pd.DataFrame  # `steps.by_telling`: all facts told in one way, or not at all

    @property
    def falling(self) -> pd.DataFrame:
        """The models whose learning rates fall in pre-training."""
        return self.by_entry[self.by_entry["rates"] == "falling"]

    @property
    def percent(self) -> dict[str, int]:
        """The groups of entry, by the share of pre-training that lies before, in percent."""
        return {exhibits.group(point): round(100 * point) for point in (*self.chosen.late.points, AFTER)}


def train(chosen: Profile, seed: int, top_k: int, workers: ProcessPoolExecutor | None = None) -> Study:
    """Tell links early, late and never, in each of the profile's ways; train DPR from each model, and search."""
    by_telling = late_models.by_telling(chosen, seed, workers)
    by_entry = late_models.by_entry(chosen, seed, workers)
    return Study(chosen, late_models.setup_of(chosen, seed), top_k, by_entry, by_telling)


def example_table(study: Study) -> Table:
    """The gold passage's rank, from 1, in models told the link from the start, after pre-training, and never."""
    rows = study.by_telling[study.by_telling["seed"] == study.setup.seed]
    ranks = 1 + rows.pivot_table("place", "question", "arm")[["start", "plain", "never"]].astype(int)
    shown = ranks.sample(EXAMPLES, random_state=study.setup.seed)
    questions = {question.id: question.text for question in study.setup.world.questions}
    return Table(
        "thrice",
        pd.DataFrame(
            {
                "question": shown.index.map(questions),
                "from the start": shown["start"],
                "after": shown["plain"],
                "never": shown["never"],
            }
        ),
        "Place of the passage when the link was told from the start, after pre-training, and never",
    )


def entry_numbers(study: Study) -> dict[str, Estimate | None]:
    """Estimate recall and top-k accuracy by group of entry, and the differences between groups, by id."""
    curves = exhibits.curves(study.falling, study.top_k)
    contrasts = exhibits.contrasts(study.falling, study.top_k)
    of_groups = {f"entry.{group}.{measure}": e for measure, line in curves.items() for group, e in line.items()}
    return of_groups | {f"entry.{id_}": e for id_, e in contrasts.items()}


def entry_curves(study: Study) -> Drawing:
    """Recall before and after DPR training, and top-k accuracy, by the time at which a link was told."""
    curves = exhibits.curves(study.falling, study.top_k)
    top, percent = f"top{study.top_k}", study.percent
    names = {
        "recalled": "recalled",
        "kept": "recalled after DPR training",
        top: f"found among the first {study.top_k}",
    }
    lines = {
        words: {percent[group]: e for group, e in curves[measure].items() if e and group in percent}
        for measure, words in names.items()
    }
    if never := curves[top].get("never"):
        lines["never stated: found"] = dict.fromkeys(percent.values(), never)
    return Drawing(
        "entry",
        figures.dose_response(lines, "read after so much of pre-training, %", "share"),
        title="Recall of links and retrieval through them, by the time at which they were told",
        alt="Curves against the point of entry: recall stays high throughout, retrieval falls towards the level of "
        "links never told.",
        numbers=entry_numbers(study),
    )


def contrasts_table(study: Study) -> Table:
    """Differences between groups of entry, of all links and of recalled ones, and what could have been detected."""
    every = exhibits.contrasts(study.falling, study.top_k)
    of_recalled = exhibits.contrasts(exhibits.recalled_rows(study.falling), study.top_k)
    power = {id_: intervals.detectable(e) for id_, e in every.items() if e}
    words = {id_.format(k=study.top_k): name for id_, name in CONTRASTS.items()}
    numbers = {f"contrasts.recalled.{id_}": e for id_, e in of_recalled.items()}
    return Table(
        "contrasts",
        pd.DataFrame(
            {
                "difference": words[id_],
                "all links": every[id_],
                "recalled links": of_recalled[id_],
                "could have shown": round(least, 2),
            }
            for id_, least in power.items()
        ),
        f"Differences between groups (found: among the first {study.top_k})",
        numbers | {f"contrasts.power.{id_}": least for id_, least in power.items()},
    )


def rates_table(study: Study) -> Table:
    """Recall and top-k accuracy by time of entry, with learning rates that fall and rates that stay."""
    top, percent = f"top{study.top_k}", study.percent
    kinds = {str(kind): rows for kind, rows in study.by_entry.groupby("rates", sort=False)}
    curves = {kind: exhibits.curves(rows, study.top_k) for kind, rows in kinds.items()}
    numbers: dict[str, Estimate | None] = {
        f"rates.{kind}.{group}.{measure}": e
        for kind, found in curves.items()
        for measure in ("recalled", top)
        for group, e in found[measure].items()
    }
    for kind, rows in kinds.items():
        within = exhibits.contrasts(rows[rows["entry"] < AFTER], study.top_k)
        numbers[f"rates.{kind}.slope_within.{top}"] = within[f"slope.{top}"]
    columns = {f"{kind}: recalled": found["recalled"] for kind, found in curves.items()}
    columns |= {f"{kind}: found": found[top] for kind, found in curves.items()}
    groups = exhibits.curves(study.falling, study.top_k)[top]
    return Table(
        "rates",
        pd.DataFrame(
            {
                "told": f"after {percent[group]} %" if group in percent else "never",
                **{name: column.get(group) for name, column in columns.items()},
            }
            for group in groups
        ),
        "Links by time of entry, with learning rates that fall and rates that stay",
        numbers,
    )


def telling_examples(study: Study) -> dict[str, str]:
    """One link as a finished model is told it: plain, described (through it, something else), beside (a neighbour)."""
    world, (fact, *_) = study.setup.world, under_study(study.setup.world)
    ways = {"plain": "plain", "described": "described", "beside": "beside_neighbours"}
    before = without_facts(world, under_study(world))
    return {
        name: telling_text(before, [fact], exhibits.ARMS[arm].telling, study.setup.seed)[0].text
        for name, arm in ways.items()
    }


def telling_table(study: Study) -> Table:
    """Recall and top-k accuracy of links by the way in which a finished model was told them."""
    arms, top = exhibits.arms(study.by_telling, study.top_k), f"top{study.top_k}"
    numbers = {f"telling.{arm}.{name}": e for arm, found in arms.items() for name, e in found.items()}
    numbers |= {
        f"telling.{arm}_minus_plain.{top}": exhibits.arm_difference(study.by_telling, arm, "plain", study.top_k)
        for arm in arms
        if arm != "plain"
    }
    columns = {"recalled": "recalled", f"found, first {study.top_k}": top, "minus never": f"minus_never.{top}"}
    asked = arms["plain"][top]
    return Table(
        "telling",
        pd.DataFrame(
            {"the links are": TELLINGS[arm], **{name: _brief(found[id_]) for name, id_ in columns.items()}}
            for arm, found in arms.items()
        ),
        f"Links told to a finished model; questions: {asked.n if asked else 0}",
        numbers,
    )


def gaps_to_start(study: Study) -> dict[str, Estimate | None]:
    """Top-k accuracy of each arm minus that of links told from the start, on the same questions."""
    return {arm: exhibits.arm_difference(study.by_telling, arm, "start", study.top_k) for arm in study.chosen.late.arms}


def missing_table(study: Study) -> Table:
    """What each way of telling lacks in top-k accuracy against links told from the start."""
    gaps = gaps_to_start(study)
    return Table(
        "missing",
        pd.DataFrame(
            {
                "told to a finished model": [TELLINGS[arm] for arm in gaps],
                "minus told from the start": gaps.values(),
            }
        ),
        f"What is missing to links told from the start, first {study.top_k}",
        {f"missing.{arm}.top{study.top_k}": e for arm, e in gaps.items()},
    )


def best_in_words(study: Study) -> dict[str, str]:
    """The way of telling that comes closest to links told from the start (best), and its difference (gap)."""
    gaps = {arm: e for arm, e in gaps_to_start(study).items() if e}
    best = max(gaps, key=lambda arm: gaps[arm].value)
    return {"best": TELLINGS[best], "gap": str(gaps[best])}


def blocks(study: Study, workers: ProcessPoolExecutor | None = None) -> Drawing:
    """Each block's share of the attribution at the mask, by the time at which the link was told."""
    shares = exhibits.by_block(late_models.by_block(study.chosen, study.setup.seed, workers))
    lines = {f"told after {study.percent[group]} %": line for group, line in shares.items()}
    return Drawing(
        "blocks",
        figures.by_layer({"share of the attribution at the mask": lines}, "share", across="block"),
        title="Which blocks speak for the answer, by the time at which the link was told",
        alt="One line for each point of entry over the blocks of the network.",
        numbers={f"blocks.{group}.block{block}": e for group, line in shares.items() for block, e in line.items()},
    )


def patched_halves(study: Study, workers: ProcessPoolExecutor | None = None) -> Drawing:
    """Recall of late links by the lower blocks of one network and the upper blocks of another, one told, one not."""
    models, world = late_models.told_models(study.setup, workers), study.setup.world
    facts = [fact.id for fact in under_study(world)]
    recall = {}
    for name, (above, below) in HALVES.items():
        recalled = steps.patch_answers(models[above], models[below], world)
        recall[name] = {layer: intervals.mean(right.astype(float), facts) for layer, right in enumerate(recalled)}
    return Drawing(
        "patched",
        figures.by_layer(
            {"the late link is recalled": recall},
            "share of links",
            across="blocks below the border (0: only the embeddings)",
        ),
        title="Recall of late links by two halves of networks, one told and one not",
        alt="Two lines over the number of blocks below the border: told below and untold above, and the reverse.",
        numbers={
            f"patched.{name.replace(',', '').replace(' ', '_')}.layer{layer}": e
            for name, line in recall.items()
            for layer, e in line.items()
        },
    )


def record() -> Mapping[str, object]:
    """The numbers on record for the profile full, by id; of any other id, that it is not on record yet."""
    return defaultdict(lambda: "(not on record yet)", read_record(NOTEBOOK, "full"))


def record_table(top_k: int, here: Mapping[str, Estimate]) -> Table:
    """The page's main numbers, of `here` by id, beside those on record for the profile full."""
    ids = {words: id_.format(k=top_k) for words, id_ in COMPARED.items()}
    return beside_record("late_on_record", NOTEBOOK, here, ids)


def record_curves() -> Drawing | Absent:
    """On record: recall and top-20 accuracy by the time of entry, with rates that fall and rates that stay."""
    title = "On record: recall of links and retrieval among the first 20, by the time at which they were told"
    kept = read_record(NOTEBOOK, "full")
    if not kept:
        return Absent("entry_on_record", title, NOT_ON_RECORD)
    curves = exhibits.curves_on_record(kept)
    return Drawing(
        "entry_on_record",
        figures.dose_response(curves, "read after so much of pre-training, %", "share"),
        title=title,
        alt="Four curves against the point of entry. Recall stays high. Retrieval falls steadily where learning rates "
        "fall, and less before the end of pre-training where they stay.",
        points=figures.points(curves),
    )


def record_tellings() -> Table | Absent:
    """On record: recall and top-20 accuracy of every way of telling, and the difference to links of the start."""
    title = "On record: links told to a finished model in every way; found: among the first 20"
    kept = read_record(NOTEBOOK, "full")
    columns = {
        "recalled": "telling.{}.recalled",
        "found": "telling.{}.top20",
        "minus told from the start": "missing.{}.top20",
    }
    lines = [
        {"the links are": words, **{name: _brief(kept.get(id_.format(arm))) for name, id_ in columns.items()}}
        for arm, words in TELLINGS.items()
        if f"telling.{arm}.recalled" in kept
    ]
    if not lines:
        return Absent("told_on_record", title, NOT_ON_RECORD)
    return Table("told_on_record", pd.DataFrame(lines), title)


def _brief(e: Estimate | None) -> str:
    return e.brief if e else "–"
