"""The moments of a run, and the protocol of a display."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dnad_ray.run_folder.reading import RunContents
from dnad_ray.watch.standing import Record, Standing, TrialStanding

__all__ = [
    "Activity",
    "Display",
    "Moment",
    "Reported",
    "RunBegan",
    "RunEnded",
    "Said",
    "Stepped",
    "TrialBegan",
    "TrialEnded",
]


@dataclass(frozen=True)
class Said:
    """A message that stays on the screen."""

    text: str


@dataclass(frozen=True)
class Activity:
    """Progress of something other than a trial (images, the teacher): ``done`` of ``total``."""

    name: str
    done: float
    total: float
    text: str


@dataclass(frozen=True)
class RunBegan:
    """The run folder exists; ``stored`` is its earlier content, None for a new run."""

    run: Standing
    stored: RunContents | None


@dataclass(frozen=True)
class TrialBegan:
    """A trial runs."""

    run: Standing
    trial: TrialStanding


@dataclass(frozen=True)
class Stepped:
    """A trial has taken steps within an epoch: ``step`` of ``num_steps``."""

    run: Standing
    trial: TrialStanding
    step: int
    num_steps: int


@dataclass(frozen=True)
class Reported:
    """A trial reported a record that is new to the run."""

    run: Standing
    trial: TrialStanding
    record: Record


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended, or Ray gave it up."""

    run: Standing
    trial: TrialStanding


@dataclass(frozen=True)
class RunEnded:
    """The command ends. ``state`` is finished, incomplete, interrupted or failed; ``summary`` is data for programs."""

    run: Standing
    state: str
    summary: dict[str, Any]


Moment = Said | Activity | RunBegan | TrialBegan | Stepped | Reported | TrialEnded | RunEnded
Display = Callable[[Moment], None]
