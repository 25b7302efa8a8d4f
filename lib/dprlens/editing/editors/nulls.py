"""Null arms: edits that cannot teach the model the facts; no editor may claim their changes for itself.

They are no edit at all; as many unrelated facts by the same editor (sham); and a random change of the same size: in
every matrix of the same Frobenius norm and rank as the editor's own change, in every vector of the same norm.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dprlens.bert.encoder import Encoder
from dprlens.editing.editors.objective import Editor, copy_model, rewritten, told_once
from dprlens.world.records import Fact


class Nothing:
    """Null arm without an edit."""

    def edit(self, encoder: Encoder, facts: Sequence[Fact]) -> Encoder:  # noqa: ARG002
        """Copy the encoder."""
        return rewritten(encoder, copy_model(encoder))


class Unrelated:
    """Null arm with as many unrelated facts, by the same editor."""

    def __init__(self, editor: Editor, others: Sequence[Fact]) -> None:
        self.editor, self.others = editor, others

    def edit(self, encoder: Encoder, facts: Sequence[Fact]) -> Encoder:
        """Edit in as many unrelated facts.

        Raises ValueError if there are fewer unrelated facts than facts, or one of them is among the facts.
        """
        wanted, ids = len(told_once(facts)), {fact.id for fact in facts}
        if wanted > len(self.others):
            raise ValueError(f"{wanted} facts but {len(self.others)} unrelated ones; edit fewer")
        if shared := [fact.id for fact in self.others[:wanted] if fact.id in ids]:
            raise ValueError(f"fact {shared[0]!r} is to be edited and called unrelated; leave one of them out")
        return self.editor.edit(encoder, self.others[:wanted])


class RandomChange:
    """Null arm with a random change of the size of the editor's own."""

    def __init__(self, editor: Editor, seed: int = 0) -> None:
        self.editor, self.seed = editor, seed

    def edit(self, encoder: Encoder, facts: Sequence[Fact]) -> Encoder:
        """Change the weights at random, as much as the editor's edit of the facts does."""
        model = copy_model(self.editor.edit(encoder, facts))
        generator = torch.Generator().manual_seed(self.seed)
        before = encoder.model.state_dict()
        with torch.no_grad():
            for name, weights in model.named_parameters():
                old = torch.zeros_like(weights)
                kept = tuple(slice(0, size) for size in before[name].shape)  # an editor may have added neurons
                old[kept] = before[name]
                change = (weights - old).float().cpu()
                if change.any():
                    weights.copy_(old + _as_large(change, old.shape != before[name].shape, generator).to(old))
        return rewritten(encoder, model)


def _as_large(change: Tensor, widened: bool, generator: torch.Generator) -> Tensor:
    """Draw a random tensor of the same norm, and, of a matrix, the same rank; new neurons keep their norms."""
    if change.dim() < 2 or widened:
        drawn = torch.randn(change.shape, generator=generator) * (change != 0)
        axis = _neurons(change) if change.dim() == 2 else None
        norms = change.norm(dim=axis, keepdim=axis is not None), drawn.norm(dim=axis, keepdim=axis is not None)
        return drawn * torch.nan_to_num(norms[0] / norms[1])
    rank = int(torch.linalg.matrix_rank(change))
    left, right = (torch.randn(size, max(rank, 1), generator=generator) for size in change.shape)
    drawn = left @ right.T
    return drawn * (change.norm() / drawn.norm())


def _neurons(change: Tensor) -> int:
    """Choose the axis to take norms over, one per neuron: the shorter one of a feed-forward's matrix."""
    return int(change.shape[0] > change.shape[1])
