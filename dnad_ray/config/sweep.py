"""The sections of a configuration for sweeps: settings of the trials, limits of a trial, logs."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from dnad_ray.config.section import (
    LARGEST,
    MOST_TRIALS,
    Count,
    Integer,
    NonNegative,
    Number,
    Positive,
    RefusedError,
    Section,
    Words,
)

__all__ = ["LimitConfig", "Range", "SweepConfig", "WatchConfig"]


class SweepConfig(Section):
    """The trials of a sweep; `dnad-ray search` ignores this section."""

    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Values of config keys, for example `shrink.rate: [0.05, 0.1]`. Every combination is a trial."""
    num_trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = None
    """Total number of trials: the grid with `seed`, then with `seed + 1`, and so on. None: the grid once."""
    sampler: Literal["grid", "random", "optuna"] = "grid"
    """`grid`; or `num_trials` settings from `ranges`, `random` or by `optuna` (multi-objective search)."""
    ranges: dict[str, Range] = Field(default_factory=dict)
    """Ranges of config keys for `random` and `optuna`, for example `shrink.rate: {loguniform: [0.02, 0.2]}`."""
    cost_levels: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (0.3, 0.5, 1.0)
    """MACs budgets, as shares of the dense network's MACs. The objectives of `optuna` are the lowest errors within each
    budget."""
    scheduler: Literal["none", "pareto"] = "none"
    """`pareto` stops dominated trials: those that are worse than others at equal MACs at every snapshot, by more than
    the noise of seeds and images."""
    patience: Count = 2
    """`pareto` compares at least this many snapshots before it stops a trial."""
    noise_factor: Positive = 3.0
    """Noise in standard deviations: `pareto` stops a trial whose mean distance over its snapshots is larger."""
    cpus_per_trial: Positive | None = None
    """CPUs per trial, shared equally by its processes, which use them as threads. None: see `docs/resources.md`."""
    gpus_per_trial: NonNegative | None = None
    """GPUs per trial: one per process, or a fraction of one. None: one per process if the cluster has GPUs."""
    max_concurrent: Count | None = None
    """Maximum number of trials at the same time. None: as many as fit."""

    @model_validator(mode="after")
    def _what_is_varied_has_an_effect(self) -> SweepConfig:
        combinations = math.prod(map(len, self.grid.values()))
        if combinations > MOST_TRIALS:
            given = Words(f"{len(self.grid)} keys with {combinations:,} combinations")
            raise RefusedError("grid", given, f"at most {MOST_TRIALS:,}, or sampler random")
        if self.sampler == "grid" and self.ranges:
            why = "which have no effect with sampler 'grid'"
            raise RefusedError("ranges", Words(", ".join(self.ranges)), "sampler random or optuna, or no ranges", why)
        if self.sampler != "grid":
            if self.grid:
                why = f"which has no effect with sampler {self.sampler!r}"
                allowed = "sampler grid, or an empty grid ({}) and ranges, of which one kind is choice"
                raise RefusedError("grid", Words(", ".join(self.grid)), allowed, why)
            for name in ("ranges", "num_trials"):
                if not getattr(self, name):
                    raise RefusedError(name, getattr(self, name), f"some, with sampler {self.sampler!r}")
        return self


class LimitConfig(Section):
    """Limits of a trial: it ends with a final snapshot at the first limit that it reaches. None: no limit."""

    seconds: Positive | None = None
    """Compute of the trial: wall seconds times devices. Where the search ends depends on the machine."""
    macs: Annotated[float, Field(ge=1, le=LARGEST)] | None = None
    """Multiply-adds of training: 3 times the supernet's forward pass per image. The same on every machine."""


class WatchConfig(Section):
    """Logs and pages for watching a run. The results do not depend on them."""

    tensorboard: bool = True
    """Whether to write event files for TensorBoard, to `tensorboard/<trial>/` in the run folder."""
    live_page: bool = True
    """Whether to write `live.html`, a page that is updated during the run."""
    loggers: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Experiment trackers that also get the curves. Each is an extra: `pip install 'dnad-ray[mlflow]'`."""


class Range(Section):
    """The range of a config key. Exactly one kind is given.

    >>> Range(loguniform=(0.01, 0.1)).kind
    'loguniform'
    """

    uniform: tuple[Number, Number] | None = None
    """Bounds of a uniform distribution."""
    loguniform: tuple[Number, Number] | None = None
    """Bounds, above 0, of a log-uniform distribution."""
    integer: tuple[Integer, Integer] | None = None
    """Bounds of a uniform distribution of integers, both included."""
    choice: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """Values of equal probability."""

    @model_validator(mode="after")
    def _one_kind_in_order(self) -> Range:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            allowed = f"one of {', '.join(type(self).model_fields)}"
            raise RefusedError("range", Words(", ".join(given) or "nothing"), allowed)
        if self.choice is None and not self.values[0] < self.values[1]:
            raise RefusedError(given[0], list(self.values), "the lower bound first")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise RefusedError("loguniform", list(self.loguniform), "bounds above 0")
        return self

    @property
    def kind(self) -> str:
        """The kind of the range."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def values(self) -> tuple[Any, ...]:
        """The two bounds, or the choices."""
        values: tuple[Any, ...] = getattr(self, self.kind)
        return values

    def draw(self, generator: np.random.Generator) -> Any:
        """Return a random value as a plain Python number or choice."""
        if self.choice is not None:
            return self.choice[int(generator.integers(len(self.choice)))]
        low, high = self.values
        if self.kind == "integer":
            return int(generator.integers(low, high, endpoint=True))
        if self.kind == "uniform":
            return float(generator.uniform(low, high))
        # By rounding, the exponential of the logarithm can be outside of the bounds in the last digit.
        return min(max(math.exp(generator.uniform(math.log(low), math.log(high))), low), high)
