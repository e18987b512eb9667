"""What people and programs learn while a run goes on: the board takes it, displays show it."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from rich.console import Console

from dnad_ray.errors import one_line
from dnad_ray.places import Place
from dnad_ray.printable import printable
from dnad_ray.standing import Record, Standing, TrialStanding
from dnad_ray.store import RunContents
from dnad_ray.trial import DONE, TrialSpec

__all__ = [
    "Activity",
    "Board",
    "Display",
    "Moment",
    "PlainLines",
    "Reported",
    "RunBegan",
    "RunEnded",
    "Said",
    "TrialBegan",
    "TrialEnded",
    "trial_text",
]

_LINE_SECONDS = 5.0
_ENDED = float("inf")
_MAX_ERRORS = 3


@dataclass(frozen=True)
class Said:
    """A lasting line, for people."""

    text: str


@dataclass(frozen=True)
class Activity:
    """Of something that is not a trial (images, the teacher), ``done`` of ``total`` is done."""

    name: str
    done: float
    total: float
    text: str


@dataclass(frozen=True)
class RunBegan:
    """The run folder stands; ``stored`` is what it held, None for a new run."""

    run: Standing
    stored: RunContents | None


@dataclass(frozen=True)
class TrialBegan:
    """A trial runs."""

    run: Standing
    trial: TrialStanding


@dataclass(frozen=True)
class Reported:
    """A trial reported a record that is new to the run."""

    run: Standing
    trial: TrialStanding
    record: Record


@dataclass(frozen=True)
class TrialEnded:
    """A trial is at its end, or Ray gave it up."""

    run: Standing
    trial: TrialStanding


@dataclass(frozen=True)
class RunEnded:
    """The command ends; ``state`` is finished, incomplete, interrupted or failed, ``summary`` what a program wants."""

    run: Standing
    state: str
    summary: dict[str, Any]


Moment = Said | Activity | RunBegan | TrialBegan | Reported | TrialEnded | RunEnded
Display = Callable[[Moment], None]


@final
class Board:
    """Where a run writes what happens; what goes wrong in showing it never reaches the run.

    Threads may write: the teacher of a sweep is made beside the start of its workers.

    Args:
        displays: Who shows it. One that fails is named in a warning, and left out after three failures.
    """

    def __init__(self, displays: Sequence[Display]) -> None:
        self._errors = dict.fromkeys(displays, 0)
        self._run: Standing | None = None
        self._lock = threading.RLock()

    def update(self, name: str, done: float, total: float, text: str = "") -> None:
        """Show that ``done`` of ``total`` of the activity ``name`` is done."""
        self._show(Activity(name, done, total, printable(text)))

    def say(self, text: str) -> None:
        """Write one lasting line."""
        self._show(Said(printable(text)))

    def begin(self, specs: Sequence[TrialSpec], folder: Place, stored: RunContents | None = None) -> None:
        """Show the run whose folder stands; before it, and without it, reports of trials go nowhere."""
        self._run = Standing(folder, specs)
        if stored is not None:
            self._run.take_up(stored)
        self._show(RunBegan(self._run, stored))

    def expect(self, spec: TrialSpec) -> None:
        """Take note of a trial that was added, or whose setting was chosen only now."""
        if self._run is not None:
            self._run.expect(spec)

    def trial_began(self, name: str) -> None:
        """Show that a trial runs."""
        with self._lock:
            if self._run is not None:
                self._run.begin(name)
                self._show(TrialBegan(self._run, self._run.trials[name]))

    def report(self, name: str, record: Record) -> None:
        """Show a record of a trial, unless it is reported again."""
        with self._lock:
            if self._run is not None and self._run.report(name, record):
                self._show(Reported(self._run, self._run.trials[name], record))

    def trial_ended(self, name: str, state: str, reason: str | None = None) -> None:
        """Show how a trial ended."""
        with self._lock:
            if self._run is not None:
                self._run.end(name, state, reason)
                self._show(TrialEnded(self._run, self._run.trials[name]))

    def end(self, state: str, summary: dict[str, Any]) -> None:
        """Show how the run ended."""
        if self._run is not None:
            self._show(RunEnded(self._run, state, summary))

    def _show(self, moment: Moment) -> None:
        with self._lock:
            self._show_all(moment)

    def _show_all(self, moment: Moment) -> None:
        for display, errors in list(self._errors.items()):
            try:
                display(moment)
                self._errors[display] = 0
            except Exception as error:  # noqa: BLE001 - a full disk, a closed pipe, a server that is down: all the same
                self._errors[display] = errors + 1
                is_last = errors + 1 == _MAX_ERRORS
                if is_last:
                    del self._errors[display]
                _warn(display, error, is_last)


def _warn(display: Display, error: Exception, is_last: bool) -> None:
    name = getattr(display, "__name__", type(display).__name__)
    try:
        warnings.warn(
            f"{name} failed and the run goes on{' without it' * is_last}: {type(error).__name__}: {one_line(error)}",
            stacklevel=2,
        )
    except Warning:  # somebody made errors of warnings: not of this one
        return


@final
class PlainLines:
    """A line per name every few seconds, where there is no terminal to draw on.

    Args:
        console: Where to write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed: dict[str, float] = {}
        self._began = time.monotonic()

    def __call__(self, moment: Moment) -> None:
        """Write a line, unless one of that name has just been written."""
        match moment:
            case Said(text):
                self._console.print(text, markup=False, soft_wrap=True)
            case Activity(name, done, total, text):
                self._line(name, done, total, text)
            case Reported(run, trial, _):
                self._line(trial.spec.name, trial.epoch, trial.epochs, trial_text(run, trial), may_end=False)
            case TrialEnded(run, trial):
                self._printed.pop(trial.spec.name, None)
                if trial.state == "finished":
                    self._line(trial.spec.name, trial.epochs, trial.epochs, trial_text(run, trial))
                if len(run.trials) > 1 and trial.state in DONE:
                    done = run.num_in(*DONE)
                    self._line("sweep", done, len(run.trials), "trials at their end")

    def _line(self, name: str, done: float, total: float, text: str, may_end: bool = True) -> None:
        now = time.monotonic()
        printed = self._printed.get(name, 0.0)
        is_end = done >= total and may_end
        if printed == _ENDED or (not is_end and now - printed < _LINE_SECONDS):
            return
        self._printed[name] = _ENDED if is_end else now
        self._console.print(
            f"[{now - self._began:5.0f} s] {name}: {done / max(total, 1):4.0%}  {text}", markup=False, soft_wrap=True
        )


def trial_text(run: Standing, trial: TrialStanding) -> str:
    """Return where a trial stands in a few words."""
    parts = [f"{trial.num_operations} operations"]
    if trial.proxy_accuracy is not None:
        parts.append(f"proxy error {1 - trial.proxy_accuracy:.2%}")
        parts.append(f"{run.front.count_of[trial.spec.name]} on the front")
    label = f"{trial.spec.label}: " if trial.spec.label else ""
    return label + ", ".join(parts)
