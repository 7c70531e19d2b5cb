"""Nested state as data for JSON and named tensors, and back."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

# Keys of objects that represent values without a JSON type.
TENSOR_KEY, ITEMS_KEY, NUMBER_KEY = "tensor:", "items:", "number:"


def packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value with its tensors moved into `tensors` under numbered names.

    Example:
        >>> import torch
        >>> tensors = {}
        >>> packed({"best": math.inf, 0: torch.ones(2)}, tensors)
        {'items:': [['best', {'number:': 'inf'}], [0, {'tensor:': '0'}]]}
        >>> tensors
        {'0': tensor([1., 1.])}
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().clone()  # no two tensors of one file may share memory
        return {TENSOR_KEY: name}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: packed(part, tensors) for key, part in value.items()}
        return {ITEMS_KEY: [[key, packed(part, tensors)] for key, part in value.items()]}
    if isinstance(value, list | tuple):
        return [packed(part, tensors) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {NUMBER_KEY: str(value)}
    return value


def unpacked(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Restore a value from `packed`; tuples become lists.

    Raises:
        KeyError: for a missing tensor.
    """
    if isinstance(value, list):
        return [unpacked(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if TENSOR_KEY in value:
        return tensors[value[TENSOR_KEY]]
    if ITEMS_KEY in value:
        return {key: unpacked(part, tensors) for key, part in value[ITEMS_KEY]}
    if NUMBER_KEY in value:
        return float(value[NUMBER_KEY])
    return {key: unpacked(part, tensors) for key, part in value.items()}
