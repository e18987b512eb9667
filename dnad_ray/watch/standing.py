"""Where a run stands, from what its trials have reported: the one state that every display reads."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from dnad_ray.run_folder.reading import RunContents
from dnad_ray.run_folder.records import EpochReport, Snapshot
from dnad_ray.storage.places import Place
from dnad_ray.trials.spec import DONE, TrialSpec
from dnad_ray.watch.running_front import RunningFront

__all__ = ["Record", "Standing", "TrialStanding", "stored_records"]

Record = EpochReport | Snapshot
"""What a trial reports."""

_STATES = ("running", "failed", "stopped", "finished", "dominated", "paused", "waiting")


def _rank(state: str) -> int:
    # A status file may say anything.
    return _STATES.index(state) if state in _STATES else len(_STATES)


@dataclass(slots=True)
class TrialStanding:
    """Where a trial stands.

    Attributes:
        spec: The trial.
        state: ``waiting``, ``running``, or as it ended: ``finished``, ``stopped``, ``failed``.
        epoch: Epochs completed.
        num_operations: Operations alive; None before the first report.
        macs: MACs of the last snapshot; None before the first one.
        proxy_accuracy: That of the last snapshot.
        num_snapshots: Snapshots recorded.
        report_step: Step of the last epoch report, 0 before the first one.
        snapshot_step: Step of the last snapshot, likewise; what is reported again is older.
        first: Time and epochs completed at the first epoch report in this process; starting a worker is no epoch.
        latest: The same at the last one.
        reason: Why it stopped or failed.
    """

    spec: TrialSpec
    state: str = "waiting"
    epoch: int = 0
    num_operations: int | None = None
    macs: int | None = None
    proxy_accuracy: float | None = None
    num_snapshots: int = 0
    report_step: int = 0
    snapshot_step: int = 0
    first: tuple[float, int] | None = None
    latest: tuple[float, int] | None = None
    reason: str | None = None

    @property
    def epochs(self) -> int:
        """Most epochs that it takes."""
        return self.spec.config.train.epochs

    @property
    def share(self) -> float:
        """Share of its epochs that is behind it; all of them where the floor ended it earlier."""
        return 1.0 if self.state in DONE else self.epoch / self.epochs

    @property
    def pace(self) -> float | None:
        """Seconds per epoch in this process, None before its second report here."""
        if self.first is None or self.latest is None or self.latest[1] <= self.first[1]:
            return None
        return (self.latest[0] - self.first[0]) / (self.latest[1] - self.first[1])

    def seconds_left(self, now: float, pace: float | None = None) -> float | None:
        """Return how long it will take at most: it gets faster while it shrinks, and may reach the floor earlier.

        Args:
            now: Time on the clock of the standing.
            pace: Seconds per epoch to reckon with before there is a pace of its own.
        """
        pace = self.pace or pace
        if pace is None or self.state != "running":
            return None
        since = now - self.latest[0] if self.latest is not None else 0.0
        return max(0.0, pace * (self.epochs - self.epoch) - since)


@final
class Standing:
    """Where a run stands; memory follows its trials and its front, not the number of reports.

    Args:
        folder: The run folder; its name is that of the run.
        specs: Its trials.
        clock: Seconds since some moment.
    """

    def __init__(self, folder: Place, specs: Sequence[TrialSpec], clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.folder, self._clock = folder.name, folder, clock
        self.trials = {spec.name: TrialStanding(spec) for spec in specs}
        self.front = RunningFront()
        self.num_snapshots = 0
        self.began = clock()

    @property
    def now(self) -> float:
        """Seconds on the clock."""
        return self._clock()

    def take_up(self, contents: RunContents) -> None:
        """Begin where an earlier command ended."""
        for name, records in stored_records(contents).items():
            if name in self.trials:
                for record in records:
                    self.report(name, record)
        for name, trial in self.trials.items():
            trial.first = trial.latest = None  # reading is no pace
            status = contents.status.get(name, {})
            if (state := str(status.get("state"))) in DONE:  # as text: a file may say anything
                trial.state, trial.reason = state, status.get("reason")

    def expect(self, spec: TrialSpec) -> None:
        """Take note of a trial that was added, or whose setting was chosen only now."""
        if spec.name in self.trials:
            self.trials[spec.name].spec = spec
        else:  # a new dictionary: another thread may be drawing the old one
            self.trials = {**self.trials, spec.name: TrialStanding(spec)}

    def begin(self, name: str) -> None:
        """Note that a trial runs."""
        trial = self.trials[name]
        trial.state, trial.first, trial.latest = "running", None, None

    def report(self, name: str, record: Record) -> bool:
        """Note a record; returns False for one that is reported again, because a trial repeats steps after a failure.

        Searches repeat bit for bit, so nothing but the time can differ in the second record.
        """
        trial = self.trials[name]
        if isinstance(record, Snapshot):
            if record.step <= trial.snapshot_step:
                return False
            trial.snapshot_step = record.step
            trial.macs, trial.proxy_accuracy = record.macs, record.proxy_accuracy
            trial.num_snapshots += 1
            self.num_snapshots += 1
            self.front.offer(record)
        elif record.step <= trial.report_step:
            return False
        else:
            trial.report_step = record.step
            trial.epoch = record.epoch
            trial.latest = (self.now, record.epoch)
            trial.first = trial.first or trial.latest
        trial.num_operations = record.num_operations
        return True

    def end(self, name: str, state: str, reason: str | None) -> None:
        """Note how a trial ended."""
        trial = self.trials[name]
        trial.state, trial.reason = state, reason

    def by_interest(self) -> list[TrialStanding]:
        """Return the trials: those that run, then those that ended, by their points on the front, then the waiting."""
        return sorted(self.trials.values(), key=self._interest)

    def _interest(self, trial: TrialStanding) -> tuple[int, int]:
        # The order of what runs stays as it is, so that its lines do not jump.
        return _rank(trial.state), -self.front.count_of[trial.spec.name] if trial.state in DONE else 0

    def counts(self) -> dict[str, int]:
        """Return how many trials are in each state, in the same order."""
        counts = Counter(trial.state for trial in self.by_interest())
        return dict(counts)

    def num_in(self, *states: str) -> int:
        """Return how many trials are in one of the states."""
        return sum(trial.state in states for trial in self.trials.values())

    def seconds_left(self) -> float | None:
        """Return how long the run will take, None while nothing can be told.

        What runs is counted to its last epoch; what waits is taken to need the share of its epochs that ended trials
        needed, at the mean pace of all.
        """
        trials = self.trials.values()
        paces = [trial.pace for trial in trials if trial.pace is not None]
        if not paces or all(trial.state not in ("running", "waiting") for trial in trials):
            return None
        mean, now = sum(paces) / len(paces), self.now
        ended = [trial.epoch / trial.epochs for trial in trials if trial.state == "finished" and trial.epoch]
        usual = sum(ended) / len(ended) if ended else 1.0
        left = [trial.seconds_left(now, mean) or 0.0 for trial in trials if trial.state == "running"]
        waiting = sum(mean * usual * trial.epochs for trial in trials if trial.state == "waiting")
        return max(*left, 0.0, (sum(left) + waiting) / max(1, len(left)))


def stored_records(contents: RunContents) -> dict[str, list[Record]]:
    """Return what a run folder holds of each trial, in the order in which the trial reported it."""
    records: dict[str, list[Record]] = {}
    for row in contents.snapshots:
        if row["kind"] == "ladder":  # they are in the run folder; nobody who watches is told of them
            continue
        records.setdefault(row["trial"], []).append(Snapshot.from_dict(row))
    for name, history in contents.history.items():
        for entry in history:
            try:
                records.setdefault(name, []).append(EpochReport.from_dict(entry))
            except (KeyError, TypeError):  # a file that somebody edited; the trial itself goes by its checkpoint
                continue
    # The snapshot of a step comes before the report of that step.
    for trial in records.values():
        trial.sort(key=lambda record: (record.step, isinstance(record, EpochReport)))
    return records
