"""Recipes are complete, can be built, and their descriptions tell the truth."""

from __future__ import annotations

import re

import pytest

from dnad_ray.config.distill import KINDS
from dnad_ray.config.recipes import RECIPES, recipe_named, summary_of
from dnad_ray.config.retrain import retrain_recipe
from dnad_ray.config.run import RunConfig, with_overrides
from dnad_ray.data.loading import DATASET_NAMES
from dnad_ray.errors import ConfigError
from dnad_ray.trials.sampling import trial_configs
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import space_named


def _space(config):
    settings = config.space
    return space_named(settings.name, settings.operations, settings.num_cells, settings.num_nodes)


def test_recipes_by_name():
    assert list(RECIPES) == ["demo", "smoke", "images", "device", "cifar10", "kd_temperature", "kd_weight", "kd_kind"]
    assert recipe_named("demo") == RECIPES["demo"]()
    with pytest.raises(ConfigError, match=r"recipe: got 'imagenet'; allowed: demo, .*, kd_kind, or a YAML"):
        recipe_named("imagenet")


def test_teacher_of_fit_is_trained_like_the_networks_that_it_is_for():
    teacher, quick = recipe_named("device").distill.teacher, retrain_recipe("quick")
    assert (teacher.optimizer, teacher.learning_rate) == ("sgd", quick.learning_rate)
    assert recipe_named("images").distill.teacher.optimizer == "adam"  # as it was when results were measured


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_can_be_built(name):
    config = recipe_named(name)
    assert isinstance(config, RunConfig)
    assert config.data.name in DATASET_NAMES
    dense = _space(config).dense()
    assert dense.is_connected
    NetworkShape(
        images=ImageShape(in_channels=1, image_size=8, num_classes=2), init_channels=config.space.init_channels
    )
    assert len(list(trial_configs(config))) >= 1


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_floor_can_be_reached(name):
    """Every node keeps a candidate, so a floor in operations must leave room for as many, and be below the start."""
    config = recipe_named(name)
    space, floor = _space(config), config.shrink.floor
    if floor.operations is not None:
        assert space.num_cells * space.num_nodes <= floor.operations < space.num_candidates
    else:
        assert (name, floor.sparsity) == ("cifar10", 250)


@pytest.mark.parametrize("name", RECIPES)
def test_summary_tells_the_truth(name):
    config, text = recipe_named(name), summary_of(name)
    assert len(text) < 110
    assert "\n" not in text
    facts = {
        "searches": len(list(trial_configs(config))),
        "candidates": _space(config).num_candidates,
        "cells": config.space.num_cells,
        "channels": config.space.init_channels,
        "epochs": config.train.epochs,
    }
    found = re.findall(r"(\d+) (\w+)", text)
    for number, noun in found:
        if noun in facts:
            assert facts[noun] == int(number), noun
    assert {noun for _, noun in found} & set(facts) or "one search" in text
    assert ("one search" in text) <= (facts["searches"] == 1)


def test_summary_of_demo():
    assert summary_of("demo").startswith(
        "Embedded digits, 6 searches of 108 candidates over shrink rate x KD temperature"
    )


@pytest.mark.parametrize("name", ["demo", "images", "cifar10", "smoke"])
def test_recipe_without_a_teacher_needs_one_setting(name):
    config = with_overrides(recipe_named(name), {"distill.kind": "none"})
    assert config.distill.temperature is None
    assert not config.distill.uses_teacher
    if recipe_named(name).distill.uses_logits:
        assert recipe_named(name).distill.temperature == 4.0


def test_demo_and_smoke_need_no_download():
    assert [recipe_named(name).data.name for name in ("demo", "smoke")] == ["digits", "digits"]


def test_demo_varies_shrink_rate_and_temperature():
    config = recipe_named("demo")
    slow, fast = config.sweep.grid["shrink.rate"]
    cold, hot = config.sweep.grid["distill.temperature"]
    trials = [trial for _, trial in trial_configs(config)]
    assert slow < fast
    assert cold < hot
    assert [(t.seed, t.shrink.rate, t.distill.temperature) for t in trials] == [
        (0, slow, cold),
        (0, slow, hot),
        (0, fast, cold),
        (0, fast, hot),
        (1, slow, cold),
        (1, slow, hot),
    ]


@pytest.mark.parametrize(
    ("name", "key"),
    [("kd_temperature", "temperature"), ("kd_weight", "weight"), ("kd_kind", "kind")],
)
def test_kd_recipes_vary_one_thing_under_three_seeds(name, key):
    config = recipe_named(name)
    trials = [trial for _, trial in trial_configs(config)]
    values = config.sweep.grid[f"distill.{key}"]
    assert [(trial.seed, getattr(trial.distill, key)) for trial in trials] == [
        (seed, value) for seed in range(3) for value in values
    ]
    others = {trial.model_copy(update={"seed": 0, "distill": None}).model_dump_json() for trial in trials}
    assert len(others) == 1
    assert name == "kd_temperature" or sum(not trial.distill.uses_teacher for trial in trials) == 3


def test_kd_kind_tries_every_kind_alone():
    assert set(recipe_named("kd_kind").sweep.grid["distill.kind"]) == {"none", *KINDS}
