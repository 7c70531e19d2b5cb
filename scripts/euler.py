"""Euler's method and its successors
=================================

Error against step size, work and tolerance.

Run it with::

    python scripts/euler.py            # writes figures/euler.png and figures/euler.json

The equation is dx/dt = 2 cos(t) x (1 − x) from t = 0 to 6, solved from 50 initial values. Its exact
solution is x/(1 − x) = x₀/(1 − x₀) exp(2 sin t). The error is the largest one at t = 6, in float64. The
order of a method is the slope of log error against log step size; adaptive solvers take a tolerance
instead.
"""

# sphinx_gallery_thumbnail_path = "../figures/euler.png"
from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import write_json
from torch import Tensor

import cnf
from cnf import plotting
from cnf.fields import MLPField
from cnf.ode import Solver, solve
from cnf.plotting.style import ACCENT, FAINT, INK, MODEL, styled

END = 6.0
STARTS = torch.linspace(0.02, 0.98, 50, dtype=torch.float64)[:, None]
ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4, "dopri5": 5}
ADAPTIVE = ("dopri5", "dopri8")
COLORS = {"euler": ACCENT, "midpoint": "#cc79a7", "rk4": "#009e73", "dopri5": MODEL, "dopri8": INK}
ROUNDING = 1e-11  # errors below are not of the method


@dataclass(frozen=True)
class Result:
    """One solve.

    Attributes:
        method: its name.
        setting: step size of a grid, tolerance of an adaptive solver.
        error: largest error at the end.
        nfe: evaluations of the velocity.
    """

    method: str
    setting: float
    error: float
    nfe: int


def velocity(t: Tensor, x: Tensor) -> Tensor:
    return 2 * torch.cos(t) * x * (1 - x)


def exact(t: Tensor, start: Tensor) -> Tensor:
    """The solution at times t from x(0) = start."""
    return torch.sigmoid(torch.logit(start) + 2 * torch.sin(t))


def measure(method: str, setting: float, solver: Solver) -> Result:
    solution = solve(velocity, STARTS, [0.0, END], solver=solver)
    truth = exact(torch.tensor(END, dtype=STARTS.dtype), STARTS)
    return Result(method, setting, (solution.x[-1] - truth).abs().max().item(), solution.nfe)


def on_grids(steps: Sequence[int]) -> list[Result]:
    """Every method of a grid at so many equal steps."""
    return [measure(name, END / n, cnf.Grid.uniform(n, name)) for name in ORDERS for n in steps]


def by_tolerance(tolerances: Sequence[float]) -> list[Result]:
    """The adaptive solvers at each tolerance, relative and absolute."""
    return [
        measure(name, tolerance, cnf.Torchdiffeq(name, rtol=tolerance, atol=tolerance))
        for name in ADAPTIVE
        for tolerance in tolerances
    ]


