"""MALMEN (Tan et al. 2024): a ridge regression that reconciles the output changes wished by all rows.

With keys K [row, in] (the inputs x) and wishes D [row, out], d = −η (x · x̃) δ̃, the change S [in, out] minimises
‖K S − D‖² + λ ‖S‖², so that S = (KᵀK + λ I)⁻¹ Kᵀ D, and W ← W + Sᵀ (F.2). Its gradients are closed formulas, so that no
graph leads through the solution (F.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dprlens.editing.editors.hypernetwork import ROWS, Hypernetwork, HypernetworkSpec, LowRank, Rows, Shape, Site
from dprlens.ranges import POSITIVE, check


@dataclass(frozen=True)
class MalmenSpec(HypernetworkSpec):
    """MALMEN's own settings."""

    blocks: int = 6  # published: 6 (of bert-large's 24)
    sites: tuple[str, ...] = ("output",)  # published: output
    rank: int = 64
    told: int = 4  # published: 1
    learning_rate: float = 1e-4  # published: 1e-5, also of η and λ
    edit_weight: float = 1.0  # published: 1
    locality_weight: float = 1.0  # published: 1
    clip: float = 1.0  # published: 1
    eta: float = 1e-3  # η at first; published: 1e-6
    penalty: float = 30.0  # λ at first; published: 1
    ridge_learning_rate: float = 0.03  # of log λ, and of η as a multiple of its start; published: `learning_rate`
    inflated: bool = False  # the published code's standard deviations, which are too large (F.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, POSITIVE, "eta", "penalty", "ridge_learning_rate")


class MalmenBlock(LowRank):
    """Residual block of MALMEN: y + s ∘ max(0, U V y + b) + o."""

    def forward(self, z: Tensor, module: int) -> Tensor:
        """Apply the block to rows z [row, width] of the linear map with number `module`."""
        return z + self.scale[module] * self.linear(z).clamp(min=0) + self.shift[module]


def ridge(keys: Tensor, wishes: Tensor, penalty: Tensor) -> Tensor:
    """Minimise ‖K S − D‖² + λ ‖S‖² by S [in, out], in float64, through the smaller of two linear systems."""
    keys, wishes = keys.double(), wishes.double()
    if len(keys) < keys.shape[1]:
        return keys.T @ torch.linalg.solve(_damped(keys @ keys.T, penalty), wishes)
    return torch.linalg.solve(_damped(keys.T @ keys, penalty), keys.T @ wishes)


def ridge_gradients(keys: Tensor, change: Tensor, penalty: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ∂L/∂D [row, out] and ∂L/∂ log λ, given S and ∂L/∂S [in, out].

    With M = (KᵀK + λ I)⁻¹ ∂L/∂S these are K M and −λ ⟨M, S⟩.
    """
    keys = keys.double()
    m = torch.linalg.solve(_damped(keys.T @ keys, penalty), gradient.double())
    return keys @ m, -penalty * (m * change).sum()


def _damped(gram: Tensor, penalty: Tensor) -> Tensor:
    return gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


class Malmen(Hypernetwork):
    """MALMEN for BERT's masked-LM; `eta` and `log_penalty` hold η and log λ by kind of site, [edited block]."""

    spec: MalmenSpec
    Spec, Block, masks_only = MalmenSpec, MalmenBlock, True

    def __init__(self, spec: MalmenSpec, shape: Shape, seed: int = 0) -> None:
        super().__init__(spec, shape, seed, spec.inflated)
        self.eta = self.at_sites(spec.eta)
        self.log_penalty = self.at_sites(float(torch.tensor(spec.penalty).log()))

    def groups(self) -> list[dict]:
        """Group the parameters, with their learning rates, for the optimiser."""
        rate = self.spec.ridge_learning_rate
        return [
            {"params": list(self.trunks.parameters()), "lr": self.spec.learning_rate},
            {"params": list(self.eta.parameters()), "lr": rate * self.spec.eta},
            {"params": list(self.log_penalty.parameters()), "lr": rate},
        ]

    def wishes(self, site: Site, x: Tensor, delta: Tensor) -> Tensor:
        """Compute D [row, out]: pseudo-gradients weighted by the product of input and pseudo-input."""
        block, kind = site[0] - self.first, site[1]
        pseudo_x, pseudo_delta = self.trunks[kind](x, delta, block)
        return -self.eta[kind][block] * (x * pseudo_x).sum(1, keepdim=True) * pseudo_delta

    @torch.no_grad()
    def change(self, site: Site, rows: Rows, share: Tensor) -> Tensor:  # noqa: ARG002
        """Compute the change of the weight at a site: [out, in]."""
        parts = zip(rows.x.split(ROWS), rows.delta.split(ROWS), strict=True)
        wishes = torch.cat([self.wishes(site, x, delta) for x, delta in parts])
        return ridge(rows.x, wishes, self._penalty(site)).T.to(rows.x.dtype)

    def teach(
        self, rows: Mapping[Site, Rows], changes: Mapping[Site, Tensor], gradients: Mapping[Site, Tensor]
    ) -> None:
        """Backpropagate the gradients by the changed weights to the hypernetwork's parameters."""
        for site, (x, delta, _) in rows.items():
            log_penalty = self.log_penalty[site[1]]
            by_wish, by_log = ridge_gradients(x, changes[site].T, self._penalty(site), gradients[site].T)
            by_logs = torch.zeros_like(log_penalty)
            by_logs[site[0] - self.first] = by_log
            log_penalty.grad = by_logs if log_penalty.grad is None else log_penalty.grad + by_logs
            for part in zip(x.split(ROWS), delta.split(ROWS), by_wish.to(x.dtype).split(ROWS), strict=True):
                self.wishes(site, *part[:2]).backward(part[2])

    def _penalty(self, site: Site) -> Tensor:
        """Compute λ at a site, a float64 without gradient."""
        return self.log_penalty[site[1]][site[0] - self.first].detach().double().exp()
