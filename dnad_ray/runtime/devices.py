"""Devices, memory limits, and the memory format of networks."""

from __future__ import annotations

import ctypes
import sys
from typing import TypeVar

import torch
from torch import nn

__all__ = ["MEMORY_FORMAT", "device_for", "keep_freed_memory", "limit_memory", "to_device"]

# Convolutions on CPUs and on tensor cores both prefer channels last (measured on CPU only).
MEMORY_FORMAT = torch.channels_last

# Of glibc's malloc.h. 32 MiB is the most that it takes for the size from which it maps memory apart.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _MAPPED_FROM_BYTES = 2**31 - 1, 32 * 2**20

_Module = TypeVar("_Module", bound=nn.Module)


def device_for(name: str) -> torch.device:
    """Return the device of a ``train.device`` value; ``auto`` takes a GPU if there is one."""
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def limit_memory(device: torch.device, share: float) -> None:
    """Limit this process to its share of a GPU's memory, so that it fails and not other processes on that GPU.

    This has not been run on a GPU yet.

    Args:
        device: The device; nothing is limited unless it is a GPU.
        share: Share of the GPU that it was given; the limit is on torch's memory, and CUDA itself takes some more.
    """
    if device.type == "cuda" and 0 < share < 1:
        torch.cuda.set_per_process_memory_fraction(share, device)


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors on the CPU for the next ones.

    By default glibc gives freed memory back to the system at the end of every step and has it filled with zeros, page
    by page, in the next one: some 12,000 times a step for 8 cells x 16 channels of 32x32. What a process takes at its
    peak does not change (benchmarks/search_step.py, on Linux).

    Returns:
        Whether it did; False where the C library is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    )


def to_device(module: _Module, device: torch.device) -> _Module:
    """Move a module to a device and its convolutions to :data:`MEMORY_FORMAT`, in place; returns it."""
    module.to(device)
    return module.to(memory_format=MEMORY_FORMAT)  # type: ignore[call-overload,no-any-return] # torch's stub lacks it
