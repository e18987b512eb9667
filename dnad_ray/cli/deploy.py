"""`dnad-ray export`, `predict` and `measure`: use trained networks outside of dnad-ray, and measure their speed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnad_ray.cli.messages import show_warning
from dnad_ray.errors import ConfigError
from dnad_ray.storage.places import address
from dnad_ray.text import printable

if TYPE_CHECKING:
    from dnad_ray.deploy.predict import Prediction

__all__ = ["export", "measure", "predict"]


@click.command()
@click.argument("source", metavar="RUN|RUN/retrained/JOB")
@click.option(
    "--format",
    metavar="FORMAT",
    help="onnx, onnx-int8, torch-export, safetensors or python.  [default: from the suffix of --out, else onnx]",
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
