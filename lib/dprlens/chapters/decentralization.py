"""Chapter 03, section 3 of the paper: which neurons a question activates, and what they do, before and after DPR."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray

from dprlens import intervals
from dprlens.bert import cloze
from dprlens.cache.parallel import run
from dprlens.chapters.comparison import Comparison
from dprlens.decentralization import active_neurons, exhibits, steps
from dprlens.decentralization.active_neurons import ActivitySpec, Sample
from dprlens.decentralization.attribution import SITES, Attribution, AttributionSpec
from dprlens.decentralization.exhibits import ACROSS, Sites, label
from dprlens.decentralization.steps import AttributionTask
from dprlens.intervals import Estimate
from dprlens.report import figures, widgets
from dprlens.report.report import Drawing, Table
from dprlens.retrieval.exact_search import Ranking, answer_places
from dprlens.retrieval.steps import rankings
from dprlens.world.records import World

PAIR = ("pretrained", "dpr")
TRIO = (*PAIR, "shuffled")
COUNTS = {"any": "union", "one": "mean"}  # active neurons: for any example, for one
DEPTH = 100  # of the rankings
SHOWN = 5  # passages of a ranking on a card
SHORT = {"pretrained": "bert", "dpr": "dpr"}  # models in the ids of Table 2
SIGNS = {True: "✓", False: "✗"}
GAUSS = "Gauss, 4 nodes or more"
BASE, MASKED = "S2, as above", "S1, masked-LM"  # variants of the method
SCOPES = {  # rows of the table of concentration: neurons, exhibit and site in ids
    "intermediate": ("measures", "intermediate"),
    "output": ("measures", "output"),
    "all": ("measures", "all"),
    "all, trimmed": ("measures.trimmed", "all"),
}
NOT_RECORDED, NOT_DECIDED = "(not on record yet)", "(not decided here)"


# what is compared


def candidate_cards(world: World, sample: Sample, n: int = 2) -> widgets.HTML:
    """The first questions of a sample, each with the first of its candidates."""
    return widgets.HTML(
        "".join(
            widgets.rankings(world, world.questions[question], {"the first candidates": candidates[:SHOWN]})
            for question, candidates in zip(sample.examples[:n], sample.candidates[:n], strict=True)
        )
    )


# active neurons: Figure 1 and its numbers


class Criterion(NamedTuple):
    """When a neuron is active: the arguments of `Attribution.active`."""

    threshold: float
    maximum: str = "example"
    signed: bool = True
    without: Sequence[int] = ()


@dataclass(frozen=True)
class Active:
    """The active neurons of compared models."""

    compared: Comparison
    criterion: Criterion

    @cached_property
    def sites(self) -> dict[str, Sites]:
        """Whether a neuron is active, bool [example, block, neuron] by model and site."""
        return _sites(self.compared.attributions, self.criterion)

    @property
    def pair(self) -> dict[str, Sites]:
        """Those of pre-trained BERT and DPR."""
        return {name: self.sites[name] for name in PAIR}

    @cached_property
    def gains(self) -> dict[str, Estimate]:
        """`exhibits.gains` of all models, with "gains" in front."""
        return exhibits.gains("gains", self.sites, self.compared.clusters)


def strips(exhibit: str, active: Active, title: str) -> Drawing:
    """Figures 1 to 7: the share of the examples in which each neuron is active, before and after DPR training."""
    pair, clusters = active.pair, active.compared.clusters
    panels = {site: {label(name): sites[site].mean(0) for name, sites in pair.items()} for site in SITES}
    examples = "questions" if active.compared.side == "query" else "passages"
    return Drawing(
        exhibit,
        figures.strips(panels),
        title=title,
        alt=f"Strips of neurons by block, coloured by the share of {examples} in which each is active, for the "
        "intermediate and the output layer of both models.",
        numbers={
            **exhibits.counts(exhibit, pair, clusters),
            **exhibits.paired_differences(exhibit, pair, clusters),
        },
    )


def figure1(active: Active) -> Drawing:
    """Figure 1: active neurons of the question tower by block."""
    threshold = f"(threshold {active.criterion.threshold:g})"
    return strips("figure1", active, f"Active neurons by block before and after DPR training {threshold}")


def counts_in_words(numbers: Mapping[str, Estimate], figure: str) -> dict[str, str]:
    """Active intermediate neurons before and after DPR training, for any example (union_) and for one (mean_)."""
    words = {}
    for name, when in (("pretrained", "before"), ("dpr", "after")):
        words[f"union_{when}"] = f"{numbers[f'{figure}.{name}.intermediate.union'].value:.0f}"
        words[f"mean_{when}"] = f"{numbers[f'{figure}.{name}.intermediate.mean'].value:.1f}"
    return words


def gains(active: Active, numbers: Mapping[str, Estimate]) -> Table:
    """Active neurons for any question and for one, and how they are shared; `numbers` has those of Figure 1."""

    def cells(name: str) -> dict[str, str | float]:
        return {
            "for any question": numbers[f"{name}.union"].brief,
            "for one question": numbers[f"{name}.mean"].brief,
            "sharing": numbers[f"{name}.sharing"].value,
            "by chance": numbers[f"{name}.sharing_by_chance"].value,
        }

    return Table(
        "gains",
        pd.DataFrame(
            {"site": site, "model": label(name), **cells(f"figure1.{name}.{site}")} for site in SITES for name in PAIR
        ),
        title=f"Active neurons for any question and for one question (n = {active.compared.n})",
        numbers={id_: e for id_, e in active.gains.items() if id_.startswith("gains.dpr_minus")},
    )


def count_cells(numbers: Mapping[str, Estimate | int], name: str) -> dict[str, str]:
    """Active neurons for any example and for one, by site, as cells of a table: {"output, any": 12.0 [9.0, 15.0]}."""
    return {
        f"{site}, {word}": _estimate(numbers, f"{name}.{site}.{kind}").brief
        for site in SITES
        for word, kind in COUNTS.items()
    }


# Table 2 and single questions


class Search(NamedTuple):
    """What pre-trained BERT and DPR rank first for all questions of the world."""

    rankings: Mapping[str, Ranking]  # by the model's name
    right: pd.DataFrame  # bool [question], a column a model: whether the first passage has an answer


def search(compared: Comparison) -> Search:
    """Search with pre-trained BERT and DPR among all passages."""
    world, depth = compared.world, min(DEPTH, len(compared.world.passages))
    found = {name: rankings(compared.tasks[name].dual, world, depth) for name in PAIR}
    answers = [question.answers for question in world.questions]
    right = {name: answer_places(ranking, answers, world.passages) == 0 for name, ranking in found.items()}
    return Search(found, pd.DataFrame(right))


class Cases(NamedTuple):
    """Eight test questions, two for each case of right and wrong before and after DPR training, as in Table 2."""

    found: Search
    questions: list[int]  # places in the world
    strong: Mapping[str, ndarray]  # [question]: strongly activated neurons, by the model's name


def cases(active: Active, found: Search) -> Cases:
    """Draw the eight questions, and count their active neurons."""
    compared = active.compared
    tested = found.right[[question.split == "test" for question in compared.world.questions]]
    tested = tested.sample(frac=1, random_state=compared.setup.seed)
    eight = [int(i) for i in tested.groupby([*PAIR]).head(2).sort_values([*PAIR]).index]
    calls = {name: partial(steps.attribute_sample, compared.tasks[name], "query", only=eight) for name in PAIR}
    return Cases(found, eight, _strong(run(calls, compared.workers), active.criterion))


def table2(active: Active, eight: Cases) -> Table:
    """Table 2: eight questions with their strongly activated neurons; and what of it holds for the whole sample."""
    world, right = active.compared.world, eight.found.right
    return Table(
        "table2",
        pd.DataFrame(
            {
                "question": world.questions[i].text,
                "BERT": SIGNS[bool(right.loc[i, "pretrained"])],
                "DPR": SIGNS[bool(right.loc[i, "dpr"])],
                "neurons, BERT": int(eight.strong["pretrained"][place]),
                "neurons, DPR": int(eight.strong["dpr"][place]),
            }
            for place, i in enumerate(eight.questions)
        ),
        title="Eight questions: an answer in the first passage, and strongly activated neurons",
        numbers={
            **{
                f"table2.q{q}.{short}_{what}": int(value)
                for name, short in SHORT.items()
                for what, values in (("top1", right.loc[eight.questions, name]), ("strong", eight.strong[name]))
                for q, value in enumerate(values, start=1)
            },
            **topic_shares(active.compared, eight.found),
            **strong_counts(active),
        },
    )


def topic_shares(compared: Comparison, found: Search) -> dict[str, Estimate]:
    """Share of the first five passages that are on topic (`exhibits.on_topic`), by model and their difference.

    table2.bert.on_topic, table2.dpr.on_topic, table2.dpr_minus_bert.on_topic.
    """
    world = compared.world
    topics = {
        short: [
            exhibits.on_topic(world, world.questions[q], found.rankings[name].passages[q, :SHOWN].tolist())
            for q in compared.sample.examples
        ]
        for name, short in SHORT.items()
    }
    shares = {f"table2.{short}.on_topic": intervals.mean(of, compared.clusters) for short, of in topics.items()}
    gained = intervals.difference(topics["dpr"], topics["bert"], compared.clusters)
    return shares | {"table2.dpr_minus_bert.on_topic": gained}


def strong_counts(active: Active) -> dict[str, Estimate]:
    """`exhibits.strength` of the whole sample."""
    strong = {short: exhibits.both(active.sites[name]).sum((1, 2)) for name, short in SHORT.items()}
    return exhibits.strength("table2", strong, active.compared.clusters)


def table2_in_words(numbers: Mapping[str, Estimate]) -> dict[str, str]:
    """What Table 2's numbers say of the whole sample: bert, dpr (neurons), more, on_topic."""
    words = {model: f"{numbers[f'table2.{model}.strong'].value:.0f}" for model in SHORT.values()}
    words["more"] = str(numbers["table2.more_strong"])
    return words | {"on_topic": str(numbers["table2.dpr_minus_bert.on_topic"])}


