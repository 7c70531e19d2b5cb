"""The field of rows with absent columns, whose velocity is zero and whose values are not used."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from cnf.fields.base import BoundField, at_rest
from cnf.fields.closed_form import Activation, LayersByRow, TwoLayers
from cnf.fields.gated import GatedField
from cnf.fields.modulation import Modulation
from cnf.functional import recorded
from cnf.registry import register
from cnf.rows import ROW_BLOCK, distinct_rows, in_blocks

# Rows of a pattern that are multiplied by its matrix together, where most have fewer: the fewest that
# a processor multiplies, and rounds, as it does many.
SLOT = 16


@register
class MaskedField(GatedField):
    """A `GatedField` of the present columns of each row, v = m ⊙ v(t, m ⊙ x, context).

    The mask m (0 or 1 for each column) is the first `dim` columns of the context, and an input of
    the network. The divergence over the present columns has the closed form of
    `cnf.fields.closed_form` with one matrix for each pattern m, Mₘ = W₂ᵀ ∘ (W₁ diag(m) W₃); rows
    are grouped by pattern.

    Args:
        dim: number of columns of x.
        hidden: widths of the two hidden layers.
        context_dim: number of columns of the context, those of the mask included.
        first: activation of the first layer, as in `GatedField`.
        frequency: scale of the initial frequencies in W₁.
        modulation: width of the small network that makes gates and shifts.
        angles: number of columns that are angles, as in `GatedField`.
        spheres: number of unit vectors, likewise; a row has all three columns of one or none.

    Raises:
        ValueError: if the context has fewer columns than the mask.

    Example:
        >>> field = MaskedField(2, hidden=(8, 8), context_dim=2)
        >>> _ = torch.nn.init.normal_(field.W3)
        >>> mask = torch.tensor([[1.0, 0.0]])
        >>> field(torch.tensor(0.5), torch.tensor([[3.0, torch.inf]]), mask)[0, 1]
        tensor(0., grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, int] = (64, 64),
        *,
        context_dim: int,
        first: Activation = "sine",
        frequency: float = 3.0,
        modulation: int = 64,
        angles: int = 0,
        spheres: int = 0,
    ) -> None:
        if context_dim < dim:
            raise ValueError(
                f"context_dim of a MaskedField: expected at least {dim}, for the mask; got {context_dim}"
            )
        super().__init__(
            dim,
            hidden,
            context_dim=context_dim,
            first=first,
            frequency=frequency,
            modulation=modulation,
            angles=angles,
            spheres=spheres,
        )

    def mask(self, context: Tensor | None) -> Tensor | None:
        """Which columns each row has (*batch, dim)."""
        return None if context is None else context[..., : self.dim].bool()

    def bind(self, context: Tensor | None = None) -> BoundField:
        """The field for one context (*batch, context_dim), with rows grouped by pattern."""
        if context is None:
            raise ValueError("context of a MaskedField: expected the mask of the rows; got none")
        if not recorded() and self.resting:
            return at_rest()
        if len(context) > 1 and bool((context == context[:1]).all()):
            context = context[:1]  # one modulation for all rows
        layers = MaskedLayers(
            self.frequencies, self.W2, self.W3, self.first, context[..., : self.dim] != 0
        )
        if not recorded() and context.dim() == 2:
            context, layers.run = runs(context)
        return self._bind_layers(layers, context)

    def _modulate(self, t: Tensor, context: Tensor | None) -> Modulation:
        """Gates and shifts; one for all rows is computed among others, so that it is rounded as
        those are."""
        if context is None or len(context) > 1 or torch.is_grad_enabled():
            return super()._modulate(t, context)
        whole = super()._modulate(t, context.expand(ROW_BLOCK, -1))
        shifts = (part[:1] for part in (whole.shift1, whole.shift2, whole.offset))
        gates = (whole.gate1, whole.gate2, whole.skip)
        return Modulation(*shifts, *(part if part is None else part[:1] for part in gates))


