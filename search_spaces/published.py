"""Published cells as data, each with its source and published figures (standard library only)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from search_spaces.errors import GenotypeError
from search_spaces.formats import parse_any_genotype
from search_spaces.genotype import Genotype
from search_spaces.json_reader import parse_json

__all__ = ["PublishedCell", "published", "published_named"]


@dataclass(frozen=True, kw_only=True)
class PublishedCell:
    """A published cell.

    Attributes:
        name: Its name on the command line.
        title: Its name in the paper.
        paper: Where it was published.
        source: Where the genotype was read.
        figures: Setting -> what was published about its network there: `params_millions`, `macs_millions`,
            `test_error_percent`, as printed, and `settings` where they are not the usual ones.
        remark: A remark, or an empty text.
        form: The genotype in the form in which it was published.
    """

    name: str
    title: str
    paper: str
    source: str
    figures: dict[str, dict[str, Any]]
    remark: str
    form: Any

    def genotype(self, num_cells: int | None = None) -> Genotype:
        """Return the genotype of its network of some cells, see :func:`search_spaces.formats.parse_any_genotype`."""
        return parse_any_genotype(json.dumps(self.form), self.name, num_cells)


@lru_cache(maxsize=1)
def published() -> dict[str, PublishedCell]:
    """Return by name all cells that are shipped."""
    content = files("search_spaces").joinpath("published.json").read_bytes()
    entries = parse_json(content, "published.json")
    return {entry["name"]: PublishedCell(**entry) for entry in entries}


def published_named(name: str) -> PublishedCell:
    """Return the cell of a name.

    Raises:
        GenotypeError: If there is none.
    """
    if name not in published():
        raise GenotypeError("published genotype", name, ", ".join(published()))
    return published()[name]
