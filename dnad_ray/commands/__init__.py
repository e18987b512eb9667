"""The commands as functions that take values and return their outcome. :mod:`dnad_ray` exports the public ones."""

from __future__ import annotations

__all__: list[str] = []
