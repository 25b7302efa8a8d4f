"""Chapter 00: the generated encyclopedia, its questions, and what the BERT that is pre-trained on it knows."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dprlens.bert import cloze
from dprlens.bert.encoder import Encoder
from dprlens.intervals import Estimate, gap, mean
from dprlens.report import figures, widgets
from dprlens.report.report import Absent, Drawing, Table
from dprlens.setup import Setup
from dprlens.world.closed import Segment, is_linking
from dprlens.world.records import World

SAMPLED = 10_000  # passages at most whose words are counted
SHOWN = ("born_in", "river", "headquarters", "director")  # relations whose first subjects' articles are shown
STATES = ("known", "low dose", "held out", "not recorded")  # of facts, as the table of recall has them
WORDINGS = {"wording read": "seen", "wording not read": "reserved"}
FORMS = {"often": "mostly described", "rarely": "mostly plain", "difference": "difference"}  # of statements

Shares = Mapping[str, Mapping[str, Estimate]]  # share of statements recalled, by arm and relation
Curves = Mapping[str, Mapping[int, Estimate]]  # share of statements recalled, by wording and exposures


# the encyclopedia


def article_cards(world: World) -> widgets.HTML:
    """Four articles: of a person, a city, a company and a film, if the world has them."""
    first = {fact.relation: fact.subject for fact in reversed(world.facts)}
    subjects = [first[relation] for relation in SHOWN if relation in first]
    return widgets.articles(world, subjects or [passage.title for passage in world.passages[:4]])


def sizes(setup: Setup) -> Table:
    """Counts of articles, passages, relations, facts and questions."""
    world = setup.world
    every = -(-len(world.passages) // SAMPLED)
    lengths = [len(passage.text.split()) for passage in world.passages[::every]]
    counts = {
        "articles": world.titles,
        "passages": len(world.passages),
        "words in a passage, mean": f"{mean(lengths).value:.1f}",
        "relations": len({fact.relation for fact in world.facts}),
        "facts": len(world.facts),
        "facts held out of pre-training": sum(world.state(fact.id) == "held out" for fact in world.facts),
        "questions": len(world.questions),
    }
    rows = [(what, str(n)) for what, n in counts.items()] + setup.notes()
    return Table("world", pd.DataFrame(rows, columns=["what", "n"]), title="The encyclopedia of this page")


def facts(world: World) -> Drawing:
    """Facts of each relation by exposures: how often the pre-training text states them."""
    exposures = [world.doses(fact.id).times for fact in world.facts]
    counts = pd.crosstab([fact.relation for fact in world.facts], pd.Series(exposures))
    return Drawing(
        "facts",
        figures.exposure_bars(counts),
        title="Facts of each relation by how often pre-training states them",
        alt="Stacked bars, one a relation: from facts held out, through those at low doses, to those fully known.",
        numbers={
            f"facts.exposures_{times if times >= 0 else 'unknown'}": exposures.count(times) for times in {*exposures}
        },
    )


def question_groups(world: World) -> pd.DataFrame:
    """Kind, linking fact (its state) and split of every question, in the world's order."""
    return pd.DataFrame(
        {
            "kind": question.kind.replace("knowledge_required", "knowledge-required"),
            "linking fact": world.state(question.link) if question.link else "–",
            "split": question.split,
        }
        for question in world.questions
    )


def question_cards(world: World, seed: int) -> widgets.HTML:
    """Two questions of each kind and state of the linking fact, with their gold passages."""
    examples = question_groups(world).groupby(["kind", "linking fact"]).sample(2, random_state=seed)
    return widgets.questions(world, [world.questions[i] for i in examples.index])


def questions(world: World) -> Table:
    """Counts of questions by kind, state of their linking fact, and split."""
    groups = question_groups(world)
    counts = pd.crosstab([groups["kind"], groups["linking fact"]], groups["split"])
    return Table(
        "questions",
        counts[["train", "dev", "test"]].reset_index(),
        title="Questions by kind, state of their linking fact, and split",
    )


