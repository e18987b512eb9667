"""How a time budget is divided between teacher, search, race and final training; pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dnad_ray.errors import ConfigError
from dnad_ray.text import duration_in_words

__all__ = ["EpochSeconds", "FitPlan", "Rung", "divided", "epochs_within", "together"]

_EPOCHS = 60
_TEACHER_EPOCHS = 40
_SEARCH_EPOCHS = 30
_PLACES = 6
"""Without a time budget: epochs of the final training, of the teacher and of a search, and networks of a bin."""

_SHARES = {"teacher": 0.15, "search": 0.2, "race": 0.2}
"""Largest shares of the time; the final training has the rest."""

_LEAST_TEACHER, _LEAST_SEARCH, _LEAST_RACE = 10, 12, 3
"""Epochs below which there is no teacher, no search, and a race has fewer networks."""

_GOOD_STEPS, _GOOD_EPOCHS = 2_500, (15, 60)
"""Steps of the final training below which there are fewer budgets; in epochs within limits.
On 3,000 images of CIFAR-10, accuracy rises by three points from 20 to 40 epochs, and again from 40 to 60."""

_NEARLY = 0.8
"""Share of a good training that is enough to keep a budget: small networks take little time, and a front without them
has fewer sizes to choose from."""

_LEAST, _LEAST_OF_ALL = 10, 3
"""Epochs of the final training: with fewer than the first even the largest budget is left out, and so on; with fewer
than the second nothing can be done."""

_WITH_TEACHER = 3
"""Good trainings that must fit into the final one before a teacher is worth its time. On 3,000 images of CIFAR-10,
imitation for 20 epochs was as good as 40 epochs without, which took as long, and the teacher three times as much."""

_MOST_TEACHER, _MOST_SEARCH, _MOST_FINAL, _MOST_PLACES = 60, 60, 300, 8
_SHORT_SHARE = 0.04
"""Epochs of the first rung as a share of those of the final training; the second one is twice as long."""
_FORWARD = 1 / 3
"""Time of a pass of the teacher as a share of that of a training step."""


@dataclass(frozen=True, kw_only=True)
class EpochSeconds:
    """Seconds of an epoch, as measured before the work begins; of training with all that is imitated.

    Attributes:
        teacher: Of the teacher.
        search: Of a search, as a mean over its deletions; None if the time is too short for one anyway.
        networks: Of a network of each budget, largest first.
        steps: Steps of an epoch of a network.
    """

    teacher: float
    search: float | None
    networks: Sequence[float]
    steps: int


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One round of a race.

    Attributes:
        epochs: Epochs of the complete schedule of each network.
        keep: Networks of each bin that go on.
    """

    epochs: int
    keep: int


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """What `fit` does, decided before it begins.

    Attributes:
        seconds: The time budget, None without one.
        budgets: Most multiply-adds of the networks of each bin, largest first.
        teacher_epochs: Epochs of the teacher; 0 for none.
        search_epochs: Epochs of each search; 0 for none.
        trials: Searches.
        places: Networks of each bin in the first rung.
        rungs: Rounds of the race; none where only one network is in each bin.
        epochs: Epochs of the final training.
    """

    seconds: float | None
    budgets: tuple[int, ...]
    teacher_epochs: int
    search_epochs: int
    trials: int
    places: int
    rungs: tuple[Rung, ...]
    epochs: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FitPlan:
        """Build one from :meth:`to_dict`; raises KeyError, TypeError or ValueError for other data."""
        numbers = {name: int(data[name]) for name in ("teacher_epochs", "search_epochs", "trials", "places", "epochs")}
        seconds = data["seconds"]
        return cls(
            seconds=None if seconds is None else float(seconds),
            budgets=tuple(int(budget) for budget in data["budgets"]),
            rungs=tuple(Rung(epochs=int(rung["epochs"]), keep=int(rung["keep"])) for rung in data["rungs"]),
            **numbers,
        )


