"""A user's own space: only what every space needs is preset."""

from __future__ import annotations

from search_spaces.named.template import SpaceTemplate

__all__ = ["OWN"]

OWN = SpaceTemplate(summary="a space of one's own: space.operations must be given", operations=())
