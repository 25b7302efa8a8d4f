"""Muon in float32, and the choice of its precision on this machine.

PyTorch's Muon makes its matrices orthogonal in bfloat16. Where a processor has no instructions for that, each step
takes several times as long as in float32. Models of either precision are as good as each other, but not the same:
rounding in every step leads training elsewhere, as another seed does.
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Generic, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

from dprlens.cache.artifacts import Step, Task, vars_of
from dprlens.cache.events import sibling

Precision = Literal["bfloat16", "float32"]
P = ParamSpec("P")
R = TypeVar("R")
PRECISIONS = ("bfloat16", "float32")
QUINTIC = (3.4445, -4.7750, 2.0315)  # a, b, c of Jordan et al. 2024: five steps bring singular values near 1
STEPS, MOMENTUM = 5, 0.95


class Muon(torch.optim.Optimizer):
    """The Muon optimiser in the precision of the weights: momentum, orthogonalised by Newton–Schulz.

    M ← μM + (1 − μ)G;  U = (1 − μ)G + μM;  W ← W − η √max(1, rows/columns) · NS(U), with M = 0 at first and no weight
    decay: what `torch.optim.Muon` does in bfloat16 (Jordan et al. 2024). Raises ValueError for weights that are no
    matrix.
    """

    def __init__(self, matrices: Iterable[Tensor], lr: float, momentum: float = MOMENTUM) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})
        for weights in (weights for group in self.param_groups for weights in group["params"]):
            if weights.ndim != 2:
                raise ValueError(f"Muon learns matrices, and weights of shape {tuple(weights.shape)} came")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002, schedulers expect it
        """Take one step by the gradients; weights without one stay as they are."""
        for group in self.param_groups:
            for weights in (one for one in group["params"] if one.grad is not None):
                kept = self.state[weights].setdefault("momentum", torch.zeros_like(weights))
                kept.lerp_(weights.grad, 1 - group["momentum"])
                update = orthogonal(weights.grad.lerp(kept, group["momentum"]))
                rows, columns = weights.shape
                weights.sub_(update, alpha=group["lr"] * math.sqrt(max(1.0, rows / columns)))


def orthogonal(matrix: Tensor) -> Tensor:
    """Orthogonalise a matrix by Newton–Schulz, which keeps its singular vectors.

    Singular values become about 1 (0.7 to 1.2). From X = M / ‖M‖, five times X ← aX + (bA + cA²)X with A = XXᵀ; of a
    tall matrix, its transpose.
    """
    a, b, c = QUINTIC
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / wide.norm().clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + torch.addmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def muon(matrices: Iterable[Tensor], learning_rate: float, precision: Precision) -> torch.optim.Optimizer:
    """Make a Muon optimiser of a precision: PyTorch's own for bfloat16, `Muon` for float32."""
    if precision == "float32":
        return Muon(matrices, learning_rate)
    return torch.optim.Muon(matrices, learning_rate, weight_decay=0.0, momentum=MOMENTUM)


def bfloat16_is_quick() -> bool:
    """Test whether this machine has its own instructions to multiply matrices of bfloat16."""
    known = torch.cpu.get_capabilities()
    return torch.cuda.is_available() or any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


class QuickStep(Generic[P, R]):
    """A cached step that trains with Muon, in float32 where bfloat16 is slow; made by `in_quick_precision`."""

    __name__: str

    def __init__(self, as_asked: Step[P, R], needed: Callable[[dict[str, Any]], bool]) -> None:
        functools.update_wrapper(self, as_asked)
        self.as_asked, self.needed = as_asked, needed

    def __reduce__(self) -> str:
        return self.as_asked.function.__qualname__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the step's result, in float32 where bfloat16 is slow."""
        if (instead := self.in_float32(*args, **kwargs)) is None:
            return self.as_asked(*args, **kwargs)
        sibling(self.__name__)
        step: Callable[..., R] = self.as_asked
        return step(*instead)

    def record(self, *args: P.args, **kwargs: P.kwargs) -> dict | None:
        """Return the metadata of the artifact, as `Step.record`."""
        record: Callable[..., dict | None] = self.as_asked.record
        instead = self.in_float32(*args, **kwargs)
        return record(*args, **kwargs) if instead is None else record(*instead)

    def in_float32(self, *args: P.args, **kwargs: P.kwargs) -> list[Any] | None:
        """Return the arguments with Muon in float32; None where the given ones are to be used."""
        step = self.as_asked
        asked = step.arguments(*args, **kwargs)
        slow = any(_in_bfloat16(value) for value in asked.values())
        if not slow or bfloat16_is_quick() or step.record(*args, **kwargs) is not None or not self.needed(asked):
            return None
        bound = step.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return [_to_float32(value) for value in bound.arguments.values()]


def in_quick_precision(
    needed: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> Callable[[Step[P, R]], QuickStep[P, R]]:
    """Decorate a cached step that trains with Muon, to choose Muon's precision by the machine.

    It is the only place where the machine decides. An argument (or a task's field) with a field `muon`, a spec, that
    requests bfloat16 is changed to float32 if bfloat16 is slow here and the cache has no artifact of the step as
    requested. `needed(arguments)` says whether Muon would run at all; `arguments` are by name, as the key has them
    (`artifacts.Step.arguments`). The result is then a sibling of the network on record, its key says so, and the reader
    is informed (`artifacts.sibling`).
    """
    return lambda step: QuickStep(step, needed)


def _in_bfloat16(value: object) -> bool:
    return getattr(value, "muon", None) == "bfloat16"


def _to_float32(value: Any) -> Any:
    """Change a spec that requests bfloat16, alone or in a task, to float32; return anything else as it is."""
    if isinstance(value, Task):
        return replace(value, **{name: _to_float32(field) for name, field in vars_of(value).items()})
    return replace(value, muon="float32") if _in_bfloat16(value) else value
