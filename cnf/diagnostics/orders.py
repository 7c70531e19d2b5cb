"""The check of the orders between columns that a table keeps."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch

from cnf.diagnostics.result import CheckResult
from cnf.tables import TableFlow
from cnf.tables.orders import broken_orders

ROWS = 1_000  # rows, and as many draws
LIMIT, STRICT = 0.05, 0.02  # share of draws that may break an order


@torch.no_grad()
def orders_kept(
    model: TableFlow, table: pd.DataFrame, seed: int, *, strict: bool
) -> Iterator[CheckResult]:
    """Whether draws keep the orders a ≤ b that all training rows keep, the worst of them; nothing
    for a table without orders."""
    orders = model.metadata.orders or []
    if not orders:
        return
    rows = table.sample(min(ROWS, len(table)), random_state=seed)
    names = [column.name for column in model.schema.context]
    given = rows[names].sample(ROWS, replace=True, random_state=seed) if names else None
    generator = torch.Generator(model.device).manual_seed(seed)
    drawn = model.sample(ROWS, given, generator=generator)
    broken = broken_orders(model.schema, orders, drawn).mean(1)
    a, b = worst = orders[broken.argmax()]
    real = broken_orders(model.schema, [worst], rows).mean()
    yield CheckResult.at_most(
        "orders",
        "samples satisfy the orders of columns that hold in the training rows",
        float(broken.max()),
        STRICT if strict else LIMIT,
        kind="fit",
        detail=f"worst is {a} ≤ {b}, which {real:.1%} of {len(rows)} held-out rows break",
    )
