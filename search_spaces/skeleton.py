"""The common base of all networks of cells, whatever their skeleton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from torch import Tensor, nn

from search_spaces.cell import Cell
from search_spaces.errors import GenotypeError
from search_spaces.genotype import Genotype
from search_spaces.kernels.bank import Sliced
from search_spaces.ops import check_operations
from search_spaces.shape import NetworkShape
from search_spaces.stages import stages

__all__ = ["Network", "NetworkOutput"]


class NetworkOutput(NamedTuple):
    """The output of a network for a batch.

    Attributes:
        logits: (N, num_classes).
        taps: For each stage the output of its last live cell (N, C, H, W): features before each reduction, and of
            the last cell. None where no cell of the stage is live.
    """

    logits: Tensor
    taps: tuple[Tensor | None, ...]


class Network(nn.Module):
    """Abstract: stem, cells and classifier of a genotype; dead cells are never built.

    Attributes:
        genotype: The genotype that is built.
        stages: For each cell its stage.
        tap_channels: Channels of the features at each stage end.

    Args:
        genotype: The topology; its canonical form is built.
        shape: Width, classes and images.
        searching: True for the supernet, False for a derived network; see :mod:`search_spaces.ops`.

    Raises:
        GenotypeError: If no operation connects the image with the classifier.
        SpaceError: If an operation is unknown.
    """

    def __init__(self, genotype: Genotype, shape: NetworkShape, searching: bool) -> None:
        super().__init__()
        check_operations((e.operation for c in genotype.cells for n in c.nodes for e in n), "genotype operation")
        # Only the supernet keeps the candidates `none`, which have a weight and compute nothing.
        self.genotype = genotype if searching else genotype.pruned()
        if not genotype.is_connected:
            raise GenotypeError("genotype", genotype.digest, "one whose edges lead from the image to the classifier")
        self.stages = stages(genotype)
        self.cells = nn.ModuleDict()
        ends = {stage: index for index, stage in enumerate(self.stages)}
        ends |= {
            stage: index
            for index, (stage, live) in enumerate(zip(self.stages, self.genotype.live_cells(), strict=True))
            if live
        }
        self.tap_channels = tuple(
            len(genotype.cells[ends.get(stage, 0)].outputs) * shape.init_channels * 2**stage
            for stage in range(self.stages[-1] + 1)
        )

    def forward(self, images: Tensor, weights: Sequence[Sequence[Tensor]] | None = None) -> NetworkOutput:
        """Classify images.

        Args:
            images: (N, in_channels, H, W), normalised.
            weights: For each cell and node the weights (num_edges,); None is the plain sum of a derived network.

        Returns:
            Logits and the features at the stage ends.
        """
        raise NotImplementedError

    def keep(self, genotype: Genotype) -> list[Sliced]:
        """Shrink to ``genotype``, a subset of the present edges; returns the parameters that lost rows.

        Unused modules are removed.
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
