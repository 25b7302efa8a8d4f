"""Chapters 04_1 and 04_2, knowledge editing: facts added to BERT (Table 3), or removed from it (Table 4)."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import pandas as pd
from pandas.io.formats.style import Styler

from dprlens.chapters import editing_experiment
from dprlens.chapters.editing_experiment import Experiment, FactTrace
from dprlens.editing import exhibits, protocol
from dprlens.editing.protocol import Outcome
from dprlens.intervals import Estimate
from dprlens.profile import Profile
from dprlens.report import figures, widgets
from dprlens.report.report import Absent, Drawing, Table, read_record
from dprlens.setup import Setup

NOTEBOOKS = {"added": "04_1_knowledge_addition", "removed": "04_2_knowledge_removal"}
EXAMPLES = 8  # facts that are followed through every arm
CONTRASTS = {
    "probing_did": "DiD, probe",
    "dpr_all": "DPR, all",
    "dpr_did": "DiD, DPR",
    "off_target_rate": "off-target rate",
}
RETRIEVAL = {"found": "found", "found_effect": "minus bystanders", "found_did": "DiD"}


class Titles(NamedTuple):
    """How the titles of one direction speak of its facts."""

    edited: str  # what was done to a fact
    halves: str  # of the eligible facts
    facts: str
    contrast: str  # the effect
    panels: str  # of the forest plot
    success: str  # of a question


TITLES = {
    "added": Titles("told", "told and not told", "added facts", "Added facts minus bystanders", "", "come right"),
    "removed": Titles(
        "overwritten",
        "overwritten and not",
        "overwritten facts",
        "Share lost: overwritten facts minus bystanders",
        " (above: share lost; below: share found)",
        "are lost",
    ),
}


class Arms(NamedTuple):
    """All arms of a chapter: the experiment in each world, the worlds' outcome, and what edited models recall."""

    experiments: Sequence[Experiment]  # this page's world first
    outcome: Outcome  # of all worlds together
    recall: Mapping[str, Estimate]  # share of statements completed, by arm and group (`exhibits.success`)

    @property
    def page(self) -> Experiment:
        """The experiment in this page's world."""
        return self.experiments[0]

    @property
    def direction(self) -> str:
        """Whether facts are "added" or "removed"."""
        return self.outcome.direction

    @property
    def profile(self) -> Profile:
        """The profile of the page."""
        return self.page.setup.profile

    @property
    def n(self) -> int:
        """How many passages the probe chooses from in the tables."""
        return self.profile.protocol.choices[0]

    @property
    def most(self) -> int:
        """The greatest number of passages that the probe chooses from."""
        return self.profile.protocol.choices[-1]

    @property
    def n_of_search(self) -> int:
        """Among how many passages the questions of the search are eligible; of more, too few are right to be lost."""
        return self.most if self.direction == "added" else self.n

    @property
    def titles(self) -> Titles:
        """How titles speak of this direction."""
        return TITLES[self.direction]

    @property
    def judged(self) -> list[str]:
        """The arms on which claims are judged: the edit took and reaches [CLS]."""
        return exhibits.that_took(self.exhibit("cloze"), self.recall, self.outcome)

    def exhibit(self, name: str) -> str:
        """The id of an exhibit of this direction: "added_cloze"."""
        return f"{self.direction}_{name}"


def run_arms(setup: Setup, direction: str, workers: ProcessPoolExecutor | None = None) -> Arms:
    """Edit, probe, train DPR and search in every arm and world; complete statements with every edited model."""
    experiments = editing_experiment.experiments(setup, direction, workers)
    completed = protocol.stack_worlds(editing_experiment.cloze_rows(one, workers) for one in experiments)
    outcome = protocol.together([one.outcome for one in experiments])
    return Arms(experiments, outcome, exhibits.success(f"{direction}_cloze", completed))


class Effects(NamedTuple):
    """The numbers of a chapter's main tables, by id."""

    arms: Arms
    of_all: Mapping[str, Estimate]  # Table 3 or 4: all eligible questions
    of_links: Mapping[str, Estimate]  # questions that need the fact as a link, choosing among n passages
    of_search: Mapping[str, Estimate]  # the same questions, searching among all passages


def measure_effects(arms: Arms) -> Effects:
    """Measure what the edits did to probe, DPR and search, with intervals; facts are clusters."""
    exhibit, outcome, n = arms.exhibit("effects"), arms.outcome, arms.n
    through_links = {
        choices: exhibits.numbers(exhibit, outcome, choices, kind="knowledge_required")
        for choices in {n, arms.n_of_search}
    }
    search = {
        id_.replace(exhibit, arms.exhibit("found")): value
        for id_, value in through_links[arms.n_of_search].items()
        if id_.rpartition(".")[2] in RETRIEVAL
    }
    table = exhibits.TABLES[arms.direction]
    return Effects(arms, exhibits.numbers(table, outcome, n), through_links[n], search)


