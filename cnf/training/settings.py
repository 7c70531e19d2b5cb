"""Every choice of a fit, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from cnf.flows import Range
from cnf.ode import Gradient
from cnf.training.optimisers import OptimiserName, check_optimiser
from cnf.training.regularisers import NONE, Regularisers

AllocationName = Literal["proportional", "neyman"]
PhaseName = Literal["flow matching", "likelihood"]


@dataclass(frozen=True)
class Phase:
    """One part of a fit.

    Attributes:
        name: "flow matching" or "likelihood".
        steps: number of updates, or None where time is the budget.
        seconds: time, or None where updates are the budget.
        batch: rows of an update.
        learning_rate: its peak; after a warm-up it falls to zero along a cosine.
        ema: decay of the moving average of the weights, which is what gets judged and kept.
        validations: how often held-out likelihood is taken at most, closer together towards the end.
        optimiser: "adam", or "muon" for matrices and Adam for the rest.
    """

    name: PhaseName
    steps: int | None
    seconds: float | None
    batch: int
    learning_rate: float
    ema: float
    validations: int
    optimiser: OptimiserName = "adam"

    def __post_init__(self) -> None:
        if self.name not in get_args(PhaseName):
            raise ValueError(f"phase: expected {', '.join(get_args(PhaseName))}; got {self.name!r}")
        check_optimiser(self.optimiser)


@dataclass(frozen=True)
class Settings:
    """What `cnf.fit` does.

    Attributes:
        phases: one after the other.
        gradient: of the likelihood: "discrete", "direct", or "adjoint" (torchdiffeq).
        coupling_block: rows that flow matching pairs by optimal transport; None pairs independently.
        times_a_pair: times at which flow matching uses each pair.
        allocation: how many rows of a region likelihood training draws: "proportional" to those it has, or
            "neyman", more where log p differs more between them (`cnf.training.allocation`).
        solver_steps: steps of the grid that likelihood training starts with.
        error_weight: weight of the solver's error beside the negative log-likelihood, to start with.
        regularisers: penalties beside the negative log-likelihood.
        nfe_budget: evaluations a row that scoring should take at most. The penalties are left out while it
            takes far fewer, reach their weights at four fifths of it and up to ten times those beyond, where
            evaluations count against weights too. None always counts penalties whole, and evaluations for
            nothing.
        ranges: (lower, upper) of every column, None for no end; outside of them the density is zero. None: no
            column has ends.
        weight_decay: of the optimisers, decoupled from the gradient.
        clip: largest norm of a gradient.
        patience: validations without progress within a phase after which it ends; as many as it has: never.
        tolerance: of the error bar of the finished flow, in nats.
    """

    phases: tuple[Phase, ...]
    gradient: Gradient = "discrete"
    coupling_block: int | None = 64
    times_a_pair: int = 1
    allocation: AllocationName = "proportional"
    solver_steps: int = 12
    error_weight: float = 10.0
    regularisers: Regularisers = NONE
    nfe_budget: int | None = None
    ranges: tuple[Range, ...] | None = None
    weight_decay: float = 0.1
    clip: float = 5.0
    # As many as there are: a phase is at its best when the learning rate has come down.
    patience: int = 10
    tolerance: float = 1e-3

    @property
    def budget(self) -> tuple[int, float]:
        """Updates and seconds of all phases; zero of what is not the budget."""
        updates = sum(phase.steps or 0 for phase in self.phases)
        return updates, sum(phase.seconds or 0.0 for phase in self.phases)

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases: expected at least one; got none")
        if self.gradient not in get_args(Gradient):
            raise ValueError(f"gradient: expected {', '.join(get_args(Gradient))}; got {self.gradient!r}")
        if self.allocation not in get_args(AllocationName):
            raise ValueError(
                f"allocation: expected {', '.join(get_args(AllocationName))}; got {self.allocation!r}"
            )
        if not self.tolerance > 0:
            raise ValueError(f"tolerance: expected a positive number of nats; got {self.tolerance}")


@dataclass(frozen=True)
class Beginning:
    """What was settled before the first update.

    Attributes:
        choices: what was chosen for the flow, in words.
        may_give_way: whether a mixture that is ahead at the end may take the flow's place.
        map_is_free: whether the map to model coordinates may give way with it.
    """

    choices: dict[str, Any] = field(default_factory=dict)
    may_give_way: bool = False
    map_is_free: bool = False


# Up to so many columns, pairs by optimal transport make paths straight for little; in more, blocks of rows
# are too thin to pair well, and the time is better spent on updates; rows of one region are too far apart for
# what log p differs by between them to say where there is most to learn; and of mixtures, only those of so
# few columns were found to be better bases than a normal one.
FEW_COLUMNS = 3
MOST_WEIGHT_DECAY = 0.3
# Straight paths are cheap to follow.
STRAIGHT, NFE_BUDGET = Regularisers(transport=0.4), 40
# Parts of a budget that likelihood gets. Of seconds, more where the rows are too many to be learnt by heart.
SHARE_OF_UPDATES, SHARE_OF_SECONDS, SHARE_OF_SECONDS_MANY_ROWS = 0.1, 0.7, 0.8
MANY_ROWS = 20_000
# Of the seconds. The rest is for mixtures to beat, and for calibrating and scoring the finished flow.
TRAINING_SHARE = 0.88
# An update of flow matching is cheap: many small ones. One of likelihood is dear: few, and each goes far.
MATCHING = {"batch": 1024, "learning_rate": 2e-3, "ema": 0.999, "validations": 6, "optimiser": "adam"}
LIKELIHOOD = {"batch": 256, "learning_rate": 1e-2, "ema": 0.99, "validations": 10, "optimiser": "muon"}


def default_settings(
    *,
    rows: int,
    dim: int,
    context_dim: int = 0,
    steps: int | None,
    seconds: float | None,
    likelihood_share: float | None,
    **chosen: Any,
) -> Settings:
    """The settings for a table of so many rows and columns; `chosen` replaces any of them by name.

    Raises:
        ValueError: for a budget that is none, or one beside phases, which have their own.
    """
    if "phases" in chosen and any(part is not None for part in (steps, seconds, likelihood_share)):
        raise ValueError("phases: expected no steps, seconds or likelihood_share beside it")
    few = dim <= FEW_COLUMNS
    phases = default_phases(
        steps=steps, seconds=seconds, likelihood_share=likelihood_share, rows=rows, batch=512 if few else 256
    )
    settings = Settings(
        phases,
        coupling_block=64 if few else None,
        times_a_pair=4 if few else 1,
        allocation="neyman" if dim + context_dim <= FEW_COLUMNS else "proportional",
        regularisers=STRAIGHT,
        nfe_budget=None if "regularisers" in chosen else NFE_BUDGET,
        weight_decay=default_weight_decay(rows),
    )
    return replace(settings, **chosen)


def default_weight_decay(rows: int) -> float:
    """Of so many rows: few are soon learnt by heart. Small weights also learn faster by likelihood."""
    return min(1_500 / rows, MOST_WEIGHT_DECAY)


def default_phases(
    *, steps: int | None, seconds: float | None, likelihood_share: float | None, rows: int, batch: int
) -> tuple[Phase, ...]:
    """Flow matching, then maximum likelihood, within a budget of updates or seconds.

    A likelihood update costs some ten times one of flow matching, and brings the field further: its share is
    most of the time, or a tenth of the updates.

    Raises:
        ValueError: for two budgets, or one that is not positive, or a share outside [0, 1].
    """
    if steps is not None and seconds is not None:
        raise ValueError("give steps or seconds, not both")
    if steps is None and seconds is None:
        steps = default_steps(rows)
    if not (steps if steps is not None else seconds) > 0:
        raise ValueError(f"the budget must be positive; got steps={steps}, seconds={seconds}")
    share = likelihood_share
    if share is None and seconds is None:
        share = SHARE_OF_UPDATES
    elif share is None:
        share = SHARE_OF_SECONDS if rows <= MANY_ROWS else SHARE_OF_SECONDS_MANY_ROWS
    if not 0 <= share <= 1:
        raise ValueError(f"likelihood_share: expected a number in [0, 1]; got {share}")
    likelihood = None if steps is None else round(share * steps)
    matching = None if steps is None else steps - likelihood
    parts = (
        ("flow matching", matching, 1 - share, MATCHING),
        ("likelihood", likelihood, share, {**LIKELIHOOD, "batch": batch}),
    )
    phases = []
    for name, updates, part, recipe in parts:
        time = None if seconds is None else TRAINING_SHARE * part * seconds
        if (updates if seconds is None else time) > 0:
            phases.append(Phase(name, updates, time, **recipe))
    return tuple(phases)


def default_steps(rows: int) -> int:
    """Updates for a table of so many rows: a few epochs more for small ones, a cap for large ones."""
    return int(min(max(2000, rows // 4), 6000))
