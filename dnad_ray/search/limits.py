"""Limits that end a single trial early: compute in seconds, or in multiply-adds of training.

A limit does not change the search before it is reached. A trial that reaches a limit is finished: it records a final
snapshot, its status names the limit, and a resume does not run it again.
"""

from __future__ import annotations

from dnad_ray.config.run import LimitConfig

__all__ = ["PASSES_PER_STEP", "limit_reached"]

PASSES_PER_STEP = 3
"""Cost of a training step in forward passes: one, plus a backward pass that costs two (Amodei & Hernandez 2018)."""


def limit_reached(limit: LimitConfig, macs: int, seconds: float, step: int, ends_at: int | None) -> str:
    """Return the limit that a trial has reached, as text; empty if none.

    Args:
        limit: The limits.
        macs: Multiply-adds spent on training.
        seconds: Compute spent, wall seconds times devices.
        step: Optimisation steps taken.
        ends_at: The step of the final snapshot of an earlier attempt that was killed before its checkpoint; None if
            there is none. If given, it replaces the check of ``limit.seconds``: a replay takes a different time, but
            must end at the same step.

    >>> limit_reached(LimitConfig(seconds=60, macs=1e9), macs=10**9, seconds=59.0, step=7, ends_at=None)
    'limit.macs 1e+09'
    >>> [limit_reached(LimitConfig(seconds=60), macs=0, seconds=61.0, step=step, ends_at=9) for step in (8, 9)]
    ['', 'limit.seconds 60']
    """
    if limit.macs is not None and macs >= limit.macs:
        return f"limit.macs {limit.macs:g}"
    if limit.seconds is not None and (seconds >= limit.seconds if ends_at is None else step >= ends_at):
        return f"limit.seconds {limit.seconds:g}"
    return ""
