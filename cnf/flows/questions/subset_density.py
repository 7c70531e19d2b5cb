"""The density of some columns of a flow given others, which `CNF.marginal` and `CNF.conditional`
return."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cnf.flows.questions.answers import FlowAnswers, MixtureAnswers
from cnf.flows.questions.constraints import UNKNOWN, Constraints
from cnf.flows.questions.coordinates import fit_coordinates
from cnf.flows.questions.question import Answer, Question
from cnf.inputs import (
    Numbers,
    as_shape,
    as_tensor,
    brief,
    joint_shape,
    require_columns,
    require_context,
)

# A number, one for each row (*batch,), or a range (low, high) with None for no end.
GivenNumber: TypeAlias = "float | Tensor | tuple[float | None, float | None]"
# Of the importance sampling: a power of two, as Sobol's sequence likes it.
DRAWS = 512
# Draws of a flow that a mixture learns from where no network was trained.
STAND_IN_ROWS, STAND_IN_COMPONENTS = 5_000, (1, 2, 4, 8, 16)


class DoubtfulWarning(UserWarning):
    """Warns of rows whose importance weights or solves are unreliable."""


@dataclass(frozen=True)
class SubsetDensity:
    """p(x | given, context) of some columns of a flow, the others integrated out.

    Attributes:
        question: the question about whole rows.
        columns: the columns of the flow that x holds, in this order.
        batch: shape of the given rows; () for one row.

    Example:
        >>> from cnf.flows.flow import CNF
        >>> density = CNF(3).marginal([0, 2]).conditional({1: 0.5})
        >>> density.columns, density.log_prob(torch.zeros(4, 1)).shape
        ((0,), torch.Size([4]))
    """

    question: Question
    columns: tuple[int, ...]
    batch: tuple[int, ...] = ()

    def __repr__(self) -> str:
        """One line: which columns given which, and how."""
        known = self.question.given.known.any(0).nonzero().flatten().tolist()
        given = f" given {known}" if known else ""
        return f"SubsetDensity of columns {[*self.columns]}{given} ({self.method})"

    @property
    def dim(self) -> int:
        """Number of columns of x."""
        return len(self.columns)

    @property
    def method(self) -> str:
        """ "amortized" or "exact"."""
        return "amortized" if self.question.draws is None else "exact"

    def exact(self, draws: int = DRAWS) -> SubsetDensity:
        """The same density by importance sampling from the joint density, with this number of
        draws per row.

        Raises:
            ValueError: for fewer than two draws.
        """
        if draws < 2:
            raise ValueError(f"draws: expected at least 2; got {draws}")
        return replace(self, question=replace(self.question, draws=draws))

    def marginal(self, columns: Sequence[int]) -> SubsetDensity:
        """p(x[columns] | given) of some of these columns."""
        kept = tuple(self.columns[i] for i in _checked(columns, self.dim))
        return replace(self, question=self._asking(kept), columns=kept)

    def conditional(self, given: Mapping[int, GivenNumber]) -> SubsetDensity:
        """p(the other columns | these columns and those given before).

        Args:
            given: column of x -> a number, numbers (*batch,), or a range (low, high) with None for
                no end.
        """
        if not isinstance(given, Mapping):
            raise TypeError(
                f"given: expected a mapping of columns to numbers, such as {{0: 1.5}}; got {brief(given)}"
            )
        places = _checked(list(given), self.dim)
        if len(places) == self.dim:
            raise ValueError("given: expected at least one column that is left; got them all")
        known, batch = _constraints(
            {self.columns[i]: value for i, value in zip(places, given.values())},
            self.question.answers.columns,
            self.question.given.states.device,
        )
        if self.batch and batch and self.batch != batch:
            raise ValueError(
                f"given: expected rows of shape {tuple(self.batch)}; got {tuple(batch)}"
            )
        kept = tuple(c for i, c in enumerate(self.columns) if i not in places)
        both = self.question.given.joined(known, self.question.answers.numeric)
        question = replace(self._asking(kept), given=both)
        return replace(self, question=question, columns=kept, batch=self.batch or batch)

    def log_prob(self, x: Numbers) -> Tensor:
        """Log-density (*batch,) of x (*batch, columns), in nats and in the units of x; a warning
        gives the number of rows that `evaluate` marks as not ok."""
        found = self.evaluate(x)
        if doubtful := int((~found.ok).sum()):
            warnings.warn(
                f"{doubtful} of {found.ok.numel()} rows are unreliable, {self.method}; `evaluate`"
                " has their error bounds, and a fit with any_subset=True has a better proposal",
                DoubtfulWarning,
                stacklevel=2,
            )
        return found.log_prob

    @torch.no_grad()
    def evaluate(self, x: Numbers) -> Answer:
        """`log_prob` with an error bound, and diagnostics of the importance weights.

        The bound includes the error of the solver and, in exact mode, three standard errors of the
        importance sampling. A row whose weights have too heavy a tail is not ok.
        """
        x = as_tensor(x, self.question.given.states.device)
        require_columns("x", x, self.dim)
        shape = joint_shape(x.shape[:-1], self.batch)
        rows = x.double().expand(*shape, self.dim).reshape(-1, self.dim)
        numbers = rows.new_zeros(len(rows), self.question.answers.columns)
        numbers[:, list(self.columns)] = rows
        states = torch.where(self.question.asked, 0, UNKNOWN).expand(len(rows), -1)
        question = self._for_shape(shape)
        found = question.evaluate(Constraints(states, numbers, numbers))
        dtype = x.dtype if x.is_floating_point() else found.log_prob.dtype
        log_prob = found.log_prob.to(dtype)
        return Answer(
            *(part.reshape(shape) for part in (log_prob, *list(vars(found).values())[1:]))
        )

    @torch.no_grad()
    def sample(
        self, shape: int | Sequence[int] = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (*shape, *batch, columns), in float64 and in the units of the data.

        Exact mode draws many candidates and resamples them by their weights, so a row may occur
        twice.
        """
        shape = as_shape(shape)
        cells = self.question.draw(math.prod(shape), generator)
        return cells.values[:, list(self.columns)].reshape(*shape, *self.batch, self.dim)

    @torch.no_grad()
    def trajectory(self, z: Tensor, t: Tensor | Sequence[float]) -> Tensor:
        """Paths (time, *batch, columns) of the amortized density from base points z (*batch,
        columns); see `CNF.trajectory`."""
        shape = torch.broadcast_shapes(z.shape[:-1], self.batch)
        rows = z.expand(*shape, self.dim).reshape(-1, self.dim)
        whole = rows.new_zeros(len(rows), self.question.answers.columns)
        whole[:, list(self.columns)] = rows
        paths = self._for_shape(shape).paths(whole, torch.as_tensor(t))
        return paths[..., list(self.columns)].reshape(-1, *shape, self.dim)

    def _asking(self, columns: Sequence[int]) -> Question:
        asked = torch.zeros_like(self.question.asked)
        asked[list(columns)] = True
        return replace(self.question, asked=asked)

    def _for_shape(self, shape: torch.Size) -> Question:
        """The question with what is given repeated for a larger batch."""
        given, context, rows = self.question.given, self.question.context, math.prod(shape)
        if len(given) in (1, rows) and (context is None or len(context) in (1, rows)):
            return self.question
        places = torch.arange(math.prod(self.batch)).reshape(self.batch).expand(shape).flatten()
        given = given.expand(math.prod(self.batch)).take(places)
        if context is not None and len(context) > 1:
            context = context[places]
        return replace(self.question, given=given, context=context)


