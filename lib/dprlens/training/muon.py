"""Muon in float32, and which precision of Muon a step takes on this machine.

PyTorch's Muon makes its matrices orthogonal in bfloat16. Where a processor has no instructions for that, each step
takes several times as long as in float32. Models of either precision are as good as each other, but not the same:
rounding in every step leads training elsewhere, as another seed does.
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from dprlens.artifacts import Step, Task, sibling, vars_of

Precision = Literal["bfloat16", "float32"]
PRECISIONS = ("bfloat16", "float32")
QUINTIC = (3.4445, -4.7750, 2.0315)  # a, b, c of Jordan et al. 2024: five steps bring singular values near 1
STEPS, MOMENTUM = 5, 0.95


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal by Newton–Schulz, in the precision of the weights (Jordan et al. 2024).

    M ← μM + (1 − μ)G;  U = (1 − μ)G + μM;  W ← W − η √max(1, rows/columns) · NS(U), with M = 0 at first and no weight
    decay: what `torch.optim.Muon` does in bfloat16. Raises ValueError for weights that are no matrix.
    """

    def __init__(self, matrices: Iterable[Tensor], lr: float, momentum: float = MOMENTUM) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})
        for weights in (weights for group in self.param_groups for weights in group["params"]):
            if weights.ndim != 2:
                raise ValueError(f"Muon learns matrices, and weights of shape {tuple(weights.shape)} came")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # noqa: ARG002, schedulers expect it
        """Take one step by the gradients; weights without one stay as they are."""
        for group in self.param_groups:
            for weights in (one for one in group["params"] if one.grad is not None):
                kept = self.state[weights].setdefault("momentum", torch.zeros_like(weights))
                kept.lerp_(weights.grad, 1 - group["momentum"])
                update = orthogonal(weights.grad.lerp(kept, group["momentum"]))
                rows, columns = weights.shape
                weights.sub_(update, alpha=group["lr"] * math.sqrt(max(1.0, rows / columns)))


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix of the same singular vectors, whose singular values are about 1 (0.7 to 1.2): Newton–Schulz.

    From X = M / ‖M‖, five times X ← aX + (bA + cA²)X with A = XXᵀ; of a tall matrix, its transpose.
    """
    a, b, c = QUINTIC
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / wide.norm().clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + torch.addmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def muon(matrices: Iterable[Tensor], learning_rate: float, precision: Precision) -> torch.optim.Optimizer:
    """Muon of a precision: PyTorch's own, or the one above."""
    if precision == "float32":
        return Muon(matrices, learning_rate)
    return torch.optim.Muon(matrices, learning_rate, weight_decay=0.0, momentum=MOMENTUM)


def bfloat16_is_quick() -> bool:
    """Does this machine multiply matrices of bfloat16 by instructions of its own?"""
    known = torch.cpu.get_capabilities()
    return torch.cuda.is_available() or any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def in_quick_precision(needed: Callable[[dict[str, object]], bool] = lambda _: True) -> Callable:
    """Decorator of a cached step that trains with Muon: the one place where a machine has a say in its precision.

    An argument (or a task's field) with a field `muon`, a spec, that asks for bfloat16 is asked for float32 instead if
    bfloat16 is slow here and no artifact of the step is there as it was asked for. `needed(arguments)` says whether
    Muon would run at all; `arguments` are by name, as the key has them (`artifacts.Step.arguments`). What then comes
    back is a sibling of the network on record, its key says so, and the reader is told (`artifacts.sibling`).
    """

    def decorate(step: Step) -> Callable:
        def in_float32(*args, **kwargs) -> dict | None:
            """The arguments in float32, by name; None to take them as they came."""
            asked = step.arguments(*args, **kwargs)
            slow = any(_in_bfloat16(value) for value in asked.values())
            if not slow or bfloat16_is_quick() or step.record(*args, **kwargs) is not None or not needed(asked):
                return None
            bound = step.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return {name: _to_float32(value) for name, value in bound.arguments.items()}

        @functools.wraps(step)
        def cached(*args, **kwargs):
            if (instead := in_float32(*args, **kwargs)) is None:
                return step(*args, **kwargs)
            sibling(step.__name__)
            return step(**instead)

        def record(*args, **kwargs) -> dict | None:
            instead = in_float32(*args, **kwargs)
            return step.record(*args, **kwargs) if instead is None else step.record(**instead)

        cached.record, cached.as_asked, cached.in_float32 = record, step, in_float32
        return cached

    return decorate


def _in_bfloat16(value: object) -> bool:
    return getattr(value, "muon", None) == "bfloat16"


def _to_float32(value: object) -> object:
    """A spec that asks for bfloat16, alone or in a task, in float32; anything else as it is."""
    if isinstance(value, Task):
        return replace(value, **{name: _to_float32(field) for name, field in vars_of(value).items()})
    return replace(value, muon="float32") if _in_bfloat16(value) else value
