"""One search: a supernet shrinks while it imitates, and leaves a record of every smaller network behind.

``search(state)`` is a generator of records, so a for-loop, a test, a notebook and Ray drive the same code::

    state = SearchState.start(config, data, run="demo", trial="t00")
    for event in search(state):
        ...  # an EpochReport or a Snapshot; state.state_dict() saved here resumes exactly here
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from dnad_ray.complexity import COUNTER
from dnad_ray.config import RunConfig
from dnad_ray.cost_table import costs_of
from dnad_ray.errors import ConfigError, NonFiniteLossError
from dnad_ray.evaluate import accuracy_of, recalibrate
from dnad_ray.learner import Look
from dnad_ray.limits import PASSES_PER_STEP, limit_reached
from dnad_ray.losses import dense_sparsity, sparsity
from dnad_ray.parallel import check_same
from dnad_ray.records import EpochReport, Snapshot, SnapshotKind
from dnad_ray.spaces import space_of
from dnad_ray.state import EpochSums, SearchState
from dnad_ray.stopping import StopCheck, StopRequest
from search_spaces.residual import STEM_OF_RESIDUAL
from search_spaces.space import NetworkShape

__all__ = ["SearchState", "check_buildable", "search", "seconds_per_step"]


def check_buildable(config: RunConfig) -> None:
    """Check what only the space can tell; costs nothing.

    Raises:
        SpaceError: If the configured space, operations or stem do not exist.
        ConfigError: If the dense supernet is below its floor already, so that nothing would ever be deleted.
    """
    named = config.space
    space = space_of(named)
    needed = len(config.distill.stage_ratios)
    if config.distill.uses_features and space.num_stages != needed:
        raise ConfigError(
            "space.num_stages", space.num_stages, f"{needed} where features are imitated, one for each end"
        )
    if space.skeleton == "nas_bench_201" and named.stem != "cifar":
        raise ConfigError("space.stem", named.stem, STEM_OF_RESIDUAL)
    if config.evaluation.keep_weights and space.skeleton != "darts":
        allowed = "false: what is shared in the residual skeleton does not carry over to a derived network"
        raise ConfigError("evaluation.keep_weights", True, allowed)
    floor = config.shrink.floor
    if floor.operations is not None and floor.operations >= space.num_candidates:
        raise ConfigError(
            "shrink.floor.operations", floor.operations, f"less than the {space.num_candidates} candidates"
        )
    dense = dense_sparsity(space)
    if floor.sparsity is not None and floor.sparsity >= dense:
        raise ConfigError("shrink.floor.sparsity", floor.sparsity, f"less than {dense:.1f}, that of the dense supernet")
    if config.data.image_size is not None:
        NetworkShape(in_channels=1, image_size=config.data.image_size, num_classes=2, init_channels=2, stem=named.stem)


def search(state: SearchState, stop: StopCheck | None = None) -> Iterator[EpochReport | Snapshot | StopRequest]:
    """Run a search to its floor, its limit or its last epoch, or until it is asked to stop.

    Args:
        state: Where to begin; changed in place, and complete at every event.
        stop: Asked before the first step and at the end of each (on a GPU, of each look).

    Yields:
        A :class:`Snapshot` whenever candidates were deleted since the last one (at most once per validation
        interval), the controller stalled, or the search ended; and an :class:`EpochReport` at the end of each
        epoch, after the snapshot of the same step. A :class:`dnad_ray.stopping.StopRequest` that was honoured comes
        last, and the state is not finished then.

    Raises:
        NonFiniteLossError: If the loss becomes NaN or infinite.
    """
    interval = state.config.evaluation.interval_epochs * state.steps_per_epoch
    has_looked = True
    while not state.is_finished:
        # Between looks the state is on the device in part.
        if has_looked and stop is not None and (request := stop()) is not None:
            state.batches.close()
            yield request
            return
        began = time.perf_counter()
        is_warming_up = _is_warming_up(state)
        pressure = None if is_warming_up else (state.controller.gamma, state.controller.mu)
        images, labels = state.batches.batch(state.step)
        target = None if state.cache is None else state.cache.target(state.step, images)
        progress = state.step / max(1, state.num_steps - 1)
        state.learner.step(images, labels, pressure, state.batches.batch_size, progress=progress, target=target)
        state.step += 1
        is_epoch_end = state.step % state.steps_per_epoch == 0
        has_looked = state.step % state.look_steps == 0 or is_epoch_end
        if not has_looked:
            state.device_seconds += time.perf_counter() - began
            continue
        before = len(state.supernet.candidates)
        look = _look(state)
        _spend(state, look.num_images)
        deleted = 0 if is_warming_up else _delete(state, look.weights)
        is_pareto = not is_warming_up and _observe(state, deleted, look.num_steps)
        state.deleted_since_snapshot += deleted
        state.is_finished = state.step >= state.num_steps or _cannot_go_on(state) or _is_at_floor(state, deleted)
        if not state.is_finished:
            state.limit = _limit(state)
            state.is_finished = bool(state.limit)
        kind: SnapshotKind | None = None
        if state.is_finished:
            kind = "final"
            state.batches.close()
        elif is_pareto:
            kind = "pareto"
        elif state.step % interval == 0 and state.deleted_since_snapshot:
            kind = "pruned"
        assert len(state.supernet.candidates) == before - deleted
        if is_epoch_end or state.is_finished:
            check_same(state.ranks, state.shared_bits, state.device)
        state.device_seconds += time.perf_counter() - began
        # Both are made before either is handed out, so that a state saved at the first lacks nothing of the second.
        snapshot = None if kind is None else _snapshot(state, kind)
        report = _report(state) if is_epoch_end or state.is_finished else None
        if snapshot is not None:
            yield snapshot
        if report is not None:
            yield report


def _look(state: SearchState) -> Look:
    """Let the host learn what the steps since the last look did."""
    look = state.learner.look()
    # The loss is of the weights before the last step; the sparsity sum tells whether those after it are numbers still.
    for name, value in (("loss", look.loss), ("sparsity sum", look.sparsity)):
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the {name} became {value} at step {state.step - 1} "
                f"(epoch {(state.step - 1) // state.steps_per_epoch + 1}); "
                "lower train.learning_rate or train.arch_learning_rate"
            )
    state.sums.add(look, state.teacher is not None)
    state.sparsity = look.sparsity
    return look


def _limit(state: SearchState) -> str:
    """Return which limit the trial has reached, in words; that of the first process, whose clock counts for all."""
    limit = limit_reached(state.config.limit, state.macs_spent, state.device_seconds, state.step, state.ends_at)
    if state.ranks.size > 1 and state.config.limit.seconds is not None:
        is_reached = bool(state.ranks.of_first(torch.tensor(bool(limit), device=state.device)))
        limit = (limit or f"limit.seconds {state.config.limit.seconds:g}") if is_reached else ""
    return limit


def _spend(state: SearchState, num_images: int) -> None:
    """Count what the steps since the last look cost, if there is a limit to it."""
    if state.config.limit.macs is not None:
        # The network of everything that is alive, at the width of the supernet, costs what the supernet does.
        forward = costs_of(state.supernet.genotype, state.shape(state.config.space.init_channels)).macs
        state.macs_spent += PASSES_PER_STEP * num_images * forward


def _delete(state: SearchState, weights: list[float]) -> int:
    """Delete every candidate below the baseline for good; returns how many are gone."""
    dead = state.relaxation.weakest(weights, state.config.shrink.baseline)
    if not dead:
        return 0
    state.learner.delete(dead)
    state.sparsity = float(sparsity(state.relaxation.weights().detach()))
    return len(weights) - len(state.supernet.candidates)


def _observe(state: SearchState, deleted: int, num_steps: int) -> bool:
    """Tell the controller about steps of which the last one deleted; returns whether a Pareto snapshot is due."""
    observed = [state.controller.observe(count) for count in (*[0] * (num_steps - 1), deleted)]
    return any(observed)


def _is_warming_up(state: SearchState) -> bool:
    return state.step < state.config.train.warmup_epochs * state.steps_per_epoch


def _cannot_go_on(state: SearchState) -> bool:
    # With no more than what every node keeps nothing is left to delete, and gamma would grow until it drowns the task.
    return not _is_warming_up(state) and len(state.supernet.candidates) <= state.relaxation.num_kept


def _is_at_floor(state: SearchState, deleted: int) -> bool:
    """Whether a limit is reached; the sparsity sum can fall in every step, the other two by deletions only."""
    floor = state.config.shrink.floor
    if floor.sparsity is not None and state.sparsity < floor.sparsity and not _is_warming_up(state):
        return True
    if not deleted:
        return False
    genotype = state.supernet.genotype
    return (floor.operations is not None and genotype.pruned().num_operations <= floor.operations) or (
        floor.macs is not None and costs_of(genotype, _derived_shape(state)).macs < floor.macs
    )


def _derived_shape(state: SearchState) -> NetworkShape:
    return state.shape(state.config.evaluation.init_channels)


def _snapshot(state: SearchState, kind: SnapshotKind) -> Snapshot:
    began = time.perf_counter()
    config = state.config
    genotype, chosen = state.derived()
    is_whole = len(chosen) == len(state.supernet.candidates)
    # The score is that of the network that the record names, with what it inherited.
    weights = (state.relaxation.weights() if is_whole else state.relaxation.weights_of(chosen)).detach()

    def logits(images: Tensor) -> Tensor:
        return cast(Tensor, state.supernet(images, weights).logits)

    scoring = config.evaluation
    recalibrate(state.supernet, logits, state.data, scoring.recalibration_images, config.train.batch_size)
    accuracy = accuracy_of(
        state.supernet, logits, state.data.validation, state.data, scoring.batch_size, ranks=state.ranks
    )
    traced = scoring.trace == "all" or (scoring.trace == "final" and kind == "final")
    cost = costs_of(genotype, _derived_shape(state), traced)
    state.deleted_since_snapshot = 0
    state.device_seconds += time.perf_counter() - began
    return Snapshot(
        run=state.run,
        trial=state.trial,
        seed=config.seed,
        step=state.step,
        epoch=math.ceil(state.step / state.steps_per_epoch),
        kind=kind,
        digest=genotype.digest,
        num_operations=genotype.num_operations,
        macs=cost.macs,
        macs_conv_linear=cost.macs_conv_linear,
        params=cost.params,
        proxy_accuracy=accuracy,
        train_loss=state.sums.mean("task_loss"),
        train_accuracy=state.sums.mean("correct"),
        shrink_rate=config.shrink.rate,
        kd_kind=config.distill.kind,
        kd_temperature=config.distill.temperature,
        kd_weight=config.distill.weight,
        gamma=state.controller.gamma,
        mu=state.controller.mu,
        sparsity=state.sparsity,
        device_seconds=state.device_seconds,
        device=state.device.type,
        dataset=state.data.name,
        image_size=state.data.image_size,
        num_classes=state.data.num_classes,
        init_channels=scoring.init_channels,
        counter=COUNTER,
        costs_traced=traced,
    )


def _report(state: SearchState) -> EpochReport:
    report = EpochReport(
        step=state.step,
        epoch=math.ceil(state.step / state.steps_per_epoch),
        num_operations=state.supernet.genotype.pruned().num_operations,
        train_loss=cast(float, state.sums.mean("task_loss")),
        train_accuracy=cast(float, state.sums.mean("correct")),
        kd_loss=state.sums.mean("kd_loss"),
        gamma=state.controller.gamma,
        mu=state.controller.mu,
        sparsity=state.sparsity,
        device_seconds=state.device_seconds,
        operation_weights=_operation_weights(state),
    )
    state.history.append(report.to_dict())
    state.sums = EpochSums()
    return report


def _operation_weights(state: SearchState) -> dict[str, list[float]]:
    """Return the weight of each operation by cell, see :class:`dnad_ray.records.EpochReport`."""
    candidates = state.supernet.candidates
    weights = state.relaxation.weights().detach().tolist()
    nodes: dict[int, set[int]] = {}
    for item in candidates:
        nodes.setdefault(item.cell, set()).add(item.node)
    num_cells = max(nodes) + 1
    found: dict[str, list[float]] = {}
    for item, weight in zip(candidates, weights, strict=True):
        row = found.setdefault(item.edge.operation, [0.0] * num_cells)
        row[item.cell] += weight / len(nodes[item.cell])
    # Four digits are what a chart can show; a history has one such table per epoch.
    return {name: [round(min(value, 1.0), 4) for value in found[name]] for name in sorted(found)}


def seconds_per_step(state: SearchState, num_steps: int = 3) -> float:
    """Measure the wall seconds of a step of the dense supernet; the state is spent by it, so give it a fresh one."""
    began = 0.0
    for index in range(num_steps + 1):
        if index == 1:  # the first step pays for allocations and kernel choices
            began = time.perf_counter()
        # A loss that diverges takes no longer; that it does is for the trial to find, and to write down.
        state.learner.step(*state.batches.batch(index), (state.controller.gamma, state.controller.mu))
    state.learner.look()  # waits for the device
    seconds = (time.perf_counter() - began) / num_steps
    state.batches.close()
    return seconds
