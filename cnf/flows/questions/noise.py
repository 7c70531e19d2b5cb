"""The uniform and normal numbers that draws are made from, so that a score depends on its row
alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cnf.inputs import require_generator

# Keeps normal scores of uniform numbers finite.
EDGE = 1e-12


class Noise(NamedTuple):
    """Numbers that complete rows are made from, for each of n draws.

    Attributes:
        base: normal, for the base points of the numbers (n, numeric).
        within: uniform, for the place of a number in its interval (n, numeric).
        states: uniform, for the states (n, columns).
    """

    base: Tensor
    within: Tensor
    states: Tensor

    @classmethod
    def sobol(cls, draws: int, numeric: int, columns: int, device: torch.device) -> Noise:
        """A scrambled Sobol sequence: the same every time, and more even than chance."""
        engine = torch.quasirandom.SobolEngine(2 * numeric + columns, scramble=True, seed=0)
        return cls._of(engine.draw(draws, dtype=torch.float64).to(device), numeric)

    @classmethod
    def random(
        cls, draws: int, numeric: int, columns: int, device: torch.device,
        generator: torch.Generator | None,
    ) -> Noise:  # fmt: skip
        """Independent numbers from a generator."""
        require_generator(generator)
        size = (draws, 2 * numeric + columns)
        uniform = torch.rand(size, generator=generator, device=device, dtype=torch.float64)
        return cls._of(uniform, numeric)

    @classmethod
    def _of(cls, uniform: Tensor, numeric: int) -> Noise:
        base, within, states = uniform.split((numeric, numeric, uniform.shape[1] - 2 * numeric), 1)
        return cls(torch.special.ndtri(base.clamp(EDGE, 1 - EDGE)), within, states)

    def for_rows(self, rows: int) -> Noise:
        """The same numbers for each row (n · rows, …), draw by draw."""
        return Noise(*(part.repeat_interleave(rows, 0) for part in self))
