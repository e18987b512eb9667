"""The sections of a configuration about many searches: what is varied, what each may spend, what is watched."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from dnad_ray.config.section import Count, NonNegative, Positive, RefusedError, Section, Words

__all__ = ["LimitConfig", "Range", "SweepConfig", "WatchConfig"]


class SweepConfig(Section):
    """Many searches in parallel; ignored by `dnad-ray search`."""

    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Values for config keys, for example `shrink.rate: [0.05, 0.1]`; every combination is a trial."""
    num_trials: Count | None = None
    """Trials in all: the grid under `seed`, then under `seed + 1`, and so on; None takes the grid once."""
    sampler: Literal["grid", "random", "optuna"] = "grid"
    """`grid`, or `num_trials` settings from `ranges`: at random, or by Optuna's multi-objective search."""
    ranges: dict[str, Range] = Field(default_factory=dict)
    """What `random` and `optuna` draw config keys from, for example `shrink.rate: {loguniform: [0.02, 0.2]}`."""
    cost_levels: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (0.3, 0.5, 1.0)
    """Shares of the dense network's MACs: `optuna` weighs the lowest errors at most that large against each other."""
    scheduler: Literal["none", "pareto"] = "none"
    """`pareto` stops trials that are dominated at equal MACs all along, beyond the noise of seeds and images."""
    patience: Count = 2
    """Fewest snapshots that `pareto` compares before it stops a trial."""
    noise_factor: Positive = 3.0
    """Standard deviations that `pareto` takes for noise, in the mean over a trial's snapshots."""
    cpus_per_trial: Positive | None = None
    """CPUs of a trial, in all its processes; each uses its part as threads. None: see `docs/resources.md`."""
    gpus_per_trial: NonNegative | None = None
    """GPUs of a trial, one per process, or a fraction of one; None takes one each where the cluster has GPUs."""
    max_concurrent: Count | None = None
    """Most trials at once; None takes as many as fit."""

    @model_validator(mode="after")
    def _what_is_varied_has_an_effect(self) -> SweepConfig:
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
    """Where a trial ends early, with a final snapshot of what it has: the first limit reached; None is no limit."""

    seconds: Positive | None = None
    """Compute of the trial: wall seconds times devices. On another machine a search ends elsewhere."""
    macs: Annotated[float, Field(ge=1)] | None = None
    """Multiply-adds of training: 3 times the supernet's forward pass for each image. The same on every machine."""


class WatchConfig(Section):
    """What is kept about a run while it goes on, for people who watch; results do not depend on it."""

    tensorboard: bool = True
    """Write event files for TensorBoard, `tensorboard/<trial>/` in the run folder."""
    live_page: bool = True
    """Write `live.html`, a page that redraws itself while the run goes on."""
    loggers: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Experiment trackers that get the curves, too; each is an extra: `pip install 'dnad-ray[mlflow]'`."""


class Range(Section):
    """Where a value is drawn from; exactly one of the kinds is given.

    >>> Range(loguniform=(0.01, 0.1)).kind
    'loguniform'
    """

    uniform: tuple[float, float] | None = None
    """Any number between two, all equally likely."""
    loguniform: tuple[float, float] | None = None
    """Any number between two above 0, all factors equally likely."""
    integer: tuple[int, int] | None = None
    """A whole number from one to another, both included."""
    choice: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """One of these values."""

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
        """Which of the kinds is given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def values(self) -> tuple[Any, ...]:
        """The two bounds, or the choices."""
        values: tuple[Any, ...] = getattr(self, self.kind)
        return values

    def draw(self, generator: np.random.Generator) -> Any:
        """Draw a value, a plain Python one."""
        if self.choice is not None:
            return self.choice[int(generator.integers(len(self.choice)))]
        low, high = self.values
        if self.kind == "integer":
            return int(generator.integers(low, high, endpoint=True))
        if self.kind == "uniform":
            return float(generator.uniform(low, high))
        # The exponential of a rounded logarithm may fall out of the bounds by the last digit.
        return min(max(math.exp(generator.uniform(math.log(low), math.log(high))), low), high)
