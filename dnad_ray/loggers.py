"""Optional experiment trackers: which packages they need, and whether these are there."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from dnad_ray.errors import ConfigError

__all__ = ["check_loggers", "optional_module"]


def check_loggers(names: Sequence[str]) -> None:
    """Check that the packages of the wanted loggers are installed; imports none.

    Raises:
        ConfigError: If one is missing.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError("watch.loggers", name, f"an installed package: pip install 'dnad-ray[{name}]'")


def optional_module(name: str) -> Any:
    """Import a module of an optional package.

    Raises:
        ConfigError: If the package is missing.
    """
    check_loggers([name.partition(".")[0]])
    return importlib.import_module(name)
