"""Sweeps on a real local Ray, each in a process of its own, and what happens when parts of them are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dnad_ray.checkpoint import load_newest
from dnad_ray.config import config_from_dict, config_to_dict
from dnad_ray.data import load_data
from dnad_ray.durations import duration_in_words
from dnad_ray.search import SearchState, search
from dnad_ray.store import read_genotype, read_run
from dnad_ray.teacher import load_teacher, read_teacher
from dnad_ray.trial import trials_of

pytestmark = pytest.mark.ray

SECONDS = 240  # after which a sweep of seconds hangs
# Slow enough that what is killed has not finished meanwhile.
LONGER = {
    "data.image_size": 14,
    "space.init_channels": 8,
    "train.epochs": 16,
    "shrink.rate": 0.1,
    "shrink.floor.operations": 4,
}


class Sweep:
    """A sweep as its user starts it, and all processes that it ever started."""

    def __init__(self, *arguments, out, **variables):
        self.out = out
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | variables
        self.driver = subprocess.Popen(
            [sys.executable, "-m", "dnad_ray", "sweep", *map(str, arguments), "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # so that Ctrl-C can be pressed: all processes of a terminal get it
        )
        self.began = time.monotonic()
        self.processes = {}

    def watch(self):
        """Remember the descendants of the driver: those of a killed one are nobody's children."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.driver.pid).children(recursive=True):
                self.processes[process.pid] = process

    def wait_for(self, found):
        while not (result := found()):
            self.watch()
            assert self.driver.poll() is None, self.driver.communicate()
            assert time.monotonic() - self.began < SECONDS
            time.sleep(0.02)
        self.watch()
        return result

    def wait(self):
        """Wait for the end; returns exit code, standard output, standard error and seconds."""
        while self.driver.poll() is None:
            self.watch()
            assert time.monotonic() - self.began < SECONDS
            time.sleep(0.1)
        said, err = self.driver.communicate(timeout=30)
        return self.driver.returncode, said, err, time.monotonic() - self.began

    def process_named(self, beginning):
        """A running worker whose name begins like that, None while there is none."""
        for process in self.processes.values():
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.cmdline()[:1] and process.cmdline()[0].startswith(beginning):
                    return process
        return None

    def trial_process(self):
        """The process of a running trial, None while there is none."""
        return self.process_named("ray::ImplicitFunc.train")

    def clean_up(self):
        """End what is left, by its id: others on this machine may have a Ray of their own."""
        self.watch()
        if self.driver.poll() is None:
            self.driver.kill()
        for process in self.processes.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil makes sure that the id is still that process's
        psutil.wait_procs(list(self.processes.values()), timeout=20)
        self.driver.communicate()


@pytest.fixture
def sweep():
    started = []

    def start(*arguments, out, **variables):
        started.append(Sweep(*arguments, out=out, **variables))
        return started[-1]

    yield start
    for entry in started:
        entry.clean_up()


@pytest.fixture
def config_file(tiny, tmp_path):
    def write(overrides):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(config_to_dict(tiny({"train.batch_size": 384, **overrides}))))
        return path

    return write


def undisturbed(out, timeless):
    """The records of the same trials, searched in this process; those of a trial that diverges are none."""
    contents = read_run(out)
    config = config_from_dict(contents.config)
    data, file = load_data(config.data), read_teacher(out / "teacher")
    teacher = None if file is None else load_teacher(file, torch.device("cpu"))
    records = []
    for spec in trials_of(config):
        if contents.status[spec.name]["state"] == "finished":
            records += timeless(search(SearchState.start(spec.config, data, teacher, run=out.name, trial=spec.name)))
    return records


def snapshot_files(out, trial):
    return sorted((out / "trials" / trial / "snapshots").glob("*.json"))


