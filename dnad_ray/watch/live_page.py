"""Data of the live page, which ``analysis`` draws."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, final

from dnad_ray.run_folder.layout import live_page_file, live_script_file
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.run_folder.states import TrialState
from dnad_ray.storage.files import write_bytes
from dnad_ray.watch.moments import Moment, Reported, RunBegan, RunEnded, TrialBegan, TrialEnded
from dnad_ray.watch.standing import Standing, TrialStanding

__all__ = ["LivePage", "picture_of"]

_SECONDS = 4.0
_MAX_CLOUD, _MAX_TRIALS, _MAX_FRONT = 2000, 100, 2000


@final
class LivePage:
    """Writes ``live.html`` once and ``live.js`` whenever there is something new, at most every few seconds.

    Args:
        page: Makes the page from the run's name.
        script: Makes the script from the picture, see :func:`picture_of`.
        seconds: Least time between two scripts.
    """

    def __init__(
        self,
        page: Callable[[str], str],
        script: Callable[[Mapping[str, Any]], str],
        seconds: float = _SECONDS,
    ) -> None:
        self._page, self._script, self._seconds = page, script, seconds
        # What is dominated is only background: the newest of it will do, and memory stays bounded.
        self._cloud: deque[tuple[int, float]] = deque(maxlen=_MAX_CLOUD)
        self._is_new = False
        self._written = -math.inf

    def __call__(self, moment: Moment) -> None:
        """Store the moment, and write the page if it is time."""
        match moment:
            case RunBegan(run, stored):
                rows = stored.snapshots if stored is not None else []
                self._cloud.extend((row["macs"], 1.0 - row["proxy_accuracy"]) for row in rows)
                write_bytes(live_page_file(run.folder), self._page(run.name).encode())
                self._write(run, TrialState.RUNNING)
            case Reported(run, _, record):
                if isinstance(record, Snapshot):
                    self._cloud.append((record.macs, 1.0 - record.proxy_accuracy))
                    self._is_new = True
                if self._is_new and run.now - self._written >= self._seconds:
                    self._write(run, TrialState.RUNNING)
            case TrialBegan() | TrialEnded():
                self._is_new = True
            case RunEnded(run, state):
                self._write(run, state)

    def _write(self, run: Standing, state: str) -> None:
        picture = picture_of(run, state, self._cloud)
        write_bytes(live_script_file(run.folder), self._script(picture).encode())
        self._is_new, self._written = False, run.now


def picture_of(run: Standing, state: str, cloud: deque[tuple[int, float]]) -> dict[str, Any]:
    """Return what the page shows, as plain data of bounded size.

    Args:
        run: The state of the run.
        state: ``running``, or as it ended.
        cloud: MACs and errors of snapshots, on the front or not.
    """
    left = run.seconds_left()
    trials = run.by_interest()
    return {
        "run": run.name,
        "state": state,
        "unix_time": round(time.time(), 1),
        "elapsed": round(run.now - run.began, 1),
        "left": None if left is None or state != TrialState.RUNNING else round(left, 1),
        "counts": run.counts(),
        "num_trials": len(trials),
        "num_snapshots": run.num_snapshots,
        "num_front": len(run.front),
        "hypervolume": round(run.front.hypervolume(), 6),
        "front": [point._asdict() for point in run.front.points()[:_MAX_FRONT]],
        "cloud": [[macs, round(error, 6)] for macs, error in cloud],
        "trials": [_row(run, trial) for trial in trials[:_MAX_TRIALS]],
    }


def _row(run: Standing, trial: TrialStanding) -> dict[str, Any]:
    left = trial.seconds_left(run.now)
    return {
        "trial": trial.spec.name,
        "varies": trial.spec.label,
        "state": trial.state,
        "share": round(trial.share, 4),
        "epoch": trial.epoch,
        "epochs": trial.epochs,
        "num_operations": trial.num_operations,
        "macs": trial.macs,
        "proxy_accuracy": trial.proxy_accuracy,
        "on_front": run.front.count_of[trial.spec.name],
        "left": None if left is None else round(left, 1),
    }
