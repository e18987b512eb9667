"""`dnad-ray baselines`: beside the front at equal size and training, interrupted and continued."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from dnad_ray.retrain.one_level_darts import _DartsSearch
from dnad_ray.run_folder.jobs import read_retrained
from search_spaces.space import space_named

QUICK = ("--recipe", "quick", "--epochs", "1", "--set", "device=cpu")


def test_baselines_stand_beside_the_front_at_equal_size_and_training(command, run):
    result = command("baselines", run, *QUICK, "--networks", 2, "--kinds", "random,darts,resnet18", "--no-ray")
    assert result[0] == 0, result
    records, _ = read_retrained(run)
    assert {record["origin"] for record in records} == {"search", "random", "darts", "torchvision"}
    assert len({record["protocol"] for record in records}) == 1
    assert len({record["epochs"] for record in records}) == 1
    fronts = [record for record in records if record["origin"] == "search"]
    assert all(f"network {record['digest']}" in result[1] for record in fronts)
    assert "points" in result[1]
    largest = max(record["macs"] for record in fronts)
    assert all(record["macs"] <= 1.05 * largest for record in records)
    again = command("baselines", run, *QUICK, "--networks", 2, "--kinds", "random,darts,resnet18", "--no-ray")
    assert f"{len(records)} done already" in again[1]
    assert "one-level DARTS" not in again[1]  # its search is kept
    # Unless it found a network that is not of the space, as earlier versions did: then it is searched again.
    (kept,) = (run / "baselines").glob("darts-*.json")
    ours = kept.read_bytes()
    kept.write_text(space_named("nas-bench-201", None, 3, 3).uniform(("nor_conv_3x3",)).to_json())
    mended = command("baselines", run, *QUICK, "--networks", 2, "--kinds", "darts", "--no-ray")
    assert "one-level DARTS" in mended[1]
    assert kept.read_bytes() == ours


def test_baselines_that_are_interrupted_while_darts_searches_go_on(command, run, monkeypatch, tmp_path):
    arguments = (*QUICK, "--networks", 1, "--kinds", "darts", "--no-ray")
    other = Path(shutil.copytree(run, tmp_path / "other" / "run"))
    assert command("baselines", other, *arguments)[0] == 0
    losses = _DartsSearch.losses

    def press_at_the_fifth_step(search, images, labels):
        if search.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return losses(search, images, labels)

    monkeypatch.setattr(_DartsSearch, "losses", press_at_the_fifth_step)
    code, _, err = command("baselines", run, *arguments)
    assert code == 130
    assert f"error: interrupted; to continue: dnad-ray baselines {run} " in err
    (checkpoint,) = run.glob("baselines/darts-*/checkpoints/*")
    assert checkpoint.name == "00000005"
    monkeypatch.setattr(_DartsSearch, "losses", losses)
    assert command("baselines", run, *arguments)[0] == 0
    (found,) = (run / "baselines").iterdir()  # the checkpoints are gone
    (expected,) = (other / "baselines").iterdir()
    assert found.read_bytes() == expected.read_bytes()


def test_baselines_of_impossible_kinds_are_refused(command, run, refused):
    refused(command("baselines", run, *QUICK, "--kinds", "vgg"), "--kinds", "vgg", "resnet18")
    refused(command("baselines", run.parent, *QUICK), "RUN", "a run folder")
