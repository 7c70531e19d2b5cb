"""The training loop: updates, moving average, validation by verified likelihood."""

from __future__ import annotations

import math
import time
from typing import Protocol

import torch
from torch import Tensor, nn

from cnf.flows import CNF
from cnf.ode import Solver, SolverError, Torchdiffeq
from cnf.rows import Rows, evenly_spaced
from cnf.training.batches import Batches, in_model_coordinates
from cnf.training.config import FitPlan, Phase, Settings
from cnf.training.errors import WINDOW, TrainingError, diverged
from cnf.training.history import History, Record
from cnf.training.neyman import NeymanSampler
from cnf.training.nfe_control import PenaltyController
from cnf.training.objectives import Likelihood, flow_matching_loss, likelihood_loss
from cnf.training.optimizers import optimizers
from cnf.training.schedules import crosses_milestone, late_weighted_progress
from cnf.training.solver_control import StepController
from cnf.training.validation import EMAValidator, snapshot

RECORDS = 100  # of each phase
WARM_UP = 0.05  # of each phase
CONTROL_EVERY = 25  # likelihood updates
SMALLEST_RATE_SCALE = 1e-3
FEW = 5  # updates
# Part of a phase's seconds left that a validation may take, and of all its seconds that all of
# them may take, spent no faster than the clock of validations runs.
MOST_OF_REST, MOST_OF_PHASE = 0.5, 0.08
# Part of the first phase that what came before it may have used up.
MOST_SPENT = 0.5


class Callback(Protocol):
    """Who is told how training goes: a progress bar, a writer of checkpoints."""

    def __call__(self, trainer: Trainer) -> None:
        """Called after every update."""


