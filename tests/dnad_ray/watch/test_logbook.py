"""Curves of a trial whose command is killed and resumed: read back by TensorBoard, MLflow and W&B themselves."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from dnad_ray.config.run import config_to_dict
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.run_folder.writing import create_run
from dnad_ray.search.trial import run_trial
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board
from dnad_ray.watch.logbook import Logbook, scalars_of
from dnad_ray.watch.mlflow_log import MlflowLog
from dnad_ray.watch.tensorboard import EventFiles, events_in
from dnad_ray.watch.wandb_log import WandbLog


@pytest.fixture
def folder(tiny, tmp_path):
    return create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")


@pytest.fixture
def shown_at(folder):
    """Where the displays find the run folder; a test may let it be another place."""
    return {"folder": folder}


@pytest.fixture
def spec(tiny):
    return TrialSpec("t00", {"seed": 0}, tiny())


@pytest.fixture
def killed_and_resumed(folder, shown_at, spec, digits):
    """Run a trial under a log, lose the last two records and all that is open, and run it again to its end."""

    def run(make_log, between=lambda: None):
        board = Board([Logbook(make_log())])
        board.begin([spec], shown_at["folder"])
        board.trial_began("t00")
        events = run_trial(spec, digits, None, folder, None)
        for number, (event, _) in enumerate(itertools.islice(events, 7)):
            if number < 5:  # the trial wrote two more than the driver heard of
                board.report("t00", event)
        events.close()
        between()

        resumed = Board([Logbook(make_log())])
        resumed.begin([spec], shown_at["folder"], read_run(folder))
        resumed.trial_began("t00")
        records = []
        for event, _ in run_trial(spec, digits, None, folder, None):  # all steps once more, the same bits
            records.append(event)
            resumed.report("t00", event)
        resumed.trial_ended("t00", "finished")
        resumed.end("finished", {})
        return records

    return run


def curves(records):
    """What must be read back: each record once, in order."""
    found = {}
    for record in records:
        for name, value in scalars_of(record).items():
            found.setdefault(name, []).append((record.step, value))
    return found


def steps_of(values):
    return {name: [step for step, _ in points] for name, points in values.items()}


def test_scalars_of_the_two_kinds_of_records_share_no_name(a_snapshot, digits, spec, folder):
    events = [event for event, _ in itertools.islice(run_trial(spec, digits, None, folder, None), 4)]
    kinds = {isinstance(event, Snapshot): set(scalars_of(event)) for event in events}
    assert not kinds[True] & kinds[False]
    assert scalars_of(a_snapshot)["error"] == 0.5
    assert "kd_loss" not in kinds[False]  # nobody is imitated


@pytest.mark.parametrize(
    ("damage", "is_disk"),
    [("nothing", True), ("torn", True), ("lost", True), ("history", True), ("nothing", False)],
)
def test_tensorboard_neither_loses_nor_repeats_a_step(killed_and_resumed, folder, shown_at, damage, is_disk):
    if not is_disk:  # a URL, of which nothing is known but that files can be put there and read
        shown_at["folder"] = pytest.importorskip("upath").UPath(folder.as_uri())
    file = folder / "tensorboard" / "t00" / "events.out.tfevents.dnad-ray"

    def between():
        content = file.read_bytes()
        if damage == "torn":
            file.write_bytes(content[:-5])
        if damage == "lost":
            file.unlink()
        if damage == "history":  # of a trial that began anew and was killed again, before it was as far as before
            history = folder / "trials" / "t00" / "history.json"
            entries = json.loads(history.read_text())
            assert len(entries) > 1
            history.write_text(json.dumps(entries[:1]))

    expected = curves(killed_and_resumed(EventFiles, between))
    events = EventAccumulator(str(file.parent), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    found = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert set(events.Tags()["tensors"]) == {"macs", "macs_conv_linear", "params"}
    for name in events.Tags()["tensors"]:
        found[name] = [(event.step, make_ndarray(event.tensor_proto).item()) for event in events.Tensors(name)]
        assert found[name] == expected[name]  # counts have no rounding
    assert found.keys() == expected.keys()
    # Only the time that a search took differs from one time to the next.
    assert steps_of(found) == steps_of(expected)
    del found["device_seconds"], expected["device_seconds"]
    in_single = {name: points for name, points in expected.items() if name not in events.Tags()["tensors"]}
    assert {name: found[name] for name in in_single} == {
        name: [(step, np.float32(value)) for step, value in points] for name, points in in_single.items()
    }
    over_macs = EventAccumulator(str(file.parent / "over-macs"), size_guidance={"scalars": 0})
    over_macs.Reload()
    macs = [event.step for event in over_macs.Scalars("error")]
    assert macs == sorted({value for _, value in expected["macs"]})


def test_tensorboard_keeps_every_digit_of_a_count(folder, spec, a_snapshot):
    # 539,123,457 has more digits than a float32, which would make it 539,123,456.
    record = dataclasses.replace(a_snapshot, macs=539_123_457, macs_conv_linear=539_123_455, params=16_777_217)
    board = Board([Logbook(EventFiles())])
    board.begin([spec], folder)
    board.trial_began("t00")
    board.report("t00", record)
    board.trial_ended("t00", "finished")
    board.end("finished", {})
    for where in ("", "over-macs"):
        events = EventAccumulator(str(folder / "tensorboard" / "t00" / where))
        events.Reload()
        for name in ("macs", "macs_conv_linear", "params"):
            (event,) = events.Tensors(name)
            assert make_ndarray(event.tensor_proto).item() == getattr(record, name)
            assert events.SummaryMetadata(name).plugin_data.plugin_name == "scalars"
    assert event.step == 539_123_457


def test_events_in_ends_at_the_first_torn_one(killed_and_resumed, folder):
    killed_and_resumed(EventFiles)
    content = (folder / "tensorboard" / "t00" / "events.out.tfevents.dnad-ray").read_bytes()
    ends = [end for end, _ in events_in(content)]
    assert ends[-1] == len(content)
    assert len(list(events_in(content[:-1]))) == len(ends) - 1
    flipped = bytearray(content)
    flipped[ends[1] + 20] ^= 1
    assert [end for end, _ in events_in(bytes(flipped))] == ends[:2]
    huge = b"\xff" * 8 + content[8:]
    assert list(events_in(huge)) == []
    assert list(events_in(b"")) == []


@pytest.mark.slow
def test_mlflow_neither_loses_nor_repeats_a_step(killed_and_resumed, folder, spec, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    records = killed_and_resumed(MlflowLog)
    expected = curves(records)
    client = importlib.import_module("mlflow.tracking").MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("demo")
    (run,) = client.search_runs([experiment.experiment_id])
    found = {
        name: sorted((entry.step, entry.value) for entry in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }
    assert steps_of(found) == steps_of(expected)
    del found["device_seconds"], expected["device_seconds"]
    assert found == expected
    assert run.info.status == "FINISHED"
    assert run.data.params["shrink.rate"] == str(spec.config.shrink.rate)
    assert run.data.tags["mlflow.runName"] == "t00"
    assert not list(folder.parent.rglob("mlruns"))


ENDS = {"t00": "dominated", "t01": "finished", "t02": "stopped", "t03": "failed", "t04": "paused", "t05": "interrupted"}


def show_ends(log, folder, tiny):
    """Let a run end in which trials end in all ways; the first at its end by design, worse than others all along."""
    board = Board([Logbook(log)])
    board.begin([TrialSpec(name, {"seed": 0}, tiny()) for name in ENDS], folder)
    for name, state in ENDS.items():
        board.trial_began(name)
        board.trial_ended(name, state, "a reason")
    board.end("finished", {})


@pytest.mark.slow
def test_mlflow_says_how_trials_ended(folder, tiny, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    show_ends(MlflowLog(), folder, tiny)
    client = importlib.import_module("mlflow.tracking").MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    assert {run.data.tags["mlflow.runName"]: run.info.status for run in runs} == {
        "t00": "FINISHED",
        "t01": "FINISHED",
        "t02": "FAILED",
        "t03": "FAILED",
        "t04": "KILLED",
        "t05": "KILLED",
    }


def wandb_records(content):
    """The records of an offline run: seven bytes, then the blocks of a log as LevelDB writes it."""
    protocol = importlib.import_module("wandb.proto.wandb_internal_pb2")
    offset, parts = 7, b""
    while offset + 7 <= len(content):
        room = 32768 - offset % 32768
        if room < 7:
            offset += room
            continue
        length, kind = int.from_bytes(content[offset + 4 : offset + 6], "little"), content[offset + 6]
        parts += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield protocol.Record.FromString(parts)
            parts = b""


@pytest.mark.slow
def test_wandb_is_told_how_trials_ended(folder, tiny, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    show_ends(WandbLog(), folder, tiny)
    wandb.teardown()
    codes = {}
    for file in (folder / "wandb").glob("offline-run-*/*.wandb"):
        records = list(wandb_records(file.read_bytes()))
        (name,) = {record.run.display_name for record in records if record.HasField("run")}
        (codes[name],) = [record.exit.exit_code for record in records if record.HasField("exit")]
    # 255 is what W&B itself reports for Ctrl-C.
    assert codes == {"t00": 0, "t01": 0, "t02": 1, "t03": 1, "t04": 255, "t05": 255}


@pytest.mark.slow
def test_wandb_offline_holds_what_each_command_was_told(killed_and_resumed, folder, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    records = killed_and_resumed(WandbLog, wandb.teardown)
    wandb.teardown()
    files = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    stored = [record for file in files for record in wandb_records(file.read_bytes())]
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in stored
        if record.HasField("history")
    ]
    # What the driver had not heard of but the folder held is lost to W&B: what it has nobody can ask offline.
    # Two records were on their way, and the report of the last snapshot's step stands in the folder with it.
    expected = [
        {"step": record.step, "epoch": record.epoch, **scalars_of(record)}
        for number, record in enumerate(records)
        if number not in (5, 6, 7)
    ]
    assert [{name: row[name] for name in row if name[0] != "_"} | {"device_seconds": 0} for row in rows] == [
        row | {"device_seconds": 0} for row in expected
    ]
    runs = [record.run for record in stored if record.HasField("run")]
    assert len({run.run_id for run in runs}) == 1  # both commands went on in one W&B run
    assert {(run.project, run.run_group, run.display_name) for run in runs} == {("demo", "demo", "t00")}
    # Nothing about the machine is kept.
    assert not [
        path for path in (folder / "wandb").rglob("*") if path.name in ("requirements.txt", "wandb-metadata.json")
    ]
