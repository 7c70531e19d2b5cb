"""Results as files: numbers as JSON, and cells, which are saved so that an interrupted run can
continue."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnf.files import atomic_path

Cell = tuple[dict, dict[str, Tensor]]  # numbers, and arrays by name


def write_json(path: Path, found: dict | list) -> None:
    """Numbers, indented; a dataclass becomes a dictionary."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(found, indent=1, ensure_ascii=False, default=asdict) + "\n"
        )


def read_json(path: Path) -> dict:
    """What an earlier run wrote, nothing if there was none."""
    return json.loads(path.read_text()) if path.exists() else {}


def kept(folder: Path | None, name: str, compute: Callable[[], Cell]) -> Cell:
    """The cell of this name: from the folder if it is there, else computed, and kept if there is a
    folder."""
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
