"""What a trial tells the driver: seldom, in order, and all of it."""

from __future__ import annotations

import dataclasses

import pytest

from dnad_ray.on_ray import reports as reporting
from dnad_ray.on_ray.reports import TrialReporter, metrics_of, records_in
from dnad_ray.run_folder.records import EpochReport

REPORT = EpochReport(
    step=7,
    epoch=1,
    num_operations=30,
    train_loss=2.0,
    train_accuracy=0.5,
    kd_loss=None,
    gamma=0.1,
    mu=1.0,
    sparsity=20.0,
    device_seconds=0.25,
    operation_weights={"skip_connect": [0.5]},
)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def sent():
    return []


def later(record, step):
    return dataclasses.replace(record, step=step)


def test_metrics_tell_of_all_records_and_where_the_newest_stands(a_snapshot):
    snapshots = [later(a_snapshot, 5), later(a_snapshot, 7)]
    metrics = metrics_of([*snapshots, REPORT], at_end=True)
    point = (a_snapshot.macs, 1 - a_snapshot.proxy_accuracy)
    assert metrics.pop("points") == [(5, *point), (7, *point)]
    assert list(records_in(metrics)) == [*snapshots, REPORT]
    del metrics["records"]
    assert metrics == {"epoch": 1, "step": 7, "num_operations": 30, "device_seconds": 0.25, "at_end": True}


def test_records_in_a_report_that_tells_of_none():
    assert list(records_in({"stopped": "the time budget was spent"})) == []


def test_reporter_waits_its_time_and_then_tells_everything_in_order(clock, sent, a_snapshot):
    reporter = TrialReporter(sent.append, seconds=1.0)
    reporter.add(REPORT, False)
    assert len(sent) == 1  # that it began to learn is told at once
    clock[0] += 0.9
    reporter.add(later(a_snapshot, 8), False)
    assert len(sent) == 1
    clock[0] += 0.2
    reporter.add(later(REPORT, 9), False)
    assert [[record.step for record in records_in(metrics)] for metrics in sent] == [[7], [8, 9]]
    assert not any("done" in metrics for metrics in sent)


def test_reporter_keeps_the_last_records_for_the_end(clock, sent, a_snapshot):
    reporter = TrialReporter(sent.append, seconds=0.0)
    reporter.add(later(a_snapshot, 8), True)
    reporter.add(later(REPORT, 8), True)
    assert sent == []
    reporter.end()
    (last,) = sent
    assert (last["at_end"], last["done"], len(list(records_in(last)))) == (True, True, 2)


def test_reporter_flushes_once(clock, sent):
    reporter = TrialReporter(sent.append, seconds=60.0)
    for step in (7, 8):
        reporter.add(later(REPORT, step), False)
    reporter.flush()
    reporter.flush()
    assert [metrics["step"] for metrics in sent] == [7, 8]
    reporter.end()  # there is nothing to tell; that the function returns is enough
    assert len(sent) == 2
    reporter.end(stopped="enough")
    assert sent[-1] == {"stopped": "enough", "done": True}
