"""The only import of torchvision, which is slow and fails beside a PyTorch built for other hardware.

When torchvision's compiled operators cannot be loaded (for example its CUDA wheel beside a CPU-only PyTorch), its
import ends with ``operator torchvision::nms does not exist``, although the datasets need no operator at all. Naming
the two missing operators is enough for the import to pass; calling them still fails, as it should.
"""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType

import torch

__all__ = ["torchvision_datasets", "torchvision_models"]

# What torchvision attaches Python kernels to at import, whether or not its library was loaded.
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def torchvision_datasets() -> ModuleType:
    """Return the module ``torchvision.datasets``, imported on the first call.

    A correct installation is imported as it is; missing operators are named only after an import has failed for
    want of them, because a name taken too early would clash with torchvision's own library.

    Raises:
        ImportError: If torchvision is not installed.
    """
    return _imported("torchvision.datasets")


def torchvision_models() -> ModuleType:
    """Return the module ``torchvision.models``, imported as :func:`torchvision_datasets` does."""
    return _imported("torchvision.models")


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if not any(f"torchvision::{operator} does not exist" in str(error) for operator in _SCHEMAS):
            raise
    # The failed import left submodules behind that would not run again.
    for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    _name_missing_operators()
    return importlib.import_module(name)


@functools.cache  # the names last as long as the Library object, so it must outlive the call
def _name_missing_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    return library
