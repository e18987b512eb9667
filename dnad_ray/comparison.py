"""In words: whether, where and by how much a front wins against its baselines (standard library only)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Group", "groups_of", "verdict"]

Group = tuple[str, str, int, list[float]]
"""Kind, digest, multiply-adds, and accuracies, one per seed."""


def groups_of(records: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Return the networks with the accuracies of all their seeds, from the smallest to the largest.

    Args:
        records: Of one protocol; those that began with inherited weights are left out.
    """
    groups: dict[tuple[str, str, int], list[float]] = {}
    for record in records:
        if not record["inherited"]:
            kind = record["model"] if record["origin"] == "torchvision" else record["origin"]
            groups.setdefault((kind, record["digest"], record["macs"]), []).append(record["accuracy"])
    ordered = sorted(groups.items(), key=lambda item: (item[0][2], item[0][0]))
    return [(kind, digest, macs, accuracies) for (kind, digest, macs), accuracies in ordered]


def verdict(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Compare each network of a front with the baselines nearest to it in cost, one of a kind.

    A difference counts as one where it exceeds twice its standard error, from the spread over seeds of both and the
    binomial spread of the test images; with one seed only the latter is known, and the line says so.

    Args:
        records: Records of :class:`dnad_ray.records_retrained.Retrained` as plain data, of one protocol.

    Returns:
        One line per network of the front.
    """
    groups = groups_of(records)
    num_images = min((record["num_images"] for record in records), default=0)
    lines = []
    for _, digest, macs, ours in (group for group in groups if group[0] == "search"):
        parts = []
        for kind in dict.fromkeys(group[0] for group in groups if group[0] != "search"):
            of_kind = [group for group in groups if group[0] == kind]
            _, _, their_macs, theirs = min(of_kind, key=lambda group: abs(math.log(group[2] / macs)))
            difference = statistics.fmean(ours) - statistics.fmean(theirs)
            error = math.hypot(_error(ours, num_images), _error(theirs, num_images))
            is_clear = abs(difference) > 2 * error
            word = ("wins by" if difference > 0 else "loses by") if is_clear else "no clear difference:"
            size = their_macs / macs
            parts.append(f"{kind} ({size:.2f}x MACs, {_words(theirs)}): {word} {100 * difference:+.2f} points")
        if parts:
            seeds = f"{len(ours)} seed{'s' * (len(ours) != 1)}"
            lines.append(f"network {digest} ({macs:,} MACs, {_words(ours)}, {seeds}) against " + "; ".join(parts))
    return lines


def _error(accuracies: Sequence[float], num_images: int) -> float:
    """Return the standard error of a mean accuracy: spread over seeds, but no less than that of the images."""
    mean = statistics.fmean(accuracies)
    of_images = math.sqrt(max(mean * (1 - mean), 1e-9) / max(1, num_images))
    if len(accuracies) < 2:
        return of_images
    return max(statistics.stdev(accuracies) / math.sqrt(len(accuracies)), of_images)


def _words(accuracies: Sequence[float]) -> str:
    text = f"{100 * statistics.fmean(accuracies):.2f} %"
    return text if len(accuracies) < 2 else f"{text} +- {100 * statistics.stdev(accuracies):.2f}"
