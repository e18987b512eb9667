"""How time is divided, by hand."""

from __future__ import annotations

import json

import pytest

from dnad_ray.errors import ConfigError
from dnad_ray.retrain.fit_plan import EpochSeconds, FitPlan, divided, epochs_within, together

BUDGETS = (8_000, 4_000, 2_000, 1_000)


def _costs(search=None, steps=50, networks=(4.0, 2.0, 1.0, 0.5)):
    return EpochSeconds(teacher=6.0, search=search, networks=networks, steps=steps)


def _time(plan, costs, parallel=1):
    """The seconds that a plan takes."""
    networks = [costs.networks[BUDGETS.index(budget)] for budget in plan.budgets]
    each = together(networks, parallel)
    final = together([cost + costs.teacher / 3 for cost in networks], parallel) if plan.teacher_epochs else each
    places, race = plan.places, 0.0
    for rung in plan.rungs:
        race += places * rung.epochs * each
        places = rung.keep
    spent = plan.teacher_epochs * costs.teacher + plan.search_epochs * (costs.search or 0.0)
    return spent + race + plan.epochs * final


def test_without_a_time_budget_nothing_depends_on_the_machine():
    plan = divided(None, BUDGETS, None)
    assert plan == divided(None, BUDGETS, _costs())
    assert (plan.budgets, plan.epochs, plan.teacher_epochs, plan.search_epochs) == (BUDGETS, 60, 40, 30)
    assert [(rung.epochs, rung.keep) for rung in plan.rungs] == [(3, 3), (6, 1)]


@pytest.mark.parametrize(
    ("seconds", "kept", "teacher", "search", "is_race"),
    [
        (8.0, [3], 0, 0, False),  # 16 epochs of the smallest
        (179.0, [0], 0, 0, False),  # 44 good epochs of the largest; 39 with the smallest, less than four fifths of 50
        (181.0, [0, 3], 0, 0, False),  # 40 epochs of the largest and the smallest, 4.5 s each
        (221.0, [0, 2, 3], 0, 0, False),  # 40 epochs of three, 5.5 s each
        (320.0, [0, 1, 2, 3], 0, 0, False),  # 42 epochs
        (600.0, [0, 1, 2, 3], 0, 0, True),  # 7.5 s an epoch for all four: too little for three good trainings
        (1_600.0, [0, 1, 2, 3], 40, 0, True),
        (4_000.0, [0, 1, 2, 3], 60, 60, True),
    ],
)
def test_more_time_adds_budgets_a_search_and_a_teacher(seconds, kept, teacher, search, is_race):
    costs = _costs(search=None if seconds < 2_000 else 12.0)
    plan = divided(seconds, BUDGETS, costs)
    assert plan.budgets == tuple(BUDGETS[place] for place in kept)
    assert (plan.teacher_epochs, plan.search_epochs, bool(plan.rungs)) == (teacher, search, is_race)


@pytest.mark.parametrize("seconds", [60.0, 250.0, 900.0, 4_000.0, 20_000.0])
@pytest.mark.parametrize("parallel", [1, 4])
def test_plan_keeps_to_its_time(seconds, parallel):
    costs = _costs(search=12.0)
    plan = divided(seconds, BUDGETS, costs, parallel)
    used = _time(plan, costs, parallel)
    assert used <= 1.01 * seconds
    assert used >= 0.8 * seconds or plan.epochs == 300


def test_search_that_would_be_too_short_is_left_out():
    # A fifth of 1,000 s is 200 s: 11 epochs of 18 s are too few, 12 of 16 s are not.
    assert divided(1_000.0, BUDGETS, _costs(search=18.0)).search_epochs == 0
    assert divided(1_000.0, BUDGETS, _costs(search=16.0)).search_epochs == 12


def test_no_time_for_three_epochs_of_the_smallest_is_an_error():
    with pytest.raises(ConfigError, match=r"--time-budget: got '1 s'; allowed: at least 2 s: 3 epochs of the small"):
        divided(1.2, BUDGETS, _costs())
    assert divided(1.6, BUDGETS, _costs()).epochs == 3


def test_plan_survives_its_file():
    plan = divided(900.0, BUDGETS, _costs(search=12.0))
    assert FitPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    with pytest.raises(KeyError):
        FitPlan.from_dict({})


def test_epochs_within_what_is_left():
    assert (epochs_within(100.0, 2.0), epochs_within(-5.0, 2.0), epochs_within(1e9, 2.0)) == (50, 3, 300)
