"""The one training loop for searches, retraining, teachers and baselines.

A :class:`Training` defines the differences: the step, and the work of the host at each look. The common parts are
here: stop requests, counting of compute, and checkpoints. ``train`` is a generator of events, so a for-loop, a test, a
notebook and Ray drive the same code.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from dnad_ray.data.batches import TrainingBatches
from dnad_ray.errors import NonFiniteLossError
from dnad_ray.run_folder.checkpoints import CheckpointKeeper
from dnad_ray.runtime.processes import Ranks
from dnad_ray.runtime.stopping import StopCheck, Stopped, StopRequest
from dnad_ray.storage.places import Place, remove_folder
from dnad_ray.training.task import Task

__all__ = ["Counted", "StepProgress", "Training", "counted", "finish", "telling", "train", "train_and_keep"]

_Event_co = TypeVar("_Event_co", covariant=True)

StepProgress = Callable[[int, int], None]
"""Called with (steps done, total steps)."""


class Counted(Protocol):
    """Something whose compute is counted.

    Attributes:
        device_seconds: Compute so far: wall seconds times processes.
        ranks: The processes that share it.
    """

    device_seconds: float
    ranks: Ranks


class Steps(Protocol):
    """Something whose steps are counted: ``step`` of at most ``num_steps`` are taken."""

    @property
    def step(self) -> int: ...

    @property
    def num_steps(self) -> int: ...


class Training(Protocol[_Event_co]):
    """Interface of the loop: a search, or a :class:`dnad_ray.training.task.Task`."""

    @property
    def batches(self) -> TrainingBatches:
        """Training batches; closed at the end."""

    @property
    def counter(self) -> Counted:
        """The object that counts its compute."""

    @property
    def is_finished(self) -> bool:
        """Whether the training is finished."""

    @property
    def is_complete(self) -> bool:
        """Whether it can be stopped and saved at the present step."""

    def train_step(self) -> None:
        """Take one step, without waiting for the device."""

    def look(self) -> None:
        """Fetch the facts of the steps since the last look; called when :meth:`is_complete`.

        Raises:
            NonFiniteLossError: If a loss or gradient became NaN or infinite.
        """

    def events(self) -> Iterable[_Event_co]:
        """Return all events that are due, as a complete list; called after :meth:`look`."""


@contextlib.contextmanager
def counted(what: Counted) -> Iterator[None]:
    """Add the wall seconds of a block, times the number of processes, to the compute."""
    began = time.perf_counter()
    yield
    what.device_seconds += (time.perf_counter() - began) * what.ranks.size


def train(training: Training[_Event_co], stop: StopCheck | None = None) -> Iterator[_Event_co | StopRequest]:
    """Train to the end, or until a stop is requested.

    Args:
        training: The initial state; changed in place, and complete at every event.
        stop: Called before the first step, and after each step at which the training is complete; tells whether to
            stop.

    Yields:
        The events of the training. If a stop is requested, the request comes last, and the training is not finished.

    Raises:
        NonFiniteLossError: If a loss or gradient became NaN or infinite.
    """
    is_complete = True
    while not training.is_finished:
        if is_complete and stop is not None and (request := stop()) is not None:
            training.batches.close()
            yield request
            return
        with counted(training.counter):
            training.train_step()
            is_complete = training.is_complete
            if is_complete:
                training.look()
        if training.is_finished:
            training.batches.close()
        if is_complete:
            yield from training.events()


def train_and_keep(
    task: Task, checkpoints: CheckpointKeeper, stop: StopCheck | None = None
) -> Iterator[dict[str, Any] | StopRequest]:
    """Train as :func:`train` does, and save checkpoints at intervals, at a stop request, and at the end.

    The interval can be less than an epoch, because an epoch of a large network can take an hour.
    """

    def check() -> StopRequest | None:
        if checkpoints.is_due(wanted=False):
            checkpoints.keep(task.state_dict, task.step)
        return None if stop is None else stop()

    began_at = task.step
    for event in train(task, check):
        if isinstance(event, StopRequest):
            checkpoints.keep(task.state_dict, task.step)
        yield event
    # After the last event, so that the caller has stored all records.
    if task.is_finished and task.step > began_at:
        checkpoints.keep(task.state_dict, task.step)


def telling(progress: StepProgress | None, steps: Steps, stop: StopCheck | None) -> StopCheck:
    """Return a stop check for :func:`train` that tells of each step taken before it asks ``stop``."""

    def check() -> StopRequest | None:
        if progress is not None and steps.step:
            progress(steps.step, steps.num_steps)
        return None if stop is None else stop()

    return check


def finish(
    task: Task,
    checkpoints: Place | None = None,
    *,
    stop: StopCheck | None = None,
    progress: StepProgress | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Train to the end, from the newest checkpoint if there is one.

    Args:
        task: The task before its first step; changed in place.
        checkpoints: Folder of its checkpoints, or None.
        stop: Called before each step; tells whether to stop.
        progress: Called for each step with (steps done, total steps).
        on_epoch: Called with each entry of the history, also with those from the checkpoint.

    Raises:
        Stopped: If a stop was requested; a checkpoint of the last step is saved first, if there is a folder.
        RunFolderError: If the checkpoint belongs to another training.
        NonFiniteLossError: If a loss or gradient became NaN or infinite.
    """
    check = telling(progress, task, stop)
    keeper = None if checkpoints is None else CheckpointKeeper(checkpoints)
    saved = None if keeper is None else keeper.newest()
    if saved is not None:
        task.load_state_dict(saved)
    tell = on_epoch or (lambda _: None)
    for entry in list(task.history):
        tell(entry)
    try:
        for event in train(task, check) if keeper is None else train_and_keep(task, keeper, check):
            if isinstance(event, StopRequest):
                raise Stopped(event)
            tell(event)
    except NonFiniteLossError:
        if checkpoints is not None:
            remove_folder(checkpoints)  # resuming from these checkpoints would diverge again
        raise
    if progress is not None:
        progress(task.num_steps, task.num_steps)
