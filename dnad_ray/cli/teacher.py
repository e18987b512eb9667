"""`dnad-ray teacher`: train a teacher once, for many runs."""

from __future__ import annotations

import shlex
from typing import Any

import click
from rich.console import Console

from dnad_ray.cli.messages import fail, said
from dnad_ray.storage.places import address

__all__ = ["teacher"]


@click.command()
@click.argument("config", metavar="CONFIG|RECIPE")
@click.option("--set", multiple=True, metavar="A.B=VALUE", help="Set one config key; repeatable.")
@click.option("--data", metavar="NAME|FOLDER", help="Name of a dataset, or a folder with your own images.")
@click.option("--space", metavar="NAME|FILE", help="The search space of the runs, whose cells the teacher has.")
@click.option("--image-size", type=int, metavar="N", help="Side of the images in pixels (data.image_size).")
@click.option("--epochs", type=int, metavar="N", help="Number of epochs of the teacher (distill.teacher.epochs).")
@click.option("--seed", type=int, metavar="N", help="Seed of the weights and of the order of images (seed).")
@click.option("--out", required=True, metavar="DIR|URL", help="New folder for the teacher.")
@click.option("--quiet", is_flag=True, help="Print only errors and one line at the end.")
def teacher(**options: Any) -> None:
    """Train the teacher of CONFIG or RECIPE (section `distill.teacher`), or load and test it if it is pretrained.

    To use it in a run: `--set distill.teacher.source=saved --set distill.teacher.weights=DIR`.

    Run the command again to continue after a stop or a kill.
    """
    from dnad_ray.commands.teacher import teacher as make

    outcome = make(**options)
    if outcome.state == "interrupted":
        again = shlex.join(["dnad-ray", *said()])
        fail(f"{outcome.reason}; to continue: {again}", 128 + (outcome.signum or 0))
    Console().print(f"teacher: {outcome.reason}; {address(outcome.paths['teacher'])}", markup=False, soft_wrap=True)
