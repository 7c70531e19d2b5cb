"""The history of a fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Record:
    """The state of training at one step.

    Attributes:
        phase: name of the objective, such as "flow matching" or "likelihood".
        step: training steps so far.
        seconds: time spent training so far.
        objective: value of the objective, averaged since the last record.
        learning_rate: learning rate of the next training step.
        valid_nll: held-out NLL in nats per row, units of the data, by a verified solve; None if it
            was not computed.
        valid_se: its standard error.
        nfe: velocity evaluations per row for scoring.
    """

    phase: str
    step: int
    seconds: float
    objective: float
    learning_rate: float
    valid_nll: float | None = None
    valid_se: float | None = None
    nfe: int | None = None


@dataclass
class History:
    """Records of a fit, the choices of the recipe, and the final results.

    Attributes:
        records: records in order of time.
        choices: the choices of the recipe, by name.
        valid_nll: held-out NLL of the finished flow, nats per row in the units of the data; None
            until then.
        valid_se: its standard error.
        train_nll: NLL of as many training rows as validation rows; if it is far below `valid_nll`,
            the flow overfits.
        train_se: its standard error.
        rollbacks: time and reason of each return to an earlier state.
        refit: whether a mixture replaced the flow and was refitted to the held-out rows after they
            had scored it; they cannot score it any more.
    """

    records: list[Record] = field(default_factory=list)
    choices: dict[str, Any] = field(default_factory=dict)
    valid_nll: float | None = None
    valid_se: float | None = None
    train_nll: float | None = None
    train_se: float | None = None
    rollbacks: list[str] = field(default_factory=list)
    refit: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The history as data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> History:
        """The history from the result of `as_dict`."""
        return cls(**{**data, "records": [Record(**record) for record in data["records"]]})
