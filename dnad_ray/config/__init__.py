"""The complete, frozen configuration of a run."""

from __future__ import annotations

from dnad_ray.config.run import (
    DataConfig,
    DistillConfig,
    EvaluationConfig,
    FloorConfig,
    LimitConfig,
    RunConfig,
    SharesConfig,
    ShrinkConfig,
    SpaceConfig,
    SweepConfig,
    TeacherConfig,
    TrainConfig,
    WatchConfig,
    config_from_dict,
    config_to_dict,
    parse_assignment,
    with_overrides,
)

__all__ = [
    "DataConfig",
    "DistillConfig",
    "EvaluationConfig",
    "FloorConfig",
    "LimitConfig",
    "RunConfig",
    "SharesConfig",
    "ShrinkConfig",
    "SpaceConfig",
    "SweepConfig",
    "TeacherConfig",
    "TrainConfig",
    "WatchConfig",
    "config_from_dict",
    "config_to_dict",
    "parse_assignment",
    "with_overrides",
]
