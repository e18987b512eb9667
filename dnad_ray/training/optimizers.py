"""Optimizers that load quickly; checks of a restored state, and its reduction when parameters are deleted."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TypeVar, final

import torch
from torch import Tensor, nn

from search_spaces.kernels.bank import Sliced

__all__ = ["SGD", "Adam", "check_optimizer", "cut_optimizer"]


_Optimizer = TypeVar("_Optimizer", bound=type[torch.optim.Optimizer])


def _without_compiler(optimizer: _Optimizer) -> _Optimizer:
    """Give an optimizer its methods as they are below what guards them from torch's compiler.

    The guards load the compiler when they are first called, which takes one to three CPU seconds in every process that
    trains. Nothing is compiled here, so there is nothing to guard. ``step`` keeps its other guard, ``no_grad``.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        setattr(optimizer, name, inspect.unwrap(getattr(optimizer, name)))
    optimizer.step = torch.no_grad()(inspect.unwrap(optimizer.step))  # type: ignore[method-assign]
    return optimizer


@final
@_without_compiler
class Adam(torch.optim.Adam):
    """``torch.optim.Adam`` to the last bit, without loading torch's compiler."""


@final
@_without_compiler
class SGD(torch.optim.SGD):
    """``torch.optim.SGD`` to the last bit, without loading torch's compiler."""


def cut_optimizer(
    optimizer: torch.optim.Optimizer, alive: Iterable[nn.Parameter], sliced: Iterable[Sliced] = ()
) -> None:
    """Remove deleted parameters and their state from an optimizer; the state of the others does not change.

    Args:
        optimizer: The optimizer.
        alive: The remaining parameters; all others are removed with their state.
        sliced: Parameters that lost rows; their state loses the same rows.
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
            if isinstance(value, Tensor) and value.dim():  # a tensor without dimensions is the step count
                state[name] = value[rows]


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Check that the state of an optimizer has the shapes of its parameters; torch does not check this.

    Raises:
        ValueError: If a state tensor has another shape or type.
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
