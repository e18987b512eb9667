"""Warm starts: weights that snapshots keep, off by default, and a retraining that begins with them."""

from __future__ import annotations

import shutil

import pytest
import torch

from dnad_ray.commands.folder import run_folder
from dnad_ray.networks.network_file import with_weights
from dnad_ray.networks.spec import NetworkSpec, logits_of
from dnad_ray.run_folder.jobs import read_retrained
from dnad_ray.search.prepare import PreparedRun, run_search
from dnad_ray.search.warm_start import inherited_weights
from dnad_ray.storage.checksums import parse_record
from dnad_ray.training.evaluate import accuracy_of
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board
from search_spaces.genotype import Genotype
from search_spaces.shape import ImageShape

QUICK = ("--recipe", "quick", "--epochs", "1", "--set", "device=cpu", "--no-ray")


def searched(folder, tiny, digits, **given):
    # Pools are left out, so that what is inherited computes what was scored.
    config = tiny({"space.operations": ["sep_conv_3x3", "dil_conv_3x3"], **given})
    with run_folder(config, folder, False):
        run_search(TrialSpec("t00", {"seed": 0}, config), PreparedRun(digits, None), folder, Board([]))
    return config


def rows_of(folder):
    return [parse_record(file.read_text(), file.name) for file in sorted(folder.glob("trials/t00/snapshots/*.json"))]


def test_weights_are_kept_on_request_and_score_as_the_snapshot_did(tmp_path, tiny, digits):
    config = searched(tmp_path / "run", tiny, digits, **{"evaluation.keep_weights": True})
    images = ImageShape(in_channels=1, image_size=8, num_classes=10)
    rows = rows_of(tmp_path / "run")
    assert rows
    for row in rows:
        genotype = Genotype.from_json((tmp_path / "run" / "genotypes" / f"{row['digest']}.json").read_text())
        spec = NetworkSpec(origin="search", genotype=genotype, init_channels=config.space.init_channels)
        network = with_weights(spec, images, inherited_weights(tmp_path / "run", "t00", row["step"]), "weights")
        found = accuracy_of(network, lambda x, n=network: logits_of(n(x)), digits.validation, digits, 64)
        assert found == pytest.approx(row["proxy_accuracy"], abs=2 / 128)  # up to ties within rounding


def test_weights_are_not_kept_by_default_and_cannot_be_inherited_then(tmp_path, tiny, digits, command):
    searched(tmp_path / "run", tiny, digits)
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    code, _, err = command("retrain", tmp_path / "run", *QUICK, "--inherit")
    assert (code, err.count("\n")) == (2, 1)
    assert "evaluation.keep_weights" in err
    assert not (tmp_path / "run" / "retrained").exists()


def test_retrain_inherits_and_says_so(tmp_path, tiny, digits, command):
    run = tmp_path / "run"
    searched(run, tiny, digits, **{"evaluation.keep_weights": True})
    assert command("retrain", run, *QUICK, "--networks", 1, "--inherit")[0] == 0
    assert command("retrain", run, *QUICK, "--networks", 1)[0] == 0
    records, _ = read_retrained(run)
    warm, cold = sorted(records, key=lambda record: not record["inherited"])
    assert (warm["inherited"], cold["inherited"]) == (True, False)
    assert warm["protocol"] != cold["protocol"]  # never taken for trained alike
    assert warm["train_loss"] < cold["train_loss"]
    result = command("retrain", run, *QUICK, "--networks", 1, "--inherit", "--max-macs", 10**6)
    assert result[0] == 2
    assert "weights have a width" in result[2]


def test_weights_of_another_network_are_refused(tmp_path, tiny, digits, command):
    run = tmp_path / "run"
    searched(run, tiny, digits, **{"evaluation.keep_weights": True})
    files = sorted(run.rglob("weights/*.safetensors"))
    for file in files[1:]:
        shutil.copy(files[0], file)
    files[0].write_bytes(b"torn")
    code, _, err = command("retrain", run, *QUICK, "--networks", 2, "--inherit")
    assert (code, err.count("\n")) == (2, 1)
    assert "inherited weights" in err


def test_weights_kept_do_not_change_the_search(tmp_path, tiny, digits, timeless):
    torch.manual_seed(0)
    searched(tmp_path / "with", tiny, digits, **{"evaluation.keep_weights": True})
    searched(tmp_path / "without", tiny, digits)
    with_weights_, without = (timeless(rows_of(tmp_path / name)) for name in ("with", "without"))
    assert [{**row, "run": ""} for row in with_weights_] == [{**row, "run": ""} for row in without]
