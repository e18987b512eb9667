"""Subsets of the space of DARTS in which searches collapse easily: S1 to S4 of RobustDARTS (arXiv 1909.09656)."""

from __future__ import annotations

from dataclasses import replace

from search_spaces.named.darts import DARTS

__all__ = ["S1", "S2", "S3", "S4"]

_SKIP_3, _SKIP_5 = ("skip_connect", "dil_conv_3x3"), ("skip_connect", "dil_conv_5x5")
_SKIP_SEP, _POOLS, _DILATED = (
    ("skip_connect", "sep_conv_3x3"),
    ("max_pool_3x3", "avg_pool_3x3"),
    ("dil_conv_3x3", "dil_conv_5x5"),
)
_POOL_SKIP, _POOL_DILATED, _POOL_SEP = (
    ("max_pool_3x3", "skip_connect"),
    ("max_pool_3x3", "dil_conv_3x3"),
    ("max_pool_3x3", "sep_conv_3x3"),
)

S1 = replace(
    DARTS,
    summary="S1 of RobustDARTS: two operations on each edge, other ones on others, cells as in DARTS",
    operations=(
        *("skip_connect", "dil_conv_3x3", "dil_conv_5x5"),
        *("sep_conv_3x3", "max_pool_3x3", "avg_pool_3x3"),
    ),
    edge_operations=(
        (
            *(_SKIP_3, _SKIP_5),
            *(_SKIP_5, _SKIP_SEP, _SKIP_3),
            *(_POOL_SKIP, _SKIP_SEP, _SKIP_SEP, _SKIP_3),
            *(_SKIP_SEP, _POOL_SKIP, _SKIP_3, _DILATED, _DILATED),
        ),
        (
            *(_POOLS, _POOL_DILATED),
            *(_POOLS, _POOLS, _SKIP_5),
            *(_POOLS, _POOL_SEP, _SKIP_3, _SKIP_5),
            *(_POOLS, _POOLS, _SKIP_5, _SKIP_5, _SKIP_5),
        ),
    ),
)

S2 = replace(
    DARTS,
    summary="S2 of RobustDARTS: separable convolution or skip connection, cells as in DARTS",
    operations=("sep_conv_3x3", "skip_connect"),
)

S3 = replace(
    DARTS,
    summary="S3 of RobustDARTS: separable convolution, skip connection or nothing, cells as in DARTS",
    operations=("sep_conv_3x3", "skip_connect", "none"),
)

S4 = replace(
    DARTS,
    summary="S4 of RobustDARTS: separable convolution or noise (none in evaluation), cells as in DARTS",
    operations=("sep_conv_3x3", "noise"),
)
