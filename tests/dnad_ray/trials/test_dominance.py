"""Who is dominated at equal MACs: cases worked out by hand."""

from __future__ import annotations

import math

import pytest

from dnad_ray.trials.dominance import Trajectories, deviation_of, error_at, lowest_errors

# With 96 images and no seeds, errors of 1/2 have a deviation of sqrt(2 * 0.25 / 96).
IMAGES = 96


def known(factor=1.0, patience=2, **trials):
    """Trajectories of trials, each a list of (MACs, error) as recorded; a name is a setting and a seed."""
    result = Trajectories(IMAGES, factor, patience)
    for name, points in trials.items():
        for step, (macs, error) in enumerate(points):
            result.add(name, name.partition("_")[0], step, macs, error)
    return result


GOOD = [(400, 0.2), (300, 0.1), (200, 0.1), (100, 0.2)]


@pytest.mark.parametrize(
    ("macs", "expected"),
    [(401, None), (400, 0.2), (399, 0.2), (301, 0.2), (300, 0.1), (250, 0.1), (150, 0.2), (100, 0.2), (99, None)],
)
def test_error_at_takes_the_worse_neighbour(macs, expected):
    assert error_at(sorted(GOOD), macs) == expected


def test_error_at_equal_macs_takes_the_worst_of_them():
    assert error_at([(100, 0.1), (100, 0.3)], 100) == 0.3
    assert error_at([], 100) is None


def test_deviation_of_is_the_binomial_one_plus_what_seeds_add():
    # Shrunk by two successes and two failures: 46 + 2 of 96 + 4 is 0.48, 0 + 2 of 100 is 0.02.
    variance = 0.48 * 0.52 + 0.02 * 0.98
    assert deviation_of(46 / 96, 0.0, IMAGES, 0.0) == pytest.approx(math.sqrt(variance / 96))
    assert deviation_of(46 / 96, 0.0, IMAGES, 0.03) == pytest.approx(math.sqrt(variance * (1 / 96 + 0.03)))


def test_lowest_errors_within_levels():
    assert lowest_errors(GOOD, [50, 100, 200, 1000]) == [1.0, 0.2, 0.1, 0.1]
    assert lowest_errors([], [50]) == [1.0]


def test_trial_that_is_worse_all_along_is_dominated():
    verdict = known(good=GOOD, bad=[(350, 0.9), (250, 0.8), (150, 0.7)]).verdict("bad")
    # Rivals: 0.2 between 400 and 300, 0.1 between 300 and 200, 0.2 between 200 and 100.
    pairs = [(0.9, 0.2), (0.8, 0.1), (0.7, 0.2)]
    distances = [(mine - other) / deviation_of(mine, other, IMAGES, 0.0) for mine, other in pairs]
    assert (verdict.num_compared, verdict.error, verdict.rival_error, verdict.macs) == (3, 0.7, 0.2, 150)
    assert verdict.distance == pytest.approx(sum(distances) / 3)
    assert "worse at all 3 snapshots" in str(verdict)
    assert "70.00% errors where others had 20.00% at 150 MACs" in str(verdict)


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ([(350, 0.9), (250, 0.8), (150, 0.2)], "as good at the last one"),
        ([(350, 0.9), (250, 0.1), (150, 0.9)], "as good in between"),
        ([(350, 0.9), (250, 0.8), (90, 0.7)], "smaller than all others: it leads"),
        ([(350, 0.9)], "fewer than patience"),
        ([(500, 0.9), (450, 0.9), (350, 0.9)], "larger than all others says nothing, and one is fewer than patience"),
        ([(350, 0.21), (250, 0.12), (150, 0.22)], "within the noise"),
        ([], "nothing recorded"),
    ],
)
def test_trial_that_is_not_dominated(points, why):
    assert known(good=GOOD, other=points).verdict("other") is None, why


def test_trial_that_is_larger_than_all_others_at_first_is_compared_later():
    verdict = known(good=GOOD, late=[(500, 0.9), (350, 0.9), (250, 0.9)]).verdict("late")
    assert verdict.num_compared == 2


def test_finished_trials_do_not_condemn_those_that_are_large_and_young_still():
    # At 390 MACs the good one was as bad; that it is small and better by now must not count.
    assert known(good=[(400, 0.9), (300, 0.5), (100, 0.1)], young=[(390, 0.9), (310, 0.9)]).verdict("young") is None


def test_distance_beyond_the_factor_is_what_counts():
    trials = {"good": GOOD, "bad": [(350, 0.3), (250, 0.2)]}
    distance = known(**trials).verdict("bad").distance
    assert known(factor=distance * 0.99, **trials).verdict("bad") is not None
    assert known(factor=distance * 1.01, **trials).verdict("bad") is None


def test_alone_nobody_is_dominated():
    assert known(bad=[(350, 0.9), (250, 0.8)]).verdict("bad") is None
    assert known(good=GOOD).verdict("unknown") is None


def test_dispersion_is_the_squared_difference_of_seeds_in_binomial_units():
    assert known(a_0=[(100, 0.5)], b_0=[(100, 0.1)]).dispersion == 0.0  # two settings
    both = known(a_0=[(100, 46 / 96)], a_1=[(100, 46 / 96 + 0.1)])
    shrunk = (46 / 96 + 0.1) * 0.96 + 0.02
    assert both.dispersion == pytest.approx(0.01 / (0.48 * 0.52 + shrunk * (1 - shrunk)))
    assert known(a_0=[(100, 0.5)], a_1=[(200, 0.1)]).dispersion == 0.0  # nothing at equal MACs


def test_noise_of_seeds_keeps_a_trial():
    trials = {"good_0": GOOD, "bad_0": [(350, 0.4), (250, 0.3)]}
    assert known(factor=1.64, **trials).verdict("bad_0") is not None
    noisy = {"wild_0": [(380, 0.9), (50, 0.9)], "wild_1": [(380, 0.2), (50, 0.2)]}
    everyone = known(factor=1.64, **trials, **noisy)
    assert everyone.dispersion > 0.5
    assert everyone.verdict("bad_0") is None


def test_snapshot_that_is_replayed_changes_nothing():
    once, twice = known(good=GOOD, bad=GOOD), known(good=GOOD, bad=GOOD)
    for step, (macs, error) in enumerate(GOOD):
        twice.add("bad", "bad", step, macs, error)
    assert twice == once
    assert once.of("good") == tuple(sorted(GOOD))


def test_reports_of_epochs_are_no_snapshots():
    trajectories = known()
    trajectories.take("t00", "", {"step": 3, "epoch": 1, "points": []})
    assert trajectories.of("t00") == ()
    trajectories.take("t00", "", {"stopped": "the time budget was spent"})
    assert trajectories.of("t00") == ()
    trajectories.take("t00", "", {"step": 5, "points": [(3, 100, 0.5), (5, 90, 0.25)]})
    assert trajectories.of("t00") == ((90, 0.25), (100, 0.5))
