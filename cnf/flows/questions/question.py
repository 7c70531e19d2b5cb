"""Some columns of a density given others, amortized or by importance sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from cnf.flows.questions.answers import Answers, Score
from cnf.flows.questions.constraints import Constraints
from cnf.flows.questions.importance import (
    FEWEST_WEIGHTS,
    SOUND_TAIL,
    log_mean,
    pareto_k,
)
from cnf.flows.questions.noise import Noise
from cnf.flows.scoring import Evaluation
from cnf.rows import Cells

# Rows times draws that are solved together.
AT_ONCE = 2**16
# Weights with such an effective sample size are nearly equal, and the shape of their tail is no
# matter.
NEARLY_EQUAL = 0.9
# Draws of a range, a set of levels or an integer cell, over which the amortized density is averaged.
# Few are enough within most cells; rows whose bar is then wider than this, in nats, get more in turn.
WITHIN_DRAWS, WIDE_BAR = (4, 16, 64), 0.05
# A draw is chosen by its weight among so many candidates for each, and at least so many.
CANDIDATES, FEWEST_CANDIDATES = 4, 256


@dataclass(frozen=True)
class Answer(Evaluation):
    """An `Evaluation` with diagnostics of its importance weights.

    Attributes:
        ess: effective sample size as a share of the draws (*batch,), 1 without draws.
        pareto_k: shape of the tail of the weights (*batch,); above 0.7 the row is not ok unless
            the weights are nearly equal.
    """

    ess: Tensor
    pareto_k: Tensor


class Weighed(NamedTuple):
    """Completed rows with their weights.

    Attributes:
        cells: the rows.
        log_weights: (rows,), nats.
        score: of their solves.
    """

    cells: Cells
    log_weights: Tensor
    score: Score


@dataclass(frozen=True)
class Question:
    """p(asked columns | given, context), over rows of cells.

    Amortized, it is the density of the conditional network. Exact, it is the ratio of two masses of
    the joint density p, each a mean of importance weights with the conditional density q as
    proposal,

        p(known) = E_{rest ~ q(· | known)} [p(known, rest) / q(rest | known)].

    A range, a set of levels or an integer cell is also drawn, and its volume is included.

    Attributes:
        answers: the joint and the conditional density.
        asked: which columns the density is for (columns,).
        given: the known cells, one row for all or one for each.
        context: (1 or rows, context_dim), or None.
        draws: number of draws of the importance sampling; None means amortized.
    """

    answers: Answers
    asked: Tensor
    given: Constraints
    context: Tensor | None = None
    draws: int | None = None

    def evaluate(self, rows: Constraints) -> Answer:
        """The log-density of rows of the asked columns."""
        if not len(rows):
            none = rows.lower.new_zeros(0)
            return Answer(none, none, none.long(), none.bool(), none, none)
        if self.draws is not None:
            return self._averaged(rows, self.draws)
        found = self._averaged(rows, WITHIN_DRAWS[0])
        if all(self._needed(known, 2) == 1 for known in (rows, self._known)):
            return found
        for draws in WITHIN_DRAWS[1:]:
            wide = (found.error > WIDE_BAR).nonzero().squeeze(1)
            if len(wide):
                some = self._take(wide, len(found.error))
                again = some._averaged(rows.take(wide), draws)
                pairs = zip(vars(found).values(), vars(again).values())
                found = Answer(*(part.index_copy(0, wide, new) for part, new in pairs))
        return found

    def _averaged(self, rows: Constraints, draws: int) -> Answer:
        """The log-density of rows, averaged over this number of draws where a cell is a set."""
        count = max(len(rows), len(self.given))
        places = torch.arange(count, device=rows.states.device).split(max(1, AT_ONCE // draws))
        parts = [self._take(part, count)._evaluate(rows.take(part), draws) for part in places]
        return Answer(*(torch.cat(part) for part in zip(*(vars(p).values() for p in parts))))

    def draw(self, count: int, generator: torch.Generator | None) -> Cells:
        """`count` draws for each given row (count · rows, …), draw by draw, with every asked cell
        filled."""
        if self._divided:
            cells = self._chosen(count, generator)
        else:
            many = self._known.repeat(count)
            noise = self._noise(len(many), generator)
            cells = many.draw(self.answers.marginals, self.answers.numeric, noise)[0]
        if self.draws is not None:
            return cells
        known = self._known.repeat(count).known
        noise = self._noise(len(cells), generator)
        context = self._context(len(cells))
        return self.answers.complete(cells, self.asked & ~known, known, context, noise)[0]

    def paths(self, z: Tensor, t: Tensor) -> Tensor:
        """Paths (time, rows, columns) from base points z (rows, columns), of the amortized
        density."""
        given = self._known.expand(len(z))
        known, cells = given.known, Cells(given.lower, given.states)
        context = self._context(len(z))
        return self.answers.paths(cells, self.asked & ~known, known, context, z, t)

    @property
    def _known(self) -> Constraints:
        """What is given; the amortized density takes an integer cell by its center, as it was
        trained."""
        return self.given if self.draws is not None else self.given.centered(self.answers.steps)

    @property
    def _divided(self) -> bool:
        """Whether the density is a ratio: exact under a condition, or given more than numbers."""
        given, precise = self._known.known, self._known.precise(self.answers.numeric)
        return bool((given if self.draws is not None else given & ~precise).any())

    def _weigh(self, cells: Cells, known: Tensor, context: Tensor | None, noise: Noise) -> Weighed:
        """Rows weighed by the joint density over the proposal or, amortized, by the density of
        what is known beyond the conditions."""
        if self.draws is None:
            precise = self._known.precise(self.answers.numeric)
            given = precise.repeat(len(known) // len(precise), 1)
            score = self.answers.amortized(cells, known & ~given, given, context)
            return Weighed(cells, score.log_prob, score)
        if known.all():
            score = self.answers.joint(cells, context)
            return Weighed(cells, score.log_prob, score)
        cells, log_proposal = self.answers.complete(cells, ~known, known, context, noise)
        score = self.answers.joint(cells, context)
        # A draw beyond the ends of a column has no density, and weighs nothing.
        log_weights = (score.log_prob - log_proposal).nan_to_num(nan=-torch.inf)
        return Weighed(cells, log_weights, score)

    def _take(self, places: Tensor, count: int) -> Question:
        """The same for some of so many rows; one row that is given stands for all."""
        given, context = self.given, self.context
        if len(given) == count > 1:
            given = given.take(places)
        if context is not None and len(context) == count > 1:
            context = context[places]
        return replace(self, given=given, context=context)

    def _evaluate(self, rows: Constraints, draws: int) -> Answer:
        found = self._mass(self._known.joined(rows, self.answers.numeric), draws)
        if not self._divided:
            return found
        there = self._mass(self._known, draws)
        return Answer(
            found.log_prob - there.log_prob,
            found.error + there.error,
            found.nfe,
            found.ok & there.ok,
            torch.minimum(found.ess, there.ess),
            torch.maximum(found.pareto_k, there.pareto_k),
        )

    def _mass(self, known: Constraints, draws: int) -> Answer:
        """The mass or density of what is known of each row."""
        rows, draws, answers = len(known), self._needed(known, draws), self.answers
        noise = Noise.sobol(draws, len(answers.numeric), answers.columns, known.states.device)
        noise, many = noise.for_rows(rows), known.repeat(draws)
        context = self.context
        context = None if context is None else context.expand(rows, -1).repeat(draws, 1)
        cells, log_volume = many.draw(answers.marginals, answers.numeric, noise)
        _, log_weights, score = self._weigh(cells, many.known, context, noise)
        log_weights = (log_weights.double() + log_volume).unflatten(0, (draws, rows))
        return _answer(log_weights, score, even=self.draws is None)

    def _chosen(self, count: int, generator: torch.Generator | None) -> Cells:
        """`count` of many candidates for each row, chosen by their weights."""
        candidates = max(FEWEST_CANDIDATES, CANDIDATES * count)
        many, answers = self._known.repeat(candidates), self.answers
        noise = self._noise(len(many), generator)
        cells, log_volume = many.draw(answers.marginals, answers.numeric, noise)
        cells, log_weights, _ = self._weigh(cells, many.known, self._context(len(many)), noise)
        log_weights = (log_weights.double() + log_volume).unflatten(0, (candidates, -1))
        shares = log_weights.nan_to_num(nan=-torch.inf).softmax(0).T
        picked = torch.multinomial(shares, count, replacement=True, generator=generator).T
        rows = torch.arange(picked.shape[1], device=picked.device)
        return cells.take((picked * len(rows) + rows).flatten())

    def _needed(self, known: Constraints, draws: int) -> int:
        """The number of draws, one where nothing is drawn."""
        precise = known.precise(self.answers.numeric)
        certain = precise == known.known if self.draws is None else precise
        return 1 if bool(certain.all()) else draws

    def _context(self, rows: int) -> Tensor | None:
        """The context of so many rows, those that are given again and again."""
        return None if self.context is None else self.context.repeat(rows // len(self.context), 1)

    def _noise(self, rows: int, generator: torch.Generator | None) -> Noise:
        answers, device = self.answers, self.given.states.device
        return Noise.random(rows, len(answers.numeric), answers.columns, device, generator)


def _answer(log_weights: Tensor, score: Score, *, even: bool) -> Answer:
    """The mean of log-weights (draws, rows) of even draws or others, with a bar that includes the solver."""
    draws = len(log_weights)
    mean = log_mean(log_weights, even=even)
    shares = log_weights.softmax(0)
    error, nfe, ok = (part.unflatten(0, log_weights.shape) for part in score[1:])
    tails = [-torch.inf] * log_weights.shape[1]
    if draws >= FEWEST_WEIGHTS:
        tails = [_tail(column) for column in log_weights.T]
    k = mean.value.new_tensor(tails)
    sound = (k < SOUND_TAIL) | (mean.ess > NEARLY_EQUAL)
    sound = sound & mean.value.isfinite() & (ok | (shares < 1 / draws)).all(0)
    bar = mean.error + (shares * error).nansum(0)
    return Answer(mean.value, bar, nfe.sum(0), sound, mean.ess, k)


def _tail(log_weights: Tensor) -> float:
    return float("nan") if log_weights.isnan().any() else pareto_k(log_weights)
