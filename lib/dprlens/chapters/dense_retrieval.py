"""Chapter 01, dense retrieval: DPR and its rivals in the closed world."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray

from dprlens.bert import cloze
from dprlens.bert.encoder import DualEncoder, reinitialise
from dprlens.bert.pretrained import load_towers
from dprlens.cache.parallel import run
from dprlens.intervals import Estimate, mean
from dprlens.report import figures, widgets
from dprlens.report.report import Drawing, Table
from dprlens.retrieval import exact_search
from dprlens.retrieval.exact_search import Ranking
from dprlens.retrieval.negatives import BM25
from dprlens.retrieval.steps import answer_ranks, rankings
from dprlens.setup import Setup
from dprlens.training.dpr import Trained
from dprlens.training.steps import dpr
from dprlens.world import natural
from dprlens.world.natural import NaturalSpec
from dprlens.world.records import World

KS = (1, 5, 20, 100)  # of top-k accuracy
DEPTH = max(KS)
SIGNS = {True: "right", False: "wrong"}
Group = tuple[str, str]  # kind of question, state of the fact that decides


def train(setup: Setup) -> dict[str, Trained]:
    """The three models that are trained alike, by name."""
    random = reinitialise(setup.base, setup.seed)
    unread = replace(setup.training, start=DualEncoder(random, random))
    return run(
        {
            "DPR": partial(dpr, setup.training),
            "without pre-training": partial(dpr, unread),
            "shuffled pairs": partial(dpr, setup.training, shuffled=True),
        }
    )


def training(trained: Mapping[str, Trained]) -> Drawing:
    """Loss by epoch of DPR training: nats a question, on training and on dev questions."""
    histories = {name: model.history for name, model in trained.items()}
    return Drawing(
        "training",
        figures.learning_curves(histories),
        title="Loss by epoch of DPR training",
        alt="Loss against epoch, one solid line a model for training questions, dashed for dev questions.",
        numbers={
            f"training.{_id(name)}.{column}": history.iloc[-1][column]
            for name, history in histories.items()
            for column in history.columns.drop("epoch")
        },
    )


class Search(NamedTuple):
    """What each model ranks for all questions of the world, and the test questions that count."""

    setup: Setup
    rankings: Mapping[str, Ranking]  # of the first `DEPTH` passages, by the model's name
    ranks: Mapping[str, exact_search.Places]  # [question]: of the gold passage
    tested: pd.DataFrame  # test questions whose deciding fact DPR training never asks for (`cloze.question_table`)

    @property
    def world(self) -> World:
        """The world that is searched."""
        return self.setup.world

    @property
    def groups(self) -> dict[Group, pd.DataFrame]:
        """The tested questions by kind and by the state of the fact that decides."""
        by_group = self.tested.groupby(["kind", "state"])
        return {(str(kind), str(state)): rows for (kind, state), rows in sorted(by_group, reverse=True)}

    @property
    def ks(self) -> list[int]:
        """The k of top-k accuracy that this world has passages for."""
        return [k for k in KS if k <= len(self.world.passages)]

    def accuracies(self, model: str, k: int) -> dict[Group, Estimate]:
        """Top-k accuracy of a model in each group; facts are clusters."""
        return {
            group: exact_search.accuracy(self.ranks[model][rows.index], k, list(rows["fact"]))
            for group, rows in self.groups.items()
        }


def search(setup: Setup, trained: Mapping[str, Trained]) -> Search:
    """Search with the trained models, with pre-trained BERT and with BM25, among all passages."""
    world, depth = setup.world, min(DEPTH, len(setup.world.passages))
    duals = {name: model.dual for name, model in trained.items()}
    duals |= {"BERT, CLS": setup.start, "BERT, mean": DualEncoder(setup.base, setup.base, "mean")}
    found = {name: rankings(dual, world, depth) for name, dual in duals.items()}
    found["BM25"] = BM25(world.passages, setup.profile.negatives).search([q.text for q in world.questions], depth)
    gold = [world.place(question.gold) for question in world.questions]
    asked = cloze.question_table(world)
    tested = asked[(asked["split"] == "test") & ~asked["in_training"] & (asked["state"] != "low dose")]
    return Search(setup, found, {name: exact_search.gold_places(one, gold) for name, one in found.items()}, tested)


def accuracy_table(found: Search, top_k: int) -> Table:
    """Top-k accuracy on test questions: a row a model, a column a group of questions."""
    counts = {group: f"{label(group)} (n = {len(rows)})" for group, rows in found.groups.items()}
    accuracies = {name: found.accuracies(name, top_k) for name in found.rankings}
    return Table(
        "retrieval",
        pd.DataFrame(
            {"model": name, **{counts[group]: str(e).split(", n")[0] for group, e in of.items()}}
            for name, of in accuracies.items()
        ),
        title=f"Share of test questions whose passage is among the first {top_k}",
        numbers={
            f"retrieval.{_id(name)}.{_key(group)}.top{top_k}": e
            for name, of in accuracies.items()
            for group, e in of.items()
        },
    )


def accuracy_by_k(found: Search) -> Drawing:
    """Top-k accuracy against k on questions whose deciding fact is known (or nobody can say)."""
    by_k = {name: {k: found.accuracies(name, k) for k in found.ks} for name in found.rankings}
    panels = {
        label(group): {name: {k: of[group] for k, of in curve.items()} for name, curve in by_k.items()}
        for group in found.groups
        if group[1] in ("known", "not recorded")
    }
    return Drawing(
        "accuracy",
        figures.accuracy_by_k(panels),
        title="Top-k accuracy on test questions, deciding fact known (or nobody can say)",
        alt="Accuracy against k, one line a model; above lexical questions, below knowledge-required ones.",
        numbers={
            f"accuracy.{_id(name)}.{_key(group)}.top{k}": e
            for name, curve in by_k.items()
            for k, of in curve.items()
            for group, e in of.items()
        },
    )


def answer_table(found: Search, dual: DualEncoder, top_k: int) -> Table:
    """DPR by two measures: is the gold passage among the first, or any with an answer (Karpukhin et al. 2020)?"""
    by_words = exact_search.answer_places(
        found.rankings["DPR"], [question.answers for question in found.world.questions], found.world.passages
    )
    rows: list[tuple[str, Estimate | None, Estimate]] = []
    numbers = {}
    gold = found.accuracies("DPR", top_k)
    for group, of in found.groups.items():
        words = exact_search.accuracy(by_words[of.index], top_k, list(of["fact"]))
        rows.append((label(group), gold[group], words))
        for measure, e in (("gold", gold[group]), ("words", words)):
            numbers[f"answer_string.{measure}.{_key(group)}.top{top_k}"] = e
    for name, at in compare_with_published(found.setup, dual).items():
        for k in found.ks:
            share = exact_search.accuracy(at, k)
            numbers[f"answer_string.nq_test.{name.replace(' ', '_').lower()}.top{k}"] = share
            rows.append((f"nq-test, {name}, first {k}", None, share))
    return Table(
        "answer_string",
        pd.DataFrame(rows, columns=["questions", "gold passage", "answer's words"]),
        title=f"DPR by two measures: found among the first {top_k}",
        numbers=numbers,
    )


def first_by_both(found: Search) -> pd.DataFrame:
    """Whether pre-trained BERT and DPR rank the right passage of a test question first: bert, dpr."""
    first = {
        name: found.ranks[model][found.tested.index] == 0 for name, model in (("bert", "BERT, CLS"), ("dpr", "DPR"))
    }
    return pd.DataFrame(first, index=found.tested.index)


def cases(found: Search) -> Table:
    """How frequent the four cases of the paper's Table 2 are: right and wrong, before and after DPR training."""
    both = first_by_both(found)
    shares = {
        (bert, dpr_): mean((both["bert"] == bert) & (both["dpr"] == dpr_), found.tested["fact"])
        for bert in SIGNS
        for dpr_ in SIGNS
    }
    rows = [(SIGNS[bert], SIGNS[dpr_], share) for (bert, dpr_), share in shares.items()]
    return Table(
        "examples",
        pd.DataFrame(rows, columns=["BERT", "DPR", "share of test questions"]),
        title="The right passage first, by both models",
        numbers={f"examples.bert_{SIGNS[bert]}.dpr_{SIGNS[dpr_]}": share for (bert, dpr_), share in shares.items()},
    )


