"""Orders between columns that real rows keep: a ≤ b in every row, or in almost every one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from cnf.diagnostics.comparison.pair import TablePair
from cnf.tables.orders import BROKEN_BY_CHANCE, broken

MOST_BROKEN = 1e-3  # share of real rows that may break an order


@dataclass(frozen=True)
class Constraint:
    """An order that real rows keep.

    Attributes:
        text: the order, in words.
        real: the share of real rows that breaks it.
        fake: the share of synthetic rows that does.
    """

    text: str
    real: float
    fake: float


def constraints(pair: TablePair, seed: int) -> list[Constraint]:
    """The orders a ≤ b of numeric columns that at most one real row in a thousand breaks and that
    shuffled columns would not keep; the most violated by synthetic rows first.

    Example:
        >>> import pandas as pd
        >>> born = np.arange(1900.0, 1960.0)
        >>> real = pd.DataFrame({"born": born, "died": born + 30})
        >>> constraints(TablePair.of(real, real.assign(died=born[::-1])), 0)
        [Constraint(text='born ≤ died', real=0.0, fake=0.5)]
    """
    random, found = np.random.default_rng(seed), []
    for a, b in permutations(pair.numeric, 2):
        real, fake = (
            broken(table[a].to_numpy(), table[b].to_numpy()) for table in (pair.real, pair.fake)
        )
        if not real <= MOST_BROKEN or (pair.real[a] == pair.real[b]).all():
            continue
        by_chance = broken(random.permutation(pair.real[a].to_numpy()), pair.real[b].to_numpy())
        if by_chance >= BROKEN_BY_CHANCE:
            found.append(Constraint(f"{a} ≤ {b}", real, fake))
    return sorted(found, key=lambda constraint: -constraint.fake)
