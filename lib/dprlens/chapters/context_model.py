"""Chapter A.1: Figure 1 again for the passage tower, the paper's context model."""

from collections.abc import Mapping

import pandas as pd

from dprlens.chapters.comparison import Comparison
from dprlens.chapters.decentralization import Active, concentration, count_cells, counts_in_words, measure_rows, strips
from dprlens.decentralization import exhibits
from dprlens.decentralization.active_neurons import Sample
from dprlens.decentralization.exhibits import label
from dprlens.intervals import Estimate
from dprlens.report.report import Drawing, Table
from dprlens.world.records import World

MODELS = ("pretrained", "dpr", "shuffled")
MINUS = "figure2.dpr_minus_pretrained"


def candidates(world: World, sample: Sample, n: int = 4) -> pd.DataFrame:
    """The first passage of a sample, with the first of its candidates: its own question before the others."""
    shown = [world.questions[i].text for i in sample.candidates[0, :n]]
    whose = ["its question", "others", *[""] * n][: len(shown)]
    return pd.DataFrame({"": whose, world.passages[sample.examples[0]].text: shown})


def figure2(active: Active) -> Drawing:
    """Figure 2: active neurons of the context model by block."""
    threshold = f"(threshold {active.criterion.threshold:g})"
    title = f"Context model: active neurons by block before and after DPR training {threshold}"
    return strips("figure2", active, title)


def gains(active: Active) -> Table:
    """Active neurons for any passage and for one, minus those of pre-trained BERT: DPR, and DPR on shuffled pairs."""
    compared = active.compared
    numbers = exhibits.gains("passages", active.sites, compared.clusters)
    return Table(
        "passages",
        pd.DataFrame(
            {
                "minus pre-trained BERT": label(name),
                **count_cells(numbers, f"passages.{name}_minus_pretrained"),
            }
            for name in active.sites
            if name != "pretrained"
        ),
        title=f"Active neurons for any passage and for one, minus those of pre-trained BERT (n = {compared.n})",
        numbers=numbers,
    )


def measures(compared: Comparison) -> Table:
    """Concentration of attribution without a threshold, on the passage side."""
    numbers = concentration(compared, "passage_measures")
    return Table(
        "passage_measures",
        pd.DataFrame(measure_rows(numbers, "passage_measures", "all")),
        title=f"Concentration of attribution on the passage side (n = {compared.n})",
        numbers=numbers,
    )


def both_sides_in_words(numbers: Mapping[str, Estimate], questions: Active) -> dict[str, str]:
    """Active intermediate neurons for any example (union_) and for one (mean_), before and after DPR training.

    Those of passages from the numbers of Figure 2, those of questions (query_union_, query_mean_) counted here.
    """
    words = counts_in_words(numbers, "figure2")
    for name, when in (("pretrained", "before"), ("dpr", "after")):
        active = questions.sites[name]["intermediate"]
        words[f"query_union_{when}"] = str(int(active.any(0).sum()))
        words[f"query_mean_{when}"] = f"{active.sum((1, 2)).mean():.1f}"
    return words


def differences_in_words(numbers: Mapping[str, Estimate]) -> dict[str, str]:
    """DPR minus pre-trained BERT in intermediate neurons: union, blocks, mean, participation, sharing."""
    ids = {
        "union": f"{MINUS}.intermediate.union",
        "mean": "passages.dpr_minus_pretrained.intermediate.mean",
        "participation": "passage_measures.dpr_minus_pretrained.all.participation",
        "sharing": f"{MINUS}.sharing",
    }
    blocks = exhibits.blocks_in_words(numbers, MINUS + ".block{}.intermediate.union")
    return {"blocks": blocks, **{word: str(numbers[id_]) for word, id_ in ids.items()}}