@torch.no_grad()
def subset_density(flow: Any, subsets: Any, context: Tensor | None) -> SubsetDensity:
    """The density of all columns of a flow, from which marginals and conditionals are taken.

    If the flow has no conditional network, the proposal is a mixture fitted to its samples, and
    answers are exact.

    Args:
        flow: a `CNF`.
        subsets: its `SubsetFlow`, or None.
        context: (*batch, context_dim), or None.

    Raises:
        ValueError: for a flow with a context and without a conditional network, or one with angles.
    """
    if flow.preprocess.geometry.angles or flow.preprocess.geometry.spheres:
        raise ValueError("expected a flow of real columns; this one has angles or spheres")
    columns = tuple(range(flow.dim))
    nothing, _ = _constraints({}, flow.dim, flow.device)
    asked = torch.ones(flow.dim, dtype=torch.bool, device=flow.device)
    draws = None
    answers: MixtureAnswers
    if subsets is not None:
        answers = FlowAnswers(flow, subsets.coordinates, subsets.flow)
    elif flow.context_dim:
        raise ValueError(
            "a flow with a context needs a conditional network for this: fit it with any_subset=True,"
            " or cnf fit --any-subset"
        )
    else:
        answers, draws = stand_in(flow), DRAWS
    require_context(context, flow.context_dim)
    rows = None if context is None else context.reshape(-1, flow.context_dim)
    batch = torch.Size() if context is None else context.shape[:-1]
    nothing = nothing.expand(math.prod(batch))
    return SubsetDensity(Question(answers, asked, nothing, rows, draws), columns, batch)


