"""What the proof compares, and at which sizes: the settings of :mod:`proof` (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ARMS", "RESPONSES", "SEARCHED", "SETTINGS", "Arm", "Setting", "changes_of"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to get networks.

    Attributes:
        name: Its name in tables.
        words: What it is.
        overrides: What it changes in the setting's search; None where nothing is searched by deleting.
        teacher: Whose teacher is imitated, ``own`` or ``strong``; empty for nobody.
    """

    name: str
    words: str
    overrides: dict[str, Any] | None = None
    teacher: str = ""


_ALONE: dict[str, Any] = {"distill.kind": "none", "distill.temperature": None}

ARMS: tuple[Arm, ...] = (
    Arm(name="dnad", words="deleting + imitating a teacher trained on the same images", overrides={}, teacher="own"),
    Arm(
        name="dnad-heavy",
        words="dnad with the KD weight 1 instead of 0.3",
        overrides={"distill.weight": 1.0},
        teacher="own",
    ),
    Arm(name="dnad-strong", words="deleting + imitating a teacher of more images", overrides={}, teacher="strong"),
    Arm(name="snps", words="deleting without a teacher", overrides=_ALONE),
    Arm(name="shared", words="dnad, but all cells of a kind alike", overrides={"space.sharing": "kind"}, teacher="own"),
    Arm(name="darts", words="one-level DARTS, one derivation at the end, other widths"),
    Arm(name="random", words="random networks of the space, as many operations as snps"),
    Arm(name="random-best", words="the best of random ones, chosen with the compute of a search"),
    Arm(name="resnet18", words="torchvision's, by width"),
    Arm(name="mobilenet_v3_small", words="torchvision's, by width"),
    Arm(name="efficientnet_b0", words="torchvision's, by width"),
)
"""In the order of tables."""

SEARCHED = tuple(arm.name for arm in ARMS if arm.overrides is not None)
"""Arms that are searched by deleting."""

RESPONSES: dict[str, dict[str, Any]] = {
    **{f"temperature {value}": {"distill.temperature": value} for value in (1.0, 2.0, 8.0)},
    **{f"weight {value}": {"distill.weight": value} for value in (0.1, 1.0, 3.0)},
    "logits alone": {"distill.kind": "logits"},
    "features alone": {"distill.kind": "features", "distill.temperature": None},
    **{f"rate x {value}": {"shrink.rate": value} for value in (0.5, 2.0)},
    **{f"warm-up x {value}": {"train.warmup_epochs": value} for value in (0.5, 2.0)},
}
"""One setting away from arm ``dnad``; the last four are factors."""


def changes_of(response: str, config: Any) -> dict[str, Any]:
    """Return what a response changes in the configuration of arm ``dnad``; warm-up remains whole epochs."""
    changes = dict(RESPONSES[response])
    if "shrink.rate" in changes:
        changes["shrink.rate"] *= config.shrink.rate
    if "train.warmup_epochs" in changes:
        changes["train.warmup_epochs"] = round(changes["train.warmup_epochs"] * config.train.warmup_epochs)
    return changes


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Images and sizes.

    Attributes:
        name: Name on the command line.
        recipe: Where the search begins.
        overrides: What it changes.
        targets: Multiply-adds (fvcore total) at which arms are compared; every network is made as wide as fits.
        retrain: Changes of the recipe ``quick`` for training from scratch.
        retrain_recipe: The recipe.
        short_epochs: Epochs in which random candidates are judged.
        per_class: Images of each class to search and train on; None for all, or where there is no folder.
        per_class_teacher: Further images of each class that only the strong teacher sees.
        strong: Changes of the strong teacher; empty for no such arm.
        arms: Names of the arms.
    """

    name: str
    recipe: str = "demo"
    overrides: dict[str, Any]
    targets: tuple[int, ...]
    retrain: dict[str, Any]
    retrain_recipe: str = "quick"
    short_epochs: int = 2
    per_class: int | None = None
    per_class_teacher: int = 0
    strong: dict[str, Any] = field(default_factory=dict)
    arms: tuple[str, ...]

    @property
    def needs_folder(self) -> bool:
        """Whether images come from the user."""
        return self.overrides.get("data.name") == "imagefolder"


_ALL = tuple(arm.name for arm in ARMS if arm.name != "dnad-heavy")  # which is asked for by --arms
_WITHOUT_STRONG = tuple(name for name in _ALL if name not in ("dnad-strong", "efficientnet_b0"))
# The recipe `quick` when docs/results.md was measured.
_FORMER_QUICK: dict[str, Any] = {
    "learning_rate": 0.05,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 3e-4,
    "schedule": "cosine",
    "label_smoothing": 0.0,
}
_SMALL: dict[str, Any] = {
    "space.init_channels": 8,
    "evaluation.init_channels": 8,
    "shrink.floor.operations": 12,
    "sweep.grid": {},
    # The form of the search when docs/results.md was measured.
    "shrink.pressure": "paper",
    "shrink.criterion": "weight",
    "evaluation.ladder": False,
}

SETTINGS: dict[str, Setting] = {
    entry.name: entry
    for entry in (
        Setting(  # says nothing about any arm: whether the script runs
            name="smoke",
            recipe="smoke",
            overrides={"sweep.grid": {}, "evaluation.init_channels": 4},
            targets=(100_000, 200_000),
            retrain={**_FORMER_QUICK, "epochs": 1},
            short_epochs=1,
            arms=("dnad", "snps", "darts", "random", "random-best", "resnet18"),
        ),
        Setting(
            name="digits",
            overrides={**_SMALL, "train.epochs": 30, "shrink.rate": 0.05, "distill.teacher.epochs": 40},
            targets=(200_000, 400_000, 800_000),
            retrain={**_FORMER_QUICK, "epochs": 20},
            arms=_WITHOUT_STRONG,
        ),
        Setting(
            name="cifar10",
            overrides={
                **_SMALL,
                "data.name": "imagefolder",
                "data.image_size": 16,
                "data.augment": "auto",
                "data.padding": "black",  # as when docs/results.md was measured
                "data.validation_share": 0.2,
                "train.epochs": 30,
                "train.warmup_epochs": 4,
                "shrink.rate": 0.05,
                "distill.teacher.init_channels": 16,
                "distill.teacher.epochs": 20,
            },
            targets=(750_000, 1_500_000, 3_000_000),
            retrain={**_FORMER_QUICK, "epochs": 12},
            per_class=400,
            per_class_teacher=1600,
            strong={"distill.teacher.init_channels": 20, "distill.teacher.epochs": 10},
            arms=tuple(name for name in _ALL if name != "efficientnet_b0"),
        ),
        Setting(
            name="cifar10-full",
            recipe="cifar10",
            overrides={
                "data.name": "imagefolder",
                "data.image_size": 32,
                "space.init_channels": 16,
                "evaluation.init_channels": 16,
                "sweep.grid": {},
            },
            targets=(100_000_000, 250_000_000, 500_000_000),
            retrain={},
            retrain_recipe="cifar",
            arms=tuple(name for name in _ALL if name != "dnad-strong"),
        ),
    )
}
