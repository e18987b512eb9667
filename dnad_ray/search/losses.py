"""The loss of search by deleting: task loss, imitation loss, and the sparsity of the architecture weights.

The pressure has two forms (``shrink.pressure``). The paper's form multiplies the task loss by ``1 + gamma S``. The
gradient of the task on the architecture parameters, which is mostly noise, then grows by the same factor, and the
candidates with the noisiest gradients fall below the baseline first. The added form does not change the gradient of
the task.
"""

from __future__ import annotations

import math
from collections import Counter

from torch import Tensor

from search_spaces.space import SearchSpace

__all__ = ["RELEASE_SPARSITY", "SPARSITY_SLOPE", "added_loss", "dense_sparsity", "shrinking_loss", "sparsity"]

SPARSITY_SLOPE = 50.0

RELEASE_SPARSITY = 576.2
"""Sparsity sum S of the dense supernet of the authors' release (8 cells, 4 nodes, 3 operations); scales gamma, mu."""


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
    """Return the sparsity sum S of a dense supernet with equal weights."""
    nodes = [edges for cell in space.dense().cells for edges in cell.nodes]
    counts = [len(edges) for edges in nodes]
    if space.derivation == "edges":  # candidates compete on each edge
        counts = [count for edges in nodes for count in Counter(edge.source for edge in edges).values()]
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


def added_loss(loss: Tensor, weights: Tensor, gamma: float | Tensor, mu: float | Tensor, scale: float) -> Tensor:
    """Return ``L + gamma * (L + mu) * scale * S``, with ``L`` in the second term as a constant without gradient.

    The pressure is in proportion to the loss, as in the paper's form, but the gradient of the loss is not multiplied.

    Args:
        loss: Task loss plus weighted imitation loss, a scalar.
        weights: Architecture weights (num_alive,).
        gamma: Sparsity weight.
        mu: Offset factor.
        scale: :data:`RELEASE_SPARSITY` over the sparsity of the dense supernet, so that ``gamma`` means the same in
            every space.
    """
    return loss + gamma * (loss.detach() + mu) * scale * sparsity(weights)
