"""The command line: every user's mistake is one line on standard error and exit code 2."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dnad_ray import __version__
from dnad_ray.budget import Budget
from dnad_ray.durations import parse_duration
from dnad_ray.errors import ConfigError, DnadRayError, IncompleteRunError, ResourceError, UserError, one_line
from dnad_ray.places import Place, address, place
from dnad_ray.printable import printable
from dnad_ray.records import SNAPSHOT_COLUMNS, metric
from dnad_ray.usage import no_usage_statistics

# Torch, Ray and plotly take seconds to import; commands that need them import them themselves.
if TYPE_CHECKING:
    import pandas as pd

    from dnad_ray.config import RunConfig
    from dnad_ray.progress import Display
    from dnad_ray.watching import Mode

__all__ = ["cli", "main"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_TABLE_COLUMNS = ("error", "macs", "params", "num_operations", "run", "trial", "seed", "step", "kind", "digest")


def main() -> None:
    """Run the command line.

    Exit codes: 0, 2 for a user's mistake, 1 for a run that did not finish, 130 after Ctrl-C, 143 after SIGTERM.
    """
    no_usage_statistics()
    warnings.showwarning = _show_warning
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort as error:  # what click makes of an interrupt
        _fail("interrupted", 128 + getattr(error.__cause__, "signum", signal.SIGINT))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except UserError as error:
        _fail(str(error), 2)
    except DnadRayError as error:
        _fail(str(error), 1)
    except OSError as error:  # with a name, it is a path that is too long or forbidden; else a disk that failed
        _fail(f"{type(error).__name__}: {error}", 1 if error.filename is None else 2)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dnad-ray")
def cli() -> None:
    """Neural architecture search by deleting and imitating: one global Pareto front of networks.

    Start with `dnad-ray sweep demo --out runs/demo`.
    """


def _to_place(_context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    # Not a parameter type: click would replace what our errors say by "invalid value".
    name = "--out" if parameter.name == "out" else "run folder"
    if isinstance(value, tuple):
        return tuple(place(text, name) for text in value)
    return None if value is None else place(value, name)


def _run_options(command: _Command) -> _Command:
    options = [
        click.argument("config", metavar="CONFIG|RECIPE"),
        click.option(
            "--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Replace one config key; repeatable."
        ),
        click.option("--data", metavar="NAME|FOLDER", help="Another dataset, or a folder with one's own images."),
        click.option("--image-size", type=int, metavar="N", help="Side of the images in pixels (data.image_size)."),
        click.option("--epochs", type=int, metavar="N", help="Most epochs of a search (train.epochs)."),
        click.option("--seed", type=int, metavar="N", help="First seed (seed)."),
        click.option("--trials", type=int, metavar="N", help="Trials in all (sweep.num_trials)."),
        click.option("--out", callback=_to_place, metavar="DIR|URL", help="Run folder.  [default: runs/RECIPE]"),
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


@cli.command()
@_run_options
def search(**options: Any) -> None:
    """Run one search in this process, without Ray.

    CONFIG is a YAML file, RECIPE a name that `dnad-ray recipes` lists.
    """
    from dnad_ray.run import estimate_in_words, run_search
    from dnad_ray.stopping import first_of
    from dnad_ray.trial import TrialSpec

    budget = _budget(options)
    if options["trials"] not in (None, 1):
        raise ConfigError("--trials", options["trials"], "1 for search; `dnad-ray sweep` runs more")
    config = _resolved({**options, "trials": None})
    if config.train.num_processes > 1:
        raise ConfigError(
            "train.num_processes", config.train.num_processes, "1 for search; `dnad-ray sweep` starts more"
        )
    spec = TrialSpec("t00", {"seed": config.seed}, config)

    def work(prepared: Any, folder: Place, board: Any, stop: Any) -> None:
        board.say(f"search: {estimate_in_words(spec, prepared, 1, 1)}")
        run_search(spec, prepared, folder, board, stop=first_of(stop, budget.check))

    _carry_out(config, [spec], options, contextlib.nullcontext, work, budget=budget)


@cli.command()
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
    from dnad_ray.plan import trials_in
    from dnad_ray.resources import check_requests
    from dnad_ray.sampling import check_sampler, corners
    from dnad_ray.search import check_buildable

    budget = _budget(options)
    if options["more_seeds"] is not None and (options["more_seeds"] < 1 or not options["resume"]):
        raise ConfigError("--more-seeds", options["more_seeds"], "at least 1, together with --resume")
    config = _resolved(options)
    check_sampler(config)
    specs = trials_in(config, _out(options) if options["resume"] else None)
    for one in [*(spec.config for spec in specs), *corners(config)]:
        check_buildable(one)
        check_requests(one)

    def session() -> AbstractContextManager[None]:
        from dnad_ray.cluster import cluster

        return cluster(config, address)

    def work(prepared: Any, folder: Place, board: Any, stop: Any) -> None:
        from dnad_ray.launch import run_sweep

        make_sampler = None
        if config.sweep.sampler == "optuna":
            from dnad_ray.optuna_sampler import OptunaSampler

            make_sampler = OptunaSampler
        run_sweep(config, specs, prepared, folder, board, stop=stop, budget=budget, make_sampler=make_sampler)

    _carry_out(config, specs, options, session, work, budget=budget)


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR|URL...", callback=_to_place)
@click.option("--objectives", default=None, metavar="A,B", help="What is weighed.  [default: error,macs,params]")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def front(folders: tuple[Place, ...], objectives: str | None, as_json: bool) -> None:
    """Print the front of one or more run folders, merged."""
    from analysis import OBJECTIVES, front_of, load_runs, to_records

    names = OBJECTIVES if objectives is None else tuple(name.strip() for name in objectives.split(",") if name.strip())
    chosen = front_of(load_runs(folders), names)
    if as_json:
        click.echo(json.dumps(to_records(chosen), indent=1, allow_nan=False))
    else:
        _print_front(chosen)


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR|URL...", callback=_to_place)
@click.option("--out", callback=_to_place, metavar="FILE.html", help="[default: DIR/report.html, or report.html]")
def report(folders: tuple[Place, ...], out: Place | None) -> None:
    """Write one self-contained HTML report about one or more run folders."""
    from analysis import write_report

    default = folders[0] / "report.html" if len(folders) == 1 else Path("report.html")
    click.echo(f"report: {address(write_report(folders, out or default))}")


@cli.command()
def recipes() -> None:
    """List the named configurations."""
    from dnad_ray.recipes import RECIPES, summary_of

    table = Table("recipe", "what it is", box=None)
    for name in RECIPES:
        table.add_row(name, summary_of(name))
    Console().print(table)


@cli.command("config")
@click.argument("recipe")
def config_command(recipe: str) -> None:
    """Print a recipe as YAML, to start a configuration of one's own from."""
    import yaml

    from dnad_ray.config import config_to_dict
    from dnad_ray.recipes import recipe_named

    click.echo(yaml.safe_dump(config_to_dict(recipe_named(recipe)), sort_keys=False), nl=False)


