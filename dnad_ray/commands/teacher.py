"""A teacher that is made once, for many runs."""

from __future__ import annotations

from functools import partial

from dnad_ray.commands.folder import made_for_writing
from dnad_ray.commands.options import AnyPath, Config, Settings, configured, mode_of, named_by_option
from dnad_ray.commands.outcome import Outcome
from dnad_ray.commands.search import shown
from dnad_ray.distill.teacher import holds_checkpoints, save_teacher
from dnad_ray.distill.teacher_sources import make_teacher
from dnad_ray.run_folder.layout import teacher_checkpoints
from dnad_ray.run_folder.writing import free_folder
from dnad_ray.runtime.cpus import limit_threads
from dnad_ray.runtime.devices import device_for
from dnad_ray.runtime.stopping import Stopped, StopSignals
from dnad_ray.search.prepare import load_images, teacher_in_words
from dnad_ray.storage.places import place

__all__ = ["teacher"]


def teacher(
    config: Config,
    *,
    out: AnyPath,
    data: AnyPath | None = None,
    space: AnyPath | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    set: Settings = (),
    quiet: bool = False,
) -> Outcome:
    """Train the teacher of the section ``distill.teacher``, or load it from there and measure it.

    A second call continues a stopped or killed one. Runs use the teacher by
    ``set={"distill.teacher.source": "saved", "distill.teacher.weights": out}``.

    Args:
        config: A recipe, a YAML file, nested dictionaries, or a configuration.
        out: New folder for the teacher.
        data: Another dataset, or a folder with one's own images.
        space: The search space of the runs, as for a search; the teacher has its skeleton and number of cells.
        image_size: Side of the images in pixels.
        epochs: Epochs of the teacher.
        seed: Seed of weights and images.
        set: Keys of the configuration to replace.
        quiet: Whether to show no progress.

    Returns:
        How it ended; ``reason`` says how good the teacher is.

    Raises:
        UserError: If an argument cannot be used.
        NonFiniteLossError: If its loss diverges.
    """
    with named_by_option({"--teacher-epochs": "--epochs"}, {}):  # here there is no other training
        asked = configured(
            config, data=data, space=space, image_size=image_size, teacher_epochs=epochs, seed=seed, settings=set
        )
    target = place(out, "--out")
    folder = target.resolve() if holds_checkpoints(target) else free_folder(target)
    limit_threads()
    with made_for_writing(folder), shown(mode_of(quiet)) as board, StopSignals() as signals:
        images = load_images(asked, board)
        signals.defer()
        progress, checkpoints = partial(board.update, "teacher"), teacher_checkpoints(folder)
        try:
            made = make_teacher(
                asked, images, device_for(asked.train.device), progress, stop=signals, checkpoints=checkpoints
            )
        except Stopped as stopped:
            paths = {"teacher": folder}
            return Outcome(state="interrupted", reason=str(stopped), paths=paths, signum=signals.signum)
        save_teacher(folder, made)
    return Outcome(state="finished", reason=teacher_in_words(made), paths={"teacher": folder})
