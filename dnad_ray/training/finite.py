"""The one rule for losses that are no numbers: noted on the device in every step, asked about when the host looks."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from dnad_ray.errors import NonFiniteLossError

__all__ = ["FiniteWatch", "check_finite"]


@final
class FiniteWatch:
    """Notes on the device how many steps were taken before one whose loss or gradient was NaN or infinite.

    Zero times such a number is NaN, and a sum stays NaN once it is: a step costs four tiny kernels and no wait. The
    tensors stay where they are, so that a step may be recorded.

    Attributes:
        num_good: Steps since the last look that came before any such step, a scalar tensor.

    Args:
        device: Where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self._zero = torch.zeros((), device=device)
        self._mark = torch.zeros((), device=device)
        self.num_good = torch.zeros((), device=device)

    @torch.no_grad()
    def note(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Note a step.

        Args:
            loss: What was differentiated, a scalar.
            gradient_norm: Norm of the gradient before it was clipped, a scalar.
        """
        self._mark.addcmul_(loss + gradient_norm, self._zero)
        self.num_good += self._mark == self._mark  # NaN is not equal to itself

    def restart(self) -> None:
        """Begin to count anew; the host has looked."""
        self.num_good.zero_()


def check_finite(
    num_good: float, num_steps: int, loss: float, *, step: int, steps_per_epoch: int, what: str, advice: str
) -> None:
    """Raise an error if one of the steps since the last look had a loss or gradient that is NaN or infinite.

    Args:
        num_good: What :class:`FiniteWatch` counted.
        num_steps: Steps since the last look.
        loss: Loss of the last one of them.
        step: Steps taken in all.
        steps_per_epoch: Steps of an epoch.
        what: What diverged, for the message.
        advice: The setting to lower.

    Raises:
        NonFiniteLossError: If so; it names the first such step and its epoch, counted from 0 and from 1.

    >>> check_finite(1, 4, math.nan, step=12, steps_per_epoch=4, what="loss", advice="learning_rate")
    Traceback (most recent call last):
    ...
    dnad_ray.errors.NonFiniteLossError: the loss became nan at step 9 (epoch 3); lower learning_rate
    """
    if num_good >= num_steps and math.isfinite(loss):
        return
    first = step - num_steps + min(int(num_good), num_steps - 1)
    if math.isfinite(loss):
        # The loss of the last step is a number: then it is its gradient that is none.
        what, loss = f"gradient of the {what}", math.nan
    raise NonFiniteLossError(
        f"the {what} became {loss} at step {first} (epoch {first // steps_per_epoch + 1}); lower {advice}"
    )
