"""The names of the formats of an exported network, and how their files end: plain data, no torch."""

from __future__ import annotations

__all__ = ["SUFFIXES"]

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors", "python": ".py"}
"""Name -> suffix; :data:`dnad_ray.deploy.formats.FORMATS` holds how they are written and read."""
