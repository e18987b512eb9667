"""A sweep that is killed, fails, hangs and is asked to stop, on a real Ray, and comes to the same end all the same."""

from __future__ import annotations

import json
import os
import signal
import stat
import time

import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dnad_ray.run_folder.checkpoints import load_newest
from dnad_ray.run_folder.reading import read_run, read_status
from dnad_ray.storage.checksums import parse_record

pytestmark = pytest.mark.ray

FORCED_SECONDS = 60  # after which a second interrupt has had no effect


@pytest.mark.slow
def test_sweep_killed_failing_hanging_and_interrupted_ends_with_the_same_result(
    sweep, sweep_file, undisturbed, timeless, tmp_path
):
    """One run in five commands, one trial at a time; the second one has all the trouble.

    SIGTERM does what SIGINT does; it is sent in ``test_sweep``, and to a search in ``test_run_options``.
    """
    out = tmp_path / "demo"
    # The second trial shrinks slowly and has many snapshots: each command but the failing one gets some steps further.
    many = {"train.epochs": 70, "sweep.grid": {"shrink.rate": [0.3, 0.02]}, "sweep.num_trials": 3}
    many["sweep.max_concurrent"] = 1
    config = sweep_file(many, is_longer=True)

    killed = sweep(config, out=out)
    killed.wait_for(lambda: killed.snapshots("t01"))
    os.kill(killed.driver.pid, signal.SIGKILL)
    killed.clean_up()
    before = read_run(out)
    assert {name: status["state"] for name, status in before.status.items()} == {"t00": "finished", "t01": "running"}
    assert before.status["t00"]["pid"] == before.status["t01"]["pid"]  # a worker takes the next trial
    assert not (out / "front.json").exists()
    finished = times_of(killed, "t00")

    fail(sweep, config, out, tmp_path / "home")
    assert times_of(killed, "t00") == finished
    finished += times_of(killed, "t02")
    hang(sweep, config, out)
    assert read_status(out, "t01")["state"] == "running"
    stop(sweep, config, out)

    stored = read_run(out)
    code, said, err, _ = sweep(config, "--resume", "--json", out=out).wait()
    assert (code, "error" in err) == (0, False), err
    after = read_run(out)
    assert_watched(out, [json.loads(line) for line in said.splitlines()], stored, after)
    # The second trial: killed, three times failing, hanging, interrupted, at its end.
    assert {name: (status["state"], status["attempt"]) for name, status in after.status.items()} == {
        "t00": ("finished", 1),
        "t01": ("finished", 7),
        "t02": ("finished", 1),
    }
    assert times_of(killed, "t00") + times_of(killed, "t02") == finished
    keys = [(row["trial"], row["step"]) for row in pq.read_table(out / "snapshots.parquet").to_pylist()]
    assert len(keys) == len(set(keys)) > len(before.snapshots)
    assert timeless(row for row in after.snapshots if row["trial"] == "t01") == undisturbed(out, "t01")


def times_of(running, trial):
    return [(file.name, file.stat().st_mtime_ns) for file in running.snapshots(trial)]


def fail(sweep, config, out, home):
    """Continue a sweep whose second trial can keep no checkpoint; the third one is searched all the same."""
    obstacle, kept = out / "trials" / "t01" / "checkpoints", out / "kept"
    if obstacle.exists():  # the trial may have been killed before its first one
        obstacle.rename(kept)
    obstacle.write_text("in the way of the folder that the trial wants to write into")
    home.mkdir()
    code, said, err, _ = sweep(config, "--resume", out=out, HOME=str(home)).wait()
    assert code == 1, (said, err)
    assert err.count("\n") == 1
    assert err.startswith("dnad-ray: error: 1 of 3 trials did not finish (t01); ")
    assert "Error: " in err
    assert str(obstacle) in err
    assert err.endswith(f"; to continue: dnad-ray sweep {config} --out {out} --resume\n")
    assert (said.count("Ray tries again"), said.count("failed too often")) == (2, 1)
    assert "2 trials of up to 70 epochs" in said  # the first one is not run again
    obstacle.unlink()
    if kept.exists():
        kept.rename(obstacle)
    assert {name: status["state"] for name, status in read_run(out).status.items()} == {
        "t00": "finished",
        "t01": "failed",
        "t02": "finished",
    }
    assert stat.S_IMODE((home / ".ray" / "auth_token").stat().st_mode) == 0o600


