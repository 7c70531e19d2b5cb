"""A picture as a density
======================

The darker a part of a picture, the higher its density.

Run it with::

    python scripts/image_density.py --image portrait.png --out figures

The script draws points in proportion to the darkness of a PNG's pixels, fits a flow to them, and prints
its held-out NLL and that of the picture itself, whose density is known for each pixel. It writes
image_density.png with the picture, points drawn from the flow, and its density. Without --image, the
picture shows three letters.
"""

# sphinx_gallery_thumbnail_path = "../figures/image_density.png"
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import cnf
from cnf import plotting
from cnf.plotting.style import INK, styled

ROWS, JUDGED = 60_000, 5_000
LARGEST = 256  # pixels a side that a picture is shrunk to


def letters() -> np.ndarray:
    """The darkness of three letters, rows from top to bottom."""
    page = Figure(figsize=(2.4, 1.2), dpi=100)
    FigureCanvasAgg(page)
    page.text(0.5, 0.54, "cnf", ha="center", va="center", fontsize=64, fontweight="bold")
    page.canvas.draw()
    return 1 - np.asarray(page.canvas.buffer_rgba())[..., :3].mean(-1) / 255


def darkness(file: Path | None) -> np.ndarray:
    """How dark each pixel is, from 0 to 1; what is transparent is light.

    Raises ValueError for a picture that is white all over.
    """
    if file is None:
        return letters()
    with Image.open(file) as image:
        image = image.convert("RGBA")
        image.thumbnail((LARGEST, LARGEST))
        pixels = np.asarray(image, dtype=float) / 255
    dark = pixels[..., 3] * (1 - pixels[..., :3].mean(-1))
    if not dark.sum() > 0:
        raise ValueError(
            f"{file}: expected a picture with dark places, got one that is white all over"
        )
    return dark


def points(dark: np.ndarray, count: int, seed: int) -> Tensor:
    """Places drawn in proportion to the darkness, even inside a pixel; one unit is the picture's
    height."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.from_numpy(dark).ravel()
    cells = torch.multinomial(weights, count, replacement=True, generator=generator)
    row, column = cells // dark.shape[1], cells % dark.shape[1]
    jitter = torch.rand(2, count, generator=generator, dtype=torch.float64)
    return torch.stack([column + jitter[0], dark.shape[0] - row - jitter[1]], 1) / dark.shape[0]


def exact_log_prob(dark: np.ndarray, x: Tensor) -> Tensor:
    """The log-density of the picture: even inside a pixel."""
    height = dark.shape[0]
    column = (x[:, 0] * height).long().clamp(0, dark.shape[1] - 1)
    row = (height - x[:, 1] * height).ceil().long().sub(1).clamp(0, height - 1)
    return torch.from_numpy(dark * height**2 / dark.sum())[row, column].log()


@torch.no_grad()
def report(flow: cnf.CNF, dark: np.ndarray, seed: int) -> None:
    """Print the mean of the log-densities' difference over fresh points."""
    x = points(dark, JUDGED, seed)
    gap = exact_log_prob(dark, x) - flow.log_prob(x)
    print(
        f"held-out NLL {-flow.log_prob(x).mean():.4f} nats a row,"
        f" {gap.mean():.4f} ± {gap.std() / len(gap) ** 0.5:.4f} above that of the picture"
    )


@styled
@torch.no_grad()
def draw(flow: cnf.CNF, dark: np.ndarray, *, resolution: int) -> Figure:
    """The picture, points of the flow, its density."""
    page, axes = plotting.figure(1, 3, panel=(2.4, 1.6))
    shape = dark.shape[1] / dark.shape[0]
    box = ((-0.05, shape + 0.05), (-0.05, 1.05))
    axes[0, 0].imshow(dark, cmap="Greys", extent=(0, shape, 0, 1))
    drawn = flow.sample((12_000,), generator=torch.Generator().manual_seed(0))
    axes[0, 1].scatter(*drawn.T, s=0.4, color=INK, linewidths=0, rasterized=True)
    plotting.density(flow.log_prob, box, ax=axes[0, 2], resolution=resolution)
    for ax, title in zip(axes[0], ("picture", "points of the flow", "density of the flow")):
        ax.set(
            xlim=box[0], ylim=box[1], aspect="equal", xticks=[], yticks=[], xlabel="", ylabel=""
        )
        ax.spines[:].set(visible=True, color="#cccccc")
        ax.set_title(title)
    return page


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument("--image", type=Path, help="path of a PNG; default: three letters")
    parser.add_argument("--steps", type=int, default=2000, help="training steps of the fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run of a few seconds")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    dark = darkness(options.image)
    x = points(dark, ROWS, options.seed)
    flow = cnf.CNF(dim=2)
    cnf.fit(flow, x, seed=options.seed, steps=20 if options.quick else options.steps)
    flow.double()
    report(flow, dark, options.seed + 1)
    plotting.save(
        draw(flow, dark, resolution=24 if options.quick else 160),
        options.out / "image_density.png",
    )


if __name__ == "__main__":
    main()
