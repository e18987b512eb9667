"""Genotypes from anywhere: a file in any of the field's forms, or one that is shipped."""

from __future__ import annotations

from dnad_ray.errors import RunFolderError
from dnad_ray.files import read_file
from dnad_ray.places import Place, address, place
from search_spaces.formats import parse_any_genotype
from search_spaces.genotype import MAX_BYTES, Genotype
from search_spaces.published import published, published_named

__all__ = ["read_any_genotype"]


def read_any_genotype(path: str | Place, num_cells: int | None = None) -> Genotype:
    """Read a genotype in any form of :mod:`search_spaces.formats`.

    Args:
        path: A file, or the name of a shipped one (see :mod:`search_spaces.published`) where no such file is.
        num_cells: Cells of a network whose form does not say how many; None takes what is usual on CIFAR.

    Raises:
        GenotypeError: If the content is no genotype.
        RunFolderError: If there is no such file, and none of this name is shipped.
    """
    file = place(path, "genotype")
    try:
        content = read_file(file, MAX_BYTES, follow_links=True)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and str(path) in published():
            return published_named(str(path)).genotype(num_cells)
        allowed = "a readable genotype file, or a name that `dnad-ray published` lists"
        raise RunFolderError("genotype", address(file), allowed) from error
    return parse_any_genotype(content, address(file), num_cells)
