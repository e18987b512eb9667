"""Ranges: what may be written, and that draws keep within it."""

from __future__ import annotations

import numpy as np
import pytest

from dnad_ray.config.run import config_from_dict
from dnad_ray.config.sweep import Range
from dnad_ray.errors import ConfigError


def draws(number=300, **kind):
    generator = np.random.default_rng(0)
    return [Range(**kind).draw(generator) for _ in range(number)]


def test_uniform_and_loguniform_fill_their_range():
    values = draws(uniform=(1, 3))
    assert 1 <= min(values) < 1.05
    assert 2.95 < max(values) <= 3
    assert np.median(values) == pytest.approx(2, abs=0.15)
    values = draws(loguniform=(0.01, 1))
    assert 0.01 <= min(values) < 0.0125
    assert 0.8 < max(values) <= 1
    assert np.median(values) == pytest.approx(0.1, rel=0.35)  # half of the factors, not of the numbers
    assert {type(value) for value in values} == {float}


def test_integer_includes_both_ends_and_choice_takes_each():
    values = draws(integer=(2, 4))
    assert set(values) == {2, 3, 4}
    assert {type(value) for value in values} == {int}
    assert {tuple(value) for value in draws(choice=[[0.5, 0.9], [0.9, 0.99]])} == {(0.5, 0.9), (0.9, 0.99)}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "got nothing; allowed: one of uniform, loguniform, integer, choice"),
        ({"uniform": [0, 1], "choice": [1]}, "got uniform, choice; allowed: one of"),
        ({"uniform": [2, 1]}, r"uniform: got \[2.0, 1.0\]; allowed: the lower bound first"),
        ({"integer": [3, 3]}, "lower bound first"),
        ({"loguniform": [0, 1]}, "bounds above 0"),
        ({"choice": []}, "at least 1 item"),
        ({"unifrom": [0, 1]}, "unknown key: got .*unifrom'; allowed: one of uniform, loguniform, integer, choice"),
        ({"uniform": [0, float("inf")]}, "finite"),
        (3, "shrink.rate"),
    ],
)
def test_impossible_range_is_refused_in_words(entry, message):
    sweep = {"sampler": "random", "num_trials": 2, "ranges": {"shrink.rate": entry}}
    with pytest.raises(ConfigError, match=message):
        config_from_dict({"sweep": sweep})


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"num_trials": 10_001}, r"sweep\.num_trials: got 10001; allowed: less than or equal to 10000"),
        ({"num_trials": 10**30}, r"sweep\.num_trials: got 1000+; allowed: less than or equal to 10000"),
        (
            {"grid": {f"key{number}": tuple(range(101)) for number in range(2)}},
            r"sweep\.grid: got 2 keys with 10,201 combinations; allowed: at most 10,000, or sampler random",
        ),
        (
            {"grid": {f"key{number}": tuple(range(9)) for number in range(40)}},
            r"sweep\.grid: got 40 keys with 147,808,",
        ),
    ],
)
def test_more_trials_than_can_be_planned_are_refused_at_once(sweep, message):
    assert config_from_dict({"sweep": {"num_trials": 10_000}}).sweep.num_trials == 10_000
    with pytest.raises(ConfigError, match=message):
        config_from_dict({"sweep": sweep})
