"""A scheduler that stops dominated trials, so that other trials get their compute (may import ray)."""

from __future__ import annotations

from typing import Any, final

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from dnad_ray.storage.places import Place
from dnad_ray.trials.dominance import Trajectories
from dnad_ray.trials.plan import end_dominated
from dnad_ray.trials.spec import setting_of

__all__ = ["ParetoScheduler"]


@final
class ParetoScheduler(FIFOScheduler):
    """Runs trials in order, and stops a trial if :meth:`dnad_ray.trials.dominance.Trajectories.verdict` says so.

    A trial waits in its report during the decision, and a stopped one never continues, so its last status is written
    here. Trials are compared at their present progress, so a repeated sweep with parallel trials may stop other
    trials; the records of a trial up to its stop are the same.

    Args:
        trajectories: The snapshots of all trials.
        folder: The run folder.
    """

    def __init__(self, trajectories: Trajectories, folder: Place) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trajectories, self._folder = trajectories, folder

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide about a trial that reported."""
        name = trial.config["trial"]
        self._trajectories.take(name, setting_of(trial.config["overrides"]), result)
        # To stop a trial at its end would save nothing.
        verdict = None if result["at_end"] else self._trajectories.verdict(name)
        if verdict is None:
            return str(TrialScheduler.CONTINUE)
        end_dominated(self._folder, name, verdict, result["device_seconds"])
        return str(TrialScheduler.STOP)
