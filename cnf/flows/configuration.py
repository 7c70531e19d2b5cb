"""Flows as plain data: what a model file says about the parts of a flow, and the parts it stands
for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from cnf.fields import (
    ConcatSquashField,
    GatedField,
    MaskedField,
    MLPField,
    SumField,
    VelocityField,
)
from cnf.flows.bases import Base, ContaminatedBase, MixtureBase, NormalBase, StudentTBase
from cnf.flows.divergence import Hutchinson
from cnf.flows.scoring import Accuracy
from cnf.ode import Grid, Solver, Torchdiffeq
from cnf.transforms.affine import Affine, Chain, Transform
from cnf.transforms.bounded import BoundedToReal
from cnf.transforms.gaussianize import Gaussianize

# Class name -> the constructor arguments that are also attributes.
FIELDS: dict[type[VelocityField], tuple[str, ...]] = {
    GatedField: ("hidden", "first", "frequency", "modulation"),
    MaskedField: ("hidden", "first", "frequency", "modulation"),
    MLPField: ("hidden", "activation"),
    ConcatSquashField: ("hidden", "activation"),
}
# More probes cost more than the exact divergence of so many columns.
MOST_PROBES = 256
# A draw takes so many normal numbers; tails of such freedom are a Gaussian's.
MOST_FREEDOM = 1000
# Of the lists, numbers and levels of a configuration.
LONGEST, LARGEST, DEEPEST = 4096, 1e6, 12
SOLVERS: tuple[type, ...] = (Grid, Torchdiffeq)
DTYPES = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32", "float64")}


def describe(flow: Any) -> dict[str, Any]:
    """The configuration of a `CNF` as JSON-ready data.

    Raises:
        ValueError: for a field or base that a file cannot rebuild, or sizes that none would be
            read with.
    """
    configuration = {
        "dim": flow.dim,
        "context_dim": flow.context_dim,
        "field": _describe_field(flow.field),
        "base": describe_base(flow.base),
        "preprocess": _describe_preprocess(flow.preprocess),
        "solver": {"class": type(flow.solver).__name__, **asdict(flow.solver)},
        "accuracy": asdict(flow.accuracy),
        "divergence": asdict(flow.divergence)
        if isinstance(flow.divergence, Hutchinson)
        else flow.divergence,
        "automatic": sorted(flow.automatic),
        "dtype": str(flow.dtype).removeprefix("torch."),
    }
    require_bounded(configuration)
    return configuration


def require_bounded(config: dict[str, Any]) -> None:
    """Refuse sizes that no file of ours has, before anything is made of them, or written.

    Raises:
        ValueError: for a list or number beyond every size that has a meaning.
    """
    parts = [value for key, value in config.items() if key not in ("metadata", "schema")]
    for _ in range(DEEPEST):
        lists = [
            part.values() if isinstance(part, dict) else part
            for part in parts
            if isinstance(part, list | tuple | dict)
        ]
        if long := [part for part in lists if len(part) > LONGEST]:
            raise ValueError(f"a list of {len(long[0])} entries, more than {LONGEST}")
        if large := [
            part for part in parts if isinstance(part, int | float) and abs(part) > LARGEST
        ]:
            raise ValueError(f"a number beyond {LARGEST:.0e}: {str(large[0])[:20]}")
        parts = [value for part in lists for value in part]
    if parts:
        raise ValueError(f"nested deeper than {DEEPEST} levels")


def _describe_field(field: VelocityField) -> dict[str, Any]:
    if type(field) is SumField:
        return {"class": "SumField", "fields": [_describe_field(part) for part in field.fields]}
    if type(field) not in FIELDS:
        raise ValueError(
            f"a model file cannot rebuild {type(field).__name__}:"
            " save its state_dict() and build the flow yourself"
        )
    return {
        "class": type(field).__name__,
        **{name: getattr(field, name) for name in FIELDS[type(field)]},
    }


def describe_base(base: Base) -> dict[str, Any]:
    """The base as JSON-ready data.

    Raises:
        ValueError: for one that a file cannot rebuild.
    """
    described: dict[str, Any] = {"class": type(base).__name__}
    if isinstance(base, StudentTBase):
        return {**described, "freedom": base.freedom}
    if isinstance(base, MixtureBase):
        return {**described, "components": len(base.weights)}
    if isinstance(base, ContaminatedBase):
        inner = describe_base(base.base)
        return {**described, "base": inner, "share": base.share, "freedom": base.freedom}
    if type(base) is not NormalBase:
        raise ValueError(
            f"a model file cannot rebuild {type(base).__name__}: save the flow's state_dict() yourself"
        )
    return described


def _describe_preprocess(map: Transform) -> dict[str, Any]:
    described: dict[str, Any] = {"class": type(map).__name__}
    if isinstance(map, Chain):
        return {**described, "maps": [_describe_preprocess(part) for part in map.maps]}
    if isinstance(map, Gaussianize):
        return {**described, "knots": map.knots.shape[1]}
    if type(map) not in (Affine, BoundedToReal):
        raise ValueError(
            f"a model file cannot rebuild {type(map).__name__}: save the flow's state_dict() yourself"
        )
    return described


def build_field(config: dict[str, Any], dim: int, context_dim: int) -> VelocityField:
    """The field that `describe` described, with fresh weights."""
    if config["class"] == "SumField":
        return SumField([build_field(part, dim, context_dim) for part in config["fields"]])
    classes = {cls.__name__: cls for cls in FIELDS}
    arguments = dict(config)
    cls = classes[arguments.pop("class")]
    arguments["hidden"] = tuple(arguments["hidden"])
    widths = (*arguments["hidden"], arguments.get("modulation", 1))
    if not all(width >= 1 for width in widths):
        raise ValueError(f"field: expected layers of at least one unit; got {widths}")
    return cls(dim, context_dim=context_dim, **arguments)


def build_base(config: dict[str, Any], dim: int) -> Base:
    """The base that `describe` described; a mixture's numbers come with the tensors of the
    file."""
    if config["class"] == "StudentTBase":
        return StudentTBase(dim, freedom=config["freedom"])
    if config["class"] == "MixtureBase":
        count = config["components"]
        return MixtureBase(
            torch.ones(count),
            torch.zeros(count, dim),
            torch.eye(dim).expand(count, dim, dim).clone(),
        )
    if config["class"] == "ContaminatedBase":
        if not config["freedom"] <= MOST_FREEDOM:
            raise ValueError(f"freedom: expected at most {MOST_FREEDOM}; got {config['freedom']}")
        return ContaminatedBase(
            build_base(config["base"], dim), config["share"], config["freedom"]
        )
    return {"NormalBase": NormalBase}[config["class"]](dim)


def build_preprocess(config: dict[str, Any], dim: int) -> Transform:
    """The map that `describe` described; its numbers come with the tensors of the file."""
    if config["class"] == "Chain":
        return Chain(*(build_preprocess(part, dim) for part in config["maps"]))
    if config["class"] == "Gaussianize":
        line = torch.arange(config["knots"]).expand(dim, -1)
        return Gaussianize(line, line, torch.ones_like(line))
    if config["class"] == "BoundedToReal":
        return BoundedToReal([(None, None)] * dim)
    return {"Affine": Affine}[config["class"]].identity(dim)


def build_solver(config: dict[str, Any]) -> Solver:
    """The solver that `describe` described."""
    arguments = dict(config)
    cls = {cls.__name__: cls for cls in SOLVERS}[arguments.pop("class")]
    if cls is Grid:
        arguments["nodes"] = tuple(arguments["nodes"])
    return cls(**arguments)


def build_accuracy(config: dict[str, Any]) -> Accuracy:
    """The accuracy that `describe` described."""
    if not all(type(value) in (int, float) for value in config.values()):
        raise ValueError(f"accuracy: expected numbers; got {config}")
    accuracy = Accuracy(**config)
    if not (
        accuracy.tolerance > 0 and min(accuracy.bar_scale, accuracy.floor, accuracy.rounding) >= 0
    ):
        raise ValueError(
            f"accuracy: expected a tolerance above zero, bars and rounding of at least zero; got {config}"
        )
    return accuracy


def build_automatic(names: list[str]) -> set[str]:
    """The parts that a fit may still choose."""
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"automatic: expected names of parts; got {names}")
    return set(names)


def build_divergence(config: dict[str, Any] | str) -> Hutchinson | str:
    """The divergence that `describe` described."""
    if not isinstance(config, dict):
        return config
    estimate = Hutchinson(**config)
    if estimate.probes > MOST_PROBES:
        raise ValueError(f"probes: expected at most {MOST_PROBES}; got {estimate.probes}")
    return estimate


def parameters_of(flow: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(parameter.numel() for parameter in flow.parameters())
