"""The whole state of a fit in one file, so that an interrupted one goes on as if nothing had
happened."""

from __future__ import annotations

import json
import math
import shutil
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from cnf.files import atomic_path
from cnf.flows.calibration import METHOD
from cnf.flows.model_file import ModelFileError, read_model, write_model
from cnf.ode import Grid
from cnf.training.config import FitPlan
from cnf.training.history import History
from cnf.training.trainer import Trainer

SECONDS_BETWEEN = 10.0
SCALARS = (
    "phase_step",
    "phase_seconds",
    "step",
    "seconds",
    "rate_scale",
    "stale",
    "phase_best",
    "losses",
    "window",
    "went_well",
    "baseline_loss",
    "best_nll",
    "best_excess",
    "unspent",
    "validation_seconds",
    "all_validation_seconds",
)


class CheckpointWarning(UserWarning):
    """A checkpoint that could not be written or read; the one before it is still there."""


class CheckpointWriter:
    """A watcher that writes the state of the fit to `path` every so often, atomically.

    The state before it stays beside it, for the day on which the newest is damaged. A disk that is
    full or a
    folder that is closed does not stop the fit: it is said, and tried again when it is time for
    the next.
    """

    def __init__(self, path: Path, seconds: float = SECONDS_BETWEEN) -> None:
        self.path = path
        self.seconds = seconds
        self.last = time.monotonic()

    def __call__(self, trainer: Trainer) -> None:
        """Write, if it is time."""
        if time.monotonic() - self.last >= self.seconds:
            self.write(trainer)
            self.last = time.monotonic()

    def write(self, trainer: Trainer) -> None:
        """Write now; a failure is a warning."""
        try:
            write_checkpoint(self.path, trainer)
        except (OSError, SafetensorError, ValueError) as failure:
            reason = " ".join(str(failure).split())[:200]
            warnings.warn(
                f"{self.path}: update {trainer.step} could not be kept ({reason}); the fit goes on,"
                " and an interrupted one from the state before it",
                CheckpointWarning,
                stacklevel=2,
            )


def generations(path: Path) -> tuple[Path, Path]:
    """The newest checkpoint and the one before it."""
    return path, path.with_name(f"{path.name}.previous")


def discard(path: Path) -> None:
    """Delete the checkpoints of a fit that is finished, or that shall start afresh."""
    for generation in generations(path):
        generation.unlink(missing_ok=True)


def write_checkpoint(path: Path, trainer: Trainer) -> None:
    """Write weights, moving average, base, optimizer, random state, what the draws follow,
    schedule and history; keep the state before."""
    state = {name: getattr(trainer, name) for name in SCALARS}
    state["grid"], state["error_weight"] = (
        list(trainer.step_control.grid.nodes),
        trainer.step_control.error_weight,
    )
    state["penalty_scale"] = trainer.penalty_control.share
    state["history"] = trainer.history.as_dict()
    configuration = {
        "fit": fingerprint(trainer),
        "plan": asdict(trainer.plan),
        "index": trainer.index,
        "state": _plain(state),
    }
    newest, previous = generations(path)
    with atomic_path(newest) as temporary:
        write_model(temporary, configuration, _tensors(trainer))
        if newest.exists():
            with atomic_path(previous) as copy:  # not moved: at every moment there is a newest
                shutil.copyfile(newest, copy)


