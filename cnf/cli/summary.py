"""What `cnf fit` and `cnf info` say about a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnf.cli.model import Model, load_model
from cnf.cli.output import say, say_json
from cnf.fields import AT_REST
from cnf.flows import CNF
from cnf.flows.serialization import describe, parameters_of
from cnf.tables import Schema
from cnf.tables.column_types.circular import possible_angle
from cnf.tables.metadata import FitMetadata
from cnf.tables.orders import in_words

WHY_AT_REST = "no flow was better on held-out rows"


def inform(path: Path, *, as_json: bool, columns: bool = True) -> None:
    """Describe the model in a file; `columns` includes a description of each column.

    Raises:
        ModelFileError: if the file holds no model.
    """
    summary = summarize(load_model(path))
    if as_json:
        say_json(summary)
    else:
        say(*lines_of(summary, columns=columns))


def summarize(model: Model) -> dict[str, Any]:
    """The facts about a model; entries that its file lacks are None."""
    known = model.table_flow.metadata
    history = known.history or {}
    last = (history.get("records") or [{}])[-1]
    return {
        "model": str(model.path),
        "columns": model.columns,
        "context": model.context,
        "schema": model.table_flow.schema.as_json(),
        "possible_angles": possible_angles(model.table_flow.schema, known),
        "parameters": parameters_of(model.table_flow),
        "points_a_cell": model.table_flow.integrals.fewest_points,
        **summarize_flow(model.table_flow.flow),
        "rows": known.rows,
        "valid_rows": known.valid_rows,
        "nll": history.get("valid_nll"),
        "standard_error": history.get("valid_se"),
        "gaussian": known.gaussian,
        "updates": last.get("step"),
        "seconds": last.get("seconds"),
        "rollbacks": history.get("rollbacks") or [],
        "interrupted": bool(known.interrupted),
        "orders": known.orders or [],
        "seed": known.seed,
        "version": known.version,
        "choices": known.choices,
    }


def possible_angles(schema: Schema, known: FitMetadata) -> dict[str, str]:
    """Declarations of the modeled columns that look like angles by name and range."""
    seen = {} if known.quantiles is None else known.quantiles["columns"]
    found = {}
    for column in schema.modeled:
        values = column.levels if column.levels else seen.get(column.name, ())
        numbers = np.array([v for v in values if isinstance(v, int | float)], dtype=float)
        if kind := possible_angle(column, numbers):
            found[column.name] = kind
    return found


def summarize_flow(flow: CNF | None) -> dict[str, Any]:
    """The facts about the flow over the numeric columns; None if the model has none."""
    names = (
        "dim",
        "context_dim",
        "hidden",
        "field",
        "at_rest",
        "base",
        "solver",
        "nfe",
        "tolerance",
    )
    if flow is None:
        return dict.fromkeys(names)
    parts = describe(flow)
    facts = {
        "dim": flow.dim,
        "context_dim": flow.context_dim,
        "hidden": parts["field"].get("hidden"),
        "field": parts["field"],
        "at_rest": flow.field.resting,
        "base": {**parts["base"], "description": flow.base.describe()},
        "solver": parts["solver"],
        "nfe": flow.solver.nfe,
        "tolerance": flow.error_model.tolerance,
    }
    return {name: facts[name] for name in names}


def lines_of(summary: dict[str, Any], *, columns: bool = True) -> list[str]:
    """The summary for people: the columns, if wanted, then the facts that are known."""
    schema, points = Schema.from_json(summary["schema"]), summary["points_a_cell"]
    facts = {
        **_flow_facts(summary),
        "parameters": f"{summary['parameters']:,}",
        "integers": f"the mean over {points} points of each cell" if points > 1 else "",
        **(_training(summary) if summary["rows"] is not None else {}),
        **_gaussian(summary),
        "in every row": in_words(summary["orders"]),
        "may be cyclic": _cyclic(summary["possible_angles"]),
    }
    listed = [f"  {line}" for line in schema.lines() if columns]
    told = [f"  {name:<13} {fact}" for name, fact in facts.items() if fact]
    return [summary["model"], *listed, *told]


def _cyclic(kinds: Mapping[str, str]) -> str:
    """How to fit columns as cycles, by their names and types.

    >>> _cyclic({"hour": "angle:24"})
    'hour: fit with --type hour=angle:24 if its last value is next to its first'
    """
    if not kinds:
        return ""
    types, they = ",".join(f"{name}={kind}" for name, kind in kinds.items()), len(kinds) > 1
    its = (
        "their last values are next to their first"
        if they
        else "its last value is next to its first"
    )
    return f"{', '.join(kinds)}: fit with --type {types} if {its}"


def _flow_facts(summary: dict[str, Any]) -> dict[str, str]:
    if summary["field"] is None:
        return {}
    solver, adaptive = summary["solver"], summary["nfe"] is None
    steps = "adaptive" if adaptive else f"{len(solver['nodes'])} nodes, NFE {summary['nfe']}"
    rest = f", {AT_REST}" if summary["at_rest"] else ""
    base = summary["base"]["description"]
    if rest and summary["rows"] is not None:
        rest, base = f"{rest}; {WHY_AT_REST}", f"{base}, in transformed columns"
    return {
        "field": _name(summary["field"]) + rest,
        "base": base,
        "solver": f"{solver['method']}, {steps}, error bound below {summary['tolerance']:g} nats",
    }


def _name(field: dict[str, Any]) -> str:
    """Class and widths of a field, or of every part of a sum."""
    if "fields" in field:
        return " + ".join(map(_name, field["fields"]))
    widths = field.get("hidden")
    return field["class"] + (f" of width {' × '.join(map(str, widths))}" if widths else "")


def _training(summary: dict[str, Any]) -> dict[str, str]:
    rollbacks = summary["rollbacks"]
    return {
        "interrupted": "yes: not trained to the end" if summary["interrupted"] else "",
        "rolled back": f"{len(rollbacks)} times, last in {rollbacks[-1]}" if rollbacks else "",
        "training": f"{summary['rows']:,} rows, {summary['updates'] or 0:,} updates in "
        f"{summary['seconds'] or 0:.1f} s, seed {summary['seed']}, cnf {summary['version']}",
        "held-out NLL": f"{_with_error(summary)} nats a row, on {summary['valid_rows']:,} rows",
    }


def _gaussian(summary: dict[str, Any]) -> dict[str, str]:
    found = summary["gaussian"]
    return {} if found is None else {"one Gaussian": f"{_with_error(found)}, on the same rows"}


def _with_error(found: dict[str, Any]) -> str:
    if found["nll"] is None:
        return "not finite"
    return f"{found['nll']:.4f} ± {found['standard_error']:.4f}"
