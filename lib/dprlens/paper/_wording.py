"""Number ids in words, of the numbers that claims read: what they measure, for which models and in which unit.

An id is `<exhibit>.<part>.<part>…`. Each part names a model, a condition or a measure; `describe` puts the measure
first, then the conditions, then the two sides of a comparison, then the unit.
"""

import re
from typing import NamedTuple

SHARE, COUNT, VALUE = "share", "count", ""


class Measure(NamedTuple):
    text: str
    unit: str = SHARE


ACCURACY = Measure("probe accuracy")
FOUND = Measure("share of questions whose passage is retrieved")
ACTIVE = Measure("active neurons", COUNT)
LOST = Measure("neurons silenced before the passage is lost", "geometric mean of counts")
CLOZE = Measure("share of statements completed with the object")
RECALLED = Measure("share of facts recalled")
OUTLASTS = Measure("share of questions whose passage one model still retrieves when the other has lost it")
ATTRIBUTION = Measure("concentration of attribution", VALUE)
EFFECT = "edited facts minus bystanders"
DID = "change by the edit, edited facts minus bystanders"

EXHIBITS = {  # of what an exhibit's numbers are, where no part of the id says so; and under which condition
    "bound": (FOUND, ""),
    "counterfactual": (FOUND, ""),
    "entry": (FOUND, ""),
    "rates": (FOUND, ""),
    "telling": (FOUND, "links learned after pre-training"),
    "recall": (RECALLED, ""),
    "surface": (FOUND, ""),
    "taught": (FOUND, "other questions through the same links"),
    "world_size": (FOUND, ""),
    "table1": (ACCURACY, ""),
    "reversible": (ACCURACY, "reversible pairs"),
    "networks": (FOUND, "mean over networks"),
    "matching": (ACCURACY, "question and passage meet in the probe"),
    "worlds": (ACCURACY, "mean over worlds"),
    "gains": (ACTIVE, ""),
    "controls": (ACTIVE, ""),
    "ratios": (ACTIVE, "mean over worlds"),
    "measures": (ATTRIBUTION, ""),
    "causal": (FOUND, ""),
    "pathways": (LOST, ""),
    "table2": (Measure("neurons", COUNT), ""),
    "table3": (CLOZE, "facts added"),
    "table4": (CLOZE, "facts removed"),
}
SECTION_4 = {  # second halves of `added_…` and `removed_…`
    "cloze": (CLOZE, ""),
    "found": (FOUND, ""),
    "moved": (Measure("distance by which a passage vector moves", VALUE), ""),
}
MEASURES = {
    "auc": Measure("probability that the right passage outranks another of its relation, chance 0.50", "AUC"),
    "recalled": RECALLED,
    "slope": Measure("rise of retrieval with the exposures of the fact", "slope"),
    "slope_within": Measure("retrieval of facts read last in pre-training minus read first", "difference of shares"),
    "false_passage": Measure("share of questions for which the false object's passage is retrieved"),
    "true_passage": Measure("share of questions for which the true object's passage is retrieved"),
    "union": Measure("different neurons active for any question", COUNT),
    "mean": Measure("active neurons per question", COUNT),
    "active": ACTIVE,
    "sharing": Measure("share of the other questions for which an active neuron is active as well"),
    "participation": Measure("number of neurons over which a question's attribution is spread", COUNT),
    "margin": Measure("change of the margin between gold passage and negatives", "difference of scores"),
    "on_topic": Measure("share of the first five passages about the question's subject"),
    "more_strong": Measure("share of questions for which more neurons are strongly active in DPR than in BERT"),
    "found_did": Measure(f"passages retrieved, {DID}", "difference of differences of shares"),
    "probing_added": Measure("share of facts on which the probe succeeds after the edit"),
    "probing_removed": Measure("share of facts on which the probe fails after the edit"),
    "probing_effect": Measure(f"success of the probe, {EFFECT}", "difference of shares"),
    "dpr_added": Measure("share of the added facts recognised after DPR training"),
    "dpr_removed": Measure("share of the removed facts that stay lost after DPR training"),
    "dpr_effect": Measure(f"recognised after DPR training, {EFFECT}", "difference of shares"),
    "off_target_rate": Measure("share of other questions whose probe answer flips"),
    "added_minus_off_target": Measure(
        "share of edited facts on which the probe succeeds minus share of other questions that flip",
        "difference of shares",
    ),
    "told": Measure("share of the training statements completed with the edited object"),
    "probe": Measure("success of the probe"),
}
NAMES = {  # models, arms, probes and conditions
    "pretrained": "pre-trained BERT",
    "bert": "pre-trained BERT",
    "dpr": "DPR",
    "dpr_query": "DPR's query tower",
    "dpr_context": "DPR's context tower",
    "dpr_paired": "DPR, both towers",
    "random": "random weights",
    "shuffled": "DPR on shuffled pairs",
    "continued": "BERT after more masked-LM",
    "unpretrained": "DPR without pre-training",
    "cooccurrence": "the co-occurrence baseline",
    "untrained": "an untrained probe",
    "no_query": "the probe without the question",
    "linear": "the paper's linear probe",
    "tied": "one scorer for all slots, no question",
    "bilinear": "bilinear probe",
    "dot": "dot product",
    "transformer_patcher": "Transformer-Patcher",
    "malmen": "MALMEN",
    "mend": "MEND",
    "malmen_mend": "MALMEN and MEND",
    "finetuning": "constrained fine-tuning",
    "rehearsal": "more masked-LM with rehearsal",
    "relearning": "more masked-LM with rehearsal, in large steps",
    "known": "facts stated in pre-training",
    "held_out": "facts never stated",
    "dose": "questions that need a fact",
    "knowledge_required": "questions that need a fact",
    "lexical": "questions that name the entity",
    "start": "facts read from the start of pre-training",
    "after": "facts read after pre-training",
    "never": "facts never read",
    "seen": "wording that was read",
    "reserved": "wording that was not read",
    "full_depth": "networks of full depth",
    "plain": "plain statements",
    "half_described": "half in descriptions",
    "opened": "plain statements, other late links asked in DPR training",
    "large_steps": "steps as large as in pre-training",
    "at_cls": "object predicted at [CLS] as well",
    "constant": "constant learning rates",
    "edited": "edited facts",
    "intermediate": "intermediate layer",
    "output": "output layer",
    "all": "all layers",
    "top": "strongest neurons",
}
CONDITIONS = {("causal", "silenced"): "silenced"}  # parts that are measures elsewhere
SIDES = {  # parts that are comparisons, and say it in a word
    "difference": "facts stated in pre-training minus facts never stated",
    "effect": "model that read a false fact minus model that read the true fact",
    "form": "links read mostly in descriptions minus links mostly stated plainly",
    "form_effect": "links in a text with more descriptions minus links in a text with fewer",
}
ELSEWHERE = {  # what "difference" compares in other exhibits than the causal test
    "taught": "facts never stated, links asked in DPR training minus links not asked",
}
CONTRAST = re.compile(r"(.+?)_(minus|over|outlasts)_(.+?)(_of_signal)?")
NUMBERED = {"n": "with {} passages", "layer": "layer {}", "block": "block {}"}
RANKED = re.compile(r"top(\d+)")


