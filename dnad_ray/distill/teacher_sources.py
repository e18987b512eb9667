"""Sources of teachers: trained here, a torchvision model, a user's own network, or a saved one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from dnad_ray.config.run import RunConfig, TeacherConfig
from dnad_ray.data.batches import evaluation_batches
from dnad_ray.data.loading import ImageData
from dnad_ray.distill.calibration import calibration_of
from dnad_ray.distill.foreign_network import ForeignNetwork, build_foreign, check_training
from dnad_ray.distill.foreign_spec import ForeignSpec
from dnad_ray.distill.teacher import Renormalisation, Teacher, check_teacher, frozen, load_teacher, read_teacher
from dnad_ray.distill.teacher_training import TeacherTraining
from dnad_ray.errors import ConfigError
from dnad_ray.networks.network_file import DESCRIPTION, read_network
from dnad_ray.networks.search_space import space_of
from dnad_ray.run_folder.genotypes import read_any_genotype
from dnad_ray.run_folder.reading import is_run, read_genotype, read_run
from dnad_ray.runtime.devices import MEMORY_FORMAT, to_device
from dnad_ray.runtime.stopping import StopCheck
from dnad_ray.storage.files import read_file
from dnad_ray.storage.places import Place, address, place, reached
from dnad_ray.storage.weights_reader import MAX_BYTES, parse_checkpoint
from dnad_ray.training.loop import StepProgress, finish
from search_spaces.genotype import Genotype
from search_spaces.network import network_from
from search_spaces.shape import NetworkShape
from search_spaces.stages import stages

__all__ = ["best_of_front", "make_teacher", "teacher_genotype", "train_teacher", "untrained_teacher"]

_PREFIXES = ("module.", "model.")
"""Prefixes of names in a checkpoint: from DistributedDataParallel, and from a teacher that was saved here."""


def make_teacher(
    config: RunConfig,
    data: ImageData,
    device: torch.device,
    progress: StepProgress | None = None,
    *,
    stop: StopCheck | None = None,
    checkpoints: Place | None = None,
) -> Teacher:
    """Make the teacher of a run from ``distill.teacher``; validation images are only used to measure it.

    Args:
        config: The run.
        data: Images.
        device: Device for training and measurement.
        progress: Called with (steps done, total steps) during training.
        stop: Called before each step of its training; tells whether to stop.
        checkpoints: Folder of the checkpoints of its training, or None. Training resumes from the newest one.

    Raises:
        ConfigError: If it cannot be made, or does not fit the images of the run.
        WeightsError: If a checkpoint holds no weights.
        RunFolderError: If a file of ours cannot be read, or a checkpoint belongs to another teacher.
        NonFiniteLossError: If the loss becomes NaN or infinite.
        Stopped: If a stop was requested; the same call then resumes from the last checkpoint.
    """
    teacher = untrained_teacher(config, data, device)
    if config.distill.teacher.is_trained:
        training = TeacherTraining(teacher.network, config, data, device)
        finish(training, checkpoints, stop=stop, progress=progress)
    # Also where it was saved with an accuracy: the earlier run may have held out other images.
    return _measured(teacher, data, config.evaluation.batch_size)


def untrained_teacher(config: RunConfig, data: ImageData, device: torch.device) -> Teacher:
    """Return the teacher as it is before its training, with an accuracy of 0; a loaded one is complete.

    Args:
        config: The run.
        data: Images.
        device: Device of the network.

    Raises:
        ConfigError: If it cannot be made, or does not fit the images of the run.
        WeightsError: If a checkpoint holds no weights.
        RunFolderError: If a file of ours cannot be read.
    """
    settings = config.distill.teacher
    if settings.source == "derived":
        return _initial(config, data, device)
    if settings.source == "saved":
        return _saved(config, data, device)
    outline = ForeignSpec.of(settings, data, config.space.stem)
    with _own_seed(config.seed):
        network = build_foreign(outline)
    if settings.is_trained:
        check_training(network, outline)
    if settings.weights is not None:
        _load_checkpoint(network, settings, data.num_classes)
    classes = data.classes if settings.is_trained else ()  # a checkpoint does not name its classes
    teacher = Teacher(to_device(network, device), None, None, 0.0, None, outline, classes=classes)
    check_teacher(teacher, data, config.distill, config.space.stem, "distill.teacher")
    return teacher


def train_teacher(
    config: RunConfig,
    data: ImageData,
    device: torch.device,
    progress: StepProgress | None = None,
    *,
    stop: StopCheck | None = None,
    checkpoints: Place | None = None,
) -> Teacher:
    """Train a network of ours on the training images; validation images are only used to measure it.

    Args:
        config: The run; ``distill.teacher`` sets the network and the number of epochs.
        data: Images.
        device: Device for training.
        progress: Called with (steps done, total steps).
        stop: Called before each step; tells whether to stop.
        checkpoints: As in :func:`make_teacher`.

    Raises:
        Stopped: If a stop was requested.
        NonFiniteLossError: If the loss becomes NaN or infinite.
        RunFolderError: If the configured genotype file cannot be read.
        ConfigError: If features are imitated and it has another number of stages.
    """
    teacher = _initial(config, data, device)
    finish(TeacherTraining(teacher.network, config, data, device), checkpoints, stop=stop, progress=progress)
    return _measured(teacher, data, config.evaluation.batch_size)


def _initial(config: RunConfig, data: ImageData, device: torch.device) -> Teacher:
    """Return an untrained network of ours."""
    genotype = teacher_genotype(config)
    shape = NetworkShape(images=data.shape, init_channels=config.distill.teacher.init_channels, stem=config.space.stem)
    with _own_seed(config.seed):
        network = to_device(network_from(genotype, shape), device)
    return Teacher(network, genotype, shape, 0.0, classes=data.classes)


def teacher_genotype(config: RunConfig) -> Genotype:
    """Return the topology of the teacher: the configured one, or separable convolutions on both inputs.

    Raises:
        RunFolderError: If the file or the run folder cannot be read.
        ConfigError: If features are imitated and the network has another number of stages.
    """
    file = config.distill.teacher.genotype
    if file is not None:
        genotype = best_of_front(file) or read_any_genotype(file, config.space.num_cells)
        needed = len(config.distill.stage_ratios)
        if config.distill.uses_features and stages(genotype)[-1] + 1 != needed:
            allowed = f"a network of {needed} stages, that is with {needed - 1} reduction cells"
            raise ConfigError("distill.teacher.genotype", file, allowed)
        return genotype
    return space_of(config.space).usual_teacher()


def best_of_front(path: str) -> Genotype | None:
    """Return the network of lowest proxy error in a run folder, at equal error the cheapest; None for other folders.

    A search that imitates a network from an earlier search is born-again distillation (Furlanello et al., arXiv
    1805.04770) of topologies.

    Raises:
        ConfigError: If the run has no snapshot.
        RunFolderError: If the run folder or the genotype cannot be read.
    """
    folder = place(path, "distill.teacher.genotype")
    if not (reached(folder, "distill.teacher.genotype") and is_run(folder)):
        return None
    rows = read_run(folder).snapshots
    if not rows:
        raise ConfigError("distill.teacher.genotype", path, "a run with a snapshot at least")
    best = min(rows, key=lambda row: (-row["proxy_accuracy"], row["macs"], row["digest"]))
    return read_genotype(folder, best["digest"])


def _saved(config: RunConfig, data: ImageData, device: torch.device) -> Teacher:
    path = config.distill.teacher.weights or ""
    folder = place(path, "distill.teacher.weights")
    file = None if _is_exported(folder) else read_teacher(folder)
    if file is None and not _is_exported(folder):
        allowed = (
            "a folder that `dnad-ray teacher` wrote, RUN/teacher, RUN/retrained/<job>, or an exported .safetensors file"
        )
        raise ConfigError("distill.teacher.weights", path, allowed)
    teacher = _exported(folder, data, device) if file is None else load_teacher(file, device)
    check_teacher(teacher, data, config.distill, config.space.stem, "distill.teacher.weights")
    return teacher


def _is_exported(path: Place) -> bool:
    return (path / DESCRIPTION).is_file() or (path.suffix == ".safetensors" and path.is_file())


def _exported(path: Place, data: ImageData, device: torch.device) -> Teacher:
    """Load a network from `dnad-ray retrain` or `dnad-ray export` as teacher, with the normalisation of its training.

    Warns:
        UserWarning: If it was also trained on the validation images of the search.
    """
    is_file = path.suffix == ".safetensors"
    trained = read_network(path.parent, path.name, f"{path.stem}.json") if is_file else read_network(path)
    genotype = trained.spec.genotype
    if genotype is None:
        allowed = "a network of a genotype; for one of torchvision distill.teacher.source is torchvision"
        raise ConfigError("distill.teacher.weights", f"{trained.spec.model} in {address(path)}", allowed)
    if trained.facts.get("split") == "test":
        warnings.warn(
            f"{address(path)} was trained on the held-out images of the search too: its accuracy on them says nothing, "
            "and proxy accuracies of networks that imitate it are optimistic",
            stacklevel=2,
        )
    pairs = list(zip(trained.mean, trained.std, data.mean, data.std, strict=False))
    scale = tuple(ours / theirs for _, theirs, _, ours in pairs)
    shift = tuple((ours - theirs) / std for theirs, std, ours, _ in pairs)
    same = (trained.mean, trained.std) == (tuple(data.mean), tuple(data.std))
    return Teacher(
        frozen(to_device(trained.network, device)),
        genotype.pruned(),
        trained.spec.shape(trained.images),
        0.0,
        renormalisation=None if same else Renormalisation(scale, shift),
        classes=trained.classes,
    )


def _load_checkpoint(network: ForeignNetwork, settings: TeacherConfig, num_classes: int) -> None:
    """Load weights from a checkpoint; if the model is trained further, its classifier may be for other classes.

    Raises:
        ConfigError: If there is no such file, or it belongs to another model.
        WeightsError: If it holds no weights.
    """
    key, path = "distill.teacher.weights", Path(settings.weights or "")
    try:
        given = parse_checkpoint(read_file(path, MAX_BYTES, follow_links=True), str(path))
    except OSError as error:
        raise ConfigError(key, str(path), f"a readable checkpoint ({type(error).__name__})") from None
    wanted = network.model.state_dict()
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in given) and not wanted.keys() & given:
            given = {name.removeprefix(prefix): tensor for name, tensor in given.items()}
    missing, foreign = sorted(wanted.keys() - given), sorted(given.keys() - wanted)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or foreign:
        what = f"without {missing[0]!r}" if missing else f"with {foreign[0]!r}"
        raise ConfigError(key, f"{path} {what}", f"the weights of {settings.model}, each by its name")
    others = [name for name in given if given[name].shape != wanted[name].shape]
    heads = {len(given[name]) for name in others if given[name].shape[1:] == wanted[name].shape[1:]}
    is_head = bool(others) and len(heads) == 1 and all(len(wanted[name]) == num_classes for name in others)
    if is_head and settings.is_trained:
        for name in others:
            del given[name]
    elif is_head:
        allowed = f"{num_classes} classes, as these images have; distill.teacher.train=true replaces its classifier"
        raise ConfigError(key, f"a model of {heads.pop()} classes", allowed)
    elif others:
        name = others[0]
        raise ConfigError(key, f"{name} of shape {tuple(given[name].shape)}", f"{tuple(wanted[name].shape)}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in given.values()):
        raise ConfigError(key, f"{path} with values that are no numbers", "finite weights")
    network.model.load_state_dict(given, strict=False)


@contextmanager
def _own_seed(seed: int) -> Iterator[None]:
    """Seed the global random stream inside the block, and restore it afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _measured(teacher: Teacher, data: ImageData, batch_size: int) -> Teacher:
    """Return the frozen teacher with its accuracy and calibration on the validation images."""
    device = next(frozen(teacher.network).parameters()).device
    logits, labels = [], []
    for images, right in evaluation_batches(data.validation, data, batch_size, device, MEMORY_FORMAT):
        logits.append(teacher.predict(images).logits)
        labels.append(right)
    said, right = torch.cat(logits), torch.cat(labels)
    if not bool(torch.isfinite(said).all()):
        raise ConfigError(
            "distill.teacher", "a teacher whose outputs are no numbers", "another learning rate, or weights"
        )
    accuracy = int((said.argmax(1) == right).sum()) / len(right)
    calibration = calibration_of(said, right)
    return replace(teacher, accuracy=accuracy, calibration=calibration)
