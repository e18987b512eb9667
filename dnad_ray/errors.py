"""Errors of searches and run folders. Their base class is in the package of the search spaces."""

from __future__ import annotations

from search_spaces.errors import DnadRayError, GenotypeError, SpaceError, UserError

__all__ = [
    "ConfigError",
    "DamagedRunError",
    "DataError",
    "DnadRayError",
    "DriftError",
    "GenotypeError",
    "IncompleteRunError",
    "NonFiniteLossError",
    "RayStartError",
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
    """A run folder is missing, in use, of a newer schema, or not a run folder at all."""


class DamagedRunError(RunFolderError):
    """The marker of a run cannot be read; runs that are named beside it can."""


class ResourceError(UserError):
    """The machine or the cluster does not have the requested resources."""


class RayStartError(ResourceError):
    """Ray does not start on this machine."""


class NonFiniteLossError(DnadRayError):
    """The training loss became NaN or infinite. The trial stops; its snapshots are kept."""


class DriftError(DnadRayError):
    """The processes of a search no longer have the same weights."""


class IncompleteRunError(DnadRayError):
    """Some trials of a sweep did not finish; the message says how to resume."""


def one_line(error: BaseException | str) -> str:
    r"""Return a text, or the message of an exception, without line breaks. Blanks within a line, as in a path, stay.

    >>> one_line(KeyError("step"))
    "the key 'step' is missing"
    >>> one_line(OSError("no folder  a  b\n  here"))
    'no folder  a  b here'
    """
    if isinstance(error, KeyError) and error.args:
        return f"the key {error.args[0]!r} is missing"
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return text or type(error).__name__
