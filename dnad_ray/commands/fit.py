"""From images to trained and tested networks in one call: teacher, search, race, final training, an exported model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dnad_ray.commands.deploy import Under, export
from dnad_ray.commands.fit_planning import (
    RECIPE,
    allotted,
    limits_of,
    protocol_of,
)
from dnad_ray.commands.fit_state import FitState, How, begun, continued
from dnad_ray.commands.folder import leave_results
from dnad_ray.commands.job_running import JobWork, job_runner, placed_as, trained
from dnad_ray.commands.options import (
    AnyPath,
    Settings,
    TimeBudget,
    check_no_ray,
    configured,
    mode_of,
    out_of,
)
from dnad_ray.commands.outcome import Outcome
from dnad_ray.commands.search import shown
from dnad_ray.commands.sweep import sweep
from dnad_ray.config.run import config_to_dict
from dnad_ray.deploy.formats import FORMATS
from dnad_ray.deploy.measure import measure
from dnad_ray.distill.teacher import TeacherFile, load_teacher
from dnad_ray.errors import NonFiniteLossError
from dnad_ray.networks.latency import check_runtime, default_runtime
from dnad_ray.networks.search_space import space_of
from dnad_ray.networks.spec import NetworkSpec
from dnad_ray.retrain.data import RetrainImages, measured_on_test
from dnad_ray.retrain.estimate import seconds_per_epoch
from dnad_ray.retrain.fit_plan import epochs_within, together
from dnad_ray.retrain.jobs import Job, unfinished_jobs
from dnad_ray.retrain.race import Found, entrants, plain_members, survivors
from dnad_ray.run_folder.jobs import read_retrained
from dnad_ray.run_folder.layout import race_folder, report_file, retrained_folder
from dnad_ray.run_folder.lock import writing_to
from dnad_ray.run_folder.reading import read_genotype, read_run
from dnad_ray.run_folder.writing import write_measurement
from dnad_ray.runtime.cpus import computing_with, limit_threads
from dnad_ray.runtime.devices import device_for
from dnad_ray.runtime.stopping import Stopped, StopSignals
from dnad_ray.search.prepare import prepare_teacher
from dnad_ray.storage.places import Place
from dnad_ray.text import counted, parse_duration
from dnad_ray.trials.spec import trials_of
from dnad_ray.watch.board import Board

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["fit"]

Run = Callable[[Sequence[Job], RetrainImages, TeacherFile | None, Place], None]
"""Runs trainings that are not done yet: jobs, images, teacher to imitate, folder; raises Stopped after a request."""

_LEAST_RAY_SECONDS = 300.0
"""Time budget below which jobs run in this process: Ray needs 10 to 20 seconds to start."""


def fit(
    images: AnyPath,
    *,
    out: AnyPath | None = None,
    under: Under = (),
    runtime: str | None = None,
    time_budget: TimeBudget = None,
    image_size: int | None = None,
    seed: int | None = None,
    set: Settings = (),
    resume: bool = False,
    address: str | None = None,
    no_ray: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Find, train and test networks for a folder of images, from large to small, and export one.

    Stages: a teacher is trained. A search in the space ``device`` records networks of all sizes. These and plain
    residual networks of several depths are scaled to budgets of multiply-adds, and race against those of the same
    budget, on validation images. The winners are trained long, imitating the teacher if it is better than they are, and
    tested once on the test images. Without a time budget, networks whose errors differ from a neighbour's within
    noise are trained again with a second seed.

    Args:
        images: Folder with a folder of images per class, or with ``train/`` and ``test/``; or the name of a dataset.
        out: Run folder; None is ``runs/fit``.
        under: Most multiply-adds, parameters and latency of the largest network, ``{"macs": "30M", "params": "1M",
            "latency": "20ms"}``. Other budgets are a half of its multiply-adds, a quarter, and so on to a sixteenth.
        runtime: What the latency is measured in, ``onnxruntime`` or ``torch``, on one thread of this machine; None is
            the first one that is installed.
        time_budget: Wall seconds for everything, or a text such as ``2h``. None for 60 epochs of each network.
        image_size: Side of the images in pixels.
        seed: Seed of everything.
        set: Keys of the configuration of the search to replace, ``{"data.workers": 4}``.
        resume: Whether to continue the run in ``out``, begun with the same arguments.
        address: Ray cluster to join, for example ``auto`` or ``HOST:6379``; None starts one on this machine.
        no_ray: Whether to run everything in this process.
        quiet: Whether to show no progress.

    Returns:
        How it ended; ``front`` has a row per trained network, with its test error, a mean where it was trained with two
        seeds; ``paths["model"]`` is the exported one.

    Raises:
        UserError: If an argument cannot be used, or the time is too short for the smallest network; no folder is left
            behind then.
    """
    check_no_ray(no_ray, address)
    seconds = None if time_budget is None else parse_duration(str(time_budget))
    limits = limits_of(under)
    asked = configured(RECIPE, data=images, image_size=image_size, seed=seed, settings=set)
    place = out_of(out, "fit")
    if runtime is not None:
        check_runtime(runtime)
    timed_in = (runtime or default_runtime()) if "latency_p50" in limits else None
    arguments = {"config": config_to_dict(asked), "under": limits, "runtime": timed_in, "seconds": seconds}
    limit_threads()
    alone = _is_alone(no_ray, address, seconds)

    @contextlib.contextmanager
    def opened() -> Iterator[How]:
        # Not around the search, which has a display and signals of its own.
        with shown(mode_of(quiet)) as board, StopSignals() as signals:
            yield How(board, signals, address, alone)

    with opened() as how:
        state = continued(place, arguments, how) if resume else begun(place, arguments, asked, how)
    try:
        with opened() as how, writing_to(state.folder):
            how.signals.defer()
            teacher = _teacher(state, how)
        if state.plan.search_epochs:
            found = sweep(state.config, out=state.folder, resume=True, quiet=quiet, address=address, no_ray=alone)
            if found.state != "finished":
                return found
        with opened() as how, writing_to(state.folder):
            how.signals.defer()
            return _trainings(state, teacher, how)
    except Stopped as stopped:
        paths = {"run": state.folder}
        return Outcome(state="interrupted", reason=str(stopped), paths=paths, signum=how.signals.signum)
    finally:
        state.note_time()


