"""Editors of facts: Transformer-Patcher, MEND and MALMEN for BERT's masked-LM, plain baselines, and null arms.

    `.edit(encoder, facts)`   a new encoder that has been told the facts; the one given stays bit for bit what it was

A fact is told by its statements that are not reserved: its object may be the true one (to add it), or a false one (to
remove what is true). No facts, no change. A fact that is given twice is told once; two facts that contradict each other
are refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dprlens.bert.encoder import Encoder
from dprlens.editing.editors.finetuning import Finetuning, FinetuningSpec, Rehearsal, RehearsalSpec
from dprlens.editing.editors.malmen import Malmen, MalmenSpec
from dprlens.editing.editors.mend import Mend, MendSpec
from dprlens.editing.editors.nulls import Nothing, RandomChange, Unrelated
from dprlens.editing.editors.objective import Editor
from dprlens.editing.editors.transformer_patcher import PatcherSpec, TransformerPatcher
from dprlens.world.closed import Segment
from dprlens.world.records import Fact, Statement


@dataclass(frozen=True)
class EditorSpecs:
    """The spec of every editor, by its name in `EDITORS`."""

    transformer_patcher: PatcherSpec = field(default_factory=PatcherSpec)
    malmen: MalmenSpec = field(default_factory=MalmenSpec)
    mend: MendSpec = field(default_factory=MendSpec)
    finetuning: FinetuningSpec = field(default_factory=FinetuningSpec)
    rehearsal: RehearsalSpec = field(default_factory=RehearsalSpec)
    relearning: RehearsalSpec = field(default_factory=lambda: RehearsalSpec(learning_rate=None))
    nothing: None = None


EditorSpec = PatcherSpec | MalmenSpec | MendSpec | FinetuningSpec | RehearsalSpec | None


class Material(NamedTuple):
    """What editors may use besides the facts that they are to tell; disjoint from all that is evaluated."""

    practice: tuple[Fact, ...]  # with false objects: hypernetworks learn to edit on them
    kept: tuple[Statement, ...]  # what the model says of these should not change
    text: tuple[Segment, ...]  # of pre-training, for rehearsal


HYPERNETWORKS = {"malmen": Malmen, "mend": Mend}  # learn to edit one model first: `.trained(encoder, …)`

# From a name to what makes the editor of a spec (the one of that name) and a seed, for an encoder.
EDITORS: Mapping[str, Callable[[Any, Material, Encoder, int], Editor]] = {
    "transformer_patcher": lambda spec, material, _, seed: TransformerPatcher(spec, material.kept, seed),
    "malmen": lambda spec, material, on, seed: Malmen.trained(on, material.practice, material.kept, spec, seed),
    "mend": lambda spec, material, on, seed: Mend.trained(on, material.practice, material.kept, spec, seed),
    "finetuning": lambda spec, _, __, seed: Finetuning(spec, seed),
    "rehearsal": lambda spec, material, _, seed: Rehearsal(spec, material.text, seed),
    "relearning": lambda spec, material, _, seed: Rehearsal(spec, material.text, seed),
    "nothing": lambda *_: Nothing(),
}
NULLS = ("unrelated", "random")  # of an editor: `Unrelated`, `RandomChange`


def sequentially(editor: Editor, encoder: Encoder, facts: Sequence[Fact]) -> Encoder:
    """One fact after the other, each told to the model that has been told the ones before."""
    for fact in facts:
        encoder = editor.edit(encoder, [fact])
    return encoder
