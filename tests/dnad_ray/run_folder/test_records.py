"""Records are plain data, and one table knows every metric."""

from __future__ import annotations

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dnad_ray.errors import RunFolderError
from dnad_ray.networks.scores import SCORES
from dnad_ray.run_folder import snapshot_table
from dnad_ray.run_folder.fields import kinds_of
from dnad_ray.run_folder.metrics import METRICS, Metric, metric
from dnad_ray.run_folder.records import SNAPSHOT_COLUMNS, EpochReport, Measurement, Retrained, Snapshot
from dnad_ray.run_folder.snapshot_table import ARROW_SCHEMA, parse_snapshots, table_of

CONTRACT = {
    *("run", "trial", "seed", "step", "epoch", "digest", "macs", "params", "num_operations", "proxy_accuracy", "kind"),
    *("shrink_rate", "kd_kind", "kd_temperature", "kd_weight", "device_seconds"),
}


def test_snapshot_columns_hold_the_contract():
    assert set(SNAPSHOT_COLUMNS) >= CONTRACT
    assert len(SNAPSHOT_COLUMNS) == len(set(SNAPSHOT_COLUMNS))


def test_snapshot_round_trip_through_json(a_snapshot):
    for snapshot in (a_snapshot, dataclasses.replace(a_snapshot, kd_temperature=None, train_loss=None)):
        data = json.loads(json.dumps(snapshot.to_dict(), allow_nan=False))
        assert tuple(data) == SNAPSHOT_COLUMNS
        assert Snapshot.from_dict(data) == snapshot
        assert Snapshot.from_dict({**data, "of a newer version": 1}) == snapshot


def test_snapshot_without_a_field_is_refused(a_snapshot):
    for name in set(SNAPSHOT_COLUMNS) - {"costs_traced", "in_channels", "rung", "score", *SCORES}:
        data = a_snapshot.to_dict()
        del data[name]
        with pytest.raises(KeyError, match=name):
            Snapshot.from_dict(data)


@pytest.mark.parametrize(("name", "default"), [("costs_traced", False), ("in_channels", 0)])
def test_snapshot_of_an_older_version_does_not_say_all(name, default, a_snapshot):
    data = a_snapshot.to_dict()
    assert data[name] == 1
    del data[name]
    assert Snapshot.from_dict(data) == dataclasses.replace(a_snapshot, **{name: default})
    assert name not in data


def test_kinds_of_all_records_are_in_the_table():
    for record in (Snapshot, EpochReport, Retrained, Measurement):
        for field, kind in zip(dataclasses.fields(record), kinds_of(record).values(), strict=True):
            is_text = str(field.type) in ("str", "SnapshotKind")
            assert kind.name == ("text" if is_text else field.type)
            assert kind.arrow or field.name == "operation_weights"
            assert kind.may_miss == str(field.type).endswith("None")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("step", "24"), ("step", None), ("trial", ["t00"]), ("macs", 1.5), ("proxy_accuracy", None)),
        *(("step", True), ("counter", True), ("gamma", False), ("costs_traced", 1), ("costs_traced", None)),
    ],
)
def test_snapshot_field_of_another_type_is_refused(name, value, a_snapshot):
    with pytest.raises(TypeError, match=name):
        Snapshot.from_dict({**a_snapshot.to_dict(), name: value})


def test_snapshot_whole_number_where_a_float_may_be(a_snapshot):
    # JSON written by others has no 1.0.
    assert Snapshot.from_dict({**a_snapshot.to_dict(), "proxy_accuracy": 1, "kd_temperature": 4}).proxy_accuracy == 1


def test_snapshot_and_report_are_frozen(a_snapshot):
    with pytest.raises(dataclasses.FrozenInstanceError):
        a_snapshot.step = 3  # type: ignore[misc]
    numbers = dict.fromkeys(("train_loss", "train_accuracy", "gamma", "mu", "sparsity", "device_seconds"), 0.5)
    report = EpochReport(step=1, epoch=1, num_operations=3, kd_loss=None, **numbers)
    assert json.loads(json.dumps(report.to_dict()))["kd_loss"] is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.epoch = 3  # type: ignore[misc]


def test_metrics_know_direction_and_unit_of_what_is_weighed():
    directions = {name: METRICS[name].minimise for name in ("error", "macs", "params", "proxy_accuracy", "gamma")}
    assert directions == {"error": True, "macs": True, "params": True, "proxy_accuracy": False, "gamma": None}
    assert all(name == entry.name for name, entry in METRICS.items())
    assert all(format(1.0, entry.format) for entry in METRICS.values())


