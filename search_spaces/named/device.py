"""A space of operations that run fast where networks are deployed: full convolutions in residual cells."""

from __future__ import annotations

from search_spaces.named.template import SpaceTemplate

__all__ = ["DEVICE"]

_CONVOLUTIONS = ("nor_conv_3x3", "group_conv_3x3", "nor_conv_1x1", "dw_conv_3x3", "dw_conv_5x5")

DEVICE = SpaceTemplate(
    summary="for devices: residual cells of at most two convolutions in a row (plain, grouped, depthwise), no dilation",
    operations=(*_CONVOLUTIONS, "skip_connect"),
    skeleton="nas_bench_201",
    num_cells=9,
    num_nodes=2,
    # Node 0 convolves the input; node 1, the output, is the input plus convolutions of node 0. A search that deletes
    # all convolutions of node 1 makes the network less deep: the cell is the identity then.
    edge_operations=((_CONVOLUTIONS, ("skip_connect",), _CONVOLUTIONS),) * 2,
)
