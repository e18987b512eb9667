"""A space of one's own: nothing is preset but what every space needs."""

from __future__ import annotations

from search_spaces.named.template import SpaceTemplate

__all__ = ["OWN"]

OWN = SpaceTemplate(summary="a space of one's own: space.operations must be given", operations=())