def case_cards(active: Active, eight: Cases) -> widgets.HTML:
    """The eight questions with the first passages of both models."""
    world = active.compared.world
    return widgets.HTML(
        "".join(
            widgets.rankings(
                world,
                world.questions[i],
                _first(eight.found, i),
                ", ".join(f"{label(name)}: {eight.strong[name][place]} neurons" for name in PAIR),
            )
            for place, i in enumerate(eight.questions)
        )
    )


def question_pages(active: Active, found: Search, most: int = 10) -> dict[str, str]:
    """Pages of single questions by their text: the first passages and the strongest neurons of both models."""
    world, examples = active.compared.world, active.compared.sample.examples.tolist()
    ranked = [found.rankings[name].passages[:, :SHOWN] for name in PAIR]
    pages = {}
    for i in exhibits.examples_by_kind(world, examples, most, *ranked):
        question = world.questions[examples[i]]
        rows = {
            label(name): active_neurons.strongest(active.compared.attributions[name], i, active.criterion.threshold)
            for name in PAIR
        }
        cards = widgets.rankings(world, question, _first(found, examples[i]))
        pages[f"{question.text} ({question.kind.replace('_', '-')})"] = cards + widgets.strongest(rows)
    return pages


# the method, and other ways to count


class Variant(NamedTuple):
    """A choice of the method that is made otherwise; None: as in the rest of the chapter."""

    score: str = "choice"
    spec: AttributionSpec | None = None
    temperature: float | None = None


