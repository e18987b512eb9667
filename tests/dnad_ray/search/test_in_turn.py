"""A sweep without Ray: the same bits and the same folder as a search of each trial alone."""

from __future__ import annotations

import sys

import pytest

from dnad_ray.config.run import config_from_dict, config_to_dict, with_overrides
from dnad_ray.data.loading import load_data
from dnad_ray.run_folder.reading import read_run, read_status
from dnad_ray.run_folder.writing import create_run, write_status
from dnad_ray.runtime.budget import Budget
from dnad_ray.search import in_turn
from dnad_ray.search.in_turn import run_in_turn
from dnad_ray.search.loop import SearchState, search
from dnad_ray.search.prepare import PreparedRun
from dnad_ray.trials.plan import trials_in
from dnad_ray.watch.board import Board
from dnad_ray.watch.moments import TrialEnded

GRID = {"sweep.grid": {"shrink.rate": [0.2, 0.3]}, "train.epochs": 4}
DRAWN = {
    "sweep.sampler": "optuna",
    "sweep.num_trials": 3,
    "sweep.ranges": {"shrink.rate": {"uniform": [0.2, 0.4]}},
    "train.epochs": 3,
}


@pytest.fixture
def run(digits, tmp_path):
    """Runs the trials of a configuration that are not at their end, and returns what the folder then holds."""
    ended = []

    def display(moment):
        if isinstance(moment, TrialEnded):
            ended.append((moment.trial.spec.name, str(moment.trial.state)))

    def call(config, stop=lambda: None, max_trials=None, make_sampler=None):
        folder, stored = tmp_path / "demo", None
        if folder.exists():
            stored = read_run(folder)
        else:
            create_run(folder, config_to_dict(config), "0.1")
        board, specs = Board([display]), trials_in(config, stored)
        board.begin(specs, folder, stored)
        run_in_turn(
            config,
            specs,
            PreparedRun(digits, None),
            folder,
            board,
            budget=Budget(max_trials=max_trials),
            stop=stop,
            stored=stored,
            make_sampler=make_sampler,
        )
        return read_run(folder)

    call.ended = ended
    return call


@pytest.fixture
def alone(digits, timeless):
    """The records of a trial that was searched by itself."""

    def records(config, name, overrides):
        state = SearchState.start(with_overrides(config, overrides), digits, run="demo", trial=name)
        return timeless(search(state))

    return records


def states(contents):
    return {name: str(status["state"]) for name, status in contents.status.items()}


def test_trials_in_turn_stop_and_go_on(tiny, run, alone, timeless):
    config = tiny(GRID)
    spent = Budget(1e-9).check
    assert states(run(config, spent)) == {}  # no trial begins after the end
    asked = []

    def soon():
        asked.append(None)
        return spent() if len(asked) > 5 else None

    assert states(run(config, soon)) == {"t00": "paused"}
    assert states(run(config, max_trials=1)) == {"t00": "finished"}
    contents = run(config)
    assert states(contents) == {"t00": "finished", "t01": "finished"}
    expected = [alone(config, f"t0{n}", {"shrink.rate": rate}) for n, rate in enumerate((0.2, 0.3))]
    assert timeless(contents.snapshots) == [*expected[0], *expected[1]]
    assert run.ended == [("t00", "paused"), ("t00", "finished"), ("t01", "finished")]


def test_trial_in_turn_that_fails_does_not_end_the_others(tiny, run, monkeypatch):
    def half(spec, prepared, folder, *_, **__):
        if spec.name == "t00":
            raise RuntimeError("memory is\nshort")
        write_status(folder, spec.name, "finished")

    monkeypatch.setattr(in_turn, "run_search", half)
    contents = run(tiny(GRID))
    assert states(contents) == {"t00": "failed", "t01": "finished"}
    assert contents.status["t00"]["reason"] == "memory is short"
    monkeypatch.setattr(
        in_turn, "run_search", lambda spec, prepared, folder, *_, **__: write_status(folder, spec.name, "finished")
    )
    assert states(run(tiny(GRID))) == {"t00": "finished", "t01": "finished"}  # a resume tries again