def test_sweep_end_to_end_though_a_trial_diverges_and_a_worker_is_killed(sweep, config_file, timeless, tmp_path):
    out = tmp_path / "demo"
    grid = {"train.learning_rate": [3e-3, 1e30], "distill.temperature": [2.0]}
    running = sweep(
        config_file({**LONGER, "distill.kind": "logits", "sweep.grid": grid, "sweep.num_trials": 3}), out=out
    )
    running.wait_for(lambda: snapshot_files(out, "t00") or snapshot_files(out, "t02"))
    running.wait_for(running.trial_process).kill()
    code, said, err, _ = running.wait()

    contents = read_run(out)
    states = {name: status["state"] for name, status in contents.status.items()}
    assert states == {"t00": "finished", "t01": "stopped", "t02": "finished"}, (said, err)
    assert sorted(contents.status[name]["attempt"] for name in ("t00", "t02")) == [1, 2]
    assert code == 1
    assert err.count("\n") == 1
    assert err.startswith("dnad-ray: error: 1 of 3 trials stopped early, their snapshots stand: t01: the loss became")
    assert "--resume" not in err
    assert "t01 stopped early: the loss became" in said
    (details,) = (line for line in said.splitlines() if "the worker failed; Ray tries again" in line)
    assert Path(details.partition("(")[2].rstrip(")")).is_file()
    assert "sweep: about " in said
    assert "teacher: 100%" in said

    assert config_to_dict(config_from_dict(contents.config)) == contents.config  # complete
    assert contents.problems == ()
    assert timeless(contents.snapshots) == undisturbed(out, timeless)
    assert {(row["trial"], row["seed"]) for row in contents.snapshots} == {("t00", 0), ("t02", 1)}
    for name in ("t00", "t02"):
        epochs = [entry["epoch"] for entry in contents.history[name]]
        assert epochs == list(range(1, len(epochs) + 1))
        assert contents.status[name]["threads"] == 1
    assert pq.read_table(out / "snapshots.parquet").to_pylist() == contents.snapshots
    front = json.loads((out / "front.json").read_text())
    assert front
    for record in front:
        assert read_genotype(out, record["digest"]).digest == record["digest"]
    assert (out / "report.html").stat().st_size > 10_000
    assert not list(out.glob(".visible-*"))


def test_sweep_killed_then_terminated_is_resumed_with_the_same_result(sweep, config_file, timeless, tmp_path):
    out = tmp_path / "demo"
    config = config_file({**LONGER, "sweep.num_trials": 2, "sweep.max_concurrent": 1})
    killed = sweep(config, out=out)
    killed.wait_for(lambda: snapshot_files(out, "t01"))
    os.kill(killed.driver.pid, signal.SIGKILL)
    killed.clean_up()
    before = read_run(out)
    assert {name: status["state"] for name, status in before.status.items()} == {"t00": "finished", "t01": "running"}
    assert before.status["t00"]["pid"] == before.status["t01"]["pid"]  # a worker takes the next trial
    finished = [(file.name, file.stat().st_mtime_ns) for file in snapshot_files(out, "t00")]

    terminated = sweep(config, "--resume", out=out)
    early = len(snapshot_files(out, "t01"))
    terminated.wait_for(lambda: len(snapshot_files(out, "t01")) > early)
    terminated.driver.terminate()  # what `ray job stop` sends
    code, said, err, _ = terminated.wait()
    assert code == 143, (said, err)
    assert "1 trial of up to 16 epochs" in said  # t00 is not run again
    notice, last = err.splitlines()
    assert notice.startswith("dnad-ray: stopping at the end of the step")
    assert last == f"dnad-ray: error: interrupted; to continue: dnad-ray sweep {config} --out {out} --resume"
    status = read_run(out).status["t01"]
    assert (status["state"], status["reason"]) == ("interrupted", "interrupted by SIGTERM")
    saved = load_newest((out / "trials" / "t01" / "checkpoints").iterdir())
    assert saved["step"] == status["step"]  # nothing of what was computed is lost
    assert (out / "report.html").exists()

    stored = read_run(out)
    code, said, err, _ = sweep(config, "--resume", "--json", out=out).wait()
    assert (code, "error" in err) == (0, False), err
    after = read_run(out)
    assert_watched(out, [json.loads(line) for line in said.splitlines()], stored, after)
    assert {name: (status["state"], status["attempt"]) for name, status in after.status.items()} == {
        "t00": ("finished", 1),
        "t01": ("finished", 3),
    }
    assert [(file.name, file.stat().st_mtime_ns) for file in snapshot_files(out, "t00")] == finished
    keys = [(row["trial"], row["step"]) for row in pq.read_table(out / "snapshots.parquet").to_pylist()]
    assert len(keys) == len(set(keys)) > len(before.snapshots)
    assert timeless(after.snapshots) == undisturbed(out, timeless)


