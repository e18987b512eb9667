"""One search: a supernet shrinks while it imitates a teacher, and every smaller network is recorded.

``search(state)`` is a generator of records, so a for-loop, a test, a notebook and Ray drive the same code::

    state = SearchState.start(config, data, run="demo", trial="t00")
    for event in search(state):
        ...  # an EpochReport or a Snapshot; state.state_dict() saved here resumes exactly here
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import final

import torch

from dnad_ray.costs.table import costs_of
from dnad_ray.run_folder.records import EpochReport, Snapshot, SnapshotKind
from dnad_ray.runtime.processes import check_same
from dnad_ray.runtime.stopping import StopCheck, StopRequest
from dnad_ray.search.evidence import to_delete
from dnad_ray.search.learner import StepFacts
from dnad_ray.search.limits import PASSES_PER_STEP, limit_reached
from dnad_ray.search.losses import sparsity
from dnad_ray.search.recording import derived_shape, report_epoch, take_ladder, take_snapshot
from dnad_ray.search.state import SearchState
from dnad_ray.training.finite import check_finite
from dnad_ray.training.loop import train

__all__ = ["search"]


def search(state: SearchState, stop: StopCheck | None = None) -> Iterator[EpochReport | Snapshot | StopRequest]:
    """Run a search to its floor, its limit or its last epoch, or until a stop is requested.

    Args:
        state: The initial state; changed in place, and complete at every event.
        stop: Called before the first step and after each one (on a GPU, after each look); tells whether to stop.

    Yields:
        A :class:`Snapshot` if candidates were deleted since the last one (at most once per validation interval), if
        the controller stalled, or if the search ended. The new rungs of the ladder at the end of each interval. An
        :class:`EpochReport` at the end of each epoch, after the snapshots of the same step. If a stop is requested,
        the :class:`~dnad_ray.runtime.stopping.StopRequest` comes last, and the state is not finished.

    Raises:
        NonFiniteLossError: If the loss becomes NaN or infinite.
    """
    yield from _hand_out(state)  # the remaining records of the step at which the state was saved
    yield from train(_Search(state), stop)


@final
class _Search:
    """The steps of a search, for :func:`dnad_ray.training.loop.train`.

    Args:
        state: The search.
    """

    def __init__(self, state: SearchState) -> None:
        self._state, self.counter, self.batches = state, state, state.batches
        self._interval = state.config.evaluation.interval_epochs * state.steps_per_epoch
        self._kind: SnapshotKind | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the search is finished."""
        return self._state.is_finished

    @property
    def is_complete(self) -> bool:
        """Whether a look is due; between looks a part of the state is only on the device."""
        return self._state.step % self._state.look_steps == 0 or self._is_epoch_end

    @property
    def _is_epoch_end(self) -> bool:
        return self._state.step % self._state.steps_per_epoch == 0

    def train_step(self) -> None:
        """Take one step of weights and architecture weights, without waiting for the device."""
        state = self._state
        pressure = None if _is_warming_up(state) else (state.controller.gamma, state.controller.mu)
        images, labels = state.batches.batch(state.step)
        target = None if state.cache is None else state.cache.target(state.step, images)
        progress = state.step / max(1, state.num_steps - 1)
        state.learner.step(images, labels, pressure, state.batches.batch_size, progress=progress, target=target)
        state.step += 1

    def look(self) -> None:
        """Delete candidates, update the controller, and decide whether the search is finished."""
        state = self._state
        # Of the last step taken, which may be the last one of the warm-up.
        is_warming_up = _is_warming_up(state, state.step - 1)
        before = len(state.supernet.candidates)
        look = _look(state)
        _spend(state, look.num_images)
        deleted, waiting = (0, 0) if is_warming_up else _delete(state, look)
        is_pareto = not is_warming_up and _observe(state, deleted, waiting, look.num_steps)
        state.deleted_since_snapshot += deleted
        state.is_finished = state.step >= state.num_steps or _cannot_go_on(state) or _is_at_floor(state, deleted)
        if not state.is_finished:
            state.limit = _limit(state)
            state.is_finished = bool(state.limit)
        self._kind = None
        if state.is_finished:
            self._kind = "final"
        elif is_pareto:
            self._kind = "pareto"
        elif state.step % self._interval == 0 and state.deleted_since_snapshot:
            self._kind = "pruned"
        assert len(state.supernet.candidates) == before - deleted
        if self._is_epoch_end or state.is_finished:
            check_same(state.ranks, state.shared_bits, state.device)

    def events(self) -> Iterator[EpochReport | Snapshot]:
        """Return the snapshots and the report that are due; a state saved at the first one holds the others."""
        state = self._state
        snapshot = None if self._kind is None else take_snapshot(state, self._kind)
        is_rung_due = state.config.evaluation.ladder and state.step % self._interval == 0
        ladder = take_ladder(state) if is_rung_due else []
        report = report_epoch(state) if self._is_epoch_end or state.is_finished else None
        state.pending = [*([] if snapshot is None else [snapshot]), *ladder]
        return chain(_hand_out(state), [] if report is None else [report])


