"""One question of any wording, and what a model makes of it: what the explorer shows.

Layers and neurons are judged by a *right* passage: the gold one where the question is one of the world's, else the one
that the model ranks first.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy import ndarray

from dprlens.bert import cloze
from dprlens.bert.encoder import DualEncoder, Encoder
from dprlens.cache.artifacts import step
from dprlens.chapters import editing_experiment
from dprlens.decentralization import active_neurons, attribution, interventions
from dprlens.decentralization.active_neurons import SampleSpec
from dprlens.decentralization.attribution import Attribution, AttributionSpec
from dprlens.editing.exhibits import label
from dprlens.retrieval.exact_search import TOKEN, FlatIndex, Ranking
from dprlens.retrieval.index import passage_texts
from dprlens.setup import Setup
from dprlens.world.records import Fact, Question, Statement, World

POOL = 20_000  # passages that are searched at most: with BERT-base on a GPU, a minute's encoding for a model
CHARACTERS = 2000  # of a question, at most
TRIED = 200  # test questions, to find one that shows a difference
PRETRAINED, DPR = "BERT, pre-trained", "DPR"


@step(version=1, threads=1)
def pool_vectors(dual: DualEncoder, world: World, places: Sequence[int]) -> ndarray:
    """Vectors of the passages at these places [place, d_model]."""
    return dual.passages(passage_texts(world, places)).numpy()


@dataclass(frozen=True)
class Model:
    """A retriever, and the masked-LM that it was trained from (or is), with which it is asked for its beliefs."""

    dual: DualEncoder
    says: Encoder
    world: World
    places: ndarray  # int [place]: the passages that it searches

    @cached_property
    def index(self) -> FlatIndex:
        """The vectors of the passages that are searched."""
        return FlatIndex(pool_vectors(self.dual, self.world, self.places.tolist()))

    def ranked(self, vector: ndarray) -> Ranking:
        """All places of the pool, best first, for a question's vector [d_model]: [place], as places in the world."""
        found, scores = (array[0] for array in self.index.search(vector[None], len(self.places)))
        return Ranking(self.places[found], scores)


@dataclass(frozen=True)
class Ground:
    """All that stays the same from question to question."""

    world: World
    models: Mapping[str, Model]
    told: tuple[Fact, ...]  # the facts that the edited models were told; none if there is no edited model
    negatives: Mapping[str, Sequence[str]]  # hard ones: question id -> passage ids
    spec: AttributionSpec
    sample: SampleSpec  # of its candidates and entropy

    @cached_property
    def questions(self) -> Mapping[tuple[str, ...], Question]:
        """The world's questions by their words; the first, if there are several of the same words."""
        return {words(question.text): question for question in reversed(self.world.questions)}

    @cached_property
    def facts(self) -> Mapping[tuple[str, ...], list[Fact]]:
        """The facts of each subject, by the words of its name."""
        found = defaultdict(list)
        for fact in self.world.facts:
            found[words(fact.subject)].append(fact)
        return found

    def suggestions(self, n: int) -> list[str]:
        """Texts of n test questions: first those about facts that the edited models were told, then the others."""
        told = {fact.id for fact in self.told}
        asked = [question for question in self.world.questions if question.split == "test"]
        asked.sort(key=lambda question: told.isdisjoint(question.facts))
        return list(dict.fromkeys(question.text for question in asked))[:n]


def ground(setup: Setup) -> Ground:
    """The world and the models of a profile: pre-trained BERT, DPR, and the edited models that are in the cache."""
    chosen, world, base = setup.profile, setup.world, setup.base
    places = pool(world, setup.negatives, POOL, setup.seed)
    edits = editing_experiment.on_record(setup, "added")
    models = {PRETRAINED: (setup.start, base), DPR: (setup.dpr, base)}
    models |= {f"DPR, {label(arm)}": (model.dual, model.encoder) for arm, model in edits.models.items()}
    return Ground(
        world,
        {name: Model(*pair, world, places) for name, pair in models.items()},
        edits.told,
        setup.negatives,
        replace(chosen.attribution, most_nodes=chosen.attribution.nodes),  # once is quick; the gap says how good it is
        chosen.sample,
    )