def attribute_few(compared: Comparison, variants: Mapping[str, Variant]) -> dict[str, dict[str, Attribution]]:
    """Attribute the neurons of pre-trained BERT and DPR anew on a few questions: {variant: {model: attributions}}."""
    calls = {
        (title, name): partial(steps.attribute_sample, _task(compared, name, variant), "query", variant.score)
        for title, variant in variants.items()
        for name in PAIR
    }
    found = run(calls, compared.workers)
    return {title: {name: found[title, name] for name in PAIR} for title in variants}


def attribute_masked(compared: Comparison) -> dict[str, dict[str, Attribution]]:
    """The variant S1: neurons attributed at the mask of a few known facts, with the old head on DPR's tower."""
    before = compared.tasks["pretrained"].dual.query
    encoders = {"pretrained": before, "dpr": cloze.with_head(compared.tasks["dpr"].dual.query, before)}
    spec, n, seed = compared.setup.profile.attribution, compared.few.examples, compared.setup.seed
    calls = {
        name: partial(steps.masked_answers, encoder, compared.world, spec, n, seed)
        for name, encoder in encoders.items()
    }
    return {MASKED: run(calls, compared.workers)}


def completeness(compared: Comparison, others: Mapping[str, Mapping[str, Attribution]]) -> Table:
    """Completeness gap of a question's worst site, by quadrature and model; `others` has other quadratures."""
    gaps = {
        (rule, name): attribution
        for rule, models in ({GAUSS: compared.attributions} | dict(others)).items()
        for name, attribution in models.items()
    }
    worst = {key: attribution.gap.max((1, 2)) for key, attribution in gaps.items()}
    return Table(
        "completeness",
        pd.DataFrame(
            {
                "rule": rule,
                "model": label(name),
                "median gap": f"{np.median(worst[rule, name]):.5f}",
                "greatest gap": f"{worst[rule, name].max():.4f}",
                "nodes": f"{attribution.nodes.mean():.1f}",
            }
            for (rule, name), attribution in gaps.items()
        ),
        title="Completeness gap of a question's worst site",
        numbers={
            f"completeness.{name}.{rule.split(',')[0].lower()}.{word}": float(measure(gap))
            for (rule, name), gap in worst.items()
            for word, measure in (("median", np.median), ("greatest", np.max))
        },
    )


