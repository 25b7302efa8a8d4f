"""Contrasts of the causal test: dependence of retrieval on BERT's knowledge (conclusion; claims C.1–C.3).

All functions take rows of `steps.causal_test` or `steps.baselines`: one row per question, model and seed, with what
pre-training stated about the fact that decides the question, and the rank of its gold passage. Whether a fact was
stated, and how often, was assigned at random, so a difference between groups of questions is the effect of having
stated the fact: of the statements of the fact, and of their compositions in the text (`compositions`). Questions about
one fact are not independent: intervals draw whole facts, of each seed apart.

A `measure` is a number k (top-k accuracy among all passages) or the name of a measure within the relation of the target
fact, whose chance level does not depend on the world's size: "auc", the share of the other passages of the relation
that rank behind the gold passage (ties count half; chance 1/2), or "top1", whether none of them ranks before it (a tie
of n passages counts 1/n; chance 1/number of passages).
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dprlens.intervals import Estimate, difference, gap, mean, over_runs, slope
from dprlens.world.closed import Segment
from dprlens.world.records import World

Measure = int | str
WITHIN = ("auc", "top1")  # the measures within the relation
STATES = ("known", "low dose", "held out")
ARMS = {  # {prefix of ids of numbers: label}
    "": "DPR",
    "unpretrained.": "without pre-training",
    "pretrained.": "BERT",
    "cooccurrence.": "co-occurrence",
    "cooccurrence_max.": "co-occurrence, best match",
}
CONTROLS = {
    "difference": "knowledge-required: known minus held out",
    "lexical_difference": "lexical: known minus held out",
    "unpretrained_difference": "knowledge-required, no pre-training: known minus held out",
    "held_out_minus_unpretrained": "held out: DPR minus no pre-training (same questions)",
}
WORLD = ["study", "size", "form", "seed"]  # the columns that identify the world of a row's question


@dataclass(frozen=True)
class BoundSpec:
    """Models of the causal test: of full depth in the page's world, and shallow ones in smaller worlds."""

    deep_arms: tuple[tuple[str, int], ...] = (("true", 1), ("nothing", 1))  # what is stated (`steps.TOLD`), and for
    #   how many seeds: the page's and those that follow it
    shallow_arms: tuple[tuple[str, int], ...] = (("true", 3), ("false", 1), ("nothing", 3))
    shallow_layers: int = 3
    shallow_size: float = 0.5  # of the shallow models' world, relative to the page's
    grid: tuple[tuple[float, float], ...] = ((0.25, 0.1), (0.25, 0.9))  # worlds of other size and share of description
    grid_seeds: int = 1


def select_test_questions(rows: pd.DataFrame, kind: str, **where: Hashable) -> pd.DataFrame:
    """Select test questions of a kind whose deciding fact no question of DPR training needs.

    `where` gives values of columns.
    """
    chosen = (rows["split"] == "test") & (rows["kind"] == kind) & ~rows["in_training"]
    for column, value in where.items():
        chosen &= rows[column] == value
    return rows[chosen]


def fact_clusters(rows: pd.DataFrame) -> list[tuple]:
    """List the cluster of each row: its deciding fact, in the world of its model."""
    return [*rows[[*WORLD, "fact"]].itertuples(index=False, name=None)]


def measures(k: int) -> dict[str, Measure]:
    """Name the measures as in ids of numbers: those within the relation, and top-k accuracy."""
    if k < 2:
        raise ValueError(f"top_k = {k}: top1 is a measure within the relation on this page; give 2 or more")
    return {**{name: name for name in WITHIN}, f"top{k}": k}


def measured_rows(rows: pd.DataFrame, measure: Measure, place: str = "place") -> np.ndarray:
    """Compute the measure of each row, 0–1 [row].

    `place` names the column of ranks that top-k accuracy uses. Ranks are among all passages of their world, so that
    every k is defined. Raises ValueError for a k below 1.
    """
    if isinstance(measure, int):
        if measure < 1:
            raise ValueError(f"k = {measure} counts no passage; give 1 or more")
        return (rows[place] < measure).to_numpy(dtype=float)
    if measure == "top1":
        return ((rows["within"] == 0) / (1 + rows["tied"])).to_numpy()
    if (rows["peers"] < 2).any():
        raise ValueError("a passage that is the only one of its relation has no AUC; enlarge the world")
    return (1 - (rows["within"] + rows["tied"] / 2) / (rows["peers"] - 1)).to_numpy()


def mean_measure(rows: pd.DataFrame, measure: Measure, place: str = "place") -> Estimate | None:
    """Average the measure over rows (for a k: top-k accuracy); None without rows."""
    return mean(measured_rows(rows, measure, place), fact_clusters(rows)) if len(rows) else None


