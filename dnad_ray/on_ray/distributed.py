"""A trial in several processes: a Tune trial that starts Ray Train's torch trainer (may import ray).

The trial itself only waits and passes on what the first process reports; the processes are placed by Ray Train, on
one node or on several. They report to Train, never to Tune, and keep their checkpoints where a search without Ray
does: in the trial's own folder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, final
from uuid import uuid4

import pyarrow.fs
import ray
import ray.train
import torch
from ray import tune
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import PlacementGroup, get_current_placement_group, remove_placement_group
from upath import UPath

from dnad_ray.config.run import RunConfig
from dnad_ray.data.loading import ImageData
from dnad_ray.distill.teacher import TeacherFile, load_teacher
from dnad_ray.on_ray.mailbox import step_sender
from dnad_ray.on_ray.reports import metrics_of
from dnad_ray.on_ray.resources import Allotment
from dnad_ray.on_ray.trainable import stop_check
from dnad_ray.run_folder.checkpoints import CheckpointKeeper
from dnad_ray.run_folder.layout import checkpoints_folder, placement_file, ray_folder
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.runtime.budget import time_check
from dnad_ray.runtime.devices import device_for, limit_memory
from dnad_ray.runtime.processes import Ranks, ranks_here, share_state
from dnad_ray.runtime.random_states import seed_all
from dnad_ray.runtime.stopping import StopCheck, StopRequest
from dnad_ray.search.trial import keep_state, run_trial
from dnad_ray.storage.checksums import parse_record
from dnad_ray.storage.files import read_file, write_json
from dnad_ray.storage.places import Place, address, place
from dnad_ray.trials.spec import TrialSpec, spec_of

__all__ = ["WAITING_ROOM", "PlacementCleaner", "Shared", "SharedStop", "trainer_of", "tune_shared_trial"]

WAITING_ROOM = [{"memory": 1.0}]
"""What the trial itself is given, beside its processes: it does nothing but wait, and an empty request is refused."""

_POLL_SECONDS = "0.2"  # Train's own two seconds between looks at its processes would hold up every report

_LARGEST_PLACE = 1_000

Shared = list["ray.ObjectRef[Any]"]
"""References to images or a teacher in the object store; in a list, since Ray resolves a bare reference."""


def tune_shared_trial(
    config: Mapping[str, Any],
    *,
    base: RunConfig,
    images: Shared,
    folder: str,
    allotment: Allotment,
    mailbox: Any,
    deadline: float | None = None,
) -> None:
    """Run one trial of several processes inside a Tune actor.

    Args:
        config: ``{"trial": name, "overrides": what it changes in the run's configuration}``.
        base: Configuration of the run.
        images: Images.
        folder: The run folder, on storage that every node sees.
        allotment: What each process gets.
        mailbox: What :func:`dnad_ray.on_ray.mailbox.start_mailbox` returned; the teacher comes from there.
        deadline: When to pause, in seconds since the epoch; None for never.
    """
    teacher = ray.get(mailbox.teacher.remote())
    if not teacher:
        tune.report({"stopped": "asked before it began", "done": True})
        return
    if (request := time_check(deadline)()) is not None:
        tune.report({"stopped": request.reason, "done": True})
        return
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _POLL_SECONDS)
    spec = spec_of(base, config["trial"], config["overrides"])
    facts = {"spec": spec, "shared": [*images, *teacher], "stop": mailbox, "deadline": deadline}
    # What fails is tried again by Tune, which counts attempts for trials of one process too.
    trainer_of(
        _search_part, facts, place(folder), spec.name, allotment, callbacks=[cast(Any, TuneReportCallback())]
    ).fit()


def trainer_of(
    part: Callable[[dict[str, Any]], None],
    facts: Mapping[str, Any],
    run: Place,
    name: str,
    allotment: Allotment,
    *,
    max_failures: int = 0,
    callbacks: Sequence[Any] = (),
) -> TorchTrainer:
    """Return what runs a function in the processes of one trial or job, by Ray Train.

    Args:
        part: Gets ``facts`` and with them ``folder`` and ``allotment``, in each process.
        facts: What the processes need to know.
        run: The run folder, on storage that every node sees.
        name: Of the trial or job.
        allotment: What each process gets.
        max_failures: How often all of them begin again after one failed.
        callbacks: Of Ray Train; its stub does not know those of Tune.
    """
    on_gpu = allotment.gpus > 0
    return TorchTrainer(
        part,
        train_loop_config={**facts, "folder": address(run), "allotment": allotment},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=allotment.processes,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": allotment.cpus} | ({"GPU": allotment.gpus} if on_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            # A name of its own each time: under the same one, Train would look for a state of its own to restore.
            name=f"{name}-{uuid4().hex[:8]}",
            **_train_storage(ray_folder(run) / "train"),
            callbacks=list(callbacks),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
        ),
    )


def _search_part(config: dict[str, Any]) -> None:
    """Search in one process of a trial; continues from the newest intact checkpoint that the first process finds."""
    spec: TrialSpec = config["spec"]
    allotment: Allotment = config["allotment"]
    run_folder, ranks = place(config["folder"]), ranks_here()
    group = get_current_placement_group()
    if ranks.is_first and group is not None:
        write_json(placement_file(run_folder, spec.name), {"placement_group": group.id.hex()})
    torch.set_num_threads(allotment.threads)
    seed_all(spec.config.seed)
    data, teacher_file = cast("tuple[ImageData, TeacherFile | None]", ray.get(config["shared"]))
    device = device_for(spec.config.train.device)
    if device.type == "cuda":
        torch.cuda.set_device(get_device())  # Train shows each process all GPUs of the trial on the node
    limit_memory(device, allotment.gpus)
    teacher = None if teacher_file is None else load_teacher(teacher_file, device)
    checkpoints = CheckpointKeeper(checkpoints_folder(run_folder, spec.name))
    saved = share_state(ranks, checkpoints.newest() if ranks.is_first else None, device)
    stop = SharedStop(stop_check(config["stop"], config["deadline"]) if ranks.is_first else None, ranks, device)
    progress = step_sender(config["stop"], spec.name) if ranks.is_first else None
    trial = run_trial(spec, data, teacher, run_folder, saved, stop=stop, ranks=ranks, progress=progress)
    for event, state in trial:
        is_last = isinstance(event, StopRequest)
        if ranks.is_first and (is_last or checkpoints.is_due(wanted=isinstance(event, Snapshot))):
            keep_state(checkpoints, state, run_folder)
        if isinstance(event, StopRequest):
            ray.train.report({"step": state.step, "stopped": event.reason})
            continue
        ray.train.report(metrics_of([event], state.is_finished))  # waits for the other processes to report as well


def _train_storage(folder: Place) -> dict[str, Any]:
    """Return Train's storage options for its own files, as arguments of its run configuration."""
    if isinstance(folder, UPath):
        return {
            "storage_path": folder.path,
            "storage_filesystem": pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(folder.fs)),
        }
    return {"storage_path": str(folder)}


