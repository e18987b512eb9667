"""Counts of one network under the conventions of the field, side by side.

Papers count "FLOPs" by several conventions, so two papers can differ by some percent for the same network. Here a
network is run once and the work of its modules is recorded: multiply-adds of convolutions and linear layers, elements
of norms and of ReLUs, and so on. A convention is a weighted sum of these numbers.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dnad_ray.costs.table import cost_table_for, costs_of
from dnad_ray.costs.trace import Complexity, image_of
from search_spaces.cell import Cell
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from search_spaces.kernels.states import edge_key
from search_spaces.network import network_from
from search_spaces.ops import BatchNorm, FactorizedReduce, Operation, PointwiseNorm, Pool, SeparableConv
from search_spaces.residual import ResidualBlock, ResidualHead
from search_spaces.shape import ImageShape, NetworkShape

__all__ = ["CONVENTIONS", "SETTINGS", "Elements", "Setting", "conventions_of", "count_published", "elements_of"]


class Setting(NamedTuple):
    """The setting of a published figure.

    Attributes:
        num_cells: Cells of the network.
        init_channels: Width C.
        image_size: Side of the images in pixels.
        num_classes: Outputs.
        stem: Name in :data:`search_spaces.stem_head.STEMS`.
        in_channels: Channels of the images.
    """

    num_cells: int
    init_channels: int
    image_size: int
    num_classes: int
    stem: str
    in_channels: int = 3

    def shape(self) -> NetworkShape:
        """Return the shape of the network."""
        return NetworkShape(
            images=ImageShape(in_channels=self.in_channels, image_size=self.image_size, num_classes=self.num_classes),
            init_channels=self.init_channels,
            stem=self.stem,
        )


SETTINGS: dict[tuple[str, str], Setting] = {
    ("cifar10", "darts"): Setting(20, 36, 32, 10, "cifar"),
    ("imagenet", "darts"): Setting(14, 48, 224, 1000, "imagenet"),
    ("cifar10", "nas_bench_201"): Setting(15, 16, 32, 10, "cifar"),
}
"""(name, skeleton) -> the usual network: that of DARTS (arXiv 1806.09055) and that of NAS-Bench-201."""


class Elements(NamedTuple):
    """The work of a network for one image in eval mode, by kind of module.

    Attributes:
        conv: Multiply-adds of convolutions.
        linear: Multiply-adds of linear layers.
        linear_bias: Biases that linear layers add.
        norm: Elements that batch norms scale and shift.
        relu: Input elements of ReLUs, if each operation has its own ReLU, as in published code.
        average_pool: Outputs of average pools 3x3, one pool for each edge.
        global_pool: Inputs of the adaptive global pool.
        global_pool_outputs: Outputs of it.
    """

    conv: int
    linear: int
    linear_bias: int
    norm: int
    relu: int
    average_pool: int
    global_pool: int
    global_pool_outputs: int


CONVENTIONS: dict[str, tuple[str, dict[str, int]]] = {
    "conv_linear": (
        "multiply-adds of convolutions and linear layers, nothing else",
        {"conv": 1, "linear": 1},
    ),
    "fvcore": (
        "fvcore's total: and 2 per batch-norm element, 1 per input of an adaptive pool",
        {"conv": 1, "linear": 1, "norm": 2, "global_pool": 1},
    ),
    "norm2_relu1": (
        "convolutions, linear layers, 2 per batch-norm element, 1 per ReLU element (PC-DARTS's 597 M)",
        {"conv": 1, "linear": 1, "norm": 2, "relu": 1},
    ),
    "average_pool4": (
        "convolutions, linear layers, 4 per output of an average pool (FairDARTS's notes: NASNet-A 608 M)",
        {"conv": 1, "linear": 1, "average_pool": 4},
    ),
    "thop": (
        "thop 0.1.1: 4 per element of an affine norm, 1 per output of an average pool, adaptive pools in + out",
        {"conv": 1, "linear": 1, "norm": 4, "average_pool": 1, "global_pool": 1, "global_pool_outputs": 1},
    ),
    "nas_bench_201": (
        "NAS-Bench-201's FLOPs: convolutions, linear layers and their biases",
        {"conv": 1, "linear": 1, "linear_bias": 1},
    ),
}
"""Name -> (description, weight of each of :class:`Elements`)."""


def elements_of(genotype: Genotype, shape: NetworkShape) -> Elements:
    """Run the derived network of a genotype on one empty image, and count the operations of its modules.

    Raises:
        GenotypeError: If no operation connects the image with the classifier.
        SpaceError: If an operation is unknown, or the stem does not fit.
    """
    counts: Counter[str] = Counter()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = network_from(genotype, shape).eval()
        uses = {
            module: sum(edge_key(edge) == key for edges in cell.genotype.nodes for edge in edges)
            for cell in network.modules()
            if isinstance(cell, Cell)
            for key, module in cell.shared.items()
        }
        for module in network.modules():
            module.register_forward_hook(partial(_note, counts, uses))
        network(torch.zeros(1, *image_of(shape)))
    return Elements(**{name: counts[name] for name in Elements._fields})


def conventions_of(elements: Elements) -> dict[str, int]:
    """Return the total of each convention."""
    amounts = elements._asdict()
    return {
        name: sum(weight * amounts[key] for key, weight in weights.items())
        for name, (_, weights) in CONVENTIONS.items()
    }


def count_published(genotype: Genotype, shape: NetworkShape) -> tuple[Complexity, Complexity]:
    """Return the cost of a network as written, and the cost of its alive part only.

    The two are equal for nearly all published cells. They differ if a genotype has dead edges or cells, which the code
    of papers builds and runs too.

    Returns:
        (as written, alive).

    Raises:
        GenotypeError: If no operation connects the image with the classifier; strings of NAS-Bench-201 may be so.
        SpaceError: If an operation is unknown, or the stem does not fit.
    """
    written = cost_table_for(shape).as_written(genotype)
    try:
        alive = costs_of(genotype, shape)
    except UserError:
        if genotype.skeleton != "nas_bench_201":
            raise
        alive = Complexity(0, 0, 0)  # the benchmark has such networks, and publishes their costs
    return written, alive


def _note(counts: Counter[str], uses: dict[nn.Module, int], module: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(module, nn.Conv2d):
        per_output = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
        counts["conv"] += cast(Tensor, output).numel() * per_output
    elif isinstance(module, nn.Linear):
        counts["linear"] += cast(Tensor, output).numel() * module.in_features
        counts["linear_bias"] += module.bias.numel()
    elif isinstance(module, BatchNorm):
        counts["norm"] += cast(Tensor, output).numel()
    elif isinstance(module, nn.ReLU):
        counts["relu"] += cast(Tensor, output).numel()
    elif isinstance(module, nn.AdaptiveAvgPool2d):
        counts["global_pool"] += inputs[0].numel()
        counts["global_pool_outputs"] += cast(Tensor, output).numel()
    elif isinstance(module, Pool) and module.average:
        counts["average_pool"] += cast(Tensor, output).numel() * uses.get(module, 1)
    if isinstance(module, PointwiseNorm | FactorizedReduce) or (isinstance(module, Operation) and module.reads_relu):
        counts["relu"] += inputs[0].numel()
    if isinstance(module, SeparableConv):
        counts["relu"] += (len(module.norms) - 1) * cast(Tensor, output).numel()
    elif isinstance(module, ResidualBlock):
        counts["relu"] += inputs[0].numel() + cast(Tensor, output).numel()
    elif isinstance(module, ResidualHead):
        counts["relu"] += inputs[0].numel()
