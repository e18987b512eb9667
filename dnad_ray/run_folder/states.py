"""The states of trials and jobs, one table: what each is called, and what follows from it (standard library only)."""

from __future__ import annotations

from enum import Enum
from typing import Any

__all__ = ["STATUS_KINDS", "TrialState", "state_of"]

STATUS_KINDS: dict[str, type] = {
    **dict.fromkeys(("reason", "host", "device", "visible_gpus"), str),
    **dict.fromkeys(("attempt", "from_step", "step", "threads", "processes", "pid"), int),
    "overrides": dict,
    "device_seconds": float,
}
"""The types of the entries of a status file but its state; an entry of another type is left out."""


class TrialState(str, Enum):
    """Where a trial, or a job of retraining, is; the value is what its status file says.

    Attributes:
        words: The state in words, for reports and messages.
        is_finished: Whether it is at its end. A resume leaves it alone; it continues or repeats everything else.
        is_over: Whether the last attempt has written how it ended, finished or not.
        rank: Place in a live list: what runs first, then what ended, then what waits.
        style: Style of its row in the live table, as rich names styles; empty for the plain one.
        mlflow: Status of its MLflow run when it ends so: FINISHED as planned, FAILED by an error, KILLED for what a
            resume continues.
        exit_code: Exit code in W&B, by the same rule: 0, 1, and 255, its code for Ctrl-C.
    """

    words: str
    is_finished: bool
    is_over: bool
    rank: int
    style: str
    mlflow: str
    exit_code: int

    # value, words, is_finished, is_over, rank, style, mlflow, exit_code; in the order in which a report counts them
    FINISHED = "finished", "finished", True, True, 3, "green", "FINISHED", 0
    """At the end of its epochs, at its floor, or at its limit."""
    RUNNING = "running", "still running or interrupted", False, False, 0, "", "RUNNING", 255
    """It runs, or it was killed before it could write another status."""
    INTERRUPTED = "interrupted", "interrupted", False, True, 6, "yellow", "KILLED", 255
    """Ended by a signal, with a checkpoint."""
    PENDING = "pending", "not begun", False, False, 8, "dim", "SCHEDULED", 255
    """Chosen and written down."""
    WAITING = "waiting", "not begun", False, False, 7, "dim", "SCHEDULED", 255
    """Not begun by this command; shown by displays only, never written to a file."""
    PAUSED = "paused", "paused", False, True, 5, "", "KILLED", 255
    """Ended by a budget of time, with a checkpoint."""
    STOPPED = "stopped", "stopped early", True, True, 2, "yellow", "FAILED", 1
    """Its loss diverged, and would do so again."""
    DOMINATED = "dominated", "stopped by the scheduler", True, True, 4, "green", "FINISHED", 0
    """Stopped by the scheduler, because other trials were better; a resume leaves it alone."""
    FAILED = "failed", "failed", False, True, 1, "red", "FAILED", 1
    """An error ended it; a resume tries again."""
    UNKNOWN = "unknown", "without a known status", False, False, 9, "", "KILLED", 255
    """No status was written yet, or one that this version does not know."""

    def __new__(cls, value: str, *facts: Any) -> TrialState:
        """Make the member of one line of the table."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.words, member.is_finished, member.is_over, member.rank, member.style, *told = facts
        member.mlflow, member.exit_code = told
        return member

    def __str__(self) -> str:
        """Return the value, as files and lines show it."""
        return str(self.value)


def state_of(value: object) -> TrialState:
    """Return the state that a status file gives; UNKNOWN for any other value.

    >>> state_of("paused"), state_of("of a newer version").words
    (<TrialState.PAUSED: 'paused'>, 'without a known status')
    """
    try:
        return TrialState(str(value))
    except ValueError:
        return TrialState.UNKNOWN
