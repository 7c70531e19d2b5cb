"""Conversion of table models of earlier releases to the present form."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cnf.tables.schema import Schema
from cnf.transforms.whitening import Whitening

# Prefixes of tensor names in release 0.1, and their present names.
RENAMED = {
    "symbols.": "discrete.",
    "symbol_features.": "conditioning.states.",
    "context_features.symbols.": "conditioning.of_context.states.",
    "context_features.marginals.": "conditioning.of_context.marginals.",
    "imputer.symbols.": "imputer.discrete.",
    "marginals.": "flow.preprocess.maps.0.",
    "whitening.": "flow.preprocess.maps.1.",
}
# The prefix of the identity between the transforms of a table and its flow in earlier releases.
IDENTITY = "flow.preprocess."


def upgraded(
    config: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a table model in their present form."""
    if "hidden" not in config:
        return config, tensors
    schema, flow = Schema.from_json(config["schema"]), config["flow"]
    tensors = {
        _renamed(name): tensor for name, tensor in tensors.items() if not name.startswith(IDENTITY)
    }
    if all(column.n_states == 1 for column in schema.modeled):
        tensors = _without(tensors, "discrete.")
    if flow is None:
        return config, _without(tensors, "flow.")
    ranges = [column.support for column in schema.modeled if column.numeric]
    features = flow["context_dim"] - flow["dim"]
    # Earlier files have one covariance for all patterns of cells, and no correction of the tails.
    fresh = Whitening(flow["dim"], features).state_dict()
    if "flow.preprocess.maps.1.bend" not in tensors:
        tensors |= {
            f"flow.preprocess.maps.1.{name}": fresh[name]
            for name in ("bend", "patterns", "covariances")
        }
    maps = [
        {"class": "MarginalTransform", "ranges": ranges},
        {"class": "Whitening", "features": features},
    ]
    return {**config, "flow": {**flow, "preprocess": {"class": "Chain", "maps": maps}}}, tensors


def _renamed(name: str) -> str:
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _without(tensors: dict[str, Tensor], beginning: str) -> dict[str, Tensor]:
    return {name: part for name, part in tensors.items() if not name.startswith(beginning)}
