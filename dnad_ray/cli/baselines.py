"""`dnad-ray baselines`: is the search worth it? Chance, DARTS and known networks at equal size and equal training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dnad_ray.cli.messages import fail, to_place
from dnad_ray.cli.retrain import carry_out, request_of, run_config_of, training_options
from dnad_ray.errors import ConfigError, RunFolderError
from dnad_ray.storage.places import Place, address, remove_folder

if TYPE_CHECKING:
    from dnad_ray.config.run import RunConfig
    from dnad_ray.networks.spec import NetworkSpec
    from dnad_ray.retrain.data import RetrainImages
    from dnad_ray.retrain.jobs import Job
    from search_spaces.genotype import Genotype

__all__ = ["baselines"]


@click.command()
@click.argument("run", metavar="RUN", callback=to_place)
@click.option(
    "--kinds",
    default="random,darts,resnet18,mobilenet_v3_small,efficientnet_b0",
    show_default=True,
    metavar="A,B",
    help="Which baselines.",
)
@click.option("--networks", type=int, default=3, show_default=True, metavar="N", help="Sizes, spread over the front.")
@training_options
def baselines(run: Place, kinds: str, networks: int, **options: Any) -> None:
    """Train baselines as wide as networks of a run's front, and these networks too, all by one protocol.

    Results stand beside those of `dnad-ray retrain`; what was trained already is not trained again.
    """
    from analysis.comparison import compare_front, compare_network
    from dnad_ray.retrain.baselines import checked_kinds
    from dnad_ray.retrain.plan import chosen, jobs_for, specs_for
    from dnad_ray.run_folder.genotypes import found_in_front
    from dnad_ray.run_folder.jobs import read_retrained
    from dnad_ray.run_folder.reading import is_run

    wanted = checked_kinds(kinds)
    if not is_run(run):
        raise RunFolderError("RUN", address(run), "a run folder")
    for name in ("max_macs", "max_params"):
        if options[name] is not None:
            raise ConfigError(f"--{name.replace('_', '-')}", options[name], "none: sizes are those of the front")
    request = request_of(options, (), networks)
    config = run_config_of(run, options)
    from analysis import front_of, load_runs, to_records

    records = to_records(front_of(load_runs(run)))
    picked = sorted(found_in_front(records, run, address(run)), key=lambda f: f.genotype.pruned().num_operations)
    names: set[str] = set()

    def plan(images: RetrainImages) -> list[Job]:
        front = specs_for(chosen(picked, request), request, config, images.data)
        specs = [*front, *_baselines(front, wanted, config, images, run=run, seed=request.first_seed)]
        scores = {e.genotype.digest: e.proxy_accuracy for e in picked if e.proxy_accuracy is not None}
        jobs = jobs_for(specs, request, config, scores)
        names.update(job.name for job in jobs)
        return jobs

    carry_out(plan, request, config, run, options)
    found, _ = read_retrained(run)
    compared = [record for record in found if record["job"] in names]
    for line in [*compare_network(compared), *compare_front(compared)]:
        click.echo(line)


def _baselines(
    front: list[NetworkSpec], kinds: tuple[str, ...], config: RunConfig, images: RetrainImages, *, run: Place, seed: int
) -> list[NetworkSpec]:
    from dnad_ray.networks.search_space import space_of
    from dnad_ray.networks.spec import NetworkSpec, cost_of, scaled_to
    from dnad_ray.retrain.random_networks import random_like

    size = images.data.shape
    specs = []
    for kind in kinds:
        derived = _darts(config, run, seed) if kind == "darts" else None
        for spec in front:
            if kind == "random":
                specs.append(random_like(spec, space_of(config.space), size, seed))
                continue
            if derived is not None:
                known = NetworkSpec(origin="darts", genotype=derived, init_channels=2, stem=config.space.stem)
            else:
                known = NetworkSpec(origin="torchvision", model=kind)
            try:
                specs.append(scaled_to(known, size, max_macs=cost_of(spec, size).macs))
            except ConfigError as error:
                click.echo(f"baselines: no {kind} as small as network {spec.digest}: {error}")
    return list(dict.fromkeys(specs))


def _darts(config: RunConfig, run: Place, seed: int) -> Genotype:
    """Return the network of one-level DARTS; it is searched once per run and seed, and kept."""
    from dnad_ray.data.loading import load_data
    from dnad_ray.networks.search_space import space_of
    from dnad_ray.retrain.one_level_darts import darts_genotype
    from dnad_ray.run_folder.layout import baseline_checkpoints, baseline_file
    from dnad_ray.run_folder.reading import read_genotype
    from dnad_ray.runtime.stopping import Stopped, StopSignals
    from dnad_ray.storage.digests import digest_of_data
    from dnad_ray.storage.files import write_bytes
    from search_spaces.derivation import is_member

    sections = config.model_dump(mode="json", include={"data", "space", "train"})
    name = f"darts-{digest_of_data({**sections, 'seed': seed})}"
    file, checkpoints = baseline_file(run, name), baseline_checkpoints(run, name)
    # Earlier versions left networks of another skeleton, or without shared topologies, under this name.
    if file.is_file() and is_member(space_of(config.space), known := read_genotype(file)):
        return known
    click.echo(f"baselines: one-level DARTS, {config.train.epochs} epochs on the search images")
    with StopSignals() as signals:
        signals.defer()
        try:
            genotype = darts_genotype(config, load_data(config.data), seed, stop=signals, checkpoints=checkpoints)
        except Stopped as stopped:
            fail(f"{stopped}; the same command goes on from there", 128 + (signals.signum or 0))
    write_bytes(file, genotype.to_json().encode())
    remove_folder(checkpoints.parent)
    return genotype
