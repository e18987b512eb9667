"""The common part of `retrain` and `baselines`: from arguments to jobs, and from jobs to trained networks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dnad_ray.commands.folder import check_images, made_for_writing
from dnad_ray.commands.job_running import JobWork, job_runner, placed_as, trained
from dnad_ray.commands.options import (
    AnyPath,
    Settings,
    TimeBudget,
    budget_of,
    check_no_ray,
    mode_of,
    named_by_option,
    settings_of,
    with_absolute_paths,
)
from dnad_ray.commands.outcome import Outcome, State
from dnad_ray.commands.search import shown
from dnad_ray.config.retrain import retrain_recipe, with_settings
from dnad_ray.config.run import RunConfig, config_from_dict, config_to_dict, with_overrides
from dnad_ray.config.section import Words
from dnad_ray.data.loading import resolve_data_argument
from dnad_ray.data.summary import classes_in_words
from dnad_ray.distill.teacher import TeacherFile, read_teacher
from dnad_ray.errors import ConfigError, DataError, RunFolderError
from dnad_ray.on_ray.resources import check_requests
from dnad_ray.retrain.data import RetrainImages, load_retrain_images
from dnad_ray.retrain.estimate import estimate_in_words
from dnad_ray.retrain.jobs import Job, unfinished_jobs
from dnad_ray.retrain.plan import Request
from dnad_ray.run_folder.images import read_images
from dnad_ray.run_folder.jobs import read_job_status
from dnad_ray.run_folder.layout import config_file, retrained_folder, teacher_folder
from dnad_ray.run_folder.lock import writing_to
from dnad_ray.run_folder.reading import RunContents, is_run
from dnad_ray.run_folder.states import TrialState
from dnad_ray.run_folder.writing import create_run, free_folder
from dnad_ray.runtime.budget import Budget
from dnad_ray.runtime.cpus import limit_threads
from dnad_ray.runtime.stopping import StopCheck, Stopped, StopSignals, first_of
from dnad_ray.storage.places import Place, absolute, address, reached
from dnad_ray.version import __version__
from dnad_ray.watch.board import Board

__all__ = ["Plan", "Training", "holds_run", "request_of", "run_config_of", "train_networks"]

_OF_RUN = ("data.", "space.stem")
"""Beginnings of keys of the run's configuration; all other keys are settings of the protocol."""

Plan = Callable[[RetrainImages, Board, StopCheck], list[Job]]
"""Makes the jobs from the loaded images."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How networks are trained.

    Attributes:
        recipe: ``cifar``, ``imagenet-mobile`` or ``quick``.
        set: Settings of the protocol to replace, or keys of the data, ``data.KEY``.
        epochs: Epochs, None for those of the recipe.
        data: Another dataset than the run's, or a folder of images.
        image_size: Side of the images in pixels.
        seeds: How often each network is trained.
        seed: The first seed.
        max_macs: Scale widths to at most that many multiply-adds.
        max_params: Scale widths to at most that many parameters.
        cpus: CPUs of a job.
        gpus: GPUs of a job.
        address: Ray cluster to join; None starts one on this machine.
        no_ray: Whether to train one after the other in this process.
        time_budget: Pause after that many seconds, or a text such as ``10m``.
        quiet: Whether to show no progress.
    """

    recipe: str = "cifar"
    set: Settings = ()
    epochs: int | None = None
    data: AnyPath | None = None
    image_size: int | None = None
    seeds: int = 1
    seed: int = 0
    max_macs: int | None = None
    max_params: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    address: str | None = None
    no_ray: bool = False
    time_budget: TimeBudget = None
    quiet: bool = False


