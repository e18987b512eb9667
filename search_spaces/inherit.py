"""Conversion of the shared weights of a supernet to the weights of a derived network.

The supernet mixes candidates by architecture weights and normalises without scale; the derived network adds plain terms
and has scales. An architecture weight therefore becomes the scale of the candidate's last norm. A term without
parameters (an identity, a bare pool) has no parameter for its weight: the whole node is then divided by it, and inputs
that read the node from another cell are multiplied by it. Layers in between (ReLU, convolutions followed by a norm) are
not changed by a positive factor, except for the small constant in the norms.

That is exact where no node has a pool or several identities: the supernet normalises pools, the derived network does
not, and one factor cannot stand for several. Re-estimated statistics and fine-tuning correct the rest.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from search_spaces.cell import Cell
from search_spaces.genotype import NUM_INPUTS, Edge, Genotype
from search_spaces.kernels.bank import Bank, ChainBank
from search_spaces.kernels.states import edge_key
from search_spaces.network import CellNetwork, network_from
from search_spaces.node import WeightedNode
from search_spaces.ops import OPERATIONS
from search_spaces.shape import NetworkShape
from search_spaces.supernet import Supernet

__all__ = ["inherited_network"]


@torch.no_grad()
def inherited_network(supernet: Supernet, genotype: Genotype, weights: Tensor, shape: NetworkShape) -> CellNetwork:
    """Return the derived network of some alive candidates with the weights of the supernet.

    Args:
        supernet: The supernet, of the skeleton ``darts``; it is not changed.
        genotype: The derived genotype, in canonical form.
        weights: Architecture weights (num_alive,), see :attr:`search_spaces.supernet.Supernet.candidates`.
        shape: Width and images of the supernet.

    Returns:
        A network on the CPU, in training mode, which shares no memory with the supernet.
    """
    with torch.random.fork_rng(devices=[]):
        network = cast(CellNetwork, network_from(genotype, shape))
    share = {
        (item.cell, item.node, item.edge): float(weight)
        for item, weight in zip(supernet.candidates, weights.tolist(), strict=True)
    }
    source = cast(CellNetwork, supernet.network)
    _copy(source.stem, network.stem)
    _copy(source.classifier, network.classifier)
    scales: dict[int, list[float]] = {}
    for key, module in network.cells.items():
        index, cell, old = int(key), cast(Cell, module), cast(Cell, source.cells[key])
        for name, preprocess in cell.preprocess.items():
            _copy(old.preprocess[name], preprocess)
            before = scales.get(index - 2 + int(name))
            if before is not None:
                for conv in preprocess.modules():
                    if isinstance(conv, nn.Conv2d):
                        _scale_inputs(conv.weight, before)
        states = [1.0] * NUM_INPUTS
        for number, edges in enumerate(genotype.cells[index].nodes):
            factors = {edge: share[index, number, edge] for edge in edges}
            bare = [factors[edge] * states[edge.source] for edge in edges if _is_bare(edge, cell)]
            scale = sum(bare) / len(bare) if bare else 1.0
            node = cast(WeightedNode, old.nodes[number])
            for edge in edges:
                if not _is_bare(edge, cell):
                    target = cast(nn.ModuleDict, cell.nodes[number].own)[edge_key(edge)]
                    _fill(target, node, edge, factors[edge] / scale, states[edge.source])
            states.append(scale)
        scales[index] = states[NUM_INPUTS:]
    _scale_inputs(network.classifier.linear.weight, scales[len(genotype.cells) - 1])
    return network


def _is_bare(edge: Edge, cell: Cell) -> bool:
    """Whether the derived cell computes an edge without parameters."""
    return edge_key(edge) in cell.shared


def _fill(target: nn.Module, node: WeightedNode, edge: Edge, factor: float, divided: float) -> None:
    """Copy the weights of a candidate into an operation of the derived network.

    Args:
        target: The operation.
        node: The node of the supernet.
        edge: The candidate.
        factor: Scale of the last norm.
        divided: Divisor of the state that it reads; the input of its first norm is smaller by it.
    """
    assert OPERATIONS[edge.operation] is not None
    norms = [module for module in target.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:  # noise has no scale for its weight
        return
    for key, members in node.members.items():
        if edge in members:
            _fill_from_bank(target, norms, cast(Bank, node.banks[key]), members.index(edge))
            break
    else:
        _copy(node.own[edge_key(edge)], target)
    norms[-1].weight.fill_(factor)
    cast(Tensor, norms[0].running_mean).div_(divided)
    cast(Tensor, norms[0].running_var).div_(divided**2)


def _fill_from_bank(target: nn.Module, norms: list[nn.BatchNorm2d], bank: Bank, position: int) -> None:
    rows = slice(position * bank.channels, (position + 1) * bank.channels)
    if isinstance(bank, ChainBank):
        for layer, pointwise in enumerate(cast(nn.ModuleList, target.pointwise)):
            depthwise = cast(nn.Conv2d, cast(nn.ModuleList, target.depthwise)[layer])
            depthwise.weight.copy_(bank.depthwise[layer][rows])
            cast(nn.Conv2d, pointwise).weight.copy_(bank.pointwise[layer][rows][:, :, None, None])
    else:
        even, odd = cast(nn.Conv2d, target.even), cast(nn.Conv2d, target.odd)
        kernel = bank.pointwise[0][rows][:, :, None, None]
        even.weight.copy_(kernel[: even.out_channels])
        odd.weight.copy_(kernel[even.out_channels :])
    for norm, shared in zip(norms, bank.norms, strict=True):
        cast(Tensor, norm.running_mean).copy_(cast(Tensor, shared.running_mean)[rows])
        cast(Tensor, norm.running_var).copy_(cast(Tensor, shared.running_var)[rows])


def _copy(old: nn.Module, new: nn.Module) -> None:
    """Copy the parameters that both have; scales and offsets that only the target has stay at 1 and 0."""
    theirs = old.state_dict()
    for name, tensor in new.state_dict().items():
        if name in theirs:
            tensor.copy_(theirs[name])


def _scale_inputs(weight: Tensor, scales: list[float]) -> None:
    """Multiply the weights of a projection for each node of a cell by the factor of that node.

    Args:
        weight: (out, num_nodes * C, ...).
        scales: One for each node.
    """
    factors = torch.tensor(scales).repeat_interleave(weight.shape[1] // len(scales)).to(weight)
    weight *= factors.view(1, -1, *[1] * (weight.dim() - 2))
