"""Many searches, in parallel on Ray or one after the other without it, merged into one global front."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial

import torch

from dnad_ray.commands.folder import run_to_continue
from dnad_ray.commands.options import (
    AnyPath,
    Config,
    Settings,
    TimeBudget,
    budget_of,
    check_no_ray,
    configured,
    mode_of,
    out_of,
)
from dnad_ray.commands.outcome import Outcome
from dnad_ray.commands.search import Asked, Work, carry_out, prepared_in
from dnad_ray.config.run import RunConfig
from dnad_ray.config.section import MOST_TRIALS
from dnad_ray.errors import ConfigError, RayStartError, UserError
from dnad_ray.on_ray.resources import Allotment, Node, allot, check_requests
from dnad_ray.runtime.cpus import computing_with, usable_cpus
from dnad_ray.runtime.devices import device_for
from dnad_ray.runtime.stopping import first_of
from dnad_ray.search.checks import check_buildable
from dnad_ray.search.in_turn import SamplerMaker, run_in_turn
from dnad_ray.trials.plan import trials_in, unfinished
from dnad_ray.trials.sampling import check_sampler, corners

__all__ = ["sweep"]


def sweep(
    config: Config,
    *,
    data: AnyPath | None = None,
    space: AnyPath | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    teacher_epochs: int | None = None,
    seed: int | None = None,
    trials: int | None = None,
    set: Settings = (),
    out: AnyPath | None = None,
    resume: bool = False,
    time_budget: TimeBudget = None,
    quiet: bool = False,
    json: bool = False,
    address: str | None = None,
    no_ray: bool = False,
    max_trials: int | None = None,
    more_seeds: int | None = None,
    to_continue: str | None = None,
) -> Outcome:
    """Run many searches in parallel on Ray, and merge them into one global front.

    Without Ray, or where it does not start, they run one after the other in this process, with the same results.

    Args:
        config: A recipe, a YAML file, nested dictionaries, or a configuration; its section ``sweep`` says what varies.
        data: Another dataset, or a folder with one's own images.
        space: A named search space, or a YAML or Python file; a Python file is run.
        image_size: Side of the images in pixels.
        epochs: Most epochs of a search.
        teacher_epochs: Epochs of the teacher.
        seed: The first seed.
        trials: Number of trials.
        set: Keys of the configuration to replace, ``{"shrink.rate": 0.1}``.
        out: Run folder, path or URL; None is ``runs/RECIPE``.
        resume: Whether to continue the run in ``out``.
        time_budget: Pause after that many seconds, or a text such as ``10m``.
        quiet: Whether to show no progress.
        json: Whether to print progress as JSON lines.
        address: Ray cluster to join, for example ``auto`` or ``HOST:6379``; None starts one on this machine.
        no_ray: Whether to run one trial after the other in this process.
        max_trials: Run only this many of the unfinished trials; None for all.
        more_seeds: With ``resume``: add trials, that many new seeds of every setting on the front.
        to_continue: The command that continues the run, for messages; None for this call with ``resume=True``.

    Returns:
        How it ended; its ``front`` is that of the whole run folder.

    Raises:
        UserError: If an argument cannot be used; no folder is left behind then.
    """
    budget = budget_of(time_budget, max_trials)
    check_no_ray(no_ray, address)
    if more_seeds is not None and (not 1 <= more_seeds <= MOST_TRIALS or not resume):
        raise ConfigError("--more-seeds", more_seeds, f"at least 1, at most {MOST_TRIALS:,}, together with --resume")
    asked = configured(
        config,
        data=data,
        space=space,
        image_size=image_size,
        epochs=epochs,
        teacher_epochs=teacher_epochs,
        seed=seed,
        trials=trials,
        settings=set,
    )
    check_sampler(asked)
    place = out_of(out, config)
    with run_to_continue(place, resume) as stored:
        specs = trials_in(asked, stored)
        missing_ray: RayStartError | None = None
        for one in [*(spec.config for spec in specs), *corners(asked)]:
            check_buildable(one)
            check_requests(one)

        @contextlib.contextmanager
        def session() -> Iterator[None]:
            from dnad_ray.on_ray.cluster import cluster

            nonlocal missing_ray
            # Tune loads in a second or two. Ray's processes need seconds to start, in which this process would wait.
            threading.Thread(target=_load, args=["dnad_ray.on_ray.sweep"], daemon=True).start()
            with contextlib.ExitStack() as open_sessions:
                try:
                    open_sessions.enter_context(cluster(asked, address))
                except RayStartError as error:
                    missing_ray = error
                    open_sessions.enter_context(_session_without(error, asked))
                yield

        def work(stage: Work) -> None:
            if missing_ray is not None:
                stage.board.say(
                    "sweep: without Ray, one trial after the other in this process, with the same results, because of "
                    f"{missing_ray}"
                )
                work_alone(stage)
                return
            from dnad_ray.on_ray.sweep import run_sweep

            stage.signals.defer()  # until the results lie there too
            run_sweep(
                asked,
                stage.specs,
                stage.data,
                stage.folder,
                stage.board,
                make=lambda stop: stage.make(stop=stop),
                stored=stored,
                stop=stage.signals,
                budget=budget,
                make_sampler=_sampler_of(asked),
            )

        def work_alone(stage: Work) -> None:
            stage.signals.defer()  # until the results lie there too
            stop = first_of(stage.signals, budget.check)
            todo = budget.within(unfinished(stage.specs, stored))
            prepared = prepared_in(stage, stop, asked, todo)
            if prepared is None:
                return
            run_in_turn(
                asked,
                stage.specs,
                prepared,
                stage.folder,
                stage.board,
                budget=budget,
                stop=stop,
                stored=stored,
                make_sampler=_sampler_of(asked),
            )

        request = Asked(
            config=asked,
            specs=specs,
            out=place,
            stored=stored,
            budget=budget,
            mode=mode_of(quiet, json),
            to_continue=to_continue,
            seeds=more_seeds or 0,
        )
        if no_ray:
            return carry_out(request, partial(computing_with, _alone(asked).threads), work_alone)
        return carry_out(request, session, work)


def _alone(config: RunConfig) -> Allotment:
    """Return what a trial gets on this machine without Ray: as many threads as with it.

    Raises:
        ConfigError: If the trials need Ray.
        ResourceError: If the machine does not have the requested resources.
    """
    if config.train.num_processes > 1:
        raise ConfigError("train.num_processes", config.train.num_processes, "1 with --no-ray")
    found = allot(config, [Node(cpus=usable_cpus(), gpus=torch.cuda.device_count())])
    if not found.gpus and device_for(config.train.device).type == "cuda":
        raise ConfigError("sweep.gpus_per_trial", 0, "null with --no-ray, or train.device 'cpu'")
    return found


def _session_without(error: RayStartError, config: RunConfig) -> AbstractContextManager[None]:
    """Return what is open during the trials where Ray does not start.

    Raises:
        RayStartError: If the trials need Ray.
    """
    try:
        return computing_with(_alone(config).threads)
    except UserError:
        raise error from None


def _sampler_of(config: RunConfig) -> SamplerMaker | None:
    """Return what makes the sampler that learns from results; None if the configuration asks for none."""
    if config.sweep.sampler != "optuna":
        return None
    from dnad_ray.on_ray.optuna_sampler import OptunaSampler

    return OptunaSampler


def _load(*modules: str) -> None:
    for module in modules:
        importlib.import_module(module)
