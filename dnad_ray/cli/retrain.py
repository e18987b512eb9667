"""`dnad-ray retrain`: networks of a front, or of a file, trained from scratch and measured once."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from dnad_ray.cli.messages import fail, to_place
from dnad_ray.errors import ConfigError, IncompleteRunError, RunFolderError, UserError
from dnad_ray.run_folder.metrics import metric
from dnad_ray.storage.places import Place, address
from dnad_ray.text import parse_duration

# Torch and Ray take seconds to import; commands that need them import them themselves.
if TYPE_CHECKING:
    from dnad_ray.config.run import RunConfig
    from dnad_ray.retrain.data import RetrainImages
    from dnad_ray.retrain.jobs import Job
    from dnad_ray.retrain.plan import Request
    from dnad_ray.run_folder.genotypes import NamedGenotype

__all__ = ["carry_out", "request_of", "retrain", "run_config_of", "training_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_LINE_SECONDS = 10.0
_CELLS_ON_IMAGENET = 14
_OF_RUN = ("data.", "space.stem")
"""Keys of the run's configuration that `--set` replaces here; all others are settings of the protocol."""

_SHARES = {"cpus": "sweep.cpus_per_trial", "gpus": "sweep.gpus_per_trial"}
"""Options that say what a job gets, and the key of the run's configuration that says it where they do not."""

_COLUMNS = ("origin", "model", "digest", "seed", "accuracy", "proxy_accuracy", "macs", "params", "epochs", "job")


