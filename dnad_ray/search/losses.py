"""The loss of search by deleting: task and imitation, multiplied by the sparsity of the architecture weights."""

from __future__ import annotations

import math

from torch import Tensor

from search_spaces.space import SearchSpace

__all__ = ["SPARSITY_SLOPE", "dense_sparsity", "shrinking_loss", "sparsity"]

SPARSITY_SLOPE = 50.0


def sparsity(weights: Tensor) -> Tensor:
    """Return the sparsity sum ``S = sum of log(1 + 50 w)`` over all alive candidates (paper, section 3.3).

    It is concave in ``w``: at a given sum per node it is largest when all candidates weigh the same, and lowering
    it pushes small weights to zero.

    Args:
        weights: Architecture weights (num_alive,).

    Returns:
        A scalar, at least 0.
    """
    return (SPARSITY_SLOPE * weights).log1p().sum()


def dense_sparsity(space: SearchSpace) -> float:
    """Return the sparsity sum S of a dense supernet whose candidates all weigh the same."""
    counts = [len(edges) for cell in space.dense().cells for edges in cell.nodes]
    return sum(count * math.log1p(SPARSITY_SLOPE / count) for count in counts)


def shrinking_loss(loss: Tensor, weights: Tensor, gamma: float | Tensor, mu: float | Tensor) -> Tensor:
    """Return ``L * (1 + gamma * S) + gamma * mu * S`` (paper, section 3.3).

    The product keeps both gradients in proportion while the loss falls; the offset ``mu`` keeps pressure on the
    architecture when the loss is nearly zero.

    Args:
        loss: Task loss plus weighted imitation loss, a scalar.
        weights: Architecture weights (num_alive,).
        gamma: Sparsity weight.
        mu: Offset factor.
    """
    total = sparsity(weights)
    return loss * (1 + gamma * total) + gamma * mu * total
