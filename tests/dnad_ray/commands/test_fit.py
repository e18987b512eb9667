"""`dnad-ray fit`: from images to tested networks and a model; killed and continued with the same bits; its mistakes."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import time

import pytest

import dnad_ray as dr
import dnad_ray.commands.fit as fitting
import dnad_ray.retrain.fit_plan as plans
from dnad_ray.cli.fit import print_trained
from dnad_ray.errors import ConfigError, DataError
from dnad_ray.run_folder.jobs import read_measurements, read_retrained

UNDER, SMALL = {"macs": 120_000, "latency": "100ms"}, {"space.num_cells": 3, "space.init_channels": 4}


@pytest.fixture(scope="module", autouse=True)
def _few_epochs():
    """Few epochs where no time budget is given."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_EPOCHS", 2), ("_TEACHER_EPOCHS", 2), ("_SEARCH_EPOCHS", 3), ("_PLACES", 2)):
            patch.setattr(plans, name, value)
        patch.setattr(plans, "_LEAST_RACE", 1)
        yield


def _fitted(out, *, no_ray=True, **options):
    return dr.fit("digits", out=out, under=UNDER, set=SMALL, no_ray=no_ray, quiet=True, **options)


def _records(folder):
    records, problems = read_retrained(folder)
    assert problems == []
    return [{k: v for k, v in record.items() if k not in ("run", "device_seconds", "checksum")} for record in records]


def _weights(folder):
    return {path.parent.name: path.read_bytes() for path in folder.glob("retrained/*/*.safetensors")}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return _fitted(tmp_path_factory.mktemp("fit") / "unbroken")


def test_fit_ends_with_tested_networks_and_a_model_and_goes_on_where_it_was_killed(unbroken, tmp_path, monkeypatch):
    front = unbroken.outcome.front
    assert unbroken.outcome.state == "finished"
    # Two of four budgets have a network: the others are below the smallest one.
    assert front["macs"].max() <= 120_000
    assert (front["split"].unique().tolist(), front["num_images"].unique().tolist()) == (["test"], [359])
    assert front["epochs"].unique().tolist() == [2]
    # They differ by less than counting on 359 images leaves open, so each has a second seed.
    assert front["num_seeds"].tolist() == [2, 2]
    for row in front.to_dict("records"):
        of_seeds = [record["accuracy"] for record in _records(unbroken.path) if record["macs"] == row["macs"]]
        assert row["test_error"] == pytest.approx(1 - sum(of_seeds) / 2)
    largest = front.loc[front["macs"].idxmax()]
    assert 0 < front["latency_p50"].max() < 100
    measured, _ = read_measurements(unbroken.path)
    assert {record["digest"] for record in measured} == set(front["digest"])
    assert all(record["device_name"].endswith(", onnxruntime") for record in measured)
    assert f"| Run, job | unbroken, {largest['job']} |" in (unbroken.path / "model.onnx.md").read_text()
    assert dr.load_model(unbroken.outcome.paths["model"]).image_size == 8
    assert unbroken.snapshots()["trial"].unique().tolist() == ["t00"]
    plan = json.loads((unbroken.path / "fit.json").read_text())
    race = {(record["epochs"], record["split"]) for record in _records(unbroken.path / "race")}
    assert race == {(2, "validation")}  # never test images
    assert plan["decided"]["epochs"] == 2

    killed = tmp_path / "killed"
    _killed_when(killed, lambda: any(killed.glob("race/retrained/*/history.json")), resume=False)
    _killed_when(killed, lambda: any(killed.glob("retrained/*/history.json")))
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "entrants", None)  # who races is not decided again: latencies vary
        again = _fitted(killed, resume=True)
    assert again.outcome.state == "finished"
    assert _records(killed) == _records(unbroken.path)
    assert _weights(killed) == _weights(unbroken.path)
    before = _weights(killed)
    assert _fitted(killed, resume=True).outcome.front["job"].tolist() == again.outcome.front["job"].tolist()
    assert _weights(killed) == before

    with pytest.raises(ConfigError, match=r"^resume: got other budgets; allowed: what began"):
        dr.fit("digits", out=killed, under={"macs": 99_000}, set=SMALL, no_ray=True, quiet=True, resume=True)
    with pytest.raises(ConfigError, match=r"^resume: got other images, or another size of them, seed"):
        _fitted(killed, resume=True, seed=4)


