"""The default field, whose divergence costs one more matrix product."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cnf.fields.activations import tanh
from cnf.fields.base import BoundField, TimeFeatures, VelocityField, at_rest, with_context
from cnf.fields.binding import Functions, bind_layers
from cnf.fields.closed_form import Activation, Layers, TwoLayers
from cnf.fields.frequencies import whole_frequencies
from cnf.fields.geometry import Geometry
from cnf.fields.modulation import Modulation
from cnf.fields.spheres import OnSpheres
from cnf.functional import recorded
from cnf.inputs import as_widths
from cnf.registry import register


@register
class GatedField(VelocityField):
    """Two hidden layers, gated and shifted by time and context, with the divergence in closed
    form.

    v(t, x) = W₃ tanh(g₂ ⊙ (W₂ σ(g₁ ⊙ (W₁x) + c₁)) + c₂) + b + s ⊙ x, where the gates g, the shifts
    c, the offset b and the skip s depend on time and context. Its divergence costs one more
    product of two matrices, for any `dim`; see `cnf.fields.closed_form`.

    In angles the field has period 2π: their frequencies in W₁ are integers, which are drawn once
    and not trained; units with an angle have no gate g₁, and angles have no skip. On spheres it is
    tangential; see `cnf.fields.spheres`.

    Args:
        dim: number of columns of x.
        hidden: widths of the two hidden layers.
        context_dim: number of columns of the context.
        first: activation σ of the first layer: "sine" makes it a layer of Fourier features with
            trained frequencies, which learns fine structure much faster than "tanh".
        frequency: scale of the initial frequencies in W₁, for x of unit variance.
        modulation: width of the small network that makes gates and shifts from time and context.
        angles: number of columns of x that are angles in radians, after the real ones.
        spheres: number of unit vectors of three columns each, last.

    Raises:
        ValueError: if a width is not positive, or `first` is unknown.

    Example:
        >>> (field,) = GatedField(3, hidden=(16, 16)).bind().at(torch.tensor([0.5]))
        >>> v, divergence = field.velocity_and_divergence(torch.zeros(10, 3))
        >>> v.shape, divergence.shape
        (torch.Size([10, 3]), torch.Size([10]))
    """

    angular: Tensor

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, int] = (64, 64),
        *,
        context_dim: int = 0,
        first: Activation = "sine",
        frequency: float = 3.0,
        modulation: int = 64,
        angles: int = 0,
        spheres: int = 0,
    ) -> None:
        super().__init__(dim, context_dim)
        if len(widths := as_widths(hidden)) != 2:
            raise ValueError(
                f"hidden of a {type(self).__name__}: expected two widths; got {widths}: an MLPField has"
                " any number of layers"
            )
        if modulation < 1:
            raise ValueError(f"modulation: expected a positive width; got {modulation}")
        if first not in ("sine", "tanh"):
            raise ValueError(f"first: expected sine or tanh; got {first!r}")
        if angles and first != "sine":
            raise ValueError(f"first: expected sine for a field with angles; got {first!r}")
        self.hidden = widths
        self.first = first
        self.frequency = frequency
        self.modulation = modulation
        self.angles, self.spheres = angles, spheres
        self._geometry = Geometry(dim - angles - 3 * spheres, angles, spheres)
        units, second = widths
        scale = frequency / math.sqrt(dim)
        self.W1 = nn.Parameter(torch.randn(units, dim - angles).mul_(scale))
        if angles:
            alone = dim == angles
            found = whole_frequencies(units, angles, frequency, alone=alone)
            self.register_buffer("angular", found)
        self.W2 = nn.Parameter(torch.randn(second, units).div_(math.sqrt(units)))
        # A field that starts at rest makes the flow start as its base: training can only improve
        # on that.
        self.W3 = nn.Parameter(torch.zeros(dim, second))
        self.time = TimeFeatures()
        self.inner = nn.Linear(self.time.features + context_dim, modulation)
        self.outer = nn.Linear(modulation, 2 * units + 2 * second + 2 * dim)
        self._start_modulation()

    def _start_modulation(self) -> None:
        """Gates start at one, skips at zero, shifts of the first layer spread over a period."""
        units, second = self.hidden
        with torch.no_grad():
            self.outer.weight.mul_(0.5)
            self.outer.bias.zero_()
            self.outer.bias[: units + second] = 1.0
            self.outer.bias[units + second : 2 * units + second] = torch.randn(units).mul_(math.pi)
            self.outer.weight[-2 * self.dim :].zero_()  # offset and skip

    @torch.no_grad()
    def rest(self) -> None:
        """Let the velocity be zero, as that of a new field is."""
        self.W3.zero_()
        for part in (self.outer.weight, self.outer.bias):
            part[-2 * self.dim :] = 0.0

    @property
    def resting(self) -> bool:
        """Whether the velocity is zero at all points and times."""
        moving = (self.W3, self.outer.weight[-2 * self.dim :], self.outer.bias[-2 * self.dim :])
        return not any(bool(part.any()) for part in moving)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        return self.bind(context).velocity(t, x)

    def bind(self, context: Tensor | None = None) -> BoundField:
        """The field for one context, its weights prepared once."""
        if not recorded() and self.resting:
            return at_rest()
        layers = TwoLayers(self.frequencies, self.W2, self.W3, self.first)
        return self._bind_layers(layers, context)

    @property
    def geometry(self) -> Geometry:
        """The space of x."""
        return self._geometry

    @property
    def frequencies(self) -> Tensor:
        """W₁ (hidden1, dim), those of angles in their places."""
        if not self.angles:
            return self.W1
        reals = self.geometry.reals
        return torch.cat([self.W1[:, :reals], self.angular, self.W1[:, reals:]], 1)

    def _bind_layers(self, layers: TwoLayers, context: Tensor | None) -> BoundField:
        parameters = (*self.inner.parameters(), *self.outer.parameters())
        return bind_layers(layers, self._modulate, context, parameters, self._functions)

    def _functions(self, layers: Layers) -> Functions:
        """The field that the layers make at one time."""
        return OnSpheres(layers, self.geometry) if self.spheres else layers

    def _modulate(self, t: Tensor, context: Tensor | None) -> Modulation:
        """Gates, shifts, offset and skip from the small network of time and context."""
        features = with_context(self.time(t), context)
        first, second = self.hidden
        widths = (first, second, first, second, self.dim, self.dim)
        parts = self.outer(tanh(self.inner(features))).split(widths, -1)
        gate1, gate2, shift1, shift2, offset, skip = parts
        if not self.geometry.flat:
            gate1, skip = self._kept_in_space(gate1, skip)
        return Modulation(shift1, shift2, offset, gate1, gate2, skip)

    def _kept_in_space(self, gate1: Tensor, skip: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gates that are one where a unit has an angle, which they would take its period, and skips
        of real columns only."""
        if self.angles:
            gate1 = gate1.where((self.angular == 0).all(1), 1.0)
        if not self.geometry.reals:
            return gate1, None
        real = torch.arange(self.dim, device=skip.device) < self.geometry.reals
        return gate1, skip.where(real, 0.0)
