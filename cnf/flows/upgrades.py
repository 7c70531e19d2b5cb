"""Model files of earlier releases, read as those of this one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

# Names of classes in format "1", which release 0.1 wrote, and their names since.
CLASSES = {"Support": "BoundedToReal"}


def upgraded_part(part: dict[str, Any]) -> dict[str, Any]:
    """One object of a configuration of format "1" with the names of format "2"."""
    name = part.get("class")
    return {**part, "class": CLASSES[name]} if isinstance(name, str) and name in CLASSES else part


def upgraded_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file of format "1" under the names of format "2"."""
    return {
        f"{name}_matrix" if name.endswith(".inverse") else name: tensor
        for name, tensor in tensors.items()
    }
