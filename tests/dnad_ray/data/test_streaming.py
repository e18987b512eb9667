"""Images from disk: bit for bit those from memory, whoever decodes them, and workers that never outlive their use."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from dnad_ray.config.run import DataConfig
from dnad_ray.data import streaming
from dnad_ray.data.batches import TrainingBatches, evaluation_batches
from dnad_ray.data.images import channel_statistics
from dnad_ray.data.loading import load_data
from dnad_ray.data.streaming import FileSplit, automatic_workers
from dnad_ray.errors import DataError, ResourceError
from dnad_ray.run_folder.checkpoints import load_newest, save_checkpoint
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.run_folder.writing import create_run
from dnad_ray.search.estimate import seconds_per_step
from dnad_ray.search.loop import SearchState, search
from dnad_ray.search.trial import run_trial
from dnad_ray.trials.spec import TrialSpec

_CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of 24 images of other sizes than the one wanted, as JPEG and PNG."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for index in range(24):
            pixels = random.integers(0, 256, (14 + index % 3, 18, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index:02d}.{('jpg', 'png')[index % 2]}")
    return root


def _data(root, storage="disk", **settings):
    return load_data(
        DataConfig(name="imagefolder", root=str(root), image_size=12, cutout=3, storage=storage, **settings)
    )


@pytest.fixture(scope="module")
def in_memory(photos):
    return _data(photos, "memory")


def _workers():
    """The processes that decode: children of the server, which is a child of ours and stays."""
    servers = [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]
    return [child for server in servers for child in server.children()]


def _serve(batches, steps):
    return [batches.batch(step) for step in steps]


def _equal(one, other):
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_files_are_sent_without_pixels(photos, in_memory):
    data = _data(photos)
    assert (data.image_size, data.in_channels, data.num_classes) == (12, 3, 2)
    assert (len(data.train), len(data.validation)) == (len(in_memory.train), len(in_memory.validation)) == (38, 10)
    assert data.train.held() is None
    assert len(ForkingPickler.dumps(data)) < 38 * 200 < in_memory.train.images.nbytes
    assert data.augmentation == in_memory.augmentation


def test_select_keeps_files_and_labels_together(photos):
    split = _data(photos, workers=3).train
    some = split.select(np.array([30, 2]))
    assert some.paths == (split.paths[30], split.paths[2])
    assert some.labels.tolist() == [1, 0]
    assert (some.image_size, some.channels, some.workers, len(some)) == (12, 3, 3, 2)
    with pytest.raises(AssertionError):
        FileSplit(paths=("a.png",), labels=np.array([0, 1]), image_size=4, channels=1)


def test_statistics_are_those_of_memory_bit_for_bit(photos, in_memory):
    data, calls = _data(photos), []
    assert (data.mean, data.std) == (in_memory.mean, in_memory.std) == channel_statistics(in_memory.train.images)
    assert data.train.statistics("looking", lambda *call: calls.append(call)) == (in_memory.mean, in_memory.std)
    assert calls[0] == ("looking", 0, 38)
    assert calls[-1] == ("looking", 38, 38)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_training_batches_are_those_of_memory(photos, in_memory, workers):
    streamed = TrainingBatches(_data(photos, workers=workers), 8, 5, _CPU, torch.channels_last)
    held = TrainingBatches(in_memory, 8, 5, _CPU, torch.channels_last)
    assert (streamed.num_images, streamed.steps_per_epoch) == (38, 4)  # the last 6 are dropped
    for step in range(10):  # over two ends of an epoch
        images, labels = streamed.batch(step)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert _equal((images, labels), held.batch(step))
        images.zero_()  # what a caller does to a batch must not reach another one
    assert len(_workers()) == workers
    # On in the middle of an epoch, as after a resume; back; and the same one again.
    for step in (17, 18, 2, 2):
        assert _equal(streamed.batch(step), held.batch(step))
    assert len(_workers()) == workers
    streamed.close()
    assert _workers() == []
    assert _equal(streamed.batch(19), held.batch(19))


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_on_a_gpu_are_those_of_memory(photos, in_memory, workers):
    device = torch.device("cuda")
    streamed = TrainingBatches(_data(photos, workers=workers), 8, 5, device, torch.channels_last)
    held = TrainingBatches(in_memory, 8, 5, device, torch.channels_last)
    for step in range(10):
        images, labels = streamed.batch(step)
        assert images.is_cuda
        assert _equal((images, labels), held.batch(step))


def test_steps_in_a_row_start_the_workers_once(photos, monkeypatch):
    started = []
    inner = FileSplit.stream

    def stream(self, parts, device):
        started.append(1)
        return inner(self, parts, device)

    monkeypatch.setattr(FileSplit, "stream", stream)
    batches = TrainingBatches(_data(photos, workers=0), 8, 0, _CPU)
    for step in (3, 4, 5, 6, 9, 10, 9):
        batches.batch(step)
    assert len(started) == 3


def test_fewer_images_than_a_batch_are_one_batch(photos, in_memory):
    streamed, held = (TrainingBatches(data, 100, 1, _CPU) for data in (_data(photos, workers=0), in_memory))
    assert streamed.steps_per_epoch == 1
    for step in range(3):
        assert _equal(streamed.batch(step), held.batch(step))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_batches_are_those_of_memory(photos, in_memory, workers):
    data = _data(photos, workers=workers)
    streamed = evaluation_batches(data.validation, data, 4, _CPU, torch.channels_last)
    held = evaluation_batches(in_memory.validation, in_memory, 4, _CPU, torch.channels_last)
    pairs = list(zip(streamed, held, strict=True))
    assert [len(labels) for (_, labels), _ in pairs] == [4, 4, 2]
    assert all(_equal(*pair) for pair in pairs)
    assert _workers() == []


def test_workers_end_with_the_batches_or_the_pass_that_is_dropped(photos):
    data = _data(photos, workers=2)
    gc.disable()  # going away must not wait for it
    try:
        batches = TrainingBatches(data, 8, 0, _CPU)
        batches.batch(0)
        served = evaluation_batches(data.validation, data, 2, _CPU)
        next(served)
        assert len(_workers()) == 4
        del batches
        assert len(_workers()) == 2
        del served
        assert _workers() == []
    finally:
        gc.enable()


def test_workers_take_nothing_out_of_the_random_streams(photos):
    np.random.seed(3), torch.manual_seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for workers in (0, 1):
        TrainingBatches(_data(photos, workers=workers), 8, 0, _CPU).batch(0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (2, 1), (4, 3), (9, 8), (64, 8)])
def test_automatic_workers_leave_one_cpu(monkeypatch, photos, threads, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert automatic_workers() == expected
    asked = []
    monkeypatch.setattr(streaming, "_decoded_ahead", lambda decoder, wanted, workers, pin: asked.append(workers) or ())
    assert list(_data(photos).train.stream([np.array([0])], _CPU)) == []
    assert list(_data(photos, workers=0).train.stream([np.array([0])], _CPU)) == []
    assert asked == [expected, 0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"no image"), lambda path: path.unlink()])
def test_file_that_breaks_later_is_named_in_one_line(photos, in_memory, tmp_path, workers, spoil):
    copy = tmp_path / "photos"
    for path in photos.rglob("*.*"):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        (copy / path.parent.name / path.name).write_bytes(path.read_bytes())
    data = _data(copy, workers=workers)
    batches, held = (TrainingBatches(some, 8, 5, _CPU) for some in (data, in_memory))
    batches.batch(0)
    batches.close()
    bad = Path(data.train.paths[20])
    content = bad.read_bytes()
    spoil(bad)
    with pytest.raises(DataError) as caught:
        _serve(batches, range(1, 9))
    assert (caught.value.argument, caught.value.given) == ("image", str(bad))
    assert str(caught.value).count("\n") == 0
    assert "Traceback" not in str(caught.value)
    assert _workers() == []  # though the error is still at hand
    bad.write_bytes(content)
    assert all(_equal(*pair) for pair in zip(_serve(batches, range(1, 9)), _serve(held, range(1, 9)), strict=True))
    batches.close()


def test_worker_that_is_killed_is_no_hang_and_no_traceback(photos, monkeypatch):
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))  # torch asks every 5 s
    batches = TrainingBatches(_data(photos, workers=2), 8, 0, _CPU)
    batches.batch(0)
    time.sleep(0.5)  # killed while it hands a batch over, it would hold a lock that the other one waits for, for 5 s
    _workers()[0].kill()
    with pytest.raises(ResourceError, match=r"^data.workers: got 2; allowed: .*, or 0 for none \(.+\)$"):
        _serve(batches, range(1, 9))
    assert _workers() == []


SCRIPT = """
import os, sys, torch
sys.stdout.write("began\\n")
import psutil
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.config.run import DataConfig
from dnad_ray.data.loading import load_data

