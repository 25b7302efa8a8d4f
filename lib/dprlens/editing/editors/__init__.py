"""Editors of facts: Transformer-Patcher, MEND and MALMEN for BERT's masked-LM, baselines, and null arms.

    `.edit(encoder, facts)`   a new encoder with the facts edited in; the given one stays the same, bit for bit

A fact is edited in by its statements that are not reserved: its object may be the true one (to add it), or a false one
(to remove the true one). No facts, no change. Duplicates count once; two facts that contradict each other are refused.
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
    """Specs of all editors, by their names in `EDITORS`."""

    transformer_patcher: PatcherSpec = field(default_factory=PatcherSpec)
    malmen: MalmenSpec = field(default_factory=MalmenSpec)
    mend: MendSpec = field(default_factory=MendSpec)
    finetuning: FinetuningSpec = field(default_factory=FinetuningSpec)
    rehearsal: RehearsalSpec = field(default_factory=RehearsalSpec)
    relearning: RehearsalSpec = field(default_factory=lambda: RehearsalSpec(learning_rate=None))
    nothing: None = None


EditorSpec = PatcherSpec | MalmenSpec | MendSpec | FinetuningSpec | RehearsalSpec | None


class Material(NamedTuple):
    """Data for editors besides the facts to be edited in; disjoint from all that is evaluated."""

    practice: tuple[Fact, ...]  # with false objects: hypernetworks learn to edit on them
    kept: tuple[Statement, ...]  # whose completions should not change
    text: tuple[Segment, ...]  # of pre-training, for rehearsal


HYPERNETWORKS = {"malmen": Malmen, "mend": Mend}  # learn to edit one model first: `.trained(encoder, …)`

# {name: function that makes the editor from its spec, material, encoder and seed}
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
    """Edit in one fact after another, each into the model edited before."""
    for fact in facts:
        encoder = editor.edit(encoder, [fact])
    return encoder
