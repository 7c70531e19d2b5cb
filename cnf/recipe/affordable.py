"""How much of some work seconds allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cnf.training.config import Clock
from cnf.training.processes import shared_seconds

Thing = TypeVar("Thing")

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


@dataclass(frozen=True)
class Deadline:
    """When a search has to end, by a clock; each thing of it is expected to take `growth` times as
    long as the dearest before."""

    at: float
    clock: Clock = shared_seconds
    growth: float = 1.0

    def allows(self, things: Iterable[Thing]) -> Iterator[Thing]:
        """The first of some things, and the others as long as the next will be done in time if it takes
        no longer than expected.

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
    """Things, each time they are gone through as many of the first as so many seconds allow; all
    without a limit."""

    things: Sequence[Thing]
    seconds: float | None
    clock: Clock = shared_seconds

    def __iter__(self) -> Iterator[Thing]:
        if self.seconds is None:
            return iter(self.things)
        return Deadline(self.clock() + self.seconds, self.clock).allows(self.things)