def selection_table(arms: Arms) -> Table:
    """Eligible facts and questions among N passages: how many are edited, how many are bystanders."""
    exhibit = arms.exhibit("facts")
    counts, frame = exhibits.selection(exhibit, arms.outcome, arms.profile.protocol.choices)
    return Table(exhibit, frame, f"Eligible facts and questions, {arms.titles.halves}", counts)


def follow_facts(arms: Arms, fact: str | None = None) -> dict[str, FactTrace]:
    """Follow facts of this page's world through every arm, by id: one fact, or the first that were edited."""
    ids = [fact] if fact else editing_experiment.examples(arms.page, arms.n, EXAMPLES)
    return {id_: editing_experiment.trace_fact(arms.page, id_, arms.n) for id_ in ids}


def statement_card(arms: Arms, followed: Mapping[str, FactTrace]) -> Styler:
    """The first fact in four texts: as it was told, the wording with a blank, the question, the gold passage."""
    id_, one = _first(followed)
    gold = arms.page.setup.world.passage[one.question.gold]
    texts = {
        "told as": one.told.text,
        "blank": one.blank.text.replace(one.blank.answer, "____"),
        "question": one.question.text,
        "its passage": f"{gold.title}: {gold.text}",
    }
    return pd.DataFrame({"": texts.keys(), id_: texts.values()}).style.hide()


def fact_table(arms: Arms, followed: Mapping[str, FactTrace]) -> Table:
    """The first fact in every arm: what the model says, what probe and DPR decide, the gold passage's rank from 1."""
    exhibit, (id_, one) = arms.exhibit("fact"), _first(followed)
    return Table(
        exhibit,
        exhibits.through_every_arm(one.arms),
        f"One fact through every arm: {_name(arms, id_)}",
        {f"{exhibit}.{arm}.place": rank for arm, rank in zip(one.arms["arm"], one.arms["place"], strict=True)},
    )


def fact_pages(arms: Arms, followed: Mapping[str, FactTrace]) -> dict[widgets.Key, str]:
    """Pages for an explorer, by fact and arm: each arm beside the unedited model."""
    pages: dict[widgets.Key, str] = {}
    for id_, one in followed.items():
        rows = exhibits.through_every_arm(one.arms).set_index(one.arms["arm"])
        gold = arms.page.setup.world.passage[one.question.gold]
        for arm in rows.index.drop("nothing"):
            both = rows.loc[["nothing", arm]]
            pages[_name(arms, id_), exhibits.label(arm)] = widgets.edited_fact(
                one.told, one.blank, one.question, gold, both
            )
    return pages


def cloze_table(arms: Arms) -> Table:
    """Share of statements completed by each arm's model, by wording and group of facts."""
    return Table(
        arms.exhibit("cloze"),
        exhibits.chosen_columns(arms.exhibit("cloze"), arms.recall, arms.outcome, exhibits.WORDINGS),
        "Share of statements completed as told, or as they were true (95 % interval, facts drawn whole)",
        arms.recall,
    )


def rounds_table(arms: Arms, workers: ProcessPoolExecutor | None = None) -> Table:
    """Share of statements completed after MALMEN and MEND told all facts once, twice, four times."""
    exhibit = arms.exhibit("tradeoff")
    recall = exhibits.success(
        exhibit, protocol.stack_worlds(editing_experiment.trade_off_rows(one, workers) for one in arms.experiments)
    )
    return Table(
        exhibit,
        exhibits.trade_off(recall, exhibit),
        "Telling the facts several times: what is won, and what is lost",
        recall,
    )


def displacement_table(arms: Arms) -> Table:
    """How far each edit moved [CLS] of the last layer, as a share of its length, by what is read."""
    exhibit = arms.exhibit("moved")
    distances = exhibits.cls_shift(
        exhibit, protocol.stack_worlds(editing_experiment.cls_shift_rows(one) for one in arms.experiments)
    )
    titles = {
        "edited": f"questions, {arms.titles.edited}",
        "gold": "their passages",
        "bystanders": "questions, bystanders",
        "others": "other questions",
    }
    return Table(
        exhibit,
        exhibits.chosen_columns(exhibit, distances, arms.outcome, titles),
        "How far the last layer's [CLS] moved, as a share of its length",
        distances,
    )


def reach(arms: Arms) -> dict[str, Estimate]:
    """How far each edit moved [CLS] of all test questions, by id: below a hundredth, no claim is judged on it."""
    return exhibits.reach(arms.exhibit("reach"), arms.outcome)


