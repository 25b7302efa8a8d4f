"""Numbers of Figures 1–7 and Table 2 from attributions, by id: counts and their differences.

Questions about one passage are not independent: intervals draw, or leave out, whole gold passages, as in the chapter
on probes (choice PR-3).
"""

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from numpy import ndarray

from dprlens.decentralization.active_neurons import (
    MEASURES,
    SHARES,
    activity,
    at_least,
    sharing_gain,
    union_gain,
    union_ratio,
)
from dprlens.decentralization.attribution import SITES, Attribution
from dprlens.decentralization.interventions import KINDS
from dprlens.intervals import Estimate, difference, mean, over_runs
from dprlens.world.records import Question, World

LABELS = {  # of models
    "pretrained": "pre-trained BERT",
    "dpr": "DPR",
    "shuffled": "DPR on shuffled pairs",
    "continued": "more masked-LM",
    "random": "random weights",
}
ACTIONS = {"silenced": 0, "doubled": 1}  # of neurons, in the order of `steps.intervene`
ACROSS = ("intermediate.union", "output.union", "intermediate.active", "output.active", "sharing", "participation")

Sites = Mapping[str, ndarray]  # bool [example, block, neuron] by site


def label(model: str) -> str:
    """Name a model for the page; dpr1 is DPR's second seed, and so on."""
    number = model.removeprefix("dpr")
    return f"DPR, seed {int(number) + 1}" if number.isdigit() else LABELS[model]


def both(sites: Sites) -> ndarray:
    """Concatenate the sites: all neurons of a block side by side."""
    return np.concatenate([sites[site] for site in SITES], axis=2)


def counts(figure: str, models: Mapping[str, Sites], clusters: Sequence[Hashable]) -> dict[str, Estimate | int]:
    """Estimate the numbers of a figure, by id: figure1.dpr.block3.output.union, figure1.dpr.output.mean.

    union: neurons active in one example or more. mean: active neurons of an example. sharing: share of the other
    examples in which an example's active neurons are active; by_chance: the sharing expected from the numbers by block
    alone.
    """
    found = totals(figure, models, clusters)
    for model, sites in models.items():
        for site, active in sites.items():
            for block in range(active.shape[1]):
                one, name = activity(active[:, block : block + 1], clusters), f"{figure}.{model}.block{block}.{site}"
                found |= {f"{name}.union": one.union, f"{name}.mean": one.active}
    return found


def totals(figure: str, models: Mapping[str, Sites], clusters: Sequence[Hashable]) -> dict[str, Estimate | int]:
    """Estimate the numbers of `counts` for all blocks together."""
    found: dict[str, Estimate | int] = {}
    for model, sites in models.items():
        name = f"{figure}.{model}"
        for site, active in sites.items():
            every = activity(active, clusters)
            found |= {f"{name}.{site}.union": every.union, f"{name}.{site}.mean": every.active}
            found |= {f"{name}.{site}.in_{share:.0%}".replace("%", ""): at_least(active, share) for share in SHARES}
            found |= {f"{name}.{site}.sharing": every.sharing, f"{name}.{site}.sharing_by_chance": every.chance}
        every = activity(both(sites), clusters)
        found |= {f"{name}.sharing": every.sharing, f"{name}.union": every.union, f"{name}.mean": every.active}
    return found


def gains(figure: str, models: Mapping[str, Sites], clusters: Sequence[Hashable]) -> dict[str, Estimate]:
    """Estimate each model's union and mean minus those of pre-trained BERT, by site, on the same examples."""
    found: dict[str, Estimate] = {}
    for model, sites in models.items():
        if model == "pretrained":
            continue
        for site, active in sites.items():
            before, name = models["pretrained"][site], f"{figure}.{model}_minus_pretrained.{site}"
            found[f"{name}.union"] = union_gain(active, before, clusters)
            found[f"{name}.mean"] = difference(active.sum((1, 2)), before.sum((1, 2)), clusters)
    return found


def paired_differences(
    figure: str, models: Mapping[str, Sites], clusters: Sequence[Hashable]
) -> dict[str, Estimate | None]:
    """Estimate each model's paired difference from pre-trained BERT on the same examples.

    A comparison of two `counts` must be judged by these. By block and site, and by site over all blocks:
    figure1.dpr_minus_pretrained.block3.output.union, and figure1.dpr_over_pretrained.… (None where there is no ratio,
    see `active_neurons.union_ratio`); over all neurons figure1.dpr_minus_pretrained.sharing.
    """
    found: dict[str, Estimate | None] = {}
    before = models["pretrained"]
    for model, sites in models.items():
        if model == "pretrained":
            continue
        minus, over = (f"{figure}.{model}_{word}_pretrained" for word in ("minus", "over"))
        found[f"{minus}.sharing"] = sharing_gain(both(sites), both(before), clusters)
        for site, active in sites.items():
            blocks = {f"block{b}.{site}": slice(b, b + 1) for b in range(active.shape[1])} | {site: slice(None)}
            for name, part in blocks.items():
                pair = active[:, part], before[site][:, part]
                found[f"{minus}.{name}.union"] = union_gain(*pair, clusters)
                found[f"{over}.{name}.union"] = union_ratio(*pair, clusters)
    return found