def outliers(compared: Comparison) -> list[int]:
    """The neurons with the greatest attributions on average over the questions of both models."""
    both = np.concatenate([compared.attributions[name].scores for name in PAIR])
    return active_neurons.outliers(both, compared.setup.profile.activity.outliers)


def concentration(compared: Comparison, exhibit: str, without: Sequence[int] = ()) -> dict[str, Estimate]:
    """`exhibits.concentration` of pre-trained BERT and DPR."""
    pair = {name: compared.attributions[name] for name in PAIR}
    return exhibits.concentration(exhibit, pair, compared.clusters, without)


def measure_rows(measures: Mapping[str, Estimate], exhibit: str, site: str) -> list[dict[str, str | float]]:
    """Rows of a table of concentration: pre-trained BERT's, and DPR minus it."""
    return [
        {
            "measure": measure.replace("_", " "),
            "BERT": measures[f"{exhibit}.pretrained.{site}.{measure}"].value,
            "DPR minus BERT": measures[f"{exhibit}.dpr_minus_pretrained.{site}.{measure}"].brief,
        }
        for measure in active_neurons.MEASURES
    ]


def measures(compared: Comparison, without: Sequence[int]) -> Table:
    """Concentration of attribution without a threshold, by site; and again without some neurons."""
    trimmed = concentration(compared, "trimmed", without)
    numbers = concentration(compared, "measures") | {f"measures.{id_}": e for id_, e in trimmed.items()}
    return Table(
        "measures",
        pd.DataFrame(
            {"neurons": scope, **row}
            for scope, (exhibit, site) in SCOPES.items()
            for row in measure_rows(numbers, exhibit, site)
        ),
        title=f"Concentration of attribution (n = {compared.n})",
        numbers=numbers,
    )


def controls(active: Active) -> Table:
    """Active neurons in all models, the controls among them: for any question and for one."""
    compared, sites = active.compared, active.sites
    numbers = exhibits.totals("controls", sites, compared.clusters)
    numbers |= {id_.replace("gains.", "controls."): e for id_, e in active.gains.items()}
    numbers |= {
        f"controls.dpr_minus_{name}.{site}.union": active_neurons.union_gain(
            sites["dpr"][site], sites[name][site], compared.clusters
        )
        for name in ("shuffled", "continued")
        for site in SITES
    }
    return Table(
        "controls",
        pd.DataFrame(
            {
                "model": label(name),
                "temperature": f"{compared.tasks[name].temperature:.2f}",
                **count_cells(numbers, f"controls.{name}"),
                "sharing": _estimate(numbers, f"controls.{name}.sharing").value,
            }
            for name in sites
        ),
        title=f"Active neurons for any question and for one, in all models (n = {compared.n})",
        numbers=numbers,
    )


