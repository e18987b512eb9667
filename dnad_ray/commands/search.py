"""One search in this process, and what a search shares with a sweep: from a configuration to a front and a report."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from dnad_ray.commands.folder import check_images, check_out, conclude, leave_results, run_folder, run_to_continue
from dnad_ray.commands.options import (
    AnyPath,
    Config,
    Settings,
    TimeBudget,
    budget_of,
    configured,
    mode_of,
    out_of,
)
from dnad_ray.commands.outcome import Outcome, State
from dnad_ray.config.run import RunConfig
from dnad_ray.data.loading import ImageData
from dnad_ray.errors import ConfigError, DnadRayError, IncompleteRunError, ResourceError, UserError
from dnad_ray.run_folder.layout import trials_folder
from dnad_ray.run_folder.reading import RunContents, read_run
from dnad_ray.run_folder.records import SNAPSHOT_COLUMNS
from dnad_ray.runtime.budget import Budget
from dnad_ray.runtime.cpus import limit_threads
from dnad_ray.runtime.stopping import StopCheck, Stopped, StopSignals, first_of
from dnad_ray.search.checks import floor_warnings
from dnad_ray.search.estimate import estimate_in_words
from dnad_ray.search.prepare import PreparedRun, load_images, prepare_teacher, run_search
from dnad_ray.storage.places import Place, address
from dnad_ray.trials.plan import is_complete, more_seeds, register, unfinished
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board
from dnad_ray.watch.displays import Mode, logs_of, open_board
from dnad_ray.watch.logbook import check_loggers
from dnad_ray.watch.moments import Display

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Asked", "Work", "carry_out", "prepared_in", "search", "shown"]


def search(
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
    to_continue: str | None = None,
) -> Outcome:
    """Run one search in this process, without Ray.

    Args:
        config: A recipe, a YAML file, nested dictionaries, or a configuration.
        data: Another dataset, or a folder with one's own images.
        space: A named search space, or a YAML or Python file; a Python file is run.
        image_size: Side of the images in pixels.
        epochs: Most epochs.
        teacher_epochs: Epochs of the teacher.
        seed: The seed.
        trials: 1, or None.
        set: Keys of the configuration to replace, ``{"shrink.rate": 0.1}``.
        out: Run folder, path or URL; None is ``runs/RECIPE``.
        resume: Whether to continue the run in ``out``.
        time_budget: Pause after that many seconds, or a text such as ``10m``.
        quiet: Whether to show no progress.
        json: Whether to print progress as JSON lines.
        to_continue: The command that continues the run, for messages; None for this call with ``resume=True``.

    Returns:
        How it ended; its ``front`` is that of the whole run folder.

    Raises:
        UserError: If an argument cannot be used; no folder is left behind then.
    """
    budget = budget_of(time_budget)
    if trials not in (None, 1):
        raise ConfigError("--trials", trials, "1 for search; `dnad-ray sweep` runs more")
    asked = configured(
        config,
        data=data,
        space=space,
        image_size=image_size,
        epochs=epochs,
        teacher_epochs=teacher_epochs,
        seed=seed,
        settings=set,
    )
    if asked.train.num_processes > 1:
        raise ConfigError(
            "train.num_processes", asked.train.num_processes, "1 for search; `dnad-ray sweep` starts more"
        )
    spec = TrialSpec("t00", {"seed": asked.seed}, asked)
    place = out_of(out, config)

    def work(stage: Work) -> None:
        stage.signals.defer()  # until the results lie there too
        stop = first_of(stage.signals, budget.check)
        prepared = prepared_in(stage, stop, asked, [spec])
        if prepared is not None:
            run_search(spec, prepared, stage.folder, stage.board, stop=stop)

    with run_to_continue(place, resume) as stored:
        request = Asked(
            config=asked,
            specs=[spec],
            out=place,
            stored=stored,
            budget=budget,
            mode=mode_of(quiet, json),
            to_continue=to_continue,
        )
        return carry_out(request, contextlib.nullcontext, work)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The request of a caller.

    Attributes:
        config: The run.
        specs: Its trials.
        out: Its folder.
        stored: The content of the folder, None for a new run.
        budget: Limits of time and trials.
        mode: How progress is shown.
        to_continue: The command that continues the run, for messages; None for no such message.
        seeds: How many new seeds every setting on the front gets; 0 for none.
    """

    config: RunConfig
    specs: list[TrialSpec]
    out: Place
    stored: RunContents | None
    budget: Budget
    mode: Mode
    to_continue: str | None
    seeds: int = 0


@dataclass(frozen=True, kw_only=True)
class Work:
    """The context of the running trials.

    Attributes:
        specs: All trials of the run.
        data: Images.
        make: Makes the teacher and the other things that trials share.
        folder: The run folder.
        board: Where to show progress.
        signals: Requests by Ctrl-C and SIGTERM.
    """

    specs: Sequence[TrialSpec]
    data: ImageData
    make: Callable[..., PreparedRun]
    folder: Place
    board: Board
    signals: StopSignals


