"""A trial in several processes: a Tune trial that starts Ray Train's torch trainer (may import ray).

The trial itself only waits and passes on what the first process reports; the processes are placed by Ray Train, on
one node or on several. They report to Train, never to Tune, and keep their checkpoints where a search without Ray
does: in the trial's own folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, final
from uuid import uuid4

import ray
import ray.train
import torch
from ray import tune
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import PlacementGroup, get_current_placement_group, remove_placement_group

from dnad_ray.checkpoint import load_newest, prune_checkpoints, save_checkpoint, seed_all
from dnad_ray.data import ImageData
from dnad_ray.devices import device_for, limit_memory
from dnad_ray.parallel import ranks_here, share_state
from dnad_ray.records import Snapshot
from dnad_ray.resources import Allotment
from dnad_ray.store import write_json
from dnad_ray.teacher import TeacherFile, load_teacher
from dnad_ray.trainable import metrics_of
from dnad_ray.trial import CHECKPOINT_SECONDS, TrialSpec, run_trial

__all__ = ["WAITING_ROOM", "PlaceCleaner", "Shared", "share", "tune_shared_trial"]

WAITING_ROOM = [{"memory": 1.0}]
"""What the trial itself is given, beside its processes: it does nothing but wait, and an empty request is refused."""

_POLL_SECONDS = "0.2"  # Train's own two seconds between looks at its processes would hold up every report

_PLACE = "place.json"

Shared = list["ray.ObjectRef[Any]"]
"""Images and teacher in the object store. In a list, or Ray would hand over what they stand for."""


def share(data: ImageData, teacher_file: TeacherFile | None) -> Shared:
    """Put what all processes of all trials read into the object store, once."""
    return [ray.put(data), ray.put(teacher_file)]


def tune_shared_trial(
    config: Mapping[str, Any],
    *,
    specs: Mapping[str, TrialSpec],
    shared: Shared,
    folder: str,
    allotment: Allotment,
) -> None:
    """Run one trial of several processes inside a Tune actor.

    Args:
        config: ``{"trial": name}``.
        specs: All trials of the sweep by name.
        shared: What :func:`share` returned.
        folder: The run folder, on storage that every node sees.
        allotment: What each process gets.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _POLL_SECONDS)
    spec = specs[config["trial"]]
    on_gpu = allotment.gpus > 0
    trainer = TorchTrainer(
        _search_part,
        train_loop_config={"spec": spec, "shared": shared, "folder": folder, "allotment": allotment},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=allotment.processes,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": allotment.cpus} | ({"GPU": allotment.gpus} if on_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            # A name of its own each time: under the same one, Train would look for a state of its own to restore.
            name=f"{spec.name}-{uuid4().hex[:8]}",
            storage_path=str(Path(folder) / "ray" / "train"),
            callbacks=[cast(Any, TuneReportCallback())],  # Train's stub names a class of Tune's
            # What fails is tried again by Tune, which counts attempts for trials of one process too.
            failure_config=ray.train.FailureConfig(max_failures=0),
        ),
    )
    trainer.fit()


def _search_part(config: dict[str, Any]) -> None:
    """Search in one process of a trial; continues from the newest intact checkpoint that the first process finds."""
    spec: TrialSpec = config["spec"]
    allotment: Allotment = config["allotment"]
    run_folder, ranks = Path(config["folder"]), ranks_here()
    place = get_current_placement_group()
    if ranks.is_first and place is not None:
        write_json(run_folder / "trials" / spec.name / _PLACE, {"placement_group": place.id.hex()})
    torch.set_num_threads(allotment.threads)
    seed_all(spec.config.seed)
    data, teacher_file = cast("tuple[ImageData, TeacherFile | None]", ray.get(config["shared"]))
    device = device_for(spec.config.train.device)
    if device.type == "cuda":
        torch.cuda.set_device(get_device())  # Train shows each process all GPUs of the trial on the node
    limit_memory(device, allotment.gpus)
    teacher = None if teacher_file is None else load_teacher(teacher_file, device)
    checkpoints = run_folder / "trials" / spec.name / "checkpoints"
    saved = share_state(ranks, load_newest(checkpoints.glob("*")) if ranks.is_first else None, device)
    last_checkpoint = time.monotonic()
    for event, state in run_trial(spec, data, teacher, run_folder, saved, ranks=ranks):
        is_due = isinstance(event, Snapshot) or time.monotonic() - last_checkpoint > CHECKPOINT_SECONDS
        if ranks.is_first and is_due:
            save_checkpoint(checkpoints / f"{state.step:08d}", state.state_dict(), state.step)
            prune_checkpoints(checkpoints)
            last_checkpoint = time.monotonic()
        ray.train.report(metrics_of(event, state))  # waits for the other processes to report as well


@final
class PlaceCleaner(tune.Callback):
    """Gives back the CPUs and GPUs of the processes of a trial that ended, in whatever way.

    A trial that was killed or stopped cannot do it, and its attempt to go on would wait for them for ever. Train has a
    cleaner of its own, which needs Ray's dashboard; that is not on every cluster.

    Args:
        folder: The run folder, where a trial's first process notes what it was placed in.
    """

    def __init__(self, folder: Path) -> None:
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
        file = self._folder / "trials" / trial.config["trial"] / _PLACE
        # What goes wrong here must not end the experiment; a group that is gone already is no mistake at all.
        with contextlib.suppress(Exception):
            number = json.loads(file.read_text(encoding="utf-8"))["placement_group"]
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(number))))
            file.unlink()
