"""The scheduler: what it decides, and a real sweep in which a dominated trial gives its slot to another."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("ray")

from dnad_ray.config.run import config_from_dict, config_to_dict, with_overrides
from dnad_ray.data.loading import load_data
from dnad_ray.on_ray.scheduler import ParetoScheduler
from dnad_ray.run_folder.reading import read_run, read_status
from dnad_ray.run_folder.writing import create_run, write_status
from dnad_ray.search.loop import SearchState, search
from dnad_ray.trials.dominance import Trajectories

pytestmark = pytest.mark.ray

SECONDS = 420  # after which a sweep of seconds hangs
FACTS = {"attempt": 1, "overrides": {"shrink.rate": 0.1, "seed": 0}, "device": "cpu", "threads": 1}


@pytest.fixture
def report(tiny, tmp_path):
    """Let a trial report to the scheduler; returns its decision."""
    folder = create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")
    scheduler = ParetoScheduler(Trajectories(100, patience=2), folder)

    def tell(name, step, at_end=False, macs=None, error=None):
        if read_status(folder, name)["state"] == "unknown":
            write_status(folder, name, "running", **FACTS)
        trial = SimpleNamespace(config={"trial": name, "overrides": {"shrink.rate": float(name[1:]), "seed": 0}})
        result = {"step": step, "epoch": 1, "at_end": at_end, "device_seconds": step / 10}
        result["points"] = [] if macs is None else [(step, macs, error)]
        return scheduler.on_trial_result(None, trial, result)

    tell.folder = folder
    return tell


def test_scheduler_stops_a_dominated_trial_and_writes_down_why(report):
    assert [report("t00", step, macs=400 - 100 * step, error=0.1) for step in range(4)] == ["CONTINUE"] * 4
    assert report("t01", 1, macs=350, error=0.8) == "CONTINUE"  # one snapshot is fewer than its patience
    assert report("t01", 2) == "CONTINUE"  # an epoch's report
    assert read_status(report.folder, "t01") == {"state": "running", **FACTS}
    assert report("t01", 3, macs=250, error=0.8) == "STOP"
    status = read_status(report.folder, "t01")
    assert status.pop("reason").startswith("worse at all 2 snapshots that others had an equal of, by ")
    assert status == {"state": "dominated", "device_seconds": 0.3, **FACTS}
    assert read_status(report.folder, "t00")["state"] == "running"


def test_scheduler_leaves_alone_a_trial_at_its_end(report):
    for step in range(4):
        report("t00", step, macs=400 - 100 * step, error=0.1)
    report("t01", 1, macs=350, error=0.8)
    assert report("t01", 3, macs=250, error=0.8, at_end=True) == "CONTINUE"
    assert read_status(report.folder, "t01")["state"] == "running"  # it writes its own end


def test_scheduler_compares_with_what_others_report_later(report):
    assert report("t01", 1, macs=350, error=0.8) == "CONTINUE"
    assert report("t01", 2, macs=250, error=0.8) == "CONTINUE"  # alone so far
    for step in range(4):
        report("t00", step, macs=400 - 100 * step, error=0.1)
    assert report("t01", 3) == "STOP"


@pytest.mark.slow
def test_sweep_gives_the_slot_of_a_dominated_trial_to_another(tiny, start, timeless, tmp_path):
    out, file = tmp_path / "demo", tmp_path / "mine.yaml"
    sweep = {
        "sweep.grid": {"train.learning_rate": [3e-3, 1e-7]},  # with the second nothing is learned
        "sweep.num_trials": 4,
        "sweep.max_concurrent": 1,
        "sweep.scheduler": "pareto",
        "sweep.patience": 2,
    }
    sweep["data.padding"] = "black"  # with it both trials pass the same sizes, which they are compared at
    file.write_text(yaml.safe_dump(config_to_dict(tiny(sweep))))
    done = start("sweep", file, "--out", out, "--max-trials", "3")
    said, err = done.communicate(timeout=SECONDS)
    assert (done.returncode, err) == (0, ""), said

    contents = read_run(out)
    states = {name: status["state"] for name, status in contents.status.items()}
    assert states == {"t00": "finished", "t01": "dominated", "t02": "finished"}
    assert contents.status["t01"]["reason"].startswith("worse at all 2 snapshots")
    assert f"t01 stopped by the scheduler: {contents.status['t01']['reason']}" in said
    assert "--max-trials 3 is reached; 1 of 4 trials are not at their end (t03); to continue: " in said
    # What it had recorded stands, and is what it would have recorded anyway; then it took no further step.
    config = config_from_dict(contents.config)
    data, snapshots = load_data(config.data), {}
    for name, status in contents.status.items():
        trial = with_overrides(config, status["overrides"])
        everything = timeless(search(SearchState.start(trial, data, run="demo", trial=name)))
        snapshots[name] = timeless(row for row in contents.snapshots if row["trial"] == name)
        assert snapshots[name] == everything[: len(snapshots[name])]
        assert (len(snapshots[name]) < len(everything)) == (name == "t01")
    assert len(contents.history["t01"]) < len(contents.history["t00"])
    stopped = contents.status["t01"]["device_seconds"]
    assert stopped == [row["device_seconds"] for row in contents.snapshots if row["trial"] == "t01"][-1]
    assert json.loads((out / "front.json").read_text())
