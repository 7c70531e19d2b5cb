"""How tight the bound of an augmented flow is
===========================================

An augmented flow has only a lower bound of its density, which is compared here with the exact one.

Run it with::

    python scripts/augmented_density.py            # writes figures/augmented_density.png and .json

A flow over the plane and one noise column e is fitted to the circles. The bound from K draws, log
(1/K) Σ p(x, eₖ)/q(eₖ), is evaluated on fresh points. It is compared with the log-density of the same
model by quadrature over e, which is possible for one column, with the exact density of the toy, and
with a plain flow with equal training."""

# sphinx_gallery_thumbnail_path = "../figures/augmented_density.png"
from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import write_json
from torch import Tensor

import cnf
from cnf import plotting
from cnf.datasets import TOYS
from cnf.plotting.style import ACCENT, INK, MODEL, styled

TOY = TOYS["circles"]
HIDDEN = (64, 64)
BOX = ((-4.5, 4.5), (-4.5, 4.5))
NOISE = torch.linspace(-6, 6, 121)  # nodes of the quadrature over e


@dataclass(frozen=True)
class Bound:
    """The bound of so many draws in nats, mean over held-out points, and how far it lies below log
    p(x).

    Attributes:
        mean: of the bound.
        below: mean of log p(x) of the model, by quadrature, less the bound.
        error: standard error of `below`.
    """

    draws: int
    mean: float
    below: float
    error: float


def fresh(dim: int) -> cnf.CNF:
    """A flow that starts from a plain normal: a mixture would do the work alone."""
    torch.manual_seed(0)
    return cnf.CNF(dim, hidden=HIDDEN, base=cnf.NormalBase(dim))


@torch.no_grad()
def bounds(model: cnf.AugmentedCNF, x: Tensor, exact: Tensor, draws: Sequence[int]) -> list[Bound]:
    """The bound on the same points for each number of draws."""
    found = []
    for count in draws:
        generator = torch.Generator().manual_seed(count)
        values = model.log_prob_bound(x, draws=count, generator=generator).double()
        below = exact - values
        error = below.std().item() / len(x) ** 0.5
        found.append(Bound(count, values.mean().item(), below.mean().item(), error))
    return found


@torch.no_grad()
def marginal(model: cnf.AugmentedCNF, x: Tensor) -> Tensor:
    """log p(x) of the model, ∫ p(x, e) de by the trapezoidal rule, in float64."""
    joint = torch.cat(
        [x.expand(len(NOISE), *x.shape), NOISE[:, None, None].expand(-1, len(x), 1)], -1
    )
    log_prob = model.flow.log_prob(joint).double()
    return log_prob.logsumexp(0) + math.log((NOISE[1] - NOISE[0]).item())


@torch.no_grad()
def mass(model: cnf.AugmentedCNF, *, draws: int, repeats: int, resolution: int) -> float:
    """What exp of the bound, averaged over repeats, integrates to over the plane."""
    generator = torch.Generator().manual_seed(draws)

    def bound(x: Tensor) -> Tensor:
        values = [
            model.log_prob_bound(x, draws=draws, generator=generator) for _ in range(repeats)
        ]
        return torch.stack(values).mean(0)

    (left, right), (bottom, top) = BOX
    cell = (right - left) * (top - bottom) / resolution**2
    return float(plotting.density_grid(bound, BOX, resolution=resolution).sum()) * cell


@styled
@torch.no_grad()
def draw(model: cnf.AugmentedCNF, found: dict[str, Any], *, draws: int, resolution: int) -> Figure:
    page, axes = plotting.figure(1, 4, panel=(2.4, 2.4))
    draw_bounds(axes[0, 0], found)
    generator = torch.Generator().manual_seed(0)
    plotting.density(
        lambda x: model.log_prob_bound(x, draws=draws, generator=generator),
        BOX, ax=axes[0, 1], resolution=resolution,
    )  # fmt: skip
    axes[0, 1].set_title(f"exp of the bound of {draws} draws")
    plotting.samples(model.sample((4_000,), generator=generator), ax=axes[0, 2], limits=BOX)
    axes[0, 2].set_title("samples")
    z = model.flow.sample_base(200, generator=generator)
    path = model.flow.trajectory(z, torch.linspace(0, 1, 41))
    plotting.trajectories(path, ax=axes[0, 3], columns=(0, 2), names=("x₁", "x₂", "e"))
    axes[0, 3].set_title("particles beside their noise")
    return page