# the model


def pretraining_text(text: Sequence[Segment]) -> Table:
    """Segments of the masked-LM text by form, each with an example."""
    forms = pd.DataFrame(text).groupby("form")["text"].agg(["size", "first"])
    return Table(
        "model",
        forms.reset_index().set_axis(["form", "segments", "for instance"], axis=1),
        title="Text for masked-LM, by form",
        numbers={
            "model.segments": len(text),
            "model.described_share": forms["size"].get("description", 0) / len(text),
        },
    )


def model_size(base: Encoder) -> dict[str, int]:
    """Number of blocks, width, size of the vocabulary and number of weights."""
    shape = base.bert.config
    return {
        "blocks": shape.num_hidden_layers,
        "width": shape.hidden_size,
        "vocabulary": shape.vocab_size,
        "parameters": sum(weights.numel() for weights in base.model.parameters()),
    }


# cloze recall


def guess_pages(base: Encoder, world: World, found: pd.DataFrame, seed: int) -> dict[widgets.Key, str]:
    """The model's first guesses for four unread statements of each state: pages of an explorer, most exposed first."""
    unread = found[found["wording"] == "reserved"].sample(frac=1, random_state=seed)
    shown = unread.groupby("state").head(4).sort_values(["exposures", "fact"], ascending=[False, True])
    pages: dict[widgets.Key, str] = {}
    for state, fact, place in zip(shown["state"], shown["fact"], shown["statement"], strict=True):
        statement = world.fact[fact].statements[place]
        blank = f"{statement.text[: statement.start]}▢{statement.text[statement.end :]}"
        pages[f"{state}: {blank}"] = widgets.beliefs(statement, cloze.first_guesses(base, statement))
    return pages


def guess_cards(pages: Mapping[widgets.Key, str]) -> widgets.HTML:
    """The first two known and the first two held-out facts of `guess_pages`; any four where there are none."""
    by_state = {
        state: [page for title, page in pages.items() if str(title).startswith(state)]
        for state in ("known", "held out")
    }
    chosen = [page for of_state in by_state.values() for page in of_state[:2]]
    return widgets.HTML("".join(chosen or [*pages.values()][:4]))


def recall(shares: Mapping[tuple[str, str], Estimate], baseline: Mapping[str, Estimate]) -> Table:
    """Share of statements recalled by state of the fact and wording, beside the baseline of a constant guess."""
    rows = [
        (state, shares[state, "seen"], shares[state, "reserved"], baseline[state])
        for state in STATES
        if state in baseline
    ]
    numbers = {f"recall.{state}.{wording}": e for (state, wording), e in shares.items()}
    numbers |= {f"recall.{state}.null": e for state, e in baseline.items()}
    return Table(
        "recall",
        pd.DataFrame(rows, columns=["the fact was", "wording read", "wording not read", "null arm"]),
        title="Share of statements whose answer the model recalls",
        numbers={id_.replace(" ", "_"): e for id_, e in numbers.items()},
    )


def recall_in_words(shares: Mapping[tuple[str, str], Estimate]) -> dict[str, str]:
    """Recall of known and of held-out facts, in wording that was not read."""
    states = {"known": "known", "held_out": "held out"}
    return {name: str(shares.get((state, "reserved"), "no such facts")) for name, state in states.items()}


def recall_by_relation(found: pd.DataFrame) -> dict[str, dict[str, Estimate]]:
    """Share of statements recalled by relation: known facts in both wordings, held-out and unrecorded ones."""
    known = found[found["state"] == "known"]
    arms = {f"known, {title}": known[known["wording"] == wording] for title, wording in WORDINGS.items()}
    arms |= {state: found[found["state"] == state] for state in ("held out", "not recorded")}
    return {arm: cloze.recall_by(rows, "relation") for arm, rows in arms.items() if len(rows)}