def paper_table(measured: Effects) -> Table:
    """Table 3 or 4: shares of edited facts' questions, counts off target; the paper's rows below its editors'."""
    arms, exhibit = measured.arms, exhibits.TABLES[measured.arms.direction]
    return Table(
        exhibit,
        _with_took(arms, exhibits.as_printed(exhibit, measured.of_all, arms.outcome)),
        f"Facts {arms.direction} (N = {arms.n}; off-target counts over {len(arms.outcome.before)} test questions)",
        measured.of_all,
    )


def effects_table(measured: Effects) -> Table:
    """Differences in differences of probe and DPR, on questions that need the edited fact as a link."""
    arms, exhibit = measured.arms, measured.arms.exhibit("effects")
    return Table(
        exhibit,
        _with_took(arms, exhibits.chosen_columns(exhibit, measured.of_links, arms.outcome, CONTRASTS)),
        f"{arms.titles.contrast}, change against no edit, questions that need the fact as a link (N = {arms.n})",
        measured.of_links,
    )


def more_passages_table(arms: Arms) -> Table:
    """Table 3 or 4 and the differences in differences with the most passages to choose from, all questions."""
    exhibit = arms.exhibit("n5")
    numbers = exhibits.numbers(exhibit, arms.outcome, arms.most)
    titles = {f"probing_{arms.direction}": "probe", f"dpr_{arms.direction}": "DPR"} | CONTRASTS
    return Table(
        exhibit,
        exhibits.chosen_columns(exhibit, numbers, arms.outcome, titles),
        f"The same choice among N = {arms.most} passages, all questions",
        numbers,
    )


def search_table(measured: Effects) -> Table:
    """Share of gold passages among the first 20 of all, on questions that need the edited fact as a link."""
    arms, exhibit = measured.arms, measured.arms.exhibit("found")
    return Table(
        exhibit,
        _with_took(arms, exhibits.chosen_columns(exhibit, measured.of_search, arms.outcome, RETRIEVAL)),
        f"Passage among the first {protocol.TOP}, questions through a link (eligible at N = {arms.n_of_search})",
        measured.of_search,
    )


def forest(measured: Effects) -> Drawing:
    """Differences in differences after DPR training, a row an arm: choice among n passages, and search among all."""
    arms = measured.arms
    panels = {
        f"choosing among {arms.n} passages": exhibits.by_arm(measured.of_links, arms.exhibit("effects"), "dpr_did"),
        f"passage among the first {protocol.TOP}": exhibits.by_arm(
            measured.of_search, arms.exhibit("found"), "found_did"
        ),
    }
    return Drawing(
        arms.exhibit("forest"),
        figures.forest(panels, "difference in differences"),
        title=f"After DPR training: change against no edit, {arms.titles.facts} minus bystanders{arms.titles.panels}, "
        "with 95 % intervals",
        alt="A row for each arm with an interval about a line at 0, once for the choice among few passages and once "
        "for search among all.",
        points=figures.points(panels),
    )


def nulls_table(arms: Arms) -> Table:
    """Each editor and baseline minus each null arm, on the same questions: difference, and McNemar's p."""
    exhibit, editors = arms.exhibit("nulls"), [*editing_experiment.PAPER, *arms.profile.protocol.baselines]
    numbers, frame = exhibits.against_nulls(exhibit, arms.outcome, editors, arms.n)
    questions = f"{arms.titles.edited} facts' questions that {arms.titles.success}"
    return Table(exhibit, frame, f"Editors minus null arms, share of {questions} (N = {arms.n})", numbers)


def agreement_table(arms: Arms) -> Table | Absent:
    """Cohen's kappa of MALMEN and MEND, and of each with every other arm, over edited facts' questions."""
    exhibit = arms.exhibit("agreement")
    kappas, frame = exhibits.agreements(exhibit, arms.outcome, arms.n)
    questions = f"{arms.titles.facts}' questions (N = {arms.n})"
    title = f"Do arms succeed on the same questions? Cohen's kappa on {questions}"
    if frame.empty:
        return Absent(exhibit, title, "Neither MALMEN nor MEND has another arm beside it whose edits reach [CLS].")
    return Table(exhibit, frame, title, kappas)


def retrained_probe_table(arms: Arms) -> Table:
    """The probe's columns with a probe fitted to each edited model, in place of the frozen one."""
    exhibit = arms.exhibit("retrained")
    numbers = exhibits.numbers(exhibit, arms.outcome, arms.n, probe="retrained")
    titles = {
        f"probing_{arms.direction}": "probe",
        "probing_effect": "effect",
        "off_target_flips": "off-target flips",
    }
    return Table(
        exhibit,
        exhibits.chosen_columns(exhibit, numbers, arms.outcome, titles),
        f"With a probe fitted to the edited model (N = {arms.n})",
        numbers,
    )


