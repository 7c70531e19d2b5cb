"""Snapshots of mass that grows
============================

The law of the growth is known, and one snapshot is left out: does the fit recover growth and density?

Run it with::

    python scripts/growth.py            # 3 fits of 1,500 training steps, two minutes of a core each
    python scripts/growth.py --quick    # one fit of a few training steps

One cluster splits into two that move apart, and one of them grows six times as fast. The number of rows of
a snapshot is proportional to its mass. Each snapshot between the first and the last is left out once.
figures/growth.json contains results at the time left out and at the last one: the Kullback-Leibler
divergence and its standard error, in nats; the relative error of the growth rate, over rows (root mean
squares) and in total; and the mean rate of either branch. figures/growth.png shows densities at several
times, and paths colored by the rate.
"""

# sphinx_gallery_thumbnail_path = "../figures/growth.png"
from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from results import write_json
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import cnf

TIMES = (0.0, 0.5, 1.0, 1.5, 2.0)
ROWS, JUDGED = 700, 4_000
RATES = torch.tensor([1.2, 0.2], dtype=torch.float64)
WAYS = torch.tensor([[1.0, 1.5], [1.0, -1.5]], dtype=torch.float64)
DEVIATION = 0.35


def branches(t: float) -> MultivariateNormal:
    """The two clouds."""
    return MultivariateNormal(t * WAYS, DEVIATION**2 * torch.eye(2, dtype=torch.float64))


def masses(t: float) -> Tensor:
    """Those of the two clouds."""
    return (RATES * t).exp() / 2


def law(t: float) -> MixtureSameFamily:
    """The density of all rows."""
    return MixtureSameFamily(Categorical(masses(t)), branches(t))


def rate(x: Tensor, t: float) -> Tensor:
    """The growth of the law where the rows x (rows, 2) are: the mean of those of the clouds."""
    log_shares = branches(t).log_prob(x[:, None]) + masses(t).log()
    return log_shares.softmax(1) @ RATES


@torch.no_grad()
def judged(moving: cnf.GrowingFlow, t: float) -> dict[str, float]:
    """How far density and growth are off at a time."""
    x = law(t).sample((JUDGED,))
    excess = law(t).log_prob(x) - moving.log_prob(x, t)
    wanted, found = rate(x, t), moving.growth(x, t).double()
    own = branches(t).sample((JUDGED,))
    return {
        "time": t,
        "kl": excess.mean().item(),
        "kl_se": excess.std().item() / JUDGED**0.5,
        "rate_of_rows": ((found - wanted).square().mean() / wanted.square().mean()).sqrt().item(),
        "rate_of_all": abs(found.mean() / wanted.mean() - 1).item(),
        "branches": [
            {
                "rate": rate(own[:, k], t).mean().item(),
                "found": moving.growth(own[:, k], t).mean().item(),
            }
            for k in (0, 1)
        ],
        "mass": abs(moving.mass(t) / (ROWS * masses(t).sum()) - 1).item(),
    }


def study(left: float, **budget: Any) -> tuple[dict[str, Any], cnf.GrowingFlow]:
    """The judgment of a flow that has not seen the snapshot at `left`."""
    torch.manual_seed(0)
    snapshots = {t: law(t).sample((round(ROWS * masses(t).sum().item()),)) for t in TIMES}
    del snapshots[left]
    start = time.process_time()
    moving = cnf.fit_snapshots(cnf.CNF(2), snapshots, growth=True, **budget)
    seconds = time.process_time() - start
    assert isinstance(moving, cnf.GrowingFlow)
    at = {"left out": judged(moving, left), "last": judged(moving, TIMES[-1])}
    return {"left_out": left, "seconds": seconds, "at": at}, moving


@torch.no_grad()
def draw(moving: cnf.GrowingFlow, left: float, picture: Path) -> None:
    """Densities at a row of times, and paths in the color of the rate of growth."""
    times = torch.linspace(TIMES[0], TIMES[-1], 17, dtype=torch.float64).tolist()
    start = moving.sample(150, TIMES[0], generator=torch.Generator().manual_seed(0))
    path, _ = moving.trajectory_and_growth(start, times, start=TIMES[0])
    rates = torch.stack([moving.growth(x, t) for x, t in zip(path, times)])
    limits = cnf.plotting.limits(path.flatten(0, 1), quantiles=(0, 1))
    page, axes = cnf.plotting.figure(1, 6, panel=(1.9, 2.1))

    def density_at(t: float) -> Any:
        at = torch.tensor([t], dtype=torch.float64)
        return moving.flow.bind(at, tolerance=math.inf).log_prob

    cnf.plotting.density_history(density_at, TIMES, limits, axes[0, :5], resolution=100)
    axes[0, TIMES.index(left)].set_title(f"{left:g}, left out", fontsize=8)
    cnf.plotting.trajectories(path, ax=axes[0, 5], color=rates, bar="rate of growth")
    cnf.plotting.save(page, picture)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--steps", type=int, default=1_500, help="training steps of each fit")
    parser.add_argument(
        "--left", type=float, nargs="+", default=TIMES[1:-1], help="times left out"
    )
    parser.add_argument("--quick", action="store_true", help="a trial run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    budget = {"steps": 30 if options.quick else options.steps, "likelihood_share": 0.2}
    options.out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    flows: dict[float, cnf.GrowingFlow] = {}
    for left in options.left[:1] if options.quick else options.left:
        result, flows[left] = study(left, **budget)
        print(result, flush=True)
        found.append(result)
        write_json(options.out / "growth.json", found)
    left, moving = next(iter(flows.items()))
    draw(moving, left, options.out / "growth.png")


if __name__ == "__main__":
    main()