def prepared_in(stage: Work, stop: StopCheck, config: RunConfig, todo: Sequence[TrialSpec]) -> PreparedRun | None:
    """Say how long the trials of this process take, and make what they share.

    Args:
        stage: The context.
        stop: Tells whether to stop.
        config: The run.
        todo: The trials to run, one after the other.

    Returns:
        Images and teacher; None if the time was over before the teacher was trained.

    Raises:
        Stopped: If a signal came.
    """
    if stop() is None:
        words = estimate_in_words(config, todo[0], stage.data, stage.folder, num_trials=len(todo), num_parallel=1)
        stage.board.say(f"{'search' if len(stage.specs) == 1 else 'sweep'}: {words}")
    try:
        return stage.make(stop=stop)
    except Stopped as stopped:
        if stopped.request.state == "paused":
            return None
        raise


@contextlib.contextmanager
def shown(mode: Mode, others: Sequence[Display] = ()) -> Iterator[Board]:
    """Open a board for a command; a quiet one shows no warnings either."""
    with contextlib.ExitStack() as stack:
        if mode == "quiet":
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        yield stack.enter_context(open_board(mode, Console(), others))


def carry_out(
    asked: Asked, session: Callable[[], AbstractContextManager[None]], work: Callable[[Work], None]
) -> Outcome:
    """Run the trials in the run folder, and write front and report, also if they end early.

    All checks come first, so that a mistake in the arguments leaves no folder behind.

    Args:
        asked: What the caller asked for.
        session: Context that is open during the trials, such as a cluster.
        work: Runs the trials.

    Raises:
        UserError: If something that was given cannot be used.
        KeyboardInterrupt: If it was interrupted before the first trial, or not by a signal.
    """
    config, stored, budget = asked.config, asked.stored, asked.budget
    limit_threads()
    check_loggers(config.watch.loggers)
    folder = check_out(config, asked.specs, asked.out, stored)
    problem: DnadRayError | KeyboardInterrupt | None = None
    displays = [*logs_of(config.watch), *_live_page(config)]
    with contextlib.ExitStack() as held, shown(asked.mode, displays) as board, StopSignals() as signals:
        specs = [*asked.specs, *(_more_seeds(asked, stored, board) if stored is not None and asked.seeds else ())]
        left_out = [spec.name for spec in budget.left_out(unfinished(specs, stored))]
        if stored is not None and is_complete(specs, stored):
            board.begin(specs, folder, stored)
            board.say("nothing left to do: all trials are at their end")
            contents = stored
        else:
            for words in dict.fromkeys(words for spec in specs for words in floor_warnings(spec.config)):
                board.say(f"warning: {words}")
            data = load_images(config, board)
            if stored is not None:
                check_images(folder, data.record, "put them back, or start a new run with another --out")
            with session():
                # Held until the results lie there too.
                held.enter_context(run_folder(config, folder, stored is not None, data.record))
                board.begin(specs, folder, stored)
                try:
                    make = partial(prepare_teacher, config, data, specs, folder, board)
                    work(Work(specs=specs, data=data, make=make, folder=folder, board=board, signals=signals))
                except (DnadRayError, KeyboardInterrupt) as error:
                    problem = error
                    if not trials_folder(folder).exists() and isinstance(error, DnadRayError):
                        board.end("failed", {"reason": str(error)})
                        raise
            contents = read_run(folder)
        words = ""
        try:
            words = conclude(specs, contents, board, budget, left_out)
        except DnadRayError as error:
            problem = problem or error
        front, paths = None, {"run": folder}
        try:
            front, paths = leave_results(contents)
        except (DnadRayError, OSError):  # the error of the run, such as a full disk, may also prevent these files
            if problem is None:
                raise
        outcome = Outcome(
            state=_state(problem, words, signals.signum),
            reason=words or None if problem is None else str(problem) or "interrupted",
            front=front,
            paths=paths,
            left=tuple(spec.name for spec in unfinished(specs, contents)),
            signum=signals.signum,
        )
        board.end(outcome.state, _for_programs(outcome, asked.to_continue))
    is_mistake = isinstance(problem, UserError) and not isinstance(problem, ResourceError)
    if problem is not None and (is_mistake or (isinstance(problem, KeyboardInterrupt) and signals.signum is None)):
        raise problem
    return outcome


def _state(problem: DnadRayError | KeyboardInterrupt | None, words: str, signum: int | None) -> State:
    if problem is None:
        return "paused" if words else "finished"
    is_open = isinstance(problem, IncompleteRunError | ResourceError)
    if isinstance(problem, KeyboardInterrupt) or (signum is not None and isinstance(problem, IncompleteRunError)):
        return "interrupted"
    return "incomplete" if is_open else "failed"


def _for_programs(outcome: Outcome, to_continue: str | None) -> dict[str, object]:
    """Return how the run ended as plain data."""
    from analysis import to_records

    front = outcome.front
    return {
        "reason": outcome.reason,
        "resume": to_continue if outcome.can_continue else None,
        "paths": {name: address(path) for name, path in outcome.paths.items()},
        "front": [] if front is None else to_records(front[[*SNAPSHOT_COLUMNS, "error"]]),
    }


def _more_seeds(asked: Asked, stored: RunContents, board: Board) -> list[TrialSpec]:
    from analysis import front_of, load_runs

    front: pd.DataFrame = front_of(load_runs(stored))
    added = more_seeds(asked.config, asked.specs, {*front["trial"]}, asked.seeds)
    for spec in added:
        register(stored.path, spec)
        board.say(f"{spec.name}: one more seed of a setting on the front ({spec.label})")
    return added


def _live_page(config: RunConfig) -> list[Display]:
    from analysis.live import live_page, live_script
    from dnad_ray.watch.live_page import LivePage

    return [LivePage(live_page, live_script)] if config.watch.live_page else []
