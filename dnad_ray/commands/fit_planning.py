"""The plan of `fit`: budgets, teacher, search, and the time that each stage gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from dnad_ray.commands.deploy import Under, budgets_of
from dnad_ray.commands.job_running import placed_as
from dnad_ray.config.retrain import RetrainConfig, retrain_recipe, with_settings
from dnad_ray.config.run import RunConfig, with_overrides
from dnad_ray.config.section import Words
from dnad_ray.data.loading import ImageData
from dnad_ray.errors import ConfigError, UserError
from dnad_ray.networks.latency_limit import LatencyLimit, measured_milliseconds
from dnad_ray.networks.search_space import space_of
from dnad_ray.networks.spec import NetworkSpec, cost_of, scaled_to
from dnad_ray.on_ray.resources import Node, allot
from dnad_ray.retrain.data import RetrainImages
from dnad_ray.retrain.estimate import seconds_per_epoch
from dnad_ray.retrain.fit_plan import EpochSeconds, FitPlan, divided
from dnad_ray.retrain.jobs import job_of
from dnad_ray.retrain.race import Build, entrants, plain_members
from dnad_ray.runtime.cpus import computing_with, usable_cpus
from dnad_ray.search.estimate import seconds_of_run
from dnad_ray.storage.places import Place
from dnad_ray.text import duration_in_words
from dnad_ray.trials.spec import trials_of

__all__ = ["PROTOCOL", "RECIPE", "allotted", "build_of", "limits_of", "plan_in_words", "planned", "protocol_of"]

RECIPE = "device"
"""The recipe of the search."""
PROTOCOL = "quick"
"""The recipe of all trainings; with the number of epochs that the time allows."""
_KD_WEIGHT, _KD_TEMPERATURE = 1.0, 2.0
"""Imitation in the final training."""
_LIMITS = {"macs": "macs", "params": "params", "latency_p50": "latency"}
"""Metric of a limit -> what people call it."""
_MOST_MACS = 12_000
"""Multiply-adds per pixel of the largest network where no budget is given: 12 M at 32 x 32 pixels."""
_BINS = 5
"""Budgets: the largest, and so on down to a sixteenth of it."""
_TEACHER_FACTOR = 3
"""Multiply-adds of the teacher, as a multiple of those of the largest network."""
_KEPT_BACK = 0.04
"""Share of the time budget that is left for test images, report and export."""
_LEAST_SEARCH_SECONDS = 180.0
"""Time budget below which a search is not even measured."""
_STEMS = ((20, "cifar"), (80, "half"))
"""Largest side in pixels -> stem; larger images get ``quarter``."""


def protocol_of(epochs: int, imitates: bool = False) -> RetrainConfig:
    """Return the protocol of a training."""
    changes: dict[str, Any] = {"epochs": epochs}
    if imitates:
        changes |= {"kd_weight": _KD_WEIGHT, "kd_temperature": _KD_TEMPERATURE}
    return with_settings(retrain_recipe(PROTOCOL), changes)


def limits_of(under: Under) -> dict[str, float]:
    """Return the budgets of the largest network by metric.

    Raises:
        ConfigError: If a metric is not one that networks are made for, or a budget is no number.
    """
    *first, last = _LIMITS.values()
    allowed = f"{', '.join(first)} and {last}, which networks are made for"
    try:
        limits = budgets_of(under)
    except UserError as error:
        if error.argument == "metric of a budget":
            raise ConfigError("--under", error.given, allowed) from None
        raise
    for name in limits:
        if name not in _LIMITS:
            raise ConfigError("--under", name, allowed)
    return dict(limits)


def allotted(config: RunConfig, is_alone: bool) -> tuple[int, int]:
    """Return how many trainings run at the same time, and the threads of each.

    Args:
        config: The configuration of the search.
        is_alone: Whether they run in this process. Otherwise it is what Ray would give on this machine.
    """
    if is_alone:
        return 1, torch.get_num_threads()
    nodes = [Node(cpus=usable_cpus(), gpus=torch.cuda.device_count())]
    found = allot(placed_as(config, protocol_of(10)), nodes)
    return max(1, found.num_parallel(nodes)), found.threads


def planned(
    asked: RunConfig, images: ImageData, arguments: Mapping[str, Any], folder: Place, *, is_alone: bool
) -> tuple[RunConfig, FitPlan]:
    """Return the configuration of teacher and search, and the plan.

    Args:
        asked: The configuration that the caller asked for.
        images: The images.
        arguments: What else was asked for: ``under`` and ``seconds``.
        folder: The run folder, which need not be there.
        is_alone: Whether everything runs in this process.

    Raises:
        ConfigError: If the smallest network is above the budgets, or the time is too short.
    """
    config = with_overrides(asked, {"space.stem": _stem_of(images.image_size)})
    limits, seconds = arguments["under"], arguments["seconds"]
    largest = int(limits.get("macs", _MOST_MACS * images.image_size**2))
    build = build_of(config, images, arguments)
    plain = plain_members(space_of(config.space), with_lean=build.latency is not None)
    if build.latency is not None and "macs" not in limits:
        for spec in entrants(plain, (), [largest], build, places=1).get(largest, []):
            largest = cost_of(spec, images.shape).macs
    budgets = [largest // 2**number for number in range(_BINS)]
    race = entrants(plain, (), budgets, build, places=1)
    budgets, specs = list(race), [members[0] for members in race.values()]
    if not specs:
        least = NetworkSpec(origin="plain", genotype=plain[-1], init_channels=4, stem=build.stem)
        cost = cost_of(least, images.shape)
        least_values = [f"macs={cost.macs}", f"params={cost.params}"]
        if build.latency is not None:
            taken = measured_milliseconds(least, images.shape, build.latency.runtime)
            least_values.append(f"latency={taken:.2g}ms on this machine")
        units = {"latency_p50": "ms"}
        given = ", ".join(f"{_LIMITS[name]}={limit:g}{units.get(name, '')}" for name, limit in limits.items())
        raise ConfigError("--under", Words(given), f"at least {', '.join(least_values)}, those of the smallest network")
    wide = scaled_to(specs[0], images.shape, max_macs=_TEACHER_FACTOR * largest)
    config = with_overrides(config, {"distill.teacher.init_channels": wide.init_channels})
    costs, (parallel, threads) = None, allotted(config, is_alone)
    if seconds is not None:
        with computing_with(threads):
            costs = _measured(config, images, specs, folder, is_searched=seconds >= _LEAST_SEARCH_SECONDS)
        seconds *= 1 - _KEPT_BACK
    plan = divided(seconds, budgets, costs, parallel)
    return _config_of(config, plan), plan


def build_of(config: RunConfig, images: ImageData, arguments: Mapping[str, Any]) -> Build:
    """Return what all networks of a race have in common.

    Args:
        config: The configuration of the search.
        images: The images.
        arguments: What was asked for: ``under`` as :func:`limits_of` returned it, and ``runtime``.
    """
    params, latency = (arguments["under"].get(name) for name in ("params", "latency_p50"))
    limit = None
    if latency is not None:
        whole = space_of(config.space).usual_teacher()
        limit = LatencyLimit(milliseconds=latency, runtime=arguments["runtime"], whole=whole)
    max_params = None if params is None else int(params)
    return Build(images=images.shape, stem=config.space.stem, max_params=max_params, latency=limit)


def _stem_of(image_size: int) -> str:
    return next((stem for most, stem in _STEMS if image_size <= most), "quarter")


def _measured(
    config: RunConfig, images: ImageData, specs: Sequence[NetworkSpec], folder: Place, *, is_searched: bool
) -> EpochSeconds:
    """Return the seconds of an epoch of everything, from a few steps each."""
    at_work = RetrainImages(images, "validation")
    wide = replace(specs[0], init_channels=config.distill.teacher.init_channels)  # costs as much as the teacher
    teacher, *networks = (
        seconds_per_epoch(job_of(spec, protocol_of(10), PROTOCOL, config.seed, config.data), at_work)
        for spec in (wide, *specs)
    )
    search = None
    if is_searched:
        trial = trials_of(config)[0]
        _, planned = seconds_of_run(config, trial, images, folder)
        search = planned / config.train.epochs
    # The final training has the validation images too.
    share = (len(images.train) + len(images.validation)) / len(images.train)
    steps = max(1, len(images.train) // protocol_of(10).batch_size)
    return EpochSeconds(teacher=teacher, search=search, networks=[share * seconds for seconds in networks], steps=steps)


def _config_of(config: RunConfig, plan: FitPlan) -> RunConfig:
    """Return the configuration of teacher and search that a plan asks for."""
    changes: dict[str, Any] = {}
    if plan.teacher_epochs:
        changes["distill.teacher.epochs"] = plan.teacher_epochs
    else:
        changes["distill.kind"] = "none"
        changes["distill.temperature"] = None
    if plan.search_epochs:
        warmup = max(1, round(0.15 * plan.search_epochs))
        floor = config.shrink.floor.operations or 1
        share = 1 - floor / space_of(config.space).num_candidates
        changes |= {
            "train.epochs": plan.search_epochs,
            "train.warmup_epochs": warmup,
            "shrink.rate": min(1.0, share / (plan.search_epochs - warmup)),
            "sweep.grid": {},
            "sweep.num_trials": max(1, plan.trials),
        }
    return with_overrides(config, changes)


def plan_in_words(plan: FitPlan, images: ImageData) -> str:
    """Return a sentence that says what will be done."""
    sizes = ", ".join(f"{budget / 1e6:.3g} M" for budget in plan.budgets)
    parts = [f"networks of up to {sizes} multiply-adds"]
    if plan.seconds is not None:
        parts.append(f"{duration_in_words(plan.seconds)} for all")
    parts.append(
        f"a teacher of {plan.teacher_epochs} epochs" if plan.teacher_epochs else "no teacher (too little time)"
    )
    parts.append(
        f"{plan.trials} search{'es' * (plan.trials > 1)} of {plan.search_epochs} epochs"
        if plan.search_epochs
        else "no search (too little time), plain residual networks instead"
    )
    if plan.rungs:
        epochs = " and ".join(str(rung.epochs) for rung in plan.rungs)
        parts.append(f"a race of up to {plan.places} networks for each budget over {epochs} epochs")
    else:
        parts.append("no race (too little time)")
    parts.append(f"then {plan.epochs} epochs for each winner on {len(images.train):,} images and more")
    return "; ".join(parts)
