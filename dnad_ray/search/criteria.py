"""Which candidates go: the least worth first, no more of them than the shrink rate asks for (no model in here)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from dnad_ray.search.relaxation import Relaxation

__all__ = ["WorthMean", "chosen", "group_worth"]


def group_worth(relaxation: Relaxation, per_parameter: Sequence[float]) -> list[float]:
    """Return for each candidate what its parameter is worth: cells that share a topology have one opinion."""
    return [per_parameter[number] for number in relaxation.group.tolist()]


def chosen(positions: Sequence[int], groups: Sequence[Hashable], worth: Sequence[float], allowed: float) -> list[int]:
    """Return the candidates to delete among those that may go, ascending: the least worth first, while any is allowed.

    Candidates of cells that share a topology go together; the last of them may exceed what is allowed, which the
    controller then makes up for.

    Args:
        positions: Candidates that may go.
        groups: For every candidate (num_alive,) what names those that go together.
        worth: For every candidate what it is worth, the same within a group.
        allowed: How many deletions are asked for by now, infinite for no limit.

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
    """Mean of ``|w dL/dw|`` over all steps, per architecture parameter: how much the loss hangs on a candidate.

    To first order, and as training computes it anyway (Molchanov et al., arXiv 1611.06440, section 2.2). The sum over
    cells that share a parameter comes first, the absolute value then. Each step is measured in units of its mean over
    the candidates, so that all count the same: gradients grow while a search goes on, and what it sees late favours
    skip connections, on which a node learns to lean (docs/results.md).

    Args:
        num_parameters: Architecture parameters.
        device: Where they are.
    """

    def __init__(self, num_parameters: int, device: torch.device) -> None:
        self.values = torch.zeros(num_parameters, device=device)
        self.num_steps = torch.zeros((), device=device)

    @torch.no_grad()
    def add(self, weights: Tensor, gradient: Tensor, group: Tensor) -> None:
        """Take note of a step: weights and the task's gradient on them (num_alive,), and their parameters' numbers."""
        moved = torch.zeros_like(self.values).index_add_(0, group, weights * gradient)
        moved.abs_()
        self.num_steps += 1
        self.values += (moved / moved.mean().clamp_min(torch.finfo(moved.dtype).tiny) - self.values) / self.num_steps

    def keep(self, rows: Tensor) -> None:
        """Forget what is gone."""
        self.values = self.values[rows]

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return tensors for a checkpoint."""
        return {"values": self.values, "num_steps": self.num_steps}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self.values.copy_(state["values"])
        self.num_steps.copy_(state["num_steps"])
