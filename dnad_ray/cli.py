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
from rich.table import Table

from dnad_ray import __version__
from dnad_ray.errors import ConfigError, DnadRayError, IncompleteRunError, UserError
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
    """Run the command line; exit code 0, 2 for a user's mistake, 1 for a run that did not finish, 130 for Ctrl-C."""
    no_usage_statistics()
    warnings.showwarning = _show_warning
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:  # what click makes of Ctrl-C
        _fail("interrupted", 130)
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
        click.option(
            "--out", type=click.Path(path_type=Path), metavar="DIR", help="Run folder.  [default: runs/RECIPE]"
        ),
        click.option("--resume", is_flag=True, help="Continue the run in --out."),
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
    from dnad_ray.trial import TrialSpec

    if options["trials"] not in (None, 1):
        raise ConfigError("--trials", options["trials"], "1 for search; `dnad-ray sweep` runs more")
    config = _resolved({**options, "trials": None})
    spec = TrialSpec("t00", {"seed": config.seed}, config)

    def work(prepared: Any, folder: Path, board: Any) -> None:
        board.say(f"search: {estimate_in_words(spec, prepared, 1, 1)}")
        run_search(spec, prepared, folder, board)

    _carry_out(config, [spec], options, contextlib.nullcontext, work)


@cli.command()
@_run_options
@click.option("--address", metavar="ADDRESS", help="Ray cluster to join, for example auto or HOST:6379.")
def sweep(address: str | None, **options: Any) -> None:
    """Run many searches in parallel on Ray, and merge them into one global front.

    CONFIG is a YAML file, RECIPE a name that `dnad-ray recipes` lists. Its section `sweep` says what is varied.
    """
    from dnad_ray.search import check_buildable
    from dnad_ray.trial import trials_of

    config = _resolved(options)
    specs = trials_of(config)
    for spec in specs:
        check_buildable(spec.config)

    def session() -> AbstractContextManager[None]:
        from dnad_ray.cluster import cluster

        return cluster(config, address)

    def work(prepared: Any, folder: Path, board: Any) -> None:
        from dnad_ray.launch import run_sweep

        run_sweep(config, specs, prepared, folder, board)

    _carry_out(config, specs, options, session, work)


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path))
@click.option("--objectives", default=None, metavar="A,B", help="What is weighed.  [default: error,macs,params]")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def front(folders: tuple[Path, ...], objectives: str | None, as_json: bool) -> None:
    """Print the front of one or more run folders, merged."""
    from analysis import OBJECTIVES, front_of, load_runs, to_records

    names = OBJECTIVES if objectives is None else tuple(name.strip() for name in objectives.split(",") if name.strip())
    chosen = front_of(load_runs(folders), names)
    if as_json:
        click.echo(json.dumps(to_records(chosen), indent=1, allow_nan=False))
    else:
        _print_front(chosen)


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE.html", help="[default: DIR/report.html, or report.html]"
)
def report(folders: tuple[Path, ...], out: Path | None) -> None:
    """Write one self-contained HTML report about one or more run folders."""
    from analysis import write_report

    default = folders[0] / "report.html" if len(folders) == 1 else Path("report.html")
    click.echo(f"report: {write_report(folders, out or default)}")


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
    import yaml

    from dnad_ray.config import config_from_dict
    from dnad_ray.recipes import RECIPES, recipe_named

    path = Path(text)
    if text in RECIPES or (path.suffix not in (".yaml", ".yml") and not path.is_file()):
        return recipe_named(text)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("CONFIG", text, f"a readable YAML file ({type(error).__name__})") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError("CONFIG", text, "YAML that parses: " + " ".join(str(error).split())) from None
    if not isinstance(data, dict):
        raise ConfigError("CONFIG", text, "a YAML file with sections such as data, space, train")
    return config_from_dict(data, text)


