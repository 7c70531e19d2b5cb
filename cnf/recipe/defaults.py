"""The measured defaults of `cnf.fit`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cnf.training.config import Phase, Settings
from cnf.training.penalties import Regularizers

# Up to so many columns, pairs by optimal transport make paths straight for little; in more, blocks
# of rows are too thin to pair well, and the time is better spent on updates; rows of one region
# are too far apart for what log p differs by between them to say where there is most to learn; and
# of mixtures, only those of so few columns were found to be better bases than a normal one.
FEW_COLUMNS = 3
MOST_WEIGHT_DECAY = 0.3
# Straight paths are cheap to follow.
STRAIGHT, NFE_BUDGET = Regularizers(transport=0.4), 40
# Parts of a budget that likelihood gets. Of seconds, more where the rows are too many to be learnt
# by heart.
SHARE_OF_UPDATES, SHARE_OF_SECONDS, SHARE_OF_SECONDS_MANY_ROWS = 0.1, 0.7, 0.8
MANY_ROWS = 20_000
# Of the seconds. The rest is for mixtures to beat, and for calibrating and scoring the finished
# flow.
TRAINING_SHARE = 0.88
# An update of flow matching is cheap: many small ones. One of likelihood is dear: few, and each
# goes far.
MATCHING = {
    "batch": 1024,
    "learning_rate": 2e-3,
    "ema": 0.999,
    "validations": 6,
    "optimizer": "adam",
}
LIKELIHOOD = {
    "batch": 256,
    "learning_rate": 1e-2,
    "ema": 0.99,
    "validations": 10,
    "optimizer": "muon",
}


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
        steps=steps,
        seconds=seconds,
        likelihood_share=likelihood_share,
        rows=rows,
        batch=512 if few else 256,
    )
    settings = Settings(
        phases,
        coupling_block=64 if few else None,
        times_a_pair=4 if few else 1,
        allocation="neyman" if dim + context_dim <= FEW_COLUMNS else "proportional",
        regularizers=STRAIGHT,
        nfe_budget=None if "regularizers" in chosen else NFE_BUDGET,
        weight_decay=default_weight_decay(rows),
    )
    return replace(settings, **chosen)


def default_weight_decay(rows: int) -> float:
    """Of so many rows: few are soon learnt by heart. Small weights also learn faster by
    likelihood."""
    return min(1_500 / rows, MOST_WEIGHT_DECAY)


def default_phases(
    *,
    steps: int | None,
    seconds: float | None,
    likelihood_share: float | None,
    rows: int,
    batch: int,
) -> tuple[Phase, ...]:
    """Flow matching, then maximum likelihood, within a budget of updates or seconds.

    A likelihood update costs some ten times one of flow matching, and brings the field further:
    its share is most of the time, or a tenth of the updates.

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
    """Updates for a table of so many rows: a few epochs more for small ones, a cap for large
    ones."""
    return int(min(max(2000, rows // 4), 6000))
