"""The configuration of a run: frozen models with one line per field (meaning, unit, symbol in the paper).

Everything that a user can change is a field here; unknown keys and impossible values are refused in words.
"Paper" is DNAD, arXiv 2504.20080.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from dnad_ray.config.distill import DistillConfig, SharesConfig, TeacherConfig
from dnad_ray.config.section import Count, NonNegative, Positive, RefusedError, Section, Share, config_error
from dnad_ray.config.sweep import LimitConfig, SweepConfig, WatchConfig
from dnad_ray.errors import ConfigError
from dnad_ray.storage.yaml_reader import YamlError, parse_yaml
from dnad_ray.text import dotted
from search_spaces.named import SPACES

__all__ = [
    "DataConfig",
    "DistillConfig",
    "EvaluationConfig",
    "FloorConfig",
    "LimitConfig",
    "RunConfig",
    "SharesConfig",
    "ShrinkConfig",
    "SpaceConfig",
    "SweepConfig",
    "TeacherConfig",
    "TrainConfig",
    "WatchConfig",
    "config_from_dict",
    "config_to_dict",
    "parse_assignment",
    "with_overrides",
]

_VARIED = ("sweep.grid.", "sweep.ranges.")


class DataConfig(Section):
    """Which images."""

    name: str = "digits"
    """`digits` (embedded), `cifar10`, `cifar100`, `svhn`, `fashion_mnist`, or `imagefolder`."""
    root: str | None = None
    """Folder with the data; needed by every dataset but `digits`."""
    download: bool = False
    """Allow a torchvision dataset to be downloaded into `root`."""
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Side of the images in pixels; None takes the dataset's own."""
    validation_share: Share = 0.2
    """Share of each class's training images held out for the proxy accuracy."""
    split_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of that split; the same for all trials, so that their scores compare."""
    augment: Literal["auto", "none"] = "auto"
    """`auto` takes what suits the dataset (crop, flip where mirror images keep their class), `none` nothing."""
    cutout: Annotated[int, Field(ge=0)] = 0
    """Side of the square that is blanked in each training image, in pixels; 0 for none."""
    storage: Literal["auto", "memory", "disk"] = "auto"
    """`memory` decodes images once, `disk` a folder's for each batch (every node must see it), `auto` what fits."""
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Processes per trial that decode ahead from disk; None takes its CPUs but one (1 to 8), 0 decodes in the trial."""

    @model_validator(mode="after")
    def _disk_has_an_effect(self) -> DataConfig:
        if self.storage == "disk" and self.name != "imagefolder":
            why = f"which has no effect with name {self.name!r}, whose images are in memory"
            raise RefusedError("storage", self.storage, "auto or memory, or name 'imagefolder'", why)
        if self.workers is not None and (self.storage == "memory" or self.name != "imagefolder"):
            why = f"which has no effect with storage {self.storage!r} and name {self.name!r}"
            raise RefusedError(
                "workers", self.workers, "storage auto or disk of name 'imagefolder', or no workers", why
            )
        return self


class SpaceConfig(Section):
    """What can be built."""

    name: str = "dnad"
    """Named search space; `dnad-ray spaces` lists them."""
    operations: tuple[str, ...] | None = None
    """Candidate operations; None takes those of the named space."""
    num_cells: Annotated[int, Field(ge=1, le=100)] = 8
    """Cells L; those at L//3 and 2L//3 halve the resolution."""
    num_nodes: Annotated[int, Field(ge=1, le=16)] = 4
    """Intermediate nodes per cell."""
    init_channels: Annotated[int, Field(ge=2, le=1024)] = 16
    """Width C of the supernet."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """`cifar` keeps the resolution, `imagenet` divides it by 8."""
    sharing: Literal["cell", "kind", "all"] | None = None
    """Which cells have one topology: each its own, normal and reduction cells, all; None is as in the named space."""
    derivation: Literal["alive", "inputs", "edges"] | None = None
    """What a snapshot keeps: all that is alive, the strongest inputs per node, one operation an edge; None as above."""
    inputs_kept: Annotated[int, Field(ge=1, le=2)] | None = None
    """Inputs that deletion leaves each node at least; with `derivation: inputs` also at most; None as above."""
    num_stages: Annotated[int, Field(ge=1, le=8)] | None = None
    """Resolutions: cells at L/S, 2L/S, ... begin the later ones; None as above."""

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_the_named_space(cls, data: Any) -> Any:
        # Whoever names a space and no size means its usual size; what is written out stays as it is.
        template = SPACES.get(data["name"]) if isinstance(data, dict) and isinstance(data.get("name"), str) else None
        if template is None:
            return data
        usual = {name: getattr(template, name) for name in ("num_cells", "num_nodes", "init_channels")}
        return {**usual, **data}


class TrainConfig(Section):
    """How supernet and architecture weights learn, both on training images only (one-level)."""

    epochs: Count = 120
    """Most passes over the training images."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs before the sparsity loss and deletions begin."""
    batch_size: Count = 128
    """Images per step."""
    learning_rate: Positive = 5e-4
    """Adam step size of the network weights."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.999)
    """Adam decay rates of the network weights."""
    weight_decay: NonNegative = 3e-4
    """Adam weight decay of the network weights."""
    grad_clip: Positive = 5.0
    """Largest gradient norm of the network weights."""
    arch_learning_rate: Positive = 0.2
    """SGD step size of the architecture weights a."""
    arch_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """SGD momentum of the architecture weights."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where the trial has one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs convolutions in half precision, norms and losses in full; slower on CPUs, untried on GPUs."""
    cuda_graphs: bool = False
    """Record a step's kernels on a GPU and replay them until something is deleted; untried so far, hence off."""
    num_processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes that share every batch of a search, each on a GPU or CPUs of its own; `dnad-ray sweep` only."""
    look_steps: Count | None = None
    """Steps between looks of the host at losses and weights, when it also deletes; None takes 1 on CPU, 8 on a GPU."""

    @model_validator(mode="after")
    def _graphs_and_processes(self) -> TrainConfig:
        if self.num_processes > 1 and (self.cuda_graphs or self.batch_size < 2 * self.num_processes):
            most = "1 with cuda_graphs" if self.cuda_graphs else f"at most {self.batch_size // 2}"
            allowed = (
                f"{most}, so that each has 2 images of a batch of {self.batch_size} or more, and none records a "
                "message to the others"
            )
            raise RefusedError("num_processes", self.num_processes, allowed)
        if self.cuda_graphs and self.device == "cpu":
            raise RefusedError("cuda_graphs", True, "False, or a GPU", "which has no effect with device 'cpu'")
        return self


class FloorConfig(Section):
    """Where shrinking ends: the first limit that is reached; None is no limit."""

    macs: Count | None = None
    """Stop below this many multiply-adds of the derived network (fvcore total)."""
    operations: Count | None = None
    """Stop at this many alive operations."""
    sparsity: Positive | None = None
    """Stop below this sparsity sum S (the release's criterion, 250 there)."""


class ShrinkConfig(Section):
    """Search by deleting (SNPS). Rates are per epoch, so that they keep their meaning across data sizes."""

    rate: Annotated[float, Field(gt=0, le=1)] = 0.006
    """Target shrink rate: share of the initial candidates deleted per epoch (n_target x steps / candidates)."""
    baseline: Share = 0.01
    """A candidate whose normalised weight falls below this is deleted for good."""
    pressure: Literal["added", "paper"] = "added"
    """`added` leaves the task's gradient as it is, caps gamma and the rate; `paper` is L (1 + gamma S) + gamma mu S."""
    criterion: Literal["weight", "taylor", "removal"] = "taylor"
    """What goes first: the smallest weight w, the least |w dL/dw| in the mean over steps, the least loss of removal."""
    gamma_init: Positive = 1e-4
    """First sparsity weight gamma."""
    gamma_max: Positive = 0.1
    """Level of gamma at and above which stalls count; its cap under the pressure `added`."""
    gamma_growth: Annotated[float, Field(gt=1)] = 48.9
    """Factor by which gamma grows in an epoch without deletions (1.01 per step at 391 steps); decays likewise."""
    mu: NonNegative = 0.1
    """Offset factor mu of the sparsity term."""
    mu_growth: Annotated[float, Field(ge=1)] = 1.5
    """Factor on mu after a Pareto snapshot."""
    rate_factor: Positive = 1.0
    """Factor xi on the target shrink rate after a Pareto snapshot."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay tau, per step, of the running mean of deletions."""
    stall_epochs: Positive = 0.128
    """Epochs of stalls in a row that make a Pareto snapshot (50 steps of 391)."""
    floor: FloorConfig = FloorConfig(sparsity=250.0)
    """Where to stop."""


class EvaluationConfig(Section):
    """How a shrunken network is scored and counted."""

    init_channels: Annotated[int, Field(ge=2, le=1024)] = 36
    """Width C at which derived networks are counted and later retrained."""
    interval_epochs: Count = 1
    """Epochs between pruned snapshots."""
    batch_size: Count = 512
    """Images per step when scoring."""
    trace: Literal["none", "final", "all"] = "final"
    """Snapshots whose costs, sums over a table, are confirmed by a trace of the whole network (half a second each)."""
    recalibration_images: Annotated[int, Field(ge=0)] = 1024
    """Training images on which batch-norm statistics are re-estimated before scoring; 0 keeps the running ones."""
    ladder: bool = True
    """At each interval, warm-up included, record networks of all sizes that the weights imply; 4 % of the time."""
    keep_weights: bool = False
    """Keep each snapshot's shared weights, of what is alive, as safetensors, for `dnad-ray retrain --inherit`."""


class RunConfig(Section):
    """A complete run."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of initial weights, order of images and augmentation."""
    data: DataConfig = DataConfig()
    """Which images."""
    space: SpaceConfig = SpaceConfig()
    """What can be built."""
    train: TrainConfig = TrainConfig()
    """How it learns."""
    shrink: ShrinkConfig = ShrinkConfig()
    """Search by deleting."""
    distill: DistillConfig = DistillConfig()
    """Search by imitating."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How a shrunken network is scored and counted."""
    limit: LimitConfig = LimitConfig()
    """Where a trial ends early."""
    sweep: SweepConfig = SweepConfig()
    """Many searches in parallel."""
    watch: WatchConfig = WatchConfig()
    """What is kept for people who watch."""

    @model_validator(mode="after")
    def _floor_and_warmup(self) -> RunConfig:
        if self.train.warmup_epochs >= self.train.epochs:
            allowed = f"less than train.epochs ({self.train.epochs}), or nothing is ever deleted"
            raise RefusedError("train.warmup_epochs", self.train.warmup_epochs, allowed)
        return self


def config_from_dict(data: Mapping[str, Any], origin: str = "config") -> RunConfig:
    """Validate plain data.

    Args:
        data: Nested dictionaries, as read from YAML; what is missing takes its default.
        origin: Where they came from, for error messages.

    Raises:
        ConfigError: On the first unknown key or impossible value, in one line.
    """
    try:
        return RunConfig.model_validate(dict(data))
    except ValidationError as error:
        raise config_error(error, RunConfig, f"{origin}: ") from None


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Return plain data for YAML and JSON, every field written out."""
    return config.model_dump(mode="json")


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``a.b=value`` as given to ``--set``; the value is read as YAML.

    >>> parse_assignment("shrink.rate=0.05")
    ('shrink.rate', 0.05)
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError("--set", text, "KEY=VALUE, for example shrink.rate=0.05")
    try:
        parsed = parse_yaml(value, key)
    except YamlError:
        raise ConfigError(f"--set {key}", value, "a YAML value, for example 0.05, [1, 2] or null") from None
    if isinstance(parsed, str):  # YAML 1.1 reads 1e-4 (no dot) as a string; nobody who writes it means one
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    return key.strip(), parsed


def with_overrides(config: RunConfig, overrides: Mapping[str, Any], origin: str = "--set") -> RunConfig:
    """Return a copy with some dotted keys replaced, validated as a whole.

    Raises:
        ConfigError: If a key does not exist or a value is impossible.
    """
    data = config_to_dict(config)
    if not config.distill.model_fields_set & {"temperature"}:
        # A temperature that followed from the kind must follow from the new kind too.
        data["distill"]["temperature"] = None
    for key, value in overrides.items():
        section: Any = data
        is_varied = key.startswith(_VARIED)
        # What is varied is a config key itself, with dots of its own, and need not stand in the grid yet.
        *parents, last = key.split(".", 2) if is_varied else key.split(".")
        for name in parents:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict) or not (is_varied or last in section):
            names = list(dotted(config_to_dict(config)))
            section_name = key.rpartition(".")[0]
            siblings = [name for name in names if section_name and name.rpartition(".")[0] == section_name]
            close = siblings or difflib.get_close_matches(key, names, n=5, cutoff=0.5) or names
            raise ConfigError(origin, key, f"{', '.join(close)}; `dnad-ray config RECIPE` prints every key")
        section[last] = value
    return config_from_dict(data, origin)
