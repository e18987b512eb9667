"""The search space of a caller: a named one, or a file of the user.

A YAML file is data. A Python file is code and is executed with the rights of the user, like any script. Only the
argument `space` can name one. Its content is stored in the configuration as data: the run folder has no path to the
file, and a resumed run does not read it again.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnad_ray.config.run import SpaceConfig, config_from_dict, config_to_dict
from dnad_ray.errors import ConfigError, UserError, one_line
from dnad_ray.storage.files import read_file
from dnad_ray.storage.yaml_reader import MAX_BYTES, parse_yaml
from search_spaces.named import SPACES

__all__ = ["read_space"]

_KEYS = tuple(SpaceConfig.model_fields)


def read_space(text: str) -> dict[str, Any]:
    """Return the overrides of the section ``space`` for a named space or a file, by dotted key.

    Args:
        text: Name of a space, path of a YAML file with keys of the section, or path of a Python file that sets
            ``SPACE`` to such a mapping. Without the key ``name``, the name is ``own``, and ``operations`` is required.

    Raises:
        ConfigError: If the file cannot be read or executed, or has an unknown key or an impossible value.
    """
    path = Path(text)
    if text in SPACES:
        data: Mapping[str, Any] = {"name": text}
    elif path.suffix not in {".py", ".yaml", ".yml"}:
        raise ConfigError("--space", text, f"{', '.join(SPACES)}, or a .yaml or .py file")
    else:
        data = _of_python(path) if path.suffix == ".py" else _of_yaml(path)
    for key in data:
        if key not in _KEYS:
            raise ConfigError(f"--space {path}: key", key, ", ".join(_KEYS))
    # First without the recipe: missing sizes come from the named space.
    config = config_from_dict({"space": {"name": "own", **data}}, f"--space {path}")
    return {f"space.{key}": value for key, value in config_to_dict(config)["space"].items()}


def _of_yaml(path: Path) -> Mapping[str, Any]:
    try:
        data = parse_yaml(read_file(path, MAX_BYTES, follow_links=True), str(path))
    except OSError as error:
        raise ConfigError("--space", str(path), f"a readable file ({type(error).__name__})") from None
    except UserError as error:
        raise ConfigError("--space", str(path), f"YAML that parses: {one_line(error)}") from None
    if not isinstance(data, dict):
        raise ConfigError("--space", str(path), f"a mapping with keys such as {', '.join(_KEYS[:4])}")
    return data


def _of_python(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ConfigError("--space", str(path), "a readable file")
    try:
        names = runpy.run_path(str(path))
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything; the message contains it
        raise ConfigError("--space", str(path), f"code that runs ({type(error).__name__}: {one_line(error)})") from None
    space = names.get("SPACE")
    if not isinstance(space, Mapping) or not all(isinstance(key, str) for key in space):
        raise ConfigError("--space", str(path), "a file that sets SPACE to a mapping with keys such as operations")
    return space