def _hand_out(state: SearchState) -> Iterator[Snapshot]:
    while state.pending:
        yield state.pending.pop(0)


def _look(state: SearchState) -> StepFacts:
    """Fetch the facts of the steps since the last look, and check that they are finite."""
    look = state.learner.look()
    # The loss is that of the weights before the last step; the sparsity sum shows whether those after it are finite.
    for name, value, num_good in (("loss", look.loss, look.num_good), ("sparsity sum", look.sparsity, look.num_steps)):
        check_finite(
            num_good,
            look.num_steps,
            value,
            step=state.step,
            steps_per_epoch=state.steps_per_epoch,
            what=name,
            advice="train.learning_rate or train.arch_learning_rate",
            cause=_cause(look),
        )
    state.sums.add(look, state.teacher is not None)
    state.sparsity = look.sparsity
    return look


def _cause(look: StepFacts) -> str:
    """Return which part of the loss is not finite, with its remedy; empty if it is the task loss, or if all are.

    Once a step has spoilt the weights all parts are spoilt, so this shows with a look at every step only.
    """
    if not math.isfinite(look.task_loss):
        return ""
    if not math.isfinite(look.kd_loss):
        return "it is the imitation loss: lower distill.weight, or choose another distill.temperature, kind or teacher"
    if not math.isfinite(look.loss):
        return "it is a weight of the loss: lower distill.weight, shrink.mu, shrink.gamma_init or shrink.gamma_max"
    return ""


def _limit(state: SearchState) -> str:
    """Return the limit that the trial has reached, as text; the clock of the first process decides for all."""
    limit = limit_reached(state.config.limit, state.macs_spent, state.device_seconds, state.step, state.ends_at)
    if state.ranks.size > 1 and state.config.limit.seconds is not None:
        is_reached = bool(state.ranks.of_first(torch.tensor(bool(limit), device=state.device)))
        limit = (limit or f"limit.seconds {state.config.limit.seconds:g}") if is_reached else ""
    return limit


def _spend(state: SearchState, num_images: int) -> None:
    """Add the multiply-adds of the steps since the last look, if they are limited."""
    if state.config.limit.macs is not None:
        # A network of all alive candidates, at the width of the supernet, costs as much as the supernet.
        forward = costs_of(state.supernet.genotype, state.shape(state.config.space.init_channels)).macs
        state.macs_spent += PASSES_PER_STEP * num_images * forward


def _delete(state: SearchState, look: StepFacts) -> tuple[int, int]:
    """Delete candidates; returns how many were deleted, and how many are ready but not yet allowed."""
    ready, dead = to_delete(state, look)
    if not dead:
        return 0, len(ready)
    state.learner.delete(dead)
    state.sparsity = float(sparsity(state.relaxation.weights().detach()))
    return len(look.weights) - len(state.supernet.candidates), len(ready) - len(dead)


def _observe(state: SearchState, deleted: int, waiting: int, num_steps: int) -> bool:
    """Update the controller, with all deletions in the last step; returns whether a Pareto snapshot is due."""
    counts = (*[(0, 0)] * (num_steps - 1), (deleted, waiting))
    observed = [state.controller.observe(*count) for count in counts]
    return any(observed)


def _is_warming_up(state: SearchState, step: int | None = None) -> bool:
    step = state.step if step is None else step
    return step < state.config.train.warmup_epochs * state.steps_per_epoch


def _cannot_go_on(state: SearchState) -> bool:
    # If every node, or edge, has only the candidates that it must keep, nothing can be deleted any more, and gamma
    # would grow until the sparsity term dominates the task loss.
    relaxation = state.relaxation
    if _is_warming_up(state) or len(state.supernet.candidates) > relaxation.most_kept:
        return False
    return len(relaxation.kept(state.worth())) == len(state.supernet.candidates)


def _is_at_floor(state: SearchState, deleted: int) -> bool:
    """Whether a floor is reached; the sparsity sum can fall in every step, the other two only by deletions."""
    floor = state.config.shrink.floor
    if floor.sparsity is not None and state.sparsity < floor.sparsity and not _is_warming_up(state):
        return True
    if not deleted:
        return False
    genotype = state.supernet.genotype
    return (floor.operations is not None and genotype.pruned().num_operations <= floor.operations) or (
        floor.macs is not None and costs_of(genotype, derived_shape(state)).macs < floor.macs
    )
