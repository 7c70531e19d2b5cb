"""How accurate are fits to known densities on circles, a torus of seven angles and the sphere?

    python scripts/directional.py              # eight fits of 60 s of one core: figures/directional.json
    python scripts/directional.py --quick      # one fit of a few steps

Each law has 20,000 training rows and as many fresh test rows. The gap is the mean of log p − log q over
the fresh rows, in nats, with its standard error. It estimates the Kullback-Leibler divergence of the fit q
from the law p, which is zero if they agree. Angles are in degrees, places in longitude and latitude;
densities are per degree, and per unit area of the unit sphere.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import read_json, write_json
from scipy import stats
from scipy.special import i0e, logsumexp

import cnf

ROWS, CELLS = 20_000, 1_440  # of each table; cells of a turn where a law is normalized or drawn
Draw = Callable[[int, np.random.Generator], np.ndarray]
LogProb = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Law:
    """A density that is known.

    Attributes:
        draw: rows (n, dim), angles in radians, places as unit vectors.
        log_prob: of such rows, per radian and unit area.
        angles: how many columns are angles; they come first.
        sphere: whether three columns after them are a unit vector.
        numbers: how many ordinary columns come last.
    """

    draw: Draw
    log_prob: LogProb
    angles: int = 0
    sphere: bool = False
    numbers: int = 0
    periods: dict[int, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "periods", dict.fromkeys(range(self.angles), 360.0))

    def flow(self) -> cnf.CNF:
        """A flow over the columns of a table of this law."""
        places = [(self.angles, self.angles + 1)] if self.sphere else []
        dim = self.angles + 2 * self.sphere + self.numbers
        return cnf.CNF(dim, periods=self.periods, spheres=places)

    def table(self, rows: np.ndarray) -> np.ndarray:
        """Rows in degrees."""
        angles, rest = np.degrees(rows[:, : self.angles]), rows[:, self.angles :]
        if not self.sphere:
            return np.concatenate([angles, rest], 1)
        x, y, z = rest[:, :3].T
        place = np.degrees(np.stack([np.arctan2(y, x), np.arcsin(z.clip(-1, 1))], 1))
        return np.concatenate([angles, place, rest[:, 3:]], 1)

    def log_density(self, rows: np.ndarray) -> np.ndarray:
        """log p per degree and unit area."""
        return self.log_prob(rows) + self.angles * math.log(math.pi / 180)


def von_mises(angle: np.ndarray, center: Any, concentration: Any) -> np.ndarray:
    """log p of an angle, per radian."""
    rise = concentration * (np.cos(angle - center) - 1)
    return rise - np.log(2 * np.pi * i0e(concentration))


def one_von_mises() -> Law:
    """One angle about north."""
    return Law(
        lambda n, rng: rng.vonmises(0.0, 4.0, (n, 1)),
        lambda x: von_mises(x[:, 0], 0.0, 4.0),
        angles=1,
    )


def wrapped_mixture() -> Law:
    """Two normal winds, one of them across the seam."""
    shares, centers, widths = np.array([0.35, 0.65]), np.array([3.0, 0.2]), np.array([0.3, 0.8])

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        part = rng.choice(2, n, p=shares)
        return (rng.normal(centers[part], widths[part]) % (2 * np.pi))[:, None]

    def log_prob(x: np.ndarray) -> np.ndarray:
        turns = 2 * np.pi * np.arange(-3, 4)
        away = x[:, :1, None] + turns[:, None] - centers
        parts = np.log(shares) + stats.norm.logpdf(away, scale=widths)
        return logsumexp(parts, axis=(1, 2))

    return Law(draw, log_prob, angles=1)


def on_grid(log_weight: LogProb, columns: int) -> tuple[Draw, float]:
    """Draws of a smooth density of angles, even within each cell of a fine grid, and the logarithm
    of its mass, which a sum over a grid gives to rounding."""
    turn = (np.arange(CELLS) + 0.5) * 2 * np.pi / CELLS
    grid = np.stack([part.ravel() for part in np.meshgrid(*[turn] * columns)], 1)
    heights = log_weight(grid)
    cell = (2 * np.pi / CELLS) ** columns
    odds = np.exp(heights - logsumexp(heights))

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        centers = rng.choice(len(grid), n, p=odds)
        return grid[centers] + (rng.random((n, columns)) - 0.5) * 2 * np.pi / CELLS

    return draw, logsumexp(heights) + math.log(cell)


def sine_model() -> Law:
    """Two angles: the bivariate von Mises density of Singh et al. (2002)."""

    def log_weight(x: np.ndarray) -> np.ndarray:
        a, b = x.T
        return 2.0 * np.cos(a - 1) + 3.0 * np.cos(b) + 3.0 * np.sin(a - 1) * np.sin(b)

    draw, log_mass = on_grid(log_weight, 2)
    return Law(draw, lambda x: log_weight(x) - log_mass, angles=2)


def seven_angles() -> Law:
    """Seven angles, each about a bent function of the one before."""
    spread = (1.0, 4.0, 6.0, 3.0, 5.0, 4.0, 8.0)

    def center(before: np.ndarray) -> np.ndarray:
        return before + 0.8 * np.sin(before)

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        angles = [rng.vonmises(0.0, spread[0], n)]
        for concentration in spread[1:]:
            angles.append(rng.vonmises(center(angles[-1]), concentration))
        return np.stack(angles, 1) % (2 * np.pi)

    def log_prob(x: np.ndarray) -> np.ndarray:
        rest = von_mises(x[:, 1:], center(x[:, :-1]), np.array(spread[1:]))
        return von_mises(x[:, 0], 0.0, spread[0]) + rest.sum(1)

    return Law(draw, log_prob, angles=7)


def kent() -> Law:
    """An oval cloud on the sphere (Kent 1982)."""
    concentration, oval = 12.0, 4.0
    axes = stats.special_ortho_group.rvs(3, random_state=1)

    def log_weight(x: np.ndarray) -> np.ndarray:
        along, major, minor = (x @ axes).T
        return concentration * (along - 1) + oval * (major**2 - minor**2)

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        found: list[np.ndarray] = []
        while sum(map(len, found)) < n:
            x = rng.normal(size=(20 * n, 3))
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            # The weight is at most one: 12 (c − 1) + 4 (1 − c²) ≤ 0 for the cosine c of an angle.
            found.append(x[rng.random(len(x)) < np.exp(log_weight(x))])
        return np.concatenate(found)[:n]

    height, weight = np.polynomial.legendre.leggauss(200)
    turn = np.arange(400) * 2 * np.pi / 400
    flat = np.sqrt(1 - height**2)[:, None]
    grid = np.stack([flat * np.cos(turn), flat * np.sin(turn), height[:, None] + 0 * turn], -1)
    mass = (weight[:, None] * np.exp(log_weight(grid.reshape(-1, 3)).reshape(200, 400))).sum()
    log_mass = math.log(mass * 2 * np.pi / 400)
    return Law(draw, lambda x: log_weight(x) - log_mass, sphere=True)


CENTERS = np.array([[0.0, 0.6, 0.8], [0.0, -1.0, 0.0], [0.6, 0.0, -0.8]])
CONCENTRATIONS, SHARES = np.array([20.0, 60.0, 5.0]), np.array([0.4, 0.2, 0.4])


def clouds(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places of three von Mises-Fisher clouds, and which cloud each is of."""
    part, places = rng.choice(3, n, p=SHARES), np.empty((n, 3))
    for k, (center, concentration) in enumerate(zip(CENTERS, CONCENTRATIONS)):
        law = stats.vonmises_fisher(center, concentration)
        places[part == k] = law.rvs((part == k).sum(), random_state=rng)
    return places, part


