"""The source of a Python module that rebuilds one network without our package: parts of `standalone`, and its data."""

from __future__ import annotations

import ast
import inspect
import pprint
from types import ModuleType
from typing import Any

from dnad_ray.deploy.standalone import blocks, darts, nas_bench_201
from dnad_ray.errors import ConfigError
from dnad_ray.networks.network_file import TrainedNetwork
from dnad_ray.version import __version__
from search_spaces.genotype import Genotype

__all__ = ["module_source"]

_SKELETONS = {"darts": darts, "nas_bench_201": nas_bench_201}
_HEAD = '''"""Network {digest}, written by dnad-ray {version}; needs torch and safetensors only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CELLS", "CLASSES", "IMAGE_SIZE", "build", "load"]
'''
_END = '''
CLASSES = {classes}
"""Names of the outputs."""

IMAGE_SIZE = {image_size}
"""Side of the images in pixels that the network was trained on."""

CELLS: list[CellData] = {cells}
"""For each cell whether it reduces, for each node its edges (operation, state read), and the nodes in its output."""


def build() -> CellNetwork:
    """Return the network with random weights."""
    return CellNetwork(
        CELLS,
        in_channels={in_channels},
        channels={channels},
        num_classes=len(CLASSES),
        stem={stem!r},
        mean={mean},
        std={std},
    )


def load(weights: str) -> CellNetwork:
    """Return the trained network in evaluation mode; ``weights`` is the safetensors file beside this one."""
    from safetensors.torch import load_file

    network = build()
    network.load_state_dict(load_file(weights))
    return network.eval()
'''


def module_source(trained: TrainedNetwork, genotype: Genotype) -> str:
    """Return the module's text: the blocks, the skeleton of the genotype, and the network as data.

    Args:
        trained: What is rebuilt; its weights are a file of their own.
        genotype: Its topology.

    Raises:
        ConfigError: If it has an operation that :mod:`dnad_ray.deploy.standalone.blocks` has no twin of.
    """
    pruned = genotype.pruned()
    for operation in {edge.operation for cell in pruned.cells for node in cell.nodes for edge in node}:
        if operation not in blocks.OPERATIONS:
            allowed = f"a network of {', '.join(blocks.OPERATIONS)}"
            raise ConfigError("--format python, operation", operation, allowed)
    end = _END.format(
        classes=_literal(list(trained.classes)),
        image_size=trained.images.image_size,
        cells=_literal([_cell_data(cell) for cell in pruned.cells]),
        in_channels=trained.images.in_channels,
        channels=trained.spec.init_channels,
        stem=trained.spec.stem,
        mean=list(trained.mean),
        std=list(trained.std),
    )
    head = _HEAD.format(digest=genotype.digest, version=__version__)
    return "\n".join([head, *map(_definitions, (blocks, _SKELETONS[genotype.skeleton])), end])


def _cell_data(cell: Any) -> blocks.CellData:
    nodes = [[(edge.operation, edge.source) for edge in node] for node in cell.nodes]
    return (cell.reduction, nodes, list(cell.outputs))


def _literal(value: Any) -> str:
    return pprint.pformat(value, width=118, compact=True)


def _definitions(module: ModuleType) -> str:
    """Return what a module defines: its text behind the line that sets ``__all__``, which follows its imports."""
    source = inspect.getsource(module)
    names = next(node for node in ast.parse(source).body if isinstance(node, ast.Assign))
    assert ast.unparse(names.targets[0]) == "__all__"
    return "\n".join(source.splitlines()[names.end_lineno :]).rstrip() + "\n"
