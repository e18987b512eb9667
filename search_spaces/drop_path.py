"""Drop-path: during training each operation is dropped for some of the images (arXiv 1605.07648).

It uses hooks on the operations of a derived network. The network itself is not changed, so counting and export do not
see it.
"""

from __future__ import annotations

from typing import Any, cast, final

import torch
from torch import Tensor, nn

from search_spaces.cell import Cell
from search_spaces.network import Network
from search_spaces.node import PlainNode
from search_spaces.ops import Identity

__all__ = ["DropPath"]


@final
class DropPath:
    """Drops the outputs of operations for some images of a batch, and scales the others by 1 / (1 - p).

    Identities are never dropped, as in DARTS. A pool that several nodes of a cell read from one state is computed once,
    and is dropped for all of them or none.

    Args:
        network: A derived network; drop-path acts where it is in training mode and the probability is above 0.
    """

    def __init__(self, network: Network) -> None:
        self.probability = 0.0
        self._generator: torch.Generator | None = None
        for cell in network.cells.values():
            modules = [*cast(Cell, cell).shared.values()]
            for node in cast(Cell, cell).nodes:
                modules += cast(PlainNode, node).own.values()
            for module in modules:
                if not isinstance(module, Identity):
                    module.register_forward_hook(self._drop)

    def begin_step(self, probability: float, seed: int, device: torch.device) -> None:
        """Set the probability and the draws of the next forward pass.

        Args:
            probability: Share of the images for which an operation is dropped, 0 to less than 1.
            seed: Seed of the draws: those of a step depend on nothing before it.
            device: Where the network is.
        """
        self.probability = probability
        self._generator = torch.Generator(device).manual_seed(seed)

    def _drop(self, module: nn.Module, _: Any, output: Tensor) -> Tensor:
        if not module.training or not self.probability:
            return output
        kept = 1 - self.probability
        mask = torch.rand((len(output), 1, 1, 1), device=output.device, generator=self._generator) < kept
        return output * (mask.to(output.dtype) / kept)
