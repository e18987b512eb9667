"""The settings of the proof are configurations that the product takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
from proof_settings import ARMS, RESPONSES, SETTINGS, changes_of

from dnad_ray.config.recipes import recipe_named
from dnad_ray.config.run import with_overrides
from dnad_ray.search.checks import check_buildable


@pytest.mark.parametrize("setting", ["digits", "cifar10"])
@pytest.mark.parametrize("response", RESPONSES)
def test_a_response_is_one_setting_away_from_dnad(setting, response):
    dnad = with_overrides(recipe_named(SETTINGS[setting].recipe), SETTINGS[setting].overrides)
    other = with_overrides(dnad, changes_of(response, dnad))
    mine, theirs = dnad.model_dump(), other.model_dump()
    assert {part for part in mine if mine[part] != theirs[part]} <= {"distill", "shrink", "train"}
    changed = {
        (part, k) for part in ("distill", "shrink", "train") for k in mine[part] if mine[part][k] != theirs[part][k]
    }
    # Without logits there is nothing for a temperature to soften.
    assert len(changed - {("distill", "temperature")} or changed) == 1


def test_rates_and_warm_ups_of_responses_are_multiples_of_dnads():
    dnad = with_overrides(recipe_named(SETTINGS["cifar10"].recipe), SETTINGS["cifar10"].overrides)
    assert changes_of("rate x 0.5", dnad) == {"shrink.rate": 0.025}
    assert changes_of("warm-up x 2.0", dnad) == {"train.warmup_epochs": 8}
    assert changes_of("weight 3.0", dnad) == {"distill.weight": 3.0}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_a_search_that_can_be_built(name):
    setting = SETTINGS[name]
    for arm in ARMS:
        if arm.name in setting.arms and arm.overrides is not None:
            changes = {**setting.overrides, **arm.overrides}
            if setting.needs_folder:
                changes["data.root"] = "images"
            config = with_overrides(recipe_named(setting.recipe), changes)
            check_buildable(config)
            # The compute of a search is the sum over its snapshots: they have to be counted as wide as the supernet is.
            assert config.evaluation.init_channels == config.space.init_channels
