"""DARTS (arXiv 1806.09055): one normal and one reduction cell, two inputs for each node in the end."""

from __future__ import annotations

from dataclasses import replace

from search_spaces.named.template import SpaceTemplate

__all__ = ["DARTS", "DARTS_PER_CELL"]

DARTS = SpaceTemplate(
    summary="DARTS: 7 operations, one normal and one reduction cell, two inputs for each node in the end",
    operations=(
        *("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"),
        *("max_pool_3x3", "avg_pool_3x3", "skip_connect"),
    ),
    sharing="kind",
    derivation="inputs",
    inputs_kept=2,
)

DARTS_PER_CELL = replace(
    DARTS,
    summary="the 7 operations of DARTS, but a topology for each cell, and all that is alive",
    sharing="cell",
    derivation="alive",
    inputs_kept=1,
)
