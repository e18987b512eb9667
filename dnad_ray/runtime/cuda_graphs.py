"""CUDA graphs: the kernels of a step are recorded once and started by one call, until a candidate is deleted.

Between two deletions every step runs the same kernels on the same memory. On a GPU, a supernet of many small operations
mostly waits for the host to launch kernels; a recorded step is launched once.

This has not been run on a GPU yet, so it is off by default. A test marked ``gpu`` compares recorded steps with plain
ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

__all__ = ["RecordedStep"]

_EAGER_STEPS = 3  # before a recording, so that libraries have chosen their kernels and optimizers have their state


@final
class RecordedStep:
    """Runs a function of images and labels eagerly a few times, then from a recording.

    Args:
        step: Runs on the current CUDA device, reads nothing but its arguments and memory that stays where it is, and
            never waits for the device.
    """

    def __init__(self, step: Callable[[Tensor, Tensor], None]) -> None:
        self._step = step
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager_left = _EAGER_STEPS
        self._images: Tensor | None = None
        self._labels: Tensor | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Take one step on a batch of always the same size."""
        if self._eager_left:
            # On a stream of its own, as recordings must be, so that the same memory is used.
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._step(images, labels)
            torch.cuda.current_stream().wait_stream(self._stream)
            self._eager_left -= 1
            return
        if self._images is None or self._labels is None:
            self._images, self._labels = images.clone(memory_format=torch.preserve_format), labels.clone()
        else:
            self._images.copy_(images)
            self._labels.copy_(labels)
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._step(self._images, self._labels)
        self._graph.replay()

    def forget(self) -> None:
        """Drop the recording, because tensors were replaced; the next steps make a new one."""
        if self._graph is not None:
            self._graph.reset()
        self._graph, self._eager_left = None, _EAGER_STEPS
