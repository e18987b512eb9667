"""Conversion of arguments to values: configurations, settings, folders, budgets and displays."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dnad_ray.commands.own_space import read_space
from dnad_ray.config.recipes import RECIPES, recipe_named
from dnad_ray.config.run import RunConfig, config_from_dict, parse_assignment, with_overrides
from dnad_ray.data.loading import resolve_data_argument
from dnad_ray.errors import ConfigError, UserError, one_line
from dnad_ray.runtime.budget import Budget
from dnad_ray.search.checks import check_buildable
from dnad_ray.storage.files import read_file
from dnad_ray.storage.places import Place, place
from dnad_ray.storage.yaml_reader import MAX_BYTES, parse_yaml
from dnad_ray.text import parse_duration

if TYPE_CHECKING:
    from dnad_ray.watch.displays import Mode

__all__ = [
    "AnyPath",
    "Config",
    "Settings",
    "TimeBudget",
    "budget_of",
    "check_no_ray",
    "configured",
    "mode_of",
    "named_by_option",
    "out_of",
    "read_config",
    "settings_of",
    "with_absolute_paths",
]

AnyPath: TypeAlias = "str | PathLike[str] | Place"
"""A path, or a URL as text."""

Config: TypeAlias = "str | PathLike[str] | Mapping[str, Any] | RunConfig"
"""Name of a recipe, path of a YAML file, nested dictionaries as in that file, or a configuration."""

Settings: TypeAlias = "Mapping[str, Any] | Sequence[str]"
"""Keys to replace: ``{"shrink.rate": 0.1}``, or texts as the command line takes them, ``["shrink.rate=0.1"]``."""

TimeBudget: TypeAlias = "str | float | None"
"""Seconds, or a text such as ``10m``; None for no limit."""


def configured(
    config: Config,
    *,
    data: AnyPath | None = None,
    space: AnyPath | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    teacher_epochs: int | None = None,
    seed: int | None = None,
    trials: int | None = None,
    settings: Settings = (),
) -> RunConfig:
    """Return the requested configuration.

    Raises:
        UserError: If a name is unknown, a file cannot be read, or a value is impossible.
    """
    given = {
        option: (key, value)
        for option, key, value in (
            ("--image-size", "data.image_size", image_size),
            ("--epochs", "train.epochs", epochs),
            ("--teacher-epochs", "distill.teacher.epochs", teacher_epochs),
            ("--seed", "seed", seed),
            ("--trials", "sweep.num_trials", trials),
        )
        if value is not None
    }
    chosen = settings_of(settings)
    overrides = {} if data is None else resolve_data_argument(str(data))
    if space is not None:
        overrides |= read_space(str(space))
    overrides |= dict(given.values()) | chosen
    # All together, because one option can be valid only with another one.
    origin = ", ".join([*given, *["--set"] * bool(chosen)])
    with named_by_option({key: option for option, (key, _) in given.items()}, chosen):
        made = with_absolute_paths(with_overrides(read_config(config), overrides, origin or "CONFIG"))
    check_buildable(made)
    return made


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return a configuration whose paths mean the same in every folder: commands on the run may start elsewhere.

    Paths begin in the current folder; ``~`` is the home folder. URLs and names of published networks stay.
    """
    paths: dict[str, str] = {}
    if config.data.root is not None:
        paths["data.root"] = os.path.abspath(os.path.expanduser(config.data.root))  # noqa: PTH100, PTH111
    for name in ("genotype", "weights"):
        given = getattr(config.distill.teacher, name)
        if given is not None and os.path.exists(given):  # noqa: PTH110 - False also where pathlib raises
            paths[f"distill.teacher.{name}"] = os.path.abspath(given)  # noqa: PTH100
    return with_overrides(config, paths) if paths else config


@contextlib.contextmanager
def named_by_option(options: Mapping[str, str], settings: Mapping[str, Any]) -> Iterator[None]:
    """Name the one option that an error is about, where the key in it was given by one.

    Args:
        options: By key of the configuration, the option that gave it.
        settings: What ``--set`` gave, which has the last word.
    """
    try:
        yield
    except UserError as error:
        key = error.argument.rpartition(" ")[2]  # "--epochs, --set: train.epochs"
        option = f"--set: {key}" if key in settings else options.get(key)
        if option is None:
            raise
        raise type(error)(option, error.given, error.allowed) from None


def settings_of(settings: Settings) -> dict[str, Any]:
    """Return settings by key.

    >>> settings_of(["train.epochs=3"]), settings_of({"train.epochs": 3})
    ({'train.epochs': 3}, {'train.epochs': 3})
    """
    if isinstance(settings, Mapping):
        return {key: str(value) if isinstance(value, PathLike) else value for key, value in settings.items()}
    return dict(map(parse_assignment, [settings] if isinstance(settings, str) else settings))


def read_config(config: Config) -> RunConfig:
    """Return a configuration: the given one, the recipe of this name, or the content of the YAML file.

    Raises:
        ConfigError: If there is no such recipe or file, or it has an unknown key or an impossible value.
    """
    if isinstance(config, RunConfig):
        return config
    if isinstance(config, Mapping):
        return config_from_dict(dict(config), "CONFIG")
    text = str(config)
    path = Path(text)
    if text in RECIPES or (path.suffix not in (".yaml", ".yml") and not path.is_file()):
        return recipe_named(text)
    try:
        data = parse_yaml(read_file(path, MAX_BYTES, follow_links=True), text)
    except OSError as error:
        raise ConfigError("CONFIG", text, f"a readable YAML file ({type(error).__name__})") from None
    except UserError as error:
        raise ConfigError("CONFIG", text, f"YAML that parses: {one_line(error)}") from None
    if not isinstance(data, dict):
        raise ConfigError("CONFIG", text, "a YAML file with sections such as data, space, train")
    return config_from_dict(data, text)


def out_of(out: AnyPath | None, config: Config) -> Place:
    """Return the run folder: the given one, or ``runs/RECIPE``."""
    if out is not None:
        return place(out, "--out")
    if isinstance(config, RunConfig | Mapping):
        raise ConfigError("--out", None, "a run folder; only a recipe or a YAML file gives it a name")
    return Path("runs") / Path(config).stem


def budget_of(time_budget: TimeBudget, max_trials: int | None = None) -> Budget:
    """Return the budget of a command.

    Raises:
        ConfigError: If it is no duration, or zero.
    """
    if max_trials is not None and max_trials < 1:
        raise ConfigError("--max-trials", max_trials, "at least 1")
    return Budget(None if time_budget is None else parse_duration(str(time_budget)), max_trials)


def check_no_ray(no_ray: bool, address: str | None) -> None:
    """Check that no cluster is named where Ray is not wanted.

    Raises:
        ConfigError: If one is.
    """
    if no_ray and address is not None:
        raise ConfigError("--no-ray with --address", address, "one of them")


def mode_of(quiet: bool, as_json: bool = False) -> Mode:
    """Return how progress is shown."""
    if quiet and as_json:
        raise ConfigError("--quiet with --json", "both", "one of them")
    return "quiet" if quiet else "json" if as_json else "people"
