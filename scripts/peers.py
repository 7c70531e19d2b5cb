"""Peer density estimators, each fitted within a budget of seconds and scored on held-out rows.

A mixture whose fit is running when the seconds are over is fitted to the end; kernel density estimates
have no time limit.

Every function takes a table in standardized units and returns log-densities of its test rows, with
notes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import zuko
from real_tables import Table
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from torch import Tensor

import cnf
from cnf.training import Regularizers

BATCH, RATE = 512, 1e-3
VALIDATIONS = 20
COMPONENTS = (1, 2, 5, 10, 20, 40, 80, 160)
BANDWIDTHS = (0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5)
KERNELS = 20_000  # rows a kernel density keeps
CONFIRMED, MASS_CELLS = 1_000, 400


class Budget(NamedTuple):
    """Seconds of a fit, and the clock that they are read from."""

    seconds: float
    clock: Callable[[], float] = time.perf_counter


class Scored(NamedTuple):
    """Log-densities of the test rows, and what else is to be said of the fit."""

    log_prob: Tensor
    notes: dict[str, object]


def ours(table: Table, budget: Budget, seed: int) -> Scored:
    """The default recipe."""
    return _fitted(table, budget, seed)


def flow_matching(table: Table, budget: Budget, seed: int) -> Scored:
    """The same network by flow matching alone."""
    return _fitted(table, budget, seed, likelihood_share=0.0)


def without_budget(table: Table, budget: Budget, seed: int) -> Scored:
    """The default recipe, however many evaluations scoring comes to take."""
    return _fitted(table, budget, seed, regularizers=Regularizers())


def adjoint(table: Table, budget: Budget, seed: int) -> Scored:
    """The default recipe with gradients by the continuous adjoint."""
    return _fitted(table, budget, seed, gradient="adjoint")


def _fitted(table: Table, budget: Budget, seed: int, **settings: object) -> Scored:
    flow, (seconds, clock) = cnf.CNF(dim=table.train.shape[1]), budget
    start = clock()
    history = cnf.fit(
        flow, table.train, table.valid, seed=seed, seconds=seconds, clock=clock, **settings
    )
    took = clock() - start
    with torch.no_grad():
        found = flow.evaluate(table.test)
    notes = {
        "nfe": found.nfe.double().mean().item(),
        "updates": history.records[-1].step if history.records else 0,
        "seconds": took,
        **history.choices,
    }
    return Scored(found.log_prob, {**notes, **confirmation(flow, table.test)})


@torch.no_grad()
def confirmation(flow: cnf.CNF, rows: Tensor) -> dict[str, float]:
    """What dopri8 at 1e-8 in float64 makes of the NLL of some rows; in two columns, the mass."""
    fine, some = copy.deepcopy(flow).double(), rows[:CONFIRMED].double()
    fine.solver = cnf.Torchdiffeq("dopri8", rtol=1e-8, atol=1e-8)
    off = (flow.log_prob(some) - fine.log_prob(some)).mean().item()
    if rows.shape[1] != 2:
        return {"off_dopri8": off}
    low, high = rows.double().aminmax(dim=0)
    margin = 0.3 * (high - low)
    side = (high - low + 2 * margin) / MASS_CELLS
    # A point drawn in every cell: where a density has edges along the columns, as checkerboard's,
    # points in rows and columns of their own would all err to the same side.
    corners = torch.cartesian_prod(*[torch.arange(MASS_CELLS)] * 2)
    places = (
        corners + torch.rand(corners.shape, generator=torch.Generator().manual_seed(0)).double()
    )
    density = flow.log_prob(low - margin + side * places).exp()
    return {"off_dopri8": off, "mass": (density.sum() * side.prod()).item()}


def nsf(table: Table, budget: Budget, seed: int) -> Scored:
    """Neural spline flow (Durkan et al. 2019)."""
    dim = table.train.shape[1]
    return neural(
        lambda: zuko.flows.NSF(dim, transforms=4, bins=8, hidden_features=(128, 128)),
        table,
        budget,
        seed,
    )


def maf(table: Table, budget: Budget, seed: int) -> Scored:
    """Masked autoregressive flow (Papamakarios et al. 2017)."""
    dim = table.train.shape[1]
    return neural(
        lambda: zuko.flows.MAF(dim, transforms=5, hidden_features=(128, 128)), table, budget, seed
    )


def zuko_cnf(table: Table, budget: Budget, seed: int) -> Scored:
    """zuko's continuous flow, trained with the exact trace up to four columns; scored with it
    always."""
    dim = table.train.shape[1]
    return neural(
        lambda: zuko.flows.CNF(dim, hidden_features=(64, 64), exact=dim <= 4), table, budget, seed
    )


def neural(
    build: Callable[[], torch.nn.Module], table: Table, budget: Budget, seed: int
) -> Scored:
    """Maximum likelihood with Adam and a cosine; the weights that were best on held-out rows."""
    start = budget.clock()
    torch.manual_seed(seed)
    model = build()
    train, valid, test = (part.float() for part in (table.train, table.valid[:2_000], table.test))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    best, best_nll, marks = copy.deepcopy(model.state_dict()), math.inf, 0
    updates = 0
    for rows in _batches(train):
        done = (budget.clock() - start) / budget.seconds
        if done >= marks / VALIDATIONS:
            marks += 1
            nll = -_scored(model, valid).mean().item()
            if nll < best_nll:
                best, best_nll = copy.deepcopy(model.state_dict()), nll
        if done >= 1:
            break
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * done))
        loss = -model().log_prob(rows).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        updates += 1
    model.load_state_dict(best)
    return Scored(_scored(model, test).double(), {"updates": updates})


def _batches(rows: Tensor) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(len(rows))
        yield from (rows[part] for part in order.split(BATCH))


@torch.no_grad()
def _scored(model: torch.nn.Module, rows: Tensor) -> Tensor:
    judged = copy.deepcopy(model)
    if isinstance(judged, zuko.flows.CNF):
        judged.transform.exact = True  # whatever it was trained with
    return torch.cat([judged().log_prob(part) for part in rows.split(2_000)])


def mixture(table: Table, budget: Budget, seed: int) -> Scored:
    """Gaussian mixture with the number of components that is best on held-out rows."""
    start = budget.clock()
    best, best_score = None, -math.inf
    for components in COMPONENTS:
        if budget.clock() - start > budget.seconds:
            break
        model = GaussianMixture(components, random_state=seed, reg_covar=1e-5).fit(
            table.train.numpy()
        )
        score = model.score(table.valid.numpy())
        if score > best_score:
            best, best_score = model, score
    return Scored(
        torch.as_tensor(best.score_samples(table.test.numpy())), {"components": best.n_components}
    )


def kernels(table: Table, budget: Budget, seed: int) -> Scored:
    """Kernel density with the bandwidth that is best on held-out rows."""
    rows = np.random.default_rng(seed).permutation(table.train.numpy())[:KERNELS]
    models = [KernelDensity(bandwidth=width, rtol=1e-4).fit(rows) for width in BANDWIDTHS]
    best = max(models, key=lambda model: model.score(table.valid.numpy()[:1_000]))
    return Scored(
        torch.as_tensor(best.score_samples(table.test.numpy())), {"bandwidth": best.bandwidth}
    )


METHODS: dict[str, Callable[[Table, Budget, int], Scored]] = {
    "cnf": ours,
    "flow matching": flow_matching,
    "cnf, no budget": without_budget,
    "cnf, adjoint": adjoint,
    "NSF": nsf,
    "MAF": maf,
    "zuko CNF": zuko_cnf,
    "mixture": mixture,
    "kernels": kernels,
}
