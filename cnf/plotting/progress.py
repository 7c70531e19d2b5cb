"""The history of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from cnf.plotting.style import ACCENT, FAINT, INK, MODEL, figure, label, panels, styled

KEYS = ("phase", "step", "objective", "valid_nll", "valid_se", "nfe", "learning_rate")
BAND = "±1 standard error"


@styled
def history(
    records: Sequence[Mapping[str, object]], *, axes: Sequence[Axes] | None = None
) -> np.ndarray:
    """Draw objective, held-out NLL with its standard error, field evaluations and learning rate.

    A record has the keys phase, step, objective, valid_nll, valid_se, nfe and learning_rate; a
    value may be None. Steps are numbered continuously over phases. A thin line separates the
    phases, which are named above the first panel. Returns the four axes. Raises ValueError for no
    records, a missing key, and another number of axes.

    >>> record = {"phase": "likelihood", "objective": 2.0, "valid_nll": 2.1, "valid_se": 0.1, "nfe": 60}
    >>> axes = history([record | {"step": i, "learning_rate": 0.001} for i in range(5)])
    >>> [ax.get_ylabel() for ax in axes]
    ['objective', 'held-out NLL (nats)', 'field evaluations', 'learning rate']
    """
    check(records)
    shown = panels(axes, 4, "panels", lambda: figure(2, 2, panel=(3.2, 1.9))[1])
    steps = running_steps(values(records, "step"))
    borders = phase_borders([str(record["phase"]) for record in records])
    draw_objective(shown[0], steps, values(records, "objective"), [start for start, _ in borders])
    shown[0].set_title(" | ".join(phase for _, phase in borders), loc="left")
    draw_held_out(shown[1], steps, values(records, "valid_nll"), values(records, "valid_se"))
    for ax, key in zip(shown[2:], ("nfe", "learning_rate")):
        draw_known(ax, steps, values(records, key))
        ax.set_ylim(bottom=0)
    for ax, name in zip(
        shown, ("objective", "held-out NLL (nats)", "field evaluations", "learning rate")
    ):
        part_phases(ax, steps, borders)
        label(ax, "step", name)
    return shown


def check(records: Sequence[Mapping[str, object]]) -> None:
    """Every record has every key."""
    if not records:
        raise ValueError(
            "records: expected at least one, got none: nothing was trained; fits of fewer than 10"
            " seconds stay mixtures"
        )
    for i, record in enumerate(records):
        if missing := [key for key in KEYS if key not in record]:
            raise ValueError(
                f"record {i}: expected the keys {', '.join(KEYS)}, got none of {', '.join(missing)}"
            )


def values(records: Sequence[Mapping[str, object]], key: str) -> np.ndarray:
    """One value per record, NaN for None."""
    return np.array(
        [np.nan if record[key] is None else record[key] for record in records], dtype=float
    )


def running_steps(steps: np.ndarray) -> np.ndarray:
    """Steps counted on where they start again.

    >>> running_steps(np.array([0.0, 1, 2, 0, 1]))
    array([0., 1., 2., 2., 3.])
    """
    restarts = np.diff(steps) < 0
    return steps + np.concatenate([[0], np.cumsum(np.where(restarts, steps[:-1] - steps[1:], 0))])


def phase_borders(phases: Sequence[str]) -> list[tuple[int, str]]:
    """The index of every phase's first record, and the phase's name."""
    return [(i, phase) for i, phase in enumerate(phases) if i == 0 or phase != phases[i - 1]]


def draw_known(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """A line through the values that are known."""
    known = np.isfinite(y)
    ax.plot(x[known], y[known], color=MODEL)


def draw_objective(
    ax: Axes, steps: np.ndarray, objective: np.ndarray, starts: Sequence[int]
) -> None:
    """Every value faint, and the mean over a twentieth of its phase, which has an objective of its
    own."""
    for part in np.split(np.arange(len(steps)), starts[1:]):
        part = part[np.isfinite(objective[part])]
        width = max(1, len(part) // 20)
        ax.plot(steps[part], objective[part], color=FAINT, linewidth=0.5)
        if len(part) >= width:
            draw_known(ax, moving_mean(steps[part], width), moving_mean(objective[part], width))


def moving_mean(y: np.ndarray, width: int) -> np.ndarray:
    """Means of `width` neighbors."""
    return np.convolve(y, np.full(width, 1 / width), mode="valid")


def draw_held_out(ax: Axes, steps: np.ndarray, nll: np.ndarray, error: np.ndarray) -> None:
    """The held-out NLL with a band of one standard error, its lowest value marked."""
    known = np.isfinite(nll)
    x, y, e = steps[known], nll[known], np.nan_to_num(error[known])
    ax.fill_between(x, y - e, y + e, color=MODEL, alpha=0.2, linewidth=0, label=BAND)
    ax.plot(x, y, color=MODEL, marker="o", markersize=2)
    if len(y):
        best = int(y.argmin())
        ax.scatter(x[best], y[best], s=14, color=ACCENT, zorder=3, label=f"lowest: {y[best]:.3f}")
        ax.legend(
            loc="upper right", frameon=True, facecolor="white", edgecolor="none", framealpha=0.9
        )


def part_phases(ax: Axes, steps: np.ndarray, borders: Sequence[tuple[int, str]]) -> None:
    """A thin line where one phase ends and the next begins."""
    for i, _ in borders[1:]:
        ax.axvline(steps[i], color=INK, linewidth=0.5, linestyle=(0, (4, 3)))
    ax.margins(x=0.02)
