"""A trial in several processes, on a real Ray: what is killed of it goes on, and the records stay the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dnad_ray.run_folder.reading import read_run, read_status

pytestmark = pytest.mark.ray

SECONDS = 420  # after which a search of seconds hangs


@pytest.mark.slow
def test_sweep_of_two_processes_each_goes_on_after_one_and_then_the_trial_is_killed(
    sweep, sweep_file, timeless, tmp_path
):
    out = tmp_path / "demo"
    settings = {"train.num_processes": 2, "sweep.cpus_per_trial": 2}
    settings |= {"distill.kind": "logits", "distill.temperature": 2.0}
    running = sweep(sweep_file(settings, is_longer=True), out=out)
    running.wait_for(lambda: running.snapshots("t00"))
    running.wait_for(lambda: running.process_named("ray::RayTrainWorker")).kill()
    before = running.wait_for(lambda: read_status(out, "t00").get("attempt") == 2 and len(running.snapshots("t00")))
    running.wait_for(lambda: len(running.snapshots("t00")) > before)
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
    job = {"task": "searched", "name": "job", "config": contents.config, "all_images": True}
    (tmp_path / "jobs.json").write_text(json.dumps({"t00": job}))
    program = Path(__file__).parents[1] / "two_processes.py"
    ranks = [subprocess.Popen([sys.executable, str(program), str(tmp_path), str(rank), "2"]) for rank in range(2)]
    assert [process.wait(SECONDS) for process in ranks] == [0, 0]
    expected = json.loads((tmp_path / "0.json").read_text())["t00"]["records"]
    names = {"run": "r", "trial": "t"}
    assert [row | names for row in timeless(contents.snapshots)] == expected
