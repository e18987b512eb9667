"""The command line: what the contract names works, and every mistake is one line that leaves nothing behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from dnad_ray import cli
from dnad_ray.cli.messages import resume_line
from dnad_ray.commands.options import read_config
from dnad_ray.config.recipes import RECIPES, recipe_named
from dnad_ray.config.run import config_from_dict
from dnad_ray.data.loading import load_data
from dnad_ray.run_folder.checkpoints import load_newest
from dnad_ray.run_folder.reading import read_genotype, read_run, read_status
from dnad_ray.search.loop import SearchState, search
from dnad_ray.storage.checksums import parse_record

RECORD = {"run", "trial", "seed", "step", "digest", "macs", "params", "num_operations", "proxy_accuracy", "kind"}


@pytest.fixture(scope="module")
def finished(config_file, tmp_path_factory):
    """A finished search. Read only."""
    out = tmp_path_factory.mktemp("finished") / "demo"
    handler, said = signal.getsignal(signal.SIGINT), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", ["dnad-ray", "search", str(config_file), "--out", str(out)])
        cli.main()
    signal.signal(signal.SIGINT, handler)
    return out, said.getvalue()


def environment():
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONWARNINGS": "error"}


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_refused(result, *words, code=2):
    """One line on standard error that says it all, and no traceback anywhere."""
    found, out, err = result
    assert (found, err.count("\n")) == (code, 1), result
    assert err.startswith("dnad-ray: error: ")
    assert "Traceback" not in out + err
    for word in words:
        assert word in err


def test_search_leaves_the_run_folder_of_the_contract(finished, config_file):
    out, said = finished
    names = files_of(out)
    assert {"config.yaml", "snapshots.parquet", "front.json", "report.html", "run.json"} <= set(names)
    assert config_from_dict(yaml.safe_load((out / "config.yaml").read_text())) == config_from_dict(
        yaml.safe_load(config_file.read_text())
    )
    contents = read_run(out)
    assert contents.problems == ()
    assert contents.status["t00"]["state"] == "finished"
    assert {f"genotypes/{row['digest']}.json" for row in contents.snapshots} == {
        name for name in names if name.startswith("genotypes/")
    }
    front = json.loads((out / "front.json").read_text())
    assert front
    for record in front:
        assert set(record) >= RECORD
        assert read_genotype(out, record["digest"]).digest == record["digest"]
    # It says how long it will take before it begins, and ends with the front and the report's path.
    lines = said.splitlines()
    assert any(line.startswith("search: about ") and "at most" in line for line in lines)
    assert any(line.startswith("Pareto front:") for line in lines)
    assert lines[-1] == f"report: {out / 'report.html'}"
    assert (out / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")


def test_search_resumed_at_its_end_has_nothing_left_to_do(command, config_file, finished):
    out, _ = finished
    before = files_of(out)
    code, said, err = command("search", config_file, "--out", out, "--resume")
    assert (code, err) == (0, "")
    assert "nothing left to do" in said
    assert "Pareto front:" in said
    assert files_of(out) == before


def test_search_recipe_smoke(command, tmp_path):
    code, said, err = command("search", "smoke", "--out", tmp_path / "smoke")
    assert (code, err) == (0, "")
    assert "teacher: 100%" in said
    snapshots = read_run(tmp_path / "smoke").snapshots
    assert snapshots[-1]["kind"] == "final"
    assert {row["kd_temperature"] for row in snapshots} == {4.0}
    assert (tmp_path / "smoke" / "teacher" / "teacher.safetensors").exists()


def test_search_own_images_with_train_and_test_folders(command, save_digits, tmp_path):
    root = tmp_path / "images"
    save_digits(root / "train", 8)
    save_digits(root / "test", 2, first=8)
    for file in (root / "test").rglob("*.png"):
        file.write_bytes(b"a search that opened this would fail")
    options = ["--data", root, "--epochs", 2, "--image-size", 12, "--seed", 5]
    settings = ["distill.kind=none", "train.batch_size=16"]
    code, said, err = command(
        *("search", "smoke", "--out", tmp_path / "own", *options), *(f"--set={setting}" for setting in settings)
    )
    assert (code, err) == (0, "")
    assert "imagefolder: 60 training and 20 validation images of 12x12 pixels in 10 classes" in said
    contents = read_run(tmp_path / "own")
    assert (
        contents.config["data"] | {"name": "imagefolder", "root": str(root), "image_size": 12}
        == contents.config["data"]
    )
    assert (contents.config["seed"], contents.config["train"]["epochs"]) == (5, 2)
    row = contents.snapshots[-1]
    assert (row["dataset"], row["image_size"], row["seed"]) == ("imagefolder", 12, 5)


def test_search_default_folder_is_named_after_the_recipe(command, config_file, tmp_path):
    code, _, _ = command("search", config_file, "--epochs", "2", "--set", "train.warmup_epochs=0")
    assert code == 0
    assert (tmp_path / "runs" / "mine" / "front.json").exists()


def test_search_options_may_make_each_other_possible(command, config_file, tmp_path):
    # One epoch alone would be less than the warm-up, and the other way round.
    options = ["--epochs", "1", "--set", "train.warmup_epochs=0", "--out", tmp_path / "one"]
    assert command("search", config_file, *options)[0] == 0
    assert read_run(tmp_path / "one").config["train"]["epochs"] == 1


def test_search_that_diverges_says_so_and_its_snapshots_stand(command, config_file, tmp_path):
    options = ["--out", tmp_path / "wild", "--set", "train.learning_rate=1e30"]
    result = command("search", config_file, *options)
    assert_refused(result, "1 of 1 trials stopped early", "t00: the loss became", "step 1", code=1)
    assert "--resume" not in result[2]  # it would not help
    assert read_run(tmp_path / "wild").status["t00"]["state"] == "stopped"
    assert json.loads((tmp_path / "wild" / "front.json").read_text()) == []
    again = command("search", config_file, *options, "--resume")
    assert_refused(again, "stopped early", code=1)
    assert "nothing left to do" in again[1]


def test_search_with_a_teacher_that_diverges_leaves_no_folder(command, config_file, tmp_path):
    settings = ["--set", "distill.kind=features", "--set", "distill.teacher.learning_rate=1e30"]
    result = command("search", config_file, *settings, "--out", tmp_path / "wild")
    assert_refused(result, "the teacher's loss became", code=1)
    assert not (tmp_path / "wild").exists()


def wait_for(found, process, seconds=120):
    end = time.monotonic() + seconds
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.03)


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_search_interrupted_says_how_to_continue_and_does(
    signum, exit_code, start, command, config_file, tmp_path, timeless
):
    out = tmp_path / "demo"
    # Most of its steps come after the first snapshot, or it is over before it is interrupted.
    longer = {"data.image_size": 14, "shrink.gamma_growth": 1.5, "shrink.rate": 0.05, "shrink.floor.operations": 4}
    slower = [text for key, value in longer.items() for text in ("--set", f"{key}={value}")] + ["--epochs", "16"]
    arguments = ["search", str(config_file), "--out", str(out), *slower]
    process = start(*arguments)
    wait_for(lambda: list(out.glob("trials/t00/snapshots/*.json")), process)
    process.send_signal(signum)
    said, err = process.communicate(timeout=120)
    assert process.returncode == exit_code, (said, err)
    again = f"dnad-ray search {config_file} --out {out} {' '.join(slower)} --resume"
    assert err.count("\n") == 2, (said, err)
    notice, last = err.splitlines()
    assert notice.startswith("dnad-ray: stopping at the end of the step")
    assert last == f"dnad-ray: error: interrupted; to continue: {again}"
    status = read_status(out, "t00")
    assert (status["state"], status["reason"]) == ("interrupted", f"interrupted by {signum.name}")
    saved = load_newest(out.glob("trials/t00/checkpoints/*"))
    assert saved["step"] == status["step"]  # the step was finished and nothing of it is lost
    assert {"front.json", "snapshots.parquet"} <= set(files_of(out))
    if signum == signal.SIGTERM:
        return  # what is left is the same after both
    early = read_run(out).snapshots
    code, _, err = command(*arguments, "--resume")
    assert (code, err) == (0, "")
    contents = read_run(out)
    config = config_from_dict(contents.config)
    expected = timeless(search(SearchState.start(config, load_data(config.data), run="demo", trial="t00")))
    assert 1 <= len(early) < len(expected)
    assert timeless(contents.snapshots) == expected


def test_search_whose_time_is_spent_says_how_to_continue_and_does(command, config_file, finished, timeless, tmp_path):
    out = tmp_path / "demo"
    code, said, err = command("search", config_file, "--out", out, "--time-budget", "0.01s")
    assert (code, err) == (0, "")  # it was asked for
    assert said.splitlines()[-1] == (
        "the time budget of 0 s is spent; 1 of 1 trials are not at their end (t00); to continue: "
        f"dnad-ray search {config_file} --out {out} --time-budget 0.01s --resume"
    )
    assert read_run(out).status["t00"]["state"] == "paused"
    assert (out / "front.json").read_text() == "[]\n"
    code, said, err = command("search", config_file, "--out", out, "--time-budget", "1h", "--resume")
    assert (code, err) == (0, "")
    assert "to continue" not in said
    assert timeless(read_run(out).snapshots) == timeless(read_run(finished[0]).snapshots)


def test_search_with_a_limit_is_complete(command, config_file, tmp_path):
    arguments = ["search", config_file, "--out", tmp_path / "demo", "--set", "limit.macs=1e6"]
    code, said, err = command(*arguments)
    assert (code, err) == (0, "")
    assert "t00 finished: it reached limit.macs 1e+06; its snapshots stand" in said
    assert [row["kind"] for row in read_run(tmp_path / "demo").snapshots] == ["final"]
    assert "nothing left to do" in command(*arguments, "--resume")[1]


def test_resume_line_does_not_add_seeds_again():
    for words in (["--more-seeds", "2"], ["--more-seeds=2"]):
        line = resume_line(["sweep", "demo", *words, "--resume", "--max-trials", "1"])
        assert line == "dnad-ray sweep demo --max-trials 1 --resume"


def test_search_called_from_elsewhere_says_how_to_continue(config_file, monkeypatch, tmp_path):
    """The line is made of the arguments of the call, not of those of the process that it is in."""
    monkeypatch.setattr(sys, "argv", ["elsewhere", "--with", "words"])
    words = ["search", str(config_file), "--out", str(tmp_path / "run"), "--time-budget", "0.01s"]
    said = CliRunner().invoke(cli.cli, words).output
    assert said.splitlines()[-1].endswith(f"; to continue: dnad-ray {' '.join(words)} --resume")


def test_interrupt_before_a_run_began_is_one_line_too(command, config_file, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dnad_ray.search.prepare.load_data", interrupted)
    code, _, err = command("search", config_file, "--out", tmp_path / "none")
    assert code == 130
    assert err.strip() == "dnad-ray: error: interrupted"
    assert not (tmp_path / "none").exists()


def test_search_into_a_folder_that_holds_a_run(command, config_file, finished):
    out, _ = finished
    before = {name: (out / name).read_bytes() for name in files_of(out)}
    assert_refused(command("search", config_file, "--out", out), str(out), "--resume")
    assert_refused(command("sweep", config_file, "--out", out), str(out), "--resume")
    assert_refused(command("search", config_file, "--out", out, "--resume", "--seed", "4"), "seed 4", "config.yaml")
    assert {name: (out / name).read_bytes() for name in files_of(out)} == before


def test_front_json(command, finished):
    code, said, err = command("front", finished[0], "--json")
    assert (code, err) == (0, "")
    records = json.loads(said)
    stored = parse_record((finished[0] / "front.json").read_bytes(), "front")
    assert [{name: record[name] for name in stored[0]} for record in records] == stored
    assert all(len(record["digest"]) == 16 for record in records)
    errors = [1 - record["proxy_accuracy"] for record in records]
    for one in range(len(records)):
        for other in range(len(records)):
            better = errors[one] < errors[other] and records[one]["macs"] <= records[other]["macs"]
            assert not (better and records[one]["params"] <= records[other]["params"])


def test_front_table(command, finished):
    code, said, _ = command("front", finished[0], "--objectives", "error, macs")
    assert code == 0
    assert "Proxy error" in said.splitlines()[1]
    digests = {row["digest"] for row in read_run(finished[0]).snapshots}
    assert all(line.split()[-1] in digests for line in said.splitlines()[2:] if line.strip())


def test_front_and_report_refuse_what_is_no_run(command, finished, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "run.json").write_text('{"kind": "dnad-ray run", "schema": 99, "name": "newer"}')
    for name in ("front", "report"):
        assert_refused(command(name, tmp_path / "empty"), str(tmp_path / "empty"), "dnad-ray search")
        assert_refused(command(name, tmp_path / "missing"), str(tmp_path / "missing"))
        assert_refused(command(name, finished[0], tmp_path / "newer"), "99", "newer dnad-ray")
        assert_refused(command(name, tmp_path / ("x" * 300)), "xxx")
        assert_refused(command(name), "DIR")
    assert_refused(command("front", finished[0], "--objectives", "error,beauty"), "beauty", "macs")
    assert_refused(command("front", finished[0], "--objectives", ","), "objectives")
    assert files_of(tmp_path) == ["newer/run.json"]


def test_report(command, finished, tmp_path):
    out = tmp_path / "all.html"
    code, said, err = command("report", finished[0], "--out", out)
    assert (code, err) == (0, "")
    assert said == f"report: {out}\n"
    assert "</html>" in out.read_text()
    (tmp_path / "file").write_text("no folder")
    code, _, err = command("report", finished[0], "--out", tmp_path / "file" / "report.html")
    assert (code != 0, err.count("\n"), "Traceback" in err) == (True, 1, False)


def test_recipes_are_listed(command):
    code, said, _ = command("recipes")
    assert code == 0
    assert all(name in said for name in RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_config_round_trip_through_a_file(name, command, tmp_path):
    code, said, err = command("config", name)
    assert (code, err) == (0, "")
    (tmp_path / "mine.yaml").write_text(said)
    assert config_from_dict(yaml.safe_load(said)) == recipe_named(name)
    assert read_config(str(tmp_path / "mine.yaml")) == recipe_named(name)


def test_mistake_in_a_process_of_its_own_is_one_line(tmp_path):
    arguments = [sys.executable, "-m", "dnad_ray", "search", "demo", "--data", "/nonexistent", "--out", "out"]
    result = subprocess.run(
        arguments, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment(), timeout=120
    )
    assert_refused((result.returncode, result.stdout, result.stderr), "/nonexistent")
    assert list(tmp_path.iterdir()) == []


def test_help_names_commands_and_options(command):
    code, said, err = command("--help")
    assert (code, err) == (0, "")
    assert all(name in said for name in ("search", "sweep", "teacher", "front", "report", "recipes", "config"))
    shared = ["--set", "--out", "--resume", "--data", "--image-size", "--epochs", "--seed", "--trials", "--time-budget"]
    options = {
        "search": shared,
        "sweep": [*shared, "--address", "--max-trials", "--more-seeds"],
        "teacher": ["--set", "--out", "--data", "--space", "--image-size", "--seed"],
        "front": ["--objectives", "--json"],
        "report": ["--out"],
        "recipes": [],
        "config": ["RECIPE"],
    }
    for name, words in options.items():
        code, said, err = command(name, "--help")
        assert (code, err) == (0, "")
        assert [word for word in words if word not in said] == []


def test_version_and_no_command(command):
    assert command("--version")[1].startswith("dnad-ray, version ")
    code, said, err = command()
    assert code == 2
    assert "Usage:" in said + err
    assert_refused(command("serach"), "serach")


def test_help_does_not_wait_for_torch():
    program = "import sys, dnad_ray.cli; print(sorted({'torch', 'ray', 'plotly', 'pandas'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert result.stdout == "[]\n"


def test_front_of_a_damaged_run_warns_in_one_line_and_prints_the_rest(start, finished, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(finished[0], folder)
    next(folder.glob("trials/*/history.json")).write_text("{")
    said, err = start("front", folder).communicate(timeout=120)
    assert err.startswith("dnad-ray: warning: ")
    assert "history.json cannot be read" in err
    assert len(err.splitlines()) == 1
    assert "Pareto front" in said


def test_program_looks_for_garbage_seldom_and_not_when_it_ends():
    program = """
import atexit, gc, sys
atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000))  # the first comes last
sys.argv = ["dnad-ray", "recipes"]
from dnad_ray.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "50000 True"
