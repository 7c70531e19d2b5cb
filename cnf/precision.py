"""Arithmetic in the dtype of the tensors, whatever autocast asks for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch

Method = TypeVar("Method", bound=Callable[..., Any])


def outside_autocast(method: Method) -> Method:
    """The method of an object that has a `device`, run outside of autocast.

    A solve takes many steps, each of which would round to half precision, and error bounds hold
    for the dtype of the weights alone.

    Example:
        >>> class Product:
        ...     device = torch.device("cpu")
        ...     @outside_autocast
        ...     def of(self, x):
        ...         return x @ x
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     Product().of(torch.ones(2, 2)).dtype
        torch.float32
    """

    @wraps(method)
    def run(self: Any, *arguments: Any, **options: Any) -> Any:
        with _autocast_off(self.device.type):
            return method(self, *arguments, **options)

    return run  # type: ignore[return-value]


def backward_outside_autocast(backward: Method) -> Method:
    """The same for the `backward` of a `torch.autograd.Function`, whose device is that of its
    cotangents: it may run inside autocast although its forward pass did not."""

    @wraps(backward)
    def run(ctx: Any, *cotangents: Any) -> Any:
        devices = (part.device.type for part in cotangents if part is not None)
        with _autocast_off(next(devices, "cpu")):
            return backward(ctx, *cotangents)

    return run  # type: ignore[return-value]


def _autocast_off(device: str) -> AbstractContextManager[Any]:
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
