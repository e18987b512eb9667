from __future__ import annotations

import pandas as pd
import pytest

from analysis.importance import importance_of, omega_squared
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


def test_importance_of_ranks_settings_and_cuts_many_values_into_groups():
    trials = pd.DataFrame({"shrink_rate": [0.1 * i for i in range(20)], "kd_weight": [0.5, 1.0] * 10})
    trials["hypervolume"] = trials["shrink_rate"] ** 2
    table = importance_of(trials)
    assert table["setting"].tolist() == ["shrink_rate", "kd_weight"]
    assert table["groups"].tolist() == [5, 2]
    assert table["importance"].iloc[0] > 0.9
    assert table["importance"].iloc[1] < 0.1
    assert len(importance_of(trials.assign(hypervolume=float("nan")))) == 0
    with pytest.raises(UserError, match="a column of numbers"):
        importance_of(trials, "kind")
