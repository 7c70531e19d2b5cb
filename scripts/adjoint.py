"""The adjoint method, formula by formula
======================================

Each formula of the method is compared with automatic differentiation and finite differences.

Run it with::

    python scripts/adjoint.py            # writes figures/adjoint.png and figures/adjoint.json

A damped pendulum, z = (angle φ, speed ω), dφ/dt = ω, dω/dt = −g sin φ − c ω, starts at t₀ = 0 and
should reach a target at t₁ = 4: L = ½|z(t₁) − target|². The adjoint a(t) = ∂L/∂z(t) obeys da/dt =
−aᵀ∂f/∂z, and ∂L/∂θ = ∫ aᵀ∂f/∂θ dt for θ = (g, c). Each formula is checked along the trajectory,
first with an accurate solve, then with Euler's method.
"""

# sphinx_gallery_thumbnail_path = "../figures/adjoint.png"
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
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
from cnf.neural_ode import Adjoint, adjoint
from cnf.ode import Solver, solve
from cnf.plotting.style import ACCENT, DATA, FAINT, INK, MODEL, styled

F64 = torch.float64
START, TARGET = torch.tensor([2.0, 0.0], dtype=F64), torch.tensor([0.5, 1.5], dtype=F64)
THETA = torch.tensor([2.0, 0.3], dtype=F64)
END = 4.0
FINE = cnf.Grid.uniform(120)


@dataclass(frozen=True)
class Check:
    """A formula and the largest difference between its two sides, relative to the larger side."""

    formula: str
    against: str
    difference: float


def velocity(t: Tensor, z: Tensor, theta: Tensor = THETA) -> Tensor:
    angle, speed = z.unbind(-1)
    return torch.stack([speed, -theta[0] * angle.sin() - theta[1] * speed], -1)


def loss(end: Tensor) -> Tensor:
    return 0.5 * (end - TARGET).square().sum()


def loss_from(t: Tensor, z: Tensor, theta: Tensor, end: float | Tensor = END) -> Tensor:
    """L as a function of the state z at time t; at the end itself, nothing is left to solve."""
    if t == end:
        return loss(z)
    times = torch.stack([t, torch.as_tensor(end, dtype=F64)])
    return loss(solve(lambda t, z: velocity(t, z, theta), z, times, solver=FINE).x[-1])


def carried_back(times: Tensor, solver: Solver) -> tuple[Tensor, Adjoint]:
    """States at the times, and the adjoint from the last of them back to the first."""
    theta = THETA.clone().requires_grad_()

    def f(t: Tensor, z: Tensor) -> Tensor:
        return velocity(t, z, theta)

    with torch.no_grad():
        states = solve(f, START, times, solver=solver).x
    return states, adjoint(
        f, states[-1], states[-1] - TARGET, times, tensors=[theta], solver=solver
    )


def central(function: Callable[[Tensor], Tensor], at: Tensor, h: float = 1e-5) -> Tensor:
    """Central differences of a function (n,) -> () at one point."""
    with torch.no_grad():
        units = h * torch.eye(len(at), dtype=at.dtype)
        return torch.stack(
            [(function(at + unit) - function(at - unit)) / (2 * h) for unit in units]
        )


def compared(formula: str, against: str, found: Tensor, truth: Tensor) -> Check:
    return Check(formula, against, ((found - truth).abs().max() / truth.abs().max()).item())


