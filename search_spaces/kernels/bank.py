"""Banks: all candidates of one kind that a node of the supernet applies to several states, computed together."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.kernels.depthwise import depthwise_conv
from search_spaces.kernels.projection import Projection, Statistics, normalised
from search_spaces.kernels.states import States
from search_spaces.ops import BatchNorm, DepthwiseChain

__all__ = ["Bank", "ChainBank", "ReductionBank", "Sliced", "is_grouped", "is_unfolded", "side_by_side"]

# Numbers in a state (N x C x H x W) below which candidates are computed as one group: there the calls cost more than
# the arithmetic. Above, a group would only fill the caches. Measured on CPU with benchmarks/search_step.py; elsewhere
# candidates are always grouped, because what counts there are launches (not measured).
GROUPED_BELOW = 2**17
# Numbers in a group (N x size * C x H' x W') up to which its norms are not folded into products: there the small calls
# that folding takes cost more than the passes that it saves. Measured likewise; never on other devices.
UNFOLDED_UP_TO = 2**17
# Channels of a group up to which its pointwise kernels are one matrix with zeros in it, and one product.
NARROW_UP_TO = 32


class Sliced(NamedTuple):
    """A parameter that lost rows.

    Attributes:
        parameter: The parameter, already smaller.
        rows: The old positions of the rows that it kept, ascending (num_kept,).
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

    The parameters of all candidates are in one tensor per layer, C rows each, so that one kernel computes them together
    and the optimizer updates them together. The rows of a deleted candidate are removed.

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
            sources: The state that each candidate reads.
        """
        raise NotImplementedError

    def summed(self, states: States, sources: Sequence[int], weights: Tensor) -> Tensor:
        """Return the sum of the candidates times their architecture weights (N, C, H', W'), nothing folded.

        Args:
            states: The states of the cell.
            sources: The state that each candidate reads.
            weights: Of all candidates of the node (num_edges,); as scale of the last norm they cost no pass.
        """
        raise NotImplementedError

    def keep(self, positions: Sequence[int]) -> list[Sliced]:
        """Keep only the candidates at some positions, ascending; gradients are reset."""
        start = torch.tensor(positions, device=self.pointwise[0].device) * self.channels
        rows = (start[:, None] + torch.arange(self.channels, device=start.device)).flatten()
        for norm in cast("Iterable[BatchNorm]", self.norms):
            norm.running_mean, norm.running_var = norm.running_mean[rows], norm.running_var[rows]  # type: ignore[index]
            norm.num_features = len(rows)
        for parameter in self.parameters():
            parameter.data, parameter.grad = parameter.data[rows], None
        return [Sliced(parameter, rows) for parameter in self.parameters()]

    def place(self, positions: Sequence[int]) -> None:
        """Store the positions of the candidates' architecture weights among those of their node."""
        order = torch.tensor(positions, dtype=torch.int64, device=self.pointwise[0].device)
        # One entry for each channel: the weights become the scale of a norm.
        self.register_buffer("channel_order", order.repeat_interleave(self.channels), persistent=False)
        self.channel_order: Tensor

    def normalised(self, x: Tensor, layer: int, scale: Tensor | None, candidates: slice) -> Tensor:
        """Return the norm of a layer of ``x`` (N, size * C, H, W), for some candidates, times ``scale`` (size * C,)."""
        entry = self.statistics(layer, candidates)
        return F.batch_norm(x, entry.mean, entry.var, scale, None, entry.of_batch, entry.momentum, entry.eps)

    def statistics(self, layer: int, candidates: slice) -> Statistics:
        """Return the running statistics of the norm of a layer for some candidates."""
        norm = cast(BatchNorm, self.norms[layer])
        mean, var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        rows = slice(candidates.start * self.channels, candidates.stop * self.channels)
        if rows != slice(0, len(mean)):
            mean, var = mean[rows], var[rows]
        return Statistics(mean, var, cast(float, norm.momentum), norm.eps, norm.training)