def observed_order(results: Sequence[Result]) -> float:
    """Slope of log error on log step size over the finer half of the steps, above rounding."""
    usable = [(r.setting, r.error) for r in results if r.error > ROUNDING]
    h, error = np.log(usable[len(usable) // 2 :]).T
    return float(np.polyfit(h, error, 1)[0])


def tied_difference(blocks: int) -> float:
    """Largest difference between an Euler block and as many residual blocks with its weights."""
    torch.manual_seed(0)
    f = MLPField(2, (32, 32)).double()
    x = torch.randn(100, 2, dtype=torch.float64)
    with torch.no_grad():
        z = x
        for k in range(blocks):
            z = z + f(torch.tensor(k / blocks, dtype=z.dtype), z) / blocks
        out = cnf.ODEBlock(f, solver=cnf.Grid.uniform(blocks, "euler"), gradient="direct")(x)
    return (out - z).abs().max().item()


@styled
def draw(grids: Sequence[Result], adaptive: Sequence[Result], orders: dict[str, float]) -> Figure:
    page, axes = plotting.figure(2, 2, panel=(3.2, 3.1))
    draw_euler(axes[0, 0])
    draw_orders(axes[0, 1], grids, orders)
    draw_work(axes[1, 0], grids, adaptive)
    draw_tolerance(axes[1, 1], adaptive)
    return page


def draw_euler(ax: Axes) -> None:
    """Polygons of Euler's method around the solution from one start."""
    start = torch.tensor([0.2], dtype=torch.float64)
    fine = torch.linspace(0, END, 200, dtype=torch.float64)
    ax.plot(fine, exact(fine, start), color=INK, label="solution")
    for steps, color in ((8, FAINT), (16, "#e9a37a"), (32, ACCENT)):
        t = torch.linspace(0, END, steps + 1, dtype=torch.float64)
        x = solve(velocity, start, t, solver=cnf.Grid.uniform(steps, "euler")).x
        ax.plot(t, x, color=color, marker="o", markersize=2, label=f"Euler, h = {END / steps:g}")
    ax.set(xlabel="t", ylabel="x", title="dx/dt = 2 cos(t) x (1 − x)")
    legend_below(ax)


def draw_orders(ax: Axes, grids: Sequence[Result], orders: dict[str, float]) -> None:
    """Error against step size, with the slope of the method through its finest step."""
    for name, order in ORDERS.items():
        h, error = np.array([(r.setting, r.error) for r in grids if r.method == name]).T
        above = error > ROUNDING
        ax.loglog(
            h, error[above][-1] * (h / h[above][-1]) ** order, color=FAINT, linewidth=0.8, zorder=1
        )
        label = f"{name}: order {orders[name]:.2f}"
        ax.loglog(h, error, color=COLORS[name], marker="o", markersize=2.5, label=label)
    ax.set(
        xlabel="step size h",
        ylabel="error at the end",
        title="error against step size",
        ylim=(1e-14, 3),
    )
    legend_below(ax)


def draw_work(ax: Axes, grids: Sequence[Result], adaptive: Sequence[Result]) -> None:
    """Error against evaluations."""
    for results, marker, line, kind in (
        (grids, "o", "-", "equal steps"),
        (adaptive, "s", "--", "adaptive"),
    ):
        for name in dict.fromkeys(r.method for r in results):
            nfe, error = np.array([(r.nfe, r.error) for r in results if r.method == name]).T
            style = {"color": COLORS[name], "marker": marker, "linestyle": line, "markersize": 2.5}
            ax.loglog(nfe, error, label=f"{name}, {kind}", **style)
    ax.set(
        xlabel="evaluations of the velocity", ylabel="error at the end", title="error against work"
    )
    ax.set_ylim(1e-14, 3)
    legend_below(ax)


def draw_tolerance(ax: Axes, adaptive: Sequence[Result]) -> None:
    """Error and evaluations against tolerance."""
    right = ax.twinx()
    right.spines["right"].set_visible(True)
    for name in ADAPTIVE:
        rows = [(r.setting, r.error, r.nfe) for r in adaptive if r.method == name]
        tolerance, error, nfe = np.array(rows).T
        ax.loglog(
            tolerance,
            error,
            color=COLORS[name],
            marker="s",
            markersize=2.5,
            label=f"{name}: error (left)",
        )
        right.loglog(
            tolerance, nfe, color=COLORS[name], linestyle=":", label=f"{name}: evaluations (right)"
        )
    ax.loglog(
        tolerance, tolerance, color=FAINT, linewidth=0.8, zorder=1, label="error = tolerance"
    )
    ax.set(xlabel="tolerance", ylabel="error at the end", title="accuracy is set by one number")
    right.set_ylabel("evaluations of the velocity")
    legend_below(ax, right)


def legend_below(*axes: Axes) -> None:
    """One legend for axes that share a place, under it: the curves leave no room inside."""
    handles = [handle for ax in axes for handle in ax.get_legend_handles_labels()[0]]
    axes[0].legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def report(grids: Sequence[Result], adaptive: Sequence[Result], orders: dict[str, float]) -> None:
    for name, order in ORDERS.items():
        print(f"{name:<9} order {order}: observed {orders[name]:.3f}")
    for r in (*grids, *adaptive):
        kind = "tolerance" if r in adaptive else "step     "
        print(f"{r.method:<9} {kind} {r.setting:<9.3g} error {r.error:.2e}  {r.nfe} evaluations")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--quick", action="store_true", help="fewer steps and tolerances")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    doublings, powers = (7, range(3, 9, 2)) if options.quick else (11, range(2, 13))
    grids = on_grids([8 * 2**k for k in range(doublings)])
    adaptive = by_tolerance([10.0**-k for k in powers])
    orders = {name: observed_order([r for r in grids if r.method == name]) for name in ORDERS}
    tied = {blocks: tied_difference(blocks) for blocks in (1, 7, 30)}
    report(grids, adaptive, orders)
    print(f"Euler block − residual network with tied weights: at most {max(tied.values()):.1e}")
    plotting.save(draw(grids, adaptive, orders), options.out / "euler.png")
    found = {"orders": orders, "tied": tied, "grids": grids, "adaptive": adaptive}
    write_json(options.out / "euler.json", found)


if __name__ == "__main__":
    main()
