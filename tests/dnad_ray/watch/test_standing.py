"""Where a run stands: what counts, what is a repetition, and how long it will take."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dnad_ray.run_folder.reading import RunContents
from dnad_ray.run_folder.records import EpochReport
from dnad_ray.run_folder.snapshot_table import table_of
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.standing import Standing

REPORT = EpochReport(
    step=3,
    epoch=1,
    num_operations=40,
    train_loss=2.0,
    train_accuracy=0.3,
    kd_loss=None,
    gamma=0.3,
    mu=1.0,
    sparsity=30.0,
    device_seconds=1.0,
)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def run(tiny, clock):
    """Three trials of 6 epochs, 3 steps each."""
    specs = [TrialSpec(f"t{index:02d}", {"seed": index}, tiny({"seed": index})) for index in range(3)]
    return Standing(Path("/runs/demo"), specs, clock)


def report(run, trial, epoch):
    return run.report(trial, dataclasses.replace(REPORT, epoch=epoch, step=3 * epoch, num_operations=45 - epoch))


def test_standing_takes_the_newest_numbers(run, a_snapshot):
    run.begin("t00")
    assert report(run, "t00", 1)
    assert run.report("t00", dataclasses.replace(a_snapshot, step=6, macs=700, proxy_accuracy=0.75))
    trial = run.trials["t00"]
    assert (trial.state, trial.epoch, trial.num_operations) == ("running", 1, a_snapshot.num_operations)
    assert (trial.macs, trial.proxy_accuracy, trial.num_snapshots) == (700, 0.75, 1)
    assert trial.share == pytest.approx(1 / 6)
    run.end("t00", "finished", None)  # at its floor
    assert trial.share == 1.0
    assert run.num_finished == 1


def test_standing_knows_what_is_reported_again(run, a_snapshot):
    first = dataclasses.replace(a_snapshot, step=3)
    assert run.report("t00", first)
    assert report(run, "t00", 1)
    assert report(run, "t00", 2)
    run.begin("t00")  # the worker failed, and begins again at an older checkpoint
    assert not run.report("t00", first)
    assert not report(run, "t00", 1)
    assert not report(run, "t00", 2)
    assert run.report("t00", dataclasses.replace(a_snapshot, step=6, macs=900))
    assert (run.num_snapshots, len(run.front), run.trials["t00"].epoch) == (2, 1, 2)


def test_standing_begins_where_an_earlier_command_ended(run, a_snapshot):
    snapshots = [dataclasses.replace(a_snapshot, trial="t00", step=step, macs=900 - step).to_dict() for step in (3, 6)]
    snapshots.append(dataclasses.replace(a_snapshot, trial="another").to_dict())
    status = {"t00": {"state": "stopped", "reason": "nan"}, "t01": {"state": "running"}, "t02": {"state": ["finished"]}}
    history = {"t00": [dataclasses.replace(REPORT, step=3 * epoch, epoch=epoch).to_dict() for epoch in (1, 2)]}
    history["t01"] = [{"step": "somebody edited it"}]
    run.take_up(RunContents(Path("/runs/demo"), "demo", {}, table_of(snapshots), history, status, ()))
    assert [trial.state for trial in run.trials.values()] == ["stopped", "waiting", "waiting"]
    assert (run.trials["t00"].reason, run.num_snapshots, len(run.front)) == ("nan", 2, 1)
    assert not run.report("t00", dataclasses.replace(a_snapshot, step=6))
    assert not report(run, "t00", 2)
    assert run.trials["t00"].epoch == 2
    assert run.trials["t00"].pace is None


def test_standing_expects_trials_that_come_later(run, tiny):
    drawing = iter(run.trials.values())
    next(drawing)
    run.expect(TrialSpec("t03", {"seed": 3}, tiny()))
    assert len(list(drawing)) == 2  # what another thread walks through did not change
    assert list(run.trials) == ["t00", "t01", "t02", "t03"]
    run.begin("t01")
    run.expect(TrialSpec("t01", {"seed": 9}, tiny()))  # what a sampler has chosen by now
    assert (run.trials["t01"].spec.label, run.trials["t01"].state) == ("seed 9", "running")


def test_standing_counts_states_by_interest(run, a_snapshot):
    run.report("t02", dataclasses.replace(a_snapshot, trial="t02"))
    run.end("t01", "finished", None)
    run.end("t02", "finished", None)
    run.end("t00", "a state of a later version", None)
    assert [trial.spec.name for trial in run.by_interest()] == ["t02", "t01", "t00"]
    assert run.counts() == {"finished": 2, "unknown": 1}


def test_standing_time_left_by_hand(run, clock):
    assert run.seconds_left() is None
    run.begin("t00")
    clock.now += 50  # a worker that starts is no epoch
    report(run, "t00", 1)
    assert run.seconds_left() is None
    clock.now += 10
    report(run, "t00", 2)
    # 10 s an epoch, 4 epochs to go, and two trials of 6 epochs wait.
    assert run.trials["t00"].seconds_left(clock.now) == 40
    assert run.seconds_left() == 40 + 2 * 60
    clock.now += 5
    assert run.trials["t00"].seconds_left(clock.now) == 35
    run.begin("t01")
    # Two at a time: t01, which has no pace of its own yet, takes 60 s, and t02 begins when one of them is done.
    assert run.seconds_left() == pytest.approx((35 + 60 + 60) / 2)
    clock.now += 500
    assert run.trials["t00"].seconds_left(clock.now) == 0


def test_standing_waiting_trials_are_reckoned_with_what_ended_ones_needed(run, clock):
    run.begin("t00")
    for epoch in (1, 2, 3):
        clock.now += 10
        report(run, "t00", epoch)
    run.end("t00", "finished", None)  # the floor came after half of the epochs
    assert run.seconds_left() == 2 * 30
    run.end("t01", "finished", None)
    run.end("t02", "failed", "the worker died")
    assert run.seconds_left() is None


def test_standing_knows_the_pace_within_the_first_epoch(run, clock):
    run.begin("t00")
    trial = run.trials["t00"]
    run.step("t00", 1 / 36)  # a sixth of the first of 6 epochs
    assert trial.share == pytest.approx(1 / 36)
    assert trial.seconds_left(clock.now) is None  # how long its worker took to start says nothing
    clock.now += 10
    run.step("t00", 2 / 36)
    assert trial.pace == pytest.approx(60)
    assert trial.seconds_left(clock.now) == pytest.approx(60 * (6 - 1 / 3))
    assert (trial.epoch, trial.num_operations) == (0, None)
    report(run, "t00", 1)
    assert trial.share == pytest.approx(1 / 6)
    run.step("t00", 1 / 36)  # repeated after a failure
    assert trial.share == pytest.approx(1 / 6)
