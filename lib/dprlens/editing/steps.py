"""The cached steps of section 4: models are edited, and judged by a probe, by DPR's ranks and by cloze statements.

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
    """What editors may use: facts that no test question is about, half of them to practise on, half to be kept."""
    known = [fact for fact in world.facts if fact.split == "train" and world.may_know(fact.id) and fact.statements]
    order = np.random.default_rng([seed, 0x3A]).permutation(len(known))
    practice = [known[i] for i in order[::2] if known[i].alternatives]
    kept = [statement for i in order[1::2] for statement in known[i].statements if not statement.reserved]
    false = [protocol.with_object(fact, other) for fact in practice for other in fact.alternatives]
    return Material(tuple(false), tuple(kept), tuple(reading(world, text, seed)))


@step(version=1)
def malmen(base: Encoder, world: World, text: TextSpec, spec: MalmenSpec, seed: int) -> Malmen:
    """MALMEN's hypernetwork for the base model."""
    given = material(world, text, seed)
    return Malmen.trained(base, given.practice, given.kept, spec, seed)


@step(version=1)
def mend(base: Encoder, world: World, text: TextSpec, spec: MendSpec, seed: int) -> Mend:
    """MEND's hypernetwork for the base model."""
    given = material(world, text, seed)
    return Mend.trained(base, given.practice, given.kept, spec, seed)


@dataclass(frozen=True)
class Edit(Task):
    """What a model is told, and by which editor."""

    base: Encoder
    world: World
    text: TextSpec
    editor: str
    spec: EditorSpec
    null: str  # "", or a null arm of the editor
    told: tuple[Fact, ...]
    others: tuple[Fact, ...]  # told instead by the null arm "unrelated"
    seed: int


@in_quick_precision(needed=lambda arguments: arguments["spec"].learning_rate is None)
@step(version=1, threads=1)
def edit_model(edit: Edit) -> Encoder:
    """The base model after it was told facts by an editor, or by a null arm of it."""
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
    """The trained hypernetwork of an edit by MALMEN or MEND; it does not depend on the facts that are told.

    Raises TypeError for an edit by another editor.
    """
    if isinstance(edit.spec, MalmenSpec):
        return malmen(edit.base, edit.world, edit.text, _learning(edit.spec), edit.seed)
    if isinstance(edit.spec, MendSpec):
        return mend(edit.base, edit.world, edit.text, _learning(edit.spec), edit.seed)
    raise TypeError(f"the editor {edit.editor!r} has no hypernetwork; give malmen or mend")


def _learning(spec: Spec) -> Spec:
    """What of a hypernetwork's spec has a part in how it learns."""
    return replace(spec, rounds=1, wordings=None)


@step(version=1, threads=1)
def last_features(encoder: Encoder, world: World) -> Features:
    """`steps.features` of the last layer alone."""
    questions = encoder.cls([question.text for question in world.questions])
    passages = encoder.cls(passage_texts(world, range(len(world.passages))))
    return Features(questions.numpy()[None], passages.numpy()[None])


@dataclass(frozen=True)
class Judging(Task):
    """The test questions that judge a model, and the probe that does."""

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
        """The questions of a split with the passages that each chooses from."""
        mined = mined_negatives(self.part, self.negatives)
        return items(self.part, mined, split, self.most, self.seed + reseed)


@step(version=2, libraries=LIBRARIES, on_device=False, threads=1)
def probe_verdicts(
    judging: Judging, fitted_to: Features, applied_to: Sequence[Features], reseed: int = 0
) -> np.ndarray:
    """Is the gold passage chosen? bool [model, n, test question]: a probe fitted to one model, applied to several.

    `reseed` gives the probe other negatives and slots to learn from; what it is tested on stays the same.
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
    """How DPR ranks the passages of the test questions."""

    products: np.ndarray  # [question, choice]: dot products with the passages that the probe chooses from
    place: np.ndarray  # int [question]: rank of the gold passage among all passages, from 0


@step(version=2, libraries=("bm25s", "faiss-cpu"), threads=1)
def rank_passages(judging: Judging, dual: DualEncoder) -> PassageRanks:
    """How DPR ranks the passages of the test questions among all passages of the world."""
    world, part, test = judging.world, judging.part, judging.items("test")
    rows = np.array([[world.place(part.passages[i].id) for i in choices] for choices in test.choices])
    queries = dual.questions(question_texts(part, test.questions)).numpy()
    return PassageRanks(*index_of(dual, world).ranks(queries, rows))


@step(version=1)
def cloze_after(encoder: Encoder, facts: Sequence[Fact]) -> pd.DataFrame:
    """`cloze.cloze` of every statement of the facts: fact, reserved, recalled, probability, said."""
    said = [(fact.id, statement) for fact in facts for statement in fact.statements]
    found = cloze.cloze(encoder, [statement for _, statement in said])
    return pd.DataFrame(
        {"fact": id_, "reserved": statement.reserved, **one._asdict()}
        for (id_, statement), one in zip(said, found, strict=True)
    )
