"""Chapter A.2: Figure 1 again at other thresholds, from the same attributions."""

from collections.abc import Collection, Mapping

import pandas as pd

from dprlens.chapters.comparison import Comparison
from dprlens.chapters.decentralization import PAIR, Active, Criterion, count_cells, strips
from dprlens.decentralization import active_neurons, exhibits
from dprlens.decentralization.attribution import SITES
from dprlens.decentralization.exhibits import at_threshold, both, label
from dprlens.intervals import Estimate
from dprlens.report import figures, widgets
from dprlens.report.report import Drawing, Table

FIGURES = tuple(f"figure{number}" for number in range(3, 8))
MINUS = "thresholds.dpr_minus_pretrained"
ByThreshold = Mapping[float, Active]


def activate(compared: Comparison, thresholds: Collection[float]) -> dict[float, Active]:
    """The active neurons at each threshold, the profile's own among them, from the least on."""
    own = compared.setup.profile.activity.threshold
    return {threshold: Active(compared, Criterion(threshold)) for threshold in sorted({*thresholds, own})}


def strip_pages(active: ByThreshold) -> dict[tuple[str, str, str], str]:
    """Strips of one model and site at one threshold, as pages of an explorer: {(threshold, site, model): HTML}.

    Both models of a threshold and site are cut at the same length.
    """
    pages = {}
    for threshold, at in active.items():
        for site in SITES:
            shares = {label(name): sites[site].mean(0) for name, sites in at.pair.items()}
            cut = figures.longest(shares.values())
            for name, share in shares.items():
                words = exhibits.strip_in_words(share, f"{name}, {site}, threshold {threshold:g}")
                picture = figures.strips({site: {name: share}}, cut)
                pages[f"{threshold:g}", site, name] = widgets.drawn(picture, words)
    return pages


def first_page(threshold: float) -> tuple[str, str, str]:
    """The page at which the explorer starts: pre-trained BERT's intermediate neurons at this threshold."""
    return f"{threshold:g}", SITES[0], label(PAIR[0])


def figures3_to_7(active: ByThreshold, thresholds: Collection[float]) -> list[Drawing]:
    """Figures 3 to 7: active neurons by block, a figure a threshold, from the least on."""
    return [
        strips(exhibit, active[threshold], f"Active neurons by block at threshold {threshold:g}")
        for exhibit, threshold in zip(FIGURES, sorted(thresholds), strict=True)
    ]


def gains(active: Active) -> dict[str, Estimate]:
    """DPR minus pre-trained BERT at one threshold: `exhibits.gains`, and sharing over all neurons."""
    clusters = active.compared.clusters
    before, after = (both(active.sites[name]) for name in PAIR)
    found = exhibits.gains("thresholds", active.pair, clusters)
    return found | {f"{MINUS}.all.sharing": active_neurons.sharing_gain(after, before, clusters)}


def table(gained: Mapping[float, Mapping[str, Estimate]], n: int) -> Table:
    """Active neurons for any question and for one, and how they are shared, by threshold: DPR minus pre-trained BERT.

    `gained` are `gains` by threshold, over n questions.
    """
    return Table(
        "thresholds",
        pd.DataFrame(
            {
                "threshold": f"{threshold:g}",
                **count_cells(of, MINUS),
                "sharing": of[f"{MINUS}.all.sharing"].brief,
            }
            for threshold, of in gained.items()
        ),
        title=f"Active neurons after DPR training minus before, by threshold (n = {n})",
        numbers={
            id_.replace("thresholds", f"thresholds.{at_threshold(threshold)}"): e
            for threshold, of in gained.items()
            for id_, e in of.items()
        },
    )


def count_clear(gained: Mapping[float, Mapping[str, Estimate]]) -> dict[str, int]:
    """Thresholds at which an interval of the difference leaves out 0: union and mean above it, sharing below it.

    union, mean, sharing; total: all thresholds.
    """
    of_all = gained.values()
    return {
        "union": sum(of[f"{MINUS}.intermediate.union"].low > 0 for of in of_all),
        "mean": sum(of[f"{MINUS}.intermediate.mean"].low > 0 for of in of_all),
        "sharing": sum(of[f"{MINUS}.all.sharing"].high < 0 for of in of_all),
        "total": len(gained),
    }
