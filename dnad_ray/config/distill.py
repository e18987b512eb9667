"""The section `distill` of a configuration: the teacher, the imitation losses and their weights over time."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, create_model, field_validator, model_validator

from dnad_ray.config.section import Count, NonNegative, Number, Positive, RefusedError, Section, Words

__all__ = ["KINDS", "DistillConfig", "Kind", "SharesConfig", "TeacherConfig"]


class Kind(NamedTuple):
    """One imitation kind.

    Attributes:
        name: Its name in a sum.
        of: The compared tensors: the logits, softened by the KD temperature, or the taps, which are the features at
            the three stage ends.
        same_size: Whether the taps of student and teacher must have equal sizes, because they are compared pixel by
            pixel.
        share: Description of its factor in a sum: the loss that it multiplies, with unit or range.
    """

    name: str
    of: Literal["logits", "taps"]
    same_size: bool
    share: str


_TABLE = (
    Kind("logits", "logits", False, "Factor of the KL divergence of softened outputs, in nats."),
    Kind("decoupled", "logits", False, "Factor of the decoupled KD loss, in nats."),
    Kind("features", "taps", True, "Factor of the mean squared error of standardised features."),
    Kind("attention", "taps", True, "Factor of the distance of attention maps, which is at most 2."),
    Kind("factor", "taps", True, "Factor of the distance of factors, which is at most 2."),
    Kind("similarity", "taps", False, "Factor of the mean squared difference of similarities within the batch."),
    Kind("relational", "taps", False, "Factor of the differences of distances and angles within the batch."),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _TABLE}
"""Imitation kinds by name, in the order of a sum. Their losses are in `dnad_ray.distill.imitation.LOSSES`."""

_SUM = "+"


class TeacherConfig(Section):
    """The teacher: one network per run, trained on the training images, or loaded."""

    init_channels: Annotated[int, Field(ge=2, le=1024)] = 36
    """Width C of a teacher with source `derived`."""
    epochs: Count = 60
    """Training epochs of the teacher, if it is trained."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """`adam` with a cosine decay to zero, or `sgd` in one cycle with Nesterov's momentum 0.95, as `retrain quick`."""
    learning_rate: Positive = 1e-3
    """Peak learning rate; about 0.1 for `sgd`."""
    genotype: str | None = None
    """Genotype file, or a run folder (the best of its front). None: every node has sep_conv_3x3 of both inputs."""
    source: Literal["derived", "torchvision", "module", "saved"] = "derived"
    """`derived` trains `genotype`; `torchvision` and `module` use `model`; `saved` loads a trained teacher."""
    model: str | None = None
    """Name of a torchvision model (`resnet18`), or your own `module:factory`, which is called with `num_classes`."""
    weights: str | None = None
    """Checkpoint of `model`. For `saved`: a teacher folder, RUN/retrained/<job>, or an exported .safetensors file."""
    train: bool | None = None
    """Whether to train `model`, starting from `weights` if given. None trains it only if there are no `weights`."""
    taps: tuple[str, ...] | None = None
    """Names of the modules of `model` to imitate, one per stage. None takes the last module of each stage."""
    input_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Side to which images are resized for `model`. None keeps their size; for small images, the first strides of a
    torchvision model are then removed."""
    mean: tuple[Number, ...] | None = None
    """Mean of each channel in the normalisation of `model` (pixels from 0 to 1). None takes that of the run's data."""
    std: tuple[Positive, ...] | None = None
    """Standard deviation of each channel in the normalisation of `model`. None takes that of the run's data."""
    precision: Literal["auto", "float32"] = "auto"
    """Precision of the teacher's outputs. `auto` is half precision on a GPU (untested so far), float32 on a CPU."""
    cache: Literal["auto", "always", "never"] = "auto"
    """Cache of the teacher's outputs, one file per node. The results do not depend on it. `auto`: use it on a CPU, if
    outputs are used again and fit into the file."""
    cache_gib: Positive = 2.0
    """Maximum size of the cache file in GiB, on the disk of the run folder."""

    @model_validator(mode="after")
    def _fits_the_source(self) -> TeacherConfig:
        takes_model = self.source in ("torchvision", "module")
        if takes_model and not self.model:
            allowed = "a name such as resnet18" if self.source == "torchvision" else "module:factory"
            raise RefusedError("model", self.model, f"{allowed} with source {self.source!r}")
        if self.source == "module" and ":" not in (self.model or ""):
            raise RefusedError("model", self.model, "module:factory with source 'module'")
        if self.source == "saved" and not self.weights:
            raise RefusedError("weights", self.weights, "a folder that `dnad-ray teacher` wrote, with source 'saved'")
        for name in ("model", "train", "taps", "input_size", "mean", "std"):
            if not takes_model and getattr(self, name) is not None:
                raise self._no_effect(name, "source torchvision or module")
        if self.source == "derived" and self.weights is not None:
            raise self._no_effect("weights", "source torchvision, module or saved")
        if self.source != "derived" and self.genotype is not None:
            raise self._no_effect("genotype", "source derived")
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise RefusedError("std", self.std, f"as many values as mean has, {self.mean}")
        if self.taps is not None and len(self.taps) != 3:
            raise RefusedError("taps", Words(f"{len(self.taps)} names"), "3, one per stage")
        return self

    def _no_effect(self, name: str, allowed: str) -> RefusedError:
        why = f"which has no effect with source {self.source!r}"
        return RefusedError(name, getattr(self, name), f"{allowed}, or none", why)

    @property
    def is_trained(self) -> bool:
        """Whether the teacher is trained in the run."""
        if self.source == "derived":
            return True
        return self.source != "saved" and (self.weights is None if self.train is None else self.train)


