"""A decorator that enables gradients during a fit, whatever mode the caller has set."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import nn

Function = TypeVar("Function", bound=Callable[..., Any])


def with_gradients(function: Function) -> Function:
    """Decorator: the function runs with gradients enabled, even under `no_grad` and `inference_mode`.

    Example:
        >>> @with_gradients
        ... def slope(x):
        ...     x = x.clone().requires_grad_()
        ...     (x**2).backward()
        ...     return x.grad.item()
        >>> with torch.inference_mode():
        ...     slope(torch.tensor(3.0))
        6.0
    """

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        with torch.inference_mode(mode=False), torch.enable_grad():
            for argument in (*arguments, *named.values()):
                if isinstance(argument, nn.Module):
                    _make_trainable(argument)
            return function(*arguments, **named)

    return cast("Function", called)


def _make_trainable(module: nn.Module) -> None:
    """Replace tensors that were created in inference mode by copies, which can be trained."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_inference():
                part._parameters[name] = nn.Parameter(parameter.clone())
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_inference():
                part._buffers[name] = buffer.clone()
