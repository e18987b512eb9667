"""A teacher that was stopped or killed while it trained is, resumed, the teacher that it would have been."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from dnad_ray.config.retrain import retrain_recipe
from dnad_ray.config.run import with_overrides
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.distill.teacher_sources import make_teacher, teacher_genotype
from dnad_ray.distill.teacher_training import TeacherTraining
from dnad_ray.errors import NonFiniteLossError, RunFolderError
from dnad_ray.run_folder import checkpoints as checkpoint_module
from dnad_ray.run_folder.checkpoints import load_newest
from dnad_ray.runtime.random_states import OwnStream
from dnad_ray.runtime.stopping import Stopped, StopRequest
from dnad_ray.training.learning_rate import learning_rate_at, momentum_at
from search_spaces.network import network_from
from search_spaces.shape import NetworkShape

CPU = torch.device("cpu")
DERIVED = {"distill.teacher.epochs": 3}
IN_ONE_CYCLE = {**DERIVED, "distill.teacher.optimizer": "sgd", "distill.teacher.learning_rate": 0.1}
OWN = {**DERIVED, "distill.teacher.source": "module", "distill.teacher.model": "dropping_models:small"}


def small(num_classes):
    body = [nn.Conv2d(1, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Dropout(0.3), nn.Linear(8, num_classes))


@pytest.fixture(autouse=True)
def _models(monkeypatch):
    module = ModuleType("dropping_models")
    module.small = small
    monkeypatch.setitem(sys.modules, "dropping_models", module)


def weights_of(teacher):
    return teacher.network.state_dict()


def same(ours, theirs):
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def after(num_steps):
    """Asks to stop before the step after so many."""
    answers = iter([None] * num_steps)
    return lambda: next(answers, StopRequest("enough"))


@pytest.mark.parametrize("step", [0, 1, 3, 8])
@pytest.mark.parametrize("settings", [DERIVED, IN_ONE_CYCLE, OWN], ids=["derived", "in one cycle", "own with dropout"])
def test_teacher_that_was_stopped_has_the_same_bits(settings, step, tiny, digits, tmp_path):
    config = tiny(settings)
    torch.manual_seed(1)
    whole = weights_of(make_teacher(config, digits, CPU))
    with pytest.raises(Stopped):
        make_teacher(config, digits, CPU, stop=after(step), checkpoints=tmp_path)
    assert load_newest(tmp_path.iterdir())["step"] == step
    torch.manual_seed(2)  # no global stream may matter, or be changed
    expected = torch.rand(3)
    torch.manual_seed(2)
    done = []
    made = make_teacher(config, digits, CPU, lambda *counts: done.append(counts), checkpoints=tmp_path)
    assert same(weights_of(made), whole)
    assert (done[0][0], done[-1]) == (max(step, 1), (9, 9)), "it went on from there"
    assert torch.equal(torch.rand(3), expected)


def test_teacher_that_was_killed_goes_on_from_its_newest_checkpoint(tiny, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "LONGEST_GAP_SECONDS", 0.0)

    class Killed(BaseException):
        pass

    def kill(done, total):
        if done == 5:
            raise Killed

    config = tiny(DERIVED)
    with pytest.raises(Killed):
        make_teacher(config, digits, CPU, kill, checkpoints=tmp_path)
    assert load_newest(tmp_path.iterdir())["step"] == 5
    made = make_teacher(config, digits, CPU, checkpoints=tmp_path)
    assert same(weights_of(made), weights_of(make_teacher(config, digits, CPU)))


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"distill.teacher.epochs": 4}, {"train.precision": "bfloat16"}, {"train.batch_size": 32}]
)
def test_teacher_does_not_go_on_with_another_one(change, tiny, digits, tmp_path):
    with pytest.raises(Stopped):
        make_teacher(tiny(DERIVED), digits, CPU, stop=after(2), checkpoints=tmp_path)
    with pytest.raises(RunFolderError, match="a checkpoint of the very same teacher, or a new folder"):
        make_teacher(with_overrides(tiny(DERIVED), change), digits, CPU, checkpoints=tmp_path)


def test_teacher_goes_on_where_nothing_changed_that_it_learns_from(tiny, digits, tmp_path):
    with pytest.raises(Stopped):
        make_teacher(tiny(DERIVED), digits, CPU, stop=after(2), checkpoints=tmp_path)
    others = {"distill.teacher.cache": "never", "train.learning_rate": 1e-3, "train.epochs": 9, "shrink.rate": 0.2}
    done = []
    config = with_overrides(tiny(DERIVED), others)
    make_teacher(config, digits, CPU, lambda *counts: done.append(counts[0]), checkpoints=tmp_path)
    assert done[0] == 2


def test_teacher_is_trained_in_the_precision_of_the_run(tiny, digits, monkeypatch):
    seen = []
    forward = nn.Conv2d.forward

    def noted(module, images):
        output = forward(module, images)
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            seen.append(output.dtype)
        return output

    monkeypatch.setattr(nn.Conv2d, "forward", noted)
    found = {}
    for precision, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        seen.clear()
        found[precision] = make_teacher(tiny({**OWN, "train.precision": precision}), digits, CPU)
        assert set(seen) == {kind}
    half, full = (list(weights_of(found[name]).values()) for name in ("bfloat16", "float32"))
    assert not all(map(torch.equal, half, full))
    assert all(torch.allclose(a, b, atol=0.05, rtol=0.1) for a, b in zip(half, full, strict=True))


@pytest.mark.parametrize("step", [2, 8])
def test_teacher_whose_loss_is_no_number_says_when_and_is_not_kept(step, tiny, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "LONGEST_GAP_SECONDS", 0.0)
    batch = TrainingBatches.batch

    def spoilt(batches, index):
        images, labels = batch(batches, index)
        return images * (float("nan") if index == step else 1.0), labels

    kept = {}

    def look():
        kept.update({path.name: load_newest([path]) for path in tmp_path.glob("*")})

    monkeypatch.setattr(TrainingBatches, "batch", spoilt)
    words = rf"^the teacher's loss became nan at step {step} \(epoch {step // 3 + 1}\); lower distill\.teacher"
    with pytest.raises(NonFiniteLossError, match=words):
        make_teacher(tiny(DERIVED), digits, CPU, stop=look, checkpoints=tmp_path)
    assert sorted(kept)[-1] == f"{step:08d}"
    for state in kept.values():
        assert all(bool(tensor.isfinite().all()) for tensor in state["network"].values())


def test_teacher_takes_a_step_without_a_wait_for_the_device(tiny, digits, host_reads):
    config = tiny()
    shape = NetworkShape(images=digits.shape, init_channels=4)
    training = TeacherTraining(network_from(teacher_genotype(config), shape), config, digits, CPU)
    training.batches.batch(0)
    with host_reads() as reads:
        training.train_step()
        assert reads == []
        training.sums.tolist()
    assert reads == ["tolist"], "it would have been noticed"


def test_own_stream_goes_on_and_leaves_the_global_one_alone():
    torch.manual_seed(7)
    whole = torch.rand(6)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    stream = OwnStream(7, CPU)
    with stream.used():
        first = torch.rand(2)
    again = OwnStream(0, CPU)
    again.state = stream.state
    with again.used():
        second = torch.rand(4)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(torch.rand(2), expected)


def test_teacher_by_sgd_has_the_cycle_of_the_quick_recipe(tiny, digits):
    config = tiny(IN_ONE_CYCLE)
    shape = NetworkShape(images=digits.shape, init_channels=4)
    training = TeacherTraining(network_from(teacher_genotype(config), shape), config, digits, CPU)
    same_cycle = retrain_recipe("quick").model_copy(update={"epochs": 3})
    assert (same_cycle.learning_rate, same_cycle.schedule) == (0.1, "one_cycle")
    seen = []
    for step in range(training.num_steps):
        training.train_step()
        (group,) = training.state_dict()["optimizer"]["param_groups"]
        assert group["nesterov"]
        assert group["lr"] == learning_rate_at(same_cycle, step, training.steps_per_epoch)
        assert group["momentum"] == momentum_at(same_cycle, step, training.steps_per_epoch)
        seen.append(group["lr"])
    assert (training.num_steps, max(seen) > 0.05, seen[-1] < 0.02) == (9, True, True)
