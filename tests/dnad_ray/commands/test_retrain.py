"""`dnad-ray retrain` on a real run: results in its folder, a kill that nobody can tell, and every mistake in words."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from dnad_ray.config.run import config_to_dict
from dnad_ray.costs.table import costs_of
from dnad_ray.networks.network_file import read_network
from dnad_ray.run_folder.genotypes import read_any_genotype
from dnad_ray.run_folder.jobs import read_retrained
from dnad_ray.run_folder.records import RETRAINED_COLUMNS
from dnad_ray.storage.files import write_json
from search_spaces.shape import ImageShape, NetworkShape

QUICK = ("--recipe", "quick", "--epochs", "1", "--set", "device=cpu")


def without_times(folder):
    record = json.loads((folder / "result.json").read_text())
    return {key: value for key, value in record.items() if key not in ("device_seconds", "checksum")}


def test_retrain_of_a_run_measures_its_front_once_and_leaves_records(command, run):
    code, out, err = command("retrain", run, *QUICK, "--networks", 2, "--seeds", 2, "--no-ray")
    assert code == 0, err
    assert re.search(
        r"^retrain: up to \d+ s for a network on this machine, \d+ s for all 4 one after the other$", out, re.M
    )
    records, problems = read_retrained(run)
    assert (len(records), problems) == (4, [])
    assert list(records[0]) == list(RETRAINED_COLUMNS)
    assert {record["seed"] for record in records} == {0, 1}
    assert len({record["digest"] for record in records}) == 2
    assert len({record["protocol"] for record in records}) == 1
    front = {row["digest"]: row for row in json.loads((run / "front.json").read_text())}
    for record in records:
        snapshot = front[record["digest"]]
        assert (record["macs"], record["params"]) == (snapshot["macs"], snapshot["params"])
        assert record["proxy_accuracy"] == snapshot["proxy_accuracy"]
        assert (record["origin"], record["split"], record["num_images"]) == ("search", "test", 359)
        assert record["accuracy"] * 359 == pytest.approx(round(record["accuracy"] * 359))
        kept = read_network(run / "retrained" / record["job"])
        assert kept.facts["accuracy"] == record["accuracy"]
    before = {file: file.stat().st_mtime_ns for file in run.rglob("result.json")}
    code, out, err = command("retrain", run, *QUICK, "--networks", 2, "--seeds", 2, "--no-ray")
    assert (code, "4 done already" in out, "up to" in out) == (0, True, False)
    assert {file: file.stat().st_mtime_ns for file in run.rglob("result.json")} == before


@pytest.mark.ray
@pytest.mark.slow
def test_retrain_by_ray_and_alone_have_the_same_bits(command, run, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a task gets
    try:
        assert command("retrain", run, *QUICK, "--networks", 1, "--seeds", 2)[0] == 0
        by_ray = {path.parent.name: without_times(path.parent) for path in run.rglob("result.json")}
        shutil.rmtree(run / "retrained")
        assert command("retrain", run, *QUICK, "--networks", 1, "--seeds", 2, "--no-ray")[0] == 0
    finally:
        torch.set_num_threads(threads)
    assert len(by_ray) == 2
    assert {path.parent.name: without_times(path.parent) for path in run.rglob("result.json")} == by_ray


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray Train warns of Ray itself, and starts in this process
def test_retrain_in_two_processes_learns_as_one_does(command, run, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    result = command(
        "retrain", run, *QUICK, "--networks", 1, "--set", "num_processes=2", "--set", "auxiliary_weight=0.1"
    )
    assert result[0] == 0, result
    (folder,) = (path.parent for path in run.rglob("result.json"))
    assert json.loads((folder / "status.json").read_text())["processes"] == 2
    shared = json.loads((folder / "result.json").read_text())
    assert command("retrain", run, *QUICK, "--networks", 1, "--no-ray", "--set", "auxiliary_weight=0.1")[0] == 0
    (alone,) = (record for record in read_retrained(run)[0] if record["job"] != shared["job"])
    # The same images in the same order; only batch norm sees halves of the batch.
    assert shared["train_loss"] == pytest.approx(alone["train_loss"], rel=0.2)


@pytest.mark.slow
def test_retrain_killed_in_the_middle_ends_with_the_same_bits(command, run, tmp_path):
    arguments = ("--recipe", "quick", "--epochs", "12", "--set", "device=cpu", "--set", "ema_decay=0.9")
    target = ("--networks", "1", "--no-ray")
    other = Path(shutil.copytree(run, tmp_path / "other" / "run"))
    assert command("retrain", other, *arguments, *target)[0] == 0
    (expected,) = other.rglob("result.json")

    program = (
        f"import torch; torch.set_num_threads({torch.get_num_threads()});"
        "import dnad_ray.run_folder.checkpoints as kept; kept.LONGEST_GAP_SECONDS = 0.0;"
        "from dnad_ray.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "retrain", str(run), *arguments, *target],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(run.glob("retrained/*/checkpoints/*/manifest.json"))) < 2:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(run.rglob("result.json"))
    assert command("retrain", run, *arguments, *target)[0] == 0
    (found,) = run.rglob("result.json")
    status = json.loads((found.parent / "status.json").read_text())
    assert status["from_step"] > 0
    assert without_times(found.parent) == without_times(expected.parent)
    names = ("weights.safetensors",)
    assert all((found.parent / n).read_bytes() == (expected.parent / n).read_bytes() for n in names)


def test_retrain_pauses_at_its_time_budget_and_goes_on(command, run, monkeypatch):
    monkeypatch.setattr("dnad_ray.commands.job_running._LINE_SECONDS", 0.0)
    arguments = (*QUICK[:2], "--set", "device=cpu", "--no-ray", "--networks", 1)
    code, out, _ = command("retrain", run, *arguments, "--epochs", 100_000, "--time-budget", 6)
    assert code == 0
    assert "the time budget is spent; 1 of 1 jobs are open; to continue: dnad-ray retrain" in out
    assert "epoch 1 of 100000, training loss" in out
    (status,) = run.rglob("retrained/*/status.json")
    first = json.loads(status.read_text())
    assert (first["state"], first["from_step"]) == ("paused", 0)
    command("retrain", run, *arguments, "--epochs", 100_000, "--time-budget", 2)
    assert json.loads(status.read_text())["from_step"] == first["step"] > 0


def test_retrain_of_a_genotype_file_needs_images_and_a_folder(command, run, tmp_path, refused, one_genotype):
    genotype = shutil.copy(one_genotype(run), tmp_path / "mine.json")
    refused(command("retrain", genotype, *QUICK, "--no-ray"), "--out", "run folder for the results")
    refused(command("retrain", genotype, *QUICK, "--no-ray", "--out", tmp_path / "new"), "--data", "images to train on")
    assert not (tmp_path / "new").exists()
    result = command(
        "retrain", genotype, *QUICK, "--no-ray", "--out", tmp_path / "new", "--data", "digits",
        "--set", "init_channels=4",
    )  # fmt: skip
    assert result[0] == 0, result
    (record,) = read_retrained(tmp_path / "new")[0]
    assert (record["origin"], record["proxy_accuracy"], record["init_channels"]) == ("genotype", None, 4)


def test_retrain_of_a_front_json_lands_in_its_run(command, run):
    digest = json.loads((run / "front.json").read_text())[0]["digest"]
    result = command("retrain", run / "front.json", *QUICK, "--no-ray", "--digest", digest[:8])
    assert result[0] == 0, result
    (record,) = read_retrained(run)[0]
    assert record["digest"] == digest


def test_retrain_scales_the_width_to_a_budget(command, run):
    result = command("retrain", run, *QUICK, "--no-ray", "--networks", 1, "--max-macs", "300k")
    assert result[0] == 0, result
    (record,) = read_retrained(run)[0]
    assert record["macs"] <= 300_000
    assert record["init_channels"] > 4  # wider than the front's


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recipe", "mnist"], ["--recipe", "mnist", "imagenet-mobile"]),
        (["--set", "lr=1"], ["lr", "learning_rate"]),
        (["--set", "epochs=0"], ["epochs", "greater than or equal to 1"]),
        (["--seeds", "0"], ["--seeds", "at least 1"]),
        (["--digest", "zzz"], ["--digest", "zzz"]),
        (["--max-macs", "10"], ["--max-macs", "10", "at its narrowest"]),
        (["--set", "kd_weight=1"], ["kd_weight", "no teacher"]),
        (["--data", "imagenet21k"], ["--data", "imagenet21k"]),
        (["--image-size", "4", "--set", "space.stem=imagenet"], ["4", "at least"]),
    ],
)
def test_retrain_mistake_is_one_line_and_leaves_nothing(command, run, arguments, words, refused):
    before = sorted(run.rglob("*"))
    refused(command("retrain", run, "--recipe", "quick", "--set", "device=cpu", "--no-ray", *arguments), *words)
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cpus", 1, "--set", "num_processes=2"), ("--cpus: got 1.0", "whole multiple")),
        (("--gpus", 1), ("--gpus: got 1.0", "'cpu'")),
    ],
)
def test_retrain_says_by_option_what_a_job_cannot_get(command, run, tmp_path, arguments, words, refused, one_genotype):
    source, out = one_genotype(run), tmp_path / "new"
    refused(command("retrain", source, *QUICK, "--data", "digits", "--out", out, *arguments), *words)
    assert not out.exists()


def test_retrain_of_a_front_without_genotypes_is_refused(command, run, refused):
    shutil.rmtree(run / "genotypes")
    for source in (run, run / "front.json"):
        refused(command("retrain", source, *QUICK, "--no-ray"), "has no genotype", "genotypes/<digest>.json beside it")
    (run / "front.json").write_text("[]")
    refused(command("retrain", run / "front.json", *QUICK, "--no-ray"), "at least one network")
    (run / "front.json").write_text('[{"macs": 3}]')
    refused(command("retrain", run / "front.json", *QUICK, "--no-ray"), "record 1")


def test_retrain_of_a_genotype_too_deep_for_the_images_is_refused(command, run, tmp_path, refused):
    cells = [{"reduction": True, "nodes": [[["sep_conv_3x3", 1]]]}] * 4
    deep = tmp_path / "deep.json"
    deep.write_text(json.dumps({"kind": "dnad-ray genotype", "schema": 1, "cells": cells}))
    result = command("retrain", deep, *QUICK, "--no-ray", "--data", "digits", "--out", tmp_path / "new")
    refused(result, "8 pixels", "at least 16 pixels")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("name", "value"), [("num_classes", 7), ("image_size", 16)])
def test_retrain_of_a_front_of_other_images_is_refused_unless_asked_for(command, run, name, value, refused):
    front = run / "front.json"
    write_json(front, [row | {name: value} for row in json.loads(front.read_text())])
    refused(command("retrain", front, *QUICK, "--no-ray"), str(value), "10 classes of 8 pixels", "--data")
    assert not (run / "retrained").exists()
    assert command("retrain", front, *QUICK, "--no-ray", "--networks", 1, "--data", "digits")[0] == 0
    (record,) = read_retrained(run)[0]
    assert (record["num_classes"], record["proxy_accuracy"]) == (10, None)


def test_retrain_of_something_else_is_refused(command, tmp_path, refused):
    refused(command("retrain", tmp_path / "none.json", *QUICK), "SOURCE", "none.json", "a run folder, a front.json")
    refused(command("retrain", tmp_path, *QUICK), "SOURCE", "a run folder")
    stray = tmp_path / "front.json"
    stray.write_text(json.dumps([{"run": "r", "macs": 5}]))
    refused(command("retrain", stray, *QUICK, "--out", tmp_path / "r"), "record 1: got 'dict without a digest'")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("seed", [-1, 2**31 - 1])
def test_retrain_under_a_seed_that_is_none_is_refused(command, tmp_path, seed, refused):
    refused(command("retrain", "darts-v2", *QUICK, "--seeds", 1, "--seed", seed), "--seed", "0 to 2147483646")


def test_retrain_of_benchmark_cells_with_several_outputs_is_refused(command, tmp_path, refused):
    nodes = [[["nor_conv_3x3", 0]], [["skip_connect", 0]]]
    cells = [{"reduction": False, "nodes": nodes}] * 2
    (tmp_path / "wide.json").write_text(
        json.dumps({"kind": "dnad-ray genotype", "schema": 1, "skeleton": "nas_bench_201", "cells": cells})
    )
    options = (*QUICK, "--data", "digits", "--no-ray", "--out", tmp_path / "r")
    refused(command("retrain", tmp_path / "wide.json", *options), "cells[0].concat: got [0, 1]", "one node")
    assert not (tmp_path / "r").exists()


STRING = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|skip_connect~2|"


@pytest.mark.parametrize("source", ["darts-v2", STRING])
def test_retrain_takes_published_names_and_the_strings_of_benchmarks(command, tmp_path, source):
    given = source
    if source is STRING:
        given = tmp_path / "arch.txt"
        given.write_text(source)
    out = tmp_path / "new"
    options = ("--no-ray", "--cells", 3, "--data", "digits", "--set", "init_channels=4", "--out", out)
    assert command("retrain", given, *QUICK, *options)[0] == 0
    (record,) = read_retrained(out)[0]
    network = read_any_genotype(given, 3)
    assert (record["digest"], record["num_cells"]) == (network.pruned().digest, 3)
    assert (
        record["params"]
        == costs_of(
            network, NetworkShape(images=ImageShape(in_channels=1, image_size=8, num_classes=10), init_channels=4)
        ).params
    )
    assert 0 <= record["accuracy"] <= 1


def test_retrain_passes_over_a_torn_checkpoint_and_refuses_one_of_another_network(command, run, refused):
    assert command("retrain", run, *QUICK, "--no-ray", "--networks", 2)[0] == 0
    first, second = sorted((run / "retrained").iterdir())
    expected = without_times(first)
    (first / "result.json").unlink()
    (first / "status.json").unlink()
    for state in first.glob("checkpoints/*/state.pt"):
        state.write_bytes(state.read_bytes()[:-7])
    assert command("retrain", run, *QUICK, "--no-ray", "--networks", 2)[0] == 0
    assert without_times(first) == expected
    (first / "status.json").unlink()
    shutil.rmtree(first / "checkpoints")
    shutil.copytree(second / "checkpoints", first / "checkpoints")
    refused(command("retrain", run, *QUICK, "--no-ray", "--networks", 2), "checkpoint", "it is of network")


def test_retrain_where_nothing_can_be_written_is_refused(command, run, tmp_path, refused):
    blocked = tmp_path / "file"
    blocked.write_text("")
    refused(command("retrain", run, *QUICK, "--no-ray", "--out", blocked / "new"), "--out")


def test_retrain_without_test_images_measures_the_validation_images_and_says_so(command, tiny, pictures, tmp_path):
    config = tiny({"data.name": "imagefolder", "data.root": str(pictures)})
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config_to_dict(config)))
    genotype = tmp_path / "g.json"
    cells = [{"reduction": i > 0, "nodes": [[["sep_conv_3x3", 1]]]} for i in range(3)]
    genotype.write_text(json.dumps({"kind": "dnad-ray genotype", "schema": 1, "cells": cells}))
    code, out, err = command(
        "retrain", genotype, *QUICK, "--no-ray", "--data", pictures, "--out", tmp_path / "new",
        "--set", "batch_size=16", "--set", "init_channels=4",
    )  # fmt: skip
    assert code == 0, err
    assert "there are no test images" in out
    (record,) = read_retrained(tmp_path / "new")[0]
    assert (record["split"], record["num_images"]) == ("validation", 20)


def test_reader_passes_over_what_is_no_record(run, command):
    assert command("retrain", run, *QUICK, "--no-ray", "--networks", 1)[0] == 0
    (good,) = run.rglob("result.json")
    for name, content in (("torn", "{"), ("nan", '{"accuracy": NaN}'), ("list", "[]"), ("empty", "{}")):
        (run / "retrained" / name).mkdir()
        (run / "retrained" / name / "result.json").write_text(content)
    record = json.loads(good.read_text()) | {"accuracy": "high"}
    (run / "retrained" / "text").mkdir()
    write_json(run / "retrained" / "text" / "result.json", record)
    (run / "retrained" / "path").mkdir()
    record = json.loads(good.read_text()) | {"job": "../../elsewhere"}
    write_json(run / "retrained" / "path" / "result.json", record)
    records, problems = read_retrained(run)
    assert (len(records), len(problems)) == (1, 6)
    assert any("accuracy is 'high'" in problem for problem in problems)
