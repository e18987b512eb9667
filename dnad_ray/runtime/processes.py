"""One search in several processes: each computes its part of every batch, and all take the same step.

A step sends one vector around: gradients of network and architecture parameters, running statistics and losses, each
times the process's share of the images, summed over the processes. For a loss that is a mean over images that is the
gradient of the mean over the whole batch, but for batch norm, which sees the images of one process. What follows
from the sum (clipping, optimizers, sparsity, controller, deletions) is computed by every process from the same bits.

No wrapper such as torch's DistributedDataParallel: parameters lose rows while a search runs, and it would have to be
built anew after each deletion.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.distributed
from torch import Tensor

from dnad_ray.errors import DriftError
from dnad_ray.storage.weights_reader import parse_state

__all__ = ["ALONE", "Ranks", "average", "check_same", "digest_of", "ranks_here", "share_state"]


@final
@dataclass(frozen=True)
class Ranks:
    """The processes that share a search, and the number of this one. A single process sends nothing.

    Attributes:
        rank: Number of this process, from 0; the first one writes the files.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def part(self, num: int) -> slice:
        """Return the slice of ``num`` items that belongs to this process; sizes differ by one at most.

        >>> [Ranks(rank, 3).part(8) for rank in range(3)]
        [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
        """
        return slice(num * self.rank // self.size, num * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over the processes, the same bits in each; returns it."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def of_first(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by that of the first process; returns it."""
        if self.size > 1:
            torch.distributed.broadcast(tensor, 0)
        return tensor


ALONE = Ranks()
"""A search in one process."""


def ranks_here() -> Ranks:
    """Return the rank of this process in torch's process group, or :data:`ALONE` without a group."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return ALONE
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())


@torch.no_grad()
def average(ranks: Ranks, tensors: Sequence[Tensor], share: float, sums: Tensor) -> None:
    """Replace tensors by their weighted mean over the processes, and others by their sum, all in one message.

    Args:
        ranks: The processes; every one calls with tensors of the same shapes, in the same order.
        tensors: What is averaged, changed in place.
        share: Weight of this process; those of all add up to 1.
        sums: A vector of the same type that is added up, changed in place.
    """
    vector = torch.cat([tensor.reshape(-1) for tensor in tensors])
    vector = ranks.sum(torch.cat([vector.mul_(share), sums]))
    *means, totals = vector.split([*(tensor.numel() for tensor in tensors), len(sums)])
    torch._foreach_copy_(list(tensors), [mean.view(tensor.shape) for mean, tensor in zip(means, tensors, strict=True)])
    sums.copy_(totals)


def digest_of(state: Any) -> bytes:
    """Return a SHA-256 of nested dictionaries and lists of plain data and tensors.

    >>> digest_of({"a": torch.ones(2)}) == digest_of({"a": torch.ones(2)})
    True
    >>> digest_of({"a": torch.ones(2)}) == digest_of({"a": torch.ones(1, 2)})
    False
    """
    whole = hashlib.sha256()
    for piece in _pieces(state):
        whole.update(struct.pack("<q", len(piece)))
        whole.update(piece)
    return whole.digest()


def check_same(ranks: Ranks, state: Callable[[], Any], device: torch.device) -> None:
    """Check that all processes hold the same bits; all of them must call it.

    Args:
        ranks: The processes.
        state: Returns what :func:`digest_of` takes; not asked where one process is alone.
        device: Where the processes exchange tensors.

    Raises:
        DriftError: In every process, if they do not.
    """
    if ranks.size == 1:
        return
    (digest,) = struct.unpack("<q", digest_of(state())[:8])
    # The largest of d and the largest of "not d", which is "not" the smallest: equal if and only if all are.
    extremes = torch.tensor([digest, ~digest], device=device)
    torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX)
    largest, not_smallest = extremes.tolist()
    if largest != ~not_smallest:
        raise DriftError(
            f"the {ranks.size} processes of a search no longer hold the same weights; "
            "they need the same kind of processor and the same number of threads"
        )


def share_state(ranks: Ranks, state: dict[str, Any] | None, device: torch.device) -> dict[str, Any] | None:
    """Return the first process's state in all of them, so that all continue from the same checkpoint.

    Args:
        ranks: The processes.
        state: Plain data and tensors, or None; only the first process's counts.
        device: Where the processes exchange tensors.
    """
    if ranks.size == 1:
        return state
    buffer = io.BytesIO()
    if ranks.is_first and state is not None:
        torch.save(state, buffer)
    size = int(ranks.of_first(torch.tensor([len(buffer.getvalue())], device=device)))
    if not size:
        return None
    content = torch.zeros(size, dtype=torch.uint8)
    if ranks.is_first:
        content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    received = ranks.of_first(content.to(device)).cpu().numpy().tobytes()
    return parse_state(received, "state of the first process")


def _pieces(state: Any) -> Iterator[bytes]:
    """Yield the bytes of a state; sizes and types are pieces too, so that no two states have the same ones."""
    if isinstance(state, Tensor):
        yield f"{state.dtype} {tuple(state.shape)}".encode()
        yield state.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(state, dict):
        yield f"{len(state)} entries".encode()
        for key, value in state.items():
            yield repr(key).encode()
            yield from _pieces(value)
    elif isinstance(state, list | tuple):
        yield f"{len(state)} items".encode()
        for value in state:
            yield from _pieces(value)
    else:
        yield repr(state).encode()