_SHARES: dict[str, Any] = {
    kind.name: (NonNegative, Field(default=1.0, description=kind.share)) for kind in KINDS.values()
}


class SharesConfig(create_model("Shares", __base__=Section, **_SHARES)):  # type: ignore[misc] # fields of a table
    """Factor of each imitation kind in the sum `kind`. Factors of other kinds have no effect."""


class DistillConfig(Section):
    """Knowledge distillation (KD) during the search."""

    kind: Annotated[str, Field(description=f"`none`, or a sum (`a+b`) of {', '.join(KINDS)}.")] = "features"
    shares: SharesConfig = SharesConfig()
    """Factors of the kinds in the sum."""
    weight: NonNegative = 1.0
    """KD weight lambda. With a schedule, its value at the first step."""
    weight_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Schedule of the weight from `weight` to `weight_end` over the epochs of the search."""
    weight_end: NonNegative | None = None
    """KD weight at the last step of the last epoch. None is 0."""
    temperature: Positive | None = None
    """KD temperature T of the logits. With a schedule, its value at the first step. None is 4 for kinds with logits."""
    temperature_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Schedule of the temperature from `temperature` to `temperature_end` over the epochs of the search."""
    temperature_end: Positive | None = None
    """KD temperature at the last step of the last epoch. None is 1."""
    decoupled_target: NonNegative = 1.0
    """Factor alpha of the target class in decoupled KD."""
    decoupled_rest: NonNegative = 8.0
    """Factor beta of the other classes in decoupled KD."""
    stage_ratios: tuple[NonNegative, NonNegative, NonNegative] = (0.2, 0.3, 0.5)
    """Weights of the three stage ends in every loss on features."""
    factor_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Number of factors in factor transfer, as a share of the teacher's channels (k in the paper)."""
    teacher: TeacherConfig = TeacherConfig()
    """The teacher."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The imitation kinds in the sum. Empty for `none`, and if the weight is always 0."""
        return () if self.kind == "none" or not self._has_weight else tuple(self.kind.split(_SUM))

    @property
    def uses_logits(self) -> bool:
        """Whether the KD temperature has an effect."""
        return any(KINDS[kind].of == "logits" for kind in self.kinds)

    @property
    def uses_features(self) -> bool:
        """Whether features at the stage ends are imitated."""
        return any(KINDS[kind].of == "taps" for kind in self.kinds)

    @property
    def uses_same_sizes(self) -> bool:
        """Whether the features of student and teacher must have equal sizes in pixels."""
        return any(KINDS[kind].same_size for kind in self.kinds)

    @property
    def uses_teacher(self) -> bool:
        """Whether a teacher is needed."""
        return bool(self.kinds)

    @property
    def _has_weight(self) -> bool:
        return self.weight > 0 or (self.weight_schedule != "constant" and (self.weight_end or 0) > 0)

    @field_validator("kind")
    @classmethod
    def _in_order(cls, kind: str) -> str:
        parts = kind.split(_SUM)
        return _SUM.join(sorted(parts, key=list(KINDS).index)) if set(parts) <= set(KINDS) else kind

    @model_validator(mode="after")
    def _everything_has_an_effect(self) -> DistillConfig:
        parts = self.kind.split(_SUM)
        if self.kind != "none" and (not set(parts) <= set(KINDS) or len(set(parts)) < len(parts)):
            allowed = f"none, or a sum (a+b) of some of {', '.join(KINDS)}, each once"
            raise RefusedError("kind", self.kind, allowed)
        for name in ("weight", "temperature"):
            end = getattr(self, f"{name}_end")
            if end is not None and getattr(self, f"{name}_schedule") == "constant":
                why = f"which has no effect with {name}_schedule 'constant'"
                raise RefusedError(f"{name}_end", Words(f"{end:g}"), "linear or cosine, or no end", why)
        if not self.uses_logits:
            why = f"which has no effect with kind {self.kind!r} and weight {self.weight:g}"
            allowed = "a kind with logits and a weight above 0, or"
            if self.temperature is not None:
                raise RefusedError("temperature", Words(f"{self.temperature:g}"), f"{allowed} no temperature", why)
            if self.temperature_schedule != "constant":
                raise RefusedError("temperature_schedule", self.temperature_schedule, f"{allowed} constant", why)
        if self.temperature is None and self.uses_logits:
            object.__setattr__(self, "temperature", 4.0)
            # The user did not set it (null counts as not set). It follows from the kind, also if the kind changes.
            self.model_fields_set.discard("temperature")
        if self.uses_features and not any(self.stage_ratios):
            raise RefusedError("stage_ratios", Words("(0, 0, 0)"), "at least one above 0 when features are imitated")
        if self.kinds and not any(getattr(self.shares, kind) for kind in self.kinds):
            raise RefusedError("shares", Words(f"0 for {self.kind}"), "at least one above 0 of what is imitated")
        return self