def of_each_cloud(x: np.ndarray) -> np.ndarray:
    """log of the share and the density of each cloud (rows, clouds)."""
    laws = [stats.vonmises_fisher(*each) for each in zip(CENTERS, CONCENTRATIONS)]
    return np.log(SHARES) + np.stack([law.logpdf(x) for law in laws], 1)


def three_clouds() -> Law:
    """Three von Mises-Fisher clouds on the sphere."""
    return Law(
        lambda n, rng: clouds(n, rng)[0], lambda x: logsumexp(of_each_cloud(x), 1), sphere=True
    )


def wind_and_speed() -> Law:
    """A wind of two directions, and a speed that follows it."""
    wind = wrapped_mixture()

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        angle = wind.draw(n, rng)
        return np.concatenate([angle, rng.normal(3 * np.cos(angle), 0.5)], 1)

    def log_prob(x: np.ndarray) -> np.ndarray:
        return wind.log_prob(x) + stats.norm.logpdf(x[:, 1], 3 * np.cos(x[:, 0]), 0.5)

    return Law(draw, log_prob, angles=1, numbers=1)


def events() -> Law:
    """Three clouds on the sphere, each with magnitudes of its own."""
    levels = np.array([5.0, 6.0, 4.0])

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        places, part = clouds(n, rng)
        return np.concatenate([places, rng.normal(levels[part], 0.5)[:, None]], 1)

    def log_prob(x: np.ndarray) -> np.ndarray:
        magnitude = stats.norm.logpdf(x[:, 3:], levels, 0.5)
        return logsumexp(of_each_cloud(x[:, :3]) + magnitude, 1)

    return Law(draw, log_prob, sphere=True, numbers=1)


LAWS: dict[str, Callable[[], Law]] = {
    "von Mises": one_von_mises,
    "two wrapped normals": wrapped_mixture,
    "bivariate von Mises": sine_model,
    "seven angles": seven_angles,
    "Kent": kent,
    "von Mises-Fisher mixture": three_clouds,
    "wind and speed": wind_and_speed,
    "places and magnitudes": events,
}


def study(law: Law, seed: int, **budget: Any) -> dict[str, Any]:
    """The gap of one fit."""
    rng = np.random.default_rng(seed)
    rows, fresh = law.draw(ROWS, rng), law.draw(ROWS, rng)
    flow, start = law.flow(), time.process_time()
    cnf.fit(flow, law.table(rows), seed=seed, clock=time.process_time, **budget)
    seconds = time.process_time() - start
    found = flow.evaluate(law.table(fresh))
    gaps = law.log_density(fresh) - found.log_prob.numpy(force=True)
    return {
        "gap": float(gaps.mean()),
        "standard_error": float(gaps.std() / len(gaps) ** 0.5),
        "entropy": float(-law.log_density(fresh).mean()),
        "error_bound": found.error.mean().item(),
        "evaluations": found.nfe.double().mean().item(),
        "seconds": seconds,
    }


def main() -> None:
    """Run every law, and write what was found after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--only", nargs="+", choices=LAWS, default=list(LAWS))
    parser.add_argument("--seconds", type=float, default=60.0, help="processor seconds per fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    budget = {"steps": 20} if options.quick else {"seconds": options.seconds}
    path = options.out / "directional.json"
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only[:1] if options.quick else options.only:
        found = study(LAWS[name](), options.seed, **budget)
        print(name, found, flush=True)
        write_json(path, read_json(path) | {name: found})


if __name__ == "__main__":
    main()
