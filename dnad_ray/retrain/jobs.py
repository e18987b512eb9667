"""Retraining jobs on disk: one network, one protocol, one seed. A killed job resumes exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dnad_ray.config.retrain import RetrainConfig
from dnad_ray.config.run import OF_THE_PLACE, DataConfig
from dnad_ray.costs.trace import COUNTER
from dnad_ray.distill.teacher import Teacher
from dnad_ray.errors import NonFiniteLossError
from dnad_ray.networks.network_file import write_network
from dnad_ray.networks.spec import NetworkSpec, cost_of
from dnad_ray.retrain.data import RetrainImages
from dnad_ray.retrain.state import RetrainState
from dnad_ray.run_folder.checkpoints import CheckpointKeeper
from dnad_ray.run_folder.jobs import read_job_status
from dnad_ray.run_folder.layout import job_checkpoints_folder, job_file, job_folder, job_history_file
from dnad_ray.run_folder.reading import run_name
from dnad_ray.run_folder.records import Retrained
from dnad_ray.run_folder.states import TrialState
from dnad_ray.run_folder.writing import write_job_status, write_result
from dnad_ray.runtime.processes import ALONE, Ranks, share_state
from dnad_ray.runtime.stopping import StopCheck, StopRequest
from dnad_ray.storage.digests import digest_of_data
from dnad_ray.storage.files import write_json
from dnad_ray.storage.places import Place
from dnad_ray.training.loop import StepProgress, telling, train, train_and_keep

__all__ = ["Job", "job_of", "run_job", "unfinished_jobs"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, as plain data that can be sent to another process.

    Attributes:
        name: Name of its folder: a digest of everything that decides its result.
        spec: The network.
        config: The protocol.
        recipe: Name of the recipe that the protocol is based on.
        seed: Seed.
        protocol: Digest of settings and data, equal for networks that were trained in the same way.
        proxy_accuracy: Proxy accuracy of the best-scored snapshot of the network, or None.
        inherited: Initial weights from a snapshot, as safetensors; empty for random weights.
    """

    name: str
    spec: NetworkSpec
    config: RetrainConfig
    recipe: str
    seed: int
    protocol: str
    proxy_accuracy: float | None = None
    inherited: bytes = b""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "name": self.name,
            "network": self.spec.to_dict(),
            "settings": self.config.model_dump(mode="json"),
            "recipe": self.recipe,
            "seed": self.seed,
            "protocol": self.protocol,
            "proxy_accuracy": self.proxy_accuracy,
            "inherited": bool(self.inherited),
        }


def job_of(
    spec: NetworkSpec,
    config: RetrainConfig,
    recipe: str,
    seed: int,
    data: DataConfig,
    *,
    proxy_accuracy: float | None = None,
    inherited: bytes = b"",
    other_images: str = "",
) -> Job:
    """Return the job for these arguments; the same arguments give the same name.

    Args:
        spec: The network.
        config: The protocol.
        recipe: Name of the recipe.
        seed: Seed.
        data: Settings of the data.
        proxy_accuracy: As in :class:`Job`.
        inherited: Likewise.
        other_images: Fingerprint of images that are not those of the run folder: two folders can have equal settings.
    """
    images = data.model_dump(mode="json", exclude=set(OF_THE_PLACE))
    images |= {"images": other_images} if other_images else {}
    settings = config.model_dump(mode="json", exclude={"init_channels", "device"})
    # What versions without these settings did: their jobs keep their names.
    if not config.nesterov:
        del settings["nesterov"]
    if data.padding == "black":
        del images["padding"]
    protocol = digest_of_data({"settings": settings, "data": images, "inherited": bool(inherited)})
    network = {**spec.to_dict(), "digest": spec.digest}
    name = digest_of_data({"network": network, "protocol": protocol, "seed": seed})
    return Job(
        name=name,
        spec=spec,
        config=config,
        recipe=recipe,
        seed=seed,
        protocol=protocol,
        proxy_accuracy=proxy_accuracy,
        inherited=inherited,
    )


