"""A stateless scorer, which engines can send to the data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from cnf.flows import Evaluation
from cnf.scale.batches import as_frame, with_columns
from cnf.tables import Schema, TableError, TableFlow, load_table_flow
from cnf.tables.columns import UNSEEN
from cnf.tables.scoring import Unseen, reasons

# Models that a process keeps.
KEPT_MODELS = 4


@dataclass(frozen=True)
class ScoreOptions:
    """Options for the scoring of rows.

    Attributes:
        unseen: how to treat a category that was not in training, "other" or "impossible".
        reason: whether to add a column that says why a row has no ordinary score.
    """

    unseen: Unseen = "other"
    reason: bool = False


@dataclass(frozen=True)
class Scorer:
    """Scores batches of rows with the model in a file.

    A scorer holds only the name of the file. It is cheap to pickle, and each process that calls it
    loads the model once. The score of a row does not depend on its batch. If the solver is a grid
    and the layers are in float32 with multiples of 16 units, as after a fit, scores on the same
    kind of processor with the same number of threads are bit-identical, however a table is split.

    A batch is a dict of arrays, or a table of pandas, polars or pyarrow. The result has the same
    type, with its other columns unchanged.

    Args:
        path: path of a model that `cnf fit` or `save` wrote.
        device: device of the computation.
        options: options for the scoring of rows.

    Raises:
        ModelFileError: on the first call, if the file is missing or damaged.

    Example:
        >>> import tempfile, cnf
        >>> folder = tempfile.TemporaryDirectory()
        >>> cnf.CNF(1).save(f"{folder.name}/line.safetensors")
        >>> score = Scorer(f"{folder.name}/line.safetensors")
        >>> found = score({"x0": [0.0, 1.0]})
        >>> list(found), found["log_prob"].round(4)
        (['x0', 'log_prob', 'error'], array([-0.9189, -1.4189]))
        >>> folder.cleanup()
    """

    path: str | Path
    device: str = "cpu"
    options: ScoreOptions = field(default_factory=ScoreOptions)

    @property
    def model(self) -> TableFlow:
        """The model, which each process loads once."""
        path = Path(self.path).resolve()
        changed = path.stat().st_mtime_ns if path.exists() else 0
        return _loaded(path, changed, self.device)

    def __call__(self, batch: Any) -> Any:
        """The batch with `log_prob`, in nats and the units of the table, and `error`, the bound of
        its numerical error; NaN for a row without an answer.

        Raises:
            TableError: for a column that is missing, or named like those that are added, or a cell
                that its column cannot hold.
        """
        frame = as_frame(batch)
        found = score_rows(self.model, frame, self.options).table
        if taken := [name for name in found if name in frame.columns]:
            raise TableError(f"batch: it has a column {taken[0]!r} already; rename it")
        return with_columns(batch, found)

    def sample(self, batch: Any, seed: int = 0) -> Any:
        """The batch with the modeled columns drawn, one row for each of its rows.

        Only the context columns of the batch are read. The draws depend on `seed` and on the
        content of the batch: they are the same for the same batch, and differ between batches.

        Raises:
            TableError: for a context column that is missing, or a cell that it cannot hold.
        """
        frame = as_frame(batch)
        model, generator = self.model, self._generator(frame, seed)
        given = frame.reset_index(drop=True) if model.schema.context else None
        return with_columns(batch, model.sample(len(frame), given, generator=generator))

    def impute(self, batch: Any, seed: int = 0) -> Any:
        """The batch with its missing cells drawn given the observed cells of their row.

        The draws depend on `seed` and on the content of the batch, as in `sample`.

        Raises:
            ValueError: for a model that was fitted without an imputer.
            TableError: for a column that is missing, or an invalid cell.
        """
        frame = as_frame(batch)
        generator = self._generator(frame, seed)
        (complete,) = self.model.impute(frame, generator=generator)
        return with_columns(batch, complete.reset_index(drop=True))

    def _generator(self, frame: pd.DataFrame, seed: int) -> torch.Generator:
        """Batches of one table have different noise, without a word from one to the other."""
        rows = pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()
        digest = hashlib.sha256(rows + str(seed).encode()).digest()
        return torch.Generator(self.model.device).manual_seed(int.from_bytes(digest[:7], "big"))


class Scored(NamedTuple):
    """Scores of some rows.

    Attributes:
        table: columns `log_prob` and `error`, and `reason` if requested.
        unseen: number of rows with a score and a category that was not in training.
        left_out: why the first row without a log-density has none; empty if there is no such row.
    """

    table: pd.DataFrame
    unseen: int
    left_out: str


def score_rows(model: TableFlow, frame: pd.DataFrame, options: ScoreOptions) -> Scored:
    """Scores of the rows of a data frame."""
    cells, context = model.encode(frame)
    found = model.evaluate_cells(cells, context, unseen=options.unseen)
    log_prob = found.log_prob.masked_fill(~found.ok, torch.nan)
    table = pd.DataFrame({"log_prob": log_prob.cpu().numpy(), "error": found.error.cpu().numpy()})
    if options.reason:
        table["reason"] = reasons(model.schema, frame, found)
    new = (cells.states == UNSEEN).any(1) & log_prob.isfinite()
    return Scored(table, int(new.sum()), _first_reason(model.schema, frame, found))


def _first_reason(schema: Schema, frame: pd.DataFrame, found: Evaluation) -> str:
    """Why the first row without a log-density has none; empty if there is no such row."""
    left_out = (~found.ok).nonzero().squeeze(1)[:1]
    if not len(left_out):
        return ""
    one = Evaluation(*(part[left_out] for part in vars(found).values()))
    return reasons(schema, frame.iloc[left_out.cpu().numpy()], one)[0]


@lru_cache(KEPT_MODELS)
def _loaded(path: Path, changed: int, device: str) -> TableFlow:
    """The model in a file that was last changed at a certain time."""
    return load_table_flow(path, device=device)
