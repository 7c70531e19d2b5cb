"""Imputation of missing cells given the others, by one pair of networks for all patterns of
observed cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cnf.flows.error_model import ErrorModel
from cnf.ode import Grid
from cnf.rows import Cells
from cnf.tables.columns import Column
from cnf.tables.conditioning import StateConditioning
from cnf.tables.discrete import DiscreteModel
from cnf.tables.donors import Donors
from cnf.tables.features import width_around
from cnf.tables.masked_flow import masked_flow
from cnf.tables.number_maps import NumberMaps
from cnf.transforms import Charts

# A fixed grid, whose errors are far below the tolerance for ordinary rows; others are solved again. It
# takes 20 evaluations of the field, where 12 steps of dopri5 take 73.
STEPS, METHOD, TOLERANCE = 16, "adams", 0.1


class Observed(NamedTuple):
    """The observed cells of rows.

    Attributes:
        states: discrete states, −1 where unknown (rows, columns).
        mask: mask of the known states (rows, columns).
        y: numbers in nearly Gaussian coordinates, zero where unknown (rows, numeric).
        given: mask of the known numbers (rows, numeric).
        features: inputs of the networks from these numbers (rows, width).
    """

    states: Tensor
    mask: Tensor
    y: Tensor
    given: Tensor
    features: Tensor


class Imputer(nn.Module):
    """p(missing cells | observed cells, context), for any set of observed cells.

    Discrete states come first, by an autoregressive network, and numbers after them, by a flow.
    Both read the observed numbers and a flag for each. They are trained on random sets of observed
    cells (amortized conditioning). The flow starts from the conditional Gaussian of `Whitening`:
    for Gaussian columns the draws are exact before any training.

    Args:
        sizes: number of states of each column.
        dim: number of numeric columns.
        context: number of columns of context features.
        features: number of columns of features of states and context.
        hidden: widths of the flow's field.
        charts: transform of angles and spheres among the numbers; None if all are real.

    Attributes:
        donors: random forests that redraw missing cells given the others and the first draws; None
            in a model of an earlier release.
    """

    def __init__(
        self,
        sizes: list[int],
        dim: int,
        context: int,
        features: int,
        hidden: tuple[int, int],
        charts: Charts | None = None,
    ) -> None:
        super().__init__()
        reals = dim if charts is None else len(charts.reals)
        known = reals + width_around(charts) + dim
        self.discrete = DiscreteModel(sizes, context + known)
        self.flow = masked_flow(dim, features + known, hidden, preprocess=charts) if dim else None
        if self.flow is not None:
            self.flow.solver, self.flow.automatic = Grid.uniform(STEPS, METHOD), set()
            self.flow.error_model = ErrorModel(TOLERANCE)
        self.donors: Donors | None = None

    @property
    def donor_sizes(self) -> dict[str, Any] | None:
        """The sizes of the donors as data for JSON; None if there are no donors."""
        return None if self.donors is None else self.donors.sizes

    def make_room(self, sizes: Mapping[str, Any] | None) -> Imputer:
        """Add untrained donors of these sizes, if any, whose tensors are loaded later, and return the
        imputer."""
        if sizes != self.donor_sizes:
            self.donors = None if sizes is None else Donors(**sizes)
        return self

    def extra(self, observed: Observed, context: Tensor) -> Tensor:
        """Further inputs of the network of the states (rows, width)."""
        return torch.cat((context, observed.features, observed.given.to(observed.y.dtype)), 1)

    def conditions(self, shown: Tensor, features: Tensor, observed: Observed) -> Tensor:
        """The context of the flow over the drawn coordinates (rows, coordinates)."""
        given = observed.given.to(observed.y.dtype)
        return torch.cat((shown.to(observed.y.dtype), features, observed.features, given), 1)

    def draw_states(
        self,
        observed: Observed,
        context: Tensor,
        excluded: list[int | None],
        generator: torch.Generator | None,
    ) -> Tensor:
        """All states (rows, columns), with unobserved ones drawn; one state of each column may be
        excluded."""
        extra = self.extra(observed, context).to(self.discrete.dtype)
        return self.discrete.sample(
            observed.states, extra, observed.mask, generator=generator, excluded=excluded
        )


@dataclass(frozen=True)
class Imputation:
    """An `Imputer` with the parts of its model.

    Attributes:
        imputer: network that draws states, and numbers in model coordinates.
        conditioning: module that computes features of states.
        maps: the transforms of the model's flow; None without numeric columns.
        columns: the modeled columns.
        pairs: indices of each longitude and its latitude among them.
    """

    imputer: Imputer
    conditioning: StateConditioning
    maps: NumberMaps | None
    columns: tuple[Column, ...]
    pairs: list[tuple[int, int]]

    def require_sound(self) -> None:
        """Check the donors of a loaded file.

        Raises:
            ValueError: for donors from which a cell cannot be drawn.
        """
        if self.imputer.donors is not None:
            width = self.conditioning.context_width
            self.imputer.donors.require_sound(self.columns, self.pairs, width)

    def observed(self, cells: Cells, masked: Tensor | None = None) -> Observed:
        """The observed cells of rows: those that are neither missing nor masked (rows, columns)."""
        missing = torch.tensor(
            [column.missing_state for column in self.columns], device=cells.states.device
        )
        mask = (cells.states >= 0) & (cells.states != missing)
        if masked is not None:
            mask = mask & ~masked
        return self.known(cells, together(mask, self.pairs))

    def known(self, cells: Cells, mask: Tensor) -> Observed:
        """The observed cells of rows, given by a mask (rows, columns)."""
        states = cells.states.where(mask, -1)
        given = states[:, self.conditioning.numeric] == 0
        y = self.gaussianize(cells.values).where(given, 0.0)
        features = y if self.maps is None else self.maps.features(y, given)
        return Observed(states, mask, y, given, features)

    def gaussianize(self, values: Tensor) -> Tensor:
        """Numbers (rows, numeric) in nearly Gaussian coordinates."""
        return values if self.maps is None else self.maps.by_cell(values)[0]

    def coordinates(
        self, y: Tensor, states: Tensor, context: Tensor, observed: Observed
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The present but unknown numbers, in the coordinates of the imputer's flow.

        Args:
            y: all numbers in nearly Gaussian coordinates (rows, numeric).
            states: all states (rows, columns), −1 in columns that are left out.
            context: features of the context (rows, width).
            observed: the observed cells.

        Returns:
            z (rows, numeric), the context of the imputer's flow, and log |det ∂z/∂y| (rows,) with
            ½ log 2π for every real number that is not drawn.
        """
        free, features, conditions = self.conditions(states, context, observed)
        y = observed.y.where(observed.given, y)
        assert self.maps is not None, "numbers have coordinates"
        z, log_det = self.maps.whiten(y, free, features, observed.given)
        return z, conditions, log_det

    def conditions(
        self, states: Tensor, context: Tensor, observed: Observed
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask of the numbers to draw (rows, numeric), the features of the states, and the context of the
        imputer's flow."""
        free = self.free(states, observed)
        features = self.conditioning.features(states, context)
        shown = free if self.maps is None else self.maps.coordinates(free)
        return free, features, self.imputer.conditions(shown, features, observed)

    def free(self, states: Tensor, observed: Observed) -> Tensor:
        """Mask of the numbers that are present but unknown (rows, numeric)."""
        return (states[:, self.conditioning.numeric] == 0) & ~observed.given

    def numbers(
        self, values: Tensor, states: Tensor, context: Tensor, observed: Observed, base: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Numbers (rows, numeric), with unknown ones transported from base points, and the log-density of
        these (rows,)."""
        assert self.maps is not None and self.imputer.flow is not None, "there are numbers"
        maps = self.maps
        free, features, conditions = self.conditions(states, context, observed)
        start = maps.base_points(base).where(free, 0.0).to(self.imputer.flow.dtype)
        path, log_prob = self.imputer.flow.trajectory_and_log_prob(start, [1.0], conditions)
        y = maps.unwhiten(path[0].double(), observed.y, free, features, observed.given)
        drawn = maps.inverse(y)
        log_det = self.coordinates(y, states, context, observed)[2]
        log_slope = maps.by_cell(drawn)[1].where(free, 0.0).sum(1)
        return drawn.where(free, values), log_prob[0].double() + log_det + log_slope

    def complete(self, cells: Cells, context: Tensor, generator: torch.Generator | None) -> Cells:
        """The cells, with missing ones drawn given the others of their row: first by the networks, then
        from donors if there are any."""
        observed, donors = self.observed(cells), self.imputer.donors
        drawn = self.drawn(cells, observed, context, generator)
        if donors is None:
            return drawn
        missing = ~observed.mask
        return donors.replaced(drawn, missing, context, self.columns, self.pairs, generator)

    def drawn(
        self, cells: Cells, observed: Observed, context: Tensor, generator: torch.Generator | None
    ) -> Cells:
        """The cells, with unobserved ones drawn by the networks."""
        excluded = excluded_states(self.columns)
        states = self.imputer.draw_states(observed, context, excluded, generator)
        states = alike(states, self.pairs)
        if self.maps is None or self.imputer.flow is None:
            return Cells(cells.values, states)
        free, features, conditions = self.conditions(states, context, observed)
        z = self.imputer.flow.sample((), conditions, generator=generator).double()
        y = self.maps.unwhiten(z, observed.y, free, features, observed.given)
        return Cells(self.maps.inverse(y).where(free, cells.values), states)


def together(mask: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """A mask (rows, columns) that contains longitude and latitude only if it contains both."""
    mask = mask.clone()
    for pair in pairs:
        mask[:, pair] &= mask[:, pair].all(1, keepdim=True)
    return mask


def alike(states: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """States (rows, columns), with each latitude in the state of its longitude."""
    states = states.clone()
    for longitude, latitude in pairs:
        states[:, latitude] = states[:, longitude]
    return states


def excluded_states(columns: tuple[Column, ...]) -> list[int | None]:
    """The state of a missing cell in each column, which must not be drawn; None for a column without
    missing cells."""
    return [column.missing_state if column.missing else None for column in columns]
