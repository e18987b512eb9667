"""How a command ended, as a value: what the command line prints, and what a program asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dnad_ray.errors import DnadRayError, IncompleteRunError
from dnad_ray.storage.places import Place

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Outcome", "State", "checked"]

State = Literal["finished", "paused", "interrupted", "incomplete", "failed"]
"""``paused``: a budget was spent. ``incomplete``: something failed, and a second call goes on. ``failed``: it would not
help to go on, for example because the loss diverges."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command left.

    Attributes:
        state: How it ended.
        reason: Why, where it is not ``finished``.
        front: What was found, a row per network: the front of a search, or the networks that were trained or measured.
            None where there is nothing to show.
        paths: What lies where, by name; ``run`` is the run folder.
        left: Trials or jobs that are not at their end.
        signum: The signal that interrupted it, None for none.
    """

    state: State
    reason: str | None = None
    front: pd.DataFrame | None = None
    paths: Mapping[str, Place] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    signum: int | None = None

    @property
    def can_continue(self) -> bool:
        """Whether a second call would go on with it."""
        return self.state in ("paused", "interrupted", "incomplete")


def checked(outcome: Outcome) -> Outcome:
    """Return an outcome that is no failure; one that was interrupted or paused is none.

    Raises:
        IncompleteRunError: If it is incomplete.
        DnadRayError: If it failed.

    >>> checked(Outcome(state="paused", reason="the time budget is spent")).can_continue
    True
    """
    if outcome.state == "incomplete":
        raise IncompleteRunError(outcome.reason or "incomplete")
    if outcome.state == "failed":
        raise DnadRayError(outcome.reason or "failed")
    return outcome
