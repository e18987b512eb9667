"""`dnad-ray teacher`: make a teacher once, for many runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from dnad_ray.cli.messages import fail, to_place
from dnad_ray.cli.options import configured
from dnad_ray.storage.places import address

# Torch takes seconds to import; what needs it imports it itself.
if TYPE_CHECKING:
    from dnad_ray.watch.displays import Mode

__all__ = ["teacher"]


@click.command()
@click.argument("config", metavar="CONFIG|RECIPE")
@click.option("--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Replace one config key; repeatable.")
@click.option("--data", metavar="NAME|FOLDER", help="Another dataset, or a folder with one's own images.")
@click.option("--image-size", type=int, metavar="N", help="Side of the images in pixels (data.image_size).")
@click.option("--seed", type=int, metavar="N", help="Seed of weights and images (seed).")
@click.option("--out", required=True, callback=to_place, metavar="DIR|URL", help="New folder for the teacher.")
@click.option("--quiet", is_flag=True, help="Print errors and one last line, nothing else.")
def teacher(**options: Any) -> None:
    """Train, or take and measure, the teacher that CONFIG or RECIPE asks for in its section `distill.teacher`.

    Runs use it with `--set distill.teacher.source=saved --set distill.teacher.weights=DIR`.

    Said again, the command goes on where it was stopped or killed.
    """
    from rich.console import Console

    from dnad_ray.distill.teacher import holds_checkpoints, save_teacher, teacher_checkpoints
    from dnad_ray.distill.teacher_sources import make_teacher
    from dnad_ray.run_folder.writing import free_folder
    from dnad_ray.runtime.devices import device_for
    from dnad_ray.runtime.stopping import Stopped, StopSignals
    from dnad_ray.search.prepare import load_images, teacher_in_words
    from dnad_ray.watch.displays import open_board

    config = configured({**options, "epochs": None, "trials": None})
    out = options["out"].resolve() if holds_checkpoints(options["out"]) else free_folder(options["out"])
    mode: Mode = "quiet" if options["quiet"] else "people"
    console = Console()
    with open_board(mode, console, []) as board, StopSignals() as signals:
        data = load_images(config, board)
        signals.defer()
        try:
            made = make_teacher(
                config,
                data,
                device_for(config.train.device),
                partial(board.update, "teacher"),
                stop=signals,
                checkpoints=teacher_checkpoints(out),
            )
        except Stopped as stopped:
            fail(f"{stopped}; the same command goes on from there", 128 + (signals.signum or 0))
        save_teacher(out, made)
    console.print(f"teacher: {teacher_in_words(made)}; {address(out)}", markup=False, soft_wrap=True)
