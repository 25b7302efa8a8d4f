"""Number ids in words: what a number measures, for which models and in which unit.

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
    "accuracy": (FOUND, ""),
    "retrieval": (FOUND, ""),
    "answer_string": (Measure("share of questions with the answer in a retrieved passage"), ""),
    "bound": (FOUND, ""),
    "power": (Measure("smallest difference that would be detected", VALUE), ""),
    "contrasts": (Measure("smallest difference that would be detected", VALUE), ""),
    "counterfactual": (FOUND, ""),
    "described": (FOUND, "by how often links are read in descriptions"),
    "dose": (RECALLED, ""),
    "doses": (FOUND, ""),
    "entry": (FOUND, ""),
    "rates": (FOUND, ""),
    "telling": (FOUND, "links learned after pre-training"),
    "missing": (FOUND, "links learned after pre-training minus links read from the start"),
    "old_head": (RECALLED, ""),
    "recall": (RECALLED, ""),
    "relations": (RECALLED, ""),
    "seeds": (FOUND, ""),
    "surface": (FOUND, ""),
    "taught": (FOUND, "other questions through the same links"),
    "world_size": (FOUND, ""),
    "training": (Measure("training", VALUE), ""),
    "table1": (ACCURACY, ""),
    "spread": (ACCURACY, "mean over draws of slots and negatives"),
    "replication": (ACCURACY, "fitted as the replication does"),
    "question": (ACCURACY, ""),
    "no_network": (Measure("accuracy without a network"), ""),
    "reversible": (ACCURACY, "reversible pairs"),
    "selectivity": (ACCURACY, ""),
    "code": (Measure("compression by the online code", VALUE), ""),
    "learning": (ACCURACY, ""),
    "networks": (FOUND, "mean over networks"),
    "matching": (ACCURACY, "question and passage meet in the probe"),
    "worlds": (ACCURACY, "mean over worlds"),
    "differences": (Measure("cells", COUNT), ""),
    "gains": (ACTIVE, ""),
    "controls": (ACTIVE, ""),
    "variants": (ACTIVE, ""),
    "thresholds": (ACTIVE, ""),
    "passages": (ACTIVE, "context tower"),
    "ratios": (ACTIVE, "mean over worlds"),
    "measures": (ATTRIBUTION, ""),
    "passage_measures": (ATTRIBUTION, "context tower"),
    "completeness": (Measure("completeness gap of the attribution", VALUE), ""),
    "causal": (FOUND, ""),
    "pathways": (LOST, ""),
    "patching": (FOUND, "a block's activations come from the other model"),
    "blocks": (Measure("share of the attribution at the mask"), ""),
    "patched": (RECALLED, "two halves of networks"),
    "model": (Measure("the model", VALUE), ""),
    "facts": (Measure("facts", COUNT), ""),
    "examples": (Measure("questions", COUNT), ""),
    "table2": (Measure("neurons", COUNT), ""),
    "table3": (CLOZE, "facts added"),
    "table4": (CLOZE, "facts removed"),
}
SECTION_4 = {  # second halves of `added_…` and `removed_…`
    "cloze": (CLOZE, ""),
    "effects": (CLOZE, ""),
    "fact": (Measure("rank of the passage", VALUE), "one fact"),
    "facts": (Measure("facts", COUNT), ""),
    "found": (FOUND, ""),
    "moved": (Measure("distance by which a passage vector moves", VALUE), ""),
    "nulls": (Measure("change of effect", SHARE), ""),
    "on_record": (CLOZE, ""),
    "reread": (FOUND, "edited model read again"),
    "retrained": (CLOZE, "DPR trained again"),
    "tradeoff": (CLOZE, ""),
}
MEASURES = {
    "auc": Measure("probability that the right passage outranks another of its relation, chance 0.50", "AUC"),
    "recalled": RECALLED,
    "recall": RECALLED,
    "given_recall": Measure("share of questions whose passage is retrieved, of recalled facts"),
    "slope": Measure("rise of retrieval with the exposures of the fact", "slope"),
    "slope_within": Measure("retrieval of facts read last in pre-training minus read first", "difference of shares"),
    "composed": Measure("share of questions whose composed sentence is in the pre-training text"),
    "false_passage": Measure("share of questions for which the false object's passage is retrieved"),
    "true_passage": Measure("share of questions for which the true object's passage is retrieved"),
    "union": Measure("different neurons active for any question", COUNT),
    "mean": Measure("active neurons per question", COUNT),
    "active": ACTIVE,
    "sharing": Measure("share of the other questions for which an active neuron is active as well"),
    "sharing_by_chance": Measure("the same share if active neurons were drawn at random"),
    "participation": Measure("number of neurons over which a question's attribution is spread", COUNT),
    "entropy": Measure("entropy of a question's attribution over neurons", VALUE),
    "gini": Measure("concentration of a question's attribution (Gini coefficient)", VALUE),
    "mass_in_top": Measure("share of the attribution in the strongest neurons"),
    "margin": Measure("change of the margin between gold passage and negatives", "difference of scores"),
    "silenced": LOST,
    "silenced_random": LOST._replace(text="random neurons silenced before the passage is lost"),
    "sufficient": Measure("disjoint sets of neurons that each keep the passage", COUNT),
    "never_lost": Measure("share of questions that never lose their passage"),
    "on_topic": Measure("share of the first five passages about the question's subject"),
    "strong": Measure("strongly active neurons per question", COUNT),
    "dpr_strong": Measure("strongly active neurons in DPR", COUNT),
    "bert_strong": Measure("strongly active neurons in pre-trained BERT", COUNT),
    "more_strong": Measure("share of questions for which more neurons are strongly active in DPR than in BERT"),
    "significant_cells": Measure("cells of Table 1 with a significant difference", COUNT),
    "found": FOUND,
    "found_effect": Measure(f"passages retrieved, {EFFECT}", "difference of shares"),
    "found_did": Measure(f"passages retrieved, {DID}", "difference of differences of shares"),
    "probing_added": Measure("share of facts on which the probe succeeds after the edit"),
    "probing_removed": Measure("share of facts on which the probe fails after the edit"),
    "probing_effect": Measure(f"success of the probe, {EFFECT}", "difference of shares"),
    "probing_did": Measure(f"success of the probe, {DID}", "difference of differences of shares"),
    "dpr_added": Measure("share of the added facts recognised after DPR training"),
    "dpr_removed": Measure("share of the removed facts that stay lost after DPR training"),
    "dpr_all": Measure("share of the edited facts recognised after DPR training"),
    "dpr_effect": Measure(f"recognised after DPR training, {EFFECT}", "difference of shares"),
    "dpr_did": Measure(f"recognised after DPR training, {DID}", "difference of differences of shares"),
    "off_target_rate": Measure("share of other questions whose probe answer flips"),
    "off_target_flips": Measure("other questions whose probe answer flips", COUNT),
    "off_target_edits": Measure("other questions that flip after DPR training", COUNT),
    "off_target": Measure("share of other questions whose probe answer flips"),
    "added_minus_off_target": Measure(
        "share of edited facts on which the probe succeeds minus share of other questions that flip",
        "difference of shares",
    ),
    "removed_minus_off_target": Measure(
        "share of edited facts on which the probe fails minus share of other questions that flip",
        "difference of shares",
    ),
    "told": Measure("share of the training statements completed with the edited object"),
    "unread": Measure("share of statements in other wording completed with the edited object"),
    "kept": Measure("share of other facts still recalled"),
    "neighbours": Measure("share of statements about neighbouring facts still completed as before"),
    "agreement": Measure("agreement on the same facts beyond chance", "Cohen's kappa"),
    "place": Measure("rank of the passage", VALUE),
    "match": Measure("recognised after DPR training"),
    "probe": Measure("success of the probe"),
    "dev_nll": Measure("negative log-likelihood on dev questions", VALUE),
    "dev_rank": Measure("mean rank of the gold passage on dev questions", VALUE),
    "loss": Measure("training loss", VALUE),
    "minus_never": Measure("share of questions whose passage is retrieved, minus links never stated"),
}
NAMES = {  # models, arms, probes and conditions
    "pretrained": "pre-trained BERT",
    "bert": "pre-trained BERT",
    "bert_cls": "pre-trained BERT, [CLS]",
    "bert_mean": "pre-trained BERT, mean pooling",
    "dpr": "DPR",
    "dpr_query": "DPR's query tower",
    "dpr_context": "DPR's context tower",
    "dpr_paired": "DPR, both towers",
    "random": "random weights",
    "shuffled": "DPR on shuffled pairs",
    "shuffled_pairs": "DPR on shuffled pairs",
    "continued": "BERT after more masked-LM",
    "unpretrained": "DPR without pre-training",
    "without_pre_training": "DPR without pre-training",
    "cooccurrence": "the co-occurrence baseline",
    "untrained": "an untrained probe",
    "no_query": "the probe without the question",
    "shuffled_query": "the probe with another question",
    "linear": "the paper's linear probe",
    "tied": "one scorer for all slots, no question",
    "bilinear": "bilinear probe",
    "low_rank": "bilinear probe of low rank",
    "dot": "dot product",
    "cosine": "cosine",
    "transformer_patcher": "Transformer-Patcher",
    "malmen": "MALMEN",
    "mend": "MEND",
    "malmen_mend": "MALMEN and MEND",
    "finetuning": "constrained fine-tuning",
    "rehearsal": "more masked-LM with rehearsal",
    "relearning": "more masked-LM with rehearsal, in large steps",
    "nothing": "no edit",
    "known": "facts stated in pre-training",
    "held_out": "facts never stated",
    "low_dose": "facts stated rarely",
    "dose": "questions that need a fact",
    "knowledge_required": "questions that need a fact",
    "lexical": "questions that name the entity",
    "start": "facts read from the start of pre-training",
    "after": "facts read after pre-training",
    "never": "facts never read",
    "before": "pre-trained BERT",
    "question_tower": "DPR's query tower",
    "passage_tower": "DPR's context tower",
    "asked": "links asked in DPR training",
    "not_asked": "links not asked in DPR training",
    "seen": "wording that was read",
    "reserved": "wording that was not read",
    "null": "subject removed",
    "full_depth": "networks of full depth",
    "shallow": "shallow networks",
    "told_false": "model that read a false fact",
    "told_true": "model that read the true fact",
    "described": "in descriptions",
    "plain": "plain statements",
    "half_described": "half in descriptions",
    "opened": "plain statements, other late links asked in DPR training",
    "large_steps": "steps as large as in pre-training",
    "at_cls": "object predicted at [CLS] as well",
    "as_at_start": "steps, number and form as in pre-training",
    "beside_neighbours": "beside facts about either end",
    "one_wording": "one wording only",
    "few": "a quarter as often",
    "many": "twice as often",
    "fast": "five times the learning rate",
    "falling": "learning rates that fall",
    "constant": "constant learning rates",
    "both": "questions that both models answer",
    "among": "first of its candidates",
    "edited": "edited facts",
    "bystanders": "bystanders",
    "intermediate": "intermediate layer",
    "output": "output layer",
    "all": "all layers",
    "trimmed": "without outliers",
    "top": "strongest neurons",
    "bottom": "weakest neurons",
    "doubled": "doubled",
    "bag_of_words": "bag of words",
    "bm25": "BM25",
}
CONDITIONS = {  # parts that are measures elsewhere
    ("seeds", "mean"): "mean over trainings",
    ("causal", "silenced"): "silenced",
}
SIDES = {  # parts that are comparisons, and say it in a word
    "difference": "facts stated in pre-training minus facts never stated",
    "effect": "model that read a false fact minus model that read the true fact",
    "form": "links read mostly in descriptions minus links mostly stated plainly",
    "form_effect": "links in a text with more descriptions minus links in a text with fewer",
}
ELSEWHERE = {  # what "difference" compares in other exhibits than the causal test
    "taught": "facts never stated, links asked in DPR training minus links not asked",
    "described": "links often in descriptions minus links rarely in descriptions",
}
CONTRAST = re.compile(r"(.+?)_(minus|over|outlasts)_(.+?)(_of_signal)?")
NUMBERED = (  # parts with a number in them
    (r"n(\d+)", "with {} passages"),
    (r"layer(\d+)", "layer {}"),
    (r"block(\d+)", "block {}"),
    (r"k(\d+)", "{} neurons"),
    (r"exposures_(\d+)", "{} exposures"),
    (r"at(\d+)", "facts read after {} % of pre-training"),
    (r"train(\d+)", "{} train questions"),
    (r"seed(\d+)", "seed {}"),
    (r"reseeded(\d*)", "no edit, other seed {}"),
    (r"random(\d+)", "random weights, network {}"),
    (r"dpr(\d+)", "DPR, training {}"),
    (r"size(\d+)", "world of size {}"),
    (r"form(\d+)", "form {}"),
    (r"q(\d+)", "question {}"),
    (r"t(\d+_\d+)", "threshold {}"),
    (r"random_(\w+)", "{} with random edits"),
    (r"unrelated_(\w+)", "{} on unrelated facts"),
)
RANKED = re.compile(r"top(\d+)")


def describe(id_: str) -> str:
    """A reader's words for a number id; a part without a word of its own is shown without its underscores."""
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
    if part in NAMES:
        return NAMES[part]
    for pattern, text in NUMBERED:
        if found := re.fullmatch(pattern, part):
            inner = found[1].replace("_", ".") if found[1][:1].isdigit() else _name(found[1]) if found[1] else ""
            return text.format(inner).strip()
    return part.replace("_", " ")


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
