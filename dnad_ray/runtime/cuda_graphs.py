"""CUDA graphs: a step's kernels recorded once and started with one call, until something is deleted.

Between two deletions every step runs the same kernels on the same memory. What a supernet of many small operations
waits for on a GPU is mostly the host that starts them; a recorded step needs the host once.

Not run on a GPU so far: no GPU was at hand. Hence it is off by default, and a test marked ``gpu`` holds the recorded
steps against plain ones.
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
        """Record anew after the next steps: tensors have been replaced."""
        if self._graph is not None:
            self._graph.reset()
        self._graph, self._eager_left = None, _EAGER_STEPS
