"""Results kept as soon as they are there, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnf.files import atomic_path

Cell = tuple[dict, dict[str, Tensor]]  # numbers, and arrays by name


def kept(folder: Path | None, name: str, compute: Callable[[], Cell]) -> Cell:
    """The cell of this name: from the folder if it is there, else computed, and kept if there is a folder."""
    if folder is None:
        return compute()
    path = folder / f"{name}.npz"
    if not path.exists():
        numbers, arrays = compute()
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            parts = {key: value.numpy() for key, value in arrays.items()}
            np.savez(file, numbers=np.array(json.dumps(numbers)), **parts)
    with np.load(path, allow_pickle=False) as data:
        arrays = {key: torch.from_numpy(data[key]) for key in data.files if key != "numbers"}
        return json.loads(data["numbers"].item()), arrays
