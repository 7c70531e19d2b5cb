"""Models from files, whichever they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cnf.flows import CNF, ModelFileError
from cnf.flows import load as load_flow
from cnf.flows.configuration import DTYPES, build_solver
from cnf.flows.loading import checked
from cnf.flows.model_file import read_model
from cnf.flows.scoring import Accuracy
from cnf.tables.model import TableFlow
from cnf.tables.schema import Schema


def load(path: str | Path, *, device: str | torch.device = "cpu") -> CNF | TableFlow:
    """The model that `CNF.save` or `TableFlow.save` wrote to `path`, on `device` and in eval mode.

    Raises:
        ModelFileError: if the file is missing, damaged, of an unknown format, or its tensors do not fit.
    """
    config, tensors = read_model(path)
    if config.get("class") != "TableFlow":
        return load_flow(path, device=device)
    try:
        model = _build(config)
        model.load_state_dict(checked(model, tensors))
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as failure:
        reason = " ".join(str(failure).split())[:200]
        raise ModelFileError(f"{path}: its configuration does not fit ({reason})") from failure
    return model.to(device).eval()


def _build(config: dict[str, Any]) -> TableFlow:
    with torch.random.fork_rng(devices=()):  # fresh weights are drawn only to be replaced
        model = TableFlow(
            Schema.from_json(config["schema"]), hidden=tuple(config["hidden"]), frequency=config["frequency"]
        )
    if config["imputer"]:
        model.with_imputer()
    if model.flow is not None:
        flow = config["flow"]
        model.flow.solver = build_solver(flow["solver"])
        model.flow.accuracy = Accuracy(**flow["accuracy"])
        model.flow.automatic = set(flow["automatic"])
    model.metadata = config["metadata"]
    return model.to(DTYPES[config["dtype"]])
