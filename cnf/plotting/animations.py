"""Animations: GIF with pillow, MP4 with ffmpeg if it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.animation import FFMpegWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cnf.deprecation import renamed_argument
from cnf.files import atomic_path
from cnf.plotting.arrays import Array, Limits, centers, numbers
from cnf.plotting.motion import ARROW_UNITS
from cnf.plotting.style import ACCENT, INK, MODEL, chosen_limits, frame, place_image, styled

Update: TypeAlias = "Callable[[int], None]"

FEWEST_FRAMES = 20
DPI = 100


@styled
@renamed_argument("progress", "callback")
def animate(
    draw: Callable[[Figure], Update],
    frames: int,
    path: str | Path,
    *,
    size: tuple[float, float] = (4.0, 4.0),
    frame_rate: int = 20,
    callback: Callable[[int, int], None] | None = None,
) -> None:
    """Write an animation that loops: a .gif, or an .mp4 if ffmpeg is installed.

    `draw(figure)` draws on the figure and returns a function that updates it to frame 0, …,
    frames − 1. `size` is in inches, at 100 dots per inch; `frame_rate` per second;
    `progress(done, frames)` is called after every frame. Raises ValueError for another extension,
    and for an .mp4 without ffmpeg.

    >>> from tempfile import TemporaryDirectory
    >>> def draw(page):
    ...     title = page.suptitle("")
    ...     return lambda k: title.set_text(f"frame {k}")
    >>> with TemporaryDirectory() as folder:
    ...     animate(draw, 3, Path(folder, "count.gif"), size=(1, 1))
    ...     with Image.open(Path(folder, "count.gif")) as film:
    ...         print(film.n_frames, film.size)
    3 (100, 100)
    """
    path = Path(path)
    write = writer_for(path)
    if frames < 1:
        raise ValueError(f"frames: expected at least 1, got {frames}")
    page = Figure(figsize=size, dpi=DPI, layout="compressed")
    FigureCanvasAgg(page)
    update = draw(page)
    update(0)
    page.canvas.draw()
    page.set_layout_engine("none")  # laid out once: faster, and nothing trembles
    with atomic_path(path) as temporary:
        write(page, update, Course(frames, frame_rate, callback), temporary)


@dataclass(frozen=True)
class Course:
    """The number of frames, their rate, and the callback."""

    frames: int
    rate: int
    callback: Callable[[int, int], None] | None

    def __iter__(self) -> Iterator[int]:
        for k in range(self.frames):
            yield k
            if self.callback is not None:
                self.callback(k + 1, self.frames)


def writer_for(path: Path) -> Callable[[Figure, Update, Course, Path], None]:
    """The function that writes this kind of file."""
    kind = path.suffix.lower()
    if kind == ".gif":
        return write_gif
    if kind != ".mp4":
        raise ValueError(f"{path}: expected a file name that ends in .gif or .mp4")
    if not FFMpegWriter.isAvailable():
        raise ValueError(f"{path}: ffmpeg is not installed: install it, or write a .gif")
    return write_mp4


def write_mp4(page: Figure, update: Update, course: Course, path: Path) -> None:
    """Frames through ffmpeg."""
    writer = FFMpegWriter(fps=course.rate)
    with writer.saving(page, path, DPI):
        for k in course:
            update(k)
            writer.grab_frame()


def write_gif(page: Figure, update: Update, course: Course, path: Path) -> None:
    """Frames in one palette, so that colors do not flicker and unchanged parts cost nothing."""
    palette = shared_palette(
        [shot(page, update, i) for i in np.linspace(0, course.frames - 1, 5).astype(int)]
    )
    stills = (
        shot(page, update, i).quantize(palette=palette, dither=Image.Dither.NONE) for i in course
    )
    first = next(stills)
    pace = {"duration": 1000 / course.rate, "loop": 0}
    first.save(path, format="GIF", save_all=True, append_images=stills, **pace)


def shot(page: Figure, update: Update, k: int) -> Image.Image:
    """The figure at one frame."""
    update(k)
    canvas = page.canvas
    assert isinstance(canvas, FigureCanvasAgg), "`animate` gives the figure this canvas"
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def shared_palette(stills: Sequence[Image.Image]) -> Image.Image:
    """256 colors for all pictures."""
    montage = np.concatenate([np.asarray(still) for still in stills])
    palette = Image.fromarray(montage).quantize(256, Image.Quantize.MEDIANCUT)
    colors = np.array(palette.getpalette()).reshape(-1, 3)
    # Pillow takes colors that are nearly white for white: the paper must not turn gray.
    colors[(colors > 247).all(axis=1)] = 255
    palette.putpalette(colors.ravel().tolist())
    return palette


@renamed_argument("progress", "callback")
def flow_animation(
    path: Array,
    times: Array,
    file: str | Path,
    *,
    limits: Limits | None = None,
    density_frames: Array | None = None,
    field_frames: Array | None = None,
    frames: int = 48,
    frame_rate: int = 20,
    size: tuple[float, float] = (4.0, 4.0),
    names: Sequence[str] | None = None,
    title: str = "",
    callback: Callable[[int, int], None] | None = None,
) -> None:
    """Animate particles that flow from base to data and back, over the density and the field if
    these are given.

    `path` (time, n, 2) has the particles at increasing `times` (time,). `density_frames` (time,
    rows, columns) is the density on a grid that fills `limits` (see `density_grid`), with its own
    scale at every time. `field_frames` (time, cells, cells, 2) is the velocity at the centers of
    such a grid, drawn as arrows. Frames between two times are interpolated; motion slows at both
    ends: frame k shows t = t₀ + (t₁ − t₀)(1 − cos(2πk / frames)) / 2. Raises ValueError for wrong
    shapes, for fewer than 20 frames, and as `animate` does.

    >>> from tempfile import TemporaryDirectory
    >>> start = np.linspace(-1, 1, 200).reshape(100, 2)
    >>> with TemporaryDirectory() as folder:
    ...     flow_animation(np.stack([start, start / 2]), [0, 1], Path(folder, "shrink.gif"), frames=20)
    ...     print([file.name for file in Path(folder).iterdir()])
    ['shrink.gif']
    """
    states, clock, moments = eased(path, times, frames)
    images = checked_frames("density_frames", density_frames, len(clock), limits)
    fields = checked_frames("field_frames", field_frames, len(clock), limits, velocity=True)
    box = chosen_limits(limits, states[[0, -1]].reshape(-1, 2))
    heading = f"{title}\n" if title else ""

    def draw(page: Figure) -> Update:
        ax = page.add_subplot()
        move = [particles(ax, states, clock, MODEL if images is None else ACCENT)]
        if images is not None:
            move.append(background(ax, images, clock, box))
        if fields is not None:
            move.append(wind(ax, fields, clock, box))
        frame(ax, box, names)

        def update(k: int) -> None:
            for moved in move:
                moved(moments[k])
            ax.set_title(f"{heading}t = {moments[k]:.2f}")

        return update

    animate(draw, frames, file, size=size, frame_rate=frame_rate, callback=callback)


def eased(path: Array, times: Array, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Particles, their times, and the time of each frame of a way there and back, slow at both
    ends."""
    states, clock = checked_path(path, times)
    if frames < FEWEST_FRAMES:
        raise ValueError(f"frames: expected at least {FEWEST_FRAMES}, got {frames}")
    ease = (1 - np.cos(2 * np.pi * np.arange(frames) / frames)) / 2
    return states, clock, clock[0] + (clock[-1] - clock[0]) * ease


