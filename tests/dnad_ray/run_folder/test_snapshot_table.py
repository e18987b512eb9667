from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dnad_ray.errors import RunFolderError, UserError
from dnad_ray.run_folder import snapshot_table
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.records import SNAPSHOT_COLUMNS
from dnad_ray.run_folder.snapshot_table import ARROW_SCHEMA, checked_record, merge, parse_snapshots, table_of
from dnad_ray.run_folder.writing import create_run, write_parquet, write_snapshot
from search_spaces.genotype import CellGenotype, Edge, Genotype

GENOTYPE = Genotype((CellGenotype(False, ((Edge("skip_connect", 1),),)),))


@pytest.fixture(params=["few rows", "many rows"], autouse=True)
def _path(request, monkeypatch):
    """Few rows are taken one by one; here either way is taken by the same ones."""
    monkeypatch.setattr(snapshot_table, "_FEW_ROWS", 64 if request.param == "few rows" else -1)


@pytest.fixture
def rows(a_snapshot):
    return [
        (a_snapshot | {"trial": trial, "step": step, "digest": GENOTYPE.digest})
        for trial in ("t00", "t01")
        for step in (8, 16)
    ]


@pytest.fixture
def a_snapshot():
    return {
        "run": "demo", "trial": "t00", "seed": 0, "step": 8, "epoch": 1, "kind": "pruned", "digest": "d" * 16,
        "num_operations": 9, "macs": 1000, "macs_conv_linear": 900, "params": 30, "proxy_accuracy": 0.9,
        "train_loss": 0.5, "train_accuracy": 0.8, "shrink_rate": 0.05, "kd_kind": "none", "kd_temperature": None,
        "kd_weight": 1.0, "gamma": 0.1, "mu": 0.1, "sparsity": 20.0, "device_seconds": 3.0, "device": "cpu",
        "dataset": "digits", "image_size": 8, "num_classes": 10, "init_channels": 8, "counter": "c",
        "costs_traced": False, "in_channels": 1, "rung": 0, "score": 2.5,
        "jacov": None, "naswot": None, "synflow": None, "grad_norm": None, "zen": 2.5, "swap": None, "zico": None,
    }  # fmt: skip


def parquet_of(table):
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    return buffer.getvalue().to_pybytes()


def test_parse_snapshots_agrees_with_the_check_of_each_row(rows):
    table = parse_snapshots(parquet_of(table_of(rows)), "s")
    assert table.to_pylist() == [checked_record(row) for row in rows]
    assert tuple(table.column_names) == SNAPSHOT_COLUMNS
    assert parse_snapshots(parquet_of(ARROW_SCHEMA.empty_table()), "s").num_rows == 0


def test_parse_snapshots_fills_in_what_older_versions_did_not_say(rows):
    older = table_of(rows).drop_columns(["costs_traced", "in_channels", "rung", "score", "zen"])
    assert parse_snapshots(parquet_of(older), "s").column("costs_traced").to_pylist() == [False] * 4
    assert parse_snapshots(parquet_of(older), "s").column("in_channels").to_pylist() == [0] * 4
    assert parse_snapshots(parquet_of(older), "s").column("rung").to_pylist() == [0] * 4
    assert parse_snapshots(parquet_of(older), "s").column("score").to_pylist() == [None] * 4
    with pytest.raises(KeyError, match="macs"):
        parse_snapshots(parquet_of(older.drop_columns(["macs"])), "s")


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("macs", "many", TypeError),
        ("macs", 1.5, TypeError),
        ("macs", None, TypeError),
        ("kind", 3, TypeError),
        ("kind", None, TypeError),
        ("costs_traced", 1, TypeError),
        ("proxy_accuracy", float("nan"), (RunFolderError, TypeError)),
        ("kd_temperature", float("inf"), (RunFolderError, TypeError)),
        ("trial", "../t00", RunFolderError),
        ("trial", "t..0", RunFolderError),
        ("digest", "a\n", RunFolderError),
        ("digest", "a" * 101, RunFolderError),
        ("run", "x" * 1001, UserError),
    ],
)
def test_parse_snapshots_refuses_what_a_row_may_not_hold(rows, name, value, error):
    columns = {column: [row[column] for row in rows] for column in SNAPSHOT_COLUMNS}
    table = pa.table(columns | {name: [value] * len(rows)})
    with pytest.raises(error):
        parse_snapshots(parquet_of(table), "s")
    with pytest.raises((KeyError, TypeError, UserError)):
        checked_record(rows[0] | {name: value})


def test_merge_orders_by_trial_and_step_and_keeps_the_last_of_a_pair(rows):
    stored = table_of([rows[3], rows[0]])
    newer = rows[0] | {"macs": 7}
    merged = merge(stored, [rows[2], newer])
    assert [(row["trial"], row["step"], row["macs"]) for row in merged.to_pylist()] == [
        *(("t00", 8, 7), ("t01", 8, 1000), ("t01", 16, 1000)),
    ]
    ladder = [rows[0] | {"kind": "ladder", "rung": rung} for rung in (2, 1)]
    assert merge(table_of(ladder[:1]), [ladder[1], rows[0]]).column("rung").to_pylist() == [0, 1, 2]
    assert merge(ARROW_SCHEMA.empty_table(), []).num_rows == 0
    assert merge(table_of(rows), []).equals(table_of(rows))


def test_read_run_takes_older_files_from_the_table_and_reads_newer_ones(tmp_path, a_snapshot):
    from dnad_ray.run_folder.records import Snapshot

    folder = create_run(tmp_path / "demo", {}, "0.1")
    for step in (8, 16):
        record = Snapshot.from_dict(a_snapshot | {"step": step, "digest": GENOTYPE.digest})
        write_snapshot(folder, record, GENOTYPE)
    write_parquet(folder)
    older, newer = sorted(folder.glob("trials/t00/snapshots/*.json"))
    made = (folder / "snapshots.parquet").stat().st_mtime_ns
    for file, moment in ((older, made - 1), (newer, made + 1)):
        file.write_text("{")
        os.utime(file, ns=(moment, moment))
    contents = read_run(folder)
    assert [row["step"] for row in contents.snapshots] == [8, 16]
    assert len(contents.problems) == 1
    assert newer.name in contents.problems[0]
