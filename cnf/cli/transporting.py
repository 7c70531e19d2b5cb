"""`cnf transport`: rows of one table carried to another."""

from __future__ import annotations

from pathlib import Path

from cnf.cli.model import load_model
from cnf.cli.output import require_writable, say, writing
from cnf.tables import table_writer


def transport_table(path: Path, data: str, output: Path, *, reverse: bool, device: str) -> None:
    """Write where every row of DATA is carried, in order.

    Raises:
        ValueError: for a model that starts from no table, or a table, device or output that cannot
            be used.
    """
    model = load_model(path, device)
    require_writable(output, path, data)
    rows = 0
    with writing(output), table_writer(output) as writer:
        for chunk in model.chunks(data):
            try:
                writer.write(model.table_flow.transport(chunk, reverse=reverse))
            except ValueError as error:
                raise ValueError(f"{path} on {data}: {error}") from error
            rows += len(chunk)
    say(f"{output}: {rows:,} rows")
