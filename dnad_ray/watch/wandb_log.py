"""Logger for Weights & Biases: one W&B run per trial, in one group. ``WANDB_MODE=offline`` keeps them local."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from typing import Any, final

from dnad_ray.config.run import config_to_dict
from dnad_ray.storage.files import on_disk
from dnad_ray.storage.places import address
from dnad_ray.watch.logbook import TrialLog, optional_module, scalars_of
from dnad_ray.watch.standing import Record, Standing, TrialStanding

__all__ = ["WandbLog"]


@final
class WandbLog(TrialLog):
    """Writes to the project ``WANDB_PROJECT``, or else to one of the run's name.

    A resumed trial continues in the W&B run of its id. Offline, W&B cannot say which records it has, so all records
    in the folder at the time of the resume are assumed to be sent.
    """

    def __init__(self) -> None:
        self._wandb: Any = None
        self._run: Standing | None = None
        self._runs: dict[str, Any] = {}

    def begin_run(self, run: Standing) -> None:
        """Import the package, which must not ask or print."""
        self._wandb = optional_module("wandb")
        self._run = run

    def take_up(self, trial: TrialStanding, records: Sequence[Record]) -> tuple[int, int]:
        """Assume that the stored records were sent."""
        return 0, 0

    def begin(self, trial: TrialStanding) -> None:
        """Open the trial's W&B run."""
        assert self._run is not None
        if trial.spec.name in self._runs:
            return
        key = hashlib.sha256(f"{address(self._run.folder)}/{trial.spec.name}".encode()).hexdigest()[:16]
        run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT") or self._run.name,
            group=self._run.name,
            name=trial.spec.name,
            id=key,
            resume="allow",
            reinit="create_new",  # trials run at the same time, in one driver
            config=config_to_dict(trial.spec.config),
            dir=os.environ.get("WANDB_DIR") or _folder_for(self._run),
            # Numbers and configuration, and nothing about the machine, its packages or its code.
            settings=self._wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        run.define_metric("*", step_metric="step")
        self._runs[trial.spec.name] = run

    def write(self, trial: TrialStanding, record: Record) -> None:
        """Send a record; W&B uses its own process for that."""
        self.begin(trial)
        self._runs[trial.spec.name].log({"step": record.step, "epoch": record.epoch, **scalars_of(record)})

    def end(self, trial: TrialStanding) -> None:
        """Close the trial's W&B run."""
        run = self._runs.pop(trial.spec.name, None)
        if run is not None:
            run.finish(exit_code=trial.state.exit_code)


def _folder_for(run: Standing) -> str:
    # W&B appends to files of its own: next to the run where that is a disk.
    return str(run.folder) if on_disk(run.folder) else tempfile.gettempdir()
