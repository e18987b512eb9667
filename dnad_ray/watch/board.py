"""The board: it passes every moment of a run to the displays."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Sequence
from typing import Any, final

from dnad_ray.errors import one_line
from dnad_ray.run_folder.reading import RunContents
from dnad_ray.run_folder.records import EpochReport
from dnad_ray.storage.places import Place
from dnad_ray.text import printable
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.moments import (
    Activity,
    Display,
    Moment,
    Reported,
    RunBegan,
    RunEnded,
    Said,
    Stepped,
    TrialBegan,
    TrialEnded,
)
from dnad_ray.watch.standing import Record, Standing

__all__ = ["Board"]

COLLAPSED_SHARE = 0.8
"""Share of skips and pools among a network's operations from which on a search is taken to have collapsed."""

_MAX_ERRORS = 3
_STEP_SECONDS = 1.0
"""Least time between two moments of a trial within its epochs: a step can take less than a millisecond."""


@final
class Board:
    """Passes the moments of a run to its displays. An error in a display never stops the run.

    Threads may call it: the teacher of a sweep is trained while its workers start.

    Args:
        displays: The displays. One that fails is named in a warning and removed after three failures.
    """

    def __init__(self, displays: Sequence[Display]) -> None:
        self._errors = dict.fromkeys(displays, 0)
        self._run: Standing | None = None
        self._collapsed: set[str] = set()  # trials that were warned of
        self._stepped: dict[str, float] = {}  # when a trial began or was last shown within an epoch
        self._lock = threading.RLock()

    def update(self, name: str, done: float, total: float, text: str = "") -> None:
        """Show that ``done`` of ``total`` of the activity ``name`` is done."""
        self._show(Activity(name, done, total, printable(text)))

    def say(self, text: str) -> None:
        """Write one lasting line."""
        self._show(Said(printable(text)))

    def begin(self, specs: Sequence[TrialSpec], folder: Place, stored: RunContents | None = None) -> None:
        """Show a run, whose folder exists. Without this call, reports of trials are ignored."""
        self._run = Standing(folder, specs)
        if stored is not None:
            self._run.take_up(stored)
        self._show(RunBegan(self._run, stored))

    def expect(self, spec: TrialSpec) -> None:
        """Add a trial, or update the setting of one that was chosen later."""
        if self._run is not None:
            self._run.expect(spec)

    def trial_began(self, name: str) -> None:
        """Show that a trial runs."""
        with self._lock:
            if self._run is not None:
                self._run.begin(name)
                self._stepped[name] = time.monotonic()
                self._show(TrialBegan(self._run, self._run.trials[name]))

    def step(self, name: str, step: int, num_steps: int) -> None:
        """Show, once a second at most, that a trial has taken ``step`` of at most ``num_steps`` steps."""
        now = time.monotonic()
        if now - self._stepped.get(name, now) < _STEP_SECONDS:
            return
        with self._lock:
            if self._run is not None:
                self._stepped[name] = now
                self._run.step(name, step / max(1, num_steps))
                self._show(Stepped(self._run, self._run.trials[name], step, num_steps))

    def report(self, name: str, record: Record) -> None:
        """Show a record of a trial, unless it is reported again."""
        with self._lock:
            if self._run is not None and self._run.report(name, record):
                self._show(Reported(self._run, self._run.trials[name], record))
                self._warn_of_collapse(name, record)

    def _warn_of_collapse(self, name: str, record: Record) -> None:
        share = record.free_share if isinstance(record, EpochReport) else None
        if share is not None and share >= COLLAPSED_SHARE and name not in self._collapsed:
            self._collapsed.add(name)
            self.say(
                f"warning: {name}: {share:.0%} of its operations are skips or pools, which learn nothing; "
                "what helps: a longer train.warmup_epochs, a lower shrink.rate, or shrink.criterion taylor"
            )

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
            except Exception as error:  # noqa: BLE001 - a full disk, a closed pipe, a server that is down
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
    except Warning:  # where warnings are errors, this one must not end the run
        return
