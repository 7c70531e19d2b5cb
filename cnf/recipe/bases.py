"""The choice of the base density."""

from __future__ import annotations

import numpy as np

from cnf.flows import Base, ContaminatedBase, MixtureBase, NormalBase, StudentTBase
from cnf.flows.mixtures import fitted_mixture, mixture_base
from cnf.recipe.defaults import FEW_COLUMNS
from cnf.recipe.gaussian_mixtures import chosen_rows
from cnf.rows import Rows, weighted_nll

# Fewer rows say too little about the shape of a density: rows to learn from, and held-out rows to
# judge by.
FEWEST_ROWS, FEWEST_JUDGES = 2_000, 40
# Held-out nats a row that a mixture must gain over the other bases.
WORTH = 0.05
ITERATIONS = 20
FREEDOMS = (3.0, 6.0)
# With more Gaussians, or with such as fit the rows, a flow has to fill the gaps between them.
COMPONENTS, WIDTH = 32, 1.5
# Independent heavy columns are another shape, not only other tails: nats a column that they must
# gain.
WORTH_A_COLUMN = 0.1


def choose_base(train: Rows, valid: Rows, seed: int) -> Base:
    """The normal base, one with heavy tails where rows in model coordinates have outliers, or a
    mixture of a
    few wide Gaussians where that is much nearer to rows of few columns: the field then has less
    far to go.

    Args:
        train: rows in model coordinates.
        valid: held-out rows, likewise; they validator the mixture.
        seed: of the mixture.
    """
    dim = train.x.shape[1]
    if (
        dim <= FEW_COLUMNS
        and train.context is None
        and len(train) >= FEWEST_ROWS
        and len(valid) >= FEWEST_JUDGES
    ):
        mixture = mixture_if_better(train, valid, seed)
        if mixture is not None:
            return mixture
    # These learn nothing from the rows, so that the training rows themselves can validator.
    return min(
        plain_bases(dim),
        key=lambda base: _nll(base, train) + WORTH_A_COLUMN * dim * isinstance(base, StudentTBase),
    )


def plain_bases(dim: int) -> list[Base]:
    """Bases that no row has shaped."""
    normal = NormalBase(dim)
    return [normal, ContaminatedBase(normal), *(StudentTBase(dim, nu) for nu in FREEDOMS)]


def mixture_if_better(train: Rows, valid: Rows, seed: int) -> Base | None:
    """A mixture of wide Gaussians, with heavy tails or without, if it is surely nearer to held-out
    rows than any of the plain bases."""
    try:
        mixture = wide_mixture(train, seed)
    except ValueError:  # rows so far out that a Gaussian of them has no width
        return None
    nearest = min((mixture, ContaminatedBase(mixture)), key=lambda base: _nll(base, valid))
    plain = min(plain_bases(train.x.shape[1]), key=lambda base: _nll(base, valid))
    # The mean of what is gained, and its standard error.
    gain, error = weighted_nll(plain.log_prob(valid.x) - nearest.log_prob(valid.x), valid.weights)
    return nearest if gain - 2 * error > WORTH else None


def wide_mixture(train: Rows, seed: int) -> MixtureBase:
    """A mixture of rows in model coordinates, each Gaussian wider than the rows that it stands
    for.

    Raises:
        ValueError: where rows are so far apart that numbers cannot tell the widths of a Gaussian.
    """
    rows = chosen_rows(train.x, train.weights, seed).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # of rows too far apart, which are refused
        model = fitted_mixture(rows, COMPONENTS, seed=seed, iterations=ITERATIONS)
    fitted = mixture_base(model, train.x.dtype, train.x.device)
    return MixtureBase(fitted.weights, fitted.means, WIDTH * fitted.factors)


def _nll(base: Base, rows: Rows) -> float:
    return weighted_nll(base.log_prob(rows.x), rows.weights)[0]
