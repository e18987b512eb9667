"""The controller as a table of counts in and rates out."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from dnad_ray.config.run import ShrinkConfig
from dnad_ray.search.shrink import ShrinkController, ShrinkSchedule, schedule_for

SCHEDULE = ShrinkSchedule(
    target=0.4, growth=2.0, gamma_max=4.0, smoothing=0.5, stall_max=2, mu_growth=3.0, rate_factor=0.5
)


def _controller():
    return ShrinkController(schedule=SCHEDULE, gamma=1.0, mu=0.1, target=0.4)


# deleted -> mean of deletions, gamma, stalls, mu, target, whether a Pareto snapshot is due; worked out by hand.
TABLE = [
    (0, 0.0, 2.0, 0, 0.1, 0.4, False),  # too few: gamma grows
    (1, 0.5, 1.0, 0, 0.1, 0.4, False),  # enough: gamma decays by the inverse
    (0, 0.25, 2.0, 0, 0.1, 0.4, False),
    (0, 0.125, 4.0, 0, 0.1, 0.4, False),  # was below gamma_max before it grew: no stall yet
    (0, 0.0625, 8.0, 1, 0.1, 0.4, False),  # a stall; gamma_max is no cap
    (2, 1.03125, 4.0, 0, 0.1, 0.4, False),  # a deletion ends the row of stalls
    (0, 0.515625, 2.0, 0, 0.1, 0.4, False),  # the mean still remembers it
    (0, 0.2578125, 4.0, 0, 0.1, 0.4, False),
    (0, 0.12890625, 8.0, 1, 0.1, 0.4, False),
    (0, 0.064453125, 16.0, 0, 0.3, 0.2, True),  # two stalls in a row
    (0, 0.0322265625, 32.0, 1, 0.3, 0.2, False),  # they are counted anew
    (0, 0.01611328125, 64.0, 0, 0.9, 0.1, True),
    (1, 0.508056640625, 32.0, 0, 0.9, 0.1, False),
    (0, 0.2540283203125, 16.0, 0, 0.9, 0.1, False),  # over the target of 0.1, which would not have done for 0.4
]


def test_observe_follows_the_table():
    controller = _controller()
    for number, (deleted, mean, gamma, stalls, mu, target, is_pareto) in enumerate(TABLE):
        assert controller.observe(deleted) is is_pareto, number
        assert (controller.mean_deletions, controller.gamma, controller.stalls) == (mean, gamma, stalls), number
        assert (controller.mu, controller.target) == (pytest.approx(mu), pytest.approx(target)), number
    assert controller.schedule == SCHEDULE


# Capped: deleted, waiting -> mean, gamma, stalls, allowance; worked out by hand.
CAPPED = dataclasses.replace(SCHEDULE, is_capped=True, most_allowed=1.0)
CAPPED_TABLE = [
    (0, 0, 0.0, 2.0, 0, 0.4),  # behind the rate: gamma grows
    (1, 0, 0.5, 1.0, 0, -0.2),  # 0.8 were asked for by now, one went
    (0, 0, 0.25, 2.0, 0, 0.2),
    (0, 2, 0.125, 1.0, 0, 0.6),  # something waits: there is pressure enough
    (0, 0, 0.0625, 2.0, 0, 1.0),
    (0, 0, 0.03125, 4.0, 0, 1.0),  # no more than 1 may be made up for at once
    (0, 0, 0.015625, 4.0, 1, 1.0),  # a stall, and the cap
    (3, 0, 1.5078125, 2.0, 0, -2.0),  # a group larger than what was allowed
    (0, 0, 0.75390625, 1.0, 0, -1.6),
    (0, 0, 0.376953125, 1.0, 0, -1.2),  # the mean is below the target, but the rate is ahead: gamma rests
    (0, 0, 0.1884765625, 1.0, 0, -0.8),
]


def test_observe_capped_follows_the_table():
    controller = ShrinkController(schedule=CAPPED, gamma=1.0, mu=0.1, target=0.4)
    for number, (deleted, waiting, mean, gamma, stalls, allowance) in enumerate(CAPPED_TABLE):
        assert controller.observe(deleted, waiting) is False, number
        assert (controller.mean_deletions, controller.gamma, controller.stalls) == (mean, gamma, stalls), number
        assert controller.allowance == pytest.approx(allowance), number


def test_observe_capped_stalls_make_a_snapshot():
    controller = ShrinkController(schedule=CAPPED, gamma=4.0, mu=0.1, target=0.4)
    assert [controller.observe(0) for _ in range(4)] == [False, True, False, True]
    assert (controller.gamma, controller.mu, controller.target) == (4.0, pytest.approx(0.9), 0.1)


def test_allowed_is_what_the_rate_asks_for():
    controller = ShrinkController(schedule=CAPPED, gamma=1.0, mu=0.1, target=0.4)
    assert (controller.allowed(), controller.allowed(8)) == (0.4, 3.2)
    controller.observe(2)
    assert controller.allowed(3) == pytest.approx(-0.4)  # -1.6 and three times 0.4
    assert _controller().allowed() == math.inf


@pytest.mark.parametrize("group", [1, 6, 36])
def test_allowed_deletions_come_at_the_rate_whatever_goes_together(group):
    """0.06 of 180 candidates an epoch of 93 steps are 10.8; ten epochs are 108, give or take a group."""
    schedule = schedule_for(ShrinkConfig(rate=0.06), 180, 93)
    controller = ShrinkController.start(ShrinkConfig(rate=0.06), schedule)
    total = 0
    for _ in range(930):
        deleted = group if controller.allowed() > 0 else 0
        total += deleted
        controller.observe(deleted, waiting=0 if deleted else group)
    assert 108 <= total <= 108 + group


def test_observe_at_target_is_enough():
    controller = ShrinkController(schedule=dataclasses.replace(SCHEDULE, smoothing=0.0), gamma=1.0, mu=0.1, target=1.0)
    controller.observe(1)
    assert controller.gamma == 0.5


def test_observe_long_pressure_then_balance():
    """From gamma_0 to gamma_max the release needs ln(1000) / ln(1.01) steps."""
    config = ShrinkConfig(pressure="paper")
    controller = ShrinkController.start(config, schedule_for(config, 336, 391))
    steps = 0
    while controller.gamma < config.gamma_max:
        assert not controller.observe(0)
        steps += 1
    assert steps == math.ceil(math.log(1000) / math.log(1.01)) == 695
    assert controller.stalls == 0
    assert [controller.observe(0) for _ in range(50)] == [False] * 49 + [True]
    assert controller.mu == pytest.approx(0.15)


def test_start_takes_the_configuration():
    config = ShrinkConfig(gamma_init=0.5, mu=0.25, rate=0.1)
    schedule = schedule_for(config, 30, 10)
    assert ShrinkController.start(config, schedule) == ShrinkController(
        schedule=schedule, gamma=0.5, mu=0.25, target=0.3, mean_deletions=0.0, stalls=0
    )


def test_schedule_of_the_release():
    schedule = schedule_for(ShrinkConfig(), num_candidates=336, steps_per_epoch=391)
    assert schedule.target == pytest.approx(0.005, rel=0.05)
    assert schedule.growth == pytest.approx(1.01, abs=1e-5)
    assert (schedule.stall_max, schedule.gamma_max, schedule.smoothing) == (50, 0.1, 0.9)
    assert (schedule.mu_growth, schedule.rate_factor) == (1.5, 1.0)


@pytest.mark.parametrize("steps_per_epoch", [1, 11, 391, 5004])
def test_schedule_keeps_its_meaning_per_epoch(steps_per_epoch):
    config = ShrinkConfig(rate=0.05, gamma_growth=20.0, stall_epochs=2.0, rate_factor=0.9, mu_growth=2.0)
    schedule = schedule_for(config, 108, steps_per_epoch)
    assert schedule.target * steps_per_epoch == pytest.approx(0.05 * 108)
    assert schedule.growth**steps_per_epoch == pytest.approx(20)
    assert schedule.stall_max == 2 * steps_per_epoch
    assert (schedule.mu_growth, schedule.rate_factor) == (2.0, 0.9), "factors per snapshot are not rescaled"


def test_schedule_stalls_at_least_one_step():
    assert schedule_for(ShrinkConfig(stall_epochs=0.01), 30, 4).stall_max == 1


def test_state_dict_round_trip():
    controller = _controller()
    for deleted, *_ in TABLE[:9]:
        controller.observe(deleted)
    state = json.loads(json.dumps(controller.state_dict()))
    assert state == {
        "gamma": 8.0,
        "mu": 0.1,
        "target": 0.4,
        "mean_deletions": 0.12890625,
        "stalls": 1,
        "allowance": 0.0,
    }
    again = _controller()
    again.load_state_dict(state)
    assert again == controller
    assert again.observe(0)
    assert controller.state_dict() == state, "the other one is not touched"
