"""The proof from end to end: searches, choices, training and tables at a size that says nothing about the arms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
from proof_settings import SETTINGS

from dnad_ray.networks.spec import NetworkSpec, build
from search_spaces.shape import ImageShape

HERE = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow]


def run(*words):
    environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=environment, cwd=HERE, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proof")
    run("experiments/proof.py", "smoke", "--seeds", 1, "--out", folder, "--processes", 2)
    return folder


def test_proof_trains_what_every_arm_offers_at_every_cost(out):
    setting, index = SETTINGS["smoke"], json.loads((out / "networks.json").read_text())
    assert sorted((entry["arm"], entry["target"]) for entry in index) == sorted(
        (arm, target) for arm in setting.arms for target in setting.targets
    )
    for entry in index:
        status = json.loads((out / "networks" / "retrained" / entry["job"] / "status.json").read_text())
        assert status["state"] == "finished"
        result = json.loads((out / "networks" / "retrained" / entry["job"] / "result.json").read_text())
        assert 0.6 * entry["target"] < result["macs"] <= entry["target"], entry["arm"]
        assert result["split"] == "test"
        assert result["seed"] == 0


def test_proof_gives_the_arms_that_search_the_compute_of_snps(out):
    picks = json.loads((out / "picks.json").read_text())
    spent = {pick["arm"]: pick["search_macs"] for pick in picks}
    assert spent["random"] == spent["resnet18"] == 0
    assert spent["snps"] > 0
    # Whole epochs of the supernet, and whole candidates: the nearest to it.
    assert spent["darts"] == pytest.approx(spent["snps"], rel=0.5)
    assert spent["random-best"] == pytest.approx(spent["snps"], rel=0.5)
    images = ImageShape(in_channels=1, image_size=8, num_classes=10)
    alive = {
        (pick["arm"], pick["target"]): NetworkSpec.from_dict(pick["subject"]).genotype.num_operations
        for pick in picks
        if pick["arm"] in ("snps", "random")
    }
    for target in SETTINGS["smoke"].targets:
        assert alive["random", target] == alive["snps", target]
    assert build(NetworkSpec.from_dict(picks[0]["subject"]), images)


def test_proof_said_again_trains_nothing_again(out):
    before = {file: file.stat().st_mtime_ns for file in (out / "networks" / "retrained").glob("*/result.json")}
    picks = (out / "picks.json").read_bytes()
    run("experiments/proof.py", "smoke", "--seeds", 1, "--out", out)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert (out / "picks.json").read_bytes() == picks


def test_results_of_the_proof_are_tables_and_charts(out, tmp_path):
    text = run("experiments/proof_results.py", out, "--to", tmp_path / "smoke")
    for arm in SETTINGS["smoke"].arms:
        assert f"| {arm} |" in text
    assert (tmp_path / "smoke.md").read_text() == text
    assert {file.name for file in tmp_path.iterdir()} >= {"smoke-errors.png", "smoke-gaps.png"}