def training_options(command: _Command) -> _Command:
    """Add the options that say how networks are trained."""
    options = [
        click.option("--recipe", default="cifar", show_default=True, help="cifar, imagenet-mobile or quick."),
        click.option(
            "--set", "assignments", multiple=True, metavar="KEY=VALUE",
            help="Replace one setting, or one of the data by data.KEY; repeatable.",
        ),
        click.option("--epochs", type=int, metavar="N", help="Epochs (epochs)."),
        click.option("--data", metavar="NAME|FOLDER", help="Another dataset than the run's, or a folder of images."),
        click.option("--image-size", type=int, metavar="N", help="Side of the images in pixels (data.image_size)."),
        click.option("--seeds", type=int, default=1, show_default=True, help="How often each network is trained."),
        click.option("--seed", type=int, default=0, show_default=True, help="The first seed."),
        click.option("--max-macs", type=int, metavar="N", help="Scale widths to at most N multiply-adds."),
        click.option("--max-params", type=int, metavar="N", help="Scale widths to at most N parameters."),
        click.option("--cpus", type=float, metavar="N", help="CPUs of a job."),
        click.option("--gpus", type=float, metavar="N", help="GPUs of a job."),
        click.option("--address", metavar="ADDRESS", help="Ray cluster to join, for example auto or HOST:6379."),
        click.option("--no-ray", is_flag=True, help="Train one after the other in this process."),
        click.option("--time-budget", metavar="TIME", help="Pause after 90, 90s, 10m or 2h; the same command goes on."),
        click.option("--quiet", is_flag=True, help="Print errors and one last line, nothing else."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("source", metavar="RUN|FRONT.json|GENOTYPE|NAME", callback=to_place)
@click.option("--digest", "digests", multiple=True, metavar="D", help="Only the network whose digest begins so.")
@click.option("--networks", type=int, metavar="N", help="At most N networks of a front, spread over it.")
@click.option(
    "--out", callback=to_place, metavar="DIR|URL", help="Run folder for the results.  [default: that of SOURCE]"
)
@click.option("--cells", type=int, metavar="N", help="Cells, where the genotype's form does not say how many.")
@click.option("--inherit", is_flag=True, help="Begin with the weights that snapshots kept (evaluation.keep_weights).")
@training_options
def retrain(
    source: Place,
    *,
    digests: tuple[str, ...],
    networks: int | None,
    out: Place | None,
    cells: int | None,
    inherit: bool,
    **options: Any,
) -> None:
    """Train networks from scratch, measure each once on the test images, and keep them in the run folder.

    GENOTYPE is a file in any form that the field uses, NAME one that `dnad-ray published` lists. Where neither the form
    nor --cells says how many cells there are, it is 20, and 14 by the recipe imagenet-mobile.

    Said again, the command goes on where it was stopped or killed.
    """
    from dnad_ray.config.retrain import with_settings
    from dnad_ray.retrain.plan import chosen, jobs_for, specs_for

    request = request_of(options, digests, networks)
    if cells is None and options["recipe"] == "imagenet-mobile":
        cells = _CELLS_ON_IMAGENET
    folder, found = _found(source, out, cells)
    # The images are those of the run that the networks come from; without one, those of the run that they go to.
    base = next((place for place in (folder, out) if place is not None and _is_run(place)), None)
    run = run_config_of(base, options)
    picked = chosen(found, request)
    inherited: dict[str, bytes] = {}
    if inherit:
        from dnad_ray.search.warm_start import inherited_weights

        if request.max_macs is not None or request.max_params is not None:
            raise ConfigError("--inherit with --max-macs or --max-params", "both", "one of them: weights have a width")
        inherited = {entry.genotype.digest: inherited_weights(folder, entry.trial, entry.step) for entry in picked}
        # The weights have the width of the supernet, whatever the recipe says.
        request = replace(
            request, config=with_settings(request.config, {"init_channels": run.space.init_channels}, "--inherit")
        )

    def plan(images: RetrainImages) -> list[Job]:
        specs = specs_for(picked, request, run, images.data)
        scores = {e.genotype.digest: e.proxy_accuracy for e in picked if e.proxy_accuracy is not None}
        # A score on other images is no proxy of an accuracy on these.
        return jobs_for(specs, request, run, {} if request.transfer else scores, inherited)

    carry_out(plan, request, run, out or folder, options)


def request_of(options: dict[str, Any], digests: tuple[str, ...] = (), networks: int | None = None) -> Request:
    """Return what the options ask for, checked."""
    from dnad_ray.config.retrain import retrain_recipe, with_settings
    from dnad_ray.config.run import parse_assignment
    from dnad_ray.retrain.plan import Request

    overrides = {} if options["epochs"] is None else {"epochs": options["epochs"]}
    overrides |= {k: v for k, v in map(parse_assignment, options["assignments"]) if not k.startswith(_OF_RUN)}
    return Request(
        config=with_settings(
            retrain_recipe(options["recipe"]), overrides, "--set" if options["assignments"] else "--epochs"
        ),
        recipe=options["recipe"],
        seeds=options["seeds"],
        first_seed=options["seed"],
        max_macs=options["max_macs"],
        max_params=options["max_params"],
        digests=digests,
        limit=networks,
        transfer=options["data"] is not None or options["image_size"] is not None,
    )


def run_config_of(folder: Place | None, options: dict[str, Any]) -> RunConfig:
    """Return the configuration of the run whose images are used, with the data that the options ask for.

    Args:
        folder: A run folder, None where there is none.
        options: What was typed.
    """
    from dnad_ray.config.run import RunConfig, config_from_dict, parse_assignment, with_overrides
    from dnad_ray.data.loading import resolve_data_argument
    from dnad_ray.run_folder.layout import config_file
    from dnad_ray.run_folder.reading import read_run

    if folder is not None:
        contents = read_run(folder)
        if not contents.config:
            raise RunFolderError("run folder", address(folder), "a run whose config.yaml can be read")
        config = config_from_dict(contents.config, address(config_file(folder)))
    elif options["data"] is None:
        raise ConfigError("--data", None, "the images to train on, for a genotype that is in no run folder")
    else:
        config = RunConfig()
    overrides = {} if options["data"] is None else resolve_data_argument(options["data"])
    if options["image_size"] is not None:
        overrides["data.image_size"] = options["image_size"]
    given = dict(map(parse_assignment, options["assignments"]))
    overrides |= {key: value for key, value in given.items() if key.startswith(_OF_RUN)}
    if options["recipe"] == "imagenet-mobile" and folder is None:
        overrides.setdefault("space.stem", "imagenet")
    for name, key in _SHARES.items():
        if options[name] is not None:
            overrides[key] = options[name]
    return with_overrides(config, overrides, "--set")


def carry_out(
    plan: Callable[[RetrainImages], list[Job]], request: Request, run: RunConfig, folder: Place, options: dict[str, Any]
) -> None:
    """Train what is planned, and print what came of it."""
    from dnad_ray import __version__
    from dnad_ray.config.run import config_to_dict, with_overrides
    from dnad_ray.on_ray.resources import check_requests
    from dnad_ray.retrain.data import load_retrain_images
    from dnad_ray.retrain.jobs import unfinished_jobs
    from dnad_ray.run_folder.jobs import read_job_status, read_retrained
    from dnad_ray.run_folder.layout import retrained_folder
    from dnad_ray.run_folder.states import TrialState
    from dnad_ray.run_folder.writing import create_run
    from dnad_ray.runtime.budget import Budget
    from dnad_ray.runtime.stopping import StopSignals, first_of

    folder = folder.resolve()  # tasks run in folders of their own
    console = Console(quiet=options["quiet"])
    if options["quiet"]:
        warnings.simplefilter("ignore")
    seconds = None if options["time_budget"] is None else parse_duration(options["time_budget"])
    budget = Budget(seconds)
    # What a job needs of a cluster is said by the run's own section; processes and device are the protocol's.
    placed = with_overrides(
        run,
        {
            "train.num_processes": request.config.num_processes,
            "train.batch_size": request.config.batch_size,
            "train.device": request.config.device,
        },
    )
    if not options["no_ray"]:
        with _shares_by_their_options(options):
            check_requests(placed)
    if not _is_run(folder):
        from dnad_ray.run_folder.writing import free_folder

        free_folder(folder)
    images = load_retrain_images(run.data)
    teacher_file = _teacher(folder, request)
    jobs = plan(images)
    if not _is_run(folder):
        create_run(folder, config_to_dict(run), __version__)
    todo = unfinished_jobs(jobs, folder)
    console.print(
        f"retrain: {len(jobs)} jobs ({len(jobs) - len(todo)} done already), {request.config.epochs} epochs on "
        f"{len(images.data.train):,} images, measured on {len(images.data.validation):,} {images.split} images",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    if images.split == "validation":
        console.print("retrain: there are no test images; accuracies are those of images that the search selected on")

    def ended(job: Job, state: str) -> None:
        text = f"{job.spec.model} {job.spec.digest} seed {job.seed}: {state}"
        reason = read_job_status(folder, job.name).get("reason")
        console.print(f"{text} ({reason})" if reason else text, markup=False, soft_wrap=True)

    shown = time.monotonic()

    def show_progress(*_: Any) -> None:
        nonlocal shown
        if time.monotonic() - shown > _LINE_SECONDS:
            shown = time.monotonic()
            for line in _standing(todo, folder):
                console.print(line, markup=False, soft_wrap=True)

    with StopSignals() as signals:
        stop = first_of(signals, budget.check)
        if todo and options["no_ray"]:
            signals.defer()
            _one_by_one(todo, images, folder, teacher_file=teacher_file, stop=stop, ended=ended, report=show_progress)
        elif todo:
            from dnad_ray.on_ray.cluster import allotment_of, cluster
            from dnad_ray.on_ray.retrain_jobs import run_jobs

            with _shares_by_their_options(options), cluster(placed, options["address"]):
                signals.defer()
                run_jobs(
                    todo, images, teacher_file, folder, allotment_of(placed),
                    stop=stop, deadline=budget.deadline, ended=ended, idle=show_progress,
                )  # fmt: skip
    names = {job.name for job in jobs}
    records, problems = read_retrained(folder)
    for problem in problems:
        warnings.warn(problem, stacklevel=1)
    _print([record for record in records if record["job"] in names], console)
    states = {job.name: read_job_status(folder, job.name) for job in jobs}
    left = [name for name, status in states.items() if not status["state"].is_finished]
    again = shlex.join(["dnad-ray", *sys.argv[1:]])
    if signals.signum is not None and left:
        fail(f"interrupted; to continue: {again}", 128 + signals.signum)
    failed = [name for name in left if states[name]["state"] is TrialState.FAILED] or (
        left if not budget.is_spent() else []
    )
    diverged = [
        f"{name}: {status['reason']}" for name, status in states.items() if status["state"] is TrialState.STOPPED
    ]
    if failed or diverged:
        reasons = sorted({str(states[name].get("reason", "no reason recorded")) for name in failed})
        raise IncompleteRunError(
            "; ".join([f"{len(failed)} of {len(jobs)} jobs did not finish"] * bool(failed) + reasons + diverged)
            + (f"; to continue: {again}" if failed else "")
        )
    if left:
        click.echo(f"the time budget is spent; {len(left)} of {len(jobs)} jobs are open; to continue: {again}")
    else:
        click.echo(f"retrained: {len(names)} networks in {address(retrained_folder(folder))}")


@contextlib.contextmanager
def _shares_by_their_options(options: dict[str, Any]) -> Iterator[None]:
    """Name the option, not the key, where an error is about a share that was given by option."""
    try:
        yield
    except UserError as error:
        for name, key in _SHARES.items():
            if error.argument == key and options.get(name) is not None:
                raise type(error)(f"--{name}", error.given, error.allowed) from error
        raise


def _one_by_one(
    jobs: list[Job], images: RetrainImages, folder: Place, *, teacher_file: Any, stop: Any, ended: Any, report: Any
) -> None:
    from dnad_ray.distill.teacher import load_teacher
    from dnad_ray.retrain.jobs import run_job
    from dnad_ray.runtime.devices import device_for

    for job in jobs:
        if stop() is None:
            device = device_for(job.config.device)
            teacher = None if teacher_file is None else load_teacher(teacher_file, device)
            ended(job, run_job(job, images, folder, teacher=teacher, stop=stop, report=report))


def _standing(jobs: list[Job], folder: Place) -> list[str]:
    """Return a line for each job that runs, and how many wait."""
    from dnad_ray.run_folder.jobs import read_job_history, read_job_status
    from dnad_ray.run_folder.states import TrialState

    states = {job.name: read_job_status(folder, job.name)["state"] for job in jobs}
    lines = []
    for job in jobs:
        history = read_job_history(folder, job.name)
        if states[job.name] is TrialState.RUNNING and history:
            epoch, loss, share = (history[-1].get(name, 0) for name in ("epoch", "train_loss", "train_accuracy"))
            lines.append(
                f"{job.spec.model} {job.spec.digest} seed {job.seed}: epoch {epoch} of {job.config.epochs}, "
                f"training loss {loss:.4f}, accuracy {share:.2%}"
            )
    waiting = sum(state is TrialState.UNKNOWN for state in states.values())
    return [*lines, f"{waiting} jobs wait"] if waiting and lines else lines


def _found(source: Place, out: Place | None, num_cells: int | None) -> tuple[Place, list[NamedGenotype]]:
    """Return the folder where results go by default, and the networks."""
    from dnad_ray.run_folder.genotypes import found_in_file, found_in_front

    if _is_run(source):
        from analysis import front_of, load_runs, to_records

        records = to_records(front_of(load_runs(source)))
        return source, found_in_front(records, source, address(source))
    if isinstance(source, Path) and source.is_dir():
        raise RunFolderError("SOURCE", address(source), "a run folder, a front.json, or a genotype file")
    found = found_in_file(source, num_cells)
    if not _is_run(source.parent) and out is None:
        raise ConfigError("--out", None, f"a run folder for the results; {address(source)} is in none")
    return source.parent, found


def _is_run(folder: Place) -> bool:
    from dnad_ray.run_folder.reading import is_run
    from dnad_ray.storage.places import reached

    with contextlib.suppress(OSError):
        return reached(folder, "SOURCE") and is_run(folder)
    return False


def _teacher(folder: Place, request: Request) -> Any:
    if not request.config.kd_weight:
        return None
    from dnad_ray.distill.teacher import read_teacher
    from dnad_ray.run_folder.layout import teacher_folder

    file = read_teacher(teacher_folder(folder)) if _is_run(folder) else None
    if file is None:
        raise ConfigError(
            "--set kd_weight", request.config.kd_weight, f"0; there is no teacher in {address(teacher_folder(folder))}"
        )
    return file


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