def record_table(direction: str) -> Table | Absent:
    """Recall, differences in differences and search of every arm, on record for the profile full."""
    exhibit, title = f"{direction}_on_record", "Three worlds and networks, on record"
    numbers, frame = exhibits.on_record(read_record(NOTEBOOKS[direction], "full"), direction)
    if not numbers:
        return Absent(exhibit, title, "This chapter is not on record for the profile full.")
    return Table(exhibit, frame, title, numbers)


def record_in_words(direction: str) -> dict[str, str]:
    """Parts of sentences about the record for full: took, churn, top (`exhibits.recorded_in_words`)."""
    numbers, _ = exhibits.on_record(read_record(NOTEBOOKS[direction], "full"), direction)
    return exhibits.recorded_in_words(numbers, direction)


def rereading_table(direction: str) -> Table:
    """What the paper's Table 3 or 4 supports by its printed numbers alone."""
    exhibit, table = f"{direction}_reread", exhibits.TABLES[direction]
    holds, frame = exhibits.reread(exhibit, table)
    return Table(exhibit, frame, f"What {table.replace('table', 'Table ')} of the paper supports by itself", holds)


class Words(NamedTuple):
    """Results of a chapter as parts of sentences; "judged" are edits that took and reach [CLS]."""

    worlds: str  # how many
    used: str  # how many facts are told in this page's world, by how many statements
    judged: str  # recall of told statements
    set_aside: str  # edits on which no claim is judged, and why
    told: str  # recall in the wording that told the facts, of the paper's editors
    unread: str  # in other wordings
    kept: str  # of other known facts
    probe: str  # share of the paper's editors that act
    probe_of_nulls: str
    probe_effect: str  # whose interval is apart from 0, of the judged
    dpr: str
    dpr_values: str
    churn: str  # share of DPR trained from another seed, without any edit
    search: str
    search_values: str
    known_from_the_start: str  # share found through links that pre-training stated


def in_words(measured: Effects) -> Words:
    """Write a chapter's results as parts of sentences."""
    arms, of_all, direction = measured.arms, measured.of_all, measured.arms.direction
    cloze, choice, search = (arms.exhibit(name) for name in ("cloze", "effects", "found"))
    table, probing = exhibits.TABLES[direction], f"probing_{direction}"
    editors = {*editing_experiment.PAPER, *arms.profile.protocol.baselines}
    nulls = [arm for arm in arms.outcome.after if arm not in editors and arm != "nothing"]
    acting = [arm for arm in editing_experiment.PAPER if f"{table}.{arm}.{probing}" in of_all]
    return Words(
        worlds=exhibits.in_worlds(len(arms.experiments)),
        used=exhibits.counts_in_words(arms.page.plan.told),
        judged=exhibits.in_words(arms.recall, cloze, "told", arms.judged),
        set_aside=exhibits.set_aside(cloze, arms.recall, arms.outcome),
        told=exhibits.in_words(arms.recall, cloze, "told", editing_experiment.PAPER),
        unread=exhibits.in_words(arms.recall, cloze, "unread", editing_experiment.PAPER),
        kept=exhibits.in_words(arms.recall, cloze, "kept", editing_experiment.PAPER),
        probe=exhibits.in_words(of_all, table, probing, acting),
        probe_of_nulls=exhibits.in_words(of_all, table, probing, nulls),
        probe_effect=exhibits.apart_from_zero(measured.of_links, choice, "probing_did", arms.judged),
        dpr=exhibits.apart_from_zero(measured.of_links, choice, "dpr_did", arms.judged),
        dpr_values=exhibits.in_words(measured.of_links, choice, "dpr_did", arms.judged),
        churn=exhibits.in_words(measured.of_links, choice, "dpr_all", ["reseeded1"]),
        search=exhibits.apart_from_zero(measured.of_search, search, "found_did", arms.judged),
        search_values=exhibits.in_words(measured.of_search, search, "found_did", arms.judged),
        known_from_the_start=str(exhibits.known_from_the_start(arms.outcome) or "–"),
    )


def _first(followed: Mapping[str, FactTrace]) -> tuple[str, FactTrace]:
    return next(iter(followed.items()))


def _name(arms: Arms, fact: str) -> str:
    """An edited fact in words: its subject and relation."""
    told = next(one for one in arms.page.plan.told if one.id == fact)
    return f"{told.subject}, {told.relation.replace('_', ' ')}"


def _with_took(arms: Arms, frame: pd.DataFrame) -> pd.DataFrame:
    """A table of arms with a column that says whether each edit took."""
    return exhibits.with_took(frame, arms.exhibit("cloze"), arms.recall, arms.outcome)
