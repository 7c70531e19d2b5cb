"""Flows from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnf.flows.configuration import (
    DTYPES,
    build_base,
    build_divergence,
    build_field,
    build_preprocess,
    build_solver,
)
from cnf.flows.flow import CNF
from cnf.flows.model_file import ModelFileError, read_model
from cnf.flows.scoring import Accuracy


def load(path: str | Path, *, device: str | torch.device = "cpu") -> CNF:
    """The flow that `CNF.save` wrote to `path`, on `device` and in eval mode.

    Raises:
        ModelFileError: if the file is missing, damaged, of an unknown format, or its tensors do not fit.
    """
    config, tensors = read_model(path)
    try:
        flow = _build(config)
        # Empty marks such as the identity of a missing context are built, not checked against the file.
        flow.load_state_dict(checked(flow, tensors))
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as failure:
        reason = " ".join(str(failure).split())[:200]
        raise ModelFileError(f"{path}: its configuration does not fit ({reason})") from failure
    return flow.to(device).eval()


def _build(config: dict[str, Any]) -> CNF:
    dim, context_dim = config["dim"], config["context_dim"]
    with torch.random.fork_rng(devices=()):  # fresh weights are drawn only to be replaced
        flow = CNF(
            dim,
            context_dim=context_dim,
            field=build_field(config["field"], dim, context_dim),
            base=build_base(config["base"], dim),
            # Files of before 0.2 know one map only and do not name it.
            preprocess=build_preprocess(config.get("preprocess", {"class": "Affine"}), dim),
            solver=build_solver(config["solver"]),
            divergence=build_divergence(config["divergence"]),
        )
    flow.automatic = set(config["automatic"])
    flow.accuracy = Accuracy(**config["accuracy"])
    flow.metadata = config["metadata"]
    return flow.to(DTYPES[config["dtype"]])


def checked(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, once names and shapes are those of the model and every number is finite.

    Raises:
        ValueError: where they are not.
    """
    expected = model.state_dict()
    if missing := expected.keys() ^ tensors.keys():
        raise ValueError(f"missing or unknown tensors: {', '.join(sorted(missing)[:3])}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape or not tensor.isfinite().all():
            raise ValueError(f"tensor {name}: expected finite numbers of shape {tuple(expected[name].shape)}")
    return tensors
