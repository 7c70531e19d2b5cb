"""Eight toys against their exact densities
========================================

Fit the eight planar toys and measure every fit against the exact density.

Run it with::

    python scripts/density_estimation.py --out figures --seconds 60

The script prints the gap of every toy, the mean of log p_true − log p_model over held-out points in nats
± its standard error (zero for a perfect model). It writes density_estimation.png (data, learned density,
samples) and density_estimation.json (the numbers).
"""

# sphinx_gallery_thumbnail_path = "../figures/density_estimation.png"
from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from palette import shrink
from results import write_json
from toy_flows import fitted

import cnf
from cnf import plotting
from cnf.datasets import TOYS, Toy
from cnf.plotting.style import DATA, styled

SHOWN = 4_000
HEADER = f"{'toy':<14}{'entropy':>9}{'held-out NLL':>14}{'gap':>9}{'± s.e.':>9}{'NFE':>6}{'worst bar':>11}"


@dataclass(frozen=True)
class Result:
    """One toy: entropy, held-out NLL and gap in nats; evaluations a row; the largest error bar in
    nats."""

    toy: str
    entropy: float
    nll: float
    gap: float
    gap_se: float
    nfe: float
    worst_bar: float
    held_out: int
    seconds: float
    seed: int

    def __str__(self) -> str:
        return (
            f"{self.toy:<14}{self.entropy:>9.4f}{self.nll:>14.4f}{self.gap:>9.4f}{self.gap_se:>9.4f}"
            f"{self.nfe:>6.0f}{self.worst_bar:>11.1e}"
        )


@torch.no_grad()
def measure(flow: cnf.CNF, toy: Toy, *, held_out: int, seconds: float, seed: int) -> Result:
    """Compare model and truth on the same fresh points."""
    x = toy.sample(held_out, torch.Generator().manual_seed(seed + 1_000_000))
    found = flow.evaluate(x)
    gap = toy.log_prob(x) - found.log_prob.double()
    return Result(
        toy=toy.name,
        entropy=toy.entropy,
        nll=-found.log_prob.double().mean().item(),
        gap=gap.mean().item(),
        gap_se=(gap.std() / len(gap) ** 0.5).item(),
        nfe=found.nfe.double().mean().item(),
        worst_bar=found.error.max().item(),
        held_out=held_out,
        seconds=seconds,
        seed=seed,
    )


@styled
@torch.no_grad()
def draw(
    flows: Sequence[cnf.CNF], results: Sequence[Result], *, resolution: int, seed: int
) -> Figure:
    """Rows: data, learned density, samples; a column for every toy."""
    page, axes = plotting.figure(3, len(flows), panel=(1.25, 1.25))
    for column, flow, result in zip(axes.T, flows, results):
        generator = torch.Generator().manual_seed(seed)
        data = TOYS[result.toy].sample(SHOWN, generator)
        box = square(data)
        plotting.samples(data, ax=column[0], limits=box, size=0.8, color=DATA)
        plotting.density(flow.log_prob, box, ax=column[1], resolution=resolution)
        plotting.samples(
            flow.sample((SHOWN,), generator=generator), ax=column[2], limits=box, size=0.8
        )
        column[0].set_title(result.toy)
        column[1].text(
            *(0.5, -0.04),
            f"gap {result.gap:.3f}",
            transform=column[1].transAxes,
            ha="center",
            va="top",
        )
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
        ax.spines[:].set(visible=True, color="#cccccc")
    for ax, name in zip(axes[:, 0], ("data", "density", "samples")):
        ax.set_ylabel(name)
    return page


def square(data: torch.Tensor) -> tuple[tuple[float, float], ...]:
    """Limits of the data, with sides of equal length."""
    (left, right), (bottom, top) = plotting.limits(data, margin=0.1)
    half = max(right - left, top - bottom) / 2
    return tuple(
        (middle - half, middle + half) for middle in ((left + right) / 2, (bottom + top) / 2)
    )


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument("--seconds", type=float, default=60, help="budget of every fit")
    parser.add_argument("--toys", nargs="+", choices=TOYS, default=list(TOYS), help="which toys")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run on two toys")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    seconds, held_out, resolution = (
        (0.5, 500, 24) if options.quick else (options.seconds, 20_000, 160)
    )
    flows, results = [], []
    print(HEADER, flush=True)
    for name in options.toys[: 2 if options.quick else None]:
        flows.append(fitted(TOYS[name], seconds=seconds, seed=options.seed))
        results.append(
            measure(flows[-1], TOYS[name], held_out=held_out, seconds=seconds, seed=options.seed)
        )
        print(results[-1], flush=True)
    gaps = torch.tensor([result.gap for result in results])
    print(f"mean gap {gaps.mean():.4f} nats, from {gaps.min():.4f} to {gaps.max():.4f}")
    page = draw(flows, results, resolution=resolution, seed=options.seed + 2_000_000)
    picture = options.out / "density_estimation.png"
    plotting.save(page, picture)
    shrink(picture)
    write_json(options.out / "density_estimation.json", results)


if __name__ == "__main__":
    main()
