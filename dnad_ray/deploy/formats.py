"""The formats of an exported network: how each is written, and read again."""

from __future__ import annotations

import importlib
import importlib.util
import json
import keyword
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dnad_ray.deploy.python_module import module_source
from dnad_ray.deploy.suffixes import SUFFIXES
from dnad_ray.errors import ConfigError
from dnad_ray.networks.network_file import TrainedNetwork, described, weights_of, with_weights, write_trained
from dnad_ray.networks.spec import logits_of
from dnad_ray.version import __version__

__all__ = ["FORMATS", "Array", "Deployed", "Format", "Predict", "in_torch", "onnx_reader", "openvino_reader"]
Array = npt.NDArray[np.float32]
Predict = Callable[[Array], Array]
_BATCH = "batch"


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


def in_torch(trained: TrainedNetwork) -> Predict:
    """Return what maps pixels (N, C, H, W) in 0..1 to logits (N, num_classes) by torch on the CPU."""
    module = Deployed(trained).eval()

    def predict(pixels: Array) -> Array:
        with torch.no_grad():
            return cast(Array, module(torch.from_numpy(pixels)).numpy())

    return predict


def _metadata(trained: TrainedNetwork) -> dict[str, Any]:
    """Return the description that a reader needs besides the weights."""
    return {
        "producer": f"dnad-ray {__version__}",
        "input": "float32 (batch, channels, height, width), pixels in 0..1; normalisation is inside",
        **described(trained),
    }


def _program(trained: TrainedNetwork) -> Any:
    images = trained.images
    example = torch.zeros(2, images.in_channels, images.image_size, images.image_size)
    shapes = {"images": {0: torch.export.Dim(_BATCH, min=1)}}
    return torch.export.export(Deployed(trained).eval(), (example,), dynamic_shapes=shapes)


# -- ONNX -------------------------------------------------------------------------------------------------------


def _write_onnx(trained: TrainedNetwork, file: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # raised by functions that the exporter calls in torch
        program: Any = torch.onnx.export(
            _program(trained),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: _BATCH}},  # known to the program already: this keeps the name of the axis
            dynamo=True,
            verbose=False,
        )
    onnx: Any = importlib.import_module("onnx")
    model = program.model_proto
    for key, value in _metadata(trained).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())


def _read_onnx(_: TrainedNetwork, file: Path) -> Predict:
    return onnx_reader(file)


def onnx_reader(file: Path, threads: int = 0) -> Predict:
    """Return what maps pixels (N, C, H, W) in 0..1 to logits (N, num_classes) by ONNX Runtime on the CPU.

    Args:
        file: The ONNX file.
        threads: Threads; 0 leaves their number to the runtime.
    """
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda pixels: cast(Array, session.run(None, {"images": pixels})[0])


# -- OpenVINO ---------------------------------------------------------------------------------------------------


def _write_openvino(trained: TrainedNetwork, file: Path) -> None:
    openvino: Any = importlib.import_module("openvino")
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        source = Path(folder) / "net.onnx"
        _write_onnx(trained, source)
        model = openvino.convert_model(source)
        for key, value in _metadata(trained).items():
            model.set_rt_info(value if isinstance(value, str) else json.dumps(value), ["framework", key])
        # Its default stores weights as float16.
        openvino.save_model(model, file, compress_to_fp16=False)


def _read_openvino(_: TrainedNetwork, file: Path) -> Predict:
    return openvino_reader(file)


def openvino_reader(file: Path, threads: int = 0) -> Predict:
    """Return what maps pixels (N, C, H, W) in 0..1 to logits (N, num_classes) by OpenVINO on the CPU, in float32.

    Args:
        file: The .xml file; the .bin file is beside it.
        threads: Threads; 0 leaves their number to the runtime.
    """
    openvino: Any = importlib.import_module("openvino")
    # Its default is bfloat16 on processors that have it.
    settings = {"INFERENCE_PRECISION_HINT": "f32", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
    compiled = openvino.Core().compile_model(file, "CPU", settings)
    return lambda pixels: cast(Array, compiled([pixels])[0])


# -- torch.export -----------------------------------------------------------------------------------------------


def _write_program(trained: TrainedNetwork, file: Path) -> None:
    torch.export.save(_program(trained), file, extra_files={"metadata.json": json.dumps(_metadata(trained))})


def _read_program(_: TrainedNetwork, file: Path) -> Predict:
    # Only ever of a file that this process has just written: the format can hold pickles.
    module = torch.export.load(file).module()

    def predict(pixels: Array) -> Array:
        with torch.no_grad():
            return cast(Array, module(torch.from_numpy(pixels)).numpy())

    return predict


# -- safetensors ------------------------------------------------------------------------------------------------


def _write_safetensors(trained: TrainedNetwork, file: Path) -> None:
    description = file.with_suffix(".json")
    write_trained(file.parent, trained, file.name, description.name)


def _read_safetensors(trained: TrainedNetwork, file: Path) -> Predict:
    network = with_weights(trained.spec, trained.images, file.read_bytes(), file.name)
    again = TrainedNetwork(network, *(getattr(trained, name) for name in TrainedNetwork.__match_args__[1:]))
    return in_torch(again)


# -- a Python module --------------------------------------------------------------------------------------------


_TAKEN = sys.stdlib_module_names | {"numpy", "safetensors", "torch"}
"""Modules that the exported one, or what it imports, would import from its own folder instead."""


def _write_module(trained: TrainedNetwork, file: Path) -> None:
    genotype = trained.spec.genotype
    if genotype is None:
        raise ConfigError("--format", "python", f"a network of cells; {trained.spec.model} is built by torchvision")
    is_name = file.stem.isidentifier() and not keyword.iskeyword(file.stem) and not file.stem.startswith("__")
    if not is_name or file.stem in _TAKEN:
        allowed = "a name that Python can import and that is of no module of Python or torch, such as network.py"
        raise ConfigError("--out", file.name, allowed)
    file.write_text(module_source(trained, genotype), encoding="utf-8")
    weights = file.with_suffix(".safetensors")
    weights.write_bytes(weights_of(trained.network))


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


class Format(NamedTuple):
    """A format of exported networks.

    Attributes:
        suffix: How its files end.
        packages: Packages that it needs.
        beside: Suffixes of the files beside the model.
        write: Writes a network into a file.
        read: Reads the file again, and returns what maps pixels (N, C, H, W) in 0..1 to logits.
        extra: The extra that installs the packages.
    """

    suffix: str
    packages: tuple[str, ...]
    beside: tuple[str, ...]
    write: Callable[[TrainedNetwork, Path], None]
    read: Callable[[TrainedNetwork, Path], Predict]
    extra: str = "export"

    def files(self, out: Path) -> list[Path]:
        """Return the files of an export, the model first, without its card."""
        return [out, *map(out.with_suffix, self.beside)]


FORMATS: dict[str, Format] = {
    "onnx": Format(SUFFIXES["onnx"], ("onnx", "onnxscript", "onnxruntime"), (), _write_onnx, _read_onnx),
    "torch-export": Format(SUFFIXES["torch-export"], (), (), _write_program, _read_program),
    "safetensors": Format(SUFFIXES["safetensors"], (), (".json",), _write_safetensors, _read_safetensors),
    "python": Format(SUFFIXES["python"], (), (".safetensors",), _write_module, _read_module),
    "openvino": Format(
        SUFFIXES["openvino"],
        ("onnx", "onnxscript", "openvino"),
        (".bin",),
        _write_openvino,
        _read_openvino,
        extra="openvino",
    ),
}
"""By name, those that need nothing but the network."""
