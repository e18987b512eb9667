"""The loop of retraining: schedules, averages, the auxiliary head, and a resume that nobody can tell."""

from __future__ import annotations

import math

import pytest
import torch

from dnad_ray.config.retrain import retrain_recipe, with_settings
from dnad_ray.errors import ConfigError, NonFiniteLossError, RunFolderError
from dnad_ray.networks.spec import NetworkSpec
from dnad_ray.retrain.data import load_retrain_images
from dnad_ray.retrain.state import RetrainState
from dnad_ray.runtime.stopping import StopRequest
from dnad_ray.training.learning_rate import learning_rate_at, momentum_at
from dnad_ray.training.loop import train
from search_spaces.genotype import Genotype
from search_spaces.space import space_named

SPACE = space_named("dnad", ("sep_conv_3x3", "max_pool_3x3", "skip_connect"), 3, 2)


def settings(**given):
    small = {"epochs": 3, "batch_size": 64, "warmup_epochs": 0, "device": "cpu"}
    return with_settings(retrain_recipe("quick"), small | given)


@pytest.fixture
def spec() -> NetworkSpec:
    return NetworkSpec(origin="genotype", genotype=SPACE.uniform(("sep_conv_3x3", "skip_connect")), init_channels=4)


def started(spec, digits, config, seed=0):
    return RetrainState(spec, config, digits, seed)


def finish(state, stop=None):
    return list(train(state, stop))


def test_learning_rate_cosine_falls_from_peak_to_zero():
    config = settings(epochs=4, learning_rate=0.8, schedule="cosine")
    rates = [learning_rate_at(config, step, 10) for step in range(40)]
    assert rates[0] == 0.8
    assert rates[20] == pytest.approx(0.4)  # cosine of a quarter turn is 0
    assert rates[39] == pytest.approx(0.4 * (1 + math.cos(math.pi * 39 / 40)))
    assert rates == sorted(rates, reverse=True)


