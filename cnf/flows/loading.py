"""Flows from files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnf.flows.bases import MixtureBase
from cnf.flows.configuration import (
    DTYPES,
    build_accuracy,
    build_automatic,
    build_base,
    build_divergence,
    build_field,
    build_preprocess,
    build_solver,
    require_bounded,
)
from cnf.flows.flow import CNF
from cnf.flows.model_file import ModelFileError, read_model


def load(path: str | Path, *, device: str | torch.device = "cpu") -> CNF:
    """The flow that `CNF.save` wrote to `path`, on `device` and in eval mode.

    Raises:
        ModelFileError: if the file is missing, damaged, of an unknown format, or its tensors do
            not fit.
    """
    return rebuilt(path, *read_model(path), device=device)


def rebuilt(
    path: str | Path,
    config: dict[str, Any],
    tensors: dict[str, Tensor],
    *,
    device: str | torch.device,
) -> CNF:
    """The flow that configuration and tensors describe; `path` is where they came from.

    Raises:
        ModelFileError: if they do not fit together.
    """
    with misfits_reported(path):
        require_bounded(config)
        with torch.device("meta"):  # where a flow of any size takes no memory
            checked(_build(config), tensors)
        flow = _build(config)
        flow.load_state_dict(tensors)
        _require_mixtures(flow)
    return flow.to(device).eval()


def _require_mixtures(flow: CNF) -> None:
    """Refuse mixtures that cannot be drawn from."""
    for part in flow.modules():
        if isinstance(part, MixtureBase) and (
            (part.weights < 0).any() or not part.weights.sum() > 0
        ):
            raise ValueError("weights of a mixture: expected numbers >= 0 with a positive sum")


@contextmanager
def misfits_reported(path: str | Path) -> Iterator[None]:
    """Turn what a configuration that is none does to constructors into a ModelFileError about
    `path`."""
    try:
        yield
    except (
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        ArithmeticError,
        AttributeError,
    ) as failure:
        reason = " ".join(str(failure).split())[:200]
        raise ModelFileError(f"{path}: its configuration does not fit ({reason})") from failure


def _build(config: dict[str, Any]) -> CNF:
    dim, context_dim = config["dim"], config["context_dim"]
    with torch.random.fork_rng(devices=()):  # fresh weights are drawn only to be replaced
        flow = CNF(
            dim,
            context_dim=context_dim,
            field=build_field(config["field"], dim, context_dim),
            base=build_base(config["base"], dim),
            # The first files know one map only and do not name it.
            preprocess=build_preprocess(config.get("preprocess", {"class": "Affine"}), dim),
            solver=build_solver(config["solver"]),
            divergence=build_divergence(config["divergence"]),
        )
    flow.automatic = build_automatic(config["automatic"])
    flow.accuracy = build_accuracy(config["accuracy"])
    flow.metadata = dict(config["metadata"])
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
            raise ValueError(
                f"tensor {name}: expected finite numbers of shape {tuple(expected[name].shape)}"
            )
    return tensors
