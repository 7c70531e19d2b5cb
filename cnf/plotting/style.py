"""The common style of all plots: settings, colors, and limits."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from cnf.files import atomic_path
from cnf.plotting.arrays import Array, Limits, column_names, numbers, window
from cnf.plotting.log_labels import label_plainly

INK, FAINT = "#333333", "#b8b8b8"
# Blue and vermilion: distinct for color-blind readers.
DATA, MODEL, ACCENT = "#7a7a7a", "#0072b2", "#d55e00"

# White to ink in equal steps of CIELAB lightness: empty regions keep the color of the paper.
DENSITY = LinearSegmentedColormap.from_list(
    "density",
    [
        "#ffffff",
        "#c3e5fb",
        "#8ccaf3",
        "#5eace5",
        "#3d8fce",
        "#3071ae",
        "#2f5488",
        "#2b3a5e",
        "#202236",
    ],
)
# Plasma without its yellow end, which is lost on white.
TIME = LinearSegmentedColormap.from_list(
    "time", matplotlib.colormaps["plasma"](np.linspace(0, 0.85, 64))
)

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 8),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 7),
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "white"),
    **dict.fromkeys(("axes.grid", "axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.5),
    "lines.linewidth": 1.2,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # text stays text, as journals ask
    "svg.hashsalt": "cnf",  # the same picture, the same bytes
    "text.parse_math": False,  # a name such as $10-$20 is no formula
}

styled = matplotlib.rc_context(STYLE)
TIGHT: Any = {"bbox_inches": "tight", "pad_inches": 0.03}
# Characters that XML does not allow.
NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@styled
def figure(
    rows: int = 1, columns: int = 1, *, panel: tuple[float, float] = (2.6, 2.6)
) -> tuple[Figure, np.ndarray]:
    """A figure in the common style, independent of pyplot, and its axes, shape (rows, columns);
    `panel` is in inches.

    >>> page, axes = figure(2, 3)
    >>> axes.shape
    (2, 3)
    """
    page = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="compressed")
    return page, page.subplots(rows, columns, squeeze=False)


def panels(
    axes: Sequence[Axes] | None, count: int, what: str, make: Callable[[], np.ndarray]
) -> np.ndarray:
    """The given axes (count,), or new ones.

    Raises:
        ValueError: for another number of axes.
    """
    chosen = make() if axes is None else np.asarray(axes)
    if chosen.size != count:
        raise ValueError(f"axes: expected one for each of {count} {what}, got {chosen.size}")
    return chosen.ravel()


@styled
def save(page: Figure, path: str | Path) -> None:
    """Write a figure in the format of its file extension; an old file is replaced only by a
    complete new one.

    Raises ValueError for an unknown extension.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save(figure()[0], Path(folder, "empty.svg"))
    ...     print([file.name for file in Path(folder).iterdir()])
    ['empty.svg']
    """
    for ax in page.axes:
        label_plainly(ax.xaxis)
        label_plainly(ax.yaxis)
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in page.canvas.get_supported_filetypes():
        raise ValueError(f"{path}: expected a file name that ends in .png, .svg or .pdf")
    stamp = {"CreationDate": None} if kind == "pdf" else None
    with atomic_path(path) as temporary:
        if kind == "svg":
            temporary.write_text(as_svg(page), encoding="utf-8")
        else:
            page.savefig(temporary, format=kind, metadata=stamp, **TIGHT)


def as_svg(page: Figure, **options: Any) -> str:
    """A figure as the text of an svg file. Control characters, which a name may hold and XML may
    not, are replaced."""
    buffer = io.StringIO()
    page.savefig(buffer, format="svg", metadata={"Date": None}, **TIGHT, **options)
    return without_controls(buffer.getvalue())


def without_controls(text: str) -> str:
    """A text with the characters replaced that XML does not allow."""
    return NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def limits(
    x: Array, quantiles: tuple[float, float] = (0.005, 0.995), margin: float = 0.15
) -> tuple[tuple[float, float], ...]:
    """The range of every column of x (n, dim) between two quantiles, widened by `margin` times its
    length.

    Missing and infinite values are ignored; a constant column has a range of length one. Raises
    ValueError for a column without finite values.

    >>> limits(np.array([[0.0, 5.0], [2.0, 5.0]]), quantiles=(0, 1), margin=0.5)
    ((-1.0, 3.0), (4.5, 5.5))
    """
    values = numbers(x)
    if values.ndim != 2:
        raise ValueError(f"limits: expected shape (n, dim), got {values.shape}")
    return tuple(column_range(column, i, quantiles, margin) for i, column in enumerate(values.T))


def column_range(
    column: np.ndarray, index: int, quantiles: tuple[float, float], margin: float
) -> tuple[float, float]:
    """The range of one column, see `limits`."""
    finite = column[np.isfinite(column)]
    if not len(finite):
        raise ValueError(f"column {index}: expected at least one finite value, got none")
    low, high = np.quantile(finite, quantiles)
    space = margin * (high - low) if high > low else 0.5
    return float(low - space), float(high + space)


def chosen_limits(given: Limits | None, points: np.ndarray) -> Limits:
    """The given limits, or those of the points."""
    return limits(points) if given is None else given


def frame(ax: Axes, box: Limits, names: Sequence[str] | None) -> None:
    """Set limits and labels; equal aspect, unless one side would be over four times the other."""
    (left, right), (bottom, top) = window(box)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ratio = (right - left) / (top - bottom)
    ax.set_aspect("equal" if 1 / 4 <= ratio <= 4 else "auto")
    label(ax, *column_names(names, 2))


def label(ax: Axes, x: str, y: str) -> None:
    """Label both axes literally: a dollar sign in a column name does not start a formula."""
    ax.set_xlabel(x, parse_math=False)
    ax.set_ylabel(y, parse_math=False)


def place_image(ax: Axes, values: np.ndarray, box: Limits) -> AxesImage:
    """Values on a grid, rows from bottom to top, as an image under everything else that fills the
    limits."""
    left, right, bottom, top = window(box).ravel().tolist()
    extent = left, right, bottom, top
    return ax.imshow(
        values, DENSITY, extent=extent, origin="lower", interpolation="bilinear", zorder=0
    )


def color_bar(ax: Axes, artist: ScalarMappable, name: str) -> None:
    """A color bar beside the axes for the artist's colors."""
    bar = ax.figure.colorbar(artist, cax=ax.inset_axes((1.03, 0, 0.04, 1)))
    bar.outline.set_visible(False)
    bar.set_label(name, parse_math=False)
