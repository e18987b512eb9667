from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.importance import importance_of, omega_squared, share_interval
from dnad_ray.errors import UserError


def test_omega_squared_by_hand():
    # Two groups of two: means 2 and 6, total sum of squares 20, between 16, within (20 - 16) / 2 = 2.
    assert omega_squared(["a", "a", "b", "b"], [1, 3, 5, 7]) == (pytest.approx((16 - 2) / (20 + 2)), 2)
    assert omega_squared([1.0, None, 1.0, None], [1, 5, 1, 5]) == (1.0, 2)


@pytest.mark.parametrize(
    ("groups", "values"),
    [([], []), (["a"], [1]), (["a", "a"], [1, 2]), (["a", "b"], [1, 2]), (["a", "a", "b"], [1] * 3)],
)
def test_omega_squared_of_too_little_is_zero(groups, values):
    assert omega_squared(groups, values)[0] == 0


def test_share_interval_is_the_published_one():
    # Wuensch, "Using SPSS to Obtain a Confidence Interval for R2", by Smithson's scripts: t(86) = 3.267, that is
    # F(1, 86) = 10.673, has .027 to .218 as its 90 % interval. Two groups of 44 with that F: means apart by
    # sqrt(4 F / 88) standard deviations.
    spread = np.tile([-1.0, 1.0], 22)
    spread /= np.sqrt((2 * (spread**2).sum()) / 86)
    values = [*spread, *(spread + np.sqrt(4 * 10.673 / 88))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.importance._TAIL", 0.05)
        found = share_interval(["a"] * 44 + ["b"] * 44, values)
    assert found == (pytest.approx(0.027, abs=5e-4), pytest.approx(0.218, abs=5e-4))


def test_share_interval_holds_the_true_share_as_often_as_it_says():
    rng = np.random.default_rng(0)
    groups = [0, 0, 0, 1, 1, 1]
    means = np.array([0, 0, 0, 2, 2, 2])  # of noise 1: the groups are 1/2 of the variance, 1 of 1 + 1
    hits = 0
    for _ in range(400):
        low, high = share_interval(groups, (means + rng.normal(size=6)).tolist())
        hits += low <= 0.5 <= high
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize(
    ("groups", "values"), [([], []), (["a", "b"], [1, 2]), (["a", "a"], [1, 2]), (["a"] * 3, [1] * 3)]
)
def test_share_interval_of_too_little_says_nothing(groups, values):
    assert share_interval(groups, values) == (0.0, 1.0)


def test_share_interval_of_six_trials_is_wide():
    # Two groups of three that barely overlap: omega squared is above a half, and nearly nothing is certain.
    groups, values = ["a", "a", "a", "b", "b", "b"], [1.0, 2.0, 3.0, 3.0, 4.0, 5.0]
    share, _ = omega_squared(groups, values)
    low, high = share_interval(groups, values)
    assert low == 0.0 < share < high
    assert high > 0.8


def test_importance_of_ranks_settings_and_cuts_many_values_into_groups():
    trials = pd.DataFrame({"shrink_rate": [0.1 * i for i in range(20)], "kd_weight": [0.5, 1.0] * 10})
    trials["hypervolume"] = trials["shrink_rate"] ** 2
    table = importance_of(trials)
    assert table["setting"].tolist() == ["shrink_rate", "kd_weight"]
    assert table["groups"].tolist() == [5, 2]
    assert table["importance"].iloc[0] > 0.9
    assert table["importance"].iloc[1] < 0.1
    assert (table["low"] <= table["importance"]).all()
    assert (table["importance"] <= table["high"]).all()
    assert len(importance_of(trials.assign(hypervolume=float("nan")))) == 0
    with pytest.raises(UserError, match="a column of numbers"):
        importance_of(trials, "kind")
