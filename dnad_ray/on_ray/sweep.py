"""A sweep: all trials of a run as Ray Tune actors (may import ray)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.error import TuneError
from ray.tune.stopper import CombinedStopper, TimeoutStopper

from dnad_ray.config.run import RunConfig
from dnad_ray.data.loading import ImageData
from dnad_ray.distill.teacher import TeacherFile
from dnad_ray.errors import IncompleteRunError, one_line
from dnad_ray.on_ray.cluster import allotment_of, check_space, check_storage, nodes, num_parallel, ray_errors
from dnad_ray.on_ray.distributed import WAITING_ROOM, PlacementCleaner, tune_shared_trial
from dnad_ray.on_ray.mailbox import StepNews, start_mailbox
from dnad_ray.on_ray.resources import Allotment, check_parts, idle_in_words
from dnad_ray.on_ray.scheduler import ParetoScheduler
from dnad_ray.on_ray.sweep_stop import SweepStop
from dnad_ray.on_ray.teacher_thread import TeacherThread
from dnad_ray.on_ray.trainable import tune_trial
from dnad_ray.on_ray.trial_source import TrialSource
from dnad_ray.on_ray.watcher import BoardCallback
from dnad_ray.run_folder.layout import ray_folder
from dnad_ray.run_folder.reading import RunContents, read_status
from dnad_ray.run_folder.states import TrialState
from dnad_ray.runtime.budget import Budget
from dnad_ray.runtime.stopping import StopCheck, first_of
from dnad_ray.search.estimate import estimate_in_words
from dnad_ray.search.in_turn import SamplerMaker
from dnad_ray.search.prepare import PreparedRun
from dnad_ray.storage.files import write_bytes
from dnad_ray.storage.places import Place, address
from dnad_ray.trials.plan import end_trial, recorded_before, unfinished
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board

__all__ = ["run_sweep"]

_MAX_FAILURES = 2
_LOGS = ("error.txt", "events.out.tfevents.*")
_FULL_BELOW_BYTES = 2**20
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 120.0
"""After the time budget, for trials to finish a step and save it; what hangs is ended then."""


@ray_errors("the sweep")
def run_sweep(
    config: RunConfig,
    specs: Sequence[TrialSpec],
    data: ImageData,
    folder: Place,
    board: Board,
    *,
    make: Callable[[StopCheck], PreparedRun],
    stored: RunContents | None = None,
    stop: StopCheck | None = None,
    budget: Budget | None = None,
    make_sampler: SamplerMaker | None = None,
) -> None:
    """Run or continue the trials that are not at their end, inside :func:`cluster`.

    That ``fit`` returns is no success: the run folder says what became of its trials.

    Args:
        config: The run; its ``sweep`` section says what each trial gets.
        specs: All trials.
        data: Images; they go into the object store once.
        folder: The run folder, on storage that every node sees.
        board: Where to show progress.
        make: Makes what else they share, while workers start where it can; called as :class:`TeacherThread` says.
        stored: What the folder held when the command began, None for a new run.
        stop: Asked ten times a second; trials then end after their step, with a checkpoint.
        budget: What it may spend; None for no limit.
        make_sampler: Makes who chooses trials from results, out of the trials at their end; None where all are chosen.

    Raises:
        ResourceError: If there is no space on the disk, or a node does not see the folder.
        ConfigError: If there are too few images for the processes of a trial.
        IncompleteRunError: If Ray gave up.
        DnadRayError: If ``make`` raises it.
        KeyboardInterrupt: If ``stop`` asked while that was at work.
    """
    budget = budget or Budget()
    left = unfinished(specs, stored)
    todo = budget.within(left)
    check_storage(folder)
    check_parts(config, len(data.train))
    allotment = allotment_of(config)
    parallel = num_parallel(config, allotment, len(todo))
    stops = first_of(stop, budget.check)
    if stops() is None:  # before workers start, which would make the steps slower
        words = estimate_in_words(config, todo[0], data, folder, num_trials=len(todo), num_parallel=parallel)
        board.say(f"sweep: {words}")
    if (hint := idle_in_words(config, allotment, nodes(), parallel)) is not None:
        board.say(f"sweep: {hint}")
    trajectories = recorded_before(config, specs, len(data.validation), stored)
    at_end = [spec for spec in specs if spec not in left]
    mailbox = start_mailbox()
    callback = BoardCallback(folder, board, StepNews(mailbox))

    def train_teacher(check: StopCheck) -> TeacherFile | None:
        return make(check).teacher_file

    def begin(teacher_file: TeacherFile | None) -> None:
        callback.open()
        given = mailbox.give_teacher.remote([ray.put(teacher_file)])
        while not ray.wait([given], timeout=_POLL_SECONDS)[0]:
            if stops() is not None:
                return  # on a busy machine the mailbox's process can take minutes to start
        ray.get(given)

    teacher_thread = TeacherThread(train_teacher, begin, stops)
    source = TrialSource(
        todo,
        config,
        folder,
        budget=budget,
        sampler=None if make_sampler is None else make_sampler(config, at_end, trajectories, data),
        trajectories=trajectories,
        on_chosen=board.expect,
    )

    def has_begun(name: str) -> bool:
        return callback.is_open and read_status(folder, name)["state"] is TrialState.RUNNING

    ending = SweepStop(first_of(stop, teacher_thread.request, budget.check), mailbox, has_begun)
    limits = [] if budget.remaining is None else [TimeoutStopper(budget.remaining + _GRACE_SECONDS)]
    attempt = f"attempt-{1 + len(list(ray_folder(folder).glob('attempt-*')))}"
    with teacher_thread, _tune_storage(ray_folder(folder), attempt) as storage:
        tuner = tune.Tuner(
            _trainable(config, data, folder, allotment, mailbox=mailbox, deadline=budget.deadline),
            tune_config=tune.TuneConfig(
                search_alg=source,
                scheduler=ParetoScheduler(trajectories, folder) if config.sweep.scheduler == "pareto" else None,
                num_samples=len(todo),
                max_concurrent_trials=parallel,
                # A worker that has loaded everything goes on with the next trial; seeds and threads are set anew.
                reuse_actors=allotment.processes == 1,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                # A new experiment each time: nothing of Tune's own state is ever unpickled to resume.
                storage_path=storage,
                name=attempt,
                failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
                callbacks=[callback, PlacementCleaner(folder), ending],
                stop=CombinedStopper(ending, *limits),
                verbose=0,
            ),
        )
        # What a sampler chooses is written down, and nothing may be before trials can run; most mistakes show at once.
        if make_sampler is not None or teacher_thread.request() is not None:
            teacher_thread.finish()
        try:
            results = tuner.fit()
        except Exception as error:
            check_space(folder, _FULL_BELOW_BYTES)  # a full disk shows in many ways, few of which name it
            if isinstance(error, TuneError | RayError | OSError | EOFError):
                raise IncompleteRunError(f"Ray ended the sweep: {one_line(error)}") from error
            raise
        teacher_thread.finish()
        for index in range(len(results)):
            _note_failure(folder, results[index])


@contextlib.contextmanager
def _tune_storage(folder: Place, attempt: str) -> Iterator[str]:
    """Give Tune a folder on the disk of this machine; what people read of it is brought to a URL at the end.

    Trials write their own records and checkpoints, and none through Tune: no other node needs this folder.
    """
    if isinstance(folder, Path):
        yield str(folder)
        return
    with TemporaryDirectory(prefix="dnad-ray-") as storage:
        try:
            yield storage
        finally:
            for file in Path(storage, attempt).rglob("*"):
                if file.is_file() and any(fnmatch(file.name, pattern) for pattern in _LOGS):
                    write_bytes(folder / file.relative_to(storage).as_posix(), file.read_bytes())


def _trainable(config: RunConfig, data: ImageData, folder: Place, allotment: Allotment, **ends: Any) -> Any:
    """Return what Tune runs for each trial, with what it needs, what it may use, and what ends it before its time."""
    given: dict[str, Any] = {"base": config, "folder": address(folder), **ends}
    if allotment.processes > 1:
        trial = tune.with_parameters(tune_shared_trial, **given, images=[ray.put(data)], allotment=allotment)
        return tune.with_resources(trial, tune.PlacementGroupFactory(WAITING_ROOM))
    trial = tune.with_parameters(
        tune_trial,
        **given,
        data=data,
        num_threads=allotment.threads,
        gpu_share=allotment.gpus,
    )
    return tune.with_resources(trial, {"cpu": allotment.cpus, "gpu": allotment.gpus})


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial"])


def _note_failure(folder: Place, result: Any) -> None:
    """Write down why a trial failed that Ray gave up on; the trial itself could not."""
    if result.error is not None:
        name = result.config["trial"]
        reason = str(result.error).strip().splitlines()[-1]
        end_trial(folder, name, TrialState.FAILED, reason)
