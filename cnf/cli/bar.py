"""The progress of commands that do not fit, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import pandas as pd
from rich.console import Console
from rich.progress import Progress

# Rows between two reports; a slow table takes half a minute for them.
PART_ROWS = 2_048
# Seconds before the first report.
SOON = 2.0


@contextmanager
def bar(task: str) -> Iterator[Callable[[float], None]]:
    """A callback that takes the finished fraction of a task: it moves a bar on a terminal, and prints
    a line elsewhere as the task begins."""
    if not sys.stderr.isatty():
        begin = cache(lambda: print(f"cnf: {task}", file=sys.stderr, flush=True))
        yield lambda done: begin()
        return
    with Progress(console=Console(stderr=True), transient=True) as shown:
        number = shown.add_task(task, total=1.0)
        yield lambda done: shown.update(number, completed=done)


def counted(
    chunks: Iterable[pd.DataFrame], *, clock: Callable[[], float] = time.monotonic
) -> Iterator[pd.DataFrame]:
    """The chunks in parts; reports the number of finished rows, on a terminal in a line that changes,
    elsewhere in a line after two seconds and whenever the time has doubled."""
    terminal, done, start, due = sys.stderr.isatty(), 0, clock(), SOON
    with Console(stderr=True, quiet=not terminal).status("reading") as shown:
        for chunk in chunks:
            for first in range(0, max(len(chunk), 1), PART_ROWS):
                yield (part := chunk.iloc[first : first + PART_ROWS])
                done += len(part)
                shown.update(f"{done:,} rows scored")
                if not terminal and clock() - start >= due:
                    print(f"cnf: {done:,} rows scored", file=sys.stderr, flush=True)
                    due = 2 * (clock() - start)