def request_of(training: Training, digests: Sequence[str] = (), networks: int | None = None) -> Request:
    """Return the checked request."""
    check_no_ray(training.no_ray, training.address)
    settings = {k: v for k, v in settings_of(training.set).items() if not k.startswith(_OF_RUN)}
    overrides = ({} if training.epochs is None else {"epochs": training.epochs}) | settings
    with named_by_option({"epochs": "--epochs"}, settings):
        config = with_settings(retrain_recipe(training.recipe), overrides, "--set" if settings else "--epochs")
    return Request(
        config=config,
        recipe=training.recipe,
        seeds=training.seeds,
        first_seed=training.seed,
        max_macs=training.max_macs,
        max_params=training.max_params,
        digests=tuple(digests),
        limit=networks,
        transfer=training.data is not None or training.image_size is not None,
    )


def run_config_of(contents: RunContents | None, training: Training) -> RunConfig:
    """Return the configuration of the run whose images are used, with the data that are asked for.

    Args:
        contents: The run, None where there is none.
        training: The arguments.
    """
    if contents is not None:
        if not contents.config:
            raise RunFolderError("run folder", address(contents.path), "a run whose config.yaml can be read")
        config = config_from_dict(contents.config, address(config_file(contents.path)))
        if config.data.download:  # its author's word; the user of this command gives their own
            config = with_overrides(config, {"data.download": False})
    elif training.data is None:
        raise ConfigError("--data", None, "the images to train on, for a genotype that is in no run folder")
    else:
        config = RunConfig()
    overrides = {} if training.data is None else resolve_data_argument(str(training.data))
    settings = {key: value for key, value in settings_of(training.set).items() if key.startswith(_OF_RUN)}
    overrides |= {key: value for key, (_, value) in _given(training).items()} | settings
    if training.recipe == "imagenet-mobile" and contents is None:
        overrides.setdefault("space.stem", "imagenet")
    with named_by_option(_options(training), settings):
        return with_absolute_paths(with_overrides(config, overrides))


def train_networks(
    plan: Plan,
    request: Request,
    run: RunConfig,
    folder: Place,
    training: Training | None = None,
    *,
    source: Place | None = None,
) -> Outcome:
    """Run the planned jobs, each from its last checkpoint.

    Args:
        plan: Makes the jobs.
        request: The protocol and the requested networks.
        run: The configuration of the run whose images are used. A new folder gets it.
        folder: The run folder for the results; created if it does not exist.
        training: The other arguments; None for the defaults.
        source: The run whose images are used, None where there is none. If other images are not asked for, they must
            be the ones that it was made with.

    Returns:
        How it ended; ``front`` has a row per trained network, ``left`` names the open jobs.

    Raises:
        UserError: If an argument cannot be used.
    """
    training = training or Training()
    limit_threads()
    folder = absolute(folder)  # tasks run in folders of their own
    budget = budget_of(training.time_budget)
    placed = placed_as(run, request.config)
    if not training.no_ray:
        with named_by_option(_options(training), {}):
            check_requests(placed)
    is_new = not holds_run(folder)
    if is_new:
        free_folder(folder)
    with contextlib.ExitStack() as held, shown(mode_of(training.quiet)) as board, StopSignals() as signals:
        if not is_new:
            held.enter_context(writing_to(folder))
        if source is not None and not _names_images(training):
            _check_author(source, run.data.root)
        images = load_retrain_images(run.data, board.update)
        if source is not None and training.data is None:
            check_images(source, images.data.record, "put them back, or name others with --data")
        if run.data.root is not None:
            board.say(f"retrain: images of {run.data.root}")
        before, record = None if is_new else read_images(folder), images.data.record
        if before is not None and record is not None and before.digest != record.digest:
            images = images._replace(other=record.digest)
        board.say(classes_in_words(images.data, images.split))
        for note in images.data.notes:
            board.say(f"warning: {note}")
        teacher_file = _teacher(folder, request, is_new)
        stop = first_of(signals, budget.check)
        signals.defer()  # the plan may hold a search, which ends with a checkpoint
        try:
            jobs = plan(images, board, stop)
        except Stopped as stopped:
            state: State = "paused" if stopped.request.state == "paused" else "interrupted"
            return Outcome(state=state, reason=str(stopped), paths={"run": folder}, signum=signals.signum)
        if is_new:
            held.enter_context(made_for_writing(folder))
            create_run(folder, config_to_dict(run), __version__, images.data.record)
        todo = unfinished_jobs(jobs, folder)
        board.say(
            f"retrain: {len(jobs)} jobs ({len(jobs) - len(todo)} done already), {request.config.epochs} epochs on "
            f"{len(images.data.train):,} images, measured on {len(images.data.validation):,} {images.split} images"
        )
        if images.split == "validation":
            board.say("retrain: there are no test images; accuracies are those of images that the search selected on")
        if todo:
            board.say(f"retrain: {estimate_in_words(todo, images, folder, teacher_file)}")
        work = JobWork(images, teacher_file, folder, board, stop, budget.deadline)
        if todo:
            with (
                named_by_option(_options(training), {}),
                job_runner(placed, address=training.address, no_ray=training.no_ray) as run_all,
            ):
                signals.defer()
                run_all(todo, work)
        return _outcome(jobs, folder, budget, signals.signum)


