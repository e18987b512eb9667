"""Baselines of a search: random networks, DARTS and well-known networks, with the sizes and training of the front."""

from __future__ import annotations

from collections.abc import Sequence

from dnad_ray.commands.options import AnyPath, Settings, TimeBudget
from dnad_ray.commands.outcome import Outcome
from dnad_ray.commands.retrain import networks_on_front, scores_of
from dnad_ray.commands.training import Training, holds_run, request_of, run_config_of, train_networks
from dnad_ray.config.run import RunConfig
from dnad_ray.data.loading import load_data
from dnad_ray.errors import ConfigError, RunFolderError
from dnad_ray.networks.search_space import space_of
from dnad_ray.networks.spec import NetworkSpec, cost_of, scaled_to
from dnad_ray.retrain.baselines import BASELINES, checked_kinds
from dnad_ray.retrain.data import RetrainImages
from dnad_ray.retrain.jobs import Job
from dnad_ray.retrain.one_level_darts import darts_genotype
from dnad_ray.retrain.plan import chosen, jobs_for, specs_for
from dnad_ray.retrain.random_networks import random_like
from dnad_ray.run_folder.layout import baseline_checkpoints, baseline_file
from dnad_ray.run_folder.reading import read_genotype, read_run
from dnad_ray.runtime.stopping import StopCheck
from dnad_ray.storage.digests import digest_of_data
from dnad_ray.storage.files import write_bytes
from dnad_ray.storage.places import Place, place, remove_folder
from dnad_ray.storage.places import address as address_of
from dnad_ray.watch.board import Board
from search_spaces.derivation import is_member
from search_spaces.genotype import Genotype

__all__ = ["baselines"]


def baselines(
    run: AnyPath,
    *,
    kinds: str | Sequence[str] = BASELINES,
    networks: int = 3,
    recipe: str = "cifar",
    set: Settings = (),
    epochs: int | None = None,
    data: AnyPath | None = None,
    image_size: int | None = None,
    seeds: int = 1,
    seed: int = 0,
    cpus: float | None = None,
    gpus: float | None = None,
    address: str | None = None,
    no_ray: bool = False,
    time_budget: TimeBudget = None,
    quiet: bool = False,
) -> Outcome:
    """Train networks of a run's front, and baselines of the same sizes, all by one protocol.

    Results are stored with those of retraining. Networks that are trained already are not trained again.

    Args:
        run: The run folder.
        kinds: Kinds of baselines, for example ``["random", "darts"]``.
        networks: Number of networks, from all parts of the front.
        recipe: ``cifar``, ``imagenet-mobile`` or ``quick``.
        set: Settings of the protocol to replace, or keys of the data: ``{"learning_rate": 0.1, "data.workers": 4}``.
        epochs: Epochs.
        data: Another dataset than the run's, or a folder of images.
        image_size: Side of the images in pixels.
        seeds: How often each network is trained.
        seed: The first seed.
        cpus: CPUs of a job.
        gpus: GPUs of a job.
        address: Ray cluster to join; None starts one on this machine.
        no_ray: Whether to train one after the other in this process.
        time_budget: Pause after that many seconds, or a text such as ``10m``.
        quiet: Whether to show no progress.

    Returns:
        How it ended; ``front`` has a row per trained network, those of the front and the baselines.

    Raises:
        UserError: If an argument cannot be used.
    """
    wanted = checked_kinds(kinds if isinstance(kinds, str) else ",".join(kinds))
    folder = place(run)
    if not holds_run(folder):
        raise RunFolderError("RUN", address_of(folder), "a run folder")
    training = Training(
        recipe=recipe, set=set, epochs=epochs, data=data, image_size=image_size, seeds=seeds, seed=seed,
        cpus=cpus, gpus=gpus, address=address, no_ray=no_ray, time_budget=time_budget, quiet=quiet,
    )  # fmt: skip
    request = request_of(training, (), networks)
    contents = read_run(folder)
    config = run_config_of(contents, training)
    picked = sorted(networks_on_front(contents), key=lambda found: found.genotype.pruned().num_operations)

    def plan(images: RetrainImages, board: Board, stop: StopCheck) -> list[Job]:
        front = specs_for(chosen(picked, request), request, config, images.data)
        derived = _darts(config, folder, seed, board, stop) if "darts" in wanted else None
        specs = [*front, *_baselines(front, wanted, config, images, derived=derived, seed=seed, board=board)]
        return jobs_for(specs, request, config, scores_of(picked), other_images=images.other)

    return train_networks(plan, request, config, folder, training, source=folder)


def _baselines(
    front: list[NetworkSpec],
    kinds: tuple[str, ...],
    config: RunConfig,
    images: RetrainImages,
    *,
    derived: Genotype | None,
    seed: int,
    board: Board,
) -> list[NetworkSpec]:
    """Return a baseline for each kind and each network of the front, of its size. Impossible ones are left out."""
    size = images.data.shape
    specs = []
    for kind in kinds:
        for spec in front:
            if kind == "random":
                specs.append(random_like(spec, space_of(config.space), size, seed))
                continue
            if kind == "darts":
                known = NetworkSpec(origin="darts", genotype=derived, init_channels=2, stem=config.space.stem)
            else:
                known = NetworkSpec(origin="torchvision", model=kind)
            try:
                specs.append(scaled_to(known, size, max_macs=cost_of(spec, size).macs))
            except ConfigError as error:
                board.say(f"baselines: no {kind} as small as network {spec.digest}: {error}")
    return list(dict.fromkeys(specs))


def _darts(config: RunConfig, run: Place, seed: int, board: Board, stop: StopCheck) -> Genotype:
    """Return the network of one-level DARTS. It is searched once per run and seed, and stored."""
    sections = config.model_dump(mode="json", include={"data", "space", "train"}, exclude={"data": {"broken"}})
    name = f"darts-{digest_of_data({**sections, 'seed': seed})}"
    file, checkpoints = baseline_file(run, name), baseline_checkpoints(run, name)
    # Earlier versions left networks of another skeleton, or without shared topologies, under this name.
    if file.is_file() and is_member(space_of(config.space), known := read_genotype(file)):
        return known
    board.say(f"baselines: one-level DARTS, {config.train.epochs} epochs on the search images")
    genotype = darts_genotype(config, load_data(config.data), seed, stop=stop, checkpoints=checkpoints)
    write_bytes(file, genotype.to_json().encode())
    remove_folder(checkpoints.parent)
    return genotype