def draw_bounds(ax: Axes, found: dict[str, Any]) -> None:
    """The bound against the number of draws, under the model's own density and the truth."""
    draws, means = zip(*((b.draws, b.mean) for b in found["bounds"]))
    ax.plot(draws, means, color=MODEL, marker="o", markersize=3, label="bound of K draws")
    lines = (
        ("marginal", "its log p(x), by quadrature", MODEL, "--"),
        ("plain", "plain flow", ACCENT, ":"),
        ("truth", "exact density", INK, "-"),
    )
    for key, name, color, style in lines:
        ax.axhline(found[key], color=color, linestyle=style, linewidth=0.9, label=name)
    ax.set(xscale="log", xlabel="draws K", ylabel="nats", title="mean over held-out points")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.32), ncols=2)


def measure(
    steps: int, train_rows: int, rows: int, draws: Sequence[int], resolution: int
) -> tuple[cnf.AugmentedCNF, dict[str, Any]]:
    """Both flows fitted, and every figure of the comparison in nats."""
    generator = torch.Generator().manual_seed(0)
    train = TOY.sample(train_rows, generator)
    x = TOY.sample(rows, torch.Generator().manual_seed(1))
    model, plain = cnf.AugmentedCNF(fresh(3), augment=1), fresh(2)
    cnf.fit(model.flow, model.join(train, generator), steps=steps)
    cnf.fit(plain, train, steps=steps)
    with torch.no_grad():
        exact, log_prob = marginal(model, x), plain.log_prob(x).double()
    truth = TOY.log_prob(x)
    found = {
        "bounds": bounds(model, x, exact, draws),
        "marginal": exact.mean().item(),
        "plain": log_prob.mean().item(),
        "truth": truth.mean().item(),
        "gap": (truth - exact).mean().item(),
        "gap_se": (truth - exact).std().item() / rows**0.5,
        "mass_of_one_draw": mass(model, draws=1, repeats=16, resolution=resolution),
        "mass_of_weights": mass(model, draws=64, repeats=1, resolution=resolution),
    }
    return model, found


def report(found: dict[str, Any]) -> None:
    for bound in found["bounds"]:
        print(
            f"bound of {bound.draws:>4} draws {bound.mean:.4f} nats,"
            f" below log p(x) by {bound.below:.4f} ± {bound.error:.4f}"
        )
    print(
        f"log p(x) of the model by quadrature {found['marginal']:.4f}; plain flow {found['plain']:.4f}"
    )
    print(
        f"exact density {found['truth']:.4f}; gap of the model {found['gap']:.4f} ± {found['gap_se']:.4f}"
    )
    print(
        f"mass over the plane: exp of the mean bound of one draw {found['mass_of_one_draw']:.4f},"
        f" mean weight of 64 draws {found['mass_of_weights']:.4f}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--steps", type=int, default=1_500, help="training steps of each fit")
    parser.add_argument("--quick", action="store_true", help="short fits, few draws")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.quick:
        train_rows, rows, draws, resolution, steps = 1_000, 100, (1, 4, 16), 20, 20
    else:
        train_rows, rows, draws, resolution, steps = (
            20_000,
            2_000,
            (1, 4, 16, 64, 256),
            80,
            options.steps,
        )
    model, found = measure(steps, train_rows, rows, draws, resolution)
    report(found)
    page = draw(model, found, draws=draws[2], resolution=resolution)
    plotting.save(page, options.out / "augmented_density.png")
    write_json(options.out / "augmented_density.json", found)


if __name__ == "__main__":
    main()
