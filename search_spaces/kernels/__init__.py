"""How the supernet computes fast: banks of candidates, shared states, products, depthwise convolutions, the tape."""

from __future__ import annotations

__all__: list[str] = []
