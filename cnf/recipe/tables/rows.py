"""Preparation of the rows of typed tables for training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cnf.inputs import as_weights
from cnf.rows import HELD_OUT, Cells
from cnf.tables.columns import NO_STATE
from cnf.tables.formats import TableError, shown
from cnf.tables.model import TableFlow


@dataclass(frozen=True)
class TableRows:
    """Encoded rows: modeled cells, context cells, weights (rows,) of mean one, and the weights as given;
    a merged row has the sum of the given weights."""

    cells: Cells
    context: Cells
    weights: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, places: Tensor) -> TableRows:
        """The rows at `places`."""
        weights, counts = self.weights[places], self.counts[places]
        return TableRows(self.cells.take(places), self.context.take(places), weights, counts)


def encoded(model: TableFlow, table: pd.DataFrame, weights: Any) -> TableRows:
    """The rows of a data frame on the model's device, after validation."""
    device = model.device
    parts = [
        model.schema.encode(table, columns)
        for columns in (model.schema.modeled, model.schema.context)
    ]
    cells, context = (part.to(device) for part in parts)
    _require_whole_points(model, table, cells)
    ones = torch.ones(len(table), dtype=torch.float64, device=device)
    if weights is None:
        return TableRows(cells, context, ones, ones)
    counts = as_weights(weights, len(table), device)
    return TableRows(cells, context, counts / counts.mean(), counts)


def held_rows(model: TableFlow, table: pd.DataFrame) -> TableRows:
    """The rows of a data frame that the columns of a model can represent, on its device."""
    cells, context = (
        model.schema.encode(table, columns, strict=False).to(model.device)
        for columns in (model.schema.modeled, model.schema.context)
    )
    ones = torch.ones(len(table), dtype=torch.float64, device=model.device)
    rows = TableRows(cells, context, ones, ones)
    states = torch.cat([cells.states, context.states], 1)
    columns = (*model.schema.modeled, *model.schema.context)
    for place in (states < 0).any(0).nonzero().flatten().tolist():
        warnings.warn(
            f"column {shown(columns[place].name)}: rows with a cell unlike those of the sample (a new"
            " category, beyond the range, missing) are left out; declare its type, or give more"
            " memory",
            stacklevel=2,
        )
    return rows.take((states >= 0).all(1).nonzero().squeeze(1))


def _require_whole_points(model: TableFlow, table: pd.DataFrame, cells: Cells) -> None:
    """Raise an error for a longitude without a latitude, or the reverse."""
    for pair in model.schema.pairs:
        if len(lone := ((cells.states[:, pair] == NO_STATE).sum(1) == 1).nonzero()):
            where = f"{table.index.name or 'row'} {table.index[lone[0].item()]}"
            raise TableError(
                f"{where}: expected longitude and latitude or neither, found one; fill the other in"
            )


def merged(rows: TableRows) -> TableRows:
    """The distinct rows of positive weight, sorted, each with the sum of its weights; normalized to mean
    one."""
    parts = (rows.cells.values, rows.cells.states, rows.context.values, rows.context.states)
    keys = torch.cat([part.double() for part in parts], 1).cpu().numpy()
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    sums = torch.bincount(torch.from_numpy(inverse.ravel()), rows.counts.cpu()).to(rows.weights)
    kept = rows.take(torch.from_numpy(first).to(rows.weights.device))
    chosen = (sums > 0).nonzero().squeeze(1)
    return replace(kept, weights=sums / sums[chosen].mean(), counts=sums).take(chosen)


def split(rows: TableRows, seed: int, *, repeating: bool) -> tuple[TableRows, TableRows]:
    """The training rows under this seed, and the tenth that is held out.

    If rows repeat, as those of integers and categories do, a frequent row gives a tenth of its weight
    to the held-out rows: if it were held out entirely, it would never be learned.
    """
    generator = torch.Generator(rows.weights.device).manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator, device=rows.weights.device)
    share = torch.zeros_like(rows.weights)
    share[order[: max(1, round(HELD_OUT * len(rows)))]] = 1.0
    if repeating:
        share[rows.counts >= 1 / HELD_OUT] = HELD_OUT
    return _weighed(rows, 1 - share), _weighed(rows, share)


def _weighed(rows: TableRows, share: Tensor) -> TableRows:
    """The rows with a fraction of their weights, without rows of weight zero."""
    part = replace(rows, weights=share * rows.weights)
    return part.take((part.weights > 0).nonzero().squeeze(1))


def dequantized(model: TableFlow, cells: Cells, generator: torch.Generator) -> Cells:
    """The cells, with integers dequantized uniformly over their steps."""
    steps = [column.step or 0.0 for column in model.numeric_columns]
    width = torch.tensor(steps, dtype=torch.float64, device=cells.values.device)
    noise = (
        torch.rand(
            cells.values.shape, generator=generator, device=width.device, dtype=torch.float64
        )
        - 0.5
    )
    return Cells(cells.values + noise * width, cells.states)
