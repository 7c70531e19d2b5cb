"""The training loop: steps, rollback, budget, validation."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from cnf.flows import CNF
from cnf.ode import SolverError
from cnf.rows import Rows, evenly_spaced
from cnf.training.callbacks import Callback
from cnf.training.config import Phase, Settings
from cnf.training.errors import TrainingError
from cnf.training.history import History, Record
from cnf.training.minimize import MOST_RECORDS
from cnf.training.objectives import LOST, Loss, Objective, Task
from cnf.training.optimizers import optimizers
from cnf.training.processes import processes
from cnf.training.schedules import crosses_milestone
from cnf.training.state import PhaseState, TrainerState
from cnf.training.streams import RowStream, sampler
from cnf.training.validation import ValidationResult, Validator, snapshot

PILOT_ROWS = 256  # training rows on which solvers are calibrated during training
GOOD_STEPS = 5  # steps after which the moving average has left the cause of a rollback behind
SMALLEST_RATE_SCALE = 1e-3  # ten rollbacks: training diverges whatever the rate


class Trainer:
    """One fit of a flow to rows, through phases that each minimize an objective.

    Everything that changes while it runs is in `state` and in parts that have a `state_dict`;
    `state_dict` collects them, so that a resumed fit is bit-identical.

    Args:
        flow: trained in place; its transform and base are already fitted.
        train: training rows.
        valid: validation rows.
        settings: phases and optimization.
        seed: seed of all randomness in training.
        metadata: the caller's data for JSON, kept with the state.
        spent: seconds of the budget already used; phases are shortened by them, to half of their
            time at most.
        callbacks: called after every training step.
        stream: stream of training rows that do not fit into memory; `train` is then a sample of them,
            for the calibration of solvers.

    Attributes:
        history: the history so far.
        pilot: a few of the training rows, in the units of the data.
        batches: training rows, in model coordinates.
        best: weights of the field with the best held-out likelihood.
        initial: weights of the field at the start.

    Example:
        >>> from cnf.training import FlowMatching, Phase
        >>> phase = Phase(FlowMatching(), 20, None, 64, 2e-3, ema=0.9, validations=2)
        >>> flow, x = CNF(dim=2, hidden=(8, 8)), torch.randn(100, 2)
        >>> trainer = Trainer(flow, Rows(x[:80]), Rows(x[80:]), Settings((phase,)), seed=0)
        >>> [record.step for record in trainer.run().records if record.valid_nll is not None]
        [13, 20]
    """

    def __init__(
        self,
        flow: CNF,
        train: Rows,
        valid: Rows,
        settings: Settings,
        *,
        seed: int,
        metadata: dict[str, Any] | None = None,
        spent: float = 0.0,
        callbacks: Sequence[Callback] = (),
        stream: RowStream | None = None,
    ) -> None:
        self.flow, self.train, self.valid, self.settings = flow, train, valid, settings
        self.seed, self.metadata, self.spent = seed, metadata or {}, spent
        self.callbacks = tuple(callbacks)
        self.processes = processes()
        self.processes.share(flow)
        self.generator = torch.Generator(flow.device).manual_seed(seed)
        self.history, self.state = History(), TrainerState()
        self.pilot = train.take(evenly_spaced(train.x, PILOT_ROWS))
        self.batches = sampler(flow, train, stream, seed, self.processes)
        self.started = self.stopping = False
        self.objective: Objective
        self.validator: Validator

    @property
    def phase(self) -> Phase:
        """The present phase."""
        return self.settings.phases[self.state.phase.index]

    @property
    def step(self) -> int:
        """Training steps so far."""
        return self.state.step

    @property
    def phase_done(self) -> float:
        """The spent fraction of the phase's budget."""
        state = self.state.phase
        if self.phase.seconds is None:
            return state.step / ((self.phase.steps or 0) + state.unspent)
        return state.seconds / self.state.before_last_validation(self.phase.seconds)

    @property
    def seconds_left(self) -> float:
        """Remaining seconds of the phase; infinite if its budget is in training steps."""
        if self.phase.seconds is None:
            return math.inf
        return self.phase.seconds + self.state.phase.unspent - self.state.phase.seconds

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next training step."""
        peak = self.phase.learning_rate * self.state.phase.rate_scale
        return self.phase.schedule(peak, self.phase_done)

    def start(self) -> Trainer:
        """Validate the initial flow, and begin the first phase."""
        self.initial = self.best = snapshot(self.flow.field)
        start = self.settings.clock()
        self.start_phase(PhaseState())
        self.state.best_nll = self.validator.validate().nll
        self.state.best_penalty = self.objective.selection_penalty(self.validator.flow)
        self.state.overdrawn = self.spent + self.settings.clock() - start
        self.state.make_up(self.phase.seconds)
        self.started = True
        return self

    def start_phase(self, state: PhaseState) -> None:
        """Begin a phase with a new objective, optimizer and moving average."""
        self.state.phase = state
        self.objective = copy.copy(self.phase.objective)
        batch, decay = self.phase.batch, self.settings.weight_decay
        task = Task(self.flow, self.batches, self.pilot, batch, self.generator, self.processes)
        self.objective.start(task)
        self.optimizers = optimizers(self.flow.field, self.phase.optimizer, weight_decay=decay)
        self._restart_average()

    def run(self, until: int | None = None) -> History:
        """Train until the budget is spent; the flow then has the best weights.

        Args:
            until: pause after this number of training steps, unless the budget is spent before,
                and validate; the next call continues as if there had been no pause.

        Raises:
            TrainingError: if training diverges repeatedly.
            KeyboardInterrupt: after the training step in which `stop` was called.
        """
        if not self.started:
            self.start()
        self.flow.train()
        while True:
            while self.phase_done < 1 and self.state.phase.stale < self.settings.patience:
                if until is not None and self.step >= until:
                    return self._paused(until)
                self._advance()
            self.flow.field.load_state_dict(self.best)
            index = self.state.phase.index + 1
            if index == len(self.settings.phases):
                break
            timed = None not in (self.phase.seconds, self.settings.phases[index].seconds)
            left = self.seconds_left if timed else 0.0
            self.state.overdrawn += max(-left, 0.0)
            self.start_phase(PhaseState(index, unspent=max(left, 0.0)))
            self.state.make_up(self.phase.seconds)
        self.flow.eval()
        return self.history

    def _paused(self, until: int) -> History:
        """The history with the held-out score at this step, unless the fit was resumed from a later one.
        The score selects no weights, since every additional selection on few rows adds bias."""
        if self.step == until:
            start = self.settings.clock()
            self._record(self.validator.validate())
            self.state.spend(self.settings.clock() - start)
        return self.history

    def stop(self) -> None:
        """End the fit as Ctrl-C does, but after this training step and its callbacks."""
        self.stopping = True

    @torch.no_grad()
    def settle(self) -> None:
        """Give the flow the best weights so far; the present average is a candidate."""
        self._validate()
        self.flow.field.load_state_dict(self.best)
        self.flow.eval()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the fit depends on: nested tensors and plain values."""
        return {
            "state": asdict(self.state),
            "history": self.history.as_dict(),
            "metadata": self.metadata,
            "generator": self.generator.get_state(),
            "batches": self.batches.state_dict(),
            "field": self.flow.field.state_dict(),
            "base": self.flow.base.state_dict(),
            "best": self.best,
            "initial": self.initial,
            "objective": self.objective.state_dict(),
            "validator": self.validator.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of a trainer with the same rows, settings and seed."""
        # The base was fitted to the rows; on another machine it may differ by rounding.
        self.flow.base.load_state_dict(state["base"])
        numbers = state["state"]
        self.state = TrainerState(**{**numbers, "phase": PhaseState(**numbers["phase"])})
        self.start_phase(self.state.phase)
        self.history = History.from_dict(state["history"])
        self.metadata = state["metadata"]
        self.generator.set_state(state["generator"])
        self.batches.load_state_dict(state.get("batches", {}))
        self.best, self.initial = state["best"], state["initial"]
        for weights in (self.best, self.initial, state["field"]):  # each must match the field
            self.flow.field.load_state_dict(weights)
        self.objective.load_state_dict(state["objective"])
        self.validator.load_state_dict(state["validator"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.started = True

    def _restart_average(self) -> None:
        validator = self.settings.validator
        self.validator = validator(self.flow, self.phase.ema, self.valid, self.pilot)

    def _advance(self) -> None:
        """One training step, and the validation or record that is due after it."""
        clock, before = self.settings.clock, self.phase_done
        start = clock()
        self._update()
        self.state.spend(clock() - start)
        done = self.phase_done
        if self.state.validation_is_due(before, done, self.phase.validations, self.seconds_left):
            start = clock()
            self._validate()
            self.state.spend_on_validation(clock() - start)
        elif crosses_milestone(before, done, MOST_RECORDS):
            self._record()
        for callback in self.callbacks:
            callback(self)
        if self.processes.agreed(self.stopping):
            raise KeyboardInterrupt

    def _update(self) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate
        self.state.step += 1
        self.state.phase.step += 1
        self.flow.field.zero_grad()
        lost, loss = "", LOST
        try:
            loss = self.objective.loss(self.state.phase.step, self.phase_done)
            loss.value.backward()
        except SolverError as failure:
            lost = str(failure)
        loss = Loss(*self.processes.mean(self.flow.field, *loss))
        if lost:
            return self._roll_back(lost)
        norm = nn.utils.clip_grad_norm_(self.flow.field.parameters(), self.settings.clip)
        if not (norm.isfinite() and loss.value.isfinite()):
            return self._roll_back("the loss was not finite")
        for optimizer in self.optimizers:
            optimizer.step()
        self.validator.update(self.flow)
        return self._watch(loss)

    def _watch(self, loss: Loss) -> None:
        """Roll back if a whole window of losses shows that training has diverged."""
        state = self.state.phase
        state.good_steps += 1
        state.losses.append(loss.reported)
        if not (window := state.window_with(loss.reported)):
            return
        if self.objective.diverged(window, state.baseline):
            state.good_steps = 0  # the average contains the weights that diverged
            self._roll_back("the loss exploded")
        else:
            state.baseline = min(state.baseline, max(window))

    def _roll_back(self, reason: str) -> None:
        """Halve the learning rate, and return to the average, or to the best weights if it is invalid."""
        state, name = self.state.phase, self.objective.name
        self.history.rollbacks.append(f"{name}, update {self.step}: {reason}")
        state.rate_scale /= 2
        if state.rate_scale < SMALLEST_RATE_SCALE:
            raise TrainingError(
                f"training diverged in {name} at update {self.step} and again after every smaller"
                " learning rate; look for extreme values in the rows, or lower the learning rate"
            )
        average = self.validator.weights()
        finite = all(tensor.isfinite().all() for tensor in average.values())
        sound = finite and state.good_steps >= GOOD_STEPS
        self.flow.field.load_state_dict(average if sound else self.best)
        if not sound:
            self._restart_average()
        state.window, state.good_steps = [], 0
        for optimizer in self.optimizers:
            optimizer.state.clear()

    def _validate(self) -> None:
        found = self.validator.validate()
        penalty = self.objective.selection_penalty(self.validator.flow)
        if self.state.improved(found.nll, penalty):
            self.best = self.validator.weights()
        self._record(found)

    def _record(self, found: ValidationResult | None = None) -> None:
        held_out: dict[str, Any] = {}
        if found is not None:
            held_out = {"valid_nll": found.nll, "valid_se": found.se, "nfe": found.nfe}
        losses, self.state.phase.losses = self.state.phase.losses, []
        loss, now = sum(losses) / max(len(losses), 1), self.state.seconds
        record = Record(self.objective.name, self.step, now, loss, self.learning_rate, **held_out)
        self.history.records.append(record)
