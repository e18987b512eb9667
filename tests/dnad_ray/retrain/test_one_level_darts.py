"""The DARTS baseline loses nothing: stopped or killed and resumed, it derives what it would have derived."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dnad_ray.config.run import with_overrides
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.errors import NonFiniteLossError, RunFolderError
from dnad_ray.retrain.one_level_darts import _DartsSearch, darts_genotype
from dnad_ray.run_folder import checkpoints as checkpoint_module
from dnad_ray.run_folder.checkpoints import load_newest
from dnad_ray.runtime.stopping import Stopped, StopRequest
from dnad_ray.training.loop import finish

EPOCHS = {"train.epochs": 3, "evaluation.recalibration_images": 64}


def after(num_steps):
    """Asks to stop before the step after so many."""
    answers = iter([None] * num_steps)
    return lambda: next(answers, StopRequest("enough"))


def bits(search):
    state = search.state_dict()
    return [state[name] for name in ("supernet", "alpha", "optimizer", "arch_optimizer", "sums", "step")]


@pytest.mark.parametrize("step", [0, 2, 3, 7])
def test_darts_that_was_stopped_has_the_same_bits(step, tiny, digits, tmp_path):
    config = tiny(EPOCHS)
    whole, first, second = (_DartsSearch(config, digits, 0, is_scored=False) for _ in range(3))
    finish(whole)
    with pytest.raises(Stopped):
        finish(first, tmp_path, stop=after(step))
    torch.manual_seed(99)
    finish(second, tmp_path)
    torch.testing.assert_close(bits(second), bits(whole), rtol=0, atol=0)
    assert not torch.equal(whole.weights(), _DartsSearch(config, digits, 0, is_scored=False).weights())


def test_darts_that_was_killed_derives_the_same_network_and_tells_of_all_epochs(tiny, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "LONGEST_GAP_SECONDS", 0.0)

    class Killed(BaseException):
        pass

    def kill(done, total):
        if done == 5:
            raise Killed

    config = tiny(EPOCHS)
    expected, found, early = [], [], []
    whole = darts_genotype(config, digits, 0, on_epoch=expected.append)
    with pytest.raises(Killed):
        darts_genotype(config, digits, 0, kill, early.append, checkpoints=tmp_path)
    assert load_newest(tmp_path.iterdir())["step"] == 5
    done = []
    resumed = darts_genotype(config, digits, 0, lambda *counts: done.append(counts), found.append, checkpoints=tmp_path)
    assert resumed == whole
    assert found == expected
    assert early == expected[:1]
    assert (done[0], done[-1]) == ((5, 9), (9, 9))


def test_darts_does_not_go_on_with_another_search(tiny, digits, tmp_path):
    config = tiny(EPOCHS)
    with pytest.raises(Stopped):
        darts_genotype(config, digits, 0, stop=after(1), checkpoints=tmp_path)
    for other, seed in ((config, 1), (with_overrides(config, {"train.learning_rate": 1e-2}), 0)):
        with pytest.raises(RunFolderError, match="a checkpoint of the very same search by DARTS"):
            darts_genotype(other, digits, seed, checkpoints=tmp_path)


@pytest.mark.parametrize("step", [4, 8])
def test_darts_whose_loss_is_no_number_says_when_and_is_not_kept(step, tiny, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "LONGEST_GAP_SECONDS", 0.0)
    batch = TrainingBatches.batch

    def spoilt(batches, index):
        images, labels = batch(batches, index)
        return images * (float("nan") if index == step else 1.0), labels

    kept = {}

    def look():
        kept.update({path.name: load_newest([path]) for path in tmp_path.glob("*")})

    monkeypatch.setattr(TrainingBatches, "batch", spoilt)
    words = rf"^the loss of the DARTS baseline became nan at step {step} \(epoch {step // 3 + 1}\); lower train"
    with pytest.raises(NonFiniteLossError, match=words):
        darts_genotype(tiny(EPOCHS), digits, 0, stop=look, checkpoints=tmp_path)
    assert sorted(kept)[-1] == f"{step:08d}"
    for state in kept.values():
        assert all(bool(tensor.isfinite().all()) for tensor in (*state["supernet"].values(), state["alpha"]["0"]))


def test_darts_searches_in_the_precision_of_the_run(tiny, digits):
    found = []
    for precision in ("float32", "bfloat16"):
        search = _DartsSearch(tiny({**EPOCHS, "train.precision": precision}), digits, 0, is_scored=False)
        kinds = set()
        for module in search.supernet.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(lambda *arguments, kinds=kinds: kinds.add(arguments[2].dtype))
        finish(search)
        assert kinds == {getattr(torch, precision)}
        found.append(search.history[-1]["train_loss"])
    assert found[0] != found[1]
    assert found[0] == pytest.approx(found[1], rel=0.1)


def test_darts_takes_a_step_without_a_wait_for_the_device(tiny, digits, host_reads):
    search = _DartsSearch(tiny(EPOCHS), digits, 0, is_scored=False)
    search.batches.batch(0)
    with host_reads() as reads:
        search.train_step()
    assert reads == []
