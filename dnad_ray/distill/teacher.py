"""The teacher: one per run, stored as safetensors and JSON, shared by all trials."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, astuple, dataclass
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from dnad_ray.config.run import DistillConfig
from dnad_ray.config.section import Words
from dnad_ray.data.images import ImageData
from dnad_ray.distill.calibration import Calibration
from dnad_ray.distill.foreign_network import build_foreign
from dnad_ray.distill.foreign_spec import ForeignSpec, stage_sides
from dnad_ray.errors import ConfigError, RunFolderError, one_line
from dnad_ray.run_folder.layout import lock_file, teacher_checkpoints
from dnad_ray.runtime.devices import to_device
from dnad_ray.storage.checksums import parse_record
from dnad_ray.storage.files import read_file, write_bytes, write_json
from dnad_ray.storage.places import Place, remove_folder
from dnad_ray.storage.weights_reader import MAX_BYTES, parse_weights
from search_spaces.genotype import Genotype
from search_spaces.json_reader import MAX_BYTES as MAX_JSON_BYTES
from search_spaces.network import NetworkOutput, network_from
from search_spaces.shape import ImageShape, NetworkShape

__all__ = [
    "Renormalisation",
    "Teacher",
    "TeacherFile",
    "check_teacher",
    "frozen",
    "holds_checkpoints",
    "load_teacher",
    "read_teacher",
    "save_teacher",
]

_WEIGHTS, _DESCRIPTION = "teacher.safetensors", "teacher.json"


@dataclass(frozen=True)
class Renormalisation:
    """Conversion of images from the normalisation of the run to that of the teacher's training.

    Attributes:
        scale: Factor for each channel.
        shift: Summand for each channel, after the factor.
    """

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W)."""
        scale, shift = (images.new_tensor(values)[:, None, None] for values in (self.scale, self.shift))
        return images * scale + shift


@dataclass(frozen=True)
class Teacher:
    """A trained network in evaluation mode.

    Attributes:
        network: Returns logits and the features at the three stage ends
            (:class:`search_spaces.network.NetworkOutput`), without gradients. ``tap_channels`` are their channels.
        genotype: Its topology; None for a foreign network.
        shape: Its width, classes and images; None for a foreign network.
        accuracy: Accuracy on the validation images, 0 to 1.
        calibration: Calibration on the validation images; None if not measured.
        outline: Description of a foreign network; None for our own.
        renormalisation: Conversion of the run's images to its normalisation, or None.
        classes: Names of the classes that it was trained on; empty where they are not known.
    """

    network: nn.Module
    genotype: Genotype | None
    shape: NetworkShape | None
    accuracy: float
    calibration: Calibration | None = None
    outline: ForeignSpec | None = None
    renormalisation: Renormalisation | None = None
    classes: tuple[str, ...] = ()

    @property
    def tap_channels(self) -> tuple[int, ...]:
        """Channels of the taps; 0 for a stage without a tap."""
        return cast("tuple[int, ...]", self.network.tap_channels)

    @property
    def tap_sides(self) -> tuple[int, ...]:
        """Sides of the taps in pixels; 0 for a stage without a tap."""
        if self.shape is None:
            return cast("tuple[int, ...]", self.network.tap_sides)
        return stage_sides(self.shape.images.image_size, self.shape.stem, len(self.tap_channels))

    @property
    def images(self) -> ImageShape:
        """Shape of the images that it was trained on."""
        known = self.shape or self.outline
        assert known is not None
        return known.images

    def predict(self, images: Tensor, half: bool = False) -> NetworkOutput:
        """Return its outputs for images (N, C, H, W), computed in inference mode, without gradients.

        Autograd cannot save inference tensors for a backward pass. Every imitation kind therefore begins with an
        operation on these tensors alone, whose result autograd can save.

        Args:
            images: With the normalisation of the run.
            half: Whether to compute in float16 on a GPU; no effect on other devices. Not run on a GPU so far.
        """
        if self.renormalisation is not None:
            images = self.renormalisation(images)
        if half and images.device.type == "cuda":
            with torch.inference_mode(), torch.autocast("cuda", torch.float16):
                return _in_full(self.network(images))
        with torch.inference_mode():
            output: NetworkOutput = self.network(images)
        return output


