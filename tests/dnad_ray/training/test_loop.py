"""The one loop: it stops, counts, keeps and goes on in the same way whatever is trained."""

from __future__ import annotations

import math
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dnad_ray.data.batches import TrainingBatches
from dnad_ray.errors import NonFiniteLossError, RunFolderError
from dnad_ray.run_folder import checkpoints as checkpoint_module
from dnad_ray.run_folder.checkpoints import load_newest
from dnad_ray.runtime.processes import Ranks
from dnad_ray.runtime.stopping import Stopped, StopRequest
from dnad_ray.training.loop import counted, finish, train
from dnad_ray.training.task import Losses, Task

CPU = torch.device("cpu")
NAMES = ("network", "optimizer", "sums", "step")


class Linear(Task):
    """Softmax regression on digits, 3 steps an epoch."""

    def __init__(self, digits, epochs=3, digest="a", poison=None):
        torch.manual_seed(0)
        self.network = nn.Linear(64, 10)
        self.poison, self.seen = poison, []
        optimizer = torch.optim.Adam(self.network.parameters(), 1e-2)
        batches = TrainingBatches(digits, 64, 0, CPU)
        parts = {"network": self.network, "optimizer": optimizer}
        parameters = self.network.parameters()
        super().__init__(parts, batches, digest=digest, num_epochs=epochs, clipped=parameters, grad_clip=5.0)

    def losses(self, images, labels):
        self.seen.append(self.step)
        logits = self.network(images.flatten(1))
        loss = F.cross_entropy(logits, labels)
        if self.step == self.poison:
            loss = loss * math.nan
        return Losses(loss, loss.detach(), logits.detach())


def bits(task):
    state = task.state_dict()
    return {name: state[name] for name in NAMES}, [{**e, "device_seconds": 0} for e in task.history]


def same(ours, theirs):
    (one, history), (other, expected) = bits(ours), bits(theirs)
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert history == expected


def stop_at(task, step):
    return lambda: StopRequest("enough") if task.step == step else None


def test_task_equals_a_loop_that_was_written_out(digits):
    task = Linear(digits)
    events = list(train(task))
    torch.manual_seed(0)
    network = nn.Linear(64, 10)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    batches, losses = TrainingBatches(digits, 64, 0, CPU), []
    for step in range(9):
        images, labels = batches.batch(step)
        loss = F.cross_entropy(network(images.flatten(1)), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
    assert all(map(torch.equal, network.parameters(), task.network.parameters()))
    assert [event["epoch"] for event in events] == [1, 2, 3]
    assert [event["train_loss"] for event in events] == pytest.approx([sum(losses[i : i + 3]) / 3 for i in (0, 3, 6)])
    assert events == task.history


@pytest.mark.parametrize("step", [0, 1, 4, 6])
def test_task_stopped_and_finished_later_has_the_same_bits(step, digits, tmp_path):
    whole, first, second = (Linear(digits) for _ in range(3))
    finish(whole)
    with pytest.raises(Stopped, match="enough"):
        finish(first, tmp_path, stop=stop_at(first, step))
    assert [path.name for path in tmp_path.iterdir()] == [f"{step:08d}"]
    told = []
    finish(second, tmp_path, progress=lambda done, total: told.append((done, total)), on_epoch=told.append)
    same(second, whole)
    assert second.seen == list(range(step, 9))
    assert [entry["epoch"] for entry in told if isinstance(entry, dict)] == [1, 2, 3]  # also those before
    assert told[-1] == (9, 9)


def test_task_is_kept_by_time_within_an_epoch(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "LONGEST_GAP_SECONDS", 0.0)

    class Killed(BaseException):
        pass

    def killed():
        if first.step == 5:
            raise Killed

    whole, first, second = (Linear(digits) for _ in range(3))
    finish(whole)
    with pytest.raises(Killed):
        finish(first, tmp_path, stop=killed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004", "00000005"]
    finish(second, tmp_path)
    same(second, whole)


def test_task_of_another_digest_is_refused(digits, tmp_path):
    first = Linear(digits)
    with pytest.raises(Stopped):
        finish(first, tmp_path, stop=stop_at(first, 1))
    with pytest.raises(RunFolderError, match="it is of digest a, not b'; allowed: a checkpoint of this very training"):
        finish(Linear(digits, digest="b"), tmp_path)


@pytest.mark.parametrize("step", [0, 4, 8])
def test_task_names_the_step_whose_loss_is_no_number_and_keeps_nothing_of_it(step, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "LONGEST_GAP_SECONDS", 0.0)
    task = Linear(digits, poison=step)
    seen = []

    def look():
        seen.extend(load_newest([path]) for path in tmp_path.iterdir())

    with pytest.raises(NonFiniteLossError, match=rf"the loss became nan at step {step} \(epoch {step // 3 + 1}\)"):
        finish(task, tmp_path, stop=look)
    assert all(bool(tensor.isfinite().all()) for state in seen for tensor in state["network"].values())
    assert max((state["step"] for state in seen), default=0) == step
    assert not tmp_path.exists(), "whoever went on from there would get here again"


def test_task_stopped_after_a_loss_that_is_no_number_goes_on_from_before(digits, tmp_path):
    task = Linear(digits, poison=4)
    with pytest.raises(Stopped):
        finish(task, tmp_path, stop=stop_at(task, 2))
    task = Linear(digits, poison=4)
    with pytest.raises(Stopped):
        finish(task, tmp_path, stop=stop_at(task, 5))
    assert [path.name for path in tmp_path.iterdir()] == ["00000002"]


class Work:
    def __init__(self, size):
        self.ranks, self.device_seconds = Ranks(0, size), 1.0


@pytest.mark.parametrize("size", [1, 3])
def test_compute_is_seconds_times_processes(size, monkeypatch):
    clock = iter([10.0, 12.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    work = Work(size)
    with counted(work):
        pass
    assert work.device_seconds == 1.0 + 2.5 * size
