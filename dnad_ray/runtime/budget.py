"""Budgets of one command: wall time and number of trials. A spent budget is not a failure; a resume has a new one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from dnad_ray.runtime.stopping import StopCheck, StopRequest
from dnad_ray.text import duration_in_words

__all__ = ["Budget", "time_check"]

_T = TypeVar("_T")


def time_check(deadline: float | None) -> StopCheck:
    """Return a check that asks to pause after a deadline in seconds since the epoch; None means never."""
    is_over = StopRequest("the time budget was spent", "paused")
    return lambda: is_over if deadline is not None and time.time() >= deadline else None


@dataclass(frozen=True)
class Budget:
    """Limits of one command; no limits by default.

    Attributes:
        seconds: Wall seconds from when the budget was made, None for no limit.
        max_trials: Most trials to run, None for all.
        deadline: When the seconds are spent, in seconds since the epoch; every node's clock shows that alike.
    """

    seconds: float | None = None
    max_trials: int | None = None
    deadline: float | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "deadline", None if self.seconds is None else time.time() + self.seconds)

    @property
    def remaining(self) -> float | None:
        """Remaining seconds, or None without a limit."""
        return None if self.deadline is None else max(0.0, self.deadline - time.time())

    def check(self) -> StopRequest | None:
        """Return a request to pause once the time is over; a :data:`dnad_ray.runtime.stopping.StopCheck`."""
        return time_check(self.deadline)()

    def is_spent(self) -> bool:
        """Whether the time is over."""
        return self.check() is not None

    def within(self, todo: Sequence[_T]) -> Sequence[_T]:
        """Return the unfinished trials that the budget allows to run, in order."""
        return todo[: self.max_trials]

    def left_out(self, todo: Sequence[_T]) -> Sequence[_T]:
        """Return the unfinished trials that exceed the budget, in order."""
        return [] if self.max_trials is None else todo[self.max_trials :]

    def words(self, left: Sequence[str], num_trials: int) -> str:
        """Return a sentence about the trials that a spent budget left, or an empty text.

        Args:
            left: Trials that are not at their end though none of them failed.
            num_trials: Trials in all.
        """
        if not left:
            return ""
        what = (
            f"the time budget of {duration_in_words(self.seconds or 0.0)} is spent"
            if self.is_spent()
            else f"--max-trials {self.max_trials} is reached"
        )
        return f"{what}; {len(left)} of {num_trials} trials are not at their end ({', '.join(left)})"