@dataclass(frozen=True)
class TeacherFile:
    """A teacher as bytes, put into the object store once for all trials.

    Attributes:
        description: JSON.
        weights: Safetensors.
        factory: The ``module:factory`` in the user's configuration. A description that names another factory is
            refused: the file may come from another person, and a factory runs code.
    """

    description: str
    weights: bytes
    factory: str | None = None


def save_teacher(folder: Place, teacher: Teacher) -> TeacherFile:
    """Write the teacher into ``folder``, remove the checkpoints of its training, and return the same as bytes."""
    # safetensors stores only contiguous tensors; the loader sets the memory format.
    # Clones, because safetensors refuses two names for one tensor.
    weights = {name: tensor.cpu().contiguous().clone() for name, tensor in teacher.network.state_dict().items()}
    content = safetensors.torch.save(weights)
    description: dict[str, Any] = {}
    if teacher.genotype is not None and teacher.shape is not None:
        description |= {"genotype": teacher.genotype.to_dict(), "shape": teacher.shape.to_dict()}
    if teacher.outline is not None:
        description["outline"] = teacher.outline.to_dict()
    if teacher.renormalisation is not None:
        description["renormalisation"] = asdict(teacher.renormalisation)
    description["accuracy"] = teacher.accuracy
    if teacher.classes:
        description["classes"] = list(teacher.classes)
    if teacher.calibration is not None:
        description["calibration"] = asdict(teacher.calibration)
    description["sha256"] = hashlib.sha256(content).hexdigest()
    file = TeacherFile(json.dumps(description), content, _factory_of(teacher.outline))
    write_bytes(folder / _WEIGHTS, file.weights)
    write_json(folder / _DESCRIPTION, description)  # last: if the description exists, the weights are complete
    remove_folder(teacher_checkpoints(folder))
    return file


