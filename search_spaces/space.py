"""Search spaces: which networks exist, and how wide they are when they are built."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.errors import SpaceError
from search_spaces.genotype import NONE, NUM_INPUTS, CellGenotype, Edge, Genotype
from search_spaces.ops import check_operations
from search_spaces.stem_head import STEMS

__all__ = ["NAMED_OPERATIONS", "NetworkShape", "SearchSpace", "reductions", "space_named", "stages"]

NAMED_OPERATIONS: dict[str, tuple[str, ...]] = {
    "dnad": ("sep_conv_3x3", "skip_connect", "dil_conv_5x5"),
    "darts": (
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
    ),
}
"""Named spaces, all with one topology per cell: ``dnad`` has the candidates of the authors' release, ``darts`` the
usual seven."""

MIN_CELLS = 3  # so that the cells at L//3 and 2L//3 are two, and there are three stages with an end each


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """What turns a genotype into a network besides its topology.

    Attributes:
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
        num_classes: Outputs of the classifier.
        init_channels: Width C before the first doubling.
        stem: Name in :data:`search_spaces.stem_head.STEMS`.

    Raises:
        SpaceError: If the stem is unknown, or images are too small for it.
    """

    in_channels: int
    image_size: int
    num_classes: int
    init_channels: int
    stem: str = "cifar"

    def __post_init__(self) -> None:
        if self.stem not in STEMS:
            raise SpaceError("stem", self.stem, ", ".join(STEMS))
        smallest = 32 if self.stem == "imagenet" else 4
        if self.image_size < smallest:
            raise SpaceError(f"image size for the {self.stem} stem", self.image_size, f"at least {smallest} pixels")


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """All candidates: every operation on every earlier state, for every node of every cell.

    Attributes:
        operations: Candidate operations, names in :data:`search_spaces.ops.OPERATIONS`.
        num_cells: Cells L, at least 3.
        num_nodes: Intermediate nodes per cell.

    Raises:
        SpaceError: If an operation is unknown or named twice, or a number is too small.
    """

    operations: tuple[str, ...]
    num_cells: int
    num_nodes: int

    def __post_init__(self) -> None:
        check_operations(self.operations, "space.operations")
        if not set(self.operations) - {NONE} or len(set(self.operations)) != len(self.operations):
            raise SpaceError("space.operations", list(self.operations), "each operation once, one besides none")
        if self.num_cells < MIN_CELLS:
            raise SpaceError("space.num_cells", self.num_cells, f"at least {MIN_CELLS} (three stages)")
        if self.num_nodes < 1:
            raise SpaceError("space.num_nodes", self.num_nodes, "at least 1")

    @property
    def num_candidates(self) -> int:
        """Candidates of the dense supernet: cells x operations x (2 + 3 + ... over the nodes)."""
        sources = sum(NUM_INPUTS + node for node in range(self.num_nodes))
        return self.num_cells * len(self.operations) * sources

    def dense(self) -> Genotype:
        """Return the genotype in which every candidate is alive."""
        return self.uniform(self.operations)

    def uniform(self, operations: tuple[str, ...], only_inputs: bool = False) -> Genotype:
        """Return the genotype whose nodes apply ``operations`` to all earlier states, or to the cell's inputs only."""
        nodes = tuple(
            tuple(
                Edge(operation, source)
                for source in range(NUM_INPUTS if only_inputs else NUM_INPUTS + node)
                for operation in operations
            )
            for node in range(self.num_nodes)
        )
        halving = reductions(self.num_cells)
        return Genotype(tuple(CellGenotype(index in halving, nodes) for index in range(self.num_cells)))


def space_named(name: str, operations: tuple[str, ...] | None, num_cells: int, num_nodes: int) -> SearchSpace:
    """Return the named space at a size, with its own operations where ``operations`` is None.

    Raises:
        SpaceError: If the name is unknown or the size impossible.
    """
    if name not in NAMED_OPERATIONS:
        raise SpaceError("space.name", name, ", ".join(NAMED_OPERATIONS))
    return SearchSpace(
        operations=NAMED_OPERATIONS[name] if operations is None else operations,
        num_cells=num_cells,
        num_nodes=num_nodes,
    )


def reductions(num_cells: int) -> tuple[int, ...]:
    """Return the cells that halve the resolution: L//3 and 2L//3.

    >>> reductions(8)
    (2, 5)
    """
    return tuple(sorted({num_cells // 3, 2 * num_cells // 3}))


def stages(genotype: Genotype) -> tuple[int, ...]:
    """Return for each cell its stage: how many reduction cells there are up to and including it."""
    stage = 0
    result = []
    for cell in genotype.cells:
        stage += cell.reduction
        result.append(stage)
    return tuple(result)
