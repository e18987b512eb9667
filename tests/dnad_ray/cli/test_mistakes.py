"""Every mistake that can be made on the command line: one line that names it, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dnad_ray
from dnad_ray.config.recipes import RECIPES
from search_spaces.space import SearchSpace


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


MISTAKES = {
    "unknown key": (["--set", "train.lr=1"], ["train.lr", "train.learning_rate"]),
    "assignment": (["--set", "train.epochs"], ["train.epochs", "KEY=VALUE"]),
    "space": (["--set", "space.name=nasnet"], ["nasnet", "dnad"]),
    "operation": (["--set", "space.operations=[warp]"], ["warp", "sep_conv_3x3"]),
    "dataset": (["--data", "mnist"], ["mnist", "cifar10"]),
    "dataset key": (["--set", "data.name=mnist"], ["mnist", "cifar10"]),
    "epochs": (["--epochs", "0"], ["--epochs: got 0", "greater than or equal to 1"]),
    "no number": (["--epochs", "many"], ["--epochs", "many"]),
    "seed": (["--seed", "-1"], ["seed", "-1"]),
    "image size": (["--image-size", "2"], ["--image-size: got 2", "4"]),
    "rate": (["--set", "shrink.rate=1.5"], ["shrink.rate", "1.5", "1"]),
    "not a number": (["--set", "train.learning_rate=.nan"], ["train.learning_rate", "nan"]),
    "warm-up": (["--epochs", "1"], ["train.warmup_epochs", "1"]),
    "missing folder": (["--data", "/nonexistent/images"], ["/nonexistent/images"]),
    "missing root": (["--set", "data.root=/nonexistent/images"], ["/nonexistent/images"]),
    "no root": (["--set", "data.root=null"], ["data.root", "None"]),
    "temperature": (
        ["--set", "distill.kind=features", "--set", "distill.temperature=4"],
        ["temperature", "4", "logits"],
    ),
    "time budget": (["--time-budget", "soon"], ["--time-budget", "'soon'", "90, 90s, 10m, 2h"]),
    "no time": (["--time-budget", "0"], ["--time-budget", "'0'", "above 0"]),
    "limit": (["--set", "limit.seconds=0"], ["limit.seconds", "0", "greater than 0"]),
    "trials": (["--trials", "3"], ["--trials", "3", "dnad-ray sweep"]),
    "device": (["--set", "train.device=tpu"], ["train.device", "tpu", "cuda"]),
    "option": (["--learning-rate", "1"], ["--learning-rate"]),
    "resume nothing": (["--resume"], ["--resume", "a folder that holds a run"]),
    "teacher": (["--set", "distill.kind=features", "--set", "distill.teacher.genotype=/no.json"], ["/no.json"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_search_mistake_is_one_line_and_leaves_nothing(name, command, config_file, tmp_path):
    options, words = MISTAKES[name]
    assert_refused(command("search", config_file, "--out", tmp_path / "out", *options), *words)
    assert list(tmp_path.iterdir()) == []


def newer_genotype(folder):
    genotype = SearchSpace(operations=("skip_connect",), num_cells=3, num_nodes=2).dense()
    path = folder / "newer.json"
    path.write_text(json.dumps(genotype.to_dict() | {"schema": 99}))
    return path


def test_search_with_a_genotype_of_a_newer_schema_leaves_no_folder(command, config_file, tmp_path):
    path = newer_genotype(tmp_path)
    settings = ["--set", "distill.kind=features", "--set", f"distill.teacher.genotype={path}"]
    result = command("search", config_file, "--out", tmp_path / "out", *settings)
    assert_refused(result, f"{path} schema", "99", "newer dnad-ray")
    assert files_of(tmp_path) == ["newer.json"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", ["image", "empty class"])
def test_search_corrected_after_broken_images_finds_its_folder_free(
    broken, command, config_file, save_digits, tmp_path
):
    root, out = tmp_path / "images", tmp_path / "out"
    save_digits(root, 4)
    culprit = root / "3" / "zzz.png" if broken == "image" else root / "99"
    if broken == "image":
        intact = next(root.rglob("*.png")).read_bytes()
        culprit.write_bytes(intact[: len(intact) // 2])
    else:
        culprit.mkdir()
    arguments = ["search", config_file, "--data", root, "--out", out, "--epochs", "2"]
    assert_refused(command(*arguments), str(culprit))
    assert not out.exists()
    if broken == "image":
        culprit.unlink()
    else:
        culprit.rmdir()
    assert command(*arguments)[0] == 0


def test_search_into_a_folder_with_something_else(command, config_file, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("keep me")
    assert_refused(command("search", config_file, "--out", tmp_path / "letters"), "letters", "new or empty")
    assert_refused(command("search", config_file, "--out", tmp_path / "letters", "--resume"), "letters", "holds a run")
    assert_refused(command("search", config_file, "--out", tmp_path / "letters" / "love.txt"), "love.txt")
    assert_refused(command("search", config_file, "--out", tmp_path / "a b"), "'a b'", "letters, digits")
    assert_refused(command("search", config_file, "--out", tmp_path / ("x" * 300) / "run"), "--out")
    assert files_of(tmp_path) == ["letters/love.txt"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("unknown.yaml", b"train: {lr: 1}", ["train.lr", "learning_rate"]),
        ("section.yaml", b"trian: {}", ["trian", "train"]),
        ("numbers.yaml", b"1: 2", ["numbers.yaml"]),
        ("text.yaml", b"just words", ["text.yaml", "sections"]),
        ("list.yaml", b"- 1\n- 2", ["list.yaml", "sections"]),
        ("empty.yaml", b"", ["empty.yaml", "sections"]),
        ("broken.yaml", b"a: [1,\nb: {\n\tc", ["broken.yaml", "YAML that parses"]),
        ("tags.yaml", b"!!python/object/apply:os.system ['touch hacked']", ["tags.yaml", "YAML that parses"]),
        ("binary.yaml", bytes(range(256)), ["binary.yaml", "UTF-8"]),
        ("control.yaml", b"a: \x07", ["control.yaml"]),
        ("deep.yaml", b"[" * 5000, ["deep.yaml"]),
        ("no-ending", b"seed: many", ["no-ending", "seed", "many"]),
    ],
)
def test_search_configuration_that_is_none(name, content, words, command, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert_refused(command("search", tmp_path / name, "--out", tmp_path / "out"), *words)
    assert files_of(tmp_path) == [name]


def test_search_configuration_that_is_missing_or_a_folder(command, tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "folder").mkdir()
    assert_refused(command("search", tmp_path / "folder.yaml"), "folder.yaml", "readable YAML file")
    assert_refused(command("search", tmp_path / "folder"), "folder", "YAML file")
    assert_refused(command("search", tmp_path / "missing.yaml"), "missing.yaml", "readable YAML file")
    assert_refused(command("search", "demo2"), "demo2", *RECIPES)
    assert_refused(command("search", "x" * 5000), "xxx")
    assert_refused(command("sweep", "demo2"), "demo2", *RECIPES)
    assert_refused(command("config", "demo2"), "demo2", *RECIPES)
    assert_refused(command("search"), "CONFIG|RECIPE")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("sweep.grid={train.lr: [1]}", ["train.lr"]),
        ("sweep.grid={shrink.rate: [0.1, 7]}", ["shrink.rate", "7"]),
        ("sweep.grid={shrink.rate: []}", ["shrink.rate", "at least one"]),
        ("sweep.grid={distill.temperature: [2]}", ["temperature", "2"]),
        ("sweep.grid={space.name: [dnad, nasnet]}", ["nasnet"]),
        ("sweep.grid={data.image_size: [8, 16]}", ["data.image_size"]),
    ],
)
def test_sweep_grid_with_a_mistake_is_refused_before_anything_starts(setting, words, command, config_file, tmp_path):
    assert_refused(command("sweep", config_file, "--out", tmp_path / "out", "--set", setting), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-trials", "0"], ["--max-trials", "0", "at least 1"]),
        (["--more-seeds", "2"], ["--more-seeds", "2", "together with --resume"]),
        (["--more-seeds", "0", "--resume"], ["--more-seeds", "0", "at least 1"]),
        (["--time-budget", "1 week"], ["--time-budget", "1 week"]),
        (["--set", "sweep.sampler=grit"], ["sweep.sampler", "grit", "random"]),
        (["--set", "sweep.sampler=random"], ["sweep.ranges", "{}", "random"]),
        (["--set", "sweep.ranges.shrink.rate={uniform: [1, 2]}"], ["sweep.ranges", "no effect with sampler 'grid'"]),
        (
            ["--set", "sweep.sampler=optuna", "--trials", "2", "--set", "sweep.ranges.shrink.rate={uniform: [1, 2]}"],
            ["sweep.ranges", "shrink.rate", "2"],
        ),
        (
            [
                "--set",
                "sweep.sampler=random",
                "--trials",
                "2",
                "--set",
                "sweep.ranges={space.name: {choice: [nasnet]}}",
            ],
            ["nasnet", "dnad"],
        ),
        (["--set", "sweep.scheduler=asha"], ["sweep.scheduler", "asha", "pareto"]),
    ],
)
def test_sweep_budget_or_sampler_with_a_mistake_is_refused(options, words, command, config_file, tmp_path):
    assert_refused(command("sweep", config_file, "--out", tmp_path / "out", *options), *words)
    assert list(tmp_path.iterdir()) == []


def test_too_small_an_address_space_is_named(tmp_path):
    # Enough for the command line, too little for Arrow.
    script = f"ulimit -v 700000; exec {sys.executable} -m dnad_ray search smoke --out {tmp_path / 'run'}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
    assert done.stderr.startswith("dnad-ray: error: limit of the address space (ulimit -v): got 0.7 GiB; allowed: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("has_init", [True, False], ids=["package", "folder"])
def test_a_folder_that_hides_our_package_is_named(has_init, tmp_path):
    (tmp_path / "analysis").mkdir()
    if has_init:
        (tmp_path / "analysis" / "__init__.py").touch()
    call = [sys.executable, "-m", "dnad_ray", "recipes"]
    environment = os.environ | {"PYTHONPATH": str(Path(dnad_ray.__file__).parents[1])}
    result = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    hidden = has_init  # a folder without __init__.py gives way to a package anywhere on the path
    assert (result.returncode, result.stdout == "") == ((2, True) if hidden else (0, False)), result
    if hidden:
        assert result.stderr.startswith(f"dnad-ray: error: package analysis: got '{tmp_path / 'analysis'}'; allowed: ")
        assert result.stderr.count("\n") == 1
    # The installed command does not look in the current folder.
    installed = [Path(sys.executable).parent / "dnad-ray", "recipes"]
    result = subprocess.run(installed, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, ""), result


def test_a_folder_that_hides_our_package_from_a_script_is_named(tmp_path):
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "__init__.py").touch()
    (tmp_path / "script.py").write_text("import dnad_ray as dr\ndr.open_run('runs/mine')\n")
    environment = os.environ | {"PYTHONPATH": str(Path(dnad_ray.__file__).parents[1])}
    call = [sys.executable, "script.py"]
    result = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    last = result.stderr.splitlines()[-1]
    assert last.startswith(
        f"search_spaces.errors.UserError: package analysis: got '{tmp_path / 'analysis'}'; allowed: "
    )


@pytest.mark.parametrize(
    "arguments",
    [
        *(("front",), ("report",), ("measure",), ("retrain", "--recipe", "quick"), ("baselines",), ("export",)),
        *(("search", "smoke", "--out"), ("search", "smoke", "--resume", "--out"), ("teacher", "smoke", "--out")),
        ("retrain", "darts-v2", "--data", "digits", "--no-ray", "--out"),
    ],
)
def test_links_in_a_circle_are_refused_in_one_line(arguments, command, tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "circle")
    code, said, err = command(*arguments, tmp_path / "circle")
    assert (code, err.count("\n"), "Traceback" in said + err) == (2, 1, False), (said, err)
    assert "circle" in err
