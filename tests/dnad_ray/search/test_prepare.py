"""What the trials of a run share: images and the teacher; and one trial in this process."""

from __future__ import annotations

import dataclasses
import io

import pytest
import torch
from rich.console import Console

from dnad_ray.commands.folder import conclude
from dnad_ray.config.run import config_to_dict
from dnad_ray.data.loading import load_data
from dnad_ray.distill.teacher import load_teacher
from dnad_ray.errors import (
    NonFiniteLossError,
    ResourceError,
)
from dnad_ray.run_folder import checkpoints as checkpoint_module
from dnad_ray.run_folder.reading import read_run, read_status
from dnad_ray.run_folder.writing import create_run
from dnad_ray.runtime.budget import Budget
from dnad_ray.search import prepare as run_module
from dnad_ray.search.loop import SearchState, search
from dnad_ray.search.prepare import PreparedRun, load_images, prepare_teacher, run_search
from dnad_ray.storage.checksums import parse_record
from dnad_ray.trials.plan import is_complete
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board
from dnad_ray.watch.plain_lines import PlainLines


@pytest.fixture
def board():
    console = Console(file=io.StringIO(), width=80)
    board = Board([PlainLines(console)])
    board.console = console
    return board


def said(board):
    return board.console.file.getvalue()


def spec_of(config, name="t00"):
    return TrialSpec(name, {"seed": config.seed}, config)


@pytest.fixture
def folder(tiny, tmp_path):
    return create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")


def test_load_images_says_what_they_are(tiny, board):
    data = load_images(tiny(), board)
    assert (data.image_size, data.num_classes) == (8, 10)
    size, classes = said(board).replace("\n", " ").split(" classes, ")
    assert size == "digits: 1,151 training and 287 validation images of 8x8 pixels in 10 classes"
    entries = classes.split(": ")[1].split(";")[0].split(", ")
    counts = [[int(number) for number in entry.split()[1::2]] for entry in entries]
    assert [sum(numbers) for numbers in zip(*counts, strict=True)] == [1151, 287]
    assert classes.startswith("training + validation images: 0 ")
    assert classes.endswith("; 359 test images, not looked at ")


def test_load_images_says_that_they_stay_on_disk(tiny, board, pictures):
    config = tiny({"data.name": "imagefolder", "data.root": str(pictures), "data.storage": "disk"})
    load_images(config, board)
    assert said(board).count("streamed from disk") == 1
    *_, size, classes, end = said(board).split("\n")
    assert size.endswith("80 training and 20 validation images of 8x8 pixels in 10 classes, streamed from disk")
    shown = ", ".join(f"{label} 8 + 2" for label in range(10))
    assert (classes, end) == (f"classes, training + validation images: {shown}; no test images", "")


def test_load_images_shows_each_part_of_the_work(tiny, board, monkeypatch):
    def slow(config, progress):
        progress("reading image sizes", 7, 7)
        progress("decoding images", 7, 7)
        return load_data(config)

    monkeypatch.setattr(run_module, "load_data", slow)
    load_images(tiny(), board)
    assert "reading image sizes: 100%" in said(board)
    assert "decoding images: 100%" in said(board)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_load_images_without_the_gpu_that_is_asked_for(tiny, board):
    with pytest.raises(ResourceError, match=r"train\.device: got 'cuda'"):
        load_images(tiny({"train.device": "cuda"}), board)


def test_prepare_trains_the_teacher_once(tiny, digits, folder, board):
    config = tiny({"distill.kind": "features"})
    first = prepare_teacher(config, digits, [spec_of(config)], folder, board)
    assert "teacher: 100%" in said(board)
    assert (folder / "teacher" / "teacher.json").exists()
    spoken = said(board)
    again = prepare_teacher(config, digits, [spec_of(config)], folder, board)
    assert again.teacher_file.weights == first.teacher_file.weights
    assert parse_record(again.teacher_file.description, "x") == parse_record(first.teacher_file.description, "x")
    assert said(board) == spoken
    assert load_teacher(again.teacher_file, torch.device("cpu")).shape.init_channels == 4


