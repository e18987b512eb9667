"""Schedules of KD weight and temperature, worked out by hand."""

from __future__ import annotations

import pytest

from dnad_ray.config.distill import DistillConfig
from dnad_ray.distill.schedule import Strength, changes, strength_at


@pytest.mark.parametrize(
    ("schedule", "values"),
    [("constant", [2, 2, 2, 2]), ("linear", [2, 1.5, 1, 0]), ("cosine", [2, 2 - 2 * (1 - 0.5**0.5) / 2, 1, 0])],
)
def test_weight_over_a_search(schedule, values):
    config = DistillConfig(kind="features", weight=2.0, weight_schedule=schedule)
    assert [strength_at(config, progress).weight for progress in (0, 0.25, 0.5, 1)] == pytest.approx(values)
    assert strength_at(config, 0.5).temperature is None


def test_weight_and_temperature_have_ends_of_their_own():
    config = DistillConfig(
        kind="logits",
        weight=0.0,
        weight_end=1.0,
        weight_schedule="linear",
        temperature=8.0,
        temperature_end=2.0,
        temperature_schedule="cosine",
    )
    assert strength_at(config, 0) == Strength(0, 8)
    assert strength_at(config, 0.5) == pytest.approx(Strength(0.5, 5))
    assert strength_at(config, 1) == Strength(1, 2), "the ends are met exactly"
    assert config.uses_teacher, "it begins with nothing and needs a teacher all the same"


def test_temperature_cools_to_one_unless_told_otherwise():
    config = DistillConfig(kind="decoupled", temperature_schedule="linear")
    assert [strength_at(config, progress).temperature for progress in (0, 0.5, 1)] == [4, 2.5, 1]


def test_changes():
    assert not changes(DistillConfig(kind="logits"))
    assert changes(DistillConfig(kind="logits", temperature_schedule="linear"))
    assert changes(DistillConfig(kind="features", weight_schedule="cosine"))
