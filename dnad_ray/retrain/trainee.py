"""A network in training, with auxiliary head and drop-path, which are not part of the trained network."""

from __future__ import annotations

from typing import Any, NamedTuple, cast, final

import torch
from torch import Tensor, nn

from dnad_ray.config.retrain import RetrainConfig
from dnad_ray.networks.spec import NetworkSpec, build, logits_of
from search_spaces.drop_path import DropPath
from search_spaces.network import Network
from search_spaces.shape import ImageShape
from search_spaces.stem_head import AuxiliaryHead

__all__ = ["TrainOutput", "Trainee", "drop_path_peak"]

_MOST_DROP_PATH = 0.9
_OPERATIONS_PER_CELL = 8


class TrainOutput(NamedTuple):
    """Outputs of a network in training for a batch.

    Attributes:
        logits: (N, num_classes).
        auxiliary: Logits of the auxiliary head; None without a head and in evaluation mode.
    """

    logits: Tensor
    auxiliary: Tensor | None


def drop_path_peak(config: RetrainConfig, num_operations: int, num_cells: int) -> float:
    """Return the drop-path probability of the last epoch; it grows with the number of operations.

    >>> drop_path_peak(RetrainConfig(), num_operations=112, num_cells=14)
    0.3
    >>> round(drop_path_peak(RetrainConfig(), num_operations=168, num_cells=14), 6)
    0.375
    """
    beyond = max(0, num_operations - _OPERATIONS_PER_CELL * num_cells)
    return min(config.drop_path + config.drop_path_per_operation * beyond, _MOST_DROP_PATH)


@final
class Trainee(nn.Module):
    """A network with the parts that only training needs.

    Args:
        spec: The network.
        images: Shape of its images.
        config: The protocol.
    """

    def __init__(self, spec: NetworkSpec, images: ImageShape, config: RetrainConfig) -> None:
        super().__init__()
        self.network = build(spec, images)
        self.auxiliary: AuxiliaryHead | None = None
        self.drop_path: DropPath | None = None
        self.peak = 0.0
        self._features: Tensor | None = None
        if spec.genotype is None:
            return
        network, genotype = cast(Network, self.network), spec.genotype.pruned()
        num_cells = len(genotype.cells)
        self.peak = drop_path_peak(config, genotype.num_operations, num_cells)
        if self.peak:
            self.drop_path = DropPath(network)
        if config.auxiliary_weight:
            # Cell 2L/3, the second reduction; if it is dead, the first alive cell after it.
            index = next(i for i in range(2 * num_cells // 3, num_cells) if str(i) in network.cells)
            stage = network.stages[index]
            self.auxiliary = AuxiliaryHead(network.tap_channels[stage], images.num_classes)
            network.cells[str(index)].register_forward_hook(self._note)

    def _note(self, module: nn.Module, _: Any, output: Tensor) -> None:
        self._features = output if module.training else None

    def begin_step(self, progress: float, seed: int, device: torch.device) -> None:
        """Set the drop-path of the next step.

        Args:
            progress: Completed share of all epochs, 0 to 1.
            seed: Seed of the draws.
            device: Device of the network.
        """
        if self.drop_path is not None:
            self.drop_path.begin_step(self.peak * progress, seed, device)

    def forward(self, images: Tensor) -> TrainOutput:
        """Classify images (N, C, H, W)."""
        logits = logits_of(self.network(images))
        features, self._features = self._features, None
        if self.auxiliary is None or features is None:
            return TrainOutput(logits, None)
        return TrainOutput(logits, self.auxiliary(features))
