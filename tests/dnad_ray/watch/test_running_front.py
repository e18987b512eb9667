"""The running front against the front of the analysis, which recomputes it from all snapshots."""

from __future__ import annotations

import dataclasses
import math
import random

import pandas as pd
import pytest

from analysis.pareto import OBJECTIVES, front_of, hypervolume_share, reference_point
from dnad_ray.watch.running_front import RunningFront


@pytest.fixture
def snapshots(a_snapshot):
    """Many ties: few distinct values, and a digest that follows from the costs as it does in life."""
    rng = random.Random(5)
    made = []
    for step in range(1, 601):
        macs, params = rng.randrange(1, 40), rng.randrange(1, 12)
        accuracy = min(0.95, 0.4 + macs / 80 + rng.randrange(8) / 40)
        digest = f"{macs}-{params}-{rng.randrange(2)}"
        values = {"macs": macs, "params": params, "proxy_accuracy": accuracy, "digest": digest}
        made.append(dataclasses.replace(a_snapshot, trial=f"t{rng.randrange(9):02d}", step=step, **values))
    return made


def frame_of(snapshots):
    frame = pd.DataFrame([snapshot.to_dict() for snapshot in snapshots])
    return frame.assign(error=1.0 - frame["proxy_accuracy"])


@pytest.mark.parametrize("num_snapshots", [1, 2, 50, 600])
def test_front_agrees_with_the_analysis(snapshots, num_snapshots):
    front = RunningFront()
    for snapshot in snapshots[:num_snapshots]:
        front.offer(snapshot)
    frame = frame_of(snapshots[:num_snapshots])
    expected = front_of(frame)
    found = [(point.digest, point.error, point.macs, point.params) for point in front.points()]
    assert sorted(found) == sorted(expected[["digest", *OBJECTIVES]].itertuples(index=False, name=None))
    assert [point.macs for point in front.points()] == sorted(expected["macs"])
    share = hypervolume_share(expected[list(OBJECTIVES)].to_numpy(), reference_point(frame))
    assert front.hypervolume() == pytest.approx(share, rel=1e-12)


def test_front_counts_the_points_of_each_trial(snapshots):
    front = RunningFront()
    for snapshot in snapshots:
        front.offer(snapshot)
        trials = [point.trial for point in front.points()]
        assert {name: count for name, count in front.count_of.items() if count} == {
            name: trials.count(name) for name in set(trials)
        }
    assert len(front) == sum(front.count_of.values()) > 3


def test_front_says_whether_a_snapshot_is_on_it(a_snapshot):
    front = RunningFront()
    assert front.hypervolume() == 0.0
    assert front.offer(a_snapshot)
    assert not front.offer(dataclasses.replace(a_snapshot, step=25))  # the same network once more
    assert front.offer(dataclasses.replace(a_snapshot, digest="another with equal values"))
    assert not front.offer(dataclasses.replace(a_snapshot, macs=a_snapshot.macs + 1, digest="worse"))
    assert not front.offer(dataclasses.replace(a_snapshot, proxy_accuracy=math.nan, macs=1))
    assert len(front) == 2
    assert front.offer(dataclasses.replace(a_snapshot, macs=a_snapshot.macs - 1, trial="t01"))
    assert (len(front), front.count_of["t00"], front.count_of["t01"]) == (1, 0, 1)


def test_front_grows_beyond_its_first_room(a_snapshot):
    front = RunningFront()
    for index in range(200):
        accuracy = 0.1 + index / 1000
        front.offer(dataclasses.replace(a_snapshot, macs=1000 + index, proxy_accuracy=accuracy, digest=str(index)))
    assert [point.macs for point in front.points()] == list(range(1000, 1200))
