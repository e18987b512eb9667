"""`dnad-ray search` and `dnad-ray sweep`: run searches, print the results and how to continue."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from dnad_ray.cli.front import print_front
from dnad_ray.cli.messages import fail, resume_line, said
from dnad_ray.storage.places import address

# Importing torch, Ray and plotly takes seconds, so commands import them when they are called.
if TYPE_CHECKING:
    from dnad_ray.commands.outcome import Outcome

__all__ = ["search", "sweep"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _run_options(command: _Command) -> _Command:
    options = [
        click.argument("config", metavar="CONFIG|RECIPE"),
        click.option("--set", multiple=True, metavar="A.B=VALUE", help="Set one config key; repeatable."),
        click.option("--data", metavar="NAME|FOLDER", help="Name of a dataset, or a folder with your own images."),
        click.option(
            "--space",
            metavar="NAME|FILE",
            help="A named space, or a file of your own (YAML; Python files are executed).",
        ),
        click.option("--image-size", type=int, metavar="N", help="Side of the images in pixels (data.image_size)."),
        click.option("--epochs", type=int, metavar="N", help="Maximum number of epochs of a search (train.epochs)."),
        click.option(
            "--teacher-epochs", type=int, metavar="N", help="Number of epochs of the teacher (distill.teacher.epochs)."
        ),
        click.option("--seed", type=int, metavar="N", help="First seed (seed)."),
        click.option("--trials", type=int, metavar="N", help="Total number of trials (sweep.num_trials)."),
        click.option("--out", metavar="DIR|URL", help="Run folder.  [default: runs/RECIPE]"),
        click.option("--resume", is_flag=True, help="Continue the run in --out."),
        click.option(
            "--time-budget",
            metavar="TIME",
            help="Pause after this time (90, 90s, 10m, 2h); use --resume to continue, with a new budget.",
        ),
        click.option("--quiet", is_flag=True, help="Print only errors and one line at the end."),
        click.option("--json", is_flag=True, help="Print progress as JSON lines; text goes to stderr."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_run_options
def search(**options: Any) -> None:
    """Run one search in this process, without Ray.

    CONFIG is a YAML file, RECIPE a name from `dnad-ray recipes`.
    """
    from dnad_ray.commands.search import search as run

    _leave(run, options)


@click.command()
@_run_options
@click.option("--address", metavar="ADDRESS", help="Ray cluster to connect to, for example auto or HOST:6379.")
@click.option("--no-ray", is_flag=True, help="Run one trial after the other in this process, with the same results.")
@click.option("--max-trials", type=int, metavar="N", help="Run at most N of the unfinished trials.")
@click.option(
    "--more-seeds", type=int, metavar="N", help="With --resume: add N trials with new seeds per setting on the front."
)
def sweep(**options: Any) -> None:
    """Run many searches in parallel on Ray, and merge them into one global front.

    CONFIG is a YAML file, RECIPE a name from `dnad-ray recipes`. Its section `sweep` defines the settings.
    """
    from dnad_ray.commands.sweep import sweep as run

    _leave(run, options)


def _leave(run: Callable[..., Outcome], options: dict[str, Any]) -> None:
    """Run the command, print the results, and exit with the code for the outcome."""
    again = resume_line(said())
    outcome = run(**options, to_continue=again)
    if not options["json"]:
        _print_results(outcome, options["quiet"])
    words = f"{outcome.reason}; to continue: {again}"
    if outcome.state == "interrupted":
        fail(f"interrupted; to continue: {again}", 128 + (outcome.signum or 0))
    if outcome.state == "incomplete":
        fail(words, 1)
    if outcome.state == "failed":
        fail(str(outcome.reason), 1)
    if outcome.state == "paused" and not options["json"]:  # the user asked for it, so it is no error
        Console().print(words, markup=False, soft_wrap=True)


def _print_results(outcome: Outcome, quiet: bool) -> None:
    front, paths = outcome.front, outcome.paths
    if front is None:
        return
    report = f"report: {address(paths['report'])}" if "report" in paths else f"no snapshot in {address(paths['run'])}"
    if quiet:
        report = f"{len(front)} networks on the front; {report}"
    elif "report" in paths:
        print_front(front)
    Console().print(report, markup=False, soft_wrap=True)
