"""`dnad-ray export`, `predict` and `measure`: a trained network leaves, works, and is timed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnad_ray.cli.words import to_place
from dnad_ray.errors import ConfigError, RunFolderError
from dnad_ray.places import Place, address
from dnad_ray.printable import printable

if TYPE_CHECKING:
    from dnad_ray.network_file import TrainedNetwork

__all__ = ["export", "predict"]

_SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors", "python": ".py"}


@click.command()
@click.argument("source", metavar="RUN|RUN/retrained/JOB", callback=to_place)
@click.option("--format", "kind", default="onnx", show_default=True, help=f"One of {', '.join(_SUFFIXES)}.")
@click.option(
    "--digest", metavar="D", help="Of a run, the network whose digest begins so.  [default: the most accurate]"
)
@click.option("--job", metavar="JOB", help="Of a run, the job that trained it.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="[default: network-DIGEST with its suffix]"
)
def export(source: Place, kind: str, digest: str | None, job: str | None, out: Path | None) -> None:
    """Write a retrained network as ONNX, torch.export, safetensors or a Python module, verified, with a model card."""
    from dnad_ray.export import export_network

    if kind not in _SUFFIXES:
        raise ConfigError("--format", kind, ", ".join(_SUFFIXES))
    trained = trained_network(source, digest, job)
    target = out or Path(f"network_{trained.subject.digest}{_SUFFIXES[kind]}")
    exported = export_network(trained, kind, target)
    accuracy = trained.facts.get("accuracy")
    of = "" if accuracy is None else f" ({accuracy:.2%} of {trained.facts.get('split')} images)"
    click.echo(
        f"exported: network {trained.subject.digest}{of} as {', '.join(str(file) for file in exported.files)}; "
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
    from dnad_ray.predict import open_model
    from dnad_ray.predict import predict as classify

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


def trained_network(source: Place, digest: str | None = None, job: str | None = None) -> TrainedNetwork:
    """Return the network of a job's folder, or the one of a run that is asked for, or its most accurate one."""
    from dnad_ray.network_file import DESCRIPTION, read_network
    from dnad_ray.retrained import job_folder
    from dnad_ray.store import is_run

    if (source / DESCRIPTION).is_file():
        return read_network(source)
    if not is_run(source):
        raise RunFolderError("SOURCE", address(source), "a run folder, or a folder retrained/<job> of one")
    return read_network(job_folder(source, _record(source, digest, job)["job"]))


def _record(run: Place, digest: str | None, job: str | None) -> dict[str, Any]:
    from dnad_ray.retrained import read_retrained

    records, _ = read_retrained(run)
    wanted = [r for r in records if r["digest"].startswith(digest or "") and job in (None, r["job"])]
    if not records:
        raise RunFolderError("SOURCE", address(run), "a run with retrained networks: `dnad-ray retrain` comes first")
    if not wanted:
        known = sorted({record["digest"] for record in records})
        option, given = ("--job", job) if job is not None else ("--digest", digest)
        raise RunFolderError(option, given, f"one of the retrained networks: {', '.join(known)}")
    return max(wanted, key=lambda record: float(record["accuracy"]))
