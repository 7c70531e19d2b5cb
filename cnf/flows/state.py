"""The settings of a flow besides its tensors, as part of its `state_dict`."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnf.card import Told
from cnf.fields import VelocityField
from cnf.flows.bases import Base
from cnf.flows.divergence import Hutchinson
from cnf.flows.serialization import (
    DTYPES,
    MISFITS,
    describe_solves,
    divergence_of,
    require_bounded,
    set_bars,
)
from cnf.ode import Solver
from cnf.registry import described, import_path, rebuild
from cnf.transforms import Transform

EXTRA = "_extra_state"  # torch's name for the state of a module that is no tensor
# The transform comes first: it says how many coordinates the others have.
PARTS: dict[str, type] = {
    "preprocess": Transform,
    "field": VelocityField,
    "base": Base,
    "context_map": Transform,
}


def as_bytes(state: dict[str, Any]) -> Tensor:
    """JSON data as a tensor (bytes,), which every weight format can store.

    Example:
        >>> from_bytes(as_bytes({"df": 3.0}))
        {'df': 3.0}
    """
    return torch.from_numpy(np.frombuffer(json.dumps(state).encode(), np.uint8).copy())


def from_bytes(tensor: Tensor) -> dict[str, Any]:
    """The data from the result of `as_bytes`.

    Raises:
        ValueError: for other bytes.
    """
    found = json.loads(tensor.cpu().numpy().tobytes().decode())
    if not isinstance(found, dict):
        raise ValueError(f"state: expected an object; got {str(found)[:40]}")
    return found


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a model's `state_dict`, which a model file stores with its
    configuration."""
    return {name: part for name, part in model.state_dict().items() if not _is_extra(name)}


