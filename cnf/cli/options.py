"""What the commands' options share: their types, limits and help."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from cnf.pictures import KINDS


class Color(str, Enum):
    """What the colors of trajectories show."""

    time = "time"
    log_density = "log-density"


class Unseen(str, Enum):
    """What a category is that a fit never saw."""

    other = "other"
    impossible = "impossible"


def known_kind(name: str) -> str:
    """The name of a kind of picture.

    Raises:
        typer.BadParameter: for a kind that is not registered.
    """
    if name not in KINDS.names:
        raise typer.BadParameter(f"expected one of {', '.join(KINDS.names)}; got {name!r}")
    return name


class Engine(str, Enum):
    """What runs the workers that score a folder."""

    local = "local"
    ray = "ray"
    dask = "dask"


class ProgramName(str, Enum):
    """What an exported model does."""

    score = "score"
    sample = "sample"


class PlotCommand(TyperCommand):
    """A command whose help ends with the registered kinds of picture."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write a line for each kind; what `plugins.load` added is among them."""
        with formatter.section("Kinds"):
            formatter.write_dl([(kind.name, kind.help) for kind in KINDS])


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model that `cnf fit` wrote.")]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A file of csv, tsv, txt, parquet, feather, json, jsonl, dta, xlsx, npy or npz, a folder or a"
        " pattern of such, or toy:NAME.",
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="The file to write.")]
Given = Annotated[
    list[str] | None,
    typer.Option(help="Values of the context columns: name=value,name2=value."),
]
AnyGiven = Annotated[
    list[str] | None,
    typer.Option(
        "--given",
        help="Condition on the rows: name=value, name=low..high, name=a|b. Can be repeated.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed.")]
Device = Annotated[str, typer.Option(help="Device for the computation: cpu, cuda, cuda:1, ...")]
Threads = Annotated[
    int,
    typer.Option(
        min=1,
        max=1024,
        help="Number of torch threads. More than one helps only on an idle machine.",
    ),
]
Array = Annotated[
    str | None, typer.Option(help="Array of an npz file that holds the table. Default: X.")
]
Workers = Annotated[
    int,
    typer.Option(min=1, max=4096, help="Number of files of a folder that are scored at a time."),
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
    strict: bool = False
    missing: tuple[str, ...] | None = None
    array: str | None = None
    any_subset: bool = False
    source: str | None = None
    time: str | None = None
    memory: str | None = None

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
