"""Progress bars, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from cnf.training import Trainer
from cnf.training.trainer import Callback


@contextmanager
def bar(task: str) -> Iterator[Callable[[float], None]]:
    """Who wants to know what share of a task is done: a bar on standard error, or nobody."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    with Progress(console=Console(stderr=True), transient=True) as shown:
        number = shown.add_task(task, total=1.0)
        yield lambda done: shown.update(number, completed=done)


@contextmanager
def progress() -> Iterator[tuple[Callback, ...]]:
    """What `cnf.fit` takes as callbacks: a bar on standard error, or nothing if that is no
    terminal."""
    if not sys.stderr.isatty():
        yield ()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0, state="")

        def watch(trainer: Trainer) -> None:
            done = min(trainer.phase_done, 1.0)
            bar.update(
                task, description=trainer.phase.name, completed=done, state=state_of(trainer)
            )

        yield (watch,)


def state_of(trainer: Trainer) -> str:
    """The last held-out NLL, what scoring costs, and the time that the phase has left."""
    judged = [record for record in trainer.history.records if record.valid_nll is not None]
    verdict = f"NLL {judged[-1].valid_nll:.3f}  NFE {judged[-1].nfe}  " if judged else ""
    left = trainer.phase_seconds * (1 / trainer.phase_done - 1)
    minutes, seconds = divmod(max(0, round(left)), 60)
    return f"{verdict}{minutes}:{seconds:02d} left"
