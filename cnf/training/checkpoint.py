"""The whole state of a fit in one file, so that a resumed fit gives the same result as an uninterrupted
one."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from cnf.files import atomic_path
from cnf.flows.model_file import ModelFileError, read_model, write_model
from cnf.flows.serialization import MISFITS
from cnf.training.batches import digest
from cnf.training.config import described
from cnf.training.packing import packed, unpacked
from cnf.training.trainer import Trainer

SECONDS_BETWEEN_CHECKPOINTS = 10.0


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written or read; the previous one still exists."""


class CheckpointWriter:
    """A callback that writes the state of a fit to a file at regular intervals, atomically.

    The previous state is kept beside it, in case the newest file is damaged. If the disk is full or the
    folder is read-only, the fit continues with a warning, and the next write tries again.

    Args:
        path: path of the file.
        seconds: time between two writes.
    """

    def __init__(self, path: Path, seconds: float = SECONDS_BETWEEN_CHECKPOINTS) -> None:
        self.path = path
        self.seconds = seconds
        self.last = time.monotonic()

    def __call__(self, trainer: Trainer) -> None:
        """Write, if a write is due or the fit is about to stop."""
        if trainer.stopping or time.monotonic() - self.last >= self.seconds:
            self.write(trainer)
            self.last = time.monotonic()

    def write(self, trainer: Trainer) -> None:
        """Write now; a failure causes a warning."""
        try:
            write_checkpoint(self.path, trainer)
        except (OSError, SafetensorError, ValueError) as failure:
            reason = " ".join(str(failure).split())[:200]
            warnings.warn(
                f"{self.path}: training step {trainer.step} could not be saved ({reason}); the fit"
                " continues, and would resume from the previous checkpoint",
                CheckpointWarning,
                stacklevel=2,
            )


def generations(path: Path) -> tuple[Path, Path]:
    """The newest checkpoint and the one before it."""
    return path, path.with_name(f"{path.name}.previous")


def discard(path: Path) -> None:
    """Delete the checkpoints of a fit that is finished, or that should start anew."""
    for generation in generations(path):
        generation.unlink(missing_ok=True)


def write_checkpoint(path: Path, trainer: Trainer) -> None:
    """Write the state of a started trainer; the previous state is kept."""
    tensors: dict[str, Tensor] = {}
    configuration = {
        "fit": fingerprint(trainer),
        "state": packed(trainer.state_dict(), tensors),
    }
    newest, previous = generations(path)
    with atomic_path(newest) as temporary:
        write_model(temporary, configuration, tensors)
        if newest.exists():
            with atomic_path(previous) as copy:  # a copy, so that a newest file always exists
                shutil.copyfile(newest, copy)


def resume(path: Path, trainer: Trainer) -> bool:
    """Load the newest valid state into a trainer, and return whether there was one.

    Raises:
        ModelFileError: if no file is valid, or if one belongs to another fit.
    """
    found = [generation for generation in generations(path) if generation.exists()]
    for generation in found:
        try:
            configuration, tensors = read_model(generation)
        except ModelFileError as damage:
            if generation is found[-1]:
                raise
            warnings.warn(
                f"{damage}; resuming from the previous checkpoint", CheckpointWarning, stacklevel=2
            )
        else:
            _load(generation, configuration, tensors, trainer)
            return True
    return False


def extent(path: Path) -> tuple[int, int, float] | None:
    """The rows, the held-out rows and the seconds of the fit of the newest valid checkpoint; None if
    there is no checkpoint, or if the budget is in training steps."""
    for generation in generations(path):
        try:
            fit = read_model(generation)[0]["fit"]
        except (ModelFileError, KeyError):
            continue
        seconds = [phase["seconds"] for phase in fit["settings"]["phases"]]
        return None if None in seconds else (*fit["rows"][:2], sum(seconds))
    return None


def _load(
    path: Path, configuration: dict[str, Any], tensors: dict[str, Tensor], trainer: Trainer
) -> None:
    """Load the written state into a trainer with the same rows and settings."""
    if configuration.get("fit") != fingerprint(trainer):
        raise ModelFileError(
            f"{path}: belongs to a fit with other rows, settings, seed or width;"
            " delete it or fit without resuming"
        )
    try:
        trainer.load_state_dict(unpacked(configuration["state"], tensors))
    except MISFITS as failure:
        reason = " ".join(str(failure).split())[:150]
        raise ModelFileError(f"{path}: damaged ({reason}); delete it") from failure


def fingerprint(trainer: Trainer) -> dict[str, Any]:
    """The facts that must agree between two fits for one to resume from the state of the other."""
    batches, valid = trainer.batches, trainer.valid.x
    shapes = {name: list(p.shape) for name, p in trainer.flow.field.named_parameters()}
    facts = {
        "settings": described(trainer.settings),
        "seed": trainer.seed,
        "rows": [len(batches), len(valid), *batches.identity(), digest(valid)],
        "field": shapes,
    }
    return json.loads(json.dumps(facts))  # in the form in which a file returns them


def checkpoint_beside(model: Path) -> Path:
    """The path of the checkpoint of an unfinished fit, beside its model file."""
    return model.with_name(f"{model.name}.checkpoint")