def check_state(times: Tensor) -> list[Check]:
    """a(t) = ∂L/∂z(t) at every time, and its equation."""
    states, found = carried_back(times, FINE)
    automatic = []
    for t, z in zip(times, states):
        leaf = z.clone().requires_grad_()
        automatic += torch.autograd.grad(loss_from(t, leaf, THETA), leaf)
    finite = [central(lambda z, t=t: loss_from(t, z, THETA), z) for t, z in zip(times, states)]
    jacobians = [
        torch.autograd.functional.jacobian(lambda z: velocity(times[0], z), z) for z in states
    ]
    right = -torch.einsum("ti,tij->tj", found.a, torch.stack(jacobians))
    return [
        compared("a(t) = ∂L/∂z(t)", "autograd", found.a, torch.stack(automatic)),
        compared("a(t) = ∂L/∂z(t)", "finite differences", found.a, torch.stack(finite)),
        compared(
            "da/dt = −aᵀ ∂f/∂z", "finite differences in time", right[1:-1], slopes(times[1:-1])
        ),
    ]


def slopes(times: Tensor, h: float = 1e-4) -> Tensor:
    """da/dt by central differences of the adjoint in time, (time, 2)."""
    around = torch.stack([times - h, times + h], 1).flatten()
    ends = torch.tensor([0.0, END], dtype=F64)
    _, found = carried_back(torch.cat([ends[:1], around, ends[1:]]), FINE)
    before, after = found.a[1:-1].unflatten(0, (-1, 2)).unbind(1)
    return (after - before) / (2 * h)


def check_parameters() -> list[Check]:
    """∂L/∂θ, ∂L/∂t₀ and ∂L/∂t₁."""
    ends = torch.tensor([0.0, END], dtype=F64)
    _, found = carried_back(ends, FINE)
    theta, times = THETA.clone().requires_grad_(), ends.clone().requires_grad_()
    to_theta, to_times = torch.autograd.grad(
        loss_from(times[0], START, theta, times[1]), (theta, times)
    )
    zero = ends[0]
    finite = central(lambda theta: loss_from(zero, START, theta), THETA)
    finite_ends = central(lambda ends: loss_from(ends[0], START, THETA, ends[1]), ends)
    found_ends = torch.stack([found.start, found.end])
    return [
        compared("∂L/∂θ = ∫ aᵀ ∂f/∂θ dt", "autograd", found.tensors[0], to_theta),
        compared("∂L/∂θ = ∫ aᵀ ∂f/∂θ dt", "finite differences", found.tensors[0], finite),
        compared("∂L/∂t = ∓aᵀf at the ends", "autograd", found_ends, to_times),
        compared("∂L/∂t = ∓aᵀf at the ends", "finite differences", found_ends, finite_ends),
    ]


def euler_errors(steps: Sequence[int]) -> dict[str, list[float]]:
    """Largest errors of Euler's method: state at t₁, adjoint at t₀ and ∂L/∂θ."""
    ends = torch.tensor([0.0, END], dtype=F64)
    exact_states, exact = carried_back(ends, FINE)
    errors: dict[str, list[float]] = {"z(t₁)": [], "a(t₀)": [], "∂L/∂θ": []}
    for n in steps:
        states, found = carried_back(ends, cnf.Grid.uniform(n, "euler"))
        misses = (
            states[-1] - exact_states[-1],
            found.a[0] - exact.a[0],
            found.tensors[0] - exact.tensors[0],
        )
        for values, miss in zip(errors.values(), misses):
            values.append(miss.abs().max().item())
    return errors


def observed_order(steps: Sequence[int], errors: Sequence[float]) -> float:
    """Slope of log error on log step size over the finer half."""
    half = len(steps) // 2
    return float(-np.polyfit(np.log(steps[half:]), np.log(errors[half:]), 1)[0])


@styled
def draw(steps: Sequence[int], errors: dict[str, list[float]], orders: dict[str, float]) -> Figure:
    page, axes = plotting.figure(1, 3, panel=(2.9, 2.9))
    times = torch.linspace(0, END, 201, dtype=F64)
    states, found = carried_back(times, FINE)
    draw_way(axes[0, 0], states, found.a)
    draw_adjoint(axes[0, 1], times, states, found.a)
    draw_errors(axes[0, 2], steps, errors, orders)
    return page


