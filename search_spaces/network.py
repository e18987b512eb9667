"""The network of a genotype, which is counted, retrained and exported, and the parts of the supernet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, final

import torch.nn.functional as F
from torch import Tensor

from search_spaces.cell import Cell
from search_spaces.errors import SpaceError
from search_spaces.genotype import Genotype
from search_spaces.kernels.small_images import is_small, small_stem
from search_spaces.residual import ResidualNetwork
from search_spaces.shape import NetworkShape
from search_spaces.skeleton import Network, NetworkOutput
from search_spaces.stem_head import STEMS, CifarStem, Classifier

__all__ = ["CellNetwork", "Network", "NetworkOutput", "network_from"]


@final
class CellNetwork(Network):
    """The skeleton ``darts``: every cell reads the two before it; see :class:`search_spaces.skeleton.Network`.

    A reduction cell halves the resolution and doubles the channels by its own edges. If it is dead, the cell that
    reads across it does both: its older input is larger, and passes a factorized reduction to the channels of the later
    stage.
    """

    def __init__(self, genotype: Genotype, shape: NetworkShape, searching: bool) -> None:
        super().__init__(genotype, shape, searching)
        if shape.stem not in STEMS:
            raise SpaceError("stem", shape.stem, f"{', '.join(STEMS)} for networks whose cells read two cells")
        stem = STEMS[shape.stem](shape.images.in_channels, shape.init_channels)
        self.stem, self._width = stem, shape.init_channels
        older, newer = stem.out_channels
        older_is_larger = stem.older_is_larger
        live = self.genotype.live_cells()
        for index, cell in enumerate(self.genotype.cells):
            channels = shape.init_channels * 2 ** self.stages[index]
            if live[index]:
                self.cells[str(index)] = Cell(cell, (older, newer), channels, older_is_larger, searching)
            older, newer = newer, len(cell.outputs) * channels
            older_is_larger = cell.reduction
        self.classifier = Classifier(newer, shape.images.num_classes, stem.adaptive_pool)

    def forward(self, images: Tensor, weights: Sequence[Sequence[Tensor]] | None = None) -> NetworkOutput:
        """Classify images, see :meth:`search_spaces.skeleton.Network.forward`."""
        # All readers of the output of a cell or the stem need its ReLU, which is computed once, here.
        stems = self._stems(images, weights is not None)
        older: Tensor | None = F.relu(stems[0])
        newer = older if stems[1] is stems[0] else F.relu(stems[1])
        taps: list[Tensor | None] = [None] * (self.stages[-1] + 1)
        output: Tensor | None = None
        for index, stage in enumerate(self.stages):
            output = None
            if str(index) in self.cells:
                output = self.cells[str(index)](older, newer, None if weights is None else weights[index])
                taps[stage] = output
            is_last = index + 1 == len(self.stages)  # read by the classifier, as it is
            older, newer = newer, None if output is None or is_last else F.relu(output)
        return NetworkOutput(self.classifier(cast(Tensor, output)), tuple(taps))

    def _stems(self, images: Tensor, searching: bool) -> tuple[Tensor, Tensor]:
        stem = self.stem
        if searching and self.training and isinstance(stem, CifarStem) and is_small(images, self._width):
            state = small_stem(stem.conv, stem.norm, images)
            return state, state
        stems: tuple[Tensor, Tensor] = stem(images)
        return stems


def network_from(genotype: Genotype, shape: NetworkShape, searching: bool = False) -> Network:
    """Build the network of a genotype, by default the derived one: plain sums, affine batch norms, bare pools.

    Args:
        genotype: Topology; its canonical form is built.
        shape: Width, classes and images.
        searching: True for the supernet, see :mod:`search_spaces.ops`.

    Raises:
        GenotypeError: If no operation connects the image with the classifier.
        SpaceError: If an operation is unknown.
    """
    kind = ResidualNetwork if genotype.skeleton == "nas_bench_201" else CellNetwork
    return kind(genotype, shape, searching)
