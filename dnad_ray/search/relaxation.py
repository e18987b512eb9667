"""Architecture parameters and architecture weights: rectified, then normalised per node or per edge."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor, nn

from search_spaces.genotype import NONE
from search_spaces.kernels.bank import Sliced
from search_spaces.supernet import Candidate

__all__ = ["Relaxation"]

INITIAL_VALUE = 2.0


class Relaxation(nn.Module):
    """One parameter ``a`` per alive candidate; its weight is its share of the rectified parameters of its unit.

    ``w = relu(a) / sum of relu(a) over the node`` (paper, section 3.2). Unlike a softmax it can reach exactly zero. The
    unit is a node; in a space that keeps one operation on each edge, it is an edge.

    If cells share a topology, they share one parameter per candidate.

    Args:
        candidates: The alive candidates, see :attr:`search_spaces.supernet.Supernet.candidates`.
        groups: For each candidate the key of its parameter, equal for candidates that share it, see
            :attr:`search_spaces.supernet.Supernet.groups`; None if each has its own.
        inputs_kept: Number of states that a node always keeps as inputs.
        per_edge: Whether the unit is an edge, which keeps one candidate, and not a node.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        groups: Sequence[Hashable] | None = None,
        inputs_kept: int = 1,
        *,
        per_edge: bool = False,
    ) -> None:
        super().__init__()
        numbers: dict[Hashable, int] = {}
        members = [numbers.setdefault(name, len(numbers)) for name in (groups or range(len(candidates)))]
        self.is_shared = len(numbers) < len(candidates)
        self.inputs_kept = inputs_kept
        self.parameter = nn.Parameter(torch.full((len(numbers),), INITIAL_VALUE))
        self.per_edge = per_edge
        nodes = _numbered((item.cell, item.node) for item in candidates)
        edges = _numbered((item.cell, item.node, item.edge.source) for item in candidates)
        self.register_buffer("node", nodes, persistent=False)
        self.register_buffer("unit", edges if per_edge else nodes, persistent=False)
        self.register_buffer("group", torch.tensor(members), persistent=False)
        self.node: Tensor
        self.unit: Tensor
        self.group: Tensor
        self.num_nodes, self.num_units = int(self.node.max()) + 1, int(self.unit.max()) + 1
        self.computes = [item.edge.operation != NONE for item in candidates]
        self.sources = [item.edge.source for item in candidates]

    @property
    def most_kept(self) -> int:
        """Largest possible number of candidates when nothing more can be deleted."""
        return self.num_nodes * self.inputs_kept + self.num_units * self.per_edge

    def weights(self) -> Tensor:
        """Return the weights (num_alive,), each in [0, 1]; the weights of a node, or an edge, sum to 1."""
        positive = self.parameter.relu()
        if self.is_shared:
            # All cells of a group use the same parameters, and the gradient is the sum over these cells.
            positive = positive[self.group]
        return self._normalised(positive)

    def weights_of(self, positions: Sequence[int]) -> Tensor:
        """Return the weights (num_alive,) of the network of some candidates; the weights of all others are zero."""
        weights = self.weights()
        kept = torch.zeros_like(weights)
        kept[torch.tensor(positions, device=weights.device)] = 1
        return self._normalised(weights * kept)

    def _normalised(self, values: Tensor) -> Tensor:
        total = values.new_zeros(self.num_units).index_add(0, self.unit, values)
        return values / total[self.unit].clamp_min(torch.finfo(values.dtype).tiny)

    def keep(self, positions: Sequence[int]) -> Sliced:
        """Reduce the parameter to the candidates that are still alive; its gradient is reset.

        Args:
            positions: Their old positions, ascending.

        Returns:
            The parameter and the rows that it kept, for the optimizer.
        """
        index = torch.tensor(positions, device=self.parameter.device)
        rows, self.group = self.group[index].unique(return_inverse=True)
        self.parameter.data, self.parameter.grad = self.parameter.data[rows], None
        self.node = self.node[index].unique(return_inverse=True)[1]
        self.unit = self.unit[index].unique(return_inverse=True)[1]
        self.num_nodes, self.num_units = int(self.node.max()) + 1, int(self.unit.max()) + 1
        self.computes = [self.computes[position] for position in positions]
        self.sources = [self.sources[position] for position in positions]
        return Sliced(self.parameter, rows)

    def weakest(self, weights: Sequence[float], baseline: float) -> list[int]:
        """Return the positions of the candidates to delete: weight below ``baseline``, and not :meth:`kept`.

        Args:
            weights: The result of :meth:`weights`, on the host.
            baseline: Candidates with a smaller weight are deleted.
        """
        if min(weights) >= baseline:
            return []
        kept = self.kept(weights)
        return [position for position, weight in enumerate(weights) if weight < baseline and position not in kept]

    def kept(self, worth: Sequence[float]) -> set[int]:
        """Return the positions of the candidates that must not be deleted now; at equal worth the first one is kept.

        A node keeps its strongest candidate other than ``none``, because without it the node would be dead. If a node
        keeps several inputs, it keeps the strongest candidate on each of its strongest inputs. If edges are the unit,
        each edge also keeps its strongest candidate, which may be ``none``.

        Args:
            worth: The worth of each candidate (num_alive,), on the host: its weight, or a measurement.
        """
        nodes, units = self.node.tolist(), self.unit.tolist()
        inputs: dict[int, dict[int, int]] = {}
        edges: dict[int, int] = {}
        for position in sorted(range(len(nodes)), key=lambda position: -worth[position]):
            of_node = inputs.setdefault(nodes[position], {})
            if self.computes[position] and len(of_node) < self.inputs_kept:
                of_node.setdefault(self.sources[position], position)
            if self.per_edge:
                edges.setdefault(units[position], position)
        return {position for of_node in inputs.values() for position in of_node.values()} | set(edges.values())


def _numbered(names: Iterable[Hashable]) -> Tensor:
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])
