"""A trained network as a file for somewhere else: ONNX, torch.export, safetensors, or a plain Python module.

Every file takes pixels in 0..1 and gives logits; normalisation, class names and a model card go with it. What was
written is read again and must give the same outputs, for one image and for several, before it takes its place.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dnad_ray import __version__
from dnad_ray.errors import ConfigError, DnadRayError, RunFolderError, one_line
from dnad_ray.model_card import model_card
from dnad_ray.network_file import TrainedNetwork, weights_of, with_weights
from dnad_ray.python_module import module_source
from dnad_ray.trainee import logits_of

__all__ = ["FORMATS", "Deployed", "ExportError", "Exported", "export_network"]

_TOLERANCE = 1e-4
_BATCHES = (1, 3)
Array = npt.NDArray[np.float32]
Predict = Callable[[Array], Array]


class ExportError(DnadRayError):
    """What was written does not compute what the network computes; nothing is left of it."""


class Exported(NamedTuple):
    """What an export left.

    Attributes:
        files: The files, the model first.
        difference: Largest difference of logits between the network and the file read again.
    """

    files: tuple[Path, ...]
    difference: float


@final
class Deployed(nn.Module):
    """A network that takes pixels in 0..1 and normalises them itself.

    Args:
        trained: The network, in evaluation mode.
    """

    def __init__(self, trained: TrainedNetwork) -> None:
        super().__init__()
        self.network = trained.network
        self.register_buffer("mean", torch.tensor(trained.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(trained.std)[:, None, None])
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, in_channels, H, W), pixels in 0..1, to logits (N, num_classes)."""
        return logits_of(self.network((images - self.mean) / self.std))


def export_network(trained: TrainedNetwork, kind: str, out: Path) -> Exported:
    """Write a network in a format, and its model card beside it; whole and verified, or not at all.

    Args:
        trained: The network.
        kind: Name in :data:`FORMATS`.
        out: The file; its suffix is the format's.

    Raises:
        ConfigError: If the format is unknown, its package is missing, or it cannot hold this network.
        RunFolderError: If the target cannot be written.
        ExportError: If the file read again gives other outputs.
    """
    if kind not in FORMATS:
        raise ConfigError("--format", kind, ", ".join(FORMATS))
    form = FORMATS[kind]
    if out.suffix != form.suffix:
        raise ConfigError("--out", str(out), f"a file that ends with {form.suffix} for --format {kind}")
    for package in form.packages:
        if find_spec(package) is None:
            raise ConfigError(
                "--format", kind, f"one whose packages are installed; {package} is not: pip install 'dnad-ray[export]'"
            )
    if out.is_dir():
        raise RunFolderError("--out", str(out), "a file, not a folder")
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
            folder = Path(name)
            files = form.write(trained, folder / out.name)
            try:
                difference = _verified(trained, form.read(trained, folder / out.name), kind)
            except (RuntimeError, ValueError) as error:  # what runtimes raise of a file that they cannot run
                raise ExportError(f"the {kind} file cannot be run: {one_line(error)[:300]}") from error
            card = folder / f"{out.stem}.md"
            card.write_text(model_card(trained, kind, [file.name for file in files], difference), encoding="utf-8")
            files = [*files, card]
            moved = []
            try:
                for file in reversed(files):  # the model itself comes last: where it is, all is
                    target = out.parent / file.name
                    shutil.move(file, target)
                    moved.append(target)
            except OSError:
                for target in moved:
                    target.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise RunFolderError(
            "--out", str(out), f"a file that can be written ({error.strerror or one_line(error)})"
        ) from error
    return Exported(tuple(reversed(moved)), difference)


def _verified(trained: TrainedNetwork, predict: Predict, kind: str) -> float:
    """Return the largest difference of outputs; raise where it is one that rounding does not explain."""
    reference = Deployed(trained).eval()
    generator = np.random.default_rng(0)
    images = trained.images
    worst = 0.0
    for batch in _BATCHES:
        size = (batch, images.in_channels, images.image_size, images.image_size)
        pixels = generator.random(size, dtype=np.float32)
        with torch.no_grad():
            ours = reference(torch.from_numpy(pixels)).numpy()
        theirs = predict(pixels)
        if theirs.shape != ours.shape:
            raise ExportError(f"the {kind} file gives outputs of shape {theirs.shape}, not {ours.shape}")
        # Relative to the size of the logits, which an untrained or a long-trained network has small or large.
        difference = float(np.abs(theirs - ours).max()) / max(1.0, float(np.abs(ours).max()))
        if not difference <= _TOLERANCE:
            raise ExportError(f"the {kind} file gives other outputs: they differ by {difference:.3g}, relatively")
        worst = max(worst, difference)
    return worst


