"""Display for logs and simple terminals: plain lines of text."""

from __future__ import annotations

import time
from typing import final

from rich.console import Console

from dnad_ray.run_folder.states import TrialState
from dnad_ray.watch.moments import Activity, Moment, Reported, Said, Stepped, TrialBegan, TrialEnded
from dnad_ray.watch.standing import Standing, TrialStanding

__all__ = ["PlainLines", "trial_text"]

_LINE_SECONDS = 5.0
_ENDED = float("inf")


@final
class PlainLines:
    """Prints a line per activity or trial every few seconds, for output that is not a terminal.

    Args:
        console: Where to write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed: dict[str, float] = {}
        self._trial_began: dict[str, float] = {}
        self._began = time.monotonic()

    def __call__(self, moment: Moment) -> None:
        """Write a line, unless one of that name has just been written."""
        match moment:
            case Said(text):
                self._console.print(text, markup=False, soft_wrap=True)
            case Activity(name, done, total, text):
                self._line(name, done, total, text)
            case TrialBegan(_, trial):
                self._trial_began[trial.spec.name] = time.monotonic()
            case Stepped(run, trial, _, _):
                name = trial.spec.name
                if time.monotonic() - self._trial_began.get(name, 0.0) >= _LINE_SECONDS:
                    self._line(name, trial.share, 1.0, trial_text(run, trial), may_end=False)
            case Reported(run, trial, _):
                self._line(trial.spec.name, trial.epoch, trial.epochs, trial_text(run, trial), may_end=False)
            case TrialEnded(run, trial):
                self._printed.pop(trial.spec.name, None)
                if trial.state is TrialState.FINISHED:
                    self._line(trial.spec.name, trial.epochs, trial.epochs, trial_text(run, trial))
                if len(run.trials) > 1 and trial.state.is_finished:
                    self._line("sweep", run.num_finished, len(run.trials), "trials at their end")

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
    """Return the progress of a trial as a short text."""
    parts = ["in its first epoch" if trial.num_operations is None else f"{trial.num_operations} operations"]
    if trial.proxy_accuracy is not None:
        parts.append(f"proxy error {1 - trial.proxy_accuracy:.2%}")
        parts.append(f"{run.front.count_of[trial.spec.name]} on the front")
    label = f"{trial.spec.label}: " if trial.spec.label else ""
    return label + ", ".join(parts)