def pool(world: World, negatives: Mapping[str, Sequence[str]], most: int, seed: int) -> ndarray:
    """Places of the passages that are searched, ascending: all, or `most` where there are more.

    Then those come first that test questions need (their gold passages and hard negatives), and others at random.
    """
    if len(world.passages) <= most:
        return np.arange(len(world.passages))
    asked = [question for question in world.questions if question.split == "test"]
    needed = dict.fromkeys(id_ for question in asked for id_ in (question.gold, *negatives[question.id]))
    drawn = np.random.default_rng([seed, 0xE4]).choice(len(world.passages), most, replace=False)
    places = dict.fromkeys([*map(world.place, needed), *drawn.tolist()])
    return np.sort([*places][:most])


def default_question(ground: Ground, top: int) -> str:
    """The first test question whose gold passage DPR has among its `top` and pre-trained BERT has not.

    Questions that need a fact which pre-training states come before all others; only the first `TRIED` are tried. If
    none of them is such a question, the first of them.
    """
    test = [question for question in ground.world.questions if question.split == "test"]
    test.sort(key=lambda q: (q.link is None, not ground.world.may_know(q.facts[0])))
    tried = test[:TRIED]
    gold = np.array([ground.world.place(question.gold) for question in tried])[:, None]
    found = {}
    for name in (PRETRAINED, DPR):
        model = ground.models[name]
        vectors = model.dual.questions([question.text for question in tried]).numpy()
        first, _ = model.index.search(vectors, min(top, len(model.places)))
        found[name] = (model.places[first] == gold).any(1)
    return tried[int(np.argmax(found[DPR] & ~found[PRETRAINED]))].text


# what was typed


def words(text: str) -> tuple[str, ...]:
    """The words and signs of a text as DPR's measure takes them, in lower case."""
    return tuple(TOKEN.findall(unicodedata.normalize("NFD", text).lower()))


def check_question(text: str) -> str:
    """The question without spaces around it. Raises ValueError, in one sentence, for what is no question."""
    text = " ".join(text.split())
    if not text:
        raise ValueError("nothing was asked; type a question and press Enter")
    if len(text) > CHARACTERS:
        raise ValueError(f"the question has {len(text):,} characters; give at most {CHARACTERS:,}")
    if not any(character.isalnum() for character in text):
        raise ValueError(f"{text[:40]!r} has no letter and no digit; type a question in words")
    return text


def notes(encoder: Encoder, text: str) -> list[str]:
    """What a reader should know about how the encoder reads a text, a sentence each."""
    pieces, said = encoder.tokenizer.tokenize(text), []
    if len(pieces) + 2 > encoder.max_length:
        said.append(f"The model reads the first {encoder.max_length - 2} of {len(pieces)} word pieces.")
    if unknown := [word for word in text.split() if encoder.tokenizer.unk_token in encoder.tokenizer.tokenize(word)]:
        said.append(f"The model reads [UNK] for {', '.join(dict.fromkeys(unknown))}: no piece of its vocabulary fits.")
    return said


def facts_of_question(ground: Ground, text: str) -> list[Fact]:
    """Facts to ask a model for: those that the question needs, then those of the entities that it names."""
    asked = words(text)
    question = ground.questions.get(asked)
    longest = max(map(len, ground.facts))
    spans = [asked[i : i + n] for n in range(longest, 0, -1) for i in range(len(asked) - n + 1)]
    found = [ground.world.fact[id_] for id_ in question.facts] if question else []
    found += [fact for span in spans for fact in ground.facts.get(span, ())]
    return [fact for fact in dict.fromkeys(found) if fact.statements]


def beliefs(encoder: Encoder, facts: Sequence[Fact]) -> list[tuple[Statement, list[tuple[str, float]]]]:
    """A statement of each fact, one that pre-training has not read if there is one, and the first guesses for it."""
    said = [min(fact.statements, key=lambda statement: not statement.reserved) for fact in facts]
    return [(statement, cloze.first_guesses(encoder, statement)) for statement in said]


