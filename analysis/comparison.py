"""Text that compares a front with its baselines: where it wins or loses, and by how much (standard library only)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Group", "compare_front", "compare_network", "groups_of"]

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


class _Duel(NamedTuple):
    """A network of the front and the baseline of one kind nearest to it in cost.

    Attributes:
        kind: Kind of the baseline.
        ours: The network of the front.
        theirs: The baseline.
        difference: Mean accuracy of ours less that of theirs.
        margin: Twice its standard error.
    """

    kind: str
    ours: Group
    theirs: Group
    difference: float
    margin: float

    @property
    def outcome(self) -> int:
        """1 where the front wins clearly, -1 where it loses clearly, else 0."""
        return (self.difference > self.margin) - (self.difference < -self.margin)


def compare_network(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Compare each network of a front with the baselines nearest to it in cost, one of a kind.

    A difference counts as one where it exceeds twice its standard error, from the spread over seeds of both and the
    binomial spread of the test images; with one seed only the latter is known. That margin is printed after a
    difference, and the standard deviation over seeds after an accuracy.

    Args:
        records: Records of :class:`dnad_ray.run_folder.records.Retrained` as plain data, of one protocol.

    Returns:
        One line per network of the front.
    """
    lines = []
    duels = _duels(records)
    for ours in dict.fromkeys((duel.ours[1], duel.ours[2]) for duel in duels):
        own = [duel for duel in duels if (duel.ours[1], duel.ours[2]) == ours]
        _, digest, macs, accuracies = own[0].ours
        seeds = f"{len(accuracies)} seed{'s' * (len(accuracies) != 1)}"
        parts = [f"{d.kind} ({d.theirs[2] / macs:.2f}x MACs, {_words(d.theirs[3])}): {_told(d)}" for d in own]
        lines.append(f"network {digest} ({macs:,} MACs, {_words(accuracies)}, {seeds}) against " + "; ".join(parts))
    return lines


def compare_front(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say for each kind of baseline whether, where and by how much the front wins; rule of :func:`compare_network`.

    Args:
        records: As for :func:`compare_network`.

    Returns:
        One line per kind of baseline.
    """
    lines = []
    duels = _duels(records)
    for kind in dict.fromkeys(duel.kind for duel in duels):
        own = [duel for duel in duels if duel.kind == kind]
        parts = []
        for outcome, word in ((1, "wins"), (-1, "loses"), (0, "shows no clear difference")):
            such = [duel for duel in own if duel.outcome == outcome]
            if such:
                at = _range([duel.ours[2] for duel in such], "{:,.0f}")
                points = _range([100 * duel.difference for duel in such], "{:+.2f}")
                parts.append(f"{word} at {len(such)} of {len(own)} sizes ({at} MACs, {points} points)")
        lines.append(f"against {kind}, the front {'; '.join(parts)}")
    few = min((len(group[3]) for duel in duels for group in (duel.ours, duel.theirs)), default=2)
    if few < 2:
        lines.append("with one seed, the spread over seeds is not known: only that of the images is reckoned with")
    return lines


def _duels(records: Sequence[Mapping[str, Any]]) -> list[_Duel]:
    groups = groups_of(records)
    num_images = min((record["num_images"] for record in records), default=0)
    duels = []
    for ours in (group for group in groups if group[0] == "search"):
        for kind in dict.fromkeys(group[0] for group in groups if group[0] != "search"):
            of_kind = [group for group in groups if group[0] == kind]
            theirs = min(of_kind, key=lambda group: abs(math.log(group[2] / ours[2])))
            difference = statistics.fmean(ours[3]) - statistics.fmean(theirs[3])
            margin = 2 * math.hypot(_error(ours[3], num_images), _error(theirs[3], num_images))
            duels.append(_Duel(kind, ours, theirs, difference, margin))
    return duels


def _told(duel: _Duel) -> str:
    size, margin = 100 * duel.difference, 100 * duel.margin
    if not duel.outcome:
        return f"no clear difference ({size:+.2f} +- {margin:.2f} points)"
    return f"{'wins' if duel.outcome > 0 else 'loses'} by {abs(size):.2f} +- {margin:.2f} points"


def _range(values: Sequence[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


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