def hang(sweep, config, out):
    """Continue a sweep whose trial then hangs: one interrupt waits for its step, a second one does not."""
    hanging = sweep(config, "--resume", out=out)
    early = len(hanging.snapshots("t01"))
    hanging.wait_for(lambda: len(hanging.snapshots("t01")) > early)
    hanging.wait_for(hanging.trial_process).suspend()
    os.killpg(hanging.driver.pid, signal.SIGINT)
    time.sleep(2)
    assert hanging.driver.poll() is None  # it waits for the trial's step
    began = time.monotonic()
    os.killpg(hanging.driver.pid, signal.SIGINT)
    code, said, err, _ = hanging.wait()
    assert time.monotonic() - began < FORCED_SECONDS
    assert code == 130, (said, err)
    assert err.splitlines()[-1].startswith("dnad-ray: error: interrupted; to continue: ")
    hanging.clean_up()


def stop(sweep, config, out):
    """Continue a sweep and interrupt it as a terminal does, which asks all processes."""
    running = sweep(config, "--resume", out=out)
    early = len(running.snapshots("t01"))
    running.wait_for(lambda: len(running.snapshots("t01")) > early)
    os.killpg(running.driver.pid, signal.SIGINT)
    code, said, err, _ = running.wait()
    assert code == 130, (said, err)
    assert "1 trial of up to 70 epochs" in said  # what is finished is not run again
    notice, *_, last = err.splitlines()  # Ray's own processes were asked too, and may say so in between
    assert notice.startswith("dnad-ray: stopping at the end of the step")
    assert last == f"dnad-ray: error: interrupted; to continue: dnad-ray sweep {config} --out {out} --resume"
    status = read_status(out, "t01")
    assert (status["state"], status["reason"]) == ("interrupted", "interrupted by SIGINT")
    saved = load_newest((out / "trials" / "t01" / "checkpoints").iterdir())
    assert saved["step"] == status["step"]  # nothing of what was computed is lost
    assert (out / "report.html").exists()


def assert_watched(out, events, stored, after):
    """What a resumed sweep told a program, and what curves and page hold after five commands."""
    started = next(event for event in events if event["event"] == "run_started")
    assert (started["resumed"], started["num_snapshots"]) == (True, len(stored.snapshots))
    assert [trial["state"] for trial in started["trials"]] == ["finished", "waiting", "finished"]
    told = [event["snapshot"] for event in events if event["event"] == "snapshot"]
    by_trial = {name: [row for row in after.snapshots if row["trial"] == name] for name in ("t00", "t01", "t02")}
    for name, rows in by_trial.items():
        assert [row for row in stored.snapshots if row["trial"] == name] + told * (name == "t01") == rows
    ends = [(event["trial"], event["state"]) for event in events if event["event"] == "trial_ended"]
    assert ends == [("t01", "finished")]
    assert (events[-1]["event"], events[-1]["state"]) == ("run_ended", "finished")
    assert events[-1]["front"] == parse_record((out / "front.json").read_bytes(), "front")
    for trial, rows in by_trial.items():
        curves = EventAccumulator(str(out / "tensorboard" / trial), size_guidance={"scalars": 0})
        curves.Reload()
        steps = {name: [event.step for event in curves.Scalars(name)] for name in ("error", "train_loss")}
        assert steps["error"] == [row["step"] for row in rows]
        assert steps["train_loss"] == [entry["step"] for entry in after.history[trial]]
    picture = json.loads((out / "live.js").read_text().removeprefix("drawRun(").removesuffix(");\n"))
    assert (picture["state"], picture["counts"], picture["num_snapshots"]) == (
        "finished",
        {"finished": 3},
        len(after.snapshots),
    )
