"""Progress on standard error: bars on a terminal, elsewhere a line about each stage."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console
from rich.progress import Progress

from cnf.training import Callback, ProgressBar


@contextmanager
def bar(task: str) -> Iterator[Callable[[float], None]]:
    """What takes the share of a task that is done: a bar on standard error, where that is a
    terminal; elsewhere a line as the task begins."""
    if not sys.stderr.isatty():
        begin = cache(lambda: print(f"cnf: {task}", file=sys.stderr, flush=True))
        yield lambda done: begin()
        return
    with Progress(console=Console(stderr=True), transient=True) as shown:
        number = shown.add_task(task, total=1.0)
        yield lambda done: shown.update(number, completed=done)


@contextmanager
def progress() -> Iterator[tuple[Callback, ...]]:
    """Callbacks of a fit: a bar on standard error where that is a terminal, else lines."""
    shown = ProgressBar()
    try:
        yield (shown,)
    finally:
        shown.close()