# one question, one model


@dataclass(frozen=True)
class Inspection:
    """A question that was put to a model, and what the model makes of it; computed when it is first looked at.

    Passages are places in the world's passages. Raises ValueError, in one sentence, for a text that is no question.
    """

    ground: Ground
    model: Model
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", check_question(self.text))

    @property
    def question(self) -> Question | None:
        """The world's question of these words."""
        return self.ground.questions.get(words(self.text))

    @cached_property
    def found(self) -> Ranking:
        """All passages that are searched, best first: [place]."""
        return self.model.ranked(self.model.dual.questions([self.text]).numpy()[0])

    @property
    def right(self) -> int:
        """The gold passage, or the one that is ranked first."""
        return self.ground.world.place(self.question.gold) if self.question else int(self.found.passages[0])

    @property
    def hard(self) -> list[int]:
        """The question's hard negatives, or the passages that are ranked next."""
        if self.question is None:
            return self.found.passages[1:6].tolist()
        return [self.ground.world.place(id_) for id_ in self.ground.negatives[self.question.id]]

    @cached_property
    def similarity(self) -> dict[str, dict[int, float]]:
        """Cosine of the question with the right passage ("right") and, on average, the hard ones ("hard"), by layer."""
        dual, texts = self.model.dual, passage_texts(self.ground.world, [self.right, *self.hard])
        by_layer = {"cls": Encoder.cls_by_layer, "mean": Encoder.mean_by_layer}[dual.pooling]
        asked, shown = by_layer(dual.query, [self.text]), by_layer(dual.passage, texts)
        cosines = torch.nn.functional.cosine_similarity(asked, shown, dim=2).tolist()
        found = {"right": {layer: row[0] for layer, row in enumerate(cosines)}}
        if self.hard:
            found["hard"] = {layer: float(np.mean(row[1:])) for layer, row in enumerate(cosines)}
        return found

    @cached_property
    def attribution(self) -> Attribution:
        """Attributions of the question encoder's neurons to the choice of the right passage, of this one example.

        The candidates are the right passage and those that the model ranks highest; the score is S2, as in chapter 4,
        at the temperature at which this very choice has the entropy of the ground's sample. Raises ValueError for a
        model to which an editor has added neurons.
        """
        dual, sample = self.model.dual, self.ground.sample
        if patches := getattr(dual.query.bert.config, "patches", 0):
            raise ValueError(
                f"the neurons of this model are not attributed, since its editor has added {patches} to the last block;"
                " choose another model"
            )
        others = [place for place in self.found.passages[: sample.candidates].tolist() if place != self.right]
        candidates = [self.right, *others][: sample.candidates]
        vectors = dual.passages(passage_texts(self.ground.world, candidates))
        products = (dual.questions([self.text]) @ vectors.T).numpy()
        says = attribution.choice(vectors[None], attribution.matched_temperature(products, sample.entropy))
        return attribution.attribute(dual.query, [self.text], says, self.ground.spec, pooling=dual.pooling)

    def active(self, threshold: float) -> pd.DataFrame:
        """The active neurons, strongest first: see `active_neurons.strongest`."""
        return active_neurons.strongest(self.attribution, 0, threshold)

    def silenced(self, neurons: pd.DataFrame) -> Ranking:
        """`found` when these rows of `active` are multiplied by 0 at [CLS]."""
        factors = np.ones_like(self.attribution.scores)
        factors[0, neurons["block"], neurons["unit"]] = 0
        return self.model.ranked(interventions.scale_neurons(self.model.dual.query, [self.text], factors).numpy()[0])


def place(found: Ranking, passage: int) -> int | None:
    """A passage's place in a ranking, from 1; None if it was not searched."""
    where = np.flatnonzero(found.passages == passage)
    return int(where[0]) + 1 if len(where) else None
