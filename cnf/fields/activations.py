"""tanh by way of the sigmoid, at which processors are faster."""

from __future__ import annotations

import torch
from torch import Tensor

from cnf.functional import recorded


def tanh(z: Tensor) -> Tensor:
    """tanh z.

    On a CPU as 2 sigmoid(2z) − 1, to 2e-7 in float32: torch's sigmoid is several times as fast as
    its tanh there, and two passes over memory are little beside either.
    """
    if z.device.type != "cpu":
        return torch.tanh(z)
    if recorded():
        return 2 * torch.sigmoid(2 * z) - 1
    return (2 * z).sigmoid_().mul_(2).sub_(1)
