"""Chapter B.1, the knowledge bound: does retrieval depend on what pre-training stated?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dprlens import intervals
from dprlens.bert import cloze
from dprlens.bert.cloze import cloze_recall
from dprlens.chapters import causal_test
from dprlens.intervals import Estimate
from dprlens.knowledge_bound import exhibits
from dprlens.report import figures, widgets
from dprlens.report.report import Drawing, Table, beside_record, read_record
from dprlens.retrieval.steps import rankings
from dprlens.setup import Setup
from dprlens.world.closed import segments
from dprlens.world.records import World

Numbers = dict[str, Estimate | None]
NOTEBOOK = "B_1_knowledge_bound"
KINDS = ("lexical", "knowledge_required")
RANKED = 5  # passages on a card
ASKED = {True: "asked", False: "not asked"}  # is a fact asked for in DPR training?
TOLD = {"true": "the truth", "false": "false links"}
FULL_DOSE = 120  # exposures of a known link on record
SIZES = {25: 0.25, 50: 0.5, 100: 1.0, 200: 2.0}  # of worlds on record, in percent as in ids of numbers, and as a share
FORMS = (10, 90)  # % of statements that are descriptions, on record
COMPARED = {  # a number here and on record: its words, and its id
    "AUC, link known": "bound.known.auc",
    "AUC, link held out": "bound.held_out.auc",
    "AUC, known minus held out": "bound.difference.auc",
    "the same, co-occurrence": "bound.cooccurrence.difference.auc",
    "its share of DPR's effect": "bound.cooccurrence_over_dpr.difference.auc",
    "its share, best match": "bound.cooccurrence_max_over_dpr.difference.auc",
    "link known": "bound.known.top{k}",
    "link held out": "bound.held_out.top{k}",
    "known minus held out": "bound.difference.top{k}",
    "the same, lexical": "bound.lexical_difference.top{k}",
    "the same, no pre-training": "bound.unpretrained_difference.top{k}",
    "held out, minus no pre-training": "bound.held_out_minus_unpretrained.top{k}",
    "gain for ten times the exposures": "bound.dose.slope",
    "false links: true passage": "counterfactual.effect.true_passage.top{k}",
    "false links: false passage": "counterfactual.effect.false_passage.top{k}",
    "the same at full depth: true passage": "counterfactual.full_depth.true_passage.top{k}",
    "the same at full depth: false passage": "counterfactual.full_depth.false_passage.top{k}",
    "held out: in DPR training minus not": "taught.full_depth.difference.top{k}",
    "known: described minus plain": "surface.form.top{k}",
    "retrieved if recalled": "surface.given_recall.top{k}",
    "texts of many descriptions minus few": "world_size.form_effect.top{k}",
}


class CausalTest(NamedTuple):
    """The models of the causal test and its baselines without a trained retriever, a row a question and model."""

    setup: Setup
    top_k: int
    models: pd.DataFrame  # `steps.causal_test`
    baselines: pd.DataFrame  # `steps.baselines`

    @property
    def world(self) -> World:
        """The world of the page's seed."""
        return self.setup.world

    @property
    def links(self) -> pd.DataFrame:
        """Test questions through links, in models of full depth that read the truth."""
        return self.tested("deep", "true", "knowledge_required")

    def tested(self, study: str, told: str, kind: str) -> pd.DataFrame:
        """Test questions of a kind (`select_test_questions`) in the models of a study told this, or in a baseline."""
        rows = self.baselines if told in {*self.baselines["told"]} else self.models
        return exhibits.select_test_questions(rows[(rows["study"] == study) & (rows["told"] == told)], kind)

    def arms(self, study: str = "deep") -> dict[str, pd.DataFrame]:
        """Test questions through links by arm: dpr, unpretrained, and the study's baselines."""
        arms = {"dpr": "true", "unpretrained": "nothing"}
        arms |= {told: told for told in sorted({*self.baselines["told"][self.baselines["study"] == study]})}
        return {arm: self.tested(study, told, "knowledge_required") for arm, told in arms.items()}


def run_test(setup: Setup, top_k: int) -> CausalTest:
    """Train and search with all models of the causal test, and search with the baselines."""
    exhibits.measures(top_k)  # refuses a k that no measure has, before anything is trained
    return CausalTest(setup, top_k, causal_test.causal_test(setup), causal_test.baselines(setup))


