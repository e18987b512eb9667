"""The state of a run from what its trials have reported; every display reads this one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from dnad_ray.run_folder.reading import RunContents
from dnad_ray.run_folder.records import EpochReport, Snapshot
from dnad_ray.run_folder.states import TrialState, state_of
from dnad_ray.storage.places import Place
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.running_front import RunningFront

__all__ = ["Record", "Standing", "TrialStanding", "stored_records"]

Record = EpochReport | Snapshot
"""What a trial reports."""


@dataclass(slots=True)
class TrialStanding:
    """The state of a trial, from its reports.

    Attributes:
        spec: The trial.
        state: WAITING, RUNNING, or as it ended.
        epoch: Epochs completed.
        part: Epochs completed, with the part of the present one; 0 before the first step was noted.
        num_operations: Operations alive; None before the first report.
        macs: MACs of the last snapshot; None before the first one.
        proxy_accuracy: That of the last snapshot.
        num_snapshots: Snapshots recorded.
        report_step: Step of the last epoch report, 0 before the first one.
        snapshot_step: Step of the last snapshot, likewise; what is reported again is older.
        first: Time and epochs completed, with parts, at the first report or step in this process; starting a worker
            is no epoch.
        latest: The same at the last one.
        reason: Why it stopped or failed.
    """

    spec: TrialSpec
    state: TrialState = TrialState.WAITING
    epoch: int = 0
    part: float = 0.0
    num_operations: int | None = None
    macs: int | None = None
    proxy_accuracy: float | None = None
    num_snapshots: int = 0
    report_step: int = 0
    snapshot_step: int = 0
    first: tuple[float, float] | None = None
    latest: tuple[float, float] | None = None
    reason: str | None = None

    @property
    def epochs(self) -> int:
        """Largest number of epochs of the trial."""
        return self.spec.config.train.epochs

    @property
    def share(self) -> float:
        """Completed share of the epochs; 1 if the floor ended the trial earlier."""
        return 1.0 if self.state.is_finished else max(self.epoch, self.part) / self.epochs

    @property
    def pace(self) -> float | None:
        """Seconds per epoch in this process, None before its second report or step here."""
        if self.first is None or self.latest is None or self.latest[1] <= self.first[1]:
            return None
        return (self.latest[0] - self.first[0]) / (self.latest[1] - self.first[1])

    def seconds_left(self, now: float, pace: float | None = None) -> float | None:
        """Return an upper bound of the remaining time: a search gets faster as it shrinks and may end early.

        Args:
            now: Time on the clock of the standing.
            pace: Seconds per epoch to assume before the trial has a pace of its own.
        """
        pace = self.pace or pace
        if pace is None or self.state is not TrialState.RUNNING:
            return None
        since = now - self.latest[0] if self.latest is not None else 0.0
        return max(0.0, pace * (self.epochs - max(self.epoch, self.part)) - since)


@final
class Standing:
    """The state of a run, from the reports of its trials. Memory grows with trials and front, not with the reports.

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
        """Continue from the state at the end of an earlier command."""
        for name, records in stored_records(contents).items():
            if name in self.trials:
                for record in records:
                    self.report(name, record)
        for name, trial in self.trials.items():
            trial.first = trial.latest = None  # stored reports say nothing about the pace
            status = contents.status.get(name, {})
            if (state := state_of(status.get("state"))).is_finished:
                trial.state, trial.reason = state, status.get("reason")

    def expect(self, spec: TrialSpec) -> None:
        """Add a trial, or update the setting of one that was chosen later."""
        if spec.name in self.trials:
            self.trials[spec.name].spec = spec
        else:  # a new dictionary: another thread may be drawing the old one
            self.trials = {**self.trials, spec.name: TrialStanding(spec)}

    def begin(self, name: str) -> None:
        """Note that a trial runs."""
        trial = self.trials[name]
        trial.state, trial.first, trial.latest = TrialState.RUNNING, None, None

    def step(self, name: str, share: float) -> None:
        """Note which share of its steps a running trial has taken; what it repeats after a failure is no news."""
        trial = self.trials[name]
        part = share * trial.epochs
        if part > max(trial.epoch, trial.part):
            trial.part = part
            trial.latest = (self.now, part)
            trial.first = trial.first or trial.latest

    def report(self, name: str, record: Record) -> bool:
        """Add a record; returns False if it was reported before, because a trial repeats steps after a failure.

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
        trial.state, trial.reason = state_of(state), reason

    def by_interest(self) -> list[TrialStanding]:
        """Return the trials: running ones, then ended ones by their points on the front, then waiting ones."""
        return sorted(self.trials.values(), key=self._interest)

    def _interest(self, trial: TrialStanding) -> tuple[int, int]:
        # Running trials keep their order, so that their lines do not jump.
        return trial.state.rank, -self.front.count_of[trial.spec.name] if trial.state.is_finished else 0

    def counts(self) -> dict[TrialState, int]:
        """Return how many trials are in each state, in the same order."""
        counts = Counter(trial.state for trial in self.by_interest())
        return dict(counts)

    @property
    def num_finished(self) -> int:
        """How many trials have ended."""
        return sum(trial.state.is_finished for trial in self.trials.values())

    def seconds_left(self) -> float | None:
        """Return the remaining time of the run, None while it is not known.

        Running trials are counted to their last epoch. Waiting ones are assumed to need the same share of their epochs
        as ended trials, at the mean pace of all.
        """
        trials = self.trials.values()
        paces = [trial.pace for trial in trials if trial.pace is not None]
        if not paces or not any(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in trials):
            return None
        mean, now = sum(paces) / len(paces), self.now
        ended = [trial.epoch / trial.epochs for trial in trials if trial.state is TrialState.FINISHED and trial.epoch]
        usual = sum(ended) / len(ended) if ended else 1.0
        left = [trial.seconds_left(now, mean) or 0.0 for trial in trials if trial.state is TrialState.RUNNING]
        waiting = sum(mean * usual * trial.epochs for trial in trials if trial.state is TrialState.WAITING)
        return max(*left, 0.0, (sum(left) + waiting) / max(1, len(left)))


def stored_records(contents: RunContents) -> dict[str, list[Record]]:
    """Return what a run folder holds of each trial, in the order in which the trial reported it."""
    records: dict[str, list[Record]] = {}
    for row in contents.snapshots:
        if row["kind"] == "ladder":  # displays do not show them
            continue
        records.setdefault(row["trial"], []).append(Snapshot.from_dict(row))
    for name, history in contents.history.items():
        for entry in history:
            try:
                records.setdefault(name, []).append(EpochReport.from_dict(entry))
            except (KeyError, TypeError):  # an edited file; the trial itself uses its checkpoint
                continue
    # The snapshot of a step comes before the report of that step.
    for trial in records.values():
        trial.sort(key=lambda record: (record.step, isinstance(record, EpochReport)))
    return records