torch.set_num_threads(1)
data = load_data(DataConfig(name="imagefolder", root=sys.argv[1], storage="disk", workers=1))
batches = TrainingBatches(data, 4, 0, torch.device("cpu"))
batches.batch(0)
found = psutil.Process().children(recursive=True)
print(*(process.pid for process in found), flush=True)
os.kill(os.getpid(), int(sys.argv[2]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, 0])
def test_nothing_outlives_a_script_that_is_killed_or_ends(photos, tmp_path, repository, number):
    """It has no ``if __name__ == "__main__"``: a worker that ran it again would begin a search of its own."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    result = subprocess.run(
        [sys.executable, "-W", "error", script, photos, str(int(number))],
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (-number, "")
    began, pids = result.stdout.splitlines()
    assert began == "began"
    left, deadline = {int(pid) for pid in pids.split()}, time.monotonic() + 10
    assert len(left) >= 2
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = {pid for pid in left if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"}
    assert left == set()


def _tiny_folder(tiny, pictures, **settings):
    folder = {
        "data.name": "imagefolder",
        "data.root": str(pictures),
        "train.batch_size": 24,
        "evaluation.batch_size": 8,
    }
    return tiny(folder | {"data.cutout": 2} | {f"data.{name}": value for name, value in settings.items()})


def _state(config, saved=None):
    data = load_data(config.data)
    if saved is None:
        return SearchState.start(config, data, run="r", trial="t")
    return SearchState.resume(saved, config, data, run="r", trial="t")


def _bits(state):
    return [*state.supernet.state_dict().values(), *state.relaxation.state_dict().values()]


def test_search_from_disk_is_that_from_memory_bit_for_bit_also_resumed(tiny, pictures, tmp_path, timeless):
    held = _state(_tiny_folder(tiny, pictures, storage="memory"))
    expected = list(search(held))
    config = _tiny_folder(tiny, pictures, storage="disk", workers=2)
    first, events = _state(config), []
    for event in search(first):
        events.append(event)
        if len(events) == 3:
            break
    save_checkpoint(tmp_path / "checkpoint", first.state_dict(), first.step)
    assert 0 < first.step < held.step
    del first, event
    gc.collect()
    streamed = _state(config, load_newest([tmp_path / "checkpoint"]))
    events += search(streamed)
    assert _workers() == []  # the state is still there
    assert timeless(events) == timeless(expected)
    assert len(timeless(events)) >= 3
    assert _equal(_bits(streamed), _bits(held))


def test_seconds_per_step_leaves_no_workers(tiny, pictures):
    state = _state(_tiny_folder(tiny, pictures, storage="disk", workers=1))
    assert seconds_per_step(state, 2) > 0
    assert _workers() == []


def test_trial_whose_file_breaks_keeps_what_it_found(tiny, save_digits, tmp_path):
    save_digits(tmp_path / "digits", 10)
    config = _tiny_folder(tiny, tmp_path / "digits", storage="disk", workers=0)
    folder = create_run(tmp_path / "run", {}, "0.1")
    data = load_data(config.data)

    def run():
        for event, _ in run_trial(TrialSpec("t00", {}, config), data, None, folder, None):
            if isinstance(event, Snapshot):
                shutil.rmtree(tmp_path / "digits")

    with pytest.raises(DataError, match=r"image: got '.*png'; allowed: an intact image \(.*No such file"):
        run()
    assert len(read_run(folder).snapshots) == 1