def holds_checkpoints(folder: Place) -> bool:
    """Whether a folder holds only the checkpoints of an unfinished teacher."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return "checkpoints" in names and names <= {"checkpoints", _WEIGHTS, lock_file(folder).name}


def read_teacher(folder: Place, factory: str | None = None) -> TeacherFile | None:
    """Return the teacher that :func:`save_teacher` wrote, or None if there is none.

    Args:
        folder: The folder of the teacher.
        factory: The ``module:factory`` that is allowed to build its network, or None.
    """
    try:
        # Invalid UTF-8 is refused by load_teacher, with a message, like all other damage.
        description = read_file(folder / _DESCRIPTION, MAX_JSON_BYTES).decode(errors="replace")
        return TeacherFile(description, read_file(folder / _WEIGHTS, MAX_BYTES), factory)
    except FileNotFoundError:
        return None


def load_teacher(file: TeacherFile, device: torch.device) -> Teacher:
    """Rebuild a teacher from its bytes.

    Raises:
        RunFolderError: If description and weights do not fit each other, or the description names a factory that the
            configuration does not name.
    """
    try:
        description = parse_record(file.description, _DESCRIPTION)
        if hashlib.sha256(file.weights).hexdigest() != description["sha256"]:
            raise ValueError("the weights are not those that were described")
        accuracy = float(description["accuracy"])
        classes = tuple(str(name) for name in description.get("classes", ()))
        calibration = description.get("calibration")
        calibration = None if calibration is None else Calibration(**calibration)
        if "outline" in description:
            outline = ForeignSpec.from_dict(description["outline"])
            if outline.source == "module" and outline.model != file.factory:
                raise ValueError(f"it is made by {outline.model}, which the configuration does not name")
            foreign = build_foreign(outline)
            foreign.load_state_dict(parse_weights(file.weights, foreign.state_dict(), _WEIGHTS))
            return Teacher(
                frozen(to_device(foreign, device)), None, None, accuracy, calibration, outline, classes=classes
            )
        genotype = Genotype.from_dict(description["genotype"], "teacher genotype")
        shape = NetworkShape.from_dict(description["shape"])
        with torch.device("meta"):  # takes no memory, whatever the size of the described network
            expected = network_from(genotype, shape).state_dict()
        weights = parse_weights(file.weights, expected, _WEIGHTS)
        renormalisation = _renormalisation(description.get("renormalisation"), shape.images.in_channels)
        with torch.random.fork_rng():
            network = network_from(genotype, shape)
        network.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise RunFolderError("teacher", one_line(error)[:300], "an intact teacher.json and .safetensors") from error
    ready = frozen(to_device(network, device))
    return Teacher(ready, genotype, shape, accuracy, calibration, None, renormalisation, classes)


def check_teacher(teacher: Teacher, data: ImageData, config: DistillConfig, stem: str, origin: str) -> None:
    """Check that a teacher fits the images of a run, and has the taps for the configured imitation.

    Args:
        teacher: The teacher.
        data: The images.
        config: Settings of the imitation.
        stem: Stem of the student, which determines the sizes at its stage ends.
        origin: Where the teacher came from, for error messages.

    Raises:
        ConfigError: If channels, size, number or names of classes differ, a tap is missing, or its size is not the
            student's.
    """
    given, wanted = astuple(teacher.images), astuple(data.shape)
    for name, theirs, ours in zip(("channels", "pixels a side", "classes"), given, wanted, strict=True):
        if theirs != ours:
            raise ConfigError(
                origin, f"a teacher for images of {theirs} {name}", f"{ours} {name}, as these images have"
            )
    for label, (theirs, ours) in enumerate(zip(teacher.classes, data.classes, strict=False)):
        if theirs != ours:
            allowed = f"{ours!r}, as class {label} of these images; folders of classes can be renamed"
            raise ConfigError(origin, Words(f"a teacher whose class {label} is {theirs!r}"), allowed)
    if not config.uses_features:
        return
    sides, place = stage_sides(data.image_size, stem), "distill.teacher.taps"
    if teacher.shape is not None and len(teacher.tap_channels) != len(sides):
        allowed = f"{len(sides)} stages, that is {len(sides) - 1} reduction cells, to imitate {config.kind}"
        raise ConfigError(origin, f"a teacher of {len(teacher.tap_channels)} stages", allowed)
    for stage, (theirs, ours, ratio) in enumerate(zip(teacher.tap_sides, sides, config.stage_ratios, strict=True)):
        if ratio and not theirs:
            allowed = f"a module with maps of {ours}x{ours} pixels, named there; none was found"
            raise ConfigError(place, f"no tap for stage {stage + 1} of {len(sides)}", allowed)
        if ratio and config.uses_same_sizes and theirs != ours:
            allowed = (
                f"{ours}x{ours}, the student's, to imitate {config.kind} (similarity and relational take any size)"
            )
            raise ConfigError(
                place, f"a tap of {theirs}x{theirs} pixels for stage {stage + 1} of {len(sides)}", allowed
            )


def frozen(network: nn.Module) -> nn.Module:
    """Return the network, in evaluation mode and without gradients."""
    return network.eval().requires_grad_(False)


def _renormalisation(described: Any, num_channels: int) -> Renormalisation | None:
    if described is None:
        return None
    values = [tuple(float(value) for value in described[name]) for name in ("scale", "shift")]
    if any(len(entry) != num_channels or not all(map(math.isfinite, entry)) for entry in values):
        raise ValueError(f"a renormalisation of other than {num_channels} channels")
    return Renormalisation(*values)


def _factory_of(outline: ForeignSpec | None) -> str | None:
    return outline.model if outline is not None and outline.source == "module" else None


def _in_full(output: NetworkOutput) -> NetworkOutput:
    taps = tuple(None if tap is None else tap.float() for tap in output.taps)
    return NetworkOutput(output.logits.float(), taps)