def blocks_in_words(found: Mapping[str, Estimate | None], id_: str) -> str:
    """List the blocks where the intervals of a difference, {} in its id for the block, lie above or below 0."""
    sides: dict[str, list[str]] = {"above": [], "below": [], "on both sides of": []}
    block = 0
    while e := found.get(id_.format(block)):
        sides["above" if e.low > 0 else "below" if e.high < 0 else "on both sides of"].append(str(block))
        block += 1
    told = [f"{side} 0 in {'block' if len(of) == 1 else 'blocks'} {', '.join(of)}" for side, of in sides.items() if of]
    return "; ".join(told)


def concentration(
    exhibit: str, models: Mapping[str, Attribution], clusters: Sequence[Hashable], without: Sequence[int] = ()
) -> dict[str, Estimate]:
    """Average threshold-free measures by model and site, and minus pre-trained BERT's, over examples: by id.

    `without` are neurons to leave out, as in `Attribution.active`; with these, only "all" sites together are measured.
    """
    values = {(m, site, name): v for m, a in models.items() for site, name, v in _measured(a, without)}
    found = {f"{exhibit}.{m}.{site}.{name}": mean(v, clusters) for (m, site, name), v in values.items()}
    for (model, site, name), v in values.items():
        if model != "pretrained":
            before = values["pretrained", site, name]
            found[f"{exhibit}.{model}_minus_pretrained.{site}.{name}"] = difference(v, before, clusters)
    return found


def _measured(found: Attribution, without: Sequence[int]) -> list[tuple[str, str, ndarray]]:
    flat = found.scores.reshape(len(found.scores), -1)
    flat = np.delete(flat, list(without), axis=1)
    parts = {"all": flat} if len(without) else {**found.by_site(found.scores), "all": flat}
    return [(site, name, measure(part)) for site, part in parts.items() for name, measure in MEASURES.items()]


def on_topic(world: World, question: Question, passages: Sequence[int]) -> float:
    """Compute the share of passages on the article of the gold passage or of an entity in the question's facts."""
    titles = {world.passage[question.gold].title}
    for fact in question.facts:
        titles |= {world.fact[fact].subject, world.fact[fact].object}
    return float(np.mean([world.passages[i].title in titles for i in passages]))


def intervention_effects(
    exhibit: str,
    margins: ndarray,
    places: ndarray,
    ks: Sequence[int],
    k: int,
    scale: float,
    clusters: Sequence[Hashable],
) -> dict[str, Estimate]:
    """Estimate the effect of silencing or doubling neurons, by id: causal.dpr.silenced.top.k30.margin.

    `margins` and `places` [1 + k · kind · action, example] as `steps.intervene` orders them. margin: change of the
    margin, in units of `scale` (the model's temperature). found: top-k accuracy, over all examples. `_minus_random`:
    the same minus that of as many random neurons.
    """
    shape = len(ks), len(KINDS), len(ACTIONS), len(clusters)
    margin = ((margins[1:] - margins[0]) / scale).reshape(shape)
    there = (places < k)[1:].reshape(shape)
    found = {f"{exhibit}.found": mean(places[0] < k, clusters)}
    for i, n in enumerate(ks):
        for j, kind in enumerate(KINDS):
            for action, a in ACTIONS.items():
                name = f"{exhibit}.{action}.{kind}.k{n}"
                found[f"{name}.margin"] = mean(margin[i, j, a], clusters)
                found[f"{name}.found"] = mean(there[i, j, a], clusters)
                if kind != "random":
                    other = margin[i, KINDS.index("random"), a]
                    found[f"{name}_minus_random.margin"] = difference(margin[i, j, a], other, clusters)
    return found


def _power(logs: Estimate) -> Estimate:
    return Estimate(2**logs.value, 2**logs.low, 2**logs.high, logs.n)


def summary(found: Attribution, threshold: float) -> dict[str, float]:
    """Compute one model's numbers for a comparison over worlds: those of `ACROSS`, and unions by block and site."""
    sites = found.by_site(found.active(threshold))
    one = [str(i) for i in range(len(found.value))]
    values = {f"{site}.union": float(active.any(0).sum()) for site, active in sites.items()}
    values |= {f"{site}.active": float(active.sum((1, 2)).mean()) for site, active in sites.items()}
    values["sharing"] = activity(both(sites), one).sharing.value
    values["participation"] = float(MEASURES["participation"](found.scores).mean())
    for site, active in sites.items():
        values |= {f"block{b}.{site}.union": float(n) for b, n in enumerate(active.any(0).sum(1))}
    return values