class MaskedLayers(TwoLayers):
    """`TwoLayers` with the matrices of the patterns in `present` (*batch, dim).

    Attributes:
        run: the index of each row's modulation (*batch,); None if each row has its own.
    """

    run: Tensor | None = None

    def __init__(
        self, W1: Tensor, W2: Tensor, W3: Tensor, first: Activation, present: Tensor
    ) -> None:
        # The trace's matrices, which the constructor above makes, want the patterns.
        self.present = present
        rows = present.reshape(-1, present.shape[-1])
        self.patterns, group = distinct_rows(rows)
        order = group.argsort(stable=True)
        self.slots = None
        if not torch.is_grad_enabled() and SLOT * len(self.patterns) > len(rows) > 1:
            self.patterns, group, self.slots = in_slots(self.patterns, group, order)
        # None where rows of one pattern stand side by side already, as those of tables do.
        self.order = order if (group.diff() < 0).any() else None
        self.counts = torch.bincount(group, minlength=len(self.patterns)).tolist()
        super().__init__(W1, W2, W3, first)

    def _trace_matrix(self, W1: Tensor, W2: Tensor, W3: Tensor) -> Tensor:
        masked = W1 * self.patterns[:, None, :].to(W1.dtype)
        if torch.is_grad_enabled() or not len(masked):
            return super()._trace_matrix(masked, W2, W3)
        # One by one: several together are rounded in another way than one.
        return torch.stack([TwoLayers._trace_matrix(self, part, W2, W3) for part in masked])

    def by_row(self, modulation: Modulation) -> LayersByRow:
        """The layers under a modulation (*batch, width) of each row, or of each run of rows."""
        folded = self._folded(modulation)
        if self.run is not None:
            folded = folded.take(self.run)
        if folded.skip is not None:
            folded = replace(folded, skip=folded.skip.where(self.present, 0.0))
        return MaskedByRow(self, folded)


@dataclass
class MaskedByRow(LayersByRow):
    """Layers of rows with absent columns."""

    layers: MaskedLayers

    def _first(self, x: Tensor) -> Tensor:
        return super()._first(x.where(self.layers.present, 0.0))

    def _first_along(self, u: Tensor) -> Tensor:
        return super()._first_along(u.where(self.layers.present, 0.0))

    def _out(self, a2: Tensor, x: Tensor) -> Tensor:
        present = self.layers.present
        return super()._out(a2, x.where(present, 0.0)).where(present, 0.0)

    def _times_M(self, rows: Tensor) -> Tensor:
        """The product of each row (*batch, hidden1) and the matrix of its pattern."""
        layers = self.layers
        if len(layers.M) == 1:
            return rows @ layers.M[0]
        if not rows.numel():  # no row, no pattern
            return rows.new_empty((*rows.shape[:-1], layers.M.shape[-1]))
        flat = rows.reshape(-1, rows.shape[-1])
        if layers.slots is not None:
            padded = flat.new_zeros(len(layers.M) * SLOT, flat.shape[1])
            padded[layers.slots] = flat
            products = torch.bmm(padded.view(len(layers.M), SLOT, -1), layers.M).flatten(0, 1)
            return products[layers.slots].reshape(*rows.shape[:-1], -1)
        flat = flat if layers.order is None else flat[layers.order]
        products = torch.cat(
            [_product(part, M) for part, M in zip(flat.split(layers.counts), layers.M)]
        )
        if layers.order is not None:
            products = torch.empty_like(products).index_copy(0, layers.order, products)
        return products.reshape(*rows.shape[:-1], -1)


def in_slots(patterns: Tensor, group: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patterns of at most `SLOT` rows each, for one product of all.

    Args:
        patterns: different ones (patterns, columns).
        group: that of each row (rows,).
        order: of the rows, by pattern (rows,).

    Returns:
        The patterns, those of more rows repeated; that of each row; and the place of each row where
        every pattern has room for `SLOT` rows.

    >>> group = torch.tensor([1, 0, 1])
    >>> in_slots(torch.tensor([[False], [True]]), group, group.argsort(stable=True))[2]
    tensor([16,  0, 17])
    """
    counts = torch.bincount(group, minlength=len(patterns))
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(group)
    rank[order] = torch.arange(len(group), device=group.device) - first[group[order]]
    parts = (counts + SLOT - 1) // SLOT
    group = (parts.cumsum(0) - parts)[group] + rank // SLOT
    return patterns.repeat_interleave(parts, 0), group, group * SLOT + rank % SLOT


def runs(context: Tensor) -> tuple[Tensor, Tensor | None]:
    """The context (runs, width) of each run of equal rows (rows, width), filled up to whole blocks,
    and which run each row is in (rows,); the context itself and None where runs are too short to
    save work.

    >>> context, run = runs(torch.tensor([[1.0], [1.0], [2.0]]).repeat_interleave(100, 0))
    >>> context.unique(dim=0).flatten(), run.bincount()
    (tensor([1., 2.]), tensor([200, 100]))
    """
    new = (context[1:] != context[:-1]).any(1)
    run = functional.pad(new.cumsum(0), (1, 0))[: len(context)]
    first = in_blocks(functional.pad(new, (1, 0), value=True)[: len(context)].nonzero().squeeze(1))
    return (context, None) if 2 * len(first) > len(context) else (context[first], run)


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows @ matrix, each row of it the same whichever others there are."""
    if torch.is_grad_enabled() or len(rows) >= ROW_BLOCK:
        return rows @ matrix
    return (functional.pad(rows, (0, 0, 0, ROW_BLOCK - len(rows))) @ matrix)[: len(rows)]
