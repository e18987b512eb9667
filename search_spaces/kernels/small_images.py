"""The supernet on small images: one autograd function per cell or stem, see :mod:`search_spaces.kernels.tape`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from search_spaces.genotype import NUM_INPUTS, Edge
from search_spaces.kernels.bank import Bank, ChainBank
from search_spaces.kernels.states import edge_key
from search_spaces.kernels.tape import Geometry, Rows, Tape, Weighing, as_images, as_rows, windows
from search_spaces.node import WeightedNode
from search_spaces.ops import BatchNorm, FactorizedReduce, Identity, PointwiseNorm, Pool

__all__ = ["Parts", "compute_small", "has_small_inputs", "is_small", "parts_of", "small_stem"]

# Numbers in a state (N x C x H x W) up to which a cell is computed here: above, arithmetic counts for more than calls.
# Measured on CPU with benchmarks/search_step.py.
SMALL_UP_TO = 2**16
# Pixels of an image up to which depthwise convolutions are products with matrices of H * W columns.
_PIXELS_UP_TO = 64


class Parts(NamedTuple):
    """The parts of a cell of the supernet.

    Attributes:
        preprocess: Preprocessing of each input, by source.
        shared: By :func:`search_spaces.kernels.states.edge_key` pools and skip connections, which candidates share.
        nodes: The nodes.
        outputs: Which nodes are the cell's output.
        channels: Width C.
        has_strides: Whether edges from the inputs have stride 2.
        trained: All parameters.
    """

    preprocess: dict[int, FactorizedReduce | PointwiseNorm]
    shared: dict[str, Pool | Identity]
    nodes: list[WeightedNode]
    outputs: tuple[int, ...]
    channels: int
    has_strides: bool
    trained: list[nn.Parameter]


def parts_of(cell: nn.Module, outputs: tuple[int, ...], channels: int, has_strides: bool) -> Parts | None:
    """Return the parts of a :class:`search_spaces.cell.Cell`, None if a part cannot be computed here."""
    preprocess = {int(source): module for source, module in cast(nn.ModuleDict, cell.preprocess).items()}
    shared = dict(cast(nn.ModuleDict, cell.shared).items())
    nodes = list(cast("Iterable[WeightedNode]", cell.nodes))
    is_known = all(isinstance(module, (Pool, Identity)) for module in shared.values())
    if not preprocess or channels % 2 or not is_known or any(node.own for node in nodes):
        return None
    return Parts(
        cast("dict[int, FactorizedReduce | PointwiseNorm]", preprocess),
        cast("dict[str, Pool | Identity]", shared),
        nodes,
        outputs,
        channels,
        has_strides,
        list(cell.parameters()),
    )


def is_small(x: Tensor, channels: int, is_halved: bool = False) -> bool:
    """Whether a state computed from ``x`` (N, _, H, W) is faster here; only on CPUs.

    Args:
        x: The input.
        channels: Channels of the state.
        is_halved: Whether the state has half the sides.
    """
    num_pixels = x.shape[2] * x.shape[3] // (4 if is_halved else 1)
    return (
        x.is_cpu
        and num_pixels <= _PIXELS_UP_TO
        and len(x) * channels * num_pixels <= SMALL_UP_TO
        and not torch.is_autocast_enabled("cpu")
    )


def has_small_inputs(parts: Parts, inputs: Sequence[Tensor | None]) -> bool:
    """Whether a cell is faster here."""
    for source, module in parts.preprocess.items():
        if not is_small(cast(Tensor, inputs[source]), parts.channels, isinstance(module, FactorizedReduce)):
            return False
    return True


def compute_small(parts: Parts, inputs: Sequence[Tensor | None], weights: Sequence[Tensor]) -> Tensor:
    """Compute a cell while training, see :meth:`search_spaces.cell.Cell.forward`."""
    result: Tensor = _SmallCell.apply(parts, *inputs, *weights, *parts.trained)  # type: ignore[no-untyped-call]
    return result


def small_stem(conv: nn.Conv2d, norm: BatchNorm, images: Tensor) -> Tensor:
    """Compute a convolution that keeps the size, and its norm, while training; images have no gradient."""
    result: Tensor = _SmallStem.apply(conv, norm, images, conv.weight, norm.weight, norm.bias)  # type: ignore[no-untyped-call]
    return result


class _SmallStem(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, conv: nn.Conv2d, norm: BatchNorm, images: Tensor, *trained: Tensor) -> Tensor:
        weight, scale, offset = trained
        ctx.tape, ctx.trained = Tape(), trained
        x = Rows(windows(images, weight.shape[2]), is_fixed=True)
        ctx.output = ctx.tape.scaled(ctx.tape.normalised(ctx.tape.pointwise(x, [weight]), [norm]), scale, offset)
        ctx.tape.update_statistics()
        return as_images(ctx.output.data, (images.shape[2], images.shape[3]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.output.add(as_rows(gradients[0]).clone(memory_format=torch.contiguous_format))
        ctx.tape.play_back()
        return None, None, None, *(ctx.tape.gradients.pop(tensor) for tensor in ctx.trained)


class _SmallCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Parts, *tensors: Tensor | None) -> Tensor:
        images, others = tensors[:NUM_INPUTS], cast("Sequence[Tensor]", tensors[NUM_INPUTS:])
        inputs = [None if x is None else Rows(as_rows(x)) for x in images]
        sides = [(0, 0) if x is None else (x.shape[2], x.shape[3]) for x in images]
        run = _Run(parts)
        for source, module in parts.preprocess.items():
            run.preprocess(source, module, cast(Rows, inputs[source]), sides[source])
        output = run.output(others[: len(parts.nodes)])
        run.tape.update_statistics()
        ctx.tape, ctx.inputs, ctx.sides, ctx.output, ctx.others = run.tape, inputs, sides, output, others
        return as_images(output.data, run.sides_of(NUM_INPUTS))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # A copy: steps on the tape overwrite the gradients that they take.
        ctx.output.add(as_rows(gradients[0]).clone(memory_format=torch.contiguous_format))
        ctx.tape.play_back()
        of_inputs = (
            None if x is None or x.gradient is None else as_images(x.gradient, sides)
            for x, sides in zip(ctx.inputs, ctx.sides, strict=True)
        )
        # Removed from the tape: autograd copies a gradient that has another reference.
        return None, *of_inputs, *(ctx.tape.gradients.pop(tensor, None) for tensor in ctx.others)


class _Run:
    """One pass through a cell, with the states that its nodes share.

    Attributes:
        tape: The tape for the gradients.
    """

    def __init__(self, parts: Parts) -> None:
        self.tape = Tape()
        self._parts = parts
        self._states: dict[int, Rows] = {}
        self._input_sides = (0, 0)
        self._computed: dict[object, Rows] = {}

    def sides_of(self, source: int) -> tuple[int, int]:
        """Return height and width of a state."""
        height, width = self._input_sides
        if source < NUM_INPUTS or not self._parts.has_strides:
            return height, width
        return -(-height // 2), -(-width // 2)

    def preprocess(
        self, source: int, module: FactorizedReduce | PointwiseNorm, x: Rows, sides: tuple[int, int]
    ) -> None:
        """Compute the state that nodes read from a rectified input."""
        if isinstance(module, FactorizedReduce):
            projected = self.tape.pointwise(self.tape.halves(x, sides), [module.even.weight, module.odd.weight])
            sides = -(-sides[0] // 2), -(-sides[1] // 2)
        else:
            projected = self.tape.pointwise(x, [module.conv.weight])
        self._states[source] = self.tape.normalised(projected, [module.norm])
        self._input_sides = sides

    def output(self, weights: Sequence[Tensor]) -> Rows:
        """Return the output (num_outputs * C, L) under the architecture weights of each node."""
        parts = self._parts
        some = next(iter(self._states.values())).data
        (height, width), (before, beside) = self.sides_of(NUM_INPUTS), self._input_sides
        size = (parts.channels, some.shape[1] // (before * beside) * height * width)
        # Each node is computed in its place in the output.
        output = some.new_empty(len(parts.outputs), *size)
        places = dict(zip(parts.outputs, output.unbind(), strict=True))
        nodes = []
        for index, (node, own) in enumerate(zip(parts.nodes, weights, strict=True)):
            nodes.append(Rows(places[index] if index in places else some.new_empty(size)))
            if self._node(node, own, nodes[-1]):
                self._states[NUM_INPUTS + index] = nodes[-1]
            else:
                nodes[-1].data.zero_()
        return self.tape.joined(output.view(-1, size[1]), [nodes[index] for index in parts.outputs])

    def _node(self, node: WeightedNode, weights: Tensor, result: Rows) -> bool:
        """Compute a node; returns whether it has any term."""
        sizes = [len(members) * self._parts.channels for members in node.members.values()]
        terms = [self._term(edge) for edge in node.terms]
        if not sizes and not terms:
            return False
        candidates, norms = None, []
        if sizes:
            # The candidates are computed in the matrix that their norms read.
            data = result.data.new_empty(sum(sizes), result.data.shape[1])
            members = []
            for key, place in zip(node.members, data.split(sizes), strict=True):
                bank, sources = cast(Bank, node.banks[key]), node.sources(key)
                norms.append(cast(BatchNorm, bank.norms[-1]))
                if isinstance(bank, ChainBank):
                    x = self._before_last(bank, sources)
                else:
                    x = self._once(("halves", *sources), self._stacked_halves, sources)
                members.append(self.tape.pointwise(x, [bank.pointwise[-1]], place))
            candidates = self.tape.joined(data, members)
        self.tape.weighted_sum(result, terms, candidates, norms, Weighing(weights, node.order))
        return True

    def _before_last(self, bank: ChainBank, sources: list[int]) -> Rows:
        """Compute the candidates of a bank up to their last pointwise convolution."""
        chain, stride, sides = bank.chain, bank.stride, self.sides_of(sources[0])
        x = self._once(("stacked", *sources), self._stacked, sources)
        for layer, weight in enumerate(bank.depthwise):
            if layer:
                projected = self.tape.pointwise(x, [bank.pointwise[layer - 1]])
                x = self.tape.rectified(self.tape.normalised(projected, [cast(BatchNorm, bank.norms[layer - 1])]))
                stride, sides = 1, self.sides_of(NUM_INPUTS)
            x = self.tape.depthwise(x, weight, Geometry(sides, chain.kernel, stride, chain.dilation))
        return x

    def _term(self, edge: Edge) -> Rows:
        state, operation = self._states[edge.source], self._parts.shared[edge_key(edge)]
        if isinstance(operation, Identity):
            return state
        return self._once(edge_key(edge), self._pooled, edge.source, operation)

    def _pooled(self, source: int, pool: Pool) -> Rows:
        pooled = self.tape.pooled(self._states[source], self.sides_of(source), pool.stride, pool.average)
        return self.tape.normalised(pooled, [cast(BatchNorm, pool.norm)])

    def _rectified(self, source: int) -> Rows:
        return self._once(("relu", source), self.tape.rectified, self._states[source])

    def _stacked(self, sources: Sequence[int]) -> Rows:
        return self.tape.stacked([self._rectified(source) for source in sources])

    def _halves(self, source: int) -> Rows:
        return self._once(("halves", source), self.tape.halves, self._rectified(source), self.sides_of(source))

    def _stacked_halves(self, sources: Sequence[int]) -> Rows:
        return self.tape.stacked([self._halves(source) for source in sources])

    def _once(self, key: object, compute: Callable[..., Rows], *arguments: Any) -> Rows:
        if key not in self._computed:
            self._computed[key] = compute(*arguments)
        return self._computed[key]