def variants(
    compared: Comparison,
    attributed: Mapping[str, Mapping[str, Attribution]],
    counted: Mapping[str, Criterion],
) -> Table:
    """Active neurons after DPR training minus before: few questions attributed, or counted, in other ways."""
    usual = Criterion(compared.setup.profile.activity.threshold)
    ways = {title: _sites(models, usual) for title, models in attributed.items()}
    ways |= {title: _sites(attributed[BASE], criterion) for title, criterion in counted.items()}
    numbers: dict[str, Estimate | int] = {}
    rows = []
    for title, sites in ways.items():
        name = "variants." + re.sub(r"\W+", "_", title).lower()
        few = len(sites["dpr"]["output"])
        numbers |= exhibits.gains(name, sites, range(few) if title == MASKED else compared.clusters[:few])
        numbers |= {
            f"{name}.{model}.{site}.union": int(array.any(0).sum())
            for model, of in sites.items()
            for site, array in of.items()
        }
        rows.append({"way": title, **count_cells(numbers, f"{name}.dpr_minus_pretrained")})
    return Table(
        "variants",
        pd.DataFrame(rows)[["way", *(f"{site}, {word}" for word in COUNTS for site in SITES)]],
        title="Active neurons after DPR training minus before, in other ways of counting "
        f"(n = {compared.few.examples})",
        numbers=numbers,
    )


# neurons silenced and exchanged


# other worlds


def ratios(worlds: Sequence[Mapping[str, Attribution]], activity: ActivitySpec, kept: Mapping[str, Estimate]) -> Table:
    """Ratios of models over worlds (`exhibits.across`), else those on record."""
    numbers = exhibits.across("ratios", worlds, activity.threshold)
    numbers |= exhibits.across_thresholds("ratios", worlds, activity.thresholds)
    parts = {id_: id_.split(".", 2) for id_ in numbers or kept if id_.startswith("ratios.")}
    rows = [
        (*map(label, models.split("_over_")), what.replace(".", ", "), (numbers or kept)[id_])
        for id_, (_, models, what) in parts.items()
        if what in ACROSS
    ]
    return Table(
        "ratios",
        pd.DataFrame(rows, columns=["model", "over", "in", "ratio"]),
        title="Ratios of models over worlds" + ("" if numbers else " (on record, profile full)"),
        numbers=numbers,
    )


def recorded_in_words(kept: Mapping[str, Estimate], what: str) -> str:
    """DPR over pre-trained BERT over the worlds on record: one of `exhibits.ACROSS`."""
    return str(kept.get(f"ratios.dpr_over_pretrained.{what}", NOT_RECORDED))


def _sites(models: Mapping[str, Attribution], criterion: Criterion) -> dict[str, Sites]:
    return {name: one.by_site(one.active(*criterion)) for name, one in models.items()}


def _strong(models: Mapping[str, Attribution], criterion: Criterion) -> dict[str, ndarray]:
    return {name: one.active(*criterion).sum((1, 2)) for name, one in models.items()}


def _first(found: Search, question: int) -> dict[str, ndarray]:
    return {label(name): ranking.passages[question, :SHOWN] for name, ranking in found.rankings.items()}


def _task(compared: Comparison, name: str, variant: Variant) -> AttributionTask:
    task = compared.tasks[name]
    return replace(
        task,
        sampling=replace(task.sampling, sampled=compared.few),
        spec=variant.spec or task.spec,
        temperature=variant.temperature or task.temperature,
    )


def _estimate(numbers: Mapping[str, Estimate | int], id_: str) -> Estimate:
    number = numbers[id_]
    return number if isinstance(number, Estimate) else intervals.exact(number)
