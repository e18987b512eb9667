"""What a configuration may ask of the imitation and of the teacher, and what is refused in which words."""

from __future__ import annotations

import pytest

from dnad_ray.config.distill import DistillConfig, TeacherConfig
from dnad_ray.config.run import config_from_dict
from dnad_ray.errors import ConfigError


def test_kinds_are_a_sum_in_one_order():
    config = config_from_dict({"distill": {"kind": "features+decoupled+attention"}}).distill
    assert config.kind == "decoupled+features+attention"
    assert (config.kinds, config.temperature) == (("decoupled", "features", "attention"), 4.0)
    assert DistillConfig(kind="features", weight=0).kinds == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight_end": 0.5}, r"distill\.weight_end: got 0\.5, which has no effect with weight_schedule 'constant'"),
        ({"kind": "logits", "temperature_end": 2}, r"distill\.temperature_end: got 2, which has no effect"),
        ({"temperature_schedule": "linear"}, r"distill\.temperature_schedule: got 'linear', .* kind 'features'"),
        ({"shares": {"features": 0}}, r"distill\.shares: got 0 for features; allowed: at least one above 0"),
        ({"shares": {"hints": 1}}, r"unknown key: got 'distill\.shares\.hints'; allowed: one of logits, decoupled"),
        ({"weight_schedule": "steps"}, r"distill\.weight_schedule: got 'steps'; allowed: "),
        ({"factor_rate": 0}, r"distill\.factor_rate"),
    ],
)
def test_imitation_that_makes_no_sense(settings, words):
    with pytest.raises(ConfigError, match=words):
        config_from_dict({"distill": settings})


TORCHVISION = {"source": "torchvision", "model": "resnet18"}


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"source": "torchvision"}, r"teacher\.model: got None; allowed: a name such as resnet18"),
        ({"source": "module", "model": "mine"}, r"teacher\.model: got 'mine'; allowed: module:factory"),
        ({"source": "saved"}, r"teacher\.weights: got None; allowed: a folder"),
        ({"model": "resnet18"}, r"teacher\.model: got 'resnet18', which has no effect with source 'derived'"),
        ({"weights": "x"}, r"teacher\.weights: got 'x', which has no effect with source 'derived'"),
        ({**TORCHVISION, "genotype": "x"}, r"teacher\.genotype: got 'x', which has no effect"),
        ({**TORCHVISION, "taps": ["a"]}, r"teacher\.taps: got 1 names; allowed: 3, one per stage"),
        ({**TORCHVISION, "mean": [0.5]}, r"teacher\.std: got None; allowed: as many values as mean"),
        ({**TORCHVISION, "mean": [0.5], "std": [0.0]}, r"teacher\.std"),
        ({"source": "hub"}, r"teacher\.source: got 'hub'; allowed: "),
    ],
)
def test_teacher_that_makes_no_sense(teacher, words):
    with pytest.raises(ConfigError, match=words):
        config_from_dict({"distill": {"teacher": teacher}})


@pytest.mark.parametrize(
    ("teacher", "is_trained"),
    [
        ({}, True),
        (TORCHVISION, True),
        ({**TORCHVISION, "weights": "x"}, False),
        ({**TORCHVISION, "weights": "x", "train": True}, True),
        ({**TORCHVISION, "train": False}, False),
        ({"source": "saved", "weights": "x"}, False),
    ],
)
def test_teacher_is_trained_where_it_has_no_weights(teacher, is_trained):
    assert TeacherConfig(**teacher).is_trained == is_trained