def _names_images(training: Training) -> bool:
    """Whether the user of this command says where the images are."""
    return training.data is not None or "data.root" in settings_of(training.set)


def _check_author(source: Place, root: str | None) -> None:
    """Check that a folder of images that only the author of a run names is the one that the run was made with.

    Raises:
        DataError: If the run does not say what was in it.
    """
    if root is not None and read_images(source) is None:
        raise DataError(
            "images",
            Words(
                f"{root}, named by the configuration of {address(source)}, which has no images.json to check them by"
            ),
            f"--data {root}, if these are the images that you want, or others",
        )


def holds_run(folder: Place) -> bool:
    """Whether a folder has a run; an unreachable one has none."""
    with contextlib.suppress(OSError):
        return reached(folder, "SOURCE") and is_run(folder)
    return False


def _outcome(jobs: Sequence[Job], folder: Place, budget: Budget, signum: int | None) -> Outcome:
    front = trained(jobs, folder)
    states = {job.name: read_job_status(folder, job.name) for job in jobs}
    left = tuple(name for name, status in states.items() if not status["state"].is_finished)
    paths = {"run": folder, "retrained": retrained_folder(folder)}
    if signum is not None and left:
        return Outcome(state="interrupted", reason="interrupted", front=front, paths=paths, left=left, signum=signum)
    failed = [name for name in left if states[name]["state"] is TrialState.FAILED] or (
        left if not budget.is_spent() else ()
    )
    diverged = [
        f"{name}: {status['reason']}" for name, status in states.items() if status["state"] is TrialState.STOPPED
    ]
    if failed or diverged:
        reasons = sorted({str(states[name].get("reason", "no reason recorded")) for name in failed})
        words = [f"{len(failed)} of {len(jobs)} jobs did not finish"] * bool(failed) + reasons + diverged
        state: State = "incomplete" if failed else "failed"
        return Outcome(state=state, reason="; ".join(words), front=front, paths=paths, left=left)
    if left:
        words = [f"the time budget is spent; {len(left)} of {len(jobs)} jobs are open"]
        return Outcome(state="paused", reason=words[0], front=front, paths=paths, left=left)
    return Outcome(state="finished", front=front, paths=paths)


def _given(training: Training) -> dict[str, tuple[str, float]]:
    """Return the options that stand for keys of the run's configuration, by key, with their values."""
    given = (
        ("data.image_size", "--image-size", training.image_size),
        ("sweep.cpus_per_trial", "--cpus", training.cpus),
        ("sweep.gpus_per_trial", "--gpus", training.gpus),
    )
    return {key: (option, value) for key, option, value in given if value is not None}


def _options(training: Training) -> dict[str, str]:
    return {key: option for key, (option, _) in _given(training).items()}


def _teacher(folder: Place, request: Request, is_new: bool) -> TeacherFile | None:
    if not request.config.kd_weight:
        return None
    file = None if is_new else read_teacher(teacher_folder(folder))
    if file is None:
        raise ConfigError(
            "--set kd_weight", request.config.kd_weight, f"0; there is no teacher in {address(teacher_folder(folder))}"
        )
    return file
