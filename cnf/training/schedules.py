"""When something is due within a phase."""

from __future__ import annotations

import math

# The smaller, the more of the marks on the late-weighted clock are towards the end of a phase.
LATE = 2 / 3


def crosses_milestone(before: float, done: float, parts: int) -> bool:
    """Whether one of `parts` equal marks of a budget lies between two shares of it.

    Example:
        >>> [crosses_milestone(before, before + 0.1, 2) for before in (0.3, 0.45, 0.9)]
        [False, True, True]
    """
    return math.floor(min(done, 1) * parts) > math.floor(before * parts)


def late_weighted_progress(done: float) -> float:
    """The clock of validations and of the penalty's share, slow at first: a field is at its best,
    and changes most in what it takes to solve, when the learning rate comes down.

    Example:
        >>> [round(late_weighted_progress(done), 2) for done in (0.0, 0.5, 0.97, 1.0)]
        [0.0, 0.37, 0.9, 1.0]
    """
    return 1 - (1 - min(done, 1.0)) ** LATE
