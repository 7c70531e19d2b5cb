"""The tensors that a module has at one moment."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.func import functional_call

Answer = TypeVar("Answer")


class HeldTensors:
    """The tensors of a module at the time of construction, for later calls.

    `functional_call` replaces the tensors of a module during one call, but its result is used
    after the module has its own tensors again. This object uses the replaced tensors. If the
    module has been changed since, by training, by `to` or by other parts, its present tensors are
    used.

    Args:
        module: the module.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> other = {"weight": layer.weight + 1}
        >>> class Later(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = layer
        ...     def forward(self):
        ...         held = HeldTensors(layer)
        ...         return lambda: held.answer(lambda: layer.weight)
        >>> later = functional_call(Later(), {"layer.weight": other["weight"]}, ())
        >>> (later() - layer.weight).item()
        1.0
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.held = [
            (path, owner, name, tensor)
            for path, owner in module.named_modules()
            for name, tensor in _own_tensors(owner)
        ]

    def answer(self, question: Callable[[], Answer]) -> Answer:
        """The result of a function while the module has the replaced tensors."""
        lent = {
            f"module.{path}.{name}" if path else f"module.{name}": tensor
            for path, owner, name, tensor in self.held
            if self.module.get_submodule(path) is owner and _taken_back(owner, name, tensor)
        }
        return functional_call(_Asked(self.module), lent, (question,)) if lent else question()


class _Asked(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, question: Callable[[], Any]) -> Any:
        return question()


def _own_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    parts = chain(module._parameters.items(), module._buffers.items())
    return [(name, tensor) for name, tensor in parts if tensor is not None]


def _taken_back(owner: nn.Module, name: str, tensor: Tensor) -> bool:
    """Whether another tensor is in the place of one; a buffer that `to` has moved is not."""
    if name in owner._parameters:
        return owner._parameters[name] is not tensor
    now = owner._buffers.get(name)
    moved = now is None or (now.dtype, now.device) != (tensor.dtype, tensor.device)
    return not moved and now is not tensor
