"""Six pictures against references that were looked at: what a change of code draws otherwise is
seen.

A reference is made again by `CNF_NEW_REFERENCES=1 pytest tests/test_reference_pictures.py`; look
at it then."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from cnf.plotting import (
    calibration,
    density,
    field,
    figure,
    pairs,
    save,
    trajectories,
)

FOLDER = Path(__file__).parent / "pictures"
BOX = ((-3.0, 3.0), (-3.0, 3.0))
# Of 255, on average over a picture in gray whose pixels are means of 4 × 4: fonts and the edges of
# lines may be drawn a little otherwise from one version of a library to the next, but nothing may
# stand elsewhere.
TOLERANCE = 2.0


def arcs(x: torch.Tensor) -> torch.Tensor:
    """The logarithm of a density on two arcs."""
    radius = x.norm(dim=-1)
    return -((radius - 1.5).square() / 0.18) - (2.2 * x[:, 0] * (1 - x[:, 1].tanh())).square() / 16


def normal(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def spiral() -> torch.Tensor:
    t = torch.linspace(0, 1, 20)[:, None]
    z = normal(60, 2, 0)
    angle, radius = 2 * t + z[:, 1].atan2(z[:, 0]), z.norm(dim=1) * (1 - 0.6 * t)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)


def rotation(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([-x[:, 1], x[:, 0]], -1)


MIX = torch.tensor([[1.0, 0.6, 0.0], [0.0, 0.8, 0.5], [0.0, 0.0, 1.0]])
PICTURES = {
    "density": lambda: density(
        arcs, BOX, regions=(0.5, 0.9), bar="density", names=["a", "b"], resolution=80
    ),
    "contours": lambda: density(arcs, BOX, kind="contours", resolution=80),
    "trajectories": lambda: trajectories(spiral(), bar="time"),
    "streamlines": lambda: field(rotation, BOX, kind="streamlines", resolution=20),
    "pairs": lambda: pairs(
        normal(300, 3, 0) @ MIX, normal(300, 3, 1) @ MIX, names=["a", "b", "c"]
    )[0, 0],
    "calibration": lambda: calibration(
        torch.rand(300, generator=torch.Generator().manual_seed(0)) ** 1.3
    ),
}


def blurred(path: Path) -> np.ndarray:
    """Means of 4 × 4 pixels in gray."""
    with Image.open(path) as image:
        gray = image.convert("L")
        return np.asarray(gray.reduce(4), dtype=float)


def drawn(name: str, folder: Path) -> Path:
    page: Figure = PICTURES[name]().figure
    save(page, folder / f"{name}.png")
    return folder / f"{name}.png"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_as_it_was_when_it_was_looked_at(name: str, tmp_path: Path):
    if "CNF_NEW_REFERENCES" in os.environ:
        with Image.open(drawn(name, tmp_path)) as image:
            FOLDER.mkdir(exist_ok=True)
            image.convert("RGB").quantize(64).save(FOLDER / f"{name}.png", optimize=True)
    new, reference = blurred(drawn(name, tmp_path)), blurred(FOLDER / f"{name}.png")
    assert np.abs(np.subtract(new.shape, reference.shape)).max() <= 2
    height, width = np.minimum(new.shape, reference.shape)
    assert np.abs(new[:height, :width] - reference[:height, :width]).mean() < TOLERANCE


def test_a_picture_that_is_moved_or_empty_is_told_from_its_reference(tmp_path: Path):
    page, axes = figure()
    density(
        lambda x: arcs(x - 0.6),
        BOX,
        ax=axes[0, 0],
        regions=(0.5, 0.9),
        bar="density",
        resolution=80,
    )
    save(page, tmp_path / "moved.png")
    moved, reference = blurred(tmp_path / "moved.png"), blurred(FOLDER / "density.png")
    height, width = np.minimum(moved.shape, reference.shape)
    assert np.abs(moved[:height, :width] - reference[:height, :width]).mean() > 2 * TOLERANCE
