"""What ends a sweep before its time (may import ray)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from ray import tune

from dnad_ray.on_ray.mailbox import has_failed
from dnad_ray.runtime.stopping import StopCheck

__all__ = ["SweepStop"]


@final
class SweepStop(tune.Stopper, tune.Callback):
    """The stop check of the driver: passes a request to the trials, waits for them, and ends the experiment.

    Args:
        check: Returns a request when the sweep has to stop.
        mailbox: What :func:`start_mailbox` returned.
        has_begun: Whether a trial has taken up its search. Before that it has nothing to save, and the start of its
            worker can take minutes on a busy machine, so nobody waits for it.
    """

    def __init__(self, check: StopCheck, mailbox: Any, has_begun: Callable[[str], bool]) -> None:
        self._check, self._mailbox, self._has_begun = check, mailbox, has_begun
        self._running: dict[str, str] = {}  # names of trials by Tune's ids
        self._awaited: set[str] | None = None
        self._asking: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it to restore an experiment; we never restore one

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stop a single trial: it ends by itself once its checkpoint is written."""
        return False

    def stop_all(self) -> bool:
        """Whether there was a request to stop, and all trials that searched at that time have ended."""
        if self._awaited is None and (request := self._check()) is not None:
            # Trials that Tune starts from now on end before their first step, so there is nothing to lose.
            self._awaited = {trial_id for trial_id, name in self._running.items() if self._has_begun(name)}
            self._asking = self._mailbox.ask_to_stop.remote(request)
        if self._awaited and has_failed(self._asking):
            self._awaited.clear()  # without a mailbox no trial hears of it; each goes on from its last checkpoint
        return self._awaited is not None and not self._awaited

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial runs."""
        self._running[trial.trial_id] = trial.config["trial"]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial has ended."""
        self._ended(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial failed; if it starts again, the sweep does not wait for it."""
        self._ended(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial failed for good."""
        self._ended(trial)

    def _ended(self, trial: Any) -> None:
        self._running.pop(trial.trial_id, None)
        if self._awaited is not None:
            self._awaited.discard(trial.trial_id)