@final
class SharedStop:
    """A :data:`dnad_ray.runtime.stopping.StopCheck` by which all processes of a trial stop after the same step.

    Args:
        check: What the first process asks; None in the others.
        ranks: The processes.
        device: Where they exchange tensors.
    """

    def __init__(self, check: StopCheck | None, ranks: Ranks, device: torch.device) -> None:
        self._check, self._ranks, self._device = check, ranks, device

    def __call__(self) -> StopRequest | None:
        """Return a request in all processes once the first one has it."""
        request = None if self._check is None else self._check()
        is_asked = self._ranks.of_first(torch.tensor(request is not None, device=self._device))
        return request or (StopRequest("as the first process") if is_asked else None)


@final
class PlacementCleaner(tune.Callback):
    """Releases the CPUs and GPUs of a trial's processes after it finished, failed or was stopped.

    A trial that was killed or stopped cannot do it, and its attempt to go on would wait for them for ever. Train has a
    cleaner of its own, which needs Ray's dashboard; that is not on every cluster.

    Args:
        folder: The run folder, where a trial's first process notes what it was placed in.
    """

    def __init__(self, folder: Place) -> None:
        self._folder = folder

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Clean up after a trial at its end, or stopped before."""
        self._clean(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Clean up before Tune tries again."""
        self._clean(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Clean up after a trial that failed for good."""
        self._clean(trial)

    def _clean(self, trial: Any) -> None:
        file = placement_file(self._folder, trial.config["trial"])
        # What goes wrong here must not end the experiment; a group that is gone already is no mistake at all.
        with contextlib.suppress(Exception):
            number = parse_record(read_file(file, _LARGEST_PLACE), file.name)["placement_group"]
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(number))))
            file.unlink()
