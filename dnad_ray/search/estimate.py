"""The time that a run will take, estimated before it begins from a few steps of its teacher and of its searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from dnad_ray.config.run import RunConfig
from dnad_ray.costs.table import costs_of
from dnad_ray.data.loading import ImageData
from dnad_ray.distill.teacher import Teacher, load_teacher, read_teacher
from dnad_ray.distill.teacher_sources import untrained_teacher
from dnad_ray.distill.teacher_training import TeacherTraining
from dnad_ray.run_folder.layout import teacher_checkpoints, teacher_folder
from dnad_ray.runtime.devices import device_for
from dnad_ray.runtime.random_states import random_states, restore_random_states
from dnad_ray.search.ladder import rungs, score_images
from dnad_ray.search.limits import PASSES_PER_STEP
from dnad_ray.search.recording import derived_shape
from dnad_ray.search.state import SearchState
from dnad_ray.storage.places import Place
from dnad_ray.text import counted, duration_in_words
from dnad_ray.training.timing import seconds_of_step
from dnad_ray.trials.spec import TrialSpec
from search_spaces.supernet import subset

__all__ = ["estimate_in_words", "seconds_of_run", "seconds_per_step"]

_STEPS = 3


@final
@dataclass(frozen=True)
class _Trial:
    """Seconds of one trial.

    Attributes:
        planned: If candidates are deleted at the shrink rate, from the end of the warm-up to the floor.
        longest: If none is ever deleted.
    """

    planned: float
    longest: float


def estimate_in_words(
    config: RunConfig, spec: TrialSpec, data: ImageData, folder: Place, *, num_trials: int, num_parallel: int
) -> str:
    """Return a sentence with the time that teacher and trials take on this machine if it is idle.

    The random generators of the process are left as they are.

    Args:
        config: The run.
        spec: One of its trials, which stands for all.
        data: Images.
        folder: The run folder, which may have a teacher, or checkpoints of its training.
        num_trials: Trials to run.
        num_parallel: How many of them run at the same time.

    Raises:
        UserError: If the teacher cannot be made.
    """
    before = random_states()
    try:
        teacher, seconds = _teacher(config, data, folder) if spec.config.distill.uses_teacher else (None, 0.0)
        trial = _trial(spec, data, teacher)
    finally:
        restore_random_states(before)
    rounds = -(-num_trials // max(1, num_parallel))
    about, most = (seconds + rounds * each for each in (trial.planned, trial.longest))
    first = f"{duration_in_words(seconds)} for the teacher, then " if seconds else ""
    return (
        f"about {duration_in_words(about)}, at most {duration_in_words(most)}: {first}"
        f"{counted(num_trials, 'trial')} of up to {spec.config.train.epochs} epochs, "
        f"{num_parallel} at a time, each {duration_in_words(trial.longest)} if nothing were deleted"
    )


def seconds_of_run(config: RunConfig, spec: TrialSpec, data: ImageData, folder: Place) -> tuple[float, float]:
    """Return the seconds that the teacher still takes, and those of a trial if deletions go as planned.

    Args:
        config: The run.
        spec: One of its trials.
        data: Images.
        folder: The run folder, as for :func:`estimate_in_words`; the random generators stay likewise.
    """
    before = random_states()
    try:
        teacher, seconds = _teacher(config, data, folder)
        return seconds, _trial(spec, data, teacher if spec.config.distill.uses_teacher else None).planned
    finally:
        restore_random_states(before)


def seconds_per_step(state: SearchState, num_steps: int = _STEPS) -> float:
    """Measure the wall seconds of a step of the dense supernet; changes the state, so pass a fresh one."""

    def step(index: int) -> None:
        # A diverging loss does not change the time; the trial itself reports it.
        state.learner.step(*state.batches.batch(index), (state.controller.gamma, state.controller.mu))

    seconds = seconds_of_step(step, state.device, num_steps)
    state.learner.look()
    state.batches.close()
    return seconds


def _teacher(config: RunConfig, data: ImageData, folder: Place) -> tuple[Teacher, float]:
    """Return the teacher, or an untrained one that costs as much, and the seconds until it is trained."""
    settings, device = config.distill.teacher, device_for(config.train.device)
    file = read_teacher(teacher_folder(folder), settings.model if settings.source == "module" else None)
    if file is not None:
        return load_teacher(file, device), 0.0
    teacher = untrained_teacher(config, data, device)
    if not settings.is_trained:
        return teacher, 0.0
    training = TeacherTraining(teacher.network, config, data, device)
    each = seconds_of_step(lambda _: training.train_step(), device, _STEPS)
    training.batches.close()
    paths = teacher_checkpoints(teacher_folder(folder)).glob("*")
    done = max((int(path.name) for path in paths if path.name.isdecimal()), default=0)
    left = max(0, training.num_steps - done)
    return teacher, each * left + _evaluation(each, config.train.batch_size, len(data.validation))


def _evaluation(step_seconds: float, batch_size: int, num_images: int) -> float:
    """Return the seconds to classify images, from those of a training step, which costs three such passes."""
    return step_seconds / (PASSES_PER_STEP * batch_size) * num_images


def _trial(spec: TrialSpec, data: ImageData, teacher: Teacher | None) -> _Trial:
    config = spec.config
    state = SearchState.start(config, data, teacher, run="estimate", trial=spec.name)
    candidates = state.supernet.candidates
    ladder = rungs(state.space, candidates, state.worth())
    chosen = min(ladder, key=len)
    smallest = subset(state.supernet.genotype, [candidates[position] for position in chosen])
    share, floor = len(chosen) / len(candidates), _floor(state)
    num_rungs = len(ladder) if config.evaluation.ladder else 0
    dense = seconds_per_step(state)
    small = dense
    if share < 1:
        small = seconds_per_step(SearchState(config, data, teacher, run="estimate", trial=spec.name, alive=smallest))
    epochs, mean_share = planned_epochs(config, max(floor, share))
    # Between the two measured sizes, the time of a step is taken to be linear in the alive candidates.
    mean = dense if share >= 1 else small + (dense - small) * max(0.0, mean_share - share) / (1 - share)
    interval = config.evaluation.interval_epochs
    scored = len(data.validation) + config.evaluation.recalibration_images
    scored += num_rungs * score_images(len(data.train), num_rungs, interval) if num_rungs else 0
    steps = state.steps_per_epoch

    def seconds(num_epochs: float, step: float) -> float:
        return num_epochs * (steps * step + _evaluation(step, state.batches.batch_size, scored) / interval)

    return _Trial(seconds(epochs, mean), seconds(config.train.epochs, dense))


def planned_epochs(config: RunConfig, smallest: float) -> tuple[float, float]:
    """Return the planned epochs of a search, and the mean share of candidates that are alive in them.

    From the end of the warm-up, the share falls by the shrink rate in each epoch, down to the smallest.

    Args:
        config: The trial.
        smallest: The share of the candidates that the search ends with.

    >>> from dnad_ray.config.run import ShrinkConfig, TrainConfig
    >>> planned_epochs(RunConfig(train=TrainConfig(epochs=10, warmup_epochs=2), shrink=ShrinkConfig(rate=0.2)), 0.2)
    (6.0, 0.7333333333333334)
    """
    warmup, rate = config.train.warmup_epochs, config.shrink.rate
    epochs = min(float(config.train.epochs), warmup + (1 - smallest) / rate)
    shrinking = max(0.0, epochs - warmup)
    return epochs, 1 - rate * shrinking**2 / 2 / max(epochs, 1e-9)


def _floor(state: SearchState) -> float:
    """Return the share of the candidates at the floor of the search, as far as it is known beforehand."""
    floor, genotype = state.config.shrink.floor, state.supernet.genotype
    shares = [0.0]
    if floor.operations is not None:
        shares.append(floor.operations / len(state.supernet.candidates))
    if floor.macs is not None:
        shares.append(floor.macs / costs_of(genotype, derived_shape(state)).macs)
    return min(1.0, max(shares))
