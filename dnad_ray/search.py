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
from typing import Any, cast

import torch
from torch import Tensor, nn

from dnad_ray.augment import TrainingBatches
from dnad_ray.checkpoint import random_states, restore_random_states
from dnad_ray.complexity import COUNTER
from dnad_ray.config import RunConfig
from dnad_ray.cost_table import costs_of
from dnad_ray.data import ImageData
from dnad_ray.devices import MEMORY_FORMAT, device_for, placed
from dnad_ray.distill import Imitation
from dnad_ray.errors import ConfigError, NonFiniteLossError, RunFolderError, one_line
from dnad_ray.evaluate import accuracy_of, recalibrate
from dnad_ray.learner import Learner, Look
from dnad_ray.limits import PASSES_PER_STEP, limit_reached
from dnad_ray.losses import dense_sparsity, sparsity
from dnad_ray.parallel import ALONE, Ranks, check_same
from dnad_ray.records import EpochReport, Snapshot, SnapshotKind
from dnad_ray.shrink import ShrinkController, schedule_for
from dnad_ray.stopping import StopCheck, StopRequest
from dnad_ray.teacher import Teacher
from dnad_ray.weights import check_optimizer
from search_spaces.genotype import Genotype
from search_spaces.space import NetworkShape, space_named
from search_spaces.supernet import Supernet

__all__ = ["SearchState", "check_buildable", "search", "seconds_per_step"]


def check_buildable(config: RunConfig) -> None:
    """Check what only the space can tell; costs nothing.

    Raises:
        SpaceError: If the configured space, operations or stem do not exist.
        ConfigError: If the dense supernet is below its floor already, so that nothing would ever be deleted.
    """
    named = config.space
    space = space_named(named.name, named.operations, named.num_cells, named.num_nodes)
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