class Contrasts(NamedTuple):
    """Known minus held-out links at full depth, in DPR and beside it, by id without its exhibit."""

    test: CausalTest
    by_state: Numbers  # `exhibits.contrasts`
    controls: Numbers  # `exhibits.controls`


def contrast(test: CausalTest) -> Contrasts:
    """Compare known with held-out links in DPR, its controls and the baselines."""
    deep = test.models[test.models["study"] == "deep"]
    true, nothing = (deep[deep["told"] == told] for told in ("true", "nothing"))
    return Contrasts(test, exhibits.contrasts(test.arms(), test.top_k), exhibits.controls(true, nothing, test.top_k))


def over_networks(test: CausalTest) -> dict[str, Estimate]:
    """The contrasts as means over worlds and networks, by id; none for a single network."""
    return {f"networks.{id_}": e for id_, e in exhibits.over_networks(test.arms(), test.top_k).items()}


def question_cards(test: CausalTest) -> widgets.HTML:
    """A question whose link is known and one whose link is held out, with the first passages of BERT and of DPR."""
    setup, world = test.setup, test.world
    found = {"before DPR training": rankings(setup.start, world), "after": rankings(setup.dpr, world)}
    here = test.links[(test.links["seed"] == setup.seed) & (test.links["state"] != "low dose")]
    number, cards = _numbered(world), []
    for row in here.groupby("state").sample(1, random_state=setup.seed).to_dict("records"):
        i, link = number[row["question"]], world.fact[row["fact"]]
        note = f"link: {link.subject} – {link.relation} – {link.object}, {row['state']}".replace("_", " ")
        first = {name: ranking.passages[i, :RANKED] for name, ranking in found.items()}
        cards.append(widgets.rankings(world, world.questions[i], first, note))
    return widgets.HTML("".join(cards))


class Example(NamedTuple):
    """A question, and a sentence of the pre-training text that has both its words and its answer."""

    question: str
    sentence: str


def composed_example(test: CausalTest) -> Example:
    """The first question through a known link, with a composed sentence."""
    asked = test.tested("deep", "cooccurrence", "knowledge_required")
    row = asked[(asked["seed"] == test.setup.seed) & (asked["composed"] > 0)].iloc[0]
    question = test.world.questions[_numbered(test.world)[row["question"]]]
    read = segments(test.world, test.setup.profile.text, test.setup.seed)
    sentence = next(one.text for one in read if one.form == "description" and one.facts == question.facts)
    return Example(question.text, sentence)


def composed_shares(test: CausalTest) -> dict[str, Estimate]:
    """The share of questions through links that have a composed sentence, by the state of the link."""
    asked = test.tested("deep", "cooccurrence", "knowledge_required")
    return {
        _key(state): intervals.mean(rows["composed"] > 0, exhibits.fact_clusters(rows))
        for state, rows in asked.groupby("state")
    }


def state_table(found: Contrasts) -> Table:
    """The gold passage's rank by the state of the link: AUC and top-1 within the relation, top-k accuracy."""
    test, k = found.test, found.test.top_k
    numbers = {f"bound.{id_}": e for id_, e in (found.by_state | found.controls | _accuracies(test)).items()}
    numbers["bound.dose.slope"] = exhibits.dose_slope(test.links, k)
    numbers |= {f"bound.composed.{state}": e for state, e in composed_shares(test).items()}
    return Table(
        "bound",
        pd.DataFrame(exhibits.rows_by_state(found.by_state, k)),
        "Knowledge-required questions: rank of the gold passage, by what pre-training stated of the link",
        numbers,
    )


