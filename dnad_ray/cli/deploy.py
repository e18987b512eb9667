"""`dnad-ray export`, `predict` and `measure`: a trained network leaves, works, and is timed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnad_ray.cli.messages import to_place
from dnad_ray.deploy.suffixes import SUFFIXES
from dnad_ray.errors import ConfigError, RunFolderError
from dnad_ray.storage.places import Place, address
from dnad_ray.text import printable

if TYPE_CHECKING:
    from dnad_ray.networks.network_file import TrainedNetwork

__all__ = ["export", "measure", "predict"]


@click.command()
@click.argument("source", metavar="RUN|RUN/retrained/JOB", callback=to_place)
@click.option("--format", "kind", default="onnx", show_default=True, help=f"One of {', '.join(SUFFIXES)}.")
@click.option(
    "--digest", metavar="D", help="Of a run, the network whose digest begins so.  [default: the most accurate]"
)
@click.option("--job", metavar="JOB", help="Of a run, the job that trained it.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="[default: network-DIGEST with its suffix]"
)
def export(source: Place, kind: str, digest: str | None, job: str | None, out: Path | None) -> None:
    """Write a retrained network as ONNX, torch.export, safetensors or a Python module, verified, with a model card."""
    from dnad_ray.deploy.export import export_network

    if kind not in SUFFIXES:
        raise ConfigError("--format", kind, ", ".join(SUFFIXES))
    trained = trained_network(source, digest, job)
    target = out or Path(f"network_{trained.spec.digest}{SUFFIXES[kind]}")
    exported = export_network(trained, kind, target)
    accuracy = trained.facts.get("accuracy")
    is_measured = isinstance(accuracy, float)  # the file may be anybody's
    of = printable(f" ({accuracy:.2%} of {trained.facts.get('split')} images)") if is_measured else ""
    click.echo(
        f"exported: network {trained.spec.digest}{of} as {', '.join(str(file) for file in exported.files)}; "
        f"read again, logits differ by {exported.difference:.2g} at most"
    )


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGES...")
@click.option("--top", type=int, default=3, show_default=True, metavar="N", help="How many classes to name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(model: Path, images: tuple[Path, ...], top: int, as_json: bool) -> None:
    """Classify image files by an exported network.

    MODEL is an .onnx file, a .safetensors file with its .json, or a folder retrained/JOB of a run.
    """
    from dnad_ray.deploy.predict import open_model
    from dnad_ray.deploy.predict import predict as classify

    if top < 1:
        raise ConfigError("--top", top, "at least 1")
    predictions = classify(open_model(model), images, top)
    if as_json:
        click.echo(
            json.dumps(
                [{"file": p.file, "classes": list(p.classes), "probabilities": list(p.shares)} for p in predictions],
                indent=1,
            )
        )
        return
    for prediction in predictions:
        pairs = zip(prediction.classes, prediction.shares, strict=True)
        click.echo(printable(f"{prediction.file}: " + ", ".join(f"{name} {share:.1%}" for name, share in pairs)))


@click.command()
@click.argument("run", metavar="RUN", callback=to_place)
@click.option("--digest", "digests", multiple=True, metavar="D", help="Only the network whose digest begins so.")
@click.option("--batch", "batch_size", type=int, default=1, show_default=True, metavar="N", help="Images per batch.")
@click.option("--repeats", type=int, default=50, show_default=True, metavar="N", help="Batches that are timed.")
@click.option("--threads", type=int, default=1, show_default=True, metavar="N", help="Threads on a CPU.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
def measure(run: Place, digests: tuple[str, ...], device: str, **numbers: int) -> None:
    """Measure latency and peak memory of a run's front and of its retrained networks, on this machine."""
    import torch

    from analysis import front_of, load_runs, to_records
    from dnad_ray.config.run import config_from_dict
    from dnad_ray.deploy.measure import measure as measured
    from dnad_ray.deploy.run_networks import networks_of
    from dnad_ray.run_folder.layout import config_file, measured_folder
    from dnad_ray.run_folder.reading import is_run, read_run
    from dnad_ray.run_folder.writing import write_measurement
    from dnad_ray.runtime.devices import device_for

    if not is_run(run):
        raise RunFolderError("RUN", address(run), "a run folder")
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ConfigError("--device", device, "auto or cpu, or cuda where torch finds a GPU")
    config = config_from_dict(read_run(run).config, address(config_file(run)))
    specs = networks_of(run, config, to_records(front_of(load_runs(run))))
    wanted = [pair for pair in specs if not digests or any(pair[0].digest.startswith(digest) for digest in digests)]
    if not wanted:
        raise RunFolderError("--digest", ", ".join(digests), ", ".join(sorted({pair[0].digest for pair in specs})))
    for spec, images in wanted:
        result = measured(spec, images, device_for(device), run=run.name, **numbers)
        write_measurement(run, result)
        click.echo(
            f"{spec.model} {spec.digest} C {spec.init_channels}: {result.latency_p50:.3f} ms (p90 "
            f"{result.latency_p90:.3f}, p99 {result.latency_p99:.3f}), {result.peak_memory / 2**20:.2f} MiB"
        )
    click.echo(f"measured: {len(wanted)} networks in {address(measured_folder(run))}")


def trained_network(source: Place, digest: str | None = None, job: str | None = None) -> TrainedNetwork:
    """Return the network of a job's folder, or the one of a run that is asked for, or its most accurate one."""
    from dnad_ray.networks.network_file import DESCRIPTION, read_network
    from dnad_ray.run_folder.layout import job_folder
    from dnad_ray.run_folder.reading import is_run

    if (source / DESCRIPTION).is_file():
        return read_network(source)
    if not is_run(source):
        raise RunFolderError("SOURCE", address(source), "a run folder, or a folder retrained/<job> of one")
    return read_network(job_folder(source, _record(source, digest, job)["job"]))


def _record(run: Place, digest: str | None, job: str | None) -> dict[str, Any]:
    from dnad_ray.run_folder.jobs import read_retrained

    records, _ = read_retrained(run)
    wanted = [r for r in records if r["digest"].startswith(digest or "") and job in (None, r["job"])]
    if not records:
        raise RunFolderError("SOURCE", address(run), "a run with retrained networks: `dnad-ray retrain` comes first")
    if not wanted:
        option, given, name = ("--digest", digest, "digest") if job is None else ("--job", job, "job")
        known = sorted({record[name] for record in records})
        raise RunFolderError(option, given, f"one of the retrained networks: {', '.join(known)}")
    return max(wanted, key=lambda record: float(record["accuracy"]))
