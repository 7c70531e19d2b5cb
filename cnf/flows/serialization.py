"""The description of flows in model files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnf.flows.divergence import Hutchinson
from cnf.flows.error_model import ErrorModel
from cnf.flows.model_file import ModelFileError
from cnf.registry import described

# Of the lists, numbers and levels of a configuration.
LONGEST, LARGEST_NUMBER, DEEPEST = 4096, 1e6, 12
# More probes cost more than the exact divergence of so many columns.
MOST_PROBES = 256
# Parts of a configuration that hold numbers and words of the user's data, or measured errors.
USER_DATA = ("metadata", "schema", "ranges", "error_model", "cell_error")
# What constructors raise for arguments that they cannot have meant.
MISFITS = (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError, AttributeError)
DTYPES = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32", "float64")}


def describe(flow: Any) -> dict[str, Any]:
    """The configuration of a flow, ready for JSON.

    Raises:
        ValueError: for a part whose class is not registered, or sizes that the reader would
            refuse.
    """
    estimate = flow.divergence
    configuration = {
        "dim": flow.dim,
        "context_dim": flow.context_dim,
        "field": described(flow.field),
        "base": described(flow.base),
        "preprocess": described(flow.preprocess),
        "divergence": asdict(estimate) if isinstance(estimate, Hutchinson) else estimate,
        "dtype": str(flow.dtype).removeprefix("torch."),
        **({} if flow.subsets is None else {"subsets": flow.subsets.describe()}),
        **describe_solves(flow),
    }
    require_bounded(configuration)
    return configuration


def describe_solves(
    flow: Any, describe_part: Callable[[Any], dict[str, Any]] = described
) -> dict[str, Any]:
    """The solver and the error model of a flow, and the choices left to a fit, ready for JSON."""
    return {
        "solver": describe_part(flow.solver),
        "error_model": asdict(flow.error_model),
        "automatic": sorted(flow.automatic),
    }


def set_bars(flow: Any, config: dict[str, Any]) -> None:
    """Apply the error model and the choices left to a fit from `describe_solves` to a flow.

    Raises:
        ValueError: for settings without a meaning.
    """
    flow.error_model = ErrorModel.from_config(config["error_model"])
    names = config["automatic"]
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"automatic: expected names of parts; got {names}")
    flow.automatic = set(names)


def divergence_of(config: dict[str, Any] | str) -> Hutchinson | str:
    """The divergence from a configuration.

    Raises:
        ValueError: for settings without a meaning.
    """
    if not isinstance(config, dict):
        return config
    estimate = Hutchinson(**config)
    if estimate.probes > MOST_PROBES:
        raise ValueError(f"probes: expected at most {MOST_PROBES}; got {estimate.probes}")
    return estimate


def require_bounded(config: dict[str, Any]) -> None:
    """Refuse sizes that no valid file has, before they are used or written.

    Raises:
        ValueError: for a list or number beyond all meaningful sizes.
    """
    parts = _sizes(config)
    for _ in range(DEEPEST):
        lists = []
        for part in parts:
            if isinstance(part, int | float) and abs(part) > LARGEST_NUMBER:
                raise ValueError(f"a number beyond {LARGEST_NUMBER:.0e}: {str(part)[:20]}")
            if isinstance(part, list | tuple | dict):
                lists.append(_sizes(part) if isinstance(part, dict) else part)
                if len(lists[-1]) > LONGEST:
                    raise ValueError(f"a list of {len(lists[-1])} entries, more than {LONGEST}")
        parts = [value for part in lists for value in part]
    if parts:
        raise ValueError(f"nested deeper than {DEEPEST} levels")


def _sizes(part: dict[str, Any]) -> list[Any]:
    """The entries of an object that say how large something is."""
    return [value for key, value in part.items() if key not in USER_DATA]


@contextmanager
def misfits_reported(path: str | Path) -> Iterator[None]:
    """Turn errors of constructors for an invalid configuration into a ModelFileError about
    `path`."""
    try:
        yield
    except MISFITS as failure:
        reason = " ".join(str(failure).split())[:200]
        raise ModelFileError(f"{path}: its configuration does not fit ({reason})") from failure


def parameters_of(flow: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(parameter.numel() for parameter in flow.parameters())
