"""Networks of cells in plain PyTorch, which `dnad-ray export --format python` writes into a module of its own.

They stand alone on purpose: nothing here imports another part of the package. The parameters have the names that
:mod:`search_spaces.network` gives them, so that one file of weights fits both; tests hold every operation, skeleton and
named space to the same outputs, bit for bit.
"""

from __future__ import annotations

__all__: list[str] = []