def test_errors_of_validation_images_are_called_so(unbroken, capsys):
    for split, words in (("test", "test error"), ("validation", "validation error")):
        print_trained(unbroken.outcome.front.assign(split=split))
        assert capsys.readouterr().out.split("parameters")[1].split("95 %")[0].strip() == words


def test_fit_on_ray_has_the_same_bits(unbroken, tmp_path):
    on_ray = _fitted(tmp_path / "ray", no_ray=False)
    assert on_ray.outcome.state == "finished"
    assert _records(on_ray.path) == _records(unbroken.path)
    assert _weights(on_ray.path) == _weights(unbroken.path)


def _killed_when(folder, is_time, resume=True):
    """Run the command in a process of its own, and kill that when something is there."""
    process = multiprocessing.get_context("fork").Process(target=_fitted, args=[folder], kwargs={"resume": resume})
    process.start()
    deadline = time.monotonic() + 120
    while not is_time():
        assert process.is_alive(), process.exitcode
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_fit_within_a_time_says_what_it_does_and_what_it_leaves_out(command, tmp_path, monkeypatch):
    monkeypatch.setitem(plans._SHARES, "race", 0.9)
    monkeypatch.setattr(plans, "_GOOD_EPOCHS", (3, 5))
    began = time.monotonic()
    code, out, err = command(
        *("fit", "digits", "--out", tmp_path / "run", "--under", "macs=60k", "--time-budget", "12s", "--no-ray")
    )
    assert code == 0, err
    assert time.monotonic() - began < 60  # a machine that is busy now and idle then misses ten percent
    assert "no search (too little time), plain residual networks instead" in out
    assert re.search("; a race of up to [2-8] networks for each budget", out)
    assert " epochs for each winner on 1,151 images" in out
    assert "race, round" not in out  # one network fits into the budget, and needs no race
    assert not (tmp_path / "run" / "race").exists()
    assert "test error" in out
    assert "than the next smaller" in out
    assert re.search(r"^fit: 1 network, \d+ epochs each, tested once at the end; (\d+ s|no time is) left$", out, re.M)
    assert out.splitlines()[-1].startswith("model: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--under", "latency=0.001ms"], ["--under: got latency=0.001ms;", "latency=0.", "ms on this machine"]),
        (["--under", "latency=1ms", "--runtime", "tvm"], ["--runtime: got 'tvm'; allowed: onnxruntime, torch"]),
        (["--under", "macs=100"], ["--under: got macs=100;", "at least macs=", "the smallest network"]),
        (["--under", "error=5%"], ["--under: got 'error'", "macs, params and latency"]),
        (["--time-budget", "0.01"], ["--time-budget", "3 epochs of the smallest network"]),
        (["--time-budget", "soon"], ["--time-budget", "90, 90s, 10m, 2h"]),
        (["--no-ray", "--address", "auto"], ["--no-ray with --address"]),
        (["--resume"], ["--resume", "a folder that holds a run"]),
        (["--set", "train.lr=1"], ["train.lr", "train.learning_rate"]),
    ],
)
def test_mistakes_leave_no_folder(arguments, words, command, refused, tmp_path):
    refused(command("fit", "digits", "--out", tmp_path / "run", "--quiet", *arguments), *words)
    assert not (tmp_path / "run").exists()


def test_run_of_another_command_is_none_to_continue(run, command, refused):
    refused(command("fit", "digits", "--out", run, "--resume"), "--resume with --out", "a run that `fit` began")


def test_images_of_one_class_are_refused(tmp_path):
    from PIL import Image

    (tmp_path / "one" / "cat").mkdir(parents=True)
    for index in range(20):
        Image.new("RGB", (8, 8), (index, 9, 200)).save(tmp_path / "one" / "cat" / f"{index}.png")
    with pytest.raises(DataError, match="class"):
        dr.fit(tmp_path / "one", out=tmp_path / "run", no_ray=True, quiet=True)
    assert not (tmp_path / "run").exists()