def stand_in(flow: Any) -> MixtureAnswers:
    """The answers for a flow without a conditional network."""
    generator = torch.Generator(flow.device).manual_seed(0)
    x = flow.sample((STAND_IN_ROWS,), generator=generator, dtype=torch.float64)
    ranges = [(None, None)] * flow.dim
    coordinates = fit_coordinates(x, x[:, :0], ranges, seed=0, components=STAND_IN_COMPONENTS)
    return MixtureAnswers(flow, coordinates)


def _constraints(
    given: Mapping[int, GivenNumber], columns: int, device: torch.device
) -> tuple[Constraints, torch.Size]:
    """What is known of the columns of a flow, and the shape of its rows."""
    ends = {column: _ends(value, device) for column, value in given.items()}
    batch = torch.broadcast_shapes(*(low.shape for low, _ in ends.values()))
    rows = math.prod(batch)
    lower = torch.zeros(rows, columns, dtype=torch.float64, device=device)
    upper = lower.clone()
    states = torch.full_like(lower, UNKNOWN, dtype=torch.long)
    for column, (low, high) in ends.items():
        lower[:, column], upper[:, column] = (e.expand(batch).reshape(-1) for e in (low, high))
        states[:, column] = 0
    return Constraints(states, lower, upper), batch


def _ends(value: GivenNumber, device: torch.device) -> tuple[Tensor, Tensor]:
    if isinstance(value, tuple):
        infinite = (-math.inf, math.inf)
        ends = [every if end is None else end for end, every in zip(value, infinite)]
        if len(value) != 2 or not ends[0] < ends[1]:
            raise ValueError(f"given: expected a range (low, high) with low < high; got {value}")
        lower, upper = (torch.tensor(end, dtype=torch.float64, device=device) for end in ends)
        return lower, upper
    number = as_tensor(value, name="given").to(device, torch.float64)
    return number, number


def _checked(columns: Sequence[int], dim: int) -> list[int]:
    """Different columns among the first `dim`, at least one."""
    try:
        found = [operator.index(column) for column in columns]
    except TypeError:
        raise TypeError(
            f"columns: expected a list of numbers from 0 to {dim - 1}; got {brief(columns)}"
        ) from None
    if not found or len(set(found)) < len(found) or not all(0 <= c < dim for c in found):
        raise ValueError(f"columns: expected different numbers from 0 to {dim - 1}; got {found}")
    return found
