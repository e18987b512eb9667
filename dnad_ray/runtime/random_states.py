"""Random generators of a process: seed, save and restore them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

__all__ = ["OwnStream", "random_states", "restore_random_states", "seed_all"]


def random_states() -> dict[str, Any]:
    """Return the state of every global random number generator, as plain data and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - the global stream, as it is
    return {
        "python": random.getstate(),
        "numpy": [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def seed_all(seed: int) -> None:
    """Seed every random generator of the process, so that an earlier trial has no effect."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries may use the old global one
    torch.manual_seed(seed)


def restore_random_states(states: dict[str, Any]) -> None:
    """Set every global random number generator to what :func:`random_states` returned."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    name, numpy_keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state(  # noqa: NPY002
        (name, np.array(numpy_keys, dtype=np.uint32), position, has_gauss, cached)
    )
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


@final
class OwnStream:
    """A stream of torch's random numbers beside the global one, which it leaves alone.

    Attributes:
        state: Where it is: the generator of the CPU, and that of the GPU where there is one.

    Args:
        seed: Where it begins.
        device: Where numbers are drawn, besides the CPU.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        with self._aside():
            torch.manual_seed(seed)
            self.state = self._now()

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Within the context, draws from the global stream come from this one."""
        with self._aside():
            self._go_to(self.state)
            yield
            self.state = self._now()

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        before = self._now()
        try:
            yield
        finally:
            self._go_to(before)

    def _now(self) -> list[Tensor]:
        on_gpu = [] if self._device is None else [torch.cuda.get_rng_state(self._device)]
        return [torch.get_rng_state(), *on_gpu]

    def _go_to(self, state: list[Tensor]) -> None:
        torch.set_rng_state(state[0])
        if self._device is not None:
            torch.cuda.set_rng_state(state[1], self._device)
