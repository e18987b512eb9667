"""The network of a genotype: what is counted, retrained and exported, and what the supernet is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.bank import Sliced
from search_spaces.cell import Cell
from search_spaces.errors import GenotypeError
from search_spaces.genotype import Genotype
from search_spaces.ops import check_operations
from search_spaces.space import NetworkShape, stages
from search_spaces.stem_head import STEMS, Classifier

__all__ = ["Network", "NetworkOutput", "network_from"]


class NetworkOutput(NamedTuple):
    """What a network says about a batch.

    Attributes:
        logits: (N, num_classes).
        taps: For each stage the output of its last live cell (N, C, H, W): features before each reduction, and of
            the last cell. None where no cell of the stage is live.
    """

    logits: Tensor
    taps: tuple[Tensor | None, ...]


class Network(nn.Module):
    """Stem, cells and classifier of a genotype; dead cells are never built.

    Attributes:
        tap_channels: Channels of the features at each stage end.

    Args:
        genotype: Topology; its canonical form is what is built.
        shape: Width, classes and images.
        searching: True for the supernet, False for a derived network; see :mod:`search_spaces.ops`.

    Raises:
        GenotypeError: If no operation connects the image with the classifier.
        SpaceError: If an operation is unknown.
    """

    def __init__(self, genotype: Genotype, shape: NetworkShape, searching: bool = False) -> None:
        super().__init__()
        check_operations((e.operation for c in genotype.cells for n in c.nodes for e in n), "genotype operation")
        # The supernet keeps its candidates `none`, which take weight and compute nothing; a derived network has none.
        self.genotype = genotype if searching else genotype.pruned()
        if not genotype.is_connected:
            raise GenotypeError("genotype", genotype.digest, "one whose edges lead from the image to the classifier")
        self.stages = stages(genotype)
        self.tap_channels = tuple(
            genotype.num_nodes * shape.init_channels * 2**stage for stage in range(self.stages[-1] + 1)
        )
        stem = STEMS[shape.stem](shape.in_channels, shape.init_channels)
        self.stem = stem
        self.cells = nn.ModuleDict()
        older, newer = stem.out_channels
        older_is_larger = stem.older_is_larger
        live = self.genotype.live_cells()
        for index, cell in enumerate(self.genotype.cells):
            channels = shape.init_channels * 2 ** self.stages[index]
            if live[index]:
                self.cells[str(index)] = Cell(cell, (older, newer), channels, older_is_larger, searching)
            older, newer = newer, genotype.num_nodes * channels
            older_is_larger = cell.reduction
        self.classifier = Classifier(newer, shape.num_classes)

    def forward(self, images: Tensor, weights: Sequence[Sequence[Tensor]] | None = None) -> NetworkOutput:
        """Classify images.

        Args:
            images: (N, in_channels, H, W), normalised.
            weights: For each cell and node the weights (num_edges,); None is the plain sum of a derived network.

        Returns:
            Logits and the features at the stage ends.
        """
        # Whatever reads the output of a cell or of the stem reads its ReLU first: it is computed once, here.
        stems = self.stem(images)
        older: Tensor | None = F.relu(stems[0])
        newer = older if stems[1] is stems[0] else F.relu(stems[1])
        taps: list[Tensor | None] = [None] * (self.stages[-1] + 1)
        output: Tensor | None = None
        for index, stage in enumerate(self.stages):
            output = None
            if str(index) in self.cells:
                output = self.cells[str(index)](older, newer, None if weights is None else weights[index])
                taps[stage] = output
            older, newer = newer, None if output is None else F.relu(output)
        return NetworkOutput(self.classifier(cast(Tensor, output)), tuple(taps))

    def keep(self, genotype: Genotype) -> list[Sliced]:
        """Shrink to ``genotype``, a subset of the present edges; returns the parameters that lost rows.

        What nothing uses any more is dropped.
        """
        self.genotype = genotype
        sliced: list[Sliced] = []
        live = genotype.live_cells()
        for index, cell in enumerate(genotype.cells):
            if str(index) in self.cells:
                if live[index]:
                    sliced += cast(Cell, self.cells[str(index)]).keep(cell)
                else:
                    del self.cells[str(index)]
        return sliced


def network_from(genotype: Genotype, shape: NetworkShape) -> Network:
    """Build the derived network: alive edges, plain sums, affine batch norms, bare pools.

    Raises:
        GenotypeError: If no operation connects the image with the classifier.
        SpaceError: If an operation is unknown.
    """
    return Network(genotype, shape)