def divided(seconds: float | None, budgets: Sequence[int], costs: EpochSeconds | None, parallel: int = 1) -> FitPlan:
    """Return the plan for a time budget.

    A stage that would get too few epochs to be of use is left out, and its time goes to the others. Where the final
    training would be too short, there are fewer budgets, of which the largest and the smallest stay longest.

    Args:
        seconds: Wall seconds; None for the usual numbers of epochs.
        budgets: Most multiply-adds of the networks of each bin, largest first.
        costs: Seconds of an epoch of everything; None without a time budget.
        parallel: How many trainings run at the same time. A teacher is trained alone.

    Raises:
        ConfigError: If not even the smallest network could be trained in that time.
    """
    if seconds is None or costs is None:
        return FitPlan(
            seconds=None,
            budgets=tuple(budgets),
            teacher_epochs=_TEACHER_EPOCHS,
            search_epochs=_SEARCH_EPOCHS,
            trials=1,
            places=_PLACES,
            rungs=_rungs(_PLACES, max(_LEAST_RACE, round(_SHORT_SHARE * _EPOCHS))),
            epochs=_EPOCHS,
        )
    left, search, teacher = seconds, 0, 0
    if costs.search is not None:
        search = _epochs_in(_SHARES["search"] * seconds, costs.search, _LEAST_SEARCH, _MOST_SEARCH)
        left -= search * costs.search
    networks = list(costs.networks)
    race = _SHARES["race"] * seconds
    good = min(max(_GOOD_EPOCHS[0], math.ceil(_GOOD_STEPS / costs.steps)), _GOOD_EPOCHS[1])
    kept, (places, short, epochs) = _final(left, race, networks, good, parallel)
    if epochs >= _WITH_TEACHER * good:
        teacher = _epochs_in(_SHARES["teacher"] * seconds, costs.teacher, _LEAST_TEACHER, _MOST_TEACHER)
    if teacher:
        each = together([networks[index] + _FORWARD * costs.teacher for index in kept], parallel)
        places, short, epochs = _trainings(left - teacher * costs.teacher, race, each, good)
    if epochs < _LEAST_OF_ALL:
        least = duration_in_words(math.ceil(_LEAST_OF_ALL * networks[-1] + seconds - left))
        allowed = f"at least {least}: {_LEAST_OF_ALL} epochs of the smallest network"
        raise ConfigError("--time-budget", duration_in_words(seconds), allowed)
    return FitPlan(
        seconds=seconds,
        budgets=tuple(budgets[index] for index in kept),
        teacher_epochs=teacher,
        search_epochs=search,
        trials=min(2, parallel) if search else 0,
        places=places,
        rungs=_rungs(places, short),
        epochs=epochs,
    )


def together(seconds: Sequence[float], parallel: int) -> float:
    """Return the seconds in which some trainings end that start together, as many at a time as fit.

    >>> together([4.0, 2.0, 1.0], 1), together([4.0, 2.0, 1.0], 2)
    (7.0, 4.0)
    """
    return max(sum(seconds) / parallel, *seconds)


def epochs_within(seconds: float, epoch_seconds: float) -> int:
    """Return the epochs of the final training that fit into the time that is left, at least three."""
    return max(_LEAST_OF_ALL, min(_MOST_FINAL, int(seconds / max(epoch_seconds, 1e-9))))


def _epochs_in(seconds: float, epoch_seconds: float, least: int, most: int) -> int:
    """Return the epochs that fit into some time; 0 if they are too few."""
    epochs = min(most, int(seconds / epoch_seconds))
    return epochs if epochs >= least else 0


def _final(
    seconds: float, race: float, networks: Sequence[float], good: int, parallel: int
) -> tuple[list[int], tuple[int, int, int]]:
    """Return which budgets there are, and what :func:`_trainings` returns for them."""
    order = _most_wanted(len(networks))
    for count in range(len(networks), 0, -1):
        kept = sorted(order[:count])
        found = _trainings(seconds, race, together([networks[index] for index in kept], parallel), good)
        if found[2] >= _NEARLY * good:
            return kept, found
    for index, cost in enumerate(networks):
        found = _trainings(seconds, race, cost, good)
        if found[2] >= _LEAST:
            return [index], found
    return [len(networks) - 1], _trainings(seconds, race, networks[-1], good)


def _most_wanted(number: int) -> list[int]:
    """Return the places of budgets, given largest first, in the order in which they are kept where time is short.

    The largest is what was asked for; with the smallest, which takes the least time, the front is as wide as it can
    be. Every second one of the others comes next, the smaller ones first.

    >>> _most_wanted(5)
    [0, 4, 2, 3, 1]
    """
    between = sorted(range(1, number - 1), key=lambda place: (place % 2, -place))
    return [*range(0, number, max(1, number - 1)), *between]


def _trainings(seconds: float, race: float, each: float, good: int) -> tuple[int, int, int]:
    """Return networks of a bin, epochs of their first rung, and epochs of the final training.

    Both rungs of a race, the second twice as long for half of the networks, must fit into the time of the race, and
    leave a good final training.
    """
    short = max(_LEAST_RACE, round(_SHORT_SHARE * (seconds - race) / each))
    places, race = _MOST_PLACES, min(race, seconds - good * each)
    while places > 1 and _race_epochs(places, short) * each > race:
        places -= 1
    race = _race_epochs(places, short) * each
    return places, short, max(0, min(_MOST_FINAL, int((seconds - race) / each)))


def _race_epochs(places: int, short: int) -> int:
    """Return the epochs that the networks of a bin take together in a race."""
    in_race, epochs = places, 0
    for rung in _rungs(places, short):
        epochs += in_race * rung.epochs
        in_race = rung.keep
    return epochs


def _rungs(places: int, short: int) -> tuple[Rung, ...]:
    """Return the rounds of a race: none for a single network, and one for two."""
    if places < 2:
        return ()
    if places == 2:
        return (Rung(epochs=2 * short, keep=1),)
    return Rung(epochs=short, keep=math.ceil(places / 2)), Rung(epochs=2 * short, keep=1)
