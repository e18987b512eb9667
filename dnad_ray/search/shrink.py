"""The controller of search by deleting: it sees counts and returns rates; it never touches model or loss."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from dnad_ray.config.run import ShrinkConfig

__all__ = ["ShrinkController", "ShrinkSchedule", "schedule_for"]


@dataclass(frozen=True, kw_only=True)
class ShrinkSchedule:
    """Constants of the controller per optimisation step.

    Attributes:
        target: Target number of deletions per step, n_target.
        growth: Factor on gamma after a step with too few deletions; gamma is divided by it after other steps.
        gamma_max: A step with too few deletions is a stall if gamma is at least this; also the cap if ``is_capped``.
        smoothing: Decay tau of the running mean of deletions.
        stall_max: Number of successive stalls that trigger a Pareto snapshot.
        mu_growth: Factor on mu after a Pareto snapshot.
        rate_factor: Factor xi on the target after a Pareto snapshot.
        is_capped: Whether gamma and the rate of deletions have an upper limit.
        most_allowed: Largest number of missed deletions that may be made up for at once, if capped.
    """

    target: float
    growth: float
    gamma_max: float
    smoothing: float
    stall_max: int
    mu_growth: float
    rate_factor: float
    is_capped: bool = False
    most_allowed: float = math.inf


def schedule_for(config: ShrinkConfig, num_candidates: int, steps_per_epoch: int) -> ShrinkSchedule:
    """Turn rates per epoch into constants per step.

    Args:
        config: Rates per epoch.
        num_candidates: Candidates of the dense supernet.
        steps_per_epoch: Optimisation steps of an epoch.

    >>> release = schedule_for(ShrinkConfig(), num_candidates=336, steps_per_epoch=391)
    >>> round(release.target, 4), round(release.growth, 4), release.stall_max
    (0.0052, 1.01, 50)
    """
    return ShrinkSchedule(
        target=config.rate * num_candidates / steps_per_epoch,
        growth=config.gamma_growth ** (1 / steps_per_epoch),
        gamma_max=config.gamma_max,
        smoothing=config.smoothing,
        stall_max=max(1, round(config.stall_epochs * steps_per_epoch)),
        mu_growth=config.mu_growth,
        rate_factor=config.rate_factor,
        is_capped=config.pressure == "added",
        most_allowed=config.rate * num_candidates,
    )


@dataclass(kw_only=True)
class ShrinkController:
    """Adapts gamma so that deletions happen at the target rate (paper, algorithm 1).

    The paper's rule uses only the mean of deletions, and every candidate below the baseline is deleted. The capped
    rule counts the deletions that the rate has allowed so far. No more than these are made. Gamma grows only while
    deletions lag behind, and falls while candidates below the baseline wait for their deletion.

    Attributes:
        schedule: Constants per step.
        gamma: Sparsity weight.
        mu: Offset factor.
        target: Present target number of deletions per step.
        mean_deletions: Running mean of deletions per step.
        stalls: Number of successive steps with too few deletions and gamma of at least ``gamma_max``.
        allowance: Deletions allowed so far minus those made; negative after the deletion of a larger group.
    """

    schedule: ShrinkSchedule
    gamma: float
    mu: float
    target: float
    mean_deletions: float = 0.0
    stalls: int = 0
    allowance: float = 0.0

    @classmethod
    def start(cls, config: ShrinkConfig, schedule: ShrinkSchedule) -> ShrinkController:
        """Return a controller before its first step."""
        return cls(schedule=schedule, gamma=config.gamma_init, mu=config.mu, target=schedule.target)

    def allowed(self, num_steps: int = 1) -> float:
        """Return how many deletions are allowed after some more steps; infinite if they are not capped."""
        return self.allowance + num_steps * self.target if self.schedule.is_capped else math.inf

    def observe(self, deleted: int, waiting: int = 0) -> bool:
        """Update the controller after one step.

        Args:
            deleted: Candidates deleted in it.
            waiting: Candidates below the baseline that were not allowed to go yet.

        Returns:
            True if a Pareto snapshot is due: under the present pressure the network does not shrink further.
        """
        rules = self.schedule
        self.mean_deletions = rules.smoothing * self.mean_deletions + (1 - rules.smoothing) * deleted
        if rules.is_capped:
            self.allowance = min(self.allowance + self.target, rules.most_allowed) - deleted
        if self.mean_deletions >= self.target or waiting:
            self.gamma /= rules.growth
            self.stalls = 0
            return False
        if rules.is_capped and self.allowance <= 0:
            return False
        if self.gamma >= rules.gamma_max:
            self.stalls += 1
        self.gamma = min(self.gamma * rules.growth, rules.gamma_max if rules.is_capped else math.inf)
        if self.stalls < rules.stall_max:
            return False
        self.mu *= rules.mu_growth
        self.target *= rules.rate_factor
        self.stalls = 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the mutable state as plain data."""
        state = asdict(self)
        del state["schedule"]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore from :meth:`state_dict`."""
        for name in ("gamma", "mu", "target", "mean_deletions", "stalls", "allowance"):
            setattr(self, name, state[name])
