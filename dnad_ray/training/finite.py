"""Detection of NaN and infinite losses: recorded on the device in every step, checked when the host looks."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from dnad_ray.errors import NonFiniteLossError

__all__ = ["FiniteWatch", "check_finite"]


@final
class FiniteWatch:
    """Counts on the device the steps before the first one with a NaN or infinite loss or gradient.

    Zero times NaN or infinity is NaN, and a sum with NaN stays NaN. A step costs four small kernels and no wait for
    the device. The tensors are updated in place, so a CUDA graph can record the step.

    Attributes:
        num_good: Number of steps since the last look before the first such step, a scalar tensor.

    Args:
        device: Device of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        self._zero = torch.zeros((), device=device)
        self._mark = torch.zeros((), device=device)
        self.num_good = torch.zeros((), device=device)

    @torch.no_grad()
    def note(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Note a step.

        Args:
            loss: The differentiated loss, a scalar.
            gradient_norm: Norm of the gradient before it was clipped, a scalar.
        """
        self._mark.addcmul_(loss + gradient_norm, self._zero)
        self.num_good += self._mark == self._mark  # NaN is not equal to itself

    def restart(self) -> None:
        """Reset the count after a look."""
        self.num_good.zero_()


def check_finite(
    num_good: float,
    num_steps: int,
    loss: float,
    *,
    step: int,
    steps_per_epoch: int,
    what: str,
    advice: str,
    cause: str = "",
) -> None:
    """Raise an error if one of the steps since the last look had a loss or gradient that is NaN or infinite.

    Args:
        num_good: Count of :class:`FiniteWatch`.
        num_steps: Steps since the last look.
        loss: Loss of the last one of them.
        step: Steps taken in all.
        steps_per_epoch: Steps of an epoch.
        what: Name of the loss, for the message.
        advice: The setting to lower, if the training itself is the cause.
        cause: Another cause with its remedy, if it is known.

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
        # The loss of the last step is finite, so the gradient is not.
        what, loss = f"gradient of the {what}", math.nan
    if not first:
        cause = cause or "nothing was trained before: look at the images, their normalisation and the initial weights"
    words = cause or f"lower {advice}"
    raise NonFiniteLossError(
        f"the {what} became {loss} at step {first} (epoch {first // steps_per_epoch + 1}); {words}"
    )
