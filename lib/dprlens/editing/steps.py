"""Cached steps of section 4: editing models; evaluation by a probe, DPR's ranks and cloze statements.

Raise a step's version whenever its code, or code that it calls, may change what it returns (CONTRIBUTING.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd

from dprlens.bert import cloze
from dprlens.bert.encoder import DualEncoder, Encoder
from dprlens.cache.artifacts import Task, step
from dprlens.consistency.probes import Features, Items, ProbeSpec, items, make_probe, matching
from dprlens.consistency.steps import LIBRARIES
from dprlens.editing import protocol
from dprlens.editing.editors import EDITORS, Editor, EditorSpec, MalmenSpec, Material, MendSpec, RandomChange, Unrelated
from dprlens.editing.editors.hypernetwork import HypernetworkSpec
from dprlens.editing.editors.malmen import Malmen
from dprlens.editing.editors.mend import Mend
from dprlens.retrieval.index import index_of, passage_texts, question_texts
from dprlens.retrieval.negatives import NegativesSpec
from dprlens.retrieval.steps import mined_negatives
from dprlens.training.muon import in_quick_precision
from dprlens.world.closed import TextSpec, reading
from dprlens.world.records import Fact, World

Spec = TypeVar("Spec", bound=HypernetworkSpec)


def material(world: World, text: TextSpec, seed: int) -> Material:
    """Collect facts that editors may use: no test question is about them; half to practise on, half kept."""
    known = [fact for fact in world.facts if fact.split == "train" and world.may_know(fact.id) and fact.statements]
    order = np.random.default_rng([seed, 0x3A]).permutation(len(known))
    practice = [known[i] for i in order[::2] if known[i].alternatives]
    kept = [statement for i in order[1::2] for statement in known[i].statements if not statement.reserved]
    false = [protocol.with_object(fact, other) for fact in practice for other in fact.alternatives]
    return Material(tuple(false), tuple(kept), tuple(reading(world, text, seed)))


@step(version=1)
def malmen(base: Encoder, world: World, text: TextSpec, spec: MalmenSpec, seed: int) -> Malmen:
    """Train MALMEN's hypernetwork for the base model."""
    given = material(world, text, seed)
    return Malmen.trained(base, given.practice, given.kept, spec, seed)


@step(version=1)
def mend(base: Encoder, world: World, text: TextSpec, spec: MendSpec, seed: int) -> Mend:
    """Train MEND's hypernetwork for the base model."""
    given = material(world, text, seed)
    return Mend.trained(base, given.practice, given.kept, spec, seed)


@dataclass(frozen=True)
class Edit(Task):
    """An edit of the base model: the facts to be edited in, the editor, and the null arm, if any."""

    base: Encoder
    world: World
    text: TextSpec
    editor: str
    spec: EditorSpec
    null: str  # "", or a null arm of the editor
    told: tuple[Fact, ...]
    others: tuple[Fact, ...]  # edited in instead by the null arm "unrelated"
    seed: int


@in_quick_precision(needed=lambda arguments: arguments["spec"].learning_rate is None)
@step(version=1, threads=1)
def edit_model(edit: Edit) -> Encoder:
    """Edit facts into the base model by an editor, or by a null arm of it."""
    editor: Editor
    if isinstance(edit.spec, HypernetworkSpec):
        editor = hypernetwork(edit)
        editor.spec = edit.spec
    else:
        editor = EDITORS[edit.editor](edit.spec, material(edit.world, edit.text, edit.seed), edit.base, edit.seed)
    if edit.null == "unrelated":
        editor = Unrelated(editor, edit.others)
    elif edit.null == "random":
        editor = RandomChange(editor, edit.seed)
    return editor.edit(edit.base, edit.told)