def test_prepare_without_imitation_trains_nobody(tiny, digits, folder, board):
    assert prepare_teacher(tiny(), digits, [spec_of(tiny())], folder, board) == PreparedRun(digits, None)
    assert not (folder / "teacher").exists()
    # A trial that imitates is enough, whatever the others do.
    imitates = tiny({"distill.kind": "logits"})
    assert (
        prepare_teacher(imitates, digits, [spec_of(tiny()), spec_of(imitates)], folder, board).teacher_file is not None
    )


class Killed(BaseException):
    """Stands for the end of the process."""


def test_run_search_continues_from_its_newest_checkpoint(tiny, folder, board, monkeypatch, request):
    digits, timeless = request.getfixturevalue("digits"), request.getfixturevalue("timeless")
    save, steps = checkpoint_module.save_checkpoint, []

    def save_and_die(path, state, step):
        save(path, state, step)
        steps.append(step)
        if len(steps) == 3:
            raise Killed

    spec = spec_of(tiny())
    monkeypatch.setattr(checkpoint_module, "LEAST_GAP_FACTOR", 0.0)
    monkeypatch.setattr(checkpoint_module, "LEAST_GAP_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint_module, "save_checkpoint", save_and_die)
    with pytest.raises(Killed):
        run_search(spec, PreparedRun(digits, None), folder, board)
    monkeypatch.setattr(checkpoint_module, "save_checkpoint", save)
    checkpoints = folder / "trials" / "t00" / "checkpoints"
    assert sorted(int(path.name) for path in checkpoints.iterdir()) == steps  # the third came before it could prune
    (checkpoints / f"{steps[-1]:08d}" / "state.pt").write_bytes(b"torn")
    assert not is_complete([spec], read_run(folder))

    resumed = SearchState.resume.__func__
    seen = []
    monkeypatch.setattr(
        SearchState,
        "resume",
        classmethod(
            lambda cls, saved, *args, **names: (seen.append(saved["step"]), resumed(cls, saved, *args, **names))[1]
        ),
    )
    board.begin([spec], folder, read_run(folder))
    run_search(spec, PreparedRun(digits, None), folder, board)
    assert seen == [steps[1]]  # the newest was torn
    expected = search(SearchState.start(tiny(), digits, run="demo", trial="t00"))
    assert timeless(read_run(folder).snapshots) == timeless(expected)
    assert len(list(checkpoints.iterdir())) == 2
    assert is_complete([spec], read_run(folder))
    assert "t00: 100%" in said(board)


def test_run_search_pauses_when_its_time_is_spent_and_goes_on(tiny, digits, folder, board, timeless):
    spec = spec_of(tiny())
    run_search(spec, PreparedRun(digits, None), folder, board, stop=Budget(1e-9).check)
    assert read_status(folder, "t00")["state"] == "paused"
    assert read_run(folder).history["t00"] == []
    (checkpoint,) = (folder / "trials" / "t00" / "checkpoints").iterdir()
    assert checkpoint.name == "00000000"  # it asks before its first step, too
    run_search(spec, PreparedRun(digits, None), folder, board)
    expected = search(SearchState.start(tiny(), digits, run="demo", trial="t00"))
    assert timeless(read_run(folder).snapshots) == timeless(expected)
    assert (read_status(folder, "t00")["state"], read_status(folder, "t00")["attempt"]) == ("finished", 2)


def test_run_search_that_diverges_is_concluded(tiny, digits, folder, board):
    data = dataclasses.replace(digits, mean=(float("inf"),))
    run_search(spec_of(tiny()), PreparedRun(data, None), folder, board)
    assert read_status(folder, "t00")["state"] == "stopped"
    with pytest.raises(NonFiniteLossError, match="step 0"):
        conclude([spec_of(tiny())], read_run(folder), board)


def test_run_search_checkpoints_by_time_where_nothing_is_deleted(tiny, digits, folder, board, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "LONGEST_GAP_SECONDS", 0.0)
    steps = []
    monkeypatch.setattr(
        checkpoint_module,
        "save_checkpoint",
        lambda path, state, step: (path.mkdir(parents=True, exist_ok=True), steps.append(step)),
    )
    config = tiny({"train.epochs": 3, "shrink.gamma_init": 1e-6, "shrink.gamma_max": 1.0})
    run_search(spec_of(config), PreparedRun(digits, None), folder, board)
    assert sorted(set(steps)) == [3, 6, 9]
