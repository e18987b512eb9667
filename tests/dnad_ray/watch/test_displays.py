"""How a command is watched: as JSON lines, quietly, in curves, on a page; all of it from real searches."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from dnad_ray.cli import main
from dnad_ray.run_folder.reading import read_run
from dnad_ray.storage.checksums import parse_record
from dnad_ray.telemetry import OFF
from dnad_ray.text import install_command
from dnad_ray.watch.live_page import LivePage

COUNTS = ("macs", "macs_conv_linear", "params")


@pytest.fixture(scope="module")
def watched(tmp_path_factory, config_file):
    """A search as a script starts it: exit code, standard output, standard error, and its folder."""
    out = tmp_path_factory.mktemp("watched") / "mine"
    said, err, handler = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(err):
        patch.setattr(sys, "argv", ["dnad-ray", "search", str(config_file), "--json", "--out", str(out)])
        main()
    signal.signal(signal.SIGINT, handler)
    return said.getvalue(), err.getvalue(), out


def curves_of(folder, *names):
    """What TensorBoard itself reads: steps and values; counts as tensors of one double, the others as single floats."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return {
        name: [(event.step, make_ndarray(event.tensor_proto).item()) for event in events.Tensors(name)]
        if name in COUNTS
        else [(event.step, event.value) for event in events.Scalars(name)]
        for name in names
    }


def test_json_holds_the_whole_run_and_nothing_else(watched):
    said, err, out = watched
    events = [json.loads(line) for line in said.splitlines()]
    names = [event["event"] for event in events if event["event"] != "activity"]
    assert names[:2] == ["run_started", "trial_started"]
    assert names[-2:] == ["trial_ended", "run_ended"]
    assert set(names[2:-2]) == {"progress", "snapshot"}
    contents = read_run(out)
    assert [event["snapshot"] for event in events if event["event"] == "snapshot"] == contents.snapshots
    progress = [event for event in events if event["event"] == "progress"]
    assert [event["epoch"] for event in progress] == [entry["epoch"] for entry in contents.history["t00"]]
    assert {event["epochs"] for event in progress} == {6}
    assert progress[-1]["macs"] == contents.snapshots[-1]["macs"]
    started, ended = next(event for event in events if event["event"] == "run_started"), events[-1]
    assert (started["schema"], started["run"], started["path"]) == (1, "mine", str(out))
    assert started["trials"] == [{"trial": "t00", "overrides": {"seed": 0}, "epochs": 6, "state": "waiting"}]
    assert (ended["state"], ended["reason"], ended["resume"]) == ("finished", None, None)
    assert ended["front"] == parse_record((out / "front.json").read_bytes(), "front")
    assert ended["num_snapshots"] == len(contents.snapshots)
    assert all(Path(path).exists() for path in ended["paths"].values())
    assert set(ended["paths"]) == {"run", "snapshots", "front", "report"}
    # What people read is not lost, it goes where it does not disturb.
    assert "imagefolder: 80 training" in err


def test_tensorboard_reads_the_curves_of_a_search(watched):
    folder, contents = watched[2] / "tensorboard" / "t00", read_run(watched[2])
    snapshots, history = contents.snapshots, contents.history["t00"]
    for rows, names in (
        (snapshots, ("macs", "proxy_accuracy", "params", "macs_conv_linear")),
        (
            history,
            ("train_loss", "train_accuracy", "gamma", "mu", "sparsity", "num_operations", "device_seconds"),
        ),
    ):
        found = curves_of(folder, *names)
        assert found == {
            name: [(row["step"], row[name] if name in COUNTS else np.float32(row[name])) for row in rows]
            for name in names
        }
    over_macs = {row["macs"]: np.float32(row["proxy_accuracy"]) for row in snapshots}
    assert curves_of(folder / "over-macs", "proxy_accuracy")["proxy_accuracy"] == sorted(over_macs.items())


def test_live_page_ends_with_the_whole_front(watched):
    out = watched[2]
    script = (out / "live.js").read_text()
    picture = json.loads(script.removeprefix("drawRun(").removesuffix(");\n"))
    assert (picture["state"], picture["num_snapshots"]) == ("finished", len(read_run(out).snapshots))
    front = json.loads((out / "front.json").read_text())
    assert {point["digest"] for point in picture["front"]} == {row["digest"] for row in front}
    assert (out / "live.html").stat().st_size < 40_000


