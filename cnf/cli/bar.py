"""The progress of a task that is no fit, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console
from rich.progress import Progress


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
