"""The root of every error that the toolkit raises on purpose."""

from __future__ import annotations

__all__ = ["DnadRayError", "GenotypeError", "SpaceError", "UserError"]


class DnadRayError(Exception):
    """Root of all errors of the toolkit; catch it to catch them all."""


class UserError(DnadRayError, ValueError):
    """A value that somebody gave cannot be used; the command line exits with code 2.

    Args:
        argument: What the value was given for, in the words the user knows (an option, a key, a file).
        given: The value as it was given.
        allowed: What would have been accepted, in words.
    """

    def __init__(self, argument: str, given: object, allowed: str) -> None:
        self.argument, self.given, self.allowed = argument, given, allowed
        super().__init__(f"{argument}: got {given!r}; allowed: {allowed}")

    def __reduce__(self) -> tuple[type[UserError], tuple[str, object, str]]:
        # Exceptions are pickled by their args; ours has three and a message, and crosses processes under Ray.
        return type(self), (self.argument, self.given, self.allowed)


class GenotypeError(UserError):
    """A genotype, or the file that should hold one, is not a network that can be built."""


class SpaceError(UserError):
    """A search space, or an operation in it, is unknown or impossible."""
