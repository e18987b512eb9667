"""Numbers of every trial for loggers that draw curves: each record once, also after a resume."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, final

from dnad_ray.errors import ConfigError
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.text import install_command
from dnad_ray.watch.moments import Moment, Reported, RunBegan, RunEnded, TrialBegan, TrialEnded
from dnad_ray.watch.standing import Record, Standing, TrialStanding, stored_records

__all__ = ["Logbook", "TrialLog", "after", "check_loggers", "optional_module", "scalars_of"]

# No name is in both, so the names of a stored point tell the kind of its record.
_REPORT_SCALARS = (
    "train_loss",
    "train_accuracy",
    "kd_loss",
    "gamma",
    "mu",
    "sparsity",
    "num_operations",
    "device_seconds",
)
_SNAPSHOT_SCALARS = ("proxy_accuracy", "macs", "macs_conv_linear", "params")


def scalars_of(record: Record) -> dict[str, float]:
    """Return the numbers of a record that make curves, by their names in ``METRICS``."""
    names = _SNAPSHOT_SCALARS if isinstance(record, Snapshot) else _REPORT_SCALARS
    values = {name: getattr(record, name) for name in names}
    if isinstance(record, Snapshot):
        values["error"] = 1.0 - record.proxy_accuracy
    return {name: float(value) for name, value in values.items() if value is not None}


def after(records: Iterable[Record], report_step: int, snapshot_step: int) -> list[Record]:
    """Return the records that are newer than the last logged ones of their kind."""
    return [
        record for record in records if record.step > (snapshot_step if isinstance(record, Snapshot) else report_step)
    ]


class TrialLog(ABC):
    """A logger for the curves of trials."""

    @abstractmethod
    def begin_run(self, run: Standing) -> None:
        """Open the log of a run; an earlier command may have written into it."""

    @abstractmethod
    def take_up(self, trial: TrialStanding, records: Sequence[Record]) -> tuple[int, int]:
        """Take all stored records of a trial, in order of their steps, and write those that are not in the log yet.

        Returns:
            Steps of the last epoch report and of the last snapshot that were in the log before, 0 where there are
            none or the log does not know. They may be later than the records: a trial that starts from the beginning,
            without an intact checkpoint, has a shorter history than an earlier command has logged.
        """

    @abstractmethod
    def begin(self, trial: TrialStanding) -> None:
        """Note that a trial runs."""

    @abstractmethod
    def write(self, trial: TrialStanding, record: Record) -> None:
        """Write a record that is newer than all written before."""

    @abstractmethod
    def end(self, trial: TrialStanding) -> None:
        """Close the log of a trial that ended, or that an interrupted command leaves behind."""


@final
class Logbook:
    """Shows a run to a log.

    Args:
        log: Where the curves go.
    """

    def __init__(self, log: TrialLog) -> None:
        self._log = log
        self.__name__ = type(log).__name__
        self._open: set[str] = set()
        self._had: dict[str, tuple[int, int]] = {}

    def __call__(self, moment: Moment) -> None:
        """Write what belongs into the log."""
        match moment:
            case RunBegan(run, stored):
                self._log.begin_run(run)
                for name, records in (stored_records(stored) if stored is not None else {}).items():
                    if name in run.trials:
                        self._had[name] = self._log.take_up(run.trials[name], records)
            case TrialBegan(_, trial):
                self._open.add(trial.spec.name)
                self._log.begin(trial)
            case Reported(_, trial, record):
                if after([record], *self._had.get(trial.spec.name, (0, 0))):
                    self._log.write(trial, record)
            case TrialEnded(_, trial):
                self._open.discard(trial.spec.name)
                self._log.end(trial)
            case RunEnded(run):
                while self._open:
                    self._log.end(run.trials[self._open.pop()])


def check_loggers(names: Sequence[str]) -> None:
    """Check that the packages of the wanted loggers are installed; imports none.

    Raises:
        ConfigError: If one is missing.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError("watch.loggers", name, f"an installed package: {install_command(name)}")


def optional_module(name: str) -> Any:
    """Import a module of an optional package.

    Raises:
        ConfigError: If the package is missing.
    """
    check_loggers([name.partition(".")[0]])
    return importlib.import_module(name)