def particles(
    ax: Axes, states: np.ndarray, clock: np.ndarray, color: str
) -> Callable[[float], None]:
    """Dots, and the function that moves them to a time."""
    dots = ax.scatter(states[0, :, 0], states[0, :, 1], s=7, color=color, alpha=0.8, linewidths=0)
    return lambda t: dots.set_offsets(between(states, clock, t))


def background(
    ax: Axes, images: np.ndarray, clock: np.ndarray, box: Limits
) -> Callable[[float], None]:
    """A map of the density, and the function that sets it to a time."""
    shown = place_image(ax, images[0], box)

    def update(t: float) -> None:
        image = between(images, clock, t)
        shown.set(data=image, clim=(0, np.nanmax(image)))

    return update


def wind(ax: Axes, fields: np.ndarray, clock: np.ndarray, box: Limits) -> Callable[[float], None]:
    """Arrows along the velocity, on one scale at all times, and the function that turns them to a
    time."""
    x, y = centers(box, fields.shape[1])
    speed = np.linalg.norm(fields, axis=-1)
    cell = min(x[1] - x[0], y[1] - y[0])
    scaled = cell * fields / np.maximum(speed, np.nanquantile(speed, 0.95) or 1.0)[..., None]
    look = {"color": INK, "alpha": 0.7, "pivot": "mid", "zorder": 3, **ARROW_UNITS}
    drawn = ax.quiver(x, y, *np.moveaxis(scaled[0], -1, 0), **look)
    return lambda t: drawn.set_UVC(*np.moveaxis(between(scaled, clock, t), -1, 0))


def between(values: np.ndarray, clock: np.ndarray, t: float) -> np.ndarray:
    """The values at time t, on the straight line between their neighbors in time.

    >>> between(np.array([[0.0], [4.0]]), np.array([0.0, 1.0]), 0.25)
    array([1.])
    """
    after = min(max(int(np.searchsorted(clock, t)), 1), len(clock) - 1)
    share = (t - clock[after - 1]) / (clock[after] - clock[after - 1])
    return (1 - share) * values[after - 1] + share * values[after]


def checked_path(path: Array, times: Array) -> tuple[np.ndarray, np.ndarray]:
    """Particles and their times, of fitting shapes."""
    states, clock = numbers(path), numbers(times)
    if states.ndim != 3 or states.shape[0] < 2 or states.shape[2] != 2:
        raise ValueError(
            f"path: expected shape (time, n, 2) with at least 2 times, got {states.shape}"
        )
    if clock.shape != states.shape[:1] or (np.diff(clock) <= 0).any():
        raise ValueError(
            f"times: expected {len(states)} rising times, one for each state, got {clock.tolist()}"
        )
    return states, clock


def checked_frames(
    name: str, frames: Array | None, count: int, limits: Limits | None, *, velocity: bool = False
) -> np.ndarray | None:
    """One picture of the density, or one velocity on a square grid, for each time."""
    if frames is None:
        return None
    values = numbers(frames)
    shape = (count, *values.shape[1:3], *(2,) * velocity)
    if (
        values.ndim != 3 + velocity
        or values.shape != shape
        or (velocity and len({*shape[1:3]}) > 1)
    ):
        wanted = "cells, cells, 2" if velocity else "rows, columns"
        raise ValueError(f"{name}: expected shape ({count}, {wanted}), got {values.shape}")
    if limits is None:
        raise ValueError(f"limits: expected the limits of the grid of {name}, got none")
    return values
