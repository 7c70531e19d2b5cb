"""What the commands' options share: their types, limits and help."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Kind(str, Enum):
    """The pictures of `cnf plot`."""

    density = "density"
    contours = "contours"
    evolution = "evolution"
    samples = "samples"
    trajectories = "trajectories"
    field = "field"
    streamlines = "streamlines"
    marginals = "marginals"
    pairs = "pairs"
    slices = "slices"
    conditional = "conditional"
    what_if = "what-if"
    calibration = "calibration"
    steps = "steps"
    history = "history"


class Color(str, Enum):
    """What the colors of trajectories tell."""

    time = "time"
    log_density = "log-density"


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model that `cnf fit` wrote.")]
Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="A csv, csv.gz, parquet, npy or npz file, or toy:NAME."),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="The file to write.")]
Given = Annotated[
    str | None,
    typer.Option(help="Values of the context columns: name=value,name2=value."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all randomness.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...")]
Threads = Annotated[
    int,
    typer.Option(
        min=1, max=1024, help="Threads of torch. More than one pays on an idle machine only."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@dataclass(frozen=True)
class FitOptions:
    """What was typed after `cnf fit`."""

    data: str
    output: str
    columns: tuple[str, ...]
    ignore: tuple[str, ...]
    context: tuple[str, ...]
    weights: str | None
    valid: str | None
    seed: int
    steps: int | None
    seconds: float | None
    width: int | None
    device: str
    kinds: str | None = None
    drop_dependent: bool = False

    @property
    def beside(self) -> tuple[str, ...]:
        """The columns that are not modeled themselves."""
        return self.context if self.weights is None else (*self.context, self.weights)

    @property
    def wanted(self) -> list[str] | None:
        """The columns to read, or None for all."""
        if not self.columns:
            return None
        return [*self.columns, *(name for name in self.beside if name not in self.columns)]