def relations(shares: Shares) -> Drawing:
    """Share of statements recalled by relation, one mark for each arm of `recall_by_relation`."""
    arms = {arm: arm.replace(", wording", "").replace(" ", "_") for arm in shares}
    return Drawing(
        "relations",
        figures.rows_of_estimates(shares, "share of statements recalled"),
        title="Recall by relation",
        alt="One row a relation, one mark each for known facts in both wordings and for held-out facts.",
        numbers={f"relations.{relation}.{arms[arm]}": e for arm, of in shares.items() for relation, e in of.items()},
    )


def weakest_relation(shares: Shares) -> dict[str, str]:
    """The relation whose known facts are recalled least in wording that was not read, and how often they are."""
    unread = shares.get("known, wording not read", shares.get("not recorded", {}))
    relation = min(unread, key=lambda name: unread[name].value)
    return {"relation": relation.replace("_", " "), "share": str(unread[relation])}


def linking_facts(found: pd.DataFrame, world: World) -> pd.DataFrame:
    """The rows of cloze recall that ask for linking facts, whose exposures and forms were dealt at random."""
    links = {fact.id for fact in world.facts if is_linking(fact)}
    return found[found["fact"].isin(links)]


def recall_by_exposures(linking: pd.DataFrame) -> dict[str, dict[int, Estimate]]:
    """Share of statements recalled by exposures, in wording read and not read."""
    return {
        title: cloze.recall_by(linking[linking["wording"] == wording], "exposures")
        for title, wording in WORDINGS.items()
    }


def dose(curves: Curves) -> Drawing | Absent:
    """Recall of linking facts against exposures: the dose–response curve in both wordings."""
    title = "Recall of linking facts by how often the model has read them"
    if not any(curves.values()):
        return Absent("dose", title, "Nobody knows what the model read.")
    return Drawing(
        "dose",
        figures.dose_response(curves, "times read in pre-training", "share recalled"),
        title=title,
        alt="Recall against exposures, two curves: wording that was read, and wording that was not.",
        numbers={
            f"dose.exposures_{times}.{arm.removeprefix('wording ').replace(' ', '_')}": e
            for arm, curve in curves.items()
            for times, e in curve.items()
        },
    )


def doses_in_words(curves: Curves) -> dict[str, str]:
    """The least exposures at which more than half of the statements are recalled in wording not read; the most."""
    enough = [times for times, e in curves["wording not read"].items() if e.value > 0.5]
    doses = [times for curve in curves.values() for times in curve]
    return {
        "half": str(min(enough)) if enough else "none of these",
        "full": str(max(doses)) if doses else "–",
    }


def recall_by_form(linking: pd.DataFrame) -> dict[str, Estimate]:
    """Recall of fully known linking facts in wording not read: stated often, and rarely, by descriptions; difference.

    The two groups are divided in the middle between the least and the greatest share of descriptions. Where all facts
    have one share there is nothing to compare.
    """
    full = linking[(linking["state"] == "known") & (linking["wording"] == "reserved")]
    share = full["described"] / full["exposures"]
    often = share >= (share.min() + share.max()) / 2
    groups = {name: rows for name, rows in (("often", full[often]), ("rarely", full[~often])) if len(rows)}
    recalled = {name: mean(rows["recalled"], rows["fact"]) for name, rows in groups.items()}
    if len(groups) == 2:
        frequent, rare = groups.values()
        recalled["difference"] = gap(frequent["recalled"], rare["recalled"], frequent["fact"], rare["fact"])
    return recalled


def described(recalled: Mapping[str, Estimate]) -> Table:
    """Recall of fully known linking facts by the form in which most statements state them."""
    return Table(
        "described",
        pd.DataFrame([(FORMS[form], e) for form, e in recalled.items()], columns=["statements", "recalled"]),
        title="Recall of fully known linking facts, in wording not read, by form of statement",
        numbers={f"described.{form}": e for form, e in recalled.items()},
    )
