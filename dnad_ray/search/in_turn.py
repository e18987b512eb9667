"""A sweep without Ray: its trials one after the other in this process, with the same bits and the same run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dnad_ray.config.run import RunConfig
from dnad_ray.data.loading import ImageData
from dnad_ray.errors import one_line
from dnad_ray.run_folder.reading import RunContents, read_status
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.run_folder.states import TrialState
from dnad_ray.runtime.budget import Budget
from dnad_ray.runtime.random_states import seed_all
from dnad_ray.runtime.stopping import StopCheck
from dnad_ray.search.prepare import PreparedRun, run_search
from dnad_ray.storage.places import Place
from dnad_ray.trials.dominance import Trajectories, Verdict
from dnad_ray.trials.plan import Sampler, choose, end_trial, recorded_before, unfinished
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board

__all__ = ["SamplerMaker", "run_in_turn"]

SamplerMaker = Callable[[RunConfig, Sequence[TrialSpec], Trajectories, ImageData], Sampler]
"""Makes the sampler from the run, its finished trials, all recorded snapshots and the images."""


def run_in_turn(
    config: RunConfig,
    specs: Sequence[TrialSpec],
    prepared: PreparedRun,
    folder: Place,
    board: Board,
    *,
    budget: Budget,
    stop: StopCheck,
    stored: RunContents | None = None,
    make_sampler: SamplerMaker | None = None,
) -> None:
    """Run or resume trials until all are at their end or a stop is requested.

    As on Ray, a trial that fails does not end the others; its status says why.

    Args:
        config: The run.
        specs: All trials of the run.
        prepared: Images and teacher.
        folder: The run folder.
        board: Display of progress.
        budget: Limits of the command; its time is part of ``stop``.
        stop: Called before each trial and at the end of each step; tells whether to stop.
        stored: The content of the folder when the command began; None for a new run.
        make_sampler: Makes the sampler that chooses settings from results; None if all are chosen.

    Raises:
        ConfigError: If the sampler chose an impossible value.
        UserError: If the disk is full.
    """
    trajectories = recorded_before(config, specs, len(prepared.data.validation), stored)
    left = unfinished(specs, stored)
    at_end = [spec for spec in specs if spec not in left]
    sampler = None if make_sampler is None else make_sampler(config, at_end, trajectories, prepared.data)
    for planned in budget.within(left):
        if stop() is not None:
            return
        spec = planned
        if not spec.is_chosen:
            assert sampler is not None
            spec = choose(config, folder, spec.name, sampler, spec.name)
            board.expect(spec)
        seed_all(spec.config.seed)
        has_failed = False
        try:
            run_search(spec, prepared, folder, board, stop=stop, judge=_judge_of(config, spec, trajectories))
        except RuntimeError as error:  # of torch, for example where memory is short
            has_failed = True
            end_trial(folder, spec.name, TrialState.FAILED, one_line(error)[:500])
            board.trial_ended(spec.name, TrialState.FAILED, one_line(error))
        if sampler is not None and (has_failed or read_status(folder, spec.name)["state"].is_finished):
            sampler.tell(spec.name, spec, has_failed)


def _judge_of(config: RunConfig, spec: TrialSpec, trajectories: Trajectories) -> Callable[[Snapshot], Verdict | None]:
    """Return what notes each snapshot of a trial; it judges the trial if the Pareto scheduler is asked for."""

    def judge(snapshot: Snapshot) -> Verdict | None:
        trajectories.add(spec.name, spec.setting, snapshot.step, snapshot.macs, 1 - snapshot.proxy_accuracy)
        return trajectories.verdict(spec.name) if config.sweep.scheduler == "pareto" else None

    return judge