def _accuracies(test: CausalTest) -> Numbers:
    """Top-k accuracy of both arms by kind of question and state, and all measures of lexical questions, by id."""
    k, numbers = test.top_k, Numbers()
    for kind in KINDS:
        known = {*test.tested("deep", "true", kind)["state"]}
        for arm, told in (("dpr", "true"), ("without_pre_training", "nothing")):
            rows = test.tested("deep", told, kind)
            for state in known:
                numbers[f"{kind}.{_key(state)}.{arm}.top{k}"] = exhibits.mean_measure(rows[rows["state"] == state], k)
    for arm, told in (("", "true"), ("cooccurrence_max.", "cooccurrence_max")):
        for state, rows in test.tested("deep", told, "lexical").groupby("state"):
            for name, measure in exhibits.measures(k).items():
                numbers[f"lexical.{_key(state)}.{arm}{name}"] = exhibits.mean_measure(rows, measure)
    counted = test.tested("deep", "cooccurrence_max", "lexical")
    numbers[f"cooccurrence_max.lexical_difference.top{k}"] = exhibits.known_minus_held_out(counted, k)
    return numbers


def baseline_table(found: Contrasts) -> Table:
    """Known minus held out in DPR and in word co-occurrence, on the same questions, and the baseline's share."""
    return Table(
        "baseline",
        pd.DataFrame(exhibits.rows_by_baseline(found.by_state, found.test.top_k)),
        "The effect (known minus held out) in DPR and in word co-occurrence, on the same questions",
    )


def power_table(found: Contrasts) -> Table:
    """The effect and its controls, each with the smallest true difference that this sample could have shown."""
    power = {id_: intervals.detectable(e) for id_, e in found.controls.items() if e}
    return Table(
        "power",
        pd.DataFrame(exhibits.rows_by_control(found.controls, power, found.test.top_k)),
        "The differences, and the power of this sample",
        {f"power.{id_}": least for id_, least in power.items()},
    )


def lexical_accuracy(test: CausalTest, told: str) -> Estimate | None:
    """Top-k accuracy on lexical questions at full depth, of DPR from a model that was told this."""
    return exhibits.mean_measure(test.tested("deep", told, "lexical"), test.top_k)


def dose_response(test: CausalTest) -> Drawing:
    """Recall of the link, and top-k accuracy of DPR with and without pre-training, against exposures."""
    links, untrained = test.links, test.tested("deep", "nothing", "knowledge_required")
    k = test.top_k
    curves = {
        "recalled": {dose: _recalled(rows) for dose, rows in links.groupby("exposures")},
        f"dpr.top{k}": exhibits.mean_by_group(links, k, "exposures"),
        f"unpretrained.top{k}": exhibits.mean_by_group(untrained, k, "exposures"),
    }
    names = ("link recalled", f"DPR, first {k}", f"without pre-training, first {k}")
    return Drawing(
        "doses",
        figures.dose_response(
            dict(zip(names, curves.values(), strict=True)), "times the link was read", "share of questions"
        ),
        title="Recall of the link and retrieval through it, by exposures",
        alt="Three curves against exposures: recall of the link, retrieval by DPR, retrieval without pre-training.",
        numbers={f"doses.exposures_{dose}.{name}": e for name, curve in curves.items() for dose, e in curve.items()},
    )


def seeds_table(test: CausalTest) -> Table:
    """Known minus held out in shallow networks, top-k accuracy: a row a world, and the mean over worlds."""
    k, arms = test.top_k, {"dpr": ("DPR", "true"), "unpretrained": ("without pre-training", "nothing")}
    by_seed, mean = {}, {}
    for arm, (_, told) in arms.items():
        by_seed[arm] = exhibits.by_seed(test.tested("shallow", told, "knowledge_required"), k)
        mean[arm] = intervals.over_runs([e.value for e in by_seed[arm].values() if e])
    columns = {name: [*(by_seed[arm][seed] for seed in by_seed["dpr"]), mean[arm]] for arm, (name, _) in arms.items()}
    worlds = [*(f"seed {seed}" for seed in by_seed["dpr"]), "mean over seeds"]
    numbers = {
        f"seeds.{arm}.seed{seed}.difference.top{k}": e for arm, found in by_seed.items() for seed, e in found.items()
    }
    return Table(
        "seeds",
        pd.DataFrame({"world": worlds, **columns}),
        f"Known minus held out among the first {k}, by seed",
        numbers | {f"seeds.{arm}.mean.difference.top{k}": e for arm, e in mean.items()},
    )


