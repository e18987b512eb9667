"""From what was typed to a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnad_ray.errors import ConfigError, UserError, one_line

# Torch takes seconds to import; what needs it imports it itself.
if TYPE_CHECKING:
    from dnad_ray.config.run import RunConfig

__all__ = ["configured", "read_config"]


def configured(options: dict[str, Any]) -> RunConfig:
    """Return the configuration that the options ask for."""
    from dnad_ray.cli.own_space import read_space
    from dnad_ray.config.run import parse_assignment, with_overrides
    from dnad_ray.data.loading import resolve_data_argument
    from dnad_ray.search.checks import check_buildable

    short = {"image_size": "data.image_size", "epochs": "train.epochs", "seed": "seed", "trials": "sweep.num_trials"}
    given = [name for name in short if options[name] is not None]
    overrides = {} if options["data"] is None else resolve_data_argument(options["data"])
    if options.get("space") is not None:
        overrides |= read_space(options["space"])
    overrides |= {short[name]: options[name] for name in given}
    overrides |= dict(map(parse_assignment, options["assignments"]))
    # All at once: one option may be what makes another possible.
    origin = ", ".join([f"--{name.replace('_', '-')}" for name in given] + ["--set"] * bool(options["assignments"]))
    config = with_overrides(read_config(options["config"]), overrides, origin or "CONFIG")
    check_buildable(config)
    return config


def read_config(text: str) -> RunConfig:
    """Return the recipe of that name, or what the YAML file says."""
    from dnad_ray.config.recipes import RECIPES, recipe_named
    from dnad_ray.config.run import config_from_dict
    from dnad_ray.storage.files import read_file
    from dnad_ray.storage.yaml_reader import MAX_BYTES, parse_yaml

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
