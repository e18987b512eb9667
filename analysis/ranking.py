"""Rank correlation of two scores of the same networks, with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from dnad_ray.errors import UserError

__all__ = ["RankCorrelation", "rank_correlation"]

_NUM_RESAMPLES = 1000


class RankCorrelation(NamedTuple):
    """How two scores of the same networks agree in order.

    Attributes:
        num_networks: Networks that have both.
        kendall: Kendall's tau-b: agreeing less disagreeing pairs, ties taken into account; NaN where it has no meaning.
        spearman: Spearman's rho: Pearson correlation of the ranks.
        kendall_interval: 95 % of tau in resamples of the networks (percentile bootstrap, Efron 1979).
    """

    num_networks: int
    kendall: float
    spearman: float
    kendall_interval: tuple[float, float]


def rank_correlation(first: Sequence[float], second: Sequence[float], seed: int = 0) -> RankCorrelation:
    """Compare the order of two scores.

    Args:
        first: A score per network.
        second: Another, in the same direction; pairs with NaN or an infinite number are left out.
        seed: Of the resamples.

    Raises:
        UserError: If lengths differ.

    Examples:
        >>> rank_correlation([1, 2, 3, 4], [1, 2, 4, 3])[:3]
        (4, 0.6667, 0.8)
        >>> rank_correlation([1.0, 1.0], [1.0, 2.0]).kendall  # no order in the first
        nan
    """
    if len(first) != len(second):
        raise UserError("scores", f"{len(first)} and {len(second)}", "as many of each")
    pairs = np.array([np.asarray(first, dtype=float), np.asarray(second, dtype=float)])
    x, y = pairs[:, np.isfinite(pairs).all(axis=0)]
    rng = np.random.default_rng(seed)
    samples = []
    if len(x) > 2:
        for _ in range(_NUM_RESAMPLES):
            chosen = rng.integers(0, len(x), len(x))
            samples.append(_kendall(x[chosen], y[chosen]))
    known = np.array([tau for tau in samples if np.isfinite(tau)])
    interval = tuple(np.percentile(known, [2.5, 97.5]).tolist()) if len(known) else (float("nan"), float("nan"))
    return RankCorrelation(len(x), round(_kendall(x, y), 4), round(_spearman(x, y), 4), (interval[0], interval[1]))


def _kendall(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    signs = np.sign(x[:, None] - x[None, :]) * 1.0, np.sign(y[:, None] - y[None, :]) * 1.0
    # Each pair counts twice, above and below the line.
    untied = float(np.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum()))
    return float((signs[0] * signs[1]).sum()) / untied if untied else float("nan")


def _spearman(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    ranks = pd.Series(x).rank().to_numpy(), pd.Series(y).rank().to_numpy()
    centred = [rank - rank.mean() if len(rank) else rank for rank in ranks]
    size = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / size if size else float("nan")
