"""`dnad-ray retrain`: train networks of a front or of a file from scratch, and test each one once."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from dnad_ray.cli.messages import fail, said
from dnad_ray.run_folder.metrics import metric
from dnad_ray.storage.places import address

# Importing torch and Ray takes seconds, so commands import them when they are called.
if TYPE_CHECKING:
    from dnad_ray.commands.outcome import Outcome

__all__ = ["leave", "retrain", "training_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_COLUMNS = ("origin", "model", "digest", "seed", "accuracy", "proxy_accuracy", "macs", "params", "epochs", "job")


def training_options(command: _Command) -> _Command:
    """Add the options for the training of networks."""
    options = [
        click.option(
            "--recipe", default="cifar", show_default=True,
            help="quick (30 epochs, for most purposes), or a protocol of papers: cifar (600), imagenet-mobile (250).",
        ),
        click.option(
            "--set", multiple=True, metavar="KEY=VALUE",
            help="Set one training setting, or data.KEY for one data setting; repeatable.",
        ),
        click.option("--epochs", type=int, metavar="N", help="Number of epochs (epochs)."),
        click.option("--data", metavar="NAME|FOLDER", help="Use this dataset or image folder, not that of the run."),
        click.option("--image-size", type=int, metavar="N", help="Side of the images in pixels (data.image_size)."),
        click.option("--seeds", type=int, default=1, show_default=True, help="Number of seeds per network."),
        click.option("--seed", type=int, default=0, show_default=True, help="The first seed."),
        click.option("--cpus", type=float, metavar="N", help="CPUs per job."),
        click.option("--gpus", type=float, metavar="N", help="GPUs per job."),
        click.option("--address", metavar="ADDRESS", help="Ray cluster to connect to, for example auto or HOST:6379."),
        click.option("--no-ray", is_flag=True, help="Train in this process without Ray, one network after the other."),
        click.option(
            "--time-budget", metavar="TIME",
            help="Pause after this time (90, 90s, 10m, 2h); run the same command to continue.",
        ),
        click.option("--quiet", is_flag=True, help="Print only errors and one line at the end."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("source", metavar="RUN|FRONT.json|GENOTYPE|NAME")
@click.option("--digest", multiple=True, metavar="D", help="Only the network whose digest starts with D; repeatable.")
@click.option("--networks", type=int, metavar="N", help="At most N networks, from all parts of the front.")
@click.option("--out", metavar="DIR|URL", help="Run folder for the results.  [default: the one of SOURCE]")
@click.option("--cells", type=int, metavar="N", help="Number of cells, if the genotype does not contain it.")
@click.option("--max-macs", metavar="N", help="Scale the width to at most N multiply-adds, for example 30M.")
@click.option("--max-params", metavar="N", help="Scale the width to at most N parameters, for example 500k.")
@click.option("--inherit", is_flag=True, help="Start from the saved weights of snapshots (evaluation.keep_weights).")
@training_options
def retrain(**options: Any) -> None:
    """Train networks from scratch, test each one once on the test images, and store them in the run folder.

    GENOTYPE is a file in one of the common formats, NAME a name from `dnad-ray published`. If neither the genotype nor
    --cells gives the number of cells, it is 20, or 14 with the recipe imagenet-mobile.

    Run the command again to continue after a stop or a kill.
    """
    from dnad_ray.commands.retrain import retrain as run

    leave(run(**options), options["quiet"])


def leave(outcome: Outcome, quiet: bool) -> None:
    """Print the trained networks, and exit with the code for the outcome."""
    from analysis import to_records

    records = [] if outcome.front is None else to_records(outcome.front)
    _print(records, Console(quiet=quiet))
    again = f"; to continue: {shlex.join(['dnad-ray', *said()])}"
    if outcome.state == "interrupted":
        fail(f"interrupted{again}", 128 + (outcome.signum or 0))
    if outcome.state in ("incomplete", "failed"):
        fail(f"{outcome.reason}{again if outcome.can_continue else ''}", 1)
    if outcome.state == "paused":
        click.echo(f"{outcome.reason}{again}")
    else:
        click.echo(f"retrained: {len(records)} networks in {address(outcome.paths['retrained'])}")


def _print(records: list[dict[str, Any]], console: Console) -> None:
    if not records:
        return
    table = Table(box=None)
    for name in _COLUMNS:
        table.add_column(metric(name).label, justify="right" if name in ("accuracy", "macs", "params") else "left")
    for record in sorted(records, key=lambda entry: (entry["macs"], entry["digest"], entry["seed"])):
        cells = []
        for name in _COLUMNS:
            value = record[name]
            cells.append(
                "" if value is None else value if isinstance(value, str) else format(value, metric(name).format)
            )
        table.add_row(*cells)
    (console if sys.stdout.isatty() else Console(width=200, quiet=console.quiet)).print(table)
