"""What `cnf fit` and `cnf info` say about a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnf.cli.model import Model, load_any
from cnf.cli.output import say, say_json
from cnf.cli.typed import summarize_typed
from cnf.flows.serialization import describe, parameters_of
from cnf.tables import Schema


def inform(path: Path, *, as_json: bool) -> None:
    """Say what the model in a file is.

    Raises:
        ModelFileError: if the file holds no model.
    """
    model = load_any(path)
    summary = summarize(model) if isinstance(model, Model) else summarize_typed(model)
    if as_json:
        say_json(summary)
    else:
        lines = lines_of(summary) if isinstance(model, Model) else typed_lines_of(summary)
        say("\n".join(lines))


def summarize(model: Model) -> dict[str, Any]:
    """The facts about a model; what its file does not tell is None."""
    flow, known = model.flow, model.flow.metadata
    parts = describe(flow)
    history = known.get("history") or {}
    last = (history.get("records") or [{}])[-1]
    return {
        "model": str(model.path),
        "columns": model.columns,
        "context": model.context,
        "schema": known.get("schema"),
        "dim": flow.dim,
        "context_dim": flow.context_dim,
        "field": parts["field"],
        "base": {**parts["base"], "description": flow.base.describe()},
        "parameters": parameters_of(flow),
        "solver": parts["solver"],
        "nfe": flow.solver.nfe,
        "tolerance": flow.error_model.tolerance,
        "rows": known.get("rows"),
        "valid_rows": known.get("valid_rows"),
        "nll": history.get("valid_nll"),
        "standard_error": history.get("valid_se"),
        "gaussian": known.get("gaussian"),
        "updates": last.get("step"),
        "seconds": last.get("seconds"),
        "rollbacks": history.get("rollbacks") or [],
        "interrupted": bool(known.get("interrupted")),
        "seed": known.get("seed"),
        "version": known.get("version"),
        "choices": known.get("choices"),
    }


def typed_lines_of(summary: dict[str, Any]) -> list[str]:
    """The summary of a model of a typed table, for people."""
    schema = Schema.from_json(summary["schema"])
    points = summary["points_a_cell"]
    facts = {
        "field": f"width {' × '.join(map(str, summary['hidden']))}, {summary['parameters']:,} parameters",
        "integers": f"the mean over {points} points of each cell" if points > 1 else "",
        **(_training(summary) if summary["rows"] is not None else {}),
    }
    columns = [f"  {line}" for line in schema.lines()]
    return [
        summary["model"],
        *columns,
        *(f"  {name:<13} {fact}" for name, fact in facts.items() if fact),
    ]


def lines_of(summary: dict[str, Any]) -> list[str]:
    """The summary for people."""
    field, solver = summary["field"], summary["solver"]
    steps = (
        "adaptive"
        if summary["nfe"] is None
        else f"{len(solver['nodes'])} nodes, NFE {summary['nfe']}"
    )
    facts = {
        "columns": ", ".join(summary["columns"]) + _kinds(summary),
        "context": ", ".join(summary["context"]),
        "field": f"{_name(field)}, {summary['parameters']:,} parameters",
        "base": summary["base"]["description"],
        "solver": f"{solver['method']}, {steps}, error bar below {summary['tolerance']:g} nats",
        **(_training(summary) if summary["gaussian"] is not None else {}),
        **_gaussian(summary),
    }
    return [summary["model"], *(f"  {name:<13} {fact}" for name, fact in facts.items() if fact)]


def _kinds(summary: dict[str, Any]) -> str:
    """What the columns of a plain table are, where that was looked at."""
    if not summary["schema"]:
        return ""
    ends = [
        f"{c.name} {c.describe()}"
        for c in Schema.from_json(summary["schema"]).modeled
        if c.kind != "real"
    ]
    return "; real numbers" + (f", {'; '.join(ends)}" if ends else " all")


def _name(field: dict[str, Any]) -> str:
    """Class and widths of a field, or of every part of a sum."""
    if "fields" in field:
        return " + ".join(map(_name, field["fields"]))
    widths = " × ".join(map(str, field.get("hidden", ())))
    return f"{field['class']} of width {widths}" if widths else field["class"]


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