def hypernetwork(edit: Edit) -> Malmen | Mend:
    """Train, or read, the hypernetwork of an edit by MALMEN or MEND; it is independent of the edited facts.

    Raises TypeError for an edit by another editor.
    """
    if isinstance(edit.spec, MalmenSpec):
        return malmen(edit.base, edit.world, edit.text, _learning(edit.spec), edit.seed)
    if isinstance(edit.spec, MendSpec):
        return mend(edit.base, edit.world, edit.text, _learning(edit.spec), edit.seed)
    raise TypeError(f"the editor {edit.editor!r} has no hypernetwork; give malmen or mend")


def _learning(spec: Spec) -> Spec:
    """Reset the fields of a hypernetwork's spec that do not affect its training."""
    return replace(spec, rounds=1, wordings=None)


@step(version=1, threads=1)
def last_features(encoder: Encoder, world: World) -> Features:
    """Encode all questions and passages by the last layer alone (`steps.features`)."""
    questions = encoder.cls([question.text for question in world.questions])
    passages = encoder.cls(passage_texts(world, range(len(world.passages))))
    return Features(questions.numpy()[None], passages.numpy()[None])


@dataclass(frozen=True)
class Judging(Task):
    """Test questions that a model is evaluated on, and the probe."""

    world: World  # whose passages are searched
    part: World  # the questions, and the passages that the probe chooses from
    negatives: NegativesSpec
    spec: ProbeSpec
    probe: str
    choices: tuple[int, ...]  # numbers of passages
    seed: int

    @property
    def most(self) -> int:
        """The greatest number of passages to choose from."""
        return max(self.choices)

    def items(self, split: str, reseed: int = 0) -> Items:
        """Draw the questions of a split with the passages that each chooses from."""
        mined = mined_negatives(self.part, self.negatives)
        return items(self.part, mined, split, self.most, self.seed + reseed)


@step(version=2, libraries=LIBRARIES, on_device=False, threads=1)
def probe_verdicts(
    judging: Judging, fitted_to: Features, applied_to: Sequence[Features], reseed: int = 0
) -> np.ndarray:
    """Fit a probe to one model, apply it to several: gold passage chosen, bool [model, n, test question].

    `reseed` changes the negatives and slots that the probe is fitted to; its test set stays the same.
    """
    seed, test, train = judging.seed, judging.items("test"), judging.items("train", reseed)
    found = np.empty((len(applied_to), len(judging.choices), len(test.questions)), dtype=bool)
    for i, n in enumerate(judging.choices):
        seen = matching(fitted_to, fitted_to, 0, train).shown(n, 3 * (seed + reseed))
        fitted = make_probe(judging.probe, judging.spec, seed + reseed).fit(*seen)
        for m, features in enumerate(applied_to):
            X, y = matching(features, features, 0, test).shown(n, 3 * seed + 2)
            found[m, i] = fitted.predict(X) == y
    return found


class PassageRanks(NamedTuple):
    """DPR's dot products and ranks of the test questions' passages."""

    products: np.ndarray  # [question, choice]: dot products with the passages that the probe chooses from
    place: np.ndarray  # int [question]: rank of the gold passage among all passages, from 0


@step(version=2, libraries=("bm25s", "faiss-cpu"), threads=1)
def rank_passages(judging: Judging, dual: DualEncoder) -> PassageRanks:
    """Rank the gold passages of the test questions among all passages of the world by DPR."""
    world, part, test = judging.world, judging.part, judging.items("test")
    rows = np.array([[world.place(part.passages[i].id) for i in choices] for choices in test.choices])
    queries = dual.questions(question_texts(part, test.questions)).numpy()
    return PassageRanks(*index_of(dual, world).ranks(queries, rows))


@step(version=1)
def cloze_after(encoder: Encoder, facts: Sequence[Fact]) -> pd.DataFrame:
    """Run `cloze.cloze` on every statement of the facts: fact, reserved, recalled, probability, said."""
    said = [(fact.id, statement) for fact in facts for statement in fact.statements]
    found = cloze.cloze(encoder, [statement for _, statement in said])
    return pd.DataFrame(
        {"fact": id_, "reserved": statement.reserved, **one._asdict()}
        for (id_, statement), one in zip(said, found, strict=True)
    )
