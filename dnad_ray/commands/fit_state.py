"""How a call of `fit` runs, and what a run folder knows of it: its plan, and what was decided on the way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dnad_ray.commands.fit_planning import PROTOCOL, build_of, plan_in_words, planned
from dnad_ray.commands.folder import check_images, check_is_run, made_for_writing
from dnad_ray.config.retrain import RetrainConfig
from dnad_ray.config.run import RunConfig, config_from_dict, config_to_dict
from dnad_ray.config.section import Words
from dnad_ray.data.loading import ImageData
from dnad_ray.errors import ConfigError, RunFolderError
from dnad_ray.networks.spec import NetworkSpec
from dnad_ray.retrain.fit_plan import FitPlan
from dnad_ray.retrain.jobs import Job, job_of
from dnad_ray.retrain.race import Build
from dnad_ray.run_folder.layout import config_file, fit_file
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.writing import create_run, free_folder
from dnad_ray.runtime.stopping import StopSignals
from dnad_ray.search.prepare import load_images
from dnad_ray.storage.files import read_file, write_json
from dnad_ray.storage.places import Place, address
from dnad_ray.text import duration_in_words
from dnad_ray.version import __version__
from dnad_ray.watch.board import Board
from search_spaces.json_reader import JsonError, parse_json

__all__ = ["FitState", "How", "begun", "continued"]

_MOST_JSON = 2**20
_AS_BEFORE = {
    "under": "other budgets",
    "seconds": "another time",
    "runtime": "another runtime",
    "config": "other images, or another size of them, seed or setting",
}
"""What must be as before when a run is continued, and what the error calls it."""


@dataclass(frozen=True)
class How:
    """How the stages run.

    Attributes:
        board: Where to show progress.
        signals: Requests by Ctrl-C and SIGTERM.
        address: Ray cluster to join, or None.
        no_ray: Whether to run in this process.
    """

    board: Board
    signals: StopSignals
    address: str | None
    no_ray: bool


@dataclass
class FitState:
    """The plan and what was decided later, in the run folder: a continued run decides nothing twice.

    Attributes:
        folder: The run folder.
        arguments: What the caller asked for.
        config: The configuration of the search, as planned.
        plan: The plan.
        images: The images, without test images.
        spent: Seconds that earlier calls took.
        race: The networks of each bin when the race begins; None until then.
        decided: Epochs of the final training, and whether it imitates the teacher; empty until the race is over.
        began: When this call began, in seconds since the epoch.
    """

    folder: Place
    arguments: Mapping[str, Any]
    config: RunConfig
    plan: FitPlan
    images: ImageData
    spent: float = 0.0
    race: list[list[NetworkSpec]] | None = None
    decided: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.time)

    @property
    def build(self) -> Build:
        """What all networks of the race have in common."""
        return build_of(self.config, self.images, self.arguments)

    def job(self, spec: NetworkSpec, protocol: RetrainConfig, seed: int | None = None) -> Job:
        """Return the training of a network, with the seed of the run or another one."""
        return job_of(spec, protocol, PROTOCOL, self.config.seed if seed is None else seed, self.config.data)

    def time_used(self) -> float:
        """Return the seconds that all calls took so far."""
        return self.spent + time.time() - self.began

    def time_left(self) -> str:
        """Return the time that is left of the budget in words, to end a sentence; empty without one."""
        if self.plan.seconds is None:
            return ""
        left = self.plan.seconds - self.time_used()
        return f"; {duration_in_words(left)} left" if left > 0 else "; no time is left"

    def write(self) -> None:
        """Store everything but configuration and images, which the run folder holds anyway."""
        race = None if self.race is None else [[spec.to_dict() for spec in members] for members in self.race]
        facts = {"arguments": self.arguments, "plan": self.plan.to_dict(), "race": race, "decided": self.decided}
        write_json(fit_file(self.folder), {**facts, "spent": self.time_used()})

    def note_time(self) -> None:
        """Store the time that was used, as well as it can."""
        with contextlib.suppress(OSError):
            self.write()


def begun(out: Place, arguments: Mapping[str, Any], asked: RunConfig, how: How) -> FitState:
    """Return the state of a new run, after all checks; makes its folder."""
    began, folder = time.time(), free_folder(out)
    images = load_images(asked, how.board)
    config, plan = planned(asked, images, arguments, folder, is_alone=how.no_ray)
    how.board.say(f"fit: {plan_in_words(plan, images)}")
    state = FitState(folder, arguments, config, plan, images, began=began)
    with made_for_writing(folder):
        create_run(folder, config_to_dict(config), __version__, images.record)
        state.write()
    return state


def continued(out: Place, arguments: Mapping[str, Any], how: How) -> FitState:
    """Return the state of a run to continue.

    Raises:
        RunFolderError: If it is none that `fit` began.
        ConfigError: If it was begun with other arguments.
        DataError: If the images changed.
    """
    began = time.time()
    check_is_run(out)
    folder = out.resolve()
    file = fit_file(folder)
    try:
        stored: Any = parse_json(read_file(file, _MOST_JSON), file.name, _MOST_JSON)
        plan, before = FitPlan.from_dict(stored["plan"]), dict(stored["arguments"])
        spent, decided = float(stored["spent"]), dict(stored["decided"])
        race = stored.get("race")  # a run of an earlier version decides it again, by the same rule
        if race is not None:
            race = [[NetworkSpec.from_dict(spec) for spec in members] for members in race]
        if decided:
            decided = {"epochs": int(decided["epochs"]), "imitates": bool(decided["imitates"])}
    except (OSError, JsonError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError("--resume with --out", address(folder), "a run that `fit` began") from error
    for name, words in _AS_BEFORE.items():
        if before.get(name) != arguments[name]:
            raise ConfigError("--resume", Words(words), f"what began {address(folder)}")
    config = config_from_dict(read_run(folder).config, address(config_file(folder)))
    images = load_images(config, how.board)
    check_images(folder, images.record, "put them back, or start a new run with another --out")
    return FitState(folder, arguments, config, plan, images, spent, race, decided, began)
