"""Progress on standard error: bars on a terminal, elsewhere a line about each stage."""

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
    """Callbacks of a fit: a bar on standard error where that is a terminal, else lines."""
    if not sys.stderr.isatty():
        yield (StageLines(),)
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


class StageLines:
    """A callback that says, in a line each, when a stage of a fit begins and when it is done."""

    def __init__(self) -> None:
        self.stage = ""

    def __call__(self, trainer: Trainer) -> None:
        """Say what is new."""
        name = trainer.objective.name
        if name != self.stage:
            self.stage = name
            self._say(f"{name} begins")
        if trainer.phase_done >= 1:
            seconds = trainer.state.phase.seconds
            self._say(f"{name} is done, {trainer.state.step} steps in {seconds:.0f} s")

    def _say(self, line: str) -> None:
        print(f"cnf: {line}", file=sys.stderr, flush=True)


def state_of(trainer: Trainer) -> str:
    """The last held-out NLL, what scoring costs, and the time that the phase has left."""
    validated = [record for record in trainer.history.records if record.valid_nll is not None]
    last = f"NLL {validated[-1].valid_nll:.3f}  NFE {validated[-1].nfe}  " if validated else ""
    left = trainer.state.phase.seconds * (1 / trainer.phase_done - 1)
    minutes, seconds = divmod(max(0, round(left)), 60)
    return f"{last}{minutes}:{seconds:02d} left"
