"""Scores of many files: one file of scores for each of them, by workers that may be killed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cnf.files import atomic_path
from cnf.scale.engines import ENGINES
from cnf.scale.scorer import ScoreOptions, Scorer
from cnf.scale.summary import ScoreSummary, write_scores
from cnf.tables import read_chunks, read_typed_chunks
from cnf.tables.files import files_of
from cnf.tables.reading import READERS

# In the folder of scores: which model they are of.
MARK = ".cnf-scores"


class Partition(NamedTuple):
    """A file of rows, and the file of their scores."""

    source: Path
    target: Path

    @property
    def done(self) -> bool:
        """Whether the scores are there; they are written whole or not at all."""
        if not self.target.exists():
            return False
        return self.target.stat().st_mtime_ns >= self.source.stat().st_mtime_ns


@dataclass(frozen=True)
class ScoredFolder:
    """The scores of the files of a folder or a pattern, each in a file of the same name.

    Args:
        model: the model's file.
        data: a folder, or a pattern with `*`, `?` or `[…]`; `**` matches nested folders.
        output: the folder of the scores.
        device: where to compute.
        options: how rows are scored.

    Example:
        >>> import tempfile, cnf, pandas as pd
        >>> folder = tempfile.TemporaryDirectory()
        >>> root = Path(folder.name)
        >>> cnf.CNF(1).save(root / "line.safetensors")
        >>> for k in range(2):
        ...     pd.DataFrame({"x0": [0.0, 1.0]}).to_csv(root / f"part{k}.csv", index=False)
        >>> scored = ScoredFolder(root / "line.safetensors", f"{root}/*.csv", root / "scores")
        >>> [partition.target.name for partition in scored.partitions()]
        ['part0.csv', 'part1.csv']
        >>> folder.cleanup()
    """

    model: Path
    data: str
    output: Path
    device: str = "cpu"
    options: ScoreOptions = field(default_factory=ScoreOptions)

    def partitions(self) -> list[Partition]:
        """The files, in order.

        Raises:
            TableError: if there is none.
        """
        root, files = files_of(self.data, READERS)
        inside = self.output.resolve()
        sources = [path for path in files if inside not in path.resolve().parents]
        return [Partition(path, self.output / path.relative_to(root)) for path in sources]

    def run(self, engine: str = "local", workers: int = 1) -> Iterator[ScoreSummary]:
        """Score the files without scores; yield a summary of each file when it is done.

        Raises:
            ValueError: for an unknown engine, scores of another model, or workers that are killed
                repeatedly.
            TableError: for a file that cannot be scored.
        """
        if engine not in ENGINES:
            raise ValueError(f"engine: expected one of {', '.join(ENGINES)}; got {engine!r}")
        partitions = self.partitions()
        self._claim()
        for partition in partitions:
            partition.target.parent.mkdir(parents=True, exist_ok=True)
        scorer = Scorer(self.model.resolve(), self.device, self.options)
        function = partial(_scored, scorer)
        return ENGINES[engine](function, [_absolute(part) for part in partitions], workers)

    def _claim(self) -> None:
        """Make the folder one of this model's scores."""
        digest, mark = hashlib.sha256(self.model.read_bytes()).hexdigest(), self.output / MARK
        if mark.exists() and mark.read_text() != digest:
            raise ValueError(
                f"{self.output}: has scores of another model; name another folder, or remove it"
            )
        self.output.mkdir(parents=True, exist_ok=True)
        with atomic_path(mark) as path:
            path.write_text(digest)


def _absolute(partition: Partition) -> Partition:
    return Partition(partition.source.resolve(), partition.target.resolve())


def _scored(scorer: Scorer, partition: Partition) -> ScoreSummary:
    """The summary of one file's scores, which are computed unless they are there."""
    source, target = partition
    if not partition.done:
        chunks = read_typed_chunks(source, scorer.model.schema, judged=True)
        return write_scores(scorer.model, chunks, target, str(source), scorer.options)
    summary = ScoreSummary()
    for chunk in read_chunks(target, nonfinite="keep"):
        summary.add(chunk.iloc[:, 0])
    return summary
