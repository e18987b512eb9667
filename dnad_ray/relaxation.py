"""Architecture parameters and the weights they become, normalised by ReLU per node."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_spaces.bank import Sliced
from search_spaces.genotype import NONE
from search_spaces.supernet import Candidate

__all__ = ["Relaxation"]

INITIAL_VALUE = 2.0


class Relaxation(nn.Module):
    """One parameter ``a`` per alive candidate; its weight is its share of the node's rectified parameters.

    ``w = relu(a) / sum of relu(a) over the node`` (paper, section 3.2). Unlike a softmax it can reach exactly zero.

    Args:
        candidates: The alive candidates, see :attr:`search_spaces.supernet.Supernet.candidates`.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.full((len(candidates),), INITIAL_VALUE))
        self.register_buffer("node", _node_of(candidates), persistent=False)
        self.node: Tensor
        self.num_nodes = int(self.node.max()) + 1
        self.computes = [item.edge.operation != NONE for item in candidates]

    def weights(self) -> Tensor:
        """Return the weights (num_alive,), each in [0, 1]; those of a node sum to 1."""
        positive = self.parameter.relu()
        total = positive.new_zeros(self.num_nodes).index_add(0, self.node, positive)
        return positive / total[self.node].clamp_min(torch.finfo(positive.dtype).tiny)

    def keep(self, positions: Sequence[int]) -> Sliced:
        """Cut the parameter down to the candidates that are alive still; gradients start anew.

        Args:
            positions: Their positions before, ascending.

        Returns:
            The parameter with the positions, for the optimizer that holds it.
        """
        index = torch.tensor(positions, device=self.parameter.device)
        self.parameter.data, self.parameter.grad = self.parameter.data[index], None
        self.node = self.node[index].unique(return_inverse=True)[1]
        self.num_nodes = int(self.node.max()) + 1
        self.computes = [self.computes[position] for position in positions]
        return Sliced(self.parameter, index)

    def weakest(self, weights: Sequence[float], baseline: float) -> list[int]:
        """Return the positions of the candidates to delete: weight below ``baseline``.

        A node keeps its strongest candidate besides ``none`` whatever its weight: without it the node would be dead,
        not smaller.

        Args:
            weights: What :meth:`weights` returned, on the host.
            baseline: Share of the node below which a candidate is deleted.
        """
        strongest: dict[int, int] = {}
        nodes = self.node.tolist()
        for position, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
            if self.computes[position] and (node not in strongest or weight > weights[strongest[node]]):
                strongest[node] = position
        return [
            position
            for position, (node, weight) in enumerate(zip(nodes, weights, strict=True))
            if weight < baseline and strongest.get(node) != position
        ]


def _node_of(candidates: Sequence[Candidate]) -> Tensor:
    numbers: dict[tuple[int, int], int] = {}
    return torch.tensor([numbers.setdefault((item.cell, item.node), len(numbers)) for item in candidates])
