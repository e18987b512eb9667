"""The time of a training step, measured before the training begins."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

__all__ = ["seconds_of_step"]


def seconds_of_step(step: Callable[[int], object], device: torch.device, num_steps: int) -> float:
    """Measure the wall seconds of a step.

    Args:
        step: Takes a step; called with 0, 1, ... The first one, with allocations and the choice of kernels, is not
            counted.
        device: The device that computes the steps, which is waited for.
        num_steps: Steps that are counted.
    """
    began = 0.0
    for index in range(num_steps + 1):
        if index == 1:
            _wait_for(device)
            began = time.perf_counter()
        step(index)
    _wait_for(device)
    return (time.perf_counter() - began) / num_steps


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
