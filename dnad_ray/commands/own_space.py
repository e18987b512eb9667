"""The search space that a caller names: one of ours, or one's own from a file.

A YAML file is data. A Python file is code, and runs with the rights of whoever names it, as any script does; that is
why nothing but a caller's own `space` names one, and why what it says goes into the configuration as data: a run
folder holds no path to it, and a resumed run never looks at it again.
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
    """Return the overrides of the section ``space`` that a named space or a file asks for, by dotted key.

    Args:
        text: Name of a space; or path of a YAML file whose keys are those of the section, or of a Python file that sets
            ``SPACE`` to such a mapping. Without the key ``name``, the space is ``own`` and must name its operations.

    Raises:
        ConfigError: If it cannot be read or run, or holds another key or an impossible value.
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
    # By itself first: sizes that the file leaves open are those of the space that it names, not of the recipe.
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
    except Exception as error:  # noqa: BLE001 - it is the user's code: whatever it raises is what there is to say
        raise ConfigError("--space", str(path), f"code that runs ({type(error).__name__}: {one_line(error)})") from None
    space = names.get("SPACE")
    if not isinstance(space, Mapping) or not all(isinstance(key, str) for key in space):
        raise ConfigError("--space", str(path), "a file that sets SPACE to a mapping with keys such as operations")
    return space