def _plain(value: Any) -> Any:
    """The value as JSON knows it, which has no word for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def resume(path: Path, trainer: Trainer) -> bool:
    """Put a trainer in the newest state that is sound, and say whether there was one.

    Raises:
        ModelFileError: if no file is sound, or one belongs to another fit.
    """
    there = [generation for generation in generations(path) if generation.exists()]
    for generation in there:
        try:
            configuration, tensors = read_model(generation)
        except ModelFileError as damage:
            if generation is there[-1]:
                raise
            warnings.warn(
                f"{damage}; going on from the state before it", CheckpointWarning, stacklevel=2
            )
        else:
            _take_up(generation, configuration, tensors, trainer)
            return True
    return False


def _take_up(
    path: Path, configuration: dict[str, Any], tensors: dict[str, Tensor], trainer: Trainer
) -> None:
    """Put a trainer, made for the same rows and settings, in the state that was written."""
    if configuration.get("fit") != fingerprint(trainer):
        raise ModelFileError(
            f"{path}: belongs to a fit with other rows, settings, seed or width;"
            " delete it or fit without resuming"
        )
    try:
        _restore(trainer, configuration, tensors)
    except (KeyError, RuntimeError, TypeError, ValueError) as failure:
        reason = " ".join(str(failure).split())[:150]
        raise ModelFileError(f"{path}: damaged ({reason}); delete it") from failure


def fingerprint(trainer: Trainer) -> dict[str, Any]:
    """What must agree between two fits for one to take up the other's state."""
    batches, valid = trainer.batches, trainer.valid.x
    parts = (batches.y, batches.context, batches.weights, valid)
    rows = [
        len(batches.y),
        len(valid),
        *(None if part is None else _digest(part) for part in parts),
    ]
    shapes = {name: list(p.shape) for name, p in trainer.flow.field.named_parameters()}
    facts = {
        "settings": asdict(trainer.settings),
        "seed": trainer.seed,
        "rows": rows,
        "field": shapes,
    }
    return json.loads(json.dumps(facts))  # as it comes back from a file, which knows no tuples


def _digest(numbers: Tensor) -> float:
    """A sum that other numbers, or the same in another order, would hardly have."""
    flat = numbers.double().flatten()
    return (flat @ torch.linspace(1, 2, len(flat), dtype=flat.dtype, device=flat.device)).item()


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    tensors = {
        "generator": trainer.generator.get_state(),
        "averaged": trainer.validator.average.n_averaged,
        "seen": trainer.allocation.seen,
    }
    field, average = trainer.flow.field, trainer.validator.average.module
    weights = (field.state_dict(), average.state_dict(), trainer.best, trainer.at_start)
    # The base was fitted to the rows: on another machine it may come out a little different.
    weights += (trainer.flow.base.state_dict(),)
    for kind, named in zip(("field", "average", "best", "start", "base"), weights):
        tensors.update({f"{kind}.{name}": tensor for name, tensor in named.items()})
    for which, optimizer in enumerate(trainer.optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            named = {
                f"optimizer.{which}.{index}.{name}": torch.as_tensor(m)
                for name, m in moments.items()
            }
            tensors.update(named)
    # Tensors that share memory, such as a best that is still the start, cannot stand in one file
    # twice.
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _restore(trainer: Trainer, configuration: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    state = configuration["state"]
    trainer.flow.base.load_state_dict(
        _part(tensors, "base")
    )  # first: the validator starts as a copy of the flow
    trainer.start_phase(configuration["index"], unspent=state["unspent"])
    for name in SCALARS:
        setattr(trainer, name, state[name])
    for name in ("best_nll", "phase_best", "baseline_loss"):
        if getattr(trainer, name) is None:  # what is not finite is not said
            setattr(trainer, name, math.inf)
    trainer.step_control.grid = Grid(tuple(state["grid"]), METHOD)
    trainer.step_control.error_weight = state["error_weight"]
    trainer.penalty_control.share = state["penalty_scale"]
    trainer.history = History.from_dict(state["history"])
    trainer.plan = FitPlan(**configuration["plan"])
    trainer.best, trainer.at_start = _part(tensors, "best"), _part(tensors, "start")
    for weights in (
        trainer.best,
        trainer.at_start,
    ):  # so that they are known to fit when their time comes
        trainer.flow.field.load_state_dict(weights)
    trainer.flow.field.load_state_dict(_part(tensors, "field"))
    trainer.validator.average.module.load_state_dict(_part(tensors, "average"))
    trainer.validator.average.n_averaged.copy_(tensors["averaged"])
    trainer.generator.set_state(tensors["generator"])
    trainer.allocation.seen.copy_(tensors["seen"])
    for which, optimizer in enumerate(trainer.optimizers):
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, f"optimizer.{which}").items():
            index, moment = name.split(".")
            moments.setdefault(int(index), {})[moment] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _part(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    prefix = f"{kind}."
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