def across(exhibit: str, worlds: Sequence[Mapping[str, Attribution]], threshold: float) -> dict[str, Estimate]:
    """Compare models over worlds, by id: estimates with Student's interval, n worlds.

    `worlds` is [world] {model: attributions}; empty for fewer than two. Each model over pre-trained BERT, and DPR over
    every other model, as a ratio (geometric mean; none where a value is 0): ratios.dpr_over_pretrained.sharing, and so
    on for all numbers of `summary`. more_strong: share of a world's examples for which the first of the two models has
    more active neurons.
    """
    if len(worlds) < 2:
        return {}
    summaries = [{model: summary(one, threshold) for model, one in world.items()} for world in worlds]
    found = {}
    for a, b in _contrasts(worlds[0]):
        for what in summaries[0][a]:
            ratio = _ratio_over_runs([(of[a][what], of[b][what]) for of in summaries])
            if ratio:
                found[f"{exhibit}.{a}_over_{b}.{what}"] = ratio
        more = [_strong(world[a], threshold) > _strong(world[b], threshold) for world in worlds]
        found[f"{exhibit}.{a}_over_{b}.more_strong"] = over_runs([float(one.mean()) for one in more])
    return found


def across_thresholds(
    exhibit: str, worlds: Sequence[Mapping[str, Attribution]], thresholds: Sequence[float]
) -> dict[str, Estimate]:
    """Compare DPR with pre-trained BERT over worlds at other thresholds: ratios.t0_01.….intermediate.union.

    As in `across`, but only the numbers that the paper discusses: unions by site, mean active neurons, and sharing.
    """
    found: dict[str, Estimate] = {}
    for threshold in thresholds:
        pairs = [{model: world[model] for model in ("pretrained", "dpr")} for world in worlds]
        made = across(exhibit, pairs, threshold)
        kept = {id_: e for id_, e in made.items() if id_.split(".", 2)[2] in ACROSS[:-1]}
        found |= {id_.replace(".", f".{at_threshold(threshold)}.", 1): e for id_, e in kept.items()}
    return found


def at_threshold(threshold: float) -> str:
    """Format a threshold for ids: t0_01."""
    return f"t{threshold:g}".replace(".", "_")


def strength(exhibit: str, strong: Mapping[str, ndarray], clusters: Sequence[Hashable]) -> dict[str, Estimate]:
    """Estimate Table 2's strongly active neurons over a whole sample.

    `strong` {"bert" or "dpr": their number [example]}. table2.dpr.strong: mean; table2.dpr_minus_bert.strong: paired;
    table2.more_strong: share of all examples for which more neurons are active in DPR.
    """
    found = {f"{exhibit}.{model}.strong": mean(n, clusters) for model, n in strong.items()}
    found[f"{exhibit}.dpr_minus_bert.strong"] = difference(strong["dpr"], strong["bert"], clusters)
    found[f"{exhibit}.more_strong"] = mean(strong["dpr"] > strong["bert"], clusters)
    return found


def _contrasts(models: Iterable[str]) -> list[tuple[str, str]]:
    others = [model for model in models if model != "pretrained"]
    against = [model for model in others if not model.startswith("dpr")] if "dpr" in others else []
    return [(model, "pretrained") for model in others] + [("dpr", model) for model in against]


def _ratio_over_runs(pairs: Sequence[tuple[float, float]]) -> Estimate | None:
    if not all(value > 0 for pair in pairs for value in pair):
        return None
    return _power(over_runs([np.log2(a / b) for a, b in pairs]))


def _strong(found: Attribution, threshold: float) -> ndarray:
    return found.active(threshold).sum((1, 2))


def strip_in_words(share: ndarray, what: str) -> str:
    """Describe a strip of `figures.strips` as alternative text; share of the examples [block, neuron]."""
    counts = ", ".join(f"{block}: {n}" for block, n in enumerate((share > 0).sum(1)))
    return f"{what}. Neurons active for any question, by block: {counts}."


def examples_by_kind(
    world: World,
    examples: Sequence[int],
    most: int,
    before: ndarray | None = None,
    after: ndarray | None = None,
) -> list[int]:
    """Choose `most` questions to show one by one, as places among the examples: of each kind as many, in order.

    `before` and `after` are the first passages of two models, [question, rank] as places in the world. With both, the
    first example whose gold passage only the second model retrieves comes before the others.
    """
    kinds = dict.fromkeys(world.questions[q].kind for q in examples)
    each = -(-most // max(1, len(kinds)))
    of_kind = {kind: [i for i, q in enumerate(examples) if world.questions[q].kind == kind][:each] for kind in kinds}
    places = [i for places in of_kind.values() for i in places]
    if before is not None and after is not None:
        golds = [world.place(world.questions[q].gold) for q in examples]
        telling = (i for i, q in enumerate(examples) if golds[i] in after[q] and golds[i] not in before[q])
        places = list(dict.fromkeys([*itertools.islice(telling, 1), *places]))
    return places[:most]