@pytest.mark.slow
def test_sweep_whose_trial_raises_hangs_and_is_interrupted_ends_with_the_same_result(
    sweep, config_file, timeless, tmp_path
):
    out, home = tmp_path / "demo", tmp_path / "home"
    home.mkdir()
    config = config_file({**LONGER, "train.epochs": 24, "shrink.rate": 0.05, "sweep.num_trials": 2})

    raising = sweep(config, out=out, HOME=str(home))
    raising.wait_for((out / "run.json").exists)
    (out / "trials" / "t01").mkdir(parents=True)
    obstacle = out / "trials" / "t01" / "snapshots"
    obstacle.write_text("in the way of the folder that the trial wants to make")
    code, said, err, _ = raising.wait()
    assert code == 1, (said, err)
    assert err.count("\n") == 1
    assert err.startswith("dnad-ray: error: 1 of 2 trials did not finish (t01); ")
    assert "Error: " in err
    assert str(obstacle) in err
    assert err.endswith(f"; to continue: dnad-ray sweep {config} --out {out} --resume\n")
    assert (said.count("Ray tries again"), said.count("failed too often")) == (2, 1)
    assert {name: status["state"] for name, status in read_run(out).status.items()} == {
        "t00": "finished",
        "t01": "failed",
    }
    finished = [(file.name, file.stat().st_mtime_ns) for file in snapshot_files(out, "t00")]
    assert stat.S_IMODE((home / ".ray" / "auth_token").stat().st_mode) == 0o600
    obstacle.unlink()

    hanging = sweep(config, "--resume", out=out)
    hanging.wait_for(lambda: snapshot_files(out, "t01"))
    trial = hanging.wait_for(hanging.trial_process)
    trial.suspend()
    os.killpg(hanging.driver.pid, signal.SIGINT)
    time.sleep(2)
    assert hanging.driver.poll() is None  # it waits for the trial's step
    began = time.monotonic()
    os.killpg(hanging.driver.pid, signal.SIGINT)
    code, said, err, _ = hanging.wait()
    assert time.monotonic() - began < SECONDS / 4
    assert code == 130, (said, err)
    assert err.splitlines()[-1].startswith("dnad-ray: error: interrupted; to continue: ")
    assert read_run(out).status["t01"]["state"] == "running"
    hanging.clean_up()

    interrupted = sweep(config, "--resume", out=out)
    early = len(snapshot_files(out, "t01"))
    interrupted.wait_for(lambda: len(snapshot_files(out, "t01")) > early)
    os.killpg(interrupted.driver.pid, signal.SIGINT)
    code, said, err, _ = interrupted.wait()
    assert code == 130, (said, err)
    assert err.splitlines()[-1].startswith("dnad-ray: error: interrupted; to continue: ")
    status = read_run(out).status["t01"]
    assert (status["state"], status["reason"]) == ("interrupted", "interrupted by SIGINT")
    assert load_newest((out / "trials" / "t01" / "checkpoints").iterdir())["step"] == status["step"]

    code, said, err, _ = sweep(config, "--resume", out=out).wait()
    assert (code, err) == (0, ""), said
    assert "1 trial of up to 24 epochs" in said
    assert [(file.name, file.stat().st_mtime_ns) for file in snapshot_files(out, "t00")] == finished
    assert timeless(read_run(out).snapshots) == undisturbed(out, timeless)


