"""`cnf sample`: rows drawn from a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from cnf.cli.data import assignments, listed
from cnf.cli.model import Model, checked_device, load_model
from cnf.cli.output import require_writable, say, writing
from cnf.cli.questions import ROWS_AT_ONCE as GIVEN_ROWS_AT_ONCE
from cnf.cli.questions import drawn_given
from cnf.tables import table_writer
from cnf.tables.orders import in_words
from cnf.tables.rejection import accepted

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
    keep_orders: bool,
    device: str,
) -> None:
    """Write rows drawn from the model, in chunks of bounded memory.

    Raises:
        ValueError: for a model, context, device or output that cannot be used, or orders that hardly
            any draw keeps.
    """
    model = load_model(path, device)
    require_writable(output, path)
    if at is not None and given:
        raise ValueError("--at: the time is the only context of this model; omit --given")
    generator = torch.Generator(checked_device(device)).manual_seed(seed)
    draw, most = _drawing(model, given, at, generator)
    kept = {"--keep-orders": model.table_flow.in_order} if keep_orders else {}
    drawn = 0.0
    with writing(output), table_writer(output) as writer:
        for start in range(0, rows, most):
            count = min(most, rows - start)
            frame = accepted(lambda n: draw(min(n, most)), kept, count) if kept else draw(count)
            drawn += count / frame.attrs.get("acceptance", 1.0)
            writer.write(frame)
    say(f"{output}: {rows:,} rows")
    if keep_orders:
        orders = in_words(model.table_flow.metadata.orders or [])
        told = f"{rows / drawn:.1%} of the draws keep {orders}"
        say(
            told
            if orders
            else "--keep-orders: no order of columns holds in the table; nothing to do"
        )


def _drawing(
    model: Model, given: Sequence[str], at: str | None, generator: torch.Generator
) -> tuple[Callable[[int], pd.DataFrame], int]:
    """What draws so many rows under what is given, or at a time, and how many at once."""
    if assignments(listed(given)).keys() - {*model.context}:
        return drawn_given(model, given, generator), GIVEN_ROWS_AT_ONCE
    context = model.given(listed(given)) if at is None else model.at(at)
    return partial(model.table_flow.sample, given=context, generator=generator), ROWS_AT_ONCE
