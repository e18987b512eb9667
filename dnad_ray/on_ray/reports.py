"""What a trial tells the driver of its sweep, no more often than somebody looks.

A report waits until the driver has dealt with it, and costs both of them some milliseconds; small trials have dozens
of records in a few seconds. What happened since the last report therefore goes together, and nothing gets lost: all
of it is told before a checkpoint after which it would not be repeated, and at the end of the trial.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

from dnad_ray.run_folder.records import EpochReport, Snapshot
from search_spaces.json_reader import parse_json

__all__ = ["TrialReporter", "metrics_of", "records_in"]

REPORT_SECONDS = 2.0
"""Least time between two reports: each holds up its trial, until the driver has dealt with it, for some 10 ms."""


def metrics_of(records: Sequence[EpochReport | Snapshot], at_end: bool) -> dict[str, Any]:
    """Return what Tune, its callbacks, scheduler and searcher are told.

    Args:
        records: What happened since the last report, one at least.
        at_end: Whether the trial came to its end with the last of them.
    """
    newest = records[-1]
    return {
        "epoch": newest.epoch,
        "step": newest.step,
        "num_operations": newest.num_operations,
        "device_seconds": newest.device_seconds,
        "at_end": at_end,
        # As text and in a list: Tune keeps running statistics of every number that it finds, for every trial.
        "records": json.dumps([record.to_dict() for record in records]),
        "points": [
            (record.step, record.macs, 1 - record.proxy_accuracy) for record in records if isinstance(record, Snapshot)
        ],
    }


def records_in(metrics: Mapping[str, Any]) -> Iterator[EpochReport | Snapshot]:
    """Yield the records of a report in the order in which they came; none if it tells of no record."""
    for data in parse_json(metrics.get("records", "[]").encode(), "records"):
        yield Snapshot.from_dict(data) if "kind" in data else EpochReport.from_dict(data)


@final
class TrialReporter:
    """Tells what a trial records, at most once in a while.

    Args:
        send: Takes what :func:`metrics_of` returned, and returns when it was dealt with.
        seconds: Least time between two reports.
    """

    def __init__(self, send: Callable[[dict[str, Any]], Any], seconds: float | None = None) -> None:
        self._send, self._seconds = send, REPORT_SECONDS if seconds is None else seconds
        self._records: list[EpochReport | Snapshot] = []
        self._at_end = False
        self._last = -math.inf

    def add(self, record: EpochReport | Snapshot, at_end: bool) -> None:
        """Take a record, and report if it is time.

        Args:
            record: It stands in the run folder.
            at_end: Whether the trial is at its end; :meth:`end` then tells of the rest.
        """
        self._records.append(record)
        self._at_end = at_end
        if not at_end and time.monotonic() - self._last >= self._seconds:
            self.flush()

    def flush(self, **more: Any) -> None:
        """Report what was not reported yet, and ``more``; nothing if there is neither."""
        metrics = metrics_of(self._records, self._at_end) if self._records else {}
        self._records = []
        if metrics or more:
            self._send({**metrics, **more})
        self._last = time.monotonic()

    def end(self, **more: Any) -> None:
        """Report what was not reported yet, and that no more will come: Tune need not ask once more."""
        if self._records or more:
            self.flush(**more, done=True)
