"""A plain supernet, as DARTS-family code writes it: what the benchmarks compare with and the tests take as the truth.

One module per candidate with a ReLU of its own, NCHW, a Python loop over the candidates of each node with an ``if`` on
each weight, every pooling computed anew for every target, deleted candidates skipped by the loop but kept in memory.
Names of modules are those of the candidates, so that weights can be copied to and from the project's supernet.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from search_spaces.kernels.states import edge_key

NONE = "none"


def norm(channels):
    return nn.BatchNorm2d(channels, affine=False)


class ReLUConvBN(nn.Sequential):
    def __init__(self, channels_in, channels):
        super().__init__(nn.ReLU(), nn.Conv2d(channels_in, channels, 1, bias=False), norm(channels))


class SepConv(nn.Sequential):
    def __init__(self, channels, kernel, stride):
        pad = kernel // 2
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, pad, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, 1, pad, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm(channels),
        )


class DilConv(nn.Sequential):
    def __init__(self, channels, kernel, stride):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, kernel - 1, dilation=2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm(channels),
        )


class Conv7x1(nn.Sequential):
    def __init__(self, channels, stride):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
            nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
            norm(channels),
        )


class Conv(nn.Sequential):
    def __init__(self, channels, kernel, stride, groups=1):
        convolution = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(nn.ReLU(), convolution, norm(channels))


class DepthwiseConv(nn.Sequential):
    def __init__(self, channels, kernel, stride):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm(channels),
        )


class FactorizedReduce(nn.Module):
    def __init__(self, channels_in, channels):
        super().__init__()
        self.conv_1 = nn.Conv2d(channels_in, channels // 2, 1, 2, bias=False)
        self.conv_2 = nn.Conv2d(channels_in, channels - channels // 2, 1, 2, bias=False)
        self.bn = norm(channels)

    def forward(self, x):
        x = F.relu(x)
        shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(shifted)], 1))


OPERATIONS = {
    "sep_conv_3x3": lambda c, stride: SepConv(c, 3, stride),
    "sep_conv_5x5": lambda c, stride: SepConv(c, 5, stride),
    "sep_conv_7x7": lambda c, stride: SepConv(c, 7, stride),
    "dil_conv_3x3": lambda c, stride: DilConv(c, 3, stride),
    "dil_conv_5x5": lambda c, stride: DilConv(c, 5, stride),
    "conv_7x1_1x7": Conv7x1,
    "nor_conv_1x1": lambda c, stride: Conv(c, 1, stride),
    "nor_conv_3x3": lambda c, stride: Conv(c, 3, stride),
    "group_conv_3x3": lambda c, stride: Conv(c, 3, stride, c // math.gcd(c, 8)),  # groups of 8 channels
    "dw_conv_3x3": lambda c, stride: DepthwiseConv(c, 3, stride),
    "dw_conv_5x5": lambda c, stride: DepthwiseConv(c, 5, stride),
    "max_pool_3x3": lambda c, stride: nn.Sequential(nn.MaxPool2d(3, stride, 1), norm(c)),
    "avg_pool_3x3": lambda c, stride: nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), norm(c)),
    "skip_connect": lambda c, stride: nn.Identity() if stride == 1 else FactorizedReduce(c, c),
}


class PlainCell(nn.Module):
    def __init__(self, operations, num_nodes, channels_in, channels, is_reduction, older_is_larger):
        super().__init__()
        older, newer = channels_in
        self.num_nodes, self.channels, self.is_reduction = num_nodes, channels, is_reduction
        self.preprocess0 = FactorizedReduce(older, channels) if older_is_larger else ReLUConvBN(older, channels)
        self.preprocess1 = ReLUConvBN(newer, channels)
        self.edges = nn.ModuleDict()  # "node source operation"
        for node in range(num_nodes):
            for source in range(2 + node):
                for name in operations:
                    stride = 2 if is_reduction and source < 2 else 1
                    if name != NONE:
                        self.edges[f"{node} {source} {name}"] = OPERATIONS[name](channels, stride)

    def forward(self, older, newer, weights):
        """Sum, for each node, what is alive; ``weights`` has an entry for each (node, source, operation)."""
        states = [self.preprocess0(older), self.preprocess1(newer)]
        side = -(-states[1].shape[2] // 2) if self.is_reduction else states[1].shape[2]
        for node in range(self.num_nodes):
            total = 0
            for (target, source, name), weight in weights.items():
                if target == node and name != NONE and weight > 0:
                    total = total + weight * self.edges[f"{node} {source} {name}"](states[source])
            if isinstance(total, int):
                total = newer.new_zeros(len(newer), self.channels, side, side)
            states.append(total)
        return torch.cat(states[2:], 1)


class PlainSupernet(nn.Module):
    """The same network as ``Supernet(space, shape)`` with the CIFAR stem, before anything is deleted."""

    def __init__(self, operations, num_cells, num_nodes, in_channels, channels, num_classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 3 * channels, 3, padding=1, bias=False))
        self.stem.append(nn.BatchNorm2d(3 * channels))
        self.reductions = {num_cells // 3, 2 * num_cells // 3}
        self.cells = nn.ModuleList()
        older, newer, older_is_larger = 3 * channels, 3 * channels, False
        for index in range(num_cells):
            is_reduction = index in self.reductions
            channels *= 1 + is_reduction
            self.cells.append(PlainCell(operations, num_nodes, (older, newer), channels, is_reduction, older_is_larger))
            older, newer, older_is_larger = newer, num_nodes * channels, is_reduction
        self.classifier = nn.Linear(newer, num_classes)

    def forward(self, images, candidates, weights):
        """Classify under ``weights`` (num_alive,) of ``candidates``: (cell, node, (operation, source)) each."""
        per_cell = [{} for _ in self.cells]
        for (cell, node, (operation, source)), weight in zip(candidates, weights, strict=True):
            per_cell[cell][node, source, operation] = weight
        older = newer = self.stem(images)
        outputs = []
        for cell, own in zip(self.cells, per_cell, strict=True):
            older, newer = newer, cell(older, newer, own)
            outputs.append(newer)
        return self.classifier(newer.mean((2, 3))), outputs


def twins(supernet):
    """Return for each parameter and buffer that means something in the plain net (our name, our rows).

    Args:
        supernet: A ``search_spaces.supernet.Supernet``, perhaps with candidates deleted.
    """
    pairs = {"stem.0.weight": ("stem.conv.weight", ...), "classifier.weight": ("classifier.linear.weight", ...)}
    pairs["classifier.bias"] = ("classifier.linear.bias", ...)
    for name in ("weight", "bias", "running_mean", "running_var"):
        pairs[f"stem.1.{name}"] = (f"stem.norm.{name}", ...)

    def add_norm(plain, ours, rows=...):
        for name in ("running_mean", "running_var"):
            pairs[f"{plain}.{name}"] = (f"{ours}.{name}", rows)

    for index, cell in supernet.network.cells.items():
        for source, module in cell.preprocess.items():
            plain, ours = f"cells.{index}.preprocess{source}", f"cells.{index}.preprocess.{source}"
            if hasattr(module, "even"):
                pairs[f"{plain}.conv_1.weight"] = (f"{ours}.even.weight", ...)
                pairs[f"{plain}.conv_2.weight"] = (f"{ours}.odd.weight", ...)
                add_norm(f"{plain}.bn", f"{ours}.norm")
            else:
                pairs[f"{plain}.1.weight"] = (f"{ours}.conv.weight", ...)
                add_norm(f"{plain}.2", f"{ours}.norm")
        for number, node in enumerate(cell.nodes):
            for edge in node.terms:
                plain = f"cells.{index}.edges.{number} {edge.source} {edge.operation}"
                key = edge_key(edge)
                if edge.operation.startswith(("nor_conv", "group_conv")):
                    ours = f"cells.{index}.nodes.{number}.own.{key}"
                    pairs[f"{plain}.1.weight"] = (f"{ours}.conv.weight", ...)
                    add_norm(f"{plain}.2", f"{ours}.norm")
                elif key in node.own:  # a convolution 1x7, 7x1
                    ours = f"cells.{index}.nodes.{number}.own.{key}"
                    pairs[f"{plain}.1.weight"] = (f"{ours}.row.weight", ...)
                    pairs[f"{plain}.2.weight"] = (f"{ours}.column.weight", ...)
                    add_norm(f"{plain}.3", f"{ours}.norm")
                elif edge.operation != "skip_connect":
                    add_norm(f"{plain}.1", f"cells.{index}.shared.{key}.norm")
            for key, edges in node.members.items():
                ours, width = f"cells.{index}.nodes.{number}.banks.{key}", node.banks[key].channels
                for position, edge in enumerate(edges):
                    plain = f"cells.{index}.edges.{number} {edge.source} {edge.operation}"
                    start, end = position * width, (position + 1) * width
                    if edge.operation == "skip_connect":
                        half = start + width // 2
                        pairs[f"{plain}.conv_1.weight"] = (f"{ours}.pointwise.0", slice(start, half))
                        pairs[f"{plain}.conv_2.weight"] = (f"{ours}.pointwise.0", slice(half, end))
                        add_norm(f"{plain}.bn", f"{ours}.norms.0", slice(start, end))
                    else:
                        for layer in range(len(node.banks[key].norms)):
                            pairs[f"{plain}.{4 * layer + 1}.weight"] = (f"{ours}.depthwise.{layer}", slice(start, end))
                            pairs[f"{plain}.{4 * layer + 2}.weight"] = (f"{ours}.pointwise.{layer}", slice(start, end))
                            add_norm(f"{plain}.{4 * layer + 3}", f"{ours}.norms.{layer}", slice(start, end))
    return {plain: (f"network.{ours}", rows) for plain, (ours, rows) in pairs.items()}


@torch.no_grad()
def copy_weights(supernet, plain):
    """Give a plain supernet the parameters and running statistics of one of ours."""
    ours, theirs = supernet.state_dict(), plain.state_dict()
    for name, (own, rows) in twins(supernet).items():
        theirs[name].copy_(ours[own][rows].reshape(theirs[name].shape))
