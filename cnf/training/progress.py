"""The progress of a fit: a bar in a terminal or a notebook, otherwise one line per stage."""

from __future__ import annotations

import shutil
import sys
import warnings
from typing import Any

from cnf.training.trainer import Trainer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Without ipywidgets, a notebook gets a bar of text.
    from tqdm.auto import tqdm

LAYOUT = "{percentage:3.0f}%|{bar}| {desc}"


class ProgressBar:
    """A callback that shows the progress of a fit on standard error.

    In a terminal or a notebook it is a bar for each stage, with the last held-out NLL in nats, the
    evaluations per row for scoring, and the remaining time of the stage. Otherwise, as in a log
    file, it prints a line when a stage begins and when it ends.

    Example:
        >>> import torch, cnf
        >>> history = cnf.fit(cnf.CNF(1), torch.randn(200, 1), steps=20, callbacks=[ProgressBar()])
    """

    def __init__(self) -> None:
        self.drawn = sys.stderr.isatty() or _in_notebook()
        self.stage = ""
        self.bar: Any = None

    def __call__(self, trainer: Trainer) -> None:
        """Show what is new."""
        name, done = trainer.objective.name, min(trainer.phase_done, 1.0)
        if name != self.stage:
            self.stage = name
            self._begin(name)
        if self.drawn:
            self.bar.set_description_str(f"{name}  {state_of(trainer)}", refresh=False)
            self.bar.update(done - self.bar.n)
        if done >= 1:
            self.close()
            if not self.drawn:
                steps = "1 step" if trainer.step == 1 else f"{trainer.step} steps"
                _say(f"{name} is done, {steps} in {trainer.state.phase.seconds:.0f} s")

    def close(self) -> None:
        """Show the last state, and remove the bar."""
        if self.bar is not None:
            self.bar.refresh()
            self.bar.close()
        self.bar, self.stage = None, ""

    def _begin(self, name: str) -> None:
        if self.drawn:
            self.close()
            self.stage = name
            columns, lines = shutil.get_terminal_size()  # has a fallback for unknown sizes
            size = {"ncols": columns, "nrows": lines} if sys.stderr.isatty() else {}
            self.bar = tqdm(
                desc=name, total=1.0, bar_format=LAYOUT, leave=False, file=sys.stderr, **size
            )
        else:
            _say(f"{name} begins")


def state_of(trainer: Trainer) -> str:
    """The last held-out NLL, the evaluations of scoring, and the remaining time of the phase."""
    validated = [record for record in trainer.history.records if record.valid_nll is not None]
    last = f"NLL {validated[-1].valid_nll:.3f}  NFE {validated[-1].nfe}  " if validated else ""
    left = trainer.state.phase.seconds * (1 / trainer.phase_done - 1)
    minutes, seconds = divmod(max(0, round(left)), 60)
    return f"{last}{minutes}:{seconds:02d} left"


def _say(line: str) -> None:
    print(f"cnf: {line}", file=sys.stderr, flush=True)


def _in_notebook() -> bool:
    """Whether the code runs in the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")