def test_one_cycle_rises_to_its_peak_and_falls_to_zero_as_momentum_does_the_reverse():
    config = settings(epochs=10, learning_rate=0.5)  # the recipe's own schedule
    rates = [learning_rate_at(config, step, 10) for step in range(100)]
    momenta = [momentum_at(config, step, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.5 / 25)
    assert (rates[30], momenta[30]) == pytest.approx((0.5, 0.85))
    assert (rates[15], momenta[15]) == pytest.approx((0.26, 0.9))  # half of the way up
    assert (rates[65], momenta[65]) == pytest.approx((0.25, 0.9))  # and down
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert (rates[99] < 1e-3, momenta[0]) == (True, 0.95)


def test_every_step_has_the_momentum_of_the_schedule(spec, digits):
    state = started(spec, digits, settings(epochs=2))
    seen = []
    while not state.is_finished:
        state.train_step()
        state.look()
        seen.append((state.optimizer.param_groups[0]["lr"], state.optimizer.param_groups[0]["momentum"]))
    expected = [(learning_rate_at(state.config, s, state.steps_per_epoch),) for s in range(state.num_steps)]
    assert [pair[:1] for pair in seen] == expected
    assert [pair[1] for pair in seen] == [
        momentum_at(state.config, step, state.steps_per_epoch) for step in range(state.num_steps)
    ]
    assert state.optimizer.param_groups[0]["nesterov"]


def test_learning_rate_linear_warms_up_and_ends_one_step_above_zero():
    config = settings(epochs=5, learning_rate=1.0, warmup_epochs=1, schedule="linear")
    rates = [learning_rate_at(config, step, 2) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_training_learns_and_counts_every_epoch(spec, digits):
    state = started(spec, digits, settings(epochs=16))
    history = finish(state)
    assert [entry["epoch"] for entry in history] == list(range(1, 17))
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert state.measure() > 0.3  # chance is 0.1


# Everything that has a memory: momentum, averages, drop-path, cutout, auxiliary head and its statistics.
FULL = {"ema_decay": 0.9, "drop_path": 0.3, "cutout": 8, "auxiliary_weight": 0.4, "augment": "imagenet"}


@pytest.mark.parametrize("stop_at", [1, 3, 7])
def test_training_resumed_from_any_step_has_the_same_bits(spec, digits, stop_at):
    config = settings(**FULL)
    whole = started(spec, digits, config)
    finish(whole)

    first = started(spec, digits, config)
    events = finish(first, lambda: StopRequest("enough") if first.step == stop_at else None)
    assert isinstance(events[-1], StopRequest)
    saved = first.state_dict()
    torch.manual_seed(99)  # no global stream may matter
    second = started(spec, digits, config)
    second.load_state_dict(saved)
    finish(second)

    assert [{k: v for k, v in e.items() if k != "device_seconds"} for e in second.history] == [
        {k: v for k, v in e.items() if k != "device_seconds"} for e in whole.history
    ]
    ours, theirs = second.trained().state_dict(), whole.trained().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_training_of_another_seed_differs(spec, digits):
    results = []
    for seed in (0, 1):
        state = started(spec, digits, settings(epochs=1), seed)
        finish(state)
        results.append(state.history[-1]["train_loss"])
    assert results[0] != results[1]


def test_training_leaves_the_global_stream_alone(spec, digits):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    finish(started(spec, digits, settings(epochs=1, **FULL)))
    assert torch.equal(torch.rand(3), expected)


def test_checkpoint_of_another_network_is_refused(spec, digits):
    other = NetworkSpec(origin="genotype", genotype=SPACE.uniform(("max_pool_3x3",)), init_channels=4)
    saved = started(other, digits, settings()).state_dict()
    with pytest.raises(RunFolderError, match=f"it is of network {other.digest}, not {spec.digest}"):
        started(spec, digits, settings()).load_state_dict(saved)


def test_checkpoint_of_another_width_is_refused(spec, digits):
    wider = NetworkSpec(origin="genotype", genotype=spec.genotype, init_channels=8)
    saved = started(wider, digits, settings()).state_dict()
    with pytest.raises(RunFolderError, match="this very network and protocol"):
        started(spec, digits, settings()).load_state_dict(saved)


def test_moving_average_follows_by_hand(spec, digits):
    state = started(spec, digits, settings(ema_decay=0.9))
    name = "classifier.linear.bias"
    names = [n for n, t in state.trainee.network.state_dict().items() if t.is_floating_point()]
    before = state.trainee.network.state_dict()[name].clone()
    state.train_step()
    after = state.trainee.network.state_dict()[name]
    # The decay of the first step is (1 + 0) / (10 + 0), below 0.9.
    torch.testing.assert_close(state.averages[names.index(name)], 0.1 * before + 0.9 * after)


def test_auxiliary_head_sees_the_second_reduction_and_trains(spec, digits):
    state = started(spec, digits, settings(auxiliary_weight=0.4))
    head = state.trainee.auxiliary
    assert head.features[2].in_channels == 2 * 4 * 4  # two nodes, width 4 doubled twice
    before = head.linear.weight.detach().clone()
    state.train_step()
    assert not torch.equal(head.linear.weight, before)
    assert state.trainee.eval()(torch.zeros(2, 1, 8, 8)).auxiliary is None
    assert not any("auxiliary" in key for key in state.trained().state_dict())


def test_drop_path_rises_to_its_peak(spec, digits):
    state = started(spec, digits, settings(drop_path=0.3, epochs=3))
    found = []
    while not state.is_finished:
        state.train_step()
        found.append(state.trainee.drop_path.probability)
    assert found == pytest.approx([0, 0, 0, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2])


def test_teacher_is_needed_where_it_is_imitated_and_changes_what_is_learnt(spec, digits, small_teacher):
    config = settings(epochs=1, kd_weight=1.0)
    with pytest.raises(ConfigError, match="there is no teacher"):
        started(spec, digits, config)
    alone, taught = (
        started(spec, digits, settings(epochs=1)),
        RetrainState(spec, config, digits, 0, teacher=small_teacher),
    )
    finish(alone)
    finish(taught)
    assert alone.history[0]["train_loss"] != taught.history[0]["train_loss"]


def test_half_precision_stays_near_full(spec, digits):
    losses = []
    for precision in ("float32", "bfloat16"):
        state = started(spec, digits, settings(epochs=1, precision=precision))
        finish(state)
        losses.append(state.history[0]["train_loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_loss_that_diverges_ends_in_words(spec, digits):
    state = started(spec, digits, settings(learning_rate=1e30, grad_clip=1e30))
    with pytest.raises(
        NonFiniteLossError, match=r"the loss became (nan|inf) at step 1 \(epoch 1\); lower learning_rate"
    ):
        finish(state)


def test_gradient_that_is_no_number_in_the_very_last_step_ends_in_words(spec, digits):
    """The loss of that step is a number; the weights that it leaves are none, and must not be measured."""
    state = started(spec, digits, settings(epochs=1))
    parameter = next(state.trainee.parameters())
    parameter.register_hook(lambda gradient: gradient * math.nan if state.step == 2 else gradient)
    with pytest.raises(NonFiniteLossError, match=r"the gradient of the loss became nan at step 2 \(epoch 1\)"):
        finish(state)


def test_step_does_not_wait_for_the_device(spec, digits, host_reads):
    state = started(spec, digits, settings(**{**FULL, "augment": "auto"}))
    state.batches.batch(0)
    with host_reads() as reads:
        state.train_step()
    assert reads == []


def test_checkpoint_has_the_names_that_run_folders_hold(spec, digits):
    state = started(spec, digits, settings(ema_decay=0.9))
    names = ("digest", "trainee", "optimizer", "averages", "sums", "step", "device_seconds", "history")
    assert sorted(state.state_dict()) == sorted(names)


def test_images_of_retraining_are_all_but_the_test_ones(tiny):
    images = load_retrain_images(tiny().data)
    assert images.split == "test"
    assert len(images.data.train) + len(images.data.validation) == 1797  # all digits there are
    trained_on = {image.tobytes() for image in images.data.train.images}
    assert sum(image.tobytes() in trained_on for image in images.data.validation.images) == 0


@pytest.mark.parametrize("family", ["mobilenet_v3_small"])
def test_network_of_torchvision_resumes_with_its_dropout(digits, family):
    spec = NetworkSpec(origin="torchvision", model=family, width=0.25)
    config = settings(epochs=1)
    whole = started(spec, digits, config)
    finish(whole)
    first = started(spec, digits, config)
    finish(first, lambda: StopRequest("enough") if first.step == 1 else None)
    second = started(spec, digits, config)
    second.load_state_dict(first.state_dict())
    finish(second)
    assert second.history[0]["train_loss"] == whole.history[0]["train_loss"]


def test_genotype_round_trip_of_a_subject(spec):
    again = NetworkSpec.from_dict(spec.to_dict())
    assert again.genotype == Genotype.from_dict(spec.genotype.pruned().to_dict())
    assert (again.digest, again.init_channels) == (spec.digest, 4)
