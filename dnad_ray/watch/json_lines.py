"""Display for programs: one JSON object per line on standard output, and nothing else."""

from __future__ import annotations

import json
import math
import time
from datetime import datetime, timezone
from typing import Any, TextIO, final

from dnad_ray.run_folder.records import Snapshot
from dnad_ray.storage.places import address
from dnad_ray.version import __version__
from dnad_ray.watch.moments import (
    Activity,
    Moment,
    Reported,
    RunBegan,
    RunEnded,
    Said,
    Stepped,
    TrialBegan,
    TrialEnded,
)

__all__ = ["JsonLines"]

SCHEMA = 1
_ACTIVITY_SECONDS = 1.0


@final
class JsonLines:
    """Writes moments as JSON lines; what is said for people goes to another stream.

    Every object has ``event`` and ``time`` (UTC, ISO 8601). Events, in the order of a run: ``run_started``,
    ``activity``, ``trial_started``, ``progress``, ``snapshot``, ``trial_ended``, ``run_ended``.

    Args:
        out: Where the objects go; flushed after each.
        diagnostics: Where text for people goes.
    """

    def __init__(self, out: TextIO, diagnostics: TextIO) -> None:
        self._out, self._diagnostics = out, diagnostics
        self._shown: dict[str, float] = {}

    def __call__(self, moment: Moment) -> None:
        """Write the object of a moment."""
        match moment:
            case Said(text):
                print(text, file=self._diagnostics, flush=True)
            case Activity(name, done, total, text):
                now = time.monotonic()
                if done >= total or now - self._shown.get(name, -math.inf) >= _ACTIVITY_SECONDS:
                    self._shown[name] = now
                    self._write("activity", name=name, done=done, total=total, text=text)
            case RunBegan(run, stored):
                self._write(
                    "run_started",
                    schema=SCHEMA,
                    version=__version__,
                    run=run.name,
                    path=address(run.folder),
                    resumed=stored is not None,
                    num_snapshots=run.num_snapshots,
                    trials=[
                        {
                            "trial": name,
                            "overrides": dict(trial.spec.overrides),
                            "epochs": trial.epochs,
                            "state": trial.state,
                        }
                        for name, trial in run.trials.items()
                    ],
                )
            case TrialBegan(_, trial):
                self._write(
                    "trial_started",
                    trial=trial.spec.name,
                    overrides=dict(trial.spec.overrides),
                    epoch=trial.epoch,
                    epochs=trial.epochs,
                )
            case Stepped(_, trial, step, num_steps):
                self._write("activity", name=trial.spec.name, done=step, total=num_steps, text="steps")
            case Reported(run, trial, Snapshot() as record):
                standing = {
                    "on_front": run.front.count_of[trial.spec.name],
                    "num_front": len(run.front),
                    "num_snapshots": run.num_snapshots,
                }
                self._write("snapshot", trial=trial.spec.name, snapshot=record.to_dict(), **standing)
            case Reported(_, trial, record):
                left = trial.seconds_left(moment.run.now)
                self._write(
                    "progress",
                    trial=trial.spec.name,
                    epochs=trial.epochs,
                    **record.to_dict(),
                    macs=trial.macs,
                    seconds_left=None if left is None else round(left, 1),
                )
            case TrialEnded(_, trial):
                self._write("trial_ended", trial=trial.spec.name, state=trial.state, reason=trial.reason)
            case RunEnded(run, state, summary):
                self._write("run_ended", state=state, run=run.name, num_snapshots=run.num_snapshots, **summary)

    def _write(self, event: str, **fields: Any) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"event": event, "time": now, **fields}, allow_nan=False)
        print(line, file=self._out, flush=True)