class Traded(NamedTuple):
    """Questions whose link has a false object in one arm: the same questions in a model that read the truth."""

    true: pd.DataFrame
    false: pd.DataFrame

    def effect(self, k: int, place: str) -> Estimate | None:
        """What false links add to top-k accuracy, of the gold passage (place) or of the false one (false_place)."""
        return exhibits.paired_difference(self.false, self.true, k, place)


def traded_links(test: CausalTest, study: str) -> Traded:
    """The questions through links of which a model of the study read a false object."""
    rows = {told: test.tested(study, told, "knowledge_required") for told in TOLD}
    rows = {told: found[found["false_place"] >= 0] for told, found in rows.items()}
    return Traded(rows["true"][rows["true"]["seed"].isin({*rows["false"]["seed"]})], rows["false"])


def counterfactual_table(test: CausalTest) -> Table:
    """Top-k accuracy for the true passage and the false one, where the link was told truly and where falsely."""
    k, both, deep = test.top_k, traded_links(test, "shallow"), traded_links(test, "deep")
    places = {"true_passage": "place", "false_passage": "false_place"}
    columns = {"true_passage": "finds the true passage", "false_passage": "finds the false one"}
    arms = {
        told: {passage: exhibits.mean_measure(rows, k, place) for passage, place in places.items()}
        for told, rows in both._asdict().items()
    }
    effect = {passage: both.effect(k, place) for passage, place in places.items()}
    at_full_depth = {passage: deep.effect(k, place) for passage, place in places.items()}
    groups = {f"told_{told}": cells for told, cells in arms.items()} | {"effect": effect, "full_depth": at_full_depth}
    names = {f"told_{told}": words for told, words in TOLD.items()} | {"effect": "effect (same questions)"}
    return Table(
        "counterfactual",
        pd.DataFrame(
            {"the model was told": words, **{columns[passage]: e for passage, e in groups[group].items()}}
            for group, words in names.items()
        ),
        f"Among the first {k}, when the link was told falsely",
        {f"counterfactual.{group}.{passage}.top{k}": e for group, of in groups.items() for passage, e in of.items()},
    )


def taught_table(test: CausalTest) -> Table:
    """Top-k accuracy on test questions through a link, by whether DPR training asks other questions through it."""
    k, true = test.top_k, test.models[test.models["told"] == "true"]
    asked = (true["split"] == "test") & (true["kind"] == "knowledge_required") & (true["state"] != "low dose")
    studies = {
        name: true[asked & (true["study"] == study)] for name, study in (("full depth", "deep"), ("shallow",) * 2)
    }
    shares = {study: exhibits.mean_by_group(rows, k, ["state", "in_training"]) for study, rows in studies.items()}
    gain = {}
    for study, rows in studies.items():
        held_out = rows[rows["state"] == "held out"]
        gain[study] = exhibits.unpaired_difference(
            held_out[held_out["in_training"]], held_out[~held_out["in_training"]], k
        )
    lines = [
        {
            "link": f"{state}, {words} in DPR training",
            **{study: found.get((state, training)) for study, found in shares.items()},
        }
        for state in ("known", "held out")
        for training, words in ASKED.items()
    ]
    numbers = {
        f"taught.{_key(study)}.{_key(state)}.{_key(ASKED[training])}.top{k}": e
        for study, found in shares.items()
        for (state, training), e in found.items()
    }
    return Table(
        "taught",
        pd.DataFrame([*lines, {"link": "held out: asked minus not asked", **gain}]),
        f"Other questions through the same link, among the first {k}",
        numbers | {f"taught.{_key(study)}.difference.top{k}": e for study, e in gain.items()},
    )


def old_head_table(setup: Setup) -> Table:
    """Cloze recall in reserved wordings before DPR training and by both towers with the old masked-LM head."""
    models = {
        "before": setup.base,
        "question tower": cloze.with_head(setup.dpr.query, setup.base),
        "passage tower": cloze.with_head(setup.dpr.passage, setup.base),
    }
    trained_on = {fact for question in setup.world.questions if question.split == "train" for fact in question.facts}
    recall = {}
    for name, model in models.items():
        said = cloze_recall(model, setup.world).query("wording == 'reserved'")
        said = said.assign(asked=said["fact"].isin(trained_on))
        recall[name] = cloze.recall_by(said, ["state", "asked"])
    groups = [group for group in recall["before"] if group[0] != "low dose"]
    return Table(
        "old_head",
        pd.DataFrame(
            {
                "facts": f"{state}, {ASKED[training]} in DPR training",
                **{name: found[state, training] for name, found in recall.items()},
            }
            for state, training in groups
        ),
        "Recall in unread wording, by the old masked-LM head",
        {
            f"old_head.{_key(name)}.{_key(state)}.{_key(ASKED[training])}": found[state, training]
            for name, found in recall.items()
            for state, training in groups
        },
    )