class SearchState:
    """Everything that changes while a search runs, and what it needs to go on.

    Build it by :meth:`start` or :meth:`resume`.

    Args:
        config: The trial's configuration.
        data: Images.
        teacher: Who is imitated; needed if ``config.distill.uses_teacher``.
        run: Name of the run, for provenance.
        trial: Name of the trial, for provenance.
        alive: Candidates to begin with; None is all.
        ranks: The processes that share the search; all of them go through the same states.
    """

    def __init__(
        self,
        config: RunConfig,
        data: ImageData,
        teacher: Teacher | None,
        *,
        run: str,
        trial: str,
        alive: Genotype | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        if config.distill.uses_teacher and teacher is None:
            raise ValueError(f"distill.kind {config.distill.kind!r} needs a teacher")
        self.config, self.data, self.run, self.trial, self.ranks = config, data, run, trial, ranks
        self.teacher = teacher if config.distill.uses_teacher else None
        self.device = device_for(config.train.device)
        settings, space = config.train, config.space
        self.space = space_named(space.name, space.operations, space.num_cells, space.num_nodes)
        self.batches = TrainingBatches(data, settings.batch_size, config.seed, self.device, MEMORY_FORMAT, ranks=ranks)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.supernet = Supernet(self.space, self.shape(space.init_channels))
            self.imitation = self._imitation()
        if alive is not None:
            self.supernet.keep_only(alive)
        placed(self.supernet, self.device)
        self.imitation.to(self.device)
        self.learner = Learner(config, self.supernet, self.imitation, self.teacher, ranks)
        self.relaxation = self.learner.relaxation
        self.optimizer, self.arch_optimizer = self.learner.optimizer, self.learner.arch_optimizer
        self.look_steps = settings.look_steps or (8 if self.device.type == "cuda" else 1)
        schedule = schedule_for(config.shrink, self.space.num_candidates, self.batches.steps_per_epoch)
        self.controller = ShrinkController.start(config.shrink, schedule)
        self.step = 0
        self.deleted_since_snapshot = 0
        self.is_finished = False
        self.limit = ""  # which of config.limit ended it
        self.ends_at: int | None = None  # the step at which an earlier attempt was ended by a limit
        self.macs_spent = 0  # counted where there is a limit to it
        self.device_seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.sums = _EpochSums()
        self.sparsity = float(sparsity(self.relaxation.weights().detach()))

    @classmethod
    def start(
        cls,
        config: RunConfig,
        data: ImageData,
        teacher: Teacher | None = None,
        *,
        run: str,
        trial: str,
        ranks: Ranks = ALONE,
    ) -> SearchState:
        """Return the state before the first step."""
        return cls(config, data, teacher, run=run, trial=trial, ranks=ranks)

    @classmethod
    def resume(
        cls,
        saved: dict[str, Any],
        config: RunConfig,
        data: ImageData,
        teacher: Teacher | None = None,
        *,
        run: str,
        trial: str,
        ranks: Ranks = ALONE,
    ) -> SearchState:
        """Return the state that :meth:`state_dict` described; on one CPU it goes on bit for bit as if never stopped.

        Raises:
            RunFolderError: If it is the state of another search, or of none.
        """
        try:
            alive = Genotype.from_dict(saved["alive"], "checkpoint")
            state = cls(config, data, teacher, run=run, trial=trial, alive=alive, ranks=ranks)
            state._load(saved)
        # Whatever torch and the generators make of a state that is not theirs.
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise RunFolderError("checkpoint", one_line(error)[:300], "a state of this very search") from error
        return state

    def _load(self, saved: dict[str, Any]) -> None:
        self.supernet.load_state_dict(saved["supernet"])
        self.imitation.load_state_dict(saved["imitation"])
        self.relaxation.load_state_dict(saved["relaxation"])
        for name in ("optimizer", "arch_optimizer"):
            getattr(self, name).load_state_dict(saved[name])
            check_optimizer(getattr(self, name))
        self.controller.load_state_dict(saved["controller"])
        self.sums.load_state_dict(saved["sums"])
        for name in _PLAIN:
            if type(saved[name]) is not type(getattr(self, name)):
                raise TypeError(f"{name} is a {type(saved[name]).__name__}")
            setattr(self, name, saved[name])
        restore_random_states(saved["random"])

    def state_dict(self) -> dict[str, Any]:
        """Return plain data and tensors from which :meth:`resume` continues.

        The tensors are those that the search works on: save them, or copy them, before it goes on.
        """
        return {
            "alive": self.supernet.genotype.to_dict(),
            "supernet": self.supernet.state_dict(),
            "imitation": self.imitation.state_dict(),
            "relaxation": self.relaxation.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "arch_optimizer": self.arch_optimizer.state_dict(),
            "controller": self.controller.state_dict(),
            "sums": self.sums.state_dict(),
            "random": random_states(),
            **{name: getattr(self, name) for name in _PLAIN},
        }

    def shared_bits(self) -> dict[str, Any]:
        """Return what is the same, bit for bit, in all processes that share the search: all but clocks and chance."""
        own = {"random", "history", "device_seconds"}
        return {name: value for name, value in self.state_dict().items() if name not in own}

    @property
    def steps_per_epoch(self) -> int:
        """Optimisation steps of an epoch."""
        return self.batches.steps_per_epoch

    @property
    def num_steps(self) -> int:
        """Most steps that the search takes; the floor may end it earlier."""
        return self.config.train.epochs * self.steps_per_epoch

    def shape(self, init_channels: int) -> NetworkShape:
        """Return the shape of a network for the data at hand."""
        return NetworkShape(
            in_channels=self.data.in_channels,
            image_size=self.data.image_size,
            num_classes=self.data.num_classes,
            init_channels=init_channels,
            stem=self.config.space.stem,
        )

    def _imitation(self) -> nn.Module:
        if self.teacher is None:
            return nn.Identity()
        ours, theirs = self.supernet.network.tap_channels, self.teacher.network.tap_channels
        return Imitation(self.config.distill, ours, theirs)


_PLAIN = (
    "step",
    "deleted_since_snapshot",
    "is_finished",
    "device_seconds",
    "history",
    "sparsity",
    "limit",
    "macs_spent",
)


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
        state.learner.step(*state.batches.batch(state.step), pressure, state.batches.batch_size)
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
            check_same(state.ranks, state.shared_bits(), state.device)
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
    # With one candidate in every node nothing is left to delete, and gamma would grow until it drowns the task.
    return not _is_warming_up(state) and len(state.supernet.candidates) == state.relaxation.num_nodes


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
    weights = state.relaxation.weights().detach()

    def logits(images: Tensor) -> Tensor:
        return cast(Tensor, state.supernet(images, weights).logits)

    scoring = config.evaluation
    recalibrate(state.supernet, logits, state.data, scoring.recalibration_images, config.train.batch_size)
    accuracy = accuracy_of(
        state.supernet, logits, state.data.validation, state.data, scoring.batch_size, ranks=state.ranks
    )
    genotype = state.supernet.genotype.pruned()
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
    )
    state.history.append(report.to_dict())
    state.sums = _EpochSums()
    return report


class _EpochSums:
    """Sums over the steps since the last epoch report."""

    def __init__(self) -> None:
        self.totals = {"task_loss": 0.0, "kd_loss": 0.0, "correct": 0.0}
        self.images = 0
        self.has_kd = False

    def add(self, look: Look, has_kd: bool) -> None:
        per_step = look.num_images / look.num_steps
        self.totals["task_loss"] += look.task_loss * per_step
        self.totals["kd_loss"] += look.kd_loss * per_step
        self.totals["correct"] += look.correct
        self.images += look.num_images
        self.has_kd = has_kd

    def mean(self, name: str) -> float | None:
        if not self.images or (name == "kd_loss" and not self.has_kd):
            return None
        return self.totals[name] / self.images

    def state_dict(self) -> dict[str, Any]:
        return {"totals": dict(self.totals), "images": self.images, "has_kd": self.has_kd}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.totals, self.images, self.has_kd = dict(state["totals"]), state["images"], state["has_kd"]


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
