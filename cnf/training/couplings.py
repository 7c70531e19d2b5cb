"""Which base point a row of data is paired with in flow matching."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def couple(z: Tensor, y: Tensor, block: int) -> Tensor:
    """The rows of y, reordered within blocks so that Σ |z − y|² is as small as a permutation
    allows.

    Minibatch optimal transport (Tong et al. 2024; Pooladian et al. 2023): the marginals stay what
    they are, while paths hardly cross any more, so that the field becomes straight and its solve
    cheap.

    Args:
        z: base points (rows, dim).
        y: data (rows, dim), rows a multiple of `block`.
        block: rows that are assigned among each other; the cost of a row grows with its square.

    Example:
        >>> couple(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [4.0]]), block=2)
        tensor([[4.],
                [5.]])
    """
    blocks = y.reshape(-1, block, y.shape[-1])
    costs = torch.cdist(z.reshape_as(blocks), blocks).square().double().numpy(force=True)
    order = [torch.from_numpy(linear_sum_assignment(cost)[1]) for cost in costs]
    chosen = torch.stack(order).to(y.device)[..., None].expand_as(blocks)
    return blocks.gather(1, chosen).reshape_as(y)