def surface(test: CausalTest) -> Drawing:
    """Recall of the link and top-k accuracy through it, by exposures and by the form in which it was mostly read."""
    links, k = test.links, test.top_k
    read = links[links["exposures"] > 0]
    form = np.where(exhibits.mostly_described(read), "described", "plain")
    cells = _grouped(read.assign(form=form), ["form", "exposures"])
    recall = {cell: _recalled(rows) for cell, rows in cells.items()}
    retrieval = {cell: _accuracy(rows, k) for cell, rows in cells.items()}
    known = links[links["state"] == "known"]
    described = exhibits.mostly_described(known)
    numbers = {
        f"surface.{measure}.{form}.exposures_{dose}": e
        for measure, found in (("recall", recall), (f"top{k}", retrieval))
        for (form, dose), e in found.items()
    }
    return Drawing(
        "surface",
        figures.surface(
            {"the link is recalled": recall, f"the passage is among the first {k}": retrieval},
            "mostly",
            "times the link was read",
        ),
        title="Recall and retrieval by exposures and by the form in which the link was read",
        alt="Two shaded tables, recall above and retrieval below; rows are forms, columns are exposures.",
        numbers=numbers
        | {
            f"surface.form.top{k}": exhibits.unpaired_difference(known[described], known[~described], k),
            f"surface.given_recall.top{k}": exhibits.mean_measure(known[known["recalled"] == 1], k),
        },
    )


def world_size(test: CausalTest) -> Drawing:
    """Top-k accuracy through known and held-out links, by size of the world and share of descriptions in the text."""
    k, grid = test.top_k, test.tested("grid", "true", "knowledge_required")
    counted = test.tested("grid", "cooccurrence", "knowledge_required")
    known = grid[grid["state"] == "known"]
    lines = {
        f"{form:.0%} described, {state}": {
            round(size * len(test.world.facts)): _accuracy(found, k) for size, found in _grouped(rows, "size").items()
        }
        for (form, state), rows in _grouped(grid, ["form", "state"]).items()
        if state != "low dose"
    }
    numbers = {
        f"world_size.size{100 * size:.0f}.form{100 * form:.0f}.{_key(state)}.top{k}": exhibits.mean_measure(rows, k)
        for (size, form, state), rows in _grouped(grid, ["size", "form", "state"]).items()
    }
    numbers |= {
        f"world_size.size{100 * size:.0f}.form{100 * form:.0f}.known.recalled": _recalled(rows)
        for (size, form), rows in _grouped(known, ["size", "form"]).items()
    }
    by_size = exhibits.by_size({"dpr": grid, "cooccurrence": counted}, k)
    numbers |= {f"world_size.{id_}": e for id_, e in by_size.items()}
    if len({*known["form"]}) > 1:
        most, least = (known[known["form"] == form] for form in (known["form"].max(), known["form"].min()))
        numbers[f"world_size.form_effect.top{k}"] = exhibits.unpaired_difference(most, least, k)
    return Drawing(
        "world_size",
        figures.dose_response(lines, "facts in the world", f"found among the first {k}"),
        title="Retrieval through known and held-out links, by world size and form of the text",
        alt="Lines against world size: known links in texts with few and many descriptions, and held-out links.",
        numbers=numbers,
    )


def size_table(test: CausalTest, here: Mapping[str, Estimate]) -> Table:
    """Known minus held out by size of the world, of `here` (numbers by id) and on record: AUC and top-k accuracy."""
    sources = {"": here, "on record: ": read_record(NOTEBOOK, "full")}
    return Table(
        "size_effect",
        pd.DataFrame(exhibits.rows_by_size(sources, len(test.world.facts), test.top_k)),
        "Known minus held out by size of the world (shallow networks)",
    )