def case_cards(found: Search) -> widgets.HTML:
    """Two questions of each case, with the first passages of both models."""
    shown = first_by_both(found).sample(frac=1, random_state=found.setup.seed)
    shown = shown.groupby(["bert", "dpr"], sort=False).head(2).sort_values(["bert", "dpr"])
    models = ("BERT, CLS", "DPR")
    return widgets.HTML(
        "".join(
            widgets.rankings(
                found.world,
                found.world.questions[i],
                {model: found.rankings[model].passages[i, :5] for model in models},
                f"{found.tested.loc[i, 'kind']}, {found.tested.loc[i, 'state']}".replace("_", "-"),
            )
            for i in shown.index
        )
    )


def negative_cards(setup: Setup, n: int = 2, hard: int = 3) -> widgets.HTML:
    """Some train questions with their gold passage and their first hard negatives."""
    world = setup.world
    train_ = [question for question in world.questions if question.split == "train"]
    cards = []
    for question in train_[:: len(train_) // n][:n]:
        lists = {
            "its passage": np.array([world.place(question.gold)]),
            "hard": np.array([world.place(id_) for id_ in setup.negatives[question.id][:hard]]),
        }
        cards.append(widgets.rankings(world, question, lists))
    return widgets.HTML("".join(cards))


def label(group: Group) -> str:
    """A group of questions as tables have it: "lexical, known"."""
    return f"{group[0].replace('_', '-')}, {group[1]}"


def _key(group: Group) -> str:
    return f"{group[0]}.{group[1].replace(' ', '_')}"


def _id(name: Hashable) -> str:
    return re.sub(r"\W+", "_", str(name)).lower()


def compare_with_published(setup: Setup, dual: DualEncoder) -> dict[str, ndarray]:
    """`answer_ranks` of this DPR and of published towers, if the profile asks for the check (`ModelsSpec.check`)."""
    if not setup.profile.models.check:
        return {}
    spec = setup.profile.world
    assert isinstance(spec, NaturalSpec), "published towers are checked in the real setting alone"
    questions, k = natural.asked_openly(spec), min(100, len(setup.world.passages))
    towers = {"DPR": dual, "published DPR": load_towers(setup.profile.models.published, Path(spec.folder))}
    return {name: answer_ranks(one, setup.world, questions, k) for name, one in towers.items()}
