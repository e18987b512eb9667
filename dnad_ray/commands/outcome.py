"""The outcome of a command, for the command line and for programs."""

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
"""``paused``: a budget is spent. ``incomplete``: something failed, and a second call continues. ``failed``: a second
call would fail again, for example because the loss diverges."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a command.

    Attributes:
        state: How the command ended.
        reason: The reason, if the state is not ``finished``.
        front: The results, one row per network: the front of a search, or the trained or measured networks. None if
            there are no results.
        paths: Paths of the results by name; ``run`` is the run folder.
        left: Unfinished trials or jobs.
        signum: The signal that interrupted the command, or None.
    """

    state: State
    reason: str | None = None
    front: pd.DataFrame | None = None
    paths: Mapping[str, Place] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    signum: int | None = None

    @property
    def can_continue(self) -> bool:
        """Whether a second call continues the work."""
        return self.state in ("paused", "interrupted", "incomplete")


def checked(outcome: Outcome) -> Outcome:
    """Return the outcome, unless it is a failure. Interrupted and paused ones are no failures.

    Raises:
        IncompleteRunError: If the state is ``incomplete``.
        DnadRayError: If the state is ``failed``.

    >>> checked(Outcome(state="paused", reason="the time budget is spent")).can_continue
    True
    """
    if outcome.state == "incomplete":
        raise IncompleteRunError(outcome.reason or "incomplete")
    if outcome.state == "failed":
        raise DnadRayError(outcome.reason or "failed")
    return outcome
