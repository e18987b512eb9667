"""The names of the formats of an exported network, and how their files end: plain data, no torch."""

from __future__ import annotations

__all__ = ["INT8", "INT8_SUFFIX", "SUFFIXES"]

SUFFIXES = {
    "onnx": ".onnx",
    "torch-export": ".pt2",
    "safetensors": ".safetensors",
    "python": ".py",
    "openvino": ".xml",
}
"""Name -> suffix; :data:`dnad_ray.deploy.formats.FORMATS` holds how they are written and read."""

INT8, INT8_SUFFIX = "onnx-int8", ".int8.onnx"
"""The quantised format, which needs images to be written: :mod:`dnad_ray.deploy.int8`."""
