"""NAS-Bench-201 (arXiv 2001.00326): one cell for all, one operation on each of its six edges in the end."""

from __future__ import annotations

from search_spaces.named.template import SpaceTemplate

__all__ = ["NAS_BENCH_201", "NAS_BENCH_201_OPERATIONS"]

NAS_BENCH_201_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""In the order of the benchmark."""

NAS_BENCH_201 = SpaceTemplate(
    summary="NAS-Bench-201: 5 operations, one cell in 3 stages of 5, residual blocks between, one operation an edge",
    operations=NAS_BENCH_201_OPERATIONS,
    sharing="all",
    derivation="edges",
    skeleton="nas_bench_201",
    num_cells=15,
    num_nodes=3,  # the benchmark says 4 and counts the input
)
