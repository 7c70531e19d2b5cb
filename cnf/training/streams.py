"""Rows that do not fit into memory, and batches of them from a pool that is refilled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.rows import Rows
from cnf.training.batches import Batches, Sampler, in_model_coordinates
from cnf.training.processes import Processes
from cnf.training.stratified import STRATA_CELLS, stratified_uniform


@dataclass(frozen=True)
class RowStream:
    """Rows in parts, of which some are in memory at a time.

    Attributes:
        load: function that returns the chunks of part k, the same ones at every call.
        parts: number of parts.
        rows: number of rows in all parts.
        held: number of parts in memory.

    Example:
        >>> from cnf.rows import Rows
        >>> def load(k):
        ...     yield Rows(torch.randn(100, 2, generator=torch.Generator().manual_seed(k)))
        >>> stream = RowStream(load, parts=50, rows=5000, held=4)
    """

    load: Callable[[int], Iterable[Any]]
    parts: int
    rows: int
    held: int

    def mapped(self, function: Callable[[Any], Any]) -> RowStream:
        """The stream with a function applied to each chunk."""
        return replace(self, load=lambda k: map(function, self.load(k)))

    def mapped_at_random(
        self,
        function: Callable[[Any, torch.Generator], Any],
        seed: int,
        device: torch.device,
    ) -> RowStream:
        """The stream with a random function applied to each chunk, which has its own random
        numbers."""

        def load(k: int) -> Iterator[Any]:
            for i, chunk in enumerate(self.load(k)):
                (state,) = np.random.SeedSequence((seed, k, i)).generate_state(1)
                yield function(chunk, torch.Generator(device).manual_seed(int(state)))

        return replace(self, load=load)


class PooledBatches(Sampler):
    """Batches from a pool of parts of a stream.

    The parts are in random order, which differs between passes. After as many draws as a part has
    rows on average, the next part replaces the oldest part of the pool. Every row is therefore
    drawn about once in a pass. Several processes read different parts. The seed and the number of
    rows drawn determine the content of the pool.

    Args:
        stream: stream of the rows.
        prepare: maps a chunk to the tensors of a batch: rows in model coordinates, their context
            or None, and any further tensors.
        seed: seed of the order.
        processes: the processes that share the parts.

    Example:
        >>> stream = RowStream(lambda k: [torch.full((10, 1), float(k))], 8, 80, 2)
        >>> pool = PooledBatches(stream, lambda x: (x, None), 0, Processes())
        >>> drawn = [pool.draw(10, torch.Generator())[0].unique().tolist() for _ in range(3)]
        >>> [len(set(a) & set(b)) for a, b in zip(drawn, drawn[1:])]
        [1, 1]
    """

    def __init__(
        self,
        stream: RowStream,
        prepare: Callable[[Any], tuple[Tensor | None, ...]],
        seed: int,
        processes: Processes,
    ) -> None:
        self.stream, self.prepare = stream, prepare
        self.seed, self.processes = seed, processes
        self.drawn = 0
        self.pool: dict[int, Batches] = {}

    def __len__(self) -> int:
        return self.stream.rows

    def draw(self, size: int, generator: torch.Generator) -> tuple[Any, ...]:
        """`size` rows, their context and further tensors, drawn evenly from the pool."""
        self._refill()
        self.drawn += size // self.processes.count
        parts = list(self.pool.values())
        ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        levels = stratified_uniform(size, generator, parts[0].y.device) * ends[-1]
        which = torch.searchsorted(ends.to(levels), levels, right=True).clamp(max=len(parts) - 1)
        order = which.argsort(stable=True)
        found = [
            part.at((levels[places] - (end - len(part))) / len(part))
            for part, end, places in zip(parts, ends, order.split(_counts(which, len(parts))))
        ]
        return tuple(_joined(each, order) for each in zip(*found))

    def identity(self) -> list[Any]:
        """A list for JSON that identifies how parts are divided."""
        return [self.stream.parts, self.stream.held, self.processes.count]

    def state_dict(self) -> dict[str, Any]:
        """The rows drawn so far."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to the pool of a state."""
        self.drawn = state["drawn"]

    def _refill(self) -> None:
        """Load the parts that the number of rows drawn requires."""
        first = self.drawn * self.stream.parts // self.stream.rows
        turns = range(first, first + self.stream.held)
        for turn in [turn for turn in self.pool if turn not in turns]:
            del self.pool[turn]
        for turn in turns:
            if turn not in self.pool:
                self.pool[turn] = self._loaded(self._part(turn))

    def _loaded(self, part: int) -> Batches:
        chunks = list(zip(*map(self.prepare, self.stream.load(part))))
        y, context, *beside = map(_together, chunks)
        return Batches(y, context, None, *beside, cells=STRATA_CELLS // self.stream.held)

    def _part(self, turn: int) -> int:
        """The part that this process reads at a turn."""
        epoch, place = divmod(turn * self.processes.count + self.processes.rank, self.stream.parts)
        return int(np.random.default_rng((self.seed, epoch)).permutation(self.stream.parts)[place])


def _counts(which: Tensor, parts: int) -> list[int]:
    return which.bincount(minlength=parts).tolist()


def _together(parts: Sequence[Any]) -> Any:
    """The rows of all parts; None if the parts are None."""
    return None if parts[0] is None else torch.cat(tuple(parts))


def _joined(parts: Sequence[Any], order: Tensor) -> Any:
    """The rows of all parts, in the order in which they were drawn."""
    rows = _together(parts)
    return None if rows is None else torch.empty_like(rows).index_copy_(0, order, rows)


def sampler(
    flow: CNF, train: Rows, stream: RowStream | None, seed: int, processes: Processes
) -> Sampler:
    """Batches of rows in the user's units, or of a stream if there is one."""
    if stream is None:
        rows = in_model_coordinates(flow, train)
        return Batches(rows.x, rows.context, rows.weights)

    def prepare(chunk: Rows) -> tuple[Tensor, Tensor | None]:
        rows = in_model_coordinates(flow, chunk)
        return rows.x, rows.context

    return PooledBatches(stream, prepare, seed, processes)