def test_sweep_whose_time_is_spent_pauses_its_trials_and_is_no_failure(sweep, config_file, tmp_path):
    out = tmp_path / "demo"
    # Nothing is ever deleted: without a budget it would not end.
    endless = {
        "train.epochs": 10_000_000,
        "shrink.gamma_init": 1e-9,
        "shrink.gamma_max": 1e9,
        "shrink.gamma_growth": 1.1,
    }
    config = config_file({**endless, "sweep.num_trials": 2, "sweep.max_concurrent": 1})
    budget, resume = 20, []
    while True:
        code, said, err, seconds = sweep(config, "--time-budget", f"{budget}s", *resume, out=out).wait()
        assert (code, err) == (0, ""), said
        assert seconds >= budget
        assert f"the time budget of {duration_in_words(budget)} is spent; 2 of 2 trials are not at their end" in said
        assert said.splitlines()[-1].endswith(
            f"to continue: dnad-ray sweep {config} --time-budget {budget}s --out {out} --resume"
        )
        assert "trials at their end" not in said
        status = read_run(out).status
        if status or budget > SECONDS / 2:
            break
        budget, resume = 2 * budget, ["--resume"]  # this machine was so busy that no trial began in time
    assert {name: entry["state"] for name, entry in status.items()} == {"t00": "paused"}
    steps = [json.loads(file.read_text())["step"] for file in out.glob("trials/t00/checkpoints/*/manifest.json")]
    history = read_run(out).history["t00"]
    # It took no epoch more than it wrote down, and saved the step at which it paused.
    assert 0 <= max(steps) - (history[-1]["step"] if history else 0) < 3


def assert_watched(out, events, stored, after):
    """What a resumed sweep told a program, and what curves and page hold after three commands."""
    started = next(event for event in events if event["event"] == "run_started")
    assert (started["resumed"], started["num_snapshots"]) == (True, len(stored.snapshots))
    assert [trial["state"] for trial in started["trials"]] == ["finished", "waiting"]
    told = [event["snapshot"] for event in events if event["event"] == "snapshot"]
    assert stored.snapshots + told == after.snapshots  # t01 is the last one: its new snapshots are the end
    ends = [(event["trial"], event["state"]) for event in events if event["event"] == "trial_ended"]
    assert ends == [("t01", "finished")]
    assert (events[-1]["event"], events[-1]["state"]) == ("run_ended", "finished")
    assert events[-1]["front"] == json.loads((out / "front.json").read_text())
    for trial in ("t00", "t01"):
        curves = EventAccumulator(str(out / "tensorboard" / trial), size_guidance={"scalars": 0})
        curves.Reload()
        steps = {name: [event.step for event in curves.Scalars(name)] for name in ("macs", "train_loss")}
        assert steps["macs"] == [row["step"] for row in after.snapshots if row["trial"] == trial]
        assert steps["train_loss"] == [entry["step"] for entry in after.history[trial]]
    picture = json.loads((out / "live.js").read_text().removeprefix("drawRun(").removesuffix(");\n"))
    assert (picture["state"], picture["counts"], picture["num_snapshots"]) == (
        "finished",
        {"finished": 2},
        len(after.snapshots),
    )


def test_sweep_starts_workers_while_its_teacher_is_trained_and_ends_with_it(sweep, config_file, tmp_path):
    out = tmp_path / "demo"
    running = sweep(config_file({"distill.kind": "logits", "distill.teacher.epochs": 100_000}), "--json", out=out)
    running.wait_for(running.trial_process)
    assert not (out / "teacher").exists()  # it would take an hour until there is one
    os.killpg(running.driver.pid, signal.SIGINT)
    code, said, err, _ = running.wait()
    assert (code, "dnad-ray: stopping at the end of the step" in err) == (130, True), (said, err)
    assert err.splitlines()[-1].startswith("dnad-ray: error: interrupted; to continue: ")
    *events, last = [json.loads(line) for line in said.splitlines()]
    # A trial that waits for its teacher has not begun, and it leaves nothing behind.
    assert {event["event"] for event in events} == {"run_started", "activity"}
    assert (last["event"], last["state"]) == ("run_ended", "interrupted")
    assert not (out / "trials").exists()


