"""Banks: the candidates of one kind that a node of the supernet applies to several states, side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.depthwise import depthwise_conv
from search_spaces.ops import BatchNorm, DepthwiseChain
from search_spaces.pixels import even_pixels
from search_spaces.projection import Projection, Statistics, normalised
from search_spaces.states import States

__all__ = ["Bank", "ChainBank", "ReductionBank", "Sliced", "is_grouped", "side_by_side"]

# Numbers in a state (N x C x H x W) below which candidates are computed as one group: there the calls cost more than
# the arithmetic. Above, a group would only fill the caches. Measured on CPU with benchmarks/search_step.py; elsewhere
# candidates are always grouped, because what counts there are launches (not measured).
GROUPED_BELOW = 2**17


class Sliced(NamedTuple):
    """A parameter that lost rows.

    Attributes:
        parameter: The parameter, already smaller.
        rows: What it kept of the rows it had, ascending (num_kept,).
    """

    parameter: nn.Parameter
    rows: Tensor


class _Layer(NamedTuple):
    """A depthwise and a pointwise convolution of a group, and the norms behind them, one for each of its banks."""

    depthwise: Tensor
    pointwise: Tensor
    statistics: list[Statistics]


class Bank(nn.Module):
    """Abstract: candidates of one kind and stride into one node, one per source.

    The parameters of all candidates stand in one tensor per layer, C rows each, so that one kernel can compute them
    together and one update of the optimizer reaches them all. A deleted candidate's rows are cut out.

    Args:
        num_candidates: How many there are.
        channels: Width C of each.
        num_layers: Norms, and projections before them, of each.
    """

    def __init__(self, num_candidates: int, channels: int, num_layers: int) -> None:
        super().__init__()
        self.channels = channels
        self.norms = nn.ModuleList(BatchNorm(num_candidates * channels, affine=False) for _ in range(num_layers))
        self.pointwise = nn.ParameterList(_initial(num_candidates * channels, channels) for _ in range(num_layers))

    def forward(self, states: States, sources: Sequence[int]) -> list[Projection]:
        """Compute the candidates up to their last projection.

        Args:
            states: The states of the cell.
            sources: What each candidate reads.
        """
        raise NotImplementedError

    def keep(self, positions: Sequence[int]) -> list[Sliced]:
        """Cut the bank down to the candidates at some positions, ascending; gradients start anew."""
        start = torch.tensor(positions, device=self.pointwise[0].device) * self.channels
        rows = (start[:, None] + torch.arange(self.channels, device=start.device)).flatten()
        for norm in cast("Iterable[BatchNorm]", self.norms):
            norm.running_mean, norm.running_var = norm.running_mean[rows], norm.running_var[rows]  # type: ignore[index]
            norm.num_features = len(rows)
        for parameter in self.parameters():
            parameter.data, parameter.grad = parameter.data[rows], None
        return [Sliced(parameter, rows) for parameter in self.parameters()]

    def statistics(self, layer: int, candidates: slice) -> Statistics:
        """Return what the norm of a layer keeps of some candidates."""
        norm = cast(BatchNorm, self.norms[layer])
        rows = slice(candidates.start * self.channels, candidates.stop * self.channels)
        mean, var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        return Statistics(mean[rows], var[rows], cast(float, norm.momentum), norm.eps, norm.training)


@final
class ChainBank(Bank):
    """Candidates that are a :class:`search_spaces.ops.DepthwiseChain`.

    Args:
        chain: What a candidate computes.
        num_candidates: How many there are.
        channels: Width C of each.
        stride: Stride of the first convolution.
    """

    def __init__(self, chain: DepthwiseChain, num_candidates: int, channels: int, stride: int) -> None:
        super().__init__(num_candidates, channels, chain.repeats)
        self.chain, self.stride = chain, stride
        self.depthwise = nn.ParameterList(
            _initial(num_candidates * channels, 1, chain.kernel, chain.kernel) for _ in range(chain.repeats)
        )

    def forward(self, states: States, sources: Sequence[int]) -> list[Projection]:
        """Return one group of all candidates where states are small, and else a group of one for each."""
        if is_grouped(states, sources):
            return side_by_side([self], states, [sources])
        split = [
            list(zip(depthwise.split(self.channels), pointwise.split(self.channels), strict=True))
            for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True)
        ]
        result = []
        for index, source in enumerate(sources):
            layers = [
                _Layer(*one_of[index], [self.statistics(layer, slice(index, index + 1))])
                for layer, one_of in enumerate(split)
            ]
            x = self.before_last(states.rectified(source), layers)
            result.append(Projection(x, layers[-1].pointwise, *layers[-1].statistics))
        return result

    def before_last(self, x: Tensor, layers: Sequence[_Layer]) -> Tensor:
        """Compute a group up to its last projection: from its rectified sources (N, size * C, H, W)."""
        skip, stride, dilation = self.chain.first_step(self.stride)
        if skip > 1:
            x = even_pixels(x)
        x = depthwise_conv(x, layers[0].depthwise, stride, dilation)
        for before, layer in itertools.pairwise(layers):
            x = normalised(Projection(x, before.pointwise, before.statistics[0]), *before.statistics[1:])
            x = depthwise_conv(x, layer.depthwise, 1, self.chain.dilation)
        return x


def is_grouped(states: States, sources: Sequence[int]) -> bool:
    """Whether candidates that read some sources are better computed as one group."""
    state = states.raw(sources[0])
    return len(sources) > 1 and (not state.is_cpu or state.numel() < GROUPED_BELOW)


def side_by_side(banks: Sequence[ChainBank], states: States, sources: Sequence[Sequence[int]]) -> list[Projection]:
    """Compute banks of one kind and stride as one group, up to a last projection for each bank.

    Args:
        banks: Perhaps of several nodes.
        states: The states of the cell.
        sources: For each bank what its candidates read.
    """
    first = banks[0]
    layers = []
    for layer in range(first.chain.repeats):
        depthwise, pointwise = [bank.depthwise[layer] for bank in banks], [bank.pointwise[layer] for bank in banks]
        layers.append(
            _Layer(
                depthwise[0] if len(banks) == 1 else torch.cat(depthwise),
                pointwise[0] if len(banks) == 1 else torch.cat(pointwise),
                [bank.statistics(layer, slice(0, len(own))) for bank, own in zip(banks, sources, strict=True)],
            )
        )
    x = first.before_last(states.side_by_side([source for own in sources for source in own]), layers)
    parts = [x] if len(banks) == 1 else x.split([len(own) * first.channels for own in sources], 1)
    return [
        Projection(part, bank.pointwise[-1], statistics)
        for part, bank, statistics in zip(parts, banks, layers[-1].statistics, strict=True)
    ]


@final
class ReductionBank(Bank):
    """Skip connections of stride 2, see :class:`search_spaces.ops.FactorizedReduce`.

    Args:
        num_candidates: How many there are.
        channels: Width C of each.
    """

    def __init__(self, num_candidates: int, channels: int) -> None:
        super().__init__(num_candidates, channels, 1)

    def forward(self, states: States, sources: Sequence[int]) -> list[Projection]:
        """Return a group of one for each candidate; those of a cell that read one source share what they project."""
        # The first half of the output channels reads the even pixels, the second the odd ones.
        of_even = self.channels // 2
        projections = []
        for index, (source, kernel) in enumerate(zip(sources, self.pointwise[0].split(self.channels), strict=True)):
            even, odd = F.pad(kernel[:of_even], (0, self.channels)), F.pad(kernel[of_even:], (self.channels, 0))
            statistics = self.statistics(0, slice(index, index + 1))
            projections.append(Projection(states.halves(source), torch.cat([even, odd]), statistics))
        return projections


def _initial(*size: int) -> nn.Parameter:
    parameter = nn.Parameter(torch.empty(size))
    nn.init.kaiming_uniform_(parameter, a=5**0.5)  # as nn.Conv2d does for each candidate's own kernel
    return parameter
