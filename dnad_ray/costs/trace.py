"""Costs of a network by tracing it with fvcore; works for any module.

:mod:`dnad_ray.costs.table` is tested against this.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import nn

from search_spaces.genotype import Genotype
from search_spaces.network import NetworkOutput, network_from
from search_spaces.shape import NetworkShape

with warnings.catch_warnings():
    # fvcore uses torch.jit for a script on import and for tracing; both work, but torch warns that they are deprecated,
    # from version to version in another category.
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis

__all__ = ["COUNTER", "Complexity", "Counted", "complexity_of", "count", "image_of"]

COUNTER = f"fvcore-{version('fvcore')} total, eval mode, one image"

# These count 0 on purpose: there is no common convention, fvcore does not count them, and they cost little compared
# with convolutions. A test checks that nothing else is skipped. (The multiplication is that of `noise`, by zero.)
IGNORED_OPERATORS = frozenset(
    {"aten::add", "aten::add_", "aten::mul", "aten::max_pool2d", "aten::avg_pool2d", "aten::pad"}
)


class Complexity(NamedTuple):
    """Cost of a network, or of a part of one, for one image.

    Attributes:
        macs: fvcore's total: multiply-adds of convolutions and linear layers, plus what it counts for batch norm (2
            per element, affine and in eval mode) and adaptive pooling (1 per input).
        macs_conv_linear: The convolution and linear part, which papers call FLOPs.
        params: Parameters.
    """

    macs: int
    macs_conv_linear: int
    params: int


class Counted(NamedTuple):
    """The result of :func:`count`.

    Attributes:
        module: The module that was built, in eval mode.
        cost: Its cost.
        skipped: Operators that fvcore met and does not count.
    """

    module: nn.Module
    cost: Complexity
    skipped: frozenset[str]


@lru_cache(maxsize=4096)
def complexity_of(genotype: Genotype, shape: NetworkShape) -> Complexity:
    """Count the derived network of a genotype, without auxiliary head, by a trace of the whole network.

    Raises:
        GenotypeError: If no operation connects the image with the classifier.
    """
    return count(partial(network_from, genotype, shape), image_of(shape)).cost


def image_of(shape: NetworkShape) -> tuple[int, int, int]:
    """Return the size (C, H, W) of an image."""
    return shape.images.in_channels, shape.images.image_size, shape.images.image_size


def count(build: Callable[[], nn.Module], size: tuple[int, int, int]) -> Counted:
    """Build a module and count its cost for one image by fvcore. Random generators are left as they were.

    Args:
        build: Builds the module; its weights do not matter.
        size: (C, H, W) of the one input.
    """
    # With gradients: without them torch runs attention as one operator that fvcore does not know.
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        module = build().eval()
        analysis = FlopCountAnalysis(_TensorsOnly(module), torch.zeros(1, *size))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        # Without this the tracer repeats, for every network, warnings that the analysis already suppresses.
        logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Also that shapes become constants of the trace, which is correct for the one size that is counted.
            warnings.simplefilter("ignore")
            by_operator = analysis.by_operator()
        cost = Complexity(
            macs=int(analysis.total()),
            macs_conv_linear=int(by_operator["conv"] + by_operator["linear"]),
            params=sum(parameter.numel() for parameter in module.parameters()),
        )
        return Counted(module, cost, frozenset(analysis.unsupported_ops()))


class _TensorsOnly(nn.Module):
    """Hides the taps of a network, because tracing accepts only tensors and a tap can be None."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> Any:
        output = self.module(x)
        return output.logits if isinstance(output, NetworkOutput) else output
