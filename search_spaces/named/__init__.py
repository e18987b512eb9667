"""The named search spaces, a file for each family: plain data, no torch."""

from __future__ import annotations

from search_spaces.named.darts import DARTS, DARTS_PER_CELL
from search_spaces.named.device import DEVICE
from search_spaces.named.dnad import DNAD, DNAD_PAPER
from search_spaces.named.nas_bench_201 import NAS_BENCH_201
from search_spaces.named.own import OWN
from search_spaces.named.robust_darts import S1, S2, S3, S4
from search_spaces.named.template import SpaceTemplate

__all__ = ["SPACES", "SpaceTemplate"]

SPACES: dict[str, SpaceTemplate] = {
    "dnad": DNAD,
    "darts": DARTS_PER_CELL,
    "dnad-paper": DNAD_PAPER,
    "darts-cells": DARTS,
    "s1": S1,
    "s2": S2,
    "s3": S3,
    "s4": S4,
    "nas-bench-201": NAS_BENCH_201,
    "device": DEVICE,
    "own": OWN,
}
"""Name -> what a search space of that name is where a configuration does not say otherwise."""
