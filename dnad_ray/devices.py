"""Where networks live, and in which memory format."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

__all__ = ["MEMORY_FORMAT", "device_for", "limit_memory", "placed"]

# Convolutions on CPUs and on tensor cores both prefer channels last (measured on CPU only).
MEMORY_FORMAT = torch.channels_last

_Module = TypeVar("_Module", bound=nn.Module)


def device_for(name: str) -> torch.device:
    """Return the device of a ``train.device`` value; ``auto`` takes a GPU where there is one."""
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def limit_memory(device: torch.device, share: float) -> None:
    """Keep this process to its share of a GPU's memory, so that it fails rather than its neighbours on that GPU.

    Not run on a GPU so far: no GPU was at hand.

    Args:
        device: Where it computes; elsewhere than on a GPU nothing is limited.
        share: Share of the GPU that it was given; the limit is on torch's memory, and CUDA itself takes some more.
    """
    if device.type == "cuda" and 0 < share < 1:
        torch.cuda.set_per_process_memory_fraction(share, device)


def placed(module: _Module, device: torch.device) -> _Module:
    """Move a module to a device and its convolutions to :data:`MEMORY_FORMAT`, in place; returns it."""
    module.to(device)
    return module.to(memory_format=MEMORY_FORMAT)  # type: ignore[call-overload,no-any-return] # torch's stub lacks it
