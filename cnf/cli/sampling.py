"""`cnf sample`: rows drawn from a model."""

from __future__ import annotations

from pathlib import Path

import torch

from cnf.cli.model import checked_device, load_model
from cnf.cli.output import require_writable, writing
from cnf.tables import table_writer

ROWS_AT_ONCE = 65536


@torch.no_grad()
def sample_table(
    path: Path, output: Path, *, rows: int, seed: int, given: str | None, device: str
) -> None:
    """Write rows drawn from the model, in chunks of bounded memory.

    Raises:
        ValueError: for a model, context, device or output that cannot be used.
    """
    model = load_model(path, device)
    require_writable(output, path)
    context = model.given(given)
    generator = torch.Generator(checked_device(device)).manual_seed(seed)
    with writing(output), table_writer(output) as writer:
        for start in range(0, rows, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, rows - start)
            writer.write(model.table_flow.sample(count, context, generator=generator))