def record_table(top_k: int, here: Mapping[str, Estimate]) -> Table:
    """The page's main numbers, of `here` by id, beside those on record for the profile full."""
    ids = {words: id_.format(k=top_k) for words, id_ in COMPARED.items()}
    return beside_record("record", NOTEBOOK, here, ids)


def record_by_size(world: World) -> Drawing:
    """On record: recall of known links and top-20 accuracy through them, by size of the world and form of the text."""
    kept = read_record(NOTEBOOK, "full")
    measures = {
        "known, recalled": "known.recalled",
        "known, found": "known.top20",
        "held out, found": "held_out.top20",
    }
    lines = {
        f"{form}%: {words}": {
            round(size * len(world.facts)): kept[id_]
            for percent, size in SIZES.items()
            if (id_ := f"world_size.size{percent}.form{form}.{measure}") in kept
        }
        for words, measure in measures.items()
        for form in FORMS
    }
    return Drawing(
        "record_size",
        figures.dose_response(lines, "facts in the world", "share of questions"),
        title="On record: recall of known links, and retrieval among the first 20, by world size and share of "
        "description in the text",
        alt="Lines against world size: recall of known links stays high, retrieval through them falls steeply in the "
        "largest world, held-out links are found least.",
        points=figures.points(lines),
    )


def effect_in_words(found: Contrasts) -> dict[str, str]:
    """AUC by state of the link, and the baselines' shares of the effect in DPR, as parts of a sentence."""
    ids = {
        "known": "known.auc",
        "held_out": "held_out.auc",
        "share": "cooccurrence_over_dpr.difference.auc",
        "share_by_best_match": "cooccurrence_max_over_dpr.difference.auc",
    }
    estimates = {name: found.by_state.get(id_) for name, id_ in ids.items()}
    return {name: e.brief if e else "(no effect here)" for name, e in estimates.items()}


def composed_in_words(test: CausalTest) -> dict[str, str]:
    """The share of questions that have a composed sentence, as parts of a sentence: known, low_dose, held_out."""
    shares = composed_shares(test)
    return {_key(state): str(shares.get(_key(state), "–")) for state in exhibits.STATES}


def record_in_words() -> dict[str, str]:
    """On record: recall and top-20 accuracy by form of the link, and accuracy by whether DPR training taught it."""
    ids = {
        "recall_described": f"surface.recall.described.exposures_{FULL_DOSE}",
        "recall_plain": f"surface.recall.plain.exposures_{FULL_DOSE}",
        "found_described": f"surface.top20.described.exposures_{FULL_DOSE}",
        "found_plain": f"surface.top20.plain.exposures_{FULL_DOSE}",
        "taught": "taught.full_depth.held_out.asked.top20",
        "not_taught": "taught.full_depth.held_out.not_asked.top20",
    }
    kept = read_record(NOTEBOOK, "full")
    return {name: str(kept.get(id_, "(not on record yet)")) for name, id_ in ids.items()}


def dev_epochs(setup: Setup) -> dict[str, int]:
    """The epoch of DPR training with the lowest loss on dev questions, and the last, which is kept."""
    losses = setup.trained.history.set_index("epoch")["dev_nll"]
    return {"best": losses.idxmin(), "last": losses.index.max()}


def _grouped(rows: pd.DataFrame, by: str | list[str]) -> dict[Any, pd.DataFrame]:
    """The rows by the value of a column, or by the values of several."""
    return dict(list(rows.groupby(by)))


def _accuracy(rows: pd.DataFrame, k: int) -> Estimate:
    """`exhibits.mean_measure`, of some rows."""
    return intervals.mean(exhibits.measured_rows(rows, k), exhibits.fact_clusters(rows))


def _recalled(rows: pd.DataFrame) -> Estimate:
    """The share of unread wordings of the link that the model completes; facts are clusters."""
    return intervals.mean(rows["recalled"], exhibits.fact_clusters(rows))


def _numbered(world: World) -> dict[str, int]:
    return {question.id: i for i, question in enumerate(world.questions)}


def _key(words: object) -> str:
    """Words as a part of an id."""
    return str(words).replace(" ", "_")
