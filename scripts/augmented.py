"""What more dimensions allow
==========================

Nested spheres and separable points show what a flow cannot do in its own dimensions.

Run it with::

    python scripts/augmented.py            # writes figures/augmented.png and figures/augmented.json

The function of Dupont et al. (2019) is −1 for |x| < ½ and 1 for 1 < |x| < 1.5, in one and two
dimensions. An ODE block with a linear layer is fitted to it by least squares, plain and with five
zeros appended to x, with equal training. Losses are measured with an accurate solve. In one dimension
a flow preserves the order of points, so that no plain network beats the best monotone fit. Both
networks are also fitted to two moons, which a planar flow can separate; there they differ in the
number of evaluations of a solve.
"""

# sphinx_gallery_thumbnail_path = "../figures/augmented.png"
from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import write_json
from sklearn.isotonic import IsotonicRegression
from torch import Tensor, nn

import cnf
from cnf import plotting
from cnf.fields import MLPField
from cnf.plotting.style import ACCENT, INK, MODEL, styled

ROWS, BATCH, RATE = 1_500, 128, 1e-2
AUGMENT = 5
SOLVER, TIGHT = cnf.Torchdiffeq("dopri5", 1e-3, 1e-3), cnf.Torchdiffeq("dopri5", 1e-6, 1e-6)
SEEDS = 3


def shells(dim: int, count: int, inner: float, outer: float, generator: torch.Generator) -> Tensor:
    """Points (count, dim) spread evenly between two radii."""
    direction = torch.randn(count, dim, generator=generator)
    share = torch.rand(count, 1, generator=generator)
    radius = (inner**dim + (outer**dim - inner**dim) * share) ** (1 / dim)
    return direction / direction.norm(dim=-1, keepdim=True) * radius


