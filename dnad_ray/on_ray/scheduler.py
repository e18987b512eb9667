"""Stops trials that are dominated all along, so that their compute goes to others (may import ray)."""

from __future__ import annotations

from typing import Any, final

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from dnad_ray.run_folder.reading import read_status
from dnad_ray.run_folder.states import TrialState
from dnad_ray.run_folder.writing import write_status
from dnad_ray.storage.places import Place
from dnad_ray.trials.dominance import Trajectories
from dnad_ray.trials.spec import setting_of

__all__ = ["ParetoScheduler"]


@final
class ParetoScheduler(FIFOScheduler):
    """Runs trials in order, and stops one that :meth:`dnad_ray.trials.dominance.Trajectories.verdict` condemns.

    The trial waits in its report while this decides, and never wakes from it: what is written here is the last word on
    its status. Which trials others are compared with depends on how far those are, so sweeps of several trials at once
    may stop other trials when they are repeated; what a trial records up to its stop is the same.

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
        # A trial at its end has nothing left to give to others.
        verdict = None if result["at_end"] else self._trajectories.verdict(name)
        if verdict is None:
            return str(TrialScheduler.CONTINUE)
        details = {
            key: value for key, value in read_status(self._folder, name).items() if key not in ("state", "reason")
        }
        details |= {"reason": str(verdict), "device_seconds": result["device_seconds"]}
        write_status(self._folder, name, TrialState.DOMINATED, **details)
        return str(TrialScheduler.STOP)
