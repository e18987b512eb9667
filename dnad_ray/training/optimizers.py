"""Optimizers: what a checkpoint may restore, and what is cut when parameters are deleted."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from search_spaces.kernels.bank import Sliced

__all__ = ["check_optimizer", "cut_optimizer"]


def cut_optimizer(
    optimizer: torch.optim.Optimizer, alive: Iterable[nn.Parameter], sliced: Iterable[Sliced] = ()
) -> None:
    """Make an optimizer forget what is gone; what it knows of the rest stays as it is.

    Args:
        optimizer: Holds the parameters.
        alive: The parameters that there are still; all others lose their place and their state.
        sliced: Those that lost rows; their state loses the same rows.
    """
    present = {id(parameter) for parameter in alive}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in present:
                optimizer.state.pop(parameter, None)
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in present]
    for parameter, rows in sliced:
        state = optimizer.state.get(parameter, {})
        for name, value in state.items():
            if isinstance(value, Tensor) and value.dim():  # without dimensions: the count of steps
                state[name] = value[rows]


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Check that what an optimizer remembers has the shapes of its parameters, which torch itself does not.

    Raises:
        ValueError: If something has another shape or type.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if (
                isinstance(value, Tensor)
                and value.dim()
                and (value.shape, value.dtype)
                != (
                    parameter.shape,
                    parameter.dtype,
                )
            ):
                raise ValueError(f"the optimizer's {name} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
