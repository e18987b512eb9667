"""Logger for MLflow: one MLflow run per trial, which a resumed run continues."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from dnad_ray.config.run import config_to_dict
from dnad_ray.run_folder.layout import mlflow_file
from dnad_ray.storage.files import on_disk
from dnad_ray.storage.places import address
from dnad_ray.text import dotted
from dnad_ray.watch.logbook import TrialLog, after, optional_module, scalars_of
from dnad_ray.watch.standing import Record, Standing, TrialStanding

__all__ = ["MlflowLog"]

_SECONDS = 2.0
# MLflow takes 1000 metrics and 100 parameters in one call, and texts of 500 characters in every version.
_MAX_METRICS, _MAX_PARAMS, _MAX_TEXT = 900, 100, 500
_KEY = "dnad_ray.trial"


@final
class MlflowLog(TrialLog):
    """Writes into the server of ``MLFLOW_TRACKING_URI``, or else into ``mlflow.db`` in the run folder.

    The experiment is ``MLFLOW_EXPERIMENT_NAME``, or else the name of the run.
    """

    def __init__(self) -> None:
        self._client: Any = None
        self._entities: Any = None
        self._experiment = self._folder = ""
        self._ids: dict[str, str] = {}
        self._waiting: dict[str, list[Any]] = {}
        self._written = 0.0

    def begin_run(self, run: Standing) -> None:
        """Connect, and find or make the experiment."""
        self._folder = address(run.folder)
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        # A database is a file on a disk: of the run, or of this folder where the run is at a URL.
        local = run.folder if on_disk(run.folder) else Path.cwd()
        artifacts = None if uri else (local / "mlflow-artifacts").as_uri()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations between MLflow and its database library
            self._entities = optional_module("mlflow.entities")
            tracking = optional_module("mlflow.tracking")
            self._client = tracking.MlflowClient(tracking_uri=uri or f"sqlite:///{mlflow_file(local)}")
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.name
            found = self._client.get_experiment_by_name(name)
            self._experiment = (
                found.experiment_id if found else self._client.create_experiment(name, artifact_location=artifacts)
            )

    def take_up(self, trial: TrialStanding, records: Sequence[Record]) -> tuple[int, int]:
        """Find the trial's MLflow run and write the missing records."""
        run_id = self._run_id(trial)
        report_step, snapshot_step = (
            max((entry.step for entry in self._client.get_metric_history(run_id, name)), default=0)
            for name in ("num_operations", "macs")
        )
        for record in after(records, report_step, snapshot_step):
            self._add(trial, record)
        self._flush(trial)
        if trial.state.is_finished:
            self.end(trial)
        return report_step, snapshot_step

    def begin(self, trial: TrialStanding) -> None:
        """Create the trial's MLflow run, or continue the existing one."""
        self._client.update_run(self._run_id(trial), status=trial.state.mlflow)

    def write(self, trial: TrialStanding, record: Record) -> None:
        """Write a record, together with others if they come fast."""
        self._add(trial, record)
        if time.monotonic() - self._written > _SECONDS or len(self._waiting[trial.spec.name]) > _MAX_METRICS:
            self._flush(trial)
            self._written = time.monotonic()

    def end(self, trial: TrialStanding) -> None:
        """Write waiting records and the final state of the trial."""
        self._flush(trial)
        self._client.set_terminated(self._run_id(trial), status=trial.state.mlflow)
        self._ids.pop(trial.spec.name)

    def _add(self, trial: TrialStanding, record: Record) -> None:
        now = int(1000 * time.time())
        entries = [self._entities.Metric(name, value, now, record.step) for name, value in scalars_of(record).items()]
        self._waiting.setdefault(trial.spec.name, []).extend(entries)

    def _flush(self, trial: TrialStanding) -> None:
        entries = self._waiting.pop(trial.spec.name, [])
        for first in range(0, len(entries), _MAX_METRICS):
            self._client.log_batch(self._run_id(trial), metrics=entries[first : first + _MAX_METRICS])

    def _run_id(self, trial: TrialStanding) -> str:
        name = trial.spec.name
        if name not in self._ids:
            # Two run folders may share a name, and a server.
            key = f"{hashlib.sha256(self._folder.encode()).hexdigest()[:16]}-{name}"
            found = self._client.search_runs([self._experiment], filter_string=f"tags.`{_KEY}` = '{key}'")
            self._ids[name] = found[0].info.run_id if found else self._create(trial, key)
        return self._ids[name]

    def _create(self, trial: TrialStanding, key: str) -> str:
        tags = {_KEY: key, "dnad_ray.folder": self._folder, "dnad_ray.overrides": trial.spec.label}
        run = self._client.create_run(self._experiment, run_name=trial.spec.name, tags=tags)
        config = dotted(config_to_dict(trial.spec.config), whole=("sweep.grid",))
        params = [self._entities.Param(name, str(value)[:_MAX_TEXT]) for name, value in config.items()]
        for first in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(run.info.run_id, params=params[first : first + _MAX_PARAMS])
        return str(run.info.run_id)