def mean_by_group(rows: pd.DataFrame, measure: Measure, by: str | list[str]) -> dict:
    """Compute `mean_measure` of each group of rows."""
    return {group: mean_measure(found, measure) for group, found in rows.groupby(by)}


def known_minus_held_out(rows: pd.DataFrame, measure: Measure) -> Estimate | None:
    """Estimate the measure where the deciding fact is known minus where it is held out, unpaired."""
    return unpaired_difference(*_known_and_held_out(rows), measure)


def unpaired_difference(a: pd.DataFrame, b: pd.DataFrame, measure: Measure) -> Estimate | None:
    """Estimate the measure on rows a minus that on rows b, about different facts; None if either is empty."""
    if a.empty or b.empty:
        return None
    return gap(measured_rows(a, measure), measured_rows(b, measure), fact_clusters(a), fact_clusters(b))


def paired_difference(a: pd.DataFrame, b: pd.DataFrame, measure: Measure, place: str = "place") -> Estimate | None:
    """Estimate the measure in arm a minus that in arm b, on the same questions of the same worlds.

    None without questions.
    """
    a, b = _same_questions(a, b)
    return (
        difference(measured_rows(a, measure, place), measured_rows(b, measure, place), fact_clusters(a))
        if len(a)
        else None
    )


def difference_in_differences(a: pd.DataFrame, b: pd.DataFrame, measure: Measure) -> Estimate | None:
    """Estimate `known_minus_held_out` in arm a minus that in arm b, on the same questions.

    None if a state has no rows.
    """
    a, b = _same_questions(a, b)
    more = a.assign(more=measured_rows(a, measure) - measured_rows(b, measure))
    known, held_out = _known_and_held_out(more)
    if known.empty or held_out.empty:
        return None
    return gap(known["more"], held_out["more"], fact_clusters(known), fact_clusters(held_out))


def share_of_effect(
    a: pd.DataFrame, b: pd.DataFrame, measure: Measure, seed: int = 0, resamples: int = 2000
) -> Estimate | None:
    """Estimate `known_minus_held_out` in arm b as a share of that in arm a, on the same questions.

    n is the smaller state's. The interval is the bootstrap's, facts drawn whole and for both arms together. None where
    arm a's own effect is not above 0 (its 95 % interval), since a share of no effect is meaningless.
    """
    a, b = _same_questions(a, b)
    both = a.assign(a=measured_rows(a, measure), b=measured_rows(b, measure))
    groups = _known_and_held_out(both)
    if any(rows.empty for rows in groups):
        return None
    rng = np.random.default_rng(seed)
    known, held_out = (_resampled(rows, rng, resamples) for rows in groups)
    of_a, of_b = known - held_out  # [arm, 1 + resample]
    if np.percentile(of_a[1:], 2.5) <= 0:
        return None
    of_a, of_b = of_a[of_a > 0], of_b[of_a > 0]  # a draw without an effect, fewer than 1 in 40, has no share
    low, high = np.percentile(of_b[1:] / of_a[1:], (2.5, 97.5))
    return Estimate(float(of_b[0] / of_a[0]), float(low), float(high), min(map(len, groups)))


