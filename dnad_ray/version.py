"""The version of the package, which every room may import and ``pyproject.toml`` reads."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
