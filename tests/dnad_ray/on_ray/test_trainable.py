"""A trial as an actor runs it, with Tune's side played by the test: what is reported, saved and taken up again."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import shutil
import time

import pytest
import torch

pytest.importorskip("ray")

from dnad_ray.config.run import config_to_dict
from dnad_ray.distill.teacher import save_teacher
from dnad_ray.errors import ResourceError
from dnad_ray.on_ray import reports as reporting
from dnad_ray.on_ray import trainable
from dnad_ray.on_ray.reports import records_in
from dnad_ray.run_folder import checkpoints as checkpoint_module
from dnad_ray.run_folder.checkpoints import load_newest
from dnad_ray.run_folder.reading import read_run, read_status
from dnad_ray.run_folder.writing import create_run
from dnad_ray.runtime import budget
from dnad_ray.search import trial as trial_module
from dnad_ray.search.loop import SearchState, search
from dnad_ray.storage import background_writer as background
from dnad_ray.trials.spec import TrialSpec

pytestmark = pytest.mark.ray


class Killed(BaseException):
    """Stands for the end of the worker."""


class NoCheckpoints:
    """For a trial that is too short for one."""

    def __init__(self, checkpoints, settle):
        self.newest, self.is_due = (lambda: None), lambda wanted: False


@pytest.fixture
def folder(tiny, tmp_path):
    return create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")


keep = checkpoint_module.keep_checkpoint


@pytest.fixture
def worker(folder, digits, monkeypatch):
    """Run a trial; returns what it reported, each with whether a checkpoint was written before the next.

    ``look`` is called with the step of each snapshot that is reported, and of each checkpoint.
    """

    def run(
        spec, die_after=None, teacher_file=None, deadline=None, seconds=0.0, mailbox="mailbox", look=lambda step: None
    ):
        reports = []

        def keep_checkpoint(checkpoints, state, step):
            look(step)
            keep(checkpoints, state, step)
            if reports:
                reports[-1] = (reports[-1][0], True)

        def report(metrics):
            for step, *_ in metrics.get("points", ()):
                look(step)
            reports.append((metrics, False))
            if len(reports) == die_after:
                raise Killed

        monkeypatch.setattr(trainable.tune, "report", report)
        monkeypatch.setattr(checkpoint_module, "keep_checkpoint", keep_checkpoint)
        monkeypatch.setattr(checkpoint_module, "LEAST_GAP_FACTOR", 0.0)  # one at every snapshot, however fast they come
        monkeypatch.setattr(checkpoint_module, "LEAST_GAP_SECONDS", 0.0)
        monkeypatch.setattr(reporting, "REPORT_SECONDS", seconds)
        monkeypatch.setattr(trainable, "_teacher_files", lambda mailbox: files[mailbox])
        monkeypatch.setattr(trainable, "RemoteStop", lambda mailbox: lambda: None)
        monkeypatch.setattr(trainable, "step_sender", lambda mailbox, name: None)
        files = {"mailbox": [teacher_file], "stopped mailbox": []}
        arguments = {"base": spec.config, "data": digits, "mailbox": mailbox, "deadline": deadline}
        with contextlib.suppress(Killed):
            trainable.tune_trial(
                {"trial": spec.name, "overrides": spec.overrides}, **arguments, folder=str(folder), num_threads=1
            )
        return reports

    return run


@pytest.fixture
def spec(tiny):
    return TrialSpec("t00", {"seed": 0}, tiny())


def test_tune_trial_reports_every_event_and_saves_every_snapshot(spec, worker, folder):
    reports = worker(spec)
    rows, history = read_run(folder).snapshots, read_run(folder).history["t00"]
    saved = [metrics for metrics, has_checkpoint in reports[:-1] if has_checkpoint]
    assert [metrics["points"] for metrics in saved] == [
        [(row["step"], row["macs"], 1 - row["proxy_accuracy"])] for row in rows[:-1]
    ]
    epochs = [metrics["epoch"] for metrics, has_checkpoint in reports[:-1] if not has_checkpoint]
    assert epochs == [entry["epoch"] for entry in history[:-1]]
    last, has_checkpoint = reports[-1]
    assert [record.to_dict() for record in records_in(last)] == [rows[-1], history[-1]]
    assert not has_checkpoint  # nothing is left to repeat
    assert [(metrics["at_end"], "done" in metrics) for metrics, _ in reports] == [(False, False)] * (
        len(reports) - 1
    ) + [(True, True)]


def test_tune_trial_reports_at_most_once_in_a_while_but_everything(spec, worker, folder, monkeypatch):
    states = []
    write_status = trial_module.write_status
    monkeypatch.setattr(
        trial_module, "write_status", lambda *args, **facts: states.append(args[2]) or write_status(*args, **facts)
    )
    monkeypatch.setattr(trainable, "CheckpointKeeper", NoCheckpoints)
    reports = [metrics for metrics, _ in worker(spec, seconds=60.0)]
    first, last = reports  # that it began to learn, and the rest
    assert states == ["running", "finished"]
    rows, history = read_run(folder).snapshots, read_run(folder).history["t00"]
    told = [record.to_dict() for metrics in reports for record in records_in(metrics)]
    assert [record for record in told if "kind" in record] == rows
    assert [record for record in told if "kind" not in record] == history
    assert [step for step, _, _ in first["points"] + last["points"]] == [row["step"] for row in rows]
    assert len(list(records_in(first))) == 1
    assert last["done"]


def test_tune_trial_waits_for_the_disk_before_it_reports_or_keeps_a_checkpoint(spec, worker, folder, monkeypatch):
    write = background.write_bytes
    monkeypatch.setattr(background, "write_bytes", lambda *args: (time.sleep(0.05), write(*args)))
    seen = []

    def look(step):
        seen.append(step == read_run(folder).snapshots[-1]["step"])

    worker(spec, look=look)
    assert len(seen) > 10
    assert all(seen)
    assert read_status(folder, "t00")["state"] == "finished"


def test_tune_trial_that_finds_no_room_is_not_finished(spec, worker, folder, monkeypatch):
    write, written = background.write_bytes, []

    def fills(file, content):
        if file.parent.name == "snapshots" and len(written) == 2:
            raise ResourceError("space on the disk of", str(file.parent), "enough room")
        write(file, content)
        written.extend([file.name] if file.parent.name == "snapshots" else [])

    monkeypatch.setattr(background, "write_bytes", fills)
    with pytest.raises(ResourceError, match="space on the disk of"):
        worker(spec)
    contents = read_run(folder)
    assert [row["step"] for row in contents.snapshots] == [int(name[:8]) for name in written]
    assert len(written) == 2
    assert contents.status["t00"]["state"] == "running"
    newest = load_newest((folder / "trials" / "t00" / "checkpoints").iterdir())
    assert newest["step"] == contents.snapshots[-1]["step"]  # the lost one is searched again


def test_tune_trial_reports_before_a_checkpoint_after_which_it_would_not_be_told(spec, worker, folder):
    reports = [metrics for metrics, has_checkpoint in worker(spec, seconds=60.0) if has_checkpoint]
    snapshots = [row["step"] for row in read_run(folder).snapshots]
    assert [metrics["points"][-1][0] for metrics in reports] == snapshots[:-1]


@pytest.mark.parametrize("damage", ["none", "torn", "all"])
def test_tune_trial_continues_from_the_newest_intact_checkpoint(damage, spec, worker, request, monkeypatch):
    folder, digits, timeless = map(request.getfixturevalue, ("folder", "digits", "timeless"))
    worker(spec, die_after=6)
    checkpoints = sorted((folder / "trials" / "t00" / "checkpoints").iterdir())
    steps = [json.loads((path / "manifest.json").read_text())["step"] for path in checkpoints]
    assert len(steps) == 2  # the newest two are kept
    for path in {"none": [], "torn": checkpoints[-1:], "all": checkpoints}[damage]:
        (path / "manifest.json").unlink()
    seen = []
    load = checkpoint_module.load_newest
    monkeypatch.setattr(checkpoint_module, "load_newest", lambda folders: seen.append(load(folders)) or seen[-1])
    reports = worker(spec)
    assert [None if state is None else state["step"] for state in seen] == [
        {"none": steps[-1], "torn": steps[-2], "all": None}[damage]
    ]
    expected = timeless(search(SearchState.start(spec.config, digits, run="demo", trial="t00")))
    assert timeless(read_run(folder).snapshots) == expected
    assert reports[-1][0]["step"] == expected[-1]["step"]
    assert read_status(folder, "t00")["attempt"] == 2


def test_tune_trial_forgets_what_the_worker_did_before(spec, worker, folder):
    random_states = []
    for before in (1, 2):
        torch.manual_seed(before)
        worker(spec, die_after=6)
        checkpoints = folder / "trials" / "t00" / "checkpoints"
        random_states.append(load_newest(checkpoints.iterdir())["random"])
        shutil.rmtree(checkpoints)
    first, second = random_states
    assert torch.equal(first["torch"], second["torch"])
    assert {**first, "torch": None} == {**second, "torch": None}


def test_tune_trial_takes_its_own_checkpoints_only(spec, tiny, worker, folder):
    worker(spec, die_after=6)
    reports = worker(TrialSpec("t01", {"seed": 1}, tiny({"seed": 1})))
    assert reports[0][0]["epoch"] == 1


def test_tune_trial_imitates_the_teacher_that_comes_as_bytes(tiny, small_teacher, worker, folder, tmp_path):
    file = save_teacher(tmp_path / "teacher", small_teacher)
    config = tiny({"distill.kind": "logits+features", "train.epochs": 2})
    worker(TrialSpec("t00", {"seed": 0}, config), teacher_file=file)
    assert all(entry["kd_loss"] > 0 for entry in read_run(folder).history["t00"])


def test_tune_trial_loads_a_teacher_once_for_all_trials_of_a_worker(
    tiny, small_teacher, worker, folder, tmp_path, monkeypatch
):
    loaded = []
    load = trainable.load_teacher
    monkeypatch.setattr(trainable, "_teachers", {})
    monkeypatch.setattr(trainable, "load_teacher", lambda *args: loaded.append(load(*args)) or loaded[-1])
    config = tiny({"distill.kind": "logits", "train.epochs": 2})
    file = save_teacher(tmp_path / "teacher", small_teacher)
    for name in ("t00", "t01"):
        worker(TrialSpec(name, {"seed": 0}, config), teacher_file=copy.deepcopy(file))
    assert len(loaded) == 1
    first, second = ([entry["kd_loss"] for entry in read_run(folder).history[name]] for name in ("t00", "t01"))
    assert first == second
    other = dataclasses.replace(small_teacher, network=copy.deepcopy(small_teacher.network))
    with torch.no_grad():
        next(other.network.parameters()).mul_(2)
    worker(TrialSpec("t02", {"seed": 0}, config), teacher_file=save_teacher(tmp_path / "another", other))
    assert len(loaded) == 2
    assert [entry["kd_loss"] for entry in read_run(folder).history["t02"]] != first


def test_tune_trial_that_waits_for_a_teacher_in_vain_does_not_begin(spec, worker, folder):
    assert worker(spec, mailbox="stopped mailbox") == [({"stopped": "asked before it began", "done": True}, False)]
    assert read_status(folder, "t00") == {"state": "unknown"}


def test_tune_trial_that_diverges_ends_without_an_error(tiny, worker, folder):
    # An exception would make Ray try again, and diverge again.
    assert worker(TrialSpec("t00", {"seed": 0}, tiny({"train.learning_rate": 1e30}))) == []
    assert read_status(folder, "t00")["state"] == "stopped"


def test_tune_trial_saves_by_time_where_nothing_is_deleted(tiny, worker, monkeypatch):
    config = tiny({"train.epochs": 3, "shrink.gamma_init": 1e-6, "shrink.gamma_max": 1.0})
    spec = TrialSpec("t00", {"seed": 0}, config)
    assert [saved for _, saved in worker(spec, die_after=2)] == [False, False]
    monkeypatch.setattr(checkpoint_module, "LONGEST_GAP_SECONDS", 0.0)
    assert [saved for _, saved in worker(spec, die_after=3)] == [True, True, False]


def test_tune_trial_pauses_at_the_deadline_and_saves_that(spec, worker, folder, request):
    digits, timeless = map(request.getfixturevalue, ("digits", "timeless"))
    clock = iter([0.0] * 5 + [9.0])  # before it begins, before its first step, and after each step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget.time, "time", lambda: next(clock))
        reports = worker(spec, deadline=5.0)
    assert reports[-1][0] == {"step": 4, "stopped": "the time budget was spent", "done": True}
    assert reports[-2][1]
    assert not any(metrics["at_end"] for metrics, _ in reports[:-1])
    assert read_status(folder, "t00")["state"] == "paused"
    worker(spec)
    expected = search(SearchState.start(spec.config, digits, run="demo", trial="t00"))
    assert timeless(read_run(folder).snapshots) == timeless(expected)


def test_tune_trial_that_gets_its_turn_too_late_does_not_begin(spec, worker, folder):
    assert worker(spec, deadline=1.0) == [({"stopped": "the time budget was spent", "done": True}, False)]
    assert read_status(folder, "t00") == {"state": "unknown"}


def test_tune_trial_takes_what_is_overridden(tiny, worker, folder):
    worker(TrialSpec("t00", {"seed": 5, "train.epochs": 2}, tiny()))
    assert {row["seed"] for row in read_run(folder).snapshots} == {5}
    assert len(read_run(folder).history["t00"]) == 2


def test_tune_trial_uses_the_threads_it_is_given(spec, worker, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    worker(spec, die_after=1)
    assert asked == [1]
