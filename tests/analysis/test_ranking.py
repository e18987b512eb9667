from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.ranking import rank_correlation
from dnad_ray.errors import UserError


@pytest.mark.parametrize("seed", range(4))
def test_rank_correlation_agrees_with_scipy_with_and_without_ties(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, 30).astype(float), rng.integers(0, 6, 30) + 0.0
    found = rank_correlation(x, y)
    assert found.kendall == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-4)
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-4)
    low, high = found.kendall_interval
    assert low < found.kendall < high
    assert rank_correlation(x, y) == found  # resamples are seeded


def test_rank_correlation_of_little_or_of_gaps():
    assert rank_correlation([], [])[0] == 0
    assert math.isnan(rank_correlation([1.0], [1.0]).kendall)
    assert rank_correlation([1, 2, float("nan"), 3], [1, 2, 9, float("inf")])[:2] == (2, 1.0)
    with pytest.raises(UserError, match="as many of each"):
        rank_correlation([1], [1, 2])
