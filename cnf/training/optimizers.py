"""Optimizers by name."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

OptimizerName = Literal["adam", "muon"]


def check_optimizer(name: str) -> None:
    """Raise a ValueError for an unknown name."""
    if name not in get_args(OptimizerName):
        raise ValueError(f"optimizer: expected {', '.join(get_args(OptimizerName))}; got {name!r}")


def optimizers(
    module: nn.Module, name: OptimizerName, *, weight_decay: float
) -> tuple[Optimizer, ...]:
    """Optimizers that divide the parameters of a module; their learning rate is still zero.

    "adam" is AdamW. "muon" replaces the averaged gradient of every matrix by the nearest orthogonal
    one, scaled to the size of a step of Adam (Jordan et al. 2024; Liu et al. 2025), and leaves the other
    parameters to AdamW. Such a step costs a few products of the matrices with themselves, but makes more
    progress, which pays if the gradient itself is expensive.

    Example:
        >>> [type(part).__name__ for part in optimizers(nn.Linear(2, 3), "muon", weight_decay=0.0)]
        ['Muon', 'AdamW']
    """
    parameters = list(module.parameters())
    matrices = [parameter for parameter in parameters if name == "muon" and parameter.ndim == 2]
    others = [parameter for parameter in parameters if name == "adam" or parameter.ndim != 2]
    shared: dict[str, Any] = {"lr": 0.0, "weight_decay": weight_decay}
    by_matrices = (Muon(matrices, adjust_lr_fn="match_rms_adamw", **shared),) if matrices else ()
    return (*by_matrices, AdamW(others, **shared)) if others else by_matrices
