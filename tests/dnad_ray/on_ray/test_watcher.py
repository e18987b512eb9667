"""What Tune's callbacks show: a trial that waits for its teacher has not begun."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

pytest.importorskip("ray")

from dnad_ray.config.run import config_to_dict
from dnad_ray.on_ray.reports import metrics_of
from dnad_ray.on_ray.watcher import BoardCallback
from dnad_ray.run_folder.writing import create_run, write_status
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board
from dnad_ray.watch.moments import Reported, TrialBegan, TrialEnded

pytestmark = pytest.mark.ray


@pytest.fixture
def shown():
    return []


@pytest.fixture
def watcher(tiny, tmp_path, shown):
    folder = create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")

    def display(moment):
        if isinstance(moment, TrialBegan | TrialEnded | Reported):
            shown.append((type(moment), moment.trial.spec.name))

    board = Board([display])
    board.begin([TrialSpec(name, {"seed": 0}, tiny()) for name in ("t00", "t01", "t02")], folder)
    for name in ("t00", "t01", "t02"):
        write_status(folder, name, "finished")
    return BoardCallback(folder, board)


def trial(name):
    return SimpleNamespace(config={"trial": name}, path="")


def test_watcher_shows_trials_that_wait_once_they_can_begin(watcher, shown):
    for name in ("t00", "t01"):
        watcher.on_trial_start(1, [], trial(name))
    assert shown == []
    watcher.open()
    assert shown == [(TrialBegan, "t00"), (TrialBegan, "t01")]
    watcher.on_trial_start(2, [], trial("t02"))
    assert shown[2:] == [(TrialBegan, "t02")]


def test_watcher_shows_no_end_of_a_trial_that_waited_in_vain(watcher, shown):
    watcher.on_trial_start(1, [], trial("t00"))
    watcher.on_trial_complete(1, [], trial("t00"))
    assert shown == []
    watcher.open()
    watcher.on_trial_complete(1, [], trial("t00"))
    assert shown == [(TrialBegan, "t00"), (TrialEnded, "t00")]


def test_watcher_shows_every_record_of_a_report(watcher, shown, a_snapshot):
    watcher.open()
    watcher.on_trial_result(1, [], trial("t00"), {"stopped": "enough"})
    assert shown == []
    records = [dataclasses.replace(a_snapshot, step=step) for step in (3, 5, 7)]
    watcher.on_trial_result(1, [], trial("t00"), metrics_of(records, at_end=False))
    assert shown == [(Reported, "t00")] * 3