def test_quiet_prints_one_line(command, config_file, tmp_path):
    out = tmp_path / "quiet"
    code, said, err = command("search", config_file, "--quiet", "--epochs", 2, "--out", out)
    assert (code, err) == (0, "")
    assert said.count("\n") == 1
    assert said.endswith(f" networks on the front; report: {out / 'report.html'}\n")


@pytest.mark.parametrize("is_quiet", [False, True])
def test_display_that_fails_costs_a_warning_and_not_the_run(command, config_file, tmp_path, monkeypatch, is_quiet):
    def full(self, moment):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LivePage, "__call__", full)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        options = ["--epochs", 2, "--out", tmp_path / "x", *["--quiet"] * is_quiet]
        code, said, err = command("search", config_file, *options)
    assert (code, (tmp_path / "x" / "report.html").is_file()) == (0, True)
    if is_quiet:
        assert (said.count("\n"), err) == (1, "")
    else:
        assert "dnad-ray: warning: LivePage failed and the run goes on without it: OSError: [Errno 28]" in err


def test_quiet_still_prints_errors(command, tmp_path):
    code, said, err = command("search", "nonsense", "--quiet", "--out", tmp_path / "x")
    assert (code, said) == (2, "")
    assert err.startswith("dnad-ray: error: recipe: got 'nonsense'")


@pytest.mark.parametrize("name", ["search", "sweep"])
def test_quiet_and_json_exclude_each_other(command, config_file, tmp_path, name):
    out = tmp_path / "x"
    code, said, err = command(name, config_file, "--quiet", "--json", "--out", out)
    assert (code, said) == (2, "")
    assert err == "dnad-ray: error: --quiet with --json: got 'both'; allowed: one of them\n"
    assert not out.exists()


def test_json_of_a_run_that_is_complete_says_so(command, watched, config_file):
    code, said, err = command("search", config_file, "--json", "--resume", "--out", watched[2])
    assert code == 0, err
    started, ended = map(json.loads, said.splitlines())
    assert started["resumed"] is True
    assert [trial["state"] for trial in started["trials"]] == ["finished"]
    assert started["num_snapshots"] == ended["num_snapshots"] > 0
    assert ended["state"] == "finished"


def test_nothing_is_kept_that_is_switched_off(command, config_file, tmp_path):
    out = tmp_path / "bare"
    switches = ["--set", "watch.tensorboard=false", "--set", "watch.live_page=false", "--epochs", 2]
    assert command("search", config_file, *switches, "--out", out)[0] == 0
    assert not {"tensorboard", "live.html", "live.js"} & {path.name for path in out.iterdir()}


def test_loggers_that_are_not_installed_are_refused_before_anything_is_made(
    command, config_file, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    out = tmp_path / "x"
    code, said, err = command("search", config_file, "--set", "watch.loggers=[mlflow]", "--out", out)
    assert (code, said) == (2, "")
    assert err == (
        f"dnad-ray: error: watch.loggers: got 'mlflow'; allowed: an installed package: {install_command('mlflow')}\n"
    )
    assert not out.exists()


def test_usage_statistics_are_off_unless_the_user_turns_them_on(repository):
    program = (
        "import os, sys; from dnad_ray.cli import main; sys.argv[1:] = ['recipes']; main(); print(dict(os.environ))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in OFF}
    for given in (OFF, {"RAY_USAGE_STATS_ENABLED": "1"}):
        asked = environment if given is OFF else environment | given
        said = subprocess.run(
            [sys.executable, "-c", program], cwd=repository, env=asked, capture_output=True, text=True, check=True
        ).stdout
        assert all(f"'{name}': '{value}'" in said for name, value in (OFF | given).items())


@pytest.mark.slow
@pytest.mark.parametrize("are_on", [False, True])
def test_usage_statistics_as_the_packages_read_the_switches(repository, are_on):
    for package in ("mlflow", "wandb", "ray"):
        pytest.importorskip(package)
    program = (
        "from dnad_ray.telemetry import no_usage_statistics; no_usage_statistics()\n"
        "from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY\n"
        "import wandb.env\n"
        "from ray._common.usage.usage_lib import usage_stats_enabled\n"
        "print(not MLFLOW_DISABLE_TELEMETRY.get(), wandb.env.error_reporting_enabled(), usage_stats_enabled())"
    )
    environment = {name: value for name, value in os.environ.items() if name not in OFF}
    if are_on:
        environment |= dict(zip(OFF, ("1", "false", "true"), strict=True))
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [str(are_on)] * 3
