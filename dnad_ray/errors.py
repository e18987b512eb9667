"""Errors of the search and of run folders; their root is shared with the search spaces."""

from __future__ import annotations

from search_spaces.errors import DnadRayError, GenotypeError, SpaceError, UserError

__all__ = [
    "ConfigError",
    "DataError",
    "DnadRayError",
    "DriftError",
    "GenotypeError",
    "IncompleteRunError",
    "NonFiniteLossError",
    "ResourceError",
    "RunFolderError",
    "SpaceError",
    "UserError",
    "one_line",
]


class ConfigError(UserError):
    """A configuration has an unknown key or an impossible value."""


class DataError(UserError):
    """A dataset, an image folder or an image cannot be used."""


class RunFolderError(UserError):
    """A run folder is missing, foreign, occupied, or of a newer schema."""


class ResourceError(UserError):
    """The machine or the cluster cannot give what was asked for."""


class NonFiniteLossError(DnadRayError):
    """The training loss became NaN or infinite; the trial stops and its snapshots stand."""


class DriftError(DnadRayError):
    """The processes that share a search no longer hold the same weights."""


class IncompleteRunError(DnadRayError):
    """Some trials of a sweep did not finish; the message says how to resume."""


def one_line(error: BaseException) -> str:
    """Return what an exception says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