@final
class ChainBank(Bank):
    """Candidates that are a :class:`search_spaces.ops.DepthwiseChain`.

    Args:
        chain: The operation of each candidate.
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
        """Return one group of all candidates if states are small, and else one group for each candidate."""
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
            x = self.before_last(states, [source], layers)
            result.append(Projection(x, layers[-1].pointwise, *layers[-1].statistics))
        return result

    def summed(self, states: States, sources: Sequence[int], weights: Tensor) -> Tensor:
        """Compute the candidates as one group."""
        scale = weights.index_select(0, self.channel_order)
        skip, stride, dilation = self.chain.first_step(self.stride)
        x, arranged = states.for_chains(sources, skip > 1)
        for layer, (depthwise, pointwise) in enumerate(zip(self.depthwise, self.pointwise, strict=True)):
            x = depthwise_conv(F.relu(x) if layer else x, depthwise, stride, dilation, None if layer else arranged)
            is_last = layer == self.chain.repeats - 1
            x = self.normalised(_products(x, pointwise), layer, scale if is_last else None, slice(0, len(sources)))
            stride, dilation = 1, self.chain.dilation
        return _sum_of_group(x, len(sources))

    def before_last(self, states: States, sources: Sequence[int], layers: Sequence[_Layer]) -> Tensor:
        """Compute a group up to its last projection (N, size * C, H', W')."""
        skip, stride, dilation = self.chain.first_step(self.stride)
        x, arranged = states.for_chains(sources, skip > 1)
        x = depthwise_conv(x, layers[0].depthwise, stride, dilation, arranged)
        for before, layer in itertools.pairwise(layers):
            x = normalised(Projection(x, before.pointwise, before.statistics[0]), *before.statistics[1:])
            x = depthwise_conv(x, layer.depthwise, 1, self.chain.dilation)
        return x


def is_unfolded(states: States, sources: Sequence[int], stride: int) -> bool:
    """Whether candidates that read some sources are better computed without folding, by :meth:`Bank.summed`."""
    state = states.raw(sources[0])
    return state.is_cpu and len(sources) * state.numel() // stride**2 <= UNFOLDED_UP_TO


def is_grouped(states: States, sources: Sequence[int]) -> bool:
    """Whether candidates that read some sources are better computed as one group."""
    state = states.raw(sources[0])
    return len(sources) > 1 and (not state.is_cpu or state.numel() < GROUPED_BELOW)


def side_by_side(banks: Sequence[ChainBank], states: States, sources: Sequence[Sequence[int]]) -> list[Projection]:
    """Compute banks of one kind and stride as one group, up to a last projection for each bank.

    Args:
        banks: Perhaps of several nodes.
        states: The states of the cell.
        sources: For each bank the states that its candidates read.
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
    x = first.before_last(states, [source for own in sources for source in own], layers)
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
        """Return one group for each candidate; candidates of a cell that read the same source share the input."""
        return [
            Projection(states.halves(source), kernel, self.statistics(0, slice(index, index + 1)))
            for index, (source, kernel) in enumerate(zip(sources, self._kernels(), strict=True))
        ]

    def summed(self, states: States, sources: Sequence[int], weights: Tensor) -> Tensor:
        """Compute one candidate after the other."""
        scale = weights.index_select(0, self.channel_order)
        terms = []
        for index, (source, kernel, own) in enumerate(
            zip(sources, self._kernels(), scale.split(self.channels), strict=True)
        ):
            product = (states.halves(source).permute(0, 2, 3, 1) @ kernel.t()).permute(0, 3, 1, 2)
            terms.append(self.normalised(product, 0, own, slice(index, index + 1)))
        return functools.reduce(torch.add, terms)

    def _kernels(self) -> tuple[Tensor, ...]:
        """Return for each candidate its kernel on even and odd pixels (C, 2C)."""
        # The first half of the output channels reads the even pixels, the second the odd ones.
        kernels = self.pointwise[0].view(-1, self.channels, self.channels)
        even, odd = kernels.split([self.channels // 2, self.channels - self.channels // 2], 1)
        return torch.cat([F.pad(even, (0, self.channels)), F.pad(odd, (self.channels, 0))], 1).unbind()


def _products(x: Tensor, kernel: Tensor) -> Tensor:
    """Apply to each candidate of a group (N, size * C, H, W) its pointwise kernel, of (size * C, C)."""
    channels = kernel.shape[1]
    pixels = x.permute(0, 2, 3, 1)
    if len(kernel) == channels:
        return (pixels @ kernel.t()).permute(0, 3, 1, 2)
    kernels = kernel.view(-1, channels, channels)
    if len(kernel) <= NARROW_UP_TO:
        blocks = torch.diag_embed(kernels.permute(1, 2, 0), dim1=0, dim2=2)
        return (pixels @ blocks.reshape(len(kernel), len(kernel)).t()).permute(0, 3, 1, 2)
    candidates = pixels.reshape(-1, len(kernels), channels).transpose(0, 1)
    products = torch.bmm(candidates, kernels.transpose(1, 2))
    return products.transpose(0, 1).reshape(pixels.shape).permute(0, 3, 1, 2)


def _sum_of_group(x: Tensor, size: int) -> Tensor:
    """Add the candidates of a group (N, size * C, H, W) up, to (N, C, H, W)."""
    if size == 1:
        return x
    total: Tensor = x.permute(0, 2, 3, 1).unflatten(3, (size, -1)).sum(3)
    return total.permute(0, 3, 1, 2)


def _initial(*size: int) -> nn.Parameter:
    parameter = nn.Parameter(torch.empty(size))
    nn.init.kaiming_uniform_(parameter, a=5**0.5)  # as nn.Conv2d does for each candidate's own kernel
    return parameter
