"""The verbs as functions: each takes values and returns how it ended; :mod:`dnad_ray` hands on those for people."""

from __future__ import annotations

__all__: list[str] = []