def _metadata(trained: TrainedNetwork) -> dict[str, Any]:
    """Return what a reader of a file needs besides the weights."""
    return {
        "producer": f"dnad-ray {__version__}",
        "classes": list(trained.classes),
        "mean": list(trained.mean),
        "std": list(trained.std),
        "input": "float32 (batch, channels, height, width), pixels in 0..1; normalisation is inside",
        "images": asdict(trained.images),
        "network": trained.subject.to_dict(),
        "facts": dict(trained.facts),
    }


def _program(trained: TrainedNetwork) -> Any:
    images = trained.images
    example = torch.zeros(2, images.in_channels, images.image_size, images.image_size)
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    return torch.export.export(Deployed(trained).eval(), (example,), dynamic_shapes=shapes)


# -- ONNX -------------------------------------------------------------------------------------------------------


def _write_onnx(trained: TrainedNetwork, file: Path) -> list[Path]:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the exporter calls inside of torch
        program: Any = torch.onnx.export(
            _program(trained), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
        )
    onnx: Any = importlib.import_module("onnx")
    model = program.model_proto
    for key, value in _metadata(trained).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())
    return [file]


def _read_onnx(_: TrainedNetwork, file: Path) -> Predict:
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda pixels: cast(Array, session.run(None, {"images": pixels})[0])


# -- torch.export -----------------------------------------------------------------------------------------------


def _write_program(trained: TrainedNetwork, file: Path) -> list[Path]:
    torch.export.save(_program(trained), file, extra_files={"metadata.json": json.dumps(_metadata(trained))})
    return [file]


def _read_program(_: TrainedNetwork, file: Path) -> Predict:
    # Only ever of a file that this process has just written: the format can hold pickles.
    module = torch.export.load(file).module()

    def predict(pixels: Array) -> Array:
        with torch.no_grad():
            return cast(Array, module(torch.from_numpy(pixels)).numpy())

    return predict


# -- safetensors ------------------------------------------------------------------------------------------------


def _write_safetensors(trained: TrainedNetwork, file: Path) -> list[Path]:
    content = weights_of(trained.network)
    file.write_bytes(content)
    description = file.with_suffix(".json")
    description.write_text(
        json.dumps(
            {
                "kind": "dnad-ray network",
                "schema": 1,
                "network": trained.subject.to_dict(),
                "images": asdict(trained.images),
                "classes": list(trained.classes),
                "mean": list(trained.mean),
                "std": list(trained.std),
                "sha256": hashlib.sha256(content).hexdigest(),
                "facts": dict(trained.facts),
            },
            indent=1,
        ),
        encoding="utf-8",
    )
    return [file, description]


def _read_safetensors(trained: TrainedNetwork, file: Path) -> Predict:
    network = with_weights(trained.subject, trained.images, file.read_bytes(), file.name)
    again = TrainedNetwork(network, *(getattr(trained, name) for name in TrainedNetwork.__match_args__[1:]))
    module = Deployed(again).eval()

    def predict(pixels: Array) -> Array:
        with torch.no_grad():
            return cast(Array, module(torch.from_numpy(pixels)).numpy())

    return predict


# -- a Python module --------------------------------------------------------------------------------------------


def _write_module(trained: TrainedNetwork, file: Path) -> list[Path]:
    genotype = trained.subject.genotype
    if genotype is None:
        raise ConfigError("--format", "python", f"a network of cells; {trained.subject.model} is built by torchvision")
    if not file.stem.isidentifier():
        raise ConfigError("--out", file.name, "a name that Python can import, such as network.py")
    file.write_text(module_source(trained, genotype), encoding="utf-8")
    weights = file.with_suffix(".safetensors")
    weights.write_bytes(weights_of(trained.network))
    return [file, weights]


def _read_module(_: TrainedNetwork, file: Path) -> Predict:
    # Our own file of a moment ago, imported as its user will.
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.load(str(file.with_suffix(".safetensors")))

    def predict(pixels: Array) -> Array:
        with torch.no_grad():
            return cast(Array, network(torch.from_numpy(pixels)).numpy())

    return predict


class _Format(NamedTuple):
    suffix: str
    packages: tuple[str, ...]
    write: Callable[[TrainedNetwork, Path], list[Path]]
    read: Callable[[TrainedNetwork, Path], Predict]


FORMATS: dict[str, _Format] = {
    "onnx": _Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), _write_onnx, _read_onnx),
    "torch-export": _Format(".pt2", (), _write_program, _read_program),
    "safetensors": _Format(".safetensors", (), _write_safetensors, _read_safetensors),
    "python": _Format(".py", (), _write_module, _read_module),
}
"""Name -> suffix, packages that it needs, and how it is written and read again."""
