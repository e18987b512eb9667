"""Foreign networks as teachers: conversion of their input images, and the modules at which their stages end."""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnad_ray.distill.foreign_spec import ForeignSpec
from dnad_ray.errors import ConfigError, UserError, one_line
from dnad_ray.runtime.torchvision_import import torchvision_models
from search_spaces.network import NetworkOutput

__all__ = ["ForeignNetwork", "TrainingOutput", "build_foreign", "check_training"]

_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_LARGEST_LEVELS = 16


class TrainingOutput(NamedTuple):
    """The output of a foreign network in training mode.

    Attributes:
        logits: (N, num_classes).
        taps: As those of :class:`search_spaces.network.NetworkOutput`.
        auxiliary: Logits of each auxiliary head, which there is in training only (GoogLeNet, Inception v3).
    """

    logits: Tensor
    taps: tuple[Tensor | None, ...]
    auxiliary: tuple[Tensor, ...]


class ForeignNetwork(nn.Module):
    """Any model as a teacher: maps the images of the run to logits and taps.

    Build it with :func:`build_foreign`.

    Attributes:
        tap_channels: Channels of the taps; 0 for a stage without a tap.
        tap_sides: Sides of the taps in pixels; 0 for a stage without a tap.

    Args:
        model: Maps images to logits.
        outline: Its description.
        channels: Number of input channels of the model.
    """

    def __init__(self, model: nn.Module, outline: ForeignSpec, channels: int) -> None:
        super().__init__()
        self.model = model
        self.tap_channels: tuple[int, ...] = ()
        self.tap_sides: tuple[int, ...] = ()
        self._input_size, self._channels = outline.input_size, channels
        for name in ("scale", "shift"):
            values = torch.tensor(getattr(outline, name))[:, None, None]
            self.register_buffer(f"_{name}", values, persistent=False)
        self._is_plain = set(outline.scale) == {1.0} and set(outline.shift) == {0.0}
        self._kept: dict[int, Tensor] = {}

    def forward(self, images: Tensor) -> NetworkOutput | TrainingOutput:
        """Map images (N, in_channels, H, W), with the normalisation of the run, to logits and taps.

        In training mode a model may give a tuple, as those of torchvision with auxiliary heads do: logits first.
        """
        if images.shape[1] < self._channels:
            images = images.expand(-1, self._channels, -1, -1)
        if not self._is_plain:
            images = images * cast(Tensor, self._scale) + cast(Tensor, self._shift)
        if self._input_size is not None and self._input_size != images.shape[-1]:
            size = (self._input_size, self._input_size)
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        self._kept.clear()
        output: Any = self.model(images)
        taps = tuple(self._kept.get(stage) for stage in range(len(self.tap_channels)))
        self._kept.clear()
        if self.training:
            logits, *others = output if isinstance(output, tuple) else (output,)
            return TrainingOutput(logits, taps, tuple(other for other in others if other is not None))
        return NetworkOutput(output, taps)

    def watch(self, names: Sequence[str | None]) -> None:
        """Keep the outputs of the named modules from now on, one per stage; None for a stage without a tap."""
        for stage, name in enumerate(names):
            if name is not None:
                self.model.get_submodule(name).register_forward_hook(self._keeper(stage))

    def _keeper(self, stage: int) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._kept[stage] = output

        return keep


def build_foreign(outline: ForeignSpec) -> ForeignNetwork:
    """Build a foreign teacher with arbitrary weights, on the CPU; leaves the global random stream unchanged.

    Raises:
        ConfigError: If the model does not exist, cannot process the images of the run, or has another number of
            classes; or if a tap does not exist or gives no features.
    """
    with torch.random.fork_rng():
        model = _torchvision(outline) if outline.source == "torchvision" else _from_module(outline)
    wanted = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if wanted is None or outline.images.in_channels not in (1, wanted):
        raise ConfigError(
            "distill.teacher.model",
            f"{outline.model}, for images of {wanted or 'no'} channels",
            f"a convolutional network for the {outline.images.in_channels} channels of these images",
        )
    if len(outline.scale) not in (1, wanted):
        raise ConfigError(
            "distill.teacher.mean", f"{len(outline.scale)} values", f"{wanted}, as the model has channels"
        )
    network = ForeignNetwork(model, outline, wanted).eval()
    if outline.source == "torchvision" and outline.input_size is None:
        _keep_resolution(network, outline)
    names, maps = _taps_of(network, outline)
    network.tap_channels = tuple(0 if entry is None else entry.shape[1] for entry in maps)
    network.tap_sides = tuple(0 if entry is None else entry.shape[-1] for entry in maps)
    network.watch(names)
    return network


@torch.no_grad()
def check_training(network: ForeignNetwork, outline: ForeignSpec) -> None:
    """Check that a network gives logits in training mode too, which may run other parts of it; it stays as it was.

    Raises:
        ConfigError: If it fails, or gives something else.
    """
    images = outline.images
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    was_training = network.training
    try:
        with torch.random.fork_rng():
            output = network.train()(torch.zeros(2, images.in_channels, images.image_size, images.image_size))
        for logits in (output.logits, *output.auxiliary):
            if not isinstance(logits, Tensor) or logits.shape != (2, images.num_classes):
                given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise ValueError(f"in training it gives {given}, not logits of {images.num_classes} classes")
    except Exception as error:  # any error of a model that was made for other images
        size = outline.input_size or images.image_size
        given = f"{outline.model} ({one_line(error)[:200]})"
        allowed = (
            f"a model that can be trained on images of {size}x{size} pixels; distill.teacher.input_size enlarges them"
        )
        raise ConfigError(
            "distill.teacher.model", given, f"{allowed}, weights=FILE without train=true needs no training"
        ) from error
    finally:
        network.train(was_training)
        for buffer, before in buffers:
            buffer.copy_(before)