def _is_alone(no_ray: bool, address: str | None, seconds: float | None) -> bool:
    """Whether everything runs in this process.

    >>> _is_alone(False, None, 60.0), _is_alone(False, "auto", 60.0), _is_alone(False, None, None)
    (True, False, False)
    """
    return no_ray or (address is None and seconds is not None and seconds < _LEAST_RAY_SECONDS)


def _teacher(state: FitState, how: How) -> TeacherFile | None:
    """Return the teacher, trained if it is not there yet; None where the plan has none."""
    if not state.plan.teacher_epochs:
        return None
    specs = trials_of(state.config)
    return prepare_teacher(state.config, state.images, specs, state.folder, how.board, stop=how.signals).teacher_file


def _trainings(state: FitState, teacher: TeacherFile | None, how: How) -> Outcome:
    """Race, train the winners, test them, and leave front, report and model."""
    final = measured_on_test(state.images, state.config.data, how.board.update)
    placed = placed_as(state.config, protocol_of(state.plan.epochs))
    with job_runner(placed, address=how.address, no_ray=how.no_ray) as run_all:
        how.signals.defer()

        def run(jobs: Sequence[Job], images: RetrainImages, imitated: TeacherFile | None, folder: Place) -> None:
            todo = unfinished_jobs(jobs, folder)
            if todo:
                run_all(todo, JobWork(images, imitated, folder, how.board, how.signals))
            request = how.signals()
            if request is not None:
                raise Stopped(request)

        winners, least_error = _raced(state, run, how.board)
        if not state.decided:
            imitated = _judged(state, teacher, least_error, how.board)
            state.decided = _decided(state, winners, final, imitated, how)
            state.write()
        imitates = state.decided["imitates"]
        jobs = [state.job(spec, protocol_of(state.decided["epochs"], imitates)) for spec in winners]
        epochs = state.decided["epochs"]
        how.board.say(
            f"fit: {counted(len(jobs), 'network')}, {counted(epochs, 'epoch')} each, tested once at the "
            f"end{state.time_left()}"
        )
        run(jobs, final, teacher if imitates else None, state.folder)
        doubted = _doubted(jobs, state.folder) if state.plan.seconds is None else []
        if doubted:
            how.board.say(f"fit: {counted(len(doubted), 'network')} differ from neighbours within noise: a second seed")
            second = [state.job(job.spec, job.config, seed=state.config.seed + 1) for job in doubted]
            run(second, final, teacher if imitates else None, state.folder)
            jobs += second
    return _results(state, jobs, final, how.board)