def describe(id_: str) -> str:
    """A reader's words for a number id; a part without a word of its own is shown without its underscores.

    `table1.n2.pretrained_minus_dpr_query.layer12` gives "probe accuracy, with 2 passages, layer 12: pre-trained BERT
    minus DPR's query tower (difference of shares)".
    """
    exhibit, *parts = id_.split(".")
    measure, condition = _exhibit(exhibit)
    conditions, sides, unit = [condition] if condition else [], [], ""
    for part in parts:
        if ranked := RANKED.fullmatch(part):
            measure = _among_the_first(measure, int(ranked[1]))
        elif (exhibit, part) in CONDITIONS:
            conditions.append(CONDITIONS[exhibit, part])
        elif part in MEASURES:
            measure = MEASURES[part]
        elif part in SIDES:
            sides.append(ELSEWHERE.get(exhibit, SIDES[part]) if part == "difference" else SIDES[part])
            unit = "difference"
        elif part.endswith("_difference"):  # known minus held out, of the questions or the model named before it
            conditions.append(_name(part.removesuffix("_difference")))
            sides.append(SIDES["difference"])
            unit = "difference"
        elif silent := re.fullmatch(r"k(\d+)_minus_random", part):
            sides.append(f"{silent[1]} of them minus as many random neurons")
            unit = "difference"
        elif contrast := CONTRAST.fullmatch(part):
            first, word, second, signal = contrast.groups()
            sides.append(f"{_name(first)} {word} {_name(second)}")
            unit = "of signal" if signal else {"minus": "difference", "over": "ratio"}.get(word, "")
            measure = OUTLASTS if word == "outlasts" else measure
        else:
            conditions.append(_name(part))
    kind = _unit(measure, unit)
    text = ", ".join([measure.text, *conditions]) + (f": {'; '.join(sides)}" if sides else "")
    return f"{text} ({kind})" if kind and not measure.text.startswith(kind) else text


def _exhibit(name: str) -> tuple[Measure, str]:
    """The measure of an exhibit's numbers and the condition that holds for all of them."""
    if name in EXHIBITS:
        return EXHIBITS[name]
    if re.fullmatch(r"figure\d+", name):
        return ACTIVE, {"figure1": "", "figure2": "context tower"}.get(name, f"Figure {name.removeprefix('figure')}")
    done, _, rest = name.partition("_")
    if done in ("added", "removed") and rest:
        measure, condition = SECTION_4.get(rest, (CLOZE, _name(rest)))
        return measure, ", ".join(filter(None, (f"facts {done}", condition)))
    return Measure(name.replace("_", " "), VALUE), ""


def _name(part: str) -> str:
    if found := re.fullmatch(r"(n|layer|block)(\d+)", part):
        return NUMBERED[found[1]].format(found[2])
    return NAMES.get(part, part.replace("_", " "))


def _among_the_first(measure: Measure, k: int) -> Measure:
    if measure.unit != SHARE or "retriev" not in measure.text:
        return measure  # a change or a slope: the cut-off would only obscure it
    where = "ranks first" if k == 1 else f"is among the first {k}"
    return measure._replace(text=measure.text.replace("is retrieved", where))


def _unit(measure: Measure, contrast: str) -> str:
    if contrast == "of signal":
        return "difference as a share of what the second has above chance"
    if contrast == "ratio":
        return "ratio"
    if contrast == "difference":
        units = {SHARE: "difference of shares", COUNT: "difference of counts", "AUC": "difference of AUC"}
        return units.get(measure.unit, measure.unit or "difference")
    return measure.unit
