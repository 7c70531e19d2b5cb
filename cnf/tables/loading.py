"""Models from files, whichever they hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.flows.loading import rebuilt
from cnf.flows.model_file import read_model
from cnf.flows.serialization import (
    DTYPES,
    checked,
    misfits_reported,
    require_bounded,
    set_solves,
)
from cnf.tables.model import TableFlow
from cnf.tables.schema import Schema

# Beginnings of names in files of release 0.1.
RENAMED = {
    "symbols.": "discrete.",
    "symbol_features.": "state_features.",
    "context_features.symbols.": "context_features.states.",
    "imputer.symbols.": "imputer.discrete.",
}
# Earlier files have one covariance for all patterns of cells and no bent tails.
LATER = ("whitening.bend", "whitening.patterns", "whitening.covariances")


def load(path: str | Path, *, device: str | torch.device = "cpu") -> CNF | TableFlow:
    """The model that `CNF.save` or `TableFlow.save` wrote to `path`, on `device` and in eval mode.

    Raises:
        ModelFileError: if the file is missing, damaged, of an unknown format, or its tensors do
            not fit.
    """
    config, tensors = read_model(path)
    if config.get("class") != "TableFlow":
        return rebuilt(path, config, tensors, device=device)
    with misfits_reported(path):
        require_bounded(config)
        _require_widths(config["hidden"], sum(tensor.numel() for tensor in tensors.values()))
        model = _build(config)
        model.load_state_dict(checked(model, _completed(model, tensors)))
    return model.to(device).eval()


def _completed(model: TableFlow, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under their present names, with those of a fresh model in place of
    what earlier files did not know."""
    tensors = {_present_name(name): tensor for name, tensor in tensors.items()}
    if any(name in tensors for name in LATER):
        return tensors
    fresh = model.state_dict()
    return {**tensors, **{name: fresh[name] for name in LATER if name in fresh}}


def _present_name(name: str) -> str:
    """The name of a tensor now, given its name in a file of release 0.1 or of this one."""
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _require_widths(hidden: list[int], numbers: int) -> None:
    """Refuse layers larger than the whole file, before they take memory."""
    if not all(isinstance(width, int) and 0 < width <= numbers for width in hidden):
        raise ValueError(f"hidden: expected widths of layers, got {str(hidden)[:40]}")
    if math.prod(hidden) > numbers:
        raise ValueError(
            f"hidden: layers of {str(hidden)[:40]} do not fit a file of {numbers:,} numbers"
        )


def _build(config: dict[str, Any]) -> TableFlow:
    with torch.random.fork_rng(devices=()):  # fresh weights are drawn only to be replaced
        model = TableFlow(
            Schema.from_json(config["schema"]),
            hidden=tuple(config["hidden"]),
            frequency=config["frequency"],
        )
    if config["imputer"]:
        model.with_imputer()
    if model.flow is not None:
        set_solves(model.flow, config["flow"])
    model.metadata = dict(config["metadata"])
    return model.to(DTYPES[config["dtype"]])
