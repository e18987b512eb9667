"""The state of a search: everything that changes while it runs, and how it is saved and restored."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from dnad_ray.config.run import RunConfig
from dnad_ray.data.batches import TrainingBatches, evaluation_batches
from dnad_ray.data.loading import ImageData
from dnad_ray.distill.imitation import Imitation
from dnad_ray.distill.teacher import Teacher, check_teacher
from dnad_ray.distill.teacher_cache import TeacherCache
from dnad_ray.errors import RunFolderError, one_line
from dnad_ray.networks.scores import Batch
from dnad_ray.networks.search_space import space_of
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.runtime.devices import MEMORY_FORMAT, device_for, to_device
from dnad_ray.runtime.processes import ALONE, Ranks
from dnad_ray.runtime.random_states import random_states, restore_random_states
from dnad_ray.search.criteria import group_worth
from dnad_ray.search.learner import Learner, StepFacts
from dnad_ray.search.losses import sparsity
from dnad_ray.search.shrink import ShrinkController, schedule_for
from dnad_ray.training.optimizers import check_optimizer
from search_spaces.derivation import derived_network
from search_spaces.genotype import Genotype
from search_spaces.shape import NetworkShape
from search_spaces.supernet import Supernet

__all__ = ["EpochSums", "SearchState"]


_FIT_IMAGES = 256


class SearchState:
    """Everything that changes while a search runs, with the data and settings that it needs.

    Build it with :meth:`start` or :meth:`resume`.

    Args:
        config: The trial's configuration.
        data: Images.
        teacher: The teacher, or None; needed if ``config.distill.uses_teacher``.
        run: Name of the run, for provenance.
        trial: Name of the trial, for provenance.
        alive: Initial candidates; None for all.
        ranks: The processes that share the search; all of them have the same states.
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
        self.space = space_of(space)
        self.batches = TrainingBatches(data, settings.batch_size, config.seed, self.device, MEMORY_FORMAT, ranks=ranks)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.supernet = Supernet(self.space, self.shape(space.init_channels))
            self.imitation = self._imitation()
        if alive is not None:
            self.supernet.keep_only(alive)
        to_device(self.supernet, self.device)
        self.imitation.to(self.device)
        self._fit_imitation()
        self.learner = Learner(config, self.supernet, self.imitation, self.teacher, ranks)
        self.relaxation = self.learner.relaxation
        self.optimizer, self.arch_optimizer = self.learner.optimizer, self.learner.arch_optimizer
        self.look_steps = settings.look_steps or (8 if self.device.type == "cuda" else 1)
        schedule = schedule_for(config.shrink, self.space.num_candidates, self.batches.steps_per_epoch)
        self.controller = ShrinkController.start(config.shrink, schedule)
        self.cache: TeacherCache | None = None  # cached outputs of the teacher
        self.step = 0
        self.deleted_since_snapshot = 0
        self.is_finished = False
        self.limit = ""  # the limit of config.limit that ended the search, as text
        self.ends_at: int | None = None  # the step at which a limit ended an earlier attempt
        self.macs_spent = 0  # counted only if limited
        self.device_seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.ladder_digests: list[str] = []  # of all networks that a ladder recorded
        self.ladder: dict[str, Genotype] = {}  # networks of the newest ladder, by digest
        self.pending: list[Snapshot] = []  # records of this step that are not yielded yet
        self.score_batch: Batch | None = None  # for training-free scores, loaded when first needed
        self.sums = EpochSums()
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
        """Return the state restored from :meth:`state_dict`; on one CPU it continues with the same bits.

        Raises:
            RunFolderError: If it is the state of another search, or not a state.
        """
        try:
            alive = Genotype.from_dict(saved["alive"], "checkpoint")
            state = cls(config, data, teacher, run=run, trial=trial, alive=alive, ranks=ranks)
            state._load(saved)
        # Any error that torch and the generators raise for a wrong state.
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
        if self.learner.worth is not None:
            self.learner.worth.load_state_dict(saved["worth"])
        self.pending = [Snapshot.from_dict(record) for record in saved["pending"]]
        self.ladder = {name: Genotype.from_dict(data, "checkpoint") for name, data in saved["ladder"].items()}
        for name in _PLAIN:
            if type(saved[name]) is not type(getattr(self, name)):
                raise TypeError(f"{name} is a {type(saved[name]).__name__}")
            setattr(self, name, saved[name])
        restore_random_states(saved["random"])

    def state_dict(self) -> dict[str, Any]:
        """Return plain data and tensors for :meth:`resume`.

        The tensors are not copies: save or copy them before the search continues.
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
            "worth": {} if self.learner.worth is None else self.learner.worth.state_dict(),
            "pending": [record.to_dict() for record in self.pending],
            "ladder": {record.digest: self.ladder[record.digest].to_dict() for record in self.pending if record.rung},
            "random": random_states(),
            **{name: getattr(self, name) for name in _PLAIN},
        }

    def shared_bits(self) -> dict[str, Any]:
        """Return the part of the state that has the same bits in all processes: no clocks, no random generators."""
        own = {"random", "history", "device_seconds", "pending"}
        return {name: value for name, value in self.state_dict().items() if name not in own}

    def derived_network(self) -> tuple[Genotype, list[int]]:
        """Return the network that the space derives from the present supernet, in canonical form.

        Returns:
            The genotype, and the positions of its candidates.
        """
        # The same bits in all processes, see shared_bits.
        return derived_network(self.space, self.supernet.genotype, self.worth())

    def worth(self) -> list[float]:
        """Return the worth of each alive candidate by the deletion criterion: its weight, or the running mean."""
        mean = self.learner.worth
        if mean is None or not self.step:
            return self.relaxation.weights().detach().tolist()
        return group_worth(self.relaxation, mean.values.tolist())

    def genotype_of(self, snapshot: Snapshot) -> Genotype:
        """Return the network of a snapshot that was recorded at the present step."""
        return self.ladder[snapshot.digest] if snapshot.kind == "ladder" else self.derived_network()[0]

    @property
    def steps_per_epoch(self) -> int:
        """Optimisation steps of an epoch."""
        return self.batches.steps_per_epoch

    @property
    def num_steps(self) -> int:
        """Largest number of steps of the search; the floor may end it earlier."""
        return self.config.train.epochs * self.steps_per_epoch

    def shape(self, init_channels: int) -> NetworkShape:
        """Return the shape of a network for the images of the search."""
        return NetworkShape(images=self.data.shape, init_channels=init_channels, stem=self.config.space.stem)

    def _imitation(self) -> nn.Module:
        if self.teacher is None:
            return nn.Identity()
        # Settings chosen by a sampler could not be checked before the sweep.
        check_teacher(self.teacher, self.data, self.config.distill, self.config.space.stem, "distill.teacher")
        ours, theirs = self.supernet.network.tap_channels, self.teacher.tap_channels
        return Imitation(self.config.distill, ours, theirs)

    def _fit_imitation(self) -> None:
        """Fit the parts of the imitation that do not train, on the same training images in every process."""
        if self.teacher is not None and isinstance(self.imitation, Imitation) and self.imitation.needs_fit:
            sample = self.data.train.select(np.random.RandomState(0).permutation(len(self.data.train))[:_FIT_IMAGES])
            images, _ = next(evaluation_batches(sample, self.data, _FIT_IMAGES, self.device, MEMORY_FORMAT))
            self.imitation.fit(self.teacher.predict(images).taps)


_PLAIN = (
    "step",
    "deleted_since_snapshot",
    "is_finished",
    "device_seconds",
    "history",
    "sparsity",
    "limit",
    "macs_spent",
    "ladder_digests",
)


class EpochSums:
    """Sums over the steps since the last epoch report."""

    def __init__(self) -> None:
        self.totals = {"task_loss": 0.0, "kd_loss": 0.0, "correct": 0.0}
        self.images = 0
        self.has_kd = False

    def add(self, look: StepFacts, has_kd: bool) -> None:
        """Add the facts of a look."""
        per_step = look.num_images / look.num_steps
        self.totals["task_loss"] += look.task_loss * per_step
        self.totals["kd_loss"] += look.kd_loss * per_step
        self.totals["correct"] += look.correct
        self.images += look.num_images
        self.has_kd = has_kd

    def mean(self, name: str) -> float | None:
        """Return a sum per image; None before the first step, and for the imitation loss if there is none."""
        if not self.images or (name == "kd_loss" and not self.has_kd):
            return None
        return self.totals[name] / self.images

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return {"totals": dict(self.totals), "images": self.images, "has_kd": self.has_kd}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore from :meth:`state_dict`."""
        self.totals, self.images, self.has_kd = dict(state["totals"]), state["images"], state["has_kd"]