def _raced(state: FitState, run: Run, board: Board) -> tuple[list[NetworkSpec], float]:
    """Return the winner of each bin, and the least validation error of the last round, 1 without any round.

    Raises:
        NonFiniteLossError: If no training of a network ends.
    """
    bins, least_error = _bins(state), 1.0
    for number, rung in enumerate(state.plan.rungs, 1):
        contested = [members for members in bins if len(members) > 1]
        if not contested:
            break
        protocol, folder = protocol_of(rung.epochs), race_folder(state.folder)
        folder.mkdir(parents=True, exist_ok=True)  # every node of a cluster must see it
        jobs = {job.name: job for members in contested for job in (state.job(spec, protocol) for spec in members)}
        board.say(
            f"fit: race, round {number} of {len(state.plan.rungs)}: {counted(len(jobs), 'network')} of "
            f"{counted(len(contested), 'size')}, {counted(rung.epochs, 'epoch')} each{state.time_left()}"
        )
        run([*jobs.values()], RetrainImages(state.images, "validation"), None, folder)
        errors = {
            record["job"]: 1 - record["accuracy"] for record in read_retrained(folder)[0] if record["job"] in jobs
        }
        least_error = min(errors.values(), default=1.0)
        named = [[state.job(spec, protocol).name for spec in members] for members in contested]
        left = iter([jobs[name].spec for name in names] for names in survivors(errors, named, rung.keep))
        bins = [next(left) if len(members) > 1 else members for members in bins]
    winners = [members[0] for members in bins if members]
    if not winners:
        raise NonFiniteLossError("the training of every network of the race diverged")
    return winners, least_error


def _doubted(jobs: Sequence[Job], folder: Place) -> list[Job]:
    """Return the trainings whose test errors differ from a neighbour's within noise: both of each such pair."""
    from analysis.intervals import against_smaller

    front = trained(jobs, folder).sort_values("macs", kind="stable")
    is_noise = against_smaller(front) == "within noise"
    names = {*front["job"][is_noise | is_noise.shift(-1, fill_value=False)]}
    return [job for job in jobs if job.name in names]


def _bins(state: FitState) -> list[list[NetworkSpec]]:
    """Return the networks of each bin of the race, largest budget first; decided once, for latencies vary."""
    if state.race is not None:
        return state.race
    found = []
    if state.plan.search_epochs:
        rows = {row["digest"]: row for row in read_run(state.folder).snapshots}
        for digest, row in rows.items():
            score = row["proxy_accuracy"] if row.get("score") is None else row["score"]
            found.append(Found(genotype=read_genotype(state.folder, digest), macs=row["macs"], score=score))
    plain = plain_members(space_of(state.config.space), with_lean=state.build.latency is not None)
    state.race = list(entrants(plain, found, state.plan.budgets, state.build, places=state.plan.places).values())
    state.write()
    return state.race


def _judged(state: FitState, teacher: TeacherFile | None, least_error: float, board: Board) -> TeacherFile | None:
    """Return the teacher if it is worth imitating: better than every network of the race, on the same images."""
    if teacher is None or not state.plan.rungs:
        return teacher
    accuracy = load_teacher(teacher, device_for(state.config.train.device)).accuracy
    if accuracy > 1 - least_error:
        return teacher
    board.say(
        f"warning: the teacher ({accuracy:.2%} of the validation images right) is no better than the best network of "
        f"the race ({1 - least_error:.2%} after {state.plan.rungs[-1].epochs} epochs); none imitates it"
    )
    return None