def draw_way(ax: Axes, states: Tensor, a: Tensor) -> None:
    """The way of the pendulum with the direction in which the loss grows fastest."""
    ax.plot(*states.T, color=MODEL, zorder=2)
    some = slice(None, None, 20)
    arrows = {"color": ACCENT, "angles": "xy", "scale_units": "xy", "scale": 1.5, "width": 0.006}
    ax.quiver(*states[some].T, *a[some].T, zorder=3, **arrows)
    ax.scatter(*START, s=14, facecolors="white", edgecolors=INK, zorder=4)
    ax.scatter(*states[-1], s=14, color=INK, zorder=4)
    ax.scatter(*TARGET, s=40, color=INK, marker="*", zorder=4)
    for point, name, offset in (
        (START, "z(t₀)", -12),
        (states[-1], "z(t₁)", -12),
        (TARGET, "target", 6),
    ):
        ax.annotate(name, point.tolist(), xytext=(6, offset), textcoords="offset points")
    ax.margins(0.15)
    ax.set(xlabel="angle φ", ylabel="speed ω", title="the way z(t), arrows a(t) = ∂L/∂z(t)")


def draw_adjoint(ax: Axes, times: Tensor, states: Tensor, a: Tensor) -> None:
    """a(t) by its equation, by Euler in 160 steps, and by automatic differentiation."""
    coarse = torch.linspace(0, END, 161, dtype=F64)
    _, euler = carried_back(coarse, cnf.Grid.uniform(160, "euler"))
    for column, (color, name) in enumerate(((MODEL, "a₁ = ∂L/∂φ"), (ACCENT, "a₂ = ∂L/∂ω"))):
        ax.plot(times, a[:, column], color=color, label=name)
        ax.plot(coarse, euler.a[:, column], color=color, linestyle=":", label="160 steps of Euler")
    dots = range(0, len(times), 20)
    leaves = [states[k].clone().requires_grad_() for k in dots]
    found = [
        torch.autograd.grad(loss_from(times[k], z, THETA), z)[0] for k, z in zip(dots, leaves)
    ]
    ax.plot(times[::20], torch.stack(found), "o", color=INK, markersize=2.5)
    ax.plot([], [], "o", color=INK, markersize=2.5, label="autograd")
    ax.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    ax.set(xlabel="t", title="da/dt = −aᵀ ∂f/∂z, from t₁ back to t₀")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def draw_errors(
    ax: Axes, steps: Sequence[int], errors: dict[str, list[float]], orders: dict[str, float]
) -> None:
    h = END / np.array(steps)
    for (name, values), color in zip(errors.items(), (DATA, MODEL, ACCENT)):
        ax.loglog(
            h,
            values,
            color=color,
            marker="o",
            markersize=2.5,
            label=f"{name}: order {orders[name]:.2f}",
        )
        ax.loglog(h, values[-1] * h / h[-1], color=FAINT, linewidth=0.8, zorder=1)
    ax.set(xlabel="step size h", ylabel="error", title="solved by Euler's method")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--quick", action="store_true", help="fewer times and steps")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    checks = (
        check_state(torch.linspace(0, END, 3 if options.quick else 17, dtype=F64))
        + check_parameters()
    )
    for check in checks:
        print(
            f"{check.formula:<26} against {check.against:<27} relative difference {check.difference:.1e}"
        )
    steps = [50 * 2**k for k in range(5 if options.quick else 9)]
    errors = euler_errors(steps)
    orders = {name: observed_order(steps, values) for name, values in errors.items()}
    for name, order in orders.items():
        print(
            f"Euler, {name}: observed order {order:.3f}, error {errors[name][-1]:.1e} at {steps[-1]} steps"
        )
    plotting.save(draw(steps, errors, orders), options.out / "adjoint.png")
    found = {
        "checks": checks,
        "steps": steps,
        "errors": errors,
        "orders": orders,
    }
    write_json(options.out / "adjoint.json", found)


if __name__ == "__main__":
    main()