def unfinished_jobs(jobs: Sequence[Job], run: Place) -> list[Job]:
    """Return the jobs that are not finished."""
    return [job for job in jobs if not read_job_status(run, job.name)["state"].is_finished]


def run_job(
    job: Job,
    images: RetrainImages,
    run: Place,
    *,
    teacher: Teacher | None = None,
    stop: StopCheck | None = None,
    ranks: Ranks = ALONE,
    progress: StepProgress | None = None,
) -> TrialState:
    """Start or resume the training of a job, measure the network once at the end, and write its record.

    Args:
        job: The job.
        images: Images.
        run: The run folder.
        teacher: The teacher, or None; used if the protocol has a KD weight.
        stop: Called before each step; tells whether to stop.
        ranks: The processes that share the job; the first one writes.
        progress: Called before each step with (steps done, all steps).

    Returns:
        The state in the job's status file.
    """
    state = RetrainState(job.spec, job.config, images.data, job.seed, teacher=teacher, ranks=ranks)
    checkpoints = CheckpointKeeper(job_checkpoints_folder(run, job.name))
    saved = share_state(ranks, checkpoints.newest() if ranks.is_first else None, state.device)
    if saved is not None:
        state.load_state_dict(saved)
    elif job.inherited:
        state.inherit(job.inherited)
    if not ranks.is_first:
        return _follow(state, stop)
    write_json(job_file(run, job.name), job.to_dict())
    facts = {"from_step": state.step, "device": state.device.type, "processes": ranks.size}
    write_job_status(run, job.name, TrialState.RUNNING, **facts)
    try:
        for event in train_and_keep(state, checkpoints, telling(progress, state, stop)):
            if isinstance(event, StopRequest):
                write_job_status(run, job.name, event.state, reason=event.reason, step=state.step, **facts)
                return TrialState(event.state)
            write_json(job_history_file(run, job.name), state.history)
    except NonFiniteLossError as error:
        write_job_status(run, job.name, TrialState.STOPPED, reason=str(error), **facts)
        return TrialState.STOPPED
    record = _record(job, state, images, run)
    write_network(job_folder(run, job.name), state.trained(), job.spec, images.data, record.to_dict())
    write_result(run, record)
    write_job_status(run, job.name, TrialState.FINISHED, **facts)
    return TrialState.FINISHED


def _follow(state: RetrainState, stop: StopCheck | None) -> TrialState:
    """Train as one of the processes after the first; writes nothing."""
    try:
        for event in train(state, stop):
            if isinstance(event, StopRequest):
                return TrialState(event.state)
    except NonFiniteLossError:
        return TrialState.STOPPED
    state.measure()
    return TrialState.FINISHED


def _record(job: Job, state: RetrainState, images: RetrainImages, run: Place) -> Retrained:
    """Measure the trained network; the only use of the images held out for this."""
    accuracy = state.measure()
    last, genotype, data = state.history[-1], job.spec.genotype, images.data
    cost = cost_of(job.spec, data.shape)
    return Retrained(
        run=run_name(run),
        job=job.name,
        origin=job.spec.origin,
        model=job.spec.model,
        digest=job.spec.digest,
        recipe=job.recipe,
        protocol=job.protocol,
        seed=job.seed,
        epochs=job.config.epochs,
        init_channels=job.spec.init_channels,
        width=job.spec.width,
        num_cells=0 if genotype is None else len(genotype.cells),
        num_operations=0 if genotype is None else genotype.pruned().num_operations,
        dataset=data.name,
        image_size=data.image_size,
        num_classes=data.num_classes,
        macs=cost.macs,
        macs_conv_linear=cost.macs_conv_linear,
        params=cost.params,
        counter=COUNTER,
        proxy_accuracy=job.proxy_accuracy,
        accuracy=accuracy,
        split=images.split,
        num_images=len(data.validation),
        train_loss=last["train_loss"],
        train_accuracy=last["train_accuracy"],
        inherited=bool(job.inherited),
        ema=job.config.ema_decay is not None,
        kd=state.teacher is not None,
        device=state.device.type,
        device_seconds=state.device_seconds,
        images="" if data.record is None else data.record.digest,
    )