def _resampled(rows: pd.DataFrame, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Average the columns a and b, first over all rows, then over each draw of whole facts [arm, 1 + resample]."""
    cluster = pd.factorize(pd.Series(fact_clusters(rows)))[0]
    sums = np.stack([np.bincount(cluster, rows[arm]) for arm in ("a", "b")])  # [arm, cluster]
    counts = np.bincount(cluster)
    drawn = rng.integers(len(counts), size=(resamples, len(counts)))
    drawn = np.vstack([np.arange(len(counts)), drawn])
    return sums[:, drawn].sum(2) / counts[drawn].sum(1)


def _same_questions(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reorder arm b like arm a, and return both.

    Raises ValueError if they are not of the same questions of the same worlds.
    """
    key = [*WORLD, "question"]
    order = a[key].assign(a=range(len(a))).merge(b[key].assign(b=range(len(b))), on=key).sort_values("a")
    shared = len(order.drop_duplicates(key))
    if not len(a) == len(b) == shared == len(order):
        raise ValueError(f"{len(a)} and {len(b)} rows share {shared} questions; give two arms of the same worlds")
    return a, b.iloc[order["b"]]


def _known_and_held_out(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return rows[rows["state"] == "known"], rows[rows["state"] == "held out"]


def contrasts(arms: Mapping[str, pd.DataFrame], k: int) -> dict[str, Estimate | None]:
    """Compute all numbers of the main table, by id without its exhibit: `<group>.<arm>.<measure>`.

    The contrasts between arms are among them. `arms` holds rows of the same test questions (knowledge-required) by arm:
    dpr, unpretrained, cooccurrence and more; ids omit the arm dpr, as in known.auc, difference.auc,
    cooccurrence.difference.auc.
    """
    numbers: dict[str, Estimate | None] = {}
    for name, measure in measures(k).items():
        for arm, rows in arms.items():
            of = "" if arm == "dpr" else f"{arm}."
            for state, found in rows.groupby("state"):
                numbers[f"{str(state).replace(' ', '_')}.{of}{name}"] = mean_measure(found, measure)
            numbers[f"{of}difference.{name}"] = known_minus_held_out(rows, measure)
            if arm != "dpr":
                numbers[f"dpr_minus_{of}difference.{name}"] = difference_in_differences(arms["dpr"], rows, measure)
                numbers[f"{arm}_over_dpr.difference.{name}"] = share_of_effect(arms["dpr"], rows, measure)
    numbers["chance.top1"] = mean(1 / arms["dpr"]["peers"], fact_clusters(arms["dpr"])) if len(arms["dpr"]) else None
    return numbers


def over_networks(arms: Mapping[str, pd.DataFrame], k: int) -> dict[str, Estimate]:
    """Average `contrasts` over worlds and networks, with Student's interval; empty for fewer than two.

    Networks are the units of a claim about training: questions of one network share all its chance variation.
    """
    seeds = sorted({*arms["dpr"]["seed"]})
    each = [contrasts({arm: rows[rows["seed"] == seed] for arm, rows in arms.items()}, k) for seed in seeds]
    if len(each) < 2:
        return {}
    return {
        id_: over_runs([e.value for e in found if e is not None])
        for id_ in each[0]
        for found in ([one.get(id_) for one in each],)
        if None not in found
    }


def controls(dpr: pd.DataFrame, unpretrained: pd.DataFrame, k: int) -> dict[str, Estimate | None]:
    """Compute the effect and its controls, by id without its exhibit: `<control>.<measure>`, as in `CONTROLS`.

    `dpr` and `unpretrained` are all rows of the two arms, of the same questions.
    """
    links, untrained = (select_test_questions(rows, "knowledge_required") for rows in (dpr, unpretrained))
    held_out, unread = (rows[rows["state"] == "held out"] for rows in (links, untrained))
    numbers: dict[str, Estimate | None] = {}
    for name, measure in measures(k).items():
        numbers[f"difference.{name}"] = known_minus_held_out(links, measure)
        numbers[f"lexical_difference.{name}"] = known_minus_held_out(select_test_questions(dpr, "lexical"), measure)
        numbers[f"unpretrained_difference.{name}"] = known_minus_held_out(untrained, measure)
        numbers[f"held_out_minus_unpretrained.{name}"] = paired_difference(held_out, unread, measure)
    return numbers


def in_words(k: int) -> dict[str, str]:
    """Name the measures for a table."""
    return {
        "auc": "AUC within the relation",
        "top1": "top-1 within the relation",
        f"top{k}": f"top-{k} of all passages",
    }


def rows_by_state(found: Mapping[str, Estimate | None], k: int) -> list[dict]:
    """Lay out the main table from `contrasts`: measures by state of the link, and known minus held out."""
    rows = []
    for name, measure in in_words(k).items():
        for state in (*STATES, "known minus held out"):
            ids = f"{state.replace(' ', '_')}.{{}}{name}" if state in STATES else f"{{}}difference.{name}"
            cells = {label: found.get(ids.format(arm)) for arm, label in ARMS.items()}
            if any(cells.values()):
                rows.append({"measure": measure, "link": state, **cells})
    return rows


def rows_by_baseline(found: Mapping[str, Estimate | None], k: int) -> list[dict]:
    """Compare the effect in DPR with that in each baseline of word co-occurrence, from `contrasts`."""
    return [
        {
            "measure": measure,
            "baseline": ARMS[f"{arm}."],
            "effect in DPR": found[f"difference.{name}"],
            "effect in the baseline": found[f"{arm}.difference.{name}"],
            "DPR minus baseline": found[f"dpr_minus_{arm}.difference.{name}"],
            "share of DPR's effect": found[f"{arm}_over_dpr.difference.{name}"],
        }
        for arm in ("cooccurrence", "cooccurrence_max")
        for name, measure in in_words(k).items()
    ]


def rows_by_control(
    found: Mapping[str, Estimate | None], detectable: Mapping[str, float], k: int
) -> list[dict[str, str | float | Estimate | None]]:
    """Lay out `controls` with the smallest difference that each could have detected."""
    return [
        {
            "difference": CONTROLS[control],
            "measure": in_words(k)[name],
            "estimate": found[id_],
            "could have shown": round(least, 2),
        }
        for id_, least in detectable.items()
        for control, _, name in (id_.partition("."),)
    ]


def rows_by_size(sources: Mapping[str, Mapping[str, Estimate]], n_facts: int, k: int) -> list[dict]:
    """Tabulate known minus held out by size of the world, from numbers with ids of exhibit `world_size`.

    `sources` are numbers by the prefix of their columns; `n_facts` is the size of the page's own world. A source that
    has none of these numbers has no columns.
    """
    sizes = {25: 0.25, 50: 0.5, 100: 1.0, 200: 2.0}
    forms = {"": "all", "form10.": "10 %", "form90.": "90 %"}
    rows = []
    for percent, size in sizes.items():
        for form, described in forms.items():
            cells = {
                f"{source}{ARMS[arm]}, {in_words(k)[name]}": numbers.get(
                    f"world_size.size{percent}.{form}{arm}difference.{name}"
                )
                for source, numbers in sources.items()
                for arm in ("", "cooccurrence.")
                for name in ("auc", f"top{k}")
            }
            if any(cells.values()):
                rows.append({"facts": round(size * n_facts), "descriptions": described, **cells})
    empty = {column for column in (rows or [{}])[0] if not any(row[column] for row in rows)}
    return [{column: value for column, value in row.items() if column not in empty} for row in rows]


def by_size(arms: Mapping[str, pd.DataFrame], k: int) -> dict[str, Estimate | None]:
    """Estimate known minus held out by size of the world and share of description, by id without its exhibit.

    `arms` as in `contrasts`, dpr and cooccurrence: `size<percent>.[form<percent>.][<arm>.]difference.<measure>`.
    """
    numbers: dict[str, Estimate | None] = {}
    for arm, rows in arms.items():
        of = "" if arm == "dpr" else f"{arm}."
        for size in sorted({*rows["size"]}):
            found = rows[rows["size"] == size]
            groups = {f"size{100 * size:.0f}": found}
            for form in sorted({*found["form"]}):
                groups[f"size{100 * size:.0f}.form{100 * form:.0f}"] = found[found["form"] == form]
            for group, part in groups.items():
                for name, measure in measures(k).items():
                    numbers[f"{group}.{of}difference.{name}"] = known_minus_held_out(part, measure)
    return numbers


def dose_slope(rows: pd.DataFrame, measure: Measure) -> Estimate:
    """Estimate the gain in the measure for ten times the exposures: slope on log10(1 + exposures)."""
    return slope(np.log10(1 + rows["exposures"]), measured_rows(rows, measure), fact_clusters(rows))


def by_seed(rows: pd.DataFrame, measure: Measure) -> dict[int, Estimate | None]:
    """Compute `known_minus_held_out` of each seed."""
    return {int(seed): known_minus_held_out(rows[rows["seed"] == seed], measure) for seed in sorted({*rows["seed"]})}


def mostly_described(rows: pd.DataFrame) -> pd.Series:
    """Mark deciding facts that pre-training stated in descriptions more often than not [row]."""
    return rows["described"] > rows["exposures"] / 2


def same_relation(world: World) -> np.ndarray:
    """Mark passages that state a fact of the relation of the question: bool [question, passage].

    The relation is that of the question's target fact, for any subject; the gold passage is among them.
    """
    names = sorted({fact.relation for fact in world.facts})
    number = {name: i for i, name in enumerate(names)}
    states = np.zeros((len(names), len(world.passages)), dtype=bool)
    for place, passage in enumerate(world.passages):
        states[[number[world.fact[fact].relation] for fact in passage.facts], place] = True
    return states[[number[world.fact[question.target].relation] for question in world.questions]]


def standings(world: World, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Rank each gold passage among the passages of its relation by scores [question, passage].

    Columns [question]: within, number with a higher score; tied, number of others with the same score; peers, number of
    all, the gold passage included.
    """
    gold = np.array([world.place(question.gold) for question in world.questions])
    rows = np.arange(len(gold))
    own, others = scores[rows, gold][:, None], same_relation(world)
    peers = others.sum(1)
    others[rows, gold] = False
    return {"within": ((scores > own) & others).sum(1), "tied": ((scores == own) & others).sum(1), "peers": peers}


def compositions(segments: Iterable[Segment]) -> Counter[tuple[str, ...]]:
    """Count descriptions that state a target fact through a linking fact: {(link, target): times}.

    As in "The city where Ada Larchcroft was born, Kestrelgate, lies on the river Wend": the sentence names the subject
    of the link together with the answer to "Which river flows through the city where Ada Larchcroft was born?", whose
    facts are the same pair.
    """
    return Counter(one.facts for one in segments if one.form == "description" and len(one.facts) == 2)
