"""One trial on disk: its snapshots and status are written to the run folder before the events are yielded.

The history is written at most a few seconds later, and at once when the trial ends or a checkpoint is kept.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
from collections.abc import Generator
from typing import Any, final

import torch

from dnad_ray.data.loading import ImageData
from dnad_ray.distill.teacher import Teacher
from dnad_ray.distill.teacher_cache import open_cache
from dnad_ray.errors import NonFiniteLossError
from dnad_ray.run_folder.checkpoints import CheckpointKeeper
from dnad_ray.run_folder.reading import read_final_step, read_status, run_name
from dnad_ray.run_folder.records import EpochReport, Snapshot
from dnad_ray.run_folder.states import TrialState
from dnad_ray.run_folder.writing import write_history, write_snapshot, write_status
from dnad_ray.runtime.devices import keep_freed_memory
from dnad_ray.runtime.processes import ALONE, Ranks
from dnad_ray.runtime.stopping import StopCheck, StopRequest
from dnad_ray.search.loop import search
from dnad_ray.search.state import SearchState
from dnad_ray.search.warm_start import keep_weights
from dnad_ray.storage.files import Write
from dnad_ray.storage.places import Place
from dnad_ray.training.loop import StepProgress, telling
from dnad_ray.trials.spec import TrialSpec

__all__ = ["keep_state", "run_trial"]

HISTORY_SECONDS = 5.0
"""Shortest time between two writes of a history: each write is of the whole file, and waits for the disk."""


def run_trial(
    spec: TrialSpec,
    data: ImageData,
    teacher: Teacher | None,
    folder: Place,
    saved: dict[str, Any] | None,
    *,
    stop: StopCheck | None = None,
    ranks: Ranks = ALONE,
    write: Write | None = None,
    progress: StepProgress | None = None,
) -> Generator[tuple[EpochReport | Snapshot | StopRequest, SearchState]]:
    """Run or resume a trial, writing into the run folder.

    Args:
        spec: The trial.
        data: Images.
        teacher: The teacher, or None.
        folder: The run folder.
        saved: A state to resume from, or None.
        stop: Called at the end of each step; tells whether to stop.
        ranks: The processes that share the trial; the first one writes.
        write: Writes its files, in order. None for :func:`dnad_ray.storage.files.write_bytes`. If it writes later,
            the caller must wait for it before it reports an event.
        progress: Called before each step with (steps done, most steps).

    Yields:
        Every event with the state to checkpoint; a snapshot has been passed to ``write`` before. If the loss diverges,
        the trial's status says so and the generator ends. If a stop is requested, the request is the last event, and
        the caller must save the state that comes with it, by :func:`keep_state`.
    """
    keep_freed_memory()
    run = run_name(folder)  # the folder may have another name by now
    if saved is None:
        state = SearchState.start(spec.config, data, teacher, run=run, trial=spec.name, ranks=ranks)
    else:
        state = SearchState.resume(saved, spec.config, data, teacher, run=run, trial=spec.name, ranks=ranks)
    state.ends_at = read_final_step(folder, spec.name)
    is_shared = bool(set(spec.overrides) - {"seed"})
    state.cache = open_cache(folder, spec.config, data, state.teacher, state.batches, is_shared=is_shared, ranks=ranks)
    if not ranks.is_first:
        with contextlib.suppress(NonFiniteLossError):  # the first process writes it down
            yield from ((event, state) for event in search(state, stop))
        return
    attempt = int(read_status(folder, spec.name).get("attempt", 0)) + 1
    facts = {
        "attempt": attempt,
        "from_step": state.step,  # 0, or the step of the checkpoint that this attempt resumed from
        "overrides": dict(spec.overrides),
        "host": platform.node(),  # for finding its logs on a cluster
        "device": state.device.type,
        "threads": torch.get_num_threads(),  # another number changes the bits
        "processes": ranks.size,  # another number changes the bits too
        "pid": os.getpid(),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
    write_status(folder, spec.name, TrialState.RUNNING, write=write, **facts)
    history = _History(folder, spec.name, state, write)
    try:
        for event in search(state, telling(progress, state, stop)):
            if isinstance(event, Snapshot):
                write_snapshot(folder, event, state.genotype_of(event), write)
                if event.kind == "ladder":  # ladder snapshots are stored but not yielded
                    continue
                if spec.config.evaluation.keep_weights:
                    keep_weights(folder, state, event.step, write)
            history.write(HISTORY_SECONDS)
            yield event, state
            if isinstance(event, StopRequest):
                history.write()
                facts |= {"step": state.step, "device_seconds": state.device_seconds}
                write_status(folder, spec.name, event.state, write=write, reason=event.reason, **facts)
                return
    except GeneratorExit:  # the scheduler ended the trial
        history.write()
        raise
    except NonFiniteLossError as error:
        history.write()
        write_status(folder, spec.name, TrialState.STOPPED, write=write, reason=str(error), **facts)
        return
    history.write()
    if state.limit:
        facts["reason"] = f"it reached {state.limit}"
    write_status(folder, spec.name, TrialState.FINISHED, write=write, device_seconds=state.device_seconds, **facts)


def keep_state(checkpoints: CheckpointKeeper, state: SearchState, folder: Place, write: Write | None = None) -> None:
    """Keep a checkpoint of a trial, after its history.

    An attempt that goes on from the checkpoint does not report the epochs before it again: loggers find them in the
    history file.

    Args:
        checkpoints: Those of the trial.
        state: What :func:`run_trial` yielded.
        folder: The run folder.
        write: As for :func:`run_trial`.
    """
    write_history(folder, state.trial, state.history, write)
    checkpoints.keep(state.state_dict, state.step)


@final
class _History:
    """The history file of a trial.

    Args:
        folder: The run folder.
        trial: Name of the trial.
        state: The search, which holds the history.
        write: Writes it; None for :func:`dnad_ray.storage.files.write_bytes`.
    """

    def __init__(self, folder: Place, trial: str, state: SearchState, write: Write | None) -> None:
        self._folder, self._trial, self._state, self._write = folder, trial, state, write
        self._num_written = -1  # the file may be from an earlier attempt, with another length
        self._last = -math.inf

    def write(self, least_seconds: float = 0.0) -> None:
        """Write it, unless it has not changed or was written less than the given number of seconds ago."""
        now = time.monotonic()
        if len(self._state.history) != self._num_written and now - self._last >= least_seconds:
            write_history(self._folder, self._trial, self._state.history, self._write)
            self._num_written, self._last = len(self._state.history), now
