"""The one training loop: of searches, retraining, teachers and baselines.

What differs between them is a :class:`Training`: what a step is, and what the host does when it looks. What does not
stands here once: when to stop, what compute counts, and when checkpoints are kept. ``train`` is a generator of events,
so a for-loop, a test, a notebook and Ray drive the same code.
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

__all__ = ["Counted", "StepProgress", "Training", "counted", "finish", "train", "train_and_keep"]

_Event_co = TypeVar("_Event_co", covariant=True)

StepProgress = Callable[[int, int], None]
"""Told of (steps done, steps in all)."""


class Counted(Protocol):
    """Something whose compute is counted.

    Attributes:
        device_seconds: Compute so far: wall seconds times processes.
        ranks: The processes that share it.
    """

    device_seconds: float
    ranks: Ranks


class Training(Protocol[_Event_co]):
    """What the loop drives: a search, or a :class:`dnad_ray.training.task.Task`."""

    @property
    def batches(self) -> TrainingBatches:
        """What it trains on; closed at the end."""

    @property
    def counter(self) -> Counted:
        """Where its compute is counted."""

    @property
    def is_finished(self) -> bool:
        """Whether it is at its end."""

    @property
    def is_complete(self) -> bool:
        """Whether it can be stopped and saved after the steps so far."""

    def train_step(self) -> None:
        """Take one step, without a wait for the device."""

    def look(self) -> None:
        """Let the host learn what the steps since the last look did; called where the training is complete.

        Raises:
            NonFiniteLossError: If a loss or gradient became NaN or infinite.
        """

    def events(self) -> Iterable[_Event_co]:
        """Return what there is to report; called after :meth:`look`, and all of it is made before any is used."""


@contextlib.contextmanager
def counted(what: Counted) -> Iterator[None]:
    """Count the wall seconds of a block, times the processes that spend them, as compute."""
    began = time.perf_counter()
    yield
    what.device_seconds += (time.perf_counter() - began) * what.ranks.size


def train(training: Training[_Event_co], stop: StopCheck | None = None) -> Iterator[_Event_co | StopRequest]:
    """Train to the end, or until it is asked to stop.

    Args:
        training: Where to begin; changed in place, and complete at every event.
        stop: Asked before the first step, and after each at which the training is complete.

    Yields:
        What the training reports; a request that was honoured comes last, and the training is not finished then.

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
    """Train as :func:`train` does, and keep a checkpoint now and then, at a request to stop, and at the end.

    Between two checkpoints there may be less than an epoch: one of a large network takes an hour.
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
    # Last: whoever writes down what was reported has done so by now.
    if task.is_finished and task.step > began_at:
        checkpoints.keep(task.state_dict, task.step)


def finish(
    task: Task,
    checkpoints: Place | None = None,
    *,
    stop: StopCheck | None = None,
    progress: StepProgress | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Train to the end, going on from the newest checkpoint where there is one.

    Args:
        task: Before its first step; changed in place.
        checkpoints: The folder of its checkpoints; None keeps none.
        stop: Asked before each step.
        progress: Told of each step.
        on_epoch: Told of each entry of the history, also of those before the checkpoint.

    Raises:
        Stopped: If it was asked to stop; the checkpoint of its last step is kept then.
        RunFolderError: If the checkpoint is that of another training.
        NonFiniteLossError: If a loss or gradient became NaN or infinite.
    """

    def check() -> StopRequest | None:
        if progress is not None and task.step:
            progress(task.step, task.num_steps)
        return None if stop is None else stop()

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
            remove_folder(checkpoints)  # whoever went on from there would get here again
        raise
    if progress is not None:
        progress(task.num_steps, task.num_steps)
