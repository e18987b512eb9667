"""Check that the package ``analysis`` which Python finds is the one of this project."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from dnad_ray.errors import UserError

__all__ = ["check_packages"]


def check_packages() -> None:
    """Check that no other package hides ``analysis``.

    ``python -m``, a notebook and a script look first in the current folder, or in that of the script.

    Raises:
        UserError: If one does.
    """
    own = Path(__file__).resolve().parents[2] / "analysis"
    spec = find_spec("analysis")
    places = [Path(text).resolve() for text in (spec and spec.submodule_search_locations) or []]
    if own not in places[:1]:
        found = str(places[0] if places else spec and spec.origin)
        raise UserError("package analysis", found, f"{own}: rename the other one, or call from another folder")
