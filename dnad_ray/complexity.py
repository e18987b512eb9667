"""What a derived network costs: fvcore's count on the network itself."""

from __future__ import annotations

import logging
import warnings
from functools import lru_cache
from importlib.metadata import version
from typing import NamedTuple

import torch

from search_spaces.genotype import Genotype
from search_spaces.network import network_from
from search_spaces.space import NetworkShape

with warnings.catch_warnings():
    # fvcore scripts a loss on import and traces by torch.jit; both work, and torch calls both deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from fvcore.nn import FlopCountAnalysis

__all__ = ["COUNTER", "Complexity", "complexity_of"]

COUNTER = f"fvcore-{version('fvcore')} total, eval mode, one image"

# Nobody agrees on a cost for these, fvcore has none, and next to convolutions they weigh little: they count 0, on
# purpose. A test holds that nothing else is ever skipped.
IGNORED_OPERATORS = frozenset({"aten::add", "aten::add_", "aten::max_pool2d", "aten::avg_pool2d", "aten::pad"})


class Complexity(NamedTuple):
    """Cost of a network for one image.

    Attributes:
        macs: fvcore's total: multiply-adds of convolutions and linear layers, plus what it counts for batch norm (2
            per element, affine and in eval mode) and adaptive pooling (1 per input).
        macs_conv_linear: The convolution and linear part, which papers call FLOPs.
        params: Parameters.
        skipped: Operators that fvcore met and does not count.
    """

    macs: int
    macs_conv_linear: int
    params: int
    skipped: frozenset[str]


@lru_cache(maxsize=4096)
def complexity_of(genotype: Genotype, shape: NetworkShape) -> Complexity:
    """Count the derived network of a genotype, without auxiliary head.

    Raises:
        GenotypeError: If no operation connects the image with the classifier.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # initial weights are drawn; no other stream may notice
        network = network_from(genotype, shape).eval()
        images = torch.zeros(1, shape.in_channels, shape.image_size, shape.image_size)
        analysis = FlopCountAnalysis(_Logits(network), images)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        # Without this the tracer repeats for every network what the analysis has been told not to say.
        logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            # Shapes become constants of the trace: right for the one size that is counted.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            by_operator = analysis.by_operator()
        return Complexity(
            macs=int(analysis.total()),
            macs_conv_linear=int(by_operator["conv"] + by_operator["linear"]),
            params=sum(parameter.numel() for parameter in network.parameters()),
            skipped=frozenset(analysis.unsupported_ops()),
        )


class _Logits(torch.nn.Module):
    """Hides the taps: tracing wants tensors only, and None is none."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images).logits
        return logits
