"""Running an exported network on image files."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dnad_ray.data.decoding import FULL_LEVEL
from dnad_ray.data.image_files import BrokenImagesError, decode_images
from dnad_ray.data.images import Progress
from dnad_ray.deploy.formats import in_torch
from dnad_ray.errors import ConfigError, RunFolderError, UserError, one_line
from dnad_ray.networks.network_file import DESCRIPTION, checked_images, checked_level, read_network
from dnad_ray.storage.files import read_file
from dnad_ray.text import install_command
from search_spaces.json_reader import parse_json

__all__ = ["Model", "Prediction", "open_model", "predict", "predict_intact"]

Array = npt.NDArray[np.float32]
_MAX_MODEL = 2 * 2**30  # the most that an ONNX file can have
_MAX_METADATA = 4 * 2**20
_BATCH = 64
_NUMBERS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
"""Types of inputs: converters of ONNX files change ours."""
_SUFFIXES = (".onnx", ".safetensors")
_ALLOWED = "an .onnx file, a .safetensors file with its .json, or a folder retrained/<job> of a run"


class Model(NamedTuple):
    """A network that can be run.

    Attributes:
        run: Maps pixels (N, C, H, W) in 0..1 to logits (N, num_classes).
        classes: Names of the classes.
        channels: Channels of the images.
        image_size: Their side in pixels.
        full_level: Level of white of image files of more than 8 bits, as in training.
    """

    run: Callable[[Array], Array]
    classes: tuple[str, ...]
    channels: int
    image_size: int
    full_level: int = FULL_LEVEL

    def predict(self, images: Sequence[str | Path] | str | Path, top: int = 3) -> list[Prediction]:
        """Classify image files.

        Args:
            images: The files, or one of them.
            top: How many classes to name.

        Raises:
            UserError: If a file is no image, or ``top`` is below 1.
        """
        if top < 1:
            raise ConfigError("top", top, "at least 1")
        files: Any = [images] if isinstance(images, str | Path) else images
        if not isinstance(files, Sequence) or not all(isinstance(file, str | Path) for file in files):
            raise ConfigError("images", images, "the path of an image, or several in a list")
        return predict(self, [Path(file) for file in files], top)


class Prediction(NamedTuple):
    """Prediction of a network for an image.

    Attributes:
        file: The image.
        classes: Names of the likeliest classes, likeliest first.
        shares: Their probabilities.
    """

    file: str
    classes: tuple[str, ...]
    shares: tuple[float, ...]


def open_model(path: Path) -> Model:
    """Open an exported network; nothing in it can execute code.

    Raises:
        RunFolderError: If it was not exported by this package, or is damaged.
        ConfigError: If the reader of ONNX is not installed.
    """
    if path.is_dir() and not (path / DESCRIPTION).is_file():
        raise RunFolderError("MODEL", str(path), _ALLOWED)
    if path.suffix in _SUFFIXES and not path.is_file():
        raise RunFolderError("MODEL", str(path), "a file that exists")
    if path.is_dir() or path.name == DESCRIPTION:
        return _of_network(path if path.is_dir() else path.parent, None)
    if path.suffix == ".safetensors":
        return _of_network(path.parent, path)
    if path.suffix == ".onnx":
        return _of_onnx(path)
    if path.suffix in (".pt2", ".py"):
        what = "files of torch.export can hold pickles" if path.suffix == ".pt2" else "a Python file is a program"
        raise RunFolderError("MODEL", str(path), f"{_ALLOWED}; {what}: import it yourself if you trust it")
    raise RunFolderError("MODEL", str(path), _ALLOWED)


def predict(model: Model, files: Sequence[Path], top: int = 3, progress: Progress | None = None) -> list[Prediction]:
    """Classify image files.

    Args:
        model: The network.
        files: The images, brought to its size and channels as in training.
        top: How many classes to name.
        progress: Called with the number of images read so far.

    Raises:
        BrokenImagesError: If files are missing or no images; it names all of them.
        RunFolderError: If the model does not run, or gives other things than a logit for each class.
    """
    results, broken = predict_intact(model, files, top, progress)
    if broken:
        raise BrokenImagesError(broken)
    return results


def predict_intact(
    model: Model, files: Sequence[Path], top: int = 3, progress: Progress | None = None
) -> tuple[list[Prediction], list[tuple[str | Path, str]]]:
    """Classify image files as :func:`predict` does; returns also the files that are missing or no images, and why."""
    broken: list[tuple[str | Path, str]] = [(file, "there is no such file") for file in files if not file.is_file()]
    files = [file for file in files if file.is_file()]
    results = []
    for start in range(0, len(files), _BATCH):
        part: Sequence[Path] = files[start : start + _BATCH]
        decode = partial(
            decode_images,
            image_size=model.image_size,
            channels=model.channels,
            progress=progress,
            full_level=model.full_level,
        )
        try:
            pixels = decode(part)
        except BrokenImagesError as error:
            broken += error.broken
            unusable = {Path(path) for path, _ in error.broken}
            part = [file for file in part if file not in unusable]
            pixels = decode(part)
        if not part:
            continue
        logits: npt.NDArray[np.float64] = model.run((pixels / np.float32(255)).astype(np.float32)).astype(np.float64)
        if logits.shape != (len(part), len(model.classes)) or not np.isfinite(logits).all():
            given = f"outputs of shape {logits.shape}, {int(np.isfinite(logits).sum())} of them finite"
            raise RunFolderError("MODEL", given, f"finite logits of shape {(len(part), len(model.classes))}")
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        for file, row in zip(part, shares, strict=True):
            order = np.argsort(-row, kind="stable")[:top]
            names = tuple(model.classes[index] for index in order)
            results.append(Prediction(str(file), names, tuple(float(row[index]) for index in order)))
    return results, broken


def _of_network(folder: Path, weights: Path | None) -> Model:
    trained = read_network(folder) if weights is None else read_network(folder, weights.name, f"{weights.stem}.json")
    return Model(
        in_torch(trained), trained.classes, trained.images.in_channels, trained.images.image_size, trained.full_level
    )


def _of_onnx(path: Path) -> Model:
    if find_spec("onnxruntime") is None:
        raise ConfigError("MODEL", str(path), f"a format whose reader is installed: {install_command('export')}")
    try:
        content = read_file(path, _MAX_MODEL, follow_links=True)
    except OSError as error:
        raise RunFolderError("MODEL", str(path), f"a file that can be read ({one_line(error)})") from error
    runtime: Any = importlib.import_module("onnxruntime")
    try:
        # From bytes: a file cannot ask for others beside it.
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        classes = tuple(str(name) for name in parse_json(metadata["classes"], "classes", _MAX_METADATA))
        images = checked_images(parse_json(metadata["images"], "images", _MAX_METADATA))
        channels, size = images.in_channels, images.image_size
        full_level = checked_level(parse_json(metadata.get("full_level", str(FULL_LEVEL)), "full_level", _MAX_METADATA))
        entries = session.get_inputs()
        inputs = [entry.name for entry in entries]
        if inputs != ["images"] or len(classes) != images.num_classes:
            raise ValueError(f"its inputs are {json.dumps(inputs)}, and it names {len(classes)} classes")
        number, sides = _NUMBERS.get(entries[0].type), entries[0].shape[1:]
        # Other tools may leave sides open.
        is_other = any(
            isinstance(given, int) and given != side for given, side in zip(sides, (channels, size, size), strict=False)
        )
        if number is None or len(sides) != 3 or is_other:
            raise ValueError(
                f"its input is a {entries[0].type} of {sides}, its images are {channels} x {size} x {size}"
            )
    except (KeyError, TypeError, ValueError, RuntimeError, UserError) as error:
        raise RunFolderError(
            "MODEL", f"{path} ({one_line(error)[:200]})", "an ONNX file that `dnad-ray export` wrote"
        ) from error
    except Exception as error:
        raise RunFolderError("MODEL", f"{path} ({one_line(error)[:200]})", "an intact ONNX file") from error

    def run(pixels: Array) -> Array:
        try:
            return np.asarray(session.run(None, {"images": pixels.astype(number)})[0], np.float32)
        except Exception as error:  # the runtime has exceptions of its own
            raise RunFolderError(
                "MODEL", f"{path} ({one_line(error)[:200]})", "an ONNX file that runs on its images"
            ) from error

    return Model(run, classes, channels, size, full_level)
