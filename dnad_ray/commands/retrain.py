"""Training of networks of a front or of a file from scratch, with one test of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dnad_ray.commands.options import AnyPath, Settings, TimeBudget
from dnad_ray.commands.outcome import Outcome
from dnad_ray.commands.training import Training, holds_run, request_of, run_config_of, train_networks
from dnad_ray.config.retrain import with_settings
from dnad_ray.errors import ConfigError, RunFolderError
from dnad_ray.retrain.data import RetrainImages
from dnad_ray.retrain.jobs import Job
from dnad_ray.retrain.plan import chosen, jobs_for, specs_for
from dnad_ray.run_folder.genotypes import NamedGenotype, found_in_file, found_in_front
from dnad_ray.run_folder.reading import RunContents, read_run
from dnad_ray.runtime.stopping import StopCheck
from dnad_ray.search.warm_start import inherited_weights
from dnad_ray.storage.places import Place, place
from dnad_ray.storage.places import address as address_of
from dnad_ray.watch.board import Board

__all__ = ["networks_on_front", "retrain", "scores_of"]

_CELLS_ON_IMAGENET = 14


def retrain(
    source: AnyPath,
    *,
    digest: str | Sequence[str] = (),
    networks: int | None = None,
    out: AnyPath | None = None,
    cells: int | None = None,
    inherit: bool = False,
    recipe: str = "cifar",
    set: Settings = (),
    epochs: int | None = None,
    data: AnyPath | None = None,
    image_size: int | None = None,
    seeds: int = 1,
    seed: int = 0,
    max_macs: int | str | None = None,
    max_params: int | str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    address: str | None = None,
    no_ray: bool = False,
    time_budget: TimeBudget = None,
    quiet: bool = False,
) -> Outcome:
    """Train networks from scratch, test each one once on the test images, and store them in the run folder.

    A second call continues after a stop or a kill.

    Args:
        source: A run folder, a ``front.json``, a genotype file in one of the common formats, or the name of a published
            network.
        digest: Only networks whose digests start with this.
        networks: Maximum number of networks, from all parts of the front.
        out: Run folder for the results. None is that of ``source``.
        cells: Number of cells, if the genotype does not contain it. None is 20, or 14 with ``imagenet-mobile``.
        inherit: Whether to start from the saved weights of snapshots (``evaluation.keep_weights``).
        recipe: ``cifar``, ``imagenet-mobile`` or ``quick``.
        set: Settings of the protocol to replace, or keys of the data: ``{"learning_rate": 0.1, "data.workers": 4}``.
        epochs: Epochs.
        data: Another dataset than the run's, or a folder of images.
        image_size: Side of the images in pixels.
        seeds: How often each network is trained.
        seed: The first seed.
        max_macs: Scale widths to at most that many multiply-adds, a number or a text such as ``30M``.
        max_params: Scale widths to at most that many parameters, likewise.
        cpus: CPUs of a job.
        gpus: GPUs of a job.
        address: Ray cluster to join; None starts one on this machine.
        no_ray: Whether to train one after the other in this process.
        time_budget: Pause after that many seconds, or a text such as ``10m``.
        quiet: Whether to show no progress.

    Returns:
        How it ended; ``front`` has a row per trained network.

    Raises:
        UserError: If an argument is impossible.
    """
    training = Training(
        recipe=recipe, set=set, epochs=epochs, data=data, image_size=image_size, seeds=seeds, seed=seed,
        max_macs=_amount("--max-macs", max_macs), max_params=_amount("--max-params", max_params),
        cpus=cpus, gpus=gpus, address=address, no_ray=no_ray,
        time_budget=time_budget, quiet=quiet,
    )  # fmt: skip
    request = request_of(training, [digest] if isinstance(digest, str) else digest, networks)
    target, begin = None if out is None else place(out, "--out"), place(source)
    if cells is not None and cells < 1:
        raise ConfigError("--cells", cells, "at least 1")
    if cells is not None and holds_run(begin):
        raise ConfigError("--cells", cells, "nothing where SOURCE is a run: its networks have their numbers of cells")
    if cells is None and recipe == "imagenet-mobile":
        cells = _CELLS_ON_IMAGENET
    folder, contents, found = _found(begin, target, cells)
    # The images are those of the run that the networks come from; without one, those of the run that they go to.
    if contents is None:
        base = next((one for one in (folder, target) if one is not None and holds_run(one)), None)
        contents = None if base is None else read_run(base)
    run = run_config_of(contents, training)
    picked = chosen(found, request)
    inherited: dict[str, bytes] = {}
    if inherit:
        if request.max_macs is not None or request.max_params is not None:
            raise ConfigError("--inherit with --max-macs or --max-params", "both", "one of them: weights have a width")
        inherited = {entry.genotype.digest: inherited_weights(folder, entry.trial, entry.step) for entry in picked}
        # The weights have the width of the supernet, whatever the recipe says.
        request = replace(
            request, config=with_settings(request.config, {"init_channels": run.space.init_channels}, "--inherit")
        )

    def plan(images: RetrainImages, _: Board, __: StopCheck) -> list[Job]:
        specs = specs_for(picked, request, run, images.data)
        # A score on other images is no proxy of an accuracy on these.
        scores = {} if request.transfer else scores_of(picked)
        return jobs_for(specs, request, run, scores, inherited, other_images=images.other)

    source_run = None if contents is None else contents.path
    return train_networks(plan, request, run, target or folder, training, source=source_run)


def _amount(option: str, given: int | str | None) -> int | None:
    """Return the number of an option, which may be a text such as ``30M``."""
    from analysis.objectives import parse_amount

    if not isinstance(given, str):
        return given
    try:
        return int(parse_amount(given))
    except (ValueError, OverflowError):
        raise ConfigError(option, given, "a whole number, also with k, M or G behind it, such as 30M") from None


def networks_on_front(contents: RunContents) -> list[NamedGenotype]:
    """Return the networks on the front of a run."""
    from analysis import front_of, load_runs, to_records

    records = to_records(front_of(load_runs(contents)))
    return found_in_front(records, contents.path, address_of(contents.path))


def scores_of(picked: Sequence[NamedGenotype]) -> dict[str, float]:
    """Return the proxy accuracies of networks by digest, where they have one."""
    return {entry.genotype.digest: entry.proxy_accuracy for entry in picked if entry.proxy_accuracy is not None}


def _found(
    source: Place, out: Place | None, num_cells: int | None
) -> tuple[Place, RunContents | None, list[NamedGenotype]]:
    """Return the folder where results go by default, the run that the source is, and the networks."""
    if holds_run(source):
        contents = read_run(source)
        return source, contents, networks_on_front(contents)
    if isinstance(source, Path) and source.is_dir():
        raise RunFolderError("SOURCE", address_of(source), "a run folder, a front.json, or a genotype file")
    found = found_in_file(source, num_cells)
    if out is None and not holds_run(source.parent):
        raise ConfigError("--out", None, f"a run folder for the results; {address_of(source)} is in none")
    return source.parent, None, found
