"""Curves of a trial whose command is killed and resumed: read back by TensorBoard, MLflow and W&B themselves."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dnad_ray.config import config_to_dict
from dnad_ray.logbook import Logbook, scalars_of
from dnad_ray.mlflow_log import MlflowLog
from dnad_ray.progress import Board
from dnad_ray.records import Snapshot
from dnad_ray.store import create_run, read_run
from dnad_ray.tensorboard import EventFiles, events_in
from dnad_ray.trial import TrialSpec, run_trial
from dnad_ray.wandb_log import WandbLog


@pytest.fixture
def folder(tiny, tmp_path):
    return create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")


@pytest.fixture
def spec(tiny):
    return TrialSpec("t00", {"seed": 0}, tiny())


@pytest.fixture
def killed_and_resumed(folder, spec, digits):
    """Run a trial under a log, lose the last two records and all that is open, and run it again to its end."""

    def run(make_log, between=lambda: None):
        board = Board([Logbook(make_log())])
        board.begin([spec], folder)
        board.trial_began("t00")
        events = run_trial(spec, digits, None, folder, None)
        for number, (event, _) in enumerate(itertools.islice(events, 7)):
            if number < 5:  # the trial wrote two more than the driver heard of
                board.report("t00", event)
        events.close()
        between()

        resumed = Board([Logbook(make_log())])
        resumed.begin([spec], folder, read_run(folder))
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


@pytest.mark.parametrize("damage", ["nothing", "torn", "lost"])
def test_tensorboard_neither_loses_nor_repeats_a_step(killed_and_resumed, folder, damage):
    file = folder / "tensorboard" / "t00" / "events.out.tfevents.dnad-ray"

    def between():
        content = file.read_bytes()
        if damage == "torn":
            file.write_bytes(content[:-5])
        if damage == "lost":
            file.unlink()

    expected = curves(killed_and_resumed(EventFiles, between))
    events = EventAccumulator(str(file.parent), size_guidance={"scalars": 0})
    events.Reload()
    found = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert found.keys() == expected.keys()
    # Only the time that a search took differs from one time to the next.
    assert steps_of(found) == steps_of(expected)
    del found["device_seconds"], expected["device_seconds"]
    assert found == {name: [(step, np.float32(value)) for step, value in points] for name, points in expected.items()}
    over_macs = EventAccumulator(str(file.parent / "over-macs"), size_guidance={"scalars": 0})
    over_macs.Reload()
    macs = [event.step for event in over_macs.Scalars("error")]
    assert macs == sorted({value for _, value in expected["macs"]})


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


def test_wandb_offline_holds_every_record_of_a_command(killed_and_resumed, folder, monkeypatch):
    wandb = pytest.importorskip("wandb")
    datastore = pytest.importorskip("wandb.sdk.internal.datastore")
    protocol = importlib.import_module("wandb.proto.wandb_internal_pb2")
    for name, value in {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    records = killed_and_resumed(WandbLog)
    wandb.teardown()
    found = {}
    files = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    for file in files:
        store = datastore.DataStore()
        store.open_for_scan(str(file))
        while (data := store.scan_data()) is not None:
            record = protocol.Record.FromString(data)
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                found.setdefault(file.name, []).append((name, float(item.value_json)))
    assert found
    print(found, len(records))
