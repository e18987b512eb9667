"""Selection of the candidates to delete: lowest worth first, at most as many as the shrink rate allows; no model."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from dnad_ray.search.relaxation import Relaxation

__all__ = ["WorthMean", "chosen", "group_worth"]


def group_worth(relaxation: Relaxation, per_parameter: Sequence[float]) -> list[float]:
    """Return the worth of each candidate: that of its parameter, which cells of one topology share."""
    return [per_parameter[number] for number in relaxation.group.tolist()]


def chosen(positions: Sequence[int], groups: Sequence[Hashable], worth: Sequence[float], allowed: float) -> list[int]:
    """Return the positions of the candidates to delete, ascending; candidates of low worth are chosen first.

    Candidates of cells that share a topology are deleted together. The last such group may exceed the allowed number;
    the controller then allows fewer deletions later.

    Args:
        positions: Candidates that may be deleted.
        groups: For every candidate (num_alive,) the key of its group; a group is deleted together.
        worth: The worth of every candidate, equal within a group.
        allowed: Number of deletions that are allowed now; infinite for no limit.

    >>> chosen([0, 1, 2, 3], groups="abab", worth=[0.2, 0.1, 0.2, 0.1], allowed=1)
    [1, 3]
    >>> chosen([0, 1, 2, 3], groups="abab", worth=[0.2, 0.1, 0.2, 0.1], allowed=0)
    []
    """
    if math.isinf(allowed):
        return sorted(positions)
    together: dict[Hashable, list[int]] = {}
    for position in sorted(positions, key=lambda position: (worth[position], position)):
        together.setdefault(groups[position], []).append(position)
    gone: list[int] = []
    for members in together.values():
        if len(gone) >= allowed:
            break
        gone += members
    return sorted(gone)


@final
class WorthMean:
    """Mean of ``|w dL/dw|`` over all steps, per architecture parameter: how much the loss depends on a candidate.

    This is the first-order change of the loss, from gradients that training computes anyway (Molchanov et al., arXiv
    1611.06440, section 2.2). The terms of cells that share a parameter are summed before the absolute value is taken.
    Each step is divided by its mean over the architecture parameters, so that all steps count the same. Without this,
    late steps would count most, because gradients grow during a search; late steps favour skip connections, because a
    node learns to depend on them (docs/search-pressure.md).

    Args:
        num_parameters: Number of architecture parameters.
        device: Device of the parameters.
    """

    def __init__(self, num_parameters: int, device: torch.device) -> None:
        self.values = torch.zeros(num_parameters, device=device)
        self.num_steps = torch.zeros((), device=device)

    @torch.no_grad()
    def add(self, weights: Tensor, gradient: Tensor, group: Tensor) -> None:
        """Add a step: weights, the gradient of the task loss on them, and parameter indices, each (num_alive,)."""
        moved = torch.zeros_like(self.values).index_add_(0, group, weights * gradient)
        moved.abs_()
        self.num_steps += 1
        self.values += (moved / moved.mean().clamp_min(torch.finfo(moved.dtype).tiny) - self.values) / self.num_steps

    def keep(self, rows: Tensor) -> None:
        """Remove the values of deleted parameters."""
        self.values = self.values[rows]

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return tensors for a checkpoint."""
        return {"values": self.values, "num_steps": self.num_steps}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore from :meth:`state_dict`."""
        self.values.copy_(state["values"])
        self.num_steps.copy_(state["num_steps"])
