"""What a reader of a report asks first about a run: images, classes, the error of guessing, teacher, noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.charts.words import shown
from dnad_ray.run_folder.images import ImagesRecord
from dnad_ray.run_folder.layout import teacher_file
from dnad_ray.run_folder.reading import RunContents, read_json

__all__ = ["Fact", "facts_of"]

_MOST_NAMES = 10
_UNKNOWN = "not recorded"


class Fact(NamedTuple):
    """One answer: what it is about, the number, and what the number means."""

    label: str
    value: str
    note: str = ""


def facts_of(run: RunContents, frame: pd.DataFrame) -> tuple[Fact, ...]:
    """Return the facts of a run; what an older version did not record is said to be unknown.

    Args:
        run: The run.
        frame: Its snapshots.
    """
    first = frame.iloc[0] if len(frame) else None
    record = run.images  # None where an older version made the run
    names = [] if record is None else list(record.classes)
    num_classes = len(names) or (0 if first is None else int(first["num_classes"]))
    facts = (
        _images(run, first, record),
        Fact("Classes", str(num_classes) if num_classes else _UNKNOWN, _listed(names)),
        _guessing(num_classes, record),
        _teacher(run, frame),
    )
    return (*facts, _noise(frame, None if record is None else record.num_validation)) if len(frame) else facts


def _images(run: RunContents, first: pd.Series[Any] | None, record: ImagesRecord | None) -> Fact:
    name = str(first["dataset"]) if first is not None else str(_at(run.config, "data", "name") or _UNKNOWN)
    words = [name] + ([] if first is None else [f"{first['image_size']} x {first['image_size']} pixels"])
    if record is None:
        return Fact("Images", ", ".join(words))
    note = f"{record.num_train:,} to train on, {record.num_validation:,} held out for the scores"
    return Fact("Images", ", ".join(words), note)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _guessing(num_classes: int, record: ImagesRecord | None) -> Fact:
    label = "Error of guessing"
    if not num_classes:
        return Fact(label, _UNKNOWN)
    # Of each class as large a share is held out, so the training images tell the commonest one too.
    parts = {} if record is None else record.parts
    counts = [entry.count for entry in parts.get("validation") or parts.get("train") or ()]
    if sum(counts) > 0:
        return Fact(label, shown("error", 1 - max(counts) / sum(counts)), "naming the commonest class for every image")
    return Fact(label, shown("error", 1 - 1 / num_classes), "where every class has as many images")


def _teacher(run: RunContents, frame: pd.DataFrame) -> Fact:
    found = read_json(teacher_file(run.path), dict, {}, [])
    accuracy = found.get("accuracy")
    if isinstance(accuracy, int | float) and not isinstance(accuracy, bool) and 0 <= accuracy <= 1:
        outline = found.get("outline")
        model = outline.get("model") if isinstance(outline, dict) else None
        kind = f"{model}: " if isinstance(model, str) else ""
        note = f"{kind}the network that the searches imitate, on the same held-out images"
        return Fact("Error of the teacher", shown("error", 1 - accuracy), note)
    kinds = set(frame["kd_kind"]) if len(frame) else {_at(run.config, "distill", "kind")}
    if kinds == {"none"}:
        return Fact("Error of the teacher", "none", "no network is imitated")
    return Fact("Error of the teacher", _UNKNOWN)


def _noise(frame: pd.DataFrame, num_images: int | None) -> Fact:
    label = "Noise of one score"
    scored = frame[frame["kind"] != "ladder"] if len(frame) else frame
    if num_images is None or not len(scored):
        return Fact(label, _UNKNOWN)
    error = float(scored["error"].min())
    # Of a share of n images, a normal approximation; an error of 0 has noise too, so it counts as one image of n.
    share = min(max(error, 1 / num_images), 1 - 1 / num_images) if num_images > 1 else 0.5
    deviation = math.sqrt(share * (1 - share) / num_images)
    apart = 2 * math.sqrt(2) * deviation
    return Fact(
        label,
        f"+- {100 * deviation:.2g} points",
        f"one standard error of {num_images:,} images at an error of {shown('error', error)}: scores less than "
        f"{100 * apart:.2g} points apart are not told apart",
    )


def _at(config: Mapping[str, Any], section: str, key: str) -> Any:
    part = config.get(section)
    return part.get(key) if isinstance(part, dict) else None
