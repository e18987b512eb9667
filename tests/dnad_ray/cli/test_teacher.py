"""`dnad-ray teacher`, and runs that take what it made."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time

import pytest
import torch

from dnad_ray.run_folder import checkpoints as checkpoint_module
from dnad_ray.run_folder.checkpoints import load_newest
from dnad_ray.run_folder.reading import read_run
from dnad_ray.runtime.torchvision_import import torchvision_models


@pytest.fixture(scope="module")
def few(save_digits, tmp_path_factory):
    """One hundred digits as an image folder, 4 epochs of teaching."""
    root = tmp_path_factory.mktemp("few") / "digits"
    save_digits(root, 10)
    return root


def _arguments(few, *settings):
    options = ["distill.teacher.epochs=2", "train.epochs=2", "train.batch_size=32", *settings]
    return ["--data", few, *(text for option in options for text in ("--set", option))]


def test_teacher_is_made_once_and_taken_by_a_search(command, few, tmp_path):
    code, said, err = command("teacher", "smoke", *_arguments(few), "--out", tmp_path / "made", "--quiet")
    assert (code, err) == (0, "")
    description = json.loads((tmp_path / "made" / "teacher.json").read_text())
    assert f"teacher: {description['accuracy']:.2%} of the validation images are right, calibration error" in said
    assert description["calibration"]["num_images"] == 20
    settings = [
        "distill.teacher.source=saved",
        f"distill.teacher.weights={tmp_path / 'made'}",
        "distill.kind=attention",
    ]
    code, said, err = command("search", "smoke", *_arguments(few, *settings), "--out", tmp_path / "run", "--quiet")
    assert (code, err) == (0, "")
    taken = json.loads((tmp_path / "run" / "teacher" / "teacher.json").read_text())
    assert taken == description, "with accuracy and calibration, as the record of the run"
    weights = [(tmp_path / name / "teacher.safetensors").read_bytes() for name in ("made", "run/teacher")]
    assert weights[0] == weights[1]


def test_teacher_has_the_skeleton_of_a_space(command, few, tmp_path):
    options = ("--space", "nas-bench-201", "--set", "space.num_cells=3", "--set", "space.init_channels=4")
    result = command("teacher", "smoke", *_arguments(few), *options, "--out", tmp_path / "made", "--quiet")
    assert result[0] == 0, result
    genotype = json.loads((tmp_path / "made" / "teacher.json").read_text())["genotype"]
    assert (genotype["skeleton"], len(genotype["cells"])) == ("nas_bench_201", 3)


def test_teacher_goes_into_a_folder_of_its_own(command, few, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    code, _, err = command("teacher", "smoke", *_arguments(few), "--out", tmp_path / "full")
    assert code == 2
    assert "--out" in err
    assert "a new or empty folder" in err
    assert command("teacher", "smoke")[0] == 2


@pytest.fixture
def interrupting(monkeypatch):
    """Presses Ctrl-C in a block once a folder holds a checkpoint after step 0; they are kept at every step."""
    monkeypatch.setattr(checkpoint_module, "LONGEST_GAP_SECONDS", 0.0)

    @contextlib.contextmanager
    def pressed(checkpoints):
        is_over = threading.Event()

        def press():
            while not is_over.is_set():
                if any(int(file.parent.name) > 0 for file in checkpoints.glob("*/manifest.json")):
                    os.kill(os.getpid(), signal.SIGINT)
                    return
                time.sleep(0.005)

        presser = threading.Thread(target=press)
        presser.start()
        yield
        is_over.set()
        presser.join()

    return pressed


LONGER = "distill.teacher.epochs=12"


def test_teacher_that_is_interrupted_goes_on_from_there(command, few, tmp_path, interrupting):
    arguments = ["teacher", "smoke", *_arguments(few, LONGER), "--out"]
    assert command(*arguments, tmp_path / "whole")[0] == 0
    with interrupting(tmp_path / "made" / "checkpoints"):
        code, _, err = command(*arguments, tmp_path / "made")
    assert code == 130
    assert "error: interrupted by SIGINT; to continue: dnad-ray teacher smoke " in err
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["checkpoints"]
    assert 0 < load_newest((tmp_path / "made" / "checkpoints").iterdir())["step"] < 24
    code, _, err = command(*arguments, tmp_path / "made", "--seed", 5)
    assert code == 2
    assert "a checkpoint of the very same teacher, or a new folder" in err
    assert command(*arguments, tmp_path / "made")[0] == 0
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["teacher.json", "teacher.safetensors"]
    files = [tmp_path / name / "teacher.safetensors" for name in ("made", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_search_that_is_interrupted_while_its_teacher_is_trained_goes_on(command, few, tmp_path, interrupting):
    arguments = ["search", "smoke", *_arguments(few, LONGER, "distill.kind=features"), "--quiet", "--out"]
    out = tmp_path / "run"
    with interrupting(out / "teacher" / "checkpoints"):
        code, _, err = command(*arguments, out)
    assert code == 130
    assert "interrupted; to continue: dnad-ray search smoke" in err
    assert not list(out.glob("trials/*/snapshots/*"))
    assert load_newest((out / "teacher" / "checkpoints").iterdir())["step"] > 0
    assert command(*arguments, out, "--resume")[0] == 0
    assert not (out / "teacher" / "checkpoints").exists()
    assert command(*arguments, tmp_path / "whole")[0] == 0
    files = [folder / "teacher" / "teacher.safetensors" for folder in (out, tmp_path / "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
    digests = [[row["digest"] for row in read_run(folder).snapshots] for folder in (out, tmp_path / "whole")]
    assert digests[0] == digests[1] != []


def test_search_whose_time_is_spent_on_its_teacher_pauses(command, few, tmp_path):
    settings = _arguments(few, "distill.teacher.epochs=100000", "distill.kind=features")
    steps = []
    for resume in ([], ["--resume"]):
        arguments = ("search", "smoke", *settings, "--out", tmp_path / "run", "--time-budget", 2, *resume)
        code, said, err = command(*arguments)
        assert (code, err) == (0, "")
        assert "the time budget of 2 s is spent; 1 of 1 trials are not at their end (t00); to continue:" in said
        steps.append(load_newest((tmp_path / "run" / "teacher" / "checkpoints").iterdir())["step"])
    assert 0 < steps[0] < steps[1]


MISTAKES = {
    "other classes": (["source=torchvision", "model=resnet18", "weights=FOUR"], "a model of 4 classes'; allowed: 10"),
    "no checkpoint": (["source=torchvision", "model=resnet18", "weights=/no.pth"], "/no.pth"),
    "hostile checkpoint": (["source=torchvision", "model=resnet18", "weights=HOSTILE"], "hostile.pth"),
    "no such model": (["source=torchvision", "model=resnet19"], "a torchvision model: resnet1"),
    "no such tap": (
        ["source=torchvision", "model=resnet18", "taps=[layer1, layer2, layer9]", "train=false"],
        "distill.teacher.taps: got 'layer9'",
    ),
    "a tap of another size": (
        ["source=torchvision", "model=resnet18", "taps=[layer1, layer1, layer4]", "train=false"],
        "a tap of 8x8 pixels for stage 2 of 3",
    ),
    "no such module": (["source=module", "model=nowhere:model"], "No module named 'nowhere'"),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("program", ["teacher", "search"])
def test_mistakes_leave_nothing_behind(program, name, command, few, tmp_path):
    settings, words = MISTAKES[name]
    four = tmp_path / "four.pth"
    if "FOUR" in settings[-1]:
        torch.save(torchvision_models().get_model("resnet18", weights=None, num_classes=4).state_dict(), four)
    (tmp_path / "hostile.pth").write_bytes(b"PK and nothing else")
    given = [f"distill.teacher.{text}" for text in settings]
    given = [text.replace("FOUR", str(four)).replace("HOSTILE", str(tmp_path / "hostile.pth")) for text in given]
    out = tmp_path / "out"
    code, _, err = command(program, "smoke", *_arguments(few, "distill.kind=features", *given), "--out", out)
    assert code == 2, err
    assert words in err
    assert err.startswith("dnad-ray: error: ")
    assert err.count("\n") == 1
    assert not out.exists()
