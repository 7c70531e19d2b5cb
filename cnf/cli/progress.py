"""Progress bars, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from cnf.training import Callback, Trainer


@contextmanager
def bar(task: str) -> Iterator[Callable[[float], None]]:
    """What takes the share of a task that is done: a bar on standard error, where that is a
    terminal."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    with Progress(console=Console(stderr=True), transient=True) as shown:
        number = shown.add_task(task, total=1.0)
        yield lambda done: shown.update(number, completed=done)


@contextmanager
def progress() -> Iterator[tuple[Callback, ...]]:
    """Callbacks of a fit: a bar on standard error, where that is a terminal."""
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

        def show(trainer: Trainer) -> None:
            done, name = min(trainer.phase_done, 1.0), trainer.objective.name
            bar.update(task, description=name, completed=done, state=state_of(trainer))

        yield (show,)


def state_of(trainer: Trainer) -> str:
    """The last held-out NLL, what scoring costs, and the time that the phase has left."""
    validated = [record for record in trainer.history.records if record.valid_nll is not None]
    last = f"NLL {validated[-1].valid_nll:.3f}  NFE {validated[-1].nfe}  " if validated else ""
    left = trainer.state.phase.seconds * (1 / trainer.phase_done - 1)
    minutes, seconds = divmod(max(0, round(left)), 60)
    return f"{last}{minutes}:{seconds:02d} left"
