"""`cnf compare`: how far a synthetic table is from a real one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from cnf.cli.bar import bar
from cnf.cli.model import load_model
from cnf.cli.output import require_writable, say, say_json, writing
from cnf.diagnostics.comparison import Measure, compare
from cnf.report.comparison import write_comparison
from cnf.tables import read_typed_table


def compare_tables(
    real: Path,
    fake: Path,
    *,
    output: Path | None,
    held_out: Path | None,
    target: str | None,
    model: Path | None,
    categorical: Sequence[str],
    seed: int,
    as_json: bool,
) -> None:
    """Say how far the tables are apart, and write the page.

    Raises:
        ValueError: for tables that cannot be compared or an output that cannot be written.
    """
    if output is not None:
        require_writable(output, real, fake, held_out, model)
    density = None if model is None else load_model(model).table_flow
    tables = [None if path is None else read_typed_table(path) for path in (real, fake, held_out)]
    with bar("comparing") as callback:
        found = compare(
            *tables[:2],
            held_out=tables[2],
            target=target,
            model=density,
            categorical=categorical,
            seed=seed,
            callback=callback,
        )
    if output is not None:
        with writing(output):
            write_comparison(found, output, title=f"{fake.name} beside {real.name}")
    if as_json:
        say_json({"real": str(real), "fake": str(fake), **found.as_dict()})
    else:
        say(*lines_of(found.measures, f"{fake} beside {real}"))


def lines_of(measures: Sequence[Measure], title: str) -> list[str]:
    """The measures as a table.

    >>> lines_of([Measure("shape", 0.98, 1.0, "mean over columns")], "fake on real")
    ['fake on real', '  shape  0.980  ideal 1  mean over columns']
    """
    rows = [_row(measure) for measure in measures]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)
    return [title, *(f"  {line}" for line in lines)]


def _row(measure: Measure) -> tuple[str, str, str, str]:
    ideal = "" if math.isnan(measure.ideal) else f"ideal {measure.ideal:.3g}"
    return measure.name, f"{measure.value:.3f}", ideal, measure.detail
