"""`dnad-ray fit`: from images to trained networks and an exported model."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dnad_ray.cli.messages import fail, resume_line, said
from dnad_ray.storage.places import address

__all__ = ["fit", "print_trained"]


@click.command()
@click.argument("images")
@click.option("--out", metavar="DIR|URL", help="Run folder.  [default: runs/fit]")
@click.option(
    "--under",
    multiple=True,
    metavar="METRIC=N",
    help="Budget of the largest network: macs=30M, params=1M or latency=20ms (of an image, on one thread).",
)
@click.option(
    "--runtime",
    metavar="NAME",
    help="What latency is measured in, onnxruntime or torch.  [default: the first that is installed]",
)
@click.option("--time-budget", metavar="TIME", help="Time for everything (90s, 10m, 2h).  [default: 60 epochs each]")
@click.option("--image-size", type=int, metavar="N", help="Side of the images in pixels (data.image_size).")
@click.option("--seed", type=int, metavar="N", help="Seed of everything.")
@click.option("--set", multiple=True, metavar="A.B=VALUE", help="Set one config key of the search; repeatable.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--address", metavar="ADDRESS", help="Ray cluster to connect to, for example auto or HOST:6379.")
@click.option("--no-ray", is_flag=True, help="Run everything in this process.")
@click.option("--quiet", is_flag=True, help="Print only errors and one line at the end.")
def fit(**options: Any) -> None:
    """Find, train and test networks for your images, from large to small, and export one.

    IMAGES is a folder with one folder per class, or with train/ and test/ that each hold such folders. The command
    trains a teacher, searches, lets networks of equal cost race against each other, and trains the winners.
    """
    from dnad_ray.commands.fit import fit as run

    again = resume_line(said())
    outcome = run(**options)
    if outcome.front is not None and not options["quiet"]:
        print_trained(outcome.front)
    if outcome.state == "interrupted":
        fail(f"interrupted; to continue: {again}", 128 + (outcome.signum or 0))
    if outcome.state in ("incomplete", "failed"):
        fail(f"{outcome.reason}" + (f"; to continue: {again}" if outcome.can_continue else ""), 1)
    for name in ("report", "model"):
        if name in outcome.paths:
            click.echo(f"{name}: {address(outcome.paths[name])}")


def print_trained(front: Any) -> None:
    """Print trained networks as a table, the largest first."""
    from analysis.intervals import against_smaller, with_intervals

    table = Table(box=None)
    has_latency = "latency_p50" in front
    error = "test error" if (front["split"] == "test").all() else "validation error"
    columns = ["network", "MACs", "parameters", error, "95 % interval", "than the next smaller"]
    columns += ["epochs", "seeds"] + ["ms"] * has_latency
    for name in columns:
        table.add_column(name, justify="left" if name == "network" else "right")
    front = front.assign(against=against_smaller(front))
    for row in with_intervals(front).sort_values("macs", ascending=False).to_dict("records"):
        table.add_row(
            f"{row['origin']} {row['digest']}",
            f"{row['macs']:,}",
            f"{row['params']:,}",
            f"{row['test_error']:.2%}",
            f"{row['error_low']:.2%} to {row['error_high']:.2%}",
            row["against"],
            str(row["epochs"]),
            str(row["num_seeds"]),
            *([f"{row['latency_p50']:.3f}"] if has_latency else []),
        )
    # A pipe has no real width, and rows must not be cut.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