def test_sweep_asking_for_too_much_is_refused_within_seconds(sweep, config_file, tmp_path):
    out = tmp_path / "demo"
    config = config_file({"sweep.cpus_per_trial": 4096, "distill.kind": "features", "distill.teacher.epochs": 10_000})
    code, said, err, seconds = sweep(config, out=out).wait()
    assert code == 2, (said, err)
    assert err.startswith("dnad-ray: error: sweep.cpus_per_trial: got 4096.0; allowed: at most ")
    assert err.count("\n") == 1
    assert seconds < 90
    assert not out.exists()


def test_sweep_without_the_cluster_it_is_to_join_is_refused_within_seconds(sweep, config_file, tmp_path):
    with socket.socket() as bound:  # nobody listens on this port, and nobody else gets it
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        out = tmp_path / "demo"
        code, said, err, seconds = sweep(config_file({}), "--address", address, out=out).wait()
    assert code == 2, (said, err)
    assert err.startswith(f"dnad-ray: error: --address: got '{address}'; allowed: a Ray cluster that answers")
    assert err.count("\n") == 1
    assert seconds < 60
    assert not out.exists()
    assert Path.cwd() == tmp_path


@pytest.mark.slow
def test_sweep_of_two_processes_each_goes_on_after_one_and_then_the_trial_is_killed(
    sweep, config_file, timeless, tmp_path
):
    out = tmp_path / "demo"
    settings = {**LONGER, "train.num_processes": 2, "sweep.cpus_per_trial": 2}
    config = config_file({**settings, "distill.kind": "logits", "distill.temperature": 2.0})
    running = sweep(config, out=out)

    def status_of(key):
        return read_run(out).status.get("t00", {}).get(key)

    running.wait_for(lambda: snapshot_files(out, "t00"))
    running.wait_for(lambda: running.process_named("ray::RayTrainWorker")).kill()
    before = running.wait_for(lambda: status_of("attempt") == 2 and len(snapshot_files(out, "t00")))
    running.wait_for(lambda: len(snapshot_files(out, "t00")) > before)
    # Without the trial itself, nobody is left to give back what its processes were placed in.
    running.wait_for(running.trial_process).kill()
    code, said, err, _ = running.wait()
    assert (code, err) == (0, ""), said
    assert said.count("the worker failed; Ray tries again") == 2
    assert not list(out.glob("trials/*/place.json"))

    contents = read_run(out)
    status = contents.status["t00"]
    assert {name: status[name] for name in ("state", "attempt", "processes", "threads")} == {
        "state": "finished",
        "attempt": 3,
        "processes": 2,
        "threads": 1,
    }
    keys = [row["step"] for row in contents.snapshots]
    assert len(keys) == len(set(keys)) > 1
    # The same search in two processes without Ray, never killed.
    (tmp_path / "job").symlink_to(out)
    job = {"task": "whole", "name": "job", "config": contents.config, "all_images": True}
    (tmp_path / "jobs.json").write_text(json.dumps({"t00": job}))
    program = Path(__file__).with_name("two_processes.py")
    ranks = [subprocess.Popen([sys.executable, str(program), str(tmp_path), str(rank), "2"]) for rank in range(2)]
    assert [process.wait(SECONDS) for process in ranks] == [0, 0]
    expected = json.loads((tmp_path / "0.json").read_text())["t00"]["records"]
    names = {"run": "r", "trial": "t"}
    assert [row | names for row in timeless(contents.snapshots)] == expected


@pytest.mark.slow
def test_sweep_places_two_trials_on_each_gpu(sweep, config_file, tmp_path, monkeypatch):
    # Ray believes in two GPUs and four CPUs and places trials by them; torch finds no GPU and computes on the CPU.
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 4, "GPU": 2}')
    out = tmp_path / "demo"
    config = config_file({"sweep.gpus_per_trial": 0.5, "train.device": "auto", "sweep.num_trials": 4})
    code, said, err, _ = sweep(config, out=out).wait()
    assert (code, err) == (0, ""), said
    assert "4 trials of up to 6 epochs, 4 at a time" in said
    status = read_run(out).status
    assert sorted(entry["visible_gpus"] for entry in status.values()) == ["0", "0", "1", "1"]
    assert {entry["threads"] for entry in status.values()} == {1}
