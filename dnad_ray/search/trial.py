"""One trial on disk: a search whose snapshots and status are in the run folder before anyone hears of them.

Its history follows a few seconds later at most, and at once when the trial ends; a checkpoint has all of it too.
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
from dnad_ray.run_folder.reading import read_final_step, read_status
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
from dnad_ray.trials.spec import TrialSpec

__all__ = ["run_trial"]

HISTORY_SECONDS = 5.0
"""Least time between two writes of a history: each writes all of it, and waits for the disk."""


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
) -> Generator[tuple[EpochReport | Snapshot | StopRequest, SearchState]]:
    """Run or continue a trial, writing into the run folder.

    Args:
        spec: The trial.
        data: Images.
        teacher: Who is imitated, None where the configuration imitates nobody.
        folder: The run folder.
        saved: A state to continue from, None to begin.
        stop: Asked at the end of each step.
        ranks: The processes that share the trial; the first one writes.
        write: Writes its files, in order. None for :func:`dnad_ray.storage.files.write_bytes`; where it is something
            that writes later, whoever speaks of an event or keeps a checkpoint waits for that first.

    Yields:
        Every event with the state to checkpoint; a snapshot is stored already, or handed to ``write``. Where the loss
        diverges the trial's status says so and the generator ends; where it is stopped, the request is the last event,
        and the state that comes with it is to be saved.
    """
    keep_freed_memory()
    if saved is None:
        state = SearchState.start(spec.config, data, teacher, run=folder.name, trial=spec.name, ranks=ranks)
    else:
        state = SearchState.resume(saved, spec.config, data, teacher, run=folder.name, trial=spec.name, ranks=ranks)
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
        "from_step": state.step,  # 0, or that of the checkpoint from which this attempt went on
        "overrides": dict(spec.overrides),
        "host": platform.node(),  # on a cluster, where to look
        "device": state.device.type,
        "threads": torch.get_num_threads(),  # another number gives other bits
        "processes": ranks.size,  # likewise
        "pid": os.getpid(),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
    write_status(folder, spec.name, TrialState.RUNNING, write=write, **facts)
    history = _History(folder, spec.name, state, write)
    try:
        for event in search(state, stop):
            if isinstance(event, Snapshot):
                write_snapshot(folder, event, state.genotype_of(event), write)
                if event.kind == "ladder":  # no news of the search itself
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
    except GeneratorExit:  # the scheduler wants no more of it
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


@final
class _History:
    """The history of a trial as it is on the disk.

    Args:
        folder: The run folder.
        trial: Name of the trial.
        state: Whose history it is.
        write: Writes it; None for :func:`dnad_ray.storage.files.write_bytes`.
    """

    def __init__(self, folder: Place, trial: str, state: SearchState, write: Write | None) -> None:
        self._folder, self._trial, self._state, self._write = folder, trial, state, write
        self._num_written = -1  # what stands there may be an earlier attempt's, of another length
        self._last = -math.inf

    def write(self, least_seconds: float = 0.0) -> None:
        """Write it, unless nothing came to it or it was written less than that ago."""
        now = time.monotonic()
        if len(self._state.history) != self._num_written and now - self._last >= least_seconds:
            write_history(self._folder, self._trial, self._state.history, self._write)
            self._num_written, self._last = len(self._state.history), now
