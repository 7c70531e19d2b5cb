"""Optimizers by name. They share the interface and the state of those in `torch.optim`, whose
constructors import torch's compiler: every process that trains would wait seconds for it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

OptimizerName = Literal["adam", "muon"]
# torch's defaults.
BETAS, EPS = (0.9, 0.999), 1e-8
# Jordan et al. (2024): the averaging of gradients, the coefficients of the iteration and its number of
# steps; Liu et al. (2025): the size of a step of Adam, in learning rates.
MOMENTUM, QUINTIC, ITERATIONS, SMALLEST_NORM = 0.95, (3.4445, -4.7750, 2.0315), 5, 1e-7
ADAM_SIZE = 0.2


class Optimizer(ABC):
    """What moves parameters along their gradients.

    Args:
        parameters: what is trained.
        lr: the learning rate.
        weight_decay: decoupled weight decay (Loshchilov & Hutter 2019).

    Attributes:
        param_groups: one group, the parameters and their settings.
        state: what is known about each parameter's gradients; empty before its first step.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float
    ) -> None:
        group = {"params": list(parameters), "lr": lr, "weight_decay": weight_decay}
        self.param_groups: list[dict[str, Any]] = [group]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = defaultdict(dict)

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        group = self.param_groups[0]
        gradients = {part: part.grad for part in group["params"] if part.grad is not None}
        if gradients:
            self._move(gradients, group["lr"], group["weight_decay"])

    @abstractmethod
    def _move(
        self, gradients: dict[nn.Parameter, Tensor], lr: float, weight_decay: float
    ) -> None: ...

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The settings and the state, with parameters by their places."""
        parameters = self.param_groups[0]["params"]
        places = range(len(parameters))
        return {
            "state": {k: self.state[parameters[k]] for k in places if parameters[k] in self.state},
            "param_groups": [{**self.param_groups[0], "params": list(places)}],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, of this class or of its namesake in `torch.optim`.

        Raises:
            ValueError: if it is that of other parameters.
        """
        parameters, saved = self.param_groups[0]["params"], state["param_groups"][0]
        if len(saved["params"]) != len(parameters):
            raise ValueError(
                f"expected the state of {len(parameters)} parameters; got {len(saved['params'])}"
            )
        self.param_groups[0] |= {name: saved[name] for name in ("lr", "weight_decay")}
        self.state.clear()
        for place, known in state["state"].items():
            like = parameters[place]
            self.state[like] = {
                name: value.clone() if name == "step" else value.to(like, copy=True)
                for name, value in known.items()
            }


class Adam(Optimizer):
    """AdamW (Loshchilov & Hutter 2019), by torch's function, which on a CPU is a single kernel.

    Example:
        >>> x = nn.Parameter(torch.tensor([3.0]))
        >>> optimizer = Adam([x], lr=0.1, weight_decay=0.0)
        >>> (x**2).sum().backward()
        >>> optimizer.step()
        >>> round(x.item(), 4)
        2.9
    """

    def _move(self, gradients: dict[nn.Parameter, Tensor], lr: float, weight_decay: float) -> None:
        states = [self._known(parameter) for parameter in gradients]
        adamw(
            list(gradients),
            list(gradients.values()),
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True if all(part.device.type == "cpu" for part in gradients) else None,
            amsgrad=False, beta1=BETAS[0], beta2=BETAS[1], lr=lr, weight_decay=weight_decay,
            eps=EPS, maximize=False,
        )  # fmt: skip

    def _known(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


class Muon(Optimizer):
    """Steps of a matrix along the nearest orthogonal matrix of its averaged gradient (Jordan et al.
    2024), scaled to the size of a step of Adam (Liu et al. 2025).

    torch's class finds that matrix in bfloat16, in which many processors multiply ten times slower.

    Example:
        >>> x = nn.Parameter(torch.zeros(2, 2))
        >>> optimizer = Muon([x], lr=1.0, weight_decay=0.0)
        >>> x.grad = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
        >>> optimizer.step()
        >>> bool((x.diag() < -0.15).all())
        True
    """

    def _move(self, gradients: dict[nn.Parameter, Tensor], lr: float, weight_decay: float) -> None:
        for parameter, gradient in gradients.items():
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            average = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
            step = orthogonal(gradient.lerp(average, MOMENTUM))
            size = ADAM_SIZE * math.sqrt(max(parameter.shape))
            parameter.mul_(1 - lr * weight_decay).add_(step.to(parameter), alpha=-lr * size)


def orthogonal(x: Tensor) -> Tensor:
    """The matrix with the singular vectors of x whose singular values are nearly one, in float32.

    A few Newton-Schulz steps with a quintic polynomial take them to between a half and three halves
    (Jordan et al. 2024).
    """
    a, b, c = QUINTIC
    wide = x.T.float() if len(x) > x.shape[1] else x.float()
    wide = wide / wide.norm().clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if len(x) > x.shape[1] else wide


def check_optimizer(name: str) -> None:
    """Raise a ValueError for an unknown name."""
    if name not in get_args(OptimizerName):
        raise ValueError(f"optimizer: expected {', '.join(get_args(OptimizerName))}; got {name!r}")


def optimizers(
    module: nn.Module, name: OptimizerName, *, weight_decay: float
) -> tuple[Optimizer, ...]:
    """Optimizers that divide the parameters of a module; their learning rate is still zero.

    "adam" is `Adam`. "muon" is `Muon` for every matrix and `Adam` for the other parameters. Such a step
    costs a few products of the matrices with themselves, but makes more progress, which pays if the
    gradient itself is expensive.

    Example:
        >>> [type(part).__name__ for part in optimizers(nn.Linear(2, 3), "muon", weight_decay=0.0)]
        ['Muon', 'Adam']
    """
    parameters = list(module.parameters())
    matrices = [parameter for parameter in parameters if name == "muon" and parameter.ndim == 2]
    others = [parameter for parameter in parameters if name == "adam" or parameter.ndim != 2]
    shared = {"lr": 0.0, "weight_decay": weight_decay}
    by_matrices = (Muon(matrices, **shared),) if matrices else ()
    return (*by_matrices, Adam(others, **shared)) if others else by_matrices
