"""Learning rates over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dnad_ray.config.retrain import RetrainConfig

__all__ = ["cosine_rates", "learning_rate_at"]


def learning_rate_at(config: RetrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0: linear warm-up, then cosine or linear decay to zero.

    >>> config = RetrainConfig(epochs=4, learning_rate=0.4, schedule="linear", warmup_epochs=2)
    >>> [round(learning_rate_at(config, step, 1), 3) for step in range(4)]
    [0.2, 0.4, 0.4, 0.2]
    """
    warmup, total = config.warmup_epochs * steps_per_epoch, config.epochs * steps_per_epoch
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    share = (step - warmup) / (total - warmup)
    factor = 1 - share if config.schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
    return config.learning_rate * factor


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