def spheres(dim: int) -> tuple[Tensor, Tensor]:
    """A ball of a third of the points, labeled −1, in a shell of the others, labeled 1."""
    generator = torch.Generator().manual_seed(0)
    ball = shells(dim, ROWS // 3, 0.0, 0.5, generator)
    shell = shells(dim, ROWS - len(ball), 1.0, 1.5, generator)
    return torch.cat([ball, shell]), torch.cat([-torch.ones(len(ball)), torch.ones(len(shell))])


def moons() -> tuple[Tensor, Tensor]:
    """Two half circles that reach into each other: no line separates them, a flow of the plane
    can."""
    generator = torch.Generator().manual_seed(0)
    angle = torch.pi * torch.rand(ROWS, generator=generator)
    y = torch.where(torch.arange(ROWS) < ROWS // 2, -1.0, 1.0)
    arc = torch.stack([angle.cos() + 0.5 * y, y * (0.25 - angle.sin())], -1)
    return arc + 0.1 * torch.randn(ROWS, 2, generator=generator).clamp(-2, 2), y


PROBLEMS = {
    "nested spheres, 1-D": lambda: spheres(1),
    "nested spheres, 2-D": lambda: spheres(2),
    "separable points": moons,
}


@dataclass(frozen=True)
class Result:
    """One training.

    Attributes:
        losses: of the batches, step by step.
        nfe: evaluations of each step.
        loss: mean squared error over all rows at the end, tightly solved.
        late_nfe: mean evaluations of a step over the last quarter of training.
    """

    problem: str
    augment: int
    seed: int
    losses: list[float]
    nfe: list[int]
    loss: float
    late_nfe: float


def network(dim: int, augment: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    field = MLPField(dim + augment, (32, 32))
    block = cnf.ODEBlock(field, solver=SOLVER, gradient="direct", augment=augment)
    return nn.Sequential(block, nn.Linear(dim + augment, 1), nn.Flatten(0))


def train(problem: str, augment: int, seed: int, steps: int) -> tuple[nn.Sequential, Result]:
    x, y = PROBLEMS[problem]()
    net = network(x.shape[1], augment, seed)
    block, *readout = net
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    losses, nfe = [], []
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        solution = block.solve(x[rows])
        loss = nn.functional.mse_loss(nn.Sequential(*readout)(solution.x[-1]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        nfe.append(solution.nfe)
    with torch.no_grad():
        block.solver = TIGHT
        final = nn.functional.mse_loss(net(x), y).item()
    late = float(np.mean(nfe[-(steps // 4) :]))
    return net, Result(problem, augment, seed, losses, nfe, final, late)


def monotone_floor() -> float:
    """Least mean squared error of any monotone function on the nested spheres in one dimension."""
    x, y = (part.double().flatten().numpy() for part in spheres(1))
    fits = (IsotonicRegression(increasing=rising).fit_transform(x, y) for rising in (True, False))
    return min(float(np.mean((fit - y) ** 2)) for fit in fits)


def smooth(values: Sequence[float]) -> np.ndarray:
    """Means over a moving window of steps."""
    window = min(20, len(values) // 2)
    return np.convolve(values, np.ones(window) / window, "valid")


def evaluations_at(result: Result, level: float) -> float:
    """Evaluations of a step when the smoothed loss first falls to the level."""
    return float(smooth(result.nfe)[np.argmax(smooth(result.losses) <= level)])


def of(results: Sequence[Result], problem: str, augment: int) -> list[Result]:
    return [r for r in results if r.problem == problem and r.augment == augment]


def report(results: Sequence[Result], floor: float) -> None:
    for problem in PROBLEMS:
        pairs = [of(results, problem, augment) for augment in (0, AUGMENT)]
        for name, runs in zip(("plain", "augmented"), pairs):
            losses = ", ".join(f"{r.loss:.5f}" for r in runs)
            evaluations = ", ".join(f"{r.late_nfe:.1f}" for r in runs)
            print(f"{problem:<20}{name:<10} losses {losses}; evaluations {evaluations}")
        ratio = np.mean([r.loss for r in pairs[0]]) / np.mean([r.loss for r in pairs[1]])
        print(f"{problem:<20}mean loss of the plain over that of the augmented: {ratio:.1f}")
    level = max(smooth(r.losses).min() for r in results if r.problem == problem)
    for name, runs in zip(("plain", "augmented"), pairs):
        counts = ", ".join(f"{evaluations_at(r, level):.1f}" for r in runs)
        print(f"{problem:<20}{name:<10} evaluations when the loss reaches {level:.4f}: {counts}")
    print(f"no monotone function has a loss below {floor:.4f} in one dimension")


@styled
def draw(
    results: Sequence[Result], nets: dict[tuple[str, int], nn.Sequential], floor: float
) -> Figure:
    page, axes = plotting.figure(3, 4, panel=(2.3, 2.2))
    for row, problem in zip(axes, PROBLEMS):
        draw_losses(row[0], results, problem, floor if problem.endswith("1-D") else None)
        draw_evaluations(row[1], results, problem)
        x, y = PROBLEMS[problem]()
        for ax, augment in zip(row[2:], (0, AUGMENT)):
            draw_flow(ax, nets[problem, augment], x[::15], y[::15])
            ax.set_title("plain flow" if augment == 0 else f"augmented by {augment} dimensions")
    return page


def draw_losses(ax: Axes, results: Sequence[Result], problem: str, floor: float | None) -> None:
    """The losses of the batches, smoothed, seed by seed."""
    for augment, color in ((0, ACCENT), (AUGMENT, MODEL)):
        for result in of(results, problem, augment):
            ax.semilogy(smooth(result.losses), color=color, linewidth=0.9)
    if floor is not None:
        ax.axhline(floor, color=INK, linewidth=0.8, linestyle=":", label="best monotone fit")
        ax.legend(loc="center right")
    ax.set(xlabel="step", ylabel="mean squared error", title=problem)


def draw_evaluations(ax: Axes, results: Sequence[Result], problem: str) -> None:
    """Evaluations over training, mean of the seeds."""
    for name, augment, color in (("plain", 0, ACCENT), ("augmented", AUGMENT, MODEL)):
        nfe = np.array([r.nfe for r in of(results, problem, augment)])
        ax.plot(nfe.mean(0), color=color, linewidth=0.9, label=name)
    ax.set(xlabel="step", ylabel="evaluations", title="price of a solve")
    ax.set_ylim(bottom=0)
    ax.legend(loc="lower right")


@torch.no_grad()
def draw_flow(ax: Axes, net: nn.Sequential, x: Tensor, y: Tensor) -> None:
    """The ways of points, −1 and 1 in two colors: over time in one dimension, else in a plane.

    The plane of an augmented flow is that of the first column and the reading of the linear layer.
    """
    block, linear = net[0], net[1]
    times = torch.linspace(0, 1, 41)
    path = block.solve(x, times).x
    if path.shape[-1] == 1:
        plane, names = (
            torch.stack([times[:, None].expand(path.shape[:2]), path[..., 0]], -1),
            ("t", "x"),
        )
    elif path.shape[-1] == 2:
        plane, names = path, ("x₁", "x₂")
    else:
        plane, names = torch.stack([path[..., 0], linear(path)[..., 0]], -1), ("x₁", "output")
    plotting.trajectories(plane, ax=ax, color=y, names=names)
    ax.set_aspect("auto")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="a few steps of one seed")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    seeds, steps = (1, 6) if options.quick else (SEEDS, options.steps)
    results, nets = [], {}
    for problem in PROBLEMS:
        for augment in (0, AUGMENT):
            for seed in range(seeds):
                nets[problem, augment], result = train(problem, augment, seed, steps)
                results.append(result)
    floor = monotone_floor()
    report(results, floor)
    plotting.save(draw(results, nets, floor), options.out / "augmented.png")
    kept = [{k: v for k, v in asdict(r).items() if k not in ("losses", "nfe")} for r in results]
    write_json(options.out / "augmented.json", {"floor": floor, "results": kept})


if __name__ == "__main__":
    main()
