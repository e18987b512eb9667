"""Architecture parameters and the weights they become, normalised by ReLU per node."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from search_spaces.genotype import NONE
from search_spaces.kernels.bank import Sliced
from search_spaces.supernet import Candidate

__all__ = ["Relaxation"]

INITIAL_VALUE = 2.0


class Relaxation(nn.Module):
    """One parameter ``a`` per alive candidate; its weight is its share of the node's rectified parameters.

    ``w = relu(a) / sum of relu(a) over the node`` (paper, section 3.2). Unlike a softmax it can reach exactly zero.

    Where cells share a topology, a parameter stands for the candidates of all of them.

    Args:
        candidates: The alive candidates, see :attr:`search_spaces.supernet.Supernet.candidates`.
        groups: What names each candidate among those that share a parameter, see
            :attr:`search_spaces.supernet.Supernet.groups`; None if each has its own.
        inputs_kept: States that a node goes on reading, whatever its weights.
    """

    def __init__(
        self, candidates: Sequence[Candidate], groups: Sequence[Hashable] | None = None, inputs_kept: int = 1
    ) -> None:
        super().__init__()
        numbers: dict[Hashable, int] = {}
        members = [numbers.setdefault(name, len(numbers)) for name in (groups or range(len(candidates)))]
        self.is_shared = len(numbers) < len(candidates)
        self.inputs_kept = inputs_kept
        self.parameter = nn.Parameter(torch.full((len(numbers),), INITIAL_VALUE))
        self.register_buffer("node", _node_of(candidates), persistent=False)
        self.register_buffer("group", torch.tensor(members), persistent=False)
        self.node: Tensor
        self.group: Tensor
        self.num_nodes = int(self.node.max()) + 1
        self.computes = [item.edge.operation != NONE for item in candidates]
        self.sources = [item.edge.source for item in candidates]

    @property
    def num_kept(self) -> int:
        """Candidates that are left when nothing more can be deleted."""
        return self.num_nodes * self.inputs_kept

    def weights(self) -> Tensor:
        """Return the weights (num_alive,), each in [0, 1]; those of a node sum to 1."""
        positive = self.parameter.relu()
        if self.is_shared:
            # The cells of a group are alike: each sees the same parameters, and the gradient is the sum over them.
            positive = positive[self.group]
        total = positive.new_zeros(self.num_nodes).index_add(0, self.node, positive)
        return positive / total[self.node].clamp_min(torch.finfo(positive.dtype).tiny)

    def weights_of(self, positions: Sequence[int]) -> Tensor:
        """Return the weights (num_alive,) of the network that only some candidates make: those of others are zero."""
        weights = self.weights()
        kept = torch.zeros_like(weights)
        kept[torch.tensor(positions, device=weights.device)] = 1
        weights = weights * kept
        total = weights.new_zeros(self.num_nodes).index_add(0, self.node, weights)
        return weights / total[self.node].clamp_min(torch.finfo(weights.dtype).tiny)

    def keep(self, positions: Sequence[int]) -> Sliced:
        """Cut the parameter down to the candidates that are alive still; gradients start anew.

        Args:
            positions: Their positions before, ascending.

        Returns:
            The parameter with the positions, for the optimizer that holds it.
        """
        index = torch.tensor(positions, device=self.parameter.device)
        rows, self.group = self.group[index].unique(return_inverse=True)
        self.parameter.data, self.parameter.grad = self.parameter.data[rows], None
        self.node = self.node[index].unique(return_inverse=True)[1]
        self.num_nodes = int(self.node.max()) + 1
        self.computes = [self.computes[position] for position in positions]
        self.sources = [self.sources[position] for position in positions]
        return Sliced(self.parameter, rows)

    def weakest(self, weights: Sequence[float], baseline: float) -> list[int]:
        """Return the positions of the candidates to delete: weight below ``baseline``.

        A node keeps its strongest candidate besides ``none`` whatever its weight, and where it is to keep several
        inputs, the strongest on each of its strongest inputs: without it the node would be dead, not smaller.

        Args:
            weights: What :meth:`weights` returned, on the host.
            baseline: Share of the node below which a candidate is deleted.
        """
        if min(weights) >= baseline:
            return []
        strongest: dict[int, dict[int, int]] = {}
        nodes = self.node.tolist()
        for position in sorted(range(len(nodes)), key=lambda position: -weights[position]):
            kept = strongest.setdefault(nodes[position], {})
            if self.computes[position] and len(kept) < self.inputs_kept:
                kept.setdefault(self.sources[position], position)
        return [
            position
            for position, (node, weight) in enumerate(zip(nodes, weights, strict=True))
            if weight < baseline and position not in strongest[node].values()
        ]


def _node_of(candidates: Sequence[Candidate]) -> Tensor:
    numbers: dict[tuple[int, int], int] = {}
    return torch.tensor([numbers.setdefault((item.cell, item.node), len(numbers)) for item in candidates])
