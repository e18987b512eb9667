"""Run folders: whole or not at all, written once, and read back also while they grow or after they broke."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dnad_ray.errors import GenotypeError, ResourceError, RunFolderError
from dnad_ray.run_folder.reading import is_run, read_genotype, read_run, read_status, run_name
from dnad_ray.run_folder.records import SNAPSHOT_COLUMNS
from dnad_ray.run_folder.snapshot_table import ARROW_SCHEMA
from dnad_ray.run_folder.writing import (
    create_run,
    free_folder,
    write_history,
    write_parquet,
    write_snapshot,
    write_status,
)
from dnad_ray.storage import files
from dnad_ray.storage.checksums import parse_record
from dnad_ray.storage.files import write_bytes, write_json
from search_spaces.space import SearchSpace

DENSE = SearchSpace(operations=("sep_conv_3x3", "skip_connect"), num_cells=3, num_nodes=2).dense()


@pytest.fixture
def record(a_snapshot):
    def make(**values):
        return dataclasses.replace(a_snapshot, digest=DENSE.digest, **values)

    return make


@pytest.fixture
def run(tmp_path, record):
    """A run with two trials; the records were not written in order."""
    folder = create_run(tmp_path / "runs" / "demo", {"seed": 3, "train": {"epochs": 2}}, "0.1")
    for trial, step in (("t01", 8), ("t00", 16), ("t00", 8)):
        write_snapshot(folder, record(trial=trial, step=step), DENSE)
    write_history(folder, "t00", [{"epoch": 1}, {"epoch": 2}])
    write_status(folder, "t00", "finished", attempt=1)
    return folder


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_create_run_leaves_marker_and_configuration(tmp_path):
    folder = create_run(tmp_path / "new" / "deep" / "run-1.a_B", {"b": 1, "a": [1, 2]}, "0.1")
    assert folder.is_absolute()
    assert files_of(folder) == ["config.yaml", "run.json"]
    *lines, last = (folder / "config.yaml").read_text().splitlines()
    assert lines == ["b: 1", "a:", "- 1", "- 2"]  # in the order of the fields
    assert last.startswith("# checksum: ")
    assert parse_record((folder / "run.json").read_bytes(), "marker") == {
        "kind": "dnad-ray run",
        "schema": 1,
        "name": "run-1.a_B",
        "version": "0.1",
    }
    assert is_run(folder)


def test_create_run_in_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    assert is_run(create_run(tmp_path / "empty", {}, "0.1"))


def test_create_run_refuses_a_folder_that_holds_a_run(run):
    before = files_of(run)
    with pytest.raises(RunFolderError, match=r"--out: got '.*demo'; allowed: .*--resume"):
        create_run(run, {}, "0.1")
    assert files_of(run) == before


def test_create_run_refuses_what_is_not_its_own(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    for path in (tmp_path / "letters", tmp_path / "file"):
        with pytest.raises(RunFolderError, match="a new or empty folder"):
            create_run(path, {}, "0.1")
    with pytest.raises(RunFolderError, match="--out"):
        create_run(tmp_path / "file" / "below", {}, "0.1")
    assert files_of(tmp_path) == ["file", "letters/love.txt"]


@pytest.mark.parametrize("name", ["a b", "a..b", ".hidden", "x" * 101, "a:b", "umlaut-\u00e4", "new\nline", "<b>"])
def test_create_run_refuses_unsafe_names(name, tmp_path):
    with pytest.raises(RunFolderError, match="run name"):
        create_run(tmp_path / name, {}, "0.1")
    assert files_of(tmp_path) == []


def test_create_run_refuses_what_the_file_system_refuses(tmp_path):
    for path in ("/", "/proc/no-such-run", tmp_path / ("x" * 300) / "run"):
        with pytest.raises(RunFolderError):
            create_run(path, {}, "0.1")


def test_free_folder_makes_nothing(tmp_path):
    assert free_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trial", ["../t00", "a/b", "", ".", "..", ".t00"])
def test_writers_refuse_trials_that_lead_elsewhere(trial, run, record):
    before = files_of(run.parent)
    with pytest.raises(RunFolderError, match="trial name"):
        write_snapshot(run, record(trial=trial), DENSE)
    with pytest.raises(RunFolderError, match="trial name"):
        write_status(run, trial, "running")
    with pytest.raises(RunFolderError, match="trial name"):
        write_history(run, trial, [])
    assert files_of(run.parent) == before


def test_read_run_gives_everything_in_order(run, record):
    contents = read_run(run)
    assert (contents.path, contents.name, contents.problems) == (run, "demo", ())
    assert contents.config == {"seed": 3, "train": {"epochs": 2}}
    assert [(row["trial"], row["step"]) for row in contents.snapshots] == [("t00", 8), ("t00", 16), ("t01", 8)]
    assert contents.snapshots[1] == record(trial="t00", step=16).to_dict()
    assert contents.history == {"t00": [{"epoch": 1}, {"epoch": 2}], "t01": []}
    assert contents.status == {"t00": {"state": "finished", "attempt": 1}, "t01": {"state": "unknown"}}


def test_write_snapshot_leaves_the_architecture_too(run):
    assert files_of(run / "genotypes") == [f"{DENSE.digest}.json"]
    assert read_genotype(run, DENSE.digest) == DENSE.pruned()
    assert read_genotype(run / "genotypes" / f"{DENSE.digest}.json").digest == DENSE.digest


def test_write_snapshot_twice_keeps_the_first(run, record):
    files = {file: (run / file).read_bytes() for file in files_of(run)}
    times = {file: (run / file).stat().st_mtime_ns for file in files_of(run)}
    assert not write_snapshot(run, record(trial="t00", step=8, device_seconds=99.0), DENSE)
    assert {file: (run / file).read_bytes() for file in files_of(run)} == files
    assert {file: (run / file).stat().st_mtime_ns for file in files_of(run)} == times
    assert write_snapshot(run, record(trial="t00", step=9), DENSE)


def test_write_snapshot_of_another_genotype_is_our_own_mistake(run, a_snapshot):
    with pytest.raises(ValueError, match="the genotype is"):
        write_snapshot(run, a_snapshot, DENSE)


def test_write_snapshot_that_is_no_number_is_refused(run, record):
    before = files_of(run)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_snapshot(run, record(step=99, sparsity=float("nan")), DENSE)
    assert files_of(run) == before


def test_parquet_has_the_columns_and_types_of_the_contract(run):
    assert write_parquet(run) == 3
    table = pq.read_table(run / "snapshots.parquet")
    types = {name: str(table.schema.field(name).type) for name in table.schema.names}
    assert tuple(types) == SNAPSHOT_COLUMNS
    integers = ("seed", "step", "epoch", "macs", "params", "num_operations")
    floats = ("proxy_accuracy", "shrink_rate", "kd_temperature", "kd_weight", "device_seconds", "train_loss")
    texts = ("run", "trial", "digest", "kind", "kd_kind")
    assert types["costs_traced"] == "bool"
    assert {name: types[name] for name in (*integers, *floats, *texts)} == (
        dict.fromkeys(integers, "int64") | dict.fromkeys(floats, "double") | dict.fromkeys(texts, "string")
    )
    assert table.to_pylist() == read_run(run).snapshots


def test_parquet_of_no_snapshot_has_the_columns_all_the_same(tmp_path):
    folder = create_run(tmp_path / "none", {}, "0.1")
    assert write_parquet(folder) == 0
    assert tuple(pq.read_schema(folder / "snapshots.parquet").names) == SNAPSHOT_COLUMNS
    assert read_run(folder).snapshots == []


def test_parquet_keeps_what_has_no_temperature(run, record):
    write_snapshot(run, record(trial="t02", step=1, kd_kind="none", kd_temperature=None), DENSE)
    write_parquet(run)
    assert pq.read_table(run / "snapshots.parquet").to_pylist()[-1]["kd_temperature"] is None


def test_read_run_from_the_parquet_alone(run):
    before = read_run(run).snapshots
    write_parquet(run)
    shutil.rmtree(run / "trials")
    assert read_run(run).snapshots == before


def test_read_run_of_an_older_version_without_word_of_traces_and_channels(run):
    before = read_run(run).snapshots
    assert [(row["costs_traced"], row["in_channels"]) for row in before] == [(True, 1)] * 3
    write_parquet(run)
    table = pq.read_table(run / "snapshots.parquet")
    pq.write_table(table.drop_columns(["costs_traced", "in_channels"]), run / "snapshots.parquet")
    shutil.rmtree(run / "trials")
    assert read_run(run).snapshots == [row | {"costs_traced": False, "in_channels": 0} for row in before]
    assert read_run(run).problems == ()


def test_read_run_that_goes_on_after_its_parquet(run, record):
    write_parquet(run)
    write_snapshot(run, record(trial="t01", step=24), DENSE)
    assert [(row["trial"], row["step"]) for row in read_run(run).snapshots] == [
        *(("t00", 8), ("t00", 16), ("t01", 8), ("t01", 24)),
    ]


@pytest.mark.parametrize(
    "content",
    [b'{"run": "demo", "tri', b"", b"[]", b"{}", b"\xff\xfe", b'{"trial": ["t00"], "step": {}}', b"[" * 100_000],
    ids=["torn", "empty", "list", "fieldless", "binary", "types", "deep"],
)
def test_read_run_reports_a_snapshot_that_is_none_and_keeps_the_rest(content, run):
    (run / "trials" / "t00" / "snapshots" / "00000008.json").write_bytes(content)
    contents = read_run(run)
    assert [(row["trial"], row["step"]) for row in contents.snapshots] == [("t00", 16), ("t01", 8)]
    (problem,) = contents.problems
    assert "00000008.json" in problem
    assert "\n" not in problem
    assert write_parquet(run) == 2


def test_read_run_reports_every_other_broken_file(run):
    (run / "config.yaml").write_text("a: [1,\nb: {")
    (run / "snapshots.parquet").write_bytes(b"PAR1 torn")
    (run / "trials" / "t00" / "history.json").write_text('{"epoch": 1}')
    (run / "trials" / "t00" / "status.json").write_text('{"state": "runn')
    contents = read_run(run)
    assert (contents.config, contents.history["t00"], contents.status["t00"]) == ({}, [], {"state": "unknown"})
    assert len(contents.snapshots) == 3
    for name in ("config.yaml", "snapshots.parquet", "history.json", "status.json"):
        assert sum(name in problem for problem in contents.problems) == 1
    assert read_status(run, "t00") == {"state": "unknown"}


def test_read_status_without_a_state(run):
    (run / "trials" / "t00" / "status.json").write_text('{"reason": "edited"}')
    assert read_status(run, "t00") == {"state": "unknown", "reason": "edited"}


def test_read_run_refuses_what_is_no_run(tmp_path, run):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    for name, text in (("json", "[]"), ("kind", '{"kind": "another"}'), ("torn", '{"kind": "dnad-ray r')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    for name in ("missing", "empty", "foreign", "json", "kind", "torn", "x" * 300):
        with pytest.raises(RunFolderError, match="run folder: got") as caught:
            read_run(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    (run / "run.json").write_text('{"kind": "dnad-ray run", "schema": 2, "name": "demo"}')
    with pytest.raises(RunFolderError, match=r"run schema: got 2; allowed: 1 to 1 .*newer"):
        read_run(run)


def test_read_genotype_refuses_in_words(run, tmp_path):
    with pytest.raises(RunFolderError, match="genotype"):
        read_genotype(run, "0" * 16)
    with pytest.raises(RunFolderError, match="digest"):
        read_genotype(run, "../../secret")
    newer = DENSE.to_dict() | {"schema": 2}
    (tmp_path / "newer.json").write_text(json.dumps(newer))
    with pytest.raises(GenotypeError, match="schema: got 2"):
        read_genotype(tmp_path / "newer.json")


def fail(code):
    def raises(*_, **__):
        raise OSError(code, os.strerror(code))

    return raises


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace", "tempfile.mkstemp"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_write_bytes_without_space_leaves_the_old_file_and_no_other(call, code, tmp_path, monkeypatch):
    write_bytes(tmp_path / "file", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(call, fail(code))
        with pytest.raises(ResourceError, match=f"space on the disk of: got '{tmp_path}'"):
            write_bytes(tmp_path / "file", b"new")
    assert files_of(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_write_bytes_onto_a_full_device_leaves_nothing(tmp_path, monkeypatch):
    descriptor = os.open("/dev/full", os.O_WRONLY)  # the kernel itself says that there is no space
    monkeypatch.setattr(files.tempfile, "mkstemp", lambda **_: (descriptor, str(tmp_path / "temporary")))
    (tmp_path / "temporary").touch()
    with pytest.raises(ResourceError, match="space on the disk"):
        write_bytes(tmp_path / "file", b"x" * 100_000)
    assert files_of(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "broken")], ids=["interrupt", "broken disk"])
def test_write_bytes_interrupted_leaves_the_old_file_and_no_other(error, tmp_path, monkeypatch):
    write_bytes(tmp_path / "file", b"old")

    def raises(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", raises)
        with pytest.raises(type(error)):
            write_bytes(tmp_path / "file", b"new")
    assert files_of(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_write_snapshot_without_space_leaves_no_record_and_can_be_repeated(run, record, monkeypatch):
    before = files_of(run)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail(errno.ENOSPC))
        with pytest.raises(ResourceError):
            write_snapshot(run, record(step=99), DENSE)
    assert files_of(run) == before
    assert write_snapshot(run, record(step=99), DENSE)


def test_write_bytes_can_be_read_by_others(tmp_path):
    write_bytes(tmp_path / "deep" / "file", b"content")
    assert stat.S_IMODE((tmp_path / "deep" / "file").stat().st_mode) == 0o644


def test_write_json_refuses_what_json_does_not_have(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"loss": float("inf")})
    assert files_of(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run": "other"}, "trial t00 of run 'other' under seed 3"),
        ({"trial": "t01"}, "trial t01 of run 'demo' under seed 3"),
        ({"seed": 4}, "trial t00 of run 'demo' under seed 4"),
    ],
)
def test_read_run_leaves_out_records_of_another_run_trial_or_seed(change, words, run, record):
    write_status(run, "t00", "finished", overrides={"seed": 3})
    expected = read_run(run)
    assert (len(expected.snapshots), expected.problems) == (3, ())
    stray = record(**{"trial": "t00", "step": 24, **change})
    write_json(run / "trials" / "t00" / "snapshots" / "00000024.json", stray.to_dict())
    found = read_run(run)
    assert found.snapshots == expected.snapshots
    assert found.problems == (f"t00/00000024.json is left out: {words} recorded it",)


@pytest.mark.parametrize(("change", "words"), [({"run": "other"}, "run 'other'"), ({"seed": 4}, "seed 4")])
def test_read_run_leaves_out_rows_of_another_run_or_seed(change, words, run):
    write_status(run, "t00", "finished", overrides={"seed": 3})
    write_parquet(run)
    table = pq.read_table(run / "snapshots.parquet").to_pylist()
    strays = [row | {"step": 99, **change} for row in table if row["trial"] == "t00"]
    pq.write_table(pa.Table.from_pylist(table + strays, ARROW_SCHEMA), run / "snapshots.parquet")
    found = read_run(run)
    assert found.snapshots == table
    (problem,) = found.problems
    assert problem.startswith("snapshots.parquet: 2 rows are left out, the first one of trial t00 of run")
    assert words in problem


def test_read_run_of_a_renamed_folder_takes_records_of_both_names(run, record):
    moved = run.rename(run.with_name("moved"))
    assert (run_name(moved), read_run(moved).name) == ("demo", "demo")
    write_snapshot(moved, record(trial="t01", step=24, run="moved"), DENSE)  # as earlier versions went on
    assert (len(read_run(moved).snapshots), read_run(moved).problems) == (4, ())


@pytest.mark.parametrize(
    ("change", "left"),
    [
        *(({name: [1]}, name) for name in ("reason", "overrides", "attempt", "device_seconds", "host")),
        *(({"attempt": "3"}, "attempt"), ({"attempt": True}, "attempt"), ({"overrides": [["seed", 1]]}, "overrides")),
    ],
)
def test_read_status_leaves_out_entries_of_another_type(change, left, run):
    good = {"attempt": 2, "overrides": {"seed": 3}, "reason": "x", "device_seconds": 1, "host": "h", "newer": [1]}
    write_status(run, "t00", "finished", **good)
    assert read_status(run, "t00") == good | {"state": "finished"}
    write_status(run, "t00", "finished", **good | change)
    assert read_status(run, "t00") == {k: v for k, v in good.items() if k != left} | {"state": "finished"}
    (problem,) = read_run(run).problems
    assert f"status.json: {left} is no" in problem
