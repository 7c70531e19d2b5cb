"""`cnf sample`: rows drawn from a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from cnf.cli.data import assignments
from cnf.cli.model import checked_device, load_model
from cnf.cli.output import require_writable, writing
from cnf.cli.questions import sample_given
from cnf.tables import table_writer

ROWS_AT_ONCE = 65536


@torch.no_grad()
def sample_table(
    path: Path,
    output: Path,
    *,
    rows: int,
    seed: int,
    given: Sequence[str],
    at: str | None,
    device: str,
) -> None:
    """Write rows drawn from the model, in chunks of bounded memory.

    Raises:
        ValueError: for a model, context, device or output that cannot be used.
    """
    model = load_model(path, device)
    require_writable(output, path)
    if at is not None:
        given = [*given, f"{model.time}={at}"]
    names = {name for text in given for name in assignments(text)}
    if names & set(model.columns):
        sample_given(model, output, rows=rows, seed=seed, given=given, device=device)
        return
    context = model.given(",".join(given) or None)
    generator = torch.Generator(checked_device(device)).manual_seed(seed)
    with writing(output), table_writer(output) as writer:
        for start in range(0, rows, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, rows - start)
            writer.write(model.table_flow.sample(count, context, generator=generator))
