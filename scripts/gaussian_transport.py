"""From one Gaussian to another: is the map optimal, and are both densities exact?

    python scripts/gaussian_transport.py              # 2 and 10 columns, 20 s of one core each
    python scripts/gaussian_transport.py --quick      # 2 columns, a few training steps

The optimal map between Gaussians is known: x ↦ m + A x with A = S₀^−½ (S₀^½ S₁ S₀^½)^½ S₀^−½.
figures/gaussian_transport.json contains the distance between the two maps and the distance that points
move (root mean squares), the Kullback-Leibler divergence of either density, and the mean error of their
log-ratio on rows of both tables, in nats. It also contains the fraction of rows whose error bound covers
the difference from dopri8 at 1e-8 in float64. Map and ratio are compared with those of two Gaussians
fitted to the same rows by maximum likelihood, a family that contains the true law.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
from results import write_json
from torch import Tensor
from torch.distributions import MultivariateNormal

import cnf

ROWS, JUDGED, CONFIRMED = 20_000, 4_000, 200


def root(matrix: Tensor) -> Tensor:
    """The symmetric root of a positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.sqrt()) @ vectors.T


def gaussian(dim: int, mean: float, generator: torch.Generator) -> MultivariateNormal:
    factor = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    covariance = factor @ factor.T / dim + 0.3 * torch.eye(dim)
    return MultivariateNormal(torch.full((dim,), mean, dtype=torch.float64), covariance)


def optimal(source: MultivariateNormal, target: MultivariateNormal, x: Tensor) -> Tensor:
    """Where optimal transport carries x (rows, dim)."""
    half = root(source.covariance_matrix)
    back = torch.linalg.inv(half)
    matrix = back @ root(half @ target.covariance_matrix @ half) @ back
    return target.mean + (x - source.mean) @ matrix


@torch.no_grad()
def covered(flow: cnf.CNF, rows: Tensor) -> float:
    """The share of rows (rows, dim) whose bound of the log-ratio covers its error."""
    fine = copy.deepcopy(flow).double()
    fine.solver = fine.base.source.solver = cnf.Torchdiffeq("dopri8", rtol=1e-8, atol=1e-8)
    ratio, error = flow.log_density_ratio(rows)
    exact = fine.log_prob(rows) - fine.log_prob(rows, t=0.0)
    return ((ratio - exact).abs() <= error).double().mean().item()


def study(dim: int, **budget: float) -> dict[str, float]:
    generator = torch.Generator().manual_seed(dim)
    source, target = (gaussian(dim, mean, generator) for mean in (0.0, 2.0))
    torch.manual_seed(dim)
    rows, judged = zip(*((end.sample((ROWS,)), end.sample((JUDGED,))) for end in (source, target)))
    flow, start = cnf.CNF(dim), time.process_time()
    cnf.fit(flow, rows[1], source=rows[0], seed=0, clock=time.process_time, **budget)
    seconds, expected = time.process_time() - start, optimal(source, target, judged[0])
    with torch.no_grad():
        carried = flow.transport(judged[0]).double()
        densities = [flow.log_prob(x, t=t).double() for t, x in enumerate(judged)]
    both = torch.cat(judged)
    ratio = flow.log_density_ratio(both)[0].double()
    truth = target.log_prob(both) - source.log_prob(both)
    fitted = [MultivariateNormal(x.mean(0), x.T.cov()) for x in rows]
    known = fitted[1].log_prob(both) - fitted[0].log_prob(both)
    distance = (expected - judged[0]).norm()
    return {
        "dim": dim,
        "seconds": seconds,
        "map": ((carried - expected).norm() / distance).item(),
        "map_of_gaussians": ((optimal(*fitted, judged[0]) - expected).norm() / distance).item(),
        "kl_source": (source.log_prob(judged[0]) - densities[0]).mean().item(),
        "kl_target": (target.log_prob(judged[1]) - densities[1]).mean().item(),
        "ratio": (ratio - truth).abs().mean().item(),
        "ratio_of_gaussians": (known - truth).abs().mean().item(),
        "covered": covered(flow, both[:: len(both) // CONFIRMED]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--seconds", type=float, default=20.0, help="processor seconds per fit")
    parser.add_argument("--quick", action="store_true", help="a trial run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    budget = {"steps": 20} if options.quick else {"seconds": options.seconds}
    found = [study(dim, **budget) for dim in ((2,) if options.quick else (2, 10))]
    for result in found:
        print("  ".join(f"{name} {value:.4g}" for name, value in result.items()))
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "gaussian_transport.json", found)


if __name__ == "__main__":
    main()
