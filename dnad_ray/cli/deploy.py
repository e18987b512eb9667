"""`dnad-ray export`, `predict` and `measure`: use trained networks outside of dnad-ray, and measure their speed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dnad_ray.cli.messages import show_warning
from dnad_ray.errors import ConfigError
from dnad_ray.storage.places import address
from dnad_ray.text import counted, printable

if TYPE_CHECKING:
    from dnad_ray.deploy.benchmark import BenchmarkRow
    from dnad_ray.deploy.predict import Prediction

__all__ = ["benchmark", "export", "measure", "predict"]


@click.command()
@click.argument("source", metavar="RUN|RUN/retrained/JOB")
@click.option(
    "--format",
    metavar="FORMAT",
    help="onnx, onnx-int8, openvino, torch-export, safetensors or python.  "
    "[default: from the suffix of --out, else onnx]",
)
@click.option(
    "--digest", metavar="D", help="Export the network whose digest starts with D.  [default: the most accurate]"
)
@click.option("--job", metavar="JOB", help="Export the network of this job.")
@click.option("--under", multiple=True, metavar="NAME=N", help="Only networks within the budget: macs=30M; repeatable.")
@click.option("--data", metavar="NAME|FOLDER", help="Images for onnx-int8.  [default: those of the run]")
@click.option("--out", metavar="FILE", help="[default: network_DIGEST_JOB with the suffix of the format]")
def export(**options: Any) -> None:
    """Export a retrained network as ONNX, torch.export, safetensors or a Python module, with a model card.

    The exported file is read again, and its logits are compared with those of the network. onnx-int8 is quantised to
    8 bits: training images calibrate it, and it is compared with the network on the test images.
    """
    from dnad_ray.commands.deploy import export as write

    exported = write(**options)
    accuracy, agreement = exported.facts.get("accuracy"), exported.agreement
    is_measured = isinstance(accuracy, float)  # the file may come from somewhere else
    of = printable(f" ({accuracy:.2%} of {exported.facts.get('split')} images)") if is_measured else ""
    click.echo(
        f"exported: network {exported.digest}{of} as {', '.join(str(file) for file in exported.files)}; "
        + (
            f"read again, logits differ by {exported.difference:.2g} at most"
            if agreement is None
            else agreement.in_words()
        )
    )
    if agreement is not None and agreement.is_worse:
        show_warning(
            "the accuracy of the quantised network is lower by more than chance explains (sign test, p < 0.05)"
        )


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGES...")
@click.option(
    "--top", type=int, default=3, show_default=True, metavar="N", help="Number of classes to print for each image."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(model: Path, images: tuple[Path, ...], top: int, as_json: bool) -> None:
    """Classify image files with an exported network.

    MODEL is an .onnx file, a .safetensors file with its .json, or a folder retrained/JOB of a run.
    """
    from dnad_ray.data.image_files import BrokenImagesError
    from dnad_ray.deploy.predict import open_model, predict_intact

    if top < 1:
        raise ConfigError("--top", top, "at least 1")
    predictions, broken = predict_intact(open_model(model), images, top)
    _print(predictions, as_json)
    if broken:  # after the others, whose predictions stand
        raise BrokenImagesError(broken)


def _print(predictions: Sequence[Prediction], as_json: bool) -> None:
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
@click.argument("run", metavar="RUN")
@click.option("--digest", multiple=True, metavar="D", help="Only the network whose digest starts with D; repeatable.")
@click.option("--batch", type=int, default=1, show_default=True, metavar="N", help="Images per batch.")
@click.option("--repeats", type=int, default=50, show_default=True, metavar="N", help="Number of timed batches.")
@click.option("--threads", type=int, default=1, show_default=True, metavar="N", help="Number of CPU threads.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--runtime", default="torch", show_default=True, metavar="NAME", help="torch, or onnxruntime on a CPU.")
def measure(**options: Any) -> None:
    """Measure latency and peak memory of a run's front and of its retrained networks on this machine."""
    from dnad_ray.commands.deploy import measure as run

    outcome = run(**options)
    number = 0 if outcome.front is None else len(outcome.front)
    click.echo(f"measured: {number} networks in {address(outcome.paths['measured'])}")


@click.command()
@click.argument("run", metavar="RUN|RUN/retrained/JOB")
@click.option(
    "--job",
    multiple=True,
    metavar="JOB",
    help="The network of this job; repeatable.  [default: the front of the retrained networks]",
)
@click.option(
    "--images", type=int, metavar="N", help="Test images at most.  [default: 2e11 multiply-adds' worth, at least 500]"
)
@click.option("--repeats", type=int, default=200, show_default=True, metavar="N", help="Number of timed runs.")
@click.option("--threads", type=int, default=1, show_default=True, metavar="N", help="Number of CPU threads.")
@click.option("--data", metavar="NAME|FOLDER", help="The images.  [default: those of the run]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def benchmark(as_json: bool, **options: Any) -> None:
    """Compare the formats of trained networks: size, accuracy on test images, and latency on this machine.

    Each format is written into a temporary folder, read again and compared with the network. Latency is that of one
    image. A format that cannot be had says why.
    """
    import torch

    from dnad_ray.commands.deploy import benchmark as run
    from dnad_ray.deploy.benchmark import ranking_changes
    from dnad_ray.deploy.measure import name_of_device

    rows, threads = run(**options), options["threads"]
    device = name_of_device(torch.device("cpu"))
    if as_json:
        click.echo(json.dumps({"device": device, "threads": threads, "rows": [asdict(row) for row in rows]}, indent=1))
    else:
        _print_benchmark(rows, f"{device}, {counted(threads, 'thread')}, one image at a time")
    for row in rows:
        if row.is_worse:
            show_warning(f"{row.format} of {row.job or row.digest}: accuracy is lower by more than chance explains")
    for better, worse in ranking_changes(rows):
        show_warning(f"8 bits change the ranking: in float32 {better} is more accurate than {worse}, in int8 less")


def _print_benchmark(rows: Sequence[BenchmarkRow], title: str) -> None:
    table = Table(title=escape(printable(title)), title_justify="left", box=None)
    for name in ("network", "job", "format", "precision"):
        table.add_column(name)
    for name in ("KiB", "accuracy", "same class", "images", "ms, median", "ms, 95 %"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in rows:
        start = (row.digest, printable(row.job), row.format, row.precision)
        if row.size is None:
            table.add_row(*start, *["-"] * 6, escape(printable(row.missing or "")))
            continue
        table.add_row(
            *start,
            f"{row.size / 1024:.1f}",
            f"{row.accuracy:.2%}",
            f"{row.agreement:.2%}",
            f"{row.num_images:,}",
            f"{row.latency_p50:.3f}",
            f"{row.latency_p95:.3f}",
        )
    # A pipe has no real width, and rows must not be cut.
    Console(width=None if sys.stdout.isatty() else 300).print(table)
