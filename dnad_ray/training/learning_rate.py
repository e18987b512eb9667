"""Learning rates over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dnad_ray.config.retrain import RetrainConfig

__all__ = ["cosine_rates", "learning_rate_at", "momentum_at", "one_cycle_momentum", "one_cycle_rate"]

_FIRST_SHARE, _RISE, _MOMENTUM_FALL = 1 / 25, 0.3, 0.1
"""Of a one-cycle schedule: the first learning rate as a share of the peak, the share of the steps in which it rises,
and how far the momentum falls meanwhile."""


def learning_rate_at(config: RetrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0: linear warm-up, then cosine or linear decay to zero.

    >>> config = RetrainConfig(epochs=4, learning_rate=0.4, schedule="linear", warmup_epochs=2)
    >>> [round(learning_rate_at(config, step, 1), 3) for step in range(4)]
    [0.2, 0.4, 0.4, 0.2]
    """
    warmup, total = config.warmup_epochs * steps_per_epoch, config.epochs * steps_per_epoch
    if config.schedule == "one_cycle":
        return one_cycle_rate(config.learning_rate, step, total)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    share = (step - warmup) / (total - warmup)
    factor = 1 - share if config.schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
    return config.learning_rate * factor


def momentum_at(config: RetrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the momentum of a step: that of the protocol, which ``one_cycle`` lowers by 0.1 at the peak.

    >>> config = RetrainConfig(epochs=10, momentum=0.95, schedule="one_cycle")
    >>> [round(momentum_at(config, step, 1), 3) for step in range(10)]
    [0.95, 0.925, 0.875, 0.85, 0.855, 0.869, 0.889, 0.911, 0.931, 0.945]
    """
    if config.schedule != "one_cycle":
        return config.momentum
    return one_cycle_momentum(config.momentum, step, config.epochs * steps_per_epoch)


def one_cycle_rate(peak: float, step: int, num_steps: int) -> float:
    """Return the learning rate of a step in one cycle (Smith and Topin, arXiv 1708.07120).

    It rises by a cosine, from a twenty-fifth of the peak, in the first 30 % of the steps, and falls to zero.

    >>> [round(one_cycle_rate(0.1, step, 10), 3) for step in (0, 3, 9)]
    [0.004, 0.1, 0.005]
    """
    share = _share_of_peak(step, num_steps)
    return peak * (share if step >= _RISE * num_steps else _FIRST_SHARE + (1 - _FIRST_SHARE) * share)


def one_cycle_momentum(momentum: float, step: int, num_steps: int) -> float:
    """Return the momentum of a step in one cycle: 0.1 lower at the peak of the learning rate."""
    return momentum - min(_MOMENTUM_FALL, momentum) * _share_of_peak(step, num_steps)


def _share_of_peak(step: int, total: int) -> float:
    """Return a cosine from 0 at the first step to 1 at the peak, and back to 0 at the end."""
    peak = _RISE * total
    if step < peak:
        return (1 - math.cos(math.pi * step / peak)) / 2
    return (1 + math.cos(math.pi * (step - peak) / (total - peak))) / 2


def cosine_rates(peak: float, num_steps: int) -> Iterator[float]:
    """Yield the learning rate of each step of a cosine from a peak to zero.

    Each rate is computed from the one before, as in torch's ``CosineAnnealingLR``, and has the same bits.

    >>> [round(rate, 3) for rate in cosine_rates(0.4, 4)]
    [0.4, 0.341, 0.2, 0.059]
    """
    rate = peak
    yield rate
    for step in range(1, num_steps):
        now, before = (1 + math.cos(math.pi * index / num_steps) for index in (step, step - 1))
        rate *= now / before
        yield rate