def _decided(
    state: FitState, winners: Sequence[NetworkSpec], final: RetrainImages, imitated: TeacherFile | None, how: How
) -> dict[str, Any]:
    """Return the epochs of the final training, from the time that is left, and whether a teacher is imitated."""
    imitates, epochs = imitated is not None, state.plan.epochs
    if state.plan.seconds is not None:
        parallel, threads = allotted(state.config, how.no_ray)
        jobs = [state.job(spec, protocol_of(10, imitates)) for spec in winners]
        with computing_with(threads):
            each = [seconds_per_epoch(job, final, imitated) for job in jobs]
        # Whole trainings took longer than a few steps, with their checkpoints.
        each = [max(pair) for pair in zip(each, _raced_seconds(state, winners, final), strict=True)]
        epochs = epochs_within(state.plan.seconds - state.time_used(), together(each, parallel))
    return {"epochs": epochs, "imitates": imitates}


def _raced_seconds(state: FitState, winners: Sequence[NetworkSpec], final: RetrainImages) -> list[float]:
    """Return the seconds that an epoch took in the race, for as many images as in the final training; 0 without one."""
    if not state.plan.rungs:
        return [0.0] * len(winners)
    last = protocol_of(state.plan.rungs[-1].epochs)
    took = {r["job"]: r["device_seconds"] / r["epochs"] for r in read_retrained(race_folder(state.folder))[0]}
    share = len(final.data.train) / len(state.images.train)
    return [share * took.get(state.job(spec, last).name, 0.0) for spec in winners]


def _with_latencies(front: pd.DataFrame, jobs: Sequence[Job], state: FitState) -> pd.DataFrame:
    """Return the trained networks with their latencies, which are kept, if there is a limit on these."""
    limit = state.build.latency
    if limit is None or front.empty:
        return front
    measured: dict[str, float] = {}
    for job in jobs:
        if job.name not in set(front["job"]):
            continue
        found = measure(job.spec, state.images.shape, torch.device("cpu"), run=state.folder.name, runtime=limit.runtime)
        write_measurement(state.folder, found)
        measured[job.name] = found.latency_p50
    timed: pd.DataFrame = front.assign(latency_p50=front["job"].map(measured))
    return timed


def _results(state: FitState, jobs: Sequence[Job], final: RetrainImages, board: Board) -> Outcome:
    """Return how it ended, with front, report and model."""
    from analysis import write_report
    from analysis.measurements import retrained_networks

    folder = state.folder
    records = trained(jobs, folder).sort_values("seed", kind="stable")  # the job of a row is that of the first seed
    front = _with_latencies(retrained_networks(records), jobs, state)
    paths: dict[str, Place] = {"run": folder, "retrained": retrained_folder(folder)}
    if final.split == "validation":
        board.say("fit: there are no test images; errors are those of images that networks were chosen by")
    left = tuple(job.name for job in unfinished_jobs(jobs, folder))
    if left:
        words = f"{len(left)} of {len(jobs)} networks did not finish"
        return Outcome(state="incomplete", reason=words, front=front, paths=paths, left=left)
    if front.empty:
        return Outcome(state="failed", reason="the training of every network diverged", front=front, paths=paths)
    contents = read_run(folder)
    paths |= leave_results(contents)[1]
    if "report" not in paths:  # there was no search
        paths["report"] = write_report(contents, report_file(folder))
    # The winner of the largest budget: chosen by its costs, not by test images.
    chosen = max(front.to_dict("records"), key=lambda row: row["macs"])["job"]
    if isinstance(folder, Path):
        kind = "onnx" if find_spec("onnx") and find_spec("onnxscript") else "safetensors"
        paths["model"] = export(folder, folder / f"model{FORMATS[kind].suffix}", format=kind, job=chosen).files[0]
    return Outcome(state="finished", front=front, paths=paths)
