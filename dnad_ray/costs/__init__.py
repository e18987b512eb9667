"""Costs of a network: multiply-adds and parameters, as fvcore counts them."""

from __future__ import annotations

__all__: list[str] = []
