"""Loading of models from files of any kind."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from cnf.flows import CNF, GrowingFlow, SnapshotFlow
from cnf.flows.loading import build, rebuilt
from cnf.flows.model_file import read_model
from cnf.flows.serialization import DTYPES, misfits_reported, require_bounded
from cnf.flows.state import checked, load_tensors
from cnf.registry import known_classes
from cnf.tables.cell_integrals import AXES_SCALE
from cnf.tables.columns import Column
from cnf.tables.metadata import FitMetadata
from cnf.tables.model import TableFlow
from cnf.tables.schema import Schema
from cnf.tables.upgrades import upgraded

# Flows through time, by their names in files.
MOVING = {"SnapshotFlow": SnapshotFlow, "GrowingFlow": GrowingFlow}


def load(
    path: str | Path, *, device: str | torch.device = "cpu", classes: Iterable[type] = ()
) -> CNF | SnapshotFlow | TableFlow:
    """The model that its `save` wrote to `path`, on `device` and in eval mode.

    Args:
        path: path of the file.
        device: device of the model.
        classes: unregistered classes of custom parts; a file imports nothing.

    Raises:
        ModelFileError: if the file is missing, damaged, of an unknown format, or its tensors do
            not fit.
    """
    config, tensors = read_model(path)
    if config.get("class") != "TableFlow":
        with known_classes(classes):
            flow = rebuilt(path, config, tensors, device=device)
        moving = MOVING.get(config.get("class", ""))
        return flow if moving is None else moving(flow)
    with misfits_reported(path):
        config, tensors = upgraded(config, tensors)
        require_bounded(config)
        with torch.device("meta"):  # on which a model of any size takes no memory
            checked(_build(config), tensors)
        model = _build(config)
        load_tensors(model, tensors)
        if model.imputer is not None:
            model.imputation.require_sound()
    return model.to(device).eval()


def load_table_flow(path: str | Path, *, device: str | torch.device = "cpu") -> TableFlow:
    """The model of a table in a file; a file of a `CNF` becomes a model of real columns with the
    names in its metadata.

    Raises:
        ModelFileError: as in `load`.
    """
    model = load(path, device=device)
    if isinstance(model, TableFlow):
        return model
    flow = model.flow if isinstance(model, SnapshotFlow) else model
    with misfits_reported(path):
        return wrapped(flow).eval()


def wrapped(flow: CNF) -> TableFlow:
    """Wrap a flow as the model of a table of real columns.

    Column names come from the flow's metadata; the defaults are x0, x1, …, and c0, c1, … for the context.

    Raises:
        ValueError: if the number of names differs from the number of columns of the flow.

    Example:
        >>> wrapped(CNF(2, context_dim=1)).schema.lines()
        ['x0  real', 'x1  real', 'c0  real (context)']
    """
    known = FitMetadata.from_json(flow.metadata)
    model = TableFlow(_schema_of(flow, known), flow)
    model.metadata = known
    return model


def _schema_of(flow: CNF, known: FitMetadata) -> Schema:
    """Real columns for those of a flow, or the inferred types of a plain table if the metadata contains
    them."""
    names = known.columns or [f"x{i}" for i in range(flow.dim)]
    context = known.context or [f"c{i}" for i in range(flow.context_dim)]
    for what, found, count in (
        ("columns", names, flow.dim),
        ("context", context, flow.context_dim),
    ):
        if len(found) != count:
            raise ValueError(f"expected {count} names in its {what}, found {len(found)}")
    if "schema" in known.others:
        columns = Schema.from_json(known.others["schema"]).columns
    else:
        columns = tuple(Column(name, "real") for name in names)
    return Schema((*columns, *(Column(name, "real", "context") for name in context)))


def _build(config: dict[str, Any]) -> TableFlow:
    with torch.random.fork_rng(devices=()):  # the random initial weights are replaced later
        flow = None if config["flow"] is None else build({"metadata": {}, **config["flow"]})
        model = TableFlow(Schema.from_json(config["schema"]), flow)
        if config["imputer"]:
            model.with_imputer(config.get("donors"))  # absent in models of release 0.1
    if (measured := config.get("cell_error")) is not None:
        model.integrals.kappa, model.integrals.axes_scale = _cell_error(measured)
    model.metadata = FitMetadata.from_json(config["metadata"])
    return model.to(DTYPES[config["dtype"]])


def _cell_error(value: Any) -> tuple[float, float]:
    """The cell calibration of a model: the error of a single point, and of a rule along the axes. Early files
    of release 0.2 hold one number or many, of other rules.

    Raises:
        ValueError: for anything other than nonnegative numbers.
    """
    numbers = value if isinstance(value, list) else [value]
    sound = all(type(number) in (int, float) and 0 <= number < math.inf for number in numbers)
    if not numbers or not sound:
        raise ValueError(f"cell_error: expected numbers of at least zero; got {value!r:.100}")
    return float(numbers[0]), float(numbers[1]) if len(numbers) == 2 else AXES_SCALE
