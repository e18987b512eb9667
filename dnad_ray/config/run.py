"""The configuration of a run: frozen models with a docstring per field (meaning, unit, symbol in the paper).

Everything that a user can change is a field. Unknown keys and impossible values raise a clear error.
"Paper" is DNAD, arXiv 2504.20080.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from dnad_ray.config.distill import DistillConfig, SharesConfig, TeacherConfig
from dnad_ray.config.section import (
    LARGEST,
    Amount,
    Count,
    CountOrZero,
    Decay,
    Growth,
    NonNegative,
    Positive,
    RefusedError,
    Section,
    Seed,
    Share,
    config_error,
)
from dnad_ray.config.sweep import LimitConfig, SweepConfig, WatchConfig
from dnad_ray.errors import ConfigError
from dnad_ray.storage.yaml_reader import YamlError, parse_yaml
from dnad_ray.text import dotted, is_text
from search_spaces.named import SPACES

__all__ = [
    "OF_THE_PLACE",
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

OF_THE_PLACE = frozenset({"root", "download", "storage", "broken", "workers"})
"""Settings of the data that say where the images are and how they are read, but not what they are."""


class DataConfig(Section):
    """The images."""

    name: str = "digits"
    """`digits` (embedded), `cifar10`, `cifar100`, `svhn`, `fashion_mnist`, or `imagefolder`."""
    root: str | None = None
    """Folder of the data; required for all datasets except `digits`."""
    download: bool = False
    """Whether a torchvision dataset may be downloaded into `root`."""
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Side of the images in pixels. None takes the size of the dataset."""
    validation_share: Share = 0.2
    """Share of the training images of each class that is held out for validation (proxy accuracy)."""
    split_seed: Seed = 0
    """Seed of the validation split. It is the same for all trials, so that their accuracies can be compared."""
    augment: Literal["auto", "none"] = "auto"
    """`auto`: the usual augmentation of the dataset (crops, and flips if they keep the class). `none`: none."""
    padding: Literal["edge", "black"] = "edge"
    """What is beyond the edge in a random crop: `edge`, the nearest pixels, or `black`, as in the code of papers; black
    borders cost 3 points of accuracy on 3,000 images in 20 epochs."""
    cutout: CountOrZero = 0
    """Side of the cutout square in pixels. 0: no cutout."""
    storage: Literal["auto", "memory", "disk"] = "auto"
    """`memory`: decode all images once. `disk`: decode those of an image folder for each batch; every node must see the
    folder. `auto`: `memory` if they fit, otherwise `disk`."""
    broken: Literal["refuse", "skip"] = "refuse"
    """Image files of a folder that cannot be decoded: `refuse` names them and ends, `skip` leaves them out."""
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Processes per trial that decode from disk. None: the trial's CPUs minus one (1 to 8). 0: in the trial itself."""

    @model_validator(mode="after")
    def _disk_has_an_effect(self) -> DataConfig:
        if self.storage == "disk" and self.name != "imagefolder":
            why = f"which has no effect with name {self.name!r}, whose images are in memory"
            raise RefusedError("storage", self.storage, "auto or memory, or name 'imagefolder'", why)
        if self.broken == "skip" and self.name != "imagefolder":
            why = f"which has no effect with name {self.name!r}, whose images are no files of yours"
            raise RefusedError("broken", self.broken, "refuse, or name 'imagefolder'", why)
        if self.workers is not None and (self.storage == "memory" or self.name != "imagefolder"):
            why = f"which has no effect with storage {self.storage!r} and name {self.name!r}"
            raise RefusedError(
                "workers", self.workers, "storage auto or disk of name 'imagefolder', or no workers", why
            )
        return self


class SpaceConfig(Section):
    """The search space."""

    name: str = "dnad"
    """Name of the search space; `dnad-ray spaces` lists the names."""
    operations: tuple[str, ...] | None = None
    """Candidate operations. None takes those of the named space."""
    num_cells: Annotated[int, Field(ge=1, le=100)] = 8
    """Number of cells L. The cells at L//3 and 2L//3 halve the resolution."""
    num_nodes: Annotated[int, Field(ge=1, le=16)] = 4
    """Number of intermediate nodes per cell."""
    init_channels: Annotated[int, Field(ge=2, le=1024)] = 16
    """Width C of the supernet."""
    stem: Literal["cifar", "half", "quarter", "imagenet"] = "cifar"
    """Stem: `cifar` keeps the resolution, `half` and `quarter` (residual skeleton only) divide it by 2 and 4,
    `imagenet` (cells of two inputs only) by 8."""
    sharing: Literal["cell", "kind", "all"] | None = None
    """Cells with a common topology. `cell`: none; `kind`: all normal cells, and all reduction cells; `all`: all cells.
    None takes that of the named space."""
    derivation: Literal["alive", "inputs", "edges"] | None = None
    """Candidates in a snapshot: `alive`: all alive ones; `inputs`: the strongest inputs of each node; `edges`: one
    operation per edge. None takes that of the named space."""
    inputs_kept: Annotated[int, Field(ge=1, le=2)] | None = None
    """Minimum of inputs per node; for derivation `inputs` also the maximum. None takes that of the named space."""
    num_stages: Annotated[int, Field(ge=1, le=8)] | None = None
    """Number of resolutions S; reduction cells are at L/S, 2L/S, ... None takes that of the named space."""

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_the_named_space(cls, data: Any) -> Any:
        # A named space without sizes means its usual sizes. Sizes that are given stay as they are.
        template = SPACES.get(data["name"]) if isinstance(data, dict) and isinstance(data.get("name"), str) else None
        if template is None:
            return data
        usual = {name: getattr(template, name) for name in ("num_cells", "num_nodes", "init_channels")}
        return {**usual, **data}


