"""`dnad-ray search` and `dnad-ray sweep`: run, watch, and leave front and report behind."""

from __future__ import annotations

import contextlib
import importlib
import shlex
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from dnad_ray.cli.front import print_front
from dnad_ray.cli.messages import fail, to_place
from dnad_ray.cli.options import configured
from dnad_ray.errors import ConfigError, DnadRayError, IncompleteRunError, ResourceError
from dnad_ray.run_folder.records import SNAPSHOT_COLUMNS
from dnad_ray.runtime.budget import Budget
from dnad_ray.storage.places import Place, address
from dnad_ray.text import parse_duration

# Torch, Ray and plotly take seconds to import; commands that need them import them themselves.
if TYPE_CHECKING:
    import pandas as pd

    from dnad_ray.config.run import RunConfig
    from dnad_ray.watch.displays import Mode
    from dnad_ray.watch.moments import Display

__all__ = ["search", "sweep"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _run_options(command: _Command) -> _Command:
    options = [
        click.argument("config", metavar="CONFIG|RECIPE"),
        click.option(
            "--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Replace one config key; repeatable."
        ),
        click.option("--data", metavar="NAME|FOLDER", help="Another dataset, or a folder with one's own images."),
        click.option(
            "--space",
            metavar="NAME|FILE",
            help="A named search space, or one's own: YAML, or a Python file, which is run.",
        ),
        click.option("--image-size", type=int, metavar="N", help="Side of the images in pixels (data.image_size)."),
        click.option("--epochs", type=int, metavar="N", help="Most epochs of a search (train.epochs)."),
        click.option("--seed", type=int, metavar="N", help="First seed (seed)."),
        click.option("--trials", type=int, metavar="N", help="Trials in all (sweep.num_trials)."),
        click.option("--out", callback=to_place, metavar="DIR|URL", help="Run folder.  [default: runs/RECIPE]"),
        click.option("--resume", is_flag=True, help="Continue the run in --out."),
        click.option(
            "--time-budget", metavar="TIME", help="Pause after 90, 90s, 10m or 2h; --resume goes on with a new budget."
        ),
        click.option("--quiet", is_flag=True, help="Print errors and one last line, nothing else."),
        click.option("--json", "as_json", is_flag=True, help="Print progress as JSON lines; text goes to stderr."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_run_options
def search(**options: Any) -> None:
    """Run one search in this process, without Ray.

    CONFIG is a YAML file, RECIPE a name that `dnad-ray recipes` lists.
    """
    from dnad_ray.runtime.stopping import first_of
    from dnad_ray.search.prepare import estimate_in_words, run_search
    from dnad_ray.trials.spec import TrialSpec

    budget = _budget(options)
    if options["trials"] not in (None, 1):
        raise ConfigError("--trials", options["trials"], "1 for search; `dnad-ray sweep` runs more")
    config = configured({**options, "trials": None})
    if config.train.num_processes > 1:
        raise ConfigError(
            "train.num_processes", config.train.num_processes, "1 for search; `dnad-ray sweep` starts more"
        )
    spec = TrialSpec("t00", {"seed": config.seed}, config)

    def work(data: Any, make: Any, folder: Place, board: Any, signals: Any) -> None:
        prepared = make()
        signals.defer()  # until the results lie there too
        board.say(f"search: {estimate_in_words(spec, prepared, 1, 1)}")
        run_search(spec, prepared, folder, board, stop=first_of(signals, budget.check))

    _carry_out(config, [spec], options, contextlib.nullcontext, work, budget=budget)


@click.command()
@_run_options
@click.option("--address", metavar="ADDRESS", help="Ray cluster to join, for example auto or HOST:6379.")
@click.option("--max-trials", type=int, metavar="N", help="Run N of the trials that are not at their end.")
@click.option(
    "--more-seeds", type=int, metavar="N", help="With --resume: add trials, N new seeds of every setting on the front."
)
def sweep(address: str | None, **options: Any) -> None:
    """Run many searches in parallel on Ray, and merge them into one global front.

    CONFIG is a YAML file, RECIPE a name that `dnad-ray recipes` lists. Its section `sweep` says what is varied.
    """
    from dnad_ray.on_ray.resources import check_requests
    from dnad_ray.search.checks import check_buildable
    from dnad_ray.trials.plan import trials_in
    from dnad_ray.trials.sampling import check_sampler, corners

    budget = _budget(options)
    if options["more_seeds"] is not None and (options["more_seeds"] < 1 or not options["resume"]):
        raise ConfigError("--more-seeds", options["more_seeds"], "at least 1, together with --resume")
    config = configured(options)
    check_sampler(config)
    specs = trials_in(config, _out(options) if options["resume"] else None)
    for one in [*(spec.config for spec in specs), *corners(config)]:
        check_buildable(one)
        check_requests(one)

    def session() -> AbstractContextManager[None]:
        from dnad_ray.on_ray.cluster import cluster

        # To load Tune takes half a second, and torch's optimizers take one when the first is made; Ray's processes take
        # some to start, in which this one would only wait for them.
        threading.Thread(target=_load, args=["dnad_ray.on_ray.sweep", "torch._dynamo"], daemon=True).start()
        return cluster(config, address)

    def work(data: Any, make: Any, folder: Place, board: Any, signals: Any) -> None:
        from dnad_ray.on_ray.sweep import run_sweep

        make_sampler = None
        if config.sweep.sampler == "optuna":
            from dnad_ray.on_ray.optuna_sampler import OptunaSampler

            make_sampler = OptunaSampler
        signals.defer()  # until the results lie there too
        run_sweep(
            config,
            specs,
            data,
            folder,
            board,
            make=lambda check: make(check=check),
            stop=signals,
            budget=budget,
            make_sampler=make_sampler,
        )

    _carry_out(config, specs, options, session, work, budget=budget)


def _load(*modules: str) -> None:
    for module in modules:
        importlib.import_module(module)


def _budget(options: dict[str, Any]) -> Budget:
    time_budget, max_trials = options["time_budget"], options.get("max_trials")
    if max_trials is not None and max_trials < 1:
        raise ConfigError("--max-trials", max_trials, "at least 1")
    return Budget(None if time_budget is None else parse_duration(time_budget), max_trials)


def _out(options: dict[str, Any]) -> Place:
    out: Place = options["out"] or Path("runs") / Path(options["config"]).stem
    return out


def _carry_out(
    config: RunConfig,
    specs: list[Any],
    options: dict[str, Any],
    session: Callable[[], AbstractContextManager[None]],
    work: Callable[..., None],
    *,
    budget: Budget,
) -> None:
    """Do the work in the run folder, and leave front and report behind also where it ended early.

    What can be known to fail is tried first; a mistake leaves no folder behind.
    """
    from dnad_ray.run_folder.reading import read_run
    from dnad_ray.runtime.stopping import StopSignals
    from dnad_ray.search.checks import floor_warnings
    from dnad_ray.search.prepare import check_out, conclude, load_images, prepare_teacher, run_folder
    from dnad_ray.trials.plan import is_complete, unfinished
    from dnad_ray.watch.displays import logs_of, open_board
    from dnad_ray.watch.logbook import check_loggers

    if options["quiet"] and options["as_json"]:
        raise ConfigError("--quiet with --json", "both", "one of them")
    mode: Mode = "quiet" if options["quiet"] else "json" if options["as_json"] else "people"
    if mode == "quiet":
        warnings.simplefilter("ignore")
    check_loggers(config.watch.loggers)
    resume = options["resume"]
    folder = check_out(config, specs, _out(options), resume)
    console = Console()
    problem: DnadRayError | KeyboardInterrupt | None = None
    displays = [*logs_of(config.watch), *_live_page(config)]
    with open_board(mode, console, displays) as board, StopSignals() as signals:
        if options.get("more_seeds"):
            specs.extend(_more_seeds(config, specs, folder, options["more_seeds"], board))  # `work` has this list too
        left_out = [spec.name for spec in budget.left_out(unfinished(specs, folder))]
        if resume and is_complete(specs, folder):
            board.begin(specs, folder, read_run(folder))
            board.say("nothing left to do: all trials are at their end")
        else:
            for words in dict.fromkeys(words for spec in specs for words in floor_warnings(spec.config)):
                board.say(f"warning: {words}")
            data = load_images(config, board)
            with session(), run_folder(config, folder, resume):
                board.begin(specs, folder, read_run(folder) if resume else None)
                try:
                    make = partial(prepare_teacher, config, data, specs, folder, board)
                    work(data, make, folder, board, signals)
                except (DnadRayError, KeyboardInterrupt) as error:
                    problem = error
                    if not (folder / "trials").exists() and isinstance(error, DnadRayError):
                        board.end("failed", {"reason": str(error)})
                        raise
        words = ""
        try:
            words = conclude(specs, folder, board, budget, left_out)
        except DnadRayError as error:
            problem = problem or error
        chosen, paths = None, {"run": folder}
        try:
            chosen, paths = _leave_results(folder)
        except (DnadRayError, OSError):  # what kept the run from its end may keep its results from the disk
            if problem is None:
                raise
        board.end(*_outcome(problem, words, chosen, paths))
    _print_results(mode, chosen, paths, console)
    if signals.signum is not None and isinstance(problem, KeyboardInterrupt | IncompleteRunError):
        fail(f"interrupted; to continue: {_resume_command()}", 128 + signals.signum)
    if isinstance(problem, IncompleteRunError | ResourceError):
        raise IncompleteRunError(f"{problem}; to continue: {_resume_command()}") from problem
    if problem is not None:
        raise problem
    if words and mode != "json":  # it was asked for, hence no error
        console.print(f"{words}; to continue: {_resume_command()}", markup=False, soft_wrap=True)


def _more_seeds(config: RunConfig, specs: list[Any], folder: Place, num_seeds: int, board: Any) -> list[Any]:
    from analysis import front_of, load_runs
    from dnad_ray.trials.plan import more_seeds, register

    added = more_seeds(config, specs, set(front_of(load_runs(folder))["trial"]), num_seeds)
    for spec in added:
        register(folder, spec)
        board.say(f"{spec.name}: one more seed of a setting on the front ({spec.label})")
    return added


def _live_page(config: RunConfig) -> list[Display]:
    from analysis.live import live_page, live_script
    from dnad_ray.watch.live_page import LivePage

    return [LivePage(live_page, live_script)] if config.watch.live_page else []


def _outcome(
    problem: DnadRayError | KeyboardInterrupt | None, words: str, chosen: pd.DataFrame | None, paths: dict[str, Place]
) -> tuple[str, dict[str, Any]]:
    """Return how the run ended, in a word and as data for programs."""
    from analysis import to_records

    is_open = isinstance(problem, KeyboardInterrupt | IncompleteRunError | ResourceError)
    state = "interrupted" if isinstance(problem, KeyboardInterrupt) else "incomplete" if is_open else "failed"
    if problem is None:
        state = "paused" if words else "finished"
    return state, {
        "reason": words or None if problem is None else str(problem) or "interrupted",
        "resume": _resume_command() if is_open or words else None,
        "paths": {name: address(path) for name, path in paths.items()},
        "front": [] if chosen is None else to_records(chosen[[*SNAPSHOT_COLUMNS, "error"]]),
    }


def _leave_results(folder: Place) -> tuple[pd.DataFrame, dict[str, Place]]:
    """Write front and report; returns the front and what stands where."""
    from analysis import front_of, load_runs, to_records, write_report
    from dnad_ray.storage.files import write_json

    frame = load_runs(folder)
    chosen = front_of(frame)
    # Only what was recorded, and the error that was weighed: no path of the machine that ran it.
    write_json(folder / "front.json", to_records(chosen[[*SNAPSHOT_COLUMNS, "error"]]))
    paths = {"run": folder, "snapshots": folder / "snapshots.parquet", "front": folder / "front.json"}
    if len(frame):
        paths["report"] = write_report(folder, folder / "report.html")
    return chosen, paths


def _print_results(mode: Mode, chosen: pd.DataFrame | None, paths: dict[str, Place], console: Console) -> None:
    if mode == "json" or chosen is None:
        return
    report = f"report: {address(paths['report'])}" if "report" in paths else f"no snapshot in {address(paths['run'])}"
    if mode == "quiet":
        report = f"{len(chosen)} networks on the front; {report}"
    elif "report" in paths:
        print_front(chosen)
    console.print(report, markup=False, soft_wrap=True)


def _resume_command() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    while (at := next((i for i, text in enumerate(arguments) if text.startswith("--more-seeds")), None)) is not None:
        # They are in the run folder by now; said again, it would add more of them.
        del arguments[at : at + (1 if "=" in arguments[at] else 2)]
    return shlex.join(["dnad-ray", *arguments, "--resume"])
