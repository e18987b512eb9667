"""The model card of an exported network: its description, origin, costs and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dnad_ray.networks.network_file import TrainedNetwork
from dnad_ray.version import __version__

__all__ = ["is_card_of", "model_card"]

_TITLE = "# Model card: "
_LICENCE = (
    "The code that built the network is under Apache-2.0. The weights were learnt from the data named above: what may "
    "be done with them depends on the licence of these data, which whoever publishes the network has to look up."
)


def model_card(trained: TrainedNetwork, kind: str, files: Sequence[str], verified: str) -> str:
    """Return the card as Markdown.

    Args:
        trained: The network.
        kind: Format of the export.
        files: Names of the files that the export wrote.
        verified: How the file was compared with the network when it was read again.
    """
    facts, spec, images = trained.facts, trained.spec, trained.images
    what = f"genotype `{spec.digest}`" if spec.genotype is not None else f"{spec.model} x {spec.width:g}"
    rows: list[tuple[str, Any]] = [
        _format_row(kind, files),
        ("Input", f"float32 (batch, {images.in_channels}, {images.image_size}, {images.image_size}), pixels in 0..1"),
        ("Normalisation", f"inside the network: mean {_numbers(trained.mean)}, deviation {_numbers(trained.std)}"),
        ("Output", f"logits of {images.num_classes} classes"),
        ("Verified", verified),
    ]
    origin: list[tuple[str, Any]] = [
        ("Network", what),
        ("Origin", facts.get("origin", spec.origin)),
        ("Width C", spec.init_channels or "-"),
        ("Run, job", f"{facts.get('run', '-')}, {facts.get('job', '-')}"),
        ("Protocol", f"{facts.get('recipe', '-')}, {facts.get('epochs', '-')} epochs, seed {facts.get('seed', '-')}"),
        ("Began with", "weights of a supernet" if facts.get("inherited") else "random weights"),
        ("Tool", f"dnad-ray {__version__}"),
    ]
    cost: list[tuple[str, Any]] = [
        ("Multiply-adds per image", _count(facts.get("macs"))),
        ("- of convolutions and classifier", _count(facts.get("macs_conv_linear"))),
        ("Parameters", _count(facts.get("params"))),
        ("Counter", facts.get("counter", "-")),
    ]
    accuracy = facts.get("accuracy")
    where = f"{facts.get('num_images', '?')} {facts.get('split', '?')} images of {facts.get('dataset', '?')}"
    is_measured = isinstance(accuracy, float)
    reached = _cell(f"{accuracy:.2%} of {where}, measured once after training") if is_measured else "not measured"
    lines = [f"{_TITLE}{spec.digest}", "", *_table(rows), "", "## Origin", "", *_table(origin), ""]
    lines += ["## Cost", "", *_table(cost), "", "## Accuracy", "", f"{reached}.", ""]
    lines += ["## Classes", "", _cell(", ".join(f"{i}: {name}" for i, name in enumerate(trained.classes))), ""]
    lines += ["## Data and licence", "", f"Trained on {_cell(facts.get('dataset', 'unnamed data'))}. {_LICENCE}", ""]
    return "\n".join(lines)


def is_card_of(card: str, kind: str, files: Sequence[str]) -> bool:
    """Whether a text is the card of an export in that format that wrote these files."""
    return card.startswith(_TITLE) and _table([_format_row(kind, files)])[-1] in card.splitlines()


def _format_row(kind: str, files: Sequence[str]) -> tuple[str, str]:
    return "Format", f"{kind}: {', '.join(files)}"


def _table(rows: Sequence[tuple[str, Any]]) -> list[str]:
    return ["| | |", "| --- | --- |", *(f"| {name} | {_cell(value)} |" for name, value in rows)]


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"
