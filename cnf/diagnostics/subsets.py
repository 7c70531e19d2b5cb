"""The check of conditional densities of some columns given others."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch

from cnf.diagnostics.result import CheckResult
from cnf.tables import TableFlow
from cnf.tables.questions import TableDensity, table_density

# Rows and random splits of the columns that are tried, and the limits on what they may differ by: two
# densities that were fitted to the same few hundred rows differ by a third of a nat.
ROWS, SPLITS, LIMIT, STRICT = 100, 2, 0.5, 0.1


@torch.no_grad()
def consistent(
    model: TableFlow, table: pd.DataFrame, seed: int, *, strict: bool
) -> Iterator[CheckResult]:
    """Whether p(a) p(b | a), by the conditional network, is the joint density p(a, b), for random
    splits of the columns into a and b; nothing for a model without that network."""
    if not model.amortized or len(model.schema.modeled) < 2:
        return
    whole, rows = table_density(model), table.iloc[:ROWS]
    joint = model.log_prob(rows)
    generator = torch.Generator().manual_seed(seed)
    gaps = []
    for _ in range(SPLITS):
        first = _whole_places(model, _some(whole.columns, generator))
        if not 0 < len(first) < len(whole.columns):
            continue
        apart = (_in_turn(whole, rows, first) - joint).abs()
        gaps.append((apart[apart.isfinite()].mean().nan_to_num(torch.inf).item(), first))
    if not gaps:
        return
    gaps.sort(key=lambda gap: -gap[0])
    yield CheckResult.at_most(
        "conditionals",
        "a marginal times a conditional of the network is the joint density",
        gaps[0][0],
        STRICT if strict else LIMIT,
        kind="fit",
        unit="nats",
        detail=f"mean difference over {len(rows)} rows: {in_words(gaps)}",
    )


def in_words(gaps: list[tuple[float, list[str]]]) -> str:
    """The differences of splits (nats, the columns that come first), and the answers that they are of.

    >>> in_words([(0.9, ["a", "b"])])
    "0.9 for marginal(['a', 'b']) and the columns given these"
    """
    return ", ".join(
        f"{gap:.2g} for marginal({first}) and the columns given these" for gap, first in gaps
    )


def _some(columns: tuple[str, ...], generator: torch.Generator) -> list[str]:
    """Some of the columns, neither none nor all."""
    count = int(torch.randint(1, len(columns), (1,), generator=generator))
    order = torch.randperm(len(columns), generator=generator)[:count].sort().values
    return [columns[i] for i in order.tolist()]


def _whole_places(model: TableFlow, names: list[str]) -> list[str]:
    """The names with the latitude of every longitude among them, and without other latitudes."""
    modeled = [column.name for column in model.schema.modeled]
    pairs = {modeled[a]: modeled[b] for a, b in model.schema.pairs}
    alone = [name for name in names if name not in pairs.values()]
    return [*alone, *(pairs[name] for name in alone if name in pairs)]


def _in_turn(whole: TableDensity, rows: pd.DataFrame, first: list[str]) -> torch.Tensor:
    """log p(first) + log p(the others | first) of rows (rows,)."""
    context = [column.name for column in whole.model.schema.context]
    others = whole.conditional(rows[[*first, *context]])
    given = whole.conditional(rows[context]) if context else whole
    return given.marginal(first).log_prob(rows) + others.log_prob(rows)
