"""Estimates of how much work can be done in a number of seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cnf.training.config import Clock
from cnf.training.processes import shared_seconds

Thing = TypeVar("Thing")

# Work is timed on growing numbers of rows, since few rows cost more each than many. The timing
# stops once it has used this fraction of the seconds.
GROWTH, PROBED = 4, 1 / 8


def affordable_rows(
    most: int, seconds: float, work: Callable[[int], object], *, fewest: int, clock: Clock
) -> int:
    """The number of rows, between `fewest` and `most`, that can be processed within some seconds.

    Args:
        most: number of available rows.
        seconds: time for the work.
        work: processes a given number of rows.
        fewest: number of rows in the first timing.
        clock: function that returns seconds.

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


@dataclass(frozen=True)
class Deadline:
    """The end of a search, on a clock; each candidate is expected to take at most `growth` times as
    long as the slowest one before it."""

    at: float
    clock: Clock = shared_seconds
    growth: float = 1.0

    def allows(self, things: Iterable[Thing]) -> Iterator[Thing]:
        """The first candidate, and each further one that is expected to finish in time.

        >>> list(Deadline(5.0, iter(range(0, 99, 2)).__next__).allows("abcdef"))
        ['a', 'b']
        """
        dearest, last = 0.0, self.clock()
        for count, thing in enumerate(things):
            if count and last + self.growth * dearest > self.at:
                return
            yield thing
            now = self.clock()
            dearest, last = max(dearest, now - last), now


@dataclass(frozen=True)
class AsSecondsAllow(Generic[Thing]):
    """Candidates that can be iterated repeatedly; each pass stops when its seconds are used up. Without
    a limit, every pass yields all of them."""

    things: Sequence[Thing]
    seconds: float | None
    clock: Clock = shared_seconds

    def __iter__(self) -> Iterator[Thing]:
        if self.seconds is None:
            return iter(self.things)
        return Deadline(self.clock() + self.seconds, self.clock).allows(self.things)
