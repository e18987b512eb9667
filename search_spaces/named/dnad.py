"""DNAD (arXiv 2504.20080): every cell has its own topology; the network has the candidates alive at the end."""

from __future__ import annotations

from search_spaces.named.template import SpaceTemplate

__all__ = ["DNAD", "DNAD_PAPER"]

DNAD = SpaceTemplate(
    summary="DNAD as its authors released it: 3 operations, a topology for each cell",
    operations=("sep_conv_3x3", "skip_connect", "dil_conv_5x5"),
)

DNAD_PAPER = SpaceTemplate(
    summary="DNAD with all operations that its paper names, a topology for each cell",
    operations=(
        *("sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "dil_conv_3x3", "dil_conv_5x5"),
        *("conv_7x1_1x7", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "none"),
    ),
)
