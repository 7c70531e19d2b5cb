"""Flows from files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnf.fields import VelocityField
from cnf.flows.bases import Base
from cnf.flows.flow import CNF
from cnf.flows.model_file import read_model
from cnf.flows.questions.coordinates import Coordinates
from cnf.flows.serialization import (
    DTYPES,
    divergence_of,
    misfits_reported,
    require_bounded,
    set_bars,
)
from cnf.flows.state import checked, load_tensors
from cnf.flows.subset_flow import SubsetFlow
from cnf.ode import Solver
from cnf.registry import known_classes, rebuild
from cnf.transforms import Transform


def load(
    path: str | Path, *, device: str | torch.device = "cpu", classes: Iterable[type] = ()
) -> CNF:
    """The flow that `CNF.save` wrote to `path`, on `device` and in eval mode.

    Args:
        path: the file.
        device: device of the flow.
        classes: classes of custom parts that are not registered; loading a file imports nothing.

    Raises:
        ModelFileError: if the file is missing, damaged, of an unknown format, or its tensors do
            not fit.
    """
    with known_classes(classes):
        return rebuilt(path, *read_model(path), device=device)


def rebuilt(
    path: str | Path,
    config: dict[str, Any],
    tensors: dict[str, Tensor],
    *,
    device: str | torch.device,
) -> CNF:
    """The flow from a configuration and tensors of the file `path`.

    Raises:
        ModelFileError: if they are inconsistent.
    """
    with misfits_reported(path):
        require_bounded(config)
        with torch.device("meta"):  # where a flow of any size takes no memory
            checked(build(config), tensors)
        flow = build(config)
        load_tensors(flow, tensors)
        for part in flow.modules():
            if isinstance(part, Base):
                part.require_drawable()
    return flow.to(device).eval()


def build(config: dict[str, Any]) -> CNF:
    """The flow from a configuration, with new weights."""
    dim, context_dim = config["dim"], config["context_dim"]
    with torch.random.fork_rng(devices=()):  # fresh weights are drawn only to be replaced
        # The first files know one map only and do not name it.
        preprocess = rebuild(Transform, config.get("preprocess", {"class": "Affine"}), dim)
        coordinates = preprocess.geometry.dim
        flow = CNF(
            dim,
            context_dim=context_dim,
            field=rebuild(VelocityField, config["field"], coordinates, context_dim),
            base=rebuild(Base, config["base"], coordinates),
            preprocess=preprocess,
            divergence=divergence_of(config["divergence"]),
        )
        if "subsets" in config:
            flow.subsets = _subsets(config["subsets"], dim)
    flow.solver = rebuild(Solver, config["solver"])
    set_bars(flow, config)
    flow.metadata = {name: part for name, part in config["metadata"].items() if part is not None}
    return flow.to(DTYPES[config["dtype"]])


def _subsets(config: dict[str, Any], dim: int) -> SubsetFlow:
    marginals, mixture = (
        rebuild(Transform, config[name], dim) for name in ("marginals", "mixture")
    )
    hidden = tuple(config["flow"]["field"]["hidden"])
    subsets = SubsetFlow(Coordinates(marginals, mixture), hidden=hidden)
    subsets.flow.solver = rebuild(Solver, config["flow"]["solver"])
    set_bars(subsets.flow, config["flow"])
    return subsets
