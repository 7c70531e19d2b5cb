"""Models of the measured size for a table, before training."""

from __future__ import annotations

import torch

import cnf.recipe.defaults as defaults
from cnf.fields import GatedField, Geometry
from cnf.flows import CNF, SnapshotFlow
from cnf.tables.model import TableFlow
from cnf.tables.schema import Schema
from cnf.transforms import Charts


def default_flow(
    rows: int,
    dim: int,
    *,
    context_dim: int = 0,
    hidden: tuple[int, int] | None = None,
    charts: Charts | None = None,
    seed: int,
) -> CNF:
    """The flow that `cnf.fit` builds from `CNF(dim)` for a table with a given number of rows.

    The state of torch's global generator is unchanged.

    Args:
        rows: number of training rows.
        dim: number of columns.
        context_dim: number of columns of the context.
        hidden: widths of the hidden layers; None uses the measured defaults.
        charts: transform of columns that include angles or spheres.
        seed: seed of the weights.

    Example:
        >>> default_flow(100, 3, seed=0).field.hidden
        (64, 64)
    """
    geometry = None if charts is None else charts.geometry
    field = default_field(
        rows, dim, context_dim=context_dim, hidden=hidden, geometry=geometry, seed=seed
    )
    if charts is None:
        return CNF(dim, context_dim=context_dim, field=field)
    flow = CNF(dim, context_dim=context_dim, field=field, preprocess=charts)
    flow.automatic.add("preprocess")  # the transform of the real columns is still to be fitted
    return flow


def default_field(
    rows: int,
    dim: int,
    *,
    context_dim: int = 0,
    hidden: tuple[int, int] | None = None,
    geometry: Geometry | None = None,
    frequency: float | None = None,
    seed: int,
) -> GatedField:
    """The field of `default_flow`. The geometry defaults to a plane, and the frequency to the measured
    one."""
    geometry = geometry or Geometry(dim)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return GatedField(
            geometry.dim,
            hidden or default_hidden(rows, dim),
            context_dim=context_dim,
            frequency=frequency or default_frequency(rows, dim),
            angles=geometry.angles,
            spheres=geometry.spheres,
        )


def default_hidden(rows: int, columns: int) -> tuple[int, int]:
    """Widths of the two hidden layers for a given number of rows and columns."""
    if rows < defaults.FEW_ROWS_FIELD or columns <= defaults.PLANE_COLUMNS:
        many = rows > defaults.MANY_ROWS_PLANE
        return defaults.MANY_ROWS_PLANE_HIDDEN if many else defaults.PLANE_HIDDEN
    if rows > defaults.MANY_ROWS_TABLE and columns > defaults.MANY_COLUMNS_TABLE:
        return defaults.MANY_ROWS_TABLE_HIDDEN
    return defaults.TABLE_HIDDEN


def default_frequency(rows: int, columns: int) -> float:
    """Scale of the initial frequencies of the first layer."""
    if columns <= defaults.PLANE_COLUMNS:
        few = rows < defaults.FEW_ROWS_FIELD
        return defaults.PLANE_FREQUENCY_FEW_ROWS if few else defaults.PLANE_FREQUENCY
    few = rows < defaults.MODERATE_ROWS
    return defaults.TABLE_FREQUENCY_FEW_ROWS if few else defaults.TABLE_FREQUENCY


def default_table_flow(
    schema: Schema,
    rows: int,
    *,
    hidden: tuple[int, int] | None = None,
    imputer: bool = False,
    seed: int,
) -> TableFlow:
    """An untrained model of the measured size for a table with a given number of rows.

    A table of continuous columns gets the flow of `default_flow`, conditioned on its numeric context,
    unless the model needs an imputer. The state of torch's global generator is unchanged.

    Args:
        schema: column types of the table.
        rows: number of training rows.
        hidden: widths of the hidden layers; None uses the measured defaults.
        imputer: whether the model has an imputer.
        seed: seed of the weights.
    """
    if schema.plain and not imputer:
        flow = default_flow(
            rows, len(schema.modeled),
            context_dim=len(schema.context), hidden=hidden, charts=schema.charts, seed=seed,
        )  # fmt: skip
        with torch.random.fork_rng(devices=()):
            return TableFlow(schema.with_real_context(), flow)
    dim = max(1, sum(column.numeric for column in schema.modeled))
    # A narrower second layer was measured to suffice only for tables without discrete states.
    width = min(max(default_hidden(rows, dim)), defaults.TYPED_WIDTH)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return TableFlow(
            schema,
            hidden=hidden or (width, width),
            frequency=min(default_frequency(rows, dim), defaults.TYPED_FREQUENCY),
        )


def default_moving_table(
    schema: Schema,
    rows: int,
    span: tuple[float, float],
    *,
    hidden: tuple[int, int] | None = None,
    seed: int,
) -> TableFlow:
    """An untrained model of one flow through time, from the first to the last time of a span. The
    context column of the schema is the time."""
    dim = len(schema.modeled)
    field = default_field(rows, dim, hidden=hidden, seed=seed)
    return TableFlow(schema, SnapshotFlow.around(CNF(dim, field=field), *span).flow)
