"""The field that two layers make once their modulation is known at every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from cnf.fields.base import BoundField, FieldAt
from cnf.fields.closed_form import Layers, Modulation, TwoLayers


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

    def by_row(t: Tensor) -> FieldAt:
        # Only made when it is used: a modulation for each row is as large as the layers
        # themselves.
        return FieldAt(
            lambda x: functions(layers.by_row(modulate(t, context))).velocity(x),
            lambda x: functions(layers.by_row(modulate(t, context))).velocity_and_divergence(x),
        )

    def at(times: Tensor) -> list[FieldAt]:
        if context is not None or times.dim() > 1:
            return [by_row(t) for t in times.unbind()]
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