def test_metrics_never_call_a_proxy_an_accuracy():
    # Only a network trained from scratch has an accuracy, and that is of test images.
    assert METRICS["accuracy"].label == "Test accuracy"
    assert METRICS["test_error"].label == "Test error"
    assert "accuracy" not in SNAPSHOT_COLUMNS
    assert METRICS["proxy_accuracy"].label.startswith("Proxy")


def test_metric_of_an_unknown_column_is_plain():
    assert metric("config.note") == Metric("config.note", "config.note", "", None, ".4g")
    assert metric("macs") is METRICS["macs"]
    assert metric("macs").axis == "MACs (multiply-adds per image)"
    assert metric("params").axis == "Parameters"


@pytest.mark.parametrize("value", [True, 2**63, -(2**63), 1.5, None, "7"])
def test_epoch_report_of_another_type_is_refused(value):
    good = EpochReport(
        step=3, epoch=1, num_operations=9, train_loss=1.0, train_accuracy=0.5, kd_loss=None, gamma=0.1, mu=1.0,
        sparsity=4.0, device_seconds=2.0,
    ).to_dict()  # fmt: skip
    assert EpochReport.from_dict(good | {"extra": 1}).to_dict() == good
    with pytest.raises(TypeError, match="step is"):
        EpochReport.from_dict(good | {"step": value})


@pytest.mark.parametrize(
    "weights",
    [{"conv": [0.5, 1.5]}, {"conv": "half"}, {"conv": [True]}, {"x" * 101: [0.5]}, {"conv": [0.0] * 201}, [0.5]],
)
def test_epoch_report_with_weights_that_are_no_shares_is_refused(weights):
    plain = {"step": 3, "epoch": 1, "num_operations": 9, "train_loss": 1.0, "train_accuracy": 0.5, "kd_loss": None}
    plain |= {"gamma": 0.1, "mu": 1.0, "sparsity": 4.0, "device_seconds": 2.0}
    assert EpochReport.from_dict(plain).operation_weights is None  # an older version kept none
    good = {"conv": [0.25, 1], "skip": [0.75, 0.0]}
    assert EpochReport.from_dict(plain | {"operation_weights": good}).operation_weights == good
    with pytest.raises(TypeError, match="operation_weights is"):
        EpochReport.from_dict(plain | {"operation_weights": weights})


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        *(("proxy_accuracy", 0, 1), ("train_accuracy", 0, 1), ("macs", 0, 10**15), ("step", 0, 10**12)),
        *(("epoch", 0, 10**7), ("num_operations", 0, 10**7), ("image_size", 0, 10**5), ("device_seconds", 0, 10**12)),
        *(("train_loss", -1e39, 1e39), ("score", -1e39, 1e39)),
    ],
)
def test_snapshot_number_out_of_bounds_is_refused_by_rows_and_columns(name, least, most, a_snapshot, monkeypatch):
    row = a_snapshot.to_dict()

    def in_columns(value):
        kind = ARROW_SCHEMA.field(name).type
        table = table_of([row]).set_column(SNAPSHOT_COLUMNS.index(name), name, pa.array([value], kind))
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        return parse_snapshots(buffer.getvalue().to_pybytes(), "s").to_pylist()[0][name]

    for value in (least, most):
        assert Snapshot.from_dict(row | {name: value}).to_dict()[name] == in_columns(value) == value
    is_float = ARROW_SCHEMA.field(name).type == pa.float64()
    beyond = [least - 1, most + 1] if abs(most) < 1e20 else [1.01 * least, 1.01 * most]
    for value in (*beyond, *([1e300, float("nan"), float("-inf")] if is_float else [2**62])):
        with pytest.raises(TypeError, match=rf"^{name} is .*, not from "):
            Snapshot.from_dict(row | {name: value})
        with pytest.raises(TypeError, match=rf"^{name} is .*, not from "):
            in_columns(value)  # as of a single record
        with monkeypatch.context() as patch:
            patch.setattr(snapshot_table, "_FEW_ROWS", -1)
            with pytest.raises(RunFolderError, match=f"^{name}: got 'NaN, or a number out of bounds'; allowed: "):
                in_columns(value)


def test_snapshot_integer_beyond_the_digits_of_a_float_is_one(a_snapshot):
    found = Snapshot.from_dict(a_snapshot.to_dict() | {"gamma": 2**53 + 1})
    assert (type(found.gamma), table_of([found.to_dict()]).column("gamma").to_pylist()) == (float, [2.0**53])
