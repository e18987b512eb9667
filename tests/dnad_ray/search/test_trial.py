"""A trial on disk: whatever it says has been written before, and is written once."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import os
import platform

import pytest
import torch

from dnad_ray.config.run import config_to_dict
from dnad_ray.costs.trace import complexity_of
from dnad_ray.errors import ConfigError
from dnad_ray.run_folder.checkpoints import CheckpointKeeper
from dnad_ray.run_folder.layout import checkpoints_folder
from dnad_ray.run_folder.reading import read_genotype, read_run, read_status
from dnad_ray.run_folder.records import EpochReport, Snapshot
from dnad_ray.run_folder.writing import create_run
from dnad_ray.runtime.budget import time_check
from dnad_ray.runtime.stopping import StopRequest
from dnad_ray.search import trial as trial_module
from dnad_ray.search.loop import SearchState, search
from dnad_ray.search.trial import keep_state, run_trial
from dnad_ray.storage.background_writer import BackgroundWriter
from dnad_ray.trials.spec import TrialSpec, trials_of


@pytest.fixture
def folder(tiny, tmp_path):
    return create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")


@pytest.fixture
def spec(tiny):
    return TrialSpec("t00", {"shrink.rate": 0.3, "seed": 0}, tiny())


@pytest.fixture(scope="module")
def expected(tiny, digits, timeless):
    """The records of the same search without any folder."""
    return timeless(search(SearchState.start(tiny(), digits, run="demo", trial="t00")))


def test_trial_writes_before_it_speaks(spec, folder, digits, expected, timeless, monkeypatch):
    monkeypatch.setattr(trial_module, "HISTORY_SECONDS", 0.0)
    for event, state in run_trial(spec, digits, None, folder, None):
        contents = read_run(folder)
        assert contents.problems == ()
        assert contents.status["t00"]["state"] == "running"
        assert contents.history["t00"] == state.history
        if isinstance(event, Snapshot):
            assert contents.snapshots[-1] == event.to_dict()
            cost = complexity_of(read_genotype(folder, event.digest), state.shape(4))
            assert (event.macs, event.macs_conv_linear, event.params) == cost[:3]
    assert timeless(read_run(folder).snapshots) == expected
    assert read_status(folder, "t00") == {
        "state": "finished",
        "device_seconds": state.device_seconds,
        "attempt": 1,
        "from_step": 0,
        "overrides": {"shrink.rate": 0.3, "seed": 0},
        "device": "cpu",
        "host": platform.node(),
        "threads": torch.get_num_threads(),
        "processes": 1,
        "pid": os.getpid(),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }


@pytest.mark.parametrize("end", ["finished", "interrupted", "closed"])
def test_trial_writes_its_history_seldom_and_at_its_end(end, spec, folder, digits, monkeypatch):
    written = []
    write = trial_module.write_history
    monkeypatch.setattr(trial_module, "write_history", lambda *args: written.append(len(args[2])) or write(*args))
    asked = iter([None] * 7)
    stop = (lambda: next(asked, StopRequest("enough"))) if end == "interrupted" else None
    events = run_trial(spec, digits, None, folder, None, stop=stop)
    for number, (_, state) in enumerate(events):  # noqa: B007 - asked after the loop
        assert len(written) == 1  # it begins with the first event; the others come within seconds
        if end == "closed" and number == 3:
            events.close()
    assert len(written) == 2
    assert 1 < written[-1] == len(state.history)
    assert read_run(folder).history["t00"] == state.history


@pytest.mark.parametrize("has_checkpoint", [True, False], ids=["from a checkpoint", "from the start"])
def test_trial_that_was_killed_replays_without_writing_twice(has_checkpoint, spec, folder, monkeypatch, request):
    digits, expected, timeless = map(request.getfixturevalue, ("digits", "expected", "timeless"))
    saved, written = None, []
    for number, (event, state) in enumerate(run_trial(spec, digits, None, folder, None)):
        if isinstance(event, Snapshot) and saved is None and has_checkpoint:
            saved = copy.deepcopy(state.state_dict())
        if number == 6:
            break  # as if killed: no status is written, and the newest checkpoint is some snapshots old
    early = {(row["trial"], row["step"]): row for row in read_run(folder).snapshots}
    assert len(early) >= 3
    assert read_status(folder, "t00")["state"] == "running"
    write = trial_module.write_snapshot
    monkeypatch.setattr(trial_module, "write_snapshot", lambda *args: written.append(write(*args)))
    list(run_trial(spec, digits, None, folder, saved))
    contents = read_run(folder)
    assert timeless(contents.snapshots) == expected
    # What stood is untouched, to the second of compute.
    assert [early.get((row["trial"], row["step"]), row) for row in contents.snapshots] == contents.snapshots
    assert written.count(False) == len(early) - has_checkpoint
    assert [entry["epoch"] for entry in contents.history["t00"]] == list(range(1, len(contents.history["t00"]) + 1))
    assert contents.history["t00"][-1]["step"] == expected[-1]["step"]
    assert read_status(folder, "t00")["attempt"] == 2


@pytest.mark.parametrize("is_later", [False, True], ids=["at once", "in a thread"])
def test_history_is_never_behind_a_checkpoint(is_later, spec, folder, digits):
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(BackgroundWriter()) if is_later else None
        write = writer.write if writer else None
        checkpoints = CheckpointKeeper(checkpoints_folder(folder, "t00"), writer.settle if writer else None)
        kept = 0
        for event, state in run_trial(spec, digits, None, folder, None, write=write):
            if isinstance(event, EpochReport) and event.epoch > 1:  # the file is written with the first event
                keep_state(checkpoints, state, folder, write)
                assert [entry["epoch"] for entry in read_run(folder).history["t00"]][-1] == event.epoch
                assert checkpoints.newest()["step"] == event.step
                kept += 1
        assert kept >= 2


def test_trial_killed_after_its_last_snapshot_only_ends(spec, folder, digits, expected, timeless):
    for event, state in run_trial(spec, digits, None, folder, None):
        if isinstance(event, Snapshot) and event.kind == "final":
            saved = state.state_dict()
            break
    assert list(run_trial(spec, digits, None, folder, saved)) == []
    assert read_status(folder, "t00")["state"] == "finished"
    assert timeless(read_run(folder).snapshots) == expected
    assert read_run(folder).history["t00"][-1]["step"] == expected[-1]["step"]


def test_trial_that_diverges_stops_and_its_snapshots_stand(spec, folder, digits, timeless, expected):
    events = run_trial(spec, digits, None, folder, None)
    found = []
    for event, state in events:
        found.append(event)
        if isinstance(event, Snapshot) and event.num_operations < 45:
            state.optimizer.param_groups[0]["lr"] = 1e30  # its next step spoils the weights
    snapshots = [event for event in found if isinstance(event, Snapshot)]
    assert len(snapshots) >= 2
    assert snapshots[-1].kind != "final"
    status = read_status(folder, "t00")
    assert status["state"] == "stopped"
    assert status["reason"].startswith("the loss became ")
    assert f"at step {snapshots[-1].step + 1} " in status["reason"]
    assert "train.learning_rate" in status["reason"]
    assert timeless(read_run(folder).snapshots) == timeless(snapshots) == expected[: len(snapshots)]
    assert status["state"].is_finished  # it would diverge again


def test_trial_that_diverges_at_once_has_a_status_and_no_snapshot(spec, folder, digits):
    assert list(run_trial(spec, dataclasses.replace(digits, mean=(math.nan,)), None, folder, None)) == []
    assert read_status(folder, "t00")["state"] == "stopped"
    assert "step 0" in read_status(folder, "t00")["reason"]
    assert read_run(folder).snapshots == []


def test_trial_that_reaches_its_limit_is_at_its_end_and_says_why(tiny, folder, digits, expected, timeless):
    spec = TrialSpec("t00", {"seed": 0}, tiny({"limit.macs": 1}))
    assert len(list(run_trial(spec, digits, None, folder, None))) == 2
    status = read_status(folder, "t00")
    assert (status["state"], status["reason"]) == ("finished", "it reached limit.macs 1")
    (row,) = read_run(folder).snapshots
    assert (row["kind"], row["step"]) == ("final", 1)


def test_trial_that_ended_by_seconds_and_could_not_save_it_ends_there_again(tiny, folder, digits):
    for event, _ in run_trial(TrialSpec("t00", {}, tiny({"limit.seconds": 1e-6})), digits, None, folder, None):
        assert event.kind == "final"
        break  # as if killed before a checkpoint
    (before,) = read_run(folder).snapshots
    # The replay is on a machine that is faster: by its own clock it would come to the floor.
    list(run_trial(TrialSpec("t00", {}, tiny({"limit.seconds": 1e6})), digits, None, folder, None))
    assert read_run(folder).snapshots == [before]
    assert read_status(folder, "t00")["reason"] == "it reached limit.seconds 1e+06"


def test_trial_that_is_asked_to_pause_says_so(spec, folder, digits, expected, timeless):
    events = list(run_trial(spec, digits, None, folder, None, stop=time_check(1.0)))
    assert [event for event, _ in events] == [StopRequest("the time budget was spent", "paused")]
    status = read_status(folder, "t00")
    assert (status["state"], status["reason"]) == ("paused", "the time budget was spent")
    assert not status["state"].is_finished
    list(run_trial(spec, digits, None, folder, copy.deepcopy(events[0][1].state_dict())))
    assert timeless(read_run(folder).snapshots) == expected
    assert "reason" not in read_status(folder, "t00")


def test_setting_is_all_but_the_seed(tiny):
    one, other = (TrialSpec("t", {"b": [1], "a": 2, "seed": seed}, tiny()) for seed in (0, 1))
    assert one.setting == other.setting == '{"a": 2, "b": [1]}'


def test_trials_of_a_grid_have_names_and_labels(tiny):
    config = tiny(
        {
            "sweep.grid": {"shrink.rate": [0.1, 0.2], "train.learning_rate": [1e-3, 2e-3]},
            "sweep.num_trials": 6,
            "seed": 7,
        }
    )
    specs = trials_of(config)
    assert [spec.name for spec in specs] == ["t00", "t01", "t02", "t03", "t04", "t05"]
    assert [spec.config.seed for spec in specs] == [7, 7, 7, 7, 8, 8]
    assert specs[1].overrides == {"shrink.rate": 0.1, "train.learning_rate": 2e-3, "seed": 7}
    assert specs[1].label == "rate 0.1, learning_rate 0.002, seed 7"
    assert specs[1].config.shrink.rate == 0.1
    assert json.loads(json.dumps(specs[1].overrides)) == specs[1].overrides


def test_trials_of_many_sort_by_name(tiny):
    names = [spec.name for spec in trials_of(tiny({"sweep.num_trials": 101}))]
    assert names == sorted(names)
    assert names[-1] == "t100"


def test_trials_of_an_impossible_grid(tiny):
    with pytest.raises(ConfigError, match="temperature"):
        trials_of(tiny({"sweep.grid": {"distill.temperature": [2.0]}}))  # nobody is imitated
