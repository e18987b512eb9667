"""What can be built: genotypes, candidate operations, the supernet and the networks derived from it."""

from __future__ import annotations

from search_spaces.errors import DnadRayError, GenotypeError, SpaceError, UserError
from search_spaces.genotype import CellGenotype, Edge, Genotype

__all__ = ["CellGenotype", "DnadRayError", "Edge", "Genotype", "GenotypeError", "SpaceError", "UserError"]
