"""How much of some work seconds allow."""

from __future__ import annotations

from collections.abc import Callable

from cnf.training.config import Clock

# Work is timed on more and more rows, each time on so many times as many, until a part of the
# seconds is gone: few rows cost more each than many.
GROWTH, PROBED = 4, 1 / 8


def affordable_rows(
    most: int, seconds: float, work: Callable[[int], object], *, fewest: int, clock: Clock
) -> int:
    """How many rows, of at most `most`, some work can be done on in so many seconds; at least
    `fewest`.

    Args:
        most: number of rows that there are.
        seconds: for the work.
        work: does it for so many rows.
        fewest: number of rows that it is timed on first.
        clock: the seconds.

    Example:
        >>> now = iter([0.0, 2.0])
        >>> affordable_rows(100, 10.0, print, fewest=8, clock=now.__next__)
        8
        40
    """
    rows = min(fewest, most)
    while True:
        start = clock()
        work(rows)
        spent = clock() - start
        if rows == most:
            return most
        if spent > PROBED * seconds:
            return min(most, max(fewest, int(rows * seconds / spent)))
        rows = min(GROWTH * rows, most)
