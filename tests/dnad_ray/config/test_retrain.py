"""Recipes of retraining: the papers' figures, and what is refused."""

from __future__ import annotations

import pytest

from dnad_ray.config.retrain import RETRAIN_RECIPES, retrain_recipe, with_settings
from dnad_ray.errors import ConfigError


def test_recipe_cifar_is_the_protocol_of_the_paper():
    config = retrain_recipe("cifar")
    assert (config.epochs, config.batch_size, config.learning_rate, config.momentum) == (600, 96, 0.025, 0.9)
    assert (config.weight_decay, config.schedule, config.grad_clip, config.cutout) == (3e-4, "cosine", 5.0, 16)
    assert (config.auxiliary_weight, config.drop_path, config.init_channels) == (0.4, 0.3, 36)
    assert config.drop_path_per_operation * 112 == pytest.approx(0.15)


def test_recipe_imagenet_mobile_is_the_protocol_of_the_paper():
    config = retrain_recipe("imagenet-mobile")
    assert (config.epochs, config.batch_size, config.learning_rate, config.weight_decay) == (250, 512, 0.25, 3e-5)
    assert (config.schedule, config.warmup_epochs, config.label_smoothing) == ("linear", 5, 0.1)
    assert (config.auxiliary_weight, config.augment, config.init_channels) == (0.4, "imagenet", 48)


def test_recipe_unknown_is_refused():
    with pytest.raises(ConfigError, match=r"--recipe: got 'mnist'; allowed: cifar, imagenet-mobile, quick"):
        retrain_recipe("mnist")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": 1}, "lr"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"schedule": "cosine", "warmup_epochs": 30}, r"less than epochs \(30\)"),
        ({"warmup_epochs": 3}, r"warmup_epochs: got 3, which has no effect with schedule 'one_cycle'; allowed: 0, or"),
        ({"momentum": 0.0}, "nesterov: got True; allowed: false without a momentum"),
        ({"num_processes": 3}, "divides batch_size"),
        ({"ema_decay": 1.0}, "less than 1"),
        ({"precision": "int8"}, "float32"),
    ],
)
def test_settings_impossible_are_refused(settings, words):
    config = retrain_recipe("quick")
    with pytest.raises(ConfigError, match=words):
        with_settings(config, settings)


def test_settings_impossible_are_named_with_the_value_as_given():
    with pytest.raises(
        ConfigError, match=r"^--set: warmup_epochs: got 30; allowed: less than epochs \(30\)$"
    ) as caught:
        with_settings(retrain_recipe("quick"), {"schedule": "cosine", "warmup_epochs": 30})
    assert (caught.value.argument, caught.value.given) == ("--set: warmup_epochs", 30)
    with pytest.raises(ConfigError, match=r"^--set: epochs: got 0; allowed: greater than"):
        with_settings(retrain_recipe("quick"), {"epochs": 0})


def test_settings_replaced_leave_the_others():
    config = with_settings(retrain_recipe("quick"), {"epochs": 2, "init_channels": 8})
    assert (config.epochs, config.init_channels, config.learning_rate) == (2, 8, 0.1)
    assert set(RETRAIN_RECIPES) == {"cifar", "imagenet-mobile", "quick"}
