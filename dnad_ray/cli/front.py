"""`dnad-ray front`, `dnad-ray report` and `dnad-ray notebook`: show the results of runs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dnad_ray.cli.messages import to_place
from dnad_ray.errors import RunFolderError
from dnad_ray.run_folder.layout import report_file
from dnad_ray.run_folder.metrics import metric
from dnad_ray.storage.places import Place, address
from dnad_ray.text import counted, install_command, printable

# Importing torch, Ray and plotly takes seconds, so only the commands that need them import them.
if TYPE_CHECKING:
    import pandas as pd

__all__ = ["front", "notebook", "print_front", "report"]

_TABLE_COLUMNS = ("error", "macs", "params", "num_operations", "run", "trial", "seed", "step", "kind", "digest")


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR|URL...", callback=to_place)
@click.option(
    "--objectives", default=None, metavar="A,B", help="Objectives of the front.  [default: error,macs,params]"
)
@click.option(
    "--under",
    multiple=True,
    metavar="NAME=N",
    help="Only networks within the budget: macs=30M, error=5%; repeatable.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of several measurements or trainings of a network those with this value: threads=1, device_name=..., "
    "protocol=...; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
@click.option("--new", "is_new", is_flag=True, help="Compose a network for the budget of --under from those around it.")
def front(folders: tuple[Place, ...], as_json: bool, is_new: bool, **options: Any) -> None:
    """Print the common front of one or more run folders: of trained networks where no search recorded any.

    Latency and memory (latency_p50, peak_memory) are objectives after `dnad-ray measure`, the accuracy after training
    from scratch (test_error) after `dnad-ray retrain`. Networks that were not measured or trained are then left out.
    """
    objectives, under, where = (options[name] for name in ("objectives", "under", "where"))
    if is_new:
        if objectives is not None or where:
            raise RunFolderError("--new", "--objectives or --where", "--under alone")
        _compose(folders, under, as_json)
        return
    from analysis import front_of, parse_budget, to_records, within
    from analysis.measurements import MEASURED, TRAINED, load_for_front
    from analysis.objectives import best_values

    budgets = dict(parse_budget(text) for text in under)
    asked = None if objectives is None else [name.strip() for name in objectives.split(",") if name.strip()]
    choices = dict(_choice(text) for text in where)
    found, names = load_for_front(folders, asked, budgets, choices)
    chosen = front_of(within(found, budgets), names)
    if len(chosen) == 0 and len(found) > 0 and not as_json:  # a program that reads JSON gets its empty list
        for option, wanted in (("--objectives", names), ("--under", budgets)):
            missing = [name for name in wanted if not found[name].notna().any()]
            if missing:
                commands = dict.fromkeys(MEASURED, "measure") | dict.fromkeys(TRAINED, "retrain")
                hints = dict.fromkeys(f"`dnad-ray {commands[name]}`" for name in missing if name in commands)
                words = f"; {' and '.join(hints)} records {'them' if len(missing) > 1 else 'it'}" if hints else ""
                raise RunFolderError(option, ", ".join(missing), f"metrics that the runs have recorded{words}")
        best = best_values(found, budgets)
        raise RunFolderError("--under", ", ".join(under), f"what a network keeps; the best values are {best}")
    if as_json:
        click.echo(json.dumps(to_records(chosen), indent=1, allow_nan=False))
    else:
        print_front(chosen, (*names, *budgets))


def _compose(folders: tuple[Place, ...], under: tuple[str, ...], as_json: bool) -> None:
    from dnad_ray.commands.composing import compose

    if len(folders) > 1:
        raise RunFolderError("--new", ", ".join(map(address, folders)), "one run folder")
    found = compose(folders[0], under)
    file = address(found.file)
    if as_json:
        facts = {"digest": found.digest, "macs": found.macs, "params": found.params, "file": file}
        click.echo(json.dumps(facts | {"smaller": found.smaller["digest"], "larger": found.larger["digest"]}, indent=1))
        return
    click.echo(f"network {found.digest}: {found.macs:,} MACs, {found.params:,} parameters, not trained yet")
    for words, row in (("made of", found.smaller), ("and edges of", found.larger)):
        macs, error = f"{row['macs']:,} MACs", f"proxy error {1 - row['proxy_accuracy']:.2%}"
        click.echo(printable(f"{words} {row['digest']}: {macs}, {error}, trial {row['trial']}, step {row['step']}"))
    again = f"dnad-ray retrain {shlex.quote(file)} --data {shlex.quote(found.data)} --out runs/{found.digest}"
    click.echo(printable(f"genotype: {file}; to train it: {again}"))


def _choice(text: str) -> tuple[str, str]:
    name, sign, value = (part.strip() for part in text.partition("="))
    if not (name and sign and value):
        raise RunFolderError("--where", text, "NAME=VALUE, for example threads=1")
    return name, value


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR|URL...", callback=to_place)
@click.option("--out", callback=to_place, metavar="FILE.html", help="[default: DIR/report.html, or report.html]")
def report(folders: tuple[Place, ...], out: Place | None) -> None:
    """Write one self-contained HTML report about one or more run folders."""
    from analysis import write_report

    default = report_file(folders[0]) if len(folders) == 1 else Path("report.html")
    click.echo(f"report: {address(write_report(folders, out or default))}")


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR|URL...", callback=to_place)
@click.option(
    "--name",
    default="explore",
    show_default=True,
    metavar="NAME",
    help="explore (look at what was found), distillation (a sweep of KD settings) or compare (several runs).",
)
@click.option("--out", callback=to_place, metavar="FILE.ipynb", help="A new file.  [default: RUN.ipynb]")
def notebook(folders: tuple[Place, ...], name: str, out: Place | None) -> None:
    """Write a copy of a notebook that is filled with the paths of one or more run folders."""
    from analysis import write_notebook

    default = Path(f"{folders[0].resolve().name}.ipynb" if len(folders) == 1 else "runs.ipynb")
    file = address(write_notebook(folders, out or default, name))
    click.echo(f"notebook: {file}; to open it: {install_command('notebook')}, then jupyter lab {shlex.quote(file)}")


def print_front(front: pd.DataFrame, metrics: Iterable[str] = ()) -> None:
    """Print a front as a table with one row per network; ``metrics`` are columns besides the usual ones."""
    table = Table(title=f"Pareto front: {counted(len(front), 'network')}", title_justify="left", box=None)
    several_runs = front["run"].nunique() > 1  # with one run, the column would say the same in every row
    known = dict.fromkeys((*metrics, *_TABLE_COLUMNS)) if metrics else _TABLE_COLUMNS
    columns = [name for name in known if name in front and (name != "run" or several_runs)]
    for name in columns:
        table.add_column(metric(name).label, justify="right" if name in front.select_dtypes("number") else "left")
    for row in front[columns].to_dict("records"):
        table.add_row(
            *(
                escape(printable(value)) if isinstance(value, str) else format(value, metric(str(name)).format)
                for name, value in row.items()
            )
        )
    # A pipe has no real width, and rows must not be cut.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
