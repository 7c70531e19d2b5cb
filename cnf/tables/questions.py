"""The density of some columns of a table given others, which `TableFlow.marginal` and
`conditional` return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cnf.flows.questions.question import Answer, Question
from cnf.flows.questions.subset_density import DRAWS, subset_density
from cnf.inputs import as_seed
from cnf.rows import Cells
from cnf.tables.answers import TableAnswers
from cnf.tables.dataframes import Given, rows_of
from cnf.tables.formats import TableError, choose_columns, names_of
from cnf.tables.given import no_constraints, of_frame, of_mapping, require_names
from cnf.tables.scoring import log_unseen
from cnf.tables.told import in_short


@dataclass(frozen=True)
class TableDensity:
    """p(columns | given) of some columns of a table, the others integrated out.

    Attributes:
        model: the `TableFlow`.
        question: the question about encoded rows; its context is that of the given values.
        columns: names of the columns.
        refused: mask of the given rows that hold a number outside the support of its column, for which
            no conditional density exists; None if no frame is given.
    """

    model: Any
    question: Question
    columns: tuple[str, ...]
    refused: Tensor | None = None

    def __repr__(self) -> str:
        """One line with the columns, the given ones, and the method."""
        known = self.question.given.known.any(0).tolist()
        names = [c.name for c, is_known in zip(self.model.schema.modeled, known) if is_known]
        if self.question.context is not None:
            names += [column.name for column in self.model.schema.context]
        given = f" given {in_short(names)}" if names else ""
        return f"TableDensity of {in_short(list(self.columns))}{given} ({self.method})"

    @property
    def method(self) -> str:
        """ "amortized" or "exact"."""
        return "amortized" if self.question.draws is None else "exact"

    def exact(self, draws: int = DRAWS) -> TableDensity:
        """The same density by importance sampling from the joint density, with this number of
        draws per row."""
        return replace(self, question=replace(self.question, draws=draws))

    def marginal(self, columns: Sequence[str]) -> TableDensity:
        """p(some of these columns | given).

        Raises:
            TableError: for a column outside this density.
        """
        kept = tuple(
            choose_columns(
                list(self.columns), path="columns", columns=names_of(columns), ignore=()
            )
        )
        return self._asking(kept)

    def conditional(self, given: Given) -> TableDensity:
        """p(the other columns | given, and everything given earlier).

        Args:
            given: name -> a value, a list of levels, or a range (low, high) with None for no end;
                or a frame, which conditions row by row. Its missing cells are unknown, and so are
                categories that were not in training. Columns that are not modeled are ignored. A row
                with a number outside the support of its column has log-probability NaN, and is not
                sampled.

        Raises:
            TableError: for an unknown column, or outside a frame, a value that is invalid for it.
        """
        values = dict(given) if isinstance(given, Mapping) else {}
        table = None
        if not values:
            table = rows_of(given).drop(columns=[*self.model.schema.set_aside], errors="ignore")
        names = [str(name) for name in (values if table is None else table)]
        if not names:
            raise TableError("given: expected a value of at least one column; found none")
        schema, question, refused = self.model.schema, self.question, self.refused
        context = [column.name for column in schema.context]
        require_names(schema, names, (*self.columns, *context))
        if any(name in context for name in names):
            question = replace(question, context=self._context(values, table))
        if table is None:
            modeled = {name: part for name, part in values.items() if name not in context}
            known = of_mapping(schema, modeled, self.model.device)
        else:
            known, outside, _ = of_frame(schema, table, self.model.device, missing=False)
            refused = outside if refused is None else refused | outside
        question = replace(question, given=question.given.joined(known, question.answers.numeric))
        left = tuple(name for name in self.columns if name not in names)
        return replace(self, question=question, refused=refused)._asking(left)

    def log_prob(self, table: pd.DataFrame) -> Tensor:
        """Log-probability (rows,) of the columns of a frame, in nats; a density in the units of the
        table for continuous numbers. A category that was not in training has the probability
        1 / (n + 2) after n rows, as in `TableFlow.log_prob`."""
        return self.evaluate(table).log_prob

    @torch.no_grad()
    def evaluate(self, table: pd.DataFrame) -> Answer:
        """`log_prob` with an error bound and diagnostics of the importance weights; see
        `cnf.flows.SubsetDensity.evaluate`.

        Raises:
            TableError: for an unknown column, or a cell that is not a number.
        """
        table = rows_of(table, "table")
        choose_columns(list(table.columns), path="table", columns=list(self.columns), ignore=())
        schema = self.model.schema
        rows, outside, unseen = of_frame(
            schema, table[list(self.columns)], self.model.device, missing=True
        )
        question = self.question
        if question.context is None and schema.context:
            question = replace(question, context=self.model.context_of(table))
        found = question.evaluate(rows)
        spoilt = rows.lower.isinf().any(1)  # mask of rows with a cell that is not a number
        asked = (rows.known | unseen)[:, question.asked].all(1) & ~spoilt
        outside = outside & ~spoilt
        log_prob = found.log_prob + log_unseen(self.model.metadata.rows or 0, unseen)
        log_prob = log_prob.masked_fill(~asked, torch.nan).masked_fill(outside, -torch.inf)
        ok, error = (found.ok & asked) | outside, found.error.masked_fill(outside, 0.0)
        if self.refused is not None:
            log_prob, ok = log_prob.masked_fill(self.refused, torch.nan), ok & ~self.refused
        return replace(found, log_prob=log_prob, ok=ok, error=error)

    @torch.no_grad()
    def sample(self, rows: int = 1, *, generator: torch.Generator | None = None) -> pd.DataFrame:
        """Draws of the columns: `rows` draws for each given row. The first draws of all given rows precede
        the second ones.

        Raises:
            TableError: for a model with context columns whose values are not given.
        """
        return self.draw(rows, generator=generator)[list(self.columns)]

    @torch.no_grad()
    def draw(self, rows: int = 1, *, generator: torch.Generator | None = None) -> pd.DataFrame:
        """`sample` together with the given columns, whose values are drawn within given sets."""
        if self.refused is not None and self.refused.any():
            place = int(self.refused.nonzero()[0, 0])
            raise TableError(
                f"given: row {place} (counted from 0) has a value that its column cannot hold; leave the"
                " row out, or the value missing"
            )
        if self.question.context is None and self.model.schema.context:
            raise TableError("given: expected values of the context columns too; found none")
        cells = self.question.draw(rows, generator)
        shown_states = cells.states.clamp(min=0)
        frame = self.model.schema.rows(Cells(cells.values, shown_states))
        absent = [
            column.name
            for column, state in zip(self.model.schema.modeled, cells.states.T)
            if bool((state < 0).any())
        ]
        return frame.drop(columns=absent)

    def completed(
        self, table: pd.DataFrame, n: int, *, generator: torch.Generator | None = None
    ) -> list[pd.DataFrame]:
        """n copies of the rows of a frame, with their missing cells drawn given the others.

        Raises:
            TableError: for a value that is invalid for its column.
        """
        drawn = self.conditional(table)._asking(self.columns).draw(n, generator=generator)
        parts = (drawn.iloc[k * len(table) : (k + 1) * len(table)] for k in range(n))
        return [part.set_index(table.index) for part in parts]

    @torch.no_grad()
    def posterior(self, column: str, grid: Any) -> np.ndarray:
        """p(column | given) on a grid (points,), for each given row (rows, points), normalized on the grid
        by the trapezoidal rule.

        Raises:
            TableError: for a column outside this density.
        """
        one, points = self.marginal([column]), np.asarray(grid, dtype=float)
        given = one.question.given
        count = len(given)
        frame = pd.DataFrame({column: np.tile(points, count)})
        places = torch.arange(count).repeat_interleave(len(points))
        context = one.question.context
        if context is not None and len(context) > 1:
            context = context[places]
        wide = replace(one.question, given=given.take(places), context=context)
        refused = None if one.refused is None else one.refused[places]
        log_density = (
            replace(one, question=wide, refused=refused)
            .evaluate(frame)
            .log_prob.reshape(count, -1)
        )
        density = (log_density - log_density.amax(1, keepdim=True)).exp().cpu().numpy()
        # The trapezoidal rule has another name before numpy 2.
        mass = (np.diff(points) * (density[:, 1:] + density[:, :-1]) / 2).sum(1, keepdims=True)
        return density / mass

    def _context(self, values: Mapping[str, Any], table: pd.DataFrame | None) -> Tensor:
        """The context from given values, otherwise that of each row of a frame."""
        model, names = self.model, [column.name for column in self.model.schema.context]
        if table is not None:
            return model.context_of(table)
        return model.drawn_context({n: values[n] for n in values if n in names}, 1)

    def _asking(self, columns: tuple[str, ...]) -> TableDensity:
        schema = self.model.schema
        modeled = [column.name for column in schema.modeled]
        for pair in schema.pairs:
            names = [modeled[place] for place in pair]
            if len(set(names) & set(columns)) == 1:
                raise TableError(
                    f"a longitude and its latitude belong together: request {' and '.join(names)}, or"
                    " give both"
                )
        asked = torch.tensor([name in columns for name in modeled], device=self.model.device)
        return replace(self, question=replace(self.question, asked=asked), columns=columns)


@torch.no_grad()
def posterior(
    model: Any,
    table: pd.DataFrame,
    column: str,
    grid: Any,
    errors: Mapping[str, str],
    draws: int,
    seed: int,
) -> np.ndarray:
    """p(column | a row of a table) on a grid, for each row (rows, points); see
    `TableFlow.posterior`."""
    names = [one.name for one in (*model.schema.modeled, *model.schema.context)]
    known = table[[name for name in names if name in table and name != column]]
    times = draws if errors else 1
    rows = known.loc[known.index.repeat(times)].astype(dict.fromkeys(errors, float))
    noise = np.random.default_rng(as_seed(seed))
    for name, error in errors.items():
        rows[name] += noise.normal(size=len(rows)) * table[error].repeat(times).to_numpy()
    found = table_density(model).conditional(rows).posterior(column, grid)
    return found.reshape(len(table), times, -1).mean(1)


def table_density(model: Any) -> TableDensity:
    """The density of all columns of a table, from which marginals and conditionals are taken.

    Raises:
        ValueError: for a table with states or angles whose model has no conditional network, and for
            one flow through time.
    """
    if model.time is not None:
        raise ValueError(
            "a flow through time scores whole rows only; to query some columns,"
            " fit the rows of one time alone"
        )
    schema = model.schema
    nothing = no_constraints(schema, 1, model.device)
    columns = tuple(column.name for column in schema.modeled)
    asked = torch.ones(len(columns), dtype=torch.bool, device=model.device)
    if model.plain and schema.charts is None:
        context = None
        if schema.context:
            context = torch.zeros(1, len(schema.context), device=model.device)
        whole = subset_density(model.flow, model.flow.subsets, context).question
        question = replace(whole, asked=asked, given=nothing, context=None)
    else:
        if model.plain or model.imputer is None:
            raise ValueError(
                "the model has no conditional network for this: fit it with any_subset=True, or"
                " cnf fit --any-subset"
            )
        answers = TableAnswers(model, model.imputation)
        empty = torch.zeros(1, 0, dtype=torch.float64, device=model.device)
        question = Question(answers, asked, nothing, None if schema.context else empty)
    return TableDensity(model, question, columns)