def checked(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, after a check that names and shapes are those of the model and every number is
    finite.

    Raises:
        ValueError: where they are not.
    """
    expected = tensors_of(model)
    if missing := expected.keys() ^ tensors.keys():
        raise ValueError(f"missing or unknown tensors: {', '.join(sorted(missing)[:3])}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape or not tensor.isfinite().all():
            raise ValueError(
                f"tensor {name}: expected finite numbers of shape {tuple(expected[name].shape)}"
            )
    return tensors


def load_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load the tensors from `tensors_of` of a model with the same configuration."""
    own = {name: part for name, part in model.state_dict().items() if _is_extra(name)}
    model.load_state_dict({**own, **tensors})


def flow_state(flow: Any) -> dict[str, Any]:
    """The settings on which scores depend besides tensors, ready for JSON."""
    estimate = flow.divergence
    state = {
        "dim": flow.dim,
        "context_dim": flow.context_dim,
        "dtype": str(flow.dtype).removeprefix("torch."),
        "divergence": asdict(estimate) if isinstance(estimate, Hutchinson) else estimate,
        **{name: _named(getattr(flow, name)) for name in PARTS},
        **describe_solves(flow, _named),
    }
    return json.loads(json.dumps(state))  # as it comes back from bytes


def set_flow_state(flow: Any, state: dict[str, Any]) -> None:
    """Apply the result of `flow_state` to a flow. Parts with other settings are rebuilt, and keep
    the `nn.Parameter` objects that an optimizer may reference.

    Raises:
        ValueError: if the flow must be constructed differently; the message says how.
    """
    require_bounded({name: state[name] for name in PARTS})
    for name in ("dim", "context_dim"):
        if state[name] != getattr(flow, name):
            raise ValueError(
                f"state: expected {name}={getattr(flow, name)}; got {state[name]}:"
                f" construct the flow with {name}={state[name]}"
            )
    dtype = DTYPES[state["dtype"]]
    if torch.finfo(dtype).eps < torch.finfo(flow.dtype).eps:  # or digits would be lost
        flow.to(dtype)
    now = flow_state(flow)
    for name, kind in PARTS.items():
        if state[name] != now[name]:
            _replace(flow, name, kind, state[name], _sizes(flow)[name])
    if state["solver"] != now["solver"]:
        flow.solver = _rebuilt("solver", Solver, state["solver"])
    flow.divergence = divergence_of(state["divergence"])
    set_bars(flow, state)


def _sizes(flow: Any) -> dict[str, tuple[int, ...]]:
    """The sizes of each part."""
    coordinates, columns = flow.preprocess.geometry.dim, flow.context_dim
    return {
        "preprocess": (flow.dim,),
        "field": (coordinates, columns),
        "base": (coordinates,),
        "context_map": (columns,),
    }


def _replace(
    flow: Any, name: str, kind: type, config: dict[str, Any], sizes: tuple[int, ...]
) -> None:
    """Build a part anew, from the same `nn.Parameter` objects."""
    old = getattr(flow, name)
    with torch.random.fork_rng(devices=()):  # fresh weights are drawn only to be replaced
        new = _rebuilt(name, kind, config, *sizes).to(device=flow.device, dtype=flow.dtype)
    kept, fresh = dict(old.named_parameters()), dict(new.named_parameters())
    if kept.keys() != fresh.keys():
        raise ValueError(_advice(name, config, f"the flow has a {type(old).__name__}"))
    for path, parameter in kept.items():
        parameter.data = fresh[path].data
        owner, _, last = path.rpartition(".")
        new.get_submodule(owner)._parameters[last] = parameter
    setattr(flow, name, new.train(old.training))


def _rebuilt(name: str, kind: type, config: dict[str, Any], *sizes: int) -> Any:
    try:
        return rebuild(kind, config, *sizes)
    except MISFITS as failure:
        raise ValueError(_advice(name, config, str(failure))) from failure


def _advice(name: str, config: dict[str, Any], reason: str) -> str:
    settings = ", ".join(f"{key}={value!r}" for key, value in config.items() if key != "class")
    part = f"{config['class']}({settings:.120})"
    return f"state: expected a flow with {name}={part} ({reason}); construct it so, then load"


class WholeState(Told, nn.Module, ABC):
    """A module whose `state_dict` includes its settings.

    `load_state_dict` restores settings and tensors. A `state_dict` without settings, as in release
    0.1, needs `strict=False`, and does not change the settings.
    """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings, ready for JSON."""

    @abstractmethod
    def restore(self, settings: dict[str, Any]) -> None:
        """Restore the result of `settings`.

        Raises:
            ValueError: where the module has to be constructed otherwise.
        """

    def get_extra_state(self) -> Tensor:
        """The settings, as bytes."""
        return as_bytes(self.settings())

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the settings; torch loads the tensors afterwards."""
        self.restore(from_bytes(state))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **options: Any
    ) -> None:
        """Tensors without an entry are never missing: programs that save weights take those of one
        flow for the same tensor, and keep one of them."""
        for name, tensor in self.state_dict().items():
            if tensor.numel() == 0:
                state_dict.setdefault(prefix + name, tensor)
        super()._load_from_state_dict(state_dict, prefix, *rest, **options)

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        strict: bool = True,  # noqa: FBT001, FBT002 - torch's signature
        assign: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:
        """Restore tensors and settings.

        Raises:
            RuntimeError: for a state without settings, and for errors of torch.
            ValueError: where the module has to be constructed otherwise.
        """
        if strict and EXTRA not in state_dict:
            raise RuntimeError(
                f"state_dict: expected the settings that scores depend on, under {EXTRA!r}; got none:"
                " take it from a flow of this release, or pass strict=False if they are the same"
            )
        return super().load_state_dict(state_dict, strict, assign)


def _named(part: Any) -> dict[str, Any]:
    """A part as a model file has it; of one that none can hold, the name of the class."""
    try:
        return json.loads(json.dumps(described(part)))
    except (TypeError, ValueError):
        return {"class": import_path(type(part))}


def _is_extra(name: str) -> bool:
    return name.rpartition(".")[2] == EXTRA
