"""Reports from a trial to the driver of its sweep.

A report waits until the driver has processed it, which costs both of them some milliseconds, and small trials have
dozens of records in a few seconds. So the records since the last report are sent together. Nothing is lost: they are
also sent before each checkpoint, after which the trial would not repeat them, and at the end of the trial.
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
"""Least time between two reports; each one delays its trial by about 10 ms."""


def metrics_of(records: Sequence[EpochReport | Snapshot], at_end: bool) -> dict[str, Any]:
    """Return the metrics of a report, for Tune, its callbacks, the scheduler and the searcher.

    Args:
        records: The records since the last report, at least one.
        at_end: Whether the trial is finished with the last of them.
    """
    newest = records[-1]
    return {
        "epoch": newest.epoch,
        "step": newest.step,
        "num_operations": newest.num_operations,
        "device_seconds": newest.device_seconds,
        "at_end": at_end,
        # As text and in a list, because Tune keeps running statistics of every plain number.
        "records": json.dumps([record.to_dict() for record in records]),
        "points": [
            (record.step, record.macs, 1 - record.proxy_accuracy) for record in records if isinstance(record, Snapshot)
        ],
    }


def records_in(metrics: Mapping[str, Any]) -> Iterator[EpochReport | Snapshot]:
    """Yield the records of a report in their order."""
    for data in parse_json(metrics.get("records", "[]").encode(), "records"):
        yield Snapshot.from_dict(data) if "kind" in data else EpochReport.from_dict(data)


@final
class TrialReporter:
    """Sends the records of a trial to the driver, several at a time.

    Args:
        send: Sends the result of :func:`metrics_of`, and returns when the driver has processed it.
        seconds: Least time between two reports.
    """

    def __init__(self, send: Callable[[dict[str, Any]], Any], seconds: float | None = None) -> None:
        self._send, self._seconds = send, REPORT_SECONDS if seconds is None else seconds
        self._records: list[EpochReport | Snapshot] = []
        self._at_end = False
        self._last = -math.inf

    def add(self, record: EpochReport | Snapshot, at_end: bool) -> None:
        """Add a record, and send a report if the last one is old enough.

        Args:
            record: The record; it is in the run folder already.
            at_end: Whether the trial is finished; :meth:`end` then sends the rest.
        """
        self._records.append(record)
        self._at_end = at_end
        if not at_end and time.monotonic() - self._last >= self._seconds:
            self.flush()

    def flush(self, **more: Any) -> None:
        """Send the records that were not sent yet, and ``more``; nothing if there is neither."""
        metrics = metrics_of(self._records, self._at_end) if self._records else {}
        self._records = []
        if metrics or more:
            self._send({**metrics, **more})
        self._last = time.monotonic()

    def end(self, **more: Any) -> None:
        """Send the records that were not sent yet, and that these are the last: Tune then does not ask again."""
        if self._records or more:
            self.flush(**more, done=True)
