"""MEND (Mitchell et al. 2022): a weight's change as a sum of products of pseudo-gradients and pseudo-inputs.

W ← W − α Σ_b δ̃_b x̃_bᵀ over all (statement, token) pairs b. Our sign is that of the paper's algorithm, a descent; the
authors' code adds, and training has to reverse the direction (E.2). A fact's rows are divided by its number of
statements, so that a fact with more statements has no greater weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dprlens.editing.editors.hypernetwork import ROWS, Hypernetwork, HypernetworkSpec, LowRank, Rows, Shape, Site
from dprlens.ranges import POSITIVE, check


@dataclass(frozen=True)
class MendSpec(HypernetworkSpec):
    """MEND's own settings.

    The published learning rates are for n = 3840 and 100,000 updates, ours for n = 640 and hundreds.
    """

    blocks: int = 3  # published: 3, blocks 9 to 11
    sites: tuple[str, ...] = ("intermediate", "output")  # published: both
    rank: int = 64
    learning_rate: float = 1e-4  # published: 1e-6
    edit_weight: float = 1.0  # published: 0.1
    locality_weight: float = 1.0  # published: 1
    clip: float = 100.0  # published: 100
    alpha: float = 4e-4  # at first; published: 1e-4
    alpha_learning_rate: float = 1e-5  # published: 1e-4 is meant, but by the order of the optimisers 1e-6 acts (E.4)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, POSITIVE, "alpha", "alpha_learning_rate")


class MendBlock(LowRank):
    """Residual block of MEND: z + max(0, s ∘ (U V z + b) + o)."""

    def forward(self, z: Tensor, module: int) -> Tensor:
        """Apply the block to rows z [row, width] of the linear map with number `module`."""
        return z + (self.scale[module] * self.linear(z) + self.shift[module]).clamp(min=0)


class Mend(Hypernetwork):
    """MEND for BERT's masked-LM; `alpha` holds the learned step sizes by kind of site, [edited block]."""

    spec: MendSpec
    Spec, Block, masks_only = MendSpec, MendBlock, False

    def __init__(self, spec: MendSpec, shape: Shape, seed: int = 0) -> None:
        super().__init__(spec, shape, seed)
        self.alpha = self.at_sites(spec.alpha)

    def change(self, site: Site, rows: Rows, share: Tensor) -> Tensor:
        """Compute the change of the weight at a site: [out, in]."""
        block, kind = site[0] - self.first, site[1]
        total = torch.zeros((), dtype=rows.x.dtype, device=rows.x.device)
        for x, delta, statement in zip(*(of.split(ROWS) for of in rows), strict=True):
            pseudo_x, pseudo_delta = self.trunks[kind](x, delta, block)
            total = total + (pseudo_delta * share[statement, None]).T @ pseudo_x
        return -self.alpha[kind][block] * total

    def teach(
        self,
        rows: Mapping[Site, Rows],  # noqa: ARG002
        changes: Mapping[Site, Tensor],
        gradients: Mapping[Site, Tensor],
    ) -> None:
        """Backpropagate the gradients by the changed weights to the hypernetwork's parameters."""
        torch.autograd.backward(list(changes.values()), [gradients[site] for site in changes])

    def groups(self) -> list[dict]:
        """Group the parameters, with their learning rates, for the optimiser."""
        others = list(self.trunks.parameters())
        return [
            {"params": others, "lr": self.spec.learning_rate},
            {"params": list(self.alpha.parameters()), "lr": self.spec.alpha_learning_rate},
        ]
