"""Recognition of the training rows of a model."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cnf.rows import FEWEST_ROWS
from cnf.tables.model import TableFlow
from cnf.tables.schema import Cells

# Numbers of hashes in a file: those of training rows estimate the fraction of a table that was used for
# training, and those of held-out rows find these rows again.
TRAIN_HASHES, VALID_HASHES = 256, 2048
# A table with at least this fraction of training rows is treated as the table of the fit.
SEEN = 0.05
Hashes = NDArray[np.uint32]


def row_hashes(cells: Cells) -> Hashes:
    """A number for each row, the same in every process and order.

    >>> first = row_hashes(Cells(torch.tensor([[1.5], [2.0]]), torch.zeros(2, 1)))
    >>> first.tolist() == row_hashes(Cells(torch.tensor([[1.5], [2.0]]), torch.zeros(2, 1))).tolist()
    True
    """
    parts = torch.cat([cells.values.double(), cells.states.double()], 1).numpy(force=True)
    hashes = pd.util.hash_pandas_object(pd.DataFrame(parts), index=False).to_numpy()
    return (hashes >> np.uint64(32)).astype(np.uint32)


class SmallestHashes:
    """The smallest hashes of training rows that arrive in parts."""

    def __init__(self) -> None:
        self.hashes = np.zeros(0, np.uint32)

    def add(self, cells: Cells) -> None:
        """Take rows in."""
        both = np.concatenate([self.hashes, row_hashes(cells)])
        self.hashes = np.unique(both)[:TRAIN_HASHES]

    @property
    def text(self) -> str:
        """The hashes in the form of a digest."""
        return _text(self.hashes)


def digest_of(train: Cells, valid: Cells) -> dict[str, str]:
    """The smallest hashes of training rows and of held-out rows, as stored in metadata."""
    parts = (("train", train, TRAIN_HASHES), ("valid", valid, VALID_HASHES))
    return {name: _text(np.unique(row_hashes(cells))[:most]) for name, cells, most in parts}


@dataclass(frozen=True)
class Judges:
    """Rows of a table for the evaluation of a model.

    Attributes:
        places: indices of these rows in the table.
        words: a statement about them; empty if they are new to the model.
        apart: whether the fit held them out.
    """

    places: NDArray[np.int64]
    words: str = ""
    apart: bool = False


def judges_of(model: TableFlow, table: pd.DataFrame) -> Judges:
    """The rows of a table that a model was not trained on, according to its digest.

    For the table of the fit, these are its validation rows. If too few of them are in the table, or if
    the model was finally refitted to them, all rows are used, and the words state that the model was
    trained on them.

    Raises:
        TableError: for a table that does not match the model.
    """
    everything = np.arange(len(table))
    digest: dict[str, Any] | None = model.metadata.digest
    if digest is None or not len(table):
        return Judges(everything)
    hashes, train = row_hashes(model.encode(table)[0]), _hashes(digest["train"])
    # Below the largest stored hash, the hashes of training rows are complete.
    known = hashes if len(train) < TRAIN_HASHES else hashes[hashes <= train[-1]]
    seen = float(np.isin(known, train).mean()) if len(known) else 0.0
    if seen < SEEN:
        return Judges(everything)
    apart = np.isin(hashes, _hashes(digest["valid"])).nonzero()[0]
    if model.metadata.refit:
        seen += len(apart) / len(table)
    elif len(apart) >= FEWEST_ROWS:
        return Judges(apart, f"{len(apart):,} held-out rows of the fit", apart=True)
    return Judges(everything, f"the model was trained on about {seen:.0%} of these rows")


def _text(hashes: Hashes) -> str:
    return base64.b64encode(hashes.astype("<u4").tobytes()).decode()


def _hashes(text: str) -> Hashes:
    return np.frombuffer(base64.b64decode(text), "<u4")
