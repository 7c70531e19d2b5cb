"""Flows as density estimators of sbi (Tejero-Cantero et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cnf.flows import CNF
from cnf.ode import Grid
from cnf.transforms import Affine

try:
    from sbi.neural_nets.estimators import ConditionalDensityEstimator
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "cnf.integrations.sbi needs sbi; run pip install 'cnf[sbi]'", name="sbi"
    ) from error

# One evaluation a step, few enough for training; its bars say where that is too few.
SOLVER = Grid.uniform(16, "adams")
# Weight of the solver's error in the loss, in nats a nat: without it, a field learns to make errors
# that look like likelihood.
ERROR_WEIGHT = 10.0


def flow_builder(
    embedding_net: nn.Module | None = None, *rows: Tensor, **options: Any
) -> Callable[[Tensor, Tensor], FlowEstimator]:
    """What sbi's NPE takes as `density_estimator`: it builds a flow for the parameters and
    observations that it is given, both standardized.

    Args:
        embedding_net: makes features (*batch, features) of observations; none by default.
        *rows: none; sbi passes them to the function that is returned.
        **options: of the `CNF`, such as `hidden`.

    Raises:
        TypeError: if it is passed to sbi without being called.

    Example:
        NPE(prior, density_estimator=flow_builder(hidden=(64, 64)))
    """
    if rows or not isinstance(embedding_net, nn.Module | None):
        raise TypeError(
            f"flow_builder: expected a torch Module or nothing; got {type(embedding_net).__name__}:"
            " call it, as in NPE(density_estimator=flow_builder(hidden=(64, 64)))"
        )

    def build(theta: Tensor, x: Tensor) -> FlowEstimator:
        embedding = embedding_net or nn.Flatten()
        context = _features(embedding, theta, x)
        settings = {"solver": SOLVER, "preprocess": Affine.standardize(theta), **options}
        flow = CNF(theta.shape[1], context_dim=context.shape[1], **settings)
        if embedding_net is None:  # features of a network change as it learns
            flow.context_map = Affine.standardize_context(context)
        return FlowEstimator(flow, embedding, theta[0].shape, x[0].shape)

    return build


@torch.no_grad()
def _features(embedding: nn.Module, theta: Tensor, x: Tensor) -> Tensor:
    """The features (rows, features) of observations x (rows, ...).

    Raises:
        ValueError: for parameters, observations or features of another shape.
    """
    if theta.dim() != 2 or x.dim() < 2 or len(x) != len(theta):
        raise ValueError(
            "expected parameters (rows, columns) and as many observations (rows, ...); got shapes"
            f" {tuple(theta.shape)} and {tuple(x.shape)}: a single column is theta[:, None]"
        )
    features = embedding(x)
    if features.dim() != 2:
        raise ValueError(
            f"embedding_net: expected features (rows, columns); got shape {tuple(features.shape)}"
        )
    return features


class FlowEstimator(ConditionalDensityEstimator):
    """p(parameters | observation) by a flow, as sbi asks for it.

    Args:
        flow: over the parameters, given the embedded observation.
        embedding: of observations.
        input_shape: of parameters, (dim,).
        condition_shape: of an observation.
    """

    net: CNF

    def __init__(
        self,
        flow: CNF,
        embedding: nn.Module,
        input_shape: torch.Size,
        condition_shape: torch.Size,
    ) -> None:
        super().__init__(flow, input_shape, condition_shape)
        self._embedding = embedding

    @property
    def embedding_net(self) -> nn.Module:
        """The network that observations go through."""
        return self._embedding

    def loss(self, input: Tensor, condition: Tensor, **_: Any) -> Tensor:
        """−log p (rows,) from one solve, with the estimate of the solver's error."""
        y, context, ladj = self.net.to_model_coordinates(input, self._embedding(condition))
        scores = self.net.solve_log_prob(y, context)
        return ERROR_WEIGHT * scores.step_error.sum(0) - scores.log_prob - ladj.to(y.dtype)

    def log_prob(self, input: Tensor, condition: Tensor, **_: Any) -> Tensor:
        """log p (samples, rows) of parameters (samples, rows, dim)."""
        input, condition, rows = self._broadcast_and_align(input, condition)
        context = self._embedding(condition.reshape(-1, *self.condition_shape))
        return self.net.log_prob(input, context.reshape(len(input), rows, -1))

    def sample(self, sample_shape: torch.Size, condition: Tensor, **_: Any) -> Tensor:
        """Draws (*samples, rows, dim)."""
        return self.net.sample(sample_shape, self._embedding(condition))

    def sample_and_log_prob(
        self, sample_shape: torch.Size, condition: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """Draws (*samples, rows, dim) and their log-densities (*samples, rows), from one solve."""
        return self.net.sample_and_log_prob(sample_shape, self._embedding(condition))