def _resolved(options: dict[str, Any]) -> RunConfig:
    """Return the configuration that the options ask for."""
    from dnad_ray.config import parse_assignment, with_overrides
    from dnad_ray.data import resolve_data_argument
    from dnad_ray.search import check_buildable

    short = {"image_size": "data.image_size", "epochs": "train.epochs", "seed": "seed", "trials": "sweep.num_trials"}
    given = [name for name in short if options[name] is not None]
    overrides = {} if options["data"] is None else resolve_data_argument(options["data"])
    overrides |= {short[name]: options[name] for name in given}
    overrides |= dict(map(parse_assignment, options["assignments"]))
    # All at once: one option may be what makes another possible.
    origin = ", ".join([f"--{name.replace('_', '-')}" for name in given] + ["--set"] * bool(options["assignments"]))
    config = with_overrides(_read_config(options["config"]), overrides, origin or "CONFIG")
    check_buildable(config)
    return config


def _read_config(text: str) -> RunConfig:
    from dnad_ray.config import config_from_dict
    from dnad_ray.files import read_file
    from dnad_ray.recipes import RECIPES, recipe_named
    from dnad_ray.yaml_reader import MAX_BYTES, parse_yaml

    path = Path(text)
    if text in RECIPES or (path.suffix not in (".yaml", ".yml") and not path.is_file()):
        return recipe_named(text)
    try:
        data = parse_yaml(read_file(path, MAX_BYTES, follow_links=True), text)
    except OSError as error:
        raise ConfigError("CONFIG", text, f"a readable YAML file ({type(error).__name__})") from None
    except UserError as error:
        raise ConfigError("CONFIG", text, f"YAML that parses: {one_line(error)}") from None
    if not isinstance(data, dict):
        raise ConfigError("CONFIG", text, "a YAML file with sections such as data, space, train")
    return config_from_dict(data, text)


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
    from dnad_ray.loggers import check_loggers
    from dnad_ray.run import check_out, conclude, is_complete, load_images, prepare, run_folder, unfinished
    from dnad_ray.stopping import StopSignals
    from dnad_ray.store import read_run
    from dnad_ray.watching import logs_of, open_board

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
            data = load_images(config, board)
            with session(), run_folder(config, folder, resume):
                board.begin(specs, folder, read_run(folder) if resume else None)
                try:
                    prepared = prepare(config, data, specs, folder, board)
                    signals.defer()  # until the results lie there too
                    work(prepared, folder, board, signals)
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
        _fail(f"interrupted; to continue: {_resume_command()}", 128 + signals.signum)
    if isinstance(problem, IncompleteRunError | ResourceError):
        raise IncompleteRunError(f"{problem}; to continue: {_resume_command()}") from problem
    if problem is not None:
        raise problem
    if words and mode != "json":  # it was asked for, hence no error
        console.print(f"{words}; to continue: {_resume_command()}", markup=False, soft_wrap=True)