class Trainer:
    """One fit. What changes while it runs is in plain attributes, so that it can be written down.

    Args:
        flow: what is trained, in place; its preprocessing and base are already fitted.
        train: rows to learn from.
        valid: rows to validator by.
        settings: every choice.
        seed: of all randomness in training.
        plan: what was settled before it.
        spent: seconds of the budget that are gone already; the first phase makes up for them, but
            keeps half of its time.
        callbacks: called after every update.
    """

    def __init__(
        self,
        flow: CNF,
        train: Rows,
        valid: Rows,
        settings: Settings,
        *,
        seed: int,
        plan: FitPlan | None = None,
        spent: float = 0.0,
        callbacks: tuple[Callback, ...] = (),
    ) -> None:
        self.flow = flow
        self.valid = valid
        self.settings = settings
        self.callbacks = callbacks
        self.seed = seed
        self.plan = plan or FitPlan()
        self.generator = torch.Generator(flow.device).manual_seed(seed)
        self.pilot = train.take(evenly_spaced(train.x, 256))
        pilot, rows = in_model_coordinates(flow, self.pilot), in_model_coordinates(flow, train)
        self.pilot_y, self.pilot_context = pilot.x, pilot.context
        self.batches = Batches(rows.x, rows.context, rows.weights)
        self.allocation = NeymanSampler(self.batches.strata)
        self.history = History()
        self.best = self.at_start = snapshot(flow.field)
        # Nats that too many evaluations of the best weights count for, where that was looked at.
        self.best_excess: float | None = None
        self.step = 0
        self.seconds = 0.0
        self.step_control = StepController(
            flow, self.pilot_y, self.pilot_context,
            steps=settings.solver_steps, error_weight=settings.error_weight, generator=self.generator,
        )  # fmt: skip
        self.penalty_control = PenaltyController(
            self.pilot, settings.nfe_budget, settings.tolerance
        )
        gone = min(spent, MOST_SPENT * (settings.phases[0].seconds or 0.0))
        self.validation_seconds = 0.0  # of the last one
        self.start_phase(0, unspent=-gone)
        self.best_nll = self.validator.validate(self.pilot_y, self.pilot_context).nll

    def start_phase(self, index: int, *, unspent: float) -> None:
        """Begin a phase with a fresh optimizer and moving average, and the seconds that the last
        one left."""
        self.index = index
        self.unspent = unspent
        self.phase_step = 0
        self.phase_seconds = 0.0
        self.rate_scale = 1.0
        # What ends a phase early is judged within it: a high learning rate first gives back some
        # of what the phase before had reached.
        self.stale, self.phase_best = 0, math.inf
        self.all_validation_seconds = 0.0
        self.went_well = 0  # updates since the start or the last rollback
        self.losses: list[float] = []
        self.window: list[float] = []
        self.baseline_loss = math.inf
        self.optimizers = optimizers(
            self.flow.field, self.phase.optimizer, weight_decay=self.settings.weight_decay
        )
        self.validator = EMAValidator(self.flow, self.phase.ema, self.valid)

    @property
    def phase(self) -> Phase:
        """The phase that is under way."""
        return self.settings.phases[self.index]

    @property
    def phase_done(self) -> float:
        """Share of the phase's budget that is spent."""
        if self.phase.steps is not None:
            return self.phase_step / (self.phase.steps + self.unspent)
        return self.phase_seconds / (self.phase.seconds + self.unspent)

    @property
    def seconds_left(self) -> float:
        """Of the phase; without end where updates are its budget."""
        if self.phase.seconds is None:
            return math.inf
        return self.phase.seconds + self.unspent - self.phase_seconds

    @property
    def learning_rate(self) -> float:
        """Of the next update: a linear warm-up, then a cosine to zero."""
        done = min(self.phase_done, 1.0)
        warm = min(1.0, (done + 1e-3) / WARM_UP)
        return (
            self.phase.learning_rate
            * self.rate_scale
            * warm
            * 0.5
            * (1 + math.cos(math.pi * done))
        )

    def run(self) -> History:
        """Train until the budget is spent; the flow then has the best weights that validation
        saw."""
        self.flow.train()
        while True:
            while self.phase_done < 1 and self.stale < self.settings.patience:
                self._advance()
            self.flow.field.load_state_dict(self.best)
            if self.index + 1 == len(self.settings.phases):
                break
            following = self.settings.phases[self.index + 1]
            timed = self.phase.seconds is not None and following.seconds is not None
            self.start_phase(self.index + 1, unspent=max(self.seconds_left, 0.0) if timed else 0.0)
        self.flow.eval()
        return self.history

    @torch.no_grad()
    def settle(self) -> None:
        """Give the flow the best weights so far, those of the present average included."""
        self._validate()
        self.flow.field.load_state_dict(self.best)
        self.flow.eval()

    def _advance(self) -> None:
        """One update, with the validation or record that is due after it."""
        start, before = time.perf_counter(), self.phase_done
        self._update()
        self._book(start)
        done = self.phase_done
        if self._validation_is_due(before, done):
            start = time.perf_counter()
            self._validate()
            self.validation_seconds = time.perf_counter() - start
            self.all_validation_seconds += self.validation_seconds
            self._book(start)
        elif crosses_milestone(before, done, RECORDS):
            self._record()
        for callback in self.callbacks:
            callback(self)

    def _validation_is_due(self, before: float, done: float) -> bool:
        """Where seconds are the budget, only if it leaves most of those gone and of the rest to
        updates; at the end of a phase, always."""
        if not crosses_milestone(
            late_weighted_progress(before), late_weighted_progress(done), self.phase.validations
        ):
            return False
        if done >= 1 or self.phase.seconds is None:
            return True
        once_more = self.all_validation_seconds + self.validation_seconds
        allowed = (
            MOST_OF_PHASE * late_weighted_progress(done) * (self.phase_seconds + self.seconds_left)
        )
        return once_more <= allowed and self.validation_seconds < MOST_OF_REST * self.seconds_left

    def _book(self, start: float) -> None:
        elapsed = time.perf_counter() - start
        self.seconds += elapsed
        self.phase_seconds += elapsed

    def _update(self) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate
        self.step += 1
        self.phase_step += 1
        self.flow.field.zero_grad()
        try:
            loss, objective = self._loss()
            loss.backward()
        except SolverError as failure:
            self._roll_back(str(failure))
            return
        norm = nn.utils.clip_grad_norm_(self.flow.field.parameters(), self.settings.clip)
        if not (norm.isfinite() and loss.isfinite()):
            self._roll_back("the loss was not finite")
            return
        for optimizer in self.optimizers:
            optimizer.step()
        self.validator.update(self.flow)
        self.went_well += 1
        self.losses.append(objective)
        self._watch_for_explosion(objective)

    def _watch_for_explosion(self, objective: float) -> None:
        self.window.append(objective)
        if len(self.window) < WINDOW:
            return
        window, self.window = self.window, []
        if diverged(window, self.baseline_loss, phase=self.phase.name, dim=self.flow.dim):
            self.went_well = 0  # the average is of the weights that led there
            self._roll_back("the loss exploded")
        else:
            self.baseline_loss = min(self.baseline_loss, max(window))

    def _loss(self) -> tuple[Tensor, float]:
        """What is differentiated, and the phase's objective as a number."""
        if self.phase.name == "flow matching":
            loss = self._matching_loss()
            return loss, loss.item()
        parts = self._likelihood()
        return (
            parts.nll + self.step_control.error_weight * parts.solver_error + parts.penalty,
            parts.nll.item(),
        )

    def _matching_loss(self) -> Tensor:
        again = self.settings.times_a_pair
        y, context = self.batches.draw(self.phase.batch // again, self.generator)
        block = None if self.flow.context_dim else self.settings.coupling_block
        return flow_matching_loss(
            self.flow, y, context, self.generator, block=block, times_a_pair=again
        )

    def _likelihood(self) -> Likelihood:
        """Draw rows and score them; the next draws go where these say."""
        solver = self._training_solver()
        drawn = self.allocation.draw(self.phase.batch, self.generator)
        y, context = self.batches.take(drawn.places)
        parts = likelihood_loss(
            self.flow,
            y,
            context,
            self.generator,
            solver=solver,
            # The two are the same gradient to rounding, and the flow knows when keeping the graph
            # is faster.
            gradient=None if self.settings.gradient == "discrete" else self.settings.gradient,
            regularizers=self.settings.regularizers.scaled(self.penalty_control.share),
            importance=drawn.importance,
        )
        if self.settings.allocation == "neyman":
            self.allocation.observe(drawn.cells, parts.log_prob)
        return parts

    def _training_solver(self) -> Solver:
        """The grid of likelihood training, placed anew as the field changes; torchdiffeq for its
        adjoint."""
        if self.settings.gradient == "adjoint":
            return Torchdiffeq("dopri5", rtol=1e-3, atol=1e-3)
        if self.phase_step % CONTROL_EVERY == 1 and not self.step_control.update(self.phase_done):
            self._roll_back("the solver lost the field")
        return self.step_control.training_grid()

    def _roll_back(self, reason: str) -> None:
        """Return with half the learning rate to the average, or, where it is not finite or led
        here before many updates went well, to the best weights that validation saw."""
        self.history.rollbacks.append(f"{self.phase.name}, update {self.step}: {reason}")
        self.rate_scale /= 2
        if self.rate_scale < SMALLEST_RATE_SCALE:
            raise TrainingError(
                f"training diverged in {self.phase.name} at update {self.step} and again after every smaller"
                " learning rate; look for extreme values in the rows, or lower the learning rate"
            )
        average = self.validator.average.module.state_dict()
        sound = self.went_well >= FEW and all(
            tensor.isfinite().all() for tensor in average.values()
        )
        self.flow.field.load_state_dict(average if sound else self.best)
        if not sound:
            self.validator = EMAValidator(self.flow, self.phase.ema, self.valid)
        self.window, self.went_well = [], 0
        self.allocation = NeymanSampler(
            self.batches.strata
        )  # the lost weights' densities say nothing
        for optimizer in self.optimizers:
            optimizer.state.clear()

    def _validate(self) -> None:
        found = self.validator.validate(self.pilot_y, self.pilot_context)
        steered = self.phase.name == "likelihood" and self.phase_step >= CONTROL_EVERY
        excess = self.penalty_control.update(self.validator.flow) if steered else None
        more = 0.0 if excess is None or self.best_excess is None else excess - self.best_excess
        worth = found.nll + (excess or 0.0)
        self.stale = 0 if worth < self.phase_best else self.stale + 1
        self.phase_best = min(self.phase_best, worth)
        if found.nll + more < self.best_nll:
            self.best_nll, self.best_excess = found.nll, excess
            self.best = snapshot(self.validator.average.module)
        self._record(valid_nll=found.nll, valid_se=found.se, nfe=found.nfe)

    def _record(self, **held_out: float) -> None:
        objective = sum(self.losses) / max(len(self.losses), 1)
        self.losses = []
        self.history.records.append(
            Record(
                self.phase.name, self.step, self.seconds, objective, self.learning_rate, **held_out
            )
        )