class TrainConfig(Section):
    """Training of the supernet and of the architecture parameters, both on the training images (one-level)."""

    epochs: Count = 120
    """Maximum number of epochs."""
    warmup_epochs: CountOrZero = 0
    """Epochs before the sparsity loss and deletions begin."""
    batch_size: Count = 128
    """Images per training step."""
    learning_rate: Positive = 5e-4
    """Learning rate of the network weights (Adam)."""
    betas: tuple[Decay, Decay] = (0.5, 0.999)
    """Betas of Adam for the network weights."""
    weight_decay: NonNegative = 3e-4
    """Weight decay of the network weights (Adam)."""
    grad_clip: Positive = 5.0
    """Maximum gradient norm of the network weights; larger gradients are scaled down to it."""
    arch_learning_rate: Positive = 0.2
    """Learning rate of the architecture parameters a (SGD)."""
    arch_momentum: Decay = 0.0
    """Momentum of the architecture parameters (SGD)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` uses a GPU if the trial has one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: convolutions in half precision, norms and losses in float32; slower on CPUs, untested on GPUs."""
    cuda_graphs: bool = False
    """Record the kernels of a step on a GPU and replay them until the next deletion. Untested so far."""
    num_processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Number of processes that share each batch, each with its own GPU or CPUs; for `dnad-ray sweep` only."""
    look_steps: Count | None = None
    """Steps between two reads of losses and weights by the host, which then deletes. None: 1 on a CPU, 8 on a GPU."""

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
    """Floors of the search: it stops at the first one that it reaches. None: no such floor."""

    macs: Amount | None = None
    """Stop if the derived network has fewer multiply-adds than this (fvcore's total)."""
    operations: Count | None = None
    """Stop if at most this many operations are alive."""
    sparsity: Positive | None = None
    """Stop if the sparsity sum S is below this (the criterion of the authors' release, with 250)."""


class ShrinkConfig(Section):
    """Deletion of candidates (SNPS). Rates are per epoch, so they do not depend on the number of images."""

    rate: Annotated[float, Field(gt=0, le=1)] = 0.006
    """Target shrink rate: share of the initial candidates to delete per epoch (n_target x steps / candidates)."""
    baseline: Share = 0.01
    """With criterion `weight`, a candidate is deleted permanently if its weight w is below this."""
    pressure: Literal["added", "paper"] = "added"
    """Sparsity term. `paper`: the loss is L (1 + gamma S) + gamma mu S. `added`: the sparsity term does not change the
    gradient of the task, and gamma and the shrink rate are capped."""
    criterion: Literal["weight", "taylor", "removal"] = "taylor"
    """Order of deletion. `weight`: smallest weight w first. `taylor`: smallest mean of |w dL/dw| over the steps first.
    `removal`: the candidate whose removal gives the smallest loss first."""
    gamma_init: Positive = 1e-4
    """Initial sparsity weight gamma."""
    gamma_max: Positive = 0.1
    """Steps with too few deletions are stalls if gamma is at least this. With pressure `added`, gamma's maximum."""
    gamma_growth: Annotated[float, Field(gt=1, le=LARGEST)] = 48.9
    """Growth factor of gamma per epoch without deletions (1.01 per step at 391 steps). It decays by the same factor."""
    mu: NonNegative = 0.1
    """Offset factor mu of the sparsity term."""
    mu_growth: Growth = 1.5
    """Mu is multiplied by this after a Pareto snapshot."""
    rate_factor: Positive = 1.0
    """The target shrink rate is multiplied by this after a Pareto snapshot (xi)."""
    smoothing: Decay = 0.9
    """Decay per step of the running mean of deletions (tau)."""
    stall_epochs: Positive = 0.128
    """Epochs of consecutive stalls before a Pareto snapshot (0.128 is 50 of 391 steps)."""
    floor: FloorConfig = FloorConfig(sparsity=250.0)
    """Size at which the search stops."""


ScoreName = Literal["score", "jacov", "naswot", "synflow", "grad_norm", "zen", "swap", "zico"]


class EvaluationConfig(Section):
    """Validation and costs of the networks of a search."""

    init_channels: Annotated[int, Field(ge=2, le=1024)] = 36
    """Width C of derived networks, for their costs and their retraining."""
    interval_epochs: Count = 1
    """Epochs between pruned snapshots."""
    batch_size: Count = 512
    """Images per validation step."""
    trace: Literal["none", "final", "all"] = "final"
    """Snapshots whose costs (from a table) are checked by a trace of the network, which takes half a second each."""
    recalibration_images: CountOrZero = 1024
    """Training images for new batch-norm statistics before validation. 0 keeps the running statistics."""
    ladder: bool = True
    """Whether to record smaller networks of the weights at each interval, also in the warm-up; 4 % of the time."""
    scores: tuple[ScoreName, ...] = ()
    """Training-free scores of each snapshot, see `dnad_ray.networks.scores`; `score` is the one that ranks networks in
    this space. With 6,000 images one takes 3 % of the time, with few images more."""
    keep_weights: bool = False
    """Whether to save the alive shared weights of each snapshot (safetensors), for `dnad-ray retrain --inherit`."""


class RunConfig(Section):
    """The complete configuration of a run."""

    seed: Seed = 0
    """Seed of initial weights, order of images and augmentation."""
    data: DataConfig = DataConfig()
    """The images."""
    space: SpaceConfig = SpaceConfig()
    """The search space."""
    train: TrainConfig = TrainConfig()
    """Training of the supernet."""
    shrink: ShrinkConfig = ShrinkConfig()
    """Deletion of candidates."""
    distill: DistillConfig = DistillConfig()
    """Knowledge distillation."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Validation and costs of the networks of a search."""
    limit: LimitConfig = LimitConfig()
    """Limits on the compute of a trial."""
    sweep: SweepConfig = SweepConfig()
    """Many searches in parallel."""
    watch: WatchConfig = WatchConfig()
    """Logs and pages for watching a run."""

    @model_validator(mode="after")
    def _floor_and_warmup(self) -> RunConfig:
        if self.train.warmup_epochs >= self.train.epochs:
            allowed = f"less than train.epochs ({self.train.epochs}), or nothing is ever deleted"
            raise RefusedError("train.warmup_epochs", self.train.warmup_epochs, allowed)
        return self


def config_from_dict(data: Mapping[str, Any], origin: str = "config") -> RunConfig:
    """Return the configuration of plain data, validated.

    Args:
        data: Nested dictionaries, for example from YAML. Missing keys get their defaults.
        origin: Source of the data, for error messages.

    Raises:
        ConfigError: If a key is unknown or a value impossible; one line about the first such key.
    """
    try:
        made = RunConfig.model_validate(dict(data))
    except ValidationError as error:
        raise config_error(error, RunConfig, f"{origin}: ") from None
    for key, value in dotted(config_to_dict(made)).items():
        if not is_text(value):
            raise ConfigError(f"{origin}: {key}", value, "text that UTF-8 can hold")
    return made


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Return all fields as plain data for YAML and JSON."""
    return config.model_dump(mode="json")


def parse_assignment(text: str) -> tuple[str, Any]:
    """Return key and value of ``a.b=value``, the argument of ``--set``.

    The value is parsed as YAML. That of a key for text, such as a folder, is taken as it stands: ``#``, digits and
    ``no`` have no meaning of their own in it.

    >>> parse_assignment("shrink.rate=0.05"), parse_assignment("data.root=photos #2")
    (('shrink.rate', 0.05), ('data.root', 'photos #2'))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError("--set", text, "KEY=VALUE, for example shrink.rate=0.05")
    if key.strip() in _text_keys(RunConfig):
        return key.strip(), _text_of(value.strip())
    try:
        parsed = parse_yaml(value, key)
    except YamlError:
        raise ConfigError(f"--set {key}", value, "a YAML value, for example 0.05, [1, 2] or null") from None
    if isinstance(parsed, str):  # YAML 1.1 reads 1e-4 (without a dot) as a string, but a number is meant
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    return key.strip(), parsed


def _text_keys(section: type[Section], before: str = "") -> set[str]:
    """Return the dotted keys whose values are any text, or any text and None."""
    found: set[str] = set()
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            found |= _text_keys(kind, f"{before}{name}.")
        elif kind is str or kind == (str | None):
            found.add(f"{before}{name}")
    return found


def _text_of(value: str) -> str | None:
    if value in ("", "~", "null"):
        return None
    if value[0] in "'\"":
        with contextlib.suppress(YamlError):
            parsed = parse_yaml(value, "")
            return parsed if isinstance(parsed, str) else value
    return value


def with_overrides(config: RunConfig, overrides: Mapping[str, Any], origin: str = "--set") -> RunConfig:
    """Return a copy with other values for some dotted keys; the whole copy is validated.

    Raises:
        ConfigError: If a key does not exist or a value is impossible.
    """
    data = config_to_dict(config)
    if not config.distill.model_fields_set & {"temperature"}:
        # The temperature followed from the kind, so it must follow from the new kind, too.
        data["distill"]["temperature"] = None
    for key, value in overrides.items():
        section: Any = data
        is_varied = key.startswith(_VARIED)
        # A key of the grid or the ranges is itself a config key with dots, and it can be new there.
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
