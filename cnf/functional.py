"""Whether torch transforms the code that runs, and an identity matrix for any device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether `torch.func` (grad, jvp, vmap and functions built on them), forward differentiation
    or `torch.export` runs this code.

    There we use no autograd function of our own, write nothing in place, and let no shape depend
    on a number.

    Example:
        >>> def count(x):
        ...     return x * transformed()
        >>> count(torch.ones(())), torch.func.vmap(count)(torch.ones(1))
        (tensor(0.), tensor([1.]))
    """
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.compiler.is_exporting()
    )


def recorded() -> bool:
    """Whether a derivative of the result may be required."""
    return torch.is_grad_enabled() or transformed()


def identity(dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """The identity matrix (dim, dim), for the parts of a model.

    A model from a file is first built on the device "meta". There, `torch.eye` is a function in
    Python that imports torch's compiler, which takes every process two seconds.

    >>> identity(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    return torch.zeros(dim, dim, dtype=dtype).fill_diagonal_(1.0)