def _torchvision(outline: ForeignSpec) -> nn.Module:
    models = torchvision_models()
    names: list[str] = models.list_models(module=models)
    if outline.model not in names:
        close = difflib.get_close_matches(outline.model, names, n=5) or names
        raise ConfigError("distill.teacher.model", outline.model, f"a torchvision model: {', '.join(close)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of initial weights that other versions draw otherwise
        return cast(nn.Module, models.get_model(outline.model, weights=None, num_classes=outline.images.num_classes))


def _from_module(outline: ForeignSpec) -> nn.Module:
    module, _, factory = outline.model.partition(":")
    try:
        made = getattr(importlib.import_module(module), factory)(num_classes=outline.images.num_classes)
    except UserError:
        raise
    except Exception as error:  # any error of the user's own code
        allowed = "module:factory that can be imported (PYTHONPATH) and called with num_classes=N"
        raise ConfigError("distill.teacher.model", f"{outline.model} ({one_line(error)[:200]})", allowed) from error
    if not isinstance(made, nn.Module):
        allowed = "a factory that returns a torch.nn.Module"
        raise ConfigError("distill.teacher.model", f"{outline.model}, a {type(made).__name__}", allowed)
    return made


def _keep_resolution(network: ForeignNetwork, outline: ForeignSpec) -> None:
    """Remove strides from a model for large images, the first ones first, until its last stage is as large as ours.

    At each step all strided layers with the largest input maps lose their stride, in both branches of a residual
    block. Convolutions then have stride 1, and pools do nothing. No weight changes its shape.
    """
    for _ in range(_LARGEST_LEVELS):
        halving = [(ours, after) for ours, before, after in _halving_layers(network, outline) if before > after]
        sides = {module: before for module, before, after in _halving_layers(network, outline) if before > after}
        if not halving or min(after for _, after in halving) >= outline.sides[-1]:
            return
        largest = max(sides.values())
        for module in (module for module, side in sides.items() if side == largest):
            module.stride = (1, 1) if isinstance(module, nn.Conv2d) else 1
            if not isinstance(module, nn.Conv2d):
                module.kernel_size, module.padding = 1, 0


def _halving_layers(network: ForeignNetwork, outline: ForeignSpec) -> Iterator[tuple[Any, int, int]]:
    """Yield each strided layer with the sides of its input and output."""
    found: list[tuple[nn.Module, int, int]] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        found.append((module, inputs[0].shape[-1], output.shape[-1]))

    layers = [module for module in network.model.modules() if isinstance(module, _STRIDED)]
    _probed(network, outline, [module.register_forward_hook(note) for module in layers])
    yield from found


def _taps_of(network: ForeignNetwork, outline: ForeignSpec) -> tuple[list[str | None], list[Tensor | None]]:
    """Return for each stage the name of the tapped module and its output for one image; None without a tap."""
    modules = dict(network.model.named_modules())
    declared = outline.taps or getattr(network.model, "tap_names", None)
    for name in declared or ():
        if name not in modules or not name:
            close = (
                difflib.get_close_matches(str(name), modules, n=5, cutoff=0.4) or [key for key in modules if key][:20]
            )
            raise ConfigError("distill.teacher.taps", name, f"modules of {outline.model}, such as {', '.join(close)}")
    given: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            given.pop(name, None)  # ordered by the last call of each module
            if isinstance(output, Tensor):
                given[name] = output

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in modules.items() if name]
    logits = _probed(network, outline, hooks).logits
    num_classes = outline.images.num_classes
    if logits.shape != (1, num_classes):
        raise ConfigError(
            "distill.teacher.model",
            f"{outline.model} with an output of shape {tuple(logits.shape)}",
            f"logits for the {num_classes} classes of these images, shape (1, {num_classes})",
        )
    if declared is not None:
        for name in declared:
            if name not in given or given[name].dim() != 4:
                what = f"{name}, which gives no tensor" if name not in given else f"{name} of {given[name].dim()} axes"
                raise ConfigError("distill.teacher.taps", what, "modules that give features (N, C, H, W)")
        return list(declared), [given[name] for name in declared]
    found = [_stage_end(given, side) for side in outline.sides]
    return found, [None if name is None else given[name] for name in found]


def _stage_end(given: dict[str, Tensor], side: int) -> str | None:
    """Return the last outermost module whose output has the side: a stage, not a layer inside a block."""
    names = [name for name, maps in given.items() if maps.dim() == 4 and maps.shape[-1] == side]
    return min(reversed(names), key=lambda name: name.count("."), default=None)


def _probed(network: ForeignNetwork, outline: ForeignSpec, hooks: Sequence[Any]) -> NetworkOutput:
    """Return the output of the network for one image; removes the hooks afterwards."""
    image = torch.zeros(1, outline.images.in_channels, outline.images.image_size, outline.images.image_size)
    try:
        with torch.inference_mode():
            output: NetworkOutput = network(image)
            if not isinstance(output.logits, Tensor):
                raise TypeError(f"it gives a {type(output.logits).__name__}, not logits")
            return output
    except Exception as error:  # any error of a model that was made for other images
        size = outline.input_size or outline.images.image_size
        allowed = f"a model for images of {size}x{size} pixels; distill.teacher.input_size enlarges them"
        given = f"{outline.model} ({one_line(error)[:200]})"
        raise ConfigError("distill.teacher.model", given, allowed) from error
    finally:
        for hook in hooks:
            hook.remove()
