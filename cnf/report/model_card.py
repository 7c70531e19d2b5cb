"""Text on a flow and its training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnf.fields import AT_REST
from cnf.flows import CNF
from cnf.flows.serialization import parameters_of


def model_card(flow: CNF, names: Sequence[str]) -> dict[str, str]:
    """Facts by name; those that the file does not hold are left out."""
    known = {
        "columns": ", ".join(names),
        "conditioned on": ", ".join(flow.metadata.get("context", ())),
        "velocity": velocity(flow),
        "base": f"{flow.base.describe()} at t = 0",
        "solver": solver(flow),
        "training": training(flow),
        "phases": phases(flow),
    }
    return {name: fact for name, fact in known.items() if fact}


def velocity(flow: CNF) -> str:
    """The field."""
    rest = f"; {AT_REST}" if flow.field.resting else ""
    return f"{flow.field.describe()}, {parameters_of(flow):,} parameters{rest}"


def solver(flow: CNF) -> str:
    """The solver and its accuracy."""
    tolerance = f"error bound of a log-density below {flow.error_model.tolerance:g} nats"
    return f"{flow.solver.describe()}; {tolerance}"


def training(flow: CNF) -> str:
    """Rows, training steps, time and seed."""
    if not records(flow):
        return ""
    last = records(flow)[-1]
    rows, seed = flow.metadata.get("rows"), flow.metadata.get("seed")
    parts = [
        "" if rows is None else f"{rows:,} rows",
        f"{last['step']:,} training steps in {last['seconds']:.0f} s",
        "" if seed is None else f"seed {seed}",
    ]
    return ", ".join(part for part in parts if part)


def phases(flow: CNF) -> str:
    """The phases of the training, in order."""
    return ", then ".join(dict.fromkeys(record["phase"] for record in records(flow)))


def records(flow: CNF) -> list[dict[str, Any]]:
    """The records of the training; none for a flow without a history."""
    return (flow.metadata.get("history") or {}).get("records", [])