def _carry_out(
    config: RunConfig,
    specs: list[Any],
    options: dict[str, Any],
    session: Callable[[], AbstractContextManager[None]],
    work: Callable[..., None],
) -> None:
    """Do the work in the run folder, and leave front and report behind also where it ended early.

    What can be known to fail is tried first; a mistake leaves no folder behind.
    """
    from dnad_ray.loggers import check_loggers
    from dnad_ray.run import check_out, conclude, is_complete, load_images, prepare, run_folder
    from dnad_ray.store import read_run
    from dnad_ray.watching import logs_of, open_board

    mode = _mode(options)
    if mode == "quiet":
        warnings.simplefilter("ignore")
    check_loggers(config.watch.loggers)
    out, resume = options["out"] or Path("runs") / Path(options["config"]).stem, options["resume"]
    folder = check_out(config, specs, out, resume)
    console = Console()
    problem: DnadRayError | KeyboardInterrupt | None = None
    with open_board(mode, console, [*logs_of(config.watch), *_live_page(config)]) as board:
        if resume and is_complete(specs, folder):
            board.begin(specs, folder, read_run(folder))
            board.say("nothing left to do: all trials are at their end")
        else:
            data = load_images(config, board)
            with session(), run_folder(config, folder, resume):
                board.begin(specs, folder, read_run(folder) if resume else None)
                try:
                    work(prepare(config, data, specs, folder, board), folder, board)
                except (DnadRayError, KeyboardInterrupt) as error:
                    problem = error
                    if not (folder / "trials").exists() and isinstance(error, DnadRayError):
                        board.end("failed", {"reason": str(error)})
                        raise
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Tune leaves its own handler behind
        try:
            conclude(specs, folder, board)
        except DnadRayError as error:
            problem = problem or error
        chosen, paths = _leave_results(folder)
        board.end(*_outcome(problem, chosen, paths))
    _print_results(mode, chosen, paths, console)
    if isinstance(problem, KeyboardInterrupt):
        _fail(f"interrupted; to continue: {_resume_command()}", 130)
    if isinstance(problem, IncompleteRunError):
        raise IncompleteRunError(f"{problem}; to continue: {_resume_command()}") from problem
    if problem is not None:
        raise problem


def _mode(options: dict[str, Any]) -> Mode:
    if options["quiet"] and options["as_json"]:
        raise ConfigError("--quiet with --json", "both", "one of them")
    return "quiet" if options["quiet"] else "json" if options["as_json"] else "people"


def _live_page(config: RunConfig) -> list[Display]:
    from analysis.live import live_page, live_script
    from dnad_ray.live_page import LivePage

    return [LivePage(live_page, live_script)] if config.watch.live_page else []


def _outcome(
    problem: DnadRayError | KeyboardInterrupt | None, chosen: pd.DataFrame, paths: dict[str, Path]
) -> tuple[str, dict[str, Any]]:
    """Return how the run ended, in a word and as data for programs."""
    from analysis import to_records

    is_open = isinstance(problem, KeyboardInterrupt | IncompleteRunError)
    state = "interrupted" if isinstance(problem, KeyboardInterrupt) else "incomplete" if is_open else "failed"
    return state if problem is not None else "finished", {
        "reason": None if problem is None else str(problem) or "interrupted",
        "resume": _resume_command() if is_open else None,
        "paths": {name: str(path) for name, path in paths.items()},
        "front": to_records(chosen[[*SNAPSHOT_COLUMNS, "error"]]),
    }


def _leave_results(folder: Path) -> tuple[pd.DataFrame, dict[str, Path]]:
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


def _print_results(mode: Mode, chosen: pd.DataFrame, paths: dict[str, Path], console: Console) -> None:
    if mode == "json":
        return
    report = f"report: {paths['report']}" if "report" in paths else f"no snapshot in {paths['run']}"
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
                format(value, metric(str(name)).format) if not isinstance(value, str) else value
                for name, value in row.items()
            )
        )
    # Somebody who pipes the table wants whole rows, whatever the width that a pipe pretends to have.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _resume_command() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return shlex.join(["dnad-ray", *arguments, "--resume"])


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"dnad-ray: warning: {' '.join(str(message).split())}", err=True)


def _fail(message: str, code: int) -> None:
    click.echo(f"dnad-ray: error: {' '.join(message.split())}", err=True)
    sys.exit(code)
