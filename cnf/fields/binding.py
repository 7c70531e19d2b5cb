"""The field that two layers make once their modulation is known at every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from cnf.fields.base import BoundField, FieldAt
from cnf.fields.closed_form import Layers, TwoLayers
from cnf.fields.modulation import Modulation
from cnf.rows import in_blocks


def bind_layers(
    layers: TwoLayers,
    modulate: Callable[[Tensor, Tensor | None], Modulation],
    context: Tensor | None,
    parameters: Sequence[Tensor],
    functions: Callable[[Layers], Functions] = lambda layers: layers,
) -> BoundField:
    """The field of these layers for one context.

    Args:
        layers: with weights prepared.
        modulate: gives the modulation of times (…) and a context (*batch, context_dim).
        context: None where the field has none.
        parameters: what `modulate` reads.
        functions: what the field makes of the layers at one time; without it, they are the field.
    """

    def by_row(modulation: Callable[[], Modulation]) -> FieldAt:
        # Only made when it is used: a modulation for each row is as large as the layers
        # themselves.
        return FieldAt(
            lambda x: functions(layers.by_row(modulation())).velocity(x),
            lambda x: functions(layers.by_row(modulation())).velocity_and_divergence(x),
        )

    def at_times_of_rows(times: Tensor) -> list[FieldAt]:
        distinct, group = columns_in_groups(times)
        whole = modulate(distinct, None)
        return [by_row(partial(whole.of_rows, k, group)) for k in range(len(times))]

    def at(times: Tensor) -> list[FieldAt]:
        if context is None and times.dim() == 2:
            return at_times_of_rows(times)
        if context is not None or times.dim() > 1:
            return [by_row(partial(modulate, t, context)) for t in times.unbind()]
        shared = [functions(layer) for layer in layers.shared(modulate(times, None))]
        return [FieldAt(layer.velocity, layer.velocity_and_divergence) for layer in shared]

    given = () if context is None else (context,)
    return BoundField(at=at, closed_form=True, tensors=(*layers.tensors, *parameters, *given))


class Functions(Protocol):
    """A field at one time, as functions of x (*batch, dim)."""

    def velocity(self, x: Tensor) -> Tensor:
        """v (*batch, dim)."""

    def velocity_and_divergence(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v (*batch, dim) and its divergence (*batch,)."""


def columns_in_groups(times: Tensor) -> tuple[Tensor, Tensor]:
    """The different columns of times (n, rows), filled up to whole blocks, and which of them each
    row has (rows,), or all have (1,). Where times are differentiated, each row keeps its own.

    Example:
        >>> with torch.no_grad():
        ...     distinct, group = columns_in_groups(torch.tensor([[0.5, 1.0, 0.5], [0.0, 0.2, 0.0]]))
        >>> distinct[:, :2], group
        (tensor([[0.5000, 1.0000],
                [0.0000, 0.2000]]), tensor([0, 1, 0]))
    """
    if times.requires_grad:
        return times, torch.arange(times.shape[1], device=times.device)
    distinct, group = torch.unique(times, dim=1, return_inverse=True)
    alone = distinct.shape[1] == 1
    places = in_blocks(torch.arange(distinct.shape[1], device=times.device))
    return distinct[:, places], group[:1] if alone else group
