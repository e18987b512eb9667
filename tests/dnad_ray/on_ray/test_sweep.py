"""Sweeps on a real local Ray, each in a process of its own.

Sweeps that are killed, hang or are interrupted are in ``test_mailbox``, those of several processes a trial in
``test_distributed``.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from dnad_ray.config.run import config_from_dict, config_to_dict
from dnad_ray.run_folder.reading import read_genotype, read_run
from dnad_ray.text import duration_in_words

pytestmark = pytest.mark.ray

LONGEST_BUDGET = 120  # seconds; where no trial begins in that time, something is wrong


@pytest.mark.slow
def test_sweep_end_to_end_though_a_trial_diverges_and_a_worker_is_killed(
    sweep, sweep_file, timeless, undisturbed, tmp_path
):
    out = tmp_path / "demo"
    grid = {"train.learning_rate": [3e-3, 1e30], "distill.temperature": [2.0]}
    settings = {"distill.kind": "logits", "sweep.grid": grid, "sweep.num_trials": 3}
    # Long enough that both are in their middle at once: whichever worker is killed then has lost a trial.
    longer = {"train.epochs": 40, "shrink.rate": 0.04}
    running = sweep(sweep_file(settings | longer, is_longer=True), out=out)
    running.wait_for(lambda: running.snapshots("t00") and running.snapshots("t02"))
    trial = running.wait_for(running.trial_process)
    assert trial.nice() == psutil.Process(running.driver.pid).nice()
    trial.kill()
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
    (killed,) = (name for name in ("t00", "t02") if contents.status[name]["attempt"] == 2)
    assert timeless(row for row in contents.snapshots if row["trial"] == killed) == undisturbed(out, killed)
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


@pytest.mark.slow
def test_sweep_whose_time_is_spent_pauses_its_trials_and_is_no_failure(sweep, sweep_file, tmp_path):
    out = tmp_path / "demo"
    # Nothing is ever deleted: without a budget it would not end.
    endless = {
        "train.epochs": 10_000_000,
        "shrink.gamma_init": 1e-9,
        "shrink.gamma_max": 1e9,
        "shrink.gamma_growth": 1.1,
    }
    config = sweep_file({**endless, "sweep.num_trials": 2, "sweep.max_concurrent": 1})
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
        if status or budget > LONGEST_BUDGET:
            break
        budget, resume = 2 * budget, ["--resume"]  # this machine was so busy that no trial began in time
    assert {name: entry["state"] for name, entry in status.items()} == {"t00": "paused"}
    steps = [json.loads(file.read_text())["step"] for file in out.glob("trials/t00/checkpoints/*/manifest.json")]
    history = read_run(out).history["t00"]
    # It took no epoch more than it wrote down, and saved the step at which it paused.
    assert 0 <= max(steps) - (history[-1]["step"] if history else 0) < 3


def test_sweep_starts_workers_while_its_teacher_is_trained_and_ends_with_it(sweep, sweep_file, tmp_path):
    out = tmp_path / "demo"
    running = sweep(sweep_file({"distill.kind": "logits", "distill.teacher.epochs": 100_000}), "--json", out=out)
    running.wait_for(running.trial_process)
    assert not (out / "teacher" / "teacher.json").exists()  # it would take an hour until there is one
    running.driver.terminate()  # as `ray job stop` does
    code, said, err, _ = running.wait()
    assert (code, "dnad-ray: stopping at the end of the step" in err) == (143, True), (said, err)
    assert err.splitlines()[-1].startswith("dnad-ray: error: interrupted; to continue: ")
    *events, last = [json.loads(line) for line in said.splitlines()]
    # A trial that waits for its teacher has not begun, and it leaves nothing behind.
    assert {event["event"] for event in events} == {"run_started", "activity"}
    assert (last["event"], last["state"]) == ("run_ended", "interrupted")
    assert not (out / "trials").exists()


@pytest.mark.slow
def test_sweep_places_two_trials_on_a_gpu_and_the_next_one_on_another(sweep, sweep_file, tmp_path, monkeypatch):
    # Ray believes in two GPUs and three CPUs and places trials by them; torch finds no GPU and computes on the CPU.
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 3, "GPU": 2}')
    out = tmp_path / "demo"
    settings = {"sweep.gpus_per_trial": 0.5, "train.device": "auto", "sweep.num_trials": 3}
    # All three wait for the teacher: if one of them were at its end, its worker would take the third one.
    config = sweep_file(settings | {"distill.kind": "logits", "distill.teacher.epochs": 60})
    code, said, err, _ = sweep(config, out=out).wait()
    assert (code, err) == (0, ""), said
    assert "3 trials of up to 6 epochs, 3 at a time" in said
    status = read_run(out).status
    assert sorted(entry["visible_gpus"] for entry in status.values()) == ["0", "0", "1"]
    assert {entry["threads"] for entry in status.values()} == {1}


def test_sweep_asking_for_too_much_is_refused_within_seconds(sweep, sweep_file, tmp_path):
    out = tmp_path / "demo"
    config = sweep_file({"sweep.cpus_per_trial": 4096, "distill.kind": "features", "distill.teacher.epochs": 10_000})
    code, said, err, seconds = sweep(config, out=out).wait()
    assert code == 2, (said, err)
    assert err.startswith("dnad-ray: error: sweep.cpus_per_trial: got 4096.0; allowed: at most ")
    assert err.count("\n") == 1
    assert seconds < 90
    assert not out.exists()


def test_sweep_without_the_cluster_it_is_to_join_is_refused_within_seconds(sweep, sweep_file, tmp_path):
    with socket.socket() as bound:  # nobody listens on this port, and nobody else gets it
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        out = tmp_path / "demo"
        code, said, err, seconds = sweep(sweep_file({}), "--address", address, out=out).wait()
    assert code == 2, (said, err)
    assert err.startswith(f"dnad-ray: error: --address: got '{address}'; allowed: a Ray cluster that answers")
    assert err.count("\n") == 1
    assert seconds < 60
    assert not out.exists()
    assert Path.cwd() == tmp_path