def _more_seeds(config: RunConfig, specs: list[Any], folder: Place, num_seeds: int, board: Any) -> list[Any]:
    from analysis import front_of, load_runs
    from dnad_ray.plan import more_seeds, register

    added = more_seeds(config, specs, set(front_of(load_runs(folder))["trial"]), num_seeds)
    for spec in added:
        register(folder, spec)
        board.say(f"{spec.name}: one more seed of a setting on the front ({spec.label})")
    return added


def _live_page(config: RunConfig) -> list[Display]:
    from analysis.live import live_page, live_script
    from dnad_ray.live_page import LivePage

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
    from dnad_ray.store import write_json

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
        _print_front(chosen)
    console.print(report, markup=False, soft_wrap=True)


def _print_front(front: pd.DataFrame) -> None:
    table = Table(title=f"Pareto front: {len(front)} networks", title_justify="left", box=None)
    several_runs = front["run"].nunique() > 1  # one run's name in every row would only make the table wider
    columns = [name for name in _TABLE_COLUMNS if name in front and (name != "run" or several_runs)]
    for name in columns:
        table.add_column(metric(name).label, justify="right" if name in front.select_dtypes("number") else "left")
    for row in front[columns].to_dict("records"):
        table.add_row(
            *(
                escape(printable(value)) if isinstance(value, str) else format(value, metric(str(name)).format)
                for name, value in row.items()
            )
        )
    # Somebody who pipes the table wants whole rows, whatever the width that a pipe pretends to have.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _resume_command() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    while (at := next((i for i, text in enumerate(arguments) if text.startswith("--more-seeds")), None)) is not None:
        # They are in the run folder by now; said again, it would add more of them.
        del arguments[at : at + (1 if "=" in arguments[at] else 2)]
    return shlex.join(["dnad-ray", *arguments, "--resume"])


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"dnad-ray: warning: {printable(' '.join(str(message).split()))}", err=True)


def _fail(message: str, code: int) -> None:
    click.echo(f"dnad-ray: error: {printable(' '.join(message.split()))}", err=True)
    sys.exit(code)