def test_trial_in_turn_that_is_dominated_is_stopped_as_on_ray(tiny, run, alone, timeless):
    config = tiny(
        {
            "sweep.grid": {"train.learning_rate": [3e-3, 1e-7]},  # with the second nothing is learned
            "sweep.scheduler": "pareto",
            "sweep.noise_factor": 0.5,  # 128 validation images are few
        }
    )
    contents = run(config)
    assert states(contents) == {"t00": "finished", "t01": "dominated"}
    assert contents.status["t01"]["reason"].startswith("worse at all 2 snapshots")
    found = [row for row in contents.snapshots if row["trial"] == "t01"]
    everything = alone(config, "t01", {"train.learning_rate": 1e-7})
    assert timeless(found) == everything[: len(found)] != everything
    assert contents.status["t01"]["device_seconds"] == found[-1]["device_seconds"]
    assert states(run(config)) == states(contents)  # a resume leaves it alone


def test_trials_in_turn_are_chosen_by_optuna(tiny, run):
    pytest.importorskip("optuna")
    pytest.importorskip("ray")
    from dnad_ray.on_ray.optuna_sampler import OptunaSampler

    config = tiny(DRAWN)
    assert states(run(config, max_trials=2, make_sampler=OptunaSampler)) == {"t00": "finished", "t01": "finished"}
    contents = run(config, make_sampler=OptunaSampler)
    assert states(contents) == dict.fromkeys(("t00", "t01", "t02"), "finished")
    rates = [status["overrides"]["shrink.rate"] for status in contents.status.values()]
    assert all(0.2 <= rate <= 0.4 for rate in rates)
    assert len(set(rates)) == 3


def test_sweep_without_ray_is_a_run_like_any_other(command, sweep_file, undisturbed, timeless, tmp_path):
    out = tmp_path / "demo"
    config = sweep_file({"sweep.num_trials": 2, "train.epochs": 2, "distill.kind": "logits"})
    code, said, err = command("sweep", config, "--no-ray", "--out", out, "--max-trials", 1)
    assert (code, err) == (0, "")
    assert "2 trials are not at their end (t01); to continue: " in said
    assert f"to continue: dnad-ray sweep {config} --no-ray --out {out} --max-trials 1 --resume" in said
    code, said, err = command("sweep", config, "--no-ray", "--out", out, "--resume")
    assert (code, err) == (0, "")
    contents = read_run(out)
    assert contents.problems == ()
    assert states(contents) == {"t00": "finished", "t01": "finished"}
    assert {status["threads"] for status in contents.status.values()} == {1}  # as on Ray
    assert timeless(contents.snapshots) == [*undisturbed(out, "t00"), *undisturbed(out, "t01")]
    assert (out / "report.html").exists()


def test_sweep_without_ray_loads_no_ray(sweep_file, command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # an import of it would fail
    for name in [
        name for name in sys.modules if name.startswith("dnad_ray.on_ray.") and not name.endswith("resources")
    ]:
        monkeypatch.delitem(sys.modules, name)
    code, _, err = command("sweep", sweep_file({"train.epochs": 2}), "--no-ray", "--out", tmp_path / "demo")
    assert (code, err) == (0, "")
    config = config_from_dict(read_run(tmp_path / "demo").config)
    assert len(load_data(config.data).train) > 0
    assert str(read_status(tmp_path / "demo", "t00")["state"]) == "finished"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--address", "auto"], ["--no-ray with --address", "'auto'", "one of them"]),
        (["--set", "train.num_processes=2"], ["train.num_processes", "got 2", "1 with --no-ray"]),
        (["--set", "sweep.cpus_per_trial=4096"], ["sweep.cpus_per_trial", "4096", "at most"]),
    ],
)
@pytest.mark.parametrize("name", ["sweep"])
def test_sweep_without_ray_refuses_what_needs_it(name, options, words, command, sweep_file, tmp_path):
    code, _, err = command(name, sweep_file({}), "--no-ray", "--out", tmp_path / "demo", *options)
    assert (code, err.count("\n")) == (2, 1), err
    assert all(word in err for word in words), err
    assert not (tmp_path / "demo").exists()
